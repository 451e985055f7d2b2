//! Servers that find each other, elect a leader and share out rooms.

use std::{collections::BTreeMap, time::Instant};

use crate::common::{Place, items, patience, wait_for};

#[test]
fn each_newcomer_with_a_higher_id_leads_and_all_tell_the_same() {
    let place = Place::new();
    let mut servers = Vec::new();
    for id in 1..=3 {
        let start = Instant::now();
        servers.push(place.start_server(Some(id), &[]));
        place.wait_for_agreement(&servers.iter().collect::<Vec<_>>(), id, patience(3_000));
        let newest = &servers[servers.len() - 1].process;
        let led = newest.logged(start, "leader", &[("leader", id)]).expect("the log of the leader says so");
        println!("server {id} leads {:?} after its start", led - start);
        assert!(led - start < patience(3_000));
    }
}

#[test]
fn ids_that_were_not_asked_for_are_the_lowest_that_are_free() {
    let place = Place::new();
    let first = place.server_with(None, &[]);
    let second = place.server_with(None, &[]);
    place.wait_for_agreement(&[&first, &second], 2, patience(5_000));
}

#[test]
fn thirty_rooms_lie_ten_on_each_of_three_servers() {
    let place = Place::new();
    let servers = place.servers(3);
    for number in 1..=30 {
        let server = &servers[number % 3];
        let ended = place.ask(server, &["send", "--room", &format!("room-{number}"), "hello"]);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
    }
    let view = place.wait_for_agreement(&servers.iter().collect::<Vec<_>>(), 3, patience(5_000));
    let mut rooms = BTreeMap::<u64, u32>::new();
    for home in items(&view, "homes").filter(|home| home[0].as_str().is_some_and(|name| name.starts_with("room-"))) {
        *rooms.entry(home[1].as_u64().unwrap()).or_default() += 1;
    }
    assert_eq!(rooms, BTreeMap::from([(1, 10), (2, 10), (3, 10)]));
}

#[test]
fn an_id_that_is_taken_is_refused_with_the_address_that_has_it() {
    let place = Place::new();
    let first = place.server(1);
    let second = place.start_server(Some(1), &[]).process.wait(patience(10_000));
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert!(second.err.contains(&format!("in use by the server at 127.0.0.1:{}", first.port)), "{}", second.err);
    place.wait_for_agreement(&[&first], 1, patience(3_000));
}

#[test]
fn a_named_peer_is_joined_where_no_broadcast_reaches() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let first = place.server(1);
    let peer = format!("127.0.0.1:{}", first.port);
    let args = ["--cluster", &place.cluster, "--peer", &peer];
    assert_ne!(place.discovery_port, elsewhere.discovery_port);
    let second = elsewhere.server_with(Some(2), &args);
    place.wait_for_agreement(&[&first, &second], 2, patience(5_000));
}

#[test]
fn a_server_that_is_told_to_end_hands_over_and_leaves() {
    let place = Place::new();
    let mut servers = place.servers(3);
    assert_eq!(place.ask(&servers[0], &["send", "--room", "tea", "hello"]).code, Some(0));
    let leader = servers.pop().unwrap();
    leader.process.terminate();
    let ended = leader.process.wait(patience(11_000));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    place.wait_for_agreement(&servers.iter().collect::<Vec<_>>(), 2, patience(5_000));
    for server in &servers {
        assert_eq!(place.log_of(server, "tea").len(), 1);
        let status = place.status(server).unwrap();
        let ids: Vec<_> = items(&status, "servers").filter_map(|server| server["id"].as_u64()).collect();
        assert!(!ids.contains(&3), "it has left, and is not only down: {ids:?}");
    }
}

#[test]
fn a_dead_server_that_is_retired_is_forgotten() {
    let place = Place::new();
    let mut servers = place.servers(3);
    let mut dead = servers.remove(0);
    dead.process.kill();
    place.wait_for_agreement(&servers.iter().collect::<Vec<_>>(), 3, patience(5_000));
    let ended = place.ask(&servers[0], &["retire", "1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    wait_for("all have forgotten it", patience(5_000), || {
        let knows = |server| {
            let status = place.status(server)?;
            Some(items(&status, "servers").any(|server| server["id"] == 1))
        };
        servers.iter().all(|server| knows(server) == Some(false)).then_some(())
    });
}

#[test]
fn clusters_lists_each_cluster_that_is_heard() {
    let place = Place::new();
    let _server = place.server(1);
    let _other = place.server_with(Some(1), &["--cluster", "another"]);
    let ended = place.run(&["clusters", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains(&place.cluster) && ended.out.contains("another"), "{}", ended.out);
}

#[test]
fn every_server_knows_where_everybody_is() {
    let place = Place::new();
    let servers = place.servers(2);
    let _ada = place.start(&["client", "--plain", "--name", "ada", "--room", "tea"]);
    let _ben = place.start(&["client", "--plain", "--name", "ben", "--room", "garden"]);
    for server in &servers {
        wait_for("both are known", patience(5_000), || {
            let ended = place.ask(server, &["who", "--json"]);
            let all: serde_json::Value = serde_json::from_str(&ended.out).ok()?;
            let of = |name: &str| all.as_array()?.iter().find(|client| client["name"] == name).cloned();
            (of("ada")?["rooms"][0] == "tea" && of("ben")?["rooms"][0] == "garden").then_some(())
        });
    }
}
