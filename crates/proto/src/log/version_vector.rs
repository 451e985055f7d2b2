//! Version vectors: what somebody holds of a room, for each origin the highest seq without a hole.
//!
//! Parker et al., "Detection of mutual inconsistency in distributed systems", 1983. Every cursor in hobnob is one.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{ids::Origin, wire::number::Safe};

/// Origin -> highest seq without a hole; an origin that is missing stands at 0. On the wire `{"id.boot": seq}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector {
    /// By origin. Most vectors are of one or two, and each follower of each room has one: a tree would take 288 bytes for
    /// the first.
    seqs: Vec<(Origin, u64)>,
}

impl VersionVector {
    /// The highest seq without a hole that is held of `origin`.
    pub fn get(&self, origin: Origin) -> u64 {
        self.place(origin).map_or(0, |at| self.seqs[at].1)
    }

    /// Raises `origin` to `seq`; never lowers it.
    pub fn raise(&mut self, origin: Origin, seq: u64) {
        match self.place(origin) {
            Ok(at) => self.seqs[at].1 = seq.max(self.seqs[at].1),
            Err(at) if seq > 0 => {
                // Room for one, then twice as much each time.
                if self.seqs.is_empty() {
                    self.seqs.reserve_exact(1);
                }
                self.seqs.insert(at, (origin, seq));
            }
            Err(_) => {}
        }
    }

    /// Takes the higher of both for each origin.
    pub fn merge(&mut self, other: &Self) {
        let new = other.seqs.iter().filter(|(origin, _)| self.place(*origin).is_err()).count();
        if new == 0 {
            return other.iter().for_each(|(origin, seq)| self.raise(origin, seq));
        }
        let mut both = Vec::with_capacity(self.seqs.len() + new);
        let mut theirs = other.iter().peekable();
        for (origin, seq) in self.iter() {
            while let Some(before) = theirs.next_if(|(other, _)| *other < origin) {
                both.push(before);
            }
            let same = theirs.next_if(|(other, _)| *other == origin);
            both.push((origin, same.map_or(seq, |(_, other)| seq.max(other))));
        }
        both.extend(theirs);
        self.seqs = both;
    }

    /// Where an origin stands, or would.
    fn place(&self, origin: Origin) -> Result<usize, usize> {
        self.seqs.binary_search_by_key(&origin, |(origin, _)| *origin)
    }

    /// Whether it covers the entry `seq` of `origin`.
    pub fn holds(&self, origin: Origin, seq: u64) -> bool {
        seq <= self.get(origin)
    }

    /// Whether all that `other` covers is covered.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(origin, seq)| self.holds(origin, seq))
    }

    /// What `self` covers beyond `other`: for each origin the first and the last seq.
    pub fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (Origin, u64, u64)> + 'a {
        self.iter()
            .filter(|&(origin, seq)| !other.holds(origin, seq))
            .map(|(origin, seq)| (origin, other.get(origin) + 1, seq))
    }

    /// How many entries `self` covers beyond `other`; as many as there can be, where that is more.
    pub fn count_beyond(&self, other: &Self) -> u64 {
        self.beyond(other).fold(0, |sum: u64, (_, from, to)| sum.saturating_add((to - from).saturating_add(1)))
    }

    /// Each origin with its seq, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, u64)> + '_ {
        self.seqs.iter().copied()
    }

    /// How many entries it covers; as many as there can be, where that is more.
    pub fn count(&self) -> u64 {
        self.seqs.iter().fold(0, |sum: u64, (_, seq)| sum.saturating_add(*seq))
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    /// How many origins it names.
    pub fn origins(&self) -> usize {
        self.seqs.len()
    }
}

impl FromIterator<(Origin, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(pairs: I) -> Self {
        let mut seqs: Vec<_> = pairs.into_iter().filter(|(_, seq)| *seq > 0).collect();
        // Of one origin the highest comes first, and stays.
        seqs.sort_unstable_by_key(|(origin, seq)| (*origin, Reverse(*seq)));
        seqs.dedup_by_key(|(origin, _)| *origin);
        seqs.shrink_to_fit();
        Self { seqs }
    }
}

impl Serialize for VersionVector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.seqs.iter().map(|(origin, seq)| (origin.to_string(), seq)))
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = BTreeMap::<String, Safe>::deserialize(deserializer)?;
        pairs
            .into_iter()
            .map(|(origin, seq)| Ok((origin.parse().map_err(D::Error::custom)?, seq.0)))
            .collect::<Result<Self, D::Error>>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{Boot, ServerId};

    fn vector(pairs: &[(u32, u64)]) -> VersionVector {
        pairs.iter().map(|&(id, seq)| (Origin { id: ServerId(id), boot: Boot(7) }, seq)).collect()
    }

    #[test]
    fn beyond_names_the_ranges_that_the_other_lacks() {
        let (mine, theirs) = (vector(&[(1, 5), (2, 3)]), vector(&[(1, 2), (2, 3), (3, 9)]));
        let beyond: Vec<_> = mine.beyond(&theirs).map(|(origin, from, to)| (origin.id.0, from, to)).collect();
        assert_eq!(beyond, [(1, 3, 5)]);
        assert!(!mine.covers(&theirs));
    }

    #[test]
    fn what_is_beyond_is_counted_up_to_what_a_number_can_say() {
        let none = VersionVector::default();
        assert_eq!(vector(&[(1, 5), (2, 3)]).count_beyond(&vector(&[(1, 2), (2, 3), (3, 9)])), 3);
        assert_eq!(vector(&[(1, u64::MAX), (2, 3)]).count_beyond(&none), u64::MAX);
    }

    #[test]
    fn a_merge_covers_both() {
        let (mut mine, theirs) = (vector(&[(1, 5)]), vector(&[(1, 2), (3, 9)]));
        mine.merge(&theirs);
        assert_eq!(mine, vector(&[(1, 5), (3, 9)]));
        assert_eq!(mine.count(), 14);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_merge_has_the_higher_of_each(
            mine in prop::collection::vec((0..12_u32, 0..4_u64), 0..9),
            theirs in prop::collection::vec((0..12_u32, 0..4_u64), 0..9),
        ) {
            let mut merged = vector(&mine);
            merged.merge(&vector(&theirs));
            prop_assert_eq!(merged, vector(&[mine, theirs].concat()));
        }
    }

    #[test]
    fn it_survives_its_wire_form() {
        let vector = vector(&[(1, 5), (12, 3)]);
        let text = serde_json::to_string(&vector).unwrap();
        assert_eq!(text, r#"{"1.7":5,"12.7":3}"#);
        assert_eq!(serde_json::from_str::<VersionVector>(&text).unwrap(), vector);
    }
}
