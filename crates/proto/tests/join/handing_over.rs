//! What a server that is brought over leaves behind, and what it takes along.

use std::time::Duration;

use hobnob_proto::ids::RoomName;

use crate::world::{World, called_over, texts, two_old_clusters};

#[test]
fn those_who_stay_know_that_it_has_left_and_do_not_wait_for_its_disk() {
    let (mut world, _, new) = two_old_clusters();
    world.client(4002, 5002, "test");
    world.join(4001, new).expect("it may");
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (new, true));
    assert!(!world.knows_left(5001, 1) && !world.knows_left(5003, 1));
    world.post(4002, 1, "alone");
    world.run(Duration::from_secs(2));
    assert!(world.stored.contains(&(4002, 1)), "there is one server, and it has it");
}

#[test]
fn that_it_has_left_is_said_more_than_once() {
    let (mut world, _, new) = two_old_clusters();
    world.ask_join(4001, new);
    world.run_until_in(5001, new);
    world.run(Duration::from_millis(49));
    world.cut = vec![[5001, 5002]];
    world.run(Duration::from_millis(10));
    assert!(!world.knows_left(5002, 1), "the first word is lost");
    world.cut.clear();
    world.run(Duration::from_millis(100));
    assert!(world.knows_left(5002, 1));
}

#[test]
fn it_hands_over_what_only_it_holds_before_it_goes() {
    let (mut world, _, new) = two_old_clusters();
    assert_eq!(world.home(5001, &RoomName::lobby()), 5001, "what is said there is no mere relay");
    world.cut = vec![[5001, 5002]];
    world.post(4001, 2, "at the last moment");
    world.run(Duration::from_millis(20));
    assert_eq!(world.said(5001), texts(&["one", "at the last moment"]));
    world.ask_join(4001, new);
    world.run(Duration::from_millis(300));
    assert_eq!(world.said(5002), texts(&["one"]));
    world.cut.clear();
    world.run_until_in(5001, new);
    assert_eq!(world.said(5002), texts(&["one", "at the last moment"]));
}

#[test]
fn who_hears_nobody_for_a_moment_waits_and_hands_over() {
    let (mut world, old, new) = two_old_clusters();
    // Its client does not go elsewhere, and says nothing there.
    world.cut = vec![[5001, 5002], [4001, 5002]];
    world.post(4001, 2, "at the last moment");
    world.run(Duration::from_millis(20));
    world.ask_join(4001, new);
    world.run(Duration::from_secs(3));
    assert_eq!((world.cluster(5001), world.said(5002)), (old, texts(&["one"])));
    world.cut.clear();
    world.run_until_in(5001, new);
    assert_eq!(world.said(5002), texts(&["one", "at the last moment"]));
    world.run(Duration::from_millis(200));
    assert!(world.knows_left(5002, 1));
}

#[test]
fn who_cannot_hand_over_goes_all_the_same_and_is_a_member_that_is_down() {
    let (mut world, old, new) = two_old_clusters();
    world.cut = vec![[5001, 5002]];
    world.ask_join(4001, new);
    world.run_until_answered(5003, 5001);
    // It could say now that it has left, but has handed nothing over.
    world.cut.clear();
    world.run(Duration::from_secs(3));
    assert_eq!(world.nodes[&5002].view().live.len(), 2);
    world.let_through();
    world.run(Duration::from_secs(2));
    assert_eq!([5001, 5002].map(|port| world.cluster(port)), [new, old]);
    assert!(!world.knows_left(5002, 1));
}

#[test]
fn it_is_not_said_to_have_left_where_one_that_it_counted_on_has_died() {
    let (mut world, _, new) = called_over(&[5001, 5002, 5004]);
    world.nodes.remove(&5004);
    world.run(Duration::from_secs(3));
    world.let_through();
    world.run(Duration::from_secs(2));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (new, false));
}

/// What one server has sent to another port does not arrive.
fn lose(world: &mut World, lost: [u16; 2]) {
    world.wires.retain(|(_, from, to, _)| [from.port(), to.port()] != lost);
}

#[test]
fn its_clients_are_not_called_back_though_they_missed_that_it_went() {
    let (mut world, _, new) = two_old_clusters();
    world.ask_join(4001, new);
    world.run_until_in(5001, new);
    lose(&mut world, [5001, 4001]);
    world.run(Duration::from_secs(5));
    world.post(4001, 2, "after");
    world.run(Duration::from_secs(2));
    assert_eq!((world.said(5003), world.said(5002)), (texts(&["one", "three", "after"]), texts(&["one"])));
}

#[test]
fn its_clients_go_with_it() {
    let (mut world, _, new) = two_old_clusters();
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    world.post(4001, 2, "after");
    world.run(Duration::from_secs(2));
    assert_eq!(world.said(5003), texts(&["one", "three", "after"]));
    assert_eq!(world.said(5002), texts(&["one"]));
}
