//! One record of a room's log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId, PersonName, RoomName},
    limits, text,
    wire::number,
};

/// A message or a change, made by its home and never altered. The wire form has one-letter keys, since every receiver of
/// every message pays for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The room.
    #[serde(rename = "r")]
    pub room: RoomName,
    /// Who sequenced it.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// Its number among its origin's entries of this room: from 1, without holes.
    #[serde(rename = "s", deserialize_with = "number::safe")]
    pub seq: u64,
    /// When, on cluster time.
    #[serde(rename = "h")]
    pub hlc: Hlc,
    /// The name that its author had.
    #[serde(rename = "f")]
    pub from: PersonName,
    /// Its author.
    #[serde(rename = "p")]
    pub person: PersonId,
    /// The author's process.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// Its number among the device's posts to this room.
    #[serde(rename = "c", deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// What it is: `message`.
    #[serde(rename = "k")]
    pub kind: Arc<str>,
    /// The text.
    #[serde(rename = "b")]
    pub body: Arc<str>,
    /// [`Entry::digest`], made by the home.
    #[serde(rename = "x")]
    pub hash: Hash,
}

/// The first 128 bits of a SHA-256. As text 22 characters of base64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hash(pub [u8; 16]);

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text::decode(&text).map(Self).ok_or_else(|| serde::de::Error::custom("this is not a hash"))
    }
}

/// The kind of a message that a person typed.
pub const MESSAGE: &str = "message";
/// The kind of a marker: there was an entry with this name, and no member can produce it any more. See [`Entry::lost`].
pub const LOST: &str = "lost";

/// Who wrote a post, and which of their posts it is: the same in every copy and in every repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PostKey {
    /// The author.
    pub person: PersonId,
    /// The author's process.
    pub device: DeviceId,
    /// The post's number among the device's posts to the room.
    pub client_seq: u64,
}

/// Where an entry is shown: earlier ones first, the same on every copy.
pub type DisplayOrder = (Hlc, Origin, u64);

/// [`Entry::content`] of a post that is no entry yet.
#[must_use]
pub fn content(kind: &str, body: &str) -> Hash {
    let mut hash = Sha256::new();
    let mut header = String::with_capacity(kind.len() + 8);
    push_field(&mut header, kind);
    hash.update(header);
    hash.update(body);
    Hash::first_of(&hash.finalize())
}

/// Bytes of a header, mostly.
const HEADER_BYTES: usize = 320;

/// Adds a netstring.
fn push_field(header: &mut String, field: &str) {
    text::push_number(header, field.len() as u64);
    header.push(':');
    header.push_str(field);
    header.push(',');
}

/// The same of a number.
fn push_digits(header: &mut String, number: u64) {
    text::push_number(header, text::digits(number) as u64);
    header.push(':');
    text::push_number(header, number);
    header.push(',');
}

/// The same of two with a dot between them.
fn push_dotted(header: &mut String, first: u64, second: u64) {
    text::push_number(header, (text::digits(first) + 1 + text::digits(second)) as u64);
    header.push(':');
    text::push_number(header, first);
    header.push('.');
    text::push_number(header, second);
    header.push(',');
}

/// The same of bytes whose text has `CHARS` characters.
fn push_encoded<const CHARS: u64>(header: &mut String, bytes: &[u8]) {
    text::push_number(header, CHARS);
    header.push(':');
    text::push_encoded(header, bytes);
    header.push(',');
}

impl Hash {
    fn first_of(digest: &[u8]) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

impl Entry {
    /// The marker that takes the place of an entry which is lost. All of it follows from the name, but the time: that of an
    /// entry beside it, so that it is shown where the other one was.
    pub fn lost(room: RoomName, origin: Origin, seq: u64, hlc: Hlc) -> Self {
        let from = "hobnob".parse().expect("it is short, and has no spaces");
        let (person, device) = (PersonId([0; 16]), DeviceId(0));
        let (kind, body, hash) = (LOST.into(), "".into(), Hash::default());
        let mut entry = Self { room, origin, seq, hlc, from, person, device, client_seq: seq, kind, body, hash };
        entry.hash = entry.digest();
        entry
    }

    /// Whether it is such a marker: any other content with its name takes its place.
    pub fn is_lost(&self) -> bool {
        &*self.kind == LOST
    }

    /// Its place in the room.
    pub fn order(&self) -> DisplayOrder {
        (self.hlc, self.origin, self.seq)
    }

    /// The post that it came from.
    pub fn post_key(&self) -> PostKey {
        PostKey { person: self.person, device: self.device, client_seq: self.client_seq }
    }

    /// The hash over its header and the hash of its body, so that a deleted body may be emptied later. Each field as
    /// text in a netstring (`length:bytes,`), in the order of the struct, with the body's SHA-256 in base64 in its
    /// place.
    #[must_use]
    pub fn digest(&self) -> Hash {
        let mut header = String::with_capacity(HEADER_BYTES);
        push_field(&mut header, self.room.as_str());
        push_dotted(&mut header, self.origin.id.0.into(), self.origin.boot.0);
        push_digits(&mut header, self.seq);
        push_dotted(&mut header, self.hlc.millis, self.hlc.counter.into());
        push_field(&mut header, self.from.as_str());
        push_encoded::<22>(&mut header, &self.person.0);
        push_encoded::<11>(&mut header, &self.device.0.to_be_bytes());
        push_digits(&mut header, self.client_seq);
        push_field(&mut header, &self.kind);
        push_encoded::<43>(&mut header, &Sha256::digest(self.body.as_bytes()));
        Hash::first_of(&Sha256::digest(header.as_bytes()))
    }

    /// What a post says, by which a repetition of it is known from another one with its number.
    #[must_use]
    pub fn content(&self) -> Hash {
        content(&self.kind, &self.body)
    }

    /// Whether a store can hold it (of markers, it holds those of [`Self::lost`]), and cluster time goes on beyond it: so it may be of any time that a clock can say that
    /// is wrong, up to the year 2106 where boots end too, or a day from `now_millis` (cluster time).
    #[must_use]
    pub fn is_bounded(&self, now_millis: u64) -> bool {
        let latest =
            limits::CLOCK_MILLIS_MAX.max(now_millis.saturating_add(limits::ENTRY_AHEAD_MAX.as_millis() as u64));
        (1..limits::SEQ_BOUND).contains(&self.seq)
            && self.hlc.millis <= latest.min(limits::CLUSTER_MILLIS_BOUND - 1)
            && self.body.len() <= limits::BODY_BYTES_MAX
            && self.kind.len() <= limits::KIND_BYTES_MAX
            && (!self.is_lost() || *self == Self::lost(self.room.clone(), self.origin, self.seq, self.hlc))
    }

    /// Whether its hash is the one that its content has.
    pub fn is_intact(&self) -> bool {
        self.digest() == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, ServerId};

    /// The digest as it is described, field by field.
    fn described(entry: &Entry) -> Hash {
        let mut header = Sha256::new();
        for field in [
            entry.room.as_str(),
            &entry.origin.to_string(),
            &entry.seq.to_string(),
            &format!("{}.{}", entry.hlc.millis, entry.hlc.counter),
            entry.from.as_str(),
            &entry.person.to_string(),
            &entry.device.to_string(),
            &entry.client_seq.to_string(),
            &entry.kind,
            &text::encode(&Sha256::digest(entry.body.as_bytes())),
        ] {
            header.update(format!("{}:{field},", field.len()));
        }
        Hash::first_of(&header.finalize())
    }

    #[test]
    fn a_digest_is_over_all_fields_as_netstrings() {
        for number in [0, 9, 10, 1 << 40, (1 << 53) - 1] {
            let entry = Entry {
                room: "té".parse().unwrap(),
                origin: Origin { id: ServerId(number as u32), boot: Boot(number) },
                seq: number,
                hlc: Hlc { millis: number, counter: number as u32 },
                from: "anna".parse().unwrap(),
                person: PersonId([number as u8; 16]),
                device: DeviceId(u64::MAX - number),
                client_seq: number,
                kind: MESSAGE.into(),
                body: "größer".into(),
                hash: Hash::default(),
            };
            assert_eq!(entry.digest(), described(&entry));
        }
    }
}
