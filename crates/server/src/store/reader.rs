//! The thread that reads: it answers questions off the protocol's thread, on a connection of its own, and looks for
//! what has rotted while nobody asks.

use std::sync::mpsc::{Receiver, RecvTimeoutError};

use hobnob_proto::store::{Answer, Found, Read};
use rusqlite::Connection;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Notice, find,
    scrub::{STEP_EVERY, Scrub},
};

/// What the reader works on.
#[derive(Debug)]
pub(crate) struct Reader {
    connection: Connection,
    notices: UnboundedSender<Notice>,
    scrub: Scrub,
}

impl Reader {
    /// A reader that has been asked nothing yet.
    pub(crate) fn new(connection: Connection, notices: UnboundedSender<Notice>) -> Self {
        Self { connection, notices, scrub: Scrub::new() }
    }

    /// Answers until nobody asks any more.
    pub(crate) fn run(mut self, reads: &Receiver<Read>) {
        loop {
            let said = match reads.recv_timeout(STEP_EVERY) {
                Ok(read) => Some(answer(&self.connection, &read)),
                Err(RecvTimeoutError::Timeout) => self.scrub.step(&self.connection),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if said.is_some_and(|answer| self.notices.send(Notice::Answer(answer)).is_err()) {
                return;
            }
        }
    }
}

/// Answers one question, from one state of the file.
pub(crate) fn answer(connection: &Connection, read: &Read) -> Answer {
    let found = connection.unchecked_transaction().and_then(|transaction| find::answer(&transaction, read));
    let (found, rotten) = found.unwrap_or_else(|error| {
        tracing::warn!(%error, room = %read.room, "the log on disk cannot be read");
        (Found::Nothing, Vec::new())
    });
    Answer { id: read.id, room: read.room.clone(), found, rotten }
}
