//! The network between hosts: loss, duplication, reordering, delay and cuts.
//!
//! Each ordered pair of hosts is a path. A path keeps the order of its packets, except for those that are drawn to be
//! late: these are overtaken. A cut is a set of paths that carry nothing.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    rng::Rng,
    time::{Duration, Time},
};

use crate::dice::Dice as _;

/// A host: servers first, then clients.
pub type HostId = usize;

/// Paths that carry nothing: (from, to).
pub type Cut = BTreeSet<(HostId, HostId)>;

/// So much loss is quiet: 2 %.
const QUIET_LOSS_PPM: u32 = 20_000;

/// How bad the network is. Chances in a million, for each packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkProfile {
    /// The packet is lost.
    pub loss_ppm: u32,
    /// The packet arrives twice.
    pub duplication_ppm: u32,
    /// The packet is overtaken by later ones.
    pub reordering_ppm: u32,
    /// Every packet takes at least so long.
    pub latency: Duration,
    /// And up to so much longer.
    pub jitter: Duration,
    /// Chance of a delay ten times as long, or a hundred.
    pub tail_ppm: u32,
    /// A packet that is overtaken is late by up to so much.
    pub late: Duration,
}

impl LinkProfile {
    /// The same network on a good day: nothing lost, doubled or overtaken.
    #[must_use]
    pub fn healed(&self) -> Self {
        Self { loss_ppm: 0, duplication_ppm: 0, reordering_ppm: 0, tail_ppm: 0, ..self.clone() }
    }
}

/// All paths.
#[derive(Debug)]
pub struct Network {
    profile: LinkProfile,
    cut: Cut,
    newest_arrival: BTreeMap<(HostId, HostId), Time>,
    rng: Rng,
    /// No packet takes so long that those behind it make a silence.
    is_prompt: bool,
    happened: Happened,
}

/// To how many packets what has happened.
#[derive(Clone, Copy, Debug, Default)]
struct Happened {
    lost: u64,
    doubled: u64,
    overtaken: u64,
    delayed: u64,
    cut_off: u64,
}

impl Network {
    /// A network without a cut.
    pub fn new(profile: LinkProfile, rng: Rng) -> Self {
        Self {
            profile,
            cut: Cut::new(),
            newest_arrival: BTreeMap::new(),
            rng,
            is_prompt: false,
            happened: Happened::default(),
        }
    }

    /// Cuts these paths, and no others, from now on.
    pub fn cut(&mut self, cut: Cut) {
        self.cut = cut;
    }

    /// Whether some path carries nothing.
    pub fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Whether so little is lost that nobody is taken for dead because of it.
    pub fn is_quiet(&self) -> bool {
        self.profile.loss_ppm <= QUIET_LOSS_PPM
    }

    /// Whether from now on no packet takes so long that a server falls silent to another because of it.
    pub fn be_prompt(&mut self, is_prompt: bool) {
        self.is_prompt = is_prompt;
    }

    /// Ends every cut and every other fault of the network, for good.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.profile = self.profile.healed();
    }

    /// When a packet that is sent now arrives: never, once or twice.
    pub fn carry(&mut self, from: HostId, to: HostId, now: Time) -> [Option<Time>; 2] {
        if self.is_cut() && self.cut.contains(&(from, to)) {
            self.happened.cut_off += 1;
            return [None, None];
        }
        if self.rng.chance(self.profile.loss_ppm) {
            self.happened.lost += 1;
            return [None, None];
        }
        let first = self.arrival(from, to, now);
        let twice = self.rng.chance(self.profile.duplication_ppm);
        self.happened.doubled += u64::from(twice);
        [Some(first), twice.then(|| self.arrival(from, to, now))]
    }

    /// What has happened to packets so far, and to how many.
    pub fn faults(&self) -> [(&'static str, u64); 5] {
        let Happened { lost, doubled, overtaken, delayed, cut_off } = self.happened;
        [
            ("fault lost", lost),
            ("fault doubled", doubled),
            ("fault overtaken", overtaken),
            ("fault delayed", delayed),
            ("fault cut off", cut_off),
        ]
    }

    fn arrival(&mut self, from: HostId, to: HostId, now: Time) -> Time {
        let Self { profile, rng, .. } = self;
        let mut delay = profile.latency + rng.span(Duration::ZERO, profile.jitter);
        if rng.chance(profile.tail_ppm) {
            // Ten times as long, and one in ten of these a hundred times.
            delay *= if rng.below(10) == 0 && !self.is_prompt { 100 } else { 10 };
            self.happened.delayed += 1;
        }
        if rng.chance(profile.reordering_ppm) {
            self.happened.overtaken += 1;
            return now + delay + rng.span(Duration::ZERO, profile.late);
        }
        let newest = self.newest_arrival.entry((from, to)).or_default();
        *newest = (*newest).max(now + delay);
        *newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice;

    const PACKETS: u64 = 20_000;

    fn profile() -> LinkProfile {
        LinkProfile {
            loss_ppm: 0,
            duplication_ppm: 0,
            reordering_ppm: 0,
            latency: Duration::from_millis(1),
            jitter: Duration::from_millis(5),
            tail_ppm: 0,
            late: Duration::from_millis(30),
        }
    }

    /// Sends one packet each millisecond; gives back (arrivals, packets that arrived twice, arrivals out of order).
    fn send(profile: LinkProfile) -> (u64, u64, u64) {
        let mut network = Network::new(profile, dice::from_number(1));
        let (mut arrived, mut twice, mut late, mut newest) = (0, 0, 0, Time::ZERO);
        for n in 0..PACKETS {
            let [first, second] = network.carry(0, 1, Time::from_micros(n * 1_000));
            twice += u64::from(second.is_some());
            if let Some(at) = first {
                arrived += 1;
                late += u64::from(at < newest);
                newest = newest.max(at);
            }
        }
        (arrived, twice, late)
    }

    #[test]
    fn each_fault_happens_as_often_as_it_was_asked_for() {
        fn check(profile: &LinkProfile, lost: u64, twice: u64, reordered: bool) {
            let (arrived, doubled, late) = send(profile.clone());
            let near = |n: u64, expected: u64| n.abs_diff(expected) <= PACKETS / 50;
            assert!(near(PACKETS - arrived, lost), "{} lost, {profile:?}", PACKETS - arrived);
            assert!(near(doubled, twice), "{doubled} doubled, {profile:?}");
            assert_eq!(late > 0, reordered, "{late} late, {profile:?}");
        }
        check(&profile(), 0, 0, false);
        check(&LinkProfile { loss_ppm: 200_000, ..profile() }, PACKETS / 5, 0, false);
        check(&LinkProfile { duplication_ppm: 100_000, ..profile() }, 0, PACKETS / 10, false);
        check(&LinkProfile { reordering_ppm: 100_000, ..profile() }, 0, 0, true);
        check(&LinkProfile { loss_ppm: 200_000, ..profile() }.healed(), 0, 0, false);
    }

    #[test]
    fn a_prompt_network_delays_no_packet_by_much() {
        fn check(is_prompt: bool, expected: bool) {
            let profile = LinkProfile { tail_ppm: 500_000, ..profile() };
            let most = (profile.latency + profile.jitter) * 10;
            let mut network = Network::new(profile, dice::from_number(1));
            network.be_prompt(is_prompt);
            let late = (0..1_000).flat_map(|n| network.carry(0, n, Time::ZERO)).flatten().max();
            assert_eq!(late.is_some_and(|late| late <= Time::ZERO + most), expected, "{late:?}");
        }
        check(true, true);
        check(false, false);
    }

    #[test]
    fn a_cut_is_one_way_where_it_says_so() {
        let mut network = Network::new(profile(), dice::from_number(1));
        network.cut(Cut::from([(0, 1)]));
        assert_eq!(network.carry(0, 1, Time::ZERO), [None, None]);
        assert!(network.carry(1, 0, Time::ZERO)[0].is_some());
        network.heal();
        assert!(network.carry(0, 1, Time::ZERO)[0].is_some());
    }
}
