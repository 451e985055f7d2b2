//! Whole servers in virtual time over a kind network, mostly without clients.

#[path = "../common/clock.rs"]
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod handover;
mod ids;
mod links;
mod listening;
mod people;
mod world;

use std::time::Duration;

use hobnob_proto::{
    discovery::{
        Facts,
        packet::{self, Nonce},
    },
    ids::{Boot, ClusterName, ServerId},
    node::{Event, Input, Stop, view::Role},
    session::keys::{self, Secret, Suite},
    time::Time,
};

use self::world::{World, addr};

#[test]
fn a_server_alone_leads_and_has_a_lobby() {
    let mut world = World::new();
    world.start(5001, None, None);
    world.run(Duration::from_secs(1));
    assert_eq!(world.beliefs(), [(1, Some(1), Some(1))]);
}

#[test]
fn each_newcomer_leads_and_all_agree() {
    let mut world = World::new();
    for (port, id) in [(5001, 1), (5002, 2), (5003, 3)] {
        world.start(port, Some(id), None);
        world.run(Duration::from_secs(3));
        assert!(world.beliefs().iter().all(|belief| belief.1 == Some(id)), "{:?}", world.beliefs());
        assert_eq!(world.nodes[&port].view().role, Role::Leader);
    }
    assert!(world.beliefs().iter().all(|belief| belief.2 == Some(1)), "{:?}", world.beliefs());
}

#[test]
fn servers_that_start_at_once_without_ids_unite_under_different_ones() {
    let mut world = World::new();
    for port in 5001..=5005 {
        world.start(port, None, None);
    }
    world.run(Duration::from_secs(8));
    let mut ids: Vec<_> = world.beliefs().iter().map(|belief| belief.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    assert!(world.beliefs().iter().all(|belief| belief.1 == Some(5) && belief.2.is_some()), "{:?}", world.beliefs());
}

#[test]
fn a_dead_leader_is_followed_within_a_second_and_its_rooms_go_on() {
    let mut world = World::new();
    for (port, id) in [(5001, 1), (5002, 2), (5003, 3)] {
        world.start(port, Some(id), None);
    }
    world.run(Duration::from_secs(5));
    assert!(world.beliefs().iter().all(|belief| belief.1 == Some(3)), "{:?}", world.beliefs());
    world.nodes.remove(&5003);
    let home = world.beliefs()[0].2.unwrap();
    world.run(Duration::from_secs(1));
    assert!(world.beliefs().iter().all(|belief| belief.1 == Some(2)), "{:?}", world.beliefs());
    world.nodes.remove(&if home == 1 { 5001 } else { 5002 });
    world.run(Duration::from_secs(2));
    let (me, leader, home) = world.beliefs()[0];
    assert_eq!((leader, home), (Some(me), Some(me)));
}

#[test]
fn a_server_without_the_secret_stays_outside() {
    let secret = Secret::from_text(&"A".repeat(43)).unwrap();
    let mut world = World::new();
    world.start(5001, Some(1), Some(&secret));
    world.start(5002, Some(2), None);
    world.start(5003, Some(3), Some(&secret));
    world.run(Duration::from_secs(5));
    let live: Vec<_> = world.nodes.values().map(|node| node.view().live.len()).collect();
    assert_eq!(live, [2, 1, 2]);
}

#[test]
fn a_server_that_leaves_hands_over_and_is_no_member_any_more() {
    let mut world = World::new();
    for (port, id) in [(5001, 1), (5002, 2), (5003, 3)] {
        world.start(port, Some(id), None);
    }
    world.run(Duration::from_secs(5));
    for port in [5003, 5001] {
        world.step(port, Input::Leave);
        world.run(Duration::from_secs(3));
        assert!(world.events.iter().any(|(who, _, event)| *who == port && *event == Event::Stopped(Stop::Left)));
        world.nodes.remove(&port);
    }
    assert_eq!(world.beliefs(), [(2, Some(2), Some(2))]);
}

#[test]
fn a_quiet_cluster_stays_together_longer_than_any_session_is_silent() {
    let mut world = World::new();
    for port in 5001..=5004 {
        world.start(port, None, None);
    }
    world.run(Duration::from_mins(4));
    let downs: Vec<_> = world.events.iter().filter(|(_, _, event)| matches!(event, Event::PeerDown { .. })).collect();
    assert!(downs.is_empty(), "{downs:?}");
}

#[test]
fn a_quiet_cluster_wakes_seldom() {
    let mut world = World::new();
    for port in 5001..=5003 {
        world.start(port, None, None);
    }
    world.run(Duration::from_secs(10));
    let before = world.steps;
    world.run(Duration::from_secs(10));
    let steps = (world.steps - before) / 10;
    // For each server 10 beats of its own and 20 of others, and a few for everything else.
    assert!(steps < 3 * 45, "{steps} steps a second");
}

#[test]
fn invented_hellos_keep_nobody_out() {
    let mut world = World::new();
    world.start(5001, Some(1), None);
    world.run(Duration::from_secs(2));
    let cluster = world.nodes[&5001].view().cluster.unwrap();
    let name: ClusterName = "test".parse().unwrap();
    for id in 2..200 {
        let facts = Facts {
            cluster,
            name: name.clone(),
            id: Some(ServerId(id)),
            boot: Boot(u64::from(id)),
            port: 9,
            key: keys::cluster_key(None, &name, cluster).public,
            open: true,
            empty: true,
            age_secs: 0,
            servers: 1,
            suite: Suite::ChaChaPoly,
            ids: Vec::new(),
        };
        let hello = packet::hello(&facts, Nonce([0; 8]), &keys::discovery_key(None, &name));
        world.step(5001, Input::Datagram { from: addr(9), bytes: &hello });
    }
    world.run(Duration::from_secs(5));
    world.start(5300, Some(300), None);
    world.run(Duration::from_secs(3));
    assert!(world.beliefs().iter().all(|belief| belief.1 == Some(300)), "{:?}", world.beliefs());
}

#[test]
fn two_that_leave_at_once_leave_one_after_the_other() {
    let mut world = World::new();
    for (port, id) in [(5001, 1), (5002, 2), (5003, 3)] {
        world.start(port, Some(id), None);
    }
    world.run(Duration::from_secs(5));
    for port in [5001, 5002] {
        world.step(port, Input::Leave);
    }
    world.run(Duration::from_secs(5));
    let left = |port| world.events.iter().any(|event| event.0 == port && event.2 == Event::Stopped(Stop::Left));
    assert!(left(5001) && left(5002), "{:?}", world.events);
}

#[test]
fn a_leader_that_leaves_is_succeeded_within_a_quarter_of_a_second() {
    let mut world = World::agreed(3);
    let since = world.now;
    world.step(world::port(3), Input::Leave);
    world.run(Duration::from_millis(250));
    assert_eq!(world.leaders_since(since).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2]);
    world.assert_all_follow(2);
}

#[test]
fn one_peer_is_enough_to_find_all_where_no_broadcast_passes() {
    let mut world = World::new();
    world.broadcasts = false;
    world.start_beside(5001, Some(1), None, &[]);
    world.run(Duration::from_secs(3));
    world.start_beside(5002, Some(2), None, &[5001]);
    world.start_beside(5003, Some(3), None, &[5001]);
    world.run(Duration::from_secs(5));
    for id in 1..=3 {
        assert_eq!(world.view(id).live.len(), 3, "server {id}");
    }
    world.assert_all_follow(3);
    // They have sessions of their own, and need nobody between them.
    world.kill(1);
    world.run(Duration::from_secs(2));
    assert_eq!(world.view(2).live.len(), 2);
    let mut deaths = world.deaths_since(Time::ZERO);
    deaths.sort_unstable();
    assert_eq!(deaths, [(5002, 1), (5003, 1)]);
}

#[test]
fn a_member_is_called_at_each_of_its_addresses_in_turn() {
    let mut world = World::new();
    world.broadcasts = false;
    world.start_beside(5001, Some(1), None, &[]);
    world.run(Duration::from_secs(3));
    world.also_at = vec![addr(101), addr(102)];
    world.start_beside(5002, Some(2), None, &[5001]);
    world.also_at.clear();
    world.run(Duration::from_secs(3));
    world.start_beside(5003, Some(3), None, &[5001]);
    world.run(Duration::from_secs(8));
    for id in 1..=3 {
        assert_eq!(world.view(id).live.len(), 3, "server {id}");
    }
}
