//! Rooms and clients are handed over while everybody talks: nothing is lost, doubled or late.

use std::time::Duration;

use hobnob_proto::{ids::ServerId, node::Stop};

use super::people::{World, port};

const PEOPLE: &[&str] = &["ada", "ben", "cleo"];
const ROOMS: &[&str] = &["tea", "lobby"];
/// Three people, two rooms, 120 messages a second.
const GAP: Duration = Duration::from_millis(50);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Talks while server `id` leaves. How long anybody was shown nothing.
fn leaves(world: &mut World, id: u32, rooms: &[&str]) -> Duration {
    let from = world.now;
    world.leave(id);
    world.talk_for(rooms, GAP, secs(3));
    assert_eq!(world.stopped(id), Some(&Stop::Left), "server {id}");
    world.longest_silence(from, world.now)
}

#[test]
fn a_server_that_leaves_takes_no_message_along_and_nobody_notices() {
    fn check(id: u32, loss: u64) {
        let mut world = World::with(u8::try_from(id).unwrap(), 3, PEOPLE, ROOMS);
        world.talk_for(ROOMS, GAP, secs(1));
        world.loss = loss;
        let silence = leaves(&mut world, id, ROOMS);
        if loss == 0 {
            assert!(silence < Duration::from_millis(80), "server {id}: {silence:?}");
            assert!(world.longest_wait() < Duration::from_millis(250), "server {id}: {:?}", world.longest_wait());
        }
        world.check_all();
        assert!(world.home("tea").is_some_and(|home| home != id));
        assert!(world.people.values().all(|person| person.server != Some(ServerId(id))));
    }
    for id in 1..=3 {
        check(id, 0);
        check(id, 5);
    }
}

#[test]
fn a_rolling_restart_goes_unnoticed_and_changes_the_leader_at_most_once_for_each_server() {
    for order in [[1, 2, 3], [3, 2, 1]] {
        let mut world = World::with(9, 3, PEOPLE, &["tea"]);
        world.talk_for(&["tea"], GAP, secs(1));
        let since = world.now;
        for id in order {
            let silence = leaves(&mut world, id, &["tea"]);
            assert!(silence < Duration::from_millis(100), "server {id}: {silence:?}");
            let from = world.now;
            world.start(id);
            world.talk_for(&["tea"], GAP, secs(4));
            let silence = world.longest_silence(from, world.now);
            assert!(silence < Duration::from_millis(100), "server {id} comes back: {silence:?}");
        }
        assert!(world.changes_of_leader(since) <= 3, "{:?}", world.events);
        world.check_all();
    }
}

#[test]
fn there_is_a_leader_while_the_leader_leaves() {
    let mut world = World::with(3, 3, PEOPLE, ROOMS);
    let since = world.now;
    world.leave(3);
    for _ in 0..200 {
        world.run(Duration::from_millis(20));
        for node in world.nodes.values() {
            assert!(node.view().leader.is_some(), "at {:?}", world.now);
        }
    }
    assert_eq!((world.stopped(3), world.changes_of_leader(since)), (Some(&Stop::Left), 1));
}

#[test]
fn servers_that_all_leave_at_once_leave_one_after_the_other() {
    let mut world = World::with(4, 4, PEOPLE, ROOMS);
    world.talk_for(ROOMS, GAP, secs(1));
    for id in [4, 2, 1] {
        world.leave(id);
    }
    world.talk_for(ROOMS, GAP, secs(6));
    for id in [4, 2, 1] {
        assert_eq!(world.stopped(id), Some(&Stop::Left), "server {id}");
    }
    assert_eq!(world.home("tea"), Some(3));
}

#[test]
fn the_last_of_a_cluster_that_stops_as_a_whole_stays_a_member() {
    let mut world = World::with(5, 3, PEOPLE, ROOMS);
    world.talk_for(ROOMS, GAP, secs(1));
    let since = world.now;
    for id in 1..=3 {
        world.leave(id);
    }
    world.run(secs(9));
    let stops: Vec<_> = (1..=3).filter_map(|id| world.stopped(id).cloned()).collect();
    assert_eq!(stops.iter().filter(|stop| **stop == Stop::Left).count(), 2, "{stops:?}");
    assert!(stops.contains(&Stop::LeftAlone { messages: true }), "{stops:?}");
    let last = world.events.iter().rev().find(|(_, at, _)| *at > since).unwrap().1;
    assert!(last.since(since) < secs(8), "{:?}", last.since(since));
}

#[test]
fn a_newcomer_gets_its_share_of_quiet_rooms_and_then_all_rest() {
    let rooms: Vec<String> = (0..30).map(|n| format!("room{n}")).collect();
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    let mut world = World::with(6, 2, &["ada", "ben"], &rooms);
    assert_eq!(world.spread(), [15, 15]);
    for room in &rooms {
        world.all_talk(room);
        world.run(GAP);
    }
    world.start(3);
    world.run(secs(25));
    assert_eq!(world.spread(), [15, 15, 0]);
    world.run(secs(23));
    assert_eq!(world.spread(), [10, 10, 10]);
    let homes: Vec<_> = rooms.iter().map(|room| world.home(room)).collect();
    for room in &rooms {
        world.all_talk(room);
        world.run(GAP);
    }
    world.run(secs(180));
    assert_eq!(rooms.iter().map(|room| world.home(room)).collect::<Vec<_>>(), homes);
    world.check_all();
}

#[test]
fn rooms_that_move_while_everybody_talks_lose_and_double_nothing() {
    for loss in [0, 5] {
        let rooms = ["r1", "r2", "r3", "r4", "r5", "r6"];
        let mut world = World::with(7, 1, PEOPLE, &rooms);
        world.start(2);
        world.run(secs(4));
        world.loss = loss;
        world.run(secs(25));
        let from = world.now;
        assert_eq!(world.spread(), [6, 0]);
        world.talk_for(&rooms, Duration::from_millis(200), secs(12));
        assert!(world.spread()[1] >= 3, "{:?}", world.spread());
        if loss == 0 {
            assert!(world.longest_silence(from, world.now) < Duration::from_millis(250));
            assert!(world.longest_wait() < Duration::from_millis(200), "{:?}", world.longest_wait());
        }
        world.check_all();
    }
}

#[test]
fn a_home_that_dies_while_it_hands_over_is_not_waited_for() {
    let mut world = World::with(8, 3, PEOPLE, ROOMS);
    world.talk_for(ROOMS, GAP, secs(1));
    let home = world.home("tea").unwrap();
    world.leave(home);
    world.run(Duration::from_micros(1_200));
    world.kill(home);
    world.talk_for(ROOMS, GAP, secs(5));
    assert!(!world.nodes.contains_key(&port(home)));
    assert!(world.home("tea").is_some_and(|now| now != home));
}
