//! Posts whose place is looked up on disk: none hangs, and none is taken in twice.

use crate::world::{Told, World};

/// More of one device than memory knows of a room.
const UNSETTLED: u64 = 2_300;

#[test]
fn as_many_posts_as_come_while_the_other_disk_is_away_are_stored_once_it_is_back() {
    let mut world = World::with(&[true, true]);
    let anna = world.person(1, 1);
    world.run_secs(1);
    let home = world.home().unwrap();
    let other = 3 - home;
    world.kill(other);
    world.run_secs(3);
    let bert = world.person(2, home);
    world.run_secs(1);
    for seq in 1..=UNSETTLED {
        world.post(bert, seq);
        if seq % 20 == 0 {
            world.run_millis(20);
        }
    }
    world.run_secs(10);
    assert_eq!(world.held(home), (UNSETTLED, UNSETTLED), "all are accepted");
    assert_ne!(anna, bert);
    world.start(other);
    world.run_secs(30);
    let stored = world.told.iter().filter(|(.., told)| matches!(told, Told::Ack { stored: true, .. }));
    assert_eq!(stored.map(|(.., seq, _)| seq).collect::<std::collections::BTreeSet<_>>().len() as u64, UNSETTLED);
    assert_eq!((world.held(1), world.held(2)), ((UNSETTLED, UNSETTLED), (UNSETTLED, UNSETTLED)), "none is there twice");
}
