//! Bugs that are made on purpose are found: each within 1,000 seeds, in short runs that have what it takes to meet it.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use hobnob_proto::planted::Bug;
use hobnob_sim::{
    profile::Wanted,
    run::{self, Outcome},
    trace::Detail,
};

/// Every bug is found in so many seeds.
const SEEDS: u64 = 1_000;
/// Runs at once.
const THREADS: usize = 2;

/// Some seed shows that the bug is there, by one of these invariants; and holds without the bug.
fn check(bug: Bug, wanted: &Wanted, invariants: &[&str]) {
    let began = Instant::now();
    let found = search(&Wanted { planted: Some(bug), ..wanted.clone() }, invariants);
    let Some(Outcome { seed, violation: Some(violation), .. }) = found else {
        panic!("{} is not found in {SEEDS} seeds", bug.name());
    };
    let secs = began.elapsed().as_secs_f32();
    println!("{} is found by seed {seed} in {secs:.1} s: {violation}", bug.name());
    let healthy = run::run(seed, wanted, Detail::None);
    assert_eq!(healthy.violation, None, "seed {seed} fails without the bug too");
}

/// The lowest seed of those that were tried in which one of these invariants does not hold.
fn search(wanted: &Wanted, invariants: &[&str]) -> Option<Outcome> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None::<Outcome>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS || found.lock().unwrap().is_some() {
                return;
            }
            let outcome = run::run(seed, wanted, Detail::None);
            if outcome.violation.as_ref().is_some_and(|violation| invariants.contains(&violation.invariant)) {
                let mut found = found.lock().unwrap();
                if found.as_ref().is_none_or(|other| seed < other.seed) {
                    *found = Some(outcome);
                }
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(work);
        }
        work();
    });
    found.into_inner().unwrap()
}

fn short() -> Wanted {
    Wanted { minutes: Some(2), ..Wanted::default() }
}

#[test]
fn of_two_entries_of_one_post_the_later_is_shown() {
    check(Bug::LaterDuplicate, &short(), &["i05_each_post_is_shown_once", "i14_cursors_never_go_back"]);
}

#[test]
fn what_is_said_in_a_lower_epoch_is_followed() {
    check(Bug::EpochNotFenced, &short(), &["i10_epochs_never_go_back", "i11_one_leader_once_quiet"]);
}

#[test]
fn a_packet_is_taken_twice() {
    check(Bug::ReplayTaken, &short(), &["i19_sealed_once_for_this_session"]);
}

#[test]
fn a_server_without_the_secret_is_a_member() {
    check(Bug::SecretIgnored, &short(), &["i20_no_stranger_is_a_member"]);
}

#[test]
fn who_comes_back_leads_at_once() {
    let wanted = Wanted { minutes: Some(3), loss: Some(0), ..Wanted::default() };
    check(Bug::NoProbation, &wanted, &["i12_a_flapping_id_changes_little"]);
}

#[test]
fn two_old_clusters_unite() {
    check(Bug::ClustersUnite, &Wanted::default(), &["i22_old_clusters_stay_two"]);
}
