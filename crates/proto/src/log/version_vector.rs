//! Version vectors: what somebody holds of a room, for each origin the highest seq without a hole.
//!
//! Parker et al., "Detection of mutual inconsistency in distributed systems", 1983. Every cursor in hobnob is one.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{ids::Origin, wire::number::Safe};

/// Origin -> highest seq without a hole; an origin that is missing stands at 0. On the wire `{"id.boot": seq}`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct VersionVector {
    /// The sum of all seqs: kept, since it says at once whether a vector has grown.
    count: u64,
    seqs: BTreeMap<Origin, u64>,
}

impl VersionVector {
    /// The highest seq without a hole that is held of `origin`.
    pub fn get(&self, origin: Origin) -> u64 {
        self.seqs.get(&origin).copied().unwrap_or(0)
    }

    /// Raises `origin` to `seq`; never lowers it.
    pub fn raise(&mut self, origin: Origin, seq: u64) {
        if seq > 0 {
            let held = self.seqs.entry(origin).or_default();
            self.count = self.count.saturating_add(seq.saturating_sub(*held));
            *held = seq.max(*held);
        }
    }

    /// Takes the higher of both for each origin.
    pub fn merge(&mut self, other: &Self) {
        for (origin, seq) in other.iter() {
            self.raise(origin, seq);
        }
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
        self.seqs.iter().map(|(origin, seq)| (*origin, *seq))
    }

    /// How many entries it covers; as many as there can be, where that is more.
    pub fn count(&self) -> u64 {
        self.count
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

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VersionVector").field(&self.seqs).finish()
    }
}

impl FromIterator<(Origin, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(pairs: I) -> Self {
        let mut vector = Self::default();
        for (origin, seq) in pairs {
            vector.raise(origin, seq);
        }
        vector
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
        mine.raise(Origin { id: ServerId(1), boot: Boot(7) }, u64::MAX);
        assert_eq!(mine.count(), u64::MAX);
    }

    #[test]
    fn it_survives_its_wire_form() {
        let vector = vector(&[(1, 5), (12, 3)]);
        let text = serde_json::to_string(&vector).unwrap();
        assert_eq!(text, r#"{"1.7":5,"12.7":3}"#);
        assert_eq!(serde_json::from_str::<VersionVector>(&text).unwrap(), vector);
    }
}
