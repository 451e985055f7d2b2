//! What goes through a session that is up.

use super::*;
use crate::{
    limits,
    session::{
        rekey::Rekey,
        state::{SILENT_GRAIN, Session},
    },
    wire::frame::FragmentOf,
};

/// Sends lines one to a packet, and takes the packets off the wire.
fn packets(pair: &mut Pair, session: SessionId, lines: impl IntoIterator<Item = String>) -> Vec<Vec<u8>> {
    let mut out = Datagrams::default();
    for line in lines {
        pair.send(CLIENT, session, &line);
        pair.sides[CLIENT].endpoint.flush(pair.now, &mut out);
    }
    out.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn lines_share_packets_as_far_as_they_fit_and_those_before_the_last_are_filled_up() {
    fn check(lengths: &[usize], expected: &[usize]) {
        let (mut pair, client, _) = Pair::up(Suite::AesGcm);
        let lines: Vec<_> = lengths.iter().map(|len| "x".repeat(len - 1)).collect();
        for line in &lines {
            pair.send(CLIENT, client, &format!("{line}\n"));
        }
        pair.run_for(LATENCY);
        let sizes: Vec<_> = pair.sent.iter().map(|sent| sent.bytes.len() - 29).collect();
        assert_eq!(sizes, expected, "{lengths:?}");
        pair.turn();
        assert_eq!(pair.lines(SERVER), lines);
    }
    check(&[1_200], &[1_200]);
    check(&[600, 600], &[1_200]);
    check(&[600, 601], &[601, 601]);
    check(&[400, 400, 400, 601], &[1_200, 601]);
    check(&[349, 1_000], &[349, 1_000]);
    check(&[400, 400, 400, 2, 1_199], &[1_200, 2, 1_199]);
    check(&[1_000, 900, 50], &[1_000, 950]);
    check(&[2; 700], &[1_200, 200]);
}

#[test]
fn a_line_that_is_too_long_or_to_nobody_is_dropped() {
    let (mut pair, client, _) = Pair::up(Suite::AesGcm);
    pair.send(CLIENT, client, &"x".repeat(limits::FRAME_BYTES_MAX));
    pair.send(CLIENT, SessionId(0), "x\n");
    pair.run_for(Duration::from_secs(1));
    assert_eq!((pair.count(CLIENT, "line_too_long"), pair.sent.len()), (1, 0));
}

#[test]
fn a_packet_is_taken_once() {
    let (mut pair, client, _) = Pair::up(Suite::AesGcm);
    let packets = packets(&mut pair, client, ["once".into()]);
    for _ in 0..3 {
        pair.deliver(SERVER, addr(1), &packets[0]);
    }
    pair.turn();
    assert_eq!(pair.lines(SERVER), ["once"]);
    assert_eq!(pair.count(SERVER, "replayed"), 2);
}

#[test]
fn a_packet_that_lags_behind_is_taken_when_it_comes() {
    let (mut pair, client, _) = Pair::up(Suite::AesGcm);
    let lag = Fate::Lags(Duration::from_secs(1));
    pair.fate = Box::new(move |_, n| if n == 0 { lag } else { Fate::Arrives });
    for line in ["late", "early"] {
        pair.send(CLIENT, client, line);
        pair.run_for(LATENCY);
    }
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.lines(SERVER), ["early", "late"]);
}

#[test]
fn packets_may_be_out_of_order_within_the_window() {
    let (mut pair, client, _) = Pair::up(Suite::AesGcm);
    let packets = packets(&mut pair, client, (0..1_026).map(|n| n.to_string()));
    for packet in packets.iter().rev() {
        pair.deliver(SERVER, addr(1), packet);
    }
    pair.turn();
    let expected: Vec<_> = (2..1_026).rev().map(|n: u32| n.to_string()).collect();
    assert_eq!(pair.lines(SERVER), expected);
    assert_eq!(pair.count(SERVER, "replayed"), 2);
}

#[test]
fn the_newest_authentic_packet_says_where_the_other_side_is() {
    let (mut pair, client, server) = Pair::up(Suite::AesGcm);
    let packets = packets(&mut pair, client, ["a".into(), "b".into(), "c".into()]);
    let mut forged = packets[2].clone();
    forged[20] ^= 1;
    let mut check = |from: u16, packet: &[u8], expected: u16| {
        pair.deliver(SERVER, addr(from), packet);
        assert_eq!(pair.sides[SERVER].endpoint.addr(server), Some(addr(expected)));
    };
    check(10, &packets[1], 10);
    check(11, &packets[0], 10);
    check(12, &packets[1], 10);
    check(13, &forged, 10);
    check(14, &packets[2], 14);
    pair.sides[CLIENT].addr = addr(14);
    pair.assert_talks(client, server);
}

#[test]
fn large_lines_survive_loss_when_they_are_repeated() {
    let (mut pair, client, _) = Pair::up(Suite::AesGcm);
    let line = "{\"t\":\"post\",\"body\":\"\\\"\\u0001ö🫖\"}".repeat(500);
    let of = FragmentOf::Post("tea".parse().unwrap(), 1);
    for round in 0..3 {
        pair.fate = Box::new(move |_, n| if n % 3 == round { Fate::Arrives } else { Fate::IsLost });
        pair.sent.clear();
        assert!(pair.lines(SERVER).is_empty(), "{round}");
        pair.sides[CLIENT].endpoint.send_large(client, || of.clone(), &line);
        pair.run_for(Duration::from_secs(1));
    }
    assert_eq!(pair.lines(SERVER), [line]);
    assert!(pair.sides[SERVER].endpoint.sessions.values().all(|(_, session)| session.assembler.is_none()));
}

#[test]
fn a_large_line_goes_as_it_is_if_it_fits() {
    fn check(bytes: usize, packets: usize, too_long: u64) {
        let (mut pair, client, _) = Pair::up(Suite::AesGcm);
        let line = "x".repeat(bytes);
        pair.sides[CLIENT].endpoint.send_large(client, || FragmentOf::Post("tea".parse().unwrap(), 1), &line);
        pair.run_for(Duration::from_millis(50));
        assert_eq!((pair.sent.len(), pair.count(CLIENT, "line_too_long")), (packets, too_long), "{bytes} bytes");
        assert_eq!(pair.lines(SERVER).concat(), if too_long == 0 { line } else { String::new() });
    }
    check(limits::FRAME_BYTES_MAX - 1, 1, 0);
    check(limits::FRAME_BYTES_MAX, 2, 0);
    check(limits::FRAGMENTED_LINE_BYTES_MAX + 1, 0, 1);
}

#[test]
fn only_so_much_waits_for_the_next_flush() {
    let (mut pair, client, _) = Pair::up(Suite::AesGcm);
    let waits = |pair: &Pair| pair.sides[CLIENT].endpoint.unsent_bytes(client);
    let (entry, of) = ("x".repeat(20_000), FragmentOf::Post("tea".parse().unwrap(), 1));
    for _ in 0..100 {
        pair.sides[CLIENT].endpoint.send_large(client, || of.clone(), &entry);
        pair.sides[CLIENT].endpoint.send_large(client, || of.clone(), "short");
    }
    assert!(waits(&pair) < limits::UNSENT_LARGE_BYTES_MAX + 2 * entry.len(), "{}", waits(&pair));
    assert!(waits(&pair) >= limits::UNSENT_LARGE_BYTES_MAX && pair.count(CLIENT, "unsent_full") > 150);
    let other = "x".repeat(limits::FRAME_BYTES_MAX - 1);
    for _ in 0..limits::UNSENT_UP_BYTES_MAX / other.len() {
        pair.send(CLIENT, client, &other);
    }
    let size = waits(&pair);
    assert!(size <= limits::UNSENT_UP_BYTES_MAX && size + 2 * other.len() > limits::UNSENT_UP_BYTES_MAX, "{size}");
}

#[test]
fn fragments_that_are_none_are_counted() {
    let (mut pair, client, _) = Pair::up(Suite::AesGcm);
    pair.send(CLIENT, client, "{\"t\":\"fragment\"}\n");
    pair.send(
        CLIENT,
        client,
        "{\"t\":\"fragment\",\"of\":{\"post\":[\"tea\",1]},\"at\":9,\"len\":9,\"sum\":0,\"piece\":\"x\"}\n",
    );
    pair.run_for(Duration::from_secs(1));
    assert_eq!((pair.count(SERVER, "fragment_bad"), pair.lines(SERVER).len()), (2, 0));
}

#[test]
fn pieces_that_wait_in_vain_are_forgotten() {
    let (mut pair, client, server) = Pair::up(Suite::AesGcm);
    pair.send(
        CLIENT,
        client,
        "{\"t\":\"fragment\",\"of\":{\"post\":[\"tea\",1]},\"at\":0,\"len\":9,\"sum\":0,\"piece\":\"x\"}\n",
    );
    pair.run_for(Duration::from_secs(1));
    let waits = |pair: &Pair| pair.sides[SERVER].endpoint.sessions[&server].assembler.is_some();
    assert!(waits(&pair));
    for _ in 0..8 {
        pair.send(CLIENT, client, "alive\n");
        pair.send(SERVER, server, "alive\n");
        pair.run_for(Duration::from_secs(20));
    }
    assert!(!waits(&pair));
}

#[test]
fn a_silent_session_is_closed_and_one_that_is_heard_is_not() {
    let (mut pair, client, server) = Pair::up(Suite::AesGcm);
    for _ in 0..10 {
        pair.send(CLIENT, client, "alive\n");
        pair.send(SERVER, server, "alive\n");
        pair.run_for(Duration::from_secs(25));
    }
    assert_eq!((pair.closed(CLIENT), pair.closed(SERVER)), (vec![], vec![]));
    let heard = pair.now.since(pair.sides[SERVER].endpoint.heard(server).unwrap());
    assert_eq!(heard + LATENCY, Duration::from_secs(25));
    pair.run_for(Duration::from_secs(50));
    assert_eq!((pair.closed(CLIENT), pair.closed(SERVER)), (vec![], vec![]));
    pair.run_for(LATENCY + SILENT_GRAIN);
    assert_eq!((pair.closed(CLIENT), pair.closed(SERVER)), (vec![client], vec![server]));
    assert_eq!(pair.sides.each_ref().map(|side| side.endpoint.deadline()), [None, None]);
}

#[test]
fn a_session_whose_other_half_is_gone_is_not_kept_for_long() {
    let mut pair = Pair::new(1);
    pair.fate = Box::new(|from, n| if from == CLIENT && n > 0 { Fate::IsLost } else { Fate::Arrives });
    let client = pair.connect(Suite::AesGcm);
    pair.run_for(Duration::from_secs(6));
    assert_eq!((pair.ups(CLIENT).len(), pair.ups(SERVER).len()), (1, 0));
    assert_eq!(pair.sent.iter().filter(|sent| sent.bytes[0] == 3).count(), 7);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.closed(CLIENT), [client]);
}

#[test]
fn a_closed_session_is_gone_without_a_word() {
    let (mut pair, client, server) = Pair::up(Suite::AesGcm);
    pair.send(CLIENT, client, "never\n");
    pair.sides[CLIENT].endpoint.close(client);
    pair.send(SERVER, server, "to nobody\n");
    pair.run_for(Duration::from_secs(1));
    assert_eq!((pair.lines(SERVER).len(), pair.closed(CLIENT).len()), (0, 0));
    assert_eq!((pair.sides[CLIENT].endpoint.addr(client), pair.sides[CLIENT].endpoint.deadline()), (None, None));
    assert_eq!(pair.count(CLIENT, "session_unknown"), 1);
}

#[test]
fn an_idle_session_is_small() {
    // Two ring keys of 544 bytes, boxed: what a transport state of `snow` has outside itself.
    const CIPHERS_BYTES: usize = 2 * 544;
    // A key and a pointer in the table, which may have grown to twice of what it holds; a time and a key among the timers,
    // in a tree that is about two thirds full.
    const TABLES_BYTES: usize = 16 * 2 + 16 * 3 / 2 + 16;
    let (pair, _, server) = Pair::up(Suite::AesGcm);
    let session = &pair.sides[SERVER].endpoint.sessions[&server];
    assert!(session.waiting.is_none() && session.assembler.is_none());
    let bytes = size_of::<Session>() + CIPHERS_BYTES + TABLES_BYTES;
    println!("{bytes} bytes, of them {} of the session itself", size_of::<Session>());
    assert!(bytes < 2_048 && session.rekey.is_none(), "{bytes} bytes");
    // For some seconds each hour it has two pairs of keys.
    let changing = size_of::<Rekey>() + CIPHERS_BYTES;
    println!("{changing} bytes more while its keys change");
    assert!(changing < 1_536, "{changing} bytes");
}

#[test]
fn an_entry_in_short_comes_out_in_full_and_out_of_context_not_at_all() {
    const FULL: &str = r#"{"t":"entry","r":"tea","o":[2,7],"s":1,"h":[5,0],"f":"anna","p":"P","d":"D","c":1,"k":"message","b":"Tea?","x":"X"}"#;
    const SHORT: &str = r#"{"t":"then","h":[2,0],"b":"Milk?","x":"Y"}"#;
    const MADE: &str = r#"{"t":"entry","r":"tea","o":[2,7],"s":2,"h":[7,0],"f":"anna","p":"P","d":"D","c":2,"k":"message","b":"Milk?","x":"Y"}"#;
    fn check(said: &[&str], expected: &[&str], dropped: u64) {
        let (mut pair, client, _) = Pair::up(Suite::AesGcm);
        for line in said {
            pair.send(CLIENT, client, &format!("{line}\n"));
        }
        pair.run_for(LATENCY);
        pair.turn();
        assert_eq!(
            (pair.lines(SERVER), pair.count(SERVER, "then_bad")),
            (expected.iter().map(ToString::to_string).collect(), dropped)
        );
    }
    check(&[FULL, SHORT], &[FULL, MADE], 0);
    check(&[SHORT, FULL], &[FULL], 1);
    check(&[FULL, "x", SHORT, SHORT], &[FULL, "x"], 2);
    check(
        &[FULL, SHORT, r#"{"t":"then","b":"no hash"#],
        &[
            FULL,
            MADE,
            &MADE
                .replace("\"s\":2", "\"s\":3")
                .replace("[7,0]", "[7,1]")
                .replace("\"c\":2", "\"c\":3")
                .replace(r#""Milk?","x":"Y"}"#, r#""no hash"#),
        ],
        0,
    );
}

#[test]
fn a_line_in_short_makes_none_that_could_not_be_said_in_full() {
    fn check(bytes: usize, expected: u64) {
        let (mut pair, client, _) = Pair::up(Suite::AesGcm);
        let full = r#"{"t":"entry","r":"tea","o":[2,7],"s":1,"h":[5,0],"f":"anna","p":"P","d":"D","c":1,"k":"message","b":"Tea?"}"#;
        let around = full.len() - "Tea?".len();
        let packet = format!("{full}\n{{\"t\":\"then\",\"b\":\"{}\"}}", "x".repeat(bytes - around));
        pair.say(CLIENT, client, packet.as_bytes());
        pair.turn();
        let longest = pair.lines(SERVER).iter().map(String::len).max();
        assert_eq!(
            (pair.count(SERVER, "then_bad"), longest == Some(bytes)),
            (expected, expected == 0),
            "{bytes} bytes"
        );
    }
    check(limits::FRAME_BYTES_MAX - 1, 0);
    check(limits::FRAME_BYTES_MAX, 1);
}
