//! Disks that cannot be written to, or are slow when somebody leaves.

use hobnob_proto::{
    client::Command,
    node::{Event, Stop},
    wire::frame::Refusal,
};

use crate::world::{Hold, Told, World, any, entries, port, room};

#[test]
fn a_server_that_cannot_write_hands_over_and_posts_arrive_by_another_home() {
    for home_is_leader in [true, false] {
        let mut world = World::with(&[true, true, true]);
        let anna = world.person(1, 1);
        world.run_secs(1);
        let (leader, mut home) = (world.view(1).leader.unwrap().0, world.home().unwrap());
        if home_is_leader {
            // The lobby's home, the leader or not, has a room too.
            home = leader;
        }
        world.post(anna, 1);
        world.run_secs(1);
        let since = world.now;
        world.fail(home);
        world.post(anna, 2);
        world.run_secs(3);
        let told = world.told_since(anna, 2, since);
        assert!(matches!(told.last(), Some(Told::Ack { stored: true, copies: 2, durable: true, .. })), "{told:?}");
        for id in 1..=3 {
            let view = world.view(id);
            assert!(view.rooms.iter().all(|room| room.fence.home.id.0 != home), "at {id}");
            assert_ne!(view.leader.unwrap().0, home, "at {id}");
        }
        assert_eq!(world.held(home), (2, 1));
        assert!(!world.view(home).writable && !world.view(home).eligible);
    }
}

#[test]
fn a_copy_that_cannot_be_written_does_not_count() {
    let mut world = World::with(&[true, true]);
    let anna = world.person(1, 1);
    world.run_secs(1);
    let other = 3 - world.home().unwrap();
    world.fail(other);
    let since = world.now;
    world.post(anna, 1);
    world.run_secs(20);
    assert_eq!(world.acks_since(anna, 1, since), [(1, false, true)]);
    assert_eq!(world.held(other), (1, 0));
    world.kill(other);
    world.start(other);
    world.run_secs(5);
    assert_eq!(world.acks_since(anna, 1, since), [(1, false, true), (2, true, true)]);
}

#[test]
fn a_server_alone_that_cannot_write_refuses_and_the_post_is_kept() {
    let mut world = World::with(&[true]);
    let anna = world.person(1, 1);
    world.post(anna, 1);
    world.run_secs(1);
    let since = world.now;
    world.fail(1);
    world.post(anna, 2);
    world.run_secs(30);
    assert_eq!(world.told_since(anna, 2, since), [Told::Refused(Refusal::CannotStore)], "once");
    assert_eq!((world.held(1), world.view(1).leader.map(|id| id.0)), ((1, 1), Some(1)), "reads are served");
    world.kill(1);
    world.start(1);
    world.run_secs(10);
    let told = world.told_since(anna, 2, since);
    assert!(matches!(told.last(), Some(Told::Ack { stored: true, .. })), "{told:?}");
    assert!(world.disk(1).model.held(&room()).iter().map(|(_, seq)| seq).sum::<u64>() == 2);
}

#[test]
fn who_leaves_goes_once_others_have_all_of_it_on_disk() {
    let mut world = World::with(&[true, true, true]);
    let anna = world.person(1, 1);
    world.run_secs(1);
    let home = world.home().unwrap();
    // The higher of the others leads then, and writes fences.
    let slow = if home == 1 { 2 } else { 1 };
    world.disk(slow).hold = Hold::From(entries);
    world.post(anna, 1);
    world.run_millis(500);
    world.leave(home);
    world.run_secs(5);
    let stops = |world: &World| -> Vec<_> {
        let stops =
            world.events.iter().filter(|(at, _, event)| *at == port(home) && matches!(event, Event::Stopped(_)));
        stops.map(|(.., event)| event.clone()).collect()
    };
    assert_eq!(stops(&world), []);
    world.disk(slow).hold = Hold::Nothing;
    world.run_secs(1);
    assert_eq!(stops(&world), [Event::Stopped(Stop::Left)]);
}

#[test]
fn a_home_whose_disk_stands_still_hands_over_and_takes_part_again_once_it_moves() {
    let mut world = World::with(&[true, true, true]);
    let anna = world.person(1, 1);
    world.run_secs(1);
    let home = world.home().unwrap();
    world.disk(home).hold = Hold::From(any);
    let since = world.now;
    world.post(anna, 1);
    world.post(anna, 2);
    world.run_secs(8);
    assert_ne!(world.home().unwrap(), home);
    assert!(!world.view(home).writable && !world.view(home).eligible);
    for seq in [1, 2] {
        let told = world.told_since(anna, seq, since);
        assert!(matches!(told.last(), Some(Told::Ack { stored: true, .. })), "{told:?}");
    }
    world.disk(home).hold = Hold::Nothing;
    world.run_secs(3);
    assert!(world.view(home).writable && world.view(home).eligible, "without a new start");
    assert!((1..=3).all(|id| world.held(id) == (2, 2)));
}

#[test]
fn who_wins_and_cannot_write_that_down_leaves_the_lead_to_another() {
    let mut world = World::with(&[true, true, true]);
    let leader = world.view(1).leader.unwrap().0;
    let next = (1..=3).filter(|id| *id != leader).max().unwrap();
    world.disk(next).hold = Hold::From(any);
    world.kill(leader);
    world.run_secs(12);
    let last = (1..=3).find(|id| ![leader, next].contains(id)).unwrap();
    assert_eq!(world.view(last).leader.map(|id| id.0), Some(last));
    assert_eq!(world.view(next).leader.map(|id| id.0), Some(last));
}

#[test]
fn a_server_whose_disk_has_failed_fills_no_memory() {
    let mut world = World::with(&[true, true]);
    let anna = world.person(1, 1);
    world.run_secs(1);
    let failed = 3 - world.home().unwrap();
    world.fail(failed);
    for seq in 1..=700 {
        let body = "x".repeat(16 * 1024);
        world.command(anna, Command::Post { room: room(), seq, body });
        world.run_millis(20);
    }
    world.run_secs(5);
    let bytes = |world: &World, id| world.nodes[&port(id)].bytes_in_memory();
    assert!(world.held(3 - failed).0 == 700 && bytes(&world, failed) < 9 * 1024 * 1024, "{}", bytes(&world, failed));
}
