//! Terms, fences and names are durable before they are used, and come back after the power was off.

use hobnob_proto::{node::Event, store::Write, time::Time, wire::frame::Fence};

use crate::world::{Hold, Told, World, any, fences, port, room};

#[test]
fn nobody_hears_of_a_leader_whose_term_is_not_durable() {
    let mut world = World::with(&[true, true]);
    let term = world.view(1).epoch.term;
    world.insert_disk(3);
    world.start(3);
    world.run_millis(100);
    world.disk(3).hold = Hold::From(|write| matches!(write, Write::Term(_)));
    world.run_secs(10);
    for id in 1..=3 {
        assert_eq!((world.view(id).leader.map(|id| id.0), world.view(id).epoch.term), (Some(2), term), "at {id}");
    }
    world.disk(3).hold = Hold::Nothing;
    world.run_secs(3);
    assert_eq!(world.view(1).leader.map(|id| id.0), Some(3));
    assert!(world.disk(3).model.term() > term && world.disk(1).model.term() == world.view(1).epoch.term);
}

#[test]
fn a_room_has_no_home_before_that_is_durable_at_the_leader() {
    let mut world = World::with(&[true, true, true]);
    let leader = world.view(1).leader.unwrap().0;
    world.disk(leader).hold = Hold::From(fences);
    let anna = world.person(1, 1);
    world.post(anna, 1);
    world.run_secs(3);
    assert!((1..=3).all(|id| world.room_at(id).is_none()));
    world.disk(leader).hold = Hold::Nothing;
    world.run_millis(200);
    assert!(world.home().is_some());
    assert!(matches!(world.told[..], [(_, _, 1, Told::Ack { .. }), ..]));
}

#[test]
fn a_successor_goes_on_once_its_fence_is_durable() {
    let mut world = World::with(&[true, true, true]);
    world.person(1, 1);
    world.run_secs(1);
    let last = world.fence().unwrap();
    let home = last.home.id.0;
    let others: Vec<_> = (1..=3).filter(|id| *id != home).collect();
    others.iter().for_each(|id| world.disk(*id).hold = Hold::From(fences));
    world.kill(home);
    world.run_secs(2);
    assert_eq!(world.fence(), Some(last), "nobody has taken it");
    others.iter().for_each(|id| world.disk(*id).hold = Hold::Nothing);
    world.run_millis(100);
    assert!(world.fence().unwrap() > last && world.home() != Some(home));
}

#[test]
fn a_server_has_joined_once_its_id_is_durable() {
    let mut world = World::with(&[true]);
    world.insert_disk(2);
    world.disk(2).hold = Hold::From(any);
    world.start(2);
    world.run_secs(5);
    let is_ready = |world: &World| {
        world.events.iter().any(|(at, _, event)| *at == port(2) && matches!(event, Event::Ready { .. }))
    };
    assert!(!is_ready(&world));
    world.disk(2).hold = Hold::Nothing;
    world.run_millis(200);
    assert!(is_ready(&world));
    assert_eq!(world.disk(2).model.me().0.map(|id| id.0), Some(2));
}

#[test]
fn after_the_power_was_off_all_is_there_and_a_repeated_post_has_its_old_dot() {
    let mut world = World::with(&[true, true, true]);
    let anna = world.person(1, 1);
    (1..=5).for_each(|seq| world.post(anna, seq));
    world.run_secs(2);
    let dots = |world: &World, since| -> Vec<_> {
        let told = (1..=5).filter_map(|seq| match world.told_since(anna, seq, since).pop()? {
            Told::Ack { dot, stored: true, copies, durable: true } => Some((dot, copies)),
            _ => None,
        });
        told.collect()
    };
    let (before, fence, cluster) = (dots(&world, Time::ZERO), world.fence().unwrap(), world.view(1).cluster);
    assert_eq!(before.len(), 5);
    let epoch = world.view(1).epoch;
    (1..=3).for_each(|id| world.kill(id));
    world.run_secs(1);
    (1..=3).for_each(|id| world.start(id));
    let since = world.now;
    world.run_secs(6);
    assert!((1..=3).all(|id| world.view(id).cluster == cluster && world.held(id) == (5, 5)));
    let home = world.home().expect("the room has a home again");
    assert!(world.room_at(home).unwrap().open);
    assert!(world.fence().unwrap() > fence && world.view(1).epoch.term > epoch.term);
    assert_is_on_all_disks(&mut world);
    let anna = world.person(1, 2);
    (1..=5).for_each(|seq| world.post(anna, seq));
    world.run_secs(2);
    let after: Vec<_> = dots(&world, since).into_iter().map(|(dot, _)| dot).collect();
    assert_eq!(after, before.into_iter().map(|(dot, _)| dot).collect::<Vec<_>>());
    assert!((1..=3).all(|id| world.held(id) == (5, 5)), "nothing is there twice");
}

/// What servers take for the room's fence, they find there when they start again.
fn assert_is_on_all_disks(world: &mut World) {
    let fence: Option<Fence> = world.fence();
    for id in 1..=3 {
        let record = world.disk(id).model.records().find(|record| record.room == room()).cloned();
        assert_eq!(record.map(|record| record.fence), fence, "at {id}");
    }
}
