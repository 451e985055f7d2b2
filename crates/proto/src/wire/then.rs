//! The short form of an entry's line: what it says that the line before it in the same packet did not.
//!
//! Entries of one origin stand in a packet one after the other, and most of what their lines say is the same: the room,
//! the origin, often the author. Whoever packs them says a line in full once in each packet, and then only what differs.
//! It means nothing beyond its packet, so that a packet that is lost takes no other with it. What comes out at the other
//! side is the full line, byte for byte: nobody but the session knows that it was ever shorter.
//!
//! ```text
//! {"t":"then","h":[12,0],"f":..,"p":..,"d":..,"c":..,"k":..,"b":"..","x":".."}
//! ```
//!
//! In this order, and without spaces. `b` and `x` are always there. The room and the origin are those of the entry
//! before, `s` is one more. `h` is the milliseconds since that one, and the counter; without it, the milliseconds are the
//! same and the counter is one more. Without `c`, that is one more. Without `f`, `p`, `d` or `k` these are the same.

use std::io::Write as _;

use crate::{
    log::Entry,
    text::decimal,
    wire::{
        number::BOUND,
        reader::{DIGITS_MAX, Reader},
    },
};

/// How such a line begins.
pub const LINE_START: &[u8] = br#"{"t":"then","#;
/// How the line of an entry begins.
const FULL_START: &[u8] = br#"{"t":"entry","r":"#;
/// What stands before the body, in both forms. Inside a string its quotes would be escaped.
const BODY_START: &str = r#","b":""#;

/// Appends the short form of `line`, the full line of `entry`, to be said directly after that of `previous`. Whether there
/// is one: only where `entry` follows `previous` in the same part of a log.
pub fn shorten(previous: &Entry, entry: &Entry, line: &[u8], out: &mut Vec<u8>) -> bool {
    let follows = entry.seq.checked_sub(1) == Some(previous.seq)
        && entry.origin == previous.origin
        && entry.hlc.millis >= previous.hlc.millis
        && entry.room == previous.room;
    let body = if follows { find(line, BODY_START.as_bytes()) } else { None };
    let Some(body) = body else { return false };
    let start = out.len();
    if write_short(previous, entry, out).is_err() {
        out.truncate(start);
        return false;
    }
    out.extend_from_slice(&line[body + 1..]);
    true
}

/// What stands before the body of a short line.
fn write_short(previous: &Entry, entry: &Entry, out: &mut Vec<u8>) -> std::io::Result<()> {
    out.extend_from_slice(LINE_START);
    let (before, now) = (previous.hlc, entry.hlc);
    if now.millis != before.millis || before.counter.checked_add(1) != Some(now.counter) {
        write!(out, r#""h":[{},{}],"#, now.millis - before.millis, now.counter)?;
    }
    if entry.from != previous.from {
        out.extend_from_slice(br#""f":"#);
        serde_json::to_writer(&mut *out, &entry.from)?;
        out.push(b',');
    }
    if entry.person != previous.person {
        write!(out, r#""p":"{}","#, entry.person)?;
    }
    if entry.device != previous.device {
        write!(out, r#""d":"{}","#, entry.device)?;
    }
    if previous.client_seq.checked_add(1) != Some(entry.client_seq) {
        write!(out, r#""c":{},"#, entry.client_seq)?;
    }
    if entry.kind != previous.kind {
        out.extend_from_slice(br#""k":"#);
        serde_json::to_writer(&mut *out, &entry.kind)?;
        out.push(b',');
    }
    Ok(())
}

/// Where the first `wanted` stands.
fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// What a line is to be understood by: what the entry before it said, as it stood there. It may be hostile: what is made
/// of it is a line like any other, to be read and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    room: &'a [u8],
    origin: &'a [u8],
    seq: u64,
    millis: u64,
    counter: u64,
    from: &'a [u8],
    person: &'a [u8],
    device: &'a [u8],
    client_seq: u64,
    kind: &'a [u8],
}

impl<'a> Context<'a> {
    /// What the full line of an entry says; `None` where it is no such line, or is written in another way.
    pub fn of_line(line: &'a [u8]) -> Option<Self> {
        let mut scan = Reader(line.strip_prefix(FULL_START)?);
        let room = scan.string()?;
        let origin = scan.after(br#","o":["#)?.until(b']')?;
        let seq = scan.after(br#"],"s":"#)?.number(BOUND)?;
        let millis = scan.after(br#","h":["#)?.number(BOUND)?;
        let counter = scan.after(b",")?.number(BOUND)?;
        let from = scan.after(br#"],"f":"#)?.string()?;
        let person = scan.after(br#","p":"#)?.string()?;
        let device = scan.after(br#","d":"#)?.string()?;
        let client_seq = scan.after(br#","c":"#)?.number(BOUND)?;
        let kind = scan.after(br#","k":"#)?.string()?;
        scan.0.starts_with(BODY_START.as_bytes()).then_some(())?;
        Some(Self { room, origin, seq, millis, counter, from, person, device, client_seq, kind })
    }

    /// The full line that a short one stands for, and what the next one is to be understood by; `None` where it is no such
    /// line, or one of its numbers is too great.
    pub fn expand(mut self, line: &'a [u8]) -> Option<(Self, Vec<u8>)> {
        let mut scan = Reader(line.strip_prefix(LINE_START)?);
        self.seq = self.seq.checked_add(1)?;
        if scan.has(br#""h":["#) {
            self.millis = self.millis.checked_add(scan.number(BOUND)?)?;
            self.counter = scan.after(b",")?.number(BOUND)?;
            scan.skip(b"],")?;
        } else {
            self.counter = self.counter.checked_add(1)?;
        }
        for (key, value) in
            [(br#""f":"#, &mut self.from), (br#""p":"#, &mut self.person), (br#""d":"#, &mut self.device)]
        {
            scan.take_string(key, value)?;
        }
        self.client_seq = if scan.has(br#""c":"#) {
            let number = scan.number(BOUND)?;
            scan.skip(b",")?;
            number
        } else {
            self.client_seq.checked_add(1)?
        };
        scan.take_string(br#""k":"#, &mut self.kind)?;
        scan.0.starts_with(&BODY_START.as_bytes()[1..]).then(|| (self, self.full(scan.0)))
    }

    /// The full line that ends with `body` and what follows it.
    fn full(&self, body: &[u8]) -> Vec<u8> {
        let Self { room, origin, from, person, device, kind, .. } = self;
        let strings: usize = [room, origin, from, person, device, kind].into_iter().map(|text| text.len()).sum();
        let mut line = Vec::with_capacity(FULL_START.len() + strings + 4 * DIGITS_MAX + 64 + body.len());
        let mut number = [0; 20];
        line.extend_from_slice(FULL_START);
        line.extend_from_slice(room);
        line.extend_from_slice(br#","o":["#);
        line.extend_from_slice(origin);
        line.extend_from_slice(br#"],"s":"#);
        line.extend_from_slice(decimal(self.seq, &mut number));
        line.extend_from_slice(br#","h":["#);
        line.extend_from_slice(decimal(self.millis, &mut number));
        line.push(b',');
        line.extend_from_slice(decimal(self.counter, &mut number));
        line.extend_from_slice(br#"],"f":"#);
        line.extend_from_slice(from);
        line.extend_from_slice(br#","p":"#);
        line.extend_from_slice(person);
        line.extend_from_slice(br#","d":"#);
        line.extend_from_slice(device);
        line.extend_from_slice(br#","c":"#);
        line.extend_from_slice(decimal(self.client_seq, &mut number));
        line.extend_from_slice(br#","k":"#);
        line.extend_from_slice(kind);
        line.push(b',');
        line.extend_from_slice(body);
        line
    }
}

impl<'a> Reader<'a> {
    /// The same, behind a text that has to stand here.
    fn after<const N: usize>(&mut self, text: &[u8; N]) -> Option<&mut Self> {
        self.has(text).then_some(self)
    }

    /// What stands before a byte.
    fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let (text, rest) = self.0.split_at(self.0.iter().position(|byte| *byte == end)?);
        self.0 = rest;
        Some(text)
    }

    /// A string with its quotes, as it stands there.
    fn string(&mut self) -> Option<&'a [u8]> {
        let mut at = 1;
        if self.0.first() != Some(&b'"') {
            return None;
        }
        loop {
            match self.0.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        let (text, rest) = self.0.split_at(at + 1);
        self.0 = rest;
        Some(text)
    }

    /// The string and the comma behind a key, if that stands there.
    fn take_string<const N: usize>(&mut self, key: &[u8; N], value: &mut &'a [u8]) -> Option<()> {
        if self.has(key) {
            *value = self.string()?;
            self.skip(b",")?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        hlc::Hlc,
        ids::{Boot, DeviceId, Origin, PersonId, ServerId},
        log::{Hash, entry::MESSAGE},
        wire::Frame,
    };

    fn entry(seq: u64, body: &str) -> Entry {
        let mut entry = Entry {
            room: "tea".parse().unwrap(),
            origin: Origin { id: ServerId(2), boot: Boot(1_882_552_126_147_351) },
            seq,
            hlc: Hlc { millis: 1_795_341_723_456, counter: seq as u32 },
            from: "anna".parse().unwrap(),
            person: PersonId([7; 16]),
            device: DeviceId(9),
            client_seq: seq,
            kind: MESSAGE.into(),
            body: body.into(),
            hash: Hash::default(),
        };
        entry.hash = entry.digest();
        entry
    }

    fn line(entry: &Entry) -> Vec<u8> {
        Frame::Entry(entry.clone()).to_line().trim_end().as_bytes().to_vec()
    }

    /// The short form, and what comes of it.
    fn there_and_back(previous: &Entry, entry: &Entry) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut short = b"kept".to_vec();
        if !shorten(previous, entry, &line(entry), &mut short) {
            assert_eq!(short, b"kept");
            return None;
        }
        let short = short.split_off(4);
        let before = line(previous);
        let (context, full) = Context::of_line(&before)?.expand(&short)?;
        assert_eq!(Some(context), Context::of_line(&full), "the next one is understood by it");
        Some((short, full))
    }

    #[test]
    fn what_is_the_same_is_left_out() {
        let (previous, mut next) = (entry(7, "\",\"b\":\"not here"), entry(8, "Milk?"));
        let mut check = |change: &dyn Fn(&mut Entry), expected: &str| {
            change(&mut next);
            next.hash = next.digest();
            let (short, full) = there_and_back(&previous, &next).unwrap();
            let shown = String::from_utf8(short).unwrap();
            assert_eq!(shown, format!("{{\"t\":\"then\",{expected}\"x\":\"{}\"}}", crate::text::encode(&next.hash.0)));
            assert_eq!(full, line(&next));
        };
        check(&|_| (), r#""b":"Milk?","#);
        check(&|next| next.hlc = Hlc { millis: 1_795_341_723_458, counter: 0 }, r#""h":[2,0],"b":"Milk?","#);
        check(&|next| next.from = "b\"e".parse().unwrap(), r#""h":[2,0],"f":"b\"e","b":"Milk?","#);
        check(&|next| next.kind = "topic".into(), r#""h":[2,0],"f":"b\"e","k":"topic","b":"Milk?","#);
        let whole =
            r#""h":[2,0],"f":"b\"e","p":"CAgICAgICAgICAgICAgICA","d":"AAAAAAAAAAo","c":12,"k":"topic","b":"Milk?","#;
        check(&|next| (next.person, next.device, next.client_seq) = (PersonId([8; 16]), DeviceId(10), 12), whole);
    }

    #[test]
    fn only_the_next_entry_of_the_same_part_has_a_short_form() {
        fn check(change: impl Fn(&mut Entry), expected: bool) {
            let mut next = entry(8, "Milk?");
            change(&mut next);
            assert_eq!(there_and_back(&entry(7, "Tea?"), &next).is_some(), expected, "{next:?}");
        }
        check(|_| (), true);
        check(|next| next.seq = 7, false);
        check(|next| next.seq = 9, false);
        check(|next| next.seq = 0, false);
        check(|next| next.room = "milk".parse().unwrap(), false);
        check(|next| next.origin.boot = Boot(1), false);
        check(|next| next.hlc.millis -= 1, false);
    }

    #[test]
    fn out_of_context_it_is_nothing() {
        let full = line(&entry(7, "Tea?"));
        let context = Context::of_line(&full).unwrap();
        let check = |short: &str| assert_eq!(context.expand(short.as_bytes()), None, "{short}");
        check("");
        check(r#"{"t":"then","x":"y"}"#);
        check(r#"{"t":"then","h":[1],"b":"","x":""}"#);
        check(r#"{"t":"then","h":[-1,0],"b":"","x":""}"#);
        check(r#"{"t":"then","h":[99999999999999999,0],"b":"","x":""}"#);
        check(r#"{"t":"then","h":[01,0],"b":"","x":""}"#);
        check(r#"{"t":"then","h":[1,00],"b":"","x":""}"#);
        check(r#"{"t":"then","c":08,"b":"","x":""}"#);
        check(r#"{"t":"then","c":7"b":"","x":""}"#);
        check(r#"{"t":"then","f":"anna,"b":"#);
        check(r#"{"t":"then","f":"\"#);
        assert_eq!(Context::of_line(br#"{"t":"entry","r":"tea","o":[2,1]}"#), None);
        assert_eq!(Context::of_line(b"{\"t\":\"bye\"}"), None);
        let last = Context { seq: u64::MAX, ..context };
        assert_eq!(last.expand(br#"{"t":"then","b":"","x":""}"#), None);
    }

    proptest! {
        #[test]
        fn whatever_people_are_called_and_write_comes_back_byte_for_byte(
            names in prop::array::uniform2("[^ ,\\p{Cc}]{1,32}"),
            bodies in prop::array::uniform2(".{0,200}"),
            hlc in (0..3_u64, 0..3_u32),
            same in any::<bool>(),
        ) {
            let [mut previous, mut next] = [entry(7, &bodies[0]), entry(8, &bodies[1])];
            if let (Ok(first), Ok(second)) = (names[0].parse(), names[usize::from(!same)].parse()) {
                (previous.from, next.from) = (first, second);
            }
            next.hlc = Hlc { millis: previous.hlc.millis + hlc.0, counter: hlc.1 };
            let (_, full) = there_and_back(&previous, &next).unwrap();
            prop_assert_eq!(full, line(&next));
        }

        #[test]
        fn no_line_makes_it_panic(first in prop::collection::vec(any::<u8>(), 0..80), cut in 0..300_usize, at in 0..300_usize, byte: u8) {
            let previous = entry(7, "Tea?");
            let mut full = line(&previous);
            let mut short = Vec::new();
            shorten(&previous, &entry(8, "Milk?"), &line(&entry(8, "Milk?")), &mut short);
            for text in [&mut full, &mut short] {
                let len = text.len();
                text[at % len] = byte;
                text.truncate(cut.max(1).min(len));
            }
            let _nothing = Context::of_line(&first);
            if let Some((_, made)) = Context::of_line(&full).and_then(|context| context.expand(&short)) {
                prop_assert!(made.len() <= full.len() + short.len() + 64);
            }
            let fine = line(&previous);
            let _nothing = Context::of_line(&fine).unwrap().expand(&first);
        }
    }
}
