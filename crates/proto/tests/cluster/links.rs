//! Links that work one way, sides that are cut off and meet again, servers that come back again and again.

use std::time::Duration;

use hobnob_proto::{
    client,
    ids::{ClusterId, RoomName},
    node::{Input, Stop},
};

use super::world::{World, port};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn homes(world: &World, id: u32) -> Vec<(RoomName, u32)> {
    world.view(id).rooms.iter().map(|room| (room.name.clone(), room.fence.home.id.0)).collect()
}

#[test]
fn a_link_that_works_one_way_harms_nobody() {
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        let mut world = World::agreed(3);
        let (since, rooms) = (world.now, homes(&world, 1));
        world.cut(from, to);
        world.run(secs(20));
        assert_eq!(world.deaths_since(since), [], "{from} to {to}: nobody has died");
        assert_eq!(world.leaders_since(since), [], "{from} to {to}");
        world.assert_all_follow(3);
        for (one, other) in [(from, to), (to, from)] {
            assert_eq!(world.view(one).unheard.iter().map(|id| id.0).collect::<Vec<_>>(), [other]);
            assert_eq!(homes(&world, one), rooms, "{from} to {to}: rooms stay where they are");
        }
        world.heal();
        world.run(secs(3));
        assert!((1..=3).all(|id| world.view(id).unheard.is_empty() && world.view(id).live.len() == 3));
        assert!((1..=3).all(|id| world.view(id).probation.is_empty()), "nobody came back");
    }
}

#[test]
fn a_leader_that_is_cut_off_one_way_is_replaced_and_leads_again_after_its_probation() {
    for (inward, outward) in [(true, false), (false, true), (true, true)] {
        let mut world = World::agreed(3);
        let since = world.now;
        world.split(&[3], inward, outward);
        world.run(secs(2));
        assert_eq!(world.view(1).leader.map(|id| id.0), Some(2), "deaf {inward}, mute {outward}");
        world.run(secs(8));
        world.heal();
        world.run(secs(4));
        world.assert_all_follow(2);
        assert!((1..=3).all(|id| world.view(id).probation.iter().map(|id| id.0).eq([3])), "all know of it");
        world.run(secs(5));
        world.assert_all_follow(3);
        assert_eq!(world.followed_since(1, since), [2, 3], "deaf {inward}, mute {outward}: one change each way");
    }
}

#[test]
fn where_two_sides_meet_the_lesser_waits() {
    fn check(servers: u32, side: &[u32], waits: &[u32], led_by: u32) {
        let mut world = World::agreed(servers);
        let since = world.now;
        world.split(side, true, true);
        world.run(secs(10));
        world.heal();
        world.run(secs(4));
        for id in 1..=servers {
            let on: Vec<_> = world.view(id).probation.iter().map(|id| id.0).collect();
            assert_eq!(on, waits, "{side:?} of {servers}, as {id} sees it");
        }
        world.assert_all_follow(led_by);
        world.run(secs(7));
        world.assert_all_follow(servers);
        let leaders = world.leaders_since(since);
        assert!(leaders.len() <= 2, "{side:?} of {servers}: {leaders:?}");
    }
    check(5, &[4, 5], &[4, 5], 3);
    check(5, &[1, 2], &[1, 2], 5);
    check(4, &[1, 2], &[1, 2], 4);
    check(4, &[1, 4], &[2, 3], 4);
    check(2, &[2], &[1], 2);
}

#[test]
fn a_leader_that_pauses_for_three_seconds_waits_out_its_probation() {
    let mut world = World::agreed(3);
    let since = world.now;
    world.pause(3, secs(3));
    world.run(secs(2));
    assert_eq!(world.view(1).leader.map(|id| id.0), Some(2));
    world.run(secs(4));
    world.assert_all_follow(2);
    world.run(secs(6));
    world.assert_all_follow(3);
    assert!(!world.deaths_since(since).iter().any(|(who, _)| *who == port(3)), "it blamed nobody");
    assert_eq!(world.leaders_since(since).len(), 2);
}

#[test]
fn a_top_id_that_is_killed_again_and_again_leads_no_more() {
    let mut world = World::agreed(3);
    let since = world.now;
    for _ in 0..30 {
        world.kill(3);
        world.run(secs(1));
        world.start_id(3);
        world.run(secs(1));
    }
    let leaders = world.leaders_since(since);
    assert_eq!(leaders.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2], "{leaders:?}");
    world.assert_all_follow(2);
    world.run(Duration::from_mins(6));
    world.assert_all_follow(3);
    assert_eq!(world.leaders_since(since).len(), 2);
}

#[test]
fn a_newcomer_that_nobody_remembers_leads_at_once() {
    let mut world = World::agreed(2);
    world.start_id(3);
    world.run(secs(3));
    world.assert_all_follow(3);
    assert!((1..=3).all(|id| world.view(id).probation.is_empty()));
}

#[test]
fn a_server_on_probation_gets_no_rooms_and_keeps_those_that_it_has() {
    let mut world = World::agreed(2);
    world.kill(2);
    world.run(secs(2));
    world.start_id(2);
    world.run(secs(3));
    let person = world.add_person(2);
    for n in 0..4 {
        world.post(person, &format!("room-{n}"));
    }
    world.run(secs(1));
    assert!(homes(&world, 1).iter().all(|(_, home)| *home == 1), "{:?}", homes(&world, 1));
    assert_eq!(homes(&world, 1).len(), 5);
    // What a side brings along when it comes back stays with it.
    let mut world = World::agreed(3);
    world.split(&[1], true, true);
    world.run(secs(5));
    let person = world.add_person(1);
    world.post(person, "away");
    world.run(secs(1));
    world.heal();
    world.run(secs(4));
    let away: RoomName = "away".parse().unwrap();
    assert!(homes(&world, 3).contains(&(away, 1)), "{:?}", homes(&world, 3));
}

#[test]
fn a_room_without_successors_does_not_wait_out_the_probation_of_the_server_that_was_its_home() {
    let tea: RoomName = "tea".parse().unwrap();
    let mut world = World::agreed(3);
    world.kill(1);
    world.kill(2);
    world.run(secs(2));
    let person = world.add_person(3);
    world.post(person, "tea");
    world.run(secs(1));
    world.start_id(1);
    world.start_id(2);
    world.run(Duration::from_millis(4_500));
    assert!(homes(&world, 2).contains(&(tea.clone(), 3)), "they are on probation, and get no copies");
    world.kill(3);
    world.start_id(3);
    world.run(secs(3));
    assert_eq!(world.view(2).probation.iter().map(|id| id.0).collect::<Vec<_>>(), [3]);
    assert!(homes(&world, 2).iter().any(|(name, home)| *name == tea && *home != 3), "{:?}", homes(&world, 2));
}

#[test]
fn a_room_is_placed_by_a_leader_that_only_others_hear() {
    for (from, to) in [(1, 3), (3, 1)] {
        let mut world = World::agreed(3);
        world.cut(from, to);
        world.run(secs(3));
        let person = world.add_person(1);
        world.post(person, "tea");
        world.run(secs(1));
        let tea: RoomName = "tea".parse().unwrap();
        let home = |id| homes(&world, id).iter().find(|(name, _)| *name == tea).map(|(_, home)| *home);
        assert!(home(1).is_some() && home(1) == home(3), "{from} to {to}: {:?}, {:?}", home(1), home(3));
        let accepted = |event: &client::Event| matches!(event, client::Event::Acked { .. });
        // A home that cannot be heard is another matter.
        if home(1) != Some(3) {
            assert!(world.heard.iter().any(|(.., event)| accepted(event)), "{from} to {to}");
        }
    }
}

/// Servers 2 - 1 - 3 - 4, each of which hears only its neighbours.
fn cut_to_a_chain(world: &mut World) {
    for (one, other) in [(2, 3), (2, 4), (1, 4)] {
        world.cut(one, other);
        world.cut(other, one);
    }
}

#[test]
fn servers_in_a_chain_know_all_and_agree() {
    let mut world = World::agreed(4);
    let since = world.now;
    cut_to_a_chain(&mut world);
    world.run(secs(3));
    // 1 and 3 hear three of four.
    world.assert_all_follow(3);
    let calm = world.now;
    world.run(secs(20));
    assert_eq!(world.leaders_since(calm), []);
    assert_eq!(world.deaths_since(since), [], "all know all");
    for (id, unheard) in [(1, vec![4]), (2, vec![3, 4]), (3, vec![2]), (4, vec![1, 2])] {
        assert_eq!(world.view(id).unheard.iter().map(|id| id.0).collect::<Vec<_>>(), unheard, "as {id} has it");
    }
    world.heal();
    world.run(secs(4));
    world.assert_all_follow(4);
    assert!((1..=4).all(|id| world.view(id).probation.is_empty()), "nobody came back");
}

#[test]
fn a_room_is_placed_and_known_from_one_end_of_a_chain_to_the_other() {
    let mut world = World::agreed(4);
    cut_to_a_chain(&mut world);
    world.run(secs(3));
    for (n, server) in [2, 4].into_iter().enumerate() {
        let person = world.add_person(server);
        let room = format!("tea-{n}");
        world.post(person, &room);
        world.run(secs(1));
        let name: RoomName = room.parse().unwrap();
        let home = |id| homes(&world, id).iter().find(|(room, _)| *room == name).map(|(_, home)| *home);
        assert!(home(1).is_some() && (1..=4).all(|id| home(id) == home(1)), "asked of {server}");
    }
}

#[test]
fn a_death_in_a_ring_is_found_as_soon_and_its_rumour_dies_out() {
    for servers in 3..=4 {
        let mut world = World::agreed(servers);
        if servers == 4 {
            for (one, other) in [(1, 3), (2, 4)] {
                world.cut(one, other);
                world.cut(other, one);
            }
        }
        world.run(secs(3));
        let since = world.now;
        world.kill(servers);
        world.run(Duration::from_millis(800));
        let neighbours = if servers == 4 { vec![1, 3] } else { vec![1, 2] };
        let dead = world.deaths_since(since);
        assert!(neighbours.iter().all(|id| dead.contains(&(super::world::port(*id), servers))), "{dead:?}");
        world.run(Duration::from_millis(1_200));
        assert_eq!(world.deaths_since(since).len(), servers as usize - 1, "each finds it once");
        assert!((1..servers).all(|id| world.view(id).unheard.iter().all(|id| id.0 != servers)));
    }
}

#[test]
fn one_that_the_leader_does_not_hear_leaves_as_others_do() {
    fn check(servers: u32, id: u32) {
        let mut world = World::agreed(servers);
        if servers == 4 {
            cut_to_a_chain(&mut world);
        } else {
            world.cut(id, servers);
            world.cut(servers, id);
        }
        world.run(secs(3));
        world.step(super::world::port(id), Input::Leave);
        world.run(secs(4));
        assert_eq!(world.stops(), [(super::world::port(id), Stop::Left)], "{id} of {servers}");
        world.nodes.remove(&super::world::port(id));
        world.run(secs(2));
        assert!(world.nodes.values().all(|node| node.view().unheard.iter().all(|other| other.0 != id)));
        let lobby: Vec<_> = world.beliefs().iter().map(|belief| belief.2).collect();
        assert!(lobby.iter().all(|home| home.is_some_and(|home| home != id) && *home == lobby[0]), "{lobby:?}");
    }
    check(3, 1);
    check(3, 2);
    check(4, 2);
}

/// The cluster that a server at this port founds where it hears nobody.
fn founded_by(port: u16) -> ClusterId {
    let mut world = World::new();
    world.start(port, None, None);
    world.nodes[&port].cluster_id()
}

#[test]
fn who_comes_over_to_another_cluster_remembers_who_has_come_back() {
    // Nobody has spoken anywhere, so whoever was there before goes over to the cluster with the lower id.
    let mut ports = [6_001, 6_002, 6_003];
    ports.sort_unstable_by_key(|port| std::cmp::Reverse(founded_by(*port)));
    let [stays, flaps, flaps_again] = ports;
    let mut world = World::new();
    world.start(stays, Some(1), None);
    world.run(secs(3));
    world.start(flaps, Some(2), None);
    world.run(secs(3));
    assert_eq!(world.nodes[&stays].cluster_id(), founded_by(flaps));
    assert_eq!(world.nodes[&stays].view().leader.map(|id| id.0), Some(2));
    world.nodes.remove(&flaps);
    world.run(secs(3));
    world.cut_ports(flaps_again, &[stays]);
    world.start(flaps_again, Some(2), None);
    world.run(secs(2));
    world.heal();
    let (met, end) = (|world: &World| world.nodes[&stays].view().live.len() == 2, world.now + secs(20));
    while !met(&world) {
        assert!(world.now < end, "they meet");
        world.run(Duration::from_millis(50));
    }
    assert_eq!(world.nodes[&stays].cluster_id(), founded_by(flaps_again));
    world.run(secs(3));
    for port in [stays, flaps_again] {
        let view = world.nodes[&port].view();
        assert_eq!(view.probation.iter().map(|id| id.0).collect::<Vec<_>>(), [2]);
        assert_eq!(view.leader.map(|id| id.0), Some(1), "who flaps does not lead at once");
    }
}

#[test]
fn who_goes_on_to_another_cluster_takes_those_along_whom_only_it_hears() {
    // The one in the middle comes over to the first, hears the last and goes on; the first calls it back as it was.
    let mut ports = [6_001, 6_002, 6_003];
    ports.sort_unstable_by_key(|port| std::cmp::Reverse(founded_by(*port)));
    let [middle, first, last] = ports;
    for cut_millis in [1_500, 2_000, 2_500] {
        let mut world = World::new();
        world.broadcasts = false;
        world.start(first, Some(1), None);
        world.run(secs(3));
        world.start_beside(middle, Some(3), None, &[first, last]);
        world.run(secs(3));
        assert_eq!(world.nodes[&middle].cluster_id(), founded_by(first));
        world.start(last, Some(4), None);
        for _ in 0..3_000 {
            if world.nodes[&middle].cluster_id() == founded_by(first) {
                world.run(Duration::from_millis(1));
            }
        }
        assert_ne!(world.nodes[&middle].cluster_id(), founded_by(first), "it has gone on");
        world.cut_ports(middle, &[first]);
        world.run(Duration::from_millis(cut_millis));
        world.heal();
        world.run(secs(8));
        for port in ports {
            assert_eq!(world.nodes[&port].cluster_id(), founded_by(last), "{port}, cut for {cut_millis} ms");
            assert_eq!(world.nodes[&port].view().live.len(), 3, "{port}");
        }
    }
}

#[test]
fn what_waits_above_a_hole_that_a_dead_server_took_with_it_is_let_go() {
    let mut world = World::agreed(2);
    let home = homes(&world, 1).iter().find(|(room, _)| *room == RoomName::lobby()).expect("there is a lobby").1;
    let (other, people) = (3 - home, [world.add_person(home), world.add_person(home)]);
    world.run(secs(2));
    world.cut(home, other);
    world.post(people[0], "lobby");
    world.run(Duration::from_millis(20));
    world.heal();
    world.post(people[1], "lobby");
    world.run(Duration::from_micros(2_600));
    world.kill(home);
    let waiting = |world: &World| {
        let queues = world.nodes[&port(other)].queues();
        queues.iter().find(|queue| queue.name == "entries above a hole in a room").map(|queue| queue.len)
    };
    assert_eq!(waiting(&world), Some(1));
    world.run(secs(29));
    assert_eq!(waiting(&world), Some(1), "the home may come back");
    world.run(secs(3));
    assert_eq!(waiting(&world), Some(0));
}
