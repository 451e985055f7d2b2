//! The store: what [`hobnob_proto::store`] asks for, in a SQLite file.
//!
//! ```text
//! driver -- Write --> writer thread -- one transaction for many, synced --> log.db
//! driver -- Read ---> reader thread <-------------------------------------- log.db
//! driver <- Notice -- both
//! ```
//!
//! Neither thread knows the node; the driver carries what they say. The file is a directory's: see [`place`].

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use hobnob_proto::{
    ids::RoomName,
    log::VersionVector,
    rng::Rng,
    store::{Answer, Read, Restored, Write},
};
use rusqlite::Connection;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use self::{
    place::{Directory, Keep, Realm},
    retention::Retention,
    schema::OpenError,
};

mod batch;
pub mod check;
mod find;
pub mod place;
mod reader;
mod restore;
mod retention;
mod rows;
mod schema;
mod scrub;
mod writer;

/// Bytes of entries that may wait to be written: a disk that is so far behind counts as one that cannot be written to.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// What the store's threads say.
#[derive(Debug)]
pub(crate) enum Notice {
    /// All writes up to this one are durable.
    Durable {
        /// Its number: the first is 1.
        through: u64,
    },
    /// To a read, or about what was found rotten.
    Answer(Answer),
    /// Nothing more will be written in this run.
    Unwritable {
        /// What kind of trouble it is.
        cause: Cause,
        /// What the disk says.
        why: String,
    },
    /// So much of a room is too old, or too much.
    Retain {
        /// Which room.
        room: RoomName,
        /// By origin, the last number to be given up.
        before: VersionVector,
    },
    /// The disk would take something again: a store that is opened anew can be written to.
    WritableAgain,
}

/// Why nothing more is written, by what has to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There is no room left.
    Full,
    /// It may not be written to.
    ReadOnly,
    /// It does not keep up.
    Slow,
    /// What is in the file is not what was written.
    Damaged,
    /// It fails otherwise.
    Failing,
    /// The disk is well: this program is wrong.
    Fault,
}

impl Cause {
    /// What people can do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Full => "make room on the disk: this server sees that by itself",
            Self::ReadOnly => "let this user write to the disk: this server sees that by itself",
            Self::Slow => "give it a faster disk, or less to do: it goes on by itself when the disk has caught up",
            Self::Damaged => {
                "the log is damaged: stop this server, move log.db and log.db-wal aside and start it again, and the \
                 other servers bring everything back; `hobnob check` says what is left of it"
            }
            Self::Failing => "look after the disk: this server sees by itself when it works again",
            Self::Fault => {
                "the disk is not at fault, hobnob is: please report what is said here. It starts anew by itself"
            }
        }
    }
}

/// How much waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Bytes of lines that wait, or are being written.
    waiting: AtomicUsize,
    /// Whether that was too much: nothing more is taken, or written, in this run.
    is_full: AtomicBool,
}

/// An open store. Dropped, it writes what it was given, and gives its directory free.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    retention: Retention,
    writes: Option<Sender<Write>>,
    reads: Option<Sender<Read>>,
    threads: Vec<JoinHandle<()>>,
    queue: Arc<Queue>,
    /// What the threads say.
    pub(crate) notices: UnboundedReceiver<Notice>,
}

impl Store {
    /// Opens the store of a directory, whose boot is raised then: durably, before this returns.
    pub(crate) fn open(
        directory: Directory,
        retention: Retention,
        rng: &mut Rng,
    ) -> Result<(Self, Restored), OpenError> {
        let connection = schema::open(&directory.file())?;
        Self::start(directory, retention, connection, rng)
    }

    /// The same, of a file that is open for writing.
    fn start(
        directory: Directory,
        retention: Retention,
        mut connection: Connection,
        rng: &mut Rng,
    ) -> Result<(Self, Restored), OpenError> {
        let path = directory.file();
        let failed = |error: rusqlite::Error| OpenError::from_sqlite(&path, &error);
        let restored = restore::restore(&mut connection, &directory, rng)?;
        let reader = schema::open_to_read(&path)?;
        let (notice, notices) = unbounded_channel();
        let (writes, to_write) = mpsc::channel();
        let (reads, to_read) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let writer = writer::Writer::new(connection, notice.clone(), Arc::clone(&queue), retention).map_err(failed)?;
        let reader = reader::Reader::new(reader, notice);
        let threads = vec![
            start("store-write", &path, move || writer.run(&to_write))?,
            start("store-read", &path, move || reader.run(&to_read))?,
        ];
        let (writes, reads) = (Some(writes), Some(reads));
        Ok((Self { directory, retention, writes, reads, threads, queue, notices }, restored))
    }

    /// To be made durable, after all that was given before. Where too much waits already, the disk is hopelessly behind:
    /// from then on nothing is taken, and [`Notice::Unwritable`] follows.
    pub(crate) fn persist(&self, write: Write) {
        let Some(writes) = &self.writes else { return };
        if self.queue.is_full.load(Ordering::Relaxed) {
            return;
        }
        let waiting = self.queue.waiting.fetch_add(writer::weight(&write), Ordering::Relaxed);
        self.queue.is_full.store(waiting > WAITING_BYTES_MAX, Ordering::Relaxed);
        let _writer_died = writes.send(write);
    }

    /// To be answered.
    pub(crate) fn read(&self, read: Read) {
        if let Some(reads) = &self.reads {
            let _reader_died = reads.send(read);
        }
    }

    /// The same store, opened anew while this one is still there to be read: for the time after trouble.
    pub(crate) fn reopen(&self, rng: &mut Rng) -> Result<(Self, Restored), OpenError> {
        Self::open(self.directory.clone(), self.retention, rng)
    }

    /// Ends the threads, once all that was given is done.
    fn end(&mut self) {
        (self.writes, self.reads) = (None, None);
        for thread in self.threads.drain(..) {
            let _it_panicked = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a thread.
fn start(name: &str, path: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let failed = |error: std::io::Error| OpenError::Failed { path: PathBuf::from(path), why: error.to_string() };
    thread::Builder::new().name(name.into()).spawn(run).map_err(failed)
}

#[cfg(test)]
mod tests;
