//! The command `sim`: does many runs, tells the story of one, or cuts one down.

use std::{
    io::Write as _,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser as _;
use hobnob_sim::{
    profile::Wanted,
    run::{self, Outcome},
    shrink,
    silence::Silence,
    sweep::{RUNS_MIN, Spread, Sweep},
    trace::Detail,
};

use crate::args::Args;

mod args;
mod cpu;

/// Every so many seeds, one is run twice, to see that its trace is the same.
const TWICE_EVERY: u64 = 16;
/// Threads, at most.
const JOBS_MAX: u64 = 64;
/// How often a sweep says how far it is, and writes that down.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = Args::parse();
    let good = match (args.shrink, args.seed) {
        (true, Some(seed)) => shrunk(&args, seed),
        (_, Some(seed)) => alone(&args, seed),
        (_, None) => sweep(&args),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says a line on standard error. Where nobody listens, the exit code says it all the same.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Runs one seed; `false` where it has failed.
fn alone(args: &Args, seed: u64) -> bool {
    let outcome = one(args, seed);
    let Outcome { hash, counts, carried, coverage, violation, silences, .. } = &outcome;
    for (kind, Silence { span, until, client }) in silences {
        let (span, until) = (span.as_millis(), until.as_millis());
        say(&format!(
            "longest silence, {kind}: {}.{:03} s, until {}.{:03} s, at client {client}",
            span / 1_000,
            span % 1_000,
            until / 1_000,
            until % 1_000
        ));
    }
    if args.met {
        coverage.met().iter().for_each(|(what, times)| say(&format!("{times:9} {what}")));
    }
    match violation {
        Some(violation) => say(&format!("seed {seed} FAILED {violation}\n  replay: {}", args.replay(seed))),
        None => say(&format!(
            "seed {seed} ok: trace {hash:016x}, {} posted, {} stored, {} shown, {} moves, {} packets sent, {} arrived",
            counts.posted, counts.stored, counts.shown, counts.moves, carried.sent, carried.arrived
        )),
    }
    violation.is_none()
}

/// Cuts a failing run down; always `false`, unless it does not fail.
fn shrunk(args: &Args, seed: u64) -> bool {
    let outcome = run::run(seed, &args.wanted(), Detail::None);
    let Some(violation) = &outcome.violation else {
        say(&format!("seed {seed} does not fail"));
        return true;
    };
    say(&format!("seed {seed} FAILED {violation}"));
    let run = |wanted: &Wanted| run::run(seed, wanted, Detail::None);
    let told = |wanted: &Wanted| say(&format!("  fails with{}", args::options(wanted)));
    let shrunk = shrink::shrink(args.wanted(), outcome, run, told);
    let (servers, clients) = shrunk.outcome.hosts;
    say(&format!("{} servers, {} clients, after {} runs", servers, clients, shrunk.runs));
    if let Some(violation) = &shrunk.outcome.violation {
        say(&format!("seed {seed} FAILED {violation}\n  replay: {}", args::command(seed, &shrunk.wanted)));
    }
    false
}

fn one(args: &Args, seed: u64) -> Outcome {
    if args.detail() == Detail::None && (args.seed.is_some() || seed.is_multiple_of(TWICE_EVERY)) {
        run::run_twice(seed, &args.wanted())
    } else {
        run::run(seed, &args.wanted(), args.detail())
    }
}

/// A sweep under way.
struct Progress {
    sweep: Sweep,
    /// Runs of today.
    runs: u64,
    server_secs: u64,
    began: Instant,
    told: Instant,
}

/// What the clock says: for people alone, who want to know how fast it goes. No run sees it.
#[expect(clippy::disallowed_methods, reason = "no run sees it")]
fn now() -> Instant {
    Instant::now()
}

/// Does all runs; `false` where one has failed, or something was not met that has to be. Threads take seeds from one
/// counter; the runs themselves share nothing.
fn sweep(args: &Args) -> bool {
    let wishes = args::options(&args.wanted());
    let opened =
        args.resume.as_deref().map_or_else(|| Ok(Sweep::new(wishes.clone())), |path| Sweep::open(path, &wishes));
    let sweep = match opened {
        Ok(sweep) => sweep,
        Err(why) => {
            say(&format!("the sweep cannot go on: {why}"));
            return false;
        }
    };
    let before = sweep.clone();
    let now = now();
    let progress = Mutex::new(Progress { sweep, runs: 0, server_secs: 0, began: now, told: now });
    let next = AtomicU64::new(args.from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= args.from.saturating_add(args.seeds) {
                return;
            }
            if before.has(seed) {
                continue;
            }
            let outcome = one(args, seed);
            // Under the lock, so that lines stay whole.
            note(args, &mut progress.lock().unwrap_or_else(PoisonError::into_inner), &outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..args.jobs.clamp(1, JOBS_MAX) {
            scope.spawn(work);
        }
        work();
    });
    let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    tell(args, &progress);
    sum_up(args, &progress.sweep)
}

/// A run of a sweep has ended.
fn note(args: &Args, progress: &mut Progress, outcome: &Outcome) {
    progress.sweep.add(outcome);
    progress.runs += 1;
    progress.server_secs += outcome.lasted.as_secs() * outcome.hosts.0 as u64;
    if let Outcome { seed, violation: Some(violation), .. } = outcome {
        say(&format!("seed {seed} FAILED {violation}\n  replay: {}", args.replay(*seed)));
    }
    if progress.told.elapsed() >= PROGRESS_EVERY {
        progress.told = now();
        tell(args, progress);
    }
}

/// Says how far a sweep is, and writes that down.
fn tell(args: &Args, progress: &Progress) {
    let Progress { sweep, runs, server_secs, began, .. } = progress;
    let secs = began.elapsed().as_secs_f64().max(0.001);
    // Where nobody says how long the processors have worked for us, all threads count as busy.
    let cpu_secs = cpu::secs().unwrap_or(secs * args.jobs.clamp(1, JOBS_MAX) as f64).max(0.001);
    let failed = sweep.failed.len();
    say(&format!(
        "{} of {} seeds done, {failed} failed; {:.1} runs/s, {:.0} simulated server-hours, {:.0} of them a CPU minute",
        sweep.runs,
        args.seeds,
        *runs as f64 / secs,
        sweep.server_secs as f64 / 3_600.0,
        *server_secs as f64 / 60.0 / cpu_secs,
    ));
    if let Some(path) = &args.resume
        && let Err(why) = sweep.save(path)
    {
        say(&format!("{} cannot be written: {why}", path.display()));
    }
}

/// Says what a sweep was worth; whether all is well.
fn sum_up(args: &Args, sweep: &Sweep) -> bool {
    for (invariant, runs) in &sweep.judged {
        say(&format!("{invariant} judged in {runs} of {} runs", sweep.runs));
    }
    for (kind, Spread { runs, p50, p99, max: (max, seed) }) in sweep.spreads() {
        let [p50, p99, max] = [p50, p99, max].map(|millis| format!("{}.{:03} s", millis / 1_000, millis % 1_000));
        say(&format!("longest silence, {kind}: p50 {p50}, p99 {p99}, max {max} (seed {seed}), of {runs} runs"));
    }
    if args.met {
        sweep.met.iter().for_each(|(what, times)| say(&format!("{times:12} {what}")));
    }
    let (must, may) = sweep.gaps();
    let never: Vec<_> = sweep.never_judged().collect();
    for (what, list) in [("NEVER JUDGED", &never), ("NEVER MET, and has to be", &must), ("never met", &may)] {
        if !list.is_empty() {
            say(&format!("{what}: {}", list.join(", ")));
        }
    }
    for (seed, violation) in &sweep.failed {
        say(&format!("seed {seed} FAILED {violation}"));
    }
    // Many wishes leave something out: without cuts there are no two clusters.
    let all_drawn = sweep.runs >= RUNS_MIN && sweep.wishes.is_empty() && !args.trace;
    sweep.failed.is_empty() && (!all_drawn || (never.is_empty() && must.is_empty()))
}
