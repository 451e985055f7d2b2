//! A look at what a client keeps in memory, for whoever checks it; as [`crate::node::census`] does for servers.

use super::{Client, Link};
use crate::{
    limits,
    node::census::{self, Queue},
    session::Talk,
};

impl Client {
    /// Everything that it keeps. Looks at each session and room.
    pub fn queues(&self) -> Vec<Queue> {
        let stranded = self.rooms.values().map(super::Room::stranded).max().unwrap_or_default();
        let mut queues = vec![
            Queue::draining("entries above a hole in a room", stranded, limits::STRANDED_MAX),
            Queue::lasting("rooms", self.rooms.len(), limits::ROOMS_PER_CLIENT_MAX),
            Queue::draining("sessions that are parted from", self.parting.len(), limits::SERVERS_MAX),
        ];
        queues.extend(census::of_sessions(&self.endpoint.census()));
        queues
    }

    /// The states of its parts and of each session, by name. Some come more than once.
    pub fn states(&self) -> Vec<&'static str> {
        let primary = match &self.primary {
            None => "client searching",
            Some(link) if !link.up => "client calling",
            Some(link) if !link.entered => "client says hi",
            Some(_) => "client served",
        };
        let is_there = |link: &Option<Link>, state| link.as_ref().map(|_| state);
        let census = self.endpoint.census();
        let others = [
            is_there(&self.standby, "client with a standby"),
            is_there(&self.coming, "client on its way"),
            is_there(&self.leaving, "client has left a server"),
            self.uneven.as_ref().map(|_| "client compares servers"),
            self.lookup.as_ref().map(|_| "client looks up"),
            (census.rekeying > 0).then_some("client rekeying"),
        ];
        std::iter::once(primary).chain(others.into_iter().flatten()).collect()
    }

    /// Counts the frames that are said and heard from now on.
    pub fn listen_in(&mut self) {
        self.endpoint.listen_in();
    }

    /// What was counted since then.
    pub fn talk(&self) -> Option<&Talk> {
        self.endpoint.talk()
    }
}
