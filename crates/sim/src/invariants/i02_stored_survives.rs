//! Invariant 2: a stored message survives the loss of any one machine, disk included, until it is copied again; and
//! `stored` on so many copies means that so many servers have had it.
//!
//! What was said to be on disks may never be lost: disks are lost one at a time, and the next only once all that was on
//! the last is on two again. Servers without disks forget on a crash, so a message may rightly be lost: where the last server that held it crashes before
//! there was [`COPIED_AGAIN`] of calm (all servers up and none slow, all paths whole) since the message was stored or lost its last
//! but one copy. A server that leaves politely takes nothing with it that was stored, calm or not. Copies are tracked exactly, by what each log holds; nothing is guessed from the number of crashes.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    store::Write,
    time::{Duration, Time},
};

use super::Invariant;
use crate::facts::{Dot, Fact, Picture, Process, dot};

/// So much calm is enough to copy everything to everybody.
pub const COPIED_AGAIN: Duration = Duration::from_secs(30);

/// Who holds a message.
#[derive(Debug, Default)]
struct Copies {
    ever: BTreeSet<Process>,
    now: BTreeSet<Process>,
    /// The servers that have it on their disks.
    disks: BTreeSet<usize>,
    stored: bool,
    /// On disks, two at least.
    durable: bool,
    /// When it was stored, or last lost a copy.
    fewer_since: Time,
}

/// The invariant.
#[derive(Debug, Default)]
pub struct StoredSurvives {
    copies: BTreeMap<Dot, Copies>,
    servers_up: usize,
    /// The last calm: its beginning, and its end where it has ended.
    calm: Option<(Time, Option<Time>)>,
    /// Somebody was gone who held something stored, and may not have taken it with him.
    judged: bool,
}

impl StoredSurvives {
    /// Whether there was enough calm after `since`.
    fn was_calm(&self, since: Time, now: Time) -> bool {
        self.calm.is_some_and(|(from, to)| to.unwrap_or(now).since(from.max(since)) >= COPIED_AGAIN)
    }

    /// A server is gone. One that has left politely takes nothing with it, calm or not.
    fn gone(&mut self, server: Process, politely: bool, now: Time) -> Result<(), String> {
        let alone = self.servers_up == 1;
        self.servers_up = self.servers_up.saturating_sub(1);
        let held = |copies: &Copies| copies.stored && copies.now.contains(&server) && copies.disks.is_empty();
        let binds =
            |copies: &Copies| copies.durable || (!alone && (politely || self.was_calm(copies.fewer_since, now)));
        let mut at_stake = self.copies.iter().filter(|(_, copies)| held(copies) && binds(copies)).peekable();
        let judged = at_stake.peek().is_some();
        let lost = at_stake.find(|(_, copies)| copies.now.len() == 1).map(|((room, origin, seq), copies)| {
            let since = copies.fewer_since.as_millis();
            format!("{room} {origin}:{seq} was stored, had one copy since {since} ms, and is lost")
        });
        self.judged |= judged;
        lost.map_or(Ok(()), Err)?;
        for copies in self.copies.values_mut() {
            if copies.now.remove(&server) {
                copies.fewer_since = now;
            }
        }
        Ok(())
    }

    /// A disk does not have these any more.
    fn off_disk(&mut self, server: Process, lost: impl Fn(&Dot) -> bool, now: Time) -> Result<(), String> {
        for (dot, copies) in self.copies.iter_mut().filter(|(dot, _)| lost(dot)) {
            if !copies.disks.remove(&server.of) {
                continue;
            }
            copies.fewer_since = now;
            self.judged |= copies.durable;
            if copies.durable && copies.disks.is_empty() && copies.now.iter().all(|other| other.of == server.of) {
                let (room, origin, seq) = dot;
                return Err(format!("{room} {origin}:{seq} was stored, was on this disk alone, and is lost"));
            }
        }
        Ok(())
    }
}

impl Invariant for StoredSurvives {
    fn name(&self) -> &'static str {
        "i02_stored_survives"
    }

    fn judged(&self) -> bool {
        self.judged
    }

    fn observe(&mut self, fact: &Fact<'_>, now: Time) -> Result<(), String> {
        match fact {
            Fact::Started { .. } => self.servers_up += 1,
            Fact::Weather { calm: true } => self.calm = Some((now, None)),
            Fact::Weather { calm: false } => {
                if let Some((_, end @ None)) = &mut self.calm {
                    *end = Some(now);
                }
            }
            Fact::Held { server, entry, .. } => {
                let copies = self.copies.entry(dot(entry)).or_default();
                copies.ever.insert(*server);
                copies.now.insert(*server);
            }
            Fact::Synced { server, write: Write::Entry(kept) | Write::Repair(kept) } => {
                self.copies.entry(dot(&kept.entry)).or_default().disks.insert(server.of);
            }
            Fact::Wiped { server } => return self.off_disk(*server, |_| true, now),
            Fact::Rotten { server, dot } => return self.off_disk(*server, |other| other == dot, now),
            Fact::Crashed { server } => return self.gone(*server, false, now),
            Fact::Left { server } => return self.gone(*server, true, now),
            Fact::Acked { dot, copies: claimed, stored: true, durable, .. } => {
                let copies = self.copies.entry(dot.clone()).or_default();
                if !copies.stored {
                    copies.stored = true;
                    copies.fewer_since = now;
                }
                copies.durable |= *durable && *claimed > 1;
                let had = copies.ever.len();
                if had < *claimed as usize {
                    let (room, origin, seq) = dot;
                    return Err(format!("{room} {origin}:{seq} is said to be on {claimed} servers; {had} ever had it"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        for ((room, origin, seq), copies) in self.copies.iter().filter(|(_, copies)| copies.stored) {
            let lacks = picture
                .servers
                .iter()
                .find(|server| !server.rooms.get(room).is_some_and(|room| room.held.holds(*origin, *seq)));
            // One copy is enough; where there are two clusters, it has to be in this one.
            let lacks = lacks.filter(|_| picture.servers.iter().any(|server| copies.now.contains(&server.process)));
            if let Some(server) = lacks {
                return Err(format!("{room} {origin}:{seq} is stored, but server {} lacks it", server.id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{entry, fence, first_bad, key, process, server};

    fn history(calm_secs: usize, copies: u32) -> Option<usize> {
        let entry = entry(1, 1, 1, 5, "x");
        let mut facts = vec![
            Fact::Started { server: process(1) },
            Fact::Started { server: process(2) },
            Fact::Held { server: process(1), own: true, entry: &entry },
            Fact::Held { server: process(2), own: false, entry: &entry },
            Fact::Acked { client: process(0), key: key(1), dot: dot(&entry), copies, stored: true, durable: false },
            Fact::Crashed { server: process(2) },
            Fact::Started { server: Process { of: 2, run: 2 } },
        ];
        facts.push(Fact::Weather { calm: true });
        facts.extend((0..calm_secs).map(|_| Fact::Held { server: process(1), own: true, entry: &entry }));
        facts.push(Fact::Crashed { server: process(1) });
        first_bad(&mut StoredSurvives::default(), &facts)
    }

    #[test]
    fn a_message_that_was_not_copied_again_in_time_is_lost() {
        assert_eq!(history(35, 2), Some(43), "there was time");
        assert_eq!(history(5, 2), None, "there was none");
    }

    #[test]
    fn a_server_that_leaves_with_the_last_copy_is_seen() {
        fn check(copied: bool, expected: Option<usize>) {
            let entry = entry(1, 1, 1, 5, "x");
            let held = |of| Fact::Held { server: process(of), own: of == 1, entry: &entry };
            let facts = [
                Fact::Started { server: process(1) },
                Fact::Started { server: process(2) },
                held(1),
                held(if copied { 2 } else { 1 }),
                Fact::Acked {
                    client: process(0),
                    key: key(1),
                    dot: dot(&entry),
                    copies: 1,
                    stored: true,
                    durable: false,
                },
                Fact::Left { server: process(1) },
            ];
            assert_eq!(first_bad(&mut StoredSurvives::default(), &facts), expected);
        }
        check(true, None);
        check(false, Some(5));
    }

    #[test]
    fn a_claim_of_too_many_copies_is_seen() {
        assert_eq!(history(0, 3), Some(4));
    }

    #[test]
    fn a_server_that_lacks_a_stored_message_in_the_end_is_seen() {
        let entry = entry(1, 1, 1, 5, "x");
        let mut invariant = StoredSurvives::default();
        let held = Fact::Held { server: process(1), own: true, entry: &entry };
        let acked =
            Fact::Acked { client: process(0), key: key(1), dot: dot(&entry), copies: 1, stored: true, durable: false };
        assert_eq!(first_bad(&mut invariant, &[held, acked]), None);
        let picture = |held: &[(u32, u64)]| Picture {
            servers: vec![server(1, 2, fence(1, 1), true, &[(1, 1)]), server(2, 2, fence(1, 1), false, held)],
            ..Picture::default()
        };
        assert!(invariant.settled(&picture(&[(1, 1)])).is_ok());
        assert!(invariant.settled(&picture(&[])).is_err());
    }
}
