//! What breaks in a run, and when: a schedule drawn from the seed before the run begins.
//!
//! Servers are in memory: one that crashes forgets everything. So the schedule keeps to what a cluster of memory can
//! survive as one cluster: one server is always left that has been up for [`SETTLED`], and a server is restarted only
//! where it can reach the others (alone it would found a cluster of its own, and rightly keep it).

use std::collections::BTreeSet;

use hobnob_proto::{
    rng::Rng,
    time::{Duration, Time},
};

use crate::{
    dice::{self, Dice as _},
    link::{Cut, HostId},
    profile::{FaultProfile, WARM_UP},
};

/// After so long, a server that was started holds what the others hold.
pub const SETTLED: Duration = Duration::from_secs(15);
/// A server stays down for at least so long, so that its new boot is later than its last by the clock on the wall.
const DOWN_MIN: Duration = Duration::from_millis(1_100);
const DOWN_MAX: Duration = Duration::from_secs(25);
const CUT_MIN: Duration = Duration::from_millis(300);
const CUT_MAX: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Something breaks, or is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A server's process ends without a word, and forgets everything.
    Crash(usize),
    /// It is started again.
    Restart(usize),
    /// These paths carry nothing.
    Cut(Cut),
    /// No path is cut any more.
    Heal,
    /// A server stands still. What arrives waits in its socket.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// A client has another address from now on.
    Roam(usize),
}

/// Draws the faults between the warm-up and `end`, in order of time. All servers are up, all paths whole and nobody
/// stands still when the last has happened, or at `end`.
pub fn schedule(
    profile: &FaultProfile,
    servers: usize,
    clients: usize,
    end: Duration,
    rng: &mut Rng,
) -> Vec<(Time, Fault)> {
    let Some(every) = profile.every else { return Vec::new() };
    let mut plan = Plan {
        servers,
        hosts: servers + clients,
        settled: vec![WARM_UP; servers],
        up: vec![Duration::ZERO; servers],
        cut_until: Duration::ZERO,
        faults: Vec::new(),
    };
    let mut at = WARM_UP + rng.span(Duration::ZERO, every);
    while at + DOWN_MIN < end {
        match rng.below(8) {
            0..=2 if profile.crashes => plan.crash(at, rng),
            3 | 4 if profile.cuts => plan.cut(at, rng),
            5 | 6 if profile.pauses => plan.pause(at, rng),
            7 if profile.roaming => plan.faults.push((at, Fault::Roam(rng.index(clients)))),
            _ => {}
        }
        at += rng.span(every / 4, every * 7 / 4);
    }
    let mut faults: Vec<_> = plan.faults.into_iter().map(|(at, fault)| (dice::after(at.min(end)), fault)).collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// A schedule in the making: what is already sure to be broken, and until when.
struct Plan {
    servers: usize,
    hosts: usize,
    /// When each server will have been up for [`SETTLED`].
    settled: Vec<Duration>,
    /// When each server is up and running again.
    up: Vec<Duration>,
    cut_until: Duration,
    faults: Vec<(Duration, Fault)>,
}

impl Plan {
    fn crash(&mut self, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        let another = (0..self.servers).any(|other| other != server && self.settled[other] <= at);
        if self.up[server] > at || !another {
            return;
        }
        let back = (at + rng.span(DOWN_MIN, DOWN_MAX)).max(self.cut_until + DOWN_MIN);
        self.up[server] = back;
        self.settled[server] = back + SETTLED;
        self.faults.extend([(at, Fault::Crash(server)), (back, Fault::Restart(server))]);
    }

    fn cut(&mut self, at: Duration, rng: &mut Rng) {
        if self.cut_until >= at || self.settled.iter().any(|settled| *settled > at) {
            return;
        }
        let cut = if rng.below(3) == 0 { one_way(self.hosts, rng) } else { two_sides(self.hosts, rng) };
        if cut.is_empty() {
            return;
        }
        self.cut_until = at + rng.span(CUT_MIN, CUT_MAX);
        self.faults.extend([(at, Fault::Cut(cut)), (self.cut_until, Fault::Heal)]);
    }

    fn pause(&mut self, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        let span = rng.span(PAUSE_MIN, PAUSE_MAX);
        if self.up[server] > at {
            return;
        }
        self.up[server] = at + span;
        self.faults.extend([(at, Fault::Pause(server)), (at + span, Fault::Resume(server))]);
    }
}

/// Some hosts on one side, the others on the other.
fn two_sides(hosts: usize, rng: &mut Rng) -> Cut {
    let side: Vec<bool> = (0..hosts).map(|_| rng.below(2) == 0).collect();
    paths(hosts).filter(|(from, to)| side[*from] != side[*to]).collect()
}

/// Up to three pairs of hosts of whom one does not hear the other.
fn one_way(hosts: usize, rng: &mut Rng) -> Cut {
    let all: Vec<_> = paths(hosts).collect();
    (0..rng.between(1, 3)).map(|_| all[rng.index(all.len())]).collect::<BTreeSet<_>>()
}

fn paths(hosts: usize) -> impl Iterator<Item = (HostId, HostId)> {
    (0..hosts).flat_map(move |from| (0..hosts).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Duration = Duration::from_mins(3);

    fn draw(seed: u64, servers: usize) -> Vec<(Time, Fault)> {
        let profile = FaultProfile {
            every: Some(Duration::from_secs(4)),
            crashes: true,
            cuts: true,
            pauses: true,
            roaming: true,
        };
        schedule(&profile, servers, 3, END, &mut dice::from_number(seed))
    }

    #[test]
    fn one_server_is_always_left_and_all_are_mended_in_the_end() {
        for seed in 0..50 {
            let mut down = BTreeSet::new();
            let mut paused = BTreeSet::new();
            let mut cut = false;
            for (at, fault) in draw(seed, 3) {
                assert!(at >= dice::after(WARM_UP) && at <= dice::after(END));
                match fault {
                    Fault::Crash(server) => assert!(down.insert(server), "{server} crashes twice"),
                    Fault::Restart(server) => assert!(down.remove(&server) && !cut, "seed {seed}"),
                    Fault::Cut(_) => cut = true,
                    Fault::Heal => cut = false,
                    Fault::Pause(server) => assert!(!down.contains(&server) && paused.insert(server)),
                    Fault::Resume(server) => assert!(paused.remove(&server)),
                    Fault::Roam(_) => {}
                }
                assert!(down.len() < 3, "seed {seed}: nobody is left");
            }
            assert!(paused.is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn a_single_server_in_memory_never_crashes() {
        for seed in 0..50 {
            assert!(draw(seed, 1).iter().all(|(_, fault)| !matches!(fault, Fault::Crash(_))));
        }
    }
}
