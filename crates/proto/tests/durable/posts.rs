//! Posts whose place is looked up on disk: none hangs, and none is taken in twice.

use std::time::Duration;

use hobnob_proto::wire::frame::Refusal;

use crate::world::{Told, World, room};

/// More of one device than memory knows of a room.
const UNSETTLED: u64 = 2_300;

#[test]
fn as_many_posts_as_come_while_the_other_disk_is_away_are_stored_once_it_is_back() {
    let mut world = World::with(&[true, true]);
    let anna = world.person(1, 1);
    world.run_secs(1);
    let home = world.home().unwrap();
    let other = 3 - home;
    world.kill(other);
    world.run_secs(3);
    let bert = world.person(2, home);
    world.run_secs(1);
    for seq in 1..=UNSETTLED {
        world.post(bert, seq);
        if seq % 20 == 0 {
            world.run_millis(20);
        }
    }
    world.run_secs(10);
    assert_eq!(world.held(home), (UNSETTLED, UNSETTLED), "all are accepted");
    assert_ne!(anna, bert);
    world.start(other);
    world.run_secs(30);
    let stored = world.told.iter().filter(|(.., told)| matches!(told, Told::Ack { stored: true, .. }));
    assert_eq!(stored.map(|(.., seq, _)| seq).collect::<std::collections::BTreeSet<_>>().len() as u64, UNSETTLED);
    assert_eq!((world.held(1), world.held(2)), ((UNSETTLED, UNSETTLED), (UNSETTLED, UNSETTLED)), "none is there twice");
}

/// Servers that have kept so many posts of person 1, and know of them only on disk; and the home.
fn restarted(servers: &[bool], posts: u64) -> (World, u32) {
    let mut world = World::with(servers);
    let anna = world.person(1, 1);
    world.run_secs(1);
    (1..=posts).for_each(|seq| world.post(anna, seq));
    world.run_secs(2);
    let all = || (1..).zip(servers).map(|(id, _)| id);
    all().for_each(|id| world.kill(id));
    all().for_each(|id| world.start(id));
    world.run_secs(6);
    let home = world.home().expect("the room has a home again");
    (world, home)
}

#[test]
fn a_post_that_is_looked_up_while_the_home_moves_goes_to_the_new_one() {
    let (mut world, home) = restarted(&[true, true, true], 5);
    world.disk(home).seek = Duration::from_millis(80);
    let anna = world.person(1, home);
    world.run_millis(500);
    let since = world.now;
    world.post(anna, 6);
    world.run_millis(10);
    world.fail(home);
    world.run_millis(65);
    assert_ne!(world.home(), Some(home));
    world.run_secs(5);
    let told = world.told_since(anna, 6, since);
    assert!(matches!(told[..], [.., Told::Ack { stored: true, .. }]), "{told:?}");
    assert!(told.iter().all(|told| matches!(told, Told::Ack { .. })), "{told:?}");
    assert!((1..=3).all(|id| world.held(id).0 == 6), "it is there once");
}

#[test]
fn a_post_whose_entry_is_rotten_waits_until_that_is_mended() {
    let (mut world, home) = restarted(&[true, true], 300);
    let other = 3 - home;
    let rotten = world.disk(home).model.entries(&room()).nth(6).unwrap().entry.clone();
    assert!(world.disk(home).model.rot(&room(), rotten.origin, rotten.seq));
    world.kill(other);
    let anna = world.person(1, home);
    world.run_secs(3);
    let since = world.now;
    world.post(anna, rotten.client_seq);
    world.run_secs(5);
    let told = world.told_since(anna, rotten.client_seq, since);
    assert!(!told.is_empty() && told.iter().all(|told| *told == Told::Refused(Refusal::CannotStore)), "{told:?}");
    assert_eq!(world.held(home).0, 300, "it is not taken in once more");
    world.start(other);
    world.run_secs(20);
    let told = world.told_since(anna, rotten.client_seq, since);
    let dot = (rotten.origin, rotten.seq);
    assert!(matches!(told.last(), Some(Told::Ack { dot: is, stored: true, .. }) if *is == dot), "{told:?}");
    assert_eq!(world.held(home).0, 300);
}
