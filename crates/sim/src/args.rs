//! The command line, and the command that replays a run.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Parser;
use hobnob_proto::planted::{self, Bug};
use hobnob_sim::{
    profile::{Disks, MINUTES_MIN, Wanted},
    switches,
    trace::Detail,
};

/// Simulates hobnob clusters on a bad network, from seeds.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
pub(crate) struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20)]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    pub(crate) seed: Option<u64>,
    /// Cut a failing run down, and say how it is replayed.
    #[arg(long, requires = "seed", conflicts_with = "trace")]
    pub(crate) shrink: bool,
    /// Keep in this file which seeds are done and what they met, and go on from there.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    pub(crate) resume: Option<PathBuf>,
    /// Print the story of each run.
    #[arg(long)]
    pub(crate) trace: bool,
    /// With --trace: print every packet and every new entry too.
    #[arg(long, requires = "trace")]
    packets: bool,
    /// Print all that was met, and how often.
    #[arg(long)]
    pub(crate) met: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub(crate) jobs: u64,
    /// Simulated minutes of each run, at least 2 [default: 5].
    #[arg(long, value_parser = clap::value_parser!(u64).range(MINUTES_MIN..))]
    minutes: Option<u64>,
    /// Servers, instead of drawing their number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    servers: Option<u64>,
    /// Clients, instead of drawing their number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=50))]
    clients: Option<u64>,
    /// Packets lost, in percent, instead of drawing it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=90))]
    loss: Option<u32>,
    /// Packets doubled, in percent, instead of drawing it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=90))]
    duplication: Option<u32>,
    /// Packets overtaken by later ones, in percent, instead of drawing it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=90))]
    reordering: Option<u32>,
    /// No crash, cut, pause or restart.
    #[arg(long)]
    calm: bool,
    /// Disks, instead of drawing them: none, sound ones, or such that lose, stall, fill up and rot.
    #[arg(long, value_parser = disks)]
    disks: Option<Disks>,
    /// Leave these out, though they were drawn; by their names, with commas between them.
    #[arg(long, value_delimiter = ',', value_parser = switches::parse)]
    without: Vec<&'static str>,
    /// Of what breaks by the schedule only these, and often (the network, the outsider and disks stay as they were drawn); by their names, with commas between them.
    #[arg(long, value_delimiter = ',', value_parser = switches::parse_alone)]
    only: Vec<&'static str>,
    /// Leave these faults out, by the order in which they were drawn, with commas between them.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<u64>,
    /// Run with a bug that is made on purpose; only in a build with the feature `planted`.
    #[arg(long, value_parser = bug)]
    planted: Option<Bug>,
}

/// What disks there are, by their names.
const DISKS: [(&str, Disks); 3] = [("none", Disks::None), ("sound", Disks::Sound), ("bad", Disks::Bad)];

/// Disks by their name.
fn disks(name: &str) -> Result<Disks, &'static str> {
    DISKS.iter().find(|(of, _)| *of == name).map(|(_, disks)| *disks).ok_or("disks are none, sound or bad")
}

/// A bug by its name.
fn bug(name: &str) -> Result<Bug, String> {
    if !planted::ENABLED {
        return Err("no bug can be planted in this build: use `cargo run --features planted`".to_owned());
    }
    let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    let bug = Bug::ALL.iter().find(|bug| bug.name() == name).copied();
    bug.ok_or_else(|| format!("the bugs are: {}", names.join(", ")))
}

impl Args {
    /// What is asked for instead of drawn.
    pub(crate) fn wanted(&self) -> Wanted {
        let count = |n: Option<u64>| n.map(|n| n as usize);
        Wanted {
            minutes: self.minutes,
            servers: count(self.servers),
            clients: count(self.clients),
            loss: self.loss,
            duplication: self.duplication,
            reordering: self.reordering,
            calm: self.calm,
            disks: self.disks,
            without: self.without.iter().copied().collect(),
            only: self.only.iter().copied().collect(),
            skip: self.skip.iter().copied().collect(),
            planted: self.planted,
        }
    }

    /// How much of each run is printed.
    pub(crate) fn detail(&self) -> Detail {
        match (self.trace, self.packets) {
            (true, true) => Detail::All,
            (true, false) => Detail::Story,
            (false, _) => Detail::None,
        }
    }

    /// The command that replays a seed with the same wishes.
    pub(crate) fn replay(&self, seed: u64) -> String {
        command(seed, &self.wanted())
    }
}

/// The command that tells the story of a run.
pub(crate) fn command(seed: u64, wanted: &Wanted) -> String {
    let features = if wanted.planted.is_some() { " --features planted" } else { "" };
    format!("cargo run --release -p hobnob-sim{features} -- --seed {seed} --trace{}", options(wanted))
}

/// The options that wish for this, each with a space before it.
pub(crate) fn options(wanted: &Wanted) -> String {
    fn list<T: ToString>(list: &BTreeSet<T>) -> Option<String> {
        let words: Vec<_> = list.iter().map(ToString::to_string).collect();
        (!words.is_empty()).then(|| words.join(","))
    }
    let disks = DISKS.iter().find(|(_, disks)| Some(*disks) == wanted.disks);
    let wishes = [
        ("minutes", wanted.minutes.map(|n| n.to_string())),
        ("servers", wanted.servers.map(|n| n.to_string())),
        ("clients", wanted.clients.map(|n| n.to_string())),
        ("loss", wanted.loss.map(|n| n.to_string())),
        ("duplication", wanted.duplication.map(|n| n.to_string())),
        ("reordering", wanted.reordering.map(|n| n.to_string())),
        ("disks", disks.map(|(name, _)| (*name).to_owned())),
        ("without", list(&wanted.without)),
        ("only", list(&wanted.only)),
        ("skip", list(&wanted.skip)),
        ("planted", wanted.planted.map(|bug| bug.name().to_owned())),
    ];
    let mut options = String::new();
    for (name, value) in wishes.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        options.extend([" --", name, " ", &value]);
    }
    if wanted.calm {
        options += " --calm";
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_replays_a_seed_carries_every_wish() {
        fn check(args: &str, expected: &str) {
            let args = Args::parse_from(format!("sim {args}").split_whitespace());
            let command = args.replay(7);
            assert_eq!(command, format!("cargo run --release -p hobnob-sim -- --seed 7 --trace{expected}"));
            let replay = command.split_once(" -- ").unwrap().1.to_owned();
            let again = Args::parse_from(std::iter::once("sim").chain(replay.split_whitespace()));
            assert_eq!((again.seed, again.wanted()), (Some(7), args.wanted()));
        }
        check("", "");
        check("--seeds 9 --jobs 2", "");
        check("--minutes 3 --loss 20 --calm", " --minutes 3 --loss 20 --calm");
        check("--disks bad", " --disks bad");
        check("--only split,flapping", " --only flapping,split");
        check("--clients 0 --without split,loss --skip 9,1", " --clients 0 --without loss,split --skip 1,9");
        check(
            "--servers 3 --clients 2 --duplication 1 --reordering 0",
            " --servers 3 --clients 2 --duplication 1 --reordering 0",
        );
    }
}
