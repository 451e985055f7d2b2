//! Servers made of a [`Heartbeat`] and an [`Election`] each, a lossy network between them, and virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hobnob_proto::{
    election::{Election, Input, Message, Output, PeerView, State},
    heartbeat::{Change, Config, Heartbeat},
    ids::{Boot, Origin, ServerId},
    rng::Rng,
    time::Time,
    wire::frame::{Epoch, Heard, Rumour},
};

/// From its start until a server takes part.
const JOINING: Duration = Duration::from_secs(1);
/// How long the directory takes to merge.
const SYNCING: Duration = Duration::from_millis(20);

/// What the network carries.
#[derive(Clone, Debug)]
enum Packet {
    Beat { view: PeerView, hears: Vec<Heard>, hearsay: Vec<Rumour> },
    Election(Message),
}

/// A running server.
pub(crate) struct Server {
    me: Origin,
    heartbeat: Heartbeat,
    pub(crate) election: Election,
    beats: BTreeMap<ServerId, PeerView>,
    eligible: bool,
    joins: Option<Time>,
    synced: Option<(Time, Epoch)>,
    paused_until: Time,
}

/// All of it.
pub(crate) struct World {
    now: Time,
    rng: Rng,
    servers: BTreeMap<ServerId, Server>,
    /// In flight, by time of arrival: sender, receiver, content.
    packets: BTreeMap<(Time, u64), (Origin, ServerId, Packet)>,
    sent: u64,
    /// Pairs (from, to) between which nothing passes.
    cuts: BTreeSet<(ServerId, ServerId)>,
    /// What each server has on disk.
    terms: BTreeMap<ServerId, u64>,
    boots: u64,
    /// The highest epoch that each boot has accepted.
    epochs: BTreeMap<Origin, Epoch>,
    pub(crate) loss_percent: u64,
    /// How long every packet takes, beside a few milliseconds.
    pub(crate) delay: Duration,
    /// Who called whom dead.
    pub(crate) deaths: Vec<(ServerId, Origin)>,
    /// What servers said to their nodes.
    pub(crate) trace: Vec<(Time, ServerId, Output)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            now: Time::from_micros(1_000_000),
            rng: Rng::from_seed(bytes),
            servers: BTreeMap::new(),
            packets: BTreeMap::new(),
            sent: 0,
            cuts: BTreeSet::new(),
            terms: BTreeMap::new(),
            boots: 0,
            epochs: BTreeMap::new(),
            loss_percent: 0,
            delay: Duration::ZERO,
            deaths: Vec::new(),
            trace: Vec::new(),
        }
    }

    /// Starts a server that is not running.
    pub(crate) fn start(&mut self, id: u32) {
        let id = ServerId(id);
        if self.servers.contains_key(&id) {
            return;
        }
        self.boots += 1;
        let me = Origin { id, boot: Boot(self.boots) };
        let term = self.terms.get(&id).copied().unwrap_or(0);
        let server = Server {
            me,
            heartbeat: Heartbeat::new(Config::default(), self.rng.fork(), self.now),
            election: Election::new(me, term, self.rng.fork()),
            beats: BTreeMap::new(),
            eligible: true,
            joins: Some(self.now + JOINING),
            synced: None,
            paused_until: self.now,
        };
        self.servers.insert(id, server);
    }

    pub(crate) fn crash(&mut self, id: u32) {
        self.servers.remove(&ServerId(id));
    }

    /// Nothing passes from one to another any more; it still does the other way.
    pub(crate) fn cut(&mut self, from: u32, to: u32) {
        self.cuts.insert((ServerId(from), ServerId(to)));
    }

    /// Nothing passes between these and all others.
    pub(crate) fn split(&mut self, half: &[u32]) {
        let (these, others): (Vec<_>, Vec<_>) = self.servers.keys().map(|id| id.0).partition(|id| half.contains(id));
        for one in these {
            for other in &others {
                self.cut(one, *other);
                self.cut(*other, one);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// The server does nothing for so long; then all that came in the meantime arrives at once.
    pub(crate) fn pause(&mut self, id: u32, span: Duration) {
        if let Some(server) = self.servers.get_mut(&ServerId(id)) {
            server.paused_until = self.now + span;
        }
    }

    pub(crate) fn set_eligible(&mut self, id: u32, eligible: bool) {
        self.servers.get_mut(&ServerId(id)).expect("it runs").eligible = eligible;
        self.show(ServerId(id));
    }

    pub(crate) fn server(&self, id: u32) -> &Server {
        &self.servers[&ServerId(id)]
    }

    /// Whether a server takes another one for alive, heard or not.
    pub(crate) fn knows(&self, id: u32, other: u32) -> bool {
        let heartbeat = &self.server(id).heartbeat;
        heartbeat.live().chain(heartbeat.unheard()).any(|peer| peer.id == ServerId(other))
    }

    pub(crate) fn epoch(&self, id: u32) -> Epoch {
        self.server(id).election.epoch()
    }

    /// Who leads, in its own eyes.
    pub(crate) fn leaders(&self) -> Vec<u32> {
        let leads = |server: &&Server| server.election.state() == State::Leader;
        self.servers.values().filter(leads).map(|server| server.me.id.0).collect()
    }

    /// The only leader.
    pub(crate) fn leader(&self) -> Option<u32> {
        let leaders = self.leaders();
        (leaders.len() == 1).then(|| leaders[0])
    }

    /// Whom all servers follow, in one epoch.
    pub(crate) fn agreed(&self) -> Option<u32> {
        let leader = self.leader()?;
        let epoch = self.epoch(leader);
        let follows =
            |server: &Server| server.election.leader() == Some(ServerId(leader)) && server.election.epoch() == epoch;
        self.servers.values().all(follows).then_some(leader)
    }

    /// How often somebody has won.
    pub(crate) fn won(&self) -> usize {
        self.trace.iter().filter(|(.., output)| matches!(output, Output::Won(_))).count()
    }

    pub(crate) fn assert_agreed(&self) {
        let stand = |server: &Server| (server.me, server.election.state(), server.election.epoch());
        let stands: Vec<_> = self.servers.values().map(stand).collect();
        let top = self.servers.keys().max().map(|id| id.0);
        assert_eq!(self.agreed(), top, "at {:?}: {stands:?}", self.now);
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
    }

    /// Lets time pass until `done`; says how long that took, and fails after `bound`.
    pub(crate) fn run_until(&mut self, bound: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let begin = self.now;
        while !done(self) {
            assert!(self.step(begin + bound), "not done after {bound:?}");
        }
        self.now.since(begin)
    }

    /// The next thing that happens before `end`; `false` if there is none, and `end` is reached.
    fn step(&mut self, end: Time) -> bool {
        let turn = self.servers.values().map(|server| (server.deadline().max(self.now), server.me.id)).min();
        let packet = self.packets.keys().next().copied();
        let packet_first = packet.is_some_and(|(at, _)| turn.is_none_or(|(turn, _)| at <= turn));
        let at = if packet_first { packet.map(|(at, _)| at) } else { turn.map(|(at, _)| at) };
        let Some(at) = at.filter(|at| *at < end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        if packet_first {
            let (_, (from, to, content)) = self.packets.pop_first().expect("there is one");
            self.deliver(from, to, content);
        } else if let Some((_, id)) = turn {
            self.turn(id);
        }
        true
    }

    fn deliver(&mut self, from: Origin, to: ServerId, packet: Packet) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(&to) else { return };
        if server.paused_until > now {
            self.sent += 1;
            self.packets.insert((server.paused_until, self.sent), (from, to, packet));
            return;
        }
        match packet {
            Packet::Beat { view, hears, hearsay } => {
                server.beats.insert(from.id, view);
                let me = server.me;
                server.heartbeat.heard(from, hears.iter().any(|heard| heard.peer == me), now);
                for heard in hears.iter().filter(|heard| heard.both && heard.peer.id != to) {
                    server.heartbeat.vouched(from.id, heard.peer, Duration::from_millis(heard.age.into()), now);
                }
                for rumour in hearsay.into_iter().filter(|rumour| rumour.peer.id != to) {
                    server.heartbeat.told(from.id, rumour, now);
                }
                server.election.handle(Input::HeardEpoch { from, epoch: view.epoch }, now);
                self.show(to);
            }
            Packet::Election(message) => {
                if server.heartbeat.live().any(|peer| peer == from) {
                    server.election.handle(Input::Message { from, message }, now);
                }
                self.drain(to);
            }
        }
    }

    /// What a node does when a deadline of one of its parts has passed.
    fn turn(&mut self, id: ServerId) {
        let now = self.now;
        let server = self.servers.get_mut(&id).expect("it runs");
        let (beat, changes) = server.heartbeat.tick(now);
        for change in changes {
            if let Change::Dead { peer, .. } = change {
                self.deaths.push((id, peer));
            }
        }
        if server.joins.is_some_and(|at| at <= now) {
            server.joins = None;
            server.election.handle(Input::Joined, now);
        }
        if let Some((_, epoch)) = server.synced.take_if(|(at, _)| *at <= now) {
            server.election.handle(Input::Synced(epoch), now);
        }
        server.election.handle(Input::Tick, now);
        self.show(id);
        if beat {
            let server = &self.servers[&id];
            let (hears, hearsay) = (server.heartbeat.hears(self.now), server.heartbeat.hearsay(self.now));
            let packet = Packet::Beat { view: server.own_view(), hears, hearsay };
            self.broadcast(id, &packet);
        }
    }

    /// Shows the election what the heartbeats say.
    fn show(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("it runs");
        let known = |peer: Origin| server.beats.get(&peer.id).filter(|view| view.boot == peer.boot);
        let live = server.heartbeat.live().filter_map(|peer| Some((peer.id, *known(peer)?)));
        let unheard = server.heartbeat.unheard().map(|peer| {
            let known = known(peer).copied();
            let (boot, epoch) = (peer.boot, Epoch::NONE);
            let unknown = PeerView { boot, heard: false, eligible: true, leaving: false, led: false, epoch };
            (peer.id, known.map_or(unknown, |view| PeerView { heard: false, ..view }))
        });
        let live = live.chain(unheard).collect();
        server.election.handle(Input::View { live, eligible: server.eligible }, self.now);
        self.drain(id);
    }

    fn drain(&mut self, id: ServerId) {
        while let Some(output) = self.servers.get_mut(&id).expect("it runs").election.poll() {
            self.trace.push((self.now, id, output.clone()));
            match output {
                Output::Send { to, message } => self.send(id, to, Packet::Election(message)),
                Output::Broadcast(message) => self.broadcast(id, &Packet::Election(message)),
                Output::PersistTerm(term) => {
                    let before = self.terms.insert(id, term);
                    assert!(before.is_none_or(|before| before < term), "{id}: term {before:?}, then {term}");
                    let server = self.servers.get_mut(&id).expect("it runs");
                    server.election.handle(Input::TermDurable(term), self.now);
                }
                Output::Won(epoch) => {
                    assert_eq!(self.terms.get(&id), Some(&epoch.term), "the term was not durable first");
                    self.servers.get_mut(&id).expect("it runs").synced = Some((self.now + SYNCING, epoch));
                }
                Output::Leader(_) => {}
            }
        }
        let server = &self.servers[&id];
        let epoch = server.election.epoch();
        let before = self.epochs.insert(server.me, epoch);
        assert!(before.is_none_or(|before| before <= epoch), "{id}: epoch {before:?}, then {epoch:?}");
    }

    fn broadcast(&mut self, from: ServerId, packet: &Packet) {
        let others: Vec<_> = self.servers.keys().copied().filter(|id| *id != from).collect();
        for to in others {
            self.send(from, to, packet.clone());
        }
    }

    fn send(&mut self, from: ServerId, to: ServerId, packet: Packet) {
        let lost = self.rng.below(100) < self.loss_percent;
        if lost || self.cuts.contains(&(from, to)) {
            return;
        }
        let at = self.now + self.delay + Duration::from_micros(200 + self.rng.below(5_000));
        self.sent += 1;
        self.packets.insert((at, self.sent), (self.servers[&from].me, to, packet));
    }
}

impl Server {
    fn deadline(&self) -> Time {
        let parts = [self.election.deadline(), self.joins, self.synced.map(|(at, _)| at)];
        parts.into_iter().flatten().fold(self.heartbeat.deadline(), Time::min).max(self.paused_until)
    }

    /// What its beat says.
    fn own_view(&self) -> PeerView {
        PeerView {
            boot: self.me.boot,
            heard: true,
            eligible: self.eligible && self.election.state() != State::Joining,
            leaving: false,
            led: self.election.leader().is_some(),
            epoch: self.election.epoch(),
        }
    }
}
