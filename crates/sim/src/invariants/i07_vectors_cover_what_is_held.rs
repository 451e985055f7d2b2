//! Invariant 7: a server's version vector never covers an entry that it neither holds, in memory or on its disk, nor has
//! given up; and what it says that it has kept is on its disk.

use std::collections::BTreeMap;

use hobnob_proto::{ids::RoomName, log::VersionVector, store::Write, time::Time};

use super::Invariant;
use crate::facts::{Fact, Process};

/// The invariant.
#[derive(Debug, Default)]
pub struct Covered {
    /// What each server has without holes, by what it was seen to hold.
    known: BTreeMap<(Process, RoomName), VersionVector>,
    judged: bool,
}

impl Covered {
    fn known(&mut self, server: Process, room: &RoomName) -> &mut VersionVector {
        self.known.entry((server, room.clone())).or_default()
    }
}

impl Invariant for Covered {
    fn name(&self) -> &'static str {
        "i07_vectors_cover_what_is_held"
    }

    fn judged(&self) -> bool {
        self.judged
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Restored { server, room, held } => self.known(*server, room).merge(held),
            Fact::Synced { server, write: Write::Floors { room, floors } } => self.known(*server, room).merge(floors),
            Fact::Held { server, entry, .. } => {
                let known = self.known(*server, &entry.room);
                if entry.seq == known.get(entry.origin) + 1 {
                    known.raise(entry.origin, entry.seq);
                }
            }
            Fact::Vectors { server, room, held, durable, on_disk } => {
                self.judged = true;
                let known = self.known(*server, room);
                if let Some((origin, from, to)) = held.beyond(known).next() {
                    let of = server.of;
                    return Err(format!("server {of}: {room} covers {origin}:{from} to {to}, which it does not hold"));
                }
                let beyond = on_disk.and_then(|on_disk| durable.beyond(on_disk).next());
                if let Some((origin, from, to)) = beyond {
                    let of = server.of;
                    return Err(format!(
                        "server {of}: {room} {origin}:{from} to {to} counts as kept, and is not synced"
                    ));
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
    use crate::invariants::history::{entry, first_bad, process, vector};

    #[test]
    fn a_vector_that_covers_more_than_there_is_is_seen() {
        /// The server restored so many, holds these besides, and says so.
        fn check(restored: u64, seqs: &[u64], held: u64, durable: u64, on_disk: Option<u64>, expected: bool) {
            let (lobby, server) = (RoomName::lobby(), process(1));
            let [restored, held, durable] = [restored, held, durable].map(|seq| vector(&[(1, seq)]));
            let on_disk = on_disk.map(|seq| vector(&[(1, seq)]));
            let entries: Vec<_> = seqs.iter().map(|seq| entry(1, *seq, *seq, *seq, "x")).collect();
            let mut facts = vec![Fact::Restored { server, room: &lobby, held: &restored }];
            facts.extend(entries.iter().map(|entry| Fact::Held { server, own: false, entry }));
            let on_disk = on_disk.as_ref();
            facts.push(Fact::Vectors { server, room: &lobby, held: &held, durable: &durable, on_disk });
            assert_eq!(first_bad(&mut Covered::default(), &facts).is_none(), expected, "{seqs:?} {held:?}");
        }
        check(2, &[3], 3, 2, Some(2), true);
        check(2, &[3], 4, 2, Some(2), false);
        check(2, &[4], 4, 2, Some(2), false);
        check(0, &[1], 1, 1, Some(0), false);
        check(0, &[1], 1, 1, None, true);
    }
}
