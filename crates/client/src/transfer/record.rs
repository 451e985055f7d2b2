//! An entry as programs see it: a line of `tail --json` and of an export.

use std::sync::Arc;

use hobnob_proto::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId, PersonName, RoomName},
    log::{Entry, Hash},
};
use serde::{Deserialize, Serialize};

/// An entry with the names that programs rely on, in the order of the alphabet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    body: Arc<str>,
    client_seq: u64,
    device: DeviceId,
    from: PersonName,
    hash: Hash,
    hlc: Hlc,
    kind: Arc<str>,
    origin: Origin,
    person: PersonId,
    room: RoomName,
    seq: u64,
}

impl From<Entry> for Record {
    fn from(entry: Entry) -> Self {
        let Entry { room, origin, seq, hlc, from, person, device, client_seq, kind, body, hash } = entry;
        Self { body, client_seq, device, from, hash, hlc, kind, origin, person, room, seq }
    }
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        let Record { body, client_seq, device, from, hash, hlc, kind, origin, person, room, seq } = record;
        Self { room, origin, seq, hlc, from, person, device, client_seq, kind, body, hash }
    }
}

/// The line of an entry, without its newline.
pub(crate) fn line(entry: Entry) -> String {
    serde_json::to_string(&Record::from(entry)).expect("it has string keys and no failing parts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tests::message;

    #[test]
    fn an_entry_has_the_names_that_programs_rely_on_and_is_read_again() {
        let expected = r#"{"body":"hi\u001b[2J","client_seq":5,"device":"AAAAAAAAAAQ","from":"anna","hash":"AAAAAAAAAAAAAAAAAAAAAA","hlc":[7,0],"kind":"message","origin":[1,2],"person":"AQEBAQEBAQEBAQEBAQEBAQ","room":"tea","seq":3}"#;
        let entry = message("tea", 7, "anna", "hi\x1b[2J");
        assert_eq!(line(entry.clone()), expected);
        assert_eq!(Entry::from(serde_json::from_str::<Record>(expected).unwrap()), entry);
    }
}
