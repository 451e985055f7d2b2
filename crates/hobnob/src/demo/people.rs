//! The people of the demo: what they say, and the two processes that each of them is.

use std::time::Instant;

use hobnob_client::Fail;
use serde_json::Value;

use crate::demo::{
    children::{Process, Starter},
    ledger::Room,
};

/// Who talks where.
pub(super) const PEOPLE: [(&str, &str); 4] =
    [("ada", "kitchen"), ("ben", "kitchen"), ("cleo", "garden"), ("dan", "garden")];

/// What they say, again and again.
const LINES: [&str; 6] = [
    "The kettle is on.",
    "Who has the big spoon?",
    "It was in the shed yesterday.",
    "There is cake, too.",
    "I am on my way.",
    "Mind the step.",
];

/// Somebody who talks and listens.
#[derive(Debug)]
pub(super) struct Person {
    /// Their name.
    pub(super) name: &'static str,
    /// Where they are.
    pub(super) room: &'static str,
    mouth: Process,
    // Only to be kept: dropped, it is killed.
    _ear: Process,
    /// What they have said, in order.
    said: Vec<String>,
    /// What the first of it is numbered as.
    first: Option<u64>,
}

impl Person {
    /// Somebody arrives.
    pub(super) fn arrive(starter: &Starter, name: &'static str, room: &'static str) -> Result<Self, Fail> {
        let ear = ["tail", "--json", "--follow", "--since", "all", "--room", room];
        let mouth = ["send", "--json", "--name", name, "--room", room];
        Ok(Self {
            name,
            room,
            _ear: starter.start(&format!("{name} listens"), &ear)?,
            mouth: starter.start(&format!("{name} talks"), &mouth)?,
            said: Vec::new(),
            first: None,
        })
    }

    /// They say their next line.
    pub(super) fn talk(&mut self, room: &mut Room) -> Result<(), Fail> {
        let line = LINES[(self.said.len() + self.name.len()) % LINES.len()];
        let body = format!("{line} ({} {})", self.name, self.said.len() + 1);
        room.write(&body, Instant::now());
        self.mouth.type_line(&body)?;
        self.said.push(body);
        Ok(())
    }

    /// They have said everything.
    pub(super) fn fall_silent(&mut self) {
        self.mouth.end_input();
    }

    /// The exit code of what they talk with, once it has ended.
    pub(super) fn is_done(&mut self) -> Option<i32> {
        self.mouth.ended()
    }

    /// They read in an acknowledgement what became of a line: noted, if it is stored.
    pub(super) fn read_ack(&mut self, ack: &Value, room: &mut Room) {
        let Some(number) = ack["client_seq"].as_u64() else { return };
        // Lines are numbered in the order in which they were said, and the first is acknowledged first.
        let first = *self.first.get_or_insert(number);
        let said = number.checked_sub(first).and_then(|index| self.said.get(usize::try_from(index).ok()?));
        if let (Some(body), Some("stored")) = (said, ack["ack"].as_str()) {
            room.store(body);
        }
    }
}
