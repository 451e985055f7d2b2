//! The client: finds a cluster, follows rooms, posts messages, and moves when its server dies.
//!
//! ```text
//! FIND -> HERE -> handshake -> hi -> welcome -> join .. joined, entries, cursor ..
//!                                            -> post .. ack: accepted, ack: stored
//!                 and at another server:  hi (standby) -> welcome .. come -> hi -> welcome -> join (cursor) ..
//! ```
//!
//! Everything that a client says is repeated until it is answered, and means the same when it arrives twice; so losing a
//! packet, a server or the network are one case: say again what is open, to whoever serves now. What a client holds of a
//! room is a cursor, and a new server goes on from there: nothing lost, nothing shown twice.
//!
//! [`finder`] finds servers, [`link`] is a session with one of them, [`moves`] chooses whose, and [`hearing`] compares two;
//! [`room`], [`outbox`], [`asks`] and [`imports`] are what is open; [`frames`] takes what servers say, [`speak`] says what is due.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use self::{
    asks::Asks,
    finder::Finder,
    hearing::Uneven,
    imports::Imports,
    link::Link,
    moves::{Go, Lookup},
    outbox::Outbox,
    room::Room,
    servers::Servers,
};
use crate::{
    config::ClientConfig,
    discovery::packet,
    ids::{ClusterId, DeviceId, PersonName, RoomName, ServerId},
    limits,
    log::VersionVector,
    rng::Rng,
    session::{self, Datagrams, Endpoint, SessionId},
    time::{Duration, Time},
    wire::Frame,
};

mod api;
mod asks;
mod census;
mod finder;
mod frames;
mod hearing;
mod imports;
mod link;
mod moves;
mod outbox;
mod repeat;
mod room;
mod servers;
mod shown;
mod speak;

pub use self::api::{Command, Event, Input, Output};

/// Whoever is so much later than they wished to be woken has slept.
const SLEPT: Duration = Duration::from_secs(1);

/// A client.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    /// The name under which a server has welcomed us.
    welcomed_as: Option<PersonName>,
    rng: Rng,
    endpoint: Endpoint,
    finder: Finder,
    servers: Servers,
    cluster: Option<ClusterId>,
    /// Who serves us, or is about to.
    primary: Option<Link>,
    /// Who calls us over when that one dies.
    standby: Option<Link>,
    /// A less loaded server that we are about to move to.
    coming: Option<Link>,
    /// The server that we moved away from, until the new one has welcomed us.
    leaving: Option<Link>,
    /// Sessions that are dropped once their goodbye has left.
    parting: Vec<SessionId>,
    /// Whether a server that asks us to move is followed: once for each arrival.
    may_go: bool,
    /// Where we were asked to go, until we have its addresses.
    go: Option<Go>,
    /// How our server and our standby differ in whom they hear.
    uneven: Option<Uneven>,
    /// The servers that were told last.
    told: BTreeSet<ServerId>,
    /// What the finder's lookup is for.
    lookup: Option<Lookup>,
    /// When a standby is looked for again.
    standby_at: Time,
    /// The server that was asked last whether it stands by, and the last that did not.
    asked: Option<ServerId>,
    avoid: Option<ServerId>,
    rooms: BTreeMap<RoomName, Room>,
    outbox: Outbox,
    asks: Asks,
    imports: Imports,
    /// The number of the next hi.
    number: u64,
    /// The number of the next ping.
    ping: u64,
    outputs: VecDeque<Output>,
    /// Sealed, and not handed over yet.
    datagrams: Datagrams,
    events: VecDeque<Event>,
    /// When a room that we are not in was last parted from.
    parted_at: Time,
    damaged: u64,
    wake: Time,
    /// Whether it has started to look for a server.
    started: bool,
    /// Whether it has said goodbye.
    stopped: bool,
}

impl Client {
    /// A client that starts to look for a server with its first [`Input::Tick`].
    pub fn new(config: ClientConfig, seed: [u8; 32], now: Time) -> Self {
        let mut rng = Rng::from_seed(seed);
        let endpoint = Endpoint::new(None, rng.fork());
        let finder = Finder::new(config.cluster.clone(), config.secret.clone(), &mut rng);
        Self {
            number: config.session,
            config,
            welcomed_as: None,
            rng,
            endpoint,
            finder,
            servers: Servers::default(),
            cluster: None,
            primary: None,
            standby: None,
            coming: None,
            leaving: None,
            parting: Vec::new(),
            may_go: true,
            go: None,
            uneven: None,
            told: BTreeSet::new(),
            lookup: None,
            standby_at: now,
            asked: None,
            avoid: None,
            rooms: BTreeMap::new(),
            outbox: Outbox::default(),
            asks: Asks::default(),
            imports: Imports::default(),
            ping: 1,
            outputs: VecDeque::new(),
            datagrams: Datagrams::default(),
            events: VecDeque::new(),
            parted_at: Time::ZERO,
            damaged: 0,
            wake: now,
            started: false,
            stopped: false,
        }
    }

    /// Takes an input. After [`Command::Quit`] nothing has any effect.
    pub fn handle(&mut self, input: Input<'_>, now: Time) {
        if self.stopped {
            return;
        }
        if self.started && now.since(self.wake) > SLEPT {
            self.awake();
        }
        match input {
            Input::Datagram { from, bytes } => self.datagram(from, bytes, now),
            Input::Tick => self.started = true,
            Input::Network => self.network_changed(now),
            Input::Command(command) => self.command(command, now),
        }
        if self.started {
            self.endpoint.tick(now);
            self.take_session_events(now);
            self.drive(now);
        }
        self.outputs.extend(self.events.drain(..).map(Output::Event));
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is wanted.
    pub fn deadline(&self) -> Time {
        self.wake
    }

    /// The cursor of a room that is followed, once its server has answered.
    pub fn cursor(&self, room: &RoomName) -> Option<&VersionVector> {
        self.rooms.get(room)?.cursor()
    }

    /// Entries and datagrams that were dropped, by cause.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut counters = self.endpoint.counters().clone();
        counters.insert("damaged_entries", self.damaged);
        counters
    }

    /// How many sealed packets it has taken: authentic, and for the first time.
    pub fn packets_taken(&self) -> u64 {
        self.endpoint.packets_taken()
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Time) {
        if packet::is_discovery(bytes) {
            self.finder.handle(from, bytes, now, &mut self.outputs);
        } else {
            self.endpoint.handle(from, bytes, now);
        }
    }

    fn take_session_events(&mut self, now: Time) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                session::Event::Up { session, .. } => self.session_up(session, now),
                session::Event::Closed { session } => self.session_closed(session, now),
                session::Event::Line { session, line } => {
                    if let Some(frame) = Frame::from_line(&line) {
                        self.frame(session, frame, now);
                    }
                }
                // Nobody opens a session to a client.
                session::Event::Asked { session, .. } => self.endpoint.close(session),
            }
        }
    }

    fn command(&mut self, command: Command, now: Time) {
        match command {
            Command::Join { room, from } => self.join(Room::new(room.clone(), from), room, now),
            Command::Copy { room, from } => self.join(Room::copied(room.clone(), from), room, now),
            Command::Import { lines } => self.imports.push(lines),
            Command::Part { room } => {
                if self.rooms.remove(&room).is_some() {
                    self.say_to_primary(&Frame::Part { room });
                }
            }
            Command::Post { room, seq, body } => {
                let shown = self.rooms.get(&room).map(Room::newest).unwrap_or_default();
                self.outbox.push(room, seq, body, shown, &mut self.events);
            }
            Command::Ask { id, ask } => self.asks.push(id, ask),
            Command::Rename { name } => {
                self.config.name = name;
                self.say_hi_again(now);
            }
            Command::NewDevice { device } => self.new_device(device, now),
            Command::Quit => self.quit(now),
        }
    }

    fn join(&mut self, mut room: Room, name: RoomName, now: Time) {
        if self.rooms.contains_key(&name) || self.rooms.len() >= limits::ROOMS_PER_CLIENT_MAX {
            return;
        }
        room.moved(now);
        self.rooms.insert(name, room);
    }

    fn new_device(&mut self, device: DeviceId, now: Time) {
        self.config.device = device;
        self.outbox.new_device();
        if let Some(primary) = &mut self.primary {
            // To its server it is somebody else from now on, who has said nothing yet.
            primary.entered = false;
        }
        self.say_hi_again(now);
        if let Some(standby) = self.standby.take() {
            self.part_from(standby.session);
        }
    }

    fn quit(&mut self, now: Time) {
        let links = [self.primary.take(), self.standby.take(), self.coming.take()];
        for session in links.into_iter().flatten().filter(|link| link.up).map(|link| link.session) {
            self.part_from(session);
        }
        self.flush(now);
        self.stopped = true;
        self.wake = Time::from_micros(u64::MAX);
    }
}

#[cfg(test)]
mod tests;
