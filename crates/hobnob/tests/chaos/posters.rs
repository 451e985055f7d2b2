//! People who post numbered messages, and what they were told of each.

use std::{collections::BTreeSet, time::Instant};

use serde_json::Value;

use crate::common::{Place, Process};

/// Somebody who posts.
#[derive(Debug)]
pub(crate) struct Poster {
    pub(crate) name: &'static str,
    pub(crate) room: &'static str,
    process: Process,
    /// How many lines were said: each is `name n`.
    pub(crate) said: u64,
}

/// A word that came of a post.
#[derive(Debug)]
struct Ack {
    at: Instant,
    /// Its number among the person's posts to the room.
    client_seq: u64,
    stored: bool,
}

impl Poster {
    /// Somebody arrives.
    pub(crate) fn arrive(place: &Place, name: &'static str, room: &'static str) -> Self {
        let process = place.start(&["send", "--json", "--name", name, "--room", room]);
        Self { name, room, process, said: 0 }
    }

    /// Says the next line.
    pub(crate) fn say(&mut self) {
        self.said += 1;
        self.process.type_text(&format!("{} {}\n", self.name, self.said));
    }

    /// The numbers of the posts that are stored.
    pub(crate) fn stored(&self) -> BTreeSet<u64> {
        self.acks().filter(|ack| ack.stored).map(|ack| ack.client_seq).collect()
    }

    /// When there was any word of posts.
    pub(crate) fn heard(&self) -> Vec<Instant> {
        self.acks().map(|ack| ack.at).collect()
    }

    /// Why it posts no more, if it has ended.
    pub(crate) fn end(&mut self) -> Option<String> {
        self.process.has_ended().then(|| format!("{} has ended: {:?}", self.name, self.process.err().last()))
    }

    fn acks(&self) -> impl Iterator<Item = Ack> {
        self.process.out().into_iter().filter_map(|(at, line)| {
            let ack: Value = serde_json::from_str(&line).ok()?;
            Some(Ack { at, client_seq: ack["client_seq"].as_u64()?, stored: ack["ack"] == "stored" })
        })
    }
}
