//! Small sets in one piece of memory.

/// A set of things in order, kept as a list without space to spare: for a few things of each of many owners, where a tree
/// would take room for eleven.
#[derive(Clone, Debug)]
pub(crate) struct Sorted<T>(Vec<T>);

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Sorted<T> {
    /// Adds one, if it is not there.
    pub(crate) fn insert(&mut self, item: T) {
        if let Err(at) = self.0.binary_search(&item) {
            if self.0.len() < 4 {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, item);
        }
    }

    /// Takes one out, if it is there.
    pub(crate) fn remove(&mut self, item: &T) {
        if let Ok(at) = self.0.binary_search(item) {
            self.0.remove(at);
        }
    }

    /// Whether it is there.
    pub(crate) fn contains(&self, item: &T) -> bool {
        self.0.binary_search(item).is_ok()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set_in_order() {
        let mut set = Sorted::default();
        for item in [3, 1, 2, 3, 9, 7, 8] {
            set.insert(item);
        }
        set.remove(&9);
        set.remove(&4);
        assert_eq!(set.iter().copied().collect::<Vec<_>>(), [1, 2, 3, 7, 8]);
        assert_eq!((set.len(), set.contains(&2), set.contains(&9)), (5, true, false));
    }
}
