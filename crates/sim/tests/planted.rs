//! Bugs that are made on purpose are found: each within 1,000 seeds, in short runs that have what it takes to meet it.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "it is a test, and says how long it took")]

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use hobnob_proto::planted::Bug;
use hobnob_sim::{
    profile::{Disks, Wanted},
    run::{self, Outcome},
    trace::Detail,
};

/// Every bug is found in so many seeds.
const SEEDS: u64 = 1_000;
const STORED: &str = "i01_stored_is_synced";
const VECTORS: &str = "i07_vectors_cover_what_is_held";
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

/// A small cluster for two minutes.
fn short(disks: Disks) -> Wanted {
    Wanted { minutes: Some(2), servers: Some(3), clients: Some(3), disks: Some(disks), ..Wanted::default() }
}

#[test]
fn an_acknowledgement_before_the_fsync_is_found() {
    check(Bug::AckBeforeFsync, &short(Disks::Bad), &[STORED, VECTORS]);
}

#[test]
fn a_dot_that_is_used_again_after_a_reboot_is_found() {
    let wanted = Wanted { only: BTreeSet::from(["crashes", "power"]), loss: Some(0), ..short(Disks::Bad) };
    check(Bug::DotReused, &wanted, &["i06_a_dot_names_one_content"]);
}

#[test]
fn a_vector_that_skips_a_hole_is_found() {
    check(Bug::HoleSkipped, &short(Disks::None), &[VECTORS, "i02_stored_survives"]);
}

#[test]
fn a_duplicate_that_is_acknowledged_with_another_body_is_found() {
    check(Bug::DuplicateOfAnotherBody, &short(Disks::Sound), &["i21_acks_name_what_was_posted"]);
}

#[test]
fn a_wiped_disk_that_counts_at_once_is_found() {
    check(Bug::WipedDiskCounts, &short(Disks::Bad), &[STORED, VECTORS]);
}

#[test]
fn of_two_entries_of_one_post_the_later_is_shown() {
    check(Bug::LaterDuplicate, &short(Disks::None), &["i05_each_post_is_shown_once", "i14_cursors_never_go_back"]);
}

#[test]
fn what_is_said_in_a_lower_epoch_is_followed() {
    check(Bug::EpochNotFenced, &short(Disks::None), &["i10_epochs_never_go_back", "i11_one_leader_once_quiet"]);
}

#[test]
fn a_packet_is_taken_twice() {
    check(Bug::ReplayTaken, &short(Disks::None), &["i19_sealed_once_for_this_session"]);
}

#[test]
fn a_server_without_the_secret_is_a_member() {
    check(Bug::SecretIgnored, &short(Disks::None), &["i20_no_stranger_is_a_member"]);
}

#[test]
fn who_comes_back_leads_at_once() {
    let wanted = Wanted { only: BTreeSet::from(["flapping"]), loss: Some(0), ..short(Disks::None) };
    check(Bug::NoProbation, &wanted, &["i12_a_flapping_id_changes_little"]);
}

#[test]
fn a_pause_of_its_own_is_blamed_on_others() {
    let wanted = Wanted { only: BTreeSet::from(["pauses"]), ..short(Disks::None) };
    check(Bug::PauseIgnored, &wanted, &["i00_a_pause_blames_nobody"]);
}

#[test]
fn two_old_clusters_unite() {
    let wanted = Wanted { minutes: Some(4), only: BTreeSet::from(["split"]), ..short(Disks::None) };
    check(Bug::ClustersUnite, &wanted, &["i22_old_clusters_stay_two"]);
}
