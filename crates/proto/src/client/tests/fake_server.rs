//! A server that does the least, and what all of them share.

use std::collections::BTreeMap;

use super::world::{CLUSTER, origin, sealed, server_addr};
use crate::{
    discovery::packet::{self, Facts},
    ids::{Boot, ClusterId, ClusterName, DeviceId, RoomName, ServerId},
    log::{Entry, Hash, PostKey, VersionVector},
    rng::Rng,
    session::{
        Endpoint, SessionId,
        keys::{self, Secret, Suite},
    },
    wire::{
        Frame,
        frame::{Ack, FragmentOf, Hi, Post, Pulled, Refusal, Refuse, ServerAddrs, Start, Welcome},
        vectors,
    },
};

/// What the servers share: the log, as if copies took no time.
#[derive(Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
}

impl Log {
    pub(super) fn heads(&self, room: &RoomName) -> VersionVector {
        self.entries.iter().filter(|entry| entry.room == *room).map(|entry| (entry.origin, entry.seq)).collect()
    }

    fn wanted(&self, room: &RoomName, want: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut found: Vec<_> = self.entries.iter().filter(|e| e.room == *room && want(e)).cloned().collect();
        found.sort_by_key(Entry::order);
        found
    }
}

/// A server that does the least.
pub(super) struct FakeServer {
    pub(super) id: u32,
    pub(super) alive: bool,
    pub(super) cluster: ClusterId,
    pub(super) name: ClusterName,
    pub(super) secret: Option<Secret>,
    /// How many servers it claims to know of.
    pub(super) count: u32,
    /// Whether posts are stored at once, or only accepted.
    pub(super) stores: bool,
    pub(super) drops_posts: u32,
    pub(super) clashes: Option<DeviceId>,
    /// Names that it does not take.
    pub(super) taken: Vec<String>,
    pub(super) go: Option<u32>,
    /// The servers that it says it hears, where those are not all that are alive.
    pub(super) hears: Option<Vec<u32>>,
    /// The boots that it names, where those are not 1.
    pub(super) boots: BTreeMap<u32, u64>,
    /// The key that it claims its cluster has, where that is a lie.
    pub(super) claims: Option<[u8; 32]>,
    /// Whether it takes handshakes and says nothing more.
    pub(super) mute: bool,
    /// Whether it pushes history after a join, or waits to be pulled.
    pub(super) pushes: bool,
    pub(super) joins: Vec<Start>,
    pub(super) posts: Vec<Post>,
    pub(super) his: Vec<Hi>,
    pub(super) byes: u32,
    pub(super) pings: u32,
    /// Handshakes that came to a session.
    pub(super) sessions: u32,
    pub(super) acknowledged: VersionVector,
    pub(super) endpoint: Endpoint,
    pub(super) people: BTreeMap<SessionId, ([u8; 32], Option<Hi>)>,
    pub(super) followers: Vec<(SessionId, RoomName)>,
}

impl FakeServer {
    pub(super) fn new(id: u32) -> Self {
        let mut server = Self {
            id,
            alive: true,
            cluster: CLUSTER,
            name: "hobnob".parse().unwrap(),
            secret: None,
            count: 1,
            stores: true,
            drops_posts: 0,
            clashes: None,
            taken: Vec::new(),
            go: None,
            hears: None,
            boots: BTreeMap::new(),
            claims: None,
            mute: false,
            pushes: true,
            joins: Vec::new(),
            posts: Vec::new(),
            his: Vec::new(),
            byes: 0,
            pings: 0,
            sessions: 0,
            acknowledged: VersionVector::default(),
            endpoint: Endpoint::new(None, Rng::from_seed([id as u8; 32])),
            people: BTreeMap::new(),
            followers: Vec::new(),
        };
        server.rekey();
        server
    }

    /// Takes over a changed secret, name or cluster.
    pub(super) fn rekey(&mut self) {
        self.endpoint.set_key(keys::cluster_key(self.secret.as_ref(), &self.name, self.cluster));
    }

    pub(super) fn here(&self, nonce: packet::Nonce) -> Vec<u8> {
        let facts = Facts {
            cluster: self.cluster,
            name: self.name.clone(),
            id: Some(ServerId(self.id)),
            boot: Boot(1),
            port: 5_001,
            key: self
                .claims
                .unwrap_or_else(|| keys::cluster_key(self.secret.as_ref(), &self.name, self.cluster).public),
            open: self.secret.is_none(),
            empty: false,
            age_secs: 100,
            servers: self.count,
            suite: Suite::ChaChaPoly,
            ids: vec![ServerId(self.id)],
        };
        packet::here(&facts, nonce, &keys::discovery_key(self.secret.as_ref(), &self.name))
    }

    fn say(&mut self, to: SessionId, frame: &Frame) {
        let line = frame.to_line();
        match frame {
            Frame::Entry(entry) => {
                let of = || FragmentOf::Entry(entry.room.clone(), entry.origin, entry.seq);
                self.endpoint.send_large(to, of, &line);
            }
            _ => self.endpoint.send(to, line.as_bytes()),
        }
    }

    /// Says something to every client that has said hi.
    pub(super) fn say_to_all(&mut self, frame: &Frame) {
        for session in self.people.keys().copied().collect::<Vec<_>>() {
            self.say(session, frame);
        }
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        let followers: Vec<_> = self.followers.iter().filter(|(_, room)| *room == entry.room).cloned().collect();
        for (session, _) in followers {
            self.say(session, &Frame::Entry(entry.clone()));
        }
    }

    pub(super) fn take(&mut self, session: SessionId, frame: Frame, log: &mut Log, up: &[u32]) {
        if self.mute {
            return;
        }
        match frame {
            Frame::Hi(hi) => self.greet(session, hi, up),
            Frame::Join { room, from } => {
                self.joins.push(from.clone());
                let heads = log.heads(&room);
                let start = match from {
                    Start::After(cursor) => cursor,
                    Start::Last(n) => {
                        let all = log.wanted(&room, |_| true);
                        let skipped = all.len().saturating_sub(n as usize);
                        all[..skipped].iter().map(|entry| (entry.origin, entry.seq)).collect()
                    }
                    Start::Since(_) => heads.clone(),
                };
                if !self.followers.contains(&(session, room.clone())) {
                    self.followers.push((session, room.clone()));
                }
                for part in vectors::joined(&room, &start, &heads) {
                    self.say(session, &part);
                }
                if self.pushes {
                    for entry in log.wanted(&room, |entry| !start.holds(entry.origin, entry.seq)) {
                        self.say(session, &Frame::Entry(entry));
                    }
                }
            }
            Frame::Pull(pull) => {
                let wants = |entry: &Entry| {
                    pull.want
                        .iter()
                        .any(|(of, first, last)| *of == entry.origin && (*first..=*last).contains(&entry.seq))
                };
                let mut entries = log.wanted(&pull.room, wants);
                entries.truncate(pull.max as usize);
                let sent = u32::try_from(entries.len()).unwrap();
                for entry in entries {
                    self.say(session, &Frame::Entry(entry));
                }
                let top = log.heads(&pull.room);
                self.say(
                    session,
                    &Frame::Pulled(Pulled {
                        room: pull.room,
                        id: pull.id,
                        sent,
                        top,
                        floors: VersionVector::default(),
                        lacks: Vec::new(),
                    }),
                );
            }
            Frame::Post(post) => self.admit(session, post, log),
            Frame::Ping { n } => {
                self.pings += 1;
                self.say(session, &Frame::Pong { n });
                let list = self.list(up);
                self.say(session, &list);
            }
            Frame::Ask { id, .. } => {
                for part in [1, 0] {
                    self.say(session, &Frame::Answer { id, part, last: part == 1, data: part.into() });
                }
            }
            Frame::Cursor { rooms } => rooms.values().for_each(|cursor| self.acknowledged.merge(cursor)),
            Frame::Part { room } => self.followers.retain(|follower| *follower != (session, room.clone())),
            Frame::Bye => self.byes += 1,
            _ => {}
        }
    }

    fn greet(&mut self, session: SessionId, hi: Hi, up: &[u32]) {
        let (number, standby) = (hi.session, hi.standby.is_some());
        self.his.push(hi.clone());
        if self.taken.iter().any(|name| name == hi.name.as_str()) {
            let suggestion = format!("{}2", hi.name).parse().ok();
            self.say(session, &Frame::NotWelcome { why: "that name is taken".into(), suggestion });
            return;
        }
        if let Some(person) = self.people.get_mut(&session) {
            person.1 = Some(hi);
        }
        let (server, go) = (ServerId(self.id), self.go.filter(|_| !standby).map(ServerId));
        self.say(session, &Frame::Welcome(Welcome { server, session: number, standby, go, time: 1 }));
        let list = self.list(up);
        self.say(session, &list);
    }

    /// Whom it hears; `up` are all that are alive.
    fn list(&self, up: &[u32]) -> Frame {
        let up = self.hears.as_deref().unwrap_or(up);
        let servers: Vec<_> = up
            .iter()
            .map(|id| {
                let boot = Boot(self.boots.get(id).copied().unwrap_or(1));
                ServerAddrs { id: ServerId(*id), boot, addrs: vec![server_addr(*id)] }
            })
            .collect();
        let up = servers.iter().map(|server| server.id).collect();
        Frame::Servers { cluster: self.cluster, key: String::new(), up, servers }
    }

    /// It forgets all sessions, and runs under another boot.
    pub(super) fn restart(&mut self, boot: u64) {
        let seed = [u8::try_from(boot).unwrap(); 32];
        self.endpoint = Endpoint::new(None, Rng::from_seed(seed));
        self.rekey();
        self.people.clear();
        self.followers.clear();
        self.boots.insert(self.id, boot);
    }

    /// From now on it hears these alone, and says so.
    pub(super) fn hear(&mut self, ids: &[u32]) {
        self.hears = Some(ids.to_vec());
        let list = self.list(ids);
        self.say_to_all(&list);
    }

    fn admit(&mut self, session: SessionId, post: Post, log: &mut Log) {
        self.posts.push(post.clone());
        if self.drops_posts > 0 {
            self.drops_posts -= 1;
            return;
        }
        let Some((key, Some(hi))) = self.people.get(&session).cloned() else { panic!("a post before hi: {post:?}") };
        if self.clashes == Some(hi.device) {
            let why = Refusal::Clash;
            self.say(session, &Frame::Refuse(Refuse { room: post.room, seq: post.seq, why, to: None }));
            return;
        }
        let person = keys::person_id(&key);
        let of = PostKey { person, device: hi.device, client_seq: post.seq };
        let known = log.entries.iter().find(|entry| entry.room == post.room && entry.post_key() == of).cloned();
        let entry = known.unwrap_or_else(|| {
            let seq = log.heads(&post.room).get(origin(self.id)) + 1;
            let newest = log.entries.iter().map(|entry| entry.hlc).max().unwrap_or_default();
            let entry = sealed(Entry {
                room: post.room.clone(),
                origin: origin(self.id),
                seq,
                hlc: newest.max(post.shown).next(1),
                from: hi.name,
                person,
                device: hi.device,
                client_seq: post.seq,
                kind: "message".into(),
                body: post.body.as_str().into(),
                hash: Hash::default(),
            });
            log.entries.push(entry.clone());
            entry
        });
        self.push(&entry);
        for stored in [false, true].into_iter().take(1 + usize::from(self.stores)) {
            self.say(
                session,
                &Frame::Ack(Ack {
                    room: post.room.clone(),
                    seq: post.seq,
                    origin: entry.origin,
                    entry: entry.seq,
                    hlc: entry.hlc,
                    copies: 1 + u32::from(stored),
                    stored,
                    durable: false,
                    to: None,
                }),
            );
        }
    }
}
