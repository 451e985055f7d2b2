//! Something that counts how often it was lent out to be changed.

use std::ops::{Deref, DerefMut};

/// A thing, and how often anybody could have changed it: whoever looks at it again and again looks only where it may be
/// another one than before. It cannot be forgotten to count: there is no other way to change it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lent<T> {
    it: T,
    times: u64,
}

impl<T> Lent<T> {
    /// One that nobody has changed.
    pub(crate) fn new(it: T) -> Self {
        Self { it, times: 0 }
    }

    /// How often it was lent out so far. Where that is what it was before, so is the thing.
    pub(crate) fn times(&self) -> u64 {
        self.times
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.times += 1;
        &mut self.it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_change_it_counts() {
        let mut lent = Lent::new(vec![1]);
        assert_eq!((lent.len(), lent.times()), (1, 0));
        lent.push(2);
        lent[0] = 3;
        assert_eq!((lent.iter().sum::<i32>(), lent.times()), (5, 2));
    }
}
