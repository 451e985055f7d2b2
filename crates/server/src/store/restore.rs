//! What the file says when a server starts.

use std::time::{SystemTime, UNIX_EPOCH};

use hobnob_proto::{
    hlc::Hlc,
    ids::{Boot, Origin, RoomName, ServerId},
    log::{VersionVector, entry::DisplayOrder},
    rng::Rng,
    store::{Head, LOST_MAX, Restored},
    wire::frame::{Member, RoomRecord},
};
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;

use super::{
    batch::{get, put},
    find::is_damage,
    place::{Directory, Realm},
    schema::{OpenError, SEQ_BITS, SEQ_BOUND, seq_of},
};

/// Reads everything but the entries, and raises the boot: that is durable when this returns.
pub(crate) fn restore(
    connection: &mut Connection,
    directory: &Directory,
    rng: &mut Rng,
) -> Result<Restored, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(&directory.file(), &error);
    let mut restored = read(connection).map_err(failed)?;
    let boot = Boot::new(wall_secs(), restored.boot, rng);
    raise(connection, boot, directory.realm()).map_err(failed)?;
    restored.boot = Some(boot);
    Ok(restored)
}

/// Seconds since 1970, by the clock on the wall.
pub(crate) fn wall_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Writes the new boot, whose the store is, and that it was used.
fn raise(connection: &mut Connection, boot: Boot, realm: Option<&Realm>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    if let Some(realm) = realm {
        realm.note(&transaction)?;
    }
    put(&transaction, "boot", boot.0.cast_signed())?;
    put(&transaction, "used", wall_secs().cast_signed())?;
    transaction.commit()
}

/// Reads everything but the entries.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Restored> {
    let number = |key| Ok::<_, rusqlite::Error>(get::<i64>(connection, key)?.map(i64::cast_unsigned));
    let cluster: Option<String> = get(connection, "cluster")?;
    Ok(Restored {
        id: number("id")?.and_then(|id| u32::try_from(id).ok()).map(ServerId),
        boot: number("boot")?.map(Boot),
        cluster: cluster.and_then(|id| id.parse().ok()),
        term: number("term")?.unwrap_or(0),
        members: records::<Member>(connection, "SELECT record FROM members ORDER BY id")?,
        rooms: records::<RoomRecord>(connection, "SELECT record FROM rooms WHERE record IS NOT NULL ORDER BY name")?,
        logs: heads(connection)?,
    })
}

/// Reads records that are JSON. One that is none is left out, and told again by the others.
fn records<T: DeserializeOwned>(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(record) = row.get_ref(0)?.as_str().ok().and_then(|json| serde_json::from_str(json).ok()) {
            records.push(record);
        } else {
            tracing::warn!("a record on disk cannot be read: the other servers will tell it again");
        }
    }
    Ok(records)
}

/// Reads what there is of each room's log.
fn heads(connection: &Connection) -> rusqlite::Result<Vec<Head>> {
    let mut statement = connection.prepare(
        "SELECT r.name, o.server, o.boot, p.top, p.floor, p.last, p.millis, p.counter
         FROM parts AS p JOIN rooms AS r ON r.id = p.room JOIN origins AS o ON o.id = p.origin ORDER BY p.room",
    )?;
    let mut rows = statement.query([])?;
    let mut heads: Vec<Head> = Vec::new();
    while let Some(row) = rows.next()? {
        let Some((room, origin, top, floor, newest)) = part(row)? else { continue };
        if heads.last().is_none_or(|head| head.room != room) {
            let (held, floors) = (VersionVector::default(), VersionVector::default());
            heads.push(Head {
                room,
                held,
                floors,
                newest: (Hlc::default(), Origin::MIN, 0),
                entries: 0,
                lost: Vec::new(),
            });
        }
        let head = heads.last_mut().expect("one was put there");
        head.held.raise(origin, top);
        head.floors.raise(origin, floor);
        head.newest = head.newest.max(newest);
        head.entries += top.saturating_sub(floor);
    }
    heads.sort_by(|a, b| a.room.cmp(&b.room));
    match lost(connection, &mut heads) {
        Err(error) if is_damage(&error) => {
            tracing::warn!(%error, "which entries are lost cannot be read: they count as unreadable where they are found");
        }
        other => other?,
    }
    Ok(heads)
}

/// Reads which entries are lost.
fn lost(connection: &Connection, heads: &mut [Head]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT r.name, o.server, o.boot, l.id FROM lost AS l JOIN parts AS p ON p.id = l.id >> ?1
         JOIN rooms AS r ON r.id = p.room JOIN origins AS o ON o.id = p.origin
         WHERE l.id & ?2 > p.floor ORDER BY r.name, o.server, o.boot, l.id",
    )?;
    let mut rows = statement.query([i64::from(SEQ_BITS), (SEQ_BOUND - 1).cast_signed()])?;
    while let Some(row) = rows.next()? {
        let name: Option<RoomName> = row.get_ref(0)?.as_str().ok().and_then(|name| name.parse().ok());
        let origin = Origin { id: ServerId(row.get(1)?), boot: Boot(row.get::<_, i64>(2)?.cast_unsigned()) };
        let head = heads.iter_mut().find(|head| Some(&head.room) == name.as_ref());
        if let Some(head) = head.filter(|head| head.lost.len() < LOST_MAX) {
            head.lost.push((origin, seq_of(row.get(3)?)));
        }
    }
    Ok(())
}

/// Room, origin, the last entry, the floor, the newest entry.
type Part = (RoomName, Origin, u64, u64, DisplayOrder);

/// One origin's part of a room; `None` where the row makes no sense.
fn part(row: &Row<'_>) -> rusqlite::Result<Option<Part>> {
    let Some(room) = row.get_ref(0)?.as_str().ok().and_then(|name| name.parse().ok()) else { return Ok(None) };
    let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let origin = Origin { id: ServerId(row.get(1)?), boot: Boot(unsigned(2)?) };
    let newest = (Hlc { millis: unsigned(6)?, counter: row.get(7)? }, origin, unsigned(5)?);
    Ok(Some((room, origin, unsigned(3)?, unsigned(4)?, newest)))
}
