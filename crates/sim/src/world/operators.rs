//! What operators have done, by the questions that a client asks for them.

use hobnob_proto::{client, ids::ServerId, wire::frame::Ask};

use super::{Gone, STRANGER_ID, World};
use crate::{facts::Fact, invariants::Violation};

impl World {
    /// The id of the next server that takes another's place, if there are any left.
    pub(super) fn new_id(&mut self) -> Option<ServerId> {
        let id = ServerId(self.next_id);
        self.next_id += 1;
        Some(id).filter(|id| id.0 < STRANGER_ID)
    }

    /// Has the cluster forget a server that is dead and whose disk is lost; another one will start on its machine. In an
    /// open cluster nobody may, and the others wait for it for ever.
    pub(super) fn retire(&mut self, client: usize, of: usize) -> Result<(), Violation> {
        let (Some((operator, _)), Some(origin)) = (self.operator(client), self.servers[of].ended) else {
            return Ok(());
        };
        let Some(successor) = self.new_id() else { return Ok(()) };
        if !self.empty_disk(of)? {
            return Ok(());
        }
        let (id, who) = (self.servers[of].id, self.servers[of].process_of());
        self.servers[of].replace(successor);
        self.departed.push(Gone { who, host: of, origin });
        self.coverage.meet("operator retires a dead server");
        self.ask(operator, Ask::Retire { server: Some(id) })
    }

    /// Has the server of a client come over to the other cluster, if there is one.
    pub(super) fn join(&mut self, client: usize) -> Result<(), Violation> {
        let Some((operator, server)) = self.operator(client) else { return Ok(()) };
        let clusters = self.servers.iter().filter_map(|host| Some((host.id, host.process.as_ref()?.node.cluster_id())));
        let clusters: Vec<_> = clusters.collect();
        let Some((_, from)) = clusters.iter().find(|(id, _)| *id == server).copied() else { return Ok(()) };
        let Some(to) = clusters.iter().map(|(_, cluster)| *cluster).filter(|cluster| *cluster != from).min() else {
            return Ok(());
        };
        self.coverage.meet("operator joins two clusters");
        self.checker.observe(&Fact::Joins { from, to }, self.now)?;
        self.ask(operator, Ask::Join { cluster: to })
    }

    /// A client that is served, this one if it is, and by which server.
    fn operator(&self, client: usize) -> Option<(usize, ServerId)> {
        let clients = self.clients.len();
        let served = |of: usize| {
            let host = &self.clients[of];
            host.told.connected().filter(|_| host.is_up()).map(|server| (of, server))
        };
        (client..client + clients).find_map(|of| served(of % clients))
    }

    fn ask(&mut self, of: usize, ask: Ask) -> Result<(), Violation> {
        self.trace.story(self.now, format_args!("client {of} asks: {ask:?}"));
        self.queued += 1;
        self.command(of, client::Command::Ask { id: self.queued, ask })
    }
}
