//! Imports: what became of a line is told once it is on the disk, and nothing is taken in that does not belong there.

use hobnob_proto::{
    client::Command,
    hlc::Hlc,
    ids::{Boot, DeviceId, Origin, PersonId, ServerId},
    limits,
    log::{Entry, Hash},
    wire::import::{Import, Item, Outcome},
};

use crate::world::{HERE, Hold, World, entries, room};

pub(crate) const OTHER: Origin = Origin { id: ServerId(9), boot: Boot(9) };

pub(crate) fn entry(origin: Origin, seq: u64) -> Entry {
    let mut entry = Entry {
        room: room(),
        origin,
        seq,
        hlc: Hlc { millis: 1_600_000_000_000 + seq, counter: 0 },
        from: "anna".parse().unwrap(),
        person: PersonId([1; 16]),
        device: DeviceId(1),
        client_seq: seq,
        kind: "message".into(),
        body: format!("line {seq}").into(),
        hash: Hash::default(),
    };
    entry.hash = entry.digest();
    entry
}

/// Changes an entry, and gives it the hash that it has then.
fn changed(change: impl FnOnce(&mut Entry)) -> Entry {
    let mut entry = entry(OTHER, 1);
    change(&mut entry);
    entry.hash = entry.digest();
    entry
}

/// Imports entries, each the first above that floor; what became of each. `None`: nothing in two seconds.
fn import(world: &mut World, person: u16, lines: &[(Entry, u64)]) -> Vec<Option<Outcome>> {
    let first = world.imported.iter().map(|(n, _)| *n).max().unwrap_or(0) + 100;
    let lines = (first..).zip(lines);
    let lines: Vec<_> =
        lines.map(|(n, (entry, floor))| Import { n, what: Item::Entry(entry.clone()), floor: *floor }).collect();
    world.command(person, Command::Import { lines: lines.clone() });
    world.run_secs(2);
    let outcome = |n: u64| world.imported.iter().find(|(of, _)| *of == n).map(|(_, outcome)| *outcome);
    lines.iter().map(|line| outcome(line.n)).collect()
}

fn world() -> (World, u16) {
    let mut world = World::with(&[true, true, true]);
    let anna = world.person(HERE, 1);
    world.run_secs(1);
    (world, anna)
}

#[test]
fn a_line_is_kept_once_it_is_on_the_disk_and_known_from_then_on() {
    let (mut world, anna) = world();
    world.disk(1).hold = Hold::From(entries);
    let lines = [(entry(OTHER, 1), 0), (entry(OTHER, 2), 0)];
    assert_eq!(import(&mut world, anna, &lines), [None, None]);
    world.disk(1).hold = Hold::Nothing;
    world.run_secs(4);
    let told: Vec<_> = world.imported.iter().map(|(_, outcome)| *outcome).collect();
    assert_eq!(told, [Outcome::Kept; 2], "however often they were sent meanwhile");
    assert_eq!(import(&mut world, anna, &lines), [Some(Outcome::Known); 2]);
    assert!((1..=3).all(|id| world.held(id) == (2, 2)), "the others have pulled it");
}

#[test]
fn what_does_not_belong_there_is_refused() {
    let (mut world, anna) = world();
    assert_eq!(import(&mut world, anna, &[(entry(OTHER, 1), 0)]), [Some(Outcome::Kept)]);
    let me = world.view(1).me.unwrap();
    let mut check = |entry: Entry, floor: u64, expected: Outcome| {
        assert_eq!(import(&mut world, anna, &[(entry.clone(), floor)]), [Some(expected)], "{entry:?}");
    };
    check(Entry { body: "other".into(), ..entry(OTHER, 2) }, 0, Outcome::Rotten);
    check(changed(|entry| entry.body = "other".into()), 0, Outcome::Conflict);
    check(entry(OTHER, 3), 0, Outcome::Hole);
    check(entry(OTHER, 8), 7, Outcome::Hole);
    check(changed(|entry| entry.seq = 0), 0, Outcome::Invalid);
    check(changed(|entry| entry.hlc.millis = limits::CLOCK_MILLIS_MAX + 1), 0, Outcome::Invalid);
    check(changed(|entry| entry.seq = limits::SEQ_BOUND), limits::SEQ_BOUND - 1, Outcome::Invalid);
    check(changed(|entry| entry.kind = "k".repeat(33).into()), 0, Outcome::Invalid);
    check(changed(|entry| entry.origin = me), 0, Outcome::Invalid);
    check(entry(OTHER, 2), 0, Outcome::Kept);
}

#[test]
fn what_is_held_on_disk_alone_is_read_before_a_line_is_judged() {
    let (mut world, anna) = world();
    let lines: Vec<_> = (1..=40).map(|seq| (entry(OTHER, seq), 0)).collect();
    assert_eq!(import(&mut world, anna, &lines), vec![Some(Outcome::Kept); 40]);
    let marker = Entry::lost(room(), OTHER, 7, entry(OTHER, 7).hlc);
    world.kill(1);
    world.start(1);
    world.run_secs(6);
    let bob = world.person(HERE + 1, 1);
    world.run_secs(1);
    let other = changed(|entry| (entry.seq, entry.body) = (5, "other".into()));
    let mut all = lines.clone();
    all.extend([(other.clone(), 0), (marker, 0)]);
    let mut expected = vec![Some(Outcome::Known); 40];
    expected.extend([Some(Outcome::Conflict), Some(Outcome::Known)]);
    let reads = world.disk(1).reads;
    assert_eq!(import(&mut world, bob, &all), expected);
    let reads = world.disk(1).reads - reads;
    assert!((1..20).contains(&reads), "{reads} questions for 42 lines");
    assert_eq!(world.disk(1).model.quarantined().len(), 1);
    assert_eq!(*world.disk(1).model.quarantined()[0].entry, other);
    // Nobody says what it does not know.
    world.disk(1).reading = crate::world::Reading::Fails;
    assert_eq!(import(&mut world, bob, &lines[..1]), [None]);
    world.disk(1).reading = crate::world::Reading::Works;
    world.run_secs(4);
    assert_eq!(world.imported.last().map(|(_, outcome)| *outcome), Some(Outcome::Known));
}

#[test]
fn an_origin_begins_above_its_floor_where_nothing_of_it_is_held() {
    let (mut world, anna) = world();
    let [third, fourth] = [3, 4].map(|seq| entry(OTHER, seq));
    assert_eq!(import(&mut world, anna, &[(third.clone(), 0)]), [Some(Outcome::Hole)]);
    assert_eq!(import(&mut world, anna, &[(third, 1)]), [Some(Outcome::Hole)]);
    let lines = [(entry(OTHER, 3), 2), (fourth, 0)];
    assert_eq!(import(&mut world, anna, &lines), [Some(Outcome::Kept); 2]);
    world.run_secs(3);
    assert!((1..=3).all(|id| world.held(id) == (4, 4)), "what is below the floor is covered");
}

#[test]
fn only_somebody_on_the_machine_of_a_server_may_import_into_an_open_cluster() {
    let mut world = World::with(&[true]);
    let stranger = world.person(1, 1);
    world.run_secs(1);
    assert_eq!(import(&mut world, stranger, &[(entry(OTHER, 1), 0)]), [None]);
    assert_eq!(world.held(1), (0, 0));
}

#[test]
fn nobody_is_believed_to_have_lost_what_a_member_has_or_another_server_holds() {
    let (mut world, anna) = world();
    let member = world.view(2).me.unwrap();
    assert_eq!(import(&mut world, anna, &[(entry(member, 8), 7)]), [Some(Outcome::Invalid)]);
    // Server 1 loses its disk, and does not follow the room: the others are in touch with it, and it has not caught up.
    let lines: Vec<_> = (1..=9).map(|seq| (entry(OTHER, seq), 0)).collect();
    assert_eq!(import(&mut world, anna, &lines), vec![Some(Outcome::Kept); 9]);
    world.run_secs(3);
    world.kill(1);
    world.insert_disk(1);
    world.start(1);
    let bob = world.person(HERE + 1, 1);
    world.run_millis(300);
    import(&mut world, bob, &[(entry(OTHER, 8), 7)]);
    world.run_secs(8);
    assert_eq!(world.disk(1).model.floors(&room()).get(OTHER), 0);
    assert_eq!(world.disk(1).model.held(&room()).get(OTHER), 9);
}

#[test]
fn a_server_that_cannot_write_says_so_of_every_line() {
    let (mut world, anna) = world();
    assert_eq!(import(&mut world, anna, &[(entry(OTHER, 1), 0)]), [Some(Outcome::Kept)]);
    world.disk(1).hold = Hold::From(entries);
    assert_eq!(import(&mut world, anna, &[(entry(OTHER, 2), 0)]), [None]);
    world.fail(1);
    world.run_secs(1);
    assert_eq!(world.imported.last().map(|(_, outcome)| *outcome), Some(Outcome::CannotStore));
    assert_eq!(import(&mut world, anna, &[(entry(OTHER, 3), 0)]), [Some(Outcome::CannotStore)]);
}
