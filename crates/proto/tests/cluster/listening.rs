//! Whoever only listens says nothing that could go unanswered: others have to tell them that their server is dead.

use std::time::Duration;

use super::people::World;

const GAP: Duration = Duration::from_millis(50);

/// Five servers, four who talk, and eve, who listens.
fn world(seed: u8) -> World {
    World::with(seed, 5, &["ann", "ben", "cleo", "dan", "eve"], &["tea"])
}

#[test]
fn a_server_that_is_started_anew_at_once_is_left_at_once() {
    for seed in 1..=2 {
        let mut world = world(seed);
        world.listen("eve", "tea", GAP, Duration::from_secs(2));
        let server = world.server_of("eve");
        world.kill(server);
        world.start(server);
        let silence = world.listen("eve", "tea", GAP, Duration::from_secs(6));
        assert!(silence < Duration::from_millis(1_500), "seed {seed}: {silence:?}");
    }
}

#[test]
fn kills_in_a_row_are_followed_by_no_long_silence() {
    let mut world = world(1);
    world.listen("eve", "tea", GAP, Duration::from_secs(2));
    for kill in 0..4 {
        let server = if kill % 2 == 0 { world.server_of("eve") } else { 1 + kill };
        world.kill(server);
        let silence = world.listen("eve", "tea", GAP, Duration::from_millis(2_500));
        assert!(silence < Duration::from_millis(1_500), "kill {kill}: {silence:?}");
        world.start(server);
        world.listen("eve", "tea", GAP, Duration::from_millis(1_500));
    }
}

#[test]
fn two_that_die_at_once_are_followed_by_a_short_silence() {
    for seed in 1..=2 {
        let mut world = world(seed);
        world.listen("eve", "tea", GAP, Duration::from_secs(2));
        let server = world.server_of("eve");
        let other = 1 + (server + u32::from(seed) - 1) % 5;
        world.kill(server);
        world.kill(other);
        let silence = world.listen("eve", "tea", GAP, Duration::from_secs(8));
        assert!(silence < Duration::from_millis(3_500), "seed {seed}: {silence:?}");
    }
}

#[test]
fn a_session_that_its_server_serves_no_longer_is_told_so() {
    let mut same = 0;
    for seed in 1..=6 {
        let mut world = World::with(seed, 2, &["ann", "eve"], &["tea"]);
        let (server, gap) = (world.server_of("eve"), Duration::from_millis(200));
        world.twin("eve");
        same += u32::from(world.server_of("eve") == server);
        let silence = world.listen("eve", "tea", gap, Duration::from_secs(5));
        assert!(silence < Duration::from_millis(1_500), "seed {seed}: {silence:?}");
        world.all_talk("tea");
        world.run(Duration::from_secs(3));
        assert!(world.longest_wait() < Duration::from_secs(3), "what eve says is stored too");
    }
    assert!(same > 0);
}
