//! Markers of what is lost at their edges: how many are taken, who says that they lack what, and what one answer holds.

use hobnob_proto::{
    client::{Command, Event},
    ids::Origin,
    limits,
    log::{Entry, VersionVector},
    store::{LOST_MAX, Write},
    wire::{
        frame::Start,
        import::{Import, Item, Outcome},
    },
};

use crate::{
    imports::{OTHER, entry},
    tails::{MANY, origin, spoken},
    world::{HERE, Hold, World, any, room},
};

/// What is lost, and what is rotten, on the disk of a server.
fn on_disk(world: &mut World, id: u32) -> (usize, usize) {
    let model = &world.disk(id).model;
    (model.lost(&room()).count(), model.rotten(&room()).count())
}

fn marker(origin: Origin, seq: u64) -> Entry {
    Entry::lost(room(), origin, seq, entry(origin, seq).hlc)
}

/// Imports entries, numbered from there.
fn import(world: &mut World, person: u16, first: u64, entries: impl Iterator<Item = Entry>) {
    let line = |(n, entry)| Import { n, what: Item::Entry(entry), floor: 0 };
    let lines = (first..).zip(entries).map(line).collect();
    world.command(person, Command::Import { lines });
}

fn outcome(world: &World, n: u64) -> Option<Outcome> {
    world.imported.iter().find(|(of, _)| *of == n).map(|(_, outcome)| *outcome)
}

#[test]
fn no_more_markers_are_taken_than_are_remembered() {
    let mut world = World::with(&[true]);
    let anna = world.person(HERE, 1);
    world.run_secs(1);
    let max = LOST_MAX as u64;
    for first in (1..=max).step_by(128) {
        import(&mut world, anna, first, (first..first + 128).map(|seq| marker(OTHER, seq)));
        world.run_secs(1);
    }
    import(&mut world, anna, max + 1, std::iter::once(marker(OTHER, max + 1)));
    world.run_secs(3);
    assert_eq!(on_disk(&mut world, 1), (LOST_MAX, 0));
    assert_eq!(outcome(&world, max), Some(Outcome::Kept));
    assert_eq!(outcome(&world, max + 1), Some(Outcome::Invalid));
    // One that turns up makes room for another one.
    import(&mut world, anna, max + 2, std::iter::once(entry(OTHER, 7)));
    world.run_secs(3);
    import(&mut world, anna, max + 3, std::iter::once(marker(OTHER, max + 1)));
    world.run_secs(3);
    assert_eq!([max + 2, max + 3].map(|n| outcome(&world, n)), [Some(Outcome::Kept); 2]);
    assert_eq!(on_disk(&mut world, 1), (LOST_MAX, 0));
}

#[test]
fn a_marker_is_pushed_to_everybody_at_once_as_an_entry_is() {
    let mut world = World::with(&[true, true, true]);
    let anna = world.person(HERE, 1);
    let others: Vec<_> = (1..=3).map(|id| world.person(id as u16, id)).collect();
    world.run_secs(3);
    let home = world.home().unwrap();
    import(&mut world, anna, 1, std::iter::once(entry(OTHER, 1)));
    world.run_secs(3);
    import(&mut world, anna, 2, std::iter::once(marker(OTHER, 2)));
    world.run_millis(if home == 1 { 20 } else { 700 });
    for other in others {
        assert_eq!(world.shown(other), ["line 1", "lost"]);
    }
    world.run_secs(2);
    assert!((1..=3).all(|id| on_disk(&mut world, id) == (1, 0) && world.held(id) == (2, 2)));
}

#[test]
fn who_has_a_marker_lacks_the_entry_and_says_so() {
    let mut world = World::with(&[true, true, true]);
    spoken(&mut world, 1, MANY);
    let origin = origin(&world, 1);
    for id in 1..=3 {
        assert!(world.disk(id).model.rot(&room(), origin, 50));
    }
    for id in [2, 3] {
        world.disk(id).model.apply(&Write::Lost { room: room(), origin, seq: 50 });
        world.kill(id);
        world.run_secs(1);
        world.start(id);
        world.run_secs(8);
    }
    world.scrub(1, &[(origin, 50)]);
    world.run_secs(20);
    assert_eq!(on_disk(&mut world, 1), (0, 1), "a marker takes the place of nothing");
    world.run_secs(60);
    assert_eq!(on_disk(&mut world, 1), (1, 0), "nobody has it");
}

#[test]
fn who_is_about_to_have_an_entry_again_does_not_say_that_it_lacks_it() {
    let mut world = World::with(&[true, true]);
    spoken(&mut world, 1, MANY);
    let (home, origin) = (world.home().unwrap(), origin(&world, 1));
    let other = 3 - home;
    let entry = world.disk(1).model.get(&room(), origin, 50).unwrap().entry.clone();
    for id in [1, 2] {
        assert!(world.disk(id).model.rot(&room(), origin, 50));
        world.scrub(id, &[(origin, 50)]);
    }
    let anna = world.person(HERE, other);
    world.run_secs(1);
    world.disk(other).hold = Hold::From(any);
    import(&mut world, anna, 1, std::iter::once((*entry).clone()));
    world.run_secs(100);
    assert_eq!(on_disk(&mut world, home), (0, 1), "its peer has it, but for a disk that is slow");
    world.disk(other).hold = Hold::Nothing;
    world.run_secs(30);
    assert_eq!([on_disk(&mut world, 1), on_disk(&mut world, 2)], [(0, 0); 2]);
    assert_eq!(*world.disk(home).model.get(&room(), origin, 50).unwrap().entry, *entry);
}

#[test]
fn one_answer_holds_no_more_of_what_is_rotten_than_of_anything_else() {
    const LARGE: u64 = 12;
    let mut world = World::with(&[true, true]);
    let anna = world.person(HERE, 1);
    world.run_secs(1);
    let large = |seq| {
        let mut entry = Entry { body: "x".repeat(15_000).into(), ..entry(OTHER, seq) };
        entry.hash = entry.digest();
        entry
    };
    for seq in 1..=LARGE {
        import(&mut world, anna, seq, std::iter::once(large(seq)));
        world.run_secs(1);
    }
    world.run_secs(3);
    assert_eq!([world.held(1), world.held(2)], [(LARGE, LARGE); 2]);
    // In the memory of the other they all are.
    world.kill(1);
    world.run_secs(1);
    world.start(1);
    world.run_secs(8);
    for seq in 1..=LARGE {
        assert!(world.disk(1).model.rot(&room(), OTHER, seq));
    }
    let before = world.sent;
    world.scrub(1, &(1..=LARGE).map(|seq| (OTHER, seq)).collect::<Vec<_>>());
    world.run_millis(3);
    let (sent, packets) = (world.sent - before, limits::PULL_BYTES_MAX as u64 / 1_100);
    assert!((packets - 10..packets + 10).contains(&sent), "{sent} packets");
    world.run_secs(10);
    assert_eq!(on_disk(&mut world, 1), (0, 0), "and the rest");
}

#[test]
fn a_marker_for_what_is_not_there_yet_counts_as_no_copy_of_it_and_gives_way() {
    let mut world = World::with(&[true, true]);
    let anna = spoken(&mut world, 1, 3);
    let home = world.home().unwrap();
    let (origin, other) = (origin(&world, home), 3 - home);
    world.kill(other);
    world.disk(other).model.apply(&Write::Entry(marker(origin, 4).into()));
    world.start(other);
    world.run_secs(8);
    assert_eq!((world.home(), world.held(other)), (Some(home), (4, 4)));
    world.disk(other).hold = Hold::From(any);
    let since = world.now;
    world.post(anna, 4);
    world.run_secs(2);
    assert_eq!(world.told_after(anna, 4, true, since), None);
    world.disk(other).hold = Hold::Nothing;
    world.run_secs(5);
    assert!(world.told_after(anna, 4, true, since).is_some());
    for id in [1, 2] {
        assert_eq!(&*world.disk(id).model.get(&room(), origin, 4).unwrap().entry.body, "line 4");
    }
}

/// What a person who copies a room is given.
fn copied(world: &World, person: u16) -> Vec<Entry> {
    let given = world.heard.iter().filter(|(who, _)| *who == person).filter_map(|(_, event)| match event {
        Event::Message { entry, .. } => Some(entry.clone()),
        _ => None,
    });
    given.collect()
}

#[test]
fn a_room_with_a_marker_is_exported_and_imported_elsewhere() {
    let mut world = World::with(&[true]);
    // Another boot than that of the servers elsewhere.
    world.kill(1);
    world.start(1);
    world.run_secs(6);
    spoken(&mut world, 1, MANY);
    let origin = origin(&world, 1);
    assert!(world.disk(1).model.rot(&room(), origin, 50));
    world.scrub(1, &[(origin, 50)]);
    world.run_secs(90);
    assert_eq!(on_disk(&mut world, 1), (1, 0));
    let copier = world.person_from(2, 1, Start::Last(0));
    world.run_secs(1);
    world.command(copier, Command::Part { room: room() });
    world.run_secs(1);
    world.command(copier, Command::Copy { room: room(), from: Start::After(VersionVector::default()) });
    world.run_secs(5);
    let copied = copied(&world, copier);
    assert_eq!((copied.len() as u64, copied.iter().filter(|entry| entry.is_lost()).count()), (MANY, 1));

    let mut elsewhere = World::with(&[true, true]);
    let anna = elsewhere.person(HERE, 1);
    elsewhere.run_secs(1);
    for (n, portion) in copied.chunks(100).enumerate() {
        import(&mut elsewhere, anna, 1 + 100 * n as u64, portion.iter().cloned());
        elsewhere.run_secs(2);
    }
    elsewhere.run_secs(5);
    assert!(elsewhere.imported.iter().all(|(_, outcome)| *outcome == Outcome::Kept));
    for id in [1, 2] {
        assert_eq!((elsewhere.held(id), on_disk(&mut elsewhere, id)), ((MANY, MANY), (1, 0)), "at {id}");
    }
}
