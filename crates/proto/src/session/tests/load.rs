//! More handshakes than one can compute.

use std::{collections::BTreeMap, ops::Range};

use super::*;
use crate::{
    limits,
    wire::packet::{self, Packet},
};

/// How long a turn of the server takes, and a packet on its way.
const TURN: Duration = Duration::from_millis(5);

struct Caller {
    endpoint: Endpoint,
    session: SessionId,
    up: bool,
}

/// A server, and clients at any addresses.
struct Crowd {
    now: Time,
    server: Endpoint,
    asked: usize,
    callers: BTreeMap<SocketAddr, Caller>,
    to_server: Vec<(SocketAddr, Vec<u8>)>,
    to_strangers: Vec<(SocketAddr, Vec<u8>)>,
}

impl Crowd {
    fn new() -> Self {
        Self {
            now: Time::from_micros(1_000_000),
            server: Endpoint::new(Some(key(2)), Rng::from_seed([9; 32])),
            asked: 0,
            callers: BTreeMap::new(),
            to_server: Vec::new(),
            to_strangers: Vec::new(),
        }
    }

    fn call(&mut self, from: SocketAddr) {
        let mut seed = [self.callers.len() as u8; 32];
        seed[..2].copy_from_slice(&from.port().to_be_bytes());
        let mut endpoint = Endpoint::new(None, Rng::from_seed(seed));
        let session = endpoint.connect(addr(2), &key(1), &key(2).public, Suite::AesGcm, b"hello", self.now);
        self.callers.insert(from, Caller { endpoint, session, up: false });
    }

    /// One turn of the server, and then one of each client. The server takes these datagrams before those of clients.
    fn turn(&mut self, datagrams: &[(SocketAddr, Vec<u8>)]) {
        for (from, bytes) in datagrams.iter().chain(&std::mem::take(&mut self.to_server)) {
            self.server.handle(*from, bytes, self.now);
        }
        self.server.tick(self.now);
        while let Some(event) = self.server.poll_event() {
            if let Event::Asked { session, .. } = event {
                self.asked += 1;
                self.server.accept(session, b"welcome", self.now);
            }
        }
        let mut out = Datagrams::default();
        self.server.flush(self.now, &mut out);
        self.now = self.now + TURN;
        for (to, bytes) in out {
            match self.callers.get_mut(&to) {
                Some(caller) => caller.endpoint.handle(addr(2), &bytes, self.now),
                None => self.to_strangers.push((to, bytes)),
            }
        }
        for (from, caller) in &mut self.callers {
            caller.endpoint.tick(self.now);
            while let Some(event) = caller.endpoint.poll_event() {
                caller.up |= matches!(event, Event::Up { session, .. } if session == caller.session);
            }
            let mut out = Datagrams::default();
            caller.endpoint.flush(self.now, &mut out);
            self.to_server.extend(out.into_iter().map(|(_, bytes)| (*from, bytes)));
        }
    }

    fn count(&self, cause: &str) -> u64 {
        self.server.counters().get(cause).copied().unwrap_or_default()
    }

    fn ups(&self) -> usize {
        self.callers.values().filter(|caller| caller.up).count()
    }

    /// The same inits with the cookies that the server wants.
    fn with_cookies(&mut self, inits: Vec<(SocketAddr, Vec<u8>)>) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut left, mut with) = (inits, Vec::new());
        while !left.is_empty() {
            self.to_strangers.clear();
            self.turn(&left[..left.len().min(limits::COOKIES_PER_TURN)]);
            for (to, bytes) in self.to_strangers.drain(..) {
                let Ok(Packet::Cookie { cookie, .. }) = Packet::parse(&bytes) else { continue };
                let Some(at) = left.iter().position(|(from, _)| *from == to) else { continue };
                let (from, mut init) = left.swap_remove(at);
                packet::set_cookie(&mut init, cookie);
                with.push((from, init));
            }
        }
        with
    }
}

/// A genuine init, as anybody may record it.
fn recorded() -> Vec<u8> {
    let mut pair = Pair::new(1);
    pair.connect(Suite::AesGcm);
    pair.turn();
    pair.sent[0].bytes.clone()
}

/// That init from so many addresses of a network.
fn flood(network: [u8; 2], hosts: Range<u32>) -> Vec<(SocketAddr, Vec<u8>)> {
    flood_of(&recorded(), network, hosts)
}

fn flood_of(init: &[u8], network: [u8; 2], hosts: Range<u32>) -> Vec<(SocketAddr, Vec<u8>)> {
    let from = |n: u32| SocketAddr::from(([network[0], network[1], (n >> 8) as u8, n as u8], 1_000 + (n >> 16) as u16));
    hosts.map(|n| (from(n), init.to_vec())).collect()
}

#[test]
fn a_turn_computes_its_ration_whatever_comes() {
    let mut crowd = Crowd::new();
    crowd.turn(&flood([10, 1], 0..10_000));
    let (handshakes, cookies) = (limits::HANDSHAKES_PER_TURN as usize, limits::COOKIES_PER_TURN);
    assert_eq!((crowd.asked, crowd.server.sessions.len()), (handshakes, handshakes));
    assert_eq!(crowd.count("cookie_wanted"), cookies as u64);
    assert_eq!(crowd.count("cookies_rationed"), (10_000 - handshakes - cookies) as u64);
    assert_eq!(crowd.to_strangers.len(), handshakes + cookies);
}

#[test]
fn who_showed_a_cookie_waits_for_a_later_turn() {
    let mut crowd = Crowd::new();
    crowd.turn(&flood([10, 1], 0..8));
    let inits = crowd.with_cookies(flood([127, 0], 1..101));
    crowd.asked = 0;
    crowd.turn(&inits);
    let mut asked = vec![crowd.asked];
    while crowd.server.deadline().is_some_and(|at| at < crowd.now) {
        crowd.turn(&inits[..50]);
        asked.push(crowd.asked);
    }
    assert_eq!(asked, [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 100]);
    assert!(crowd.to_strangers.iter().all(|(_, bytes)| bytes[0] != 4), "somebody had to show two cookies");
}

#[test]
fn a_flood_grows_nothing_gets_less_than_it_sent_and_keeps_nobody_out() {
    let mut crowd = Crowd::new();
    let (init, mut sent, mut received) = (recorded(), 0, 0);
    for burst in 0..400 {
        let mut datagrams = flood_of(&init, [10, 1], 250 * burst..250 * (burst + 1));
        for (n, (_, bytes)) in datagrams.iter_mut().enumerate() {
            // A third says another index, a third shows a cookie that it made up, and a third is as it was recorded.
            match n % 3 {
                0 => bytes[2..6].copy_from_slice(&(burst + 1).to_be_bytes()),
                1 => packet::set_cookie(bytes, [burst as u8; 16]),
                _ => {}
            }
        }
        if burst == 100 {
            crowd.call("192.0.2.7:7".parse().unwrap());
        }
        sent += datagrams.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        crowd.turn(&datagrams);
        received += crowd.to_strangers.drain(..).map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert!(received * 10 < sent, "{received} of {sent} bytes came back");
        assert!(burst < 110 || crowd.ups() == 1, "the client is not in after ten turns");
        assert!(crowd.server.sessions.len() < 50, "{} sessions", crowd.server.sessions.len());
        assert!(!crowd.server.gate.is_waited_at() && crowd.server.events.is_empty());
    }
    assert!(crowd.asked < 30, "{} handshakes in 2 s", crowd.asked);
}

#[test]
fn many_clients_behind_few_addresses_get_in() {
    let mut crowd = Crowd::new();
    for n in 0..600 {
        crowd.call(SocketAddr::from(([192, 0, 2, n as u8 % 2], 1_000 + n)));
    }
    let start = crowd.now;
    while crowd.ups() < 600 && crowd.now.since(start) < Duration::from_secs(2) {
        crowd.turn(&[]);
    }
    assert_eq!(crowd.ups(), 600, "{:?}", crowd.server.counters());
    assert!(crowd.count("cookie_wanted") > 500);
}

#[test]
fn one_source_does_not_take_the_places_of_others() {
    fn check(prefix: &str) {
        let mut crowd = Crowd::new();
        crowd.turn(&flood([10, 1], 0..8));
        let init = recorded();
        let from = |n: u16| match prefix {
            "" => SocketAddr::from(([192, 0, 2, 1], n)),
            prefix => format!("[{prefix}:{n:x}]:{n}").parse().unwrap(),
        };
        let mut inits = crowd.with_cookies((1..=300).map(|n| (from(n), init.clone())).collect());
        for round in 0..40 {
            if round == 10 {
                crowd.call("198.51.100.1:1".parse().unwrap());
            }
            inits.rotate_left(100);
            crowd.turn(&inits);
        }
        assert_eq!(crowd.ups(), 1, "{prefix}: {:?}", crowd.server.counters());
        assert!(crowd.server.sessions.len() < limits::HALF_OPEN_PER_SOURCE_MAX + 10, "{prefix}");
        assert!(crowd.count("handshakes_source_full") > 0, "{prefix}");
    }
    check("");
    check("2001:db8:1:2:0:0:0");
}

#[test]
fn false_cookies_keep_nobody_out_and_cause_no_flood() {
    fn check(loaded: bool, cookies: u8, up: bool) {
        let mut crowd = Crowd::new();
        let from = "192.0.2.7:7".parse().unwrap();
        crowd.turn(&flood([10, 1], 0..if loaded { 8 } else { 0 }));
        crowd.call(from);
        let mut inits = 0;
        for turn in 0..10 {
            let caller = crowd.callers.get_mut(&from).unwrap();
            for n in 0..cookies {
                let false_one = Packet::Cookie { receiver: caller.session.0, cookie: [1 + turn * cookies + n; 16] };
                caller.endpoint.handle(addr(66), &false_one.to_bytes(), crowd.now);
            }
            crowd.turn(&[]);
            inits += crowd.to_server.iter().filter(|(_, bytes)| bytes[0] == 1).count();
        }
        assert_eq!(crowd.ups() == 1, up, "loaded: {loaded}, {cookies} cookies");
        assert!(inits <= 6, "{inits} inits in 50 ms for {cookies} cookies");
    }
    check(false, 3, true);
    check(true, 3, true);
    // Somebody who reads what is said here, and is faster than the server again and again. It costs no more than this.
    check(false, 20, true);
    check(true, 20, false);
}

#[test]
fn sessions_that_end_in_one_moment_are_dropped_a_few_at_a_time() {
    let mut crowd = Crowd::new();
    for n in 0..300_u16 {
        let [high, low] = n.to_be_bytes();
        crowd.call(SocketAddr::from(([10, 1, high, low], 1_000 + n)));
    }
    for _ in 0..200 {
        crowd.turn(&[]);
    }
    assert!(crowd.callers.values().all(|caller| caller.up));
    let mut closed = Vec::new();
    let gone = crowd.now + limits::SILENCE_MAX + Duration::from_secs(1);
    loop {
        crowd.server.tick(gone);
        closed.push(
            std::iter::from_fn(|| crowd.server.poll_event()).filter(|e| matches!(e, Event::Closed { .. })).count(),
        );
        if crowd.server.deadline().is_none_or(|next| next > gone) {
            break;
        }
    }
    assert_eq!(closed, [128, 128, 44]);
}
