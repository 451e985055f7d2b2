//! A server is killed while people talk: they go on, nothing that was stored is lost or shown twice, and `who` is right.
//!
//! `HOBNOB_TEST_KILLS=20` kills so many of each kind, in a new cluster each time, and prints median and p99. The test
//! whose victims are drawn at random kills several in a row, and starts them again: 200 in a quarter of an hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hobnob_proto::rng::Rng;
use serde_json::Value;

use crate::common::{
    Place, Process, Server, items, number_of, patience,
    traffic::{Talker, all_chat, check_listeners, check_log, has, longest_silence, talk_until},
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

/// Servers of a cluster whose victims are drawn at random.
const SERVERS: u64 = 5;
/// Kills in one such cluster, each of which is followed by a new start: with many more, every server would be on
/// probation for minutes, and none of them eligible.
const KILLS_IN_A_ROW: usize = 10;
/// 50 messages a second of ten people.
const GAP_OF_TEN: Duration = Duration::from_millis(200);

#[test]
fn victims_are_drawn_at_random_while_ten_people_talk() {
    let kills = number_of("HOBNOB_TEST_KILLS").unwrap_or(3);
    let seed = number_of("HOBNOB_TEST_SEED").unwrap_or_else(|| std::process::id().into());
    println!("HOBNOB_TEST_SEED={seed}");
    let mut rng = Rng::from_seed([seed.to_le_bytes(); 4].concat().try_into().expect("four times eight bytes"));
    let mut all = Vec::new();
    while (all.len() as u64) < kills {
        let left = usize::try_from(kills).unwrap_or(usize::MAX) - all.len();
        all.extend(kill_in_a_row(left.min(KILLS_IN_A_ROW), &mut rng));
    }
    report(&format!("{kills} killed at random"), &all);
}

/// Kills so many servers of one cluster, one after the other, and starts each again. The longest silence of each kill.
fn kill_in_a_row(kills: usize, rng: &mut Rng) -> Vec<Times> {
    let place = Place::new();
    let mut servers: BTreeMap<u64, Server> = (1..).zip(place.servers(SERVERS)).collect();
    let names = ["ada", "ben", "cleo", "dan", "gil", "hal", "ian", "joy", "kim", "leo"];
    let (mut talkers, listeners) = arrive(&place, &names, GAP_OF_TEN);
    let mut all = Vec::new();
    for kill in 0..kills {
        let victim = [Victim::Leader, Victim::Home, Victim::Follower][rng.below(3) as usize];
        let asked = servers.keys().nth(rng.below(SERVERS) as usize).expect("all run");
        let id = choose(&place, &servers[asked], victim);
        let killed = servers.get_mut(&id).expect("all run").process.kill();
        let mut again = None;
        talk_until(&mut talkers, GAP_OF_TEN, patience(10_000), |talkers| {
            if again.is_none() && all_chat(talkers, &listeners, killed) {
                again = Some(Instant::now());
            }
            again.is_some_and(|again| again.elapsed() > Duration::from_secs(1))
        });
        let silence = listeners.iter().map(|listener| longest_silence(listener, killed)).max().expect("two listen");
        let wait = talkers.iter().map(|talker| talker.longest_wait(killed)).max().expect("ten talk");
        println!("kill {kill}: {victim:?}, server {id}: silence {silence:?}, longest wait {wait:?}");
        all.push(vec![("nothing shown for", silence), ("not accepted for", wait)]);
        let start = Instant::now();
        servers.insert(id, place.start_server(Some(id), &[]));
        talk_until(&mut talkers, GAP_OF_TEN, patience(10_000), |_| {
            let follows = servers[&id].process.logged(start, "leader", &[]);
            follows.is_some_and(|since| since.elapsed() > Duration::from_millis(500))
        });
    }
    let stored: BTreeSet<String> = talkers.into_iter().flat_map(Talker::fall_silent).collect();
    let logs: BTreeSet<Vec<String>> = servers.values().map(|server| check_log(&place, server, ROOM, &stored)).collect();
    assert_eq!(logs.len(), 1, "all show the same, in the same order");
    check_listeners(&listeners, &stored);
    all
}

/// What happened after a kill, and how long it took.
type Times = Vec<(&'static str, Duration)>;

/// Kills as often as was asked for, and prints the times.
fn check(victim: Victim) {
    let kills = number_of("HOBNOB_TEST_KILLS").unwrap_or(1);
    let all: Vec<Times> = (0..kills).map(|_| kill_one(victim)).collect();
    report(&format!("{victim:?} killed {kills} times"), &all);
}

/// Prints median and p99 of each of the times.
fn report(title: &str, all: &[Times]) {
    for (at, (what, _)) in all[0].iter().enumerate() {
        let mut times: Vec<Duration> = all.iter().map(|times| times[at].1).collect();
        times.sort_unstable();
        let percentile = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!("{title}, {what}: median {:?}, p99 {:?}", percentile(50), percentile(99));
    }
}

/// Kills one, and checks everything. How long until it was noticed, until all followed another leader where the leader was
/// killed, and until a new message had come through to everybody.
fn kill_one(victim: Victim) -> Times {
    let place = Place::new();
    let mut servers = place.servers(3);
    let (mut talkers, listeners) = arrive(&place, &["ada", "ben", "cleo"], GAP);
    let id = choose(&place, &servers[0], victim);
    let index = usize::try_from(id).unwrap() - 1;
    let mut dead = servers.remove(index);
    let killed = dead.process.kill();
    let mut again = None;
    talk_until(&mut talkers, GAP, patience(10_000), |talkers| {
        if again.is_none() && all_chat(talkers, &listeners, killed) {
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

/// People arrive who talk, and two who listen; they talk until both have heard everybody.
#[track_caller]
fn arrive(place: &Place, names: &[&str], gap: Duration) -> (Vec<Talker>, Vec<Process>) {
    let listeners: Vec<Process> =
        ["eve", "fay"].iter().map(|name| place.start(&["client", "--plain", "--name", name, "--room", ROOM])).collect();
    let mut talkers: Vec<Talker> = names.iter().map(|name| Talker::arrive(place, name, ROOM)).collect();
    talk_until(&mut talkers, gap, patience(10_000), |talkers| {
        let firsts: Vec<&str> = talkers.iter().filter_map(Talker::first).collect();
        firsts.len() == names.len() && listeners.iter().all(|listener| firsts.iter().all(|body| has(listener, body)))
    });
    (talkers, listeners)
}

/// The id of the server to be killed, as `server` sees the cluster.
fn choose(place: &Place, server: &Server, victim: Victim) -> u64 {
    wait_for("a victim is there", patience(5_000), || {
        let status = place.status(server)?;
        let leader = status["leader"].as_u64()?;
        let home = items(&status, "rooms").find(|room| room["name"] == ROOM)?["home"].as_u64()?;
        let mut up = items(&status, "servers").filter(|server| server["state"] != "down");
        match victim {
            Victim::Leader => Some(leader),
            Victim::Home => Some(home),
            Victim::Follower => up.find_map(|server| server["id"].as_u64().filter(|id| *id != leader && *id != home)),
        }
    })
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
