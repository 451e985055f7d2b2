//! Datagrams that are to be sent, in one buffer that is used again and again: sending them allocates nothing once it has
//! grown to what a turn needs.

use std::net::SocketAddr;

/// Beyond so many bytes the buffer is given back once it has been emptied: a burst is not to be paid for forever.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Datagrams, each with where it goes, in the order in which they are to be sent. What lies beside each other here lies
/// beside each other in memory: so a run to one receiver can be handed over as one piece.
#[derive(Debug, Default)]
pub struct Datagrams {
    /// As long as it ever had to be: what lies beyond the last one is of no meaning.
    bytes: Vec<u8>,
    /// Where each goes, and where it ends.
    parts: Vec<(SocketAddr, usize)>,
}

/// Some of them, one after the other, of one length (the last may be shorter), to one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// To whom.
    pub to: SocketAddr,
    /// All of them.
    pub bytes: &'a [u8],
    /// The length of each but the last; greater than 0 unless the only one is empty.
    pub segment: usize,
}

impl Run<'_> {
    /// How many they are.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1)).max(1)
    }
}

impl Datagrams {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.parts.last().map_or(0, |(_, end)| *end)
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.parts.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            (self.bytes, self.parts) = (Vec::new(), Vec::new());
        }
    }

    /// Adds one.
    pub fn push(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.add(to, bytes.len()).copy_from_slice(bytes);
    }

    /// Adds one of so many bytes, all of which are to be written.
    pub(super) fn add(&mut self, to: SocketAddr, len: usize) -> &mut [u8] {
        let start = self.bytes();
        let end = start + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.parts.push((to, end));
        &mut self.bytes[start..end]
    }

    /// Each, with where it goes.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let starts = std::iter::once(0).chain(self.parts.iter().map(|(_, end)| *end));
        self.parts.iter().zip(starts).map(|(&(to, end), start)| (to, &self.bytes[start..end]))
    }

    /// All of them as runs: each as long as it can be, with at most `count_max` datagrams and `bytes_max` bytes, but one.
    pub fn runs(&self, count_max: usize, bytes_max: usize) -> impl Iterator<Item = Run<'_>> {
        let (mut next, mut start) = (0, 0);
        std::iter::from_fn(move || {
            let &(to, mut end) = self.parts.get(next)?;
            let (first, segment) = (start, end - start);
            next += 1;
            let mut count = 1;
            // Zero bytes cannot be cut into pieces.
            while segment > 0
                && count < count_max
                && let Some(&(other, other_end)) = self.parts.get(next)
                && other == to
                && (1..=segment).contains(&(other_end - end))
                && other_end - first <= bytes_max
            {
                let is_last = other_end - end < segment;
                (end, next, count) = (other_end, next + 1, count + 1);
                if is_last {
                    break;
                }
            }
            start = end;
            Some(Run { to, bytes: &self.bytes[first..end], segment })
        })
    }
}

impl IntoIterator for Datagrams {
    type Item = (SocketAddr, Vec<u8>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    /// Each by itself.
    fn into_iter(self) -> Self::IntoIter {
        self.iter().map(|(to, bytes)| (to, bytes.to_vec())).collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn datagrams(parts: &[(u16, usize)]) -> Datagrams {
        let mut datagrams = Datagrams::default();
        for (at, &(port, len)) in parts.iter().enumerate() {
            datagrams.push(to(port), &vec![at as u8; len]);
        }
        datagrams
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let mut datagrams = datagrams(&[(1, 3), (2, 0), (1, 2)]);
        datagrams.add(to(3), 2).copy_from_slice(b"hi");
        let seen: Vec<_> = datagrams.iter().map(|(to, bytes)| (to.port(), bytes.to_vec())).collect();
        assert_eq!(seen, [(1, vec![0; 3]), (2, vec![]), (1, vec![2; 2]), (3, b"hi".to_vec())]);
        datagrams.clear();
        assert_eq!((datagrams.len(), datagrams.is_empty(), datagrams.iter().count()), (0, true, 0));
    }

    #[test]
    fn runs_go_to_one_receiver_and_only_their_last_may_be_shorter() {
        fn check(parts: &[(u16, usize)], expected: &[(u16, usize, usize)]) {
            let datagrams = datagrams(parts);
            let seen: Vec<_> =
                datagrams.runs(4, 1_000).map(|run| (run.to.port(), run.segment, run.bytes.len())).collect();
            assert_eq!(seen, expected, "{parts:?}");
            let counted: usize = datagrams.runs(4, 1_000).map(|run| run.count()).sum();
            assert_eq!(counted, parts.len(), "{parts:?}");
        }
        check(&[], &[]);
        check(&[(1, 9), (1, 9), (2, 9)], &[(1, 9, 18), (2, 9, 9)]);
        check(&[(1, 9), (1, 8), (1, 9), (1, 9)], &[(1, 9, 17), (1, 9, 18)]);
        check(&[(1, 8), (1, 9)], &[(1, 8, 8), (1, 9, 9)]);
        check(&[(1, 9); 6], &[(1, 9, 36), (1, 9, 18)]);
        check(&[(1, 400); 3], &[(1, 400, 800), (1, 400, 400)]);
        check(&[(1, 2_000), (1, 2_000)], &[(1, 2_000, 2_000), (1, 2_000, 2_000)]);
        check(&[(1, 0), (1, 0), (1, 5)], &[(1, 0, 0), (1, 0, 0), (1, 5, 5)]);
    }
}
