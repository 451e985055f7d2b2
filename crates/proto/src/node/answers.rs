//! Answers to questions of people and programs: status, rooms, who, retire, join.
//!
//! An answer goes as parts that each fit a frame; a client that has missed one asks again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Node, Party, Stage};
use crate::{
    discovery::{Foreign, interfaces::Choice},
    ids::{ClusterId, ClusterName, RoomName, ServerId},
    limits,
    session::SessionId,
    wire::{
        Frame,
        frame::{Ask, Member},
    },
};

/// Bytes of data in one part: the rest of the frame is around it.
const PART_BYTES_MAX: usize = limits::FRAME_BYTES_MAX - 100;
/// Interfaces in a status, addresses of one, and characters of its name.
const INTERFACES_MAX: usize = 40;
const INTERFACE_ADDRS_MAX: usize = 8;
const INTERFACE_NAME_MAX: usize = 40;

impl Node {
    /// A client asks.
    pub(super) fn on_ask(&mut self, session: SessionId, id: u64, ask: Ask) {
        if !matches!(self.sessions.get(&session), Some(Party::Client(served)) if served.is_served()) {
            return self.count("frame_out_of_place");
        }
        match ask {
            Ask::Rooms => self.answer(session, id, lists(self.room_items(), |list| json!(list))),
            Ask::Who { room } => self.answer(session, id, lists(self.who_items(room.as_ref()), |list| json!(list))),
            Ask::Status => {
                let mut parts = vec![self.status_head()];
                parts.extend(lists(self.server_items(), |servers| json!({ "servers": servers })));
                parts.extend(lists(self.room_items(), |rooms| json!({ "rooms": rooms })));
                parts.extend(lists(self.interface_items(), |interfaces| json!({ "interfaces": interfaces })));
                self.answer(session, id, parts);
            }
            Ask::Retire { server } => match self.retire(session, server) {
                Ok(what) => self.answer(session, id, vec![json!(what)]),
                Err(why) => self.say(session, &Frame::AnswerError { id, why }),
            },
            Ask::Export { room } => {
                let head = self.export_head(session, room.as_ref());
                self.answer(session, id, vec![head]);
            }
            Ask::Import => {
                let state = self.import_state(session);
                self.answer(session, id, vec![state]);
            }
            Ask::Join { cluster } => match self.join_cluster(session, cluster) {
                Ok(what) => self.answer(session, id, vec![json!(what)]),
                Err(why) => self.say(session, &Frame::AnswerError { id, why }),
            },
        }
    }

    fn answer(&mut self, session: SessionId, id: u64, parts: Vec<Value>) {
        let last = parts.len().saturating_sub(1);
        for (part, data) in parts.into_iter().enumerate() {
            self.say(session, &Frame::Answer { id, part: part as u32, last: part == last, data });
        }
    }

    fn status_head(&self) -> Value {
        let mut counters = self.counters();
        counters.insert("deliveries", self.load.total());
        json!({
            "cluster": self.config.cluster,
            "cluster_id": self.cluster.id,
            "leader": self.election.leader(),
            "term": self.epoch().term,
            "me": self.me.id,
            "counters": counters,
        })
    }

    /// The interfaces, those that are used first. Of a machine with hundreds of containers not all the rest.
    fn interface_items(&self) -> Vec<Value> {
        let item = |choice: &Choice| {
            let ips = choice.interface.addrs.iter().map(|addr| addr.ip).take(INTERFACE_ADDRS_MAX);
            json!({"name": choice.interface.name.chars().take(INTERFACE_NAME_MAX).collect::<String>(),
                "addrs": ips.collect::<Vec<_>>(), "used": choice.used, "why": choice.why})
        };
        let (used, rest): (Vec<_>, Vec<_>) = self.interfaces.iter().partition(|choice| choice.used);
        used.into_iter().chain(rest).take(INTERFACES_MAX).map(item).collect()
    }

    fn server_items(&self) -> Vec<Value> {
        self.members.present().map(|member| self.server_item(member)).collect()
    }

    fn server_item(&self, member: &Member) -> Value {
        let role = if self.election.leader() == Some(member.id) { "leader" } else { "follower" };
        let addr = member.addrs.first();
        let homes = self.records.iter().filter(|record| record.fence.home.id == member.id).count();
        if member.id == self.me.id {
            let lag = self.heartbeat.lag().as_millis() as u64;
            let load = homes + self.load.rate() as usize;
            return json!({"id": member.id, "addr": self.config.addrs.first(), "role": role, "load": load,
                "sessions": self.devices.len(), "lag_ms": lag, "writable": self.kept.is_writable(),
                "unwritten": self.kept.unwritten(),
                "state": if self.is_on_probation(self.me.id) { "probation" } else { "up" }});
        }
        let peer = self.peers.get(&member.id);
        let addr = peer.and_then(|peer| self.endpoint.addr(peer.session()?)).or(addr.copied());
        let live = peer.is_some_and(|peer| self.is_live(peer.origin));
        let unheard = self.heartbeat.unheard().any(|peer| peer.id == member.id && peer.boot == member.boot);
        let state = match (live, unheard) {
            (true, _) if self.is_on_probation(member.id) => "probation",
            (true, _) => "up",
            (false, true) => "suspect",
            (false, false) => "down",
        };
        let beat = peer.and_then(|peer| peer.beat.as_ref()).filter(|_| live);
        let (load, sessions, lag) =
            beat.map_or((0, 0, 0), |beat| (beat.load as usize + homes, beat.sessions, beat.lag));
        json!({"id": member.id, "addr": addr, "role": role, "load": load, "sessions": sessions, "lag_ms": lag,
            "writable": !(live && self.is_unwritable(member.id)), "state": state})
    }

    fn room_items(&self) -> Vec<Value> {
        let mut members: BTreeMap<RoomName, usize> = BTreeMap::new();
        for name in self.clients.who(None).into_iter().flat_map(|who| who.client.rooms) {
            *members.entry(name).or_default() += 1;
        }
        self.records
            .iter()
            .map(|record| {
                let epoch = record.fence.epoch;
                let entries = self.rooms.get(&record.room).map_or(0, |room| room.log.len());
                json!({"name": record.room, "home": record.fence.home.id, "successors": record.successors,
                    "fence": [epoch.term, epoch.leader, record.fence.n], "members": members.get(&record.room).copied().unwrap_or(0),
                    "entries": entries})
            })
            .collect()
    }

    fn who_items(&self, room: Option<&RoomName>) -> Vec<Value> {
        self.clients
            .who(room)
            .into_iter()
            .map(|who| {
                json!({"name": who.client.name, "server": who.server, "via": who.client.via,
                    "rooms": who.client.rooms, "since": who.client.since})
            })
            .collect()
    }

    /// Removes a member for good. In an open cluster only from the server's own machine.
    fn retire(&mut self, session: SessionId, server: Option<ServerId>) -> Result<String, String> {
        if !self.has_authority(session) {
            let why = "only somebody on the machine of a server may retire it: run `hobnob retire` there";
            return Err(why.to_owned());
        }
        if self.stage != Stage::Serving {
            return Err("this server is not ready: try again in a moment".to_owned());
        }
        let id = server.unwrap_or(self.me.id);
        if id == self.me.id {
            self.leave(super::leave::Why::Retired);
            return Ok(format!("server {id} hands its rooms over and stops"));
        }
        let Some(member) = self.members.get(id).filter(|member| !member.left).cloned() else {
            return Err(format!("there is no server {id}: `hobnob status` lists them"));
        };
        if self.heartbeat.live().any(|peer| peer.id == id) {
            self.tell(id, &Frame::Retire);
            return Ok(format!("server {id} hands its rooms over and stops"));
        }
        let gone = Member { left: true, ..member };
        self.on_members(vec![gone.clone()]);
        self.tell_all(&Frame::Members { members: vec![gone] });
        Ok(format!("server {id} is no member any more"))
    }

    /// Brings this server, with all that it holds, into another cluster that it has heard of. What was said in both is
    /// united there; the other servers of our old cluster stay where they are.
    fn join_cluster(&mut self, session: SessionId, cluster: ClusterId) -> Result<String, String> {
        if !self.has_authority(session) {
            let why =
                "only somebody on the machine of a server may bring it into another cluster: run `hobnob join` there";
            return Err(why.to_owned());
        }
        let me = self.me.id;
        if cluster == self.cluster_id() {
            return Ok(format!("server {me} is in the cluster {cluster}"));
        }
        if self.joins() == Some(cluster) {
            return Ok(format!("server {me} goes over to the cluster {cluster}"));
        }
        if self.stage != Stage::Serving || self.leaving.is_some() {
            return Err("this server is not ready: try again in a moment".to_owned());
        }
        let Some(foreign) = self.discovery.foreign(self.now).find(|foreign| foreign.cluster == cluster) else {
            return Err(format!(
                "no server of the cluster {cluster} was heard in the last 30 s: `hobnob clusters` lists those that \
                 answer; where no broadcast passes, start this server with --peer and the address of one of them"
            ));
        };
        match foreign.contact {
            // Of two that asked for one id, one would have to stop. A member that is down there may be us, from before.
            Some(_) if self.config.id.is_some() && self.discovery.has_heard(cluster, me, self.now) => Err(format!(
                "the cluster {cluster} has a server {me} of its own: start this server with another --id, then join"
            )),
            Some(_) => {
                self.leave(super::leave::Why::Joins(cluster));
                Ok(format!("server {me} goes over to the cluster {cluster}"))
            }
            None if foreign.proven => Err("that cluster is only starting: try again in a moment".to_owned()),
            None => Err(other_name(foreign, &self.config.cluster)),
        }
    }

    /// Whether whoever asks may decide about this server: in an open cluster, somebody on its machine; in a closed one
    /// every client, which has shown that it knows the secret.
    pub(super) fn has_authority(&self, session: SessionId) -> bool {
        self.config.secret.is_some() || self.endpoint.addr(session).is_some_and(|addr| addr.ip().is_loopback())
    }
}

/// The words for a cluster that we cannot unite with.
fn other_name(foreign: &Foreign, ours: &ClusterName) -> String {
    if foreign.name == *ours {
        let why = "has another secret, or none where we have one: start this server with the same secret";
        format!("the cluster {} {why}, then join", foreign.cluster)
    } else {
        let name = &foreign.name;
        let why = format!("is named {name} and ours is {ours}: start this server with --cluster {name}");
        format!("the cluster {} {why}, then join", foreign.cluster)
    }
}

/// Puts items into as few lists as fit a part each; at least one.
fn lists(items: Vec<Value>, wrap: impl Fn(Vec<Value>) -> Value) -> Vec<Value> {
    let mut parts = Vec::new();
    let (mut list, mut bytes) = (Vec::new(), 0);
    for item in items {
        let size = item.to_string().len() + 1;
        if bytes + size > PART_BYTES_MAX - 20 && !list.is_empty() {
            parts.push(wrap(std::mem::take(&mut list)));
            bytes = 0;
        }
        bytes += size;
        list.push(item);
    }
    parts.push(wrap(list));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_goes_in_parts_that_fit_and_an_empty_one_in_one() {
        let items: Vec<_> = (0..100).map(|n| json!({"name": "x".repeat(90), "n": n})).collect();
        let parts = lists(items, |list| json!({ "rooms": list }));
        assert!(parts.len() > 5);
        assert!(parts.iter().all(|part| part.to_string().len() <= PART_BYTES_MAX));
        assert_eq!(parts.iter().map(|part| part["rooms"].as_array().unwrap().len()).sum::<usize>(), 100);
        assert_eq!(lists(Vec::new(), |list| json!(list)), [json!([])]);
    }
}
