//! Processes that stand still for a while, as on a laptop that sleeps, and go on as if nothing had been.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    common::{items, patience},
    crowd::{Crowd, ROOM},
    network::Network,
};

/// How long.
const PAUSE: Duration = Duration::from_secs(3);

/// The room as somebody's status shows it.
fn room(status: &Value) -> Option<Value> {
    items(status, "rooms").find(|room| room["name"] == ROOM).cloned()
}

/// Who sequences the room, and under which fence.
fn home_and_fence(network: &Network, at: usize) -> Option<(u64, [u64; 3])> {
    let room = room(&network.hosts[at].status()?)?;
    let fence: Vec<u64> = items(&room, "fence").filter_map(Value::as_u64).collect();
    Some((room["home"].as_u64()?, fence.try_into().ok()?))
}

/// Three servers, and people on a fourth machine. The leader, or the home of the room, stands still and wakes up.
#[track_caller]
fn check(is_home: bool) {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive(&network.hosts[3..]);
    let (home, before) = home_and_fence(&network, 0).expect("the room is there");
    let paused = if is_home { usize::try_from(home).unwrap() - 1 } else { 2 };
    let start = Instant::now();
    network.hosts[paused].process().signal("STOP");
    crowd.talk_for(PAUSE);
    let silence = crowd.longest_silence(start);
    println!("the longest silence was {silence:?}");
    network.hosts[paused].process().signal("CONT");
    let awake = Instant::now();
    crowd.talk_until_all_chat(awake);
    crowd.talk_until(patience(20_000), |_| network.agreement().is_some_and(|view| view["leader"] == 3));
    println!("all agree {:?} after it woke", awake.elapsed());
    if home == paused as u64 + 1 {
        let (_, after) = home_and_fence(&network, paused).expect("the room is there");
        assert!(after > before, "it has found a higher fence: {before:?}, then {after:?}");
        assert!(silence < PAUSE, "others went on without it: {silence:?}");
    }
    crowd.settle(&network);
}

#[test]
fn a_leader_stands_still_for_three_seconds() {
    check(false);
}

#[test]
fn a_home_stands_still_for_three_seconds() {
    check(true);
}
