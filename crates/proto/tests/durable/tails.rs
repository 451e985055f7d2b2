//! Memory holds tails: what is older is looked up on disk, mended where it is rotten, and given up where it is stored.

use hobnob_proto::{
    ids::Origin,
    log::VersionVector,
    wire::frame::{Refusal, Start},
};

use crate::world::{Hold, Reading, Told, World, entries, port, room};

/// More than a server keeps in memory of a room.
pub(crate) const MANY: u64 = 700;

/// Somebody posts that many lines, and all servers keep them.
pub(crate) fn spoken(world: &mut World, server: u32, lines: u64) -> u16 {
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

pub(crate) fn lines(from: u64, to: u64) -> Vec<String> {
    (from..=to).map(|n| format!("line {n}")).collect()
}

/// The origin of which there is most.
pub(crate) fn origin(world: &World, id: u32) -> Origin {
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

/// The home of the room, and the others.
fn home_and_others(world: &World) -> (u32, Vec<u32>) {
    let home = world.home().unwrap();
    (home, (1..=3).filter(|id| *id != home && world.nodes.contains_key(&port(*id))).collect())
}

#[test]
fn who_keeps_more_gives_up_nothing_because_another_has() {
    let mut world = World::with(&[true, true]);
    spoken(&mut world, 1, 60);
    let (home, others) = home_and_others(&world);
    let (other, origin) = (others[0], origin(&world, 1));
    world.retain(home, &[(origin, 40)].into_iter().collect());
    world.run_secs(1);
    assert_eq!(world.disk(home).model.entries(&room()).count(), 20);
    // With nothing in memory that could mend it.
    world.kill(other);
    world.start(other);
    world.run_secs(8);
    assert!(world.disk(other).model.rot(&room(), origin, 30));
    world.scrub(other, &[(origin, 30)]);
    world.run_secs(6);
    assert_eq!(world.disk(other).model.floors(&room()), VersionVector::default());
    assert_eq!(world.disk(other).model.entries(&room()).count(), 59, "all but the rotten one");
}

#[test]
fn what_one_server_has_given_up_is_pulled_where_it_is_kept() {
    let mut world = World::with(&[true, true, true]);
    spoken(&mut world, 1, 60);
    let (home, others) = home_and_others(&world);
    let origin = origin(&world, 1);
    world.retain(home, &[(origin, 40)].into_iter().collect());
    world.run_secs(1);
    world.kill(others[0]);
    world.insert_disk(others[0]);
    world.run_secs(2);
    world.start(others[0]);
    world.run_secs(20);
    assert_eq!(world.disk(others[0]).model.floors(&room()), VersionVector::default());
    assert_eq!(world.disk(others[0]).model.entries(&room()).count(), 60);
}

#[test]
fn a_floor_may_lie_above_what_still_waits_for_the_disk() {
    let mut world = World::with(&[true, true, true]);
    let anna = spoken(&mut world, 1, 10);
    let (home, others) = home_and_others(&world);
    let (late, origin) = (*others.iter().max().unwrap(), origin(&world, 1));
    let rest: Vec<_> = (1..=3).filter(|id| *id != late).collect();
    world.disk(late).hold = Hold::From(entries);
    for seq in 11..=15 {
        world.post(anna, seq);
    }
    world.run_millis(300);
    assert_eq!(world.held(late), (15, 10));
    world.cut = Some(late);
    for seq in 16..=40 {
        world.post(anna, seq);
    }
    world.run_secs(8);
    for id in rest {
        let held = world.room_at(id).unwrap().held.into_owned();
        world.retain(id, &[(origin, held.get(origin) - 5)].into_iter().collect());
    }
    world.run_secs(1);
    world.cut = None;
    world.run_secs(12);
    let floor = world.disk(home).model.floors(&room());
    assert!(floor.get(origin) > 15, "{floor:?}");
    let waiter = world.person(3, late);
    world.run_secs(2);
    world.disk(late).hold = Hold::Nothing;
    world.run_secs(8);
    assert_eq!(world.disk(late).model.floors(&room()), floor);
    assert_eq!(world.held(late), world.held(home));
    assert!(world.shown(waiter).contains(&"line 40".to_owned()));
}

#[test]
fn what_is_rotten_here_counts_as_no_copy_of_ours() {
    let mut world = World::with(&[true, true]);
    spoken(&mut world, 1, 60);
    let (home, others) = home_and_others(&world);
    let origin = origin(&world, 1);
    world.kill(others[0]);
    // Nothing is in memory that could mend it, and nobody there who has it.
    world.kill(home);
    world.start(home);
    world.run_secs(8);
    world.start(others[0]);
    world.run_secs(8);
    world.disk(others[0]).reading = Reading::Hangs;
    assert!(world.disk(home).model.rot(&room(), origin, 30));
    world.scrub(home, &[(origin, 30)]);
    world.run_millis(500);
    world.retain(home, &[(origin, 60)].into_iter().collect());
    world.run_secs(1);
    assert_eq!(world.disk(home).model.floors(&room()).get(origin), 29, "what is beyond has one copy that is known of");
}

#[test]
fn a_server_gives_up_what_is_stored_of_rooms_that_have_their_home_elsewhere() {
    let mut world = World::with(&[true, true, true]);
    spoken(&mut world, 1, 60);
    let (_, others) = home_and_others(&world);
    let vector = |seq| -> VersionVector { [(origin(&world, 1), seq)].into_iter().collect() };
    let (forty, fifty) = (vector(40), vector(50));
    world.retain(others[0], &forty);
    world.run_secs(1);
    assert_eq!(world.disk(others[0]).model.floors(&room()), forty);
    // Where nobody else is there to say what they have kept, it stays.
    for id in (1..=3).filter(|id| *id != others[0]) {
        world.kill(id);
    }
    world.retain(others[0], &fifty);
    world.run_secs(1);
    assert_eq!(world.disk(others[0]).model.floors(&room()), forty);
}
