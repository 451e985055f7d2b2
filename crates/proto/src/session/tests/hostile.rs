//! Datagrams from whoever can send one.

use proptest::prelude::*;

use super::*;
use crate::wire::packet::{NO_COOKIE, Packet};

#[test]
fn what_cannot_be_used_is_counted_by_its_cause() {
    fn check(cause: &str, datagram: impl FnOnce(SessionId) -> Vec<u8>) {
        let (mut pair, client, server) = Pair::up(Suite::AesGcm);
        pair.deliver(SERVER, addr(66), &datagram(server));
        assert_eq!(pair.count(SERVER, cause), 1, "{cause}: {pair:?}");
        assert_eq!(pair.sides[SERVER].endpoint.counters().values().sum::<u64>(), 1, "{cause}: {pair:?}");
        pair.assert_talks(client, server);
    }
    let noise = &[0; 400];
    check("packet_short", |_| vec![3]);
    check("packet_type", |_| vec![9; 100]);
    check("packet_long", |_| vec![3; 3_000]);
    check("packet_suite", |_| [&[1, 9], &noise[..]].concat());
    check("handshake_bad", |_| Packet::Init { suite: Suite::AesGcm, sender: 1, cookie: NO_COOKIE, noise }.to_bytes());
    check("session_unknown", |_| Packet::Answer { sender: 1, receiver: 0, noise }.to_bytes());
    check("answer_unwanted", |server| Packet::Answer { sender: 1, receiver: server.0, noise }.to_bytes());
    check("session_unknown", |_| Packet::Sealed { receiver: 0, counter: 1, ciphertext: noise }.to_bytes());
    check("seal_bad", |server| Packet::Sealed { receiver: server.0, counter: 1, ciphertext: noise }.to_bytes());
    check("replayed", |server| Packet::Sealed { receiver: server.0, counter: 0, ciphertext: noise }.to_bytes());
    check("seal_bad", |server| {
        Packet::Sealed { receiver: server.0, counter: (1 << 48) - 1, ciphertext: noise }.to_bytes()
    });
    check("keys_unknown", |server| {
        Packet::Sealed { receiver: server.0, counter: 1 << 48, ciphertext: noise }.to_bytes()
    });
    check("keys_unknown", |server| {
        Packet::Sealed { receiver: server.0, counter: u64::MAX, ciphertext: noise }.to_bytes()
    });
    check("session_unknown", |_| Packet::Cookie { receiver: 0, cookie: [1; 16] }.to_bytes());
    check("cookie_unwanted", |server| Packet::Cookie { receiver: server.0, cookie: [1; 16] }.to_bytes());
}

#[test]
fn a_sealed_packet_for_a_session_that_was_not_answered_is_counted() {
    let mut pair = Pair::new(1);
    let client = pair.connect(Suite::AesGcm);
    let sealed = Packet::Sealed { receiver: client.0, counter: 0, ciphertext: &[0; 16] }.to_bytes();
    pair.deliver(CLIENT, addr(66), &sealed);
    let answer = Packet::Answer { sender: 1, receiver: client.0, noise: &[0; 64] }.to_bytes();
    pair.deliver(CLIENT, addr(66), &answer);
    assert_eq!((pair.count(CLIENT, "sealed_early"), pair.count(CLIENT, "handshake_bad")), (1, 1));
    pair.run_for(Duration::from_secs(1));
    assert_eq!((pair.ups(CLIENT).len(), pair.ups(SERVER).len()), (1, 1));
}

/// A datagram that was really sent, by its number, with some bytes changed and some cut off or added; or pure noise.
fn datagram() -> impl Strategy<Value = (Option<usize>, Vec<(usize, u8)>, Option<usize>)> {
    (
        prop::option::weighted(0.9, 0..50_usize),
        prop::collection::vec((0..500_usize, any::<u8>()), 0..4),
        prop::option::weighted(0.2, 0..2_100_usize),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_and_mutated_datagrams_do_no_harm(
        datagrams in prop::collection::vec((0..2_usize, any::<u16>(), datagram()), 1..60),
    ) {
        let mut pair = Pair::new(1);
        let client = pair.connect(Suite::AesGcm);
        pair.run_for(Duration::from_millis(200));
        let server = pair.ups(SERVER)[0].0;
        let real: Vec<_> = pair.sent.iter().map(|sent| sent.bytes.clone()).collect();
        for (to, port, (base, changes, len)) in datagrams {
            let mut bytes = base.map_or_else(Vec::new, |base| real[base % real.len()].clone());
            bytes.resize(len.unwrap_or(bytes.len()), port as u8);
            let changed = bytes.len().max(1);
            for (at, byte) in changes {
                if let Some(there) = bytes.get_mut(at % changed) {
                    *there = byte;
                }
            }
            pair.deliver(to, addr(port), &bytes);
        }
        prop_assert_eq!(pair.sides[SERVER].endpoint.addr(server), Some(addr(1)));
        pair.assert_talks(client, server);
        prop_assert_eq!((pair.ups(CLIENT).len(), pair.ups(SERVER).len()), (1, 1));
        prop_assert_eq!((pair.lines(CLIENT).len(), pair.lines(SERVER).len()), (1, 1));
    }

    #[test]
    fn random_lines_do_no_harm(lines in prop::collection::vec("\\PC{0,200}|(\\{\"t\":\"fragment\".{0,100})", 1..20)) {
        let (mut pair, client, server) = Pair::up(Suite::ChaChaPoly);
        for line in &lines {
            pair.send(CLIENT, client, line);
        }
        pair.assert_talks(client, server);
    }
}
