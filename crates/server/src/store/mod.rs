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
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use hobnob_proto::{
    ids::RoomName,
    log::VersionVector,
    rng::Rng,
    store::{Answer, Read, Restored, Write},
};
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use self::{
    place::{Directory, Keep, Realm},
    retention::Retention,
    schema::OpenError,
};

mod batch;
pub mod check;
pub mod fill;
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

/// Questions that may wait. They are short-lived: whoever asked gives up after some seconds.
const WAITING_READS_MAX: usize = 1_024;

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
    /// The same, and nobody is left to look whether it gets better.
    Ended,
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
            Self::Ended => "the disk is not at fault, hobnob is: please report what is said here, and start it again",
            Self::Fault => {
                "the disk is not at fault, hobnob is: please report what is said here. It starts anew by itself"
            }
        }
    }
}

/// What the store shares with its threads.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Bytes of lines that wait, or are being written.
    waiting: AtomicUsize,
    /// Whether that was too much: nothing more is taken, or written, in this run.
    is_full: AtomicBool,
    /// Questions that wait to be answered.
    reads: AtomicUsize,
    /// Whether nobody waits for answers any more.
    is_over: AtomicBool,
    /// The row that the scrub has come to: the one who reads cannot write it down.
    scrubbed: AtomicI64,
}

/// An open store. Dropped, it writes what it was given, and gives its directory free.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    retention: Retention,
    writes: Option<Sender<Write>>,
    reads: Option<Sender<(Instant, Read)>>,
    writer: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
    /// Ends the answer that is being looked for.
    interrupt: Interrupt,
    queue: Arc<Queue>,
    /// What the store says itself.
    notice: UnboundedSender<Notice>,
    /// Whether it was said that the writer has ended.
    has_told_of_end: AtomicBool,
    /// What the threads say.
    pub(crate) notices: UnboundedReceiver<Notice>,
}

/// Ends what a connection is doing.
struct Interrupt(InterruptHandle);

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupt")
    }
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
        let interrupt = Interrupt(reader.get_interrupt_handle());
        let reader = reader::Reader::new(reader, notice.clone(), Arc::clone(&queue));
        let writer = Some(start("store-write", &path, move || writer.run(&to_write))?);
        let reader = Some(start("store-read", &path, move || reader.run(&to_read))?);
        let (writes, reads, has_told_of_end) = (Some(writes), Some(reads), AtomicBool::new(false));
        let store = Self {
            directory,
            retention,
            writes,
            reads,
            writer,
            reader,
            interrupt,
            queue,
            notice,
            has_told_of_end,
            notices,
        };
        Ok((store, restored))
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
        if writes.send(write).is_err() && !self.has_told_of_end.swap(true, Ordering::Relaxed) {
            let why = "the thread that writes has ended".to_owned();
            let _we_listen = self.notice.send(Notice::Unwritable { cause: Cause::Ended, why });
        }
    }

    /// To be answered; at once, and with nothing, where too many questions wait already.
    pub(crate) fn read(&self, read: Read) {
        let Some(reads) = &self.reads else { return };
        let unread = if self.queue.reads.fetch_add(1, Ordering::Relaxed) < WAITING_READS_MAX {
            reads.send((Instant::now(), read)).err().map(|unsent| unsent.0.1)
        } else {
            Some(read)
        };
        if let Some(read) = unread {
            self.queue.reads.fetch_sub(1, Ordering::Relaxed);
            let _we_listen = self.notice.send(Notice::Answer(reader::nothing(&read)));
        }
    }

    /// The same store, opened anew while this one is still there to be read: for the time after trouble.
    pub(crate) fn reopen(&self, rng: &mut Rng) -> Result<(Self, Restored), OpenError> {
        Self::open(self.directory.clone(), self.retention, rng)
    }

    /// Ends the threads: the one that reads at once, the one that writes when all that was given is durable. In this order,
    /// since only the connection that is closed last moves everything into the file.
    fn end(&mut self) {
        self.queue.is_over.store(true, Ordering::Relaxed);
        self.interrupt.0.interrupt();
        self.reads = None;
        let _it_panicked = self.reader.take().map(JoinHandle::join);
        self.writes = None;
        let _it_panicked = self.writer.take().map(JoinHandle::join);
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
