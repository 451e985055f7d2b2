//! Invariant 1: a client is told `stored`, on the disks of so many servers, only when the entry is on so many disks.

use std::collections::BTreeMap;

use hobnob_proto::{
    store::Write,
    time::{Duration, Time},
};

use super::Invariant;
use crate::facts::{Dot, Fact, dot};

/// A disk that was lost so shortly before still counts: the acknowledgement was under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// The invariant.
#[derive(Debug, Default)]
pub struct StoredIsSynced {
    /// Which server has an entry on its disk, or when it had it last.
    on: BTreeMap<Dot, BTreeMap<usize, Option<Time>>>,
    judged: bool,
}

impl Invariant for StoredIsSynced {
    fn name(&self) -> &'static str {
        "i01_stored_is_synced"
    }

    fn judged(&self) -> bool {
        self.judged
    }

    fn observe(&mut self, fact: &Fact<'_>, now: Time) -> Result<(), String> {
        match fact {
            Fact::Synced { server, write: Write::Entry(kept) | Write::Repair(kept) } => {
                self.on.entry(dot(&kept.entry)).or_default().insert(server.of, None);
            }
            Fact::Wiped { server } => {
                for since in self.on.values_mut().filter_map(|disks| disks.get_mut(&server.of)) {
                    since.get_or_insert(now);
                }
            }
            Fact::Rotten { server, dot } => {
                if let Some(since) = self.on.get_mut(dot).and_then(|disks| disks.get_mut(&server.of)) {
                    since.get_or_insert(now);
                }
            }
            Fact::Acked { dot, copies, stored: true, durable: true, .. } => {
                self.judged = true;
                let disks = self.on.get(dot);
                let counts = |since: &&Option<Time>| since.is_none_or(|since| now.since(since) < UNDER_WAY);
                let synced = disks.map_or(0, |disks| disks.values().filter(counts).count());
                if synced < *copies as usize {
                    let (room, origin, seq) = dot;
                    return Err(format!("{room} {origin}:{seq} is said to be on {copies} disks, and is on {synced}"));
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
    use crate::invariants::history::{entry, first_bad, kept, key, process};

    #[test]
    fn an_acknowledgement_before_the_disks_have_it_is_seen() {
        /// Some servers have it, then the last of them loses its disk, and `secs` later the client is told.
        fn check(on: &[usize], wiped: bool, secs: usize, copies: u32, expected: bool) {
            let entry = entry(1, 1, 1, 5, "x");
            let write = Write::Entry(kept(&entry));
            let mut facts: Vec<_> = on.iter().map(|of| Fact::Synced { server: process(*of), write: &write }).collect();
            facts.extend(on.last().filter(|_| wiped).map(|of| Fact::Wiped { server: process(*of) }));
            facts.extend((0..secs).map(|_| Fact::Stray));
            let (key, dot) = (key(1), dot(&entry));
            facts.push(Fact::Acked { client: process(0), key, dot, copies, stored: true, durable: true });
            assert_eq!(first_bad(&mut StoredIsSynced::default(), &facts).is_none(), expected, "{on:?} {wiped} {secs}");
        }
        check(&[1, 2], false, 0, 2, true);
        check(&[1, 1], false, 0, 2, false);
        check(&[], false, 0, 1, false);
        check(&[1, 2], true, 1, 2, true);
        check(&[1, 2], true, 20, 2, false);
        check(&[1, 2], true, 20, 1, true);
    }
}
