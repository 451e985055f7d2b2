//! A budget that all rooms share: where together they keep too much of something, those quiet for longest give theirs up.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::RoomName;

/// How much of something which rooms keep.
#[derive(Debug)]
pub(super) struct Budget {
    /// What all may keep.
    max: usize,
    all: usize,
    /// Of each room, when it last changed and how much it keeps.
    rooms: BTreeMap<RoomName, (u64, usize)>,
    /// Those that may have something to give up, the one quiet for longest first.
    quiet: BTreeSet<(u64, RoomName)>,
    turn: u64,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { max, all: 0, rooms: BTreeMap::new(), quiet: BTreeSet::new(), turn: 0 }
    }

    /// A room has changed, and keeps so much.
    pub(super) fn touch(&mut self, name: &RoomName, size: usize) {
        self.turn += 1;
        let (turn, before) = self.rooms.insert(name.clone(), (self.turn, size)).unwrap_or_default();
        self.quiet.remove(&(turn, name.clone()));
        self.quiet.insert((self.turn, name.clone()));
        self.all = self.all + size - before;
    }

    /// The room that has been quiet for longest, where all keep too much; not the last one that has changed. Each is named
    /// once, until it changes again.
    pub(super) fn too_much(&mut self) -> Option<RoomName> {
        let is_much = self.all > self.max && self.quiet.len() > 1;
        is_much.then(|| self.quiet.pop_first()).flatten().map(|(_, name)| name)
    }

    /// A room that was named keeps so much now.
    pub(super) fn shrunk(&mut self, name: &RoomName, size: usize) {
        if let Some((_, before)) = self.rooms.get_mut(name) {
            self.all = self.all + size - std::mem::replace(before, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_quiet_for_longest_give_up_first_and_the_last_one_to_speak_never() {
        fn check(spoke: &[(&str, usize)], left: usize, shrunk: &[&str]) {
            let (mut budget, mut gone) = (Budget::new(8), Vec::new());
            for (name, size) in spoke {
                budget.touch(&name.parse().unwrap(), *size);
                while let Some(name) = budget.too_much() {
                    budget.shrunk(&name, left);
                    gone.push(name.to_string());
                }
            }
            assert_eq!(gone, shrunk, "{spoke:?}");
        }
        check(&[("a", 4), ("b", 4)], 0, &[]);
        check(&[("a", 4), ("b", 4), ("c", 1)], 0, &["a"]);
        check(&[("a", 4), ("b", 4), ("a", 5)], 0, &["b"]);
        check(&[("a", 3), ("b", 3), ("c", 8)], 0, &["a", "b"]);
        check(&[("a", 4), ("b", 4), ("c", 4)], 3, &["a", "b"]);
        check(&[("a", 9)], 0, &[]);
    }
}
