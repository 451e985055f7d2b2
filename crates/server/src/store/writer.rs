//! The thread that writes: what waits goes into one transaction, and one sync makes it durable.
//!
//! A write that comes alone is committed at once; those that come while the disk is busy share the next transaction. So
//! one sender waits for one sync, and a thousand wait for little more.

use std::{
    fs,
    path::PathBuf,
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

use crate::clock::Clock;

use super::{
    Cause, Notice, Queue,
    batch::{Error, Names, get, put},
    find::is_damage,
    restore::wall_secs,
    retention::{self, Retention, SLOT_SECS},
    schema::BUSY_WITHIN,
};

/// Writes that one transaction takes at most.
const BATCH_MAX: usize = 4_096;
/// Bytes of lines that one transaction takes at most.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often the writer looks whether there is something to tidy up.
const TIDY_EVERY: Duration = Duration::from_secs(10);
/// How long nobody may have written before the next step of a sweep.
const SWEEP_AFTER: Duration = Duration::from_millis(2);
/// Transactions after which a step of a sweep is taken though others wait.
const SWEEP_EVERY: u32 = 16;
/// How often a writer that has failed tries again.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// The same after damage, which does not heal: opened anew it is met again, and rooms would go to and fro all the time.
const PROBE_DAMAGED_EVERY: Duration = Duration::from_mins(10);
/// Bytes that a disk has to take before it counts as writable again.
const PROBE_BYTES: i32 = 1 << 20;
/// Bytes that the write-ahead log may have before it is emptied on purpose.
const WAL_BYTES_MAX: u64 = 16 << 20;
/// How long that may wait for a read that is under way.
const EMPTY_WITHIN: Duration = Duration::from_millis(500);
/// How often it is tried.
const EMPTY_EVERY: Duration = Duration::from_secs(1);
/// Running time is noted at least so often, in seconds.
const NOTE_EVERY: u64 = 600;

/// What the writer works on.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: Connection,
    names: Names,
    notices: UnboundedSender<Notice>,
    queue: Arc<Queue>,
    /// Bytes of lines that were taken from the queue, and are not written.
    in_hand: usize,
    /// Taken from the queue too early.
    kept_back: Option<Write>,
    done: u64,
    /// Seconds that this store had run when it was opened.
    ran_before: u64,
    clock: Clock,
    noted: u64,
    retention: Retention,
    tidied: Instant,
    /// Whether there are rows to be swept, or may be.
    sweeps: bool,
    /// Transactions since the last step of a sweep.
    since_sweep: u32,
    /// Whether it was said that a page is damaged.
    has_told_of_damage: bool,
    /// The write-ahead log.
    wal: PathBuf,
    /// When that was last emptied on purpose.
    emptied: Instant,
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
        retention: Retention,
    ) -> rusqlite::Result<Self> {
        queue.scrubbed.store(get::<i64>(&connection, "scrubbed")?.unwrap_or(0).max(0), Ordering::Relaxed);
        let mut wal = PathBuf::from(connection.path().unwrap_or_default()).into_os_string();
        wal.push("-wal");
        let ran_before = get::<i64>(&connection, "ran")?.unwrap_or(0).max(0).cast_unsigned();
        Ok(Self {
            connection,
            names: Names::default(),
            notices,
            queue,
            in_hand: 0,
            kept_back: None,
            done: 0,
            ran_before,
            clock: Clock::start(),
            noted: ran_before,
            retention,
            tidied: Instant::now(),
            sweeps: true,
            since_sweep: 0,
            has_told_of_damage: false,
            wal: wal.into(),
            emptied: Instant::now(),
        })
    }

    /// Writes until nobody can send any more; all that was sent is written by then.
    pub(crate) fn run(mut self, writes: &Receiver<Write>) {
        loop {
            let wait = if self.sweeps { SWEEP_AFTER } else { TIDY_EVERY };
            let next = self.kept_back.take().map_or_else(|| writes.recv_timeout(wait), Ok);
            let done = match next {
                Ok(write @ (Write::Repair(_) | Write::Lost { .. })) => {
                    self.write_alone(&write).and_then(|()| self.tidy_up(false))
                }
                Ok(first) => self.write(first, writes).and_then(|()| self.tidy_up(false)),
                Err(RecvTimeoutError::Timeout) => self.tidy_up(true),
                Err(RecvTimeoutError::Disconnected) => return self.note(),
            };
            if let Err(error) = done {
                let cause = error.cause();
                let _nobody_listens = self.notices.send(Notice::Unwritable { cause, why: error.to_string() });
                return self.wait_for_the_disk(cause, writes);
            }
        }
    }

    /// One transaction with this write and all that wait.
    fn write(&mut self, first: Write, writes: &Receiver<Write>) -> Result<(), Error> {
        self.in_hand = weight(&first);
        if self.queue.is_full.load(Ordering::Relaxed) {
            return Err(Error::Behind);
        }
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let (mut count, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(write) = next.take() {
            bytes += weight(&write);
            self.in_hand = bytes;
            count += 1;
            self.sweeps |= matches!(write, Write::Floors { .. });
            self.names.apply(&self.connection, &write)?;
            if count < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                next = writes.try_recv().ok();
            }
            // It comes first in the next round: the order stays.
            self.kept_back = next.take_if(|write| matches!(write, Write::Repair(_) | Write::Lost { .. }));
        }
        let ran = self.ran();
        self.names.finish(&self.connection, ran / SLOT_SECS)?;
        if ran > self.noted {
            self.note_use(ran)?;
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.noted = ran;
        self.report(count);
        self.bound_wal();
        Ok(())
    }

    /// What takes the place of one rotten entry, alone: see [`Names::repair`].
    fn write_alone(&mut self, write: &Write) -> Result<(), Error> {
        self.in_hand = weight(write);
        self.names.apply(&self.connection, write)?;
        self.report(1);
        Ok(())
    }

    /// So many more writes are durable.
    fn report(&mut self, count: usize) {
        self.done += count as u64;
        self.put_down();
        let _nobody_listens = self.notices.send(Notice::Durable { through: self.done });
    }

    /// What was taken from the queue waits no more.
    fn put_down(&mut self) {
        self.queue.waiting.fetch_sub(std::mem::take(&mut self.in_hand), Ordering::Relaxed);
    }

    /// Seconds that this store has run, over all its starts.
    fn ran(&self) -> u64 {
        self.ran_before + self.clock.now().as_millis() / 1_000
    }

    /// What can be done while nobody waits; in small steps, since somebody may.
    fn tidy_up(&mut self, is_idle: bool) -> Result<(), Error> {
        self.since_sweep += 1;
        if self.sweeps && (is_idle || self.since_sweep >= SWEEP_EVERY) {
            self.since_sweep = 0;
            self.sweeps = self.unless_damaged(retention::sweep(&self.connection))?.unwrap_or(false);
        }
        if self.tidied.elapsed() < TIDY_EVERY {
            return Ok(());
        }
        self.tidied = Instant::now();
        if self.ran() >= self.noted + NOTE_EVERY {
            self.note();
        }
        let merged = retention::merge_ages(&self.connection, self.ran());
        self.unless_damaged(merged)?;
        let wishes = retention::wishes(&self.connection, self.retention, self.ran());
        for (room, before) in self.unless_damaged(wishes)?.unwrap_or_default() {
            let _nobody_listens = self.notices.send(Notice::Retain { room, before });
        }
        Ok(())
    }

    /// Tidying up that meets damage is left for another time: `None`. What can be written is written.
    fn unless_damaged<T>(&mut self, done: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
        match done {
            Err(error) if is_damage(&error) => {
                if !self.connection.is_autocommit() {
                    let _rolled_back_already = self.connection.execute_batch("ROLLBACK");
                }
                if !std::mem::replace(&mut self.has_told_of_damage, true) {
                    tracing::warn!(%error, "a page of the log is damaged: what is too old on it stays");
                }
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Notes the running time. Where that fails, the next write will say so.
    fn note(&mut self) {
        let ran = self.ran();
        let noted = self.connection.unchecked_transaction().and_then(|transaction| {
            self.note_use(ran)?;
            transaction.commit()
        });
        if noted.is_ok() {
            self.noted = ran;
        }
    }

    /// Writes how long it has run, until when, and how far the scrub is.
    fn note_use(&self, ran: u64) -> rusqlite::Result<()> {
        put(&self.connection, "ran", ran.cast_signed())?;
        put(&self.connection, "used", wall_secs().cast_signed())?;
        put(&self.connection, "scrubbed", self.queue.scrubbed.load(Ordering::Relaxed))
    }

    /// Empties the write-ahead log where reads that overlap have kept it from beginning anew. Waits for the one that is
    /// under way, though not for long; without success, or with an error that the next write will meet too, it is tried
    /// again later.
    fn bound_wal(&mut self) {
        let is_small = fs::metadata(&self.wal).is_ok_and(|meta| meta.len() <= WAL_BYTES_MAX);
        if is_small || self.emptied.elapsed() < EMPTY_EVERY {
            return;
        }
        let _later = self
            .connection
            .busy_timeout(EMPTY_WITHIN)
            .and_then(|()| self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        let _cannot_fail = self.connection.busy_timeout(BUSY_WITHIN);
        self.emptied = Instant::now();
    }

    /// Nothing is written any more in this run; says when the disk takes something again.
    fn wait_for_the_disk(mut self, cause: Cause, writes: &Receiver<Write>) {
        self.put_down();
        if let Some(write) = self.kept_back.take() {
            self.queue.waiting.fetch_sub(weight(&write), Ordering::Relaxed);
        }
        self.roll_back();
        let every = if cause == Cause::Damaged { PROBE_DAMAGED_EVERY } else { PROBE_EVERY };
        let mut next = Instant::now() + every;
        loop {
            match writes.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(write) => drop(self.queue.waiting.fetch_sub(weight(&write), Ordering::Relaxed)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + every;
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
