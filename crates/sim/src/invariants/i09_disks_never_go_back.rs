//! Invariant 9: term and fence never go back, over restarts too: what a disk has of them only grows, within a cluster and
//! until the disk is lost; and no server leads in one term in two of its runs.

use std::collections::BTreeMap;

use hobnob_proto::{
    ids::{Boot, ClusterId, RoomName},
    store::Write,
    time::Time,
    wire::frame::Fence,
};

use super::Invariant;
use crate::facts::{Fact, Process};

/// What a disk has.
#[derive(Debug, Default)]
struct Kept {
    cluster: Option<ClusterId>,
    term: u64,
    fences: BTreeMap<RoomName, Fence>,
    /// The highest term that the server has led in, and in which boot. Others may tell it of that after a restart.
    led: Option<(u64, Boot)>,
}

/// The invariant.
#[derive(Debug, Default)]
pub struct NeverBack {
    disks: BTreeMap<usize, Kept>,
    judged: bool,
}

impl NeverBack {
    fn synced(&mut self, server: Process, write: &Write) -> Result<(), String> {
        let of = server.of;
        let kept = self.disks.entry(of).or_default();
        match write {
            Write::Cluster(cluster) => *kept = Kept { cluster: Some(*cluster), ..Kept::default() },
            Write::Term(term) => {
                let before = std::mem::replace(&mut kept.term, *term);
                self.judged |= before > 0;
                if *term < before {
                    return Err(format!("server {of} has kept term {before}, and now {term}"));
                }
            }
            Write::Room(record) => {
                let before = kept.fences.insert(record.room.clone(), record.fence);
                self.judged |= before.is_some();
                if let Some(before) = before.filter(|before| record.fence < *before) {
                    let (room, fence) = (&record.room, record.fence);
                    return Err(format!("server {of} has kept the fence {before:?} of {room}, and now {fence:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Invariant for NeverBack {
    fn name(&self) -> &'static str {
        "i09_disks_never_go_back"
    }

    fn judged(&self) -> bool {
        self.judged
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Synced { server, write } => return self.synced(*server, write),
            Fact::Wiped { server } => drop(self.disks.remove(&server.of)),
            Fact::Accepted { server, cluster, epoch } if epoch.leader.0 as usize == server.of => {
                let Some(kept) = self.disks.get_mut(&server.of).filter(|kept| kept.cluster == *cluster) else {
                    return Ok(());
                };
                // Before it is on the disk, nobody hears of it.
                if kept.term < epoch.term {
                    return Ok(());
                }
                let (term, before) = (epoch.term, kept.led.replace((epoch.term, epoch.boot)));
                if before.is_some_and(|(led, boot)| boot != epoch.boot && led >= term) {
                    return Err(format!("server {} leads in term {term} again, after a restart", server.of));
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
    use crate::invariants::history::{fence, first_bad, process};
    use hobnob_proto::wire::frame::RoomRecord;

    fn room(n: u64) -> Write {
        Write::Room(RoomRecord { room: RoomName::lobby(), fence: fence(n, 1), successors: Vec::new() })
    }

    #[test]
    fn a_disk_that_goes_back_is_seen() {
        fn check(writes: &[Write], expected: Option<usize>) {
            let facts: Vec<_> = writes.iter().map(|write| Fact::Synced { server: process(1), write }).collect();
            assert_eq!(first_bad(&mut NeverBack::default(), &facts), expected, "{writes:?}");
        }
        check(&[Write::Term(1), Write::Term(1), Write::Term(2)], None);
        check(&[Write::Term(2), Write::Term(1)], Some(1));
        check(&[Write::Term(2), Write::Cluster(ClusterId(1)), Write::Term(1)], None);
        check(&[room(1), room(2)], None);
        check(&[room(2), room(1)], Some(1));
    }
}
