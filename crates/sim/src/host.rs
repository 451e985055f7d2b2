//! Hosts: a machine with an address, on which a server or a client runs, or does not.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    rc::Rc,
};

use hobnob_proto::{
    client::Client,
    config::{ClientConfig, ServerConfig},
    ids::{ClusterName, DeviceId, Origin, ServerId},
    log::VersionVector,
    node::Node,
    rng::Rng,
    session::keys::{KeyPair, Secret, Suite},
    time::{Duration, Time},
};

use crate::{
    dice::Dice as _,
    disk::Disk,
    facts::{Dot, Process, dot},
    oracle::Told,
    profile::WallProfile,
    trace::Fnv,
    watch::Watch,
    world::operators::Retiring,
};

/// Where servers listen.
pub const SESSION_PORT: u16 = 5001;
/// What clocks on the wall say when a run begins: milliseconds since 1970.
const WALL_AT_START: u64 = 1_800_000_000_000;
/// Timers of a process fire at least so much apart, as those of an operating system do.
const TICK_MIN: Duration = Duration::from_millis(1);
/// A process that wants so many ticks in a row at once, and does nothing in them, would use up its processor.
const SPINS_MAX: u32 = 1_000;
/// Datagrams that wait in the socket of a server that stands still.
pub const SOCKET_DATAGRAMS_MAX: usize = 200;

/// What strangers go by in facts begins here.
const STRANGERS: usize = 100;

/// A datagram on its way; its copies share it, those too that an outsider sends again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram(Rc<Sent>);

#[derive(Debug, PartialEq, Eq)]
struct Sent {
    hash: u64,
    number: Option<u32>,
    bytes: Vec<u8>,
}

impl Datagram {
    /// One of these bytes, of which nobody has sealed anything.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Rc::new(Sent { hash: Fnv::of_packet(&bytes), number: None, bytes }))
    }

    /// A packet that somebody has sealed just now, with its number among all that were sealed.
    pub fn sealed(bytes: Vec<u8>, number: u32) -> Self {
        Self(Rc::new(Sent { hash: Fnv::of_packet(&bytes), number: Some(number), bytes }))
    }

    /// The hash of its bytes: [`Fnv::of_packet`].
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// Its number, if somebody has sealed it.
    pub fn number(&self) -> Option<u32> {
        self.0.number
    }
}

impl Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// When a process wants its next tick, and its own clock, whose origin nobody else knows.
#[derive(Debug)]
pub struct Alarm {
    offset: Duration,
    wake: Time,
    spins: u32,
}

impl Alarm {
    fn new(rng: &mut Rng, now: Time) -> Self {
        // Late enough to be put back by as long as anybody sleeps.
        Self { offset: rng.span(Duration::from_hours(24), Duration::from_hours(1_000)), wake: now, spins: 0 }
    }

    /// What the process's clock says.
    pub fn local(&self, now: Time) -> Time {
        now + self.offset
    }

    /// The machine has slept for `slept`, and its clock has gone on by `clock` meanwhile: what is due is due now.
    pub fn slept(&mut self, slept: Duration, clock: Duration, now: Time) {
        self.offset = (self.offset + clock).saturating_sub(slept);
        self.wake = now;
    }

    /// When it wants to be woken.
    pub fn wake(&self) -> Time {
        self.wake
    }

    /// It wants a tick at `deadline` of its own clock, after a step that was a tick or not, and did something or not.
    /// `false`: it wants ticks without end, and does nothing in them.
    #[must_use]
    pub fn set(&mut self, deadline: Time, now: Time, ticked: bool, idle: bool) -> bool {
        let earliest = if ticked { now + TICK_MIN } else { now };
        self.spins = if ticked && idle && deadline <= self.local(now) { self.spins + 1 } else { 0 };
        self.wake = (now + deadline.since(self.local(now))).max(earliest);
        self.spins <= SPINS_MAX
    }
}

/// A server's machine.
#[derive(Debug)]
pub struct ServerHost {
    /// The id that it is started with.
    pub id: ServerId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The process, if it runs.
    pub process: Option<Box<ServerProcess>>,
    /// What waits in the socket of a process that stands still.
    pub paused: Option<Vec<(SocketAddr, Datagram)>>,
    /// It was asked to leave, and is started again so long after it has stopped.
    pub leaving: Option<Duration>,
    /// Its disk, if it has one.
    pub disk: Option<Disk>,
    /// The id of the server that is started in its place then.
    pub successor: Option<ServerId>,
    /// It is dead, and an operator has asked the cluster to forget it.
    pub retiring: Option<Retiring>,
    /// As whom its last process ran that ended without a word.
    pub ended: Option<Origin>,
    /// The clock on its wall.
    pub wall: WallProfile,
    /// The cluster's secret, or another one.
    secret: Option<Secret>,
    /// What it goes by in facts.
    of: usize,
    run: u32,
    addrs: u8,
}

/// A server that runs.
#[derive(Debug)]
pub struct ServerProcess {
    /// Which run it is.
    pub process: Process,
    /// The server.
    pub node: Node,
    /// Its clock.
    pub alarm: Alarm,
    /// What was seen of it.
    pub watch: Watch,
    /// Its machine has too much to do.
    pub slow: Option<Slow>,
}

/// What comes to a machine that has too much to do: each step takes so long that others have to wait. Only packets and ticks
/// do; its disk is as fast as ever, and what a step sends leaves when it begins.
#[derive(Debug)]
pub struct Slow {
    /// How long a step takes.
    pub step: Duration,
    /// When the last one is done.
    pub free_at: Time,
    /// Whether it was a tick: they take turns with what waits.
    pub ticked: bool,
    /// What waits in the socket.
    pub waiting: VecDeque<(SocketAddr, Datagram)>,
}

impl ServerProcess {
    /// When it is to do its next step.
    pub fn wake(&self) -> Time {
        match &self.slow {
            None => self.alarm.wake(),
            Some(slow) if slow.waiting.is_empty() => self.alarm.wake().max(slow.free_at),
            Some(slow) => slow.free_at,
        }
    }

    /// What has waited longest in its socket; `None` where it is a tick's turn.
    pub fn next_waiting(&mut self, now: Time) -> Option<(SocketAddr, Datagram)> {
        let slow = self.slow.as_mut()?;
        let next = if self.alarm.wake() > now || slow.ticked { slow.waiting.pop_front() } else { None };
        slow.ticked = next.is_none();
        next
    }

    /// What has just arrived waits, if something is done or waits already; else it is given back.
    pub fn keep_waiting(&mut self, from: SocketAddr, bytes: Datagram, now: Time) -> Option<Datagram> {
        let Some(slow) = self.slow.as_mut().filter(|slow| now < slow.free_at || !slow.waiting.is_empty()) else {
            return Some(bytes);
        };
        if slow.waiting.len() < SOCKET_DATAGRAMS_MAX {
            slow.waiting.push_back((from, bytes));
        }
        None
    }

    /// It does something.
    pub fn takes_time(&mut self, now: Time) {
        if let Some(slow) = &mut self.slow {
            slow.free_at = now.max(slow.free_at) + slow.step;
        }
    }
}

impl ServerHost {
    /// A machine on which no server runs yet.
    pub fn new(id: ServerId, secret: Option<Secret>, wall: WallProfile) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::new(10, 0, 0, id.0 as u8), SESSION_PORT));
        let of = id.0 as usize;
        let (process, paused, leaving, successor, disk) = (None, None, None, None, None);
        let (retiring, ended) = (None, None);
        Self {
            id,
            addr,
            process,
            paused,
            leaving,
            successor,
            retiring,
            ended,
            wall,
            disk,
            secret,
            of,
            run: 0,
            addrs: 0,
        }
    }

    /// The machine of stranger number `of`, which uses an id of ours.
    pub fn stranger(of: usize, id: ServerId, secret: Option<Secret>) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::new(10, 0, 2, of as u8 + 1), SESSION_PORT));
        Self { addr, of: STRANGERS + of, ..Self::new(id, secret, WallProfile::default()) }
    }

    /// Its present run, or its last.
    pub fn process_of(&self) -> Process {
        Process { of: self.of, run: self.run }
    }

    /// Which of its runs this is, or was the last.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Takes another address.
    pub fn roam(&mut self) {
        self.addrs += 1;
        self.addr = SocketAddr::from((Ipv4Addr::new(10, 1, self.addrs, self.id.0 as u8), SESSION_PORT));
    }

    /// Posts that the server that runs holds under several dots: the one that it takes for canonical, and the one that is
    /// shown first.
    pub fn doubled(&self) -> Vec<(Dot, Dot)> {
        let Some(running) = &self.process else { return Vec::new() };
        let node = &running.node;
        let (nothing, mut doubled) = (VersionVector::default(), Vec::new());
        for room in node.view().rooms {
            let mut posts = BTreeMap::<_, Vec<_>>::new();
            for entry in node.entries(room.name, &nothing) {
                posts.entry(entry.post_key()).or_default().push((entry.order(), dot(entry)));
            }
            for (key, entries) in posts.into_iter().filter(|(_, entries)| entries.len() > 1) {
                let first = entries.into_iter().min().map(|(_, dot)| dot);
                let taken = node.canonical(room.name, key);
                doubled.extend(taken.map(|(_, origin, seq)| (room.name.clone(), origin, seq)).zip(first));
            }
        }
        doubled
    }

    /// Whether its machine has too much to do.
    pub fn is_slow(&self) -> bool {
        self.process.as_ref().is_some_and(|running| running.slow.is_some())
    }

    /// Another server is on this machine from its next start on.
    pub fn replace(&mut self, id: ServerId) {
        self.id = id;
        self.of = id.0 as usize;
    }

    /// What the clock on the wall says. Each second time that somebody starts here, it has jumped; then it jumps back.
    fn wall_millis(&self, now: Time) -> u64 {
        let WallProfile { off_secs, stands, jump_secs } = self.wall;
        let jumped = if self.run.is_multiple_of(2) { jump_secs } else { 0 };
        let right = WALL_AT_START + if stands { 0 } else { now.as_millis() };
        right.saturating_add_signed((off_secs + jumped) * 1_000)
    }

    /// Starts the server. It remembers what is on its disk, or nothing where it has none.
    pub fn start(&mut self, replicas: u32, rng: &mut Rng, now: Time) -> Process {
        self.run += 1;
        let process = Process { of: self.of, run: self.run };
        let wall_millis = self.wall_millis(now);
        let store = self.disk.as_mut().map(|disk| disk.open(wall_millis / 1_000));
        let mut watch = Watch::new(process);
        watch.restored(store.as_ref());
        let config = ServerConfig {
            id: Some(self.id),
            cluster: cluster(),
            secret: self.secret.clone(),
            replicas,
            session_port: SESSION_PORT,
            addrs: vec![self.addr],
            peers: Vec::new(),
            // Some machines cannot do AES fast.
            suite: if self.id.0.is_multiple_of(4) { Suite::ChaChaPoly } else { Suite::AesGcm },
            wall_millis,
            store,
        };
        let alarm = Alarm::new(rng, now);
        let mut node = Node::new(config, rng.seed(), alarm.local(now));
        node.listen_in();
        self.process = Some(Box::new(ServerProcess { process, node, alarm, watch, slow: None }));
        process
    }
}

/// A client's machine.
#[derive(Debug)]
pub struct ClientHost {
    /// Where it sends from.
    pub addr: SocketAddr,
    /// The process, if it runs.
    pub process: Option<Box<ClientProcess>>,
    /// What it was told.
    pub told: Told,
    /// Since when the machine sleeps.
    pub asleep: Option<Time>,
    secret: Option<Secret>,
    key: KeyPair,
    addrs: u16,
    of: usize,
}

/// A client that runs.
#[derive(Debug)]
pub struct ClientProcess {
    /// The client.
    pub client: Client,
    /// Its clock.
    pub alarm: Alarm,
}

impl ClientHost {
    /// A machine of a new person, client number `of`.
    pub fn new(of: usize, secret: Option<Secret>, rng: &mut Rng) -> Self {
        let (key, device) = (KeyPair::generate(rng), DeviceId(rng.u64()));
        let told = Told::new(of, key.person(), device);
        let addr = SocketAddr::from(([0; 4], 0));
        let mut host = Self { addr, process: None, told, asleep: None, secret, key, addrs: 0, of };
        host.roam();
        host
    }

    /// Whether somebody can use it now.
    pub fn is_up(&self) -> bool {
        self.process.is_some() && self.asleep.is_none()
    }

    /// Takes another address.
    pub fn roam(&mut self) {
        self.addrs += 1;
        self.addr = SocketAddr::from((Ipv4Addr::new(10, 0, 1, self.of as u8 + 1), 40_000 + self.addrs));
    }

    /// Starts the client, with what is in its state file.
    pub fn start(&mut self, rng: &mut Rng, now: Time) -> Process {
        let process = self.told.restarted();
        let config = ClientConfig {
            cluster: cluster(),
            secret: self.secret.clone(),
            person: self.key.clone(),
            device: self.told.device(),
            name: format!("client-{}", process.of).parse().expect("letters, a dash and a number make a name"),
            via: "sim".to_owned(),
            servers: Vec::new(),
            session: WALL_AT_START + now.as_millis(),
        };
        let alarm = Alarm::new(rng, now);
        let mut client = Client::new(config, rng.seed(), alarm.local(now));
        client.listen_in();
        self.process = Some(Box::new(ClientProcess { client, alarm }));
        process
    }
}

fn cluster() -> ClusterName {
    "sim".parse().expect("letters make a name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice;

    #[test]
    fn a_clock_goes_on_by_what_it_is_told_while_its_machine_sleeps() {
        fn check(slept: u64, clock: u64) {
            let (before, now) = (Time::ZERO, Time::ZERO + Duration::from_secs(slept));
            let mut alarm = Alarm::new(&mut dice::from_number(1), before);
            let asleep_at = alarm.local(before);
            alarm.slept(Duration::from_secs(slept), Duration::from_secs(clock), now);
            assert_eq!(alarm.local(now).since(asleep_at), Duration::from_secs(clock));
            assert_eq!(alarm.wake(), now);
        }
        check(30, 0);
        check(30, 30);
        check(30, 3_600);
    }

    #[test]
    fn a_clock_on_the_wall_is_off_stands_still_or_jumps_between_two_starts() {
        fn check(wall: WallProfile, run: u32, expected_secs: i64) {
            let mut host = ServerHost::new(ServerId(1), None, wall);
            host.run = run;
            let at = host.wall_millis(Time::ZERO + Duration::from_secs(7));
            assert_eq!(at.cast_signed() / 1_000 - WALL_AT_START.cast_signed() / 1_000, expected_secs);
        }
        check(WallProfile::default(), 1, 7);
        check(WallProfile { stands: true, ..WallProfile::default() }, 1, 0);
        check(WallProfile { off_secs: -600_000_000, ..WallProfile::default() }, 1, 7 - 600_000_000);
        check(WallProfile { jump_secs: -90, ..WallProfile::default() }, 2, 7 - 90);
        check(WallProfile { jump_secs: -90, ..WallProfile::default() }, 3, 7);
    }

    #[test]
    fn a_process_that_wants_ticks_without_end_is_seen() {
        fn check(idle: bool, deadline_ahead: Duration, expected: bool) {
            let mut now = Time::ZERO;
            let mut alarm = Alarm::new(&mut dice::from_number(1), now);
            let mut fine = true;
            for _ in 0..=SPINS_MAX {
                fine &= alarm.set(alarm.local(now) + deadline_ahead, now, true, idle);
                assert!(alarm.wake() > now, "time goes on");
                now = alarm.wake();
            }
            assert_eq!(fine, expected);
        }
        check(true, Duration::ZERO, false);
        check(false, Duration::ZERO, true);
        check(true, Duration::from_micros(1), true);
    }
}
