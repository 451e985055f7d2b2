//! Sessions that get new keys while they are used.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use proptest::{
    prelude::{ProptestConfig, any, prop},
    prop_assert_eq, proptest,
};

use super::*;
use crate::{
    limits,
    session::{
        cipher::Ready,
        rekey::{self, Rekey},
    },
};

const KEEPALIVE: Duration = Duration::from_secs(25);

impl Pair {
    /// The epochs in which the two sides seal.
    pub(super) fn epochs(&self, client: SessionId, server: SessionId) -> (u16, u16) {
        let epoch = |side: usize, id| self.sides[side].endpoint.sessions[&id].sealed.as_ref().unwrap().epoch();
        (epoch(CLIENT, client), epoch(SERVER, server))
    }

    fn rekey(&self, side: usize, session: SessionId) -> Option<&Rekey> {
        self.sides[side].endpoint.sessions[&session].rekey.as_deref()
    }

    /// Lets an idle session pass some time.
    fn idle_for(&mut self, client: SessionId, server: SessionId, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.send(CLIENT, client, "ping");
            self.send(SERVER, server, "pong");
            self.run_for(KEEPALIVE.min(end.since(self.now)));
        }
    }

    /// Sends something sealed that is no line.
    pub(super) fn say(&mut self, side: usize, session: SessionId, plain: &[u8]) {
        let sealed = self.sides[side].endpoint.sessions.get_mut(&session).unwrap().sealed.as_mut().unwrap();
        let mut packet = Datagrams::default();
        sealed.seal(plain, ([0; 4], 0).into(), &mut packet, &mut Ready::default());
        let packet: Vec<_> = packet.into_iter().collect();
        self.deliver(1 - side, self.sides[side].addr, &packet[0].1);
    }
}

/// A session whose initiator asks for new keys with its next tick, which is due.
pub(super) fn until_rekey(suite: Suite) -> (Pair, SessionId, SessionId) {
    let (mut pair, client, server) = Pair::up(suite);
    let at = pair.sides[CLIENT].endpoint.sessions[&client].rekey_at;
    pair.idle_for(client, server, at.since(pair.now + Duration::from_millis(500)));
    pair.run_for(Duration::from_millis(499));
    assert!(pair.wire.is_empty() && pair.epochs(client, server) == (0, 0));
    pair.now = at;
    pair.sides.iter_mut().for_each(|side| side.events.clear());
    pair.sent.clear();
    (pair, client, server)
}

#[test]
fn an_idle_session_gets_new_keys_each_hour() {
    let (mut pair, client, server) = Pair::up(Suite::ChaChaPoly);
    let mut changes = vec![pair.now];
    for minute in 0..400 {
        let before = pair.epochs(client, server);
        pair.idle_for(client, server, Duration::from_mins(1));
        if pair.epochs(client, server) != before {
            changes.push(pair.now);
        }
        assert_eq!(pair.epochs(client, server).0, changes.len() as u16 - 1, "minute {minute}");
    }
    let spans: Vec<_> = changes.windows(2).map(|at| at[1].since(at[0]).as_secs() / 60).collect();
    assert!(spans.len() >= 5 && spans.iter().all(|minutes| (44..=76).contains(minutes)), "{spans:?}");
    assert!(spans.iter().any(|minutes| *minutes != spans[0]), "{spans:?}");
    let (lines, dropped) = (pair.lines(SERVER).len(), pair.sides[SERVER].endpoint.counters());
    assert_eq!((lines, pair.lines(CLIENT).len(), dropped.len()), (1_200, 1_200, 0), "{pair:?}");
    assert!(pair.rekey(CLIENT, client).is_none() && pair.rekey(SERVER, server).is_none());
    assert_eq!((pair.closed(CLIENT), pair.closed(SERVER)), (vec![], vec![]));
}

#[test]
fn a_change_of_keys_takes_two_round_trips_and_no_session_changes_its_name() {
    let (mut pair, client, server) = until_rekey(Suite::AesGcm);
    let start = pair.now;
    pair.run_for(Duration::from_secs(1));
    let sent = pair.sent.iter().map(|sent| (sent.at.since(start), sent.from, sent.bytes[0], sent.bytes[6]));
    let expected = [(0, CLIENT, 0), (1, SERVER, 0), (2, CLIENT, 1), (3, SERVER, 1)];
    assert_eq!(sent.collect::<Vec<_>>(), expected.map(|(trips, from, epoch)| (LATENCY * trips, from, 3, epoch)));
    pair.assert_talks(client, server);
}

#[test]
fn whatever_is_lost_of_a_change_of_keys_is_recovered() {
    fn check(what: &str, lost: &'static [(usize, usize)]) {
        let (mut pair, client, server) = until_rekey(Suite::AesGcm);
        pair.fate = Box::new(|from, n| if lost.contains(&(from, n)) { Fate::IsLost } else { Fate::Arrives });
        pair.run_for(Duration::from_secs(8));
        assert_eq!(pair.epochs(client, server), (1, 1), "{what}");
        let quiet = pair.sent.len();
        pair.run_for(Duration::from_secs(12));
        assert_eq!(pair.sent.len(), quiet, "{what}: somebody still repeats");
        assert!(pair.rekey(CLIENT, client).is_none() && pair.rekey(SERVER, server).is_none(), "{what}");
        pair.assert_talks(client, server);
    }
    check("asks", &[(CLIENT, 0), (CLIENT, 1), (CLIENT, 2)]);
    check("answers", &[(SERVER, 0), (SERVER, 1), (SERVER, 2)]);
    check("the first packets under the new keys", &[(CLIENT, 1), (CLIENT, 2), (CLIENT, 3)]);
    check("the first answers under the new keys", &[(SERVER, 1), (SERVER, 2), (SERVER, 3), (SERVER, 4)]);
}

#[test]
fn an_ask_that_nobody_answers_disturbs_nothing() {
    let (mut pair, client, server) = until_rekey(Suite::AesGcm);
    // As if the other side did not know about keys: it never answers, but talks.
    for _ in 0..40 {
        pair.sides[CLIENT].endpoint.tick(pair.now);
        pair.sides[CLIENT].endpoint.flush(pair.now, &mut Datagrams::default());
        pair.now = pair.now + KEEPALIVE;
        for (side, session) in [(SERVER, server), (CLIENT, client)] {
            let plain = format!("{}\n", pair.now.as_millis());
            pair.say(side, session, plain.as_bytes());
        }
    }
    pair.turn();
    assert_eq!((pair.lines(CLIENT).len(), pair.lines(SERVER).len()), (40, 40));
    assert_eq!(pair.epochs(client, server), (0, 0));
}

#[test]
fn wrong_messages_about_keys_change_nothing() {
    fn check(cause: &str, from: usize, plain: &[u8]) {
        let (mut pair, client, server) = Pair::up(Suite::AesGcm);
        let (to, session) = if from == CLIENT { (SERVER, client) } else { (CLIENT, server) };
        for _ in 0..3 {
            pair.say(from, session, plain);
        }
        assert!(pair.count(to, cause) > 0, "{cause}: {pair:?}");
        pair.assert_talks(client, server);
        let at = pair.sides[CLIENT].endpoint.sessions[&client].rekey_at;
        pair.idle_for(client, server, at.since(pair.now) + Duration::from_secs(1));
        assert_eq!(pair.epochs(client, server), (1, 1), "{cause}");
    }
    let message = |kind: u8, epoch: u8| [&[kind, 0, epoch], &[7; 48][..]].concat();
    check("rekey_bad", CLIENT, &[1]);
    check("rekey_bad", CLIENT, &[1, 0, 1]);
    check("rekey_bad", CLIENT, &message(1, 1));
    check("rekey_early", CLIENT, &message(1, 1));
    check("rekey_stale", CLIENT, &message(1, 0));
    check("rekey_stale", CLIENT, &message(1, 2));
    check("rekey_stray", CLIENT, &message(2, 1));
    check("rekey_stray", SERVER, &message(1, 1));
    check("rekey_stale", SERVER, &message(2, 1));
}

#[test]
fn a_false_answer_does_not_spoil_the_right_one() {
    let (mut pair, client, server) = until_rekey(Suite::AesGcm);
    pair.run_for(LATENCY / 2);
    pair.say(SERVER, server, &[&[2, 0, 1], &[7; 48][..]].concat());
    assert_eq!(pair.count(CLIENT, "rekey_bad"), 1);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.epochs(client, server), (1, 1));
}

#[test]
fn an_ask_that_was_held_back_changes_nothing() {
    let (mut pair, client, server) = until_rekey(Suite::AesGcm);
    pair.fate = Box::new(|from, n| if (from, n) == (CLIENT, 0) { Fate::IsLost } else { Fate::Arrives });
    pair.run_for(Duration::from_secs(1));
    let ask = pair.sent[0].bytes.clone();
    pair.deliver(SERVER, addr(1), &ask);
    assert_eq!(pair.count(SERVER, "rekey_stale"), 1);
    pair.run_for(Duration::from_secs(20));
    pair.deliver(SERVER, addr(1), &ask);
    assert_eq!(pair.count(SERVER, "keys_unknown"), 1);
    assert_eq!(pair.epochs(client, server), (1, 1));
    pair.assert_talks(client, server);
}

#[test]
fn packets_under_the_last_keys_are_opened_for_ten_seconds() {
    fn check(after: Duration, expected: bool) {
        let (mut pair, client, server) = until_rekey(Suite::AesGcm);
        let mut late = Datagrams::default();
        for (side, session) in [(CLIENT, client), (SERVER, server)] {
            pair.send(side, session, "late");
            pair.sides[side].endpoint.flush(pair.now, &mut late);
        }
        let late: Vec<_> = late.into_iter().collect();
        pair.run_for(after);
        assert_eq!(pair.epochs(client, server), (1, 1));
        let warm = [CLIENT, SERVER].map(|side| format!("{:?}", pair.sides[side].endpoint.warm));
        assert_eq!(warm.map(|warm| warm == "Warm(0)"), [!expected; 2], "what was made of the last keys goes with them");
        pair.deliver(SERVER, addr(1), &late[0].1);
        pair.deliver(CLIENT, addr(2), &late[1].1);
        pair.turn();
        let lines = |side: usize| pair.lines(side).contains(&"late".to_owned());
        assert_eq!((lines(SERVER), lines(CLIENT)), (expected, expected), "after {after:?}: {pair:?}");
        assert_eq!(pair.count(SERVER, "keys_unknown"), u64::from(!expected), "after {after:?}");
    }
    check(Duration::from_secs(10), true);
    check(Duration::from_secs(11), false);
}

#[test]
fn a_session_keeps_the_static_key_that_it_began_with() {
    let (mut pair, client, server) = until_rekey(Suite::AesGcm);
    pair.sides[SERVER].endpoint.set_key(key(3));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.epochs(client, server), (1, 1));
}

#[test]
fn only_so_many_changes_of_keys_are_computed_in_a_turn() {
    let mut pair = Pair::new(1);
    let clients: Vec<_> = (0..20).map(|_| pair.connect(Suite::AesGcm)).collect();
    pair.run_for(Duration::from_secs(1));
    for client in &clients {
        pair.send(CLIENT, *client, "up");
        pair.sides[CLIENT].endpoint.sessions.get_mut(client).unwrap().rekey_at = pair.now;
    }
    let sessions = &mut pair.sides[CLIENT].endpoint;
    for client in &clients {
        let session = sessions.sessions.get_mut(client).unwrap();
        sessions.timers.update(*client, session);
    }
    pair.sides[CLIENT].endpoint.tick(pair.now);
    pair.run_for(LATENCY);
    let rationed = pair.count(SERVER, "rekey_rationed");
    assert_eq!(rationed, 20 - u64::from(limits::REKEYS_PER_TURN));
    pair.run_for(Duration::from_secs(7));
    let sealed = |session: &crate::session::state::Session| session.sealed.as_ref().unwrap().epoch();
    assert!(pair.sides[SERVER].endpoint.sessions.values().all(|(_, session)| sealed(session) == 1));
}

#[test]
fn a_hundred_thousand_sessions_do_not_want_new_keys_in_one_moment() {
    let mut rng = Rng::from_seed([1; 32]);
    let mut seconds = vec![0; 4_501];
    for _ in 0..100_000 {
        seconds[rekey::next_time(&mut rng, Time::ZERO).as_millis() as usize / 1_000] += 1;
    }
    assert_eq!(seconds[..2_700].iter().sum::<u32>(), 0);
    assert!(seconds.iter().all(|count| *count < 100), "{:?}", seconds.iter().max());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn forged_packets_do_not_disturb_a_change_of_keys(
        forged in prop::collection::vec((any::<bool>(), 0..9_usize, 0..93_usize, 1..=255_u8), 1..80),
    ) {
        let (mut pair, client, server) = until_rekey(Suite::AesGcm);
        for (to_server, base, at, change) in forged {
            pair.run_for(Duration::from_millis(1));
            let (to, from) = if to_server { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
            let real: Vec<_> = pair.sent.iter().filter(|sent| sent.from == from).map(|sent| sent.bytes.clone()).collect();
            if let Some(mut bytes) = real.get(base % real.len().max(1)).cloned() {
                let at = at % bytes.len();
                bytes[at] ^= change;
                pair.deliver(to, addr(66), &bytes);
            }
        }
        pair.run_for(Duration::from_secs(1));
        prop_assert_eq!(pair.epochs(client, server), (1, 1));
        prop_assert_eq!(pair.sides[SERVER].endpoint.addr(server), Some(addr(1)));
        pair.assert_talks(client, server);
    }

    #[test]
    fn lines_flow_both_ways_while_keys_change_over_a_bad_link(seed in any::<[u8; 32]>()) {
        let (mut pair, client, server) = until_rekey(Suite::AesGcm);
        let (mut rng, lost) = (Rng::from_seed(seed), Rc::new(RefCell::new(BTreeSet::new())));
        let losses = lost.clone();
        pair.fate = Box::new(move |from, n| match rng.below(10) {
            0 | 1 => {
                losses.borrow_mut().insert((from, n));
                Fate::IsLost
            }
            2..5 => Fate::Lags(Duration::from_micros(rng.below(300_000))),
            _ => Fate::Arrives,
        });
        // Lines of different lengths, each longer than any message about keys, one to a packet.
        for n in 0..400 {
            pair.send(CLIENT, client, &"c".repeat(100 + n));
            pair.send(SERVER, server, &"s".repeat(100 + n));
            pair.run_for(Duration::from_millis(25));
        }
        pair.run_for(Duration::from_secs(15));
        prop_assert_eq!(pair.epochs(client, server), (1, 1));
        for from in [CLIENT, SERVER] {
            let sent = pair.sent.iter().filter(|sent| sent.from == from).enumerate();
            let expected: Vec<_> = sent
                .filter(|(n, sent)| sent.bytes.len() > 129 && !lost.borrow().contains(&(from, *n)))
                .map(|(_, sent)| sent.bytes.len() - 30)
                .collect();
            let mut lines: Vec<_> = pair.lines(1 - from).iter().map(String::len).collect();
            lines.sort_unstable();
            prop_assert_eq!(lines, expected);
        }
    }
}

#[test]
fn whoever_gets_no_new_keys_asks_each_minute_and_gives_up_after_two_hours() {
    let (mut pair, client, server) = until_rekey(Suite::ChaChaPoly);
    let refusing = Rekey::Refusing { until: rekey::NEVER };
    pair.sides[SERVER].endpoint.sessions.get_mut(&server).unwrap().rekey = Some(Box::new(refusing));
    pair.idle_for(client, server, Duration::from_mins(10));
    for _ in 0..100 {
        let due = pair.rekey(CLIENT, client).expect("it asks").due();
        assert!(due.since(pair.now) <= Duration::from_mins(1), "{due:?}");
        pair.idle_for(client, server, Duration::from_mins(1));
    }
    pair.idle_for(client, server, Duration::from_mins(12));
    assert!(pair.sides[CLIENT].endpoint.sessions.get(&client).is_none());
}
