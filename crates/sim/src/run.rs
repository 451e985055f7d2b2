//! One run: a profile from the seed, faults, then heal, converge, serve, and check.

use std::collections::BTreeMap;

use hobnob_proto::{
    planted,
    time::{Duration, Time},
};

use crate::{
    coverage::Coverage,
    dice::{self, Dice as _},
    faults::{self, Fault},
    invariants::{Violation, i11_one_leader_once_quiet::Steady, i18_same_seed_same_trace},
    oracle::Counts,
    profile::{Profile, Wanted},
    silence::Silence,
    trace::{Detail, Trace},
    traffic::Traffic,
    world::{Carried, Task, World},
};

/// How often a quiet network is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// In the last so much of a run, everything holds at [`GOOD_LOOKS`] looks in succession: rooms may be on the move before.
const LAST_LOOKS: Duration = Duration::from_secs(5);
/// One good look alone may be chance.
const GOOD_LOOKS: u32 = 2;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The hash of its trace.
    pub hash: u64,
    /// The lines of its trace.
    pub lines: u64,
    /// What happened to its clients.
    pub counts: Counts,
    /// What its network carried.
    pub carried: Carried,
    /// What it met.
    pub coverage: Coverage,
    /// The names of its invariants, and whether each had anything to judge.
    pub judged: BTreeMap<&'static str, bool>,
    /// How many servers and clients it had.
    pub hosts: (usize, usize),
    /// How often a fault was drawn.
    pub drawn: u64,
    /// How long it lasted, in simulated time.
    pub lasted: Duration,
    /// The longest silence for each kind of fault that was near.
    pub silences: BTreeMap<&'static str, Silence>,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
}

/// Does one run.
pub fn run(seed: u64, wanted: &Wanted, detail: Detail) -> Outcome {
    planted::plant(wanted.planted);
    let mut rng = dice::from_number(seed);
    let profile = Profile::draw(&mut rng.fork(), wanted);
    let mut trace = Trace::new(detail);
    trace.story(Time::ZERO, format_args!("seed {seed}: {profile:?}"));
    let mut world = World::new(&profile, &mut rng.fork(), trace);
    let mut start_rng = rng.fork();
    let (faults, drawn) = faults::schedule_counted(&profile, profile.phases.heal, &mut rng.fork());
    for (at, fault) in &faults {
        world.schedule(*at, Task::Fault(fault.clone()));
    }
    for of in 0..profile.ids.len() {
        let at = start_rng.span(Duration::ZERO, profile.starts_within);
        if !faults::is_late(&faults, of) {
            world.schedule(dice::after(at), Task::Fault(Fault::Restart(of)));
        }
    }
    for of in 0..profile.rogues.len() {
        let at = start_rng.span(Duration::ZERO, profile.phases.heal / 2);
        world.schedule(dice::after(at), Task::Stranger(of));
    }
    let mut traffic = Traffic::new(&profile, rng.fork());
    traffic.begin(&mut world);
    let violation = phases(&profile, &mut world, &mut traffic).err();
    planted::plant(None);
    Outcome {
        seed,
        hash: world.trace().hash(),
        lines: world.trace().lines(),
        counts: world.counts(),
        carried: world.carried(),
        coverage: world.coverage(),
        hosts: (profile.ids.len(), profile.clients),
        drawn,
        lasted: world.now().since(Time::ZERO),
        silences: world.checker().silences.longest().clone(),
        judged: world.checker().judged().chain([(i18_same_seed_same_trace::NAME, false)]).collect(),
        violation,
    }
}

/// Does one run twice, and compares the traces too.
pub fn run_twice(seed: u64, wanted: &Wanted) -> Outcome {
    let (first, mut second) = (run(seed, wanted, Detail::None), run(seed, wanted, Detail::None));
    let differs = i18_same_seed_same_trace::check((first.hash, first.lines), (second.hash, second.lines)).err();
    second.judged.insert(i18_same_seed_same_trace::NAME, true);
    second.violation = differs.or(second.violation);
    second
}

/// Faults; heal; converge; serve; check.
fn phases(profile: &Profile, world: &mut World, traffic: &mut Traffic) -> Result<(), Violation> {
    let phases = profile.phases;
    pass(world, traffic, dice::after(phases.heal))?;
    world.heal()?;
    traffic.heal(world)?;
    pass(world, traffic, dice::after(phases.led))?;
    world.retire_who_went_over()?;
    let mut steady = Steady::new(world.standing(), world.now());
    look_until(world, traffic, &mut steady, dice::after(phases.serve))?;
    traffic.serve(world)?;
    let last_looks = phases.end.checked_sub(LAST_LOOKS).expect("no run is that short");
    look_until(world, traffic, &mut steady, dice::after(last_looks))?;
    let mut good = 0;
    loop {
        look(world, &mut steady)?;
        let settled = world.settled();
        good = if settled.is_ok() { good + 1 } else { 0 };
        if good >= GOOD_LOOKS {
            return Ok(());
        }
        if world.now() >= dice::after(phases.end) {
            return settled.and_then(|()| Err(unsteady(world.now(), "all was well at the last look alone".to_owned())));
        }
        pass(world, traffic, world.now() + LOOK_EVERY)?;
    }
}

/// Lets time pass until `until`, and looks at the leader all the time.
fn look_until(world: &mut World, traffic: &mut Traffic, steady: &mut Steady, until: Time) -> Result<(), Violation> {
    while world.now() < until {
        look(world, steady)?;
        pass(world, traffic, until.min(world.now() + LOOK_EVERY))?;
    }
    Ok(())
}

/// One leader has to lead, but for a moment where a probation ends.
fn look(world: &mut World, steady: &mut Steady) -> Result<(), Violation> {
    let now = world.now();
    let judges = steady.look(world.standing(), now).map_err(|what| unsteady(now, what))?;
    if judges { world.led() } else { Ok(()) }
}

fn unsteady(at: Time, what: String) -> Violation {
    Violation { invariant: "i11_one_leader_once_quiet", at, what }
}

/// Lets time pass until `until`.
fn pass(world: &mut World, traffic: &mut Traffic, until: Time) -> Result<(), Violation> {
    while let Some(task) = world.next_task(until)? {
        match task {
            Task::Fault(fault) => world.apply(&fault)?,
            Task::Act(act) => traffic.act(world, act)?,
            Task::Stranger(of) => world.start_stranger(of),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> Wanted {
        Wanted { minutes: Some(2), ..Wanted::default() }
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
        let [first, again, other] = [1, 1, 2].map(|seed| run(seed, &short(), Detail::None));
        assert_eq!(first, again);
        assert_ne!(first.hash, other.hash);
    }

    #[test]
    fn a_few_seeds_end_converged() {
        for seed in 0..4 {
            let outcome = run(seed, &short(), Detail::None);
            assert_eq!(
                outcome.violation, None,
                "replay: cargo run --release -p hobnob-sim -- --seed {seed} --minutes 2"
            );
            assert!(outcome.counts.stored > 0, "seed {seed}: nobody said anything");
        }
    }
}
