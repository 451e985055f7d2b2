//! The receiving side of one room: orders what arrives, asks for what is missing, acknowledges.
//!
//! Application-level framing over datagrams, as in Holbrook, Singhal, Cheriton: "Log-Based Receiver-Reliable Multicast",
//! SIGCOMM 1995. The room's log is the retransmit buffer, so whoever sends keeps nothing for a receiver: the receiver
//! holds a cursor (a version vector without holes), sees what it lacks, and asks for that.
//!
//! ```text
//!   server                              receiver, held {1.7: 4}
//!     | -- entry 1.7 #5 ------------------> |  next in line: released, held {1.7: 5}
//!     | -- entry 1.7 #7 ------------------> |  above a hole: stranded
//!     | <- pull 1.7 #6..#6 ---------------- |  2 ms later, since packets overtake each other
//!     | -- entry 1.7 #6, pulled ----------> |  released with #7, held {1.7: 7}
//!     | <- cursor {1.7: 7} ---------------- |  50 ms after the first, 200 ms while entries keep coming
//! ```
//!
//! One pull is in flight at a time. How many entries it asks for adapts to loss (additive increase, multiplicative
//! decrease: Chiu, Jain 1989), so that a catch-up does not flood a thin link.

use std::{
    collections::{BTreeMap, btree_map},
    time::Duration,
};

use crate::{
    ids::{Origin, RoomName},
    limits,
    log::{Entry, VersionVector},
    planted::{self, Bug},
    rng::Rng,
    time::Time,
    wire::frame::{Pull, Pulled},
};

/// How long a hole may be the work of packets that overtook each other.
const REORDER_DELAY: Duration = Duration::from_millis(2);
/// While pushed entries keep arriving, what is missing above them is probably on its way: it is asked for after this
/// much silence.
const PUSH_GAP: Duration = Duration::from_millis(10);
/// But it is asked for after this long in any case.
const PUSH_PATIENCE: Duration = Duration::from_millis(200);
/// Ranges in one pull: so many fit a frame, however long their numbers are.
const RANGES_MAX: usize = 12;
/// Entries that the first pull asks for.
const WINDOW_FIRST: u32 = 64;
/// Entries that a pull asks for however much is lost.
const WINDOW_MIN: u32 = 8;
/// What a window without loss adds once there has been loss.
const WINDOW_STEP: u32 = 16;
/// The timeout of a pull before a round trip has been measured.
const TIMEOUT_FIRST: Duration = Duration::from_millis(200);
/// The shortest timeout of a pull, since a server may be busy for a moment.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// The longest timeout of a pull.
const TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// How long an entry waits for company before it is acknowledged.
const ACK_DELAY: Duration = Duration::from_millis(50);
/// The same while entries keep arriving.
const ACK_DELAY_STEADY: Duration = Duration::from_millis(200);
/// What waits above a hole is let go where nothing of its run has come for so long.
const STRANDED_FOR: Duration = Duration::from_secs(30);
/// As many entries are acknowledged at once, so that a fast server may go on.
const ACK_ENTRIES_MAX: u64 = limits::PUSH_AHEAD_MAX / 4;

/// What one follower holds of one room, and what it still wants.
#[derive(Debug)]
pub struct Receiver {
    room: RoomName,
    /// The cursor: has no holes and never goes back.
    held: VersionVector,
    /// For origins of which more exists than is held: the highest seq that is known to exist.
    known: BTreeMap<Origin, u64>,
    /// The highest seq that the server can serve, where it said that this is less than what exists.
    served: BTreeMap<Origin, u64>,
    /// What arrived above a hole.
    stranded: BTreeMap<Origin, Stranded>,
    stranded_count: usize,
    pull: Option<InFlight>,
    /// When the next pull is due, where something is missing and none is in flight.
    pull_at: Option<Time>,
    /// Since when something is missing that nobody was asked for.
    missing_since: Option<Time>,
    pull_id: u32,
    window: u32,
    /// Whether anything was ever lost: until then the window doubles.
    lossy: bool,
    timeout: Duration,
    /// When the next acknowledgement is due.
    ack_at: Option<Time>,
    unacknowledged: u64,
    last_arrival: Option<Time>,
}

/// What arrived above a hole of one origin, and when its last entry did.
#[derive(Debug)]
struct Stranded {
    entries: BTreeMap<u64, Entry>,
    at: Time,
}

/// A pull that has not been answered in full.
#[derive(Debug)]
struct InFlight {
    want: Vec<(Origin, u64, u64)>,
    max: u32,
    sent_at: Time,
    expires: Time,
    /// Entries of its ranges that arrived.
    arrived: u32,
}

impl InFlight {
    fn wants(&self, origin: Origin, seq: u64) -> bool {
        self.want.iter().any(|&(of, first, last)| of == origin && (first..=last).contains(&seq))
    }
}

impl Receiver {
    /// A follower of `room` that holds what `cursor` covers.
    pub fn new(room: RoomName, cursor: VersionVector) -> Self {
        Self {
            room,
            held: cursor,
            known: BTreeMap::new(),
            served: BTreeMap::new(),
            stranded: BTreeMap::new(),
            stranded_count: 0,
            pull: None,
            pull_at: None,
            missing_since: None,
            pull_id: 0,
            window: WINDOW_FIRST,
            lossy: false,
            timeout: TIMEOUT_FIRST,
            ack_at: None,
            unacknowledged: 0,
            last_arrival: None,
        }
    }

    /// What it holds without holes: its cursor.
    pub fn held(&self) -> &VersionVector {
        &self.held
    }

    /// Whether this one waits above a hole, and not its marker.
    pub fn has_stranded(&self, origin: Origin, seq: u64) -> bool {
        self.stranded.get(&origin).and_then(|above| above.entries.get(&seq)).is_some_and(|entry| !entry.is_lost())
    }

    /// How many entries wait above a hole.
    pub fn stranded(&self) -> usize {
        self.stranded_count
    }

    /// Lets go what waits above a hole that may never be filled: a server without a disk can take with it what came before.
    /// It counts for nobody as a copy, and whoever fills the hole sends it again; so does one who takes long to fill it.
    pub fn let_go(&mut self, now: Time) {
        self.stranded.retain(|_, above| now.since(above.at) < STRANDED_FOR);
        self.stranded_count = self.stranded.values().map(|above| above.entries.len()).sum();
    }

    /// Something that did not come through [`Self::entry`] is held too: a home's own new entry, or one that came from
    /// another server. Gives back what had been stranded above it and is free now, without `entry` itself. An entry
    /// above a hole changes nothing.
    pub fn note(&mut self, entry: &Entry) -> Vec<Entry> {
        let (origin, seq) = (entry.origin, entry.seq);
        if self.held.holds(origin, seq) || seq != self.held.get(origin) + 1 {
            return Vec::new();
        }
        self.take_stranded(origin, seq);
        self.held.raise(origin, seq);
        let freed = self.free_successors(origin);
        self.forget_known(origin);
        freed
    }

    /// Takes an entry whose hash the caller has checked. Gives back those that are now without a hole before them, in
    /// order: none for a duplicate, none while there is a hole, several when one is filled.
    pub fn entry(&mut self, entry: Entry, now: Time) -> Vec<Entry> {
        let (origin, seq) = (entry.origin, entry.seq);
        self.count_arrival(origin, seq, now);
        let held = self.held.get(origin);
        if seq <= held {
            // The server sends it again: it has not heard that it is held.
            self.acknowledge_soon(0, now);
            return Vec::new();
        }
        if held == 0 && !self.has_place_for(origin) {
            return Vec::new();
        }
        if seq > held + 1 && !planted::is(Bug::HoleSkipped) {
            self.strand(entry, now);
            return Vec::new();
        }
        self.take_stranded(origin, seq);
        self.held.raise(origin, seq);
        let mut released = vec![entry];
        released.append(&mut self.free_successors(origin));
        self.forget_known(origin);
        self.acknowledge_soon(released.len() as u64, now);
        self.postpone_pull(now);
        released
    }

    /// What there is to be had at the server that is followed.
    pub fn heads(&mut self, heads: &VersionVector, now: Time) {
        if self.held.covers(heads) {
            // It would not say so again if it had heard our acknowledgement.
            self.ack_at = Some(now);
            return;
        }
        for (origin, head) in heads.iter() {
            if !self.held.holds(origin, head) {
                self.exists(origin, head);
            }
        }
        self.plan_pull(now + REORDER_DELAY, now);
    }

    /// The answer to a pull has ended. That to an earlier pull changes nothing.
    pub fn pulled(&mut self, pulled: &Pulled, now: Time) {
        if pulled.id != self.pull_id {
            return;
        }
        let Some(pull) = self.pull.take() else { return };
        self.timeout = now.since(pull.sent_at).saturating_mul(3).clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        for &(origin, ..) in &pull.want {
            let top = pulled.top.get(origin);
            if self.known.get(&origin).is_some_and(|known| top < *known) {
                self.served.insert(origin, top);
            }
        }
        if pull.arrived < pulled.sent {
            self.shrink_window();
        } else if pulled.sent >= pull.max {
            self.grow_window();
        }
        // What is late may still come, and a server that sent nothing is not asked again in a hurry.
        let wait = match (pull.arrived, pulled.sent) {
            (0, _) => self.timeout,
            (arrived, sent) if arrived < sent => REORDER_DELAY,
            _ => Duration::ZERO,
        };
        self.plan_pull(now + wait, now);
    }

    /// Of the floors of an answer those that the pull in flight has asked for, and that are beyond what is held: origin and
    /// floor. None of an answer to anything else.
    pub fn gone<'a>(&'a self, pulled: &'a Pulled) -> impl Iterator<Item = (Origin, u64)> + 'a {
        let pull = self.pull.as_ref().filter(|_| pulled.id == self.pull_id);
        let asked = move |origin, floor| {
            pull.is_some_and(|pull| pull.want.iter().any(|&(of, first, _)| of == origin && first <= floor))
        };
        let is_gone = move |&(origin, floor): &(Origin, u64)| floor > self.held.get(origin) && asked(origin, floor);
        pulled.floors.iter().filter(is_gone)
    }

    /// What is below these floors is gone for good: counts as held. Gives back what had been stranded above and is free
    /// now.
    pub fn give_up(&mut self, floors: &VersionVector, now: Time) -> Vec<Entry> {
        let mut freed = Vec::new();
        for (origin, floor) in
            floors.iter().filter(|(origin, floor)| *floor > self.held.get(*origin)).collect::<Vec<_>>()
        {
            if self.held.get(origin) == 0 && !self.has_place_for(origin) {
                continue;
            }
            self.held.raise(origin, floor);
            let below: Vec<_> =
                self.stranded.get(&origin).into_iter().flat_map(|above| above.entries.range(..=floor)).collect();
            for seq in below.into_iter().map(|(seq, _)| *seq).collect::<Vec<_>>() {
                self.take_stranded(origin, seq);
            }
            freed.append(&mut self.free_successors(origin));
            self.forget_known(origin);
            self.acknowledge_soon(1, now);
        }
        freed
    }

    /// The server that is followed has changed, or its session is a new one: forgets what was asked for, keeps what is
    /// held, acknowledges at once.
    pub fn moved(&mut self, now: Time) {
        self.pull = None;
        self.pull_at = None;
        self.missing_since = None;
        self.served.clear();
        self.timeout = TIMEOUT_FIRST;
        self.ack_at = Some(now);
        self.plan_pull(now + PUSH_GAP, now);
    }

    /// Whether nothing is missing that is known to exist, other than what the server that is followed said it lacks.
    pub fn is_complete(&self) -> bool {
        !self.known.keys().any(|origin| self.wanted(*origin) > self.held.get(*origin))
    }

    /// A pull that is due now, if any.
    pub fn poll_pull(&mut self, now: Time, rng: &mut Rng) -> Option<Pull> {
        if self.pull.as_ref().is_some_and(|pull| pull.expires <= now) {
            self.pull = None;
            self.shrink_window();
            self.timeout = self.timeout.saturating_mul(2).min(TIMEOUT_MAX);
            self.plan_pull(now, now);
        }
        if self.pull.is_some() || self.pull_at.is_none_or(|at| at > now) {
            return None;
        }
        self.pull_at = None;
        self.missing_since = None;
        let want = self.missing();
        if want.is_empty() {
            return None;
        }
        self.pull_id = self.pull_id.wrapping_add(1);
        self.pull = Some(InFlight {
            want: want.clone(),
            max: self.window,
            sent_at: now,
            expires: now + rng.jitter(self.timeout, 25),
            arrived: 0,
        });
        Some(Pull { room: self.room.clone(), id: self.pull_id, want, max: self.window })
    }

    /// Whether the cursor is to be acknowledged now; asks once for each acknowledgement.
    pub fn poll_ack(&mut self, now: Time) -> bool {
        let due = self.ack_at.is_some_and(|at| at <= now);
        if due {
            self.ack_at = None;
            self.unacknowledged = 0;
        }
        due
    }

    /// When one of the polls may have something.
    pub fn deadline(&self) -> Option<Time> {
        let pull = self.pull.as_ref().map_or(self.pull_at, |pull| Some(pull.expires));
        [pull, self.ack_at].into_iter().flatten().min()
    }

    /// Notes that something of `origin` exists.
    fn exists(&mut self, origin: Origin, seq: u64) {
        if self.held.get(origin) == 0 && !self.known.contains_key(&origin) && !self.has_place_for(origin) {
            return;
        }
        let known = self.known.entry(origin).or_default();
        *known = seq.max(*known);
        if self.served.get(&origin).is_some_and(|served| *served < seq) {
            self.served.remove(&origin);
        }
    }

    /// Whether one more origin may be followed: a bound on what a hostile server can make us remember.
    fn has_place_for(&self, origin: Origin) -> bool {
        self.known.contains_key(&origin) || self.held.origins() + self.known.len() < limits::ORIGINS_MAX
    }

    /// Drops what is known of `origin` once all of it is held.
    fn forget_known(&mut self, origin: Origin) {
        let held = self.held.get(origin);
        if self.known.get(&origin).is_some_and(|known| *known <= held) {
            self.known.remove(&origin);
            self.served.remove(&origin);
        }
        if self.known.is_empty() {
            if self.pull.take().is_some() {
                self.timeout = TIMEOUT_FIRST;
            }
            self.pull_at = None;
            self.missing_since = None;
        }
    }

    /// Keeps an entry above a hole, in the place of its marker if that waits there; where there are too many, the one
    /// farthest above its hole goes.
    fn strand(&mut self, entry: Entry, now: Time) {
        let (origin, seq) = (entry.origin, entry.seq);
        self.exists(origin, seq);
        let above = self.stranded.entry(origin).or_insert_with(|| Stranded { entries: BTreeMap::new(), at: now });
        above.at = now;
        match above.entries.entry(seq) {
            btree_map::Entry::Vacant(place) => {
                place.insert(entry);
                self.stranded_count += 1;
            }
            // It was lost, and is there after all.
            btree_map::Entry::Occupied(mut place) if place.get().is_lost() => _ = place.insert(entry),
            btree_map::Entry::Occupied(_) => {}
        }
        if self.stranded_count > limits::STRANDED_MAX {
            let farthest = self
                .stranded
                .iter()
                .filter_map(|(origin, above)| {
                    let last = *above.entries.keys().next_back()?;
                    Some((last - self.held.get(*origin), *origin, last))
                })
                .max();
            if let Some((_, origin, last)) = farthest {
                self.take_stranded(origin, last);
            }
        }
        // This server has it, so it can serve what is below, and what is below did not merely take longer.
        self.pull_at = self.pull_at.map(|at| at.min(now + REORDER_DELAY));
        self.plan_pull(now + REORDER_DELAY, now);
    }

    fn take_stranded(&mut self, origin: Origin, seq: u64) -> Option<Entry> {
        let above = self.stranded.get_mut(&origin)?;
        let entry = above.entries.remove(&seq);
        if above.entries.is_empty() {
            self.stranded.remove(&origin);
        }
        self.stranded_count -= usize::from(entry.is_some());
        entry
    }

    /// Takes what follows the cursor out of what was stranded, and raises the cursor over it.
    fn free_successors(&mut self, origin: Origin) -> Vec<Entry> {
        let mut freed = Vec::new();
        while let Some(entry) = self.held.get(origin).checked_add(1).and_then(|next| self.take_stranded(origin, next)) {
            self.held.raise(origin, entry.seq);
            freed.push(entry);
        }
        freed
    }

    /// How far `origin` is asked for.
    fn wanted(&self, origin: Origin) -> u64 {
        let known = self.known.get(&origin).copied().unwrap_or(0);
        self.served.get(&origin).map_or(known, |served| known.min(*served))
    }

    /// What is missing: the first so many ranges.
    fn missing(&self) -> Vec<(Origin, u64, u64)> {
        let mut ranges = Vec::new();
        for origin in self.known.keys() {
            let (mut next, last) = (self.held.get(*origin) + 1, self.wanted(*origin));
            for seq in self.stranded.get(origin).into_iter().flat_map(|above| above.entries.keys()) {
                if *seq > next && next <= last && ranges.len() < RANGES_MAX {
                    ranges.push((*origin, next, last.min(seq - 1)));
                }
                next = seq.saturating_add(1);
            }
            if next <= last && ranges.len() < RANGES_MAX {
                ranges.push((*origin, next, last));
            }
            if ranges.len() == RANGES_MAX {
                break;
            }
        }
        ranges
    }

    /// Has a pull at `at`, unless nothing is missing or one is planned or in flight.
    fn plan_pull(&mut self, at: Time, now: Time) {
        if self.pull.is_none() && self.pull_at.is_none() && !self.is_complete() {
            self.pull_at = Some(at);
            self.missing_since.get_or_insert(now);
        }
    }

    /// Entries come in order: what is missing above them is probably on its way.
    fn postpone_pull(&mut self, now: Time) {
        if let (Some(at), Some(since), true) = (self.pull_at, self.missing_since, self.stranded.is_empty()) {
            self.pull_at = Some(at.max((now + PUSH_GAP).min(since + PUSH_PATIENCE)));
        }
    }

    /// An entry that was pulled, or seems to be: the answer is on its way.
    fn count_arrival(&mut self, origin: Origin, seq: u64, now: Time) {
        if let Some(pull) = &mut self.pull
            && pull.wants(origin, seq)
        {
            pull.arrived = pull.arrived.saturating_add(1);
            pull.expires = pull.expires.max(now + self.timeout);
        }
    }

    /// `released` more entries are held: has them acknowledged.
    fn acknowledge_soon(&mut self, released: u64, now: Time) {
        let steady = self.last_arrival.is_some_and(|last| now.since(last) <= ACK_DELAY_STEADY);
        self.last_arrival = Some(now);
        self.unacknowledged += released;
        let due = now + if steady { ACK_DELAY_STEADY } else { ACK_DELAY };
        let due = if self.unacknowledged >= ACK_ENTRIES_MAX { now } else { due };
        self.ack_at = Some(self.ack_at.map_or(due, |at| at.min(due)));
    }

    fn grow_window(&mut self) {
        let grown = if self.lossy { self.window + WINDOW_STEP } else { self.window * 2 };
        self.window = grown.min(limits::PULL_ENTRIES_MAX);
    }

    fn shrink_window(&mut self) {
        self.lossy = true;
        self.window = (self.window / 2).max(WINDOW_MIN);
    }
}

#[cfg(test)]
mod tests;
