//! Servers that do not hear each other, and a client that can reach all of them.

use super::world::{World, entry, origin};
use crate::{client::Event, ids::ServerId, time::Duration, wire::Frame};

/// So many servers, the client served by one, another standing by.
fn settled(servers: u32) -> (World, u32, u32) {
    let mut world = World::joined(servers);
    world.run(2_000);
    let (Some(primary), Some(standby)) = world.links() else { panic!("no standby: {:?}", world.events) };
    (world, primary, standby)
}

/// All servers but these.
fn others(world: &World, than: &[u32]) -> Vec<u32> {
    world.servers.iter().map(|server| server.id).filter(|id| !than.contains(id)).collect()
}

#[test]
fn whoever_is_served_by_a_server_that_is_cut_off_goes_to_where_the_others_are() {
    let (mut world, primary, standby) = settled(3);
    let others = others(&world, &[primary]);
    world.server(primary).hear(&[primary]);
    for id in &others {
        world.server(*id).hear(&others);
    }
    world.publish(&entry(8, 1, 10, "a"));
    world.run(800);
    assert_eq!(world.links(), (Some(primary), Some(standby)), "it may be for a moment only");
    world.post(1, "mine");
    world.run(1_000);
    assert_eq!(world.served_by(), [i64::from(primary), i64::from(standby)]);
    world.run(30_000);
    assert_eq!(world.links(), (Some(standby), Some(6 - primary - standby)));
    assert_eq!(world.served_by().len(), 2, "it stays there");
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    assert_eq!(world.shown(), ["--", "a", "mine"]);
}

#[test]
fn a_tie_moves_nobody_and_neither_does_a_list_that_got_lost() {
    fn check(ours: &[u32], theirs: &[u32], lost: bool) {
        let (mut world, primary, standby) = settled(4);
        let name = |ids: &[u32]| -> Vec<u32> {
            let all = [primary, standby].into_iter().chain(others(&world, &[primary, standby])).collect::<Vec<_>>();
            ids.iter().map(|id| all[*id as usize]).collect()
        };
        let (ours, theirs) = (name(ours), name(theirs));
        if lost {
            world.server(primary).hears = Some(ours);
        } else {
            world.server(primary).hear(&ours);
        }
        world.server(standby).hear(&theirs);
        world.run(10_000);
        assert_eq!(world.served_by(), [i64::from(primary)]);
    }
    check(&[0, 2], &[1, 3], false);
    check(&[0, 1, 2], &[0, 1, 3], false);
    check(&[0, 1, 2], &[1, 3], false);
    check(&[0, 1, 2, 3], &[1, 0, 2, 3], true);
    // One more has joined, and our server's word of it was lost.
    check(&[0, 1, 2, 3, 3], &[0, 1, 2, 3, 3], true);
}

#[test]
fn one_that_hears_more_and_less_by_turns_moves_nobody() {
    let (mut world, primary, standby) = settled(3);
    for _ in 0..20 {
        world.server(primary).hear(&[primary]);
        world.run(700);
        world.server(primary).hear(&[1, 2, 3]);
        world.run(300);
    }
    assert_eq!(world.links(), (Some(primary), Some(standby)));
    assert_eq!(world.served_by().len(), 1);
}

#[test]
fn a_standby_that_is_cut_off_is_replaced_and_its_call_is_not_followed() {
    let (mut world, primary, standby) = settled(3);
    let others = others(&world, &[standby]);
    world.server(standby).hear(&[standby]);
    world.server(standby).say_to_all(&Frame::Come { dead: ServerId(primary) });
    for id in &others {
        world.server(*id).hear(&others);
    }
    world.run(3_000);
    assert_eq!(world.links(), (Some(primary), Some(6 - primary - standby)));
    assert_eq!(world.served_by().len(), 1);
}

#[test]
fn a_call_of_a_cut_off_standby_is_followed_where_our_server_is_silent() {
    let (mut world, primary, standby) = settled(3);
    world.server(primary).alive = false;
    world.server(standby).hear(&[standby]);
    world.server(standby).say_to_all(&Frame::Come { dead: ServerId(primary) });
    let called = world.now;
    world.run(1_000);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(standby)]);
    let lost = world.when(|event| matches!(event, Event::Lost { .. })).unwrap().since(called);
    assert!(lost <= Duration::from_millis(550), "{lost:?}");
}

#[test]
fn a_client_of_the_last_server_of_its_half_does_not_forget_the_others() {
    let (mut world, primary, standby) = settled(3);
    world.server(primary).hear(&[primary]);
    world.server(standby).alive = false;
    world.run(100);
    world.server(primary).alive = false;
    let third = 6 - primary - standby;
    world.broadcasts.clear();
    world.broadcasts_pass = false;
    world.run(40_000);
    assert_eq!(world.served_by().last(), Some(&i64::from(third)));
}

/// When the client leaves a server that has fallen silent while it posts, if its standby says that it hears these.
fn leaves_after(hears: impl Fn(u32, u32) -> Vec<u32>) -> Duration {
    let (mut world, primary, standby) = settled(3);
    world.server(primary).alive = false;
    let hears = hears(primary, standby);
    world.server(standby).hears = Some(hears);
    let posted = world.now;
    world.post(1, "mine");
    world.run(3_000);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(standby)]);
    world.when(|event| matches!(event, Event::Lost { .. })).unwrap().since(posted)
}

#[test]
fn a_standby_that_is_asked_after_half_a_second_decides_at_once_where_it_knows() {
    let knows = leaves_after(|primary, _| (1..=3).filter(|id| *id != primary).collect());
    assert!((500..=510).contains(&knows.as_millis()), "{knows:?}");
    let does_not = leaves_after(|_, _| vec![1, 2, 3]);
    assert!((1_000..=1_010).contains(&does_not.as_millis()), "{does_not:?}");
}

#[test]
fn a_standby_is_not_asked_while_our_server_answers() {
    let (mut world, _, standby) = settled(3);
    let before = world.server(standby).pings;
    for seq in 1..=20 {
        world.post(seq, "x");
        world.run(700);
    }
    assert_eq!(world.server(standby).pings, before);
    assert_eq!(world.log.heads(&super::world::lobby()).get(origin(world.links().0.unwrap())), 20);
}
