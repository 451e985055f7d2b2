//! A room's log in memory: a grow-only set of entries.
//!
//! Only its origin writes an origin's part, in order, so the log is a sequence for each origin; display order and the
//! index of posts are views of that set. Two logs merge by union (Shapiro et al., "Conflict-free replicated data types",
//! 2011). What is inserted here has no hole before it: [`Receiver`](crate::delivery::receiver::Receiver) sees to that.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry as Slot},
    sync::Arc,
};

use crate::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId},
    log::{
        Entry, PostKey, VersionVector,
        entry::{DisplayOrder, Hash},
    },
    planted::{self, Bug},
    wire::Frame,
};

/// An entry as it is kept: with the line that tells a follower of it, serialised once for all.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The entry.
    pub entry: Arc<Entry>,
    /// [`Frame::Entry`] as a line, newline included.
    pub line: Arc<str>,
}

/// What became of an insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    New,
    /// It was there.
    Known,
    /// The same dot is held with another content.
    Conflict {
        /// The hash that is held.
        held: Hash,
    },
    /// Its number does not follow the last one of its origin.
    Hole,
}

/// The entries of one room.
#[derive(Debug, Default)]
pub struct RoomLog {
    parts: BTreeMap<Origin, Vec<Kept>>,
    display: BTreeSet<DisplayOrder>,
    posts: BTreeMap<(PersonId, DeviceId), BTreeMap<u64, DisplayOrder>>,
    newest: Hlc,
}

impl RoomLog {
    /// Adds the next entry of its origin.
    pub fn insert(&mut self, entry: Entry) -> Inserted {
        let part = self.parts.entry(entry.origin).or_default();
        let next = part.len() as u64 + 1;
        if entry.seq != next {
            return match part.get(entry.seq.wrapping_sub(1) as usize) {
                Some(kept) if kept.entry.hash == entry.hash => Inserted::Known,
                Some(kept) => Inserted::Conflict { held: kept.entry.hash },
                None => Inserted::Hole,
            };
        }
        self.newest = self.newest.max(entry.hlc);
        self.display.insert(entry.order());
        match self.posts.entry((entry.person, entry.device)).or_default().entry(entry.client_seq) {
            Slot::Vacant(slot) => drop(slot.insert(entry.order())),
            Slot::Occupied(mut slot) => {
                let (one, other) = (entry.order(), *slot.get());
                slot.insert(if planted::is(Bug::LaterDuplicate) { one.max(other) } else { one.min(other) });
            }
        }
        let frame = Frame::Entry(entry);
        let line = frame.to_line().into();
        let Frame::Entry(entry) = frame else { unreachable!("it was made two lines above") };
        part.push(Kept { entry: Arc::new(entry), line });
        Inserted::New
    }

    /// One entry.
    pub fn get(&self, origin: Origin, seq: u64) -> Option<&Kept> {
        self.parts.get(&origin)?.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.display.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.display.is_empty()
    }

    /// The newest time of all entries.
    pub fn newest(&self) -> Hlc {
        self.newest
    }

    /// All entries in display order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Kept> {
        self.display.iter().filter_map(|&(_, origin, seq)| self.get(origin, seq))
    }

    /// The canonical entry of a post: of several with the same key, the first in display order.
    pub fn post(&self, key: PostKey) -> Option<&Kept> {
        let &(_, origin, seq) = self.posts.get(&(key.person, key.device))?.get(&key.client_seq)?;
        self.get(origin, seq)
    }

    /// The first number from `oldest` on that no post of the device has: the one to be admitted next.
    pub fn next_post(&self, person: PersonId, device: DeviceId, oldest: u64) -> u64 {
        let Some(posts) = self.posts.get(&(person, device)) else { return oldest };
        posts
            .range(oldest..)
            .zip(oldest..=u64::MAX)
            .find(|((held, _), wanted)| *held != wanted)
            .map_or_else(|| oldest.saturating_add(posts.range(oldest..).count() as u64), |(_, wanted)| wanted)
    }

    /// The cursor beyond which the last `count` posts lie; `held` is the vector of the whole log. A post with several
    /// entries is shown once, so it counts once: where the first of them stands.
    pub fn start_of_last(&self, count: u32, held: &VersionVector) -> VersionVector {
        let mut canonical = self.display.iter().rev().filter(|order| self.is_canonical(order));
        let first = canonical.nth((count as usize).saturating_sub(1)).or(self.display.first()).copied();
        let first = first.filter(|_| count > 0);
        self.start_at(first, held)
    }

    /// Whether an entry is the one that its post is shown as.
    fn is_canonical(&self, order: &DisplayOrder) -> bool {
        let &(_, origin, seq) = order;
        let post = self.get(origin, seq).and_then(|kept| self.post(kept.entry.post_key()));
        post.is_some_and(|kept| kept.entry.order() == *order)
    }

    /// The cursor beyond which entries from `millis` (cluster time) on lie.
    pub fn start_since(&self, millis: u64, held: &VersionVector) -> VersionVector {
        let from = (Hlc { millis, counter: 0 }, Origin::MIN, 0);
        self.start_at(self.display.range(from..).next().copied(), held)
    }

    /// The cursor that covers what is displayed before `first`: within an origin, display order is the order of seq.
    fn start_at(&self, first: Option<DisplayOrder>, held: &VersionVector) -> VersionVector {
        let Some(first) = first else { return held.clone() };
        self.parts
            .iter()
            .map(|(&origin, part)| {
                let before = part.partition_point(|kept| kept.entry.order() < first);
                (origin, before as u64)
            })
            .collect()
    }

    /// The entries of the given ranges (origin, first seq, last seq), the first `max` in display order; fewer where their
    /// lines would have more than `bytes_max` bytes, but one.
    pub fn ranges(&self, want: &[(Origin, u64, u64)], max: usize, bytes_max: usize) -> Vec<Kept> {
        let mut fronts: Vec<(&[Kept], usize)> = want
            .iter()
            .filter_map(|&(origin, from, to)| {
                let part = self.parts.get(&origin)?;
                let end = usize::try_from(to).unwrap_or(usize::MAX).min(part.len());
                let start = usize::try_from(from.max(1) - 1).unwrap_or(usize::MAX).min(end);
                Some((&part[start..end], 0))
            })
            .collect();
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < max {
            let Some((part, at)) = fronts
                .iter_mut()
                .filter(|(part, at)| *at < part.len())
                .min_by_key(|(part, at)| part[*at].entry.order())
            else {
                break;
            };
            bytes += part[*at].line.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(part[*at].clone());
            *at += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Boot, RoomName, ServerId},
        log::entry::MESSAGE,
    };

    fn origin(id: u32) -> Origin {
        Origin { id: ServerId(id), boot: Boot(1) }
    }

    fn entry(id: u32, seq: u64, millis: u64, client_seq: u64) -> Entry {
        let mut entry = Entry {
            room: RoomName::lobby(),
            origin: origin(id),
            seq,
            hlc: Hlc { millis, counter: 0 },
            from: "anna".parse().unwrap(),
            person: PersonId([1; 16]),
            device: DeviceId(1),
            client_seq,
            kind: MESSAGE.into(),
            body: "hello".into(),
            hash: Hash::default(),
        };
        entry.hash = entry.digest();
        entry
    }

    fn log(entries: &[(u32, u64, u64, u64)]) -> RoomLog {
        let mut log = RoomLog::default();
        for &(id, seq, millis, client_seq) in entries {
            assert_eq!(log.insert(entry(id, seq, millis, client_seq)), Inserted::New);
        }
        log
    }

    #[test]
    fn a_union_shows_the_same_order_however_it_came_about() {
        let forth = log(&[(1, 1, 10, 1), (1, 2, 30, 2), (2, 1, 20, 3)]);
        let back = log(&[(2, 1, 20, 3), (1, 1, 10, 1), (1, 2, 30, 2)]);
        let seen = |log: &RoomLog| log.iter().map(|kept| kept.entry.client_seq).collect::<Vec<_>>();
        assert_eq!(seen(&forth), [1, 3, 2]);
        assert_eq!(seen(&forth), seen(&back));
    }

    #[test]
    fn one_post_under_two_dots_is_canonical_where_it_is_shown_first() {
        let log = log(&[(2, 1, 20, 1), (1, 1, 10, 1)]);
        let key = entry(1, 1, 0, 1).post_key();
        assert_eq!(log.post(key).unwrap().entry.origin, origin(1));
        assert_eq!(log.len(), 2);
    }

    #[test]
    fn the_next_post_is_the_first_that_is_missing() {
        let log = log(&[(1, 1, 10, 3), (1, 2, 11, 4), (1, 3, 12, 7)]);
        let check = |oldest, expected| {
            assert_eq!(log.next_post(PersonId([1; 16]), DeviceId(1), oldest), expected, "from {oldest}");
        };
        check(1, 1);
        check(3, 5);
        check(4, 5);
        check(7, 8);
        check(9, 9);
    }

    #[test]
    fn a_dot_holds_one_content() {
        let mut log = log(&[(1, 1, 10, 1)]);
        assert_eq!(log.insert(entry(1, 1, 10, 1)), Inserted::Known);
        assert!(matches!(log.insert(entry(1, 1, 10, 2)), Inserted::Conflict { .. }));
        assert_eq!(log.insert(entry(1, 3, 10, 2)), Inserted::Hole);
        assert_eq!(log.insert(entry(1, 0, 10, 2)), Inserted::Hole);
    }

    #[test]
    fn a_start_leaves_out_what_lies_before() {
        let log = log(&[(1, 1, 10, 1), (1, 2, 30, 2), (2, 1, 20, 3), (2, 2, 40, 4)]);
        let held: VersionVector = [(origin(1), 2), (origin(2), 2)].into_iter().collect();
        assert_eq!(log.start_of_last(0, &held), held);
        assert_eq!(log.start_of_last(2, &held), [(origin(1), 1), (origin(2), 1)].into_iter().collect());
        assert_eq!(log.start_of_last(9, &held), VersionVector::default());
        assert_eq!(log.start_since(20, &held), [(origin(1), 1)].into_iter().collect());
        assert_eq!(log.start_since(41, &held), held);
    }

    #[test]
    fn a_post_that_two_homes_have_sequenced_counts_once_among_the_last() {
        let log = log(&[(2, 1, 10, 1), (2, 2, 11, 2), (3, 1, 20, 2), (3, 2, 21, 3)]);
        let held: VersionVector = [(origin(2), 2), (origin(3), 2)].into_iter().collect();
        let check = |count, expected: &[(Origin, u64)]| {
            assert_eq!(log.start_of_last(count, &held), expected.iter().copied().collect(), "the last {count}");
        };
        check(1, &[(origin(2), 2), (origin(3), 1)]);
        check(2, &[(origin(2), 1)]);
        check(3, &[]);
        check(4, &[]);
    }

    #[test]
    fn ranges_come_in_display_order_and_within_bounds() {
        let log = log(&[(1, 1, 10, 1), (1, 2, 30, 2), (2, 1, 20, 3), (2, 2, 40, 4)]);
        let line = log.get(origin(1), 1).unwrap().line.len();
        let check_bytes = |want: &[(Origin, u64, u64)], max, bytes_max, expected: &[u64]| {
            let found: Vec<_> = log.ranges(want, max, bytes_max).iter().map(|kept| kept.entry.client_seq).collect();
            assert_eq!(found, expected);
        };
        let check = |want: &[_], max, expected: &[u64]| check_bytes(want, max, usize::MAX, expected);
        check(&[(origin(1), 1, 9), (origin(2), 1, 2)], 9, &[1, 3, 2, 4]);
        check(&[(origin(1), 1, 9), (origin(2), 1, 2)], 2, &[1, 3]);
        check(&[(origin(1), 0, u64::MAX), (origin(9), 1, 2)], 9, &[1, 2]);
        check(&[(origin(1), 5, 3)], 9, &[]);
        check_bytes(&[(origin(1), 1, 9), (origin(2), 1, 2)], 9, 3 * line, &[1, 3, 2]);
        check_bytes(&[(origin(1), 1, 9), (origin(2), 1, 2)], 9, 3 * line - 1, &[1, 3]);
        check_bytes(&[(origin(1), 1, 9), (origin(2), 1, 2)], 9, 0, &[1]);
    }
}
