//! What a person is told of a post, and on whose disk it is by then.

use std::time::Duration;

use hobnob_proto::{
    client::Command,
    time::Time,
    wire::import::{Import, Item},
};

use crate::{
    imports::{OTHER, entry},
    world::{HERE, Hold, World, entries, port},
};

/// Somebody in the room, which has a home: who, and where that is.
fn settled(disks: &[bool]) -> (World, u16, u32) {
    let mut world = World::with(disks);
    let anna = world.person(1, 1);
    world.run_secs(1);
    let home = world.home().expect("the room has a home");
    (world, anna, home)
}

fn others(world: &World, home: u32) -> Vec<u32> {
    (1..=9).filter(|id| *id != home && world.nodes.contains_key(&port(*id))).collect()
}

#[test]
fn accepted_waits_for_the_disk_of_the_home_and_stored_for_a_second_one() {
    let (mut world, anna, home) = settled(&[true, true, true]);
    let others = others(&world, home);
    (1..=3).for_each(|id| world.disk(id).hold = Hold::From(entries));
    let since = world.now;
    world.post(anna, 1);
    world.run_secs(2);
    assert!((1..=3).all(|id| world.held(id) == (1, 0)), "it is pushed while it is written");
    assert_eq!(world.acks_since(anna, 1, since), [], "nobody has it on disk");
    world.disk(home).hold = Hold::Nothing;
    world.run_millis(20);
    assert_eq!(world.acks_since(anna, 1, since), [(1, false, true)]);
    world.disk(others[0]).hold = Hold::Nothing;
    world.run_millis(20);
    assert_eq!(world.acks_since(anna, 1, since), [(1, false, true), (2, true, true)]);
}

#[test]
fn two_other_disks_are_enough() {
    let (mut world, anna, home) = settled(&[true, true, true]);
    world.disk(home).hold = Hold::From(entries);
    let since = world.now;
    world.post(anna, 1);
    world.run_millis(100);
    assert_eq!(world.acks_since(anna, 1, since), [(2, true, true)]);
}

#[test]
fn a_slow_second_disk_holds_back_stored_only_and_is_not_reminded_for_ever() {
    let (mut world, anna, home) = settled(&[true, true]);
    let other = others(&world, home)[0];
    world.disk(other).sync = Duration::from_secs(20);
    let sent_in_10_secs = |world: &mut World| {
        let before = world.sent;
        world.run_secs(10);
        world.sent - before
    };
    let quiet = sent_in_10_secs(&mut world);
    let since = world.now;
    world.post(anna, 1);
    world.run_secs(1);
    let quick = world.told_after(anna, 1, false, since).unwrap();
    assert!(quick < Duration::from_millis(10), "{quick:?}");
    assert_eq!(world.told_after(anna, 1, true, since), None);
    world.run_secs(8);
    let reminding = sent_in_10_secs(&mut world);
    assert!(reminding < quiet + 60, "{reminding} datagrams where {quiet} are usual");
    world.run_secs(2);
    let slow = world.told_after(anna, 1, true, since).unwrap();
    assert!(slow > Duration::from_secs(20) && slow < Duration::from_millis(20_010), "told at once: {slow:?}");
}

#[test]
fn what_a_disk_kept_before_it_was_wiped_does_not_count() {
    let (mut world, anna, home) = settled(&[true, true]);
    let other = others(&world, home)[0];
    world.post(anna, 1);
    world.run_secs(1);
    world.kill(other);
    world.insert_disk(other);
    world.disk(other).hold = Hold::From(entries);
    world.start(other);
    world.run_secs(3);
    assert_eq!((world.home(), world.held(other)), (Some(home), (1, 0)), "it holds it, and has not kept it");
    let (bert, since) = (world.person(1, home), world.now);
    world.post(bert, 1);
    world.run_secs(1);
    assert_eq!(world.acks_since(bert, 1, since), [(1, false, true)]);
    world.disk(other).hold = Hold::Nothing;
    world.run_millis(20);
    assert_eq!(world.acks_since(bert, 1, since), [(1, false, true), (2, true, true)]);
}

#[test]
fn who_is_down_is_a_member_and_what_it_lacks_is_not_stored() {
    let (mut world, _, home) = settled(&[true, true]);
    let other = others(&world, home)[0];
    world.kill(other);
    world.run_secs(3);
    let (bert, since) = (world.person(2, home), world.now);
    world.post(bert, 1);
    world.run_secs(60);
    assert_eq!(world.acks_since(bert, 1, since), [(1, false, true)]);
    world.start(other);
    world.run_secs(5);
    assert_eq!(world.acks_since(bert, 1, since), [(1, false, true), (2, true, true)]);
}

#[test]
fn memory_counts_for_nothing_beside_a_disk() {
    fn check(disks: &[bool], expected: &[(u32, bool, bool)], homes: &[u32]) {
        let (mut world, anna, home) = settled(disks);
        let since = world.now;
        world.post(anna, 1);
        world.run_secs(2);
        assert_eq!(world.acks_since(anna, 1, since), expected, "{disks:?}");
        assert!(homes.contains(&home), "{disks:?}: home {home}");
    }
    check(&[true, false, false], &[(1, true, true)], &[1]);
    check(&[true, true, false], &[(1, false, true), (2, true, true)], &[1, 2]);
    check(&[true], &[(1, true, true)], &[1]);
    check(&[false, false], &[(1, false, false), (2, true, false)], &[1, 2]);
    check(&[false], &[(1, true, false)], &[1]);
}

#[test]
fn where_only_memory_is_left_nothing_is_stored_until_a_disk_is_back() {
    let (mut world, _, home) = settled(&[true, false, false]);
    assert_eq!(home, 1);
    world.kill(1);
    world.run_secs(4);
    let (bert, since) = (world.person(2, 2), world.now);
    world.post(bert, 1);
    world.run_secs(3);
    assert_eq!(world.acks_since(bert, 1, since), [(0, false, false)]);
    world.start(1);
    world.run_secs(15);
    assert_eq!(world.acks_since(bert, 1, since).last(), Some(&(1, true, true)));
    assert_eq!(world.home(), Some(1), "the room is where a disk is");
}

/// Anna's second post is on the disk of `other`, whose word of it falls into a short silence of the home; since when.
fn loses_a_word(world: &mut World, anna: u16, home: u32, other: u32) -> Time {
    world.post(anna, 1);
    world.run_secs(1);
    let since = world.now;
    world.disk(other).hold = Hold::From(entries);
    world.post(anna, 2);
    world.run_millis(100);
    world.deaf = Some(home);
    world.disk(other).hold = Hold::Nothing;
    world.run_millis(20);
    world.deaf = None;
    since
}

#[test]
fn what_a_lost_acknowledgement_said_is_said_again() {
    let (mut world, anna, home) = settled(&[true, true]);
    let other = others(&world, home)[0];
    let since = loses_a_word(&mut world, anna, home, other);
    assert_eq!(world.told_after(anna, 2, true, since), None);
    world.run_secs(1);
    assert_eq!(world.acks_since(anna, 2, since), [(1, false, true), (2, true, true)]);
}

#[test]
fn what_a_lost_acknowledgement_said_is_said_again_where_other_things_rise_all_the_time() {
    let (mut world, anna, home) = settled(&[true, true]);
    let other = others(&world, home)[0];
    let eva = world.person(HERE, other);
    let since = loses_a_word(&mut world, anna, home, other);
    // Each goes to the home in an acknowledgement that speaks of nothing else.
    for n in 1..=60 {
        let line = Import { n, what: Item::Entry(entry(OTHER, n)), floor: 0 };
        world.command(eva, Command::Import { lines: vec![line] });
        world.run_millis(50);
    }
    assert_eq!(world.imported.len(), 60);
    let after = world.told_after(anna, 2, true, since).unwrap();
    assert!(after < Duration::from_millis(1_500), "{after:?}");
}
