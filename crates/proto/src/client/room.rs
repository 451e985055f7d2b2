//! A room that is followed: joins it, orders its history, and shows each post once.
//!
//! What there was on joining is held back until all of it is there, and then shown in display order: whoever reads it
//! sees the past once, and in order. A history of more than [`HELD_BACK_MAX`] entries is shown in portions: whenever so
//! many are held back, the earlier half goes out. Servers answer pulls in display order, so that is the right order but
//! for what was late on the way; what turns up above something that was shown already is marked as late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    client::{api::Event, repeat::Repeat, shown::Shown},
    delivery::receiver::Receiver,
    hlc::Hlc,
    ids::{Origin, RoomName},
    limits,
    log::{Entry, VersionVector, entry::DisplayOrder},
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Pulled, Start},
        vectors,
    },
};

/// Entries of history that are held back at most.
const HELD_BACK_MAX: usize = 2_048;
/// History that makes no progress for so long is shown as far as it has come.
const PATIENCE: Duration = Duration::from_secs(2);
/// Markers that are remembered.
const LOST_MAX: usize = 1_024;
/// The first repetition of a join, and the longest interval.
const JOIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// A room that is followed.
#[derive(Debug)]
pub(super) struct Room {
    name: RoomName,
    from: Start,
    /// Repeats the join until the present server has answered it.
    join: Option<Repeat>,
    /// What has come of that answer.
    answer: Answer,
    /// There once a server has answered the first join.
    receiver: Option<Receiver>,
    shown: Shown,
    newest: Option<DisplayOrder>,
    /// There until all history has been shown.
    history: Option<History>,
    /// What there was on joining.
    target: VersionVector,
    /// Whether the first join has been answered.
    started: bool,
    /// Whether all entries are given out as they come, rather than each post once and in order.
    copies: bool,
    /// Whether some of what was asked for is no longer kept, and that is still to be said.
    gone: bool,
    /// Of what there were markers: an entry that turns up is shown late, or in the place of one that is held back.
    lost: BTreeSet<(Origin, u64)>,
}

/// The answer to a join, as far as it has come. Parts of several repetitions add up: what a later one says of an origin
/// is as good as what an earlier one said.
#[derive(Debug, Default)]
struct Answer {
    start: VersionVector,
    heads: VersionVector,
    /// How many origins it is to have: the most that was said.
    origins: usize,
}

impl Answer {
    /// Takes a part; whether all are there.
    fn take(&mut self, start: &VersionVector, heads: &VersionVector, origins: u32) -> bool {
        self.origins = self.origins.max(origins as usize).min(limits::ORIGINS_MAX);
        for (origin, head) in heads.iter() {
            if self.heads.origins() < limits::ORIGINS_MAX || self.heads.holds(origin, 1) {
                self.heads.raise(origin, head);
                self.start.raise(origin, start.get(origin));
            }
        }
        self.heads.origins() >= self.origins
    }
}

#[derive(Debug, Default)]
struct History {
    held_back: BTreeMap<DisplayOrder, Entry>,
    progress_at: Time,
}

impl Room {
    /// A room to be followed from `from` on. It is joined with the next [`Self::moved`].
    pub(super) fn new(name: RoomName, from: Start) -> Self {
        Self {
            name,
            from,
            join: None,
            answer: Answer::default(),
            receiver: None,
            shown: Shown::default(),
            newest: None,
            history: None,
            target: VersionVector::default(),
            started: false,
            copies: false,
            gone: false,
            lost: BTreeSet::new(),
        }
    }

    /// A room to be copied from `from` on: every entry is given out, each origin's in order, and what turns up
    /// in the place of a marker behind that. It waits for what is missing for as long as it takes.
    pub(super) fn copied(name: RoomName, from: Start) -> Self {
        Self { copies: true, ..Self::new(name, from) }
    }

    /// How many entries wait above a hole.
    pub(super) fn stranded(&self) -> usize {
        self.receiver.as_ref().map_or(0, Receiver::stranded)
    }

    /// What is held without a hole.
    pub(super) fn cursor(&self) -> Option<&VersionVector> {
        self.receiver.as_ref().map(Receiver::held)
    }

    /// The newest timestamp that was shown.
    pub(super) fn newest(&self) -> Hlc {
        self.newest.map(|order| order.0).unwrap_or_default()
    }

    /// The receiving side, while the present server has answered the join.
    pub(super) fn receiver(&mut self) -> Option<&mut Receiver> {
        if self.join.is_some() { None } else { self.receiver.as_mut() }
    }

    /// A server serves us from now on: joins there.
    pub(super) fn moved(&mut self, now: Time) {
        self.answer = Answer::default();
        self.join = Some(Repeat::new(JOIN.0, JOIN.1, now));
    }

    /// Since when the join waits for its answer.
    pub(super) fn waiting_since(&self) -> Option<Time> {
        self.join.map(|join| join.since)
    }

    /// The join, when it is due.
    pub(super) fn poll_join(&mut self, now: Time) -> Option<Frame> {
        if !self.join.as_mut()?.poll(now) {
            return None;
        }
        let from = match &self.receiver {
            Some(receiver) => Start::After(vectors::fitting(receiver.held())),
            None => match &self.from {
                Start::After(cursor) => Start::After(vectors::fitting(cursor)),
                other => other.clone(),
            },
        };
        Some(Frame::Join { room: self.name.clone(), from })
    }

    /// The present server follows up: from `start`, and there is `heads`, which names some of `origins` origins.
    pub(super) fn joined(
        &mut self,
        start: &VersionVector,
        heads: &VersionVector,
        origins: u32,
        now: Time,
        events: &mut VecDeque<Event>,
    ) {
        if self.join.is_none() || !self.answer.take(start, heads, origins) {
            return;
        }
        self.join = None;
        let Answer { start, heads, .. } = std::mem::take(&mut self.answer);
        if !self.started {
            self.started = true;
            let cursor = match &self.from {
                Start::After(cursor) => cursor.clone(),
                _ => start.clone(),
            };
            self.target.clone_from(&heads);
            let history =
                heads.beyond(&cursor).fold(0_u64, |sum, (_, first, last)| sum.saturating_add(last - first + 1));
            self.history = Some(History { held_back: BTreeMap::new(), progress_at: now });
            let room = self.name.clone();
            events.push_back(if self.copies {
                Event::Copying { room, start: cursor.clone(), entries: history }
            } else {
                Event::Joined { room, history }
            });
            self.receiver = Some(Receiver::new(self.name.clone(), cursor));
        }
        if let Some(receiver) = &mut self.receiver {
            receiver.moved(now);
            receiver.heads(&heads, now);
        }
        if let Some(history) = &mut self.history {
            history.progress_at = now;
        }
        self.catch_up(now, events);
    }

    /// Takes an entry whose hash is right.
    pub(super) fn entry(&mut self, entry: Entry, now: Time, events: &mut VecDeque<Event>) {
        let Some(receiver) = &mut self.receiver else { return };
        let dot = (entry.origin, entry.seq);
        if !entry.is_lost() && self.lost.remove(&dot) {
            // A server has found it again, or another one had it all the time.
            if let Some(history) = &mut self.history {
                history.held_back.retain(|&(_, origin, seq), _| (origin, seq) != dot);
            }
            return self.release(vec![entry], now, events);
        }
        let released = receiver.entry(entry, now);
        if !released.is_empty() {
            self.release(released, now, events);
        }
    }

    /// Shows what has no hole before it, or holds it back while there is history to come.
    fn release(&mut self, mut released: Vec<Entry>, now: Time, events: &mut VecDeque<Event>) {
        for entry in released.iter().filter(|entry| entry.is_lost()) {
            if self.lost.len() < LOST_MAX {
                self.lost.insert((entry.origin, entry.seq));
            }
        }
        let Some(history) = &mut self.history else {
            released.sort_unstable_by_key(Entry::order);
            for entry in released {
                self.show(entry, events);
            }
            return;
        };
        history.progress_at = now;
        if self.copies {
            events.extend(released.into_iter().map(|entry| Event::Message { entry, history: true, late: false }));
            return self.catch_up(now, events);
        }
        history.held_back.extend(released.into_iter().map(|entry| (entry.order(), entry)));
        if history.held_back.len() > HELD_BACK_MAX {
            let portion: Vec<_> =
                std::iter::from_fn(|| history.held_back.pop_first()).take(HELD_BACK_MAX / 2).collect();
            for (_, entry) in portion {
                self.show(entry, events);
            }
        }
        self.catch_up(now, events);
    }

    /// The answer to a pull has ended; it may say that what was asked for is no longer kept.
    pub(super) fn pulled(&mut self, pulled: &Pulled, now: Time, events: &mut VecDeque<Event>) {
        let Some(receiver) = self.receiver() else { return };
        let floors: VersionVector = receiver.gone(pulled).collect();
        let freed = receiver.give_up(&floors, now);
        receiver.pulled(pulled, now);
        if !floors.is_empty() {
            if self.copies {
                events.push_back(Event::Floors { room: self.name.clone(), floors });
            }
            self.gone = true;
            self.release(freed, now, events);
        }
    }

    /// Shows the history once it is complete, or no longer grows.
    pub(super) fn catch_up(&mut self, now: Time, events: &mut VecDeque<Event>) {
        let (Some(history), Some(receiver)) = (&self.history, &self.receiver) else { return };
        let given_up = !self.copies && self.join.is_none() && history.progress_at + PATIENCE <= now;
        if !receiver.held().covers(&self.target) && !given_up {
            return;
        }
        let held_back = self.history.take().map(|history| history.held_back).unwrap_or_default();
        let (past, live): (Vec<_>, Vec<_>) =
            held_back.into_values().partition(|entry| self.target.holds(entry.origin, entry.seq));
        for entry in past {
            self.show(entry, events);
        }
        self.say_gone(None, events);
        events.push_back(Event::CaughtUp { room: self.name.clone() });
        for entry in live {
            self.show(entry, events);
        }
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Option<Time> {
        if let Some(join) = self.join {
            return Some(join.at);
        }
        let patience = self.history.as_ref().filter(|_| !self.copies).map(|history| history.progress_at + PATIENCE);
        let receiver = self.receiver.as_ref().and_then(Receiver::deadline);
        [patience, receiver].into_iter().flatten().min()
    }

    /// Says once that what lies before is no longer kept.
    fn say_gone(&mut self, before: Option<u64>, events: &mut VecDeque<Event>) {
        if std::mem::take(&mut self.gone) {
            events.push_back(Event::HistoryGone { room: self.name.clone(), before });
        }
    }

    fn show(&mut self, entry: Entry, events: &mut VecDeque<Event>) {
        if !entry.is_lost() && !self.shown.insert(entry.post_key()) {
            return;
        }
        self.say_gone(Some(entry.hlc.millis), events);
        let order = entry.order();
        let late = self.newest.is_some_and(|newest| order < newest);
        self.newest = self.newest.max(Some(order));
        let history = self.target.holds(entry.origin, entry.seq);
        events.push_back(Event::Message { entry, history, late });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, ServerId};

    #[test]
    fn what_turns_up_is_shown_in_the_place_of_a_marker_that_is_held_back_and_late_after_one_that_was_shown() {
        let origin = Origin { id: ServerId(1), boot: Boot(1) };
        let real = |seq| Entry {
            kind: "message".into(),
            body: format!("line {seq}").into(),
            client_seq: seq,
            ..marker(origin, seq)
        };
        let check = |steps: &[Entry], expected: &[&str]| {
            let (mut events, now) = (VecDeque::new(), Time::ZERO);
            let mut room = Room::new(RoomName::lobby(), Start::Last(9));
            room.moved(now);
            let heads = [(origin, 3)].into_iter().collect();
            room.joined(&VersionVector::default(), &heads, 1, now, &mut events);
            for entry in steps {
                room.entry(entry.clone(), now, &mut events);
            }
            let shown: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Message { entry, late, .. } if entry.is_lost() => Some(format!("lost, {late}")),
                    Event::Message { entry, late, .. } => Some(format!("{}, {late}", entry.body)),
                    _ => None,
                })
                .collect();
            assert_eq!(shown, expected);
        };
        let lost = marker(origin, 2);
        let all = ["line 1, false", "line 2, false", "line 3, false"];
        check(&[real(1), lost.clone(), real(2), real(3)], &all);
        check(&[lost.clone(), real(2), real(1), real(3)], &all);
        let late = ["line 1, false", "lost, false", "line 3, false", "line 2, true"];
        check(&[real(1), lost.clone(), real(3), real(2), real(2)], &late);
        check(&[real(1), real(2), lost, real(3)], &all);
    }

    #[test]
    fn who_copies_a_room_is_given_the_marker_and_what_takes_its_place_meanwhile() {
        let (origin, now) = (Origin { id: ServerId(1), boot: Boot(1) }, Time::ZERO);
        let real = |seq| Entry { kind: "message".into(), client_seq: seq, ..marker(origin, seq) };
        let (mut events, mut room) = (VecDeque::new(), Room::copied(RoomName::lobby(), Start::Last(9)));
        room.moved(now);
        room.joined(&VersionVector::default(), &[(origin, 3)].into_iter().collect(), 1, now, &mut events);
        for entry in [real(1), marker(origin, 2), real(2), real(2), real(1), real(3)] {
            room.entry(entry, now, &mut events);
        }
        let given = events.iter().filter_map(|event| match event {
            Event::Message { entry, .. } => Some((entry.seq, entry.is_lost())),
            _ => None,
        });
        assert_eq!(given.collect::<Vec<_>>(), [(1, false), (2, true), (2, false), (3, false)]);
    }

    fn marker(origin: Origin, seq: u64) -> Entry {
        Entry::lost(RoomName::lobby(), origin, seq, Hlc { millis: seq, counter: 0 })
    }
}
