//! A client that sleeps, and one whose address changes.

use super::world::{World, entry};
use crate::client::Event;

/// A client of three servers that has shown one message, and has a standby.
fn settled() -> World {
    let mut world = World::joined(3);
    world.publish(&entry(8, 1, 10, "a"));
    world.run(2_000);
    world
}

/// Lets the client sleep.
fn sleep(world: &mut World, millis: u64) {
    world.sleeps = true;
    world.run(millis);
    world.sleeps = false;
}

#[test]
fn whoever_sleeps_is_served_again_at_once_and_nothing_is_lost_or_shown_twice() {
    fn check(minutes: u64) {
        let mut world = settled();
        world.post(1, "typed before");
        sleep(&mut world, 30_000);
        for (seq, body) in [(2, "b"), (3, "c")] {
            world.publish(&entry(8, seq, seq * 10, body));
            world.run(0);
        }
        sleep(&mut world, minutes * 60_000);
        let woke = world.now;
        world.post(2, "typed after");
        world.run(1_000);
        let served = world.events.iter().rev().find(|(_, event)| matches!(event, Event::Connected { .. })).unwrap().0;
        assert!(minutes < 2 || served > woke, "the session was gone, {minutes} minutes");
        assert_eq!(world.acked(), [(1, false), (1, true), (2, false), (2, true)], "{minutes} minutes");
        let mut shown = world.shown();
        shown.sort_unstable();
        let expected = ["--", "a", "b", "c", "typed after", "typed before"];
        assert_eq!(shown.iter().map(|shown| shown.trim_start_matches('~')).collect::<Vec<_>>(), expected);
        assert_eq!(world.log.entries.len(), 5, "each once");
        world.run(30_000);
        assert!(world.links().1.is_some(), "another stands by, {minutes} minutes");
        assert_eq!(world.shown().len(), 6);
    }
    check(0);
    check(1);
    check(60);
}

#[test]
fn what_was_open_when_sleep_began_does_not_speak_against_the_server() {
    let mut world = settled();
    // It has been asked about the lull already, and is not again so soon.
    world.run(1_000);
    let (primary, _) = world.links();
    // The network goes first, and the laptop is asked for an answer when its lid is closed.
    let addr = std::mem::replace(&mut world.client_addr, ([10, 0, 0, 200], 1).into());
    world.servers.iter_mut().for_each(|server| server.alive = false);
    world.post(1, "mine");
    world.run(700);
    world.servers.iter_mut().for_each(|server| server.alive = true);
    world.client_addr = addr;
    sleep(&mut world, 20_000);
    world.run(2_000);
    assert_eq!(world.links().0, primary);
    assert_eq!(world.served_by().len(), 1, "it is served by the same session");
    assert_eq!(world.acked(), [(1, false), (1, true)]);
}

#[test]
fn a_new_address_in_the_middle_of_a_large_post_loses_nothing_and_needs_no_handshake() {
    for moved_after in 0..12 {
        let mut world = settled();
        let sessions: u32 = world.servers.iter().map(|server| server.sessions).sum();
        let body = "\"ö\\🫖\n".repeat(1_400);
        world.post(1, &body);
        world.run_micros(moved_after * 400);
        world.client_addr = ([10, 0, 1, 7], 20_000).into();
        world.publish(&entry(8, 2, 20, "b"));
        world.run_with_heads(3);
        assert_eq!(world.acked(), [(1, false), (1, true)], "{moved_after}");
        assert_eq!(world.log.entries.iter().filter(|entry| *entry.body == *body).count(), 1);
        let mut shown = world.shown();
        shown.sort_unstable();
        let mut expected = ["--".to_owned(), "a".to_owned(), "b".to_owned(), body];
        expected.sort_unstable();
        assert_eq!(shown.iter().map(|shown| shown.trim_start_matches('~')).collect::<Vec<_>>(), expected);
        assert_eq!(world.served_by().len(), 1);
        assert_eq!(world.servers.iter().map(|server| server.sessions).sum::<u32>(), sessions, "no handshake");
    }
}
