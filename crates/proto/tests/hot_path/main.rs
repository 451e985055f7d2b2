//! What it costs a server that people talk: nothing is taken from the heap for one more who is shown a line.

#[path = "../common/mod.rs"]
mod common;
mod stage;

use stage::{Server, Stage};

/// How often each of 40 lines to so many members makes their server take something from the heap, on its way from one
/// sealed packet to as many as there are members.
fn allocations(members: u16) -> Vec<u64> {
    let mut stage = Stage::with_members(members);
    stage.talk(40);
    let part = stage.talk(40);
    assert_eq!(part.deliveries, 40 * u64::from(members));
    let mut server = Server::new();
    let mut taken = Vec::new();
    for (at, turn) in stage.turns.iter().enumerate() {
        server.outputs.clear();
        let count = allocation_counter::measure(|| server.turn(turn)).count_total;
        if part.turns.contains(&at) && server.sent.len() >= members.into() {
            taken.push(count);
        }
    }
    assert_eq!(taken.len(), 40, "each line is passed on in a turn");
    taken.sort_unstable();
    taken
}

#[test]
fn nothing_is_allocated_for_a_delivery() {
    let (few, many) = (allocations(10), allocations(100));
    println!("with 10 members {few:?}\nwith 100       {many:?}");
    // Half of the lines come while everybody has acknowledged what came before, or has not.
    assert_eq!(few[20], many[20]);
    // The first line after everybody has acknowledged all sets a timer for each: some of them share what is taken.
    let (few, many): (u64, u64) = (few.iter().sum(), many.iter().sum());
    assert!(many - few < 40 * 90 / 20, "{} more for 3,600 deliveries", many - few);
}

#[test]
fn a_server_that_is_told_the_same_again_says_the_same() {
    let mut stage = Stage::new(3);
    let said = |server: &Server| server.sent.iter().map(|(to, bytes)| (to, bytes.to_vec())).collect::<Vec<_>>();
    stage.quiet(std::time::Duration::from_secs(5));
    let (mut one, mut other) = (Server::new(), Server::new());
    let mut count = 0;
    for turn in &stage.turns {
        one.turn(turn);
        other.turn(turn);
        assert_eq!(said(&one), said(&other));
        count += one.sent.len();
    }
    assert!(count > 50, "{count} datagrams among servers that agree");
}
