//! What clients are told about servers: whom this one hears, and where they may be reached.
//!
//! A client pings when a room falls silent, and may be one of ten thousand that do so in one moment. So the list is kept
//! as it is said: once for clients on this machine, and once for others. It is built anew when servers come, go, or move,
//! and otherwise after [`KEPT`], since the address of a server may change with any packet of it.

use super::{Node, Party};
use crate::{
    session::SessionId,
    text,
    time::{Duration, Time},
    wire::{Frame, frame::ServerAddrs},
};

/// For how long a list is said without looking whether it is still right.
const KEPT: Duration = Duration::from_millis(250);
/// Addresses of one server that clients are told.
const ADDRS_MAX: usize = 4;

/// The lists that were said last: for clients on other machines, and for those on this one.
#[derive(Debug, Default)]
pub(super) struct Lists([Option<List>; 2]);

#[derive(Debug)]
struct List {
    built_at: Time,
    lines: Vec<String>,
}

impl Lists {
    /// The next list is built anew.
    pub(super) fn forget(&mut self) {
        self.0 = [None, None];
    }

    /// The lines of a list that is still good.
    fn get(&self, is_here: bool, now: Time) -> Option<&[String]> {
        let list = self.0[usize::from(is_here)].as_ref()?;
        (now.since(list.built_at) < KEPT).then_some(list.lines.as_slice())
    }

    fn set(&mut self, is_here: bool, lines: Vec<String>, now: Time) {
        self.0[usize::from(is_here)] = Some(List { built_at: now, lines });
    }
}

impl Node {
    /// For a client on this machine, or for one on another.
    fn servers_frames(&self, is_here: bool) -> Vec<Frame> {
        let peers = self.heartbeat.live().filter_map(|origin| {
            let peer = self.peers.get(&origin.id)?;
            // The only one that is known to work comes first: the list is cut.
            let mut addrs: Vec<_> =
                peer.session().and_then(|session| self.endpoint.addr(session)).into_iter().collect();
            let told = self.members.get(origin.id).into_iter().flat_map(|member| &member.addrs);
            addrs.extend(told.filter(|addr| !addrs.contains(addr)).collect::<Vec<_>>());
            Some((origin, addrs))
        });
        let all = [(self.me, self.config.addrs.clone())].into_iter().chain(peers);
        let servers: Vec<_> = all
            .map(|(origin, addrs)| {
                let mut addrs = Self::addrs_for(is_here, addrs);
                addrs.truncate(ADDRS_MAX);
                ServerAddrs { id: origin.id, boot: origin.boot, addrs }
            })
            .collect();
        let up: Vec<_> = servers.iter().map(|server| server.id).collect();
        let key = text::encode(&self.key.public);
        servers
            .chunks(4)
            .map(|servers| Frame::Servers {
                cluster: self.cluster.id,
                key: key.clone(),
                up: up.clone(),
                servers: servers.to_vec(),
            })
            .collect()
    }

    /// Builds a list, if there is none that is still good.
    fn keep_list(&mut self, is_here: bool) {
        if self.lists.get(is_here, self.now).is_none() {
            let lines = self.servers_frames(is_here).iter().map(Frame::to_line).collect();
            self.lists.set(is_here, lines, self.now);
        }
    }

    /// Tells a client which servers there are.
    pub(super) fn say_servers(&mut self, session: SessionId) {
        let is_here = self.is_session_here(session);
        self.keep_list(is_here);
        for line in self.lists.get(is_here, self.now).unwrap_or_default() {
            self.endpoint.send(session, line.as_bytes());
        }
    }

    /// Servers have come or gone: all clients hear of it.
    pub(super) fn tell_servers(&mut self) {
        self.lists.forget();
        let known = |party: &Party| matches!(party, Party::Client(served) if served.is_known());
        let sessions: Vec<_> =
            self.sessions.iter().filter(|(_, party)| known(party)).map(|(session, _)| *session).collect();
        for session in sessions {
            self.say_servers(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_said_again_as_it_is_but_not_for_long() {
        fn check(after: Duration, is_here: bool, expected: Option<&str>) {
            let mut lists = Lists::default();
            lists.set(true, vec!["servers".into()], Time::ZERO);
            let lines = lists.get(is_here, Time::ZERO + after);
            assert_eq!(lines.and_then(|lines| lines.first()).map(String::as_str), expected, "after {after:?}");
            lists.forget();
            assert_eq!(lists.get(true, Time::ZERO), None);
        }
        check(Duration::ZERO, true, Some("servers"));
        check(Duration::ZERO, false, None);
        check(KEPT / 2, true, Some("servers"));
        check(KEPT, true, None);
    }
}
