use proptest::{prelude::ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::{
    hlc::Hlc,
    ids::{Boot, DeviceId, PersonId, ServerId},
    log::Hash,
};

fn room() -> RoomName {
    RoomName::lobby()
}

fn origin(id: u32) -> Origin {
    Origin { id: ServerId(id), boot: Boot(7) }
}

fn entry(id: u32, seq: u64) -> Entry {
    Entry {
        room: room(),
        origin: origin(id),
        seq,
        hlc: Hlc { millis: seq, counter: 0 },
        from: "ann".parse().unwrap(),
        person: PersonId([1; 16]),
        device: DeviceId(1),
        client_seq: seq,
        kind: "message".into(),
        body: "hi".into(),
        hash: Hash::default(),
    }
}

fn vector(pairs: &[(u32, u64)]) -> VersionVector {
    pairs.iter().map(|&(id, seq)| (origin(id), seq)).collect()
}

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

fn rng() -> Rng {
    Rng::from_seed([3; 32])
}

fn empty() -> Receiver {
    Receiver::new(room(), VersionVector::default())
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

fn pulled(id: u32, sent: u32, top: &[(u32, u64)]) -> Pulled {
    Pulled { room: room(), id, sent, top: vector(top), floors: VersionVector::default(), lacks: Vec::new() }
}

#[test]
fn entries_are_released_in_order_and_once() {
    fn check(arrivals: &[u64], expected: &[&[u64]]) {
        let mut receiver = empty();
        let released: Vec<_> = arrivals.iter().map(|seq| seqs(&receiver.entry(entry(1, *seq), at(0)))).collect();
        assert_eq!(released, expected, "{arrivals:?}");
    }
    check(&[1, 2, 3], &[&[1], &[2], &[3]]);
    check(&[1, 1, 2, 1], &[&[1], &[], &[2], &[]]);
    check(&[2, 4, 1, 3], &[&[], &[], &[1, 2], &[3, 4]]);
    check(&[3, 3, 2, 1], &[&[], &[], &[], &[1, 2, 3]]);
}

#[test]
fn a_hole_is_asked_for_after_the_time_that_overtaking_takes() {
    let (mut receiver, mut rng) = (empty(), rng());
    receiver.entry(entry(1, 1), at(0));
    receiver.entry(entry(1, 4), at(0));
    receiver.entry(entry(1, 7), at(1));
    assert!(receiver.poll_pull(at(1), &mut rng).is_none());
    assert_eq!(receiver.deadline(), Some(at(2)));
    let pull = receiver.poll_pull(at(2), &mut rng).unwrap();
    assert_eq!(pull.want, [(origin(1), 2, 3), (origin(1), 5, 6)]);
    assert!(receiver.poll_pull(at(2), &mut rng).is_none(), "one pull is in flight");
}

#[test]
fn a_pull_without_an_answer_is_repeated_with_half_the_window_and_twice_the_time() {
    let (mut receiver, mut rng) = (empty(), rng());
    receiver.heads(&vector(&[(1, 1000)]), at(0));
    let first = receiver.poll_pull(at(2), &mut rng).unwrap();
    assert!(receiver.poll_pull(at(140), &mut rng).is_none());
    let second = receiver.poll_pull(at(260), &mut rng).unwrap();
    assert_eq!((first.max, second.max), (64, 32));
    assert_ne!(first.id, second.id);
    assert!(receiver.poll_pull(at(540), &mut rng).is_none());
    assert_eq!(receiver.poll_pull(at(760), &mut rng).unwrap().max, 16);
}

#[test]
fn the_window_grows_while_nothing_is_lost() {
    let (mut receiver, mut rng) = (empty(), rng());
    receiver.heads(&vector(&[(1, 10_000)]), at(0));
    let (mut windows, mut next) = (Vec::new(), 1);
    for round in (0..60).step_by(10) {
        let pull = receiver.poll_pull(at(2 + round), &mut rng).unwrap();
        windows.push(pull.max);
        let lost = if round == 20 { 50 } else { 0 };
        for seq in next..next + u64::from(pull.max - lost) {
            receiver.entry(entry(1, seq), at(2 + round));
        }
        next += u64::from(pull.max - lost);
        receiver.pulled(&pulled(pull.id, pull.max, &[(1, 10_000)]), at(2 + round));
    }
    assert_eq!(windows, [64, 128, 256, 128, 144, 160]);
}

#[test]
fn an_answer_that_ends_early_is_no_loss_and_is_followed_by_the_next_pull_at_once() {
    let (mut receiver, mut rng) = (empty(), rng());
    receiver.heads(&vector(&[(1, 100)]), at(0));
    let first = receiver.poll_pull(at(2), &mut rng).unwrap();
    for seq in 1..=3 {
        receiver.entry(entry(1, seq), at(3));
    }
    receiver.pulled(&pulled(first.id, 3, &[(1, 100)]), at(3));
    let next = receiver.poll_pull(at(3), &mut rng).unwrap();
    assert_eq!((next.max, next.want), (first.max, vec![(origin(1), 4, 100)]));
}

#[test]
fn what_the_server_cannot_serve_is_not_asked_for_until_heads_rise_or_the_server_changes() {
    fn check(wake: impl Fn(&mut Receiver), expected: bool) {
        let (mut receiver, mut rng) = (empty(), rng());
        receiver.heads(&vector(&[(1, 9)]), at(0));
        let pull = receiver.poll_pull(at(2), &mut rng).unwrap();
        for seq in 1..=5 {
            receiver.entry(entry(1, seq), at(3));
        }
        receiver.pulled(&pulled(pull.id, 5, &[(1, 5)]), at(3));
        assert!(receiver.is_complete());
        assert!(receiver.poll_pull(at(5_000), &mut rng).is_none());
        wake(&mut receiver);
        assert_eq!(receiver.poll_pull(at(10_000), &mut rng).is_some(), expected);
    }
    check(|_| {}, false);
    check(|receiver| receiver.heads(&vector(&[(1, 5)]), at(9_000)), false);
    check(|receiver| receiver.heads(&vector(&[(1, 6)]), at(9_000)), true);
    check(|receiver| receiver.moved(at(9_000)), true);
    check(|receiver| drop(receiver.entry(entry(1, 8), at(9_000))), true);
}

#[test]
fn entries_that_keep_coming_in_order_are_not_asked_for() {
    let (mut receiver, mut rng) = (empty(), rng());
    receiver.heads(&vector(&[(1, 100)]), at(0));
    for seq in 1..=50 {
        receiver.entry(entry(1, seq), at(seq));
        assert!(receiver.poll_pull(at(seq), &mut rng).is_none());
    }
    assert!(receiver.poll_pull(at(59), &mut rng).is_none());
    assert_eq!(receiver.poll_pull(at(60), &mut rng).unwrap().want, [(origin(1), 51, 100)]);
}

#[test]
fn entries_are_acknowledged_after_a_moment_and_later_while_they_keep_coming() {
    let mut receiver = empty();
    receiver.entry(entry(1, 1), at(0));
    assert!(!receiver.poll_ack(at(49)));
    assert!(receiver.poll_ack(at(50)));
    assert!(!receiver.poll_ack(at(50)), "once");
    receiver.entry(entry(1, 2), at(100));
    receiver.entry(entry(1, 3), at(150));
    assert!(!receiver.poll_ack(at(299)));
    assert!(receiver.poll_ack(at(300)));
    receiver.heads(&vector(&[(1, 3)]), at(1_000));
    assert!(receiver.poll_ack(at(1_000)), "the server has not heard the last one");
    receiver.moved(at(2_000));
    assert!(receiver.poll_ack(at(2_000)));
    assert_eq!(receiver.deadline(), None);
}

#[test]
fn what_came_another_way_frees_what_was_stranded_above_it() {
    let mut receiver = empty();
    receiver.entry(entry(1, 2), at(0));
    assert_eq!(seqs(&receiver.note(&entry(1, 1))), [2]);
    assert!(receiver.note(&entry(1, 9)).is_empty());
    assert_eq!(receiver.held(), &vector(&[(1, 2)]));
    assert!(receiver.is_complete());
}

#[test]
fn an_entry_takes_the_place_of_its_marker_above_a_hole_and_never_the_other_way() {
    fn check(arrivals: &[bool], is_there: bool) {
        let mut receiver = empty();
        for is_marker in arrivals {
            let marker = Entry::lost(room(), origin(1), 2, Hlc { millis: 2, counter: 0 });
            let entry = if *is_marker { marker } else { entry(1, 2) };
            assert!(receiver.entry(entry, at(0)).is_empty());
        }
        assert_eq!((receiver.has_stranded(origin(1), 2), receiver.stranded()), (is_there, 1), "{arrivals:?}");
        let released = receiver.entry(entry(1, 1), at(0));
        assert_eq!((released.len(), !released[1].is_lost()), (2, is_there), "{arrivals:?}");
    }
    check(&[true], false);
    check(&[false], true);
    check(&[true, false], true);
    check(&[false, true], true);
}

#[test]
fn no_more_than_the_bound_is_stranded_and_the_farthest_goes_first() {
    let mut receiver = empty();
    for seq in (2..limits::STRANDED_MAX as u64 + 100).rev() {
        receiver.entry(entry(1, seq), at(0));
    }
    assert_eq!(receiver.stranded_count, limits::STRANDED_MAX);
    let released = receiver.entry(entry(1, 1), at(1));
    assert_eq!(released.len(), limits::STRANDED_MAX + 1);
    assert!(!receiver.is_complete());
}

#[test]
fn what_waits_above_a_hole_that_nobody_fills_is_let_go_and_taken_again() {
    let mut receiver = empty();
    receiver.entry(entry(1, 2), at(0));
    receiver.entry(entry(2, 2), at(0));
    receiver.entry(entry(2, 4), at(20_000));
    receiver.let_go(at(29_999));
    assert_eq!(receiver.stranded(), 3);
    receiver.let_go(at(30_000));
    assert_eq!((receiver.stranded(), receiver.has_stranded(origin(2), 2)), (2, true), "one whose run goes on waits");
    receiver.let_go(at(50_000));
    assert_eq!(receiver.stranded(), 0);
    assert_eq!(seqs(&receiver.entry(entry(1, 1), at(50_001))), [1]);
    assert_eq!(receiver.missing(), [(origin(1), 2, 2), (origin(2), 1, 4)]);
    assert_eq!(seqs(&receiver.entry(entry(1, 2), at(50_002))), [2]);
}

#[test]
fn absurd_numbers_from_a_server_change_nothing_that_matters() {
    let (mut receiver, mut rng) = (empty(), rng());
    receiver.entry(entry(1, u64::MAX), at(0));
    receiver.entry(entry(1, 0), at(0));
    receiver.heads(&vector(&[(1, u64::MAX), (2, u64::MAX)]), at(0));
    let pull = receiver.poll_pull(at(10), &mut rng).unwrap();
    receiver.pulled(&pulled(pull.id, u32::MAX, &[(1, u64::MAX)]), at(10));
    assert_eq!(receiver.held(), &VersionVector::default());
    let mut full = Receiver::new(room(), vector(&[(1, u64::MAX)]));
    full.entry(entry(1, u64::MAX), at(0));
    full.note(&entry(1, 5));
    assert_eq!(full.held(), &vector(&[(1, u64::MAX)]));
}

#[test]
fn a_pull_fits_a_frame_however_long_its_names_and_numbers_are() {
    let far = |id| Origin { id: ServerId(u32::MAX - id), boot: Boot(u64::MAX) };
    let mut receiver = Receiver::new("\u{1f980}".repeat(32).parse().unwrap(), VersionVector::default());
    receiver.heads(&(0..20).map(|id| (far(id), u64::MAX)).collect(), at(0));
    for id in 0..20 {
        receiver.entry(Entry { origin: far(id), ..entry(1, u64::MAX - 5) }, at(0));
    }
    let pull = receiver.poll_pull(at(9), &mut rng()).unwrap();
    assert!(crate::wire::Frame::Pull(pull).to_line().len() <= limits::FRAME_BYTES_MAX);
}

/// A server with a log that pushes once and answers pulls, behind a link that loses, doubles and reorders.
struct World {
    rng: Rng,
    receiver: Receiver,
    tops: VersionVector,
    /// When, a number to keep equal times apart, what.
    to_receiver: BTreeMap<(Time, u64), Packet>,
    to_server: BTreeMap<(Time, u64), Pull>,
    sent: u64,
    got: Vec<(Origin, u64)>,
}

enum Packet {
    Entry(Entry),
    Heads(VersionVector),
    Pulled(Pulled),
}

impl World {
    fn deliver(&mut self, now: Time, make: impl Fn() -> Packet) {
        let copies = [0, 1, 1, 1, 1, 1, 1, 1, 2, 1][self.rng.below(10) as usize] * usize::from(self.rng.below(5) > 0);
        for _ in 0..copies {
            self.sent += 1;
            let delay = Duration::from_micros(500 + self.rng.below(8_000));
            self.to_receiver.insert((now + delay, self.sent), make());
        }
    }

    fn answer(&mut self, pull: &Pull, now: Time) {
        let dots = pull
            .want
            .iter()
            .flat_map(|&(of, first, last)| (first..=last.min(self.tops.get(of))).map(move |seq| (of, seq)));
        let dots: Vec<_> = dots.take(pull.max as usize).collect();
        for &(of, seq) in &dots {
            self.deliver(now, || Packet::Entry(entry(of.id.0, seq)));
        }
        let (id, sent, top) = (pull.id, dots.len() as u32, self.tops.clone());
        self.deliver(now, || {
            Packet::Pulled(Pulled {
                room: room(),
                id,
                sent,
                top: top.clone(),
                floors: VersionVector::default(),
                lacks: Vec::new(),
            })
        });
    }

    /// Delivers what is due, and lets the receiver do what it wants to.
    fn step(&mut self, now: Time) {
        while let Some(first) = self.to_receiver.first_entry().filter(|first| first.key().0 <= now) {
            let before = self.receiver.held().clone();
            match first.remove() {
                Packet::Entry(entry) => {
                    let released = self.receiver.entry(entry, now);
                    self.got.extend(released.iter().map(|entry| (entry.origin, entry.seq)));
                }
                Packet::Heads(heads) => self.receiver.heads(&heads, now),
                Packet::Pulled(pulled) => self.receiver.pulled(&pulled, now),
            }
            assert!(self.receiver.held().covers(&before), "a cursor never goes back");
            assert_eq!(self.receiver.held().count(), self.got.len() as u64, "a cursor covers what was released");
        }
        while let Some(first) = self.to_server.first_entry().filter(|first| first.key().0 <= now) {
            let pull = first.remove();
            self.answer(&pull, now);
        }
        let mut rng = self.rng.fork();
        if let Some(pull) = self.receiver.poll_pull(now, &mut rng)
            && self.rng.below(5) > 0
        {
            self.sent += 1;
            let delay = Duration::from_micros(500 + self.rng.below(8_000));
            self.to_server.insert((now + delay, self.sent), pull);
        }
        self.receiver.poll_ack(now);
    }

    fn next(&self) -> Option<Time> {
        let link = [self.to_receiver.keys().next(), self.to_server.keys().next()];
        link.into_iter().flatten().map(|key| key.0).chain(self.receiver.deadline()).min()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_bad_link_only_delays(seed: [u8; 32], first in 0u64..800, second in 0u64..800) {
        let tops = vector(&[(1, first), (2, second)]);
        let mut world = World {
            rng: Rng::from_seed(seed),
            receiver: empty(),
            tops: tops.clone(),
            to_receiver: BTreeMap::new(),
            to_server: BTreeMap::new(),
            sent: 0,
            got: Vec::new(),
        };
        for (of, top) in tops.iter() {
            for seq in 1..=top {
                world.deliver(at(seq), || Packet::Entry(entry(of.id.0, seq)));
            }
        }
        // The server repeats its heads until they are acknowledged; here one copy is enough, sent past the link.
        world.to_receiver.insert((at(900), 0), Packet::Heads(tops.clone()));
        let mut steps = 0;
        while let Some(now) = world.next() {
            world.step(now);
            steps += 1;
            prop_assert!(steps < 100_000, "it does not end");
            prop_assert!(now < at(60_000), "it takes too long: {:?}", world.receiver);
        }
        prop_assert_eq!(world.receiver.held(), &tops);
        prop_assert!(world.receiver.is_complete());
        let mut got = world.got.clone();
        for id in [1, 2] {
            let of: Vec<_> = got.iter().filter(|dot| dot.0 == origin(id)).map(|dot| dot.1).collect();
            prop_assert!(of.is_sorted(), "in order");
        }
        got.sort_unstable();
        got.dedup();
        prop_assert_eq!(got.len(), world.got.len(), "each once");
    }
}

#[test]
fn what_is_given_up_counts_as_held_and_frees_what_is_above() {
    /// Of 1.1 #1..#9 these have arrived, and up to `floor` it is given up: which are free then, and how many are held.
    fn check(arrived: &[u64], floor: u64, freed: &[u64], held: u64) {
        let origin = Origin { id: ServerId(1), boot: Boot(1) };
        let mut receiver = Receiver::new(room(), VersionVector::default());
        receiver.heads(&[(origin, 9)].into_iter().collect(), Time::ZERO);
        for seq in arrived {
            receiver.entry(Entry { origin, seq: *seq, ..entry(1, 1) }, Time::ZERO);
        }
        let free = receiver.give_up(&[(origin, floor)].into_iter().collect(), Time::ZERO);
        assert_eq!(free.iter().map(|entry| entry.seq).collect::<Vec<_>>(), freed, "{arrived:?}, {floor}");
        assert_eq!((receiver.held().get(origin), receiver.is_complete()), (held, held >= 9), "{arrived:?}, {floor}");
    }
    check(&[], 5, &[], 5);
    check(&[], 9, &[], 9);
    check(&[], 12, &[], 12);
    check(&[1, 2, 3], 2, &[], 3);
    check(&[4, 6, 7], 5, &[6, 7], 7);
    check(&[4, 8], 5, &[], 5);
}
