//! Nothing that was acknowledged as stored is ever lost, or shown twice: real processes, and faults drawn at random.
//!
//! Clients post numbered messages and write down each acknowledgement, while something happens to the servers: one is
//! killed, paused, cut off (both ways or one way), or loses its disk; or all are killed at once. At the end of each such
//! cycle all is mended, and every server must show every stored message once, all in the same order ([`cluster`]).
//!
//! `tests/chaos.sh` runs many cycles; `HOBNOB_CHAOS_CYCLES` says how many, `HOBNOB_TEST_SEED` what is drawn,
//! `HOBNOB_CHAOS_FROM` with which cycle to begin, `HOBNOB_CHAOS_RESULTS` to which file a line for each cycle is added. Cuts
//! need root on Linux, `ip` and `nft`: elsewhere the servers are on loopback, and cuts are not drawn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../blackbox/common/mod.rs"]
mod common;
mod faults;
#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../hosts/network.rs"]
mod network;
mod posters;
mod report;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::{cluster::Cluster, report::Report};
use crate::common::number_of;

/// Cycles, unless something else is said.
const CYCLES: u64 = 3;
/// Cycles that one cluster lives for: what it shows is looked through after each of them.
const CYCLES_OF_ONE: u64 = 10;

#[test]
fn what_is_stored_is_shown_once_by_every_server_whatever_happens() {
    let cycles = number_of("HOBNOB_CHAOS_CYCLES").unwrap_or(CYCLES);
    let from = number_of("HOBNOB_CHAOS_FROM").unwrap_or(1);
    let seed = number_of("HOBNOB_TEST_SEED").unwrap_or_else(|| std::process::id().into());
    println!("HOBNOB_TEST_SEED={seed}");
    let mut report = Report::new(seed);
    let mut cluster: Option<Cluster> = None;
    for cycle in from..from + cycles {
        if (cycle - 1).is_multiple_of(CYCLES_OF_ONE) {
            cluster = None;
        }
        let fault = faults::draw(seed, cycle, network::possible().is_ok());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let cluster = cluster.get_or_insert_with(Cluster::start);
            cluster.cycle(&fault)
        }));
        let is_good = report.take(cycle, &fault, outcome);
        if !is_good {
            // What went wrong there is not to go wrong again and again.
            cluster = None;
        }
    }
    report.finish();
}
