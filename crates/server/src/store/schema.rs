//! The database file: what is in it, how it is opened, and how an older one is brought up to date.
//!
//! ```text
//! meta     (key, value)                                     id, boot, cluster, term, running time, last use, realm, how far
//!                                                           the scrub and the merging of ages are
//! rooms    (id, name, record)                               record: the newest fence and successors, as JSON
//! origins  (id, server, boot)
//! parts    (id, room, origin, top, floor, swept, last, millis, counter)   one origin's part of one room's log;
//!                                                           last: the newest entry there was, and its time
//! authors  (id, room, person, device, name)
//! entries  (id = part << 36 | seq, millis, counter, author, client_seq, kind, hash, body)
//! ages     (slot, part, top)                                what a part held at the end of a slot of running time
//! members  (id, record)          quarantine (room, server, boot, seq, hash, line)
//! lost     (id as in entries, millis, counter)              what no server has any more: found where no row is sound
//! ```
//!
//! Entries of one part lie together and in order, so a range is one walk through the file. Names, keys and origins stand
//! once, and the line that followers get is made again on reading: a message of 120 bytes takes less than 200 on disk.
//! What a server has to know at its start is in `parts`: the rows of `entries` are not looked at.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Says that a SQLite file is ours: `hobn`.
pub(crate) const APPLICATION_ID: i32 = 0x686f_626e;
/// The version of the schema that this program writes.
pub(crate) const VERSION: i32 = 2;
/// Bits of an entry's row id that hold its number; the others hold its part.
pub(crate) const SEQ_BITS: u32 = 36;
/// Entries of one part have numbers below this.
pub(crate) const SEQ_BOUND: u64 = 1 << SEQ_BITS;
/// How long a connection waits for another.
pub(crate) const BUSY_WITHIN: Duration = Duration::from_secs(5);
/// The file's name in its directory.
pub(crate) const FILE: &str = "log.db";

/// Each step leads from the version of its place in the list to the next.
const MIGRATIONS: [&str; VERSION as usize] = [
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;
    CREATE TABLE rooms (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT) STRICT;
    CREATE TABLE origins (
        id INTEGER PRIMARY KEY, server INTEGER NOT NULL, boot INTEGER NOT NULL, UNIQUE (server, boot)
    ) STRICT;
    CREATE TABLE parts (
        id INTEGER PRIMARY KEY, room INTEGER NOT NULL, origin INTEGER NOT NULL,
        top INTEGER NOT NULL, floor INTEGER NOT NULL, swept INTEGER NOT NULL,
        last INTEGER NOT NULL, millis INTEGER NOT NULL, counter INTEGER NOT NULL, UNIQUE (room, origin)
    ) STRICT;
    CREATE INDEX unswept ON parts (id) WHERE swept < floor;
    CREATE TABLE authors (
        id INTEGER PRIMARY KEY, room INTEGER NOT NULL, person BLOB NOT NULL, device INTEGER NOT NULL,
        name TEXT NOT NULL, UNIQUE (room, person, device, name)
    ) STRICT;
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY, millis INTEGER NOT NULL, counter INTEGER NOT NULL, author INTEGER NOT NULL,
        client_seq INTEGER NOT NULL, kind TEXT, hash BLOB NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX posts ON entries (author, client_seq);
    CREATE TABLE ages (
        slot INTEGER NOT NULL, part INTEGER NOT NULL, top INTEGER NOT NULL, PRIMARY KEY (slot, part)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE members (id INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT;
    CREATE TABLE quarantine (
        room TEXT NOT NULL, server INTEGER NOT NULL, boot INTEGER NOT NULL, seq INTEGER NOT NULL,
        hash BLOB NOT NULL, line TEXT NOT NULL, PRIMARY KEY (room, server, boot, seq, hash)
    ) WITHOUT ROWID, STRICT;
",
    "
    CREATE TABLE lost (id INTEGER PRIMARY KEY, millis INTEGER NOT NULL, counter INTEGER NOT NULL) STRICT;
",
];

/// Why a store cannot be used. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{} is in use by another server: stop that one, or choose another directory with --data-dir", .0.display())]
    Locked(PathBuf),
    /// `hobnob check` reads the directory.
    #[error("{} is being looked at by `hobnob check`: start again when that has ended", .0.display())]
    Checked(PathBuf),
    /// It belongs to a cluster that others may read, or that we may not.
    #[error(
        "{} keeps the messages of {kept}, and this server is to be one of {asked}: start it with the --cluster and the \
         secret that those messages belong to, or choose another directory with --data-dir", .path.display()
    )]
    Other {
        /// Which directory.
        path: PathBuf,
        /// Whose messages it keeps.
        kept: String,
        /// Who wants it.
        asked: String,
    },
    /// The directory cannot be written to.
    #[error(
        "messages cannot be kept in {} ({source}): choose a directory that you can write to with --data-dir, or keep \
         nothing with --in-memory", .path.display()
    )]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is nothing there.
    #[error("there is no log of hobnob in {}: name a directory with a log.db in it", .0.display())]
    Missing(PathBuf),
    /// There is no home directory to put it in.
    #[error(
        "there is no place for messages, since HOME is not set: set HOME or XDG_STATE_HOME, choose a directory with \
         --data-dir, or keep nothing with --in-memory"
    )]
    NoHome,
    /// It is somebody else's file.
    #[error(
        "{} is not a log of hobnob: move it aside and start again, and the other servers of the cluster bring \
         everything back, or choose another directory with --data-dir", .0.display()
    )]
    Foreign(PathBuf),
    /// It was written by a later version.
    #[error(
        "{} was written by a newer hobnob (format {found}, this one knows {VERSION}): start that one, or choose another \
         directory with --data-dir", .path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// It is damaged.
    #[error(
        "{} is damaged ({why}): move it and {}-wal aside and start again, and the other servers of the cluster bring \
         everything back; `hobnob check` says what is left of it", .path.display(), .path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// The disk, or SQLite, fails otherwise.
    #[error(
        "{} cannot be opened ({why}): make room on the disk or mend it, choose another directory with --data-dir, or \
         keep nothing with --in-memory", .path.display()
    )]
    Failed {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
}

impl OpenError {
    /// What SQLite's word means for this file.
    pub(crate) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign(path),
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt { path, why: error.to_string() },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::Unwritable { path, source: io::Error::other(error.to_string()) }
            }
            _ => Self::Failed { path, why: error.to_string() },
        }
    }
}

/// Opens the file for the one who writes; makes it, or brings it up to date, where need be.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    create(path).map_err(|source| OpenError::Unwritable { path: path.to_path_buf(), source })?;
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    recognise(&connection, path)?;
    // Before the first table, or it has no effect; what is trimmed gives its pages back.
    connection.pragma_update(None, "auto_vacuum", "incremental").map_err(failed)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::Failed { path: path.to_path_buf(), why: "it takes no write-ahead log".into() });
    }
    set_up(&connection, 8_192).map_err(failed)?;
    // A commit that SQLite has reported is on the platter, on macOS too.
    for (pragma, value) in [("synchronous", "full"), ("fullfsync", "on"), ("checkpoint_fullfsync", "on")] {
        connection.pragma_update(None, pragma, value).map_err(failed)?;
    }
    // 8 MiB: a checkpoint costs a few syncs, and a start after a crash reads no more than that.
    connection.pragma_update(None, "wal_autocheckpoint", 2_000).map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20).map_err(failed)?;
    migrate(&mut connection).map_err(failed)?;
    Ok(connection)
}

/// Opens the file for those who only read.
pub(crate) fn open_to_read(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    set_up(&connection, 2_048).map_err(failed)?;
    Ok(connection)
}

/// Bounds what a connection takes: memory by `cache_kib`, and waiting.
fn set_up(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WITHIN)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "memory")
}

/// Creates an empty file that the user alone may read, durably. One that is there is not even opened: closing it again
/// would drop the locks that other connections of this process have on it.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    options.create_new(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(file) => file.sync_all()?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes a directory's list of files durable.
pub(crate) fn sync_dir(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Refuses what is not ours, and what we do not understand. An empty file is to become ours.
pub(crate) fn recognise(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let version = pragma("user_version").map_err(failed)?;
    let application = pragma("application_id").map_err(failed)?;
    if application == 0 {
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
        return if tables == 0 && version == 0 { Ok(()) } else { Err(OpenError::Foreign(path.to_path_buf())) };
    }
    match version {
        _ if application != APPLICATION_ID => Err(OpenError::Foreign(path.to_path_buf())),
        0..=VERSION => Ok(()),
        found => Err(OpenError::Newer { path: path.to_path_buf(), found }),
    }
}

/// Takes the steps that the file has not taken yet, all or none.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let steps = MIGRATIONS.get(usize::try_from(version).unwrap_or(usize::MAX)..).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// The row id of an entry.
pub(crate) fn row_id(part: i64, seq: u64) -> i64 {
    part << SEQ_BITS | seq.min(SEQ_BOUND - 1).cast_signed()
}

/// The part of an entry, by its row id.
pub(crate) fn part_of(row: i64) -> i64 {
    row >> SEQ_BITS
}

/// The number of an entry, by its row id.
pub(crate) fn seq_of(row: i64) -> u64 {
    row.cast_unsigned() & (SEQ_BOUND - 1)
}
