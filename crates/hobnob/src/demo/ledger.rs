//! The accounts of the demo: what was written, what was said to be stored, and what each member saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// How many messages had which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Written by a person.
    pub(super) written: usize,
    /// Said to be stored.
    pub(super) stored: usize,
    /// Said to be stored, and not seen by some member or not in some server's log.
    pub(super) lost: usize,
    /// Seen twice by some member, or twice in some server's log.
    pub(super) doubled: usize,
}

/// Everything that happened in one room. Bodies are unique: each carries its author's name and a number.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// What was written, and when.
    written: BTreeMap<String, Instant>,
    /// What was said to be stored.
    stored: BTreeSet<String>,
    /// What each reader saw: how often, and when first. A reader is a member, or a server's log at the end.
    seen: BTreeMap<String, BTreeMap<String, (u32, Instant)>>,
}

impl Room {
    /// A reader is there from the start, so that one who sees nothing counts too.
    pub(super) fn add_reader(&mut self, reader: &str) {
        self.seen.entry(reader.to_owned()).or_default();
    }

    /// Somebody wrote this.
    pub(super) fn write(&mut self, body: &str, at: Instant) {
        self.written.insert(body.to_owned(), at);
    }

    /// Its author was told that it is stored.
    pub(super) fn store(&mut self, body: &str) {
        self.stored.insert(body.to_owned());
    }

    /// A reader saw this. Whether nobody had seen it before.
    pub(super) fn see(&mut self, reader: &str, body: &str, at: Instant) -> bool {
        let is_new = !self.seen.values().any(|bodies| bodies.contains_key(body));
        let bodies = self.seen.entry(reader.to_owned()).or_default();
        bodies.entry(body.to_owned()).or_insert((0, at)).0 += 1;
        is_new
    }

    /// Whether all that was written is stored.
    pub(super) fn is_settled(&self) -> bool {
        self.written.keys().all(|body| self.stored.contains(body))
    }

    /// Whether every reader has seen all that is stored.
    pub(super) fn is_seen(&self) -> bool {
        self.seen.values().all(|bodies| self.stored.iter().all(|body| bodies.contains_key(body)))
    }

    /// When every reader had got at least one message that was written after `since`.
    pub(super) fn reached_all(&self, since: Instant) -> Option<Instant> {
        let is_new = |body: &str| self.written.get(body).is_some_and(|written| *written > since);
        let first = |bodies: &BTreeMap<String, (u32, Instant)>| {
            bodies.iter().filter(|(body, _)| is_new(body)).map(|(_, (_, at))| *at).min()
        };
        self.seen.values().map(first).try_fold(since, |latest, at| Some(latest.max(at?)))
    }

    /// The account.
    pub(super) fn tally(&self) -> Tally {
        let is_lost = |body: &&String| self.seen.values().any(|bodies| !bodies.contains_key(*body));
        let is_doubled =
            |body: &&String| self.seen.values().any(|bodies| bodies.get(*body).is_some_and(|(times, _)| *times > 1));
        Tally {
            written: self.written.len(),
            stored: self.stored.len(),
            lost: self.stored.iter().filter(is_lost).count(),
            doubled: self.written.keys().filter(is_doubled).count(),
        }
    }
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            written: self.written + other.written,
            stored: self.stored + other.stored,
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_message_is_accounted_for() {
        fn check(stored: &[&str], ada: &[&str], ben: &[&str], expected: [usize; 4]) {
            let now = Instant::now();
            let mut room = Room::default();
            for reader in ["ada", "ben"] {
                room.add_reader(reader);
            }
            for body in ["1", "2"] {
                room.write(body, now);
            }
            for body in stored {
                room.store(body);
            }
            for (reader, bodies) in [("ada", ada), ("ben", ben)] {
                for body in bodies {
                    room.see(reader, body, now);
                }
            }
            let Tally { written, stored, lost, doubled } = room.tally();
            assert_eq!([written, stored, lost, doubled], expected, "{room:?}");
        }
        check(&["1", "2"], &["1", "2"], &["1", "2"], [2, 2, 0, 0]);
        check(&["1"], &["1", "2"], &["1"], [2, 1, 0, 0]);
        check(&["1", "2"], &["1", "2"], &["1"], [2, 2, 1, 0]);
        check(&["1", "2"], &["1", "2"], &[], [2, 2, 2, 0]);
        check(&["1", "2"], &["1", "2", "1"], &["1", "2"], [2, 2, 0, 1]);
    }

    #[test]
    fn a_room_has_recovered_once_every_reader_has_a_new_message() {
        let kill = Instant::now();
        let at = |millis| kill + Duration::from_millis(millis);
        let mut room = Room::default();
        room.write("old", kill.checked_sub(Duration::from_millis(1)).unwrap());
        room.write("new", at(1));
        room.see("ada", "old", at(5));
        room.see("ada", "new", at(10));
        room.see("ben", "old", at(20));
        assert_eq!(room.reached_all(kill), None);
        room.see("ben", "new", at(30));
        assert_eq!(room.reached_all(kill), Some(at(30)));
    }
}
