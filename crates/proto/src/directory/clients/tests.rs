//! Lists of clients that travel between servers.

use proptest::prelude::*;

use super::*;
use crate::{ids::Boot, wire::frame::Frame};

fn origin(id: u32, boot: u64) -> Origin {
    Origin { id: ServerId(id), boot: Boot(boot) }
}

fn client(name: &str, person: u8, session: u64) -> ClientRecord {
    ClientRecord {
        name: name.parse().unwrap(),
        person: PersonId([person; 16]),
        device: DeviceId(u64::from(person)),
        session,
        via: "terminal".into(),
        rooms: vec![RoomName::lobby()],
        since: 1_000 + u64::from(person),
    }
}

fn id(person: u8) -> (PersonId, DeviceId) {
    (PersonId([person; 16]), DeviceId(u64::from(person)))
}

/// Servers 1 and 2.
fn pair() -> (Clients, Clients) {
    (Clients::new(origin(1, 7)), Clients::new(origin(2, 7)))
}

/// (server, name) of all clients that are known.
fn seen(clients: &Clients) -> Vec<(u32, String)> {
    clients.who(None).into_iter().map(|who| (who.server.0, who.client.name.to_string())).collect()
}

fn names(clients: &Clients) -> String {
    seen(clients).into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_server_lists_every_client() {
    let (mut one, mut two) = pair();
    let put = one.own_put(client("anna", 1, 5)).unwrap();
    assert_eq!(one.own_put(client("anna", 1, 5)), None, "nothing new");
    assert_eq!(two.apply(one.me, put.clone()), Applied::Changed);
    assert_eq!(two.apply(one.me, put), Applied::Same, "a repetition");
    assert_eq!(one.apply(two.me, two.own_put(client("ben", 2, 5)).unwrap()), Applied::Changed);
    let expected = [(1, "anna".to_string()), (2, "ben".to_string())];
    assert_eq!((seen(&one), seen(&two)), (expected.to_vec(), expected.to_vec()));
    let gone = one.own_gone(id(1).0, id(1).1).unwrap();
    assert_eq!(one.own_gone(id(1).0, id(1).1), None);
    assert_eq!(two.apply(one.me, gone), Applied::Changed);
    assert_eq!((names(&one), names(&two)), ("ben".into(), "ben".into()));
    assert_eq!(two.version(one.me), one.own_version());
}

#[test]
fn a_gap_is_noticed_and_the_whole_list_fills_it() {
    let (mut one, mut two) = pair();
    let lost = one.own_put(client("anna", 1, 5)).unwrap();
    let next = one.own_put(client("ben", 2, 5)).unwrap();
    assert_eq!(two.apply(one.me, next), Applied::Gap);
    assert_eq!(names(&two), "");
    for part in one.own_all() {
        assert_eq!(two.apply(one.me, part), Applied::Changed);
    }
    assert_eq!(names(&two), "anna ben");
    assert_eq!(two.apply(one.me, lost), Applied::Same, "late news are old news");
}

#[test]
fn a_list_in_parts_counts_once_it_is_whole() {
    let (mut one, mut two) = pair();
    for person in 0..60 {
        one.own_put(client("x", person, 5));
    }
    let mut parts = one.own_all();
    assert!(parts.len() > 2, "or this shows nothing");
    parts.reverse();
    let last = parts.pop().unwrap();
    for part in &parts {
        assert_eq!(two.apply(one.me, part.clone()), Applied::Same);
        assert_eq!(two.apply(one.me, part.clone()), Applied::Same, "a repetition");
    }
    assert_eq!(names(&two), "");
    assert_eq!(two.apply(one.me, last), Applied::Changed);
    assert_eq!((seen(&two).len(), two.version(one.me)), (60, 60));

    // Parts of two versions do not mix.
    let (mut three, older) = (Clients::new(origin(3, 7)), one.own_all());
    one.own_gone(id(0).0, id(0).1);
    let newer = one.own_all();
    three.apply(one.me, newer[0].clone());
    for part in &older {
        assert_eq!(three.apply(one.me, part.clone()), Applied::Same);
    }
    let applied: Vec<_> = newer[1..].iter().map(|part| three.apply(one.me, part.clone())).collect();
    assert_eq!(applied.last(), Some(&Applied::Changed));
    assert_eq!(seen(&three).len(), 59);
}

#[test]
fn an_empty_list_can_be_told() {
    let (mut one, mut two) = pair();
    two.apply(one.me, one.own_put(client("anna", 1, 5)).unwrap());
    one.own_gone(id(1).0, id(1).1);
    let all = one.own_all();
    assert_eq!(all.len(), 1);
    assert_eq!(two.apply(one.me, all[0].clone()), Applied::Changed);
    assert_eq!(names(&two), "");
}

#[test]
fn a_client_that_moved_counts_once_where_its_session_is_newer() {
    let (mut one, mut two) = pair();
    one.own_put(client("anna", 1, 5));
    let moved = two.own_put(client("anna", 1, 6)).unwrap();
    assert!(!one.has_moved(id(1).0, id(1).1));
    one.apply(two.me, moved);
    assert_eq!(seen(&one), [(2, "anna".to_string())]);
    assert!(one.has_moved(id(1).0, id(1).1));
    for part in one.own_all() {
        two.apply(one.me, part);
    }
    assert_eq!(seen(&two), [(2, "anna".to_string())]);
}

#[test]
fn a_new_boot_starts_a_new_list() {
    let (mut one, mut two) = pair();
    for session in 0..5 {
        let put = one.own_put(client("anna", 1, session)).unwrap();
        two.apply(one.me, put);
    }
    let mut reborn = Clients::new(origin(1, 8));
    let put = reborn.own_put(client("ben", 2, 1)).unwrap();
    assert_eq!(two.apply(reborn.me, put), Applied::Changed);
    assert_eq!(names(&two), "ben");
    let late = one.own_put(client("late", 3, 1)).unwrap();
    assert_eq!(two.apply(one.me, late), Applied::Same, "of a boot that is over");
    assert_eq!((two.version(one.me), two.version(reborn.me)), (0, 1));
}

#[test]
fn a_server_that_takes_another_boot_keeps_its_clients() {
    let (mut one, mut two) = pair();
    two.apply(one.me, one.own_put(client("anna", 1, 5)).unwrap());
    one.set_me(origin(4, 9));
    two.drop_server(ServerId(1));
    assert_eq!(two.apply(one.me, one.own_put(client("ben", 2, 5)).unwrap()), Applied::Gap);
    for part in one.own_all() {
        two.apply(one.me, part);
    }
    let expected = [(4, "anna".to_string()), (4, "ben".to_string())];
    assert_eq!((seen(&one), seen(&two)), (expected.to_vec(), expected.to_vec()));
}

#[test]
fn a_dead_server_takes_its_clients_along() {
    let (mut one, mut two) = pair();
    one.own_put(client("anna", 1, 5));
    one.apply(two.me, two.own_put(client("ben", 2, 5)).unwrap());
    one.drop_server(ServerId(2));
    assert_eq!((names(&one), one.version(two.me)), ("anna".into(), 0));
    assert_eq!(one.name_holder(&"ben".parse().unwrap()), None);
    one.drop_server(ServerId(1));
    assert_eq!(names(&one), "anna", "never our own");
    let echo = frame::Clients { version: 9, change: ClientsChange::Put { client: client("x", 9, 9) } };
    assert_eq!(one.apply(one.me, echo), Applied::Same, "nobody else writes our own");
}

#[test]
fn who_can_be_asked_for_a_room() {
    let (mut one, _) = pair();
    one.own_put(client("anna", 1, 5));
    one.own_put(ClientRecord { rooms: vec!["tea".parse().unwrap()], ..client("ben", 2, 5) });
    let found = one.who(Some(&"tea".parse().unwrap()));
    assert_eq!(found.iter().map(|who| who.client.name.as_str()).collect::<Vec<_>>(), ["ben"]);
}

#[test]
fn a_name_belongs_to_whoever_came_first() {
    let (mut one, mut two) = pair();
    let anna = "anna".parse().unwrap();
    one.own_put(client("anna", 2, 5));
    one.apply(two.me, two.own_put(client("anna", 1, 5)).unwrap());
    assert_eq!(one.name_holder(&anna), Some(PersonId([1; 16])), "here since 1001, not 1002");
    one.apply(two.me, two.own_put(client("ann", 1, 5)).unwrap());
    assert_eq!(one.name_holder(&anna), Some(PersonId([2; 16])), "renamed");
    one.own_gone(id(2).0, id(2).1);
    assert_eq!(one.name_holder(&anna), None);
}

#[test]
fn a_free_name_is_suggested() {
    fn check(taken: &[&str], wanted: &str, expected: &str) {
        let (mut one, _) = pair();
        for (person, name) in (1..).zip(taken) {
            one.own_put(client(name, person, 5));
        }
        assert_eq!(one.suggest(&wanted.parse().unwrap()).as_str(), expected);
    }
    check(&["anna"], "anna", "anna2");
    check(&["anna", "anna2"], "anna", "anna3");
    check(&["anna2"], "anna2", "anna3");
    check(&["2024"], "2024", "20242");
    check(&[], &"x".repeat(32), &format!("{}2", "x".repeat(31)));
}

#[test]
fn the_longest_records_fit_their_frames() {
    let longest = "\u{10ffff}".repeat(limits::NAME_CHARS_MAX);
    let (mut one, _) = pair();
    for person in 0..20 {
        let put = one.own_put(ClientRecord {
            name: longest.parse().unwrap(),
            person: PersonId([person; 16]),
            device: DeviceId(u64::MAX),
            session: u64::MAX,
            via: "\u{1}".repeat(5_000),
            rooms: vec![longest.parse().unwrap(); 1_000],
            since: u64::MAX,
        });
        let line = Frame::Clients(put.unwrap()).to_line();
        assert!((900..=limits::FRAME_BYTES_MAX).contains(&line.len()), "{}", line.len());
        let gone = one.own_gone(PersonId([99; 16]), DeviceId(0));
        assert_eq!(gone, None);
    }
    for part in one.own_all() {
        assert!(Frame::Clients(part).to_line().len() <= limits::FRAME_BYTES_MAX);
    }
}

proptest! {
    /// Whatever is lost, doubled and reordered: once the whole list has arrived, both hold the same.
    #[test]
    fn lists_agree_after_any_loss(
        changes in proptest::collection::vec((0..6u8, 0..4u64, any::<bool>(), 0..4u8), 0..40)
    ) {
        let (mut one, mut two) = pair();
        let mut held = Vec::new();
        for (person, session, put, fate) in changes {
            let said = if put {
                one.own_put(client(&format!("p{session}"), person, session))
            } else {
                one.own_gone(id(person).0, id(person).1)
            };
            match (said, fate) {
                (None, _) | (_, 0) => {}
                (Some(said), 1) => held.push(said),
                (Some(said), _) => {
                    let before = two.version(one.me);
                    let expected = if said.version == before + 1 { Applied::Changed } else { Applied::Gap };
                    prop_assert_eq!(two.apply(one.me, said.clone()), expected);
                    two.apply(one.me, said);
                }
            }
        }
        for said in held.into_iter().chain(one.own_all()) {
            two.apply(one.me, said);
        }
        prop_assert_eq!(two.version(one.me), one.own_version());
        prop_assert_eq!(seen(&one), seen(&two));
        let claims = |clients: &Clients| clients.names.len();
        prop_assert_eq!(claims(&two), seen(&two).len(), "the index of names keeps up");
        prop_assert_eq!(claims(&one), seen(&one).len());
    }

    #[test]
    fn hostile_changes_never_panic(
        changes in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<bool>(), 0..3u8, 1..4u32), 0..40)
    ) {
        let (mut one, _) = pair();
        for (version, part, last, kind, from) in changes {
            let change = match kind {
                0 => ClientsChange::All { part, last, clients: vec![client("x", 1, version)] },
                1 => ClientsChange::Put { client: client("x", 1, version) },
                _ => ClientsChange::Gone { person: id(1).0, device: id(1).1 },
            };
            one.apply(origin(from, version), frame::Clients { version, change });
        }
        one.who(None);
    }
}
