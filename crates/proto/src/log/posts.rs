//! Which posts of which device a room's log holds: so that one that comes twice is known.
//!
//! What was never cut away is all here. Afterwards a device is known from some number of its posts on, up to another: what
//! lies outside is on disk, to be looked up there. What is settled or old is forgotten, so that this does not grow with the
//! log; see [`Posts::shrink`].

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry as Slot};

use crate::{
    ids::{DeviceId, Origin, PersonId},
    log::{
        Entry, Hash, PostKey,
        entry::DisplayOrder,
        room::{Held, Standing},
    },
    planted::{self, Bug},
};

/// A device of a person.
type Device = (PersonId, DeviceId);

/// The canonical entry of each post.
#[derive(Debug)]
pub(super) struct Posts {
    devices: BTreeMap<Device, Numbers>,
    /// Those that may be forgotten, the one idle for longest first.
    idle: BTreeSet<(u64, Device)>,
    uses: u64,
    /// Posts of all devices.
    records: usize,
    /// Whether nothing was forgotten: a device that is not here has posted nothing.
    complete: bool,
}

/// The posts of one device, by number.
#[derive(Debug, Default)]
struct Numbers {
    posts: BTreeMap<u64, Record>,
    /// The first and the last of numbers that are all here: what is looked for is mostly the one behind them.
    run: Option<(u64, u64)>,
    /// From and up to which number nothing is missing.
    known: Option<(u64, u64)>,
    /// The oldest number that it last named as unsettled: it does not ask again for those below.
    oldest: u64,
    used: u64,
    /// Whether the disk was asked for it: it is not forgotten meanwhile.
    awaited: bool,
}

/// Where a post stands. What its entry says is known by a hash once that is in memory no longer.
#[derive(Clone, Copy, Debug)]
struct Record {
    order: DisplayOrder,
    content: Option<Hash>,
}

impl Posts {
    /// Of a log whose entries are all still to come, or not.
    pub(super) fn new(complete: bool) -> Self {
        Self { devices: BTreeMap::new(), idle: BTreeSet::new(), uses: 0, records: 0, complete }
    }

    /// An entry is in memory.
    pub(super) fn insert(&mut self, entry: &Entry) {
        self.add(entry, None);
    }

    /// An entry goes out of memory, and is on disk.
    pub(super) fn evicted(&mut self, entry: &Entry) {
        let numbers = self.devices.get_mut(&(entry.person, entry.device));
        if let Some(record) = numbers.and_then(|numbers| numbers.posts.get_mut(&entry.client_seq))
            && record.order == entry.order()
        {
            record.content = Some(entry.content());
        }
    }

    /// The canonical entry of a post, if that is known.
    pub(super) fn canonical(&self, key: PostKey) -> Option<DisplayOrder> {
        let numbers = self.devices.get(&(key.person, key.device))?;
        numbers.record(key.client_seq).map(|record| record.order)
    }

    /// Where an entry of a post stands, be it the canonical one or not.
    pub(super) fn any(&self, key: PostKey) -> Option<DisplayOrder> {
        let numbers = self.devices.get(&(key.person, key.device))?;
        numbers.posts.get(&key.client_seq).map(|record| record.order)
    }

    /// How it stands with a post of a device whose oldest unsettled number is `oldest`.
    pub(super) fn standing(&self, key: PostKey, oldest: u64) -> Standing {
        let first = oldest.min(key.client_seq);
        let Some(numbers) = self.devices.get(&(key.person, key.device)) else {
            return if self.complete { Standing::Missing { next: oldest } } else { Standing::Unknown { from: first } };
        };
        if let Some(record) = numbers.record(key.client_seq) {
            return Standing::Held(Held { order: record.order, content: record.content });
        }
        let Some((_, to)) = numbers.known.filter(|(from, _)| *from <= first) else {
            return Standing::Unknown { from: first };
        };
        if key.client_seq > to {
            return Standing::Unknown { from: to + 1 };
        }
        match numbers.next(oldest) {
            next if next > to => Standing::Unknown { from: to + 1 },
            next => Standing::Missing { next },
        }
    }

    /// The disk is asked for a device's posts.
    pub(super) fn expect(&mut self, device: Device) {
        let numbers = self.devices.entry(device).or_default();
        self.idle.remove(&(numbers.used, device));
        numbers.awaited = true;
    }

    /// A device names its oldest unsettled number.
    pub(super) fn named(&mut self, device: Device, oldest: u64) {
        if let Some(numbers) = self.devices.get_mut(&device) {
            numbers.oldest = numbers.oldest.max(oldest);
        }
    }

    /// What the disk said: all canonical entries of the device's posts from number `from` up to `to`, in memory or not.
    /// False where that says nothing, since nobody waits for it.
    pub(super) fn learn<'a>(
        &mut self,
        device: Device,
        (from, to): (u64, u64),
        found: impl Iterator<Item = (&'a Entry, bool)>,
    ) -> bool {
        if !self.devices.get(&device).is_some_and(|numbers| numbers.awaited) {
            return false;
        }
        for (entry, in_memory) in found {
            self.add(entry, (!in_memory).then(|| entry.content()));
        }
        let Some(numbers) = self.devices.get_mut(&device) else { return false };
        // What was forgotten before it was asked is on disk, and since then nothing was.
        numbers.known = match numbers.known {
            Some((first, last)) if from <= last.saturating_add(1) && first <= to.saturating_add(1) => {
                Some((first.min(from), last.max(to)))
            }
            _ => Some((from, to)).filter(|(from, to)| from <= to),
        };
        self.forget_expected(device);
        true
    }

    /// There is no such entry any more: its post is not here. Whether another entry of that post is, the disk has to say.
    pub(super) fn lose(&mut self, origin: Origin, seq: u64) {
        let is_it = |record: &Record| (record.order.1, record.order.2) == (origin, seq);
        for numbers in self.devices.values_mut() {
            let lost = numbers.posts.iter().find(|(_, record)| is_it(record)).map(|(number, _)| *number);
            if let Some(lost) = lost {
                numbers.posts.remove(&lost);
                (numbers.run, numbers.known) = (None, None);
                self.records -= 1;
                return;
            }
        }
    }

    /// The disk does not say anything of a device.
    pub(super) fn forget_expected(&mut self, device: Device) {
        self.uses += 1;
        let Some(numbers) = self.devices.get_mut(&device) else { return };
        if numbers.awaited {
            (numbers.awaited, numbers.used) = (false, self.uses);
            self.idle.insert((self.uses, device));
        }
    }

    /// How much is here: posts, and devices beside them.
    pub(super) fn size(&self) -> usize {
        self.records + self.devices.len()
    }

    /// Where more than `max` posts and devices are here, forgets until it is an eighth less: first what devices have settled,
    /// then the lower half of each, those idle for longest first, then devices. What is said of an entry in memory stays, so
    /// what is forgotten is on disk. Each device is forgotten a part at a time, so who posts seldom is still known.
    pub(super) fn shrink(&mut self, max: usize) {
        if self.size() <= max {
            return;
        }
        let enough = max - max / 8;
        let idle: Vec<_> = self.idle.iter().copied().collect();
        for (_, device) in &idle {
            self.forget_below(*device, |numbers| numbers.oldest, enough);
        }
        for _ in 0..2 {
            for (_, device) in &idle {
                self.forget_below(*device, Numbers::middle, enough);
            }
        }
        for (used, device) in idle {
            self.forget_below(device, |_| u64::MAX, enough);
            let is_empty = self.devices.get(&device).is_some_and(|numbers| numbers.posts.is_empty());
            if is_empty && self.size() > enough {
                self.complete = false;
                self.idle.remove(&(used, device));
                self.devices.remove(&device);
            }
        }
    }

    /// Forgets what a device has below a number, up to the first that is in memory, while more than `enough` is here.
    fn forget_below(&mut self, device: Device, end: impl Fn(&Numbers) -> u64, enough: usize) {
        if self.size() <= enough {
            return;
        }
        let Some(numbers) = self.devices.get_mut(&device) else { return };
        let end = end(numbers);
        let mut last = None;
        while let Some(first) = numbers.posts.first_entry()
            && *first.key() < end
            && first.get().content.is_some()
        {
            last = Some(first.remove_entry().0);
            self.records -= 1;
        }
        let above = last.map_or(0, |last| last.saturating_add(1));
        numbers.run = numbers.run.map(|(from, to)| (from.max(above), to)).filter(|(from, to)| from <= to);
        if let Some(last) = last {
            let known = numbers.known.map(|(from, to)| (from.max(last.saturating_add(1)), to));
            numbers.known = known.filter(|(from, to)| from <= to);
        }
    }

    fn add(&mut self, entry: &Entry, content: Option<Hash>) {
        let device = (entry.person, entry.device);
        let known = self.complete.then_some((0, u64::MAX));
        let numbers = self.devices.entry(device).or_insert_with(|| Numbers { known, ..Numbers::default() });
        let record = Record { order: entry.order(), content };
        match numbers.posts.entry(entry.client_seq) {
            Slot::Vacant(slot) => {
                slot.insert(record);
                self.records += 1;
                numbers.extend_run(entry.client_seq);
            }
            Slot::Occupied(mut slot) if (record.order < slot.get().order) != planted::is(Bug::LaterDuplicate) => {
                slot.insert(record);
            }
            Slot::Occupied(_) => {}
        }
        if !numbers.awaited {
            self.idle.remove(&(numbers.used, device));
            self.uses += 1;
            numbers.used = self.uses;
            self.idle.insert((self.uses, device));
        }
    }
}

impl Numbers {
    /// Where a post stands for certain: no earlier entry of it can be on disk alone.
    fn record(&self, number: u64) -> Option<&Record> {
        let (from, to) = self.known?;
        self.posts.get(&number).filter(|_| (from..=to).contains(&number))
    }

    /// The number in the middle of those that are here.
    fn middle(&self) -> u64 {
        self.posts.keys().nth(self.posts.len().div_ceil(2)).copied().unwrap_or(u64::MAX)
    }

    /// A number is new here.
    fn extend_run(&mut self, number: u64) {
        match &mut self.run {
            Some((_, last)) if *last + 1 == number => {
                *last = number;
                while self.posts.contains_key(&(*last + 1)) {
                    *last += 1;
                }
            }
            Some((_, last)) if number <= *last => {}
            run => *run = Some((number, number)),
        }
    }

    /// The first number from `oldest` on that is not here.
    fn next(&self, oldest: u64) -> u64 {
        let within = self.run.filter(|(first, last)| (*first..=*last).contains(&oldest));
        let oldest = within.map_or(oldest, |(_, last)| last + 1);
        let posts = || self.posts.range(oldest..);
        let gap = posts().zip(oldest..=u64::MAX).find(|((held, _), wanted)| *held != wanted);
        gap.map_or_else(|| oldest.saturating_add(posts().count() as u64), |(_, wanted)| wanted)
    }
}
