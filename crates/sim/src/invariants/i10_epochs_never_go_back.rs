//! Invariant 10: no command of a lower epoch takes effect after a higher one. Seen from outside: the epoch that a server
//! has accepted, and the fence of each of its rooms, never go back within one boot and one cluster.

use std::collections::BTreeMap;

use hobnob_proto::{
    ids::{ClusterId, RoomName},
    time::Time,
    wire::frame::{Epoch, Fence},
};

use super::Invariant;
use crate::facts::{Fact, Process};

/// The invariant.
#[derive(Debug, Default)]
pub struct NeverBack {
    epochs: BTreeMap<(Process, Option<ClusterId>), Epoch>,
    fences: BTreeMap<(Process, Option<ClusterId>, RoomName), Fence>,
    /// Some epoch or fence took the place of another.
    moved: bool,
}

impl Invariant for NeverBack {
    fn name(&self) -> &'static str {
        "i10_epochs_never_go_back"
    }

    fn judged(&self) -> bool {
        self.moved
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Reborn { server } => {
                self.epochs.retain(|(process, _), _| process != server);
                self.fences.retain(|(process, ..), _| process != server);
                Ok(())
            }
            Fact::Accepted { server, cluster, epoch } => {
                let before = self.epochs.insert((*server, *cluster), *epoch);
                self.moved |= before.is_some();
                match before.filter(|before| before > epoch) {
                    Some(before) => Err(format!("server {} goes back from {before:?} to {epoch:?}", server.of)),
                    None => Ok(()),
                }
            }
            Fact::Fenced { server, cluster, room, fence } => {
                let before = self.fences.insert((*server, *cluster, (*room).clone()), *fence);
                self.moved |= before.is_some();
                match before.filter(|before| before > fence) {
                    Some(before) => {
                        Err(format!("server {} goes back in {room} from {before:?} to {fence:?}", server.of))
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{epoch, fence, first_bad, process};

    #[test]
    fn an_epoch_that_goes_back_is_seen() {
        let accepted = |of, term| Fact::Accepted { server: process(of), cluster: None, epoch: epoch(term) };
        let facts = [accepted(1, 2), accepted(2, 1), accepted(1, 3), accepted(1, 2)];
        assert_eq!(first_bad(&mut NeverBack::default(), &facts), Some(3));
        let restarted = Fact::Accepted { server: Process { of: 1, run: 2 }, cluster: None, epoch: epoch(1) };
        assert_eq!(first_bad(&mut NeverBack::default(), &[accepted(1, 2), restarted]), None);
    }

    #[test]
    fn a_fence_that_goes_back_is_seen() {
        let lobby = RoomName::lobby();
        let fenced = |n, home| Fact::Fenced { server: process(1), cluster: None, room: &lobby, fence: fence(n, home) };
        assert_eq!(first_bad(&mut NeverBack::default(), &[fenced(1, 2), fenced(2, 1), fenced(1, 3)]), Some(2));
    }
}
