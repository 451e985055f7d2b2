//! Discovery: how servers find each other, and which cluster a server belongs to.
//!
//! Each server says HELLO to everybody on its networks: at once, then each second for 10 s, then every 2 s; and so again
//! when its networks have changed. Whoever
//! hears a HELLO of a boot that it does not know answers with its own, to that server alone; so a newcomer knows
//! everybody within milliseconds. Servers that no broadcast reaches are asked by FIND at their session address
//! (`--peer`) and answer HERE, with the same facts; so are servers that a client looks for.
//!
//! ```text
//!   newcomer                          server
//!      | HELLO (broadcast) ------------> |   unknown boot
//!      | <------------ HELLO (to you) -- |
//!      | Candidate: open a session       |   Candidate: open a session
//! ```
//!
//! A packet is a hint and no more: it may be forged, or replayed. Nothing follows from it but an attempt to open a
//! session, in which both sides prove the secret. So the outputs are [`Output::Candidate`] (of our cluster: connect) and
//! [`Output::Adopt`] (connect, and come over once the session stands); both are repeated with every packet, and the
//! caller ignores those it has a session with. A server that is heard over IPv4 and IPv6 is a candidate at its IPv4
//! address at first, so that both sides try the same; at the other one too where that has led to nothing. Nobody's id is settled here either: [`Output::Choose`] avoids the ids
//! that were heard, and a session settles what is left of collisions.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use zeroize::Zeroizing;

use self::{foreign::ForeignClusters, limiter::Limiter, packet::Nonce, unite::Verdict};
use crate::{
    addr::with_port,
    ids::{Boot, ClusterId, ServerId},
    rng::Rng,
    session::keys::Suite,
    time::{Duration, Time},
};

pub mod foreign;
pub mod interfaces;
mod limiter;
pub mod packet;
pub mod unite;

pub use self::{
    foreign::Foreign,
    packet::{Facts, Packet, is_discovery},
};

/// Between two HELLOs while a newcomer is about to take itself for alone: one that is lost must not found a cluster.
const HELLO_START: Duration = Duration::from_millis(100);
/// How long that is.
const HELLO_START_FOR: Duration = Duration::from_millis(250);
/// Between two HELLOs at the start.
const HELLO_FIRST: Duration = Duration::from_secs(1);
/// How long the start lasts.
const HELLO_FIRST_FOR: Duration = Duration::from_secs(10);
/// Between two HELLOs later on, +-20 %.
const HELLO_LATER: Duration = Duration::from_secs(2);
/// Between two FINDs to a server that was named by `--peer`.
const FIND_EVERY: Duration = Duration::from_secs(2);
/// How long a server without an id listens before it chooses one.
const CHOOSE_AFTER: Duration = Duration::from_millis(300);
/// A HELLO to one address alone is sent at most so often.
const ANSWER_EVERY: Duration = Duration::from_millis(250);
/// HEREs to one address: one for each such span ...
const HERE_EVERY: Duration = Duration::from_millis(50);
/// ... and so many at once.
const HERE_BURST: u32 = 20;
/// Boots that are remembered.
const KNOWN_MAX: usize = 256;
/// A server that is heard over IPv4 and IPv6 is a candidate at its IPv4 address alone for so long.
const FAMILY_FOR: Duration = Duration::from_secs(5);
/// A boot that has been silent for so long is forgotten.
const KNOWN_FOR: Duration = Duration::from_secs(30);

/// What discovery is told at its start.
#[derive(Debug)]
pub struct Config {
    /// The key of the tags: [`discovery_key`](crate::session::keys::discovery_key) of our secret and name.
    pub key: Zeroizing<[u8; 32]>,
    /// Session addresses to ask although no broadcast reaches them (`--peer`).
    pub peers: Vec<SocketAddr>,
}

/// What happens to discovery.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// [`Discovery::deadline`] has passed, or our own facts have changed.
    Tick,
    /// A datagram for which [`is_discovery`] holds arrived, on whichever port.
    Datagram {
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
}

/// A server to open a session with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Its session address.
    pub addr: SocketAddr,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub id: ServerId,
    /// Its boot.
    pub boot: Boot,
    /// The public key of its cluster.
    pub key: [u8; 32],
    /// The suite that it would rather have.
    pub suite: Suite,
    /// Whether its log holds no entry of a person.
    pub empty: bool,
    /// Seconds since its cluster was founded.
    pub age_secs: u32,
}

impl Contact {
    /// Whoever says so, at this address; `None` while it has no id.
    fn of(facts: &Facts, addr: SocketAddr) -> Option<Self> {
        let Facts { cluster, boot, key, suite, empty, age_secs, .. } = *facts;
        Some(Self { addr, cluster, id: facts.id?, boot, key, suite, empty, age_secs })
    }
}

/// What discovery wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram to the discovery port on every interface.
    Broadcast {
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a datagram from the session socket.
    Send {
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// A server of our cluster was heard: open a session, unless there is one. Never before we have an id.
    Candidate(Contact),
    /// A server was heard whose cluster we should adopt: open a session; once it stands, come over. Never before we
    /// have an id.
    Adopt(Contact),
    /// A cluster that stays apart from ours was heard for the first time; see [`Discovery::foreign`].
    Foreign(Foreign),
    /// We have no id, and have listened for long enough: take this one. Once.
    Choose(ServerId),
}

/// A server that was heard.
#[derive(Debug)]
struct Heard {
    facts: Facts,
    addr: SocketAddr,
    at: Time,
    /// When it was heard first.
    first: Time,
    /// When it was last heard over IPv4, if ever.
    by_v4: Option<Time>,
}

/// One `--peer`.
#[derive(Debug)]
struct Peer {
    addr: SocketAddr,
    /// When the next FIND is due; `None` while a session to it stands.
    next: Option<Time>,
}

/// Discovery of one server.
#[derive(Debug)]
pub struct Discovery {
    key: Zeroizing<[u8; 32]>,
    rng: Rng,
    started: Time,
    /// When there was last a reason to say HELLO often: our start, or a change of networks.
    eager_since: Time,
    next_hello: Time,
    /// Cluster, id and boot of the last HELLO: a change is told at once.
    told: Option<(ClusterId, Option<ServerId>, Boot)>,
    /// Whether we had an id when last looked at.
    has_id: bool,
    chosen: bool,
    peers: Vec<Peer>,
    /// The nonce of our FINDs: what does not echo it answers nobody.
    nonce: Nonce,
    /// Servers of our name and secret that were heard, by boot.
    known: BTreeMap<Boot, Heard>,
    foreign: ForeignClusters,
    answers: Limiter,
    heres: Limiter,
    outputs: VecDeque<Output>,
    counters: BTreeMap<&'static str, u64>,
}

impl Discovery {
    /// Discovery that says its first HELLO with its first input.
    pub fn new(config: Config, mut rng: Rng, now: Time) -> Self {
        let nonce = Nonce::random(&mut rng);
        Self {
            key: config.key,
            rng,
            started: now,
            eager_since: now,
            next_hello: now,
            told: None,
            has_id: false,
            chosen: false,
            peers: config.peers.into_iter().map(|addr| Peer { addr, next: Some(now) }).collect(),
            nonce,
            known: BTreeMap::new(),
            foreign: ForeignClusters::default(),
            answers: Limiter::new(ANSWER_EVERY, 1),
            heres: Limiter::new(HERE_EVERY, HERE_BURST),
            outputs: VecDeque::new(),
            counters: BTreeMap::new(),
        }
    }

    /// Takes an input. `facts` are our own as they are now.
    pub fn handle(&mut self, input: Input<'_>, facts: &Facts, now: Time) {
        self.tick(facts, now);
        if let Input::Datagram { from, bytes } = input
            && let Err(error) = self.datagram(from, bytes, facts, now)
        {
            self.count(error.counter());
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Input::Tick`] would do anything now for a server of this cluster, id and boot. To make up [`Facts`] costs
    /// more than most ticks.
    pub fn is_due(&self, cluster: ClusterId, id: Option<ServerId>, boot: Boot, now: Time) -> bool {
        now >= self.deadline() || self.told != Some((cluster, id, boot)) || self.has_id != id.is_some()
    }

    /// When [`Input::Tick`] is wanted.
    pub fn deadline(&self) -> Time {
        let choose = (!self.has_id && !self.chosen).then_some(self.started + CHOOSE_AFTER);
        let finds = self.peers.iter().filter_map(|peer| peer.next);
        finds.chain(choose).fold(self.next_hello, Time::min)
    }

    /// Whether a session stands to the server at `addr`: while it does, a `--peer` is not asked.
    pub fn set_connected(&mut self, addr: SocketAddr, connected: bool, now: Time) {
        for peer in self.peers.iter_mut().filter(|peer| peer.addr == addr) {
            match (connected, peer.next) {
                (true, _) => peer.next = None,
                (false, None) => peer.next = Some(now),
                (false, Some(_)) => {}
            }
        }
    }

    /// The networks of this machine are not what they were: says HELLO at once and often for a while, and asks the named
    /// peers. Takes effect with the next input.
    pub fn network_changed(&mut self, now: Time) {
        self.eager_since = now;
        self.next_hello = now;
        for next in self.peers.iter_mut().filter_map(|peer| peer.next.as_mut()) {
            *next = now;
        }
    }

    /// Clusters that are not ours and were heard within 30 s.
    pub fn foreign(&self, now: Time) -> impl Iterator<Item = &Foreign> {
        self.foreign.iter(now)
    }

    /// Whether a server of our name and secret that has this id in that cluster was heard within 30 s.
    pub fn has_heard(&self, cluster: ClusterId, id: ServerId, now: Time) -> bool {
        let is_that = |heard: &Heard| heard.facts.cluster == cluster && heard.facts.id == Some(id);
        self.known.values().any(|heard| is_that(heard) && now.since(heard.at) < KNOWN_FOR)
    }

    /// Datagrams dropped, by cause.
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters
    }

    fn count(&mut self, counter: &'static str) {
        *self.counters.entry(counter).or_default() += 1;
    }

    fn tick(&mut self, facts: &Facts, now: Time) {
        self.choose(facts, now);
        self.say_hello(facts, now);
        self.ask_peers(facts, now);
        if facts.id.is_some() && !self.has_id {
            // What was heard while we had no id was kept for now.
            let heard: Vec<_> = self.known.values().map(|heard| (heard.facts.clone(), heard.addr)).collect();
            self.has_id = true;
            for (theirs, addr) in heard {
                self.decide(&theirs, addr, facts, now);
            }
        }
        self.has_id = facts.id.is_some();
    }

    /// Chooses an id once we have listened for long enough.
    fn choose(&mut self, facts: &Facts, now: Time) {
        if facts.id.is_some() || self.chosen || now < self.started + CHOOSE_AFTER {
            return;
        }
        self.chosen = true;
        let ours = facts.ids.iter();
        let held: BTreeSet<u32> = self
            .known
            .values()
            .flat_map(|heard| heard.facts.ids.iter().chain(&heard.facts.id))
            .chain(ours)
            .map(|id| id.0)
            .collect();
        // Servers that were started together are choosing too: each skips as many as have a lower boot.
        let before = self.known.iter().filter(|(boot, heard)| heard.facts.id.is_none() && **boot < facts.boot).count();
        let free = (1..=u32::MAX).filter(|id| !held.contains(id)).nth(before);
        self.outputs.extend(free.map(|id| Output::Choose(ServerId(id))));
    }

    fn say_hello(&mut self, facts: &Facts, now: Time) {
        let tell = (facts.cluster, facts.id, facts.boot);
        if self.told == Some(tell) && now < self.next_hello {
            return;
        }
        self.told = Some(tell);
        let up = now.since(self.eager_since);
        self.next_hello = if up < HELLO_START_FOR {
            now + HELLO_START
        } else if up < HELLO_FIRST_FOR {
            now + HELLO_FIRST
        } else {
            now + self.rng.jitter(HELLO_LATER, 20)
        };
        let bytes = self.hello(facts);
        self.outputs.push_back(Output::Broadcast { bytes });
    }

    fn hello(&mut self, facts: &Facts) -> Vec<u8> {
        packet::hello(facts, Nonce::random(&mut self.rng), &self.key)
    }

    fn ask_peers(&mut self, facts: &Facts, now: Time) {
        for peer in &mut self.peers {
            if peer.next.is_some_and(|next| next <= now) {
                peer.next = Some(now + FIND_EVERY);
                let bytes = packet::find(Some(&facts.name), self.nonce);
                self.outputs.push_back(Output::Send { to: peer.addr, bytes });
            }
        }
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8], facts: &Facts, now: Time) -> Result<(), packet::Error> {
        match packet::parse(bytes)? {
            Packet::Find { nonce, .. } => self.answer_find(from, bytes.len(), nonce, facts, now),
            // A HELLO may come from any socket of its server, so it names the port; a HERE comes from the address that
            // we asked, through whatever translates addresses between us.
            Packet::Hello { facts: theirs } => {
                let addr = with_port(from, theirs.port);
                self.hear(&theirs, addr, bytes, facts, now)?;
            }
            Packet::Here { nonce, .. } if nonce != self.nonce => return Err(packet::Error::Nonce),
            Packet::Here { facts: theirs, .. } => self.hear(&theirs, from, bytes, facts, now)?,
        }
        Ok(())
    }

    fn answer_find(&mut self, from: SocketAddr, asked_bytes: usize, nonce: Nonce, facts: &Facts, now: Time) {
        let bytes = packet::here(facts, nonce, &self.key);
        if bytes.len() > asked_bytes {
            self.count("discovery_unpadded");
        } else if self.heres.allow(from, now) {
            self.outputs.push_back(Output::Send { to: from, bytes });
        } else {
            self.count("discovery_limited");
        }
    }

    /// Takes what a server says of itself.
    fn hear(
        &mut self,
        theirs: &Facts,
        addr: SocketAddr,
        bytes: &[u8],
        ours: &Facts,
        now: Time,
    ) -> Result<(), packet::Error> {
        if theirs.boot == ours.boot {
            return Ok(());
        }
        if theirs.name != ours.name {
            self.count("discovery_name");
            self.note_foreign(theirs, addr, false, now);
            return Ok(());
        }
        if !packet::verify(bytes, &self.key) {
            // Whoever forges a packet with our cluster's id does not make it a foreign one.
            if theirs.cluster != ours.cluster {
                self.note_foreign(theirs, addr, false, now);
            }
            return Err(packet::Error::Tag);
        }
        let newcomer = self.remember(theirs, addr, now);
        let verdict = unite::verdict(ours, theirs);
        if (newcomer || verdict == Verdict::TheyAdopt) && self.answers.allow(addr, now) {
            let bytes = self.hello(ours);
            self.outputs.push_back(Output::Send { to: addr, bytes });
        }
        if !self.is_second_choice(theirs.boot, addr, now) {
            self.decide(theirs, addr, ours, now);
        }
        Ok(())
    }

    /// Remembers a boot; whether it is a new one.
    fn remember(&mut self, theirs: &Facts, addr: SocketAddr, now: Time) -> bool {
        self.known.retain(|_, heard| now.since(heard.at) < KNOWN_FOR);
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&theirs.boot) {
            return false;
        }
        let before = self.known.get(&theirs.boot);
        let first = before.map_or(now, |heard| heard.first);
        let by_v4 = if addr.is_ipv4() { Some(now) } else { before.and_then(|heard| heard.by_v4) };
        let addr =
            if self.is_second_choice(theirs.boot, addr, now) { before.map_or(addr, |heard| heard.addr) } else { addr };
        self.known.insert(theirs.boot, Heard { facts: theirs.clone(), addr, at: now, first, by_v4 }).is_none()
    }

    /// Whether this is an IPv6 address of a server that was just met, and is heard over IPv4 too.
    fn is_second_choice(&self, boot: Boot, addr: SocketAddr, now: Time) -> bool {
        let is_met = |heard: &Heard| {
            now.since(heard.first) < FAMILY_FOR && heard.by_v4.is_some_and(|at| now.since(at) < FAMILY_FOR)
        };
        addr.is_ipv6() && self.known.get(&boot).is_some_and(is_met)
    }

    /// What follows from facts whose tag was verified.
    fn decide(&mut self, theirs: &Facts, addr: SocketAddr, ours: &Facts, now: Time) {
        let verdict = unite::verdict(ours, theirs);
        if verdict == Verdict::Apart {
            self.note_foreign(theirs, addr, true, now);
            return;
        }
        self.foreign.forget(theirs.cluster);
        let (Some(contact), Some(_)) = (Contact::of(theirs, addr), ours.id) else { return };
        match verdict {
            Verdict::Same => self.outputs.push_back(Output::Candidate(contact)),
            Verdict::WeAdopt => self.outputs.push_back(Output::Adopt(contact)),
            Verdict::TheyAdopt | Verdict::Apart => {}
        }
    }

    fn note_foreign(&mut self, theirs: &Facts, addr: SocketAddr, proven: bool, now: Time) {
        if self.foreign.note(theirs, addr, proven, now) {
            let foreign = self.foreign.get(theirs.cluster).cloned();
            self.outputs.extend(foreign.map(Output::Foreign));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
