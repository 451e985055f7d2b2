//! Many runs: what they met and judged together, and a file in which that is kept, so that a sweep can go on another day.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    coverage::{self, Coverage},
    run::Outcome,
};

/// In so many runs every invariant has something to judge, and everything is met that has to be.
pub const RUNS_MIN: u64 = 200;

/// What the runs of a sweep came to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The wishes of its runs, in words: a file of one sweep is not gone on with in another.
    pub wishes: String,
    /// Seeds that are done: from, and up to but not including. In order, and apart.
    pub done: Vec<(u64, u64)>,
    /// In how many runs each invariant had anything to judge.
    pub judged: BTreeMap<String, u64>,
    /// How often each thing was met.
    pub met: BTreeMap<String, u64>,
    /// Seeds that failed, and what did not hold there.
    pub failed: BTreeMap<u64, String>,
    /// Simulated seconds, of each server.
    pub server_secs: u64,
    /// Runs that were done.
    pub runs: u64,
    /// For each kind of fault: how many runs had a longest silence of so many milliseconds, and the first seed of them.
    #[serde(default)]
    pub silences: BTreeMap<String, BTreeMap<u64, (u64, u64)>>,
}

/// How long the longest silences of many runs were, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many runs.
    pub runs: u64,
    /// Half of them were shorter.
    pub p50: u64,
    /// Of 100, 99 were shorter.
    pub p99: u64,
    /// The longest, and its seed.
    pub max: (u64, u64),
}

impl Sweep {
    /// One with nothing done.
    pub fn new(wishes: String) -> Self {
        Self { wishes, ..Self::default() }
    }

    /// Goes on with what is in a file, or begins where there is none. An error where that is of other wishes.
    pub fn open(path: &Path, wishes: &str) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(wishes.to_owned())),
            other => other?,
        };
        let sweep: Self = serde_json::from_str(&text)?;
        if sweep.wishes == wishes {
            return Ok(sweep);
        }
        let why = format!("it is of a sweep with other wishes: {:?}, not {wishes:?}", sweep.wishes);
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Writes it to a file, in place of what is there: all of it, or nothing.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_string(self)?)?;
        fs::rename(&beside, path)
    }

    /// Whether a seed is done.
    pub fn has(&self, seed: u64) -> bool {
        self.done.iter().any(|(from, to)| (*from..*to).contains(&seed))
    }

    /// A run has ended.
    pub fn add(&mut self, outcome: &Outcome) {
        let Outcome { seed, judged, coverage, violation, hosts, lasted, silences, .. } = outcome;
        for (kind, silence) in silences {
            let spans = self.silences.entry((*kind).to_owned()).or_default();
            spans.entry(silence.span.as_millis() as u64).or_insert((0, *seed)).0 += 1;
        }
        self.runs += 1;
        self.server_secs += lasted.as_secs() * hosts.0 as u64;
        for (invariant, has) in judged {
            *self.judged.entry((*invariant).to_owned()).or_default() += u64::from(*has);
        }
        for (what, times) in coverage.met() {
            *self.met.entry(what.clone()).or_default() += times;
        }
        self.failed.extend(violation.as_ref().map(|violation| (*seed, violation.to_string())));
        self.note(*seed);
    }

    fn note(&mut self, seed: u64) {
        let at = self.done.partition_point(|(from, _)| *from <= seed);
        self.done.insert(at, (seed, seed + 1));
        self.done.dedup_by(|later, earlier| {
            let touch = later.0 <= earlier.1;
            earlier.1 = if touch { earlier.1.max(later.1) } else { earlier.1 };
            touch
        });
    }

    /// Invariants that had nothing to judge in any run.
    pub fn never_judged(&self) -> impl Iterator<Item = &str> {
        self.judged.iter().filter(|(_, runs)| **runs == 0).map(|(invariant, _)| &**invariant)
    }

    /// How long the longest silences were, by the kind of fault that was near.
    pub fn spreads(&self) -> impl Iterator<Item = (&str, Spread)> {
        self.silences.iter().filter_map(|(kind, spans)| {
            let runs = spans.values().map(|(runs, _)| *runs).sum();
            let quantile = |percent: u64| {
                let mut before = 0;
                let reached = spans.iter().find(|(_, (runs_of, _))| {
                    before += runs_of;
                    before * 100 >= runs * percent
                });
                reached.map_or(0, |(millis, _)| *millis)
            };
            let (max, (_, seed)) = spans.last_key_value()?;
            Some((&**kind, Spread { runs, p50: quantile(50), p99: quantile(99), max: (*max, *seed) }))
        })
    }

    /// What was never met: of what has to be, and of the rest.
    pub fn gaps(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let coverage: Coverage = self.met.iter().map(|(what, times)| (what.clone(), *times)).collect();
        let gaps = |list| coverage.gaps(list).into_iter().collect();
        (gaps(coverage::MUST), gaps(coverage::MAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_that_are_done_are_kept_as_ranges() {
        fn check(seeds: &[u64], expected: &[(u64, u64)]) {
            let mut sweep = Sweep::default();
            for seed in seeds {
                sweep.note(*seed);
            }
            assert_eq!(sweep.done, expected, "{seeds:?}");
            assert!((0..20).all(|seed| sweep.has(seed) == seeds.contains(&seed)));
        }
        check(&[0, 1, 2], &[(0, 3)]);
        check(&[2, 0, 1], &[(0, 3)]);
        check(&[5, 0, 9, 4], &[(0, 1), (4, 6), (9, 10)]);
        check(&[3, 3], &[(3, 4)]);
    }

    #[test]
    fn a_sweep_goes_on_with_its_file_and_not_with_that_of_another() {
        let path = std::env::temp_dir().join(format!("hobnob-sweep-{}", std::process::id()));
        let mut sweep = Sweep::open(&path, "--calm").unwrap();
        sweep.note(3);
        sweep.failed.insert(3, "i11".to_owned());
        sweep.save(&path).unwrap();
        assert_eq!(Sweep::open(&path, "--calm").unwrap(), sweep);
        assert!(Sweep::open(&path, "").is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn silences_are_spread_over_runs() {
        fn check(spans: &[(u64, u64)], expected: Spread) {
            let spans = spans.iter().enumerate().map(|(n, (millis, runs))| (*millis, (*runs, 70 + n as u64)));
            let silences = [("crash".to_owned(), spans.collect())].into();
            let sweep = Sweep { silences, ..Sweep::default() };
            assert_eq!(sweep.spreads().collect::<Vec<_>>(), [("crash", expected)]);
        }
        check(&[(800, 1)], Spread { runs: 1, p50: 800, p99: 800, max: (800, 70) });
        check(&[(1, 50), (2, 49), (9, 1)], Spread { runs: 100, p50: 1, p99: 2, max: (9, 72) });
    }

    #[test]
    fn what_was_never_met_is_named() {
        let sweep = Sweep { met: [("said beat".to_owned(), 3)].into(), ..Sweep::default() };
        let (must, may) = sweep.gaps();
        assert_eq!((must.len(), may.len()), (coverage::MUST.len() - 1, coverage::MAY.len()));
        let judged = [("i05".to_owned(), 3), ("i12".to_owned(), 0)].into();
        assert_eq!(Sweep { judged, ..Sweep::default() }.never_judged().collect::<Vec<_>>(), ["i12"]);
    }
}
