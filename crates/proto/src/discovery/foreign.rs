//! Other clusters on this network: remembered for `clusters` and `status`, in a table of bounded size.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Contact, packet::Facts};
use crate::{
    ids::{ClusterId, ClusterName},
    time::{Duration, Time},
};

/// Clusters that are remembered; of more, those heard longest ago are forgotten.
pub const FOREIGN_MAX: usize = 64;
/// A cluster that has been silent for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// A cluster that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its id.
    pub cluster: ClusterId,
    /// Its name for people.
    pub name: ClusterName,
    /// Whether it says that it needs no secret.
    pub open: bool,
    /// Whether it has proved our secret: then it stays apart for what it holds, not for its secret.
    pub proven: bool,
    /// How many servers it says to have.
    pub servers: u32,
    /// The session address of the server that was heard last.
    pub addr: SocketAddr,
    /// How to open a session with a server of it; `None` unless one has proved our secret, and has an id.
    pub contact: Option<Contact>,
    /// When it was heard last.
    pub heard: Time,
}

/// All that are remembered.
#[derive(Debug, Default)]
pub(super) struct ForeignClusters(BTreeMap<ClusterId, Foreign>);

impl ForeignClusters {
    /// Remembers a cluster; whether it is a new one.
    pub(super) fn note(&mut self, facts: &Facts, addr: SocketAddr, proven: bool, now: Time) -> bool {
        self.0.retain(|_, foreign| now.since(foreign.heard) < FORGET_AFTER);
        if !proven && self.0.get(&facts.cluster).is_some_and(|known| known.proven) {
            return false;
        }
        if self.0.len() >= FOREIGN_MAX && !self.0.contains_key(&facts.cluster) {
            let oldest = self.0.values().min_by_key(|foreign| foreign.heard).map(|foreign| foreign.cluster);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        let foreign = Foreign {
            cluster: facts.cluster,
            name: facts.name.clone(),
            open: facts.open && proven,
            proven,
            servers: facts.servers,
            addr,
            contact: Contact::of(facts, addr).filter(|_| proven),
            heard: now,
        };
        self.0.insert(facts.cluster, foreign).is_none()
    }

    pub(super) fn forget(&mut self, cluster: ClusterId) {
        self.0.remove(&cluster);
    }

    pub(super) fn get(&self, cluster: ClusterId) -> Option<&Foreign> {
        self.0.get(&cluster)
    }

    pub(super) fn iter(&self, now: Time) -> impl Iterator<Item = &Foreign> {
        self.0.values().filter(move |foreign| now.since(foreign.heard) < FORGET_AFTER)
    }
}
