//! Entries that are not what they were, or that are two: rotten ones are fetched from a peer, and of two contents with one
//! name the second is kept aside.
//!
//! ```text
//!                 .---- a peer has it: Repair --------.
//!                 |                                   v
//! found rotten -> asked for, a peer a second       written -> read again: sound, or lost, or asked for later
//!                 |                                   ^
//!                 '-- nobody has it: read, Lost ------'
//! ```
//!
//! A rotten entry is no copy: it is not served, and what we say that we have kept ends below it until it is repaired, which
//! is believed once it has been read again. What a peer was told before, it takes back only with our next session.
//!
//! Where nobody can produce an entry any more, a marker takes its place, which is held and served as an entry is: see
//! `lost`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{
    Event, Node, Timer,
    lost::{self, Denials},
    peers::Peer,
    rooms::{Room, Upstream},
};
use crate::{
    ids::{Origin, RoomName, ServerId},
    limits::PULL_ROTTEN_ID,
    log::{Entry, VersionVector, room::Kept},
    session::SessionId,
    store::{LOST_MAX, Write},
    time::{Duration, Time},
    wire::{Frame, frame::Pull},
};

/// Rotten entries of one room that are remembered: those beyond are found again.
const ROTTEN_MAX: usize = 1_024;
/// How often they are asked for, each time at the next peer.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// When one is asked for again that was written and is rotten as before, since the disk itself is bad there: after this, and
/// twice as long each time.
const AGAIN: Duration = Duration::from_secs(8);
/// How often that span is doubled at most: up to an hour or so.
const DOUBLED_MAX: u32 = 9;
/// Ranges in one pull.
pub(super) const RANGES_MAX: usize = 12;
/// Contents kept aside in one run; more are only counted.
const QUARANTINED_MAX: usize = 256;

/// What is asked of whom.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// Whom each room was asked at last.
    asked: BTreeMap<RoomName, ServerId>,
    /// The first and the last entry that were asked for: once all peers were, it goes on beyond the last.
    last: BTreeMap<RoomName, [(Origin, u64); 2]>,
    /// What was kept aside: a conflict may come again and again.
    quarantined: BTreeSet<(RoomName, Origin, u64, [u8; 16])>,
    /// When and how far peers were asked for what is lost in a room.
    pub(super) lost: BTreeMap<RoomName, lost::Asked>,
    /// What was lost and has turned up. Where its marker cannot be written over, that is no news the next time.
    found: BTreeSet<(RoomName, Origin, u64)>,
}

impl Mending {
    /// What was lost has turned up; whether that is news.
    fn finds(&mut self, name: &RoomName, (origin, seq): (Origin, u64)) -> bool {
        if self.found.len() >= LOST_MAX {
            self.found.clear();
        }
        self.found.insert((name.clone(), origin, seq))
    }

    /// An entry is lost, whatever has turned up before.
    pub(super) fn loses(&mut self, name: &RoomName, (origin, seq): (Origin, u64)) {
        self.found.remove(&(name.clone(), origin, seq));
    }
}

/// Entries of a room that are on disk, and are not what was written there.
#[derive(Debug, Default)]
pub(super) struct Rotten(BTreeMap<(Origin, u64), Case>);

/// What is done about one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Peers are asked for it.
    Asked,
    /// It is read once more.
    Read,
    /// Something is written in its place, and read then.
    Written,
}

/// How it stands with one of them.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) since: Time,
    /// Who lacks it too.
    pub(super) denials: Denials,
    pub(super) step: Step,
    /// How often writing was in vain.
    failed: u32,
    /// When it is to be asked for.
    at: Time,
}

impl Case {
    fn new(step: Step, now: Time) -> Self {
        Self { since: now, denials: Denials::default(), step, failed: 0, at: now }
    }
}

impl Rotten {
    /// Whether this one is.
    pub(super) fn contains(&self, origin: Origin, seq: u64) -> bool {
        self.0.contains_key(&(origin, seq))
    }

    /// The first one of an origin from a number on.
    pub(super) fn first(&self, origin: Origin, from: u64) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        self.0.range((origin, from)..=(origin, u64::MAX)).next().map(|((_, seq), _)| *seq)
    }

    pub(super) fn get_mut(&mut self, origin: Origin, seq: u64) -> Option<&mut Case> {
        self.0.get_mut(&(origin, seq))
    }

    pub(super) fn get(&self, origin: Origin, seq: u64) -> Option<&Case> {
        self.0.get(&(origin, seq))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that are to be asked for.
    fn due(&self, now: Time) -> BTreeSet<(Origin, u64)> {
        self.0.iter().filter(|(_, case)| case.step == Step::Asked && case.at <= now).map(|(dot, _)| *dot).collect()
    }

    /// When the next one is to be asked for.
    fn next(&self) -> Option<Time> {
        self.0.values().filter(|case| case.step == Step::Asked).map(|case| case.at).min()
    }
}

impl Room {
    /// What we say that we have kept.
    pub(super) fn told_durable(&self) -> VersionVector {
        self.told().into_owned()
    }

    /// The same, which costs nothing where nothing is rotten.
    pub(super) fn told(&self) -> Cow<'_, VersionVector> {
        if self.rotten.0.is_empty() {
            return Cow::Borrowed(self.durable());
        }
        Cow::Owned(self.durable().iter().map(|(origin, _)| (origin, self.told_durable_of(origin))).collect())
    }

    /// The same of one origin.
    pub(super) fn told_durable_of(&self, origin: Origin) -> u64 {
        let durable = self.durable().get(origin);
        self.rotten.first(origin, 0).map_or(durable, |seq| durable.min(seq - 1))
    }
}

impl Node {
    /// The store has found that an entry is not what was written.
    pub(super) fn on_rotten(&mut self, name: &RoomName, origin: Origin, seq: u64) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        let is_kept = room.held().holds(origin, seq) && !room.log.floors().holds(origin, seq);
        if !is_kept || room.rotten.contains(origin, seq) || room.rotten.len() >= ROTTEN_MAX {
            return;
        }
        room.lost.remove(&(origin, seq));
        let in_memory = room.log.get(origin, seq).filter(|kept| !kept.entry.is_lost()).cloned();
        let step = if in_memory.is_some() { Step::Written } else { Step::Asked };
        room.rotten.0.insert((origin, seq), Case::new(step, now));
        self.count("entry_rotten");
        match in_memory {
            Some(kept) => self.repair(kept),
            None => self.timers.hasten(Timer::Mend(name.clone()), now),
        }
    }

    /// Asks the next peer for what is rotten, and all of them for what is lost.
    pub(super) fn mend(&mut self, name: &RoomName) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        let floors = room.log.floors().clone();
        room.rotten.0.retain(|(origin, seq), _| !floors.holds(*origin, *seq));
        room.lost.retain(|(origin, seq)| !floors.holds(*origin, *seq));
        let due = room.rotten.due(now);
        self.ask_for_lost(name);
        if due.is_empty() {
            self.mending.asked.remove(name);
            self.mending.last.remove(name);
            return self.plan_mending(name);
        }
        let asked = self.mending.asked.get(name).copied().unwrap_or(ServerId(0));
        let peers: Vec<_> = self.heartbeat.live().map(|peer| peer.id).collect();
        let further = peers.iter().filter(|id| **id > asked).min();
        let last = self.mending.last.get(name).copied();
        let want = match (last, further) {
            (Some([first, _]), Some(_)) => next_from(&due, Bound::Included(first)),
            (Some([_, last]), None) => next_from(&due, Bound::Excluded(last)),
            (None, _) => next_from(&due, Bound::Unbounded),
        };
        if let (Some(first), Some(last)) = (want.first(), want.last()) {
            self.mending.last.insert(name.clone(), [(first.0, first.1), (last.0, last.1)]);
        }
        self.timers.set(Timer::Mend(name.clone()), now + ASK_EVERY);
        let dots: Vec<_> = want.iter().map(|(origin, seq, _)| (*origin, *seq)).collect();
        if let Some(next) = further.or(peers.iter().min()).copied() {
            self.mending.asked.insert(name.clone(), next);
            self.pull_rotten(next, name, &dots);
        }
        for dot in dots {
            self.give_up(name, dot);
        }
    }

    /// Asks a peer for single entries, as one that repairs.
    pub(super) fn pull_rotten(&mut self, peer: ServerId, name: &RoomName, dots: &[(Origin, u64)]) {
        let want: Vec<_> = dots.iter().map(|&(origin, seq)| (origin, seq, seq)).collect();
        let max = want.len() as u32;
        self.tell(peer, &Frame::Pull(Pull { room: name.clone(), id: PULL_ROTTEN_ID, want, max }));
    }

    /// Has the room's timer run when there is next something to be asked for.
    pub(super) fn plan_mending(&mut self, name: &RoomName) {
        let rotten = self.rooms.get(name).and_then(|room| room.rotten.next());
        let lost = self.next_lost(name);
        match rotten.into_iter().chain(lost).min() {
            Some(at) => self.timers.set(Timer::Mend(name.clone()), at.max(self.now)),
            None => self.timers.clear(&Timer::Mend(name.clone())),
        }
    }

    /// An intact entry has come from a server: whether it was only for this.
    pub(super) fn mends(&mut self, entry: &Entry, from: Option<SessionId>) -> bool {
        let Some(room) = self.rooms.get_mut(&entry.room).filter(|_| !entry.is_lost()) else {
            // A marker takes the place of nothing; and what is rotten here may be sound elsewhere.
            return false;
        };
        let (origin, seq) = (entry.origin, entry.seq);
        if let Some(case) = room.rotten.get_mut(origin, seq) {
            case.denials = Denials::default();
            if std::mem::replace(&mut case.step, Step::Written) != Step::Written {
                self.repair(entry.clone().into());
            }
            return true;
        }
        let held = room.log.get(origin, seq).map(|kept| (kept.entry.hash, kept.entry.is_lost()));
        if room.lost.contains(&(origin, seq)) || held.is_some_and(|(_, is_lost)| is_lost) {
            self.find_again(entry.clone().into(), from);
            return true;
        }
        let Some((held, _)) = held else { return false };
        if held != entry.hash {
            self.quarantine(entry.clone());
        }
        held != entry.hash
    }

    /// An entry that was lost has turned up: it takes the place of its marker here, and all others are told.
    pub(super) fn find_again(&mut self, kept: Kept, from: Option<SessionId>) {
        let (now, name, dot) = (self.now, kept.entry.room.clone(), (kept.entry.origin, kept.entry.seq));
        self.count("entry_found_again");
        let Some(room) = self.rooms.get_mut(&name) else { return };
        room.log.find_again(&kept);
        room.lost.remove(&dot);
        if self.mending.finds(&name, dot) {
            self.pass_on_found(&name, &kept, from);
        }
        // Where it cannot be written, its marker stays on disk, and others have it.
        if self.persist_and_read(Write::Repair(kept), &name, dot)
            && let Some(room) = self.rooms.get_mut(&name)
        {
            room.rotten.0.insert(dot, Case::new(Step::Written, now));
        }
    }

    /// Tells all who follow the room here, and all other servers.
    fn pass_on_found(&mut self, name: &RoomName, kept: &Kept, from: Option<SessionId>) {
        self.push(name, kept, from);
        let source = from.and_then(|session| self.server_at(session));
        let others: Vec<_> = self.heartbeat.live().filter(|peer| Some(*peer) != source).collect();
        for peer in others {
            if let Some(session) = self.peers.get(&peer.id).and_then(Peer::session) {
                self.send_entries(session, std::slice::from_ref(kept));
            }
        }
    }

    /// Has a rotten entry written once more.
    fn repair(&mut self, kept: Kept) {
        let (name, dot) = (kept.entry.room.clone(), (kept.entry.origin, kept.entry.seq));
        if !self.persist_and_read(Write::Repair(kept), &name, dot) {
            self.mend_later(&name, dot);
        }
    }

    /// What was written in the place of a rotten entry has been read again; `None`: the disk cannot be read, or not yet.
    pub(super) fn on_mended(&mut self, name: &RoomName, (origin, seq): (Origin, u64), found: Option<&[Kept]>) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(case) = room.rotten.0.get_mut(&(origin, seq)) else { return };
        let step = std::mem::replace(&mut case.step, Step::Asked);
        let kept = found.and_then(<[Kept]>::first).filter(|kept| (kept.entry.origin, kept.entry.seq) == (origin, seq));
        let Some(kept) = kept else {
            // Where something was written in vain, the disk is bad there: nothing more is written at once.
            if found.is_some() && step == Step::Read && self.is_given_up(name, (origin, seq)) {
                return self.lose(name, origin, seq);
            }
            return self.mend_later(name, (origin, seq));
        };
        room.rotten.0.remove(&(origin, seq));
        room.said.rises(origin);
        let (is_lost, top) = (kept.entry.is_lost(), room.told_durable_of(origin));
        if is_lost {
            room.log.lose(origin, seq);
            self.remember_lost(name, origin, seq);
            if !self.mending.found.contains(&(name.clone(), origin, seq)) {
                self.event(Event::Lost { room: name.clone(), origin, seq });
            }
        } else {
            room.lost.remove(&(origin, seq));
        }
        self.count(if is_lost { "entry_lost" } else { "entry_repaired" });
        self.tell_kept_again(name, (origin, seq, top));
        self.timers.hasten(Timer::Mend(name.clone()), now);
    }

    /// What was written is rotten as before, or cannot be written: it is asked for again, but not soon.
    pub(super) fn mend_later(&mut self, name: &RoomName, (origin, seq): (Origin, u64)) {
        let now = self.now;
        let Some(case) = self.rooms.get_mut(name).and_then(|room| room.rotten.get_mut(origin, seq)) else { return };
        case.step = Step::Asked;
        case.at = now + AGAIN * (1 << case.failed.min(DOUBLED_MAX));
        case.failed = case.failed.saturating_add(1);
        case.denials = Denials::default();
        self.count("entry_not_repaired");
        self.plan_mending(name);
    }

    /// An entry counts as kept again, and what is above it: who waits for that hears of it.
    fn tell_kept_again(&mut self, name: &RoomName, (origin, from, to): (Origin, u64, u64)) {
        let Some(room) = self.rooms.get(name) else { return };
        if let Upstream::Server { session, joined: true, .. } = room.upstream {
            self.acks.entry(session).or_default().insert(name.clone());
        }
        // Who has asked for it in vain, and for what lies above, asks again once it hears of heads.
        let behind: Vec<_> = room.behind().collect();
        for session in behind {
            self.heads_backoff.remove(&session);
            self.timers.hasten(Timer::Heads(session), self.now);
        }
        self.tell_waiters(name, std::iter::once((origin, from, to)), true);
    }

    /// The name of this valid entry belongs to another content here: it goes no further.
    pub(super) fn quarantine(&mut self, entry: Entry) {
        self.count("entry_conflict");
        let known = (entry.room.clone(), entry.origin, entry.seq, entry.hash.0);
        if self.mending.quarantined.len() >= QUARANTINED_MAX || !self.mending.quarantined.insert(known) {
            return;
        }
        self.event(Event::Conflict { room: entry.room.clone(), origin: entry.origin, seq: entry.seq });
        self.persist(Write::Quarantine(entry.into()));
    }
}

/// Which rotten entries are asked for, beginning there, and from the first again after those: each by itself.
fn next_from(rotten: &BTreeSet<(Origin, u64)>, from: Bound<(Origin, u64)>) -> Vec<(Origin, u64, u64)> {
    let beyond = rotten.range((from, Bound::Unbounded));
    let before = rotten.iter().take_while(|dot| match from {
        Bound::Included(first) => **dot < first,
        Bound::Excluded(last) => **dot <= last,
        Bound::Unbounded => false,
    });
    beyond.chain(before).take(RANGES_MAX).map(|&(origin, seq)| (origin, seq, seq)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Boot;

    #[test]
    fn what_nobody_has_does_not_keep_others_from_being_asked_for() {
        let origin = Origin { id: ServerId(1), boot: Boot(1) };
        let rotten: BTreeSet<_> = (1..=30).map(|seq| (origin, seq)).collect();
        let check = |from: Bound<u64>, expected: &[u64]| {
            let next = next_from(&rotten, from.map(|seq| (origin, seq)));
            assert_eq!(next.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>(), expected, "{from:?}");
        };
        check(Bound::Unbounded, &(1..=12).collect::<Vec<_>>());
        check(Bound::Included(1), &(1..=12).collect::<Vec<_>>());
        check(Bound::Excluded(12), &(13..=24).collect::<Vec<_>>());
        check(Bound::Excluded(24), &(25..=30).chain(1..=6).collect::<Vec<_>>());
        check(Bound::Excluded(30), &(1..=12).collect::<Vec<_>>());
        assert_eq!(next_from(&BTreeSet::new(), Bound::Excluded((origin, 3))), []);
    }
}
