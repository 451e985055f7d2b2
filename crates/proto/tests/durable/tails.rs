//! Memory holds tails: what is older is looked up on disk, mended where it is rotten, and given up where it is stored.

use hobnob_proto::{
    ids::Origin,
    log::VersionVector,
    wire::frame::{Refusal, Start},
};

use crate::world::{Reading, Told, World, port, room};

/// More than a server keeps in memory of a room.
const MANY: u64 = 700;

/// Somebody posts that many lines, and all servers keep them.
fn spoken(world: &mut World, server: u32, lines: u64) -> u16 {
    let anna = world.person(1, server);
    world.run_secs(2);
    for seq in 1..=lines {
        world.post(anna, seq);
        if seq % 20 == 0 {
            world.run_millis(20);
        }
    }
    world.run_secs(8);
    assert_eq!(world.held(server), (lines, lines));
    anna
}

fn lines(from: u64, to: u64) -> Vec<String> {
    (from..=to).map(|n| format!("line {n}")).collect()
}

/// The origin of which there is most.
fn origin(world: &World, id: u32) -> Origin {
    let held = world.room_at(id).unwrap().held.into_owned();
    held.iter().max_by_key(|(_, seq)| *seq).unwrap().0
}

#[test]
fn a_server_keeps_a_tail_in_memory_and_serves_the_rest_from_disk() {
    let mut world = World::with(&[true]);
    spoken(&mut world, 1, MANY);
    let node = &world.nodes[&port(1)];
    assert!(node.entries(&room(), &VersionVector::default()).count() <= 512);
    let check = |world: &mut World, n, from, expected: &[String], reads| {
        let before = world.disk(1).reads;
        let late = world.person_from(n, 1, from);
        world.run_secs(4);
        assert_eq!(world.shown(late), expected);
        assert_eq!(world.disk(1).reads > before, reads);
    };
    check(&mut world, 2, Start::After(VersionVector::default()), &lines(1, MANY), true);
    check(&mut world, 3, Start::Last(600), &lines(101, MANY), true);
    check(&mut world, 4, Start::Last(20), &lines(MANY - 19, MANY), false);
    check(&mut world, 5, Start::Since(0), &lines(1, MANY), true);
    check(&mut world, 6, Start::Since(1 << 50), &[], false);
}

#[test]
fn who_ask_the_same_at_once_cost_the_disk_one_question() {
    let mut world = World::with(&[true]);
    spoken(&mut world, 1, MANY);
    world.disk(1).seek = std::time::Duration::from_secs(2);
    let before = world.disk(1).reads;
    let late: Vec<_> = (2..9).map(|n| world.person_from(n, 1, Start::Last(550))).collect();
    world.run_secs(1);
    assert_eq!(world.disk(1).reads - before, 1);
    world.disk(1).seek = std::time::Duration::from_millis(1);
    world.run_secs(9);
    assert!(late.iter().all(|late| world.shown(*late) == lines(MANY - 549, MANY)));
}

#[test]
fn a_server_that_has_started_anew_knows_an_old_post() {
    let mut world = World::with(&[true]);
    let anna = spoken(&mut world, 1, 30);
    world.kill(1);
    world.run_secs(1);
    world.start(1);
    world.run_secs(6);
    let again = world.person(1, 1);
    assert_eq!(anna, again, "the same device");
    let since = world.now;
    world.post(again, 7);
    world.run_secs(3);
    let told = world.told_since(again, 7, since);
    assert!(matches!(told[..], [.., Told::Ack { dot: (_, 7), stored: true, .. }]), "{told:?}");
    world.post(again, 31);
    world.run_secs(3);
    let view = world.room_at(1).unwrap();
    assert_eq!(view.held.iter().map(|(_, seq)| seq).sum::<u64>(), 31, "one more, and no other");
}

#[test]
fn a_disk_that_cannot_be_read_keeps_nobody_waiting() {
    fn check(reading: Reading) {
        let mut world = World::with(&[true]);
        let anna = spoken(&mut world, 1, MANY);
        world.disk(1).reading = reading;
        let patient = world.person(2, 1);
        for (n, from) in [(3, Start::Last(600)), (4, Start::Since(0))] {
            let late = world.person_from(n, 1, from);
            world.run_secs(12);
            let shown = world.shown(late);
            assert_eq!(shown.last(), Some(&format!("line {MANY}")), "{reading:?}, {n}");
            assert!(shown.len() <= 512, "{reading:?}, {n}");
        }
        assert_eq!(world.shown(patient), [""; 0], "{reading:?}: who wants all waits for it");
        world.post(anna, MANY + 1);
        world.run_secs(3);
        assert!(!world.told_since(anna, MANY + 1, hobnob_proto::time::Time::ZERO).is_empty(), "who is known goes on");
        world.kill(1);
        world.start(1);
        world.run_secs(6);
        let (again, since) = (world.person(1, 1), world.now);
        world.post(again, 7);
        world.run_secs(20);
        let told = world.told_since(again, 7, since);
        assert!(told.iter().all(|told| *told == Told::Refused(Refusal::CannotStore)), "{reading:?}: {told:?}");
        assert_eq!(world.held(1).0, MANY + 1, "{reading:?}: it might be a repetition");
        world.disk(1).reading = Reading::Works;
        world.run_secs(20);
        assert!(matches!(world.told_since(again, 7, since)[..], [.., Told::Ack { dot: (_, 7), .. }]), "{reading:?}");
        assert_eq!(world.shown(patient), lines(1, MANY + 1), "{reading:?}");
    }
    check(Reading::Fails);
    check(Reading::Hangs);
}

#[test]
fn what_is_rotten_is_fetched_from_a_peer_and_not_served_before() {
    let mut world = World::with(&[true, true]);
    spoken(&mut world, 1, MANY);
    let origin = origin(&world, 1);
    assert!(world.disk(1).model.rot(&room(), origin, 40) && world.disk(1).model.rot(&room(), origin, 41));
    assert!(world.disk(1).model.rot(&room(), origin, MANY));
    let late = world.person(2, 1);
    world.run_secs(6);
    assert_eq!(world.shown(late), lines(1, MANY), "found on the way");
    assert_eq!(world.disk(1).model.rotten(&room()).collect::<Vec<_>>(), [(origin, MANY)]);
    world.scrub(1, &[(origin, MANY)]);
    world.run_secs(1);
    assert_eq!(world.disk(1).model.rotten(&room()).count(), 0, "what is in memory is written again");
    // Where nobody has it, what is above it has to wait.
    world.kill(2);
    assert!(world.disk(1).model.rot(&room(), origin, 50));
    let later = world.person(3, 1);
    world.run_secs(8);
    let shown = world.shown(later);
    assert!(!shown.contains(&"line 50".to_owned()) && shown.contains(&"line 49".to_owned()), "{shown:?}");
    world.start(2);
    world.run_secs(30);
    assert!(world.shown(later).contains(&"line 50".to_owned()));
    assert_eq!(world.disk(1).model.rotten(&room()).count(), 0);
}

#[test]
fn what_is_given_up_is_stored_and_others_hear_of_it() {
    let mut world = World::with(&[true, true]);
    spoken(&mut world, 1, 60);
    let (home, other) = match world.home() {
        Some(1) => (1, 2),
        _ => (2, 1),
    };
    let origin = origin(&world, 1);
    let vector = |seq| -> VersionVector { [(origin, seq)].into_iter().collect() };
    world.retain(home, &vector(40));
    world.run_secs(1);
    assert_eq!(world.disk(home).model.floors(&room()), vector(40));
    assert_eq!(world.disk(home).model.entries(&room()).count(), 20);
    let late = world.person(2, home);
    world.run_secs(4);
    let mut expected = vec!["gone before true".to_owned()];
    expected.extend(lines(41, 60));
    assert_eq!(world.shown(late), expected);
    let last = world.person_from(3, home, Start::Last(500));
    world.run_secs(4);
    assert_eq!(world.shown(last), expected);
    // What the other has not kept stays.
    world.kill(other);
    world.run_secs(1);
    let dave = world.person(4, home);
    world.run_secs(2);
    world.post(dave, 1);
    world.run_secs(3);
    let newest = |world: &World| world.disks[&port(home)].model.entries(&room()).last().unwrap().entry.clone();
    let kept_alone = newest(&world);
    world.retain(home, &[(origin, 60), (kept_alone.origin, kept_alone.seq)].into_iter().collect());
    world.run_secs(1);
    assert_eq!(world.disk(home).model.entries(&room()).count(), 1);
    assert_eq!(newest(&world).hash, kept_alone.hash);
    // A new disk takes the floor over, and counts for what is above.
    world.insert_disk(other);
    world.start(other);
    world.run_secs(20);
    assert_eq!(world.disk(other).model.floors(&room()), vector(60));
    assert_eq!(world.held(other), world.held(home));
    assert_eq!(world.disk(other).model.entries(&room()).count(), 1);
}
