//! Answers to questions about a room's log, from its rows.
//!
//! There is no index of display order: within a part it is the order of numbers, so a question about several parts merges
//! their ends, and a time is found in each by halving.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use hobnob_proto::{
    hlc::Hlc,
    ids::{Boot, DeviceId, Origin, PersonId, RoomName, ServerId},
    log::{Entry as Lost, VersionVector, entry::DisplayOrder, room::Kept},
    store::{DEVICE_POSTS_MAX, Found, Read, What},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, ffi, params};

use super::{
    rows::{COLUMNS, TABLES, entry, kept},
    schema::{row_id, seq_of},
};

/// Rotten entries that one answer names at most.
const ROTTEN_MAX: usize = 1_024;
/// Rows of one part that are read at first: there may be many parts, and little asked for.
const CHUNK_MIN: u64 = 4;
/// Rows of one part that are read at a time at most.
const CHUNK_MAX: u64 = 256;

/// A room, as one answer sees it.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    connection: &'a Connection,
    name: &'a RoomName,
    id: i64,
    parts: Vec<Part>,
    /// Origin and number of what is not what was written.
    pub(crate) rotten: Vec<(Origin, u64)>,
}

/// One origin's part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Its number in the file.
    pub(crate) id: i64,
    /// Whose.
    pub(crate) origin: Origin,
    /// The last entry.
    pub(crate) top: u64,
    /// Up to where it is no longer kept.
    pub(crate) floor: u64,
}

/// Answers a question: what was found, and what was found rotten.
pub(crate) fn answer(connection: &Connection, read: &Read) -> rusqlite::Result<(Found, Vec<(Origin, u64)>)> {
    let Some(mut room) = Room::open(connection, &read.room)? else {
        let found = match read.what {
            What::Ranges { .. } | What::Device { .. } => Found::Entries(Vec::new()),
            What::Last { .. } | What::Since { .. } => Found::Start(VersionVector::default()),
        };
        return Ok((found, Vec::new()));
    };
    let found = match &read.what {
        What::Ranges { want, max, bytes_max } => Found::Entries(room.ranges(want, *max, *bytes_max)?),
        What::Last { count } => Found::Start(room.last(*count)?),
        What::Since { millis } => Found::Start(room.since(*millis)?),
        What::Device { person, device, from } => Found::Entries(room.device(*person, *device, *from)?),
    };
    Ok((found, room.rotten))
}

impl<'a> Room<'a> {
    /// The room of that name; `None` where nothing is kept of it.
    pub(crate) fn open(connection: &'a Connection, name: &'a RoomName) -> rusqlite::Result<Option<Self>> {
        let id = connection
            .prepare_cached("SELECT id FROM rooms WHERE name = ?1")?
            .query_row([name.as_str()], |row| row.get(0))
            .optional()?;
        let Some(id) = id else { return Ok(None) };
        let parts = connection
            .prepare_cached(
                "SELECT p.id, o.server, o.boot, p.top, p.floor FROM parts AS p JOIN origins AS o ON o.id = p.origin
                 WHERE p.room = ?1",
            )?
            .query_map([id], part)?
            .collect::<Result<Vec<Part>, _>>()?;
        Ok(Some(Self { connection, name, id, parts, rotten: Vec::new() }))
    }

    /// The entries of these ranges, the first in display order.
    fn ranges(&mut self, want: &[(Origin, u64, u64)], max: usize, bytes_max: usize) -> rusqlite::Result<Vec<Kept>> {
        let mut fronts: Vec<Front> = self.clip(want).into_iter().map(Front::new).collect();
        for front in &mut fronts {
            front.fill(self)?;
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < max && self.rotten.len() < ROTTEN_MAX {
            let next = fronts.iter_mut().filter(|front| !front.rows.is_empty()).min_by_key(|front| front.order());
            let Some(kept) = next.as_ref().and_then(|front| front.rows.front()) else { break };
            bytes += kept.line.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            let Some(front) = next else { break };
            found.extend(front.rows.pop_front());
            front.fill(self)?;
        }
        Ok(found)
    }

    /// What is kept of these ranges, each number once.
    fn clip(&self, want: &[(Origin, u64, u64)]) -> Vec<(Part, u64, u64)> {
        let mut ranges = BTreeMap::<Origin, Vec<(u64, u64)>>::new();
        for &(origin, from, to) in want {
            ranges.entry(origin).or_default().push((from, to));
        }
        let mut clipped = Vec::new();
        for (origin, mut ranges) in ranges {
            let Some(part) = self.parts.iter().find(|part| part.origin == origin) else { continue };
            ranges.sort_unstable();
            let mut next = part.floor + 1;
            for (from, to) in ranges {
                let (from, to) = (from.max(next), to.min(part.top));
                if from <= to {
                    clipped.push((*part, from, to));
                    next = to + 1;
                }
            }
        }
        clipped
    }

    /// The cursor beyond which the last `count` posts lie.
    fn last(&self, count: u32) -> rusqlite::Result<VersionVector> {
        let entries: u64 = self.parts.iter().map(|part| part.top.saturating_sub(part.floor)).sum();
        if count == 0 || entries == 0 {
            return Ok(self.parts.iter().map(|part| (part.origin, part.top)).collect());
        }
        if entries <= u64::from(count) {
            return Ok(self.parts.iter().map(|part| (part.origin, part.floor)).collect());
        }
        let mut tails =
            self.parts.iter().map(|part| Tail::new(self.connection, *part)).collect::<Result<Vec<_>, _>>()?;
        let mut siblings = BTreeMap::new();
        let mut counted = 0;
        while counted < count {
            let newest = tails.iter_mut().filter(|tail| tail.newest().is_some()).max_by_key(|tail| tail.newest());
            let Some(tail) = newest else { break };
            let Some(row) = tail.rows.pop_front() else { break };
            tail.start = row.seq - 1;
            if self.is_canonical(tail.part, &row, &mut siblings)? {
                counted += 1;
            }
            tail.fill(self.connection)?;
        }
        Ok(tails.iter().map(|tail| (tail.part.origin, tail.start)).collect())
    }

    /// Whether an entry is the first in display order of those that its post has.
    fn is_canonical(&self, part: Part, row: &Line, siblings: &mut BTreeMap<i64, Vec<i64>>) -> rusqlite::Result<bool> {
        let siblings = match siblings.entry(row.author) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.siblings(row.author)?),
        };
        let mine = (row.hlc, part.origin, row.seq);
        for author in siblings {
            let orders = self.orders_of(*author, row.client_seq)?;
            if orders.into_iter().any(|order| order < mine) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All authors that are this one's device, under any name.
    fn siblings(&self, author: i64) -> rusqlite::Result<Vec<i64>> {
        self.connection
            .prepare_cached(
                "SELECT b.id FROM authors AS a JOIN authors AS b
                 ON b.room = a.room AND b.person = a.person AND b.device = a.device WHERE a.id = ?1",
            )?
            .query_map([author], |row| row.get(0))?
            .collect()
    }

    /// Where the entries of a post are shown.
    fn orders_of(&self, author: i64, client_seq: i64) -> rusqlite::Result<Vec<DisplayOrder>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, millis, counter FROM entries WHERE author = ?1 AND client_seq = ?2")?;
        let mut rows = statement.query([author, client_seq])?;
        let mut orders = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if let Some(part) = self.part_of(id) {
                orders.push((hlc(row, 1)?, part.origin, seq_of(id)));
            }
        }
        Ok(orders)
    }

    /// The part of a row that is still kept.
    fn part_of(&self, row: i64) -> Option<&Part> {
        let seq = seq_of(row);
        self.parts.iter().find(|part| row_id(part.id, seq) == row && seq > part.floor && seq <= part.top)
    }

    /// The cursor beyond which entries from `millis` on lie.
    fn since(&self, millis: u64) -> rusqlite::Result<VersionVector> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, millis FROM entries WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1")?;
        let mut start = VersionVector::default();
        for part in &self.parts {
            // All below `low` are before, all from `high` on are not.
            let (mut low, mut high) = (part.floor + 1, part.top + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                let found = statement
                    .query_row([row_id(part.id, middle), row_id(part.id, high - 1)], |row| {
                        Ok((seq_of(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned()))
                    })
                    .optional()?;
                match found {
                    Some((seq, at)) if at < millis => low = seq + 1,
                    _ => high = middle,
                }
            }
            start.raise(part.origin, low - 1);
        }
        Ok(start)
    }

    /// The canonical entries of a device's posts from a number on.
    fn device(&mut self, person: PersonId, device: DeviceId, from: u64) -> rusqlite::Result<Vec<Kept>> {
        let authors = self
            .connection
            .prepare_cached("SELECT id FROM authors WHERE room = ?1 AND person = ?2 AND device = ?3")?
            .query_map(params![self.id, person.0, device.0.cast_signed()], |row| row.get(0))?
            .collect::<Result<Vec<i64>, _>>()?;
        let mut next = self
            .connection
            .prepare_cached("SELECT min(client_seq) FROM entries WHERE author = ?1 AND client_seq >= ?2")?;
        let (mut found, mut looked_at, mut from) = (Vec::new(), 0, i64::try_from(from).unwrap_or(i64::MAX));
        while looked_at < DEVICE_POSTS_MAX {
            let mut post: Option<i64> = None;
            for author in &authors {
                let first: Option<i64> = next.query_row([*author, from], |row| row.get(0))?;
                post = [post, first].into_iter().flatten().min();
            }
            let Some(post) = post else { break };
            let mut orders = Vec::new();
            for author in &authors {
                orders.extend(self.orders_of(*author, post)?);
            }
            orders.sort_unstable();
            for (_, origin, seq) in orders {
                let one = self.one(origin, seq)?;
                // In the place of an entry that is lost there is one of no post: the next one of this post counts.
                if !one.as_ref().is_some_and(|kept| kept.entry.is_lost()) {
                    found.extend(one);
                    looked_at += 1;
                    break;
                }
            }
            from = post.saturating_add(1);
        }
        Ok(found)
    }

    /// One entry; `None` where it is rotten.
    fn one(&mut self, origin: Origin, seq: u64) -> rusqlite::Result<Option<Kept>> {
        let Some(part) = self.parts.iter().find(|part| part.origin == origin).copied() else { return Ok(None) };
        let mut rows = VecDeque::new();
        self.chunk(part, seq, seq, &mut rows)?;
        Ok(rows.pop_front())
    }

    /// Reads the entries of a short range; the rotten and the missing ones are noted.
    pub(crate) fn chunk(&mut self, part: Part, from: u64, to: u64, into: &mut VecDeque<Kept>) -> rusqlite::Result<()> {
        match self.walk(part, from, to, into) {
            Err(error) if from < to && is_damage(&error) => {
                // One page of it cannot be read: what lies on others can.
                let done = into.back().map_or(from, |kept| kept.entry.seq + 1).max(from);
                (done..=to).try_for_each(|seq| self.chunk(part, seq, seq, into))
            }
            Err(error) if is_damage(&error) => {
                self.lost_or_rotten(part, from, into);
                Ok(())
            }
            other => other,
        }
    }

    /// Reads the entries of a range in one go.
    fn walk(&mut self, part: Part, from: u64, to: u64, into: &mut VecDeque<Kept>) -> rusqlite::Result<()> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE e.id BETWEEN ?1 AND ?2 ORDER BY e.id");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([row_id(part.id, from), row_id(part.id, to)])?;
        let mut expected = from;
        while let Some(row) = rows.next()? {
            let seq = seq_of(row.get(0)?);
            for missing in expected..seq {
                self.lost_or_rotten(part, missing, into);
            }
            match entry(row, self.name, part.origin)? {
                Ok(kept) => into.push_back(kept),
                Err(seq) => self.lost_or_rotten(part, seq, into),
            }
            expected = seq + 1;
        }
        for missing in expected..=to {
            self.lost_or_rotten(part, missing, into);
        }
        Ok(())
    }

    /// Where no sound row is: the marker of an entry that is lost, or one more that is rotten. A file that was not brought
    /// up to date, as `hobnob check` may find it, knows no markers.
    fn lost_or_rotten(&mut self, part: Part, seq: u64, into: &mut VecDeque<Kept>) {
        let marker = self
            .connection
            .prepare_cached("SELECT millis, counter FROM lost WHERE id = ?1")
            .and_then(|mut lost| lost.query_row([row_id(part.id, seq)], |row| hlc(row, 0)));
        match marker {
            Ok(hlc) => into.push_back(kept(Lost::lost(self.name.clone(), part.origin, seq, hlc))),
            Err(_) => self.note_rotten(part.origin, seq),
        }
    }

    /// Notes an entry that is not what was written, once.
    fn note_rotten(&mut self, origin: Origin, seq: u64) {
        if self.rotten.len() < ROTTEN_MAX && !self.rotten.contains(&(origin, seq)) {
            self.rotten.push((origin, seq));
        }
    }
}

/// Whether an error means that what is on the disk is damaged, or cannot be read there: elsewhere it may be well.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    let Some(error) = error.sqlite_error() else { return false };
    let is_unreadable =
        [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_DATA, ffi::SQLITE_IOERR_CORRUPTFS];
    matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        || is_unreadable.contains(&error.extended_code)
}

/// Reads a part.
pub(crate) fn part(row: &Row<'_>) -> rusqlite::Result<Part> {
    let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let origin = Origin { id: ServerId(row.get(1)?), boot: Boot(unsigned(2)?) };
    Ok(Part { id: row.get(0)?, origin, top: unsigned(3)?, floor: unsigned(4)? })
}

/// Reads a time from two columns.
fn hlc(row: &Row<'_>, column: usize) -> rusqlite::Result<Hlc> {
    Ok(Hlc { millis: row.get::<_, i64>(column)?.cast_unsigned(), counter: row.get(column + 1)? })
}

/// A range, of which the next entries have been read.
#[derive(Debug)]
struct Front {
    part: Part,
    next: u64,
    last: u64,
    chunk: u64,
    rows: VecDeque<Kept>,
}

impl Front {
    fn new((part, next, last): (Part, u64, u64)) -> Self {
        Self { part, next, last, chunk: CHUNK_MIN, rows: VecDeque::new() }
    }

    /// Where the next entry is shown.
    fn order(&self) -> Option<DisplayOrder> {
        self.rows.front().map(|kept| kept.entry.order())
    }

    /// Reads on, where all that was read has been taken.
    fn fill(&mut self, room: &mut Room<'_>) -> rusqlite::Result<()> {
        while self.rows.is_empty() && self.next <= self.last && room.rotten.len() < ROTTEN_MAX {
            let to = self.last.min(self.next + self.chunk - 1);
            room.chunk(self.part, self.next, to, &mut self.rows)?;
            self.next = to + 1;
            self.chunk = (self.chunk * 2).min(CHUNK_MAX);
        }
        Ok(())
    }
}

/// The end of a part, walked backwards.
#[derive(Debug)]
struct Tail {
    part: Part,
    /// Rows, the newest first.
    rows: VecDeque<Line>,
    /// What lies above this has been taken.
    start: u64,
    /// How many rows are read next.
    chunk: u64,
}

/// What counting needs of a row.
#[derive(Debug)]
struct Line {
    seq: u64,
    hlc: Hlc,
    author: i64,
    client_seq: i64,
}

impl Tail {
    fn new(connection: &Connection, part: Part) -> rusqlite::Result<Self> {
        let mut tail = Self { part, rows: VecDeque::new(), start: part.top, chunk: CHUNK_MIN };
        tail.fill(connection)?;
        Ok(tail)
    }

    /// Where the newest entry that has not been taken is shown.
    fn newest(&self) -> Option<DisplayOrder> {
        self.rows.front().map(|row| (row.hlc, self.part.origin, row.seq))
    }

    /// Reads on, where all that was read has been taken.
    fn fill(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.rows.is_empty() || self.start <= self.part.floor {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "SELECT id, millis, counter, author, client_seq FROM entries WHERE id BETWEEN ?1 AND ?2
             ORDER BY id DESC LIMIT ?3",
        )?;
        let (first, last) = (row_id(self.part.id, self.part.floor + 1), row_id(self.part.id, self.start));
        let mut rows = statement.query([first, last, self.chunk.cast_signed()])?;
        self.chunk = (self.chunk * 2).min(CHUNK_MAX);
        while let Some(row) = rows.next()? {
            let (author, client_seq) = (row.get(3)?, row.get(4)?);
            self.rows.push_back(Line { seq: seq_of(row.get(0)?), hlc: hlc(row, 1)?, author, client_seq });
        }
        if self.rows.is_empty() {
            // All rows above the floor are missing.
            self.start = self.part.floor;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_damaged_and_what_is_in_the_way_is_not() {
        let check = |code, expected| {
            assert_eq!(is_damage(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)), expected, "{code}");
        };
        check(ffi::SQLITE_CORRUPT, true);
        check(ffi::SQLITE_IOERR_READ, true);
        check(ffi::SQLITE_IOERR_SHORT_READ, true);
        check(ffi::SQLITE_IOERR_WRITE, false);
        check(ffi::SQLITE_IOERR_FSYNC, false);
        check(ffi::SQLITE_BUSY, false);
        check(ffi::SQLITE_INTERRUPT, false);
    }
}
