//! The servers of the cluster, as the server that serves us tells.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    ids::ServerId,
    limits,
    rng::Rng,
    time::{Duration, Time},
    wire::frame::ServerAddrs,
};

/// A list that is too long comes as several frames: what was named so recently belongs to the same list.
const ONE_LIST: Duration = Duration::from_secs(1);
/// Addresses kept of one server.
const ADDRS_MAX: usize = 16;

/// Servers that are up, with their addresses.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<ServerId, Known>);

#[derive(Debug)]
struct Known {
    addrs: Vec<SocketAddr>,
    named_at: Time,
}

impl Servers {
    /// Takes a list, or a part of one. Whether it changes which servers are up.
    pub(super) fn update(&mut self, servers: Vec<ServerAddrs>, now: Time) -> bool {
        let before = self.ids();
        self.0.retain(|_, known| now.since(known.named_at) < ONE_LIST);
        for server in servers {
            if self.0.len() < limits::SERVERS_MAX || self.0.contains_key(&server.id) {
                let mut addrs = server.addrs;
                addrs.truncate(ADDRS_MAX);
                self.0.insert(server.id, Known { addrs, named_at: now });
            }
        }
        self.ids() != before
    }

    /// Which are up.
    pub(super) fn ids(&self) -> Vec<ServerId> {
        self.0.keys().copied().collect()
    }

    /// Where a server may be reached.
    pub(super) fn addrs(&self, server: ServerId) -> &[SocketAddr] {
        self.0.get(&server).map_or(&[], |known| &known.addrs)
    }

    /// Every address of every server.
    pub(super) fn all_addrs(&self) -> Vec<SocketAddr> {
        self.0.values().flat_map(|known| known.addrs.iter().copied()).collect()
    }

    /// One of them at random, other than those.
    pub(super) fn random_other(&self, than: &[Option<ServerId>], rng: &mut Rng) -> Option<ServerId> {
        let others: Vec<_> = self.0.keys().filter(|id| !than.contains(&Some(**id))).collect();
        let index = (!others.is_empty()).then(|| rng.below(others.len() as u64))?;
        others.get(usize::try_from(index).ok()?).map(|id| **id)
    }

    /// A server that is dead: no longer to be tried until it is named again.
    pub(super) fn forget(&mut self, server: ServerId) {
        self.0.remove(&server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Boot;

    fn list(ids: &[u32]) -> Vec<ServerAddrs> {
        let addrs = |id: u32| vec![SocketAddr::from(([10, 0, 0, 1], 5_000 + u16::try_from(id).unwrap()))];
        ids.iter().map(|id| ServerAddrs { id: ServerId(*id), boot: Boot(1), addrs: addrs(*id) }).collect()
    }

    #[test]
    fn parts_of_a_list_add_up_and_a_new_list_replaces_it() {
        let mut servers = Servers::default();
        let at = |millis: u64| Time::from_micros(millis * 1_000);
        assert!(servers.update(list(&[1, 2]), at(0)));
        assert!(servers.update(list(&[3]), at(1)));
        assert_eq!(servers.ids().len(), 3);
        assert!(servers.update(list(&[1, 3]), at(5_000)));
        assert_eq!(servers.ids(), [ServerId(1), ServerId(3)]);
        assert!(!servers.update(list(&[1, 3]), at(9_000)));
        servers.update(list(&(10..100).collect::<Vec<_>>()), at(20_000));
        assert_eq!(servers.ids().len(), limits::SERVERS_MAX, "a list is bounded");
    }
}
