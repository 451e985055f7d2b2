//! Reads everything again, slowly, so that what rots is found while other servers still have it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use hobnob_proto::{
    ids::{Origin, RoomName},
    store::{Answer, Found},
};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{
    find::{self, Part, Room},
    schema::{part_of, row_id, seq_of},
};

/// How often a step is taken.
pub(crate) const STEP_EVERY: Duration = Duration::from_secs(1);
/// Entries that a step reads: a thousandth of a core, and ten million entries in half a day.
const STEP: u64 = 250;
/// How long after the start the first round begins.
const FIRST: Duration = Duration::from_mins(1);
/// How long after the end of a round the next one begins.
const PAUSE: Duration = Duration::from_hours(6);

/// A room, and what is rotten of it.
type Rotten = (RoomName, Vec<(Origin, u64)>);

/// How far the round is.
#[derive(Debug)]
pub(crate) struct Scrub {
    /// The part that is being read, by its number in the file, and how far.
    at: (i64, u64),
    next: Instant,
}

impl Scrub {
    /// One that goes on behind this row.
    pub(crate) fn new(row: i64) -> Self {
        Self { at: (part_of(row), seq_of(row)), next: Instant::now() + FIRST }
    }

    /// The row that it has come to.
    pub(crate) fn row(&self) -> i64 {
        row_id(self.at.0, self.at.1)
    }

    /// How long until the next step.
    pub(crate) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now()).min(STEP_EVERY)
    }

    /// Reads on, where it is time. What was found rotten.
    pub(crate) fn step(&mut self, connection: &Connection) -> Option<Answer> {
        if Instant::now() < self.next {
            return None;
        }
        self.next = Instant::now() + STEP_EVERY;
        let before = self.at;
        match self.read_on(connection) {
            Ok(Some((room, rotten))) if !rotten.is_empty() => {
                tracing::warn!(%room, entries = rotten.len(), "entries on disk have rotted: other servers are asked for them");
                Some(Answer { id: 0, room, found: Found::Nothing, rotten })
            }
            Ok(Some(_)) => None,
            Ok(None) => {
                (self.at, self.next) = ((0, 0), Instant::now() + PAUSE);
                None
            }
            // What lies behind it may be well.
            Err(error) if self.at != before => {
                tracing::warn!(%error, "a piece of the log on disk cannot be read");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the log on disk cannot be read");
                (self.at, self.next) = ((0, 0), Instant::now() + PAUSE);
                None
            }
        }
    }

    /// Reads some entries; `None` at the end of the round.
    fn read_on(&mut self, connection: &Connection) -> rusqlite::Result<Option<Rotten>> {
        let transaction = connection.unchecked_transaction()?;
        let next = transaction
            .prepare_cached(
                "SELECT p.id, o.server, o.boot, p.top, p.floor, r.name
                 FROM parts AS p JOIN origins AS o ON o.id = p.origin JOIN rooms AS r ON r.id = p.room
                 WHERE p.id >= ?1 ORDER BY p.id LIMIT 1",
            )?
            .query_row([self.at.0], with_room)
            .optional()?;
        let Some((part, name)) = next else { return Ok(None) };
        let done = if part.id == self.at.0 { self.at.1 } else { 0 };
        let (from, to) = (done.max(part.floor) + 1, part.top.min(done.max(part.floor) + STEP));
        self.at = if to >= part.top { (part.id + 1, 0) } else { (part.id, to) };
        let Ok(name) = name.parse::<RoomName>() else { return Ok(Some((RoomName::lobby(), Vec::new()))) };
        let Some(mut room) = Room::open(&transaction, &name)? else { return Ok(Some((name, Vec::new()))) };
        if from <= to {
            room.chunk(part, from, to, &mut VecDeque::new())?;
        }
        let rotten = std::mem::take(&mut room.rotten);
        Ok(Some((name, rotten)))
    }

    /// Takes the next step now.
    #[cfg(test)]
    pub(crate) fn hurry(&mut self) {
        self.next = Instant::now();
    }
}

/// Reads a part, and the name of its room.
pub(crate) fn with_room(row: &Row<'_>) -> rusqlite::Result<(Part, String)> {
    Ok((find::part(row)?, row.get(5)?))
}
