//! People who talk while things go wrong, and the account of what they said.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Place, Process, Server, patience, wait_for};

/// Somebody who posts numbered lines in a room.
#[derive(Debug)]
pub(crate) struct Talker {
    name: String,
    process: Process,
    said: Vec<(Instant, String)>,
}

/// One step of one line: when it came, which line it is (the first is 0), and whether the line is stored or only accepted.
type Step = (Instant, usize, bool);

impl Talker {
    /// Somebody arrives.
    pub(crate) fn arrive(place: &Place, name: &str, room: &str) -> Self {
        Self::arrive_with(place, name, room, &[])
    }

    /// Somebody arrives, with other options too.
    pub(crate) fn arrive_with(place: &Place, name: &str, room: &str, args: &[&str]) -> Self {
        let process = place.start(&[&["send", "--json", "--name", name, "--room", room], args].concat());
        Self { name: name.to_owned(), process, said: Vec::new() }
    }

    /// The next line.
    pub(crate) fn talk(&mut self) {
        let body = format!("{} {}", self.name, self.said.len() + 1);
        self.process.type_text(&format!("{body}\n"));
        self.said.push((Instant::now(), body));
    }

    /// What was said first.
    pub(crate) fn first(&self) -> Option<&str> {
        self.said.first().map(|(_, body)| body.as_str())
    }

    /// What was said after `since`.
    pub(crate) fn said_after(&self, since: Instant) -> impl Iterator<Item = &str> {
        self.said.iter().filter(move |(at, _)| *at > since).map(|(_, body)| body.as_str())
    }

    /// How many lines said after `since` are accepted by now, stored or not; and how many of them are stored.
    pub(crate) fn settled_after(&self, since: Instant) -> (usize, usize) {
        let count = |stored: Option<bool>| {
            let is_new = |line: usize| self.said.get(line).is_some_and(|(at, _)| *at > since);
            let steps = self.steps().into_iter();
            let lines = steps.filter(|(_, line, step)| is_new(*line) && stored.is_none_or(|stored| stored == *step));
            lines.map(|(_, line, _)| line).collect::<BTreeSet<_>>().len()
        };
        (count(None), count(Some(true)))
    }

    /// The longest that a line which was said after `since` waited until it was accepted; one that still waits counts as
    /// accepted now.
    pub(crate) fn longest_wait(&self, since: Instant) -> Duration {
        let mut accepted = BTreeMap::<usize, Instant>::new();
        for (at, line, _) in self.steps() {
            accepted.entry(line).or_insert(at);
        }
        let now = Instant::now();
        let wait = |line: usize, said: Instant| *accepted.get(&line).unwrap_or(&now) - said;
        let lines = self.said.iter().enumerate().filter(|(_, (at, _))| *at > since);
        lines.map(|(line, (at, _))| wait(line, *at)).max().unwrap_or_default()
    }

    /// The last line is said: waits until all is stored. What was.
    #[track_caller]
    pub(crate) fn fall_silent(mut self) -> BTreeSet<String> {
        self.process.end_input();
        let ended = self.process.wait(patience(15_000));
        assert_eq!(ended.code, Some(0), "{} got everything stored: {}", self.name, ended.err);
        let acks = steps(ended.json_lines().into_iter().map(|ack| (Instant::now(), ack)));
        let lines = acks.into_iter().filter(|(_, _, stored)| *stored).filter_map(|(_, line, _)| self.said.get(line));
        let stored: BTreeSet<String> = lines.map(|(_, body)| body.clone()).collect();
        assert_eq!(stored.len(), self.said.len(), "every line of {} is stored", self.name);
        stored
    }

    /// All steps so far.
    fn steps(&self) -> Vec<Step> {
        steps(self.process.out().into_iter().filter_map(|(at, line)| Some((at, serde_json::from_str(&line).ok()?))))
    }
}

/// These acknowledgements as steps. Lines are numbered in the order in which they were said.
fn steps(acks: impl Iterator<Item = (Instant, Value)>) -> Vec<Step> {
    let numbered: Vec<(Instant, u64, bool)> =
        acks.filter_map(|(at, ack)| Some((at, ack["client_seq"].as_u64()?, ack["ack"] == "stored"))).collect();
    let first = numbered.iter().map(|(_, seq, _)| *seq).min().unwrap_or_default();
    let line = |seq: u64| usize::try_from(seq - first).expect("a few lines are said");
    numbered.into_iter().map(|(at, seq, stored)| (at, line(seq), stored)).collect()
}

/// Everybody talks in turn, with `gap` between two lines of each, until `enough`.
#[track_caller]
pub(crate) fn talk_until(
    talkers: &mut [Talker],
    gap: Duration,
    limit: Duration,
    mut enough: impl FnMut(&[Talker]) -> bool,
) {
    let step = gap / u32::try_from(talkers.len()).expect("a few people talk");
    let (mut next, mut turn) = (Instant::now(), 0);
    wait_for("enough was said", limit, || {
        while Instant::now() >= next {
            talkers[turn].talk();
            turn = (turn + 1) % talkers.len();
            next += step;
        }
        enough(talkers).then_some(())
    });
}

/// Whether all who listen have seen a line that anybody said after `since`.
pub(crate) fn all_chat(talkers: &[Talker], listeners: &[Process], since: Instant) -> bool {
    let new: BTreeSet<&str> = talkers.iter().flat_map(|talker| talker.said_after(since)).collect();
    listeners.iter().all(|listener| listener.out().iter().any(|(at, line)| *at > since && new.contains(body(line))))
}

/// Checks that nobody who listens was ever told that their server went away: they were handed over.
#[track_caller]
pub(crate) fn check_never_lost(listeners: &[Process]) {
    for listener in listeners {
        let lost = listener.err().into_iter().find(|(_, line)| line.contains("went away; looking for another"));
        assert_eq!(lost, None, "nobody looks for another server when theirs leaves as planned");
    }
}

/// Whether somebody has seen that body: at the end of a line, since `ada 1` is also how `ada 12` begins.
pub(crate) fn has(listener: &Process, body: &str) -> bool {
    listener.out().iter().any(|(_, line)| line.ends_with(body))
}

/// What a [`Talker`] said, in a line that shows it: the last two words.
fn body(line: &str) -> &str {
    let mut spaces = line.rmatch_indices(' ').map(|(at, _)| at);
    spaces.nth(1).map_or(line, |at| &line[at + 1..])
}

/// The longest span after `since` and until now in which a process printed no line on standard output.
pub(crate) fn longest_silence(process: &Process, since: Instant) -> Duration {
    let lines = process.out().into_iter().map(|(at, _)| at).filter(|at| *at > since);
    let mut last = since;
    let mut longest = Duration::ZERO;
    for at in lines.chain([Instant::now()]) {
        longest = longest.max(at - last);
        last = at;
    }
    longest
}

/// Checks that a server's log of a room shows each of `stored` exactly once, and nothing twice. All that it shows, in
/// order.
#[track_caller]
pub(crate) fn check_log(place: &Place, server: &Server, room: &str, stored: &BTreeSet<String>) -> Vec<String> {
    let log = wait_for("the log shows everything that is stored", patience(10_000), || {
        let entries = place.log_of(server, room);
        let log: Vec<String> =
            entries.iter().map(|entry| entry["body"].as_str().unwrap_or_default().to_owned()).collect();
        let shown: BTreeSet<&String> = log.iter().collect();
        stored.iter().all(|body| shown.contains(body)).then_some(log)
    });
    check_once("the log", &log);
    log
}

/// Checks that everybody who listens has seen everything that is stored, once.
#[track_caller]
pub(crate) fn check_listeners(listeners: &[Process], stored: &BTreeSet<String>) {
    for listener in listeners {
        let seen = wait_for("everything is shown", patience(10_000), || {
            let seen: Vec<String> = listener.out().iter().map(|(_, line)| body(line).to_owned()).collect();
            let shown: BTreeSet<&String> = seen.iter().collect();
            stored.iter().all(|body| shown.contains(body)).then_some(seen)
        });
        check_once("a listener", &seen);
    }
}

/// Checks that nothing is there twice.
#[track_caller]
fn check_once(who: &str, bodies: &[String]) {
    let mut seen = BTreeSet::new();
    let doubled: Vec<_> = bodies.iter().filter(|body| !seen.insert(*body)).collect();
    assert!(doubled.is_empty(), "{who} shows more than once: {doubled:?}");
}
