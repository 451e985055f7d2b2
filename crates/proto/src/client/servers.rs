//! The servers of the cluster, as those that we have a session with tell, and where they may be reached.
//!
//! What one server does not name is not forgotten for that: it may be the one that is cut off. So the lists of several
//! servers add up here, and each [`Link`](super::link::Link) keeps whom its own server hears.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{ids::ServerId, limits, rng::Rng, time::Time, wire::frame::ServerAddrs};

/// Addresses kept of one server.
const ADDRS_MAX: usize = 16;
/// Servers that are remembered; past that the one that was named longest ago is forgotten.
const KNOWN_MAX: usize = 2 * limits::SERVERS_MAX;

/// Servers that were named, with their addresses.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<ServerId, Known>);

#[derive(Debug)]
struct Known {
    addrs: Vec<SocketAddr>,
    named_at: Time,
}

impl Servers {
    /// Takes a server's list of those that it hears, and the addresses of some of them.
    pub(super) fn update(&mut self, up: &[ServerId], servers: Vec<ServerAddrs>, now: Time) {
        for id in up.iter().take(limits::SERVERS_MAX) {
            self.0.entry(*id).or_insert(Known { addrs: Vec::new(), named_at: now }).named_at = now;
        }
        for mut server in servers {
            if let Some(known) = self.0.get_mut(&server.id) {
                server.addrs.truncate(ADDRS_MAX);
                known.addrs = server.addrs;
            }
        }
        while self.0.len() > KNOWN_MAX {
            let Some(oldest) = self.0.iter().min_by_key(|(_, known)| known.named_at).map(|(id, _)| *id) else { return };
            self.0.remove(&oldest);
        }
    }

    /// Where a server may be reached.
    pub(super) fn addrs(&self, server: ServerId) -> &[SocketAddr] {
        self.0.get(&server).map_or(&[], |known| known.addrs.as_slice())
    }

    /// Every address of every server.
    pub(super) fn all_addrs(&self) -> Vec<SocketAddr> {
        self.0.values().flat_map(|known| &known.addrs).copied().collect()
    }

    /// One at random of those whose `rank` is the lowest; those without one are left out.
    pub(super) fn random<R: Ord>(&self, rank: impl Fn(ServerId) -> Option<R>, rng: &mut Rng) -> Option<ServerId> {
        let ranked: Vec<_> = self.0.keys().filter_map(|id| Some((rank(*id)?, *id))).collect();
        let lowest = ranked.iter().map(|(rank, _)| rank).min()?;
        let best: Vec<_> = ranked.iter().filter(|(rank, _)| rank == lowest).map(|(_, id)| *id).collect();
        best.get(usize::try_from(rng.below(best.len() as u64)).ok()?).copied()
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

    fn ids(ids: impl IntoIterator<Item = u32>) -> Vec<ServerId> {
        ids.into_iter().map(ServerId).collect()
    }

    #[test]
    fn lists_add_up_and_what_one_does_not_name_stays() {
        let mut servers = Servers::default();
        servers.update(&ids([1, 2, 3]), list(&[1, 2]), Time::ZERO);
        servers.update(&ids([1, 2, 3]), list(&[3]), Time::ZERO);
        assert_eq!(servers.all_addrs().len(), 3);
        servers.update(&ids([3]), list(&[3]), Time::ZERO);
        assert_eq!(servers.all_addrs().len(), 3);
        servers.forget(ServerId(2));
        assert_eq!(servers.all_addrs().len(), 2);
    }

    #[test]
    fn those_that_were_named_longest_ago_make_room() {
        let mut servers = Servers::default();
        for id in 1..=100 {
            servers.update(&ids([7, id]), list(&[7, id]), Time::from_micros(id.into()));
        }
        let known: Vec<_> = servers.0.keys().map(|id| id.0).collect();
        assert_eq!(known.len(), KNOWN_MAX);
        assert_eq!((known[0], known[1]), (7, 70));
        let many = || 200..400;
        servers.update(&ids(many()), list(&many().collect::<Vec<_>>()), Time::from_micros(200));
        assert_eq!(servers.0.len(), KNOWN_MAX, "a list is bounded");
    }
}
