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

mod peer;

use std::collections::BTreeMap;

use self::peer::{Peer, micros};
use crate::{
    ids::{Origin, ServerId},
    limits,
    rng::Rng,
    time::{Duration, Time},
};

/// Peers remembered, dead ones included; beyond that the one that has been silent longest is forgotten.
const PEERS_MAX: usize = 4 * limits::SERVERS_MAX;
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

/// A timeout times local health, in whole microseconds: a clock of microseconds never meets a finer one exactly, and the
/// deadline would come again and again.
fn healthy(timeout: Duration, health: f64) -> Duration {
    Duration::from_micros(micros(timeout.mul_f64(health)))
}

/// When an audible peer's silence, or a live one's deafness, has lasted too long.
fn expiry(peer: &Peer, health: f64) -> Time {
    let since = if peer.live { peer.heard.min(peer.heard_us) } else { peer.heard };
    since + healthy(peer.timeout, health)
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
        let config = self.config;
        if let Some(known) = self.expect(peer, now)
            && known.gone
        {
            *known = Peer::new(peer.boot, now, &config);
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
        let config = self.config;
        let Some(known) = self.expect(peer, now).filter(|known| !known.gone) else { return };
        known.arrival(now, &config);
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

    /// When [`Self::tick`] is wanted.
    pub fn deadline(&self) -> Time {
        if !self.changes.is_empty() {
            return Time::ZERO;
        }
        let health = self.health();
        let audible = self.peers.values().filter(|peer| peer.audible);
        audible.map(|peer| expiry(peer, health)).fold(self.next_beat, Time::min)
    }

    /// From 1 (well) to [`Config::health_max`]: what timeouts are multiplied by.
    fn health(&self) -> f64 {
        let late = self.lag_peak.saturating_sub(LATE_ORDINARY);
        (1.0 + late.as_secs_f64() / LATE_STEP.as_secs_f64()).min(f64::from(self.config.health_max))
    }

    /// The record of `peer` in this boot, made if need be; `None` if a newer boot is known.
    fn expect(&mut self, peer: Origin, now: Time) -> Option<&mut Peer> {
        let config = self.config;
        match self.peers.get(&peer.id) {
            Some(known) if known.boot > peer.boot => return None,
            Some(known) if known.boot == peer.boot => {}
            Some(old) => {
                if old.live {
                    let silent = now.since(old.heard);
                    self.changes.push(Change::Dead { peer: Origin { id: peer.id, boot: old.boot }, silent });
                }
                self.peers.insert(peer.id, Peer::new(peer.boot, now, &config));
            }
            None => {
                if self.peers.len() >= PEERS_MAX {
                    let idle = self.peers.iter().filter(|(_, peer)| !peer.live).min_by_key(|(_, peer)| peer.heard);
                    let forgotten = idle.map(|(id, _)| *id)?;
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
        for (id, peer) in &mut self.peers {
            let timeout = healthy(peer.timeout, health);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Boot;

    const BEAT: Duration = Duration::from_millis(100);

    fn origin(id: u32, boot: u64) -> Origin {
        Origin { id: ServerId(id), boot: Boot(boot) }
    }

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    fn detector() -> Heartbeat {
        Heartbeat::new(Config::default(), Rng::from_seed([1; 32]), at(0))
    }

    /// Takes every turn on time up to `end`.
    fn quiet_until(detector: &mut Heartbeat, end: Time) -> Vec<Change> {
        let mut changes = Vec::new();
        while detector.deadline() <= end {
            let due = detector.deadline();
            changes.extend(detector.tick(due).1);
            assert!(detector.deadline() > due, "its turn at {due:?} comes again and again");
        }
        changes
    }

    /// How long a peer may be silent before it counts as dead, as things stand.
    fn timeout(detector: &Heartbeat, peer: ServerId) -> Duration {
        healthy(detector.peers[&peer].timeout, detector.health())
    }

    /// Hears a beat of each of `peers` at each of `times` (milliseconds).
    fn hear(detector: &mut Heartbeat, peers: &[(Origin, bool)], times: impl Iterator<Item = u64>) -> Vec<Change> {
        let mut changes = Vec::new();
        for millis in times {
            changes.extend(quiet_until(detector, at(millis)));
            for (peer, hears_us) in peers {
                detector.heard(*peer, *hears_us, at(millis));
            }
        }
        changes.extend(detector.tick(detector.next_beat).1);
        changes
    }

    fn died(changes: &[Change]) -> Vec<Origin> {
        let dead = |change: &Change| match change {
            Change::Dead { peer, .. } => Some(*peer),
            Change::Alive(_) => None,
        };
        changes.iter().filter_map(dead).collect()
    }

    #[test]
    fn a_beat_is_due_every_100_ms() {
        let mut detector = detector();
        let mut beats = 0;
        while detector.deadline() < at(10_000) {
            beats += u32::from(detector.tick(detector.deadline()).0);
        }
        assert!((95..=106).contains(&beats), "{beats} beats in 10 s");
    }

    #[test]
    fn a_peer_is_live_once_it_hears_us_too() {
        let mut detector = detector();
        let peer = origin(2, 1);
        detector.up(peer, at(0));
        assert_eq!(hear(&mut detector, &[(peer, false)], (0..5).map(|n| n * 100)), []);
        assert_eq!((detector.hears(), detector.live().count()), (vec![ServerId(2)], 0));
        assert_eq!(hear(&mut detector, &[(peer, true)], 500..=500), [Change::Alive(peer)]);
        assert_eq!(detector.live().collect::<Vec<_>>(), [peer]);
    }

    #[test]
    fn a_silent_peer_dies_after_half_a_second() {
        let mut detector = detector();
        let peer = origin(2, 1);
        assert_eq!(hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100))[0], Change::Alive(peer));
        let changes = quiet_until(&mut detector, at(4_000));
        assert_eq!(changes, [Change::Dead { peer, silent: Duration::from_millis(500) }]);
        assert!(detector.hears().is_empty());
    }

    #[test]
    fn a_peer_that_is_deaf_to_us_dies_though_it_is_heard() {
        let mut detector = detector();
        let peer = origin(2, 1);
        hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100));
        let changes = hear(&mut detector, &[(peer, false)], (20..30).map(|n| n * 100));
        assert_eq!(died(&changes), [peer]);
        assert_eq!(detector.hears(), [ServerId(2)], "our beat still says that we hear it");
    }

    #[test]
    fn a_timeout_adapts_to_how_a_peer_beats() {
        fn check(spans: [u64; 4], expected: std::ops::RangeInclusive<u128>) {
            let mut detector = detector();
            let mut now = 0;
            let times = (0..40).map(|n| {
                now += spans[n % 4];
                now
            });
            hear(&mut detector, &[(origin(2, 1), true)], times);
            let span = timeout(&detector, ServerId(2)).as_millis();
            assert!(expected.contains(&span), "{spans:?}: {span}");
        }
        check([100, 100, 100, 100], 500..=500);
        check([50, 150, 90, 110], 500..=500);
        check([20, 300, 20, 300], 710..=730);
        check([100, 900, 20, 1500], 2000..=2000);
    }

    #[test]
    fn one_that_is_slow_itself_is_slow_to_blame() {
        let mut detector = detector();
        let peer = origin(2, 1);
        hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100));
        assert_eq!(timeout(&detector, ServerId(2)), BEAT * 5);
        let late = detector.next_beat + Duration::from_millis(220);
        detector.tick(late);
        assert_eq!(timeout(&detector, ServerId(2)), BEAT * 15, "20 ms are ordinary, 200 ms count twice");
        assert!(detector.lag() > Duration::from_millis(20));
        detector.heard(peer, true, late);
        let mut now = late.as_millis();
        for _ in 0..40 {
            now += 100;
            hear(&mut detector, &[(peer, true)], now..=now);
        }
        assert_eq!(timeout(&detector, ServerId(2)), BEAT * 5, "it has recovered");
    }

    #[test]
    fn a_pause_of_our_own_is_found_by_whatever_comes_first() {
        fn check(wake: fn(&mut Heartbeat, Time)) {
            let mut detector = detector();
            let (one, other) = (origin(2, 1), origin(3, 1));
            hear(&mut detector, &[(one, true), (other, true)], (0..20).map(|n| n * 100));
            wake(&mut detector, at(60_000));
            assert_eq!(died(&quiet_until(&mut detector, at(61_000))), []);
            assert_eq!(died(&quiet_until(&mut detector, at(63_000))), [one, other], "credit runs out");
        }
        check(|detector, now| drop(detector.tick(now)));
        check(|detector, now| detector.heard(origin(4, 1), false, now));
        check(|detector, now| detector.up(origin(4, 1), now));
    }

    #[test]
    fn the_newest_boot_is_the_peer() {
        let mut detector = detector();
        let (old, new) = (origin(2, 1), origin(2, 2));
        hear(&mut detector, &[(old, true)], (0..20).map(|n| n * 100));
        detector.heard(new, false, at(2_010));
        assert_eq!(died(&detector.tick(at(2_010)).1), [old]);
        detector.heard(old, true, at(2_020));
        assert_eq!(detector.live().count(), 0, "the old boot is over");
        detector.heard(new, true, at(2_030));
        assert_eq!(detector.tick(at(2_030)).1, [Change::Alive(new)]);
    }

    #[test]
    fn one_that_said_goodbye_is_forgotten_without_an_alarm() {
        let mut detector = detector();
        let peer = origin(2, 1);
        hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100));
        detector.gone(peer.id);
        detector.heard(peer, true, at(2_000));
        assert_eq!(quiet_until(&mut detector, at(5_000)), []);
        assert!(detector.hears().is_empty());
        detector.up(peer, at(5_000));
        detector.heard(peer, true, at(5_000));
        assert_eq!(detector.tick(at(5_000)).1, [Change::Alive(peer)]);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let mut detector = detector();
        (1..1000).for_each(|id| detector.heard(origin(id, 1), id % 2 == 0, at(0)));
        assert!(detector.peers.len() <= PEERS_MAX);
    }
}
