//! Two clusters that stay apart, until a server of one is brought into the other on purpose: in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/clock.rs"]
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod handing_over;
mod unanswered;
mod world;

use std::{net::SocketAddr, time::Duration};

use hobnob_proto::{
    ids::{ClusterId, ServerId},
    session::keys::Secret,
};

use self::world::{World, old_clusters, texts, two_old_clusters};

#[test]
fn old_clusters_stay_apart_until_one_is_brought_into_the_other() {
    let (mut world, ours, theirs) = two_old_clusters();
    assert_ne!(ours, theirs, "they stay apart by themselves");
    assert_eq!((world.said(5001), world.said(5003)), (texts(&["one"]), texts(&["three"])));

    let said = world.join(4003, ours).expect("it may");
    assert!(said.contains("server 3"), "{said}");
    world.run(Duration::from_secs(10));
    for port in [5001, 5002, 5003] {
        assert_eq!(world.cluster(port), ours);
        assert_eq!(world.said(port), texts(&["one", "three"]), "{port} holds what was said in both");
        assert_eq!(world.nodes[&port].view().live.len(), 3);
    }
    assert!(world.join(4003, ours).is_ok(), "a question that is repeated is answered in the same way");

    world.post(4003, 2, "after");
    world.post(4001, 2, "after too");
    world.run(Duration::from_secs(5));
    for port in [5001, 5002, 5003] {
        assert_eq!(world.said(port), texts(&["one", "three", "after", "after too"]), "{port}");
    }
}

#[test]
fn the_servers_that_are_not_brought_along_stay_where_they_are() {
    let (mut world, old, new) = two_old_clusters();
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(20));
    assert_eq!([5001, 5002, 5003].map(|port| world.cluster(port)), [new, old, new]);
    assert_eq!(world.said(5003), texts(&["one", "three"]));
    assert_eq!(world.said(5002), texts(&["one"]));
}

#[test]
fn a_server_is_brought_back_as_another_boot() {
    let (mut world, old, new) = two_old_clusters();
    let boot = world.nodes[&5001].origin().boot;
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    world.join(4001, old).expect("it may");
    world.run(Duration::from_secs(5));
    assert_eq!([5001, 5002, 5003].map(|port| world.cluster(port)), [old, old, new]);
    assert_eq!([5001, 5002].map(|port| world.nodes[&port].view().live.len()), [2, 2]);
    assert!(world.nodes[&5001].origin().boot > boot);
    assert!(world.knows_left(5003, 1) && !world.knows_left(5002, 1));
}

#[test]
fn a_leader_that_was_brought_over_is_of_the_other_cluster_when_it_is_started_anew() {
    let (mut world, _, new) = old_clusters(["test", "test"], [&[5302, 5301], &[5003]]);
    let leader = world.nodes[&5302].origin();
    assert_eq!(world.nodes[&5301].view().leader, Some(leader.id));
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    let over = world.nodes[&5302].origin();
    assert!(over.boot > leader.boot && world.knows_left(5301, leader.id.0));
    world.nodes.remove(&5302);
    world.post(4003, 2, "meanwhile");
    world.run(Duration::from_secs(3));
    world.server(5302, 1, "test", None);
    world.run(Duration::from_secs(10));
    assert_eq!((world.cluster(5302), world.cluster(5003)), (new, new));
    assert_eq!((world.nodes[&5302].origin().id, world.nodes[&5302].origin().boot > over.boot), (over.id, true));
    for port in [5302, 5003] {
        assert_eq!(world.said(port), texts(&["one", "three", "meanwhile"]), "{port}");
        assert_eq!(world.nodes[&port].view().live.len(), 2, "{port}");
    }
    assert_eq!((world.said(5301), world.nodes[&5301].view().live.len()), (texts(&["one"]), 1));
    assert!(world.stored.contains(&(4003, 2)));
}

#[test]
fn who_is_brought_over_judges_nobody_by_an_id_that_it_knew() {
    let (mut world, _, new) = old_clusters(["test", "test"], [&[5001, 5002, 5003], &[5102, 5103]]);
    world.join(4001, new).expect("it may");
    for _ in 0..100 {
        world.run(Duration::from_millis(100));
        for port in [5001, 5102, 5103] {
            let view = world.nodes[&port].view();
            assert!(view.probation.is_empty(), "{port} has {:?} on probation", view.probation);
        }
    }
    assert_eq!([5001, 5102, 5103].map(|port| world.nodes[&port].view().leader), [Some(ServerId(3)); 3]);
}

#[test]
fn a_cluster_that_cannot_be_joined_is_answered_with_what_to_do() {
    fn check(world: &mut World, cluster: ClusterId, expected: &str) {
        let before = world.cluster(5003);
        let why = world.join(4003, cluster).expect_err("it may not");
        assert!(why.contains(expected), "{why}");
        world.run(Duration::from_secs(5));
        assert_eq!(world.cluster(5003), before);
    }
    let (mut world, ..) = two_old_clusters();
    check(&mut world, ClusterId(7), "`hobnob clusters` lists those that answer");
    let (mut world, other, _) = old_clusters(["ship", "test"], [&[5001, 5002], &[5003]]);
    check(&mut world, other, "start this server with --cluster ship");
    let (mut world, ..) = two_old_clusters();
    world.server(5004, 1, "test", Some(Secret::from_text(&"A".repeat(43)).unwrap()));
    world.run(Duration::from_secs(5));
    let closed = world.cluster(5004);
    check(&mut world, closed, "has another secret");
}

#[test]
fn a_cluster_that_has_a_server_of_the_same_id_is_joined_once_that_one_is_down() {
    let (mut world, old, new) = old_clusters(["test", "test"], [&[5001, 5002], &[5101, 5102]]);
    let why = world.join(4001, new).expect_err("it may not");
    assert!(why.contains("has a server 1 of its own") && why.contains("another --id"), "{why}");
    world.run(Duration::from_secs(5));
    assert_eq!([5001, 5002, 5101, 5102].map(|port| world.cluster(port)), [old, old, new, new]);
    assert_eq!([5001, 5101].map(|port| world.nodes[&port].view().live.len()), [2, 2]);

    world.nodes.remove(&5101);
    world.run(Duration::from_secs(31));
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    assert_eq!([5001, 5002, 5102].map(|port| world.cluster(port)), [new, old, new]);
}

#[test]
fn who_has_asked_for_no_id_takes_another_where_its_own_is_taken() {
    let (mut world, _, new) = old_clusters(["test", "test"], [&[5201], &[5001, 5002]]);
    assert_eq!(world.nodes[&5201].origin().id, ServerId(1));
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    assert_eq!((world.cluster(5201), world.nodes[&5201].origin().id), (new, ServerId(3)));
    assert_eq!(world.said(5002), texts(&["one", "three"]));
}

#[test]
fn a_join_that_is_asked_for_twice_is_answered_alike() {
    let (mut world, _, new) = two_old_clusters();
    world.answers.clear();
    world.ask_join(4001, new);
    world.run(Duration::from_micros(100));
    world.ask_join(4001, new);
    world.run(Duration::from_millis(50));
    assert!(matches!(&world.answers[..], [Ok(one), Ok(other)] if one == other), "{:?}", world.answers);
}

#[test]
fn only_somebody_on_its_machine_brings_a_server_of_an_open_cluster_elsewhere() {
    let (mut world, other, before) = two_old_clusters();
    // The same client, whose packets come from another machine from now on.
    let away = SocketAddr::from(([192, 0, 2, 9], 4003));
    world.ask_join(4003, other);
    for (_, from, ..) in world.wires.iter_mut().filter(|(_, from, ..)| from.port() == 4003) {
        *from = away;
    }
    world.answers.clear();
    world.run(Duration::from_millis(100));
    assert_eq!(world.cluster(5003), before);
    assert!(matches!(&world.answers[..], [Err(why)] if why.contains("run `hobnob join` there")), "{:?}", world.answers);
}
