//! Servers that hear each other over an in-memory network.

use proptest::prelude::*;

use super::*;
use crate::{ids::ClusterName, rng::Rng, session::keys};

const KEY: [u8; 32] = [7; 32];

/// Facts of a young, empty server of cluster 1.
pub(crate) fn facts(id: u32) -> Facts {
    Facts {
        cluster: ClusterId(1),
        name: "hobnob".parse().unwrap(),
        id: Some(ServerId(id)),
        boot: Boot(100 + u64::from(id)),
        port: 5000 + id as u16,
        key: [9; 32],
        open: true,
        empty: true,
        age_secs: 0,
        servers: 1,
        suite: Suite::AesGcm,
        ids: vec![ServerId(id)],
    }
}

fn ms(millis: u64) -> Time {
    Time::from_micros(1_000_000 + millis * 1_000)
}

fn addr(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn discovery(peers: &[SocketAddr]) -> Discovery {
    let config = Config { key: Zeroizing::new(KEY), peers: peers.to_vec() };
    Discovery::new(config, Rng::from_seed([1; 32]), ms(0))
}

fn drain(discovery: &mut Discovery) -> Vec<Output> {
    std::iter::from_fn(|| discovery.poll()).collect()
}

/// A HELLO of `theirs`, sent from any port.
fn hello(theirs: &Facts) -> Vec<u8> {
    packet::hello(theirs, Nonce([0; 8]), &KEY)
}

/// What discovery wants after hearing `bytes` from `from`, its own first HELLO aside.
fn outputs_of(ours: &Facts, from: SocketAddr, bytes: &[u8]) -> (Discovery, Vec<Output>) {
    let mut discovery = discovery(&[]);
    discovery.handle(Input::Tick, ours, ms(0));
    drain(&mut discovery);
    discovery.handle(Input::Datagram { from, bytes }, ours, ms(1));
    let outputs = drain(&mut discovery);
    (discovery, outputs)
}

fn contact(theirs: &Facts, addr: SocketAddr) -> Contact {
    let Facts { cluster, boot, key, suite, empty, age_secs, .. } = *theirs;
    Contact { addr, cluster, id: theirs.id.unwrap(), boot, key, suite, empty, age_secs }
}

#[test]
fn hellos_come_at_once_and_again_then_each_second_then_every_two() {
    let mut discovery = discovery(&[]);
    let (ours, mut times) = (facts(1), Vec::new());
    let mut now = ms(0);
    while now < ms(20_000) {
        discovery.handle(Input::Tick, &ours, now);
        times.extend(drain(&mut discovery).iter().map(|_| now));
        assert!(discovery.deadline() > now, "it does not spin");
        now = discovery.deadline();
    }
    let first: Vec<_> = times.iter().take(14).map(|time| time.since(ms(0)).as_millis()).collect();
    assert_eq!(first, [0, 100, 200, 300, 1300, 2300, 3300, 4300, 5300, 6300, 7300, 8300, 9300, 10_300]);
    for pair in times[13..].windows(2) {
        let gap = pair[1].since(pair[0]).as_millis();
        assert!((1_600..=2_400).contains(&gap), "{gap} ms");
    }
}

#[test]
fn a_change_of_cluster_or_id_is_told_at_once() {
    let mut discovery = discovery(&[]);
    discovery.handle(Input::Tick, &facts(1), ms(0));
    drain(&mut discovery);
    discovery.handle(Input::Tick, &facts(1), ms(1));
    assert_eq!(drain(&mut discovery), []);
    let moved = Facts { cluster: ClusterId(2), ..facts(1) };
    discovery.handle(Input::Tick, &moved, ms(2));
    assert!(matches!(drain(&mut discovery)[..], [Output::Broadcast { .. }]));
}

#[test]
fn a_newcomer_is_answered_at_its_session_address_and_once() {
    let (ours, theirs) = (facts(1), facts(2));
    let (mut discovery, outputs) = outputs_of(&ours, addr(40_000), &hello(&theirs));
    let [Output::Send { to, bytes }, Output::Candidate(candidate)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(*to, addr(5002));
    assert_eq!(packet::parse(bytes), Ok(Packet::Hello { facts: ours.clone() }));
    assert_eq!(*candidate, contact(&theirs, addr(5002)));
    discovery.handle(Input::Datagram { from: addr(40_000), bytes: &hello(&theirs) }, &ours, ms(50));
    assert!(matches!(drain(&mut discovery)[..], [Output::Candidate(_)]), "known by now");
}

#[test]
fn who_holds_an_id_elsewhere_is_known_while_it_is_heard_and_has_our_secret() {
    /// Whether a server of that cluster and id has been heard, where one of id 2 in cluster 5 has, so many seconds ago.
    fn check(key: [u8; 32], cluster: u128, id: u32, secs: u64, expected: bool) {
        let theirs = Facts { cluster: ClusterId(5), ..facts(2) };
        let bytes = packet::hello(&theirs, Nonce([0; 8]), &key);
        let (discovery, _) = outputs_of(&facts(1), addr(5002), &bytes);
        let has_heard = discovery.has_heard(ClusterId(cluster), ServerId(id), ms(secs * 1_000));
        assert_eq!(has_heard, expected, "server {id} of {cluster} after {secs} s");
    }
    check(KEY, 5, 2, 1, true);
    check(KEY, 5, 2, 29, true);
    check(KEY, 5, 2, 31, false);
    check(KEY, 5, 3, 1, false);
    check(KEY, 1, 2, 1, false);
    check([8; 32], 5, 2, 1, false);
}

#[test]
fn a_server_that_is_heard_both_ways_is_called_over_ipv4_at_first() {
    /// Where the HELLO at each millisecond comes from, and at which addresses that makes the server a candidate.
    fn check(heard: &[(u64, &str)], expected: &[&str]) {
        let (ours, theirs) = (facts(1), facts(2));
        let mut discovery = discovery(&[]);
        let mut called = Vec::new();
        for (at, from) in heard {
            discovery.handle(Input::Datagram { from: from.parse().unwrap(), bytes: &hello(&theirs) }, &ours, ms(*at));
            called.extend(drain(&mut discovery).into_iter().filter_map(|output| match output {
                Output::Candidate(contact) => Some(contact.addr.to_string()),
                _ => None,
            }));
        }
        assert_eq!(called, expected, "{heard:?}");
    }
    let (v4, v6) = ("192.0.2.2:5005", "[fe80::2%3]:5005");
    let (call_v4, call_v6) = ("192.0.2.2:5002", "[fe80::2%3]:5002");
    check(&[(1, v4), (2, v6)], &[call_v4]);
    check(&[(1, v4), (2, v6), (1_001, v4), (1_002, v6)], &[call_v4, call_v4]);
    check(&[(1, v6), (2, v4), (1_001, v6)], &[call_v6, call_v4]);
    check(&[(1, v6), (1_001, v6)], &[call_v6, call_v6]);
    check(&[(1, v4), (4_999, v4), (5_002, v6)], &[call_v4, call_v4, call_v6]);
}

#[test]
fn a_change_of_networks_is_told_at_once_and_often_for_a_while() {
    let (ours, peer) = (facts(1), addr(9));
    let mut discovery = discovery(&[peer]);
    let mut now = ms(0);
    while now < ms(60_000) {
        discovery.handle(Input::Tick, &ours, now);
        now = discovery.deadline();
    }
    drain(&mut discovery);
    let changed = now + Duration::from_millis(1);
    discovery.network_changed(changed);
    assert_eq!(discovery.deadline(), changed);
    let mut told = Vec::new();
    now = changed;
    while now < changed + Duration::from_secs(4) {
        discovery.handle(Input::Tick, &ours, now);
        let said = drain(&mut discovery);
        assert!(now > changed || said.iter().any(|output| matches!(output, Output::Send { to, .. } if *to == peer)));
        if said.iter().any(|output| matches!(output, Output::Broadcast { .. })) {
            told.push(now.since(changed).as_millis());
        }
        now = discovery.deadline();
    }
    assert_eq!(told, [0, 100, 200, 300, 1_300, 2_300, 3_300]);
}

#[test]
fn ones_own_hello_means_nothing() {
    let (ours, echo) = (facts(1), hello(&facts(1)));
    assert_eq!(outputs_of(&ours, addr(5001), &echo).1, []);
}

#[test]
fn who_is_heard_is_joined_adopted_taught_or_left_alone() {
    /// ours and theirs: (cluster, empty, age)
    fn check(ours: (u128, bool, u32), theirs: (u128, bool, u32), expected: &str) {
        let with = |(cluster, empty, age_secs), facts| Facts { cluster: ClusterId(cluster), empty, age_secs, ..facts };
        let (ours, theirs) = (with(ours, facts(1)), with(theirs, facts(2)));
        let (discovery, outputs) = outputs_of(&ours, addr(5002), &hello(&theirs));
        let said: Vec<_> = outputs
            .iter()
            .map(|output| match output {
                Output::Send { .. } => "hello",
                Output::Candidate(_) => "candidate",
                Output::Adopt(_) => "adopt",
                Output::Foreign(_) => "foreign",
                _ => "other",
            })
            .collect();
        assert_eq!(said.join(" "), expected);
        assert_eq!(discovery.foreign(ms(1)).count(), usize::from(expected.contains("foreign")));
    }
    check((1, false, 900), (1, true, 0), "hello candidate");
    check((1, true, 0), (2, false, 900), "hello adopt");
    check((2, true, 0), (1, true, 0), "hello adopt");
    check((1, true, 0), (2, true, 0), "hello");
    check((1, false, 900), (2, true, 0), "hello");
    check((1, false, 900), (2, false, 900), "hello foreign");
}

#[test]
fn whoever_should_come_over_is_told_again_and_again_but_not_in_a_flood() {
    let (ours, theirs) = (facts(1), Facts { cluster: ClusterId(2), ..facts(2) });
    let (mut discovery, _) = outputs_of(&ours, addr(5002), &hello(&theirs));
    let mut told = 0;
    for at in 2..1_002 {
        discovery.handle(Input::Datagram { from: addr(5002), bytes: &hello(&theirs) }, &ours, ms(at));
        told += drain(&mut discovery).iter().filter(|output| matches!(output, Output::Send { .. })).count();
    }
    assert!((3..=4).contains(&told), "{told}");
}

#[test]
fn another_secret_or_name_is_foreign_and_counted() {
    fn check(theirs: &Facts, key: &[u8; 32], counter: &str) {
        let bytes = packet::hello(theirs, Nonce([0; 8]), key);
        let (discovery, outputs) = outputs_of(&facts(1), addr(5002), &bytes);
        assert_eq!(discovery.counters().get(counter), Some(&1));
        let [Output::Foreign(foreign)] = &outputs[..] else { panic!("{outputs:?}") };
        assert!(!foreign.proven && !foreign.open);
    }
    let elsewhere = Facts { cluster: ClusterId(2), ..facts(2) };
    check(&elsewhere, &[8; 32], "discovery_tag");
    let name: ClusterName = "other".parse().unwrap();
    check(&Facts { name, ..elsewhere }, &KEY, "discovery_name");
}

#[test]
fn a_forged_packet_cannot_hide_a_cluster_that_proved_itself() {
    let ours = Facts { empty: false, age_secs: 900, ..facts(1) };
    let theirs = Facts { cluster: ClusterId(2), empty: false, age_secs: 900, ..facts(2) };
    let (mut discovery, _) = outputs_of(&ours, addr(5002), &hello(&theirs));
    let forged = packet::hello(&theirs, Nonce([0; 8]), &[8; 32]);
    discovery.handle(Input::Datagram { from: addr(6666), bytes: &forged }, &ours, ms(2));
    assert!(discovery.foreign(ms(3)).all(|foreign| foreign.proven));
    assert_eq!(discovery.foreign(ms(60_000)).count(), 0, "forgotten once silent");
}

#[test]
fn foreign_clusters_are_bounded() {
    let ours = facts(1);
    let (mut discovery, _) = outputs_of(&ours, addr(1), b"{}");
    for cluster in 2..500 {
        let theirs = Facts { cluster: ClusterId(cluster), ..facts(2) };
        let bytes = packet::hello(&theirs, Nonce([0; 8]), &[8; 32]);
        discovery.handle(Input::Datagram { from: addr(5002), bytes: &bytes }, &ours, ms(cluster as u64));
    }
    assert_eq!(discovery.foreign(ms(501)).count(), foreign::FOREIGN_MAX);
    assert!(discovery.foreign(ms(501)).any(|foreign| foreign.cluster == ClusterId(499)));
}

#[test]
fn find_is_answered_where_it_is_padded() {
    let nonce = Nonce([5; 8]);
    let other: ClusterName = "other".parse().unwrap();
    let (_, outputs) = outputs_of(&facts(1), addr(40_000), &packet::find(Some(&other), nonce));
    let [Output::Send { to, bytes }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(*to, addr(40_000));
    assert_eq!(packet::parse(bytes), Ok(Packet::Here { facts: facts(1), nonce }));
    let short = br#"{"hobnob":1,"t":"find","nonce":"BQUFBQUFBQU"}"#;
    let (discovery, outputs) = outputs_of(&facts(1), addr(40_000), short);
    assert_eq!(outputs, []);
    assert_eq!(discovery.counters()["discovery_unpadded"], 1);
}

#[test]
fn a_flood_of_finds_is_answered_twenty_times() {
    let ours = facts(1);
    let find = packet::find(None, Nonce([5; 8]));
    let (mut discovery, _) = outputs_of(&ours, addr(40_000), &find);
    for _ in 0..100 {
        discovery.handle(Input::Datagram { from: addr(40_000), bytes: &find }, &ours, ms(1));
    }
    assert_eq!(drain(&mut discovery).len(), 19);
    assert_eq!(discovery.counters()["discovery_limited"], 81);
}

#[test]
fn a_named_peer_is_asked_until_a_session_stands() {
    let peer = addr(5002);
    let mut discovery = discovery(&[peer]);
    let (ours, theirs) = (facts(1), facts(2));
    let finds = |discovery: &mut Discovery, now| -> Vec<Vec<u8>> {
        discovery.handle(Input::Tick, &ours, now);
        let sent = drain(discovery).into_iter();
        sent.filter_map(|output| if let Output::Send { bytes, .. } = output { Some(bytes) } else { None }).collect()
    };
    let find = finds(&mut discovery, ms(0)).remove(0);
    let Ok(Packet::Find { nonce, .. }) = packet::parse(&find) else { panic!("a FIND") };
    assert_eq!(finds(&mut discovery, ms(1_999)).len(), 0);
    assert_eq!(finds(&mut discovery, ms(2_000)).len(), 1);

    let here = packet::here(&theirs, Nonce([0; 8]), &KEY);
    discovery.handle(Input::Datagram { from: peer, bytes: &here }, &ours, ms(2_001));
    assert_eq!(drain(&mut discovery), []);
    assert_eq!(discovery.counters()["discovery_nonce"], 1);
    let here = packet::here(&theirs, nonce, &KEY);
    discovery.handle(Input::Datagram { from: addr(7777), bytes: &here }, &ours, ms(2_001));
    assert_eq!(drain(&mut discovery).pop(), Some(Output::Candidate(contact(&theirs, addr(7777)))));

    discovery.set_connected(peer, true, ms(2_500));
    assert_eq!(finds(&mut discovery, ms(9_000)).len(), 0);
    discovery.set_connected(peer, false, ms(9_500));
    assert_eq!(finds(&mut discovery, ms(9_500)).len(), 1);
}

#[test]
fn an_id_is_chosen_that_nobody_holds() {
    /// Ids heard as members, boots heard without an id; ours is 100.
    fn check(held: &[u32], starting: &[u64], expected: u32) {
        let ours = Facts { id: None, ids: vec![], boot: Boot(100), ..facts(1) };
        let mut discovery = discovery(&[]);
        discovery.handle(Input::Tick, &ours, ms(0));
        let member = Facts { ids: held.iter().copied().map(ServerId).collect(), ..facts(1) };
        let others = starting.iter().map(|boot| Facts { id: None, ids: vec![], boot: Boot(*boot), ..facts(9) });
        for theirs in others.chain((!held.is_empty()).then_some(member)) {
            discovery.handle(Input::Datagram { from: addr(5002), bytes: &hello(&theirs) }, &ours, ms(1));
        }
        let early = drain(&mut discovery);
        assert!(early.iter().all(|output| matches!(output, Output::Broadcast { .. } | Output::Send { .. })));
        for at in [100, 200] {
            assert_eq!(discovery.deadline(), ms(at));
            discovery.handle(Input::Tick, &ours, ms(at));
            assert!(matches!(drain(&mut discovery)[..], [Output::Broadcast { .. }]));
        }
        assert_eq!(discovery.deadline(), ms(300));
        discovery.handle(Input::Tick, &ours, ms(300));
        assert!(drain(&mut discovery).contains(&Output::Choose(ServerId(expected))));
        discovery.handle(Input::Tick, &ours, ms(301));
        assert_eq!(drain(&mut discovery), [], "once");
        let now = Facts { id: Some(ServerId(expected)), ..ours };
        discovery.handle(Input::Tick, &now, ms(302));
        let outputs = drain(&mut discovery);
        assert!(matches!(outputs[0], Output::Broadcast { .. }), "told at once");
        let candidates = outputs.iter().filter(|output| matches!(output, Output::Candidate(_))).count();
        assert_eq!(candidates, usize::from(!held.is_empty()), "what was heard before is not forgotten");
    }
    check(&[], &[], 1);
    check(&[1, 2, 4], &[], 3);
    check(&[1], &[200], 2);
    check(&[1], &[50], 3);
    check(&[], &[50, 60, 200], 3);
}

#[test]
fn an_open_cluster_is_found_by_whoever_knows_its_name() {
    let ours = facts(1);
    let key = keys::discovery_key(None, &ours.name);
    let bytes = packet::hello(&ours, Nonce([0; 8]), &key);
    assert!(packet::verify(&bytes, &keys::discovery_key(None, &"hobnob".parse().unwrap())));
    assert!(!packet::verify(&bytes, &keys::discovery_key(None, &"other".parse().unwrap())));
}

proptest! {
    #[test]
    fn hostile_datagrams_never_panic(
        datagrams in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
        flips in proptest::collection::vec((0..packet::BYTES, any::<u8>(), any::<bool>()), 0..20),
    ) {
        let ours = facts(1);
        let mut discovery = discovery(&[]);
        for (port, bytes) in &datagrams {
            discovery.handle(Input::Datagram { from: addr(*port), bytes }, &ours, ms(1));
        }
        for (at, byte, here) in flips {
            let nonce = discovery.nonce;
            let mut bytes = if here { packet::here(&facts(2), nonce, &KEY) } else { hello(&facts(2)) };
            let at = at % bytes.len();
            if bytes[at] == byte {
                continue;
            }
            bytes[at] = byte;
            discovery.handle(Input::Datagram { from: addr(1), bytes: &bytes }, &ours, ms(1));
        }
        let outputs = drain(&mut discovery);
        prop_assert!(!outputs.iter().any(|output| matches!(output, Output::Candidate(_) | Output::Adopt(_))));
    }
}
