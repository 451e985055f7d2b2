//! The command `sim`: does many runs, or tells the story of one.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use clap::Parser;
use hobnob_proto::planted::{self, Bug};
use hobnob_sim::{
    profile::{Disks, MINUTES_MIN, Wanted},
    run::{self, Outcome},
    trace::Detail,
};

/// Every so many seeds, one is run twice, to see that its trace is the same.
const TWICE_EVERY: u64 = 16;

/// In a batch of so many runs, every invariant has something to judge.
const JUDGED_IN: u64 = 200;

/// Simulates hobnob clusters on a bad network, from seeds.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print the story of each run.
    #[arg(long)]
    trace: bool,
    /// With --trace: print every packet and every new entry too.
    #[arg(long, requires = "trace")]
    packets: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Simulated minutes of each run, at least 2 [default: 5].
    #[arg(long, value_parser = clap::value_parser!(u64).range(MINUTES_MIN..))]
    minutes: Option<u64>,
    /// Servers, instead of drawing their number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    servers: Option<u64>,
    /// Clients, instead of drawing their number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=50))]
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
    fn wanted(&self) -> Wanted {
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
            planted: self.planted,
        }
    }

    fn detail(&self) -> Detail {
        match (self.trace, self.packets) {
            (true, true) => Detail::All,
            (true, false) => Detail::Story,
            (false, _) => Detail::None,
        }
    }

    /// The command that replays a seed with the same wishes.
    fn replay(&self, seed: u64) -> String {
        let features = if self.planted.is_some() { " --features planted" } else { "" };
        let mut command = format!("cargo run --release -p hobnob-sim{features} -- --seed {seed} --trace");
        let wishes = [
            ("minutes", self.minutes),
            ("servers", self.servers),
            ("clients", self.clients),
            ("loss", self.loss.map(u64::from)),
            ("duplication", self.duplication.map(u64::from)),
            ("reordering", self.reordering.map(u64::from)),
        ];
        for (name, value) in wishes.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            command.extend([" --", name, " ", &value.to_string()]);
        }
        if self.calm {
            command += " --calm";
        }
        if let Some((name, _)) = DISKS.iter().find(|(_, disks)| Some(*disks) == self.disks) {
            command.extend([" --disks ", name]);
        }
        if let Some(bug) = self.planted {
            command.extend([" --planted ", bug.name()]);
        }
        command
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if runs(&args) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Does all runs; `false` where one has failed. Threads take seeds from one counter; the runs themselves share nothing.
fn runs(args: &Args) -> bool {
    let (from, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let all_good = AtomicBool::new(true);
    let judged = Mutex::new(Judged::new());
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            let outcome = one(args, from + n);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            let mut judged = judged.lock().unwrap_or_else(PoisonError::into_inner);
            for (invariant, has) in &outcome.judged {
                *judged.entry(invariant).or_default() += u64::from(*has);
            }
            if outcome.violation.is_some() {
                all_good.store(false, Ordering::Relaxed);
            }
            // Under the lock, so that lines stay whole.
            report(args, &outcome, done, count);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..args.jobs.clamp(1, 64) {
            scope.spawn(work);
        }
        work();
    });
    let judged = judged.into_inner().unwrap_or_else(PoisonError::into_inner);
    if args.seed.is_none() {
        sum_up(&judged, count);
    }
    // Many wishes leave something out: without cuts there are no two clusters.
    let all_judged = count < JUDGED_IN || args.wanted() != Wanted::default() || args.trace || never(&judged).is_empty();
    all_good.into_inner() && all_judged
}

/// In how many runs of a batch each invariant had anything to judge.
type Judged = BTreeMap<&'static str, u64>;

/// Those invariants that had nothing to judge in any run.
fn never(judged: &Judged) -> Vec<&'static str> {
    judged.iter().filter(|(_, runs)| **runs == 0).map(|(invariant, _)| *invariant).collect()
}

/// Says on standard error what a batch was worth.
fn sum_up(judged: &Judged, count: u64) {
    let mut err = std::io::stderr().lock();
    for (invariant, runs) in judged {
        let _ = writeln!(err, "{invariant} judged in {runs} of {count} runs");
    }
    for invariant in never(judged) {
        let _ = writeln!(err, "{invariant} was NEVER JUDGED");
    }
}

fn one(args: &Args, seed: u64) -> Outcome {
    if args.detail() == Detail::None && (args.seed.is_some() || seed.is_multiple_of(TWICE_EVERY)) {
        run::run_twice(seed, &args.wanted())
    } else {
        run::run(seed, &args.wanted(), args.detail())
    }
}

/// Says on standard error how a run went.
fn report(args: &Args, outcome: &Outcome, done: u64, count: u64) {
    let mut err = std::io::stderr().lock();
    let Outcome { seed, hash, counts, carried, violation, .. } = outcome;
    let said = match violation {
        Some(violation) => writeln!(err, "seed {seed} FAILED {violation}\n  replay: {}", args.replay(*seed)),
        None if args.seed.is_some() => writeln!(
            err,
            "seed {seed} ok: trace {hash:016x}, {} posted, {} stored, {} shown, {} moves, {} packets sent, {} arrived",
            counts.posted, counts.stored, counts.shown, counts.moves, carried.sent, carried.arrived
        ),
        None if done.is_multiple_of(50) || done == count => writeln!(err, "{done} of {count} seeds done"),
        None => Ok(()),
    };
    // Nobody listens: the exit code says it all the same.
    let _ = said;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invariant_that_judged_nothing_is_named() {
        let judged = Judged::from([("i05", 3), ("i12", 0)]);
        assert_eq!(never(&judged), ["i12"]);
    }

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
        check("--disks bad", " --disks bad");
        check("--minutes 3 --loss 20 --calm", " --minutes 3 --loss 20 --calm");
        check(
            "--servers 3 --clients 2 --duplication 1 --reordering 0",
            " --servers 3 --clients 2 --duplication 1 --reordering 0",
        );
    }
}
