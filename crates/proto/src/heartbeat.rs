//! The failure detector: who is heard, who is dead.
//!
//! Every server says a beat to every other, each 100 ms, unreliably. A beat names the servers that its sender hears; a
//! peer is *live* only while it is heard and says that it hears us, so that a link that works one way counts as none, on
//! both of its ends.
//!
//! - Suspicion adapts: a peer may be silent for mean + 4 sigma of the spans between its last 32 beats, from 500 ms to
//!   2 s. (A plain neighbour of the phi accrual detector; Hayashibara, Defago, Yared, Katayama 2004.)
//! - A detector must not blame others for its own troubles: when its own turns come late, that span is multiplied by up
//!   to 4 (the local health of Lifeguard; Dadgar, Phillips, Currey 2018), and after a pause of its own every peer gets
//!   fresh credit.
//!
//! It is assumed that the node passes on only beats from authentic sessions, and that boots of a server only grow.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    ids::{Boot, Origin, ServerId},
    limits,
    rng::Rng,
    time::{Duration, Time},
};

/// Peers remembered, dead ones included; beyond that the one that has been silent longest is forgotten.
const PEERS_MAX: usize = 4 * limits::SERVERS_MAX;
/// Spans between beats that a timeout is computed from.
const WINDOW: usize = 32;
/// Fewer spans than this say nothing yet.
const SPANS_MIN: usize = 8;
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
    /// It was live and is no more: silent, or it no longer hears us, or a newer boot has taken its place.
    Dead {
        /// Which.
        peer: Origin,
        /// For how long it had been silent, or deaf to us.
        silent: Duration,
    },
}

/// A peer that is known.
#[derive(Debug)]
struct Peer {
    boot: Boot,
    /// When it was last heard, or given credit.
    heard: Time,
    /// When it last said that it hears us, or was given credit.
    heard_us: Time,
    /// When its last beat arrived, if the span to the next one is worth counting.
    arrived: Option<Time>,
    /// The newest spans between its beats, microseconds.
    spans: VecDeque<u64>,
    /// It is heard.
    audible: bool,
    /// It is heard and hears us.
    live: bool,
    /// It said goodbye in this boot: what still arrives from it does not count.
    gone: bool,
}

impl Peer {
    fn new(boot: Boot, now: Time) -> Self {
        Self {
            boot,
            heard: now,
            heard_us: now,
            arrived: None,
            spans: VecDeque::new(),
            audible: false,
            live: false,
            gone: false,
        }
    }

    fn arrival(&mut self, now: Time, span_max: Duration) {
        if let Some(before) = self.arrived.replace(now) {
            if self.spans.len() == WINDOW {
                self.spans.pop_front();
            }
            self.spans.push_back(micros(now.since(before).min(span_max)));
        }
        self.heard = now;
        self.audible = true;
    }

    /// How long it may be silent, in a detector in perfect health.
    fn timeout(&self, config: &Config) -> Duration {
        if self.spans.len() < SPANS_MIN {
            return config.timeout_first;
        }
        let n = self.spans.len() as u64;
        let mean = self.spans.iter().sum::<u64>() / n;
        let variance = self.spans.iter().map(|span| span.abs_diff(mean).pow(2)).sum::<u64>() / n;
        Duration::from_micros(mean + 4 * variance.isqrt()).clamp(config.timeout_min, config.timeout_max)
    }
}

/// A timeout times local health, in whole microseconds: a clock of microseconds never meets a finer one exactly, and the
/// deadline would come again and again.
fn healthy(timeout: Duration, health: f64) -> Duration {
    Duration::from_micros(micros(timeout.mul_f64(health)))
}

/// A span in microseconds.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The failure detector of one server.
#[derive(Debug)]
pub struct Heartbeat {
    config: Config,
    rng: Rng,
    peers: BTreeMap<ServerId, Peer>,
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
            peers: BTreeMap::new(),
            next_beat: now,
            lag: Duration::ZERO,
            lag_peak: Duration::ZERO,
            changes: Vec::new(),
        }
    }

    /// A session with `peer` stands: its beats are expected from now on, also after [`Self::gone`].
    pub fn up(&mut self, peer: Origin, now: Time) {
        self.notice_pause(now);
        if let Some(known) = self.expect(peer, now)
            && known.gone
        {
            *known = Peer::new(peer.boot, now);
        }
    }

    /// `peer` said goodbye, or its membership ended: it is forgotten, and no [`Change`] says so.
    pub fn gone(&mut self, peer: ServerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            (known.gone, known.live, known.audible) = (true, false, false);
        }
    }

    /// A beat of `peer` arrived; `hears_us` if we are among those that it names. Beats of a boot older than one known are
    /// ignored; with the first of a newer one the old one is dead.
    pub fn heard(&mut self, peer: Origin, hears_us: bool, now: Time) {
        self.notice_pause(now);
        let span_max = self.config.timeout_max;
        let Some(known) = self.expect(peer, now).filter(|known| !known.gone) else { return };
        known.arrival(now, span_max);
        if hears_us {
            known.heard_us = now;
            if !known.live {
                known.live = true;
                self.changes.push(Change::Alive(peer));
            }
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

    /// The servers that are heard, whether or not they hear us: what goes into our own beat.
    pub fn hears(&self) -> Vec<ServerId> {
        self.peers.iter().filter(|(_, peer)| peer.audible).map(|(id, _)| *id).collect()
    }

    /// The servers that are heard and hear us, with their boots, by id.
    pub fn live(&self) -> impl Iterator<Item = Origin> {
        self.peers.iter().filter(|(_, peer)| peer.live).map(|(id, peer)| Origin { id: *id, boot: peer.boot })
    }

    /// How long `peer` may be silent before it counts as dead, as things stand.
    pub fn timeout(&self, peer: ServerId) -> Duration {
        let known = self.peers.get(&peer).map_or(self.config.timeout_first, |peer| peer.timeout(&self.config));
        healthy(known, self.health())
    }

    /// When [`Self::tick`] is wanted.
    pub fn deadline(&self) -> Time {
        if !self.changes.is_empty() {
            return Time::ZERO;
        }
        let health = self.health();
        let audible = self.peers.values().filter(|peer| peer.audible);
        audible.map(|peer| self.expiry(peer, health)).fold(self.next_beat, Time::min)
    }

    /// From 1 (well) to [`Config::health_max`]: what timeouts are multiplied by.
    fn health(&self) -> f64 {
        let late = self.lag_peak.saturating_sub(LATE_ORDINARY);
        (1.0 + late.as_secs_f64() / LATE_STEP.as_secs_f64()).min(f64::from(self.config.health_max))
    }

    /// When an audible peer's silence, or a live one's deafness, has lasted too long.
    fn expiry(&self, peer: &Peer, health: f64) -> Time {
        let since = if peer.live { peer.heard.min(peer.heard_us) } else { peer.heard };
        since + healthy(peer.timeout(&self.config), health)
    }

    /// The record of `peer` in this boot, made if need be; `None` if a newer boot is known.
    fn expect(&mut self, peer: Origin, now: Time) -> Option<&mut Peer> {
        match self.peers.get(&peer.id) {
            Some(known) if known.boot > peer.boot => return None,
            Some(known) if known.boot == peer.boot => {}
            Some(old) => {
                if old.live {
                    let silent = now.since(old.heard);
                    self.changes.push(Change::Dead { peer: Origin { id: peer.id, boot: old.boot }, silent });
                }
                self.peers.insert(peer.id, Peer::new(peer.boot, now));
            }
            None => {
                if self.peers.len() >= PEERS_MAX {
                    let idle = self.peers.iter().filter(|(_, peer)| !peer.live).min_by_key(|(_, peer)| peer.heard);
                    let forgotten = idle.map(|(id, _)| *id)?;
                    self.peers.remove(&forgotten);
                }
                self.peers.insert(peer.id, Peer::new(peer.boot, now));
            }
        }
        self.peers.get_mut(&peer.id)
    }

    /// Finds peers that have been silent, or deaf to us, for too long.
    fn expire(&mut self, now: Time) {
        let (config, health) = (self.config, self.health());
        for (id, peer) in &mut self.peers {
            let timeout = healthy(peer.timeout(&config), health);
            let (silent, deaf) = (now.since(peer.heard), now.since(peer.heard_us));
            if peer.audible && silent >= timeout {
                peer.audible = false;
                peer.arrived = None;
            }
            if peer.live && silent.max(deaf) >= timeout {
                peer.live = false;
                let peer = Origin { id: *id, boot: peer.boot };
                self.changes.push(Change::Dead { peer, silent: silent.max(deaf) });
            }
        }
    }

    /// After a pause of our own nobody can be blamed for what we did not hear in it. Whatever comes first after it, an
    /// input or a tick, finds it.
    fn notice_pause(&mut self, now: Time) {
        let late = now.since(self.next_beat);
        if late <= self.config.pause {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.arrived = None;
            if peer.audible {
                peer.heard = now;
            }
            if peer.live {
                peer.heard_us = now;
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
