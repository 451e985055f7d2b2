//! The servers of the cluster, as the server that serves us tells.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{ids::ServerId, limits, rng::Rng, wire::frame::ServerAddrs};

/// Addresses kept of one server.
const ADDRS_MAX: usize = 16;

/// Servers that are up, with their addresses.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<ServerId, Vec<SocketAddr>>);

impl Servers {
    /// Takes the list of those that are `up`, and the addresses of some of them. Whether it changes which are up.
    pub(super) fn update(&mut self, up: &[ServerId], servers: Vec<ServerAddrs>) -> bool {
        let before = self.ids();
        self.0.retain(|id, _| up.contains(id));
        for id in up {
            if self.0.len() < limits::SERVERS_MAX {
                self.0.entry(*id).or_default();
            }
        }
        for mut server in servers {
            if let Some(addrs) = self.0.get_mut(&server.id) {
                server.addrs.truncate(ADDRS_MAX);
                *addrs = server.addrs;
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
        self.0.get(&server).map_or(&[], Vec::as_slice)
    }

    /// Every address of every server.
    pub(super) fn all_addrs(&self) -> Vec<SocketAddr> {
        self.0.values().flatten().copied().collect()
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
        let ids = |ids: &[u32]| ids.iter().copied().map(ServerId).collect::<Vec<_>>();
        assert!(servers.update(&ids(&[1, 2, 3]), list(&[1, 2])));
        assert!(!servers.update(&ids(&[1, 2, 3]), list(&[3])));
        assert_eq!(servers.all_addrs().len(), 3);
        assert!(servers.update(&ids(&[1, 3]), list(&[1])));
        assert_eq!(servers.ids(), ids(&[1, 3]));
        assert_eq!(servers.all_addrs().len(), 2, "an address is kept while its server is up");
        let many: Vec<_> = (10..100).collect();
        servers.update(&ids(&many), list(&many));
        assert_eq!(servers.ids().len(), limits::SERVERS_MAX, "a list is bounded");
    }
}
