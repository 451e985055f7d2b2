//! The failure detector: who is heard, who is dead.
//!
//! Every server says a beat to every other, each 100 ms, unreliably. A beat names the servers that its sender hears; a
//! peer is *live* only while it is heard and says that it hears us, so that a link that works one way counts as none, on
//! both of its ends.
//!
//! ```text
//!            it is heard, and hears us
//!  Dead ──────────────────────────────▶ Live
//!  ▲ │                                  ▲ │
//!  │ │  only others hear it both ways   │ │
//!  │ └────────────▶ Unheard ────────────┘ │  silent, or deaf to us:
//!  │                ▲  │                  │
//!  └── nobody does ─┼──┴──────────────────┤
//!                   └─────────────────────┘
//! ```
//!
//! - Nobody is dead because of one bad link. A beat says of each server how long ago its sender last heard it both ways;
//!   so the newest sign of life is the newest of our own and of those that live peers vouch for. A peer that only others
//!   hear is *unheard*: it lives, and what we want of it goes through one of those. That is an indirect probe through all
//!   peers at once, which costs no packet and no time (gossip-style failure detection; van Renesse, Minsky, Hayden 1998;
//!   in the place of SWIM's ping-req; Das, Gupta, Motivala 2002).
//! - That is told on, so that the two ends of a chain know of each other: a beat also names servers of which its sender
//!   knows by others alone, with the age of what the one at the other end heard. Ages only grow on the way, and what has
//!   come over [`limits::HOPS_MAX`] servers is not told on: so nobody is kept alive by a rumour that goes in a circle, and
//!   after a death all give up together. The way to such a server leads over the peer with the fewest servers in between.
//! - Suspicion adapts: a peer may be silent for mean + 4 sigma of the spans between its last 32 beats, from 500 ms to
//!   2 s. (A plain neighbour of the phi accrual detector; Hayashibara, Defago, Yared, Katayama 2004.)
//! - A detector must not blame others for its own troubles: when its own turns come late, that span is multiplied by up
//!   to 4 (the local health of Lifeguard; Dadgar, Phillips, Currey 2018), and after a pause of its own every peer gets
//!   fresh credit.
//!
//! It is assumed that the node passes on only beats from authentic sessions, and that boots of a server only grow, but
//! where two had one id.

mod peer;

use self::peer::{Peer, Voucher, micros};
use crate::{
    ids::{Origin, ServerId},
    limits,
    planted::{self, Bug},
    rng::Rng,
    sorted::SortedMap,
    time::{Duration, Time},
    wire::frame::{Heard, Rumour},
};

/// Peers remembered, dead ones included; beyond that the one that has been silent longest is forgotten.
const PEERS_MAX: usize = 4 * limits::SERVERS_MAX;
/// Servers of which only others have told; less than all that are remembered.
const HEARSAY_MAX: usize = PEERS_MAX / 2;
/// By how much a sign of life that others vouch for must be newer than all before it to count for more than they did: two
/// beats. Less is the difference between two ways through the network, after a death too.
const NEWER: Duration = Duration::from_millis(200);
/// Lateness of a turn that is ordinary, and raises no timeout.
const LATE_ORDINARY: Duration = Duration::from_millis(20);
/// Lateness, beyond the ordinary, for which the multiplier grows by 1.
const LATE_STEP: Duration = Duration::from_millis(100);

/// How a failure detector is set.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The span between beats, +-5 %. Shorter finds deaths sooner and costs packets: servers squared, divided by it.
    pub every: Duration,
    /// The least silence that counts as death. At least 4 beats: fewer are lost together on a busy radio.
    pub timeout_min: Duration,
    /// The most silence that is tolerated, before local health.
    pub timeout_max: Duration,
    /// The timeout of a peer of which little is known yet.
    pub timeout_first: Duration,
    /// A turn that is later than this is a pause of our own: everybody gets fresh credit. Below `timeout_min`.
    pub pause: Duration,
    /// What local health multiplies timeouts by at most.
    pub health_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(100),
            timeout_min: Duration::from_millis(500),
            timeout_max: Duration::from_secs(2),
            timeout_first: Duration::from_secs(1),
            pause: Duration::from_millis(300),
            health_max: 4,
        }
    }
}

/// What has become of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is live: heard, and it hears us.
    Alive(Origin),
    /// We do not hear it, or it does not hear us; but a live peer and it hear each other.
    Unheard(Origin),
    /// It was live or unheard and is no more: nobody that we hear hears it both ways, or a newer boot has taken its place.
    Dead {
        /// Which.
        peer: Origin,
        /// For how long there had been no sign that it lives and hears anybody.
        silent: Duration,
    },
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is heard, and hears us.
    Live,
    /// Only others hear it both ways.
    Unheard,
    /// Nobody does, or it is not known.
    Dead,
}

/// A timeout times local health, in whole microseconds: a clock of microseconds never meets a finer one exactly, and the
/// deadline would come again and again.
fn healthy(timeout: Duration, health: f64) -> Duration {
    // In perfect health, as nearly always, it is the timeout itself: that is asked for with every packet.
    if health <= 1.0 {
        return timeout;
    }
    Duration::from_micros(micros(timeout.mul_f64(health)))
}

/// When a peer's silence will have lasted for so long that it stands otherwise than now, if ever.
fn expiry(peer: &Peer, health: f64) -> Option<Time> {
    let timeout = healthy(peer.timeout, health);
    match peer.status {
        // Others hear it and we do not: that is the link.
        Status::Live if peer.vouched > peer.heard_us + NEWER => Some(peer.heard_us + timeout),
        // Others hear as little as we do: all give up together.
        Status::Live => Some(peer.sign() + timeout),
        Status::Unheard => Some(peer.vouched + timeout),
        Status::Dead => None,
    }
}

/// The failure detector of one server.
#[derive(Debug)]
pub struct Heartbeat {
    config: Config,
    rng: Rng,
    peers: SortedMap<ServerId, Peer>,
    next_beat: Time,
    /// Lateness of turns, averaged.
    lag: Duration,
    /// Lateness of turns, rising at once and fading over a second or so: what local health is made of.
    lag_peak: Duration,
    /// Found between ticks.
    changes: Vec<Change>,
}

impl Heartbeat {
    /// A detector that knows nobody yet; its first beat is due at once.
    pub fn new(config: Config, rng: Rng, now: Time) -> Self {
        Self {
            config,
            rng,
            peers: SortedMap::default(),
            next_beat: now,
            lag: Duration::ZERO,
            lag_peak: Duration::ZERO,
            changes: Vec::new(),
        }
    }

    /// A session with `peer` stands: its beats are expected from now on, also after [`Self::gone`], and also where a newer
    /// boot is known that is dead, or of which only others have told: of two servers with one id the newer has given way, or
    /// somebody has invented it.
    pub fn up(&mut self, peer: Origin, now: Time) {
        self.notice_pause(now);
        let config = self.config;
        self.outdo_hearsay(peer, now);
        if self.peers.get(&peer.id).is_some_and(|known| known.boot > peer.boot && known.status == Status::Dead) {
            self.peers.remove(&peer.id);
        }
        let Some(known) = self.expect(peer, now) else { return };
        if known.gone {
            *known = Peer::new(peer.boot, now, &config);
        }
        known.met = true;
    }

    /// What we hear ourselves counts for more than a newer boot of which only others have told.
    fn outdo_hearsay(&mut self, peer: Origin, now: Time) {
        let Some(known) = self.peers.get(&peer.id).filter(|known| known.boot > peer.boot && !known.met) else { return };
        if known.status != Status::Dead {
            let told = Origin { id: peer.id, boot: known.boot };
            self.changes.push(Change::Dead { peer: told, silent: now.since(known.vouched) });
        }
        self.peers.remove(&peer.id);
    }

    /// `peer` said goodbye, or its membership ended: it is forgotten, and no [`Change`] says so.
    pub fn gone(&mut self, peer: ServerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            (known.gone, known.status, known.audible) = (true, Status::Dead, false);
        }
    }

    /// A beat of `peer` arrived; `hears_us` if we are among those that it names. Beats of a boot older than one known are
    /// ignored; with the first of a newer one the old one is dead.
    pub fn heard(&mut self, peer: Origin, hears_us: bool, now: Time) {
        self.notice_pause(now);
        let config = self.config;
        self.outdo_hearsay(peer, now);
        let Some(known) = self.expect(peer, now).filter(|known| !known.gone) else { return };
        known.met = true;
        known.arrival(now, &config);
        if hears_us {
            (known.heard_us, known.proved) = (now, now);
            if known.status != Status::Live {
                known.status = Status::Live;
                self.changes.push(Change::Alive(peer));
            }
        }
    }

    /// A beat of `by` says that `by` heard `peer` both ways `age` ago. It counts while we hear `by` both ways.
    pub fn vouched(&mut self, by: ServerId, peer: Origin, age: Duration, now: Time) {
        self.told(by, Rumour { peer, age: u32::try_from(age.as_millis()).unwrap_or(u32::MAX), hops: 0 }, now);
    }

    /// A beat of `by` says what others told it of a server. It counts while we hear `by` both ways.
    pub fn told(&mut self, by: ServerId, rumour: Rumour, now: Time) {
        self.notice_pause(now);
        let Rumour { peer, hops, .. } = rumour;
        let age = Duration::from_millis(rumour.age.into());
        if hops >= limits::HOPS_MAX {
            return;
        }
        if by == peer.id || !self.is_live(by) {
            return;
        }
        match self.peers.get(&peer.id) {
            None if self.peers.len() >= HEARSAY_MAX => return,
            // We know another run of it to live: it may be two servers, and nobody dies of hearsay.
            Some(known) if known.status != Status::Dead && known.boot < peer.boot => return,
            _ => {}
        }
        let health = self.health();
        let Some(known) = self.expect(peer, now).filter(|known| !known.gone) else { return };
        let at = Time::ZERO + now.since(Time::ZERO + age);
        let mut vouchers = std::mem::take(&mut known.vouchers);
        vouchers.retain(|voucher| voucher.by != by && self.is_live(voucher.by));
        vouchers.push(Voucher { by, at, hops: hops + 1 });
        let Some(known) = self.peers.get_mut(&peer.id) else { return };
        known.vouchers = vouchers;
        if age >= healthy(known.timeout, health) {
            return;
        }
        if known.status != Status::Dead {
            known.vouched = known.vouched.max(at);
        } else if at > known.sign() + NEWER {
            known.vouched = at;
            known.status = Status::Unheard;
            self.changes.push(Change::Unheard(peer));
        }
    }

    /// To be called at [`Self::deadline`], and harmless at other times. Says whether a beat should leave now, to all peers
    /// with a session, and what has changed since the last call.
    pub fn tick(&mut self, now: Time) -> (bool, Vec<Change>) {
        self.notice_pause(now);
        let beat_due = now >= self.next_beat;
        if beat_due {
            self.took_turn(now.since(self.next_beat));
            self.next_beat = now + self.rng.jitter(self.config.every, 5);
        }
        self.expire(now);
        (beat_due, std::mem::take(&mut self.changes))
    }

    /// How late this server's own turns come, smoothed.
    pub fn lag(&self) -> Duration {
        self.lag
    }

    /// The servers that are heard, whether or not they hear us, those that do first: what goes into our own beat.
    pub fn hears(&self, now: Time) -> Vec<Heard> {
        let heard = |(id, peer): (ServerId, &Peer)| {
            let both = peer.status == Status::Live;
            // Credit is ours alone: nobody is told that we heard what we did not.
            let age = now.since(if both { peer.proved } else { peer.heard }).as_millis();
            let age = u32::try_from(age).unwrap_or(u32::MAX);
            Heard { peer: Origin { id, boot: peer.boot }, age, both }
        };
        let mut heard: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.audible).map(heard).collect();
        heard.sort_by_key(|heard| !heard.both);
        heard.truncate(limits::SERVERS_MAX);
        heard
    }

    /// The servers that we know to live by what others say, and not, or not lately, by what we hear: what goes into our own
    /// beat beside [`Self::hears`], as many as there is place for.
    pub fn hearsay(&self, now: Time) -> Vec<Rumour> {
        let rumour = |(id, peer): (ServerId, &Peer)| {
            // It is told before we notice that we hear it no more: else those behind us would take it for dead first.
            let is_news = |at: Time| peer.status == Status::Unheard || at > peer.proved + NEWER;
            if !peer.vouchers.iter().any(|voucher| is_news(voucher.at)) {
                return None;
            }
            let way = self.way(peer).filter(|way| way.hops < limits::HOPS_MAX && is_news(way.at))?;
            let age = u32::try_from(now.since(way.at).as_millis()).unwrap_or(u32::MAX);
            Some(Rumour { peer: Origin { id, boot: peer.boot }, age, hops: way.hops })
        };
        let known = self.peers.iter().filter(|(_, peer)| peer.status != Status::Dead);
        let heard = self.peers.values().filter(|peer| peer.audible).count();
        known.filter_map(rumour).take(limits::SERVERS_MAX.saturating_sub(heard)).collect()
    }

    /// The servers that are heard and hear us, with their boots, by id.
    pub fn live(&self) -> impl Iterator<Item = Origin> {
        self.standing(Status::Live)
    }

    /// The servers that only others hear both ways, by id.
    pub fn unheard(&self) -> impl Iterator<Item = Origin> {
        self.standing(Status::Unheard)
    }

    /// Whether it is heard and hears us, in whichever boot.
    fn is_live(&self, id: ServerId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.status == Status::Live)
    }

    fn standing(&self, status: Status) -> impl Iterator<Item = Origin> {
        let standing = self.peers.iter().filter(move |(_, peer)| peer.status == status);
        standing.map(|(id, peer)| Origin { id, boot: peer.boot })
    }

    /// How a peer stands, in this boot.
    pub fn status(&self, peer: Origin) -> Status {
        self.peers.get(&peer.id).filter(|known| known.boot == peer.boot).map_or(Status::Dead, |known| known.status)
    }

    /// The live peer over which the fewest servers lie between us and `peer`, if any has told of it since it can be heard
    /// itself: a way round a bad link.
    pub fn detour(&self, peer: Origin) -> Option<ServerId> {
        let known = self.peers.get(&peer.id).filter(|known| known.boot == peer.boot)?;
        self.way(known).map(|way| way.by)
    }

    /// Whether `by` is still as good a way round to `peer` as any.
    pub fn is_detour(&self, by: ServerId, peer: Origin) -> bool {
        let Some(known) = self.peers.get(&peer.id).filter(|known| known.boot == peer.boot) else { return false };
        let Some(way) = self.way(known) else { return false };
        self.ways(known).any(|other| other.by == by && other.hops == way.hops)
    }

    /// The words of live peers that are as fresh as any, within the time in which a silence is noticed.
    fn ways<'a>(&'a self, peer: &'a Peer) -> impl Iterator<Item = Voucher> + 'a {
        let newest =
            peer.vouchers.iter().filter(|way| self.is_live(way.by)).map(|way| way.at).max().unwrap_or(Time::ZERO);
        let is_fresh = move |at: Time| newest.since(at) < self.config.timeout_min;
        peer.vouchers.iter().copied().filter(move |way| self.is_live(way.by) && is_fresh(way.at))
    }

    /// The best of them. What is newest is no sign of the shortest way: what comes over one more server is told later.
    fn way(&self, peer: &Peer) -> Option<Voucher> {
        self.ways(peer).min_by_key(|way| (way.hops, std::cmp::Reverse(way.at)))
    }

    /// When [`Self::tick`] is wanted.
    pub fn deadline(&self) -> Time {
        if !self.changes.is_empty() {
            return Time::ZERO;
        }
        let health = self.health();
        let silences = self.peers.values().filter(|peer| peer.audible);
        let silences = silences.map(|peer| peer.heard + healthy(peer.timeout, health));
        let expiries = self.peers.values().filter_map(|peer| expiry(peer, health));
        silences.chain(expiries).fold(self.next_beat, Time::min)
    }

    /// From 1 (well) to [`Config::health_max`]: what timeouts are multiplied by.
    fn health(&self) -> f64 {
        let late = self.lag_peak.saturating_sub(LATE_ORDINARY);
        if late.is_zero() {
            return 1.0;
        }
        (1.0 + late.as_secs_f64() / LATE_STEP.as_secs_f64()).min(f64::from(self.config.health_max))
    }

    /// The record of `peer` in this boot, made if need be; `None` if a newer boot is known.
    fn expect(&mut self, peer: Origin, now: Time) -> Option<&mut Peer> {
        let config = self.config;
        match self.peers.get(&peer.id) {
            Some(known) if known.boot > peer.boot => return None,
            Some(known) if known.boot == peer.boot => {}
            Some(old) => {
                if old.status != Status::Dead {
                    let silent = now.since(old.heard.max(old.vouched));
                    self.changes.push(Change::Dead { peer: Origin { id: peer.id, boot: old.boot }, silent });
                }
                self.peers.insert(peer.id, Peer::new(peer.boot, now, &config));
            }
            None => {
                if self.peers.len() >= PEERS_MAX {
                    let idle = self
                        .peers
                        .iter()
                        .filter(|(_, peer)| peer.status == Status::Dead)
                        .min_by_key(|(_, peer)| peer.heard);
                    let forgotten = idle.map(|(id, _)| id)?;
                    self.peers.remove(&forgotten);
                }
                self.peers.insert(peer.id, Peer::new(peer.boot, now, &config));
            }
        }
        self.peers.get_mut(&peer.id)
    }

    /// Finds peers that have been silent, or deaf to us, for too long.
    fn expire(&mut self, now: Time) {
        let health = self.health();
        for (id, peer) in self.peers.iter_mut() {
            if peer.audible && now.since(peer.heard) >= healthy(peer.timeout, health) {
                peer.audible = false;
                peer.arrived = None;
            }
            if expiry(peer, health).is_none_or(|at| at > now) {
                continue;
            }
            let origin = Origin { id, boot: peer.boot };
            if peer.status == Status::Live && peer.vouched + healthy(peer.timeout, health) > now {
                peer.status = Status::Unheard;
                self.changes.push(Change::Unheard(origin));
            } else {
                peer.status = Status::Dead;
                self.changes.push(Change::Dead { peer: origin, silent: now.since(peer.sign()) });
            }
        }
    }

    /// After a pause of our own nobody can be blamed for what we did not hear in it. Whatever comes first after it, an
    /// input or a tick, finds it.
    fn notice_pause(&mut self, now: Time) {
        let late = now.since(self.next_beat);
        if late <= self.config.pause || planted::is(Bug::PauseIgnored) {
            return;
        }
        for (_, peer) in self.peers.iter_mut() {
            peer.arrived = None;
            if peer.audible {
                peer.heard = now;
            }
            match peer.status {
                Status::Live => peer.heard_us = now,
                Status::Unheard => peer.vouched = now,
                Status::Dead => {}
            }
        }
        self.took_turn(late);
        self.next_beat = now;
    }

    fn took_turn(&mut self, late: Duration) {
        // A suspended laptop is not slow: one long pause fades like one of a second.
        let late = late.min(Duration::from_secs(1));
        self.lag = (self.lag * 7 + late) / 8;
        self.lag_peak = late.max(self.lag_peak * 7 / 8);
    }
}

#[cfg(test)]
mod tests;
