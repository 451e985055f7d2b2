//! Many clients on one thread, over as many sockets as they are to have.
//!
//! A socket has one [`Endpoint`], and an endpoint has the sessions of all members behind that socket: each with its own
//! key, as a person has. The protocol of a member is in `member`; here is the loop that a driver is.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hobnob_proto::{
    rng::Rng,
    session::{
        Datagrams, Endpoint, Event, SessionId,
        keys::{KeyPair, Secret, Suite},
    },
    time::Time,
    timer::Timers,
    wire::greeting::Greeting,
};
use mio::{Events, Interest, Poll, Token, net::UdpSocket};

use crate::bench::{
    member::{Member, Role, Stage, Turn},
    process::{self, Cpu},
    socket::{self, CALL_BYTES_MAX},
    tally::Tally,
};

/// Handshakes that one thread has under way: what the server would ration costs no repeats.
const CALLS_MAX: usize = 48;
/// Datagrams that one turn takes from a socket.
const BATCH: usize = 64;
/// How long a turn waits for something at the most, and how often endpoints are asked for what is due.
const TURN_MAX: Duration = Duration::from_millis(10);

/// How often sockets are looked at, where nothing wakes the bench for them.
pub(super) const LOOK: Duration = Duration::from_millis(3);

/// The server that is called.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Where.
    pub(super) addr: SocketAddr,
    /// The public key of its cluster.
    pub(super) key: [u8; 32],
    /// How packets are sealed.
    pub(super) suite: Suite,
    /// The secret of a closed cluster.
    pub(super) secret: Option<Secret>,
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Time zero of all members.
    pub(super) start: Instant,
    stage: AtomicU8,
    /// Members that follow their room.
    pub(super) joined: AtomicUsize,
    /// Deliveries that are to be expected of what was posted so far.
    pub(super) expected: AtomicU64,
    /// Deliveries that came.
    pub(super) got: AtomicU64,
    /// Members that are still to post something.
    pub(super) talkers: AtomicUsize,
    /// Whether a thread has given up.
    pub(super) failed: AtomicBool,
}

impl Shared {
    /// At the beginning.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            stage: AtomicU8::new(0),
            joined: AtomicUsize::new(0),
            expected: AtomicU64::new(0),
            got: AtomicU64::new(0),
            talkers: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        })
    }

    /// Goes on to a stage.
    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            0 => Stage::Arriving,
            1 => Stage::Quiet,
            2 => Stage::Talking,
            3 => Stage::Settling,
            _ => Stage::Ended,
        }
    }

    fn now(&self) -> Time {
        Time::from_micros(self.start.elapsed().as_micros() as u64)
    }
}

/// What one thread did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// Of the thread while members talked, and for how long that was.
    pub(super) cpu: Option<Cpu>,
    pub(super) span: Duration,
    /// How long it took from the first call until each member followed its room.
    pub(super) arrivals: super::tally::Histogram,
    /// Sessions that were lost.
    pub(super) lost: u64,
}

/// A socket and its sessions.
struct Port {
    socket: UdpSocket,
    endpoint: Endpoint,
    members: BTreeMap<SessionId, usize>,
    /// Whether it is on the list of those that may have something.
    is_ready: bool,
    /// Whether it is on the list of those that may have something to send.
    is_touched: bool,
}

/// The members of one thread.
pub(super) struct Crowd {
    target: Target,
    shared: Arc<Shared>,
    body: usize,
    roles: std::vec::IntoIter<Role>,
    ports: Vec<Port>,
    members: Vec<Member>,
    timers: Timers<usize>,
    rng: Rng,
    poll: Poll,
    /// Whether it looks at all sockets each [`LOOK`] once members talk; when it last did.
    looks: bool,
    looked: Option<Instant>,
    ready: Vec<usize>,
    touched: Vec<usize>,
    talkers: Vec<usize>,
    calling: usize,
    outcome: Outcome,
    told: (u64, u64),
    buffer: Vec<u8>,
    /// When each member first called.
    called: Vec<Time>,
}

impl Crowd {
    /// Members with these roles, over so many sockets.
    pub(super) fn new(
        target: Target,
        shared: Arc<Shared>,
        roles: Vec<Role>,
        sockets: usize,
        body: usize,
        mut rng: Rng,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut ports = Vec::new();
        for at in 0..sockets.clamp(1, roles.len().max(1)) {
            let mut socket = socket::open(target.addr)?;
            poll.registry().register(&mut socket, Token(at), Interest::READABLE)?;
            let endpoint = Endpoint::new(None, rng.fork());
            ports.push(Port { socket, endpoint, members: BTreeMap::new(), is_ready: false, is_touched: false });
        }
        Ok(Self {
            target,
            shared,
            body,
            roles: roles.into_iter(),
            ports,
            members: Vec::new(),
            timers: Timers::default(),
            rng,
            poll,
            looks: false,
            looked: None,
            ready: Vec::new(),
            touched: Vec::new(),
            talkers: Vec::new(),
            calling: 0,
            outcome: Outcome::default(),
            told: (0, 0),
            buffer: vec![0; CALL_BYTES_MAX],
            called: Vec::new(),
        })
    }

    /// Once members talk it looks at its sockets each [`LOOK`]. Otherwise the server's processor would wake it, and the
    /// two would quarrel about each socket that one fills while the other empties it: that is no part of what a delivery to
    /// another machine costs.
    pub(super) fn looking(self) -> Self {
        Self { looks: true, ..self }
    }

    /// Goes on until the bench has ended. An error is a reason to give up.
    pub(super) fn run(mut self) -> Result<Outcome, String> {
        let mut events = Events::with_capacity(1_024);
        let mut talking: Option<(Instant, Option<Cpu>)> = None;
        let mut ticked = self.shared.now();
        loop {
            let stage = self.shared.stage();
            if stage == Stage::Talking && talking.is_none() {
                talking = Some((Instant::now(), process::own_cpu()));
            }
            if stage == Stage::Ended {
                if let Some((since, cpu)) = talking {
                    self.outcome.span = since.elapsed();
                    self.outcome.cpu = process::own_cpu().zip(cpu).map(|(now, then)| now.since(then));
                }
                return Ok(self.outcome);
            }
            if self.looks && stage >= Stage::Talking {
                self.look();
            } else {
                let wait = self.wait();
                if let Err(error) = self.poll.poll(&mut events, Some(wait))
                    && error.kind() != io::ErrorKind::Interrupted
                {
                    return Err(format!("the sockets cannot be waited for: {error}"));
                }
                for event in &events {
                    mark(&mut self.ready, &mut self.ports[event.token().0].is_ready, event.token().0);
                }
            }
            self.receive(stage)?;
            let now = self.shared.now();
            if now.since(ticked) >= TURN_MAX {
                ticked = now;
                self.tick(stage)?;
            }
            self.call();
            self.wake(stage);
            self.send();
            self.tell();
        }
    }

    /// Waits until it is time, and lets all sockets be looked at.
    fn look(&mut self) {
        match self.looked {
            Some(looked) => std::thread::sleep(LOOK.saturating_sub(looked.elapsed())),
            None => {
                for port in &mut self.ports {
                    // One that stays registered is woken for, and no more.
                    let _woken_for = self.poll.registry().deregister(&mut port.socket);
                }
            }
        }
        self.looked = Some(Instant::now());
        for at in 0..self.ports.len() {
            mark(&mut self.ready, &mut self.ports[at].is_ready, at);
        }
    }

    /// How long there is nothing to do, as far as known.
    fn wait(&self) -> Duration {
        if !self.ready.is_empty() {
            return Duration::ZERO;
        }
        let now = self.shared.now();
        self.timers.next().map_or(TURN_MAX, |at| at.since(now).min(TURN_MAX))
    }

    /// Opens sessions, as many at a time as the server answers soon.
    fn call(&mut self) {
        while self.calling < CALLS_MAX
            && let Some(role) = self.roles.next()
        {
            let at = self.members.len();
            let port = at % self.ports.len();
            let key = KeyPair::generate(&mut self.rng);
            let session = self.connect(port, &key, at);
            let talks = role.talk != super::member::Talk::Silent;
            let number = 1;
            self.members.push(Member::new(role, key, port, session, number, &mut self.rng));
            self.called.push(self.shared.now());
            if talks {
                self.talkers.push(at);
                self.shared.talkers.fetch_add(1, Relaxed);
            }
            self.calling += 1;
        }
    }

    fn connect(&mut self, port: usize, key: &KeyPair, member: usize) -> SessionId {
        let Target { addr, key: remote, suite, secret } = &self.target;
        let greeting = Greeting::client(secret.as_ref(), &key.public).to_payload();
        let now = self.shared.now();
        let session = self.ports[port].endpoint.connect(*addr, key, remote, *suite, &greeting, now);
        self.ports[port].members.insert(session, member);
        mark(&mut self.touched, &mut self.ports[port].is_touched, port);
        session
    }

    /// Takes what has come.
    fn receive(&mut self, stage: Stage) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        for at in std::mem::take(&mut self.ready) {
            let port = &mut self.ports[at];
            port.is_ready = false;
            let now = self.shared.now();
            let mut is_heard = false;
            for turn in 0.. {
                if turn == BATCH {
                    mark(&mut self.ready, &mut port.is_ready, at);
                    break;
                }
                match socket::receive(&port.socket, &mut buffer) {
                    Ok((len, each)) => {
                        is_heard = true;
                        self.outcome.tally.bytes += len as u64;
                        for datagram in buffer[..len].chunks(each) {
                            self.outcome.tally.datagrams += 1;
                            port.endpoint.handle(self.target.addr, datagram, now);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        return Err("the server is gone".to_owned());
                    }
                    Err(_) => break,
                }
            }
            if is_heard {
                self.take_events(at, stage)?;
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Lets sessions do what is due.
    fn tick(&mut self, stage: Stage) -> Result<(), String> {
        let now = self.shared.now();
        for at in 0..self.ports.len() {
            if self.ports[at].endpoint.deadline().is_some_and(|due| due <= now) {
                self.ports[at].endpoint.tick(now);
                self.take_events(at, stage)?;
            }
        }
        Ok(())
    }

    /// Hands on what sessions say.
    fn take_events(&mut self, at: usize, stage: Stage) -> Result<(), String> {
        let now = self.shared.now();
        mark(&mut self.touched, &mut self.ports[at].is_touched, at);
        while let Some(event) = self.ports[at].endpoint.poll_event() {
            let (Event::Up { session, .. } | Event::Line { session, .. } | Event::Closed { session }) = &event else {
                continue;
            };
            let Some(&number) = self.ports[at].members.get(session) else { continue };
            if let Event::Closed { session } = event {
                self.ports[at].members.remove(&session);
                self.outcome.lost += u64::from(!self.members[number].is_calling());
                let key = self.members[number].key.clone();
                self.calling += usize::from(!self.members[number].is_calling());
                let next = self.connect(at, &key, number);
                self.members[number].calls_again(next);
                continue;
            }
            let (member, endpoint) = (&mut self.members[number], &mut self.ports[at].endpoint);
            let (rng, tally) = (&mut self.rng, &mut self.outcome.tally);
            let mut turn = Turn { now, stage, body: self.body, endpoint, rng, tally };
            let was_there = member.is_there();
            if let Event::Line { line, .. } = event {
                member.line(&line, &mut turn)?;
            } else {
                self.calling -= usize::from(member.is_calling());
                member.up(&mut turn);
            }
            if member.is_there() && !was_there {
                self.shared.joined.fetch_add(1, Relaxed);
                self.outcome.arrivals.add(now.since(self.called[number]).as_micros() as u64);
            }
            arm(&mut self.timers, member, number);
        }
        Ok(())
    }

    /// Lets members say what is due, and post.
    fn wake(&mut self, stage: Stage) {
        let now = self.shared.now();
        let mut due = Vec::new();
        while let Some(number) = self.timers.pop(now) {
            due.push(number);
        }
        for &number in &due {
            let member = &mut self.members[number];
            let port = &mut self.ports[member.port];
            let (rng, tally) = (&mut self.rng, &mut self.outcome.tally);
            let mut turn = Turn { now, stage, body: self.body, endpoint: &mut port.endpoint, rng, tally };
            member.wake(&mut turn);
            member.armed = Time::from_micros(u64::MAX);
            arm(&mut self.timers, member, number);
            mark(&mut self.touched, &mut port.is_touched, member.port);
        }
        let talkers = self.talkers.len();
        self.talkers.retain(|&number| {
            let member = &mut self.members[number];
            let port = &mut self.ports[member.port];
            let (rng, tally) = (&mut self.rng, &mut self.outcome.tally);
            let mut turn = Turn { now, stage, body: self.body, endpoint: &mut port.endpoint, rng, tally };
            member.talk(&mut turn);
            arm(&mut self.timers, member, number);
            mark(&mut self.touched, &mut port.is_touched, member.port);
            !member.has_said_all()
        });
        self.shared.talkers.fetch_sub(talkers - self.talkers.len(), Relaxed);
    }

    /// Sends what was said.
    fn send(&mut self) {
        let now = self.shared.now();
        let mut datagrams = Datagrams::default();
        for at in std::mem::take(&mut self.touched) {
            let port = &mut self.ports[at];
            port.is_touched = false;
            port.endpoint.flush(now, &mut datagrams);
            for (_, bytes) in datagrams.iter() {
                // What is lost is said again.
                let _lost = port.socket.send(bytes);
            }
            datagrams.clear();
        }
    }

    /// Tells the others how far this thread is.
    fn tell(&mut self) {
        let (expected, got) = (self.outcome.tally.expected, self.outcome.tally.got);
        self.shared.expected.fetch_add(expected - self.told.0, Relaxed);
        self.shared.got.fetch_add(got - self.told.1, Relaxed);
        self.told = (expected, got);
    }
}

/// Puts something on a list, once.
fn mark(list: &mut Vec<usize>, is_listed: &mut bool, at: usize) {
    if !std::mem::replace(is_listed, true) {
        list.push(at);
    }
}

/// Sets a member's timer, if it is due earlier than that was set for.
fn arm(timers: &mut Timers<usize>, member: &mut Member, number: usize) {
    let due = member.deadline();
    if due < member.armed {
        member.armed = due;
        timers.set(number, due);
    }
}
