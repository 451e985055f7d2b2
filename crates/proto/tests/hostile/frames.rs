//! A server that is told thousands of hostile frames inside real sessions still serves. Whoever says them has a key of
//! their own, or, since the cluster is open, that of all its servers. They say every frame of `docs/protocol.md`, bent:
//! numbers at and beyond their bounds, texts of all lengths, values of other types.
//!
//! Left out is what does harm though it is well-formed, because a cluster believes its members: `retire`, and that the
//! lobby lives elsewhere.

use std::net::SocketAddr;

use hobnob_proto::{
    ids::{Boot, ClusterId, DeviceId, Origin, ServerId},
    limits,
    log::{Entry, VersionVector},
    node,
    rng::Rng,
    session::{
        Datagrams, Endpoint, Event, SessionId,
        keys::{self, KeyPair, Suite},
    },
    time::Duration,
    wire::{Frame, Greeting},
};
use serde_json::{Value, json};

use super::{Lab, PAUSE, Packet};

/// Where the strangers of this file are: 10.8.0.0.
const SUBNET: [u8; 2] = [10, 8];
const FRAMES: usize = 20_000;
/// Frames of a session, then there is another one.
const FRAMES_PER_SESSION: usize = 200;
/// Frames between two heartbeats of a stranger that is a server.
const FRAMES_PER_BEAT: usize = 10;
/// Characters of a server's state as it is printed, about what it keeps in bytes.
const STATE_CHARS_MAX: usize = 4_000_000;
const ROOMS_MAX: usize = 50;
const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

/// Whether somebody of this file is at `addr`.
pub(super) fn is_stranger(addr: SocketAddr) -> bool {
    matches!(addr, SocketAddr::V4(addr) if addr.ip().octets()[..2] == SUBNET)
}

/// What a stranger takes part as.
#[derive(Clone, Copy, Debug, PartialEq)]
enum As {
    Client,
    Server,
}

struct Stranger {
    part: As,
    me: Origin,
    addr: SocketAddr,
    victim: SocketAddr,
    victim_is: Origin,
    cluster: ClusterId,
    cluster_key: KeyPair,
    key: KeyPair,
    endpoint: Endpoint,
    session: SessionId,
    opened: u64,
    /// Lines that were answered.
    heard: usize,
    rng: Rng,
}

impl Stranger {
    /// Somebody with a session to the first server.
    fn new(part: As, lab: &mut Lab) -> Self {
        let view = lab.servers[0].node.view();
        let (victim_is, cluster) = (view.me.expect("it serves"), view.cluster.expect("it has one"));
        let cluster_key = keys::cluster_key(None, &"test".parse().expect("letters make a name"), cluster);
        let mut rng = lab.rng.fork();
        let (key, last) = match part {
            As::Client => (KeyPair::generate(&mut rng), 1),
            As::Server => (cluster_key.clone(), 2),
        };
        let mut stranger = Self {
            part,
            // Above all others, so that it may lead.
            me: Origin { id: ServerId(4), boot: Boot((1 << 51) + 1) },
            addr: SocketAddr::from(([SUBNET[0], SUBNET[1], 0, last], 5001)),
            victim: lab.servers[0].addr,
            victim_is,
            cluster,
            cluster_key,
            key,
            endpoint: Endpoint::new(None, rng.fork()),
            session: SessionId(0),
            opened: 0,
            heard: 0,
            rng,
        };
        stranger.open(lab);
        stranger
    }

    /// Opens a session, and says who it is.
    fn open(&mut self, lab: &mut Lab) {
        self.call(lab);
        if self.part == As::Client {
            let device = DeviceId(7);
            self.say(&json!({"t": "hi", "name": "stranger", "device": device, "session": 1_000 + self.opened,
                "via": "noise"}));
            self.say(&json!({"t": "join", "room": "lobby", "from": {"last": 9}}));
        }
    }

    /// Opens a session.
    fn call(&mut self, lab: &mut Lab) {
        self.opened += 1;
        let greeting = match self.part {
            As::Client => Greeting::client(None, &self.key.public),
            As::Server => Greeting::Server {
                id: self.me.id,
                boot: self.me.boot,
                cluster: self.cluster,
                n: self.opened,
                to: Some(self.victim_is),
                memory: true,
            },
        };
        let (remote, payload) = (self.cluster_key.public, greeting.to_payload());
        self.session = self.endpoint.connect(self.victim, &self.key, &remote, Suite::ChaChaPoly, &payload, lab.now);
        for _ in 0..4 {
            self.turn(lab);
        }
        assert!(self.endpoint.heard(self.session).is_some(), "the {:?} has a session", self.part);
    }

    /// Whether a ping is answered.
    fn is_answered(&mut self, lab: &mut Lab) -> bool {
        let before = self.heard;
        self.say(&json!({"t": "ping", "n": 1}));
        for _ in 0..4 {
            self.turn(lab);
        }
        self.heard > before
    }

    fn say(&mut self, frame: &Value) {
        self.endpoint.send(self.session, frame.to_string().as_bytes());
    }

    /// Sends and takes what there is, and lets a little time pass.
    fn turn(&mut self, lab: &mut Lab) {
        let mut datagrams = Datagrams::default();
        self.endpoint.tick(lab.now);
        self.endpoint.flush(lab.now, &mut datagrams);
        for (to, bytes) in datagrams {
            lab.send(self.addr, to, bytes);
        }
        lab.pass(PAUSE);
        for Packet { from, bytes, .. } in lab.inbox.extract_if(.., |packet| packet.to == self.addr) {
            self.endpoint.handle(from, &bytes, lab.now);
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.heard += usize::from(matches!(event, Event::Line { .. }));
        }
    }

    /// What makes a server live, and one that leads to those who believe it.
    fn beat(&mut self, lab: &Lab) {
        let term = lab.servers[0].node.view().epoch.term.min(1 << 40) + self.rng.below(2);
        let epoch = json!({"term": term, "leader": 4, "boot": self.me.boot});
        self.say(&json!({"t": "election", "say": "coordinator", "epoch": epoch}));
        let hears: Vec<_> = lab
            .servers
            .iter()
            .filter_map(|server| server.node.view().me)
            .map(|me| json!([me.id, me.boot, 0, true]))
            .collect();
        self.say(&json!({"t": "beat", "epoch": epoch, "led": true, "load": 0, "lag": 0, "sessions": 0,
            "hears": hears, "eligible": true, "takes_rooms": true, "time": 0, "directory": 0, "clients": 0, "logs": 0}));
    }

    /// A bent frame.
    fn hostile(&mut self, examples: &[&str]) -> String {
        let example = examples[self.rng.below(examples.len() as u64) as usize];
        // In the name of those that the victim knows, and about what it has.
        let names = [self.me, self.victim_is];
        let name = names[self.rng.below(2) as usize];
        let example = example
            .replace(r#""leader":2,"boot":1882552126147351"#, &format!(r#""leader":4,"boot":{}"#, self.me.boot.0))
            .replace("[2,1882552126147351]", &format!("[{},{}]", name.id.0, name.boot.0))
            .replace("2.1882552126147351", &name.to_string())
            .replace("\"tea\"", if self.rng.below(2) == 0 { "\"tea\"" } else { "\"lobby\"" });
        let mut frame: Value = serde_json::from_str(&example).expect("it is JSON");
        if self.rng.below(2) == 0 {
            // Numbers that agree with each other come further.
            let number = any_number(&mut self.rng);
            for leaf in leaves(&mut frame).into_iter().filter(|leaf| leaf.is_number()) {
                if self.rng.below(2) == 0 {
                    *leaf = number.clone();
                }
            }
        }
        for _ in 0..self.rng.below(3) {
            let leaves = leaves(&mut frame);
            let at = self.rng.below(leaves.len().max(1) as u64) as usize;
            if let Some(leaf) = leaves.into_iter().nth(at) {
                *leaf = bent(leaf, &mut self.rng);
            }
        }
        let line = frame.to_string();
        match Frame::from_line(line.as_bytes()) {
            // A wrong hash would hide all else.
            Some(Frame::Entry(mut entry)) => {
                entry.hash = entry.digest();
                Frame::Entry(entry).to_line()
            }
            _ => line,
        }
    }
}

/// All values that hold no others, but for the type of the frame.
fn leaves(value: &mut Value) -> Vec<&mut Value> {
    let is_leaf = match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => true,
    };
    match value {
        leaf if is_leaf => vec![leaf],
        Value::Array(items) => items.iter_mut().flat_map(leaves).collect(),
        Value::Object(fields) => {
            fields.iter_mut().filter(|(name, _)| *name != "t").flat_map(|(_, value)| leaves(value)).collect()
        }
        _ => Vec::new(),
    }
}

/// A number, mostly one that is at a bound of its type.
fn any_number(rng: &mut Rng) -> Value {
    let numbers = [
        json!(0),
        json!(1),
        json!(-1),
        json!(257),
        json!(u32::MAX),
        json!(1_u64 << 32),
        json!(1_u64 << 53),
        json!(u64::MAX - 1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1.5),
        json!(1e300),
    ];
    any_of(rng, &numbers)
}

fn any_of(rng: &mut Rng, values: &[Value]) -> Value {
    values[rng.below(values.len() as u64) as usize].clone()
}

/// Another value in the place of `leaf`, mostly of the same type.
fn bent(leaf: &Value, rng: &mut Rng) -> Value {
    let texts = [json!(""), json!("a"), json!("#"), json!("x".repeat(900)), json!("\u{0}\u{10ffff}"), json!("-1.5")];
    let others = [Value::Null, json!(true), json!([]), json!({}), json!([[[[0]]]]), json!({"1.1": u64::MAX})];
    match (leaf, rng.below(8)) {
        (_, 0) => any_of(rng, &others),
        (Value::Number(_), 1) | (Value::String(_), 2..) => any_of(rng, &texts),
        _ => any_number(rng),
    }
}

/// The frames of the protocol's document, but for those that a server obeys.
fn examples() -> Vec<&'static str> {
    let frames = DOCUMENT.lines().filter(|line| line.starts_with("{\"t\":"));
    let frames: Vec<_> = frames.filter(|line| !line.starts_with(r#"{"t":"retire"}"#)).collect();
    assert!(frames.len() > 50, "the document has examples");
    frames
}

fn check(part: As) {
    let mut lab = Lab::new(3);
    lab.pass(Duration::from_secs(5));
    let ann = lab.add_person();
    lab.post(ann, 1);
    assert!(lab.wait(|lab| lab.has_stored(ann, 1)), "the cluster does not work to begin with");

    let mut stranger = Stranger::new(part, &mut lab);
    let examples = examples();
    for n in 1..=FRAMES {
        let line = stranger.hostile(&examples);
        stranger.endpoint.send(stranger.session, line.as_bytes());
        if n % FRAMES_PER_BEAT == 0 {
            if part == As::Server {
                stranger.beat(&lab);
            }
            stranger.turn(&mut lab);
        }
        if n % FRAMES_PER_SESSION == 0 {
            stranger.open(&mut lab);
        }
    }
    assert!(stranger.heard > 100, "{} lines in answer: nobody listened", stranger.heard);

    for server in &lab.servers {
        let (rooms, state) = (server.node.view().rooms.len(), format!("{:?}", server.node).len());
        assert!(rooms < ROOMS_MAX && state < STATE_CHARS_MAX, "{rooms} rooms, {state} characters");
    }
    lab.post(ann, 2);
    assert!(lab.wait(|lab| lab.has_stored(ann, 2)), "a post of a client that was there is stored");
    let agreed = lab.wait(|lab| {
        let leader = lab.servers[0].node.view().leader;
        leader.is_some_and(|id| id.0 <= 3) && lab.servers.iter().all(|server| server.node.view().leader == leader)
    });
    assert!(agreed, "{:?}", lab.servers.iter().map(|server| server.node.view().leader).collect::<Vec<_>>());
    let bob = lab.add_person();
    assert!(lab.wait(|lab| lab.shown(bob).ends_with(&["post 2"])), "a newcomer shows {:?}", lab.shown(bob));
}

#[test]
fn a_server_that_hears_hostile_frames_of_a_client_still_serves() {
    check(As::Client);
}

#[test]
fn a_server_that_hears_hostile_frames_of_a_server_still_serves() {
    check(As::Server);
}

#[test]
fn a_session_is_for_those_who_say_who_they_are() {
    fn check(says_hi: bool, secs: u64, expected: bool) {
        let mut lab = Lab::new(1);
        assert!(lab.wait(|lab| lab.servers[0].node.view().me.is_some()));
        lab.pass(Duration::from_secs(5));
        let mut stranger = Stranger::new(As::Client, &mut lab);
        if !says_hi {
            stranger.call(&mut lab);
        }
        assert!(stranger.is_answered(&mut lab));
        lab.pass(Duration::from_secs(secs));
        assert_eq!(stranger.is_answered(&mut lab), expected, "hi: {says_hi}, after {secs} s");
    }
    check(false, 9, true);
    check(false, 11, false);
    check(true, 11, true);
}

#[test]
fn a_client_that_never_sends_its_first_post_fills_no_memory() {
    let mut lab = Lab::new(3);
    lab.pass(Duration::from_secs(5));
    let mut stranger = Stranger::new(As::Client, &mut lab);
    let body = "x".repeat(800);
    for room in 0..120 {
        for seq in 2..=64 {
            stranger.say(&json!({"t": "post", "room": format!("r{room}"), "seq": seq, "oldest": 1, "kind": "message",
                "body": body}));
            if seq % 16 == 0 {
                stranger.turn(&mut lab);
            }
        }
        stranger.turn(&mut lab);
    }
    for server in &lab.servers {
        let state = format!("{:?}", server.node).len();
        assert!(state < STATE_CHARS_MAX, "{state} characters");
    }
}

#[test]
fn another_content_with_a_name_that_is_held_goes_no_further_and_is_told_once_for_each() {
    let mut lab = Lab::new(1);
    lab.pass(Duration::from_secs(5));
    let mut stranger = Stranger::new(As::Server, &mut lab);
    assert!(stranger.is_answered(&mut lab));
    let entry = |body: &str| {
        let example = examples().into_iter().find(|line| line.starts_with(r#"{"t":"entry""#)).expect("there is one");
        let Some(Frame::Entry(mut entry)) = Frame::from_line(example.as_bytes()) else { panic!("{example}") };
        (entry.origin, entry.seq, entry.body) = (stranger.me, 1, body.into());
        entry.hash = entry.digest();
        entry
    };
    let (first, second) = (entry("tea"), entry("milk"));
    let (room, origin) = (first.room.clone(), first.origin);
    for entry in [&first, &first, &second] {
        stranger.say(&serde_json::to_value(Frame::Entry(entry.clone())).expect("it is a frame"));
        stranger.turn(&mut lab);
    }
    let node = &lab.servers[0].node;
    let held: Vec<_> = node.entries(&room, &VersionVector::default()).map(|entry| entry.body.to_string()).collect();
    assert_eq!(held, ["tea"]);
    let told = node::Event::Conflict { room, origin, seq: 1 };
    assert_eq!(lab.servers[0].events.iter().filter(|event| **event == told).count(), 1);
}

#[test]
fn an_entry_that_no_store_could_hold_goes_no_further() {
    let mut lab = Lab::new(1);
    lab.pass(Duration::from_secs(5));
    let mut stranger = Stranger::new(As::Server, &mut lab);
    assert!(stranger.is_answered(&mut lab));
    let example = examples().into_iter().find(|line| line.starts_with(r#"{"t":"entry""#)).expect("there is one");
    let Some(Frame::Entry(example)) = Frame::from_line(example.as_bytes()) else { panic!("{example}") };
    let room = example.room.clone();
    let mut boot = 1;
    let mut check = |change: fn(&mut Entry), expected: bool| {
        boot += 1;
        let mut entry = Entry { origin: Origin { id: ServerId(9), boot: Boot(boot) }, seq: 1, ..example.clone() };
        change(&mut entry);
        entry.hash = entry.digest();
        stranger.say(&serde_json::to_value(Frame::Entry(entry.clone())).expect("it is a frame"));
        stranger.turn(&mut lab);
        let none = VersionVector::default();
        let is_held = lab.servers[0].node.entries(&room, &none).any(|held| held.origin == entry.origin);
        assert_eq!(is_held, expected, "{entry:?}");
    };
    check(|_| {}, true);
    check(|entry| entry.hlc.millis = limits::CLOCK_MILLIS_MAX, true);
    check(|entry| entry.hlc.millis = limits::CLOCK_MILLIS_MAX + 1, false);
    check(|entry| entry.kind = "k".repeat(limits::KIND_BYTES_MAX).into(), true);
    check(|entry| entry.kind = "k".repeat(limits::KIND_BYTES_MAX + 1).into(), false);
    check(|entry| entry.seq = 0, false);
    // Markers of what is lost say nothing of their own.
    check(|entry| entry.kind = "lost".into(), false);
    check(|entry| *entry = Entry::lost(entry.room.clone(), entry.origin, 1, entry.hlc), true);
}
