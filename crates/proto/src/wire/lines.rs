//! Lines of the frames of which there are most, written by hand: to the byte what serde writes, at a fifth of the cost.
//!
//! Every message is an entry at each server, and a post and two acknowledgements on each way that it goes; and clients that
//! say nothing, of which there may be a hundred thousand, all say ping.

use crate::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId},
    log::Entry,
    text,
    wire::frame::{Ack, Post},
};

/// Bytes of a line beside its texts, mostly.
const AROUND_BYTES: usize = 256;

/// The line of [`Frame::Entry`](super::Frame::Entry), newline included.
pub(super) fn entry(entry: &Entry) -> String {
    let mut line = String::with_capacity(AROUND_BYTES + entry.body.len());
    line.push_str(r#"{"t":"entry","r":"#);
    push_text(&mut line, entry.room.as_str());
    line.push_str(r#","o":"#);
    push_origin(&mut line, entry.origin);
    line.push_str(r#","s":"#);
    text::push_number(&mut line, entry.seq);
    line.push_str(r#","h":"#);
    push_hlc(&mut line, entry.hlc);
    line.push_str(r#","f":"#);
    push_text(&mut line, entry.from.as_str());
    line.push_str(r#","p":""#);
    push_person(&mut line, entry.person);
    line.push_str(r#"","d":""#);
    push_device(&mut line, entry.device);
    line.push_str(r#"","c":"#);
    text::push_number(&mut line, entry.client_seq);
    line.push_str(r#","k":"#);
    push_text(&mut line, &entry.kind);
    line.push_str(r#","b":"#);
    push_text(&mut line, &entry.body);
    line.push_str(r#","x":""#);
    text::push_encoded(&mut line, &entry.hash.0);
    line.push_str("\"}\n");
    line
}

/// The line of [`Frame::Pong`](super::Frame::Pong), newline included.
pub(super) fn pong(n: u64) -> String {
    let mut line = String::from(r#"{"t":"pong","n":"#);
    text::push_number(&mut line, n);
    line.push_str("}\n");
    line
}

/// The line of [`Frame::Post`](super::Frame::Post), newline included.
pub(super) fn post(post: &Post) -> String {
    let mut line = String::with_capacity(AROUND_BYTES + post.body.len());
    line.push_str(r#"{"t":"post","room":"#);
    push_text(&mut line, post.room.as_str());
    line.push_str(r#","seq":"#);
    text::push_number(&mut line, post.seq);
    line.push_str(r#","oldest":"#);
    text::push_number(&mut line, post.oldest);
    line.push_str(r#","shown":"#);
    push_hlc(&mut line, post.shown);
    line.push_str(r#","kind":"#);
    push_text(&mut line, &post.kind);
    line.push_str(r#","body":"#);
    push_text(&mut line, &post.body);
    if post.detour > 0 {
        line.push_str(r#","detour":"#);
        text::push_number(&mut line, post.detour.into());
    }
    if let Some(author) = &post.author {
        line.push_str(r#","author":{"name":"#);
        push_text(&mut line, author.name.as_str());
        line.push_str(r#","person":""#);
        push_person(&mut line, author.person);
        line.push_str(r#"","device":""#);
        push_device(&mut line, author.device);
        line.push_str(r#"","vouched":"#);
        push_hlc(&mut line, author.vouched);
        line.push('}');
    }
    line.push_str("}\n");
    line
}

/// The line of [`Frame::Ack`](super::Frame::Ack), newline included.
pub(super) fn ack(ack: &Ack) -> String {
    let mut line = String::with_capacity(AROUND_BYTES);
    line.push_str(r#"{"t":"ack","room":"#);
    push_text(&mut line, ack.room.as_str());
    line.push_str(r#","seq":"#);
    text::push_number(&mut line, ack.seq);
    line.push_str(r#","origin":"#);
    push_origin(&mut line, ack.origin);
    line.push_str(r#","entry":"#);
    text::push_number(&mut line, ack.entry);
    line.push_str(r#","hlc":"#);
    push_hlc(&mut line, ack.hlc);
    line.push_str(r#","copies":"#);
    text::push_number(&mut line, ack.copies.into());
    line.push_str(if ack.stored { r#","stored":true"# } else { r#","stored":false"# });
    line.push_str(if ack.durable { r#","durable":true"# } else { r#","durable":false"# });
    if let Some((person, device)) = ack.to {
        line.push_str(r#","to":[""#);
        push_person(&mut line, person);
        line.push_str(r#"",""#);
        push_device(&mut line, device);
        line.push_str("\"]");
    }
    line.push_str("}\n");
    line
}

/// A text in JSON, with its quotation marks.
fn push_text(line: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        line.push_str(&serde_json::to_string(text).expect("any text can be written"));
    } else {
        line.push('"');
        line.push_str(text);
        line.push('"');
    }
}

fn push_origin(line: &mut String, origin: Origin) {
    push_pair(line, origin.id.0.into(), origin.boot.0);
}

fn push_hlc(line: &mut String, hlc: Hlc) {
    push_pair(line, hlc.millis, hlc.counter.into());
}

fn push_pair(line: &mut String, first: u64, second: u64) {
    line.push('[');
    text::push_number(line, first);
    line.push(',');
    text::push_number(line, second);
    line.push(']');
}

fn push_person(line: &mut String, person: PersonId) {
    text::push_encoded(line, &person.0);
}

fn push_device(line: &mut String, device: DeviceId) {
    text::push_encoded(line, &device.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Boot, ServerId},
        log::Hash,
        wire::{Frame, frame::Author},
    };

    const NUMBERS: [u64; 5] = [0, 7, 10, 1 << 32, (1 << 53) - 1];

    /// What serde writes of the frame, which has to be what is written here.
    fn check(frame: &Frame) {
        assert_eq!(frame.to_line(), serde_json::to_string(frame).unwrap() + "\n");
    }

    #[test]
    fn lines_are_those_that_serde_writes() {
        for text in ["", "plain", "a \"b\" \\ c\n\u{1}\u{7f}", "größer 茶 🍵", "line\u{2028}end"] {
            for number in NUMBERS {
                let origin = Origin { id: ServerId(number as u32), boot: Boot(number) };
                let hlc = Hlc { millis: number, counter: number as u32 };
                let (person, device) = (PersonId([number as u8; 16]), DeviceId(number));
                let (room, from) = ("té-\"x\\".parse().unwrap(), "an\"na茶".parse().unwrap());
                check(&Frame::Entry(Entry {
                    room,
                    origin,
                    seq: number,
                    hlc,
                    from,
                    person,
                    device,
                    client_seq: number,
                    kind: text.into(),
                    body: text.into(),
                    hash: Hash([number as u8; 16]),
                }));
                let (room, name) = ("té-\"x\\".parse().unwrap(), "an\"na茶".parse().unwrap());
                let author = (number > 7).then_some(Author { name, person, device, vouched: hlc });
                let (kind, body, detour) = (text.to_owned(), text.to_owned(), number as u8 & 3);
                check(&Frame::Post(Post { room, seq: number, oldest: number, shown: hlc, kind, body, detour, author }));
                let (room, stored) = ("tea".parse().unwrap(), number > 7);
                let to = stored.then_some((person, device));
                let (seq, entry, copies) = (number, number, number as u32);
                check(&Frame::Pong { n: number });
                check(&Frame::Ack(Ack { room, seq, origin, entry, hlc, copies, stored, durable: !stored, to }));
            }
        }
    }
}
