//! What is too old, or too much, to be kept.
//!
//! An entry's age is the time that this store has run since it made the entry durable: no clock on any wall is asked, and
//! a server that was off for a year does not throw everything away as it starts. Running time is cut into slots of ten
//! minutes; for each the table `ages` says how far each part had come (of past days, only for the last that a part had). The store only says what it would like to give up;
//! the node knows what is stored on enough servers, and answers by [`Write::Floors`](hobnob_proto::store::Write::Floors).
//! Rows below a floor are swept later, some at a time, and their pages are used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hobnob_proto::{
    ids::{Boot, Origin, RoomName, ServerId},
    log::VersionVector,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    batch::{get, put},
    find::is_damage,
    schema::row_id,
};

/// Entries that became durable within one slot of running time have one age. Seconds.
pub(crate) const SLOT_SECS: u64 = 600;
/// Rows that one sweep takes away: short enough for whoever waits to write.
const SWEPT_AT_ONCE: u64 = 1_000;
/// Ages that are taken away in one go.
pub(crate) const AGES_AT_ONCE: usize = 10_000;
/// Slots of a day.
pub(crate) const DAY_SLOTS: i64 = 24 * 3_600 / SLOT_SECS.cast_signed();
/// Free pages that one step gives back to the system.
const PAGES_AT_ONCE: i64 = 64;
/// A file that is too large is trimmed to so many percent of what it may have, so that it is not trimmed all the time.
const TRIM_TO_PERCENT: u64 = 90;

/// How much is kept; all of it where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// For how long, in running time.
    pub span: Option<Duration>,
    /// How many bytes the file may have.
    pub bytes: Option<u64>,
}

/// What a walk over the ages knows of a part.
#[derive(Debug)]
struct Part {
    room: RoomName,
    origin: Origin,
    /// Up to where it is given up already, or is to be.
    floor: u64,
    is_lower: bool,
}

/// What is to be given up after `ran` seconds of running time, by room.
pub(crate) fn wishes(
    connection: &Connection,
    retention: Retention,
    ran: u64,
) -> rusqlite::Result<Vec<(RoomName, VersionVector)>> {
    let too_old =
        retention.span.and_then(|span| ran.checked_sub(span.as_secs())).map_or(0, |before| before / SLOT_SECS);
    let mut too_many = match retention.bytes {
        Some(bytes) if !is_unswept(connection)? => excess(connection, bytes)?,
        _ => 0,
    };
    if too_old == 0 && too_many == 0 {
        return Ok(Vec::new());
    }
    let mut parts = parts(connection)?;
    let mut stale = Vec::new();
    let mut statement = connection.prepare_cached("SELECT slot, part, top FROM ages ORDER BY slot, part")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let [slot, id, top] = [row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?];
        if slot.cast_unsigned() >= too_old && too_many == 0 {
            break;
        }
        let Some(part) = parts.get_mut(&id).filter(|part| part.floor < top.cast_unsigned()) else {
            if stale.len() < AGES_AT_ONCE {
                stale.push((slot, id));
            }
            continue;
        };
        let beyond = top.cast_unsigned() - part.floor;
        let given_up = if slot.cast_unsigned() < too_old { beyond } else { beyond.min(too_many) };
        too_many = too_many.saturating_sub(given_up);
        part.floor += given_up;
        part.is_lower = true;
    }
    drop(rows);
    let transaction = connection.unchecked_transaction()?;
    delete_ages(&transaction, &stale)?;
    transaction.commit()?;
    let mut wishes = BTreeMap::<RoomName, VersionVector>::new();
    for part in parts.into_values().filter(|part| part.is_lower) {
        wishes.entry(part.room).or_default().raise(part.origin, part.floor);
    }
    Ok(wishes.into_iter().collect())
}

/// Takes ages away.
fn delete_ages(connection: &Connection, ages: &[(i64, i64)]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM ages WHERE slot = ?1 AND part = ?2")?;
    ages.iter().try_for_each(|&(slot, part)| delete.execute([slot, part]).map(drop))
}

/// Of a day that is over for more than a day, only the last age of each part is kept: what came before it counts as younger,
/// by less than a day. So the table grows by a row a day and part. Some of one day is done at a time.
pub(crate) fn merge_ages(connection: &Connection, ran: u64) -> rusqlite::Result<()> {
    let today = (ran / SLOT_SECS).cast_signed() / DAY_SLOTS;
    let merged = get::<i64>(connection, "merged")?.unwrap_or(0);
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(slot) FROM ages WHERE slot >= ?1")?
        .query_row([merged * DAY_SLOTS], |row| row.get(0))?;
    let Some(day) = next.map(|slot| slot / DAY_SLOTS).filter(|day| day + 1 < today) else { return Ok(()) };
    let (mut seen, mut older) = (BTreeSet::<i64>::new(), Vec::new());
    let mut statement =
        connection.prepare_cached("SELECT slot, part FROM ages WHERE slot >= ?1 AND slot < ?2 ORDER BY slot DESC")?;
    let mut rows = statement.query([day * DAY_SLOTS, (day + 1) * DAY_SLOTS])?;
    while older.len() < AGES_AT_ONCE
        && let Some(row) = rows.next()?
    {
        if !seen.insert(row.get(1)?) {
            older.push((row.get(0)?, row.get(1)?));
        }
    }
    drop(rows);
    let transaction = connection.unchecked_transaction()?;
    delete_ages(&transaction, &older)?;
    if older.len() < AGES_AT_ONCE {
        put(&transaction, "merged", day + 1)?;
    }
    transaction.commit()
}

/// How many entries have to go so that the file gets small enough.
fn excess(connection: &Connection, bytes_max: u64) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = (pragma("page_count")? - pragma("freelist_count")?).max(0).cast_unsigned();
    let bytes = pages * pragma("page_size")?.cast_unsigned();
    if bytes <= bytes_max {
        return Ok(0);
    }
    let entries: i64 = connection.query_row("SELECT coalesce(sum(top - floor), 0) FROM parts", [], |row| row.get(0))?;
    let wanted = bytes_max / 100 * TRIM_TO_PERCENT;
    let share = u128::from(entries.max(0).cast_unsigned()) * u128::from(bytes - wanted) / u128::from(bytes.max(1));
    Ok(u64::try_from(share).unwrap_or(u64::MAX))
}

/// All parts, by their number in the file.
fn parts(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, Part>> {
    let mut statement = connection.prepare_cached(
        "SELECT p.id, r.name, o.server, o.boot, p.floor
         FROM parts AS p JOIN rooms AS r ON r.id = p.room JOIN origins AS o ON o.id = p.origin",
    )?;
    let read = |row: &Row<'_>| {
        let room: String = row.get(1)?;
        let origin = Origin { id: ServerId(row.get(2)?), boot: Boot(row.get::<_, i64>(3)?.cast_unsigned()) };
        let floor = row.get::<_, i64>(4)?.cast_unsigned();
        Ok((row.get(0)?, room.parse().ok().map(|room| Part { room, origin, floor, is_lower: false })))
    };
    let mut parts = BTreeMap::new();
    for part in statement.query_map([], read)? {
        if let (id, Some(part)) = part? {
            parts.insert(id, part);
        }
    }
    Ok(parts)
}

/// Whether there are rows below a floor.
pub(crate) fn is_unswept(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM parts WHERE swept < floor LIMIT 1")?.exists([])
}

/// Takes some rows below a floor away, or gives some pages back. Whether there is more to do.
pub(crate) fn sweep(connection: &Connection) -> rusqlite::Result<bool> {
    let next = connection
        .prepare_cached("SELECT id, floor, swept FROM parts WHERE swept < floor LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        .optional()?;
    let Some((part, floor, swept)) = next else { return give_back(connection) };
    let sweep = || -> rusqlite::Result<()> {
        let to = swept_to(connection, part, floor, swept)?;
        let transaction = connection.unchecked_transaction()?;
        transaction
            .prepare_cached("DELETE FROM entries WHERE id > ?1 AND id <= ?2")?
            .execute([row_id(part, swept.cast_unsigned()), row_id(part, to.cast_unsigned())])?;
        transaction
            .prepare_cached("DELETE FROM lost WHERE id > ?1 AND id <= ?2")?
            .execute([row_id(part, swept.cast_unsigned()), row_id(part, to.cast_unsigned())])?;
        note_swept(&transaction, part, to)?;
        transaction.commit()
    };
    match sweep() {
        Err(error) if is_damage(&error) => {
            // What lies on a damaged page, or beside it, stays there: nobody reads it any more.
            tracing::warn!(%error, "a page of the log is damaged: what is given up of it takes its place for good");
            note_swept(connection, part, floor.min(swept + SWEPT_AT_ONCE.cast_signed()))?;
        }
        other => other?,
    }
    Ok(true)
}

/// Up to where the next step of a sweep goes.
fn swept_to(connection: &Connection, part: i64, floor: i64, swept: i64) -> rusqlite::Result<i64> {
    // Numbers that were never held, below a floor taken over from others, cost nothing.
    let first = connection
        .prepare_cached("SELECT id FROM entries WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 1")?
        .query_row([row_id(part, swept.cast_unsigned()), row_id(part, floor.cast_unsigned())], |row| {
            row.get::<_, i64>(0)
        })
        .optional()?;
    Ok(first.map_or(floor, |first| floor.min(super::schema::seq_of(first).cast_signed() + SWEPT_AT_ONCE.cast_signed())))
}

/// Notes up to where rows are gone.
fn note_swept(connection: &Connection, part: i64, to: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE parts SET swept = ?2 WHERE id = ?1")?.execute(params![part, to]).map(drop)
}

/// Gives pages back to the system, where an eighth of the file is free.
fn give_back(connection: &Connection) -> rusqlite::Result<bool> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let free = pragma("freelist_count")?;
    if free < PAGES_AT_ONCE || free < pragma("page_count")? / 8 {
        return Ok(false);
    }
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(true)
}
