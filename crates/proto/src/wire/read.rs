//! Reads the lines that [`lines`](super::lines) writes, as they are written there: what has its fields in another order, an
//! escape in a text, or anything else about it, is read by serde. So whatever is read here is what serde reads, at a third
//! of the cost.

use crate::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId, RoomName},
    log::{Entry, Hash, VersionVector},
    text,
    wire::{
        frame::{Ack, Author, Post, Vectors},
        number::BOUND,
        reader::Reader,
    },
};

/// [`Frame::Entry`](super::Frame::Entry), if it is one in its usual form.
pub(super) fn entry(line: &[u8]) -> Option<Entry> {
    let mut reader = Reader(line);
    reader.skip(br#"{"t":"entry","r":"#)?;
    let room = reader.text()?.parse().ok()?;
    reader.skip(br#","o":["#)?;
    let origin = reader.origin()?;
    reader.skip(br#"],"s":"#)?;
    let seq = reader.number(BOUND)?;
    reader.skip(br#","h":"#)?;
    let hlc = reader.hlc()?;
    reader.skip(br#","f":"#)?;
    let from = reader.text()?.parse().ok()?;
    reader.skip(br#","p":"#)?;
    let person = reader.person()?;
    reader.skip(br#","d":"#)?;
    let device = reader.device()?;
    reader.skip(br#","c":"#)?;
    let client_seq = reader.number(BOUND)?;
    reader.skip(br#","k":"#)?;
    let kind = reader.text()?.into();
    reader.skip(br#","b":"#)?;
    let body = reader.text()?.into();
    reader.skip(br#","x":"#)?;
    let hash = Hash(text::decode(reader.text()?)?);
    reader.end()?;
    Some(Entry { room, origin, seq, hlc, from, person, device, client_seq, kind, body, hash })
}

/// [`Frame::Post`](super::Frame::Post), if it is one in its usual form.
pub(super) fn post(line: &[u8]) -> Option<Post> {
    let mut reader = Reader(line);
    reader.skip(br#"{"t":"post","room":"#)?;
    let room = reader.text()?.parse().ok()?;
    reader.skip(br#","seq":"#)?;
    let seq = reader.number(BOUND)?;
    reader.skip(br#","oldest":"#)?;
    let oldest = reader.number(BOUND)?;
    reader.skip(br#","shown":"#)?;
    let shown = reader.hlc()?;
    reader.skip(br#","kind":"#)?;
    let kind = reader.text()?.to_owned();
    reader.skip(br#","body":"#)?;
    let body = reader.text()?.to_owned();
    let author = if reader.has(br#","author":{"name":"#) { Some(reader.author()?) } else { None };
    reader.end()?;
    Some(Post { room, seq, oldest, shown, kind, body, detour: 0, author })
}

/// [`Frame::Ack`](super::Frame::Ack), if it is one in its usual form.
pub(super) fn ack(line: &[u8]) -> Option<Ack> {
    let mut reader = Reader(line);
    reader.skip(br#"{"t":"ack","room":"#)?;
    let room = reader.text()?.parse().ok()?;
    reader.skip(br#","seq":"#)?;
    let seq = reader.number(BOUND)?;
    reader.skip(br#","origin":["#)?;
    let origin = reader.origin()?;
    reader.skip(br#"],"entry":"#)?;
    let entry = reader.number(BOUND)?;
    reader.skip(br#","hlc":"#)?;
    let hlc = reader.hlc()?;
    reader.skip(br#","copies":"#)?;
    let copies = reader.small()?;
    reader.skip(br#","stored":"#)?;
    let stored = reader.flag()?;
    reader.skip(br#","durable":"#)?;
    let durable = reader.flag()?;
    let to = if reader.has(br#","to":["#) { Some(reader.device_of_person()?) } else { None };
    reader.end()?;
    Some(Ack { room, seq, origin, entry, hlc, copies, stored, durable, to })
}

/// The vectors of [`Frame::Cursor`](super::Frame::Cursor), if it is one in its usual form: rooms and origins in their order.
pub(super) fn cursor(line: &[u8]) -> Option<Vectors> {
    let mut reader = Reader(line);
    reader.skip(br#"{"t":"cursor","rooms":{"#)?;
    let mut rooms = Vectors::new();
    loop {
        let room: RoomName = reader.text()?.parse().ok()?;
        if rooms.last_key_value().is_some_and(|(last, _)| *last >= room) {
            return None;
        }
        reader.skip(b":")?;
        rooms.insert(room, reader.vector()?);
        if reader.has(b"}") {
            break;
        }
        reader.skip(b",")?;
    }
    reader.end()?;
    Some(rooms)
}

/// The number of [`Frame::Ping`](super::Frame::Ping), if it is one in its usual form.
pub(super) fn ping(line: &[u8]) -> Option<u64> {
    let mut reader = Reader(line);
    reader.skip(br#"{"t":"ping","n":"#)?;
    let n = reader.number(BOUND)?;
    reader.end()?;
    Some(n)
}

impl Reader<'_> {
    fn hlc(&mut self) -> Option<Hlc> {
        self.skip(b"[")?;
        let millis = self.number(Hlc::MILLIS_BOUND)?;
        self.skip(b",")?;
        let counter = self.small()?;
        self.skip(b"]")?;
        Some(Hlc { millis, counter })
    }

    fn vector(&mut self) -> Option<VersionVector> {
        self.skip(b"{")?;
        let mut seqs: Vec<(Origin, u64)> = Vec::with_capacity(1);
        while !self.has(b"}") {
            if !seqs.is_empty() {
                self.skip(b",")?;
            }
            self.skip(b"\"")?;
            let id = self.id()?;
            self.skip(b".")?;
            let origin = Origin { id, boot: self.boot()? };
            self.skip(b"\":")?;
            if seqs.last().is_some_and(|(last, _)| *last >= origin) {
                return None;
            }
            seqs.push((origin, self.number(BOUND)?));
        }
        Some(seqs.into_iter().collect())
    }

    fn person(&mut self) -> Option<PersonId> {
        text::decode(self.text()?).map(PersonId)
    }

    fn device(&mut self) -> Option<DeviceId> {
        text::decode(self.text()?).map(|bytes| DeviceId(u64::from_be_bytes(bytes)))
    }

    /// What follows the key of an author's name.
    fn author(&mut self) -> Option<Author> {
        let name = self.text()?.parse().ok()?;
        self.skip(br#","person":"#)?;
        let person = self.person()?;
        self.skip(br#","device":"#)?;
        let device = self.device()?;
        self.skip(br#","vouched":"#)?;
        let vouched = self.hlc()?;
        self.skip(b"}")?;
        Some(Author { name, person, device, vouched })
    }

    /// What follows the bracket of such a pair.
    fn device_of_person(&mut self) -> Option<(PersonId, DeviceId)> {
        let person = self.person()?;
        self.skip(b",")?;
        let device = self.device()?;
        self.skip(b"]")?;
        Some((person, device))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::{Boot, PersonName, ServerId},
        wire::{Frame, number::BOOT_BOUND},
    };

    const LINES: [&str; 8] = [
        r#"{"t":"entry","r":"tea","o":[1,1882552126147351],"s":10,"h":[1795341731000,0],"f":"anna","p":"AQEBAQEBAQEBAQEBAQEBAQ","d":"AAAAAAAAAAE","c":3,"k":"message","b":"größer 茶","x":"AgICAgICAgICAgICAgICAg"}"#,
        r#"{"t":"post","room":"tea","seq":3,"oldest":2,"shown":[0,0],"kind":"message","body":"hello"}"#,
        r#"{"t":"post","room":"tea","seq":3,"oldest":2,"shown":[9,1],"kind":"message","body":"hello","author":{"name":"anna","person":"AQEBAQEBAQEBAQEBAQEBAQ","device":"AAAAAAAAAAE","vouched":[1795341731000,4294967295]}}"#,
        r#"{"t":"ack","room":"tea","seq":3,"origin":[1,7],"entry":9007199254740991,"hlc":[5,0],"copies":2,"stored":true,"durable":false}"#,
        r#"{"t":"ack","room":"tea","seq":3,"origin":[4294967295,7],"entry":10,"hlc":[5,0],"copies":0,"stored":false,"durable":true,"to":["AQEBAQEBAQEBAQEBAQEBAQ","AAAAAAAAAAE"]}"#,
        r#"{"t":"ping","n":17}"#,
        r#"{"t":"cursor","rooms":{"a":{},"té":{"1.7":9007199254740991,"1.1882552126147351":1,"2.6":0}}}"#,
        r#"{"t":"cursor","rooms":{"tea":{"4294967295.4503599627370495":12}}}"#,
    ];

    /// What is read here, and whether anything is: it has to be what serde reads, or nothing.
    fn check(line: &[u8]) -> bool {
        let read = entry(line).map(Frame::Entry).or_else(|| post(line).map(Frame::Post));
        let read = read.or_else(|| ack(line).map(Frame::Ack));
        let read = read.or_else(|| ping(line).map(|n| Frame::Ping { n }));
        let Some(read) = read.or_else(|| cursor(line).map(|rooms| Frame::Cursor { rooms })) else { return false };
        let expected = serde_json::from_slice::<Frame>(line);
        assert_eq!(
            format!("{:?}", Ok::<_, String>(read)),
            format!("{:?}", expected.map_err(|error| error.to_string()))
        );
        true
    }

    /// A number, often the last or the first beyond a bound.
    fn number(bound: u64) -> impl Strategy<Value = u64> {
        prop_oneof![8 => 0..bound, 4 => Just(bound - 1), 1 => Just(bound), 1 => Just(u64::MAX)]
    }

    fn text() -> impl Strategy<Value = String> {
        let char =
            prop_oneof![any::<char>(), prop::sample::select(vec!['"', '\\', '\n', '\0', '\u{1f}', '\u{7f}', 'a'])];
        prop_oneof![prop::collection::vec(char, 0..20).prop_map(String::from_iter), "[a-zé茶]{0,20}"]
    }

    fn room() -> impl Strategy<Value = RoomName> {
        text().prop_filter_map("no name of a room", |text| text.parse().ok())
    }

    fn name() -> impl Strategy<Value = PersonName> {
        text().prop_filter_map("no name of a person", |text| text.parse().ok())
    }

    fn origin() -> impl Strategy<Value = Origin> {
        (any::<u32>(), number(BOOT_BOUND)).prop_map(|(id, boot)| Origin { id: ServerId(id), boot: Boot(boot) })
    }

    fn hlc() -> impl Strategy<Value = Hlc> {
        (number(Hlc::MILLIS_BOUND), any::<u32>()).prop_map(|(millis, counter)| Hlc { millis, counter })
    }

    fn device() -> impl Strategy<Value = (PersonId, DeviceId)> {
        any::<([u8; 16], u64)>().prop_map(|(person, device)| (PersonId(person), DeviceId(device)))
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let seqs = || (number(BOUND), number(BOUND));
        let entry = (room(), origin(), seqs(), hlc(), name(), device(), [text(), text()], any::<[u8; 16]>()).prop_map(
            |(room, origin, (seq, client_seq), hlc, from, (person, device), [kind, body], hash)| {
                let (kind, body, hash) = (kind.into(), body.into(), Hash(hash));
                Frame::Entry(Entry { room, origin, seq, hlc, from, person, device, client_seq, kind, body, hash })
            },
        );
        let author = (name(), device(), hlc());
        let author = author.prop_map(|(name, (person, device), vouched)| Author { name, person, device, vouched });
        let post = (room(), seqs(), hlc(), [text(), text()], 0..3_u8, prop::option::of(author)).prop_map(
            |(room, (seq, oldest), shown, [kind, body], detour, author)| {
                Frame::Post(Post { room, seq, oldest, shown, kind, body, detour, author })
            },
        );
        let ack = (room(), seqs(), origin(), hlc(), any::<(u32, bool, bool)>(), prop::option::of(device())).prop_map(
            |(room, (seq, entry), origin, hlc, (copies, stored, durable), to)| {
                Frame::Ack(Ack { room, seq, origin, entry, hlc, copies, stored, durable, to })
            },
        );
        let ping = number(BOUND).prop_map(|n| Frame::Ping { n });
        let pong = number(BOUND).prop_map(|n| Frame::Pong { n });
        let vector = prop::collection::vec((origin(), number(BOUND)), 0..4).prop_map(VersionVector::from_iter);
        let cursor = prop::collection::btree_map(room(), vector, 0..4).prop_map(|rooms| Frame::Cursor { rooms });
        prop_oneof![entry, post, ack, ping, pong, cursor]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_and_read_by_hand_is_what_serde_writes_and_reads(frame in frames()) {
            let line = frame.to_line();
            prop_assert_eq!(&line, &(serde_json::to_string(&frame).unwrap() + "\n"));
            check(line.as_bytes());
            let expected = serde_json::from_str::<Frame>(&line).ok();
            prop_assert_eq!(format!("{:?}", Frame::from_line(line.as_bytes())), format!("{:?}", expected), "{}", line);
            if let Some(read) = expected {
                prop_assert_eq!(format!("{read:?}"), format!("{frame:?}"));
            }
        }
    }

    #[test]
    fn what_is_said_twice_is_left_to_serde() {
        for rooms in [
            r#"{"a":{"1.7":5,"1.7":4}}"#,
            r#"{"a":{"1.7":5,"1.7":0}}"#,
            r#"{"a":{"2.7":5,"1.7":4}}"#,
            r#"{"a":{"1.7":5},"a":{"1.7":4}}"#,
            "{}",
        ] {
            assert!(!check(format!(r#"{{"t":"cursor","rooms":{rooms}}}"#).as_bytes()), "{rooms}");
        }
    }

    #[test]
    fn what_is_read_is_what_serde_reads() {
        for line in LINES {
            assert!(check(line.as_bytes()), "{line}");
            assert!(check(format!("{line}\n").as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_damaged_anywhere_is_read_as_serde_reads_it_or_not_at_all() {
        for line in LINES {
            for at in 0..line.len() {
                check(&line.as_bytes()[..at]);
                for byte in *b"\"\\,:[]{}0919 tx\x01\xff\n-." {
                    let mut damaged = line.as_bytes().to_vec();
                    damaged[at] = byte;
                    check(&damaged);
                    damaged.insert(at, line.as_bytes()[at]);
                    check(&damaged);
                    damaged.drain(at..(at + 3).min(line.len()));
                    check(&damaged);
                }
            }
        }
    }
}
