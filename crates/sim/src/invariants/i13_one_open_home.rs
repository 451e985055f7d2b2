//! Invariant 13: every room has exactly one open home once quiet, and all servers agree which.

use std::collections::BTreeSet;

use hobnob_proto::time::Time;

use super::Invariant;
use crate::facts::{Fact, Picture};

/// The invariant.
#[derive(Debug, Default)]
pub struct OneOpenHome {
    /// Two servers had to agree on a room.
    shared: bool,
}

impl Invariant for OneOpenHome {
    fn name(&self) -> &'static str {
        "i13_one_open_home"
    }

    fn judged(&self) -> bool {
        self.shared
    }

    fn observe(&mut self, _fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        Ok(())
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        let of_servers = picture.servers.iter().flat_map(|server| server.rooms.keys());
        let of_clients = picture.clients.iter().flat_map(|client| client.rooms.keys());
        let rooms: BTreeSet<_> = of_servers.chain(of_clients).collect();
        self.shared |= picture.servers.len() > 1 && !rooms.is_empty();
        for room in rooms {
            let mut fences = BTreeSet::new();
            let mut open = Vec::new();
            for server in &picture.servers {
                let Some(view) = server.rooms.get(room) else {
                    return Err(format!("server {} does not know {room}", server.id));
                };
                fences.insert(view.fence);
                if view.open {
                    open.push(server.me);
                }
            }
            let [fence] = Vec::from_iter(fences)[..] else {
                return Err(format!("servers do not agree where {room} lives"));
            };
            if open != [Some(fence.home)] {
                return Err(format!("{room} should be open at {} alone, and is open at {open:?}", fence.home));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::wire::frame::Fence;

    use super::*;
    use crate::invariants::history::{client, fence, server};

    #[test]
    fn no_home_two_homes_and_a_wrong_home_are_seen() {
        fn check(first: (Fence, bool), second: (Fence, bool), expected: bool) {
            let servers = vec![server(1, 2, first.0, first.1, &[]), server(2, 2, second.0, second.1, &[])];
            let picture = Picture { servers, clients: vec![client(&[])], ..Picture::default() };
            assert_eq!(OneOpenHome::default().settled(&picture).is_ok(), expected, "{picture:?}");
        }
        check((fence(1, 1), true), (fence(1, 1), false), true);
        check((fence(1, 1), false), (fence(1, 1), false), false);
        check((fence(1, 1), true), (fence(1, 1), true), false);
        check((fence(1, 1), false), (fence(1, 1), true), false);
        check((fence(1, 1), true), (fence(2, 1), false), false);
    }

    #[test]
    fn a_room_that_only_its_clients_know_is_seen() {
        let mut lacking = server(1, 1, fence(1, 1), true, &[]);
        lacking.rooms.clear();
        let picture = Picture { servers: vec![lacking], clients: vec![client(&[])], ..Picture::default() };
        assert!(OneOpenHome::default().settled(&picture).is_err());
    }
}
