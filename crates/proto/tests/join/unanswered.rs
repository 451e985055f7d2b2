//! Where the other cluster does not answer, or comes too late.

use std::time::Duration;

use hobnob_proto::{client::Command, ids::RoomName, log::VersionVector, node::Input, wire::frame::Start};

use crate::world::{World, called_over, old_clusters, two_old_clusters};

/// A room, and the word of a client that enters it.
fn tea() -> (RoomName, Command) {
    let tea: RoomName = "tea".parse().unwrap();
    (tea.clone(), Command::Join { room: tea, from: Start::After(VersionVector::default()) })
}

#[test]
fn where_the_other_cluster_does_not_answer_any_more_it_stays() {
    let (mut world, old, new) = two_old_clusters();
    world.cut = vec![[5001, 5003]];
    world.join(4001, new).expect("it may try");
    world.run(Duration::from_secs(10));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (old, false));
    world.post(4001, 2, "still here");
    world.run(Duration::from_secs(2));
    assert!(world.stored.contains(&(4001, 2)), "it is a copy again");
    world.cut.clear();
    world.run(Duration::from_secs(5));
    world.join(4001, new).expect("it may again");
    world.run(Duration::from_secs(2));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (new, true));
}

#[test]
fn an_answer_that_comes_after_it_has_stayed_does_not_take_it_over() {
    let (mut world, old, _) = called_over(&[5001, 5002]);
    world.run_until(Duration::from_millis(1), |world| world.has_stayed(5001));
    world.let_through();
    world.run(Duration::from_secs(5));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (old, false));
}

#[test]
fn who_is_to_stop_while_it_goes_over_stops_where_it_is() {
    let (mut world, old, _) = called_over(&[5001, 5002]);
    world.step(5001, Input::Leave);
    world.let_through();
    world.run(Duration::from_secs(5));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (old, true));
}

#[test]
fn who_stays_follows_rooms_that_moved_meanwhile() {
    let (mut world, _, new) = two_old_clusters();
    let (tea, joins) = tea();
    for port in [5004, 5005] {
        world.server(port, 1, "test", None);
    }
    world.run(Duration::from_secs(10));
    world.command(4001, joins.clone());
    world.run(Duration::from_secs(1));
    world.cut = vec![[5001, 5003]];
    world.join(4001, new).expect("it may try");
    let home = |world: &World| world.home(5001, &tea);
    let dead = home(&world);
    world.nodes.remove(&dead);
    world.run(Duration::from_secs(10));
    assert!(home(&world) != dead && home(&world) != 5001);
    world.client(4002, 5001, "test");
    world.command(4002, joins);
    world.run(Duration::from_secs(2));
    assert!(world.joined.contains(&(4002, tea)), "it follows the new home, and answers");
}

#[test]
fn its_clients_enter_rooms_while_it_calls_but_nobody_counts_on_its_copies() {
    let (mut world, old, _) = called_over(&[5001, 5002]);
    let (tea, joins) = tea();
    world.command(4001, joins);
    world.run(Duration::from_secs(1));
    assert!(world.joined.contains(&(4001, tea.clone())));
    world.command(4001, Command::Post { room: tea, seq: 2, body: "milk?".into() });
    world.run(Duration::from_secs(1));
    assert!(!world.stored.contains(&(4001, 2)), "only one holds it that stays");
    assert_eq!((world.cluster(5001), world.has_stayed(5001)), (old, false), "it still calls");
    world.run_until(Duration::from_millis(1), |world| world.has_stayed(5001));
    world.run(Duration::from_millis(50));
    assert!(world.stored.contains(&(4001, 2)), "it is a copy again");
}

#[test]
fn who_stays_is_in_nobodys_way_who_wants_to_leave() {
    let (mut world, _, new) = old_clusters(["test", "test"], [&[5001, 5002, 5004], &[5003]]);
    world.cut = vec![[5001, 5003]];
    world.ask_join(4001, new);
    world.run_until(Duration::from_millis(10), |world| world.has_stayed(5001));
    world.run(Duration::from_secs(1));
    world.step(5002, Input::Leave);
    world.run(Duration::from_secs(2));
    assert!(world.knows_left(5004, 2));
}
