//! An outsider on the wire: hears every packet, bends some, sends old ones again from elsewhere, and makes up its own.
//!
//! It knows no key. Whatever it sends, nobody may take it for a packet of a session, and nobody may be kept from anything
//! by it for longer than a lost packet would.

use std::net::{Ipv4Addr, SocketAddr};

use hobnob_proto::{
    limits,
    rng::Rng,
    time::{Duration, Time},
};

use crate::{
    dice::Dice as _,
    faults::{Nonsense, PAUSE_MAX},
    host::Datagram,
    link::HostId,
};

/// Packets that the outsider remembers: of all that it hears, evenly many from each time.
const REMEMBERED: usize = 4_096;
/// Of so many packets, it remembers one.
const REMEMBER_EVERY: u64 = 8;
/// A packet that is sent anew may be under way for a moment, wait in the socket of a server that stands still, and move a
/// session that lasts so long.
const MISLED_FOR: Duration = limits::SILENCE_MAX.saturating_add(PAUSE_MAX).saturating_add(Duration::from_secs(5));

/// What it does. Chances in a million, for each packet that it hears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoiseProfile {
    /// A bent copy of the packet is sent besides.
    pub bent_ppm: u32,
    /// An old packet is sent again, from another address, to whom it was sent for the first time or to somebody else.
    pub replayed_ppm: u32,
    /// A packet is made up.
    pub forged_ppm: u32,
}

/// A packet of the outsider's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Whom it pretends to be.
    pub from: SocketAddr,
    /// To whom.
    pub to: HostId,
    /// What.
    pub bytes: Datagram,
}

/// The outsider.
#[derive(Debug)]
pub struct Outsider {
    profile: NoiseProfile,
    rng: Rng,
    remembered: Vec<(HostId, Datagram)>,
    heard: u64,
    /// Packets bent, replayed and forged.
    sent: [u64; 3],
    /// When it last sent one anew.
    replayed_at: Option<Time>,
}

impl Outsider {
    /// One that has heard nothing yet.
    pub fn new(profile: NoiseProfile, rng: Rng) -> Self {
        Self { profile, rng, remembered: Vec::new(), heard: 0, sent: [0; 3], replayed_at: None }
    }

    /// How many packets it has sent of each kind.
    pub fn faults(&self) -> [(&'static str, u64); 3] {
        let [bent, replayed, forged] = self.sent;
        [("fault bent", bent), ("fault replayed", replayed), ("fault forged", forged)]
    }

    /// Whether it may have made somebody seem to be elsewhere: a packet that was lost and is heard from another address for
    /// the first time moves a session there, until the next one, or until the session is over.
    pub fn misleads(&self, now: Time) -> bool {
        self.replayed_at.is_some_and(|at| now.since(at) <= MISLED_FOR)
    }

    /// It does nothing any more.
    pub fn stop(&mut self) {
        self.profile = NoiseProfile::default();
    }

    /// It hears a packet `from` somebody `to` one of so many `hosts`. What it sends now.
    pub fn hear(&mut self, from: SocketAddr, to: HostId, bytes: &Datagram, hosts: usize, now: Time) -> Vec<Stray> {
        if self.profile == NoiseProfile::default() {
            return Vec::new();
        }
        self.remember(to, bytes);
        let NoiseProfile { bent_ppm, replayed_ppm, forged_ppm } = self.profile;
        let mut strays = Vec::new();
        if self.rng.chance(bent_ppm) {
            self.sent[0] += 1;
            strays.push(Stray { from, to, bytes: Datagram::new(self.bent(bytes)) });
        }
        if self.rng.chance(replayed_ppm) && !self.remembered.is_empty() {
            self.sent[1] += 1;
            self.replayed_at = Some(now);
            let (first_to, bytes) = self.remembered[self.rng.index(self.remembered.len())].clone();
            let to = if self.rng.below(8) == 0 { self.rng.index(hosts) } else { first_to };
            strays.push(Stray { from: self.address(from), to, bytes });
        }
        if self.rng.chance(forged_ppm) {
            self.sent[2] += 1;
            let bytes = Datagram::new(self.forged(bytes));
            strays.push(Stray { from: self.address(from), to, bytes });
        }
        strays
    }

    /// Keeps one in a few, in the place of another once there are enough: so old ones stay for long.
    fn remember(&mut self, to: HostId, bytes: &Datagram) {
        self.heard += 1;
        if !self.heard.is_multiple_of(REMEMBER_EVERY) {
            return;
        }
        if self.remembered.len() < REMEMBERED {
            self.remembered.push((to, bytes.clone()));
        } else {
            let at = self.rng.index(REMEMBERED);
            self.remembered[at] = (to, bytes.clone());
        }
    }

    /// One to three bits are others, or the end is missing.
    fn bent(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bent = bytes.to_vec();
        if self.rng.below(4) == 0 {
            bent.truncate(self.rng.index(bytes.len().max(1)));
            return bent;
        }
        // Distinct bits, so that none is bent back.
        let first = self.rng.below(bytes.len() as u64 * 8);
        for n in 0..self.rng.between(1, 3) {
            let bit = ((first + n * 13) % (bytes.len() as u64 * 8)) as usize;
            bent[bit / 8] ^= 1 << (bit % 8);
        }
        bent
    }

    /// The head of a true packet, which anybody sees, and then noise; or noise altogether.
    fn forged(&mut self, bytes: &[u8]) -> Vec<u8> {
        let kept = if self.rng.below(2) == 0 { 0 } else { self.rng.index(bytes.len().clamp(1, 14)) };
        let mut forged = bytes.to_vec();
        self.rng.fill(&mut forged[kept..]);
        forged
    }

    /// Its own address, one of its own making, or the true sender's.
    fn address(&mut self, from: SocketAddr) -> SocketAddr {
        match self.rng.below(3) {
            0 => from,
            1 => SocketAddr::from((Ipv4Addr::new(10, 0, 9, 9), 6_666)),
            _ => SocketAddr::from((Ipv4Addr::from(self.rng.u32()), self.rng.between(1, 65_535) as u16)),
        }
    }
}

/// Frames of a later version: of types, with words and with fields that nobody knows yet.
const FUTURE: [&str; 6] = [
    r#"{"t":"wormhole","to":[1,2,{"deep":null}],"v":99}"#,
    r#"{"t":"beat","shape":"round"}"#,
    r#"{"t":"ask","id":7,"what":"weather"}"#,
    r#"{"t":"refuse","room":"lobby","seq":1,"why":"too_loud"}"#,
    r#"{"t":"ping","n":7,"urgent":true}"#,
    r#"{"t":"cursor","rooms":{},"colour":"red"}"#,
];

/// A line, without its newline, that nobody understands who is of this version.
pub fn nonsense(what: Nonsense, rng: &mut Rng) -> Vec<u8> {
    match what {
        Nonsense::Future => FUTURE[rng.index(FUTURE.len())].into(),
        Nonsense::Garbage if rng.below(4) == 0 => vec![b'['; rng.between(1, 1_000) as usize],
        Nonsense::Garbage => {
            let mut line = vec![0; rng.between(1, 1_000) as usize];
            rng.fill(&mut line);
            line.retain(|byte| *byte != b'\n');
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice;

    fn hear(profile: NoiseProfile) -> Vec<Stray> {
        let mut outsider = Outsider::new(profile, dice::from_number(1));
        let from = SocketAddr::from(([10, 0, 0, 1], 5001));
        (0..1_000_u32).flat_map(|n| outsider.hear(from, 1, &Datagram::new(vec![n as u8; 40]), 3, Time::ZERO)).collect()
    }

    #[test]
    fn bent_and_forged_packets_are_others_and_replayed_ones_the_same() {
        fn check(profile: &NoiseProfile, is_true: bool) {
            let strays = hear(profile.clone());
            assert!(strays.len() > 900, "{profile:?}: {}", strays.len());
            let is_one = |bytes: &[u8]| bytes.len() == 40 && bytes.iter().all(|byte| *byte == bytes[0]);
            assert!(strays.iter().all(|stray| is_one(&stray.bytes) == is_true), "{profile:?}");
        }
        check(&NoiseProfile { bent_ppm: 1_000_000, ..NoiseProfile::default() }, false);
        check(&NoiseProfile { forged_ppm: 1_000_000, ..NoiseProfile::default() }, false);
        check(&NoiseProfile { replayed_ppm: 1_000_000, ..NoiseProfile::default() }, true);
        assert_eq!(hear(NoiseProfile::default()), []);
    }

    #[test]
    fn a_replayed_packet_misleads_for_no_longer_than_a_session_lasts() {
        fn check(replayed_ppm: u32, secs: u64, expected: bool) {
            let mut outsider =
                Outsider::new(NoiseProfile { replayed_ppm, ..NoiseProfile::default() }, dice::from_number(1));
            let from = SocketAddr::from(([10, 0, 0, 1], 5001));
            for _ in 0..100 {
                outsider.hear(from, 1, &Datagram::new(vec![7; 40]), 3, Time::ZERO);
            }
            outsider.stop();
            assert_eq!(outsider.misleads(Time::from_micros(secs * 1_000_000)), expected, "{replayed_ppm} {secs}");
        }
        check(0, 0, false);
        check(1_000_000, 0, true);
        check(1_000_000, 85, true);
        check(1_000_000, 86, false);
    }

    #[test]
    fn some_are_sent_to_somebody_else() {
        let strays = hear(NoiseProfile { replayed_ppm: 1_000_000, ..NoiseProfile::default() });
        let others = strays.iter().filter(|stray| stray.to != 1).count();
        assert!((20..300).contains(&others), "{others}");
    }
}
