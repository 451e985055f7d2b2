//! Lines of an import, and what became of them.

use serde::{Deserialize, Serialize};

use crate::{ids::RoomName, log::Entry, wire::number};

/// A line of an export on its way to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its number, chosen by the client: grows with every line of an import.
    #[serde(deserialize_with = "number::safe")]
    pub n: u64,
    /// What it says.
    pub what: Item,
    /// Of an entry: up to this number of its origin the file has none, and need not, since they were no longer kept.
    #[serde(default, skip_serializing_if = "number::is_zero", deserialize_with = "number::safe")]
    pub floor: u64,
}

/// What a line of an import says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// There is such a room.
    Room(RoomName),
    /// An entry of a room's log.
    Entry(Entry),
}

/// What became of a line of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is new, and kept from now on.
    Kept,
    /// It was there.
    Known,
    /// Its content does not have the hash that it carries: refused.
    Rotten,
    /// An entry of that origin and number is held, and is another one: refused.
    Conflict,
    /// An earlier entry of its origin is neither held nor below a floor: refused.
    Hole,
    /// It breaks a bound of the protocol, or claims to be of the very run of the server that is asked: refused.
    Invalid,
    /// There is no space for one more room, or for one more origin in the room: refused.
    Full,
    /// The server cannot write to its disk.
    CannotStore,
}
