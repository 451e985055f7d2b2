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

impl Talker {
    /// Somebody arrives.
    pub(crate) fn arrive(place: &Place, name: &str, room: &str) -> Self {
        let process = place.start(&["send", "--json", "--name", name, "--room", room]);
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

    /// The last line is said: waits until all is stored. What was.
    #[track_caller]
    pub(crate) fn fall_silent(mut self) -> BTreeSet<String> {
        self.process.end_input();
        let ended = self.process.wait(patience(15_000));
        assert_eq!(ended.code, Some(0), "{} got everything stored: {}", self.name, ended.err);
        let stored = stored_bodies(&ended.json_lines(), &self.said);
        assert_eq!(stored.len(), self.said.len(), "every line of {} is stored", self.name);
        stored
    }
}

/// The lines that these acknowledgements call stored. Lines are numbered in the order in which they were said.
fn stored_bodies(acks: &[Value], said: &[(Instant, String)]) -> BTreeSet<String> {
    let first = acks.iter().filter_map(|ack| ack["client_seq"].as_u64()).min().unwrap_or(1);
    acks.iter()
        .filter(|ack| ack["ack"] == "stored")
        .filter_map(|ack| said.get(usize::try_from(ack["client_seq"].as_u64()? - first).ok()?))
        .map(|(_, body)| body.clone())
        .collect()
}

/// Everybody talks, with `gap` between two lines of each, until `enough`.
#[track_caller]
pub(crate) fn talk_until(
    talkers: &mut [Talker],
    gap: Duration,
    limit: Duration,
    mut enough: impl FnMut(&[Talker]) -> bool,
) {
    let mut next = Instant::now();
    wait_for("enough was said", limit, || {
        while Instant::now() >= next {
            talkers.iter_mut().for_each(Talker::talk);
            next += gap;
        }
        enough(talkers).then_some(())
    });
}

/// Checks that a server's log of a room shows each of `stored` exactly once, and nothing twice.
#[track_caller]
pub(crate) fn check_log(place: &Place, server: &Server, room: &str, stored: &BTreeSet<String>) {
    let mut times = BTreeMap::<String, u32>::new();
    wait_for("the log shows everything that is stored", patience(10_000), || {
        times.clear();
        for entry in place.log_of(server, room) {
            *times.entry(entry["body"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        stored.iter().all(|body| times.contains_key(body)).then_some(())
    });
    let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "shown more than once: {doubled:?}");
}
