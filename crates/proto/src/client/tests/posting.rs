use super::world::{World, config, lobby};
use crate::{
    client::{Command, Event},
    ids::DeviceId,
    limits,
    wire::frame::Refusal,
};

#[test]
fn a_post_is_accepted_then_stored_and_shown_to_its_author() {
    let mut world = World::joined(1);
    world.post(1, "hello");
    world.run(100);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    assert_eq!(world.shown(), ["--", "hello"]);
    assert_eq!(world.server(1).posts.len(), 1);
}

#[test]
fn what_is_posted_before_there_is_a_server_waits_for_one() {
    let mut world = World::new(1, config());
    world.server(1).alive = false;
    world.post(1, "early");
    world.run(10_000);
    assert!(world.acked().is_empty());
    world.server(1).alive = true;
    world.run(5_000);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
}

#[test]
fn posts_are_repeated_until_they_are_stored() {
    let mut world = World::joined(1);
    world.server(1).drops_posts = 3;
    world.server(1).stores = false;
    world.post(1, "hello");
    world.run(3_000);
    assert_eq!(world.acked(), [(1, false)]);
    world.server(1).stores = true;
    world.run(6_000);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    assert_eq!(world.log.entries.len(), 1);
    let posts = world.server(1).posts.len();
    world.run(60_000);
    assert_eq!(world.server(1).posts.len(), posts, "a stored post is not repeated");
}

#[test]
fn a_large_post_goes_in_fragments_over_a_bad_link() {
    let mut world = World::joined(1);
    world.loss = 20;
    let body = "\"ö\\🫖\n".repeat(1_400);
    world.post(1, &body);
    world.run_with_heads(30);
    assert_eq!(world.acked().last(), Some(&(1, true)));
    assert_eq!(*world.log.entries[0].body, *body);
    assert_eq!(world.shown(), ["--".to_owned(), body]);
}

#[test]
fn large_posts_do_not_drive_each_other_out_over_a_bad_link() {
    let mut world = World::joined(1);
    world.loss = 20;
    let body = |seq: u64| char::from(b'a' + seq as u8).to_string().repeat(limits::BODY_BYTES_MAX);
    for seq in 1..=10 {
        world.post(seq, &body(seq));
    }
    world.run_with_heads(30);
    // This server admits posts as they come.
    let bodies = |mut bodies: Vec<String>| {
        bodies.sort_unstable();
        bodies
    };
    let stored = world.acked().into_iter().filter(|(_, stored)| *stored).map(|(seq, _)| body(seq)).collect();
    let expected: Vec<_> = (1..=10).map(body).collect();
    assert!(bodies(stored) == expected, "{:?}", world.acked());
    assert!(bodies(world.shown().split_off(1)) == expected, "{} are shown", world.shown().len() - 1);
}

#[test]
fn a_clash_is_told_and_the_new_device_posts_again() {
    let mut world = World::joined(1);
    world.server(1).clashes = Some(DeviceId(77));
    world.post(1, "hello");
    world.run(5_000);
    assert!(matches!(world.events.last(), Some((_, Event::Refused { seq: 1, why: Refusal::Clash, .. }))));
    world.command(Command::NewDevice { device: DeviceId(78) });
    world.run(2_000);
    assert_eq!(world.acked(), [(1, false), (1, true)]);
    assert_eq!(world.log.entries[0].device, DeviceId(78));
    assert_eq!(world.log.entries[0].room, lobby());
}

#[test]
fn every_post_is_stored_once_over_a_bad_link() {
    let mut world = World::joined(1);
    world.loss = 20;
    for seq in 1..=100 {
        world.post(seq, &seq.to_string());
        world.run(20);
    }
    world.run_with_heads(60);
    assert_eq!(world.log.entries.len(), 100);
    let stored = world.acked().iter().filter(|(_, stored)| *stored).count();
    assert_eq!(stored, 100);
    assert_eq!(world.shown().len(), 101);
}
