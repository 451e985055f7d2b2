//! Is a data directory sound? Looked at while no server runs there. Nothing in it is changed, so that what is left of a log
//! can still be rescued, and one that only may be read can be checked.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
};

use hobnob_proto::{
    ids::RoomName,
    wire::frame::{Member, RoomRecord},
};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::de::DeserializeOwned;

use super::{
    find::{Part, Room},
    place,
    schema::{self, OpenError, row_id},
    scrub::with_room,
};

/// Entries that are read at a time.
const STEP: u64 = 1_000;
/// Faults that are told in full.
const FAULTS_MAX: usize = 100;

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many entries were read.
    pub entries: u64,
    /// Of how many rooms.
    pub rooms: u64,
    /// What is wrong, a line each; the first hundred.
    pub faults: Vec<String>,
    /// How many more there are.
    pub more: u64,
    /// How many of them are lost: no server had them any more, and there are markers in their places.
    pub lost: u64,
    /// How many entries are kept aside, since their name was taken: people have to look at them.
    pub quarantined: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.quarantined == 0
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        } else {
            self.more += 1;
        }
    }
}

/// Checks everything in a directory; `progress` hears how many entries of how many were read.
pub fn check(directory: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Report, OpenError> {
    let file = directory.join(schema::FILE);
    if !file.is_file() {
        return Err(OpenError::Missing(directory.to_path_buf()));
    }
    let _locked = place::lock_to_read(directory)?;
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(&file, &error);
    let index = beside(&file, "-shm");
    let had_index = index.exists();
    let mut report = Report::default();
    let connection = open(&file, &mut report).map_err(failed)?;
    let checked = read(&connection, &file, &mut report, &mut progress);
    drop(connection);
    if !had_index {
        // SQLite's own, made anew whenever it is needed.
        let _there_is_none = fs::remove_file(index);
    }
    checked.map(|()| report)
}

/// The name of a file that SQLite keeps beside its own.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens the file so that nothing is written. What the write-ahead log still holds is read too, where that can be done.
fn open(file: &Path, report: &mut Report) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // Without it the file is all there is; and SQLite is told that, or it would make one.
    let Some(alone) = file.to_str().map(|path| format!("file:{}?immutable=1", escaped(path))) else {
        return Connection::open_with_flags(file, flags);
    };
    if fs::metadata(beside(file, "-wal")).is_ok_and(|meta| meta.len() > 0) {
        let connection = Connection::open_with_flags(file, flags)?;
        match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => report.fault(
                "log.db-wal holds more, which cannot be read in a directory that cannot be written to: copy the \
                 directory, and check the copy"
                    .to_owned(),
            ),
            _ => return Ok(connection),
        }
    }
    Connection::open_with_flags(alone, flags)
}

/// A path as it is written in a URI.
fn escaped(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Reads everything.
fn read(
    connection: &Connection,
    file: &Path,
    report: &mut Report,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(), OpenError> {
    schema::recognise(connection, file)?;
    structure(connection, report).map_err(|error| OpenError::from_sqlite(file, &error))?;
    if let Err(error) = contents(connection, report, progress).and_then(|()| records(connection, report)) {
        report.fault(format!("the file cannot be read on: {error}"));
    }
    Ok(())
}

/// What is wrong with what is kept as JSON.
fn records(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut look = |sql: &str, why: fn(&str) -> Option<String>, what: &str| -> rusqlite::Result<()> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, json): (String, String) = (row.get(0)?, row.get(1)?);
            if let Some(why) = why(&json) {
                report.fault(format!("what is kept of {what}{name} makes no sense: {why}"));
            }
        }
        Ok(())
    };
    look("SELECT name, record FROM rooms WHERE record IS NOT NULL", why_not::<RoomRecord>, "room #")?;
    look("SELECT CAST(id AS TEXT), record FROM members", why_not::<Member>, "server ")
}

/// Why a record cannot be read.
fn why_not<T: DeserializeOwned>(json: &str) -> Option<String> {
    serde_json::from_str::<T>(json).err().map(|error| error.to_string())
}

/// What SQLite itself finds, in its indexes too.
fn structure(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
    let mut rows = statement.query([])?;
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                let word: String = row.get(0)?;
                if word != "ok" {
                    report.fault(format!("the file is damaged: {word}"));
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                report.fault(format!("the file is damaged: {error}"));
                return Ok(());
            }
        }
    }
}

/// What is wrong with the entries.
fn contents(connection: &Connection, report: &mut Report, progress: &mut impl FnMut(u64, u64)) -> rusqlite::Result<()> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
    let total = count("SELECT coalesce(sum(top - floor), 0) FROM parts")?;
    report.rooms = count("SELECT count(*) FROM rooms")?;
    report.quarantined = count("SELECT count(*) FROM quarantine")?;
    let parts = connection
        .prepare(
            "SELECT p.id, o.server, o.boot, p.top, p.floor, r.name
             FROM parts AS p JOIN origins AS o ON o.id = p.origin JOIN rooms AS r ON r.id = p.room ORDER BY p.id",
        )?
        .query_map([], with_room)?
        .collect::<Result<Vec<_>, _>>()?;
    let known = count("SELECT count(*) FROM parts")?;
    if known != parts.len() as u64 {
        report.fault(format!("{} parts of logs belong to no room or no server", known - parts.len() as u64));
    }
    for (part, name) in parts {
        match name.parse::<RoomName>() {
            Ok(name) => check_part(connection, part, &name, report, &mut |done| progress(done, total))?,
            Err(_) => report.fault(format!("{name:?} cannot be the name of a room")),
        }
    }
    Ok(())
}

/// What is wrong with one origin's entries of one room.
fn check_part(
    connection: &Connection,
    part: Part,
    name: &RoomName,
    report: &mut Report,
    progress: &mut impl FnMut(u64),
) -> rusqlite::Result<()> {
    let Part { id, origin, top, floor } = part;
    if floor > top {
        report.fault(format!("#{name}: of server {origin} it gave up {floor} entries and has {top}"));
    }
    let Some(mut room) = Room::open(connection, name)? else { return Ok(()) };
    let mut next = floor + 1;
    while next <= top {
        let to = top.min(next + STEP - 1);
        let mut found = VecDeque::new();
        room.chunk(part, next, to, &mut found)?;
        for (_, seq) in std::mem::take(&mut room.rotten) {
            report.fault(format!("#{name}: entry {seq} of server {origin} is missing or not what was written"));
        }
        report.lost += found.iter().filter(|kept| kept.entry.is_lost()).count() as u64;
        found.retain(|kept| !kept.entry.is_lost());
        if let Some(pair) = found.iter().zip(found.iter().skip(1)).find(|(a, b)| a.entry.hlc >= b.entry.hlc) {
            let (seq, before) = (pair.1.entry.seq, pair.0.entry.seq);
            report.fault(format!("#{name}: entry {seq} of server {origin} is not later than entry {before}"));
        }
        report.entries += to - next + 1;
        progress(report.entries);
        next = to + 1;
    }
    let beyond: i64 = connection.query_row(
        "SELECT count(*) FROM entries WHERE id > ?1 AND id < ?2",
        [row_id(id, top), row_id(id + 1, 0)],
        |row| row.get(0),
    )?;
    if beyond > 0 {
        report.fault(format!("#{name}: {beyond} entries of server {origin} lie beyond the last one, {top}"));
    }
    Ok(())
}
