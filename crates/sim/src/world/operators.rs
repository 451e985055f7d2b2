//! What operators have done, by the questions that a client asks for them.
//!
//! A question may be refused, or never reach anybody. So what an operator wants is met only once it is so: members know
//! that the dead server is none any more, or a server has come over.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    client,
    ids::{ClusterId, Origin, ServerId},
    wire::frame::Ask,
};

use super::{Gone, STRANGER_ID, World};
use crate::{
    facts::{Fact, Process},
    host::ServerProcess,
    invariants::Violation,
};

/// A dead server that an operator has asked the cluster to forget.
#[derive(Clone, Copy, Debug)]
pub struct Retiring {
    /// Who is to be forgotten.
    pub origin: Origin,
    /// Who comes in its place, once it is.
    pub successor: ServerId,
}

/// Servers that an operator has asked to come over to another cluster.
#[derive(Debug)]
pub(super) struct Joining {
    client: usize,
    /// The number of the question; `None` once it is answered, or its client has ended.
    ask: Option<u64>,
    to: ClusterId,
    /// Those that were asked, and have neither refused nor come. A client that moves asks its new server as well.
    asked: BTreeSet<Process>,
}

impl World {
    /// The id of the next server that takes another's place, if there are any left.
    pub(super) fn new_id(&mut self) -> Option<ServerId> {
        let id = ServerId(self.next_id);
        self.next_id += 1;
        Some(id).filter(|id| id.0 < STRANGER_ID)
    }

    /// Has the cluster forget a server that is dead and whose disk is lost. Another one starts on its machine then; where
    /// nobody has forgotten it by that time, it comes back itself, with an empty disk.
    pub(super) fn retire(&mut self, client: usize, of: usize) -> Result<(), Violation> {
        let (Some((operator, _)), Some(origin)) = (self.operator(client), self.servers[of].ended) else {
            return Ok(());
        };
        let Some(successor) = self.new_id() else { return Ok(()) };
        if !self.empty_disk(of)? {
            return Ok(());
        }
        let (id, who) = (self.servers[of].id, self.servers[of].process_of());
        self.servers[of].retiring = Some(Retiring { origin, successor });
        self.departed.push(Gone { who, host: of, origin });
        self.ask(operator, Ask::Retire { server: Some(id) }).map(drop)
    }

    /// A server is about to be started: another one in its place, if it was retired and somebody knows.
    pub(super) fn take_retired_place(&mut self, of: usize) {
        let Some(Retiring { origin, successor }) = self.servers[of].retiring else { return };
        let mut nodes = self.servers.iter().filter_map(|host| Some(&host.process.as_ref()?.node));
        let is_gone = nodes.any(|node| {
            node.members().any(|member| member.left && (member.id, member.boot) == (origin.id, origin.boot))
        });
        if is_gone {
            self.coverage.meet("operator retires a dead server");
            self.servers[of].retiring = None;
            self.servers[of].replace(successor);
        }
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
        self.joining.push(Joining { client: operator, ask: None, to, asked: BTreeSet::new() });
        self.asks_to_join(self.joining.len() - 1, server)?;
        let ask = self.ask(operator, Ask::Join { cluster: to })?;
        if let Some(joining) = self.joining.last_mut() {
            joining.ask = Some(ask);
        }
        Ok(())
    }

    /// Who went over to the other cluster, and could not hand over what it held, is a member that is down where it was:
    /// operators have it forgotten there, as `hobnob status` would have them do.
    pub fn retire_who_went_over(&mut self) -> Result<(), Violation> {
        if self.joining.is_empty() {
            return Ok(());
        }
        let (mut asks, mut in_order) = (BTreeMap::new(), false);
        for (of, host) in self.clients.iter().enumerate().filter(|(_, host)| host.is_up()) {
            let server = host.told.connected().and_then(|id| self.servers.iter().find(|host| host.id == id));
            let Some(node) = server.and_then(|host| Some(&host.process.as_ref()?.node)) else { continue };
            let is_elsewhere = |id| {
                let others = self.servers.iter().filter_map(|host| Some(&host.process.as_ref()?.node));
                others.into_iter().any(|other| other.origin().id == id && other.cluster_id() != node.cluster_id())
            };
            let gone = node.members().filter(|member| !member.left && is_elsewhere(member.id));
            if node.members().any(|member| member.left && is_elsewhere(member.id)) {
                in_order = true;
            }
            asks.extend(gone.map(|member| ((node.cluster_id(), member.id), of)));
        }
        if in_order {
            self.coverage.meet("operator brings over who has left in order");
        }
        for ((_, id), client) in asks {
            self.coverage.meet("operator retires who went over");
            self.ask(client, Ask::Retire { server: Some(id) })?;
        }
        Ok(())
    }

    /// What a client is told may be an answer to its operator, or say that another server is asked from now on.
    pub(super) fn operator_hears(&mut self, client: usize, event: &client::Event) -> Result<(), Violation> {
        let open = self.joining.iter().enumerate().filter(|(_, joining)| joining.client == client);
        let open: Vec<_> = open.filter_map(|(n, joining)| Some((n, joining.ask?))).collect();
        for (n, ask) in open {
            match event {
                client::Event::Connected { server, .. } => self.asks_to_join(n, *server)?,
                client::Event::Answer { id, .. } if *id == ask => self.joining[n].ask = None,
                client::Event::AnswerError { id, .. } if *id == ask => {
                    self.joining[n].ask = None;
                    let server = self.clients[client].told.connected();
                    if let Some(server) = server.and_then(|server| self.process_of(server))
                        && self.joining[n].asked.remove(&server)
                    {
                        self.checker.observe(&Fact::JoinsNot { server }, self.now)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A client ends, and asks nothing any more.
    pub(super) fn operator_goes(&mut self, client: usize) {
        for joining in self.joining.iter_mut().filter(|joining| joining.client == client) {
            joining.ask = None;
        }
    }

    /// A server has done a step: perhaps it has come over to where it was asked to.
    pub(super) fn came_over(&mut self, running: &ServerProcess) {
        let cluster = running.node.cluster_id();
        for joining in self.joining.iter_mut().filter(|joining| joining.to == cluster) {
            if joining.asked.remove(&running.process) {
                self.coverage.meet("operator joins two clusters");
            }
        }
    }

    /// A server is asked to come over, unless it is there.
    fn asks_to_join(&mut self, n: usize, server: ServerId) -> Result<(), Violation> {
        let to = self.joining[n].to;
        let host = self.servers.iter().find(|host| host.id == server).and_then(|host| host.process.as_ref());
        let Some(server) = host.filter(|running| running.node.cluster_id() != to).map(|running| running.process) else {
            return Ok(());
        };
        self.joining[n].asked.insert(server);
        self.checker.observe(&Fact::Joins { server, to }, self.now)
    }

    /// The present run of a server.
    fn process_of(&self, id: ServerId) -> Option<Process> {
        self.servers.iter().find(|host| host.id == id)?.process.as_ref().map(|running| running.process)
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

    /// Has a client ask something: the number of the question.
    fn ask(&mut self, of: usize, ask: Ask) -> Result<u64, Violation> {
        self.trace.story(self.now, format_args!("client {of} asks: {ask:?}"));
        self.queued += 1;
        let id = self.queued;
        self.command(of, client::Command::Ask { id, ask })?;
        Ok(id)
    }
}
