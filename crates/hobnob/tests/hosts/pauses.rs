//! Processes that stand still for a while, as on a laptop that sleeps, and go on as if nothing had been.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    common::{items, patience, wait_for},
    crowd::{Crowd, ROOM},
    network::{Host, Network},
};

/// How long at least.
const PAUSE: Duration = Duration::from_secs(3);
/// Who leads three servers.
const LEADER: u64 = 3;

/// Who sequences a room, and under which fence, as that server knows it.
fn home_and_fence(host: &Host, room: &str) -> Option<(u64, [u64; 3])> {
    let status = host.status()?;
    let room = items(&status, "rooms").find(|known| known["name"] == room)?;
    let fence: Vec<u64> = items(room, "fence").filter_map(Value::as_u64).collect();
    Some((room["home"].as_u64()?, fence.try_into().ok()?))
}

/// A new room whose home is not the leader: rooms are shared out, so that one of a few is.
#[track_caller]
fn room_of_a_follower(network: &Network) -> String {
    let first = &network.hosts[0];
    let made = (1..=9).map(|number| {
        let room = format!("tea-{number}");
        let ended = first.place.ask(first.server.as_ref().expect("it serves"), &["send", "--room", &room, "hello"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let (home, _) = wait_for("the room has a home", patience(5_000), || home_and_fence(first, &room));
        (home, room)
    });
    made.into_iter().find(|(home, _)| *home != LEADER).expect("the leader is not the home of all rooms").1
}

/// Three servers, and people on a fourth machine. The leader, or a home that does not lead, stands still until the others
/// go on without it, and wakes up.
#[track_caller]
fn check(is_home: bool) {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let room = if is_home { room_of_a_follower(&network) } else { ROOM.to_owned() };
    let mut crowd = Crowd::arrive_in(&room, &network.hosts[3..], &[]);
    let (home, before) = home_and_fence(&network.hosts[0], &room).expect("the room is there");
    let paused = if is_home { home } else { LEADER };
    assert_eq!(is_home, paused != LEADER, "the home that is to stand still does not lead");
    let (asleep, others): (Vec<_>, Vec<_>) = (1..).zip(&network.hosts[..3]).partition(|(id, _)| *id == paused);
    let asleep = asleep[0].1;
    asleep.process().signal("STOP");
    let start = Instant::now();
    if !is_home {
        crowd.talk_until(patience(5_000), |_| {
            others.iter().all(|(_, host)| host.leaders_since(start).contains(&(LEADER - 1)))
        });
        println!("the others follow another after {:?}", start.elapsed());
    }
    crowd.talk_until_all_chat(start);
    crowd.talk_for(PAUSE.saturating_sub(start.elapsed()));
    let silence = crowd.longest_silence(start);
    println!("the longest silence was {silence:?}");
    asleep.process().signal("CONT");
    let awake = Instant::now();
    crowd.talk_until_all_chat(awake);
    crowd.talk_until(patience(20_000), |_| network.agreement().is_some_and(|view| view["leader"] == LEADER));
    println!("all agree {:?} after it woke", awake.elapsed());
    if home == paused {
        let (_, after) = home_and_fence(asleep, &room).expect("the room is there");
        assert!(after > before, "it has found a higher fence: {before:?}, then {after:?}");
    }
    assert!(silence < patience(3_000), "others went on without it: {silence:?}");
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
