//! `docs/protocol.md` is true: every example in it is read by the code and written again as the same JSON, every type of
//! frame has one, and the worked values are those that the code computes.

use std::collections::BTreeSet;

use hobnob_proto::{
    discovery::packet::{self, Facts, Packet},
    election,
    ids::{ClusterId, ClusterName},
    log::Entry,
    session::keys::{self, KeyPair, Secret},
    text,
    time::Time,
    wire::{
        Frame, Greeting,
        fragment::Assembler,
        frame::{Ask, ClientsChange, FragmentOf, Refusal, Start},
        then::{self, Context},
    },
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// Defines the names of all variants of a type, and which of them a value is. A new variant does not compile until it is
/// named here, and then wants an example.
macro_rules! variants {
    ($all:ident, $which:ident, $type:ty: $($variant:ident)*) => {
        const $all: &[&str] = &[$(stringify!($variant)),*];

        fn $which(value: &$type) -> &'static str {
            type Whole = $type;
            match value {
                $(Whole::$variant { .. } => stringify!($variant),)*
            }
        }
    };
}

variants!(FRAMES, frame_name, Frame:
    Entry Fragment Pull Pulled Cursor Heads Join Joined Part Post Ack Refuse Hi Ask Bye Ping Welcome NotWelcome Servers
    Answer AnswerError HiFirst Come Pong Beat Election Rooms Members Assign Place SyncReq SyncRep Clients ClientsReq Compare Keeps Survey Surveyed Handoff
    Handed Leave Leaving Retire Collision Import Imported);
variants!(ELECTIONS, election_name, election::Message: Election Alive LeaderOk Coordinator);
variants!(STARTS, start_name, Start: After Last Since);
variants!(REFUSALS, refusal_name, Refusal: TooLong Clash UnknownKind CannotStore);
variants!(QUESTIONS, question_name, Ask: Rooms Who Status Retire Export Import Join);
variants!(CHANGES, change_name, ClientsChange: All Put Gone);
variants!(PIECES, piece_name, FragmentOf: Entry Post Import Forwarded);
variants!(DATAGRAMS, datagram_name, Packet: Hello Find Here);
variants!(GREETINGS, greeting_name, Greeting: Server Client);

/// The lines of all blocks of that kind, each with its number in the document.
fn block_lines(kind: &str) -> Vec<(usize, &'static str)> {
    let (mut lines, mut inside) = (Vec::new(), None);
    for (at, line) in DOCUMENT.lines().enumerate() {
        match (line.strip_prefix("```"), inside) {
            (Some(opened), None) => inside = Some(opened),
            (Some(_), Some(_)) => inside = None,
            (None, Some(opened)) if opened == kind => lines.push((at + 1, line)),
            (None, _) => {}
        }
    }
    lines
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).expect("it is JSON")
}

/// The frames of the document, but for those that are entries in short.
fn frames() -> Vec<(usize, &'static str, Frame)> {
    let lines = block_lines("json").into_iter().filter(|(_, line)| {
        let json = json_of(line);
        json.get("t").is_some_and(|kind| kind != "then") && json.get("hobnob").is_none()
    });
    lines
        .map(|(at, line)| {
            let frame = Frame::from_line(line.as_bytes());
            (at, line, frame.unwrap_or_else(|| panic!("docs/protocol.md:{at} is no frame: {line}")))
        })
        .collect()
}

/// The discovery datagrams of the document.
fn datagrams() -> Vec<(usize, &'static str, Packet)> {
    let lines = block_lines("json").into_iter().filter(|(_, line)| json_of(line).get("hobnob").is_some());
    lines
        .map(|(at, line)| {
            let packet = packet::parse(line.as_bytes());
            (at, line, packet.unwrap_or_else(|why| panic!("docs/protocol.md:{at} is no datagram: {why}")))
        })
        .collect()
}

fn assert_all_are_shown(shown: impl Iterator<Item = &'static str>, all: &[&'static str]) {
    let shown: BTreeSet<_> = shown.collect();
    let missing: Vec<_> = all.iter().filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/protocol.md has no example of {missing:?}");
}

fn name() -> ClusterName {
    "hobnob".parse().expect("this is a name")
}

#[test]
fn every_frame_is_read_and_written_again_as_it_stands_there() {
    for (at, line, frame) in frames() {
        assert!(line.len() < 1200, "docs/protocol.md:{at} does not fit a packet");
        assert_eq!(json_of(&frame.to_line()), json_of(line), "docs/protocol.md:{at}");
    }
}

#[test]
fn every_type_of_frame_and_of_what_is_in_frames_has_an_example() {
    let frames: Vec<_> = frames().into_iter().map(|(.., frame)| frame).collect();
    assert_all_are_shown(frames.iter().map(frame_name), FRAMES);
    let (mut elections, mut starts, mut refusals, mut questions) = (vec![], vec![], vec![], vec![]);
    let (mut changes, mut pieces) = (vec![], vec![]);
    for frame in &frames {
        match frame {
            Frame::Election(message) => elections.push(election_name(message)),
            Frame::Join { from, .. } => starts.push(start_name(from)),
            Frame::Refuse(refuse) => refusals.push(refusal_name(&refuse.why)),
            Frame::Ask { ask, .. } => questions.push(question_name(ask)),
            Frame::Clients(clients) => changes.push(change_name(&clients.change)),
            Frame::Fragment(fragment) => pieces.push(piece_name(&fragment.of)),
            _ => {}
        }
    }
    assert_all_are_shown(elections.into_iter(), ELECTIONS);
    assert_all_are_shown(starts.into_iter(), STARTS);
    assert_all_are_shown(refusals.into_iter(), REFUSALS);
    assert_all_are_shown(questions.into_iter(), QUESTIONS);
    assert_all_are_shown(changes.into_iter(), CHANGES);
    assert_all_are_shown(pieces.into_iter(), PIECES);
}

#[test]
fn every_datagram_of_discovery_is_what_the_code_makes() {
    let datagrams = datagrams();
    assert_all_are_shown(datagrams.iter().map(|(.., packet)| datagram_name(packet)), DATAGRAMS);
    let key = keys::discovery_key(None, &name());
    let check_key = |facts: &Facts| assert_eq!(facts.key, keys::cluster_key(None, &name(), facts.cluster).public);
    let mut nonces = BTreeSet::new();
    for (at, line, packet) in &datagrams {
        let made = match packet {
            Packet::Hello { facts } => {
                check_key(facts);
                let nonce = text::decode(json_of(line)["nonce"].as_str().unwrap()).unwrap();
                packet::hello(facts, packet::Nonce(nonce), &key)
            }
            Packet::Here { facts, nonce } => {
                check_key(facts);
                nonces.insert(nonce.0);
                packet::here(facts, *nonce, &key)
            }
            Packet::Find { name, nonce } => {
                nonces.insert(nonce.0);
                packet::find(name.as_ref(), *nonce)
            }
        };
        assert_eq!(std::str::from_utf8(&made), Ok(*line), "docs/protocol.md:{at}");
    }
    assert_eq!(nonces.len(), 1, "the answer echoes the nonce of the question");
}

#[test]
fn every_greeting_is_read_and_written_again_as_it_stands_there() {
    let lines: Vec<_> = block_lines("json").into_iter().filter(|(_, line)| json_of(line).get("as").is_some()).collect();
    let mut shown = Vec::new();
    for (at, line) in lines {
        let greeting =
            Greeting::from_payload(line.as_bytes()).unwrap_or_else(|| panic!("docs/protocol.md:{at}: {line}"));
        let written: Value = serde_json::from_slice(&greeting.to_payload()).unwrap();
        assert_eq!(written, json_of(line), "docs/protocol.md:{at}");
        shown.push(greeting_name(&greeting));
    }
    assert_all_are_shown(shown.into_iter(), GREETINGS);
}

#[test]
fn every_line_of_a_json_block_is_one_of_these() {
    for (at, line) in block_lines("json") {
        let json = json_of(line);
        assert!(json.get("t").is_some() || json.get("as").is_some(), "docs/protocol.md:{at} is checked by nothing");
    }
}

#[test]
fn the_hash_of_an_entry_is_worked_out_as_it_stands_there() {
    let entries: Vec<Entry> = frames()
        .into_iter()
        .filter_map(|(.., frame)| if let Frame::Entry(entry) = frame { Some(entry) } else { None })
        .collect();
    assert!(!entries.is_empty() && entries.iter().all(Entry::is_intact));
    let fields: String = block_lines("text")
        .into_iter()
        .map(|(_, line)| line)
        .filter(|line| line.split_once(':').is_some_and(|(len, _)| len.parse::<usize>().is_ok()))
        .collect();
    let hash = text::encode(&Sha256::digest(fields.as_bytes())[..16]);
    assert_eq!(hash, text::encode(&entries[0].hash.0), "the fields are those of the first entry");
    assert!(DOCUMENT.contains(&format!("is `{hash}`")), "and its hash is named");
}

#[test]
fn entries_in_short_are_what_stands_there() {
    let mut before: Option<(Context<'_>, Entry)> = None;
    let mut shown = 0;
    for (at, line) in block_lines("json") {
        let Some((context, previous)) = before.take().filter(|_| line.as_bytes().starts_with(then::LINE_START)) else {
            assert!(!line.as_bytes().starts_with(then::LINE_START), "docs/protocol.md:{at} stands behind no entry");
            if let (Some(context), Some(Frame::Entry(entry))) =
                (Context::of_line(line.as_bytes()), Frame::from_line(line.as_bytes()))
            {
                before = Some((context, entry));
            }
            continue;
        };
        let (context, full) = context.expand(line.as_bytes()).unwrap_or_else(|| panic!("docs/protocol.md:{at}"));
        let Some(Frame::Entry(entry)) = Frame::from_line(&full) else { panic!("docs/protocol.md:{at} is no entry") };
        assert!(entry.is_intact(), "docs/protocol.md:{at}: its hash is {}", text::encode(&entry.digest().0));
        let mut short = Vec::new();
        assert!(then::shorten(&previous, &entry, &full, &mut short));
        assert_eq!(std::str::from_utf8(&short), Ok(line), "docs/protocol.md:{at}");
        before = Some((context, entry));
        shown += 1;
    }
    assert!(shown > 0, "there is an example");
}

#[test]
fn the_first_fragments_are_those_of_the_first_post() {
    let mut assembler = Assembler::default();
    let pieces = frames().into_iter().filter_map(|(.., frame)| match frame {
        Frame::Fragment(fragment) => Some(fragment),
        _ => None,
    });
    let lines: Vec<_> =
        pieces.filter_map(|piece| assembler.take(piece, Time::ZERO).expect("no piece is bad")).collect();
    let post = frames().into_iter().find(|(.., frame)| matches!(frame, Frame::Post(_))).map(|(_, line, _)| line);
    assert_eq!(lines.iter().map(String::as_str).next(), post);
}

#[test]
fn worked_keys_are_those_that_the_code_derives() {
    fn check(what: &str, value: &str) {
        let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| {what} |")));
        assert_eq!(row, Some(format!("| {what} | `{value}` |").as_str()));
    }
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let bytes: Vec<u8> = (0..32).collect();
    let secret = Secret::from_text(&text::encode(&bytes)).unwrap();
    assert!(DOCUMENT.contains(secret.to_text().as_str()));
    let cluster: ClusterId = "5f0c1e2d3b4a59687786958493a2b1c0".parse().unwrap();
    let client = KeyPair::from_private([7; 32].into());
    check("open: discovery key, hexadecimal", &hex(keys::discovery_key(None, &name()).as_ref()));
    check("open: cluster's public key", &text::encode(&keys::cluster_key(None, &name(), cluster).public));
    check("closed: discovery key, hexadecimal", &hex(keys::discovery_key(Some(&secret), &name()).as_ref()));
    check("closed: cluster's public key", &text::encode(&keys::cluster_key(Some(&secret), &name(), cluster).public));
    check("the client's public key", &text::encode(&client.public));
    check("the client's person id", &client.person().to_string());
    check("the client's pass", &keys::pass(&secret, &client.public));
}
