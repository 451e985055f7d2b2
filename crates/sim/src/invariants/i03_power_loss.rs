//! Invariant 3: stored survives power loss of all servers at once. At a moment at which no server runs, everything that
//! was said to be stored on disks is on a disk.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{store::Write, time::Time};

use super::Invariant;
use crate::facts::{Dot, Fact, Process, dot};

/// The invariant.
#[derive(Debug, Default)]
pub struct PowerLoss {
    up: BTreeSet<Process>,
    disks: BTreeMap<Dot, BTreeSet<usize>>,
    /// Said to be on two disks or more: one may be lost.
    stored: BTreeSet<Dot>,
    judged: bool,
}

impl PowerLoss {
    fn down(&mut self, server: Process) -> Result<(), String> {
        self.up.remove(&server);
        if !self.up.is_empty() || self.stored.is_empty() {
            return Ok(());
        }
        self.judged = true;
        let is_lost = |dot: &&Dot| self.disks.get(dot).is_none_or(BTreeSet::is_empty);
        let Some((room, origin, seq)) = self.stored.iter().find(is_lost) else { return Ok(()) };
        Err(format!("the power is off, and {room} {origin}:{seq}, which was stored, is on no disk"))
    }
}

impl Invariant for PowerLoss {
    fn name(&self) -> &'static str {
        "i03_power_loss"
    }

    fn judged(&self) -> bool {
        self.judged
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Started { server } => {
                self.up.insert(*server);
            }
            Fact::Crashed { server } | Fact::Left { server } => return self.down(*server),
            Fact::Synced { server, write: Write::Entry(kept) | Write::Repair(kept) } => {
                self.disks.entry(dot(&kept.entry)).or_default().insert(server.of);
            }
            Fact::Wiped { server } => {
                for disks in self.disks.values_mut() {
                    disks.remove(&server.of);
                }
            }
            Fact::Rotten { server, dot } => {
                if let Some(disks) = self.disks.get_mut(dot) {
                    disks.remove(&server.of);
                }
            }
            Fact::Acked { dot, copies, stored: true, durable: true, .. } if *copies > 1 => {
                self.stored.insert(dot.clone());
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{entry, first_bad, kept, key, process};

    #[test]
    fn what_was_stored_and_is_on_no_disk_when_all_are_down_is_seen() {
        fn check(synced: bool, stored: bool, both_crash: bool, expected: Option<usize>) {
            let entry = entry(1, 1, 1, 5, "x");
            let write = Write::Entry(kept(&entry));
            let write = if synced { write } else { Write::Term(1) };
            let (key, dot) = (key(1), dot(&entry));
            let mut facts = vec![
                Fact::Started { server: process(1) },
                Fact::Started { server: process(2) },
                Fact::Synced { server: process(1), write: &write },
                Fact::Acked { client: process(0), key, dot, copies: 2, stored, durable: true },
                Fact::Crashed { server: process(1) },
            ];
            facts.extend(both_crash.then_some(Fact::Crashed { server: process(2) }));
            assert_eq!(first_bad(&mut PowerLoss::default(), &facts), expected, "{synced} {stored} {both_crash}");
        }
        check(true, true, true, None);
        check(false, true, false, None);
        check(false, true, true, Some(5));
        check(false, false, true, None);
    }
}
