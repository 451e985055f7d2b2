//! Which posts have been shown: each once, however many entries carry it.
//!
//! A post may be in the log twice, under two dots, after two halves of a cluster have met. What was shown is kept as
//! ranges of numbers for each device, so that a long history costs a few bytes.

use std::collections::BTreeMap;

use crate::{
    ids::{DeviceId, PersonId},
    log::PostKey,
};

/// The posts of one room that have been shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// For each device the ranges of its numbers: first -> last. They neither touch nor overlap.
    devices: BTreeMap<(PersonId, DeviceId), BTreeMap<u64, u64>>,
}

impl Shown {
    /// Marks a post as shown; `false` if it was already.
    pub(super) fn insert(&mut self, key: PostKey) -> bool {
        let ranges = self.devices.entry((key.person, key.device)).or_default();
        let seq = key.client_seq;
        let before = ranges.range(..=seq).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| seq <= last) {
            return false;
        }
        let first = before.filter(|(_, last)| last + 1 == seq).map_or(seq, |(first, _)| first);
        let last = seq.checked_add(1).and_then(|next| ranges.remove(&next)).unwrap_or(seq);
        ranges.insert(first, last);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prop_assert_eq, proptest};

    use super::*;

    fn key(device: u64, client_seq: u64) -> PostKey {
        PostKey { person: PersonId([1; 16]), device: DeviceId(device), client_seq }
    }

    proptest! {
        #[test]
        fn each_post_is_new_once(keys in vec((0u64..3, 0u64..40), 0..300)) {
            let (mut shown, mut model) = (Shown::default(), BTreeSet::new());
            for (device, seq) in keys {
                prop_assert_eq!(shown.insert(key(device, seq)), model.insert((device, seq)));
            }
        }
    }

    #[test]
    fn numbers_without_a_hole_are_one_range() {
        let mut shown = Shown::default();
        for seq in [1, 3, 2, u64::MAX, u64::MAX - 1, 4] {
            assert!(shown.insert(key(1, seq)));
        }
        assert!(!shown.insert(key(1, u64::MAX)));
        assert_eq!(shown.devices.values().next().unwrap().clone(), [(1, 4), (u64::MAX - 1, u64::MAX)].into());
    }
}
