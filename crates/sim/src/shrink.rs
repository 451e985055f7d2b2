//! Cuts a failing run down: fewer minutes, servers and clients, and faults left out one by one, as long as the same
//! invariant does not hold.
//!
//! After delta debugging (Zeller, Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002): faults are left
//! out in halves first, then in smaller parts. What remains need not be the smallest run that fails, but nothing can be
//! taken from it alone.

use crate::{profile::MINUTES_MIN, profile::Wanted, run::Outcome, switches};

/// What a run was like that still fails.
#[derive(Debug)]
pub struct Shrunk {
    /// With these wishes it does.
    pub wanted: Wanted,
    /// How it ends.
    pub outcome: Outcome,
    /// How many runs that took.
    pub runs: u64,
}

/// Cuts down a run that ends in `outcome`, a violation. `run` does one with other wishes; `told` hears what was cut off.
pub fn shrink(
    wanted: Wanted,
    outcome: Outcome,
    run: impl FnMut(&Wanted) -> Outcome,
    told: impl FnMut(&Wanted),
) -> Shrunk {
    let mut work = Work { shrunk: Shrunk { wanted, outcome, runs: 0 }, run, told };
    loop {
        let runs_before = work.shrunk.wanted.clone();
        work.shorten();
        work.leave_out();
        work.fewer();
        work.skip();
        if work.shrunk.wanted == runs_before {
            return work.shrunk;
        }
    }
}

struct Work<R, T> {
    shrunk: Shrunk,
    run: R,
    told: T,
}

impl<R: FnMut(&Wanted) -> Outcome, T: FnMut(&Wanted)> Work<R, T> {
    /// Whether a run with these wishes fails in the same way; then they take the place of the last.
    fn attempt(&mut self, change: impl FnOnce(&mut Wanted)) -> bool {
        let mut wanted = self.shrunk.wanted.clone();
        change(&mut wanted);
        if wanted == self.shrunk.wanted {
            return false;
        }
        self.shrunk.runs += 1;
        let outcome = (self.run)(&wanted);
        let invariant = |outcome: &Outcome| outcome.violation.as_ref().map(|violation| violation.invariant);
        // The trace begins with the profile: what changes nothing in it, the run never had.
        let is_same = outcome.hash == self.shrunk.outcome.hash;
        if is_same || invariant(&outcome) != invariant(&self.shrunk.outcome) {
            return false;
        }
        (self.told)(&wanted);
        (self.shrunk.wanted, self.shrunk.outcome) = (wanted, outcome);
        true
    }

    fn shorten(&mut self) {
        let minutes = self.shrunk.wanted.minutes.unwrap_or(5);
        let _ = (MINUTES_MIN..minutes).any(|minutes| self.attempt(|wanted| wanted.minutes = Some(minutes)));
    }

    fn leave_out(&mut self) {
        for (name, _) in switches::ALL {
            self.attempt(|wanted| {
                wanted.without.insert(name);
            });
        }
    }

    fn fewer(&mut self) {
        let (servers, clients) = self.shrunk.outcome.hosts;
        let _ = (1..servers).any(|servers| self.attempt(|wanted| wanted.servers = Some(servers)));
        let _ = (0..clients).any(|clients| self.attempt(|wanted| wanted.clients = Some(clients)));
    }

    /// Leaves out faults that were drawn, half of them at a time, then a quarter, down to single ones.
    fn skip(&mut self) {
        let mut len = self.shrunk.outcome.drawn.div_ceil(2);
        while len > 0 {
            let mut first = 0;
            while first < self.shrunk.outcome.drawn {
                self.attempt(|wanted| wanted.skip.extend(first..first + len));
                first += len;
            }
            len /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        invariants::Violation,
        run,
        trace::{Detail, Fnv},
    };

    #[test]
    fn what_a_failure_does_not_need_is_cut_off() {
        let calm = Wanted { minutes: Some(2), servers: Some(1), clients: Some(0), calm: true, ..Wanted::default() };
        let quiet = run::run(1, &calm, Detail::None);
        // Fails where there are two servers at least, loss, and the seventh fault.
        let run = |wanted: &Wanted| {
            let hosts = (wanted.servers.unwrap_or(5), wanted.clients.unwrap_or(7));
            let fails = hosts.0 >= 2 && !wanted.without.contains("loss") && !wanted.skip.contains(&7);
            let violation = Violation { invariant: "i99", at: hobnob_proto::time::Time::ZERO, what: String::new() };
            // There is no flapping in it anyway.
            let without: Vec<_> = wanted.without.iter().filter(|name| **name != "flapping").collect();
            let mut hash = Fnv::default();
            hash.update(format!("{hosts:?} {:?} {without:?} {:?}", wanted.minutes, wanted.skip).as_bytes());
            let violation = fails.then_some(violation);
            Outcome { hash: hash.0, hosts, drawn: 20, violation, ..quiet.clone() }
        };
        let shrunk = shrink(Wanted::default(), run(&Wanted::default()), run, |_| ());
        let Wanted { minutes, servers, clients, without, skip, .. } = shrunk.wanted;
        assert_eq!((minutes, servers, clients), (Some(2), Some(2), Some(0)));
        let stays = |name: &&str| ["loss", "flapping"].contains(name);
        assert!(!without.iter().any(stays) && without.len() == switches::ALL.len() - 2, "{without:?}");
        assert!((0..20).all(|nth| skip.contains(&nth) == (nth != 7)), "{skip:?}");
    }
}
