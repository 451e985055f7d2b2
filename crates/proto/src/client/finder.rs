//! Finding servers: asks FIND, and judges who answers HERE.
//!
//! A HERE is a hint: it may be forged or replayed, and then costs a handshake that fails. What it says must still fit:
//! a tag of our secret, and the key that our secret (of an open cluster: its name and id) gives. So a client of a closed
//! cluster is not led astray by anybody who lacks the secret.
//!
//! A *search* asks everybody, until [`Finder::stop`]; a *lookup* asks one server that we were told of at all its
//! addresses, and the first that answers is the one to go to.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};

use crate::{
    client::api::{Event, Output},
    discovery::packet::{self, Facts, Nonce, Packet},
    ids::{ClusterId, ClusterName, ServerId},
    rng::Rng,
    session::keys::{self, Secret, Suite},
    time::{Duration, Time},
};

/// When FIND is repeated: after these spans, and then after the last of them for ever.
const ROUNDS: [Duration; 5] = [
    Duration::from_millis(150),
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// How long a first answer waits for those of other clusters of the same name.
const CHOICE: Duration = Duration::from_millis(150);
/// How long our own cluster is looked for before another of its name will do.
const FAITH: Duration = Duration::from_secs(3);
/// How long an answer stands for.
const FRESH: Duration = Duration::from_secs(5);
/// How long a lookup goes on.
const LOOKUP: Duration = Duration::from_secs(1);
/// The first wait before the person hears that nobody answers, and the longest.
const TELL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Answers that are kept.
const CANDIDATES_MAX: usize = 32;
/// Clusters that are remembered.
const CLUSTERS_MAX: usize = 256;

/// A server that answered, and that may be one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where.
    pub(super) addr: SocketAddr,
    /// Who, where it has chosen an id.
    pub(super) server: Option<ServerId>,
    /// Its cluster.
    pub(super) cluster: ClusterId,
    /// The cluster's public key.
    pub(super) key: [u8; 32],
    /// The suite that it prefers.
    pub(super) suite: Suite,
    /// Whether the cluster has no secret.
    pub(super) open: bool,
    servers: u32,
    heard_at: Time,
}

#[cfg(test)]
impl Candidate {
    pub(super) fn new(
        addr: SocketAddr,
        server: Option<ServerId>,
        cluster: ClusterId,
        key: [u8; 32],
        suite: Suite,
    ) -> Self {
        Self { addr, server, cluster, key, suite, open: true, servers: 1, heard_at: Time::ZERO }
    }
}

/// Finds servers.
#[derive(Debug)]
pub(super) struct Finder {
    name: ClusterName,
    secret: Option<Secret>,
    nonce: Nonce,
    search: Option<Search>,
    lookup: Option<Lookup>,
    resolved: Option<Candidate>,
    /// Clusters that were told of, and those of them that were told to be not trusted.
    found: BTreeSet<ClusterId>,
    distrusted: BTreeSet<ClusterId>,
}

#[derive(Debug)]
struct Rounds {
    at: Time,
    done: usize,
}

impl Rounds {
    fn poll(&mut self, now: Time) -> bool {
        let due = self.at <= now;
        if due {
            self.at = now + ROUNDS[self.done.min(ROUNDS.len() - 1)];
            self.done += 1;
        }
        due
    }
}

#[derive(Debug)]
struct Search {
    since: Time,
    broadcast: bool,
    targets: Vec<SocketAddr>,
    prefer: Option<ClusterId>,
    rounds: Rounds,
    tell_at: Time,
    tell_span: Duration,
    candidates: Vec<Candidate>,
    first_at: Option<Time>,
}

#[derive(Debug)]
struct Lookup {
    server: ServerId,
    addrs: Vec<SocketAddr>,
    rounds: Rounds,
    expires: Time,
}

impl Finder {
    /// Finds servers of the cluster `name` with this secret, or without one.
    pub(super) fn new(name: ClusterName, secret: Option<Secret>, rng: &mut Rng) -> Self {
        Self {
            name,
            secret,
            nonce: Nonce::random(rng),
            search: None,
            lookup: None,
            resolved: None,
            found: BTreeSet::new(),
            distrusted: BTreeSet::new(),
        }
    }

    /// Asks `targets`, and everybody where `broadcast`. `prefer` is the cluster that we come from.
    pub(super) fn search(
        &mut self,
        targets: Vec<SocketAddr>,
        broadcast: bool,
        prefer: Option<ClusterId>,
        rng: &mut Rng,
        now: Time,
    ) {
        self.nonce = Nonce::random(rng);
        self.lookup = None;
        self.resolved = None;
        self.search = Some(Search {
            since: now,
            broadcast,
            targets,
            prefer,
            rounds: Rounds { at: now, done: 0 },
            tell_at: now + TELL.0,
            tell_span: TELL.0,
            candidates: Vec::new(),
            first_at: None,
        });
    }

    /// Asks whom it asks anyway, now and often for a while.
    pub(super) fn ask_now(&mut self, now: Time) {
        let rounds = self.search.iter_mut().map(|search| &mut search.rounds);
        for rounds in rounds.chain(self.lookup.iter_mut().map(|lookup| &mut lookup.rounds)) {
            *rounds = Rounds { at: now, done: 0 };
        }
    }

    /// A server serves us.
    pub(super) fn stop(&mut self) {
        self.search = None;
    }

    /// Whether a search is on.
    pub(super) fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Asks one server at all its addresses, instead of any that is asked now.
    pub(super) fn look_up(&mut self, server: ServerId, addrs: &[SocketAddr], now: Time) {
        let rounds = Rounds { at: now, done: 0 };
        self.resolved = None;
        self.lookup = Some(Lookup { server, addrs: addrs.to_vec(), rounds, expires: now + LOOKUP });
    }

    /// Whether a lookup is on; it ends by itself where nobody answers.
    pub(super) fn is_looking_up(&mut self, now: Time) -> bool {
        self.lookup.take_if(|lookup| lookup.expires <= now);
        self.lookup.is_some()
    }

    /// The server that was looked up, once it has answered.
    pub(super) fn take_resolved(&mut self) -> Option<Candidate> {
        self.resolved.take()
    }

    /// Takes a datagram of discovery.
    pub(super) fn handle(&mut self, from: SocketAddr, datagram: &[u8], now: Time, outputs: &mut VecDeque<Output>) {
        let Ok(Packet::Here { facts, nonce }) = packet::parse(datagram) else { return };
        if nonce != self.nonce {
            return;
        }
        if self.found.len() < CLUSTERS_MAX && self.found.insert(facts.cluster) {
            outputs.push_back(Output::Event(Event::Found {
                name: facts.name.clone(),
                cluster: facts.cluster,
                addr: from,
                servers: facts.servers as usize,
                open: facts.open,
            }));
        }
        if facts.name != self.name {
            return;
        }
        if let Some(why) = self.distrust(&facts, datagram) {
            if self.distrusted.len() < CLUSTERS_MAX && self.distrusted.insert(facts.cluster) {
                outputs.push_back(Output::Event(Event::NotTrusted { why }));
            }
            return;
        }
        self.accept(Candidate {
            addr: from,
            server: facts.id,
            cluster: facts.cluster,
            key: facts.key,
            suite: facts.suite,
            open: facts.open,
            servers: facts.servers,
            heard_at: now,
        });
    }

    /// Asks whom it is time to ask.
    pub(super) fn poll(&mut self, now: Time, outputs: &mut VecDeque<Output>) {
        let find = || packet::find(None, self.nonce);
        if let Some(search) = &mut self.search {
            if search.rounds.poll(now) {
                if search.broadcast {
                    outputs.push_back(Output::Broadcast { bytes: find() });
                }
                outputs.extend(search.targets.iter().map(|to| Output::Send { to: *to, bytes: find() }));
            }
            if search.tell_at <= now {
                if search.first_at.is_none() {
                    outputs.push_back(Output::Event(Event::Searching));
                }
                search.tell_span = (search.tell_span * 2).min(TELL.1);
                search.tell_at = now + search.tell_span;
            }
        }
        if let Some(lookup) = &mut self.lookup
            && lookup.rounds.poll(now)
        {
            outputs.extend(lookup.addrs.iter().map(|to| Output::Send { to: *to, bytes: find() }));
        }
    }

    /// The server to try next, once it is time to choose: of our own cluster at once; of another once ours had its
    /// time, the one with the most servers, then the lowest id. Each answer is tried once.
    pub(super) fn choose(&mut self, now: Time) -> Option<Candidate> {
        let search = self.search.as_mut()?;
        search.candidates.retain(|candidate| now.since(candidate.heard_at) < FRESH);
        let cluster = search.best_cluster(now)?;
        let index = search.candidates.iter().position(|candidate| candidate.cluster == cluster)?;
        Some(search.candidates.remove(index))
    }

    /// Whether [`Self::choose`] would name something other than what is being tried.
    pub(super) fn has_other_than(&self, addr: SocketAddr, key: &[u8; 32], now: Time) -> bool {
        self.search.as_ref().is_some_and(|search| {
            let other = |candidate: &Candidate| candidate.addr != addr || candidate.key != *key;
            search.best_cluster(now).is_some() && search.candidates.iter().any(other)
        })
    }

    /// When something is to be done.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let search = self.search.iter().flat_map(|search| {
            let choice = search.choice_at().filter(|at| !search.candidates.is_empty() && *at > now);
            choice.into_iter().chain([search.rounds.at, search.tell_at])
        });
        let lookup = self.lookup.iter().map(|lookup| lookup.rounds.at.min(lookup.expires));
        search.chain(lookup).min()
    }

    /// Why a server that says this cannot be one of ours; `None` if it may be.
    fn distrust(&self, facts: &Facts, datagram: &[u8]) -> Option<String> {
        let tag_key = keys::discovery_key(self.secret.as_ref(), &self.name);
        let key = keys::cluster_key(self.secret.as_ref(), &self.name, facts.cluster).public;
        let name = &self.name;
        match (&self.secret, facts.open) {
            (None, false) => {
                Some(format!("the cluster {name} has a secret and we have none: give it with --secret-file"))
            }
            (Some(_), true) => Some(format!(
                "a cluster {name} without a secret answers, and ours has one: leave --secret-file out to join that one"
            )),
            _ if packet::verify(datagram, &tag_key) && facts.key == key => None,
            (Some(_), false) => Some(format!("the cluster {name} has another secret: check the file of --secret-file")),
            (None, true) => Some(format!("a server of the cluster {name} names a key that is not the cluster's")),
        }
    }

    fn accept(&mut self, candidate: Candidate) {
        if let Some(lookup) = &self.lookup
            && candidate.server == Some(lookup.server)
        {
            self.lookup = None;
            self.resolved = Some(candidate.clone());
        }
        if let Some(search) = &mut self.search {
            search.first_at.get_or_insert(candidate.heard_at);
            search.candidates.retain(|known| known.addr != candidate.addr);
            if search.candidates.len() < CANDIDATES_MAX {
                search.candidates.push(candidate);
            }
        }
    }
}

impl Search {
    /// When a choice among clusters may be made.
    fn choice_at(&self) -> Option<Time> {
        let ours = |candidate: &Candidate| self.prefer == Some(candidate.cluster);
        if self.candidates.iter().any(ours) {
            return Some(self.since);
        }
        let first_at = self.first_at?;
        let wait = match (self.prefer, self.broadcast) {
            (Some(_), _) => return Some(self.since + FAITH),
            (None, true) => CHOICE,
            (None, false) => Duration::ZERO,
        };
        Some(first_at + wait)
    }

    fn best_cluster(&self, now: Time) -> Option<ClusterId> {
        if self.choice_at().is_none_or(|at| at > now) {
            return None;
        }
        let rank = |candidate: &&Candidate| {
            let ours = self.prefer == Some(candidate.cluster);
            (std::cmp::Reverse((ours, candidate.servers)), candidate.cluster)
        };
        self.candidates.iter().min_by_key(rank).map(|candidate| candidate.cluster)
    }
}
