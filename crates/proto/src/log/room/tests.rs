use super::*;
use crate::{
    ids::{Boot, RoomName, ServerId},
    log::entry::MESSAGE,
};

pub(crate) fn origin(id: u32) -> Origin {
    Origin { id: ServerId(id), boot: Boot(1) }
}

pub(crate) fn entry(id: u32, seq: u64, millis: u64, client_seq: u64) -> Entry {
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
    assert_eq!(log.post(key).unwrap().1, origin(1));
    assert_eq!(log.len(), 2);
}

#[test]
fn the_next_post_is_the_first_that_is_missing() {
    let log = log(&[(1, 1, 10, 3), (1, 2, 11, 4), (1, 3, 12, 7)]);
    let check = |oldest, expected| {
        let key = PostKey { client_seq: 100, ..entry(1, 1, 0, 1).post_key() };
        assert_eq!(log.standing(key, oldest), Standing::Missing { next: expected }, "from {oldest}");
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
    assert_eq!(log.start_of_last(0, &held).unwrap(), held);
    assert_eq!(log.start_of_last(2, &held).unwrap(), [(origin(1), 1), (origin(2), 1)].into_iter().collect());
    assert_eq!(log.start_of_last(9, &held).unwrap(), VersionVector::default());
    assert_eq!(log.start_since(20, &held).unwrap(), [(origin(1), 1)].into_iter().collect());
    assert_eq!(log.start_since(41, &held).unwrap(), held);
}

#[test]
fn a_post_that_two_homes_have_sequenced_counts_once_among_the_last() {
    let log = log(&[(2, 1, 10, 1), (2, 2, 11, 2), (3, 1, 20, 2), (3, 2, 21, 3)]);
    let held: VersionVector = [(origin(2), 2), (origin(3), 2)].into_iter().collect();
    let check = |count, expected: &[(Origin, u64)]| {
        assert_eq!(log.start_of_last(count, &held).unwrap(), expected.iter().copied().collect(), "the last {count}");
    };
    check(1, &[(origin(2), 2), (origin(3), 1)]);
    check(2, &[(origin(2), 1)]);
    check(3, &[]);
    check(4, &[]);
}

/// A log of these of which at most so many entries are in memory.
fn tail(entries: &[(u32, u64, u64, u64)], entries_max: usize) -> (RoomLog, VersionVector) {
    let mut log = log(entries);
    let held: VersionVector = entries.iter().map(|(id, seq, ..)| (origin(*id), *seq)).collect();
    log.trim(&held, entries_max, usize::MAX);
    (log, held)
}

const FOUR: [(u32, u64, u64, u64); 4] = [(1, 1, 10, 1), (1, 2, 30, 2), (2, 1, 20, 3), (2, 2, 40, 4)];

#[test]
fn what_is_on_disk_goes_first_in_display_order_first() {
    fn check(durable: &[(u32, u64)], entries_max: usize, bytes_max: usize, expected: &[u64]) {
        let mut log = log(&FOUR);
        log.trim(&durable.iter().map(|(id, seq)| (origin(*id), *seq)).collect(), entries_max, bytes_max);
        assert_eq!(log.iter().map(|kept| kept.entry.client_seq).collect::<Vec<_>>(), expected, "{durable:?}");
        assert_eq!((log.len(), log.in_memory()), (4, expected.len()));
        assert_eq!(log.bytes(), log.iter().map(|kept| kept.line.len()).sum::<usize>());
    }
    let line = log(&FOUR).get(origin(1), 1).unwrap().line.len();
    check(&[(1, 2), (2, 2)], 9, usize::MAX, &[1, 3, 2, 4]);
    check(&[(1, 2), (2, 2)], 2, usize::MAX, &[2, 4]);
    check(&[(1, 2), (2, 2)], 9, 3 * line, &[3, 2, 4]);
    check(&[(1, 2), (2, 2)], 0, 0, &[]);
    check(&[(1, 2)], 0, 0, &[3, 2, 4]);
    check(&[], 0, 0, &[1, 3, 2, 4]);
}

#[test]
fn a_tail_says_when_it_does_not_suffice() {
    let (log, held) = tail(&FOUR, 2);
    let since = |millis| log.start_since(millis, &held);
    assert_eq!((since(20), since(21).is_some(), since(41)), (None, true, Some(held.clone())));
    assert_eq!(since(30), Some([(origin(1), 1), (origin(2), 1)].into_iter().collect()));
    assert_eq!(log.start_of_last(2, &held), since(30));
    assert_eq!(log.start_of_last(3, &held), None);
    assert!(log.ranges(&[(origin(1), 2, 9), (origin(2), 2, 2)], 9, usize::MAX).is_some());
    assert!(log.ranges(&[(origin(1), 1, 1)], 9, usize::MAX).is_none());
    let key = |client_seq| PostKey { client_seq, ..entry(1, 1, 0, 1).post_key() };
    assert!(matches!(log.standing(key(1), 1), Standing::Held(held) if held.says(MESSAGE, "hello")));
    assert_eq!(log.standing(key(5), 1), Standing::Missing { next: 5 });
}

#[test]
fn an_entry_goes_into_a_tail_after_what_is_on_disk_and_nowhere_else() {
    let (mut log, _) = tail(&FOUR, 0);
    assert_eq!(log.insert(entry(1, 1, 10, 1)), Inserted::Known);
    assert_eq!(log.insert(entry(1, 4, 50, 5)), Inserted::Hole);
    assert_eq!(log.insert(entry(1, 3, 50, 5)), Inserted::New);
    assert_eq!((log.len(), log.in_memory()), (5, 1));
}

#[test]
fn a_log_that_is_restored_asks_for_a_device_once() {
    let held: VersionVector = [(origin(1), 2)].into_iter().collect();
    let newest = entry(1, 2, 30, 2).order();
    let head =
        Head { room: RoomName::lobby(), held, floors: VersionVector::default(), newest, entries: 2, lost: Vec::new() };
    let mut log = RoomLog::restored(&head);
    let PostKey { person, device, .. } = entry(1, 1, 0, 1).post_key();
    let standing = |log: &RoomLog, seq, oldest| log.standing(PostKey { person, device, client_seq: seq }, oldest);
    assert_eq!(standing(&log, 3, 2), Standing::Unknown { from: 2 });
    assert_eq!(log.insert(entry(1, 3, 31, 3)), Inserted::New);
    let third = PostKey { person, device, client_seq: 3 };
    assert_eq!(
        (log.post(third), log.any_of_post(third)),
        (None, Some(entry(1, 3, 31, 3).order())),
        "it may be the second"
    );
    log.expect(person, device);
    assert!(log.learn(person, device, 2, &[entry(1, 2, 30, 2).into()]));
    assert!(matches!(standing(&log, 2, 2), Standing::Held(_)));
    assert!(matches!(standing(&log, 3, 2), Standing::Held(_)));
    assert_eq!(standing(&log, 9, 2), Standing::Missing { next: 4 });
    assert_eq!(standing(&log, 9, 1), Standing::Unknown { from: 1 });
    assert!(!log.learn(person, device, 1, &[]), "nobody asked");
}

/// Eight devices with eight posts each, all on disk, of which so many are remembered; each has settled those below `oldest`.
fn shrunk(oldest: u64, max: usize) -> RoomLog {
    let mut log = RoomLog::default();
    for seq in 1..=64 {
        let mut entry = entry(1, seq, seq, 1 + (seq - 1) / 8);
        entry.device = DeviceId(seq % 8);
        assert_eq!(log.insert(entry), Inserted::New);
    }
    (0..8).for_each(|device| log.named(PersonId([1; 16]), DeviceId(device), oldest));
    log.trim(&[(origin(1), 64)].into_iter().collect(), 0, usize::MAX);
    log.shrink_posts(max);
    log
}

#[test]
fn what_is_settled_is_forgotten_first_and_then_the_lower_half_of_each_device() {
    fn check(oldest: u64, max: usize, size: usize, expected: [Standing; 2]) {
        let log = shrunk(oldest, max);
        assert_eq!(log.posts_size(), size, "{oldest}, {max}");
        let key = |device| PostKey { person: PersonId([1; 16]), device: DeviceId(device), client_seq: 9 };
        // Device 1 is idle for longest.
        assert_eq!([1, 0].map(|device| log.standing(key(device), oldest.max(1))), expected, "{oldest}, {max}");
    }
    let next = Standing::Missing { next: 9 };
    let unknown = |from| Standing::Unknown { from };
    check(9, 72, 72, [next, next]);
    check(9, 40, 32, [next, next]);
    check(5, 48, 40, [next, next]);
    check(1, 64, 56, [unknown(1), next]);
    check(1, 48, 40, [unknown(1), unknown(1)]);
    check(1, 8, 7, [unknown(1), unknown(1)]);
    check(1, 0, 0, [unknown(1), unknown(1)]);
}

#[test]
fn what_is_given_up_is_below_a_floor() {
    let mut log = log(&FOUR);
    let floors: VersionVector = [(origin(1), 1), (origin(3), 7)].into_iter().collect();
    assert!(log.give_up(&floors) && !log.give_up(&floors));
    assert_eq!((log.len(), log.in_memory(), log.floors()), (3, 3, &floors));
    let found = log.ranges(&[(origin(1), 1, 2)], 9, usize::MAX).unwrap();
    assert_eq!(found.iter().map(|kept| kept.entry.seq).collect::<Vec<_>>(), [2]);
    assert_eq!(log.insert(entry(3, 8, 50, 9)), Inserted::New);
    let mut held: VersionVector = [(origin(1), 2), (origin(2), 2), (origin(3), 8)].into_iter().collect();
    held.merge(&floors);
    assert_eq!(log.start_of_last(99, &held).unwrap(), floors);
}

#[test]
fn ranges_come_in_display_order_and_within_bounds() {
    let log = log(&[(1, 1, 10, 1), (1, 2, 30, 2), (2, 1, 20, 3), (2, 2, 40, 4)]);
    let line = log.get(origin(1), 1).unwrap().line.len();
    let check_bytes = |want: &[(Origin, u64, u64)], max, bytes_max, expected: &[u64]| {
        let found: Vec<_> =
            log.ranges(want, max, bytes_max).unwrap().iter().map(|kept| kept.entry.client_seq).collect();
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
