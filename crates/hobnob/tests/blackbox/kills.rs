//! A server is killed while people talk: they go on, nothing that was stored is lost or shown twice, and `who` is right.
//!
//! `HOBNOB_TEST_KILLS=20` kills so many of each kind, in a new cluster each time, and prints median and p99.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::common::{
    Place, Process, Server, items, patience,
    traffic::{Talker, check_log, talk_until},
    wait_for,
};

/// 20 messages a second.
const GAP: Duration = Duration::from_millis(50);
/// Where everybody talks.
const ROOM: &str = "tea";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Leader,
    Home,
    Follower,
}

#[test]
fn the_leader_is_killed_while_three_people_talk() {
    check(Victim::Leader);
}

#[test]
fn the_home_of_the_room_is_killed_while_three_people_talk() {
    check(Victim::Home);
}

#[test]
fn a_follower_is_killed_while_three_people_talk() {
    check(Victim::Follower);
}

/// What happened after a kill, and how long it took.
type Times = Vec<(&'static str, Duration)>;

/// Kills as often as was asked for, and prints the times.
fn check(victim: Victim) {
    let kills = std::env::var("HOBNOB_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let all: Vec<Times> = (0..kills).map(|_| kill_one(victim)).collect();
    for (at, (what, _)) in all[0].iter().enumerate() {
        let mut times: Vec<Duration> = all.iter().map(|times| times[at].1).collect();
        times.sort_unstable();
        let percentile = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!("{victim:?} killed {kills} times, {what}: median {:?}, p99 {:?}", percentile(50), percentile(99));
    }
}

/// Kills one, and checks everything. How long until it was noticed, until all followed another leader where the leader was
/// killed, and until a new message had come through to everybody.
fn kill_one(victim: Victim) -> Times {
    let place = Place::new();
    let mut servers = place.servers(3);
    let listeners: Vec<Process> =
        ["eve", "fay"].iter().map(|name| place.start(&["client", "--plain", "--name", name, "--room", ROOM])).collect();
    let mut talkers: Vec<Talker> = ["ada", "ben", "cleo"].map(|name| Talker::arrive(&place, name, ROOM)).into();
    talk_until(&mut talkers, GAP, patience(10_000), |talkers| {
        let firsts: Vec<&str> = talkers.iter().filter_map(Talker::first).collect();
        listeners.iter().all(|listener| firsts.iter().all(|body| has(listener, body)))
    });
    let id = choose(&place, &servers[0], victim);
    let index = usize::try_from(id).unwrap() - 1;
    let mut dead = servers.remove(index);
    let killed = dead.process.kill();
    let mut again = None;
    talk_until(&mut talkers, GAP, patience(10_000), |talkers| {
        let new: Vec<&str> = talkers.iter().flat_map(|talker| talker.said_after(killed)).collect();
        if again.is_none() && listeners.iter().all(|listener| new.iter().any(|body| has(listener, body))) {
            again = Some(killed.elapsed());
        }
        again.is_some_and(|again| killed.elapsed() > again + Duration::from_secs(1))
    });
    let noticed = servers
        .iter()
        .map(|server| server.process.logged(killed, "server is down", &[("server", id)]).expect("it is noticed"))
        .min()
        .unwrap();
    let stored: BTreeSet<String> = talkers.into_iter().flat_map(Talker::fall_silent).collect();
    for server in &servers {
        check_log(&place, server, ROOM, &stored);
        check_who(&place, server, id);
    }
    check_listeners(&listeners, &stored);
    let mut times = vec![("noticed", noticed - killed)];
    if victim == Victim::Leader {
        let next = (1..=3).filter(|other| *other != id).max().unwrap();
        let follows = |server: &Server| server.process.logged(killed, "leader", &[("leader", next)]);
        let elected = servers.iter().map(|server| follows(server).expect("it follows the next")).max().unwrap();
        times.push(("another leads", elected - killed));
    }
    times.push(("all chat again", again.unwrap()));
    times
}

/// Whether somebody has seen that body: at the end of a line, since `ada 1` is also how `ada 12` begins.
fn has(listener: &Process, body: &str) -> bool {
    listener.out().iter().any(|(_, line)| line.ends_with(body))
}

/// The id of the server to be killed.
fn choose(place: &Place, server: &Server, victim: Victim) -> u64 {
    let status = place.status(server).unwrap();
    let leader = status["leader"].as_u64().unwrap();
    let home = items(&status, "rooms").find(|room| room["name"] == ROOM).and_then(|room| room["home"].as_u64());
    let home = home.expect("the room has a home");
    match victim {
        Victim::Leader => leader,
        Victim::Home => home,
        Victim::Follower => (1..=3).find(|id| *id != leader && *id != home).unwrap(),
    }
}

/// Everybody who listens is known, and is served by a server that lives.
#[track_caller]
fn check_who(place: &Place, server: &Server, dead: u64) {
    wait_for("who is right", patience(10_000), || {
        let all: Value = serde_json::from_str(&place.ask(server, &["who", "--json"]).out).ok()?;
        let at = |name: &str| all.as_array()?.iter().find(|client| client["name"] == name)?["server"].as_u64();
        (at("eve")? != dead && at("fay")? != dead).then_some(())
    });
}

/// Everybody who listens has seen everything that is stored, once.
#[track_caller]
fn check_listeners(listeners: &[Process], stored: &BTreeSet<String>) {
    for listener in listeners {
        let times = |body: &str| listener.out().iter().filter(|(_, line)| line.ends_with(body)).count();
        wait_for("everything is shown", patience(10_000), || stored.iter().all(|body| times(body) > 0).then_some(()));
        let doubled: Vec<&String> = stored.iter().filter(|body| times(body) > 1).collect();
        assert!(doubled.is_empty(), "shown more than once: {doubled:?}");
    }
}
