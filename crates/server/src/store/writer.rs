//! The thread that writes: what waits goes into one transaction, and one sync makes it durable.
//!
//! A write that comes alone is committed at once; those that come while the disk is busy share the next transaction. So
//! one sender waits for one sync, and a thousand wait for little more.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use hobnob_proto::store::Write;
use rusqlite::Connection;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Notice, Queue,
    batch::{Error, Names, get, put},
};

/// Writes that one transaction takes at most.
const BATCH_MAX: usize = 4_096;
/// Bytes of lines that one transaction takes at most.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a writer that has nothing to do looks whether there is something to tidy up.
const IDLE: Duration = Duration::from_secs(10);
/// How often a writer that has failed tries again.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Bytes that a disk has to take before it counts as writable again.
const PROBE_BYTES: i32 = 256 * 1024;
/// Running time is noted at least so often, in seconds.
const NOTE_EVERY: u64 = 600;
/// Entries that became durable within one slot of running time have one age. Seconds.
pub(crate) const SLOT_SECS: u64 = 600;

/// What the writer works on.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: Connection,
    names: Names,
    notices: UnboundedSender<Notice>,
    queue: Arc<Queue>,
    done: u64,
    /// Seconds that this store had run when it was opened.
    ran_before: u64,
    started: Instant,
    noted: u64,
}

/// What a write counts for in a batch and in the queue.
pub(crate) fn weight(write: &Write) -> usize {
    match write {
        Write::Entry(kept) | Write::Repair(kept) | Write::Quarantine(kept) => 512 + kept.line.len(),
        _ => 512,
    }
}

impl Writer {
    /// A writer that has done nothing yet.
    pub(crate) fn new(
        connection: Connection,
        notices: UnboundedSender<Notice>,
        queue: Arc<Queue>,
    ) -> rusqlite::Result<Self> {
        let ran_before = get::<i64>(&connection, "ran")?.unwrap_or(0).max(0).cast_unsigned();
        let (names, started) = (Names::default(), Instant::now());
        Ok(Self { connection, names, notices, queue, done: 0, ran_before, started, noted: ran_before })
    }

    /// Writes until nobody can send any more; all that was sent is written by then.
    pub(crate) fn run(mut self, writes: &Receiver<Write>) {
        loop {
            match writes.recv_timeout(IDLE) {
                Ok(first) => {
                    if let Err(error) = self.write(first, writes) {
                        let _nobody_listens = self.notices.send(Notice::Unwritable { why: error.to_string() });
                        return self.wait_for_the_disk(writes);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.tidy_up(),
                Err(RecvTimeoutError::Disconnected) => return self.note(),
            }
        }
    }

    /// One transaction with this write and all that wait.
    fn write(&mut self, first: Write, writes: &Receiver<Write>) -> Result<(), Error> {
        if self.queue.is_full.load(Ordering::Relaxed) {
            return Err(Error::Behind);
        }
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let (mut count, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(write) = next.take() {
            bytes += weight(&write);
            count += 1;
            self.names.apply(&self.connection, &write)?;
            if count < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                next = writes.try_recv().ok();
            }
        }
        let ran = self.ran();
        self.names.finish(&self.connection, ran / SLOT_SECS)?;
        if ran > self.noted {
            put(&self.connection, "ran", ran.cast_signed())?;
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.noted = ran;
        self.done += count as u64;
        self.queue.waiting.fetch_sub(bytes, Ordering::Relaxed);
        let _nobody_listens = self.notices.send(Notice::Durable { through: self.done });
        Ok(())
    }

    /// Seconds that this store has run, over all its starts.
    fn ran(&self) -> u64 {
        self.ran_before + self.started.elapsed().as_secs()
    }

    /// What can be done while nobody waits.
    fn tidy_up(&mut self) {
        if self.ran() >= self.noted + NOTE_EVERY {
            self.note();
        }
    }

    /// Notes the running time. Where that fails, the next write will say so.
    fn note(&mut self) {
        let ran = self.ran();
        if put(&self.connection, "ran", ran.cast_signed()).is_ok() {
            self.noted = ran;
        }
    }

    /// Nothing is written any more in this run; says when the disk takes something again.
    fn wait_for_the_disk(mut self, writes: &Receiver<Write>) {
        self.roll_back();
        let mut next = Instant::now() + PROBE_EVERY;
        loop {
            match writes.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(write) => drop(self.queue.waiting.fetch_sub(weight(&write), Ordering::Relaxed)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + PROBE_EVERY;
                    match self.probe() {
                        Ok(()) => drop(self.notices.send(Notice::WritableAgain)),
                        Err(_still) => self.roll_back(),
                    }
                }
            }
        }
    }

    /// Writes something, and takes it back.
    fn probe(&self) -> rusqlite::Result<()> {
        put(&self.connection, "probe", rusqlite::types::Null)?;
        self.connection.execute("UPDATE meta SET value = zeroblob(?1) WHERE key = 'probe'", [PROBE_BYTES])?;
        self.connection.execute("DELETE FROM meta WHERE key = 'probe'", []).map(drop)
    }

    /// Back to what was durable.
    fn roll_back(&mut self) {
        self.names.forget();
        if !self.connection.is_autocommit() {
            let _rolled_back_already = self.connection.execute_batch("ROLLBACK");
        }
    }
}
