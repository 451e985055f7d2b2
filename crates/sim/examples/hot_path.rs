//! Lets `tests/instructions.sh` count what a server costs: takes down what one is told while people talk, and says it again
//! to a server alone.
//!
//! ```text
//! hot_path record FILE SCENE     what is in a scene: a line for each part, with its first turn, the turn after its last,
//!                                and how many units were done in it
//! hot_path replay FILE TURNS     a server takes so many turns
//! ```
//!
//! What a part costs is the difference between two replays: up to its first turn, and up to the one after its last.

#[path = "../../proto/tests/common/mod.rs"]
mod common;
#[path = "../../proto/tests/hot_path/stage.rs"]
mod stage;

use std::{env, error::Error, fs, time::Duration};

use hobnob_proto::time::Time;

use stage::{Server, Stage, Turn};

/// Lines of each part, or so: what is counted is to be much more than what comes once.
const LINES: u64 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["record", file, scene] => record(file, scene),
        ["replay", file, turns] => replay(file, turns.parse()?),
        _ => Err("usage: hot_path record FILE room|cluster, or hot_path replay FILE TURNS".into()),
    }
}

fn record(file: &str, scene: &str) -> Result<(), Box<dyn Error>> {
    let (stage, parts) = match scene {
        "room" => {
            let mut stage = Stage::with_members(100);
            stage.talk(LINES);
            let lines = stage.talk(LINES);
            stage.burst(1, 20);
            let bursts = stage.burst(5, 20);
            let units = [lines.deliveries, bursts.deliveries];
            (stage, vec![("line", lines.turns, units[0]), ("burst", bursts.turns, units[1])])
        }
        "cluster" => {
            let mut stage = Stage::new(5);
            stage.quiet(Duration::from_secs(10));
            let quiet = stage.quiet(Duration::from_secs(10));
            (stage, vec![("quiet", quiet.turns, 10)])
        }
        _ => return Err(format!("there is no scene {scene}").into()),
    };
    for (name, turns, units) in parts {
        println!("{name} {} {} {units}", turns.start, turns.end);
    }
    let mut bytes = Vec::new();
    for Turn { at, datagrams } in stage.turns {
        bytes.extend(at.as_micros().to_be_bytes());
        bytes.extend(u32::try_from(datagrams.len())?.to_be_bytes());
        for (from, datagram) in datagrams {
            bytes.extend(from.to_be_bytes());
            bytes.extend(u16::try_from(datagram.len())?.to_be_bytes());
            bytes.extend(datagram);
        }
    }
    Ok(fs::write(file, bytes)?)
}

fn replay(file: &str, turns: usize) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(file)?;
    // All are read, however many are taken: that costs the same each time.
    let all: Vec<_> = Tape(&bytes).collect();
    let mut server = Server::new();
    let mut sent = 0;
    for turn in all.iter().take(turns) {
        server.turn(turn);
        server.outputs.clear();
        sent += server.sent.len();
    }
    println!("{sent} datagrams sent");
    Ok(())
}

/// Turns as they lie in a file.
struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }
}

impl Iterator for Tape<'_> {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let at = Time::from_micros(u64::from_be_bytes(self.number()?));
        let count = u32::from_be_bytes(self.number()?);
        let datagram = |_| {
            let from = u16::from_be_bytes(self.number()?);
            let len = u16::from_be_bytes(self.number()?);
            Some((from, self.bytes(len.into())?.to_vec()))
        };
        let datagrams = (0..count).map(datagram).collect::<Option<_>>()?;
        Some(Turn { at, datagrams })
    }
}
