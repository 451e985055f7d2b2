//! Ids that collide: who gives way.

use std::time::Duration;

use hobnob_proto::{ids::Boot, node::Stop};

use super::world::{World, addr, port};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The id and boot of the server at that port.
fn me(world: &World, port: u16) -> (u32, Boot) {
    let me = world.nodes[&port].view().me.expect("it serves");
    (me.id.0, me.boot)
}

#[test]
fn without_one_that_is_asked_for_it_is_the_lowest_that_no_member_holds() {
    let mut world = World::agreed(3);
    world.kill(1);
    world.run(secs(3));
    world.start(5010, None, None);
    world.run(secs(3));
    assert_eq!(me(&world, 5010).0, 4, "1 is down, and still a member");
}

#[test]
fn an_id_that_was_not_asked_for_gives_way_to_one_that_was() {
    let mut world = World::new();
    world.start(5001, None, None);
    world.start(5002, None, None);
    world.run(secs(5));
    let asked = world.nodes.keys().copied().find(|port| me(&world, *port).0 == 1).unwrap();
    let before = me(&world, asked);
    world.start(5010, Some(1), None);
    world.run(secs(5));
    let after = me(&world, asked);
    assert_eq!((me(&world, 5010).0, after.0), (1, 3));
    assert!(after.1 > before.1, "nothing of the old origin is written again");
    assert_eq!(world.stops(), []);
    assert!(world.nodes.values().all(|node| node.view().live.len() == 3), "{:?}", world.beliefs());
}

#[test]
fn one_that_is_starting_gives_way_and_says_whose_address_has_the_id() {
    // The seeds of a server come from its port: either may have the lower cluster id, and the greater boot.
    for first in (5001..5081).step_by(2) {
        let mut world = World::new();
        world.start(first, Some(1), None);
        world.run(Duration::from_millis(400));
        let before = me(&world, first);
        world.start(first + 1, Some(1), None);
        world.run(secs(3));
        assert_eq!(world.stops(), [(first + 1, Stop::IdTaken { by: addr(first) })], "the first is at {first}");
        assert_eq!(me(&world, first), before);
        assert_eq!(world.beliefs()[0], (1, Some(1), Some(1)));
    }
}

#[test]
fn one_whose_old_boot_has_been_silent_for_a_second_gets_its_id() {
    for wait in [0, 300, 2_000] {
        let mut world = World::agreed(3);
        world.kill(1);
        world.run(Duration::from_millis(wait));
        world.start(5010, Some(1), None);
        world.run(secs(4));
        assert_eq!(world.stops(), [], "after {wait} ms");
        assert_eq!(me(&world, 5010).0, 1);
        for id in [2, 3] {
            assert_eq!(world.view(id).live.len(), 3, "after {wait} ms, as {id} sees it");
        }
    }
}

#[test]
fn of_two_that_run_the_greater_boot_stops_and_the_other_is_heard_by_all() {
    let mut world = World::agreed(3);
    world.split(&[3], true, true);
    world.run(secs(3));
    // On the other side, somebody is given the id that is missing there.
    world.cut_ports(5010, &[port(1), port(2)]);
    world.start(5010, Some(1), None);
    world.run(secs(5));
    assert_eq!((me(&world, 5010).0, world.view(3).live.len()), (1, 2));
    let (old, new) = (me(&world, port(1)), me(&world, 5010));
    assert!(new.1 > old.1);
    world.heal();
    world.run(secs(15));
    assert_eq!(world.stops(), [(5010, Stop::IdTaken { by: addr(port(1)) })]);
    world.nodes.remove(&5010);
    assert_eq!(me(&world, port(1)), old);
    for id in 1..=3 {
        assert_eq!(world.view(id).live.len(), 3, "as {id} sees it");
    }
}

#[test]
fn one_that_comes_back_with_its_clock_behind_comes_after_its_last_boot() {
    let mut world = World::agreed(3);
    let before = me(&world, port(2));
    world.kill(2);
    world.run(secs(5));
    world.behind = secs(3600);
    world.start_id(2);
    world.run(secs(5));
    let after = me(&world, port(2));
    assert!(after.1 > before.1, "{after:?} {before:?}");
    for node in world.nodes.values() {
        let boots: Vec<_> = node.members().filter(|member| member.id.0 == 2).map(|member| member.boot).collect();
        assert_eq!((boots, node.view().live.len()), (vec![after.1], 3));
    }
}
