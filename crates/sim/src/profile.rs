//! What a run is like: how many take part, how bad the network is, what breaks. Drawn from its seed.

use std::collections::BTreeSet;

use hobnob_proto::{
    ids::{RoomName, ServerId},
    planted::Bug,
    rng::Rng,
    time::Duration,
};

use crate::{cuts::Shape, dice::Dice as _, disk::DiskProfile, link::LinkProfile, noise::NoiseProfile, switches};

/// Nothing breaks before this: the servers find each other, and unite into one cluster.
pub const WARM_UP: Duration = Duration::from_secs(20);
/// Servers are started within so much of each other, where it is not at the same moment.
const STARTS_WITHIN: Duration = Duration::from_secs(3);
/// A run whose faults end earlier has no time for two clusters.
const SPLIT_HEAL_MIN: Duration = Duration::from_secs(110);
/// Clocks are off by twenty years at most.
const YEARS_SECS_MAX: u64 = 20 * 365 * 86_400;
/// The shortest run that has time for every phase.
pub const MINUTES_MIN: u64 = 2;

/// What is asked for instead of drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Simulated minutes, at least [`MINUTES_MIN`]; 5 where nothing is said.
    pub minutes: Option<u64>,
    /// How many servers.
    pub servers: Option<usize>,
    /// How many clients.
    pub clients: Option<usize>,
    /// Packets lost, in percent.
    pub loss: Option<u32>,
    /// Packets doubled, in percent.
    pub duplication: Option<u32>,
    /// Packets overtaken, in percent.
    pub reordering: Option<u32>,
    /// No crash, cut or pause.
    pub calm: bool,
    /// What disks there are, and what becomes of them.
    pub disks: Option<Disks>,
    /// What is left out, though it was drawn: names of [`switches`].
    pub without: BTreeSet<&'static str>,
    /// Of what breaks by the schedule only this, and often: names of [`switches::ALONE`].
    pub only: BTreeSet<&'static str>,
    /// Faults that do not happen, though they were drawn: see [`Profile::skip`].
    pub skip: BTreeSet<u64>,
    /// A bug is in all servers and clients of the run.
    pub planted: Option<Bug>,
}

/// The disks of all servers of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// None.
    None,
    /// Each has one that works.
    Sound,
    /// Each has one, with every fault that a disk may have.
    Bad,
}

/// How long the phases of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// Faults end here, and everything that should be up is started.
    pub heal: Duration,
    /// From here on there is one leader, all the time.
    pub led: Duration,
    /// From here on everything has converged: people post once more.
    pub serve: Duration,
    /// The end, when everything is checked.
    pub end: Duration,
}

impl Phases {
    /// The phases of a run of so many minutes.
    pub fn of(minutes: u64) -> Self {
        let end = Duration::from_secs(minutes.max(MINUTES_MIN) * 60);
        let heal = end * 3 / 5;
        let rest = end.checked_sub(heal).expect("three fifths are less than the whole");
        Self { heal, led: heal + Duration::from_secs(10), serve: heal + (rest / 2).min(Duration::from_secs(40)), end }
    }
}

/// What breaks, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultProfile {
    /// A fault about so often; `None`: never.
    pub every: Option<Duration>,
    /// Servers crash and are restarted.
    pub crashes: bool,
    /// Two servers crash at once.
    pub pairs: bool,
    /// The server with the highest id is killed again and again.
    pub flapping: bool,
    /// Servers are asked to leave and are started again, one after the other.
    pub leaves: bool,
    /// A server is started when all others have long been up.
    pub late: bool,
    /// The network is cut in these shapes.
    pub cuts: Vec<Shape>,
    /// Servers stand still for up to 5 s.
    pub pauses: bool,
    /// The machines of servers have too much to do for a while.
    pub slow: bool,
    /// The machines of clients sleep.
    pub sleeps: bool,
    /// Clients change their address.
    pub roaming: bool,
    /// Servers change their address.
    pub server_roaming: bool,
    /// Servers leave, and others with other ids come in their place.
    pub replaced: bool,
    /// A server says lines that nobody of this version understands.
    pub future: bool,
    /// A server says lines that are no frames at all.
    pub garbage: bool,
    /// The network is cut from the start, until its halves are two clusters. Then no server crashes.
    pub split: bool,
    /// Operators retire servers that are dead, and bring servers into the other cluster where there are two: in closed
    /// clusters only.
    pub operators: bool,
    /// What is on was wanted alone: whenever something else is drawn, it is drawn again.
    pub only: bool,
}

/// What the clock on the wall of a server's machine does. Whoever starts there reads it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallProfile {
    /// How far off it is, in seconds.
    pub off_secs: i64,
    /// Whether it stands still.
    pub stands: bool,
    /// How far it jumps each time that the server is started again, in seconds.
    pub jump_secs: i64,
}

/// Servers that do not belong to the cluster, although they say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rogue {
    /// It has no secret.
    Open,
    /// It has another secret.
    OtherSecret,
}

/// What people do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficProfile {
    /// Somebody posts about so often.
    pub post_every: Duration,
    /// Chance that a post is larger than a packet, in a million.
    pub large_ppm: u32,
    /// A client is restarted about so often; `None`: never.
    pub restart_every: Option<Duration>,
    /// Chance that a client that ends does so for good, and politely, in a million.
    pub quit_ppm: u32,
    /// Chance that a client that starts has an older state file, and so uses a number twice, in a million.
    pub rewind_ppm: u32,
    /// Chance that a room is not followed from its beginning, but from its last posts or from a time on, in a million.
    pub partial_ppm: u32,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The servers.
    pub ids: Vec<ServerId>,
    /// The clocks on the walls of their machines.
    pub walls: Vec<WallProfile>,
    /// How many clients.
    pub clients: usize,
    /// The rooms.
    pub rooms: Vec<RoomName>,
    /// `--replicas` of all servers.
    pub replicas: u32,
    /// The network until it heals.
    pub link: LinkProfile,
    /// What an outsider sends until then.
    pub noise: NoiseProfile,
    /// Whether the cluster has a secret.
    pub closed: bool,
    /// Servers of the same name, some of the same ids, beside a cluster with a secret.
    pub rogues: Vec<Rogue>,
    /// Servers are started within so much of each other.
    pub starts_within: Duration,
    /// What servers keep.
    pub disks: DiskProfile,
    /// What breaks.
    pub faults: FaultProfile,
    /// What people do.
    pub traffic: TrafficProfile,
    /// When.
    pub phases: Phases,
    /// Which of the faults that are drawn do not happen, by the order in which they were drawn.
    pub skip: BTreeSet<u64>,
}

impl Profile {
    /// Draws a run. What is wanted is not drawn; the rest is what it would be without that wish.
    pub fn draw(rng: &mut Rng, wanted: &Wanted) -> Self {
        let [mut count_rng, mut link_rng, mut fault_rng, mut traffic_rng, mut trust_rng, mut wall_rng, mut disk_rng] =
            [(); 7].map(|()| rng.fork());
        let (servers, clients) = draw_counts(&mut count_rng);
        let rooms = count_rng.between(1, 6);
        let mut faults = draw_faults(&mut fault_rng);
        if wanted.calm {
            faults.every = None;
        }
        let mut profile = Self {
            clients: wanted.clients.unwrap_or(clients),
            walls: Vec::new(),
            rooms: (0..rooms).map(room).collect(),
            replicas: [2, 2, 2, 1, 3][count_rng.index(5)],
            ids: draw_ids(&mut count_rng, wanted.servers.unwrap_or(servers).clamp(1, 9)),
            link: draw_link(&mut link_rng, wanted),
            noise: draw_noise(&mut trust_rng, wanted.calm),
            closed: trust_rng.below(3) == 0,
            rogues: Vec::new(),
            starts_within: [Duration::ZERO, STARTS_WITHIN][usize::from(count_rng.below(4) > 0)],
            disks: DiskProfile::default(),
            faults,
            traffic: draw_traffic(&mut traffic_rng, wanted.calm),
            phases: Phases::of(wanted.minutes.unwrap_or(5)),
            skip: wanted.skip.clone(),
        };
        profile.disks = draw_disks(&mut disk_rng, profile.ids.len(), wanted);
        let drawn = wall_rng.below(2) > 0;
        profile.walls = profile.ids.iter().map(|_| draw_wall(&mut wall_rng)).collect();
        if wanted.calm || !drawn {
            switches::off("clocks", &mut profile);
        }
        for name in &wanted.only {
            switches::alone(name, &mut profile);
        }
        // In an open cluster, only who sits at a server may decide about it, and nobody here does.
        profile.closed |= profile.faults.operators && (profile.faults.split || profile.faults.only);
        profile.faults.operators &= profile.closed;
        if profile.closed {
            let rogues = trust_rng.below(3);
            let kinds = [Rogue::Open, Rogue::OtherSecret];
            profile.rogues = (0..rogues).map(|_| kinds[trust_rng.index(2)]).collect();
        }
        for name in &wanted.without {
            switches::off(name, &mut profile);
        }
        profile
    }

    /// Whether the network is cut from the start, so that two clusters come to be, if faults end at `heal`.
    pub fn is_split(&self, heal: Duration) -> bool {
        self.faults.split && self.faults.every.is_some() && self.ids.len() > 1 && heal >= SPLIT_HEAL_MIN
    }
}

/// How many servers and clients: few, so that a run is quick; in every sixteenth a crowd, and in another one nobody.
fn draw_counts(rng: &mut Rng) -> (usize, usize) {
    let servers = if rng.below(4) == 0 { rng.between(1, 9) } else { rng.between(1, 6) };
    let clients = match rng.below(16) {
        0 => 0,
        1 => rng.between(9, 40),
        _ => rng.between(1, 7),
    };
    (servers as usize, clients as usize)
}

/// A clock that is right, stands still, or is off by up to twenty years and may jump by as many.
fn draw_wall(rng: &mut Rng) -> WallProfile {
    let off = |rng: &mut Rng| {
        let secs = [1, 60, 3_600, 86_400, YEARS_SECS_MAX][rng.index(5)];
        rng.between(0, 2 * secs).cast_signed() - secs.cast_signed()
    };
    let (off_secs, jump_secs) = (off(rng), off(rng));
    match rng.below(4) {
        0 => WallProfile::default(),
        1 => WallProfile { stands: true, off_secs, jump_secs: 0 },
        2 => WallProfile { off_secs, ..WallProfile::default() },
        _ => WallProfile { off_secs, jump_secs, stands: false },
    }
}

fn room(n: u64) -> RoomName {
    match n {
        0 => RoomName::lobby(),
        n => format!("room-{n}").parse().expect("a letter, digits and a dash make a name"),
    }
}

/// Distinct ids from 1 to 9, in no order.
fn draw_ids(rng: &mut Rng, count: usize) -> Vec<ServerId> {
    let mut left: Vec<u32> = (1..=9).collect();
    (0..count).map(|_| ServerId(left.swap_remove(rng.index(left.len())))).collect()
}

fn draw_link(rng: &mut Rng, wanted: &Wanted) -> LinkProfile {
    /// Every third network is free of a fault; the others have up to `percent` % of it.
    fn ppm(rng: &mut Rng, percent: u64, wanted: Option<u32>) -> u32 {
        let drawn = if rng.below(3) == 0 { 0 } else { rng.between(0, percent * 10_000) as u32 };
        wanted.map_or(drawn, |percent| percent.min(100) * 10_000)
    }
    let latency = rng.span(Duration::from_micros(100), Duration::from_millis(10));
    LinkProfile {
        loss_ppm: ppm(rng, 20, wanted.loss),
        duplication_ppm: ppm(rng, 10, wanted.duplication),
        reordering_ppm: ppm(rng, 10, wanted.reordering),
        jitter: rng.span(Duration::ZERO, Duration::from_millis(10).min(latency * 4)),
        latency,
        tail_ppm: rng.between(0, 10_000) as u32,
        late: rng.span(Duration::from_millis(1), Duration::from_millis(100)),
    }
}

fn draw_faults(rng: &mut Rng) -> FaultProfile {
    let every = rng.span(Duration::from_secs(3), Duration::from_secs(40));
    let mut often = |of: u64| rng.below(of) > 0;
    FaultProfile {
        every: often(6).then_some(every),
        crashes: often(4),
        pairs: often(2),
        flapping: often(2),
        leaves: often(2),
        late: often(2),
        cuts: if often(4) { Shape::ALL.into_iter().filter(|_| often(3)).collect() } else { Vec::new() },
        pauses: often(2),
        sleeps: often(2),
        roaming: often(2),
        server_roaming: often(2),
        replaced: often(2),
        future: often(2),
        garbage: often(2),
        split: !often(8),
        operators: often(2),
        slow: often(2),
        only: false,
    }
}

/// In two of three runs all servers have disks, and in some only a few of them.
fn draw_disks(rng: &mut Rng, servers: usize, wanted: &Wanted) -> DiskProfile {
    let share = [0, 0, 1, 2, 2, 2, 2, 2][rng.index(8)];
    let share = wanted.disks.map_or(share, |disks| if disks == Disks::None { 0 } else { 2 });
    let on = (0..servers).map(|_| share > rng.below(2)).collect();
    let fast = rng.span(Duration::from_micros(500), Duration::from_millis(5));
    let slow = rng.span(Duration::from_millis(50), Duration::from_millis(1_500));
    let stall_ppm = [0, 1_000, 10_000][rng.index(3)];
    let mut often = |of: u64| rng.below(of) > 0 || wanted.disks == Some(Disks::Bad);
    let drawn = DiskProfile {
        on,
        sync: if often(4) && wanted.disks != Some(Disks::Bad) { fast } else { slow },
        stall_ppm,
        loses: often(4),
        power: often(2),
        wipes: often(2),
        fills: often(2),
        rots: often(2),
    };
    match wanted.disks {
        Some(Disks::None | Disks::Sound) => {
            DiskProfile { on: drawn.on, sync: fast, loses: true, ..DiskProfile::default() }
        }
        _ => drawn,
    }
}

/// Every second network has no outsider.
fn draw_noise(rng: &mut Rng, calm: bool) -> NoiseProfile {
    let mut ppm = |percent: u64| if rng.below(3) == 0 { 0 } else { rng.between(0, percent * 10_000) as u32 };
    let noise = NoiseProfile { bent_ppm: ppm(5), replayed_ppm: ppm(20), forged_ppm: ppm(5) };
    if calm || rng.below(2) == 0 { NoiseProfile::default() } else { noise }
}

fn draw_traffic(rng: &mut Rng, calm: bool) -> TrafficProfile {
    let restart_every = rng.span(Duration::from_secs(15), Duration::from_mins(2));
    let restarts = rng.below(2) > 0;
    TrafficProfile {
        post_every: rng.span(Duration::from_millis(150), Duration::from_millis(1_500)),
        large_ppm: [0, 20_000, 100_000][rng.index(3)],
        restart_every: (restarts && !calm).then_some(restart_every),
        quit_ppm: 100_000,
        rewind_ppm: [0, 0, 300_000][rng.index(3)],
        partial_ppm: [0, 300_000][rng.index(2)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice;

    #[test]
    fn a_wish_changes_nothing_else() {
        let drawn = Profile::draw(&mut dice::from_number(7), &Wanted::default());
        let lossy = Profile::draw(&mut dice::from_number(7), &Wanted { loss: Some(15), ..Wanted::default() });
        assert_eq!(lossy.link.loss_ppm, 150_000);
        assert_eq!(Profile { link: drawn.link.clone(), ..lossy }, drawn);
    }

    #[test]
    fn what_is_left_out_changes_nothing_else() {
        let drawn = |without: &[&'static str]| {
            let wanted = Wanted { without: without.iter().copied().collect(), ..Wanted::default() };
            Profile::draw(&mut dice::from_number(7), &wanted)
        };
        let all: Vec<_> = switches::ALL.iter().map(|(name, _)| *name).collect();
        let Profile { walls, link, noise, rogues, starts_within, disks, faults, traffic, .. } = drawn(&all);
        let same = Profile { walls, link, noise, rogues, starts_within, disks, faults, traffic, ..drawn(&[]) };
        assert_eq!(drawn(&all), same);
    }

    #[test]
    fn every_run_is_within_its_bounds() {
        for seed in 0..200 {
            let profile = Profile::draw(&mut dice::from_number(seed), &Wanted::default());
            assert!((1..=9).contains(&profile.ids.len()) && profile.clients <= 40, "{profile:?}");
            assert!(profile.link.loss_ppm <= 200_000 && profile.link.reordering_ppm <= 100_000, "{profile:?}");
            let mut ids = profile.ids.clone();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), profile.ids.len(), "an id twice");
            assert!(profile.closed || profile.rogues.is_empty(), "nobody is a stranger to an open cluster");
        }
    }

    #[test]
    fn the_phases_come_one_after_the_other() {
        for minutes in [0, 2, 5, 60] {
            let Phases { heal, led, serve, end } = Phases::of(minutes);
            assert!(WARM_UP < heal && heal < led && led < serve && serve + Duration::from_secs(20) < end, "{minutes}");
        }
    }
}
