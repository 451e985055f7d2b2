//! A table by hashes, for what is asked at each packet: much faster than a map in order, and as deterministic, since nobody
//! walks over it. Open addressing with linear probing (Knuth, "The Art of Computer Programming", volume 3, 6.4).

/// No hash: what has this one goes by the next.
const FREE: u64 = 0;
/// Places in a table that something is put in for the first time.
const PLACES_FIRST: usize = 1 << 10;

/// A value for each hash, of packets or of anything else.
#[derive(Clone, Debug)]
pub struct Hashes<V> {
    /// As many as a power of two says, and at least half of them [`FREE`].
    places: Vec<(u64, V)>,
    len: usize,
}

impl<V: Copy + Default> Default for Hashes<V> {
    fn default() -> Self {
        Self { places: Vec::new(), len: 0 }
    }
}

impl<V: Copy + Default> Hashes<V> {
    /// Puts a value in; gives back the one that was there for this hash.
    pub fn insert(&mut self, hash: u64, value: V) -> Option<V> {
        if self.len * 2 >= self.places.len() {
            self.grow();
        }
        let hash = hash.max(1);
        let at = self.place(hash);
        let (held, before) = std::mem::replace(&mut self.places[at], (hash, value));
        let is_new = held == FREE;
        self.len += usize::from(is_new);
        (!is_new).then_some(before)
    }

    /// Whether there is a value for this hash.
    pub fn contains(&self, hash: u64) -> bool {
        !self.places.is_empty() && self.places[self.place(hash.max(1))].0 != FREE
    }

    /// Whether there is none for any.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where this hash is, or would be.
    fn place(&self, hash: u64) -> usize {
        let mask = self.places.len() - 1;
        // The lower bits of a product know only those below them.
        let mut at = (hash ^ (hash >> 32)) as usize & mask;
        while ![FREE, hash].contains(&self.places[at].0) {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let count = (self.places.len() * 2).max(PLACES_FIRST);
        let before = std::mem::replace(&mut self.places, vec![<_>::default(); count]);
        for held in before.into_iter().filter(|(hash, _)| *hash != FREE) {
            let at = self.place(held.0);
            self.places[at] = held;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dice;

    #[test]
    fn it_agrees_with_a_map() {
        let (mut rng, mut hashes, mut map) = (dice::from_number(1), Hashes::default(), BTreeMap::new());
        assert!(hashes.is_empty() && !hashes.contains(0));
        for value in 0..20_000_u32 {
            // Some collide in all places there can be, and some are the same.
            let hash = (1 + rng.below(8_000)) << (rng.below(2) * 40);
            assert_eq!(hashes.contains(hash), map.contains_key(&hash), "{hash}");
            assert_eq!(hashes.insert(hash, value), map.insert(hash, value), "{hash}");
            assert_eq!(hashes.len, map.len());
        }
        assert!((1..8_000).all(|hash| hashes.contains(hash) == map.contains_key(&hash)));
    }
}
