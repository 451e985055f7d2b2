//! How sessions begin, and how they do not.

use super::*;
use crate::wire::packet;

#[test]
fn a_session_is_up_after_one_round_trip() {
    fn check(suite: Suite) {
        let mut pair = Pair::new(1);
        let start = pair.now;
        let client = pair.connect(suite);
        pair.run_for(Duration::from_secs(1));
        assert_eq!(pair.ups(CLIENT), [(client, Role::Initiator, b"welcome".to_vec())]);
        let [(server, Role::Responder, hello)] = &pair.ups(SERVER)[..] else { panic!("{pair:?}") };
        assert_eq!(hello, b"hello");
        let sent: Vec<_> = pair.sent.iter().map(|sent| (sent.at.since(start), sent.from, sent.bytes[0])).collect();
        let expected = [(0, CLIENT, 1), (1, SERVER, 2), (2, CLIENT, 3), (3, SERVER, 3)];
        assert_eq!(sent, expected.map(|(trips, from, kind)| (LATENCY * trips, from, kind)));
        let server = *server;
        pair.assert_talks(client, server);
        assert_eq!(pair.sides[SERVER].endpoint.addr(server), Some(addr(1)));
    }
    check(Suite::AesGcm);
    check(Suite::ChaChaPoly);
}

#[test]
fn lines_that_wait_for_the_answer_confirm_the_session() {
    let mut pair = Pair::new(1);
    let client = pair.connect(Suite::AesGcm);
    pair.send(CLIENT, client, "first\n");
    pair.run_for(LATENCY);
    pair.send(CLIENT, client, "second");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.lines(SERVER), ["first", "second"]);
    assert_eq!(pair.sent.len(), 4, "an empty packet was sent besides");
}

#[test]
fn lines_of_a_responder_wait_until_the_initiator_has_proved_itself() {
    let mut pair = Pair::new(1);
    pair.connect(Suite::AesGcm);
    pair.run_for(LATENCY);
    let server = pair.asked()[0];
    pair.send(SERVER, server, "early\n");
    pair.run_for(LATENCY);
    assert!(pair.sent.iter().all(|sent| sent.from == CLIENT || sent.bytes[0] == 2), "sealed before confirmation");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.lines(CLIENT), ["early"]);
}

#[test]
fn lines_wait_only_so_many() {
    let mut pair = Pair::new(1);
    let client = pair.connect(Suite::AesGcm);
    for _ in 0..100 {
        pair.send(CLIENT, client, &"x".repeat(1_023));
    }
    assert_eq!(pair.count(CLIENT, "unsent_full"), 36);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.lines(SERVER).len(), 64);
}

#[test]
fn whatever_is_lost_once_is_recovered() {
    fn check(what: &str, lost: &'static [(usize, usize)]) {
        let mut pair = Pair::new(1);
        pair.fate = Box::new(|from, n| if lost.contains(&(from, n)) { Fate::IsLost } else { Fate::Arrives });
        let client = pair.connect(Suite::AesGcm);
        pair.run_for(Duration::from_secs(5));
        assert_eq!(pair.ups(CLIENT).len(), 1, "{what}: {pair:?}");
        let [(server, ..)] = pair.ups(SERVER)[..] else { panic!("{what}: {pair:?}") };
        assert_eq!(pair.asked(), [server], "{what}: a repeated init made a second session");
        let answers: Vec<_> = pair.sent.iter().filter(|sent| sent.bytes[0] == 2).map(|sent| &sent.bytes).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{what}: answers differ");
        let quiet = pair.sent.len();
        pair.run_for(Duration::from_secs(5));
        assert_eq!(pair.sent.len(), quiet, "{what}: somebody still repeats");
        pair.fate = Box::new(|_, _| Fate::Arrives);
        pair.assert_talks(client, server);
    }
    check("inits", &[(CLIENT, 0), (CLIENT, 1), (CLIENT, 2), (CLIENT, 3)]);
    check("answers", &[(SERVER, 0), (SERVER, 1), (SERVER, 2)]);
    check("the first confirmations", &[(CLIENT, 1), (CLIENT, 2), (CLIENT, 3)]);
    check("what confirms the confirmation", &[(SERVER, 1), (SERVER, 2), (SERVER, 3), (SERVER, 4)]);
}

#[test]
fn a_confirmation_is_repeated_soon_however_late_the_answer_was() {
    let mut pair = Pair::new(1);
    pair.fate = Box::new(|from, n| if from == CLIENT && n != 4 && n < 6 { Fate::IsLost } else { Fate::Arrives });
    pair.connect(Suite::AesGcm);
    pair.run_for(Duration::from_secs(3));
    let confirmations = pair.sent.iter().filter(|sent| sent.from == CLIENT && sent.bytes[0] == 3);
    let times: Vec<_> = confirmations.map(|sent| sent.at.since(pair.sent[0].at).as_millis()).collect();
    assert_eq!(times, [820, 920]);
}

#[test]
fn an_init_is_repeated_as_it_is_for_three_seconds() {
    let mut pair = Pair::new(1);
    pair.fate = Box::new(|_, _| Fate::IsLost);
    let start = pair.now;
    let client = pair.connect(Suite::AesGcm);
    pair.run_for(Duration::from_millis(2_999));
    assert_eq!(pair.closed(CLIENT), []);
    pair.run_for(Duration::from_millis(2));
    assert_eq!(pair.closed(CLIENT), [client]);
    let times: Vec<_> = pair.sent.iter().map(|sent| sent.at.since(start).as_millis()).collect();
    assert_eq!(times, [0, 100, 200, 400, 800, 1_600]);
    assert!(pair.sent.iter().all(|sent| sent.bytes == pair.sent[0].bytes));
    assert_eq!(pair.sides[CLIENT].endpoint.deadline(), None);
}

#[test]
fn a_responder_with_another_key_never_comes_up() {
    let mut pair = Pair::new(1);
    pair.sides[SERVER].endpoint.set_key(key(3));
    let client = pair.connect(Suite::AesGcm);
    pair.run_for(Duration::from_secs(10));
    assert_eq!(pair.closed(CLIENT), [client]);
    assert_eq!((pair.ups(CLIENT), pair.ups(SERVER), pair.asked()), (vec![], vec![], vec![]));
    assert_eq!(pair.count(SERVER, "handshake_bad"), 6);
}

#[test]
fn an_endpoint_without_a_key_answers_nobody() {
    let mut pair = Pair::new(1);
    let to = pair.sides[CLIENT].addr;
    pair.sides[SERVER].endpoint.connect(to, &key(2), &key(1).public, Suite::AesGcm, b"", pair.now);
    pair.run_for(LATENCY);
    assert_eq!(pair.count(CLIENT, "handshake_unwanted"), 1);
}

#[test]
fn a_replayed_init_has_no_effect_without_a_confirmation() {
    let (mut pair, client, server) = Pair::up(Suite::AesGcm);
    let mut recorded = Pair::new(1);
    recorded.connect(Suite::AesGcm);
    recorded.turn();
    pair.deliver(SERVER, addr(66), &recorded.sent[0].bytes);
    pair.run_for(Duration::from_secs(2));
    let half_open = pair.asked();
    assert_eq!((half_open.len(), pair.ups(SERVER)), (1, vec![]));
    pair.send(SERVER, half_open[0], "for the other side alone\n");
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.closed(SERVER), half_open);
    assert!(pair.sent.iter().all(|sent| sent.bytes[0] == 2), "the replayer got something sealed");
    assert_eq!(pair.sides[SERVER].endpoint.addr(server), Some(addr(1)));
    pair.assert_talks(client, server);
}

#[test]
fn a_replayed_confirmation_brings_nothing_up() {
    let mut recorded = Pair::new(1);
    recorded.connect(Suite::AesGcm);
    recorded.run_for(Duration::from_secs(1));
    // The same server, later: its half of the handshake is another.
    let mut pair = Pair::new(2);
    for sent in recorded.sent.iter().filter(|sent| sent.from == CLIENT) {
        pair.deliver(SERVER, addr(66), &sent.bytes);
        pair.run_for(Duration::from_millis(50));
        let Some(&index) = pair.asked().first() else { panic!("{pair:?}") };
        let mut confirmation = recorded.sent[2].bytes.clone();
        confirmation[1..5].copy_from_slice(&index.0.to_be_bytes());
        pair.deliver(SERVER, addr(66), &confirmation);
    }
    assert_eq!(pair.ups(SERVER), []);
    assert!(pair.count(SERVER, "seal_bad") > 0);
}

#[test]
fn the_answer_is_never_larger_than_what_asked_for_it() {
    fn check(payload: usize, accepted: bool) {
        let mut pair = Pair::new(1);
        pair.welcome = Some(vec![7; payload]);
        pair.connect(Suite::AesGcm);
        pair.run_for(Duration::from_millis(50));
        assert_eq!(!pair.ups(SERVER).is_empty(), accepted, "{payload} bytes");
        assert!(pair.sent.iter().all(|sent| sent.bytes.len() <= pair.sent[0].bytes.len()));
        assert_eq!(pair.count(SERVER, "answer_too_large"), u64::from(!accepted));
    }
    check(0, true);
    check(packet::INIT_BYTES_MIN - packet::ANSWER_BYTES_MIN, true);
    check(packet::INIT_BYTES_MIN - packet::ANSWER_BYTES_MIN + 1, false);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    fn trace(seed: u8) -> Vec<Sent> {
        let mut pair = Pair::new(seed);
        pair.fate = Box::new(|_, n| if n % 3 == 0 { Fate::IsLost } else { Fate::Arrives });
        for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
            let client = pair.connect(suite);
            pair.send(CLIENT, client, "line\n");
            pair.run_for(Duration::from_secs(1));
        }
        pair.sent
    }
    assert!(trace(1).len() > 8);
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
