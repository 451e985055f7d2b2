//! A server: composes discovery, heartbeats, the election, the directory, the logs and the sessions.
//!
//! None of those parts knows another; what one says is carried to the others here. An input is taken, everything that
//! follows from it is done at once, and what is to be sent or told waits for [`Node::poll`].
//!
//! ```text
//! datagram -> discovery | endpoint -> frame -> { heartbeat, election, directory, rooms, posts, clients }
//! deadline -> timers ------------------------^                       |
//!                                             outputs <- endpoint <--+
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::{clients::Served, load::Load, peers::Peer, probation::Probations, rooms::Room, waiting::Waiting};
use crate::{
    config::ServerConfig,
    directory::{Clients, Members, Rooms, placement::balance::Balance},
    discovery::{self, Discovery, interfaces::Choice},
    election::{self, Election},
    heartbeat::{self, Heartbeat},
    ids::{Boot, ClusterId, DeviceId, Origin, PersonId, RoomName, ServerId},
    lent::Lent,
    rng::Rng,
    session::{
        self, Datagrams, Endpoint, SessionId,
        keys::{self, KeyPair},
    },
    sorted::{Sorted, SortedMap},
    time::{Duration, Time},
    timer::Timers,
    wire::Frame,
};

mod answers;
mod audience;
mod beats;
mod budget;
pub mod census;
mod clients;
mod cluster;
mod copies;
mod detours;
mod dispatch;
mod fences;
mod floors;
mod followers;
mod gossip;
mod handoff;
mod import;
mod io;
mod kept;
mod lead;
mod leave;
mod lists;
mod load;
mod lost;
mod network;
mod over;
mod peers;
mod posts;
mod probation;
mod reads;
mod restore;
mod rooms;
mod rot;
mod tails;
pub mod view;
mod waiting;

pub use io::{Event, Input, Output, Stop};

/// Names of deadlines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A room's receiver may have a pull or an acknowledgement.
    Room(RoomName),
    /// The home of a room has not answered our join.
    Join(RoomName),
    /// A room is being handed over, by us or to us.
    Handoff(RoomName),
    /// A follower has not acknowledged.
    Heads(SessionId),
    /// A room's home has had time to get what we hold of it.
    Resend(RoomName),
    /// A session with a server that was heard of is due to be opened.
    Call(Origin),
    /// A session with a server that we had one with is due to be opened.
    Reconnect(ServerId),
    /// A client of a dead server has not come over yet.
    Come(SessionId),
    /// Rotten entries of a room are asked for.
    Mend(RoomName),
    /// Somebody with a session has not said who they are.
    Hi(SessionId),
    /// Joining may be over.
    Joining,
    /// The leader looks after rooms; everybody looks after rooms without a home.
    Sweep,
    /// A new leader waits for what the others know.
    Sync,
    /// A second has passed: the load is averaged.
    Second,
    /// The next step of leaving.
    Leave,
    /// Those whom we have left are told so again.
    Goodbye,
}

/// Who is at the other end of a session.
#[derive(Debug)]
enum Party {
    /// A server of our cluster.
    Server(ServerId),
    /// Somebody who may become, or is, a client.
    Client(Box<Served>),
    /// A server that claims our own id.
    Rival(cluster::Rival),
}

/// How far a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Has no id yet.
    Choosing,
    /// Looks for the others.
    Joining,
    /// Serves.
    Serving,
    /// Is to stop.
    Stopped,
}

/// A server.
#[derive(Debug)]
pub struct Node {
    config: ServerConfig,
    /// As the machine has them now; for `status`.
    interfaces: Vec<Choice>,
    rng: Rng,
    now: Time,
    started: Time,
    stage: Stage,
    /// Whether it has served, in any cluster: who has come over to another one joins again, and is no newcomer.
    has_served: bool,
    /// Until then others may turn up that were there before it, though it has served.
    unheard_until: Time,
    /// Whether it began in the cluster of an earlier run.
    has_reopened: bool,
    me: Origin,
    cluster: cluster::Cluster,
    key: KeyPair,
    /// Cluster time at [`Time::ZERO`], milliseconds since 1970.
    clock_offset: u64,
    endpoint: Endpoint,
    discovery: Discovery,
    heartbeat: Heartbeat,
    probations: Probations,
    election: Election,
    sync: Option<lead::Sync>,
    records: Lent<Rooms>,
    members: Members,
    clients: Clients,
    lists: lists::Lists,
    peers: SortedMap<ServerId, Peer>,
    calls: BTreeMap<Origin, peers::Call>,
    sessions: BTreeMap<SessionId, Party>,
    connecting: BTreeMap<SessionId, cluster::Connecting>,
    /// How many sessions we have opened to servers.
    opened: u64,
    devices: BTreeMap<(PersonId, DeviceId), SessionId>,
    rooms: Lent<BTreeMap<RoomName, Room>>,
    follows: BTreeMap<SessionId, Sorted<RoomName>>,
    heads_backoff: BTreeMap<SessionId, Duration>,
    acks: BTreeMap<SessionId, BTreeSet<RoomName>>,
    /// [`Self::logs_digest`], as of our last heartbeat.
    logs: u64,
    /// Posts under way to their homes.
    relays: Waiting,
    /// How far posts have been sent once more to the home of a room.
    resent: BTreeMap<RoomName, (waiting::Device, u64)>,
    /// Posts that came before an earlier one of their device.
    early: Waiting,
    /// Posts that wait for the disk to say whether it has them.
    unplaced: Waiting,
    reads: reads::Reads,
    lines: budget::Budget,
    posts: budget::Budget,
    mending: rot::Mending,
    surveys: floors::Surveys,
    retaining: BTreeMap<RoomName, floors::Retaining>,
    /// Which sessions are waited with in which rooms: see [`Room::waiters`].
    waited: BTreeMap<SessionId, BTreeSet<RoomName>>,
    detours: detours::Detours,
    placing: BTreeMap<RoomName, Time>,
    orphans: BTreeMap<RoomName, Time>,
    leaving: Option<leave::Leaving>,
    granted: Option<leave::Granted>,
    /// For those whom we have left for another cluster, by time.
    goodbyes: VecDeque<over::Goodbye>,
    imports: BTreeMap<SessionId, import::Importing>,
    balance: Balance,
    load: Load,
    kept: kept::Kept,
    timers: Timers<Timer>,
    counters: BTreeMap<&'static str, u64>,
    out: VecDeque<Output>,
    /// Sealed, and not handed over yet.
    datagrams: Datagrams,
}

impl Node {
    /// A server that starts to look for others with its first [`Input::Tick`].
    pub fn new(mut config: ServerConfig, seed: [u8; 32], now: Time) -> Self {
        let mut rng = Rng::from_seed(seed);
        let boot = Boot::new(config.wall_millis / 1000, None, &mut rng);
        let new_cluster = ClusterId(u128::from(rng.u64()) << 64 | u128::from(rng.u64()));
        let has_store = config.store.is_some();
        let restored = config.store.take().unwrap_or_default();
        let boot = restored.boot.unwrap_or(boot);
        let id = config.id.or(restored.id);
        let me = Origin { id: id.unwrap_or(ServerId(0)), boot };
        let written = restored.boot.and(restored.id).map(|id| Origin { id, boot });
        let kept = kept::Kept::new(has_store, written, restored.term);
        let cluster = restored.cluster.unwrap_or(new_cluster);
        let key = keys::cluster_key(config.secret.as_ref(), &config.cluster, cluster);
        let discovery = discovery::Config {
            key: keys::discovery_key(config.secret.as_ref(), &config.cluster),
            peers: restored.asked(&config.peers, id),
        };
        let mut node = Self {
            interfaces: Vec::new(),
            now,
            started: now,
            stage: if id.is_some() { Stage::Joining } else { Stage::Choosing },
            has_served: false,
            unheard_until: Time::ZERO,
            has_reopened: false,
            me,
            cluster: cluster::Cluster::found(cluster, now),
            clock_offset: config.wall_millis.max(restored.newest_millis()).saturating_sub(now.as_millis()),
            endpoint: Endpoint::new(Some(key.clone()), rng.fork()),
            discovery: Discovery::new(discovery, rng.fork(), now),
            heartbeat: Heartbeat::new(heartbeat::Config::default(), rng.fork(), now),
            probations: Probations::default(),
            election: Election::new(me, restored.term, rng.fork()),
            sync: None,
            records: Lent::new(Rooms::new()),
            members: Members::new(),
            clients: Clients::new(me),
            lists: lists::Lists::default(),
            peers: SortedMap::default(),
            calls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            connecting: BTreeMap::new(),
            opened: 0,
            devices: BTreeMap::new(),
            rooms: Lent::default(),
            follows: BTreeMap::new(),
            heads_backoff: BTreeMap::new(),
            acks: BTreeMap::new(),
            logs: 0,
            relays: Waiting::default(),
            resent: BTreeMap::new(),
            early: Waiting::default(),
            unplaced: Waiting::default(),
            reads: reads::Reads::default(),
            lines: budget::Budget::new(tails::LINES_BYTES_MAX),
            posts: budget::Budget::new(tails::POSTS_MAX),
            mending: rot::Mending::default(),
            surveys: floors::Surveys::default(),
            retaining: BTreeMap::new(),
            waited: BTreeMap::new(),
            detours: detours::Detours::default(),
            placing: BTreeMap::new(),
            orphans: BTreeMap::new(),
            leaving: None,
            granted: None,
            goodbyes: VecDeque::new(),
            imports: BTreeMap::new(),
            balance: Balance::default(),
            load: Load::default(),
            kept,
            timers: Timers::default(),
            counters: BTreeMap::new(),
            out: VecDeque::new(),
            datagrams: Datagrams::default(),
            key,
            rng,
            config,
        };
        node.timers.set(Timer::Second, now + Duration::from_secs(1));
        node.restore(restored);
        if node.stage == Stage::Joining {
            node.begin();
            if node.is_sole_member() {
                node.begin_alone();
            }
        }
        node
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input<'_>, now: Time) {
        self.now = self.now.max(now);
        if self.stage == Stage::Stopped {
            return;
        }
        match input {
            Input::Datagram { from, bytes } if discovery::is_discovery(bytes) => {
                self.discover(discovery::Input::Datagram { from, bytes });
            }
            Input::Datagram { from, bytes } => self.endpoint.handle(from, bytes, self.now),
            Input::Tick => self.tick(),
            Input::Leave => self.leave(leave::Why::Asked),
            Input::Network { addrs, interfaces } => self.set_network(addrs, interfaces),
            Input::Durable { through } => self.on_durable(through),
            Input::Unwritable => self.on_unwritable(),
            Input::Answer(answer) => self.on_answer(answer),
            Input::Retain { room, before } => self.retain(room, before),
        }
        self.settle();
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        if self.out.is_empty() {
            self.send_acks();
            if !self.imports.is_empty() {
                self.send_imported();
            }
            self.endpoint.flush(self.now, &mut self.datagrams);
            let sends = self.datagrams.iter().map(|(to, bytes)| Output::Send { to, bytes: bytes.to_vec() });
            self.out.extend(sends);
            self.datagrams.clear();
        }
        self.out.pop_front()
    }

    /// Adds all datagrams that sessions have to send to `out`, instead of [`Self::poll`]: nothing is allocated for each. What
    /// else is to be done, and what is sent outside sessions, is still polled for.
    pub fn flush(&mut self, out: &mut Datagrams) {
        while self.flush_some(out, usize::MAX) {}
    }

    /// The same in pieces of so many bytes or a few more, so that what has been sealed is sent while it is still at hand.
    /// Whether there is more.
    pub fn flush_some(&mut self, out: &mut Datagrams, bytes_max: usize) -> bool {
        self.send_acks();
        self.endpoint.flush_some(self.now, out, bytes_max)
    }

    /// When [`Input::Tick`] is wanted.
    pub fn deadline(&self) -> Time {
        if self.stage == Stage::Stopped {
            return Time::from_micros(u64::MAX);
        }
        let mut at = self.discovery.deadline().min(self.heartbeat.deadline());
        for next in [self.timers.next(), self.endpoint.deadline(), self.election.deadline()].into_iter().flatten() {
            at = at.min(next);
        }
        at
    }

    /// Does what is due.
    fn tick(&mut self) {
        self.discover(discovery::Input::Tick);
        self.endpoint.tick(self.now);
        self.beat();
        self.elect(election::Input::Tick);
        while let Some(timer) = self.timers.pop(self.now) {
            self.on_timer(timer);
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Room(name) => self.wake_room(&name),
            Timer::Join(name) => self.join_upstream(&name),
            Timer::Handoff(name) => self.step_handoff(&name),
            Timer::Heads(session) => self.repeat_heads(session),
            Timer::Resend(name) => self.resend_all_relays(&name),
            Timer::Call(origin) => self.call(origin),
            Timer::Reconnect(id) => self.reconnect(id),
            Timer::Mend(name) => self.mend(&name),
            Timer::Come(session) => self.call_over(session),
            Timer::Hi(session) => self.drop_nameless(session),
            Timer::Joining => self.check_joined(),
            Timer::Sweep => self.sweep(),
            Timer::Sync => self.finish_sync(),
            Timer::Second => {
                self.load.second();
                self.forget_passed();
                self.forget_unrepeated();
                self.forget_reads();
                self.let_go();
                self.timers.set(Timer::Second, self.now + Duration::from_secs(1));
            }
            Timer::Leave => self.step_leave(),
            Timer::Goodbye => self.send_goodbyes(),
        }
    }

    /// Carries what the parts have to say to each other, until none says more.
    fn settle(&mut self) {
        loop {
            if let Some(event) = self.endpoint.poll_event() {
                self.on_session(event);
            } else if let Some(output) = self.discovery.poll() {
                self.on_discovery(output);
            } else if let Some(output) = self.election.poll() {
                self.on_election(&output);
            } else {
                return;
            }
        }
    }

    fn on_session(&mut self, event: session::Event) {
        match event {
            session::Event::Asked { session, key, payload, .. } => self.on_asked(session, &key, &payload),
            session::Event::Up { session, role, key, payload } => self.on_up(session, role, &key, &payload),
            session::Event::Line { session, line } => match Frame::from_line(&line) {
                Some(frame) => self.on_frame(session, frame),
                None => self.count("frame_bad"),
            },
            session::Event::Closed { session } => self.on_closed(session),
        }
    }

    // ---- small things that all parts need

    /// Cluster time now, milliseconds since 1970.
    fn cluster_millis(&self) -> u64 {
        self.clock_offset + self.now.as_millis()
    }

    fn say(&mut self, session: SessionId, frame: &Frame) {
        self.endpoint.send(session, frame.to_line().as_bytes());
    }

    /// Says something to a server, if there is a session with it.
    fn tell(&mut self, server: ServerId, frame: &Frame) {
        if let Some(session) = self.peers.get(&server).and_then(Peer::session) {
            self.say(session, frame);
        }
    }

    /// Says something to all live servers.
    fn tell_all(&mut self, frame: &Frame) {
        let line = frame.to_line();
        let live: Vec<_> = self.heartbeat.live().collect();
        for session in live.iter().filter_map(|peer| self.peers.get(&peer.id)?.session()) {
            self.endpoint.send(session, line.as_bytes());
        }
    }

    fn is_live(&self, peer: Origin) -> bool {
        peer == self.me || self.heartbeat.status(peer) == heartbeat::Status::Live
    }

    /// Whether nobody that we hear hears it.
    fn is_dead(&self, peer: Origin) -> bool {
        peer != self.me && self.heartbeat.status(peer) == heartbeat::Status::Dead
    }

    /// Live servers, this one included.
    fn live_ids(&self) -> BTreeSet<ServerId> {
        self.heartbeat.live().map(|peer| peer.id).chain([self.me.id]).collect()
    }

    /// Counts something that was dropped, or is otherwise worth seeing in `status`.
    fn count(&mut self, cause: &'static str) {
        *self.counters.entry(cause).or_default() += 1;
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    fn stop(&mut self, why: Stop) {
        self.stage = Stage::Stopped;
        self.event(Event::Stopped(why));
    }
}
