//! Who this server is, and in which cluster: ids, handshakes with other servers, coming over to another cluster, and
//! collisions of ids.
//!
//! Nothing follows from a HELLO but an attempt to open a session: who the peers are is decided by
//! sessions that stand. In its handshake both servers name (id, boot) and prove the cluster's key; whoever reflects our own
//! handshake, or answers for somebody else, is refused.

use std::net::SocketAddr;

use super::{
    Event, Node, Output, Party, Stage, Stop, Timer,
    peers::{Held, Peer},
    probation::Probations,
};
use crate::{
    discovery::{self, Contact, Facts},
    election::{self, Election},
    heartbeat::{self, Heartbeat},
    ids::{Boot, ClusterId, Origin, ServerId},
    limits,
    session::{Role, SessionId, keys},
    store::Write,
    time::{Duration, Time},
    wire::{
        Frame, Greeting,
        frame::{Epoch, Member},
    },
};

/// How long a server listens at the least before it takes itself for alone.
const LISTEN: Duration = Duration::from_millis(300);
/// How long it waits for servers that it has heard to become live.
const JOIN_MAX: Duration = Duration::from_secs(2);
/// An older boot that has been silent for so long is dead, whatever else we think.
const SILENT: Duration = Duration::from_secs(1);

/// How old a cluster is taken for that is opened again: too old to be begun twice by chance.
const OLD: Duration = Duration::from_hours(1);

/// How far ahead of cluster time a boot of our own id may be that we take for one of our past, in seconds: a day.
const BOOT_AHEAD_SECS_MAX: u64 = 24 * 60 * 60;

/// The cluster that we are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) id: ClusterId,
    /// Whether nobody had said anything in it when we came.
    empty: bool,
    /// How old it was when we came, and when that was.
    age: Duration,
    since: Time,
}

impl Cluster {
    /// A new one.
    pub(super) fn found(id: ClusterId, now: Time) -> Self {
        Self { id, empty: true, age: Duration::ZERO, since: now }
    }

    /// One of another day, in which something was said or not.
    pub(super) fn reopen(id: ClusterId, empty: bool, now: Time) -> Self {
        Self { id, empty, age: OLD, since: now }
    }

    /// Whether nobody had said anything in it when we came.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    fn age(&self, now: Time) -> Duration {
        self.age + now.since(self.since)
    }
}

/// A session that we have opened and that does not stand yet.
#[derive(Debug)]
pub(super) struct Connecting {
    /// Who should answer.
    to: Origin,
    /// Of which cluster: another than ours where we come over.
    pub(super) cluster: Cluster,
    /// As which boot of ours.
    boot: Boot,
    /// Which of the sessions that we have opened it is.
    n: u64,
}

/// A server with our own id.
#[derive(Debug)]
pub(super) struct Rival {
    boot: Boot,
}

impl Node {
    /// What we tell of ourselves.
    fn facts(&self) -> Facts {
        Facts {
            cluster: self.cluster.id,
            name: self.config.cluster.clone(),
            id: self.said_id(),
            boot: self.me.boot,
            port: self.config.session_port,
            key: self.key.public,
            open: self.config.secret.is_none(),
            empty: self.is_empty(),
            age_secs: u32::try_from(self.cluster.age(self.now).as_secs()).unwrap_or(u32::MAX).min(3600),
            servers: self.heartbeat.live().count() as u32 + 1,
            suite: self.config.suite,
            ids: self.members.ids(),
        }
    }

    /// Our id, once we have one.
    fn said_id(&self) -> Option<ServerId> {
        (self.stage != Stage::Choosing).then_some(self.me.id)
    }

    /// Whether no person has said anything in our cluster, as far as we know: a newcomer to a cluster has nothing of what
    /// was said there yet, and is not empty for that.
    fn is_empty(&self) -> bool {
        self.cluster.empty && self.rooms.values().all(|room| room.log.is_empty())
    }

    pub(super) fn discover(&mut self, input: discovery::Input<'_>) {
        if self.is_closing() && matches!(input, discovery::Input::Datagram { .. }) {
            return;
        }
        let is_tick = matches!(input, discovery::Input::Tick);
        if is_tick && !self.discovery.is_due(self.cluster.id, self.said_id(), self.me.boot, self.now) {
            return;
        }
        let facts = self.facts();
        self.discovery.handle(input, &facts, self.now);
    }

    pub(super) fn on_discovery(&mut self, output: discovery::Output) {
        match output {
            discovery::Output::Broadcast { bytes } => self.out.push_back(Output::Broadcast { bytes }),
            discovery::Output::Send { to, bytes } => self.out.push_back(Output::Send { to, bytes }),
            discovery::Output::Candidate(contact) => {
                let origin = Origin { id: contact.id, boot: contact.boot };
                if contact.id == self.me.id {
                    self.open_session(origin, contact.addr, self.cluster, contact.suite);
                } else {
                    self.meet(origin, contact.addr, contact.suite);
                }
            }
            discovery::Output::Adopt(contact) => self.come_over(&contact),
            discovery::Output::Foreign(_) => {}
            discovery::Output::Choose(id) => {
                if self.stage == Stage::Choosing {
                    self.me.id = id;
                    self.begin();
                }
            }
        }
    }

    /// Opens a session to a server of another cluster; once it stands, we are of that one. Who is to stop stops where it is.
    pub(super) fn come_over(&mut self, contact: &Contact) {
        if self.is_stopping() {
            return;
        }
        let origin = Origin { id: contact.id, boot: contact.boot };
        let age = Duration::from_secs(contact.age_secs.into());
        let cluster = Cluster { id: contact.cluster, empty: contact.empty, age, since: self.now };
        self.open_session(origin, contact.addr, cluster, contact.suite);
    }

    /// In which cluster we are.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster.id
    }

    /// Takes part under the id that we have now, from the beginning.
    pub(super) fn begin(&mut self) {
        self.stage = Stage::Joining;
        self.started = self.now;
        self.heartbeat = Heartbeat::new(heartbeat::Config::default(), self.rng.fork(), self.now);
        self.election = Election::new(self.me, self.kept.term, self.rng.fork());
        self.clients.set_me(self.me);
        self.members.set_live([(self.me.id, !self.kept.has_store())].into());
        self.persist_me();
        self.learn_member(self.myself());
        self.timers.set(Timer::Joining, self.now + LISTEN);
    }

    /// Our own entry among the members.
    pub(super) fn myself(&self) -> Member {
        let Origin { id, boot } = self.me;
        let known = self.members.get(id).filter(|member| member.boot == boot);
        let (n, memory) = (known.map_or(1, |member| member.n), !self.kept.has_store());
        Member { id, boot, left: false, memory, n, addrs: self.config.addrs.clone() }
    }

    /// Whether joining is over: those that were heard are live, or have had time enough.
    pub(super) fn check_joined(&mut self) {
        if self.stage != Stage::Joining {
            return;
        }
        let waiting = !self.connecting.is_empty()
            || self.calls.values().any(|call| !call.is_done())
            || self.peers.values().any(|peer| !self.is_live(peer.origin) || peer.beat.is_none());
        let waits = waiting && self.now.since(self.started) < JOIN_MAX;
        if waits || !self.kept.is_me_durable() {
            self.timers.set(Timer::Joining, self.now + Duration::from_millis(20));
            return;
        }
        if let Some(last) = self.last_boot() {
            self.count("clock_behind");
            return self.be_another(self.me.id, last);
        }
        self.stage = Stage::Serving;
        self.has_served = true;
        self.timers.set(Timer::Sweep, self.now);
        let founded = self.peers.is_empty() && !self.has_reopened;
        self.event(Event::Ready { me: self.me, cluster: self.cluster.id, founded });
        self.update_view();
        self.elect(election::Input::Joined);
    }

    /// A later boot of our own id that others remember and nobody hears: our clock has gone back since, and we have to come
    /// after it. One that is far ahead of cluster time is somebody's invention, and not followed.
    fn last_boot(&self) -> Option<Boot> {
        let last = self.members.get(self.me.id)?.boot;
        let is_plausible = (last.0 >> 20) < (self.cluster_millis() / 1000).saturating_add(BOOT_AHEAD_SECS_MAX);
        let rival = Origin { id: self.me.id, boot: last };
        let beats = self.peers.values().filter_map(|peer| peer.beat.as_ref());
        let is_heard = beats.flat_map(|beat| &beat.hears).any(|heard| heard.peer == rival)
            || self.sessions.values().any(|party| matches!(party, Party::Rival(rival) if rival.boot == last));
        (last > self.me.boot && is_plausible && !is_heard).then_some(last)
    }

    // ---- handshakes

    /// Opens a session to a server, unless one is being opened.
    pub(super) fn open_session(&mut self, to: Origin, addr: SocketAddr, cluster: Cluster, suite: keys::Suite) {
        let is_open = |(session, party): (&SessionId, &Party)| match party {
            Party::Rival(rival) => {
                to.id == self.me.id && rival.boot == to.boot && self.endpoint.heard(*session).is_some()
            }
            _ => false,
        };
        if to == self.me
            || self.connecting.values().any(|call| call.to == to && call.cluster.id == cluster.id)
            || self.sessions.iter().any(is_open)
            || self.connecting.len() >= 4 * limits::SERVERS_MAX
        {
            return;
        }
        let key = keys::cluster_key(self.config.secret.as_ref(), &self.config.cluster, cluster.id);
        self.opened += 1;
        let (id, boot, n) = (self.me.id, self.boot_for(cluster.id), self.opened);
        let memory = !self.kept.has_store();
        let greeting = Greeting::Server { id, boot, cluster: cluster.id, n, to: Some(to), memory };
        let payload = greeting.to_payload();
        let session = self.endpoint.connect(addr, &key, &key.public, suite, &payload, self.now);
        self.connecting.insert(session, Connecting { to, cluster, boot, n });
    }

    /// Somebody opens a session to us. Until it is up, it has no effect.
    pub(super) fn on_asked(&mut self, session: SessionId, key: &[u8; 32], payload: &[u8]) {
        let Some(greeting) = Greeting::from_payload(payload) else {
            self.endpoint.close(session);
            return self.count("greeting_bad");
        };
        if let Err(cause) = self.vet(&greeting, key) {
            self.endpoint.close(session);
            return self.count(cause);
        }
        let (Origin { id, boot }, memory) = (self.me, !self.kept.has_store());
        let answer = Greeting::Server { id, boot, cluster: self.cluster.id, n: 0, to: None, memory };
        self.endpoint.accept(session, &answer.to_payload(), self.now);
    }

    /// Whether somebody may have a session: the cause for which not, otherwise.
    fn vet(&self, greeting: &Greeting, key: &[u8; 32]) -> Result<(), &'static str> {
        match greeting {
            Greeting::Server { id, boot, cluster, to, .. } => {
                let other = Origin { id: *id, boot: *boot };
                if *key != self.key.public {
                    Err("server_not_trusted")
                } else if *cluster != self.cluster.id || to.is_some_and(|to| to != self.me) {
                    Err("greeting_not_for_us")
                } else if other == self.me {
                    Err("reflected")
                } else if self.has_left(other) {
                    Err("server_has_left")
                } else if id.0 == 0
                    || (!self.peers.contains_key(id) && self.heartbeat.live().count() + 1 >= limits::SERVERS_MAX)
                {
                    Err("servers_full")
                } else {
                    Ok(())
                }
            }
            Greeting::Client { pass } => {
                let is_allowed = self
                    .config
                    .secret
                    .as_ref()
                    .is_none_or(|secret| pass.as_deref().is_some_and(|pass| keys::is_pass(secret, key, pass)));
                if self.stage == Stage::Choosing {
                    Err("not_ready")
                } else if !is_allowed {
                    Err("client_without_pass")
                } else if self.sessions.len() >= limits::CLIENT_SESSIONS_MAX {
                    Err("sessions_full")
                } else {
                    Ok(())
                }
            }
        }
    }

    /// A session stands, and the other side has proved its key.
    pub(super) fn on_up(&mut self, session: SessionId, role: Role, key: &[u8; 32], payload: &[u8]) {
        let Some(greeting) = Greeting::from_payload(payload) else {
            self.connecting.remove(&session);
            self.endpoint.close(session);
            return self.count("greeting_bad");
        };
        let expected = self.connecting.remove(&session);
        match (&greeting, expected) {
            (&Greeting::Server { id, boot, cluster, memory, .. }, Some(expected)) => {
                let origin = Origin { id, boot };
                if origin != expected.to || cluster != expected.cluster.id {
                    self.endpoint.close(session);
                    return self.count("greeting_not_for_us");
                }
                if cluster != self.cluster.id {
                    self.say_farewell(expected.boot);
                    self.me.boot = expected.boot;
                    self.adopt(expected.cluster);
                }
                self.server_up(session, role, expected.n, origin, memory);
            }
            // We were asked; what was vetted then may not hold any more.
            (&Greeting::Server { id, boot, n, memory, .. }, None) => {
                if self.vet(&greeting, key).is_err() {
                    self.endpoint.close(session);
                    return self.count("greeting_not_for_us");
                }
                self.server_up(session, role, n, Origin { id, boot }, memory);
            }
            (Greeting::Client { .. }, None) => {
                self.client_up(session, keys::person_id(key));
            }
            (Greeting::Client { .. }, Some(_)) => {
                self.endpoint.close(session);
                self.count("greeting_not_for_us");
            }
        }
    }

    fn server_up(&mut self, session: SessionId, role: Role, n: u64, origin: Origin, memory: bool) {
        if self.has_left(origin) {
            // It said so while we called it.
            self.endpoint.close(session);
            self.count("server_has_left");
        } else if origin.id == self.me.id {
            self.sessions.insert(session, Party::Rival(Rival { boot: origin.boot }));
            self.claim_id(session);
        } else {
            let by_lower = (role == Role::Initiator) == (self.me < origin);
            self.peer_up(origin, Held { by_lower, n, session }, memory);
        }
    }

    // ---- another cluster

    /// Leaves our own cluster, empty or young, for another. What people said here comes along; who leads and where rooms
    /// live is decided there.
    fn adopt(&mut self, cluster: Cluster) {
        let came_over = cluster.id != self.cluster.id;
        self.cluster = cluster;
        self.key = keys::cluster_key(self.config.secret.as_ref(), &self.config.cluster, cluster.id);
        self.endpoint.set_key(self.key.clone());
        self.lists.forget();
        let servers: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, party)| !matches!(party, Party::Client(_)))
            .map(|(session, _)| *session)
            .chain(self.connecting.keys().copied())
            .collect();
        for session in servers {
            self.endpoint.close(session);
            self.on_closed(session);
        }
        for id in std::mem::take(&mut self.peers).into_keys() {
            self.clients.drop_server(id);
        }
        self.connecting.clear();
        self.calls.clear();
        self.kept.forget();
        if came_over {
            self.members.clear();
            self.kept.term = 0;
            self.persist(Write::Cluster(cluster.id));
            self.has_gone_over();
        }
        self.records.clear();
        self.sync = None;
        self.granted = None;
        self.orphans.clear();
        self.placing.clear();
        self.detours = super::detours::Detours::default();
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in &names {
            self.timers.clear(&Timer::Resend(name.clone()));
            self.close_room(name);
        }
        self.begin();
        if came_over {
            // Those who stayed behind may call our clients over.
            self.tell_servers();
            self.event(Event::Adopted { cluster: cluster.id });
        }
    }

    // ---- one id, two servers

    /// Tells a rival how we stand.
    fn claim_id(&mut self, session: SessionId) {
        let (boot, asked) = (self.me.boot, self.config.id.is_some());
        self.say(session, &Frame::Collision { boot, asked, starting: self.is_starting() });
    }

    /// Whether it is only starting: it has not served yet, or did not listen for others before, and may have come upon one
    /// that has its id since.
    pub(super) fn is_starting(&self) -> bool {
        !self.has_served || self.now < self.unheard_until
    }

    /// Begins without listening for others. Where they are all the same, as with a copy of somebody's directory, it gives
    /// way to them for as long as it could have taken to find them.
    pub(super) fn begin_alone(&mut self) {
        self.unheard_until = self.now + JOIN_MAX;
        self.timers.set(Timer::Joining, self.now);
    }

    /// A rival says how it stands: one of us gives way. Both come to the same result.
    pub(super) fn on_collision(&mut self, session: SessionId, boot: Boot, asked: bool, starting: bool) {
        let Some(Party::Rival(_)) = self.sessions.get(&session) else { return self.count("frame_out_of_place") };
        let (we_asked, we_start) = (self.config.id.is_some(), self.is_starting());
        let younger = self.me.boot > boot;
        let we_yield = match (we_asked, asked) {
            (false, true) => true,
            (true, false) => false,
            _ if we_start != starting => we_start,
            _ => younger,
        };
        let addr = self.endpoint.addr(session);
        if !we_yield {
            return;
        }
        if let (true, Some(by)) = (we_asked, addr) {
            return self.stop(Stop::IdTaken { by });
        }
        let free = (1..=u32::MAX).map(ServerId).find(|id| *id != self.me.id && !self.members.contains(*id));
        let Some(free) = free else { return };
        self.be_another(free, self.me.boot);
    }

    /// Takes another id, or the same, and with it a boot later than `last`: nothing of this origin may be written twice.
    fn be_another(&mut self, id: ServerId, last: Boot) {
        let secs = self.cluster_millis() / 1000;
        let cluster = self.cluster;
        self.me = Origin { id, boot: Boot::new(secs, Some(last), &mut self.rng) };
        // Whoever comes over to another cluster remembers who flaps. This is another server, which has met nobody.
        self.probations = Probations::default();
        self.adopt(cluster);
    }

    /// Whether a boot of a server that we know has certainly ended, so that a newer one may take its place.
    pub(super) fn is_silent(&self, peer: &Peer) -> bool {
        let heard = peer.sessions.iter().filter_map(|held| self.endpoint.heard(held.session)).max();
        heard.is_none_or(|heard| self.now.since(heard) >= SILENT)
    }

    /// The highest epoch that this server has accepted.
    pub(super) fn epoch(&self) -> Epoch {
        self.election.epoch()
    }
}
