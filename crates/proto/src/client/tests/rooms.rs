use super::world::{World, config, entry, lobby, origin};
use crate::{
    client::{Command, Event},
    log::{Entry, VersionVector},
    wire::{Frame, frame::Start},
};

fn join(world: &mut World, from: Start) {
    world.command(Command::Join { room: lobby(), from });
}

fn history(world: &World) -> Vec<u64> {
    let joined =
        |(_, event): &(_, Event)| if let Event::Joined { history, .. } = event { Some(*history) } else { None };
    world.events.iter().filter_map(joined).collect()
}

#[test]
fn history_is_shown_in_display_order_and_then_what_is_new() {
    fn check(from: Start, pushes: bool, expected: &[&str]) {
        let mut world = World::new(1, config());
        world.server(1).pushes = pushes;
        world.log.entries =
            vec![entry(8, 1, 10, "a"), entry(9, 1, 20, "b"), entry(8, 2, 30, "c"), entry(9, 2, 40, "d")];
        join(&mut world, from);
        world.run(1_000);
        world.publish(&entry(8, 3, 50, "e"));
        world.run(100);
        assert_eq!(world.shown(), expected);
        assert_eq!(history(&world), [expected.len() as u64 - 2]);
        let acknowledged = world.server(1).acknowledged.clone();
        assert_eq!(acknowledged.get(origin(8)), 3);
        assert_eq!(world.client.cursor(&lobby()), Some(&acknowledged));
    }
    for pushes in [true, false] {
        check(Start::After(VersionVector::default()), pushes, &["<a", "<b", "<c", "<d", "--", "e"]);
        check(Start::Last(2), pushes, &["<c", "<d", "--", "e"]);
        check(Start::Last(0), pushes, &["--", "e"]);
    }
}

#[test]
fn a_room_of_many_origins_is_shown_as_it_was_asked_for() {
    fn check(from: Start, loss: u64, shown: u64) {
        let mut world = World::new(1, config());
        world.server(1).pushes = false;
        world.loss = loss;
        // Numbers so long that what there is fits no single frame.
        let of = |n: u64| u32::try_from(4_000_000_000 + n % 40).unwrap();
        world.log.entries = (0..120).map(|n| entry(of(n), 1 + n / 40, n, &n.to_string())).collect();
        join(&mut world, from);
        world.run(10_000);
        let expected: Vec<_> = (120 - shown..120).map(|n| format!("<{n}")).chain(["--".into()]).collect();
        assert_eq!(world.shown(), expected);
        assert_eq!(history(&world), [shown]);
    }
    for loss in [0, 10] {
        check(Start::After(VersionVector::default()), loss, 120);
        check(Start::Last(7), loss, 7);
        check(Start::Last(0), loss, 0);
    }
}

#[test]
fn an_entry_below_what_was_shown_is_late() {
    let mut world = World::joined(1);
    world.publish(&entry(8, 1, 50, "b"));
    world.run(10);
    world.publish(&entry(9, 1, 20, "a"));
    world.run(10);
    world.publish(&entry(9, 2, 60, "c"));
    world.run(10);
    assert_eq!(world.shown(), ["--", "b", "~a", "c"]);
}

#[test]
fn a_post_under_two_dots_is_shown_once() {
    let mut world = World::joined(1);
    let first = entry(8, 1, 50, "a");
    let mut again = Entry { origin: origin(9), ..first.clone() };
    again.hash = again.digest();
    world.publish(&first);
    world.publish(&again);
    world.run(100);
    assert_eq!(world.shown(), ["--", "a"]);
    assert_eq!(world.client.cursor(&lobby()).unwrap().origins(), 2, "but held twice");
}

#[test]
fn a_damaged_entry_is_dropped_and_asked_for_again() {
    let mut world = World::joined(1);
    let good = entry(8, 1, 50, "a");
    let bad = Entry { body: "evil".into(), ..good.clone() };
    world.log.entries.push(good);
    world.server(1).push(&bad);
    world.run(10);
    assert_eq!(world.client.counters()["damaged_entries"], 1);
    let heads = [(origin(8), 1)].into_iter().collect();
    world.server(1).say_to_all(&Frame::Heads { rooms: [(lobby(), heads)].into() });
    world.run(1_000);
    assert_eq!(world.shown(), ["--", "a"]);
}

#[test]
fn a_long_history_over_a_bad_link_is_shown_once_and_in_order() {
    let mut world = World::new(1, config());
    world.server(1).pushes = false;
    world.loss = 10;
    world.log.entries = (1..=1_500).map(|seq| entry(8, seq, seq, &seq.to_string())).collect();
    join(&mut world, Start::After(VersionVector::default()));
    world.run(60_000);
    let expected: Vec<_> = (1..=1_500).map(|seq| format!("<{seq}")).chain(["--".into()]).collect();
    assert_eq!(world.shown(), expected);
}

#[test]
fn a_history_larger_than_memory_should_hold_is_shown_in_portions() {
    let mut world = World::new(1, config());
    world.server(1).pushes = false;
    world.log.entries = (1..=5_000).map(|seq| entry(8, seq, seq, &seq.to_string())).collect();
    join(&mut world, Start::After(VersionVector::default()));
    world.run(20_000);
    let expected: Vec<_> = (1..=5_000).map(|seq| format!("<{seq}")).chain(["--".into()]).collect();
    assert_eq!(world.shown(), expected);
    let first = world.when(|event| matches!(event, Event::Message { .. }));
    assert!(first < world.when(|event| matches!(event, Event::CaughtUp { .. })));
}

#[test]
fn history_that_does_not_come_is_not_waited_for() {
    let mut world = World::new(1, config());
    world.log.entries = vec![entry(8, 1, 10, "a"), entry(8, 3, 30, "c")];
    join(&mut world, Start::After(VersionVector::default()));
    world.run(4_000);
    assert_eq!(world.shown(), ["<a", "--"]);
    world.log.entries.push(entry(8, 2, 20, "b"));
    let heads = [(origin(8), 3)].into_iter().collect();
    world.server(1).say_to_all(&Frame::Heads { rooms: [(lobby(), heads)].into() });
    world.run(4_000);
    assert_eq!(world.shown(), ["<a", "--", "<b", "<c"]);
}

#[test]
fn a_room_that_was_left_is_quiet() {
    let mut world = World::joined(1);
    world.command(Command::Part { room: lobby() });
    world.run(100);
    world.publish(&entry(8, 1, 10, "a"));
    world.run(100);
    assert_eq!(world.shown(), ["--"]);
    assert_eq!(world.client.cursor(&lobby()), None);
}
