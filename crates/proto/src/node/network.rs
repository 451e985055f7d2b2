//! The network of this machine: its interfaces and addresses come and go, and who hears of which address.

use std::net::SocketAddr;

use super::{Node, Stage};
use crate::{
    addr::{Reach, reach, without_scope},
    directory,
    discovery::{
        self,
        interfaces::{Choice, is_same_network},
    },
    session::SessionId,
    wire::{Frame, frame::Member},
};

impl Node {
    /// The interfaces of this machine, and the addresses of the session socket at them, are these from now on.
    pub(super) fn set_network(&mut self, addrs: &[SocketAddr], interfaces: &[Choice]) {
        let is_news = addrs != self.config.addrs;
        let is_same = is_same_network(&self.interfaces, interfaces);
        let is_left_out = is_same && self.interfaces != interfaces && !is_news;
        self.interfaces = interfaces.to_vec();
        self.config.addrs = addrs.to_vec();
        // What is not used is shown to whoever asks, and nobody else hears of it.
        if self.stage == Stage::Choosing || is_left_out {
            return;
        }
        // A network of the same addresses may be another one: whoever is there hears of us in any case.
        self.discovery.network_changed(self.now);
        self.discover(discovery::Input::Tick);
        let known = self.myself();
        let me = Member { n: known.n.saturating_add(1), ..known };
        if is_news && self.learn_member(me.clone()) {
            let live: Vec<_> = self.heartbeat.live().collect();
            let sessions: Vec<_> = live.iter().filter_map(|peer| self.peers.get(&peer.id)?.session()).collect();
            for session in sessions {
                self.say_members(session, std::slice::from_ref(&me));
            }
        }
        if is_news {
            self.tell_servers();
        }
    }

    /// Tells a server of members, without the addresses that mean nothing there.
    pub(super) fn say_members(&mut self, session: SessionId, members: &[Member]) {
        let is_here = self.is_session_here(session);
        let told =
            members.iter().map(|member| if is_here { member.clone() } else { directory::members::for_others(member) });
        for members in directory::members::chunks(&told.collect::<Vec<_>>()) {
            self.say(session, &Frame::Members { members });
        }
    }

    /// What may be believed of members that a server tells of: on another machine, loopback means that machine.
    pub(super) fn believable(&self, session: SessionId, members: Vec<Member>) -> Vec<Member> {
        if self.is_session_here(session) {
            return members;
        }
        members.iter().map(directory::members::for_others).collect()
    }

    /// Addresses of a server as somebody is told them who is on this machine, or is not: of a link-local one, others have
    /// to find out by themselves on which of their links it is.
    pub(super) fn addrs_for(is_here: bool, addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let told = addrs.into_iter().filter_map(|addr| match reach(addr) {
            _ if is_here => Some(addr),
            Reach::Machine | Reach::Nowhere => None,
            Reach::Link => Some(without_scope(addr)),
            Reach::Anywhere => Some(addr),
        });
        told.collect()
    }

    /// Whether the other end of a session is on this machine.
    pub(super) fn is_session_here(&self, session: SessionId) -> bool {
        self.endpoint.addr(session).is_some_and(|addr| {
            reach(addr) == Reach::Machine || self.config.addrs.iter().any(|ours| ours.ip() == addr.ip())
        })
    }
}
