//! Writes as rows: what one transaction does.
//!
//! Names are looked up once and remembered; what is new of a part's end is written once for a batch, however many
//! entries it has.

use std::collections::BTreeMap;

use hobnob_proto::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId, PersonName, RoomName},
    log::{Entry, VersionVector, entry::MESSAGE, room::Kept},
    store::{LOST_TIME_WITHIN, Write},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::{
    Cause,
    find::is_damage,
    rows::{self, COLUMNS, TABLES},
    schema::{SEQ_BOUND, row_id},
};

/// Rooms, parts and authors that are remembered; past that all are forgotten, and looked up again.
const REMEMBERED_MAX: usize = 50_000;

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// SQLite says so.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Too much waits.
    #[error("the disk is too slow: what waits to be written would not fit the memory")]
    Behind,
    /// It would leave a hole, which no store may have.
    #[error("entry {seq} of {origin} in {room} does not follow {top}")]
    Hole {
        /// Where.
        room: RoomName,
        /// Whose.
        origin: Origin,
        /// Which.
        seq: u64,
        /// The last one kept.
        top: u64,
    },
}

impl Error {
    /// What has to be done about it.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Behind => Cause::Slow,
            Self::Hole { .. } => Cause::Fault,
            Self::Sqlite(error) if is_damage(error) => Cause::Damaged,
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Cause::Full,
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Cause::ReadOnly,
                _ => Cause::Failing,
            },
        }
    }
}

/// What the writer remembers between two writes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    rooms: BTreeMap<RoomName, Room>,
    remembered: usize,
    /// Parts whose end is new with this batch.
    dirty: BTreeMap<i64, Part>,
    /// Whether it was said that a page is damaged: once is enough.
    has_told_of_damage: bool,
}

/// A room as it is in the file.
#[derive(Debug)]
struct Room {
    id: i64,
    parts: BTreeMap<Origin, Part>,
    authors: BTreeMap<(PersonId, DeviceId), (PersonName, i64)>,
}

/// A part as it is in the file, or is to be with this batch.
#[derive(Clone, Copy, Debug)]
struct Part {
    id: i64,
    top: u64,
    floor: u64,
    /// The newest entry: its number, and its time.
    newest: (u64, u64, u32),
}

impl Names {
    /// Forgets everything: after a rollback, some of it is not in the file.
    pub(crate) fn forget(&mut self) {
        *self = Self { has_told_of_damage: self.has_told_of_damage, ..Self::default() };
    }

    /// Does one write.
    pub(crate) fn apply(&mut self, connection: &Connection, write: &Write) -> Result<(), Error> {
        match write {
            Write::Entry(kept) => self.add(connection, kept)?,
            Write::Repair(kept) => self.repair(connection, kept)?,
            Write::Lost { room, origin, seq } => self.lose(connection, room, *origin, *seq)?,
            Write::Quarantine(kept) => quarantine(connection, kept)?,
            Write::Room(record) => {
                let room = self.room(connection, &record.room)?.id;
                let json = serde_json::to_string(record).expect("records have string keys and no failing parts");
                connection
                    .prepare_cached("UPDATE rooms SET record = ?2 WHERE id = ?1")?
                    .execute(params![room, json])?;
            }
            Write::Term(term) => put(connection, "term", term.cast_signed())?,
            Write::Member(member) => {
                let json = serde_json::to_string(member).expect("records have string keys and no failing parts");
                connection
                    .prepare_cached("INSERT OR REPLACE INTO members (id, record) VALUES (?1, ?2)")?
                    .execute(params![member.id.0, json])?;
            }
            Write::Me(me) => {
                put(connection, "id", i64::from(me.id.0))?;
                let last = get::<i64>(connection, "boot")?.unwrap_or(0);
                put(connection, "boot", me.boot.0.cast_signed().max(last))?;
            }
            Write::Cluster(id) => {
                put(connection, "cluster", id.to_string())?;
                put(connection, "term", 0)?;
                connection.execute_batch("UPDATE rooms SET record = NULL; DELETE FROM members;")?;
            }
            Write::Floors { room, floors } => self.raise_floors(connection, room, floors)?,
        }
        Ok(())
    }

    /// Writes what is new of each part's end, stamped with the slot of running time.
    pub(crate) fn finish(&mut self, connection: &Connection, slot: u64) -> rusqlite::Result<()> {
        let mut update = connection.prepare_cached(
            "UPDATE parts SET top = ?2, floor = ?3, last = ?4, millis = ?5, counter = ?6 WHERE id = ?1",
        )?;
        let mut stamp =
            connection.prepare_cached("INSERT OR REPLACE INTO ages (slot, part, top) VALUES (?1, ?2, ?3)")?;
        for part in std::mem::take(&mut self.dirty).into_values() {
            let (last, millis, counter) = part.newest;
            let [top, floor, last, millis] = [part.top, part.floor, last, millis].map(u64::cast_signed);
            update.execute(params![part.id, top, floor, last, millis, counter])?;
            stamp.execute([slot.cast_signed(), part.id, part.top.cast_signed()])?;
        }
        if self.remembered > REMEMBERED_MAX {
            self.forget();
        }
        Ok(())
    }

    /// The next entry of its part.
    fn add(&mut self, connection: &Connection, kept: &Kept) -> Result<(), Error> {
        let entry = &kept.entry;
        let author = if entry.is_lost() { 0 } else { self.author(connection, kept)? };
        let part = self.part(connection, &entry.room, entry.origin)?;
        if entry.seq <= part.top {
            return Ok(());
        }
        if entry.seq != part.top + 1 || entry.seq >= SEQ_BOUND {
            let (room, origin) = (entry.room.clone(), entry.origin);
            return Err(Error::Hole { room, origin, seq: entry.seq, top: part.top });
        }
        part.top = entry.seq;
        part.newest = (entry.seq, entry.hlc.millis, entry.hlc.counter);
        let part = *part;
        self.dirty.insert(part.id, part);
        if entry.is_lost() {
            return Ok(mark(connection, part.id, entry.seq, entry.hlc)?);
        }
        match insert(connection, INSERT, kept, part.id, author) {
            // A row beyond the end, which nobody counts on.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Ok(insert(connection, REPLACE, kept, part.id, author)?)
            }
            done => Ok(done?),
        }
    }

    /// An entry in place of a rotten one, outside any transaction: SQLite takes nothing more in one that has met damage.
    /// Where the page that it belongs on is damaged, it stays rotten, and all else can be written.
    pub(crate) fn repair(&mut self, connection: &Connection, kept: &Kept) -> rusqlite::Result<()> {
        let Entry { room, origin, seq, .. } = &*kept.entry;
        let done = self.try_repair(connection, kept);
        self.unless_damaged(done, |error| {
            tracing::warn!(
                %error, %room, %origin, seq,
                "an entry on a damaged page of the log cannot be put right: it stays unreadable here. The other \
                 servers have it; to have it here again, stop this server and move log.db and log.db-wal aside"
            );
        })
    }

    /// What was done, where a damaged page may have kept it from being done: that is told once.
    fn unless_damaged(
        &mut self,
        done: rusqlite::Result<()>,
        tell: impl FnOnce(&rusqlite::Error),
    ) -> rusqlite::Result<()> {
        match done {
            Err(error) if is_damage(&error) => {
                if !std::mem::replace(&mut self.has_told_of_damage, true) {
                    tell(&error);
                }
                Ok(())
            }
            other => other,
        }
    }

    fn try_repair(&mut self, connection: &Connection, kept: &Kept) -> rusqlite::Result<()> {
        let entry = &kept.entry;
        let author = self.author(connection, kept)?;
        let part = self.part(connection, &entry.room, entry.origin)?;
        let (id, is_kept) = (part.id, entry.seq > part.floor && entry.seq <= part.top);
        // What is sound is not replaced by another content.
        if is_kept && sound(connection, id, entry.seq, &entry.room, entry.origin).is_none() {
            insert(connection, REPLACE, kept, id, author)?;
        }
        // Where a row is sound, a marker is not looked for: so it may go after that.
        connection.prepare_cached("DELETE FROM lost WHERE id = ?1")?.execute([row_id(id, entry.seq)])?;
        Ok(())
    }

    /// A marker in place of an entry that nobody has any more, outside any transaction as a repair is; where its page is
    /// damaged, the entry stays rotten. The row stays as it is: what is sound after all needs no marker.
    pub(crate) fn lose(
        &mut self,
        connection: &Connection,
        room: &RoomName,
        origin: Origin,
        seq: u64,
    ) -> rusqlite::Result<()> {
        let done = self.try_lose(connection, room, origin, seq);
        self.unless_damaged(done, |error| {
            tracing::warn!(
                %error, %room, %origin, seq,
                "an entry that no server has any more cannot be marked as lost, since that page of the log is damaged: it \
                 stays unreadable here. To be rid of that, stop this server and move log.db and log.db-wal aside"
            );
        })
    }

    fn try_lose(&mut self, connection: &Connection, room: &RoomName, origin: Origin, seq: u64) -> rusqlite::Result<()> {
        let Part { id, top, floor, .. } = *self.part(connection, room, origin)?;
        if seq <= floor || seq > top || sound(connection, id, seq, room, origin).is_some() {
            return Ok(());
        }
        let above = seq + 1..=top.min(seq + LOST_TIME_WITHIN);
        let below = floor.max(seq.saturating_sub(LOST_TIME_WITHIN + 1)) + 1..seq;
        let hlc = above.chain(below.rev()).find_map(|seq| sound(connection, id, seq, room, origin));
        mark(connection, id, seq, hlc.unwrap_or_default())
    }

    /// Gives up what lies at or below these numbers; the rows are swept later.
    fn raise_floors(
        &mut self,
        connection: &Connection,
        room: &RoomName,
        floors: &VersionVector,
    ) -> rusqlite::Result<()> {
        for (origin, floor) in floors.iter() {
            let part = self.part(connection, room, origin)?;
            if floor > part.floor {
                part.floor = floor.min(SEQ_BOUND - 1);
                part.top = part.top.max(part.floor);
                let part = *part;
                self.dirty.insert(part.id, part);
            }
        }
        Ok(())
    }

    /// A room, which is made where there is none.
    fn room(&mut self, connection: &Connection, name: &RoomName) -> rusqlite::Result<&mut Room> {
        if !self.rooms.contains_key(name) {
            let known = connection
                .prepare_cached("SELECT id FROM rooms WHERE name = ?1")?
                .query_row([name.as_str()], |row| row.get(0))
                .optional()?;
            let id = match known {
                Some(id) => id,
                None => connection.prepare_cached("INSERT INTO rooms (name) VALUES (?1)")?.insert([name.as_str()])?,
            };
            self.remembered += 1;
            self.rooms.insert(name.clone(), Room { id, parts: BTreeMap::new(), authors: BTreeMap::new() });
        }
        Ok(self.rooms.get_mut(name).expect("it was put there"))
    }

    /// A part, which is made where there is none.
    fn part(&mut self, connection: &Connection, name: &RoomName, origin: Origin) -> rusqlite::Result<&mut Part> {
        let room = self.room(connection, name)?;
        if !room.parts.contains_key(&origin) {
            let part = find_part(connection, room.id, origin)?;
            room.parts.insert(origin, part);
            self.remembered += 1;
        }
        let room = self.rooms.get_mut(name).expect("it was just there");
        Ok(room.parts.get_mut(&origin).expect("it was put there"))
    }

    /// The number of an entry's author in its room, which is given where there is none.
    fn author(&mut self, connection: &Connection, kept: &Kept) -> rusqlite::Result<i64> {
        let entry = &kept.entry;
        let room = self.room(connection, &entry.room)?;
        let (room_id, key) = (room.id, (entry.person, entry.device));
        match room.authors.get(&key) {
            Some((name, id)) if *name == entry.from => return Ok(*id),
            _ => {}
        }
        let columns = params![room_id, entry.person.0, entry.device.0.cast_signed(), entry.from.as_str()];
        let known = connection
            .prepare_cached("SELECT id FROM authors WHERE room = ?1 AND person = ?2 AND device = ?3 AND name = ?4")?
            .query_row(columns, |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => connection
                .prepare_cached("INSERT INTO authors (room, person, device, name) VALUES (?1, ?2, ?3, ?4)")?
                .insert(columns)?,
        };
        room.authors.insert(key, (entry.from.clone(), id));
        self.remembered += 1;
        Ok(id)
    }
}

/// Reads a part, or makes an empty one.
fn find_part(connection: &Connection, room: i64, origin: Origin) -> rusqlite::Result<Part> {
    let columns = [i64::from(origin.id.0), origin.boot.0.cast_signed()];
    let known: Option<i64> = connection
        .prepare_cached("SELECT id FROM origins WHERE server = ?1 AND boot = ?2")?
        .query_row(columns, |row| row.get(0))
        .optional()?;
    let origin = match known {
        Some(id) => id,
        None => connection.prepare_cached("INSERT INTO origins (server, boot) VALUES (?1, ?2)")?.insert(columns)?,
    };
    let part = connection
        .prepare_cached("SELECT id, top, floor, last, millis, counter FROM parts WHERE room = ?1 AND origin = ?2")?
        .query_row([room, origin], |row| {
            let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            Ok(Part {
                id: row.get(0)?,
                top: unsigned(1)?,
                floor: unsigned(2)?,
                newest: (unsigned(3)?, unsigned(4)?, row.get(5)?),
            })
        })
        .optional()?;
    if let Some(part) = part {
        return Ok(part);
    }
    let id = connection
        .prepare_cached("INSERT INTO parts VALUES (NULL, ?1, ?2, 0, 0, 0, 0, 0, 0)")?
        .insert([room, origin])?;
    Ok(Part { id, top: 0, floor: 0, newest: (0, 0, 0) })
}

/// The time of an entry whose row is what was written there, whatever that was.
fn sound(connection: &Connection, part: i64, seq: u64, room: &RoomName, origin: Origin) -> Option<Hlc> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE e.id = ?1");
    let read = |row: &rusqlite::Row<'_>| rows::entry(row, room, origin);
    let found = connection.prepare_cached(&sql).and_then(|mut rows| rows.query_row([row_id(part, seq)], read));
    found.ok()?.ok().map(|kept| kept.entry.hlc)
}

/// Writes the marker of an entry that is lost.
fn mark(connection: &Connection, part: i64, seq: u64, hlc: Hlc) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO lost VALUES (?1, ?2, ?3)")?
        .execute(params![row_id(part, seq), hlc.millis.cast_signed(), hlc.counter])
        .map(drop)
}

/// Writes the row of an entry, where there is none: SQLite needs no way back for it, as it does for the other.
const INSERT: &str = "INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
/// The same, whatever is there.
const REPLACE: &str = "INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// Writes the row of an entry, one way or the other.
fn insert(connection: &Connection, sql: &str, kept: &Kept, part: i64, author: i64) -> rusqlite::Result<()> {
    let entry = &kept.entry;
    let kind = (&*entry.kind != MESSAGE).then_some(&*entry.kind);
    connection
        .prepare_cached(sql)?
        .execute(params![
            row_id(part, entry.seq),
            entry.hlc.millis.cast_signed(),
            entry.hlc.counter,
            author,
            entry.client_seq.cast_signed(),
            kind,
            entry.hash.0,
            &*entry.body,
        ])
        .map(drop)
}

/// Keeps an entry aside.
fn quarantine(connection: &Connection, kept: &Kept) -> rusqlite::Result<()> {
    let entry = &kept.entry;
    connection
        .prepare_cached("INSERT OR IGNORE INTO quarantine VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            entry.room.as_str(),
            entry.origin.id.0,
            entry.origin.boot.0.cast_signed(),
            entry.seq.cast_signed(),
            entry.hash.0,
            kept.line.trim_end(),
        ])
        .map(drop)
}

/// Writes a value of `meta`.
pub(crate) fn put(connection: &Connection, key: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![key, value]).map(drop)
}

/// Reads a value of `meta`.
pub(crate) fn get<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
}
