//! Sides that change their address in mid-sentence.

use super::{rekeying::until_rekey, *};

/// Where the client goes.
const ELSEWHERE: u16 = 14;

impl Pair {
    fn move_client(&mut self) {
        self.sides[CLIENT].addr = addr(ELSEWHERE);
    }

    /// Lets the server know where the client is.
    fn show_up(&mut self, client: SessionId) {
        self.send(CLIENT, client, "here");
        self.run_for(Duration::from_secs(1));
    }

    fn server_sees(&self, session: SessionId) -> Option<SocketAddr> {
        self.sides[SERVER].endpoint.addr(session)
    }
}

#[test]
fn a_handshake_survives_a_change_of_address_at_any_moment() {
    // The init is sent at 0 ms and arrives after 10, its answer after 20, the confirmation after 30, its echo after 40.
    for millis in (0..45).step_by(5).chain([1, 9, 19, 29, 39]) {
        for loaded in [false, true] {
            let mut pair = Pair::new(1);
            if loaded {
                let others = (0..8).map(|n| [&[1, 1, n], &[0; 400][..]].concat());
                others.for_each(|init| pair.deliver(SERVER, addr(66), &init));
            }
            let client = pair.connect(Suite::AesGcm);
            pair.run_for(Duration::from_millis(millis));
            pair.move_client();
            pair.run_for(Duration::from_secs(2));
            pair.show_up(client);
            let [(server, ..)] = pair.ups(SERVER)[..] else { panic!("{millis} ms: {pair:?}") };
            assert_eq!(pair.server_sees(server), Some(addr(ELSEWHERE)), "{millis} ms, loaded: {loaded}");
            pair.assert_talks(client, server);
        }
    }
}

#[test]
fn a_change_of_keys_survives_a_change_of_address_at_any_moment() {
    for millis in (0..45).step_by(5).chain([9, 19, 29, 39]) {
        let (mut pair, client, server) = until_rekey(Suite::AesGcm);
        pair.run_for(Duration::from_millis(millis));
        pair.move_client();
        pair.run_for(Duration::from_secs(2));
        pair.show_up(client);
        pair.assert_talks(client, server);
        assert_eq!(pair.epochs(client, server), (1, 1), "{millis} ms");
        assert_eq!(pair.server_sees(server), Some(addr(ELSEWHERE)), "{millis} ms");
    }
}

#[test]
fn a_server_may_move_too() {
    let (mut pair, client, server) = Pair::up(Suite::AesGcm);
    pair.sides[SERVER].addr = addr(15);
    pair.send(SERVER, server, "I am here now");
    pair.run_for(LATENCY);
    pair.assert_talks(client, server);
}

#[test]
fn packets_under_the_last_keys_never_move_the_address_back() {
    let (mut pair, client, server) = until_rekey(Suite::AesGcm);
    // Said after the ask: the newest under the last keys.
    pair.run_for(LATENCY / 2);
    pair.send(CLIENT, client, "late");
    let mut late = Datagrams::default();
    pair.sides[CLIENT].endpoint.flush(pair.now, &mut late);
    let late: Vec<_> = late.into_iter().collect();
    pair.run_for(Duration::from_secs(1));
    pair.move_client();
    pair.show_up(client);
    for _ in 0..2 {
        pair.deliver(SERVER, addr(1), &late[0].1);
        pair.turn();
        assert_eq!(pair.server_sees(server), Some(addr(ELSEWHERE)));
    }
    assert_eq!((pair.lines(SERVER), pair.count(SERVER, "replayed")), (vec!["here".into(), "late".into()], 1));
}

#[test]
fn who_is_faster_with_a_copy_takes_the_address_until_the_next_packet() {
    let (mut pair, client, server) = Pair::up(Suite::AesGcm);
    pair.send(CLIENT, client, "raced");
    pair.turn();
    let copy = pair.sent[0].bytes.clone();
    pair.deliver(SERVER, addr(66), &copy);
    pair.run_for(LATENCY);
    // The copy came first, so the packet itself is the replay. What the server says meanwhile goes astray, sealed.
    assert_eq!((pair.server_sees(server), pair.count(SERVER, "replayed")), (Some(addr(66)), 1));
    assert_eq!(pair.lines(SERVER), ["raced"]);
    pair.send(SERVER, server, "astray");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.lines(CLIENT), [""; 0]);
    pair.send(CLIENT, client, "next");
    pair.run_for(LATENCY);
    assert_eq!(pair.server_sees(server), Some(addr(1)));
    pair.assert_talks(client, server);
}
