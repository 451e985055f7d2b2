//! What came of the cycles: a line for each, in a file that a later run goes on with, and the sums.

use std::{any::Any, fs::OpenOptions, io::Write as _, time::Duration};

use serde_json::json;

use crate::{cluster::Told, faults::Fault};

/// The sums.
#[derive(Debug)]
pub(crate) struct Report {
    seed: u64,
    cycles: u64,
    said: u64,
    stored: u64,
    lost: u64,
    doubled: u64,
    longest: Duration,
    failed: Vec<u64>,
}

impl Report {
    /// No cycle has run yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, cycles: 0, said: 0, stored: 0, lost: 0, doubled: 0, longest: Duration::ZERO, failed: Vec::new() }
    }

    /// A cycle has ended; whether all was as it should be.
    pub(crate) fn take(&mut self, cycle: u64, fault: &Fault, outcome: Result<Told, Box<dyn Any + Send>>) -> bool {
        let (told, why) = match outcome {
            Ok(told) => (told, None),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                (Told::default(), Some(text.unwrap_or_else(|| "it panicked".to_owned())))
            }
        };
        let is_good = why.is_none() && told.lost + told.doubled + told.disordered == 0;
        self.cycles += 1;
        self.said += told.said;
        self.stored += told.stored;
        self.lost += told.lost;
        self.doubled += told.doubled;
        self.longest = self.longest.max(told.longest);
        if !is_good {
            self.failed.push(cycle);
        }
        let line = json!({
            "cycle": cycle, "seed": self.seed, "fault": format!("{fault:?}"), "good": is_good, "said": told.said,
            "stored": told.stored, "lost": told.lost, "doubled": told.doubled, "disordered": told.disordered,
            "longest_ms": told.longest.as_millis() as u64, "seconds": told.took.as_secs(), "why": why,
        });
        println!("{line}");
        if let Some(path) = std::env::var_os("HOBNOB_CHAOS_RESULTS") {
            let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the results can be written");
            writeln!(file, "{line}").expect("the results can be written");
        }
        is_good
    }

    /// Prints the sums; fails where anything was lost or doubled, or a cycle did not come to its end.
    pub(crate) fn finish(self) {
        let Self { seed, cycles, said, stored, lost, doubled, longest, failed } = self;
        println!(
            "{cycles} cycles, {said} messages, {stored} stored, {lost} lost, {doubled} doubled; the longest time without \
             word was {longest:?}"
        );
        assert!(
            failed.is_empty(),
            "cycles {failed:?} failed: HOBNOB_TEST_SEED={seed} HOBNOB_CHAOS_FROM=... runs them again"
        );
    }
}
