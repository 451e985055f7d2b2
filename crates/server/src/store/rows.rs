//! Entries as rows.

use std::{str::FromStr, sync::Arc};

use hobnob_proto::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId, PersonName, RoomName},
    log::{Entry, Hash, entry::MESSAGE, room::Kept},
    wire::Frame,
};
use rusqlite::{Row, types::ValueRef};

use super::schema::seq_of;

/// The columns that [`entry`] reads, of `entries AS e LEFT JOIN authors AS a`.
pub(crate) const COLUMNS: &str =
    "e.id, e.millis, e.counter, e.client_seq, e.kind, e.hash, e.body, a.person, a.device, a.name";
/// Where they come from.
pub(crate) const TABLES: &str = "entries AS e LEFT JOIN authors AS a ON a.id = e.author";

/// The entry of a row: `Err` with its number where that is not what was written.
pub(crate) fn entry(row: &Row<'_>, room: &RoomName, origin: Origin) -> rusqlite::Result<Result<Kept, u64>> {
    let seq = seq_of(row.get(0)?);
    let read = || -> Option<Entry> {
        let kind = match row.get_ref(4).ok()? {
            ValueRef::Null => MESSAGE,
            value => value.as_str().ok()?,
        };
        Some(Entry {
            room: room.clone(),
            origin,
            seq,
            hlc: Hlc { millis: number(row, 1)?, counter: u32::try_from(number(row, 2)?).ok()? },
            from: PersonName::from_str(text(row, 9)?).ok()?,
            person: PersonId(blob(row, 7)?),
            device: DeviceId(row.get::<_, i64>(8).ok()?.cast_unsigned()),
            client_seq: number(row, 3)?,
            kind: kind.into(),
            body: text(row, 6)?.into(),
            hash: Hash(blob(row, 5)?),
        })
    };
    Ok(read().filter(Entry::is_intact).map(kept).ok_or(seq))
}

/// An entry with its line.
pub(crate) fn kept(entry: Entry) -> Kept {
    let frame = Frame::Entry(entry);
    let line = frame.to_line().into();
    let Frame::Entry(entry) = frame else { unreachable!("it was made two lines above") };
    Kept { entry: Arc::new(entry), line }
}

/// A number that is not negative.
fn number(row: &Row<'_>, column: usize) -> Option<u64> {
    u64::try_from(row.get::<_, i64>(column).ok()?).ok()
}

/// A text that is one.
fn text<'a>(row: &'a Row<'_>, column: usize) -> Option<&'a str> {
    row.get_ref(column).ok()?.as_str().ok()
}

/// Bytes of that length.
fn blob<const N: usize>(row: &Row<'_>, column: usize) -> Option<[u8; N]> {
    row.get_ref(column).ok()?.as_blob().ok()?.try_into().ok()
}
