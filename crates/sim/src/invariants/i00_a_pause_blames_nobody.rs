//! Before all numbers: a server that has stood still blames nobody for it. What it did not hear meanwhile was not unsaid, so
//! right after it goes on it takes nobody for dead.

use std::collections::BTreeMap;

use hobnob_proto::time::{Duration, Time};

use super::Invariant;
use crate::facts::{Fact, Process};

/// So soon after a pause nobody can have been silent for long enough: a detector waits for 500 ms at least.
const SOON: Duration = Duration::from_millis(250);

/// The invariant.
#[derive(Debug, Default)]
pub struct PauseBlamesNobody {
    resumed: BTreeMap<Process, Time>,
    /// Since when each one that stands still does.
    stood_still: BTreeMap<Process, Time>,
}

impl Invariant for PauseBlamesNobody {
    fn name(&self) -> &'static str {
        "i00_a_pause_blames_nobody"
    }

    fn judged(&self) -> bool {
        !self.resumed.is_empty()
    }

    fn observe(&mut self, fact: &Fact<'_>, now: Time) -> Result<(), String> {
        match fact {
            Fact::Paused { server } => drop(self.stood_still.insert(*server, now)),
            Fact::Resumed { server } => {
                let since = self.stood_still.remove(server);
                // A shorter one may not be seen, nor need it be.
                if since.is_some_and(|since| now.since(since) > Duration::from_millis(400)) {
                    self.resumed.insert(*server, now);
                }
            }
            Fact::Blames { server, peer } => {
                if let Some(at) = self.resumed.get(server).filter(|at| now.since(**at) < SOON) {
                    let millis = now.since(*at).as_millis();
                    return Err(format!("server {} takes {peer} for dead {millis} ms after its own pause", server.of));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{origin, process};

    #[test]
    fn who_is_blamed_right_after_a_pause_is_seen() {
        fn check(pause_ms: u64, after_ms: u64, expected: bool) {
            let at = |millis: u64| Time::ZERO + Duration::from_millis(millis);
            let (server, peer) = (process(1), origin(2));
            let mut invariant = PauseBlamesNobody::default();
            invariant.observe(&Fact::Paused { server }, at(0)).unwrap();
            invariant.observe(&Fact::Resumed { server }, at(pause_ms)).unwrap();
            let blames = invariant.observe(&Fact::Blames { server, peer }, at(pause_ms + after_ms));
            assert_eq!(blames.is_ok(), expected, "{pause_ms} ms, {after_ms} ms later");
        }
        check(2_000, 1, false);
        check(2_000, 600, true);
        check(100, 1, true);
    }
}
