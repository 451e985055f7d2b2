//! Tests of the reference store.

use super::*;
use crate::log::room::tests::{entry, origin};

/// An entry of server `id`: its number, its time, and the number of the post.
fn kept((id, seq, millis, client_seq): (u32, u64, u64, u64)) -> Kept {
    entry(id, seq, millis, client_seq).into()
}

fn model(entries: &[(u32, u64, u64, u64)]) -> Model {
    let mut model = Model::default();
    for &entry in entries {
        model.apply(&Write::Entry(kept(entry)));
    }
    assert_eq!(model.refused(), 0);
    model
}

fn vector(pairs: &[(u32, u64)]) -> VersionVector {
    pairs.iter().map(|&(id, seq)| (origin(id), seq)).collect()
}

/// The numbers of the posts that are found, or the cursor.
type Numbers = Result<Vec<u64>, VersionVector>;

/// What is found, and what is rotten.
fn ask(model: &Model, what: What) -> (Numbers, Vec<(Origin, u64)>) {
    let answer = model.answer(&Read { id: 7, room: RoomName::lobby(), what });
    assert_eq!((answer.id, answer.room), (7, RoomName::lobby()));
    let found = match answer.found {
        Found::Entries(found) => Ok(found.iter().map(|kept| kept.entry.client_seq).collect()),
        Found::Start(start) => Err(start),
        Found::Nothing => panic!("it can be read"),
    };
    (found, answer.rotten)
}

/// Servers 1 and 2 in turn; post 2 has been sequenced by both.
const LOG: &[(u32, u64, u64, u64)] = &[(1, 1, 10, 1), (1, 2, 30, 2), (2, 1, 20, 2), (2, 2, 40, 4)];

#[test]
fn what_was_written_is_there_at_the_next_start_in_a_later_boot() {
    let mut model = model(LOG);
    model.apply(&Write::Me(origin(3)));
    model.apply(&Write::Cluster(ClusterId(9)));
    model.apply(&Write::Term(5));
    let (first, second) = {
        let mut rng = Rng::from_seed([0; 32]);
        (model.restore(100, &mut rng), model.restore(0, &mut rng))
    };
    assert_eq!((second.id, second.cluster, second.term), (Some(ServerId(3)), Some(ClusterId(9)), 5));
    assert!(first.boot > Some(Boot(1)) && second.boot > first.boot);
    let [head] = &second.logs[..] else { panic!("one room has a log") };
    assert_eq!((&head.held, head.entries), (&vector(&[(1, 2), (2, 2)]), 4));
    assert_eq!(head.newest, (Hlc { millis: 40, counter: 0 }, origin(2), 2));
}

#[test]
fn another_cluster_has_terms_and_members_of_its_own() {
    let mut model = model(LOG);
    model.apply(&Write::Term(5));
    model.apply(&Write::Member(Member {
        id: ServerId(2),
        boot: Boot(1),
        left: false,
        memory: false,
        n: 0,
        addrs: Vec::new(),
    }));
    model.apply(&Write::Cluster(ClusterId(9)));
    let restored = model.restore(1, &mut Rng::from_seed([0; 32]));
    assert_eq!((restored.term, restored.members.len(), restored.rooms.len()), (0, 0, 0));
    assert_eq!(restored.logs[0].entries, 4);
}

#[test]
fn a_write_that_breaks_the_contract_is_not_done() {
    let check = |write: Write, expected| {
        let mut model = model(LOG);
        model.apply(&write);
        assert_eq!(model.refused(), expected, "{write:?}");
        assert_eq!(model.held(&RoomName::lobby()), vector(&[(1, 2), (2, 2)]));
    };
    check(Write::Entry(kept((1, 1, 10, 1))), 0);
    check(Write::Entry(kept((1, 1, 10, 9))), 1);
    check(Write::Entry(kept((1, 4, 50, 9))), 1);
    check(Write::Repair(kept((1, 1, 10, 1))), 0);
    check(Write::Repair(kept((1, 3, 50, 9))), 1);
}

#[test]
fn ranges_come_in_display_order_and_within_bounds() {
    let model = model(LOG);
    let line = kept(LOG[0]).line.len();
    let check = |want: &[(u32, u64, u64)], max, bytes_max, expected: &[u64]| {
        let want = want.iter().map(|&(id, from, to)| (origin(id), from, to)).collect();
        let (found, rotten) = ask(&model, What::Ranges { want, max, bytes_max });
        assert_eq!((found, rotten), (Ok(expected.to_vec()), Vec::new()));
    };
    check(&[(1, 1, 9), (2, 1, 2)], 9, usize::MAX, &[1, 2, 2, 4]);
    check(&[(1, 0, u64::MAX), (9, 1, 2)], 9, usize::MAX, &[1, 2]);
    check(&[(1, 5, 3)], 9, usize::MAX, &[]);
    check(&[(1, 1, 9), (2, 1, 2)], 1, usize::MAX, &[1]);
    check(&[(1, 1, 9), (2, 1, 2)], 9, 2 * line, &[1, 2]);
    check(&[(1, 1, 9), (2, 1, 2)], 9, 0, &[1]);
}

#[test]
fn a_start_leaves_out_what_lies_before() {
    let model = model(LOG);
    let check = |what: What, expected: &[(u32, u64)]| {
        assert_eq!(ask(&model, what.clone()).0, Err(vector(expected)), "{what:?}");
    };
    check(What::Last { count: 0 }, &[(1, 2), (2, 2)]);
    check(What::Last { count: 1 }, &[(1, 2), (2, 1)]);
    check(What::Last { count: 2 }, &[(1, 1)]);
    check(What::Last { count: 9 }, &[]);
    check(What::Since { millis: 20 }, &[(1, 1)]);
    check(What::Since { millis: 41 }, &[(1, 2), (2, 2)]);
}

#[test]
fn the_posts_of_a_device_are_canonical_and_in_order() {
    let model = model(LOG);
    let check = |from, expected: &[u64]| {
        let (person, device) = (PersonId([1; 16]), DeviceId(1));
        assert_eq!(ask(&model, What::Device { person, device, from }).0, Ok(expected.to_vec()), "from {from}");
    };
    check(1, &[1, 2, 4]);
    check(3, &[4]);
    check(5, &[]);
}

#[test]
fn a_rotten_entry_is_named_and_not_served_until_it_is_repaired() {
    let mut model = model(LOG);
    let all = What::Ranges { want: vec![(origin(1), 1, 2), (origin(2), 1, 2)], max: 9, bytes_max: usize::MAX };
    let posts = What::Device { person: PersonId([1; 16]), device: DeviceId(1), from: 1 };
    assert!(!model.rot(&RoomName::lobby(), origin(2), 3));
    assert!(model.rot(&RoomName::lobby(), origin(2), 1));
    assert_eq!(ask(&model, all.clone()), (Ok(vec![1, 2, 4]), vec![(origin(2), 1)]));
    assert_eq!(ask(&model, posts), (Ok(vec![1, 4]), vec![(origin(2), 1)]));
    assert!(model.get(&RoomName::lobby(), origin(2), 1).is_none());
    model.apply(&Write::Repair(kept((2, 1, 20, 2))));
    assert_eq!(ask(&model, all), (Ok(vec![1, 2, 2, 4]), Vec::new()));
}

#[test]
fn the_posts_of_a_device_are_found_without_markers() {
    fn check(lost: &[(u32, u64)], expected: &[u64]) {
        let mut model = model(LOG);
        for &(id, seq) in lost {
            assert!(model.rot(&RoomName::lobby(), origin(id), seq));
            model.apply(&Write::Lost { room: RoomName::lobby(), origin: origin(id), seq });
        }
        let posts = What::Device { person: PersonId([1; 16]), device: DeviceId(1), from: 1 };
        assert_eq!(ask(&model, posts), (Ok(expected.to_vec()), Vec::new()), "{lost:?}");
    }
    check(&[], &[1, 2, 4]);
    check(&[(2, 1)], &[1, 2, 4]);
    check(&[(2, 1), (1, 2)], &[1, 4]);
    check(&[(2, 2)], &[1, 2]);
}

#[test]
fn what_lies_below_a_floor_is_covered_and_gone() {
    let mut model = model(LOG);
    model.apply(&Write::Floors { room: RoomName::lobby(), floors: vector(&[(1, 1), (2, 2), (3, 4)]) });
    assert_eq!(model.held(&RoomName::lobby()), vector(&[(1, 2), (2, 2), (3, 4)]));
    let all = What::Ranges { want: vec![(origin(1), 1, 2), (origin(2), 1, 2)], max: 9, bytes_max: usize::MAX };
    assert_eq!(ask(&model, all).0, Ok(vec![2]));
    assert_eq!(ask(&model, What::Last { count: 9 }).0, Err(vector(&[(1, 1), (2, 2), (3, 4)])));
    model.apply(&Write::Entry(kept((3, 5, 50, 5))));
    model.apply(&Write::Entry(kept((2, 1, 20, 2))));
    assert_eq!((model.refused(), model.entries(&RoomName::lobby()).count()), (0, 2));
}

#[test]
fn a_wiped_disk_knows_nothing() {
    let mut model = model(LOG);
    model.wipe();
    let restored = model.restore(1, &mut Rng::from_seed([0; 32]));
    assert!(restored.id.is_none() && restored.logs.is_empty());
}
