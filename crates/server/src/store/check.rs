//! Is a data directory sound? Looked at while no server runs there; nothing is changed but that SQLite writes what its
//! write-ahead log still holds.

use std::{collections::VecDeque, path::Path};

use hobnob_proto::ids::RoomName;
use rusqlite::{Connection, OpenFlags};

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
    let unwritable = |source| OpenError::Unwritable { path: directory.to_path_buf(), source };
    let _locked =
        place::lock(directory).map_err(unwritable)?.ok_or_else(|| OpenError::Locked(directory.to_path_buf()))?;
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(&file, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&file, flags).map_err(failed)?;
    schema::recognise(&connection, &file)?;
    let mut report = Report::default();
    structure(&connection, &mut report).map_err(failed)?;
    if let Err(error) = contents(&connection, &mut report, &mut progress) {
        report.fault(format!("the file cannot be read on: {error}"));
    }
    Ok(report)
}

/// What SQLite itself finds.
fn structure(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA quick_check(100)")?;
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
