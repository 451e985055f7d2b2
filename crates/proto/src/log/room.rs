//! A room's log: a grow-only set of entries, of which the tail is in memory.
//!
//! Only its origin writes an origin's part, in order, so the log is a sequence for each origin; display order and the
//! index of posts are views of that set. Two logs merge by union (Shapiro et al., "Conflict-free replicated data types",
//! 2011). What is inserted here has no hole before it: [`Receiver`](crate::delivery::receiver::Receiver) sees to that.
//!
//! ```text
//!                       floors         cut
//!   display order  ------|--------------|------------------->
//!                  given up   on disk      in memory
//! ```
//!
//! Everything beyond the cut in display order is in memory, and so is what came late below it until it is trimmed too.
//! Where nothing was ever cut, as in a server without a store, everything is. An answer for which memory does not suffice
//! is `None`: the disk is to be asked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId},
    log::{
        Entry, PostKey, VersionVector,
        entry::{self, DisplayOrder, Hash},
        posts::Posts,
    },
    store::{DEVICE_POSTS_MAX, Head},
    wire::Frame,
};

/// Posts that the index keeps for each entry that may stay in memory: a record takes much less than an entry, and one that is
/// missing costs a question to the disk.
const POSTS_PER_ENTRY: usize = 64;

/// An entry as it is kept: with the line that tells a follower of it, serialised once for all.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The entry.
    pub entry: Arc<Entry>,
    /// [`Frame::Entry`] as a line, newline included.
    pub line: Arc<str>,
}

impl From<Entry> for Kept {
    fn from(entry: Entry) -> Self {
        let frame = Frame::Entry(entry);
        let line = frame.to_line().into();
        let Frame::Entry(entry) = frame else { unreachable!("it was made two lines above") };
        Self { entry: Arc::new(entry), line }
    }
}

/// What became of an insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    New,
    /// It was there.
    Known,
    /// The same dot is held with another content.
    Conflict {
        /// The hash that is held.
        held: Hash,
    },
    /// Its number does not follow the last one of its origin.
    Hole,
}

/// How it stands with a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in the log.
    Held(Held),
    /// It is not.
    Missing {
        /// The first number that no post of the device has, from its oldest unsettled one on: the one to be admitted next.
        next: u64,
    },
    /// Memory cannot say. The disk can: to be asked for the device's posts.
    Unknown {
        /// From this number on.
        from: u64,
    },
}

/// A post that is in the log, on disk or in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where its canonical entry stands: of several with the same key, the first in display order.
    pub order: DisplayOrder,
    pub(super) content: Option<Hash>,
}

impl Held {
    /// Whether the post says this.
    #[must_use]
    pub fn says(&self, kind: &str, body: &str) -> bool {
        self.content == Some(entry::content(kind, body))
    }
}

/// The entries of one room.
#[derive(Debug)]
pub struct RoomLog {
    parts: BTreeMap<Origin, Part>,
    display: BTreeSet<DisplayOrder>,
    posts: Posts,
    newest: Hlc,
    /// Everything above it is in memory; `None`: just everything.
    cut: Option<DisplayOrder>,
    /// What is not kept any more.
    floors: VersionVector,
    /// Entries on disk and in memory.
    len: usize,
    /// Of lines in memory.
    bytes: usize,
}

/// What is in memory of an origin: its newest entries.
#[derive(Debug)]
struct Part {
    /// The number of the first of them.
    first: u64,
    entries: VecDeque<Kept>,
}

impl Part {
    /// The number of the entry that comes next.
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn get(&self, seq: u64) -> Option<&Kept> {
        self.entries.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }
}

impl Default for RoomLog {
    fn default() -> Self {
        Self {
            parts: BTreeMap::new(),
            display: BTreeSet::new(),
            posts: Posts::new(true),
            newest: Hlc::default(),
            cut: None,
            floors: VersionVector::default(),
            len: 0,
            bytes: 0,
        }
    }
}

impl RoomLog {
    /// A log of which nothing is in memory yet, and this is on disk.
    pub fn restored(head: &Head) -> Self {
        let part = |(origin, held): (Origin, u64)| (origin, Part { first: held + 1, entries: VecDeque::new() });
        let mut covered = head.held.clone();
        covered.merge(&head.floors);
        let is_new = covered.origins() == 0;
        Self {
            parts: covered.iter().map(part).collect(),
            posts: Posts::new(is_new),
            newest: head.newest.0,
            cut: (!is_new).then_some(head.newest),
            floors: head.floors.clone(),
            len: usize::try_from(head.entries).unwrap_or(usize::MAX),
            ..Self::default()
        }
    }

    /// Adds the next entry of its origin.
    pub fn insert(&mut self, entry: Entry) -> Inserted {
        let (first, next) = self.parts.get(&entry.origin).map_or((1, 1), |part| (part.first, part.next()));
        if entry.seq != next {
            return match self.get(entry.origin, entry.seq) {
                Some(kept) if kept.entry.hash == entry.hash => Inserted::Known,
                Some(kept) => Inserted::Conflict { held: kept.entry.hash },
                None if (1..first).contains(&entry.seq) => Inserted::Known,
                None => Inserted::Hole,
            };
        }
        self.newest = self.newest.max(entry.hlc);
        self.display.insert(entry.order());
        if !entry.is_lost() {
            self.posts.insert(&entry);
        }
        let part = self.parts.entry(entry.origin).or_insert_with(|| Part { first: 1, entries: VecDeque::new() });
        let kept = Kept::from(entry);
        self.bytes += kept.line.len();
        self.len += 1;
        part.entries.push_back(kept);
        Inserted::New
    }

    /// An entry that was lost has turned up: takes the place of its marker, if that is in memory.
    pub fn find_again(&mut self, kept: &Kept) {
        let entry = &kept.entry;
        let Some(part) = self.parts.get_mut(&entry.origin) else { return };
        let at = entry.seq.checked_sub(part.first).and_then(|at| usize::try_from(at).ok());
        let Some(place) = at.and_then(|at| part.entries.get_mut(at)).filter(|there| there.entry.is_lost()) else {
            return;
        };
        let marker = std::mem::replace(place, kept.clone());
        self.display.remove(&marker.entry.order());
        self.bytes = self.bytes - marker.line.len() + kept.line.len();
        self.newest = self.newest.max(entry.hlc);
        self.display.insert(entry.order());
        self.posts.insert(entry);
    }

    /// There is a marker in the place of an entry on disk: it is the entry of no post any more.
    pub fn lose(&mut self, origin: Origin, seq: u64) {
        self.posts.lose(origin, seq);
    }

    /// One entry, if it is in memory.
    pub fn get(&self, origin: Origin, seq: u64) -> Option<&Kept> {
        self.parts.get(&origin)?.get(seq)
    }

    /// How many entries there are, on disk and in memory.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none, and never was.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many entries are in memory.
    pub fn in_memory(&self) -> usize {
        self.display.len()
    }

    /// How many bytes their lines have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest time of all entries.
    pub fn newest(&self) -> Hlc {
        self.newest
    }

    /// All entries in memory, in display order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Kept> {
        self.display.iter().filter_map(|&(_, origin, seq)| self.get(origin, seq))
    }

    // ---- posts

    /// Where the canonical entry of a post stands, if that is known.
    pub fn post(&self, key: PostKey) -> Option<DisplayOrder> {
        self.posts.canonical(key)
    }

    /// Where an entry of a post stands, though there may be an earlier one on disk. None where none is known.
    pub fn any_of_post(&self, key: PostKey) -> Option<DisplayOrder> {
        self.posts.any(key)
    }

    /// How it stands with a post of a device whose oldest unsettled number is `oldest`.
    pub fn standing(&self, key: PostKey, oldest: u64) -> Standing {
        match self.posts.standing(key, oldest) {
            Standing::Held(Held { order, content: None }) => match self.get(order.1, order.2) {
                Some(kept) => Standing::Held(Held { order, content: Some(kept.entry.content()) }),
                None => Standing::Unknown { from: oldest.min(key.client_seq) },
            },
            standing => standing,
        }
    }

    /// A device names its oldest unsettled number: posts below are forgotten first.
    pub fn named(&mut self, person: PersonId, device: DeviceId, oldest: u64) {
        self.posts.named((person, device), oldest);
    }

    /// The disk is asked for a device's posts: keeps what is known of it until [`Self::learn`], or
    /// [`Self::forget_expected`].
    pub fn expect(&mut self, person: PersonId, device: DeviceId) {
        self.posts.expect((person, device));
    }

    /// The canonical entries of a device's posts from number `from` on, as they are on disk. False where nobody waits for
    /// that.
    pub fn learn(&mut self, person: PersonId, device: DeviceId, from: u64, found: &[Kept]) -> bool {
        let is_all = found.len() < DEVICE_POSTS_MAX;
        let to = found.last().filter(|_| !is_all).map_or(u64::MAX, |kept| kept.entry.client_seq);
        let fits = |entry: &&Entry| (entry.person, entry.device) == (person, device) && entry.client_seq >= from;
        let here: Vec<_> = self.iter().map(|kept| kept.entry.clone()).filter(|entry| fits(&&**entry)).collect();
        let found = found.iter().map(|kept| &*kept.entry).filter(fits);
        let found: Vec<_> = found.map(|entry| (entry, self.get(entry.origin, entry.seq).is_some())).collect();
        let all = found.into_iter().chain(here.iter().map(|entry| (&**entry, true)));
        self.posts.learn((person, device), (from, to), all)
    }

    /// The disk does not say anything of a device.
    pub fn forget_expected(&mut self, person: PersonId, device: DeviceId) {
        self.posts.forget_expected((person, device));
    }

    // ---- starts

    /// The cursor beyond which the last `count` posts lie; `held` is the vector of the whole log. A post with several
    /// entries is shown once, so it counts once: where the first of them stands.
    pub fn start_of_last(&self, count: u32, held: &VersionVector) -> Option<VersionVector> {
        if count == 0 {
            return Some(held.clone());
        }
        let mut left = count;
        for order in self.display.iter().rev().take_while(|order| self.cut.is_none_or(|cut| **order > cut)) {
            left -= u32::from(self.is_canonical(order)?);
            if left == 0 {
                return Some(self.start_at(Some(*order), held));
            }
        }
        self.cut.is_none().then(|| self.start_at(self.display.first().copied(), held))
    }

    /// Whether an entry is the one that its post is shown as, if that is known.
    fn is_canonical(&self, order: &DisplayOrder) -> Option<bool> {
        let kept = self.get(order.1, order.2)?;
        if kept.entry.is_lost() {
            return Some(false);
        }
        self.posts.canonical(kept.entry.post_key()).map(|canonical| canonical == *order)
    }

    /// The cursor beyond which entries from `millis` (cluster time) on lie.
    pub fn start_since(&self, millis: u64, held: &VersionVector) -> Option<VersionVector> {
        let from = (Hlc { millis, counter: 0 }, Origin::MIN, 0);
        let suffices = self.cut.is_none_or(|cut| from > cut);
        suffices.then(|| self.start_at(self.display.range(from..).next().copied(), held))
    }

    /// The cursor that covers what is displayed before `first`: within an origin, display order is the order of seq.
    fn start_at(&self, first: Option<DisplayOrder>, held: &VersionVector) -> VersionVector {
        let Some(first) = first else { return held.clone() };
        self.parts
            .iter()
            .map(|(&origin, part)| {
                let before = part.entries.partition_point(|kept| kept.entry.order() < first);
                (origin, part.first - 1 + before as u64)
            })
            .collect()
    }

    /// The cursor that covers what is not in memory.
    pub fn start_of_tail(&self) -> VersionVector {
        self.parts.iter().map(|(&origin, part)| (origin, part.first - 1)).collect()
    }

    /// A start as a follower hears it. Where nothing that is kept lies before it, but once did, it begins at nothing: so the
    /// follower asks for what is gone, and hears that it is.
    pub fn told(&self, start: VersionVector) -> VersionVector {
        if self.floors.covers(&start) { VersionVector::default() } else { start }
    }

    // ---- ranges

    /// The entries of the given ranges (origin, first seq, last seq), the first `max` in display order; fewer where their
    /// lines would have more than `bytes_max` bytes, but one. `None` where some are on disk.
    pub fn ranges(&self, want: &[(Origin, u64, u64)], max: usize, bytes_max: usize) -> Option<Vec<Kept>> {
        let on_disk = |&(origin, from, to): &(Origin, u64, u64)| {
            let lowest = from.max(self.floors.get(origin) + 1);
            self.parts.get(&origin).is_some_and(|part| lowest < part.first && lowest <= to)
        };
        (!want.iter().any(on_disk)).then(|| self.unite(want, Vec::new(), max, bytes_max))
    }

    /// The same, of what is in memory and what the disk has `found` of these ranges: of each origin as much as follows
    /// without a hole.
    pub fn unite(&self, want: &[(Origin, u64, u64)], found: Vec<Kept>, max: usize, bytes_max: usize) -> Vec<Kept> {
        let end = found.last().map(|kept| kept.entry.order());
        let found: BTreeMap<_, _> = found.into_iter().map(|kept| ((kept.entry.origin, kept.entry.seq), kept)).collect();
        let (mut all, mut cut_short) = (Vec::new(), false);
        for &(origin, from, to) in want {
            let Some(part) = self.parts.get(&origin) else { continue };
            let from = from.max(self.floors.get(origin) + 1);
            let to = to.min(part.next() - 1);
            let there = (from..=to).take(max).map_while(|seq| part.get(seq).or(found.get(&(origin, seq))));
            let before = all.len();
            all.extend(there.cloned());
            cut_short |= from <= to && ((all.len() - before) as u64) < (to - from + 1).min(max as u64);
        }
        all.sort_unstable_by_key(|kept| kept.entry.order());
        all.dedup_by_key(|kept| kept.entry.order());
        // Where the disk goes on beyond what was read, what comes after that is not next.
        let end = end.filter(|_| cut_short);
        let mut bytes = 0;
        let fits = |(at, kept): &(usize, Kept)| {
            bytes += kept.line.len();
            (bytes <= bytes_max || *at == 0) && end.is_none_or(|end| kept.entry.order() <= end)
        };
        all.into_iter().take(max).enumerate().take_while(fits).map(|(_, kept)| kept).collect()
    }

    /// The highest number of `origin` from `from` on, up to `held`, that memory has without a hole; `from - 1` where it
    /// has not that one.
    pub fn top_in_memory(&self, origin: Origin, from: u64, held: u64) -> u64 {
        let from = from.max(self.floors.get(origin) + 1);
        if self.get(origin, from).is_some() { held } else { from - 1 }
    }

    // ---- what goes

    /// Lets go of what is on disk (`durable`), the first in display order first, until at most so many entries of at most
    /// so many bytes are in memory.
    pub fn trim(&mut self, durable: &VersionVector, entries_max: usize, bytes_max: usize) {
        while self.display.len() > entries_max || self.bytes > bytes_max {
            let Some(&(_, origin, seq)) = self.display.first() else { break };
            let Some(part) = self.parts.get_mut(&origin).filter(|part| durable.holds(origin, seq.max(part.first)))
            else {
                break;
            };
            let Some(kept) = part.entries.pop_front() else { break };
            part.first += 1;
            self.cut = self.cut.max(Some(kept.entry.order()));
            self.forget(&kept);
        }
        // A room that may have no entries in memory is shrunk with all others: see `shrink_posts`.
        if self.cut.is_some() && entries_max > 0 {
            self.posts.shrink(POSTS_PER_ENTRY * entries_max);
        }
    }

    /// How many posts and devices the index has.
    pub fn posts_size(&self) -> usize {
        self.posts.size()
    }

    /// Forgets of the index what is not in memory, until there are at most so many.
    pub fn shrink_posts(&mut self, max: usize) {
        if self.cut.is_some() {
            self.posts.shrink(max);
        }
    }

    fn forget(&mut self, kept: &Kept) {
        self.display.remove(&kept.entry.order());
        self.bytes -= kept.line.len();
        self.posts.evicted(&kept.entry);
    }

    /// Up to where it is no longer kept.
    pub fn floors(&self) -> &VersionVector {
        &self.floors
    }

    /// Gives up everything up to these numbers, held or not; whether that changes anything.
    pub fn give_up(&mut self, floors: &VersionVector) -> bool {
        let mut changed = false;
        for (origin, floor) in floors.iter() {
            let before = self.floors.get(origin);
            if floor <= before {
                continue;
            }
            changed = true;
            self.floors.raise(origin, floor);
            let part = self.parts.entry(origin).or_insert_with(|| Part { first: 1, entries: VecDeque::new() });
            let gone = floor.min(part.next() - 1).saturating_sub(before);
            self.len = self.len.saturating_sub(usize::try_from(gone).unwrap_or(usize::MAX));
            let mut dropped = Vec::new();
            while part.first <= floor
                && let Some(kept) = part.entries.pop_front()
            {
                part.first += 1;
                dropped.push(kept);
            }
            part.first = part.first.max(floor + 1);
            for kept in dropped {
                self.forget(&kept);
            }
        }
        changed
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
