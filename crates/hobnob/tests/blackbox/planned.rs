//! Servers are told to stop while people talk, as an operator does who updates them: nobody notices, and nothing is lost.
//!
//! What tells a hand-over from a crash holds on any machine: no server is called down, and nobody who listens is told that
//! theirs went away. The silences are printed; machines that run tests are busy, so they are held to their bounds only with
//! `HOBNOB_TEST_PATIENCE=1`. `HOBNOB_TEST_ROUNDS=5` restarts all servers so often.

use std::{
    collections::BTreeSet,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{
    Ended, Place, Process, Server, is_strict, number_of, patience,
    traffic::{Talker, check_listeners, check_log, check_never_lost, has, talk_until},
};

/// Between two messages: 100 a second.
const GAP: Duration = Duration::from_millis(10);
const TALKERS: [&str; 5] = ["ada", "ben", "cleo", "dan", "eli"];
const LISTENERS: [&str; 3] = ["eve", "fay", "gus"];
/// The longest that somebody who listens may be shown nothing, while servers are restarted in turn.
const SILENCE_IN_TURN: Duration = Duration::from_millis(300);
/// While one server stops.
const SILENCE_OF_ONE: Duration = Duration::from_millis(100);
/// Between a start and the next stop: where all are on probation at once, whoever leads then gives way to the first that no
/// longer is, which is one change of leader more than the test allows.
const BETWEEN: Duration = Duration::from_secs(3);
/// In which a crash would have been noticed.
const NOTICED: u64 = 1_500;
/// Where everybody talks.
const ROOM: &str = "tea";

#[test]
fn each_server_is_restarted_in_turn_while_people_talk() {
    let rounds = number_of("HOBNOB_TEST_ROUNDS").unwrap_or(1);
    let place = Place::new();
    let mut servers: Vec<Option<Server>> = place.servers(3).into_iter().map(Some).collect();
    let mut town = Town::arrive(&place);
    let before = epochs(&servers.iter().flatten().map(|server| text(&server.process)).collect::<Vec<_>>());
    let start = Instant::now();
    let (mut stops, mut starts, mut logs) = (Vec::new(), Vec::new(), Vec::new());
    for id in (0..rounds).flat_map(|_| 1..=3) {
        let at = usize::try_from(id).unwrap() - 1;
        let stopping = Instant::now();
        let ended = stop(servers[at].take().unwrap());
        town.talk_until(|| ended.is_finished());
        town.talk_for(Duration::from_millis(500));
        let ended = ended.join().unwrap();
        assert_eq!(ended.code, Some(0), "server {id} hands over: {}", ended.err);
        logs.push(ended.err);
        let starting = Instant::now();
        let server = place.start_server(Some(id), &[]);
        town.talk_until(|| is_serving(&server));
        town.talk_for(BETWEEN);
        servers[at] = Some(server);
        stops.extend(town.silences(stopping, starting));
        starts.extend(town.silences(starting, Instant::now()));
    }
    let servers: Vec<Server> = servers.into_iter().flatten().collect();
    place.wait_for_agreement(&servers.iter().collect::<Vec<_>>(), 3, patience(30_000));
    logs.extend(servers.iter().map(|server| text(&server.process)));
    let changes = epochs(&logs).difference(&before).count();
    println!("{rounds} rounds in {:?}, {changes} changes of leader", start.elapsed());
    check_silences("while a server stops", stops, SILENCE_IN_TURN);
    check_silences("while a server starts", starts, SILENCE_IN_TURN);
    assert_eq!(called_down(&logs), [] as [u64; 0], "those that leave as planned are not called down");
    assert!(changes <= usize::try_from(3 * rounds).unwrap(), "{changes} changes of leader");
    town.check(&place, &servers);
}

#[test]
fn the_leader_is_told_to_stop_while_people_talk() {
    let place = Place::new();
    let mut servers = place.servers(3);
    let mut town = Town::arrive(&place);
    town.talk_for(Duration::from_millis(500));
    let stopping = Instant::now();
    let ended = stop(servers.remove(2));
    town.talk_until(|| ended.is_finished());
    let took = stopping.elapsed();
    town.talk_for(patience(NOTICED));
    assert_eq!(ended.join().unwrap().code, Some(0));
    println!("stopped in {took:?}");
    check_silences("while the leader stops", town.silences(stopping, Instant::now()), SILENCE_OF_ONE);
    let logs: Vec<String> = servers.iter().map(|server| text(&server.process)).collect();
    assert_eq!(called_down(&logs), [] as [u64; 0], "the leader left as planned, and is not called down");
    town.check(&place, &servers);
}

/// People who talk, and people who listen.
struct Town {
    talkers: Vec<Talker>,
    listeners: Vec<Process>,
    turn: usize,
    next: Instant,
}

impl Town {
    /// Everybody arrives, and hears what is said.
    #[track_caller]
    fn arrive(place: &Place) -> Self {
        let listeners: Vec<Process> =
            LISTENERS.iter().map(|name| place.start(&["client", "--plain", "--name", name, "--room", ROOM])).collect();
        let mut talkers: Vec<Talker> = TALKERS.map(|name| Talker::arrive(place, name, ROOM)).into();
        talk_until(&mut talkers, GAP * 10, patience(10_000), |talkers| {
            let firsts: Vec<&str> = talkers.iter().filter_map(Talker::first).collect();
            listeners.iter().all(|listener| firsts.iter().all(|body| has(listener, body)))
        });
        Self { talkers, listeners, turn: 0, next: Instant::now() }
    }

    /// One after the other says something, until `enough`.
    #[track_caller]
    fn talk_until(&mut self, enough: impl Fn() -> bool) {
        let start = Instant::now();
        self.next = self.next.max(start);
        while !enough() {
            assert!(start.elapsed() < patience(20_000), "enough was said");
            thread::sleep(self.next.saturating_duration_since(Instant::now()));
            let count = self.talkers.len();
            self.talkers[self.turn % count].talk();
            self.turn += 1;
            self.next += GAP;
        }
    }

    fn talk_for(&mut self, span: Duration) {
        let start = Instant::now();
        self.talk_until(|| start.elapsed() >= span);
    }

    /// The longest span between those moments in which each listener was shown nothing.
    fn silences(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let of_one = |listener: &Process| {
            let shown = listener.out().into_iter().map(|(at, _)| at).filter(|at| *at > from && *at < to);
            let times: Vec<_> = std::iter::once(from).chain(shown).chain([to]).collect();
            times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        self.listeners.iter().map(of_one).collect()
    }

    /// Everybody falls silent: all is stored, in every log once, and was shown to everybody once. Nobody lost their server.
    #[track_caller]
    fn check(self, place: &Place, servers: &[Server]) {
        let stored: BTreeSet<String> = self.talkers.into_iter().flat_map(Talker::fall_silent).collect();
        for server in servers {
            check_log(place, server, ROOM, &stored);
        }
        check_never_lost(&self.listeners);
        check_listeners(&self.listeners, &stored);
    }
}

/// Tells a server to stop. How it ends.
fn stop(server: Server) -> JoinHandle<Ended> {
    server.process.terminate();
    thread::spawn(move || server.process.wait(patience(15_000)))
}

fn is_serving(server: &Server) -> bool {
    server.process.err().iter().any(|(_, line)| line.contains("\"serving\""))
}

fn text(process: &Process) -> String {
    process.err().iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
}

/// Every time that these logs say that, with the fields.
fn told(logs: &[String], message: &str) -> Vec<Value> {
    let lines = logs.iter().flat_map(|log| log.lines()).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|mut line| line["fields"].take()).filter(|fields| fields["message"] == message).collect()
}

/// Who led, in which term, as these logs have it.
fn epochs(logs: &[String]) -> BTreeSet<(u64, u64)> {
    let told = told(logs, "leader");
    told.iter().filter_map(|fields| Some((fields["term"].as_u64()?, fields["leader"].as_u64()?))).collect()
}

/// Whom these logs call down.
fn called_down(logs: &[String]) -> Vec<u64> {
    told(logs, "server is down").iter().filter_map(|fields| fields["server"].as_u64()).collect()
}

/// Prints the longest silences of those who listened, and holds them to their bound where nothing else runs.
#[track_caller]
fn check_silences(when: &str, mut silences: Vec<Duration>, bound: Duration) {
    silences.sort_unstable();
    let (median, max) = (silences[silences.len() / 2], silences[silences.len() - 1]);
    println!("{when}: longest silence of a listener, median {median:?}, max {max:?}");
    assert!(!is_strict() || max < bound, "{when}: a silence of {max:?}");
}
