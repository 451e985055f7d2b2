use super::world::{World, config, entry, lobby, origin};
use crate::{
    client::Event,
    ids::ServerId,
    time::Duration,
    wire::{Frame, frame::Start},
};

/// Three servers, the client served by one, another standing by, and one message shown.
fn settled() -> (World, u32, u32) {
    let mut world = World::joined(3);
    world.publish(&entry(8, 1, 10, "a"));
    world.run(2_000);
    let (Some(primary), Some(standby)) = world.links() else { panic!("no standby: {:?}", world.events) };
    (world, primary, standby)
}

#[test]
fn a_standby_is_told_whom_it_stands_by_for() {
    let (mut world, primary, standby) = settled();
    let hi = world.server(standby).his.last().unwrap().clone();
    assert_eq!(hi.standby, Some(ServerId(primary)));
    assert!(world.server(standby).joins.is_empty());
}

#[test]
fn a_standby_calls_us_over_and_nothing_is_lost_or_shown_twice() {
    let (mut world, primary, standby) = settled();
    world.server(primary).alive = false;
    world.publish(&entry(8, 2, 20, "b"));
    world.post(1, "mine");
    let died = world.now;
    world.run(50);
    world.server(standby).say_to_all(&Frame::Come { dead: ServerId(primary) });
    world.run(2_000);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(standby)]);
    assert_eq!(world.shown(), ["--", "a", "b", "mine"]);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    let cursor = [(origin(8), 1)].into_iter().collect();
    assert_eq!(world.server(standby).joins, [Start::After(cursor)]);
    let served = world.events.iter().rev().find(|(_, event)| matches!(event, Event::Connected { .. })).unwrap().0;
    assert!(served.since(died) < Duration::from_millis(60), "without a handshake");
    assert!(world.links().1.is_some(), "another stands by");
}

#[test]
fn a_server_that_is_about_to_stop_serves_until_another_has_welcomed_us() {
    let (mut world, primary, standby) = settled();
    world.server(standby).alive = false;
    world.server(primary).say_to_all(&Frame::Come { dead: ServerId(primary) });
    world.run(50);
    world.publish(&entry(8, 2, 20, "b"));
    world.run(200);
    assert_eq!(world.shown(), ["--", "a", "b"], "shown by the server that is left");
    world.server(standby).alive = true;
    world.run(1_000);
    assert_eq!(world.served_by(), [i64::from(primary), i64::from(standby)]);
    assert_eq!(world.shown(), ["--", "a", "b"]);
}

#[test]
fn a_standby_that_is_about_to_stop_is_replaced() {
    let (mut world, primary, standby) = settled();
    world.server(standby).say_to_all(&Frame::Come { dead: ServerId(standby) });
    world.run(10);
    world.server(standby).alive = false;
    world.run(1_500);
    assert_eq!(world.links(), (Some(primary), Some(6 - primary - standby)));
    assert_eq!(world.served_by(), [i64::from(primary)]);
}

#[test]
fn a_server_that_falls_silent_is_left_without_being_called() {
    let (mut world, primary, standby) = settled();
    world.server(primary).alive = false;
    let died = world.now;
    world.post(1, "mine");
    world.run(3_000);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(standby)]);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    let lost = world.when(|event| matches!(event, Event::Lost { .. })).unwrap().since(died);
    assert!(lost <= Duration::from_millis(1_050), "{lost:?}");
}

#[test]
fn a_quiet_client_notices_a_silent_server_by_its_keepalive() {
    let (mut world, primary, standby) = settled();
    world.server(primary).alive = false;
    world.run(35_000);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(standby)]);
}

#[test]
fn with_both_gone_the_third_is_found() {
    let (mut world, primary, standby) = settled();
    world.server(primary).alive = false;
    world.server(standby).alive = false;
    let third = 6 - primary - standby;
    world.publish(&entry(8, 2, 20, "b"));
    world.post(1, "mine");
    world.run(6_000);
    assert_eq!(world.served_by().last(), Some(&i64::from(third)));
    assert_eq!(world.shown(), ["--", "a", "b", "mine"]);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
}

#[test]
fn with_all_gone_it_waits_for_one_to_come_back() {
    let mut world = World::joined(1);
    world.server(1).alive = false;
    world.post(1, "mine");
    world.run(30_000);
    world.server(1).alive = true;
    world.run(6_000);
    assert_eq!(world.served_by(), [1, -1, 1]);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    assert_eq!(world.shown(), ["--", "mine"]);
}

#[test]
fn a_call_about_another_server_is_not_followed() {
    let (mut world, primary, standby) = settled();
    world.server(standby).say_to_all(&Frame::Come { dead: ServerId(99) });
    world.run(1_000);
    assert_eq!(world.links(), (Some(primary), Some(standby)));
    assert_eq!(world.served_by().len(), 1);
}

#[test]
fn a_standby_that_dies_is_replaced() {
    let (mut world, primary, standby) = settled();
    world.server(standby).alive = false;
    world.run(60_000);
    let third = 6 - primary - standby;
    assert_eq!(world.links(), (Some(primary), Some(third)));
    assert_eq!(world.served_by().len(), 1, "that is nobody's business");
    assert_eq!(world.client.cursor(&lobby()).unwrap().count(), 1);
}

#[test]
fn a_bad_link_alone_moves_nobody() {
    let (mut world, ..) = settled();
    world.loss = 20;
    for seq in 1..=200 {
        world.post(seq, &seq.to_string());
        world.run(100);
    }
    world.loss = 0;
    world.run_with_heads(10);
    assert_eq!(world.served_by().len(), 1);
    assert_eq!(world.shown().len(), 202);
}

#[test]
fn a_standby_that_runs_anew_is_replaced_at_once() {
    let (mut world, primary, standby) = settled();
    world.server(standby).restart(2);
    world.server(primary).boots.insert(standby, 2);
    world.server(primary).hear(&[1, 2, 3]);
    world.run(50);
    let third = 6 - primary - standby;
    assert_eq!(world.links(), (Some(primary), Some(third)));
    world.server(primary).alive = false;
    world.server(third).say_to_all(&Frame::Come { dead: ServerId(primary) });
    world.run(50);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(third)]);
}

#[test]
fn a_dead_standby_is_replaced_as_soon_as_our_server_hears_it_no_longer() {
    let (mut world, primary, standby) = settled();
    let third = 6 - primary - standby;
    world.server(standby).alive = false;
    world.run(700);
    world.server(primary).hear(&[primary, third]);
    world.run(300);
    assert_eq!(world.links(), (Some(primary), Some(third)));
    assert_eq!(world.served_by().len(), 1);
}

#[test]
fn a_standby_that_our_server_does_not_hear_but_we_do_stays_and_costs_a_ping() {
    let (mut world, primary, standby) = settled();
    let third = 6 - primary - standby;
    world.server(standby).hear(&[standby, third]);
    world.server(primary).hear(&[primary, third]);
    let pings = |world: &mut World| [primary, standby].map(|id| world.server(id).pings);
    let before = pings(&mut world);
    world.run(1_000);
    assert_eq!(pings(&mut world).iter().sum::<u32>() - before.iter().sum::<u32>(), 2);
    assert_eq!(world.links(), (Some(primary), Some(standby)));
}

#[test]
fn a_server_that_runs_anew_is_left_as_soon_as_our_standby_says_so() {
    let (mut world, primary, standby) = settled();
    world.server(primary).restart(2);
    world.server(standby).boots.insert(primary, 2);
    world.server(standby).hear(&[1, 2, 3]);
    world.run(50);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(standby)]);
    world.run(1_000);
    assert!(world.links().1.is_some(), "another stands by");
}

#[test]
fn whoever_listens_notices_within_seconds_that_both_have_died_while_others_talk() {
    let (mut world, primary, standby) = settled();
    let third = 6 - primary - standby;
    world.publish(&entry(8, 2, 20, "b"));
    world.server(primary).alive = false;
    world.server(standby).alive = false;
    let died = world.now;
    world.run(20);
    world.publish(&entry(8, 3, 30, "c"));
    world.run(4_000);
    assert_eq!(world.shown(), ["--", "a", "b", "c"]);
    assert_eq!(world.served_by(), [i64::from(primary), -i64::from(primary), i64::from(third)]);
    let served = world.events.iter().rev().find(|(_, event)| matches!(event, Event::Connected { .. })).unwrap().0;
    assert!(served.since(died) < Duration::from_millis(3_100), "{:?}", served.since(died));
}

#[test]
fn whoever_is_not_known_any_more_says_hi_again_and_enters_anew() {
    let (mut world, primary, standby) = settled();
    let known = |world: &mut World| {
        [primary, standby]
            .map(|id| (world.server(id).his.len(), world.server(id).joins.len(), world.server(id).sessions))
    };
    let before = known(&mut world);
    for server in [primary, standby] {
        world.server(server).followers.clear();
        world.server(server).say_to_all(&Frame::HiFirst { session: 5_000 });
    }
    world.run(10);
    world.publish(&entry(8, 2, 20, "b"));
    world.run(10);
    assert_eq!(world.shown(), ["--", "a", "b"]);
    let [(his, joins, sessions), (standby_his, standby_joins, _)] = before;
    let after = known(&mut world);
    assert_eq!(after[0], (his + 1, joins + 1, sessions));
    assert_eq!((after[1].0, after[1].1), (standby_his + 1, standby_joins));
    assert!(world.server(primary).his.last().unwrap().session > 5_000);
    let last = world.server(standby).his.last().unwrap().clone();
    assert_eq!(last.standby, Some(ServerId(primary)), "it is asked to stand by again");
    // A server that says nothing else is not asked without end.
    for _ in 0..100 {
        world.server(primary).say_to_all(&Frame::HiFirst { session: 5_000 });
        world.run(30);
    }
    assert!(known(&mut world)[0].0 - after[0].0 <= 4, "not more often than each second");
}

#[test]
fn a_room_that_is_silent_costs_a_keepalive_and_one_that_talks_costs_nothing() {
    let (mut world, primary, _) = settled();
    let before = world.server(primary).pings;
    for seq in 2..=200 {
        world.publish(&entry(8, seq, seq * 10, "talk"));
        world.run(1_500);
    }
    assert_eq!(world.server(primary).pings, before);
    world.run(600_000);
    let pings = world.server(primary).pings - before;
    assert!((24..=32).contains(&pings), "{pings} pings in ten minutes");
}

#[test]
fn a_server_to_go_to_that_nobody_knows_is_forgotten_and_another_stands_by() {
    let mut world = World::new(3, config());
    world.servers.iter_mut().for_each(|server| server.go = Some(99));
    world.run(1_500);
    assert_eq!(world.links().1, None, "its address may still come");
    world.run(3_000);
    let (Some(primary), Some(_)) = world.links() else { panic!("no standby: {:?}", world.events) };
    world.server(primary).say_to_all(&Frame::Come { dead: ServerId(primary) });
    world.run(1_000);
    assert_eq!(world.served_by().len(), 2, "it goes when it is sent away");
}
