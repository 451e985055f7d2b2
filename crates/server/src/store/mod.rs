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
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use hobnob_proto::{
    rng::Rng,
    store::{Answer, Read, Restored, Write},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use self::{
    place::{Directory, Keep},
    schema::OpenError,
};

mod batch;
mod find;
pub mod place;
mod reader;
mod restore;
mod rows;
mod schema;
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
        /// What the disk says.
        why: String,
    },
    /// The disk would take something again: a store that is opened anew can be written to.
    WritableAgain,
}

/// An open store. Dropped, it writes what it was given, and gives its directory free.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    writes: Option<Sender<Write>>,
    reads: Option<Sender<Read>>,
    threads: Vec<JoinHandle<()>>,
    waiting: Arc<AtomicUsize>,
    /// What the threads say.
    pub(crate) notices: UnboundedReceiver<Notice>,
}

impl Store {
    /// Opens the store of a directory, whose boot is raised then: durably, before this returns.
    pub(crate) fn open(directory: Directory, rng: &mut Rng) -> Result<(Self, Restored), OpenError> {
        let path = directory.file();
        let failed = |error: rusqlite::Error| OpenError::from_sqlite(&path, &error);
        let mut connection = schema::open(&path)?;
        let restored = restore::restore(&mut connection, &path, rng)?;
        let reader = schema::open_to_read(&path)?;
        let (notice, notices) = unbounded_channel();
        let (writes, to_write) = mpsc::channel();
        let (reads, to_read) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let writer = writer::Writer::new(connection, notice.clone(), Arc::clone(&waiting)).map_err(failed)?;
        let reader = reader::Reader::new(reader, notice);
        let threads = vec![
            start("store-write", &path, move || writer.run(&to_write))?,
            start("store-read", &path, move || reader.run(&to_read))?,
        ];
        let (writes, reads) = (Some(writes), Some(reads));
        Ok((Self { directory, writes, reads, threads, waiting, notices }, restored))
    }

    /// To be made durable, after all that was given before. Whether there is room for more; where there is not, the disk
    /// is hopelessly behind.
    pub(crate) fn persist(&self, write: Write) -> bool {
        let waiting = self.waiting.fetch_add(writer::weight(&write), Ordering::Relaxed);
        if let Some(writes) = &self.writes {
            let _writer_died = writes.send(write);
        }
        waiting < WAITING_BYTES_MAX
    }

    /// To be answered.
    pub(crate) fn read(&self, read: Read) {
        if let Some(reads) = &self.reads {
            let _reader_died = reads.send(read);
        }
    }

    /// Ends the threads and gives the directory, still locked: to be opened once more.
    pub(crate) fn close(mut self) -> Directory {
        self.end();
        self.directory.clone()
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
fn start(name: &str, path: &std::path::Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let failed = |error: std::io::Error| OpenError::Failed { path: PathBuf::from(path), why: error.to_string() };
    thread::Builder::new().name(name.into()).spawn(run).map_err(failed)
}
