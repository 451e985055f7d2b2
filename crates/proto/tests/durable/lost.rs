//! What nobody can produce any more becomes a marker, which everybody goes past; and whatever turns up takes its place.

use hobnob_proto::{
    client::Command,
    ids::{Boot, Origin},
    log::{Entry, VersionVector},
    store::Write,
    time::Time,
    wire::{
        frame::Start,
        import::{Import, Item, Outcome},
    },
};

use crate::{
    tails::{MANY, lines, origin, spoken},
    world::{HERE, Hold, Told, World, any, room},
};

/// The entry that rots.
const ROTTEN: u64 = 50;

/// Three servers that hold many lines, of which one is rotten on the disks of these; and what it was.
fn rotten(on: &[u32]) -> (World, Entry) {
    let mut world = World::with(&[true, true, true]);
    spoken(&mut world, 1, MANY);
    let origin = origin(&world, 1);
    let entry = world.disk(1).model.get(&room(), origin, ROTTEN).unwrap().entry.clone();
    for id in on {
        assert!(world.disk(*id).model.rot(&room(), origin, ROTTEN));
    }
    (world, (*entry).clone())
}

fn from_the_first() -> Start {
    Start::After(VersionVector::default())
}

/// What is lost, and what is rotten, on the disk of a server.
fn on_disk(world: &mut World, id: u32) -> (usize, usize) {
    let model = &world.disk(id).model;
    (model.lost(&room()).count(), model.rotten(&room()).count())
}

fn all_but_the_lost_one() -> Vec<String> {
    let mut expected = lines(1, MANY);
    "lost".clone_into(&mut expected[ROTTEN as usize - 1]);
    expected
}

#[test]
fn what_nobody_has_any_more_is_marked_and_what_is_above_it_is_served() {
    let (mut world, _) = rotten(&[1, 2, 3]);
    let late = world.person_from(2, 1, from_the_first());
    world.run_secs(25);
    assert!(!world.shown(late).contains(&"line 51".to_owned()), "nobody gives up so soon");
    world.run_secs(120);
    assert_eq!(world.shown(late), all_but_the_lost_one());
    for id in 1..=3 {
        assert_eq!(on_disk(&mut world, id), (1, 0), "at {id}");
        assert_eq!(world.held(id), (MANY, MANY), "at {id}: it counts as held");
    }
    let anna = world.person(3, 1);
    world.run_secs(1);
    let since = world.now;
    world.post(anna, 1);
    world.run_secs(2);
    assert!(world.told_after(anna, 1, true, since).is_some(), "and posts are stored as before");
}

#[test]
fn what_one_server_has_is_never_given_up_be_it_up_or_down() {
    let (mut world, entry) = rotten(&[1, 2]);
    world.kill(3);
    world.run_secs(3);
    let late = world.person_from(2, 1, from_the_first());
    world.run_secs(300);
    assert_eq!((on_disk(&mut world, 1), on_disk(&mut world, 2)), ((0, 1), (0, 1)), "it may come back");
    world.start(3);
    world.run_secs(30);
    assert_eq!(world.shown(late), lines(1, MANY));
    for id in 1..=3 {
        assert_eq!(on_disk(&mut world, id), (0, 0));
        assert_eq!(*world.disk(id).model.get(&room(), entry.origin, ROTTEN).unwrap().entry, entry);
    }
}

#[test]
fn a_server_alone_gives_up_by_itself() {
    let mut world = World::with(&[true]);
    spoken(&mut world, 1, MANY);
    let origin = origin(&world, 1);
    assert!(world.disk(1).model.rot(&room(), origin, ROTTEN));
    let late = world.person_from(2, 1, from_the_first());
    world.run_secs(29);
    assert_eq!(on_disk(&mut world, 1), (0, 1));
    world.run_secs(20);
    assert_eq!(on_disk(&mut world, 1), (1, 0));
    assert_eq!(world.shown(late), all_but_the_lost_one());
}

#[test]
fn what_can_be_read_after_all_is_not_given_up() {
    let mut world = World::with(&[true]);
    spoken(&mut world, 1, MANY);
    let origin = origin(&world, 1);
    world.scrub(1, &[(origin, ROTTEN)]);
    world.run_secs(60);
    assert_eq!(on_disk(&mut world, 1), (0, 0));
    let late = world.person_from(2, 1, from_the_first());
    world.run_secs(4);
    assert_eq!(world.shown(late), lines(1, MANY));
}

#[test]
fn a_marker_is_kept_over_restarts_and_copied_to_who_lacks_it() {
    let (mut world, _) = rotten(&[1, 2, 3]);
    let origin = origin(&world, 1);
    world.scrub(1, &[(origin, ROTTEN)]);
    world.run_secs(120);
    world.kill(1);
    world.kill(3);
    world.insert_disk(3);
    world.run_secs(2);
    (1..=3).filter(|id| *id != 2).for_each(|id| world.start(id));
    world.run_secs(20);
    for id in 1..=3 {
        assert_eq!((on_disk(&mut world, id), world.held(id)), ((1, 0), (MANY, MANY)), "at {id}");
        let late = world.person_from(id as u16 + 1, id, from_the_first());
        world.run_secs(4);
        assert_eq!(world.shown(late), all_but_the_lost_one(), "at {id}");
    }
}

#[test]
fn what_turns_up_takes_the_place_of_its_marker_everywhere() {
    let (mut world, entry) = rotten(&[1, 2, 3]);
    world.scrub(1, &[(entry.origin, ROTTEN)]);
    let late = world.person_from(2, 2, from_the_first());
    world.run_secs(150);
    assert_eq!(world.shown(late), all_but_the_lost_one());
    // In the memory of one there is nothing but its number.
    world.kill(1);
    world.start(1);
    world.run_secs(6);
    let anna = world.person(HERE, 1);
    world.run_secs(1);
    let marker = Entry::lost(room(), entry.origin, ROTTEN, entry.hlc);
    let lines_of = |n, entry: &Entry| vec![Import { n, what: Item::Entry(entry.clone()), floor: 0 }];
    world.command(anna, Command::Import { lines: lines_of(1, &marker) });
    world.command(anna, Command::Import { lines: lines_of(2, &entry) });
    world.run_secs(3);
    world.command(anna, Command::Import { lines: lines_of(3, &marker) });
    world.run_secs(3);
    assert_eq!(world.imported, [(1, Outcome::Known), (2, Outcome::Kept), (3, Outcome::Known)]);
    for id in 1..=3 {
        assert_eq!(on_disk(&mut world, id), (0, 0), "at {id}");
        assert_eq!(*world.disk(id).model.get(&room(), entry.origin, ROTTEN).unwrap().entry, entry, "at {id}");
    }
    assert_eq!(world.shown(late).last(), Some(&"line 50".to_owned()), "late, but it is shown");
    let later = world.person_from(3, 3, from_the_first());
    world.run_secs(4);
    assert_eq!(world.shown(later), lines(1, MANY));
}

#[test]
fn what_has_turned_up_elsewhere_unnoticed_is_asked_for() {
    let (mut world, entry) = rotten(&[1, 2, 3]);
    world.scrub(1, &[(entry.origin, ROTTEN)]);
    world.run_secs(150);
    assert_eq!(on_disk(&mut world, 1), (1, 0));
    // As a backup of its disk has it.
    world.kill(3);
    let sound = Write::Repair(entry.clone().into());
    world.disk(3).model.apply(&sound);
    world.start(3);
    world.run_secs(200);
    for id in 1..=3 {
        assert_eq!(on_disk(&mut world, id), (0, 0), "at {id}");
    }
}

/// Two servers with so many lines, of which none is in memory any more, and the home.
fn forgetful(count: u64) -> (World, u32) {
    let mut world = World::with(&[true, true]);
    spoken(&mut world, 1, count);
    for id in [1, 2] {
        world.kill(id);
        world.start(id);
        world.run_secs(8);
    }
    let home = world.home().unwrap();
    (world, home)
}

#[test]
fn what_nobody_has_does_not_keep_others_from_being_mended() {
    let (mut world, home) = forgetful(60);
    let origin = origin(&world, 1);
    for seq in 1..=40 {
        assert!(world.disk(home).model.rot(&room(), origin, seq));
        if seq <= 24 {
            assert!(world.disk(3 - home).model.rot(&room(), origin, seq));
        }
    }
    world.scrub(home, &(1..=40).map(|seq| (origin, seq)).collect::<Vec<_>>());
    world.run_secs(20);
    let rotten: Vec<_> = world.disk(home).model.rotten(&room()).map(|(_, seq)| seq).collect();
    assert_eq!(rotten, (1..=24).collect::<Vec<_>>());
    world.run_secs(120);
    assert_eq!(on_disk(&mut world, home), (24, 0));
}

#[test]
fn what_cannot_be_mended_counts_as_no_copy_and_is_tried_less_and_less() {
    let (mut world, home) = forgetful(60);
    let origin = origin(&world, 1);
    world.disk(home).is_damaged = true;
    assert!(world.disk(home).model.rot(&room(), origin, 30));
    world.scrub(home, &[(origin, 30)]);
    world.run_secs(60);
    let tried = world.disk(home).repairs;
    assert!((2..9).contains(&tried), "{tried} times in a minute");
    world.disk(3 - home).hold = Hold::From(any);
    world.retain(home, &[(origin, 60)].into_iter().collect());
    world.run_secs(1);
    assert_eq!(world.disk(home).model.floors(&room()).get(origin), 29, "what was to be repaired has one copy");
    world.disk(home).is_damaged = false;
    world.disk(3 - home).hold = Hold::Nothing;
    world.run_secs(200);
    assert_eq!(on_disk(&mut world, home), (0, 0));
}

/// Two servers, of which only the home is up: somebody has posted there more than memory holds.
fn spoken_alone() -> (World, u32, u16) {
    let mut world = World::with(&[true, true]);
    let home = world.home().unwrap_or(1);
    let anna = world.person(1, home);
    world.run_secs(2);
    let home = world.home().expect("the room has a home");
    world.kill(3 - home);
    world.run_secs(3);
    for seq in 1..=MANY {
        world.post(anna, seq);
        if seq % 20 == 0 {
            world.run_millis(20);
        }
    }
    world.run_secs(8);
    assert_eq!(world.held(home), (MANY, MANY));
    (world, home, anna)
}

#[test]
fn a_post_whose_entry_is_lost_is_not_stored_and_gets_another_one() {
    let (mut world, home, anna) = spoken_alone();
    let origin = origin(&world, home);
    let entry = world.disk(home).model.get(&room(), origin, ROTTEN).unwrap().entry.clone();
    assert!(world.disk(home).model.rot(&room(), origin, ROTTEN));
    world.scrub(home, &[(origin, ROTTEN)]);
    world.start(3 - home);
    world.run_secs(120);
    assert_eq!((on_disk(&mut world, 1), on_disk(&mut world, 2)), ((1, 0), (1, 0)));
    let told = world.told_since(anna, entry.client_seq, Time::ZERO);
    let stored: Vec<_> = told
        .iter()
        .filter_map(|told| match told {
            Told::Ack { dot, stored: true, .. } => Some(*dot),
            _ => None,
        })
        .collect();
    assert!(!stored.is_empty() && !stored.contains(&(origin, ROTTEN)), "{told:?}");
    let late = world.person_from(2, 3 - home, from_the_first());
    world.run_secs(4);
    let mut expected = all_but_the_lost_one();
    expected.push(format!("line {}", entry.client_seq));
    assert_eq!(world.shown(late), expected);
}

#[test]
fn a_server_alone_with_a_bad_disk_does_not_write_without_end() {
    let mut world = World::with(&[true]);
    spoken(&mut world, 1, MANY);
    let origin = origin(&world, 1);
    world.disk(1).is_damaged = true;
    assert!(world.disk(1).model.rot(&room(), origin, ROTTEN));
    world.scrub(1, &[(origin, ROTTEN)]);
    world.run_secs(35);
    let before = world.disk(1).reads;
    world.run_secs(60);
    let reads = world.disk(1).reads - before;
    assert!((1..20).contains(&reads), "{reads} questions in a minute");
    world.disk(1).is_damaged = false;
    world.run_secs(200);
    assert_eq!(on_disk(&mut world, 1), (1, 0));
}

#[test]
fn what_is_imported_takes_the_place_of_a_marker_that_is_only_on_disk() {
    let (mut world, entry) = rotten(&[1]);
    let marker = Write::Lost { room: room(), origin: entry.origin, seq: ROTTEN };
    world.disk(1).model.apply(&marker);
    assert_eq!(on_disk(&mut world, 1), (1, 0));
    let anna = world.person(HERE, 1);
    world.run_secs(1);
    let line = Import { n: 1, what: Item::Entry(entry.clone()), floor: 0 };
    world.command(anna, Command::Import { lines: vec![line] });
    world.run_secs(3);
    assert_eq!(world.imported, [(1, Outcome::Kept)]);
    assert_eq!(*world.disk(1).model.get(&room(), entry.origin, ROTTEN).unwrap().entry, entry);
    assert_eq!(world.disk(1).model.quarantined().len(), 0);
}

#[test]
fn nobody_can_mark_what_a_live_server_has_not_sequenced() {
    let mut world = World::with(&[true, true]);
    spoken(&mut world, 1, 3);
    let home = world.home().unwrap();
    let origin = origin(&world, home);
    let dead = Origin { boot: Boot(origin.boot.0 - 1), ..origin };
    let hlc = world.disk(home).model.get(&room(), origin, 3).unwrap().entry.hlc;
    let anna = world.person(HERE, 3 - home);
    world.run_secs(1);
    for (n, origin, seq) in [(1, origin, 4), (2, dead, 1)] {
        let what = Item::Entry(Entry::lost(room(), origin, seq, hlc));
        world.command(anna, Command::Import { lines: vec![Import { n, what, floor: 0 }] });
    }
    world.run_secs(3);
    world.imported.sort_unstable_by_key(|(n, _)| *n);
    assert_eq!(world.imported, [(1, Outcome::Invalid), (2, Outcome::Kept)]);
    assert_eq!((world.held(1), world.held(2)), ((4, 4), (4, 4)));
}
