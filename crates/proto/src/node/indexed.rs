//! How many records of posts all rooms together keep: each tells one post of a device from another that says its number again.
//! Rooms that have been quiet for longest forget theirs first; what they held is then looked up on the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use crate::ids::RoomName;

/// Records of posts that all rooms keep, about 100 bytes each.
const POSTS_MAX: usize = 65_536;

/// How many records of posts which rooms have: see [`crate::log::RoomLog::posts_size`].
#[derive(Debug, Default)]
pub(super) struct Indexed {
    rooms: BTreeMap<RoomName, (u64, usize)>,
    /// Those that have any, the one quiet for longest first.
    quiet: BTreeSet<(u64, RoomName)>,
    all: usize,
    turn: u64,
}

impl Indexed {
    /// A room has changed, and has so many.
    fn touch(&mut self, name: &RoomName, size: usize) {
        self.turn += 1;
        let (turn, before) = self.rooms.insert(name.clone(), (self.turn, size)).unwrap_or_default();
        self.quiet.remove(&(turn, name.clone()));
        self.quiet.insert((self.turn, name.clone()));
        self.all = self.all + size - before;
    }

    /// The room that has been quiet for longest, where all have too many; not the last one that has changed.
    fn too_much(&mut self) -> Option<RoomName> {
        let is_much = self.all > POSTS_MAX && self.quiet.len() > 1;
        is_much.then(|| self.quiet.pop_first()).flatten().map(|(_, name)| name)
    }

    /// It has so many now.
    fn shrunk(&mut self, name: &RoomName, size: usize) {
        if let Some((_, before)) = self.rooms.get_mut(name) {
            self.all = self.all + size - std::mem::replace(before, size);
        }
    }
}

impl Node {
    /// All rooms together keep so many records of posts: those quiet for longest forget theirs first.
    pub(super) fn trim_posts(&mut self, name: &RoomName) {
        let Some(size) = self.rooms.get(name).map(|room| room.log.posts_size()) else { return };
        self.indexed.touch(name, size);
        while let Some(quiet) = self.indexed.too_much() {
            if let Some(room) = self.rooms.get_mut(&quiet) {
                room.log.shrink_posts(0);
                self.indexed.shrunk(&quiet, room.log.posts_size());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_quiet_for_longest_forget_their_posts_first() {
        fn check(spoke: &[(&str, usize)], shrunk: &[&str]) {
            let (mut indexed, mut gone) = (Indexed::default(), Vec::new());
            for (name, size) in spoke {
                indexed.touch(&name.parse().unwrap(), *size);
                while let Some(name) = indexed.too_much() {
                    indexed.shrunk(&name, 0);
                    gone.push(name.to_string());
                }
            }
            assert_eq!(gone, shrunk, "{spoke:?}");
        }
        const HALF: usize = POSTS_MAX / 2;
        check(&[("a", HALF), ("b", HALF)], &[]);
        check(&[("a", HALF), ("b", HALF), ("c", 1)], &["a"]);
        check(&[("a", HALF), ("b", HALF), ("a", HALF + 1)], &["b"]);
        check(&[("a", 3 * HALF)], &[]);
    }
}
