//! How much of the logs stays in memory: a tail of each room, and of all rooms together so much and no more.
//!
//! What is durable can be looked up on disk. A room keeps its newest entries, since those are what followers miss and
//! newcomers want; where all rooms together have too much, those quiet for longest keep none. A server without a store
//! keeps everything.

use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use crate::ids::RoomName;

/// What one room keeps: entries, and bytes of their lines.
const ROOM_ENTRIES_MAX: usize = 512;
const ROOM_BYTES_MAX: usize = 256 * 1024;
/// Bytes that all rooms keep.
const ALL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which rooms have how much in memory.
#[derive(Debug, Default)]
pub(super) struct Tails {
    rooms: BTreeMap<RoomName, (u64, usize)>,
    /// Those that can be trimmed, the one quiet for longest first.
    quiet: BTreeSet<(u64, RoomName)>,
    bytes: usize,
    turn: u64,
}

impl Tails {
    /// A room has so many bytes now, and has just changed.
    fn touch(&mut self, name: &RoomName, bytes: usize) {
        let (last, before) = self.rooms.get(name).copied().unwrap_or_default();
        self.quiet.remove(&(last, name.clone()));
        self.turn += 1;
        self.quiet.insert((self.turn, name.clone()));
        self.note(name, self.turn, before, bytes);
    }

    /// Of the room quiet for longest, where all have too much.
    fn too_much(&mut self) -> Option<RoomName> {
        let is_much = self.bytes > ALL_BYTES_MAX && self.quiet.len() > 1;
        is_much.then(|| self.quiet.pop_first()).flatten().map(|(_, name)| name)
    }

    /// It has been trimmed to so much; what is left becomes durable later.
    fn trimmed(&mut self, name: &RoomName, bytes: usize) {
        let (turn, before) = self.rooms.get(name).copied().unwrap_or_default();
        self.note(name, turn, before, bytes);
    }

    fn note(&mut self, name: &RoomName, turn: u64, before: usize, bytes: usize) {
        self.bytes = self.bytes - before + bytes;
        self.rooms.insert(name.clone(), (turn, bytes));
    }
}

impl Node {
    /// More of a room is durable: what is too much goes out of memory.
    pub(super) fn trim(&mut self, name: &RoomName) {
        if !self.kept.has_store() {
            return;
        }
        let Some(bytes) = self.trim_room(name, ROOM_ENTRIES_MAX, ROOM_BYTES_MAX) else { return };
        self.tails.touch(name, bytes);
        while let Some(quiet) = self.tails.too_much() {
            let bytes = self.trim_room(&quiet, 0, 0).unwrap_or_default();
            self.tails.trimmed(&quiet, bytes);
        }
    }

    fn trim_room(&mut self, name: &RoomName, entries_max: usize, bytes_max: usize) -> Option<usize> {
        let room = self.rooms.get_mut(name)?;
        let durable = room.durable.as_ref()?;
        room.log.trim(durable, entries_max, bytes_max);
        Some(room.log.bytes())
    }

    /// How many bytes of entries' lines are in memory.
    pub fn bytes_in_memory(&self) -> usize {
        self.rooms.values().map(|room| room.log.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_quiet_for_longest_are_trimmed_first_and_the_last_one_to_speak_never() {
        const MIB: usize = 1024 * 1024;
        fn check(spoke: &[(&str, usize)], trimmed: &[&str]) {
            let mut tails = Tails::default();
            let mut gone = Vec::new();
            for (name, bytes) in spoke {
                tails.touch(&name.parse().unwrap(), *bytes);
                while let Some(name) = tails.too_much() {
                    tails.trimmed(&name, 0);
                    gone.push(name.to_string());
                }
            }
            assert_eq!(gone, trimmed, "{spoke:?}");
        }
        check(&[("a", 4 * MIB), ("b", 4 * MIB)], &[]);
        check(&[("a", 4 * MIB), ("b", 4 * MIB), ("c", 1)], &["a"]);
        check(&[("a", 4 * MIB), ("b", 4 * MIB), ("a", 4 * MIB + 1)], &["b"]);
        check(&[("a", 3 * MIB), ("b", 3 * MIB), ("c", 8 * MIB)], &["a", "b"]);
        check(&[("a", 9 * MIB)], &[]);
    }
}
