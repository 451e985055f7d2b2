//! A server's disk: what was synced, what was written and was not, and what goes wrong with both.
//!
//! ```text
//! Persist, Persist -> queue -- one sync for all of it --> synced: Durable { through }
//! Read ------------------------------------------------> an answer from what is synced, a moment later
//! crash: of the queue survives a prefix, or nothing (the last write is torn, those behind it never were)
//! ```
//!
//! After the disks of `TigerBeetle`'s simulator (misdirected writes left out: a store that checks hashes sees rot alone).

use std::collections::VecDeque;

use hobnob_proto::{
    ids::{Origin, RoomName},
    rng::Rng,
    store::{Answer, Found, Read, Restored, Write, model::Model},
    time::{Duration, Time},
};

use crate::dice::Dice as _;

/// A store looks through all that it holds about so often, for entries that have become rotten.
const SCRUB_EVERY: Duration = Duration::from_secs(5);
/// A disk that stalls does so for up to so long.
const STALL_MAX: Duration = Duration::from_secs(3);

/// What the disks of a run are like, and what breaks in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskProfile {
    /// Which servers have one, in their order; the others keep everything in memory.
    pub on: Vec<bool>,
    /// How long a sync takes, about; a read a quarter of that.
    pub sync: Duration,
    /// Chance that a sync stalls, in a million.
    pub stall_ppm: u32,
    /// What is not synced is lost with the process, or a part of it; otherwise all of it survives a crash.
    pub loses: bool,
    /// The power goes off everywhere at once.
    pub power: bool,
    /// A disk is replaced by an empty one.
    pub wipes: bool,
    /// A disk fills up, and has room again later.
    pub fills: bool,
    /// Entries rot.
    pub rots: bool,
}

impl DiskProfile {
    /// Whether this server has a disk.
    pub fn has(&self, of: usize) -> bool {
        self.on.get(of).copied().unwrap_or(false)
    }
}

/// What a disk says to the process.
#[derive(Debug)]
pub enum Says {
    /// Everything up to this write is synced.
    Durable(u64),
    /// To a question; or what it has found by itself.
    Answer(Answer),
    /// Nothing can be written any more.
    Unwritable,
}

/// How often something has gone wrong with a disk.
#[derive(Clone, Copy, Debug, Default)]
struct Happened {
    /// Syncs that stalled.
    stalled: u64,
    /// Syncs that failed for want of room.
    full: u64,
    /// Crashes that lost all that was not synced.
    lost: u64,
    /// Crashes that lost only the end of it.
    torn: u64,
    /// Entries that rotted.
    rotten: u64,
    /// Disks that were replaced.
    wiped: u64,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    profile: DiskProfile,
    rng: Rng,
    synced: Model,
    /// Written in this run, and not synced.
    queue: VecDeque<Write>,
    /// How many writes of this run are synced.
    through: u64,
    /// When the sync that is under way ends, and how many writes of the queue it takes in.
    syncing: Option<(Time, usize)>,
    reads: Vec<(Time, Read)>,
    full: bool,
    failed: bool,
    rotten: bool,
    scrub: Time,
    happened: Happened,
    /// When the world will look at it.
    pub woken: Option<Time>,
}

impl Disk {
    /// An empty one.
    pub fn new(profile: DiskProfile, rng: Rng) -> Self {
        Self {
            profile,
            rng,
            synced: Model::default(),
            queue: VecDeque::new(),
            through: 0,
            syncing: None,
            reads: Vec::new(),
            full: false,
            failed: false,
            rotten: false,
            scrub: Time::ZERO,
            happened: Happened::default(),
            woken: None,
        }
    }

    /// What is synced.
    pub fn synced(&self) -> &Model {
        &self.synced
    }

    /// A process begins on it.
    pub fn open(&mut self, wall_secs: u64) -> Restored {
        (self.through, self.failed) = (0, false);
        self.synced.restore(wall_secs, &mut self.rng)
    }

    /// The process writes something.
    pub fn write(&mut self, write: Write, now: Time) {
        if !self.failed {
            self.queue.push_back(write);
            self.begin_sync(now);
        }
    }

    /// The process asks something.
    pub fn read(&mut self, read: Read, now: Time) {
        let at = now + self.rng.jitter(self.profile.sync / 4, 90);
        self.reads.push((at, read));
    }

    /// When something happens to it.
    pub fn due(&self) -> Option<Time> {
        let sync = self.syncing.map(|(at, _)| at);
        let scrub = self.rotten.then_some(self.scrub);
        self.reads.iter().map(|(at, _)| *at).chain(sync).chain(scrub).min()
    }

    /// What is synced now that was not, and what it says.
    pub fn act(&mut self, now: Time) -> (Vec<Write>, Vec<Says>) {
        let (mut synced, mut says) = (Vec::new(), Vec::new());
        if let Some((_, count)) = self.syncing.take_if(|(at, _)| *at <= now) {
            if self.full {
                self.happened.full += 1;
                self.failed = true;
                self.queue.clear();
                says.push(Says::Unwritable);
            } else {
                synced.extend(self.queue.drain(..count));
                self.apply(&synced);
                self.through += count as u64;
                says.push(Says::Durable(self.through));
                self.begin_sync(now);
            }
        }
        let (due, later) = std::mem::take(&mut self.reads).into_iter().partition(|(at, _)| *at <= now);
        self.reads = later;
        let due: Vec<(Time, Read)> = due;
        says.extend(due.iter().map(|(_, read)| Says::Answer(self.synced.answer(read))));
        if self.rotten && self.scrub <= now {
            self.scrub = now + SCRUB_EVERY;
            says.extend(self.found_rotten().map(Says::Answer));
            self.rotten = self.synced.rooms().any(|room| self.synced.rotten(room).next().is_some());
        }
        (synced, says)
    }

    /// The process has ended: gives back what has reached the disk all the same.
    pub fn crash(&mut self) -> Vec<Write> {
        let survive = if !self.profile.loses {
            self.queue.len()
        } else if self.rng.below(2) == 0 {
            0
        } else {
            self.rng.index(self.queue.len() + 1)
        };
        let survive = if self.full { 0 } else { survive };
        if survive < self.queue.len() {
            *(if survive == 0 { &mut self.happened.lost } else { &mut self.happened.torn }) += 1;
        }
        let synced: Vec<_> = self.queue.drain(..survive).collect();
        self.apply(&synced);
        self.queue.clear();
        self.reads.clear();
        self.syncing = None;
        synced
    }

    /// From now on it works, but for what is rotten already. A sync that stalls comes to its end.
    pub fn heal(&mut self) {
        self.profile.stall_ppm = 0;
    }

    /// What has happened to it so far, and how often.
    pub fn faults(&self) -> [(&'static str, u64); 6] {
        let Happened { stalled, full, lost, torn, rotten, wiped } = self.happened;
        [
            ("fault disk stalls", stalled),
            ("fault disk full", full),
            ("fault writes lost", lost),
            ("fault writes torn", torn),
            ("fault rot", rotten),
            ("fault disk wiped", wiped),
        ]
    }

    /// Another disk is in its place, with nothing on it.
    pub fn wipe(&mut self) {
        self.happened.wiped += 1;
        self.synced.wipe();
        (self.full, self.rotten) = (false, false);
    }

    /// It is full from now on; the next sync fails.
    pub fn fill(&mut self) {
        self.full = true;
    }

    /// It has room again. `true`: it has failed meanwhile, and its process has to begin anew.
    pub fn make_room(&mut self) -> bool {
        self.full = false;
        self.failed
    }

    /// Whether it is full.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// An entry rots. It is found within [`SCRUB_EVERY`], or when it is read.
    pub fn rot(&mut self, (room, origin, seq): &(RoomName, Origin, u64), now: Time) -> bool {
        let rotten = self.synced.rot(room, *origin, *seq);
        self.happened.rotten += u64::from(rotten);
        if rotten && !self.rotten {
            (self.rotten, self.scrub) = (true, now + self.rng.span(Duration::ZERO, SCRUB_EVERY));
        }
        rotten
    }

    /// Whether any entry is rotten.
    pub fn is_rotten(&self) -> bool {
        self.rotten
    }

    fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            self.synced.apply(write);
        }
    }

    fn begin_sync(&mut self, now: Time) {
        if self.syncing.is_none() && !self.queue.is_empty() {
            let mut span = self.rng.jitter(self.profile.sync, 50);
            if self.rng.chance(self.profile.stall_ppm) {
                self.happened.stalled += 1;
                span += self.rng.span(Duration::ZERO, STALL_MAX);
            }
            self.syncing = Some((now + span, self.queue.len()));
        }
    }

    fn found_rotten(&self) -> impl Iterator<Item = Answer> {
        self.synced.rooms().filter_map(|room| {
            let rotten: Vec<_> = self.synced.rotten(room).collect();
            (!rotten.is_empty()).then(|| Answer { id: 0, room: room.clone(), found: Found::Nothing, rotten })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice;

    fn disk(loses: bool) -> Disk {
        let profile = DiskProfile { on: vec![true], sync: Duration::from_millis(2), loses, ..DiskProfile::default() };
        Disk::new(profile, dice::from_number(1))
    }

    /// Writes three terms; the first sync takes in the first one alone, and has ended.
    fn written(loses: bool) -> (Disk, Time) {
        let mut disk = disk(loses);
        disk.open(1);
        for term in 1..=3 {
            disk.write(Write::Term(term), Time::ZERO);
        }
        let due = disk.due().expect("a sync is under way");
        let (synced, says) = disk.act(due);
        assert_eq!(synced.len(), 1);
        assert!(matches!(says[..], [Says::Durable(1)]));
        (disk, due)
    }

    #[test]
    fn one_sync_takes_in_all_that_has_come_meanwhile() {
        let (mut disk, now) = written(true);
        assert!(disk.act(now).1.is_empty());
        let due = disk.due().expect("another sync is under way");
        assert!(matches!(disk.act(due).1[..], [Says::Durable(3)]));
        assert_eq!((disk.due(), disk.synced().term()), (None, 3));
    }

    #[test]
    fn what_was_synced_survives_a_crash_and_of_the_rest_a_prefix() {
        let (mut disk, _) = written(false);
        assert_eq!((disk.crash().len(), disk.synced().term()), (2, 3));
        let (mut disk, _) = written(true);
        let survived = disk.crash().len() as u64;
        assert_eq!(disk.synced().term(), 1 + survived);
        assert_eq!(disk.due(), None);
    }

    #[test]
    fn a_disk_stalls_until_it_is_healed() {
        let profile = DiskProfile { stall_ppm: 1_000_000, ..disk(true).profile };
        let mut disk = Disk::new(profile, dice::from_number(1));
        disk.open(1);
        let sync = |disk: &mut Disk, begin: Time| {
            disk.write(Write::Term(1), begin);
            let due = disk.due().expect("a sync is under way");
            let _ = disk.act(due);
            due
        };
        let stalled = sync(&mut disk, Time::ZERO);
        assert!(stalled > Time::ZERO + Duration::from_millis(10), "{stalled:?}");
        disk.heal();
        let healed = sync(&mut disk, stalled);
        assert!(healed.since(stalled) <= Duration::from_millis(10), "{healed:?}");
        assert_eq!(disk.faults().iter().find(|(_, times)| *times > 0), Some(&("fault disk stalls", 1)));
    }

    #[test]
    fn a_full_disk_fails_once_and_takes_writes_after_a_new_start() {
        let (mut disk, _) = written(true);
        disk.fill();
        let due = disk.due().expect("a sync is under way");
        assert!(matches!(disk.act(due).1[..], [Says::Unwritable]));
        disk.write(Write::Term(4), due);
        assert_eq!(disk.due(), None);
        assert!(disk.make_room());
        disk.crash();
        disk.open(1);
        disk.write(Write::Term(5), due);
        let due = disk.due().expect("a sync is under way");
        assert!(matches!(disk.act(due).1[..], [Says::Durable(1)]));
        assert_eq!(disk.synced().term(), 5);
    }
}
