//! Reads the lines that [`lines`](super::lines) writes, as they are written there: what has its fields in another order, an
//! escape in a text, or anything else about it, is read by serde. So whatever is read here is what serde reads, at a third
//! of the cost.

use crate::{
    hlc::Hlc,
    ids::{Boot, DeviceId, Origin, PersonId, ServerId},
    log::{Entry, Hash},
    text,
    wire::{
        frame::{Ack, Author, Post},
        number,
    },
};

/// [`Frame::Entry`](super::Frame::Entry), if it is one in its usual form.
pub(super) fn entry(line: &[u8]) -> Option<Entry> {
    let mut reader = Reader::new(line)?;
    reader.skip(r#"{"t":"entry","r":"#)?;
    let room = reader.text()?.parse().ok()?;
    reader.skip(r#","o":"#)?;
    let origin = reader.origin()?;
    reader.skip(r#","s":"#)?;
    let seq = reader.number(number::BOUND)?;
    reader.skip(r#","h":"#)?;
    let hlc = reader.hlc()?;
    reader.skip(r#","f":"#)?;
    let from = reader.text()?.parse().ok()?;
    reader.skip(r#","p":"#)?;
    let person = reader.person()?;
    reader.skip(r#","d":"#)?;
    let device = reader.device()?;
    reader.skip(r#","c":"#)?;
    let client_seq = reader.number(number::BOUND)?;
    reader.skip(r#","k":"#)?;
    let kind = reader.text()?.into();
    reader.skip(r#","b":"#)?;
    let body = reader.text()?.into();
    reader.skip(r#","x":"#)?;
    let hash = Hash(text::decode(reader.text()?)?);
    reader.end()?;
    Some(Entry { room, origin, seq, hlc, from, person, device, client_seq, kind, body, hash })
}

/// [`Frame::Post`](super::Frame::Post), if it is one in its usual form.
pub(super) fn post(line: &[u8]) -> Option<Post> {
    let mut reader = Reader::new(line)?;
    reader.skip(r#"{"t":"post","room":"#)?;
    let room = reader.text()?.parse().ok()?;
    reader.skip(r#","seq":"#)?;
    let seq = reader.number(number::BOUND)?;
    reader.skip(r#","oldest":"#)?;
    let oldest = reader.number(number::BOUND)?;
    reader.skip(r#","shown":"#)?;
    let shown = reader.hlc()?;
    reader.skip(r#","kind":"#)?;
    let kind = reader.text()?.to_owned();
    reader.skip(r#","body":"#)?;
    let body = reader.text()?.to_owned();
    let author = if reader.skip(r#","author":{"name":"#).is_some() { Some(reader.author()?) } else { None };
    reader.end()?;
    Some(Post { room, seq, oldest, shown, kind, body, detour: 0, author })
}

/// [`Frame::Ack`](super::Frame::Ack), if it is one in its usual form.
pub(super) fn ack(line: &[u8]) -> Option<Ack> {
    let mut reader = Reader::new(line)?;
    reader.skip(r#"{"t":"ack","room":"#)?;
    let room = reader.text()?.parse().ok()?;
    reader.skip(r#","seq":"#)?;
    let seq = reader.number(number::BOUND)?;
    reader.skip(r#","origin":"#)?;
    let origin = reader.origin()?;
    reader.skip(r#","entry":"#)?;
    let entry = reader.number(number::BOUND)?;
    reader.skip(r#","hlc":"#)?;
    let hlc = reader.hlc()?;
    reader.skip(r#","copies":"#)?;
    let copies = reader.small()?;
    reader.skip(r#","stored":"#)?;
    let stored = reader.truth()?;
    reader.skip(r#","durable":"#)?;
    let durable = reader.truth()?;
    let to = if reader.skip(r#","to":["#).is_some() { Some(reader.device_of_person()?) } else { None };
    reader.end()?;
    Some(Ack { room, seq, origin, entry, hlc, copies, stored, durable, to })
}

/// What is left of a line.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn new(line: &'a [u8]) -> Option<Self> {
        Some(Self { rest: std::str::from_utf8(line).ok()? })
    }

    /// Goes on behind `what`, if that comes next.
    fn skip(&mut self, what: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(what)?;
        Some(())
    }

    /// A text in quotation marks without escapes.
    fn text(&mut self) -> Option<&'a str> {
        let inside = self.rest.strip_prefix('"')?;
        let end = inside.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\')?;
        let (text, rest) = inside.split_at(end);
        self.rest = rest.strip_prefix('"')?;
        Some(text)
    }

    /// A number below `bound`, which is at most [`number::BOUND`].
    fn number(&mut self, bound: u64) -> Option<u64> {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (text, rest) = self.rest.split_at(digits);
        // No number below the bound has more.
        if digits == 0 || digits > 16 || (digits > 1 && text.starts_with('0')) {
            return None;
        }
        self.rest = rest;
        let number = text.bytes().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        (number < bound).then_some(number)
    }

    fn small(&mut self) -> Option<u32> {
        self.number(1 << 32)?.try_into().ok()
    }

    fn truth(&mut self) -> Option<bool> {
        match self.skip("true") {
            Some(()) => Some(true),
            None => self.skip("false").map(|()| false),
        }
    }

    fn origin(&mut self) -> Option<Origin> {
        self.skip("[")?;
        let id = ServerId(self.small()?);
        self.skip(",")?;
        let boot = Boot(self.number(number::BOOT_BOUND)?);
        self.skip("]")?;
        Some(Origin { id, boot })
    }

    fn hlc(&mut self) -> Option<Hlc> {
        self.skip("[")?;
        let millis = self.number(Hlc::MILLIS_BOUND)?;
        self.skip(",")?;
        let counter = self.small()?;
        self.skip("]")?;
        Some(Hlc { millis, counter })
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
        self.skip(r#","person":"#)?;
        let person = self.person()?;
        self.skip(r#","device":"#)?;
        let device = self.device()?;
        self.skip(r#","vouched":"#)?;
        let vouched = self.hlc()?;
        self.skip("}")?;
        Some(Author { name, person, device, vouched })
    }

    /// What follows the bracket of such a pair.
    fn device_of_person(&mut self) -> Option<(PersonId, DeviceId)> {
        let person = self.person()?;
        self.skip(",")?;
        let device = self.device()?;
        self.skip("]")?;
        Some((person, device))
    }

    /// Nothing follows but the end of the line.
    fn end(&mut self) -> Option<()> {
        self.skip("}")?;
        matches!(self.rest, "" | "\n").then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frame;

    const LINES: [&str; 5] = [
        r#"{"t":"entry","r":"tea","o":[1,1882552126147351],"s":10,"h":[1795341731000,0],"f":"anna","p":"AQEBAQEBAQEBAQEBAQEBAQ","d":"AAAAAAAAAAE","c":3,"k":"message","b":"größer 茶","x":"AgICAgICAgICAgICAgICAg"}"#,
        r#"{"t":"post","room":"tea","seq":3,"oldest":2,"shown":[0,0],"kind":"message","body":"hello"}"#,
        r#"{"t":"post","room":"tea","seq":3,"oldest":2,"shown":[9,1],"kind":"message","body":"hello","author":{"name":"anna","person":"AQEBAQEBAQEBAQEBAQEBAQ","device":"AAAAAAAAAAE","vouched":[1795341731000,4294967295]}}"#,
        r#"{"t":"ack","room":"tea","seq":3,"origin":[1,7],"entry":9007199254740991,"hlc":[5,0],"copies":2,"stored":true,"durable":false}"#,
        r#"{"t":"ack","room":"tea","seq":3,"origin":[4294967295,7],"entry":10,"hlc":[5,0],"copies":0,"stored":false,"durable":true,"to":["AQEBAQEBAQEBAQEBAQEBAQ","AAAAAAAAAAE"]}"#,
    ];

    /// What is read here, and whether anything is: it has to be what serde reads, or nothing.
    fn check(line: &[u8]) -> bool {
        let read = entry(line).map(Frame::Entry).or_else(|| post(line).map(Frame::Post));
        let Some(read) = read.or_else(|| ack(line).map(Frame::Ack)) else { return false };
        let expected = serde_json::from_slice::<Frame>(line);
        assert_eq!(
            format!("{:?}", Ok::<_, String>(read)),
            format!("{:?}", expected.map_err(|error| error.to_string()))
        );
        true
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
