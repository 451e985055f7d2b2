//! The thread that reads: it answers questions off the protocol's thread, on a connection of its own, and looks for
//! what has rotted while nobody asks.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use hobnob_proto::store::{Answer, Found, Read};
use rusqlite::Connection;
use tokio::sync::mpsc::UnboundedSender;

use super::{Notice, Queue, find, scrub::Scrub};

/// How long a question may wait: whoever asked has given up then.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What the reader works on.
#[derive(Debug)]
pub(crate) struct Reader {
    connection: Connection,
    notices: UnboundedSender<Notice>,
    queue: Arc<Queue>,
    scrub: Scrub,
}

impl Reader {
    /// A reader that has been asked nothing yet.
    pub(crate) fn new(connection: Connection, notices: UnboundedSender<Notice>, queue: Arc<Queue>) -> Self {
        let scrub = Scrub::new(queue.scrubbed.load(Ordering::Relaxed));
        Self { connection, notices, queue, scrub }
    }

    /// Answers until nobody asks any more. Steps of the scrub are taken though others wait, or a busy server would never
    /// find what has rotted.
    pub(crate) fn run(mut self, reads: &Receiver<(Instant, Read)>) {
        loop {
            let scrubbed = self.scrub.step(&self.connection);
            self.queue.scrubbed.store(self.scrub.row(), Ordering::Relaxed);
            let answered = match reads.recv_timeout(self.scrub.wait()) {
                Ok((asked, read)) => {
                    self.queue.reads.fetch_sub(1, Ordering::Relaxed);
                    let is_late = asked.elapsed() > READ_WITHIN;
                    Some(if is_late { nothing(&read) } else { answer(&self.connection, &read) })
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let is_over = self.queue.is_over.load(Ordering::Relaxed);
            if is_over || !scrubbed.into_iter().chain(answered).all(|said| self.say(said)) {
                return;
            }
        }
    }

    /// Takes the scrub's next step now.
    #[cfg(test)]
    pub(crate) fn hurry(&mut self) {
        self.scrub.hurry();
    }

    /// Whether somebody listens.
    fn say(&self, answer: Answer) -> bool {
        self.notices.send(Notice::Answer(answer)).is_ok()
    }
}

/// What is said where the disk is not read.
pub(crate) fn nothing(read: &Read) -> Answer {
    Answer { id: read.id, room: read.room.clone(), found: Found::Nothing, rotten: Vec::new() }
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
