//! A digest of a set that is kept up to date as the set changes: the sum of the digests of its items.
//!
//! A sum does not depend on the order in which items came, and an item can be taken out again. Digests are compared to
//! notice that two servers differ, between servers that trust each other: they prove nothing.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Bits of a digest: JSON carries no greater integer.
const MASK: u64 = (1 << 53) - 1;

/// The digest of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SetDigest(u64);

impl SetDigest {
    pub(super) fn add(&mut self, item: &impl Serialize) {
        self.0 = self.0.wrapping_add(of(item));
    }

    pub(super) fn remove(&mut self, item: &impl Serialize) {
        self.0 = self.0.wrapping_sub(of(item));
    }

    /// 53 bits.
    pub(super) fn value(self) -> u64 {
        self.0 & MASK
    }
}

/// 53 bits of the SHA-256 of an item's JSON.
pub(super) fn of(item: &impl Serialize) -> u64 {
    let json = serde_json::to_vec(item).expect("items have string keys and no failing parts");
    let hash = Sha256::digest(&json);
    hash[..8].iter().fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte)) & MASK
}
