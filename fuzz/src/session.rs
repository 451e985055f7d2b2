//! Datagrams of sessions: at a server that has none, and within one that is open, on both sides.

use std::{collections::BTreeMap, net::SocketAddr};

use hobnob_proto::{
    limits,
    rng::Rng,
    session::{
        Datagrams, Endpoint, Event, SessionId,
        keys::{KeyPair, Suite},
    },
    time::{Duration, Time},
    wire::{fragment::LINE_START, packet::Packet},
};

use super::script::Script;

/// How many steps of a script are taken: more find nothing new.
const STEPS_MAX: usize = 128;
/// How many datagrams the outsider remembers.
const RECORDED_MAX: usize = 64;

/// Plays a script of what the two sides say and what an outsider on the wire does. Nothing arrives that was not said, and
/// nothing more often than it was said; a stranger is sent no more bytes than it sent.
///
/// # Panics
/// If not.
pub fn run(data: &[u8]) {
    if let Ok(packet) = Packet::parse(data) {
        assert_eq!(packet.to_bytes()[..], data[..packet.to_bytes().len()], "what is read is what was written");
    }
    let mut script = Script(data);
    let start = script.byte();
    let suite = if start & 2 == 0 { Suite::AesGcm } else { Suite::ChaChaPoly };
    let mut wire = Wire::new(suite);
    if start & 1 == 1 {
        wire.carry();
        assert_eq!(wire.ups, [1, 1], "the session opens");
    }
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        let step = script.byte();
        let side = usize::from(step >> 3) % 2;
        match step % 8 {
            0 => wire.arrive(side, script.bytes()),
            1 => wire.say(side, script.bytes()),
            2 | 3 => wire.replay(side, &mut script),
            4 => wire.pass(Duration::from_millis(50) * u32::from(script.word())),
            5 => wire.pass(Duration::from_millis(1)),
            6 => wire.lose(),
            _ => wire.carry(),
        }
    }
    wire.pass(limits::SILENCE_MAX);
}

const SERVER: usize = 0;
const CLIENT: usize = 1;

/// Two endpoints and an outsider between them.
struct Wire {
    sides: [Endpoint; 2],
    sessions: [Option<SessionId>; 2],
    now: Time,
    /// Datagrams under way: to which side.
    flying: Vec<(usize, Vec<u8>)>,
    /// What the outsider saw.
    recorded: Vec<Vec<u8>>,
    /// How often each line was said by a side, and has not arrived.
    said: [BTreeMap<Vec<u8>, usize>; 2],
    /// Whether a side said something that looks like a piece of a line.
    pieces: [bool; 2],
    /// How many sessions came up.
    ups: [usize; 2],
    /// Bytes that the server has sent and was sent, as long as nobody has shown where they are.
    sent: usize,
    taken: usize,
}

impl Wire {
    /// The client has begun to open a session.
    fn new(suite: Suite) -> Self {
        let (local, remote) = (KeyPair::from_private([7; 32].into()), KeyPair::from_private([9; 32].into()));
        let key = remote.public;
        let mut client = Endpoint::new(None, Rng::from_seed([2; 32]));
        let session = client.connect(addr(SERVER), &local, &key, suite, b"hello", Time::ZERO);
        let mut wire = Self {
            sides: [Endpoint::new(Some(remote), Rng::from_seed([1; 32])), client],
            sessions: [None, Some(session)],
            now: Time::ZERO,
            flying: Vec::new(),
            recorded: Vec::new(),
            said: Default::default(),
            pieces: [false; 2],
            ups: [0; 2],
            sent: 0,
            taken: 0,
        };
        wire.flush();
        wire
    }

    /// A datagram reaches a side.
    fn arrive(&mut self, side: usize, datagram: &[u8]) {
        if side == SERVER {
            self.taken += datagram.len();
        }
        self.sides[side].handle(addr(1 - side), datagram, self.now);
        self.events(side);
    }

    /// A side says a line, or what looks like some.
    fn say(&mut self, side: usize, bytes: &[u8]) {
        let Some(session) = self.sessions[side] else { return };
        self.sides[side].send(session, bytes);
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            *self.said[side].entry(line.to_vec()).or_default() += 1;
            self.pieces[side] |= line.starts_with(LINE_START);
        }
    }

    /// The outsider sends what it saw, or a datagram that is almost that.
    fn replay(&mut self, side: usize, script: &mut Script<'_>) {
        let (which, at, mask, cut) = (script.byte(), script.word(), script.byte(), script.byte());
        let Some(mut datagram) = self.recorded.get(usize::from(which) % self.recorded.len().max(1)).cloned() else {
            return;
        };
        let len = datagram.len().max(1);
        if let Some(byte) = datagram.get_mut(usize::from(at) % len) {
            *byte ^= mask;
        }
        datagram.truncate(len - usize::from(cut).min(len));
        self.arrive(side, &datagram);
    }

    /// Time goes by; timers fire.
    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        for side in [SERVER, CLIENT] {
            self.sides[side].tick(self.now);
            self.events(side);
        }
        self.flush();
    }

    /// What is under way is lost, though the outsider has seen it.
    fn lose(&mut self) {
        self.flush();
        self.flying.clear();
    }

    /// What is under way arrives, and so do the answers.
    fn carry(&mut self) {
        for _ in 0..4 {
            self.flush();
            for (to, datagram) in std::mem::take(&mut self.flying) {
                self.arrive(to, &datagram);
            }
        }
    }

    fn flush(&mut self) {
        for side in [SERVER, CLIENT] {
            let mut out = Datagrams::default();
            self.sides[side].flush(self.now, &mut out);
            for (to, datagram) in out.iter() {
                assert!(to == addr(1 - side) && datagram.len() <= limits::DATAGRAM_BYTES_MAX);
                if side == SERVER && self.ups[SERVER] == 0 {
                    self.sent += datagram.len();
                    assert!(self.sent <= self.taken, "a stranger is sent more than it sent");
                }
                if self.recorded.len() < RECORDED_MAX {
                    self.recorded.push(datagram.to_vec());
                }
                self.flying.push((1 - side, datagram.to_vec()));
            }
        }
    }

    fn events(&mut self, side: usize) {
        while let Some(event) = self.sides[side].poll_event() {
            match event {
                Event::Asked { session, payload, .. } => {
                    assert!(side == SERVER && payload == b"hello", "nobody else holds a key");
                    self.sides[SERVER].accept(session, b"welcome", self.now);
                }
                Event::Up { session, payload, .. } => {
                    assert_eq!(payload, [&b"welcome"[..], b"hello"][1 - side], "as it was said");
                    self.sessions[side] = Some(session);
                    self.ups[side] += 1;
                }
                Event::Line { line, .. } => self.arrived(side, &line),
                Event::Closed { session } => {
                    self.sessions[side] = self.sessions[side].filter(|open| *open != session);
                }
            }
        }
    }

    /// A line arrived at a side: the other has said it, and not as often as it has arrived.
    fn arrived(&mut self, side: usize, line: &[u8]) {
        match self.said[1 - side].get_mut(line) {
            Some(times) if *times > 0 => *times -= 1,
            _ => assert!(self.pieces[1 - side], "nobody said {:?}", String::from_utf8_lossy(line)),
        }
    }
}

fn addr(side: usize) -> SocketAddr {
    ([127, 0, 0, 1], [5001, 40_000][side]).into()
}
