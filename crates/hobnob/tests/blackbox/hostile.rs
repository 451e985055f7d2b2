//! Every datagram is hostile: counted, dropped, survived.

use std::net::UdpSocket;

use serde_json::Value;

use crate::common::{Place, patience, wait_for};

/// Bytes that nobody meant, the same in each run (Marsaglia's xorshift).
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_le_bytes()[3]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}

/// All counters together.
fn counted(status: &Value) -> u64 {
    status["counters"].as_object().map_or(0, |counters| counters.values().filter_map(Value::as_u64).sum())
}

#[test]
fn garbage_is_counted_and_the_server_serves_on() {
    let place = Place::new();
    let server = place.server(1);
    let before = counted(&place.status(&server).unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut sent = 0;
    for len in [0, 1, 4, 13, 28, 29, 100, 1_200, 2_048, 2_049, 9_000] {
        for kind in 0..=9_u8 {
            let mut datagram = noise.bytes(len);
            if let Some(first) = datagram.first_mut() {
                *first = kind;
            }
            socket.send_to(&datagram, ("127.0.0.1", server.port)).unwrap();
            sent += 1;
        }
    }
    for text in ["{", "{}", "[]", "null", "{\"t\":\"hello\"}", "{\"t\":\"find\",\"cluster\":7}", "\u{0}\u{0}"] {
        for port in [server.port, place.discovery_port] {
            socket.send_to(text.as_bytes(), ("127.0.0.1", port)).unwrap();
            sent += 1;
        }
    }
    // The system may drop a few of a burst, and a few may be legal and useless: half of them is proof enough.
    wait_for("they are counted", patience(5_000), || {
        (counted(&place.status(&server)?) >= before + sent / 2).then_some(())
    });
    let ended = place.run(&["send", "--room", "tea", "hello"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}
