//! What breaks in a run, and when: a schedule drawn from the seed before the run begins.
//!
//! A server without a disk forgets everything when it crashes. So the schedule keeps to what a cluster of memory can
//! survive as one cluster (but for the power, which goes off only where there are disks): one server is always left that has been up for [`SETTLED`], and a server is started only
//! where it can reach the others (alone it would found a cluster of its own, and rightly keep it).

use hobnob_proto::{
    rng::Rng,
    time::{Duration, Time},
};

use crate::{
    cuts,
    dice::{self, Dice as _},
    disk::DiskProfile,
    link::Cut,
    profile::{FaultProfile, Profile, WARM_UP},
};

/// After so long, a server that was started holds what the others hold.
pub const SETTLED: Duration = Duration::from_secs(15);
/// A server stays down for at least so long, so that its new boot is later than its last by the clock on the wall.
const DOWN_MIN: Duration = Duration::from_millis(1_100);
const DOWN_MAX: Duration = Duration::from_secs(25);
const CUT_MIN: Duration = Duration::from_millis(300);
const CUT_MAX: Duration = Duration::from_secs(30);
/// Cuts that follow each other without a whole network between them.
const CUTS_MAX: u64 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A server that stands still for longer is a server that crashed.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A step on a machine that has too much to do takes so long: some hundred a second are too many for it then.
const STEP_MIN: Duration = Duration::from_micros(200);
const STEP_MAX: Duration = Duration::from_millis(5);
/// It has too much to do for so long.
const SLOW_MIN: Duration = Duration::from_secs(3);
const SLOW_MAX: Duration = Duration::from_secs(30);
/// A laptop sleeps for so long.
const SLEEP_MIN: Duration = Duration::from_secs(2);
const SLEEP_MAX: Duration = Duration::from_hours(1);
/// A server that leaves is gone after so long, whether it could hand everything over or not.
const LEAVE_MAX: Duration = Duration::from_secs(11);
/// A server that is retired has been dead for at least so long.
const DEAD_MIN: Duration = Duration::from_secs(5);
/// A flapping server is killed about so often ...
const FLAP_EVERY: Duration = Duration::from_secs(2);
/// ... for up to so long.
const FLAP_MAX: Duration = Duration::from_mins(1);
/// Of what may be wanted alone, something is drawn within so many times.
const DRAWS_MAX: u32 = 200;
/// After so long, servers of two clusters have heard each other.
const HEARD: Duration = Duration::from_secs(5);
/// Halves that are cut from each other from the start are so for so long: each becomes a cluster that stays.
const SPLIT_MIN: Duration = Duration::from_secs(70);
const SPLIT_MAX: Duration = Duration::from_secs(100);

/// Something breaks, or is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A server's process ends without a word, and forgets what is not on a disk.
    Crash(usize),
    /// It is started, or started again.
    Restart(usize),
    /// A server is asked to leave; once it has stopped, it stays down for so long and is started again.
    Leave(usize, Duration),
    /// A server begins to be killed again and again, or that ends.
    Flap(usize, bool),
    /// A server's process ends, and its disk is replaced by an empty one. Where the last loss of a disk is not made good
    /// yet, the process ends, and that is all.
    Wipe(usize),
    /// An entry on a server's disk becomes rotten; none, where the last loss is not made good yet.
    Rot(usize),
    /// A server's disk is full.
    Full(usize),
    /// It has room again. A server that could not write meanwhile is started again.
    Room(usize),
    /// These paths carry nothing, and all others do.
    Cut(Cut),
    /// No path is cut any more.
    Heal,
    /// A server stands still. What arrives waits in its socket.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// A server's machine has too much to do: each step takes so long, until it is started again at the latest.
    Slow(usize, Duration),
    /// It has not any more.
    Fast(usize),
    /// A client's machine sleeps. What arrives is lost.
    Sleep(usize),
    /// It wakes. Its clock has gone on while it slept, by so much; or has stood still.
    Wake(usize, Option<Duration>),
    /// A client has another address from now on.
    Roam(usize),
    /// A server has another address from now on.
    RoamServer(usize),
    /// A server is asked to leave; so long after it has stopped, another one with another id starts on its machine.
    Replace(usize, Duration),
    /// Whoever sits at this client has the cluster forget a server that is dead, and whose disk is lost; another one with
    /// another id starts on its machine later. Where somebody's last loss of a disk is not made good yet, nothing happens.
    Retire(usize, usize),
    /// Whoever sits at this client has its server brought into the other cluster, if there is one.
    Join(usize),
    /// A server says lines to all that it has sessions with, which no frames of this version are: of a later version, or
    /// not frames at all.
    Blurt(usize, Nonsense),
}

/// What a server may say that nobody understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// Frames of types and with fields that are not known yet.
    Future,
    /// No frames.
    Garbage,
}

impl Fault {
    /// What it goes by among what was met; `None` for what ends another fault, or may come to nothing.
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Crash(_) => "fault crash",
            Self::Restart(_) => "fault start",
            Self::Leave(..) => "fault leave",
            Self::Flap(_, true) => "fault flapping",
            Self::Cut(_) => "fault cut",
            Self::Pause(_) => "fault pause",
            Self::Slow(..) => "fault slow",
            Self::Sleep(_) => "fault sleep",
            Self::Wake(_, None) => "fault clock stood still",
            Self::Wake(_, Some(_)) => "fault clock went on",
            Self::Roam(_) => "fault client roams",
            Self::RoamServer(_) => "fault server roams",
            Self::Replace(..) => "fault replaced",
            Self::Blurt(_, Nonsense::Future) => "fault future frames",
            Self::Blurt(_, Nonsense::Garbage) => "fault garbage",
            // What ends another fault; and of which disks say what came of it, or whoever asks for an operator.
            Self::Flap(_, false)
            | Self::Heal
            | Self::Resume(_)
            | Self::Fast(_)
            | Self::Room(_)
            | Self::Wipe(_)
            | Self::Rot(_)
            | Self::Full(_)
            | Self::Retire(..)
            | Self::Join(_) => return None,
        })
    }
}

/// Draws the faults between the warm-up and `end`, in order of time. All servers are up, all paths whole and nobody
/// stands still when the last has happened, or at `end`.
pub fn schedule(profile: &Profile, end: Duration, rng: &mut Rng) -> Vec<(Time, Fault)> {
    schedule_counted(profile, end, rng).0
}

/// The same, and how often something was drawn: the bound of what [`Profile::skip`] names.
pub fn schedule_counted(profile: &Profile, end: Duration, rng: &mut Rng) -> (Vec<(Time, Fault)>, u64) {
    let (servers, clients) = (profile.ids.len(), profile.clients);
    let Some(every) = profile.faults.every else { return (Vec::new(), 0) };
    let top = (0..servers).max_by_key(|of| profile.ids[*of]).unwrap_or_default();
    let mut plan = Plan {
        servers,
        clients,
        top,
        settled: vec![WARM_UP; servers],
        up: vec![Duration::ZERO; servers],
        awake: vec![Duration::ZERO; clients],
        cut_until: Duration::ZERO,
        quiet_until: Duration::ZERO,
        end,
        nth: 0,
        faults: Vec::new(),
        disks: (0..servers).filter(|of| profile.disks.has(*of)).collect(),
    };
    let kinds = if profile.is_split(end) { plan.split(&profile.faults, rng) } else { plan.whole(&profile.faults, rng) };
    let mut at = WARM_UP + rng.span(Duration::ZERO, every);
    while at + DOWN_MIN < end {
        plan.nth += 1;
        if at >= plan.quiet_until {
            // Where something alone is wanted, it is drawn until it is that.
            let draws = if profile.faults.only { DRAWS_MAX } else { 1 };
            let _ = (0..draws).any(|_| plan.draw_any(profile, kinds, at, rng));
        }
        at += rng.span(every / 4, every * 7 / 4);
    }
    let happens = plan.faults.into_iter().filter(|(_, nth, _)| !profile.skip.contains(nth));
    let mut faults: Vec<_> = happens.map(|(at, _, fault)| (dice::after(at.min(end)), fault)).collect();
    faults.sort_by_key(|(at, _)| *at);
    (faults, plan.nth + 1)
}

/// Whether a server is not started with the others: its first fault is that it is started.
pub fn is_late(faults: &[(Time, Fault)], of: usize) -> bool {
    faults.iter().find_map(|(_, fault)| match fault {
        Fault::Restart(server) if *server == of => Some(true),
        Fault::Crash(server) | Fault::Leave(server, _) | Fault::Replace(server, _) if *server == of => Some(false),
        _ => None,
    }) == Some(true)
}

/// Which faults a run may have at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    /// All.
    All,
    /// Only those after which everybody still belongs to the cluster that they belonged to before.
    Mild,
}

/// A schedule in the making: what is already sure to be broken, and until when.
struct Plan {
    servers: usize,
    clients: usize,
    /// The server with the highest id.
    top: usize,
    /// When each server will have been up for [`SETTLED`].
    settled: Vec<Duration>,
    /// When each server is up and running again.
    up: Vec<Duration>,
    /// When each client is awake again.
    awake: Vec<Duration>,
    cut_until: Duration,
    /// Nothing else breaks until then.
    quiet_until: Duration,
    end: Duration,
    /// How many were drawn.
    nth: u64,
    /// When, as part of which that was drawn, and what.
    faults: Vec<(Duration, u64, Fault)>,
    /// The servers that have disks.
    disks: Vec<usize>,
}

impl Plan {
    fn add(&mut self, faults: impl IntoIterator<Item = (Duration, Fault)>) {
        let nth = self.nth;
        self.faults.extend(faults.into_iter().map(|(at, fault)| (at, nth, fault)));
    }

    /// All servers can reach each other from the start; one may come late.
    fn whole(&mut self, profile: &FaultProfile, rng: &mut Rng) -> Kinds {
        if profile.late && self.servers > 1 && WARM_UP + SETTLED < self.end {
            let server = rng.index(self.servers);
            let at = rng.span(WARM_UP, self.end.saturating_sub(SETTLED));
            self.up[server] = at;
            self.settled[server] = at + SETTLED;
            self.add([(at, Fault::Restart(server))]);
        }
        Kinds::All
    }

    /// Two halves from the start, for so long that they are two clusters.
    fn split(&mut self, profile: &FaultProfile, rng: &mut Rng) -> Kinds {
        let cut = cuts::halves(self.servers, self.servers + self.clients, rng);
        self.cut_until = rng.span(SPLIT_MIN, SPLIT_MAX);
        self.add([(Duration::ZERO, Fault::Cut(cut)), (self.cut_until, Fault::Heal)]);
        if profile.operators && self.clients > 0 {
            let mut at = self.cut_until;
            for _ in 0..rng.between(1, self.servers as u64) {
                at += rng.span(HEARD, HEARD * 4);
                if at >= self.end {
                    break;
                }
                self.add([(at, Fault::Join(rng.index(self.clients)))]);
            }
        }
        Kinds::Mild
    }

    /// Something breaks, on a disk or elsewhere.
    fn draw_any(&mut self, profile: &Profile, kinds: Kinds, at: Duration, rng: &mut Rng) -> bool {
        if self.disks.is_empty() || rng.below(3) > 0 {
            self.draw(&profile.faults, kinds, at, rng)
        } else {
            kinds == Kinds::All && self.draw_disk(&profile.disks, at, rng)
        }
    }

    /// Something breaks, or nothing: then `false`, where what was drawn is not on in this run.
    fn draw(&mut self, profile: &FaultProfile, kinds: Kinds, at: Duration, rng: &mut Rng) -> bool {
        let all = kinds == Kinds::All;
        match rng.below(20) {
            0..=2 if profile.crashes && all => self.crash(at, rng),
            3 if profile.pairs && all => self.crash_two(at, rng),
            4 if profile.flapping && all => self.flap(at, rng),
            5 | 6 if profile.leaves && all => self.roll(at, rng),
            7..=9 if !profile.cuts.is_empty() && all => self.cut(profile, at, rng),
            11 if profile.slow => self.slow(at, rng),
            10 | 11 if profile.pauses => self.pause(at, rng),
            12 | 13 if profile.sleeps && self.clients > 0 => self.sleep(at, rng),
            14 if profile.roaming && self.clients > 0 => self.add([(at, Fault::Roam(rng.index(self.clients)))]),
            15 if profile.server_roaming => self.add([(at, Fault::RoamServer(rng.index(self.servers)))]),
            16 if profile.replaced && all => self.replace(at, rng),
            17 if profile.future => self.blurt(Nonsense::Future, at, rng),
            18 if profile.garbage => self.blurt(Nonsense::Garbage, at, rng),
            19 if profile.operators && self.clients > 0 && all => self.retire(at, rng),
            _ => return false,
        }
        true
    }

    /// A server dies, with its disk; the others are told to wait for it no more, and another one comes in its place.
    fn retire(&mut self, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        let dead = at + rng.span(DEAD_MIN, DEAD_MIN * 4);
        let back = dead + rng.span(DOWN_MIN, DOWN_MIN * 4);
        if !self.all_well(at) || !self.another(&[server], at) || back + DOWN_MIN > self.end {
            return;
        }
        self.up[server] = back;
        self.settled[server] = back + SETTLED;
        let client = rng.index(self.clients);
        self.add([(at, Fault::Crash(server)), (dead, Fault::Retire(client, server)), (back, Fault::Restart(server))]);
    }

    fn blurt(&mut self, what: Nonsense, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        self.add([(at, Fault::Blurt(server, what))]);
    }

    /// A server leaves, and one with another id comes in its place.
    fn replace(&mut self, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        let at = at.max(self.cut_until);
        let back = rng.span(DOWN_MIN, DOWN_MIN * 4);
        let up = at + LEAVE_MAX + back;
        if self.up[server] > at || !self.another(&[server], at) || up >= self.end {
            return;
        }
        self.add([(at, Fault::Replace(server, back))]);
        self.up[server] = up;
        self.settled[server] = up + SETTLED;
    }

    /// Whether somebody other than these is settled at `at`.
    fn another(&self, but: &[usize], at: Duration) -> bool {
        (0..self.servers).any(|other| !but.contains(&other) && self.settled[other] <= at)
    }

    fn down(&mut self, server: usize, at: Duration, rng: &mut Rng) {
        let back = (at + rng.span(DOWN_MIN, DOWN_MAX)).max(self.cut_until + DOWN_MIN);
        self.up[server] = back;
        self.settled[server] = back + SETTLED;
        self.add([(at, Fault::Crash(server)), (back, Fault::Restart(server))]);
    }

    fn crash(&mut self, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        if self.up[server] <= at && self.another(&[server], at) {
            self.down(server, at, rng);
        }
    }

    /// Two of at least four, at the same moment.
    fn crash_two(&mut self, at: Duration, rng: &mut Rng) {
        let one = rng.index(self.servers);
        let other = (one + 1 + rng.index(self.servers.max(2) - 1)) % self.servers;
        let up = self.up[one] <= at && self.up[other] <= at;
        if self.servers >= 4 && up && self.another(&[one, other], at) {
            self.down(one, at, rng);
            self.down(other, at, rng);
        }
    }

    /// The highest id is killed again and again, while nothing else happens.
    fn flap(&mut self, at: Duration, rng: &mut Rng) {
        let top = self.top;
        let calm = self.cut_until <= at && self.settled.iter().chain(&self.up).all(|fine| *fine <= at);
        if !calm || self.servers < 2 || at + FLAP_EVERY * 4 > self.end {
            return;
        }
        let until = (at + rng.span(FLAP_EVERY * 3, FLAP_MAX)).min(self.end.saturating_sub(FLAP_EVERY * 2));
        self.add([(at, Fault::Flap(top, true))]);
        let mut kill = at;
        while kill < until {
            let back = kill + rng.span(DOWN_MIN, DOWN_MIN * 5 / 4);
            self.add([(kill, Fault::Crash(top)), (back, Fault::Restart(top))]);
            self.up[top] = back;
            kill = back + rng.span(FLAP_EVERY / 8, FLAP_EVERY * 2);
        }
        self.settled[top] = self.up[top] + SETTLED;
        self.quiet_until = self.up[top] + FLAP_EVERY;
        self.add([(self.quiet_until, Fault::Flap(top, false))]);
    }

    /// Some or all servers are asked to leave, one after the other, and started again.
    fn roll(&mut self, at: Duration, rng: &mut Rng) {
        let (first, count) = (rng.index(self.servers), rng.between(1, self.servers as u64) as usize);
        let mut at = at.max(self.cut_until);
        let servers = self.servers;
        for server in (first..first + count).map(|nth| nth % servers) {
            let back = rng.span(DOWN_MIN, DOWN_MIN * 4);
            let up = at + LEAVE_MAX + back;
            if self.up[server] > at || !self.another(&[server], at) || up >= self.end {
                return;
            }
            self.add([(at, Fault::Leave(server, back))]);
            self.up[server] = up;
            self.settled[server] = up + SETTLED;
            at += rng.span(LEAVE_MAX, LEAVE_MAX * 2);
        }
    }

    /// A cut, which may change into others before it ends: one begins before the other has healed, or as it does.
    fn cut(&mut self, profile: &FaultProfile, at: Duration, rng: &mut Rng) {
        if self.cut_until >= at || self.settled.iter().any(|settled| *settled > at) {
            return;
        }
        let hosts = self.servers + self.clients;
        let draw = |rng: &mut Rng| profile.cuts[rng.index(profile.cuts.len())].draw(self.servers, hosts, rng);
        let (mut at, mut current) = (at, draw(rng));
        let changes = if rng.below(2) == 0 { 0 } else { rng.between(1, CUTS_MAX - 1) };
        let mut faults = vec![(at, Fault::Cut(current.clone()))];
        for _ in 0..changes {
            at += rng.span(CUT_MIN, CUT_MAX / 2);
            let next = draw(rng);
            if rng.below(2) == 0 {
                faults.push((at, Fault::Cut(current.union(&next).copied().collect())));
                at += rng.span(CUT_MIN, CUT_MAX / 6);
            }
            faults.push((at, Fault::Cut(next.clone())));
            current = next;
        }
        self.cut_until = at + rng.span(CUT_MIN, CUT_MAX);
        self.add(faults);
        self.add([(self.cut_until, Fault::Heal)]);
    }

    /// Something happens to disks, or nothing.
    fn draw_disk(&mut self, profile: &DiskProfile, at: Duration, rng: &mut Rng) -> bool {
        let server = self.disks[rng.index(self.disks.len())];
        match rng.below(5) {
            0 if profile.power => self.power(at, rng),
            1 if profile.wipes => self.wipe(server, at, rng),
            2 if profile.fills => self.fill(server, at, rng),
            3 | 4 if profile.rots => self.add([(at, Fault::Rot(server))]),
            _ => return false,
        }
        true
    }

    /// Whether all servers have long been up, and no path is cut.
    fn all_well(&self, at: Duration) -> bool {
        self.cut_until <= at && self.settled.iter().chain(&self.up).all(|fine| *fine <= at)
    }

    /// The power goes off everywhere, or all machines are rebooted at once. A server without a disk would found a cluster
    /// where it comes back before those that remember one.
    fn power(&mut self, at: Duration, rng: &mut Rng) {
        let latest = at + DOWN_MIN * 4;
        if !self.all_well(at) || latest + SETTLED > self.end {
            return;
        }
        for server in 0..self.servers {
            let memory = !self.disks.contains(&server);
            let back = if memory { latest + DOWN_MIN * 4 } else { at + rng.span(DOWN_MIN, DOWN_MIN * 4) };
            self.up[server] = back;
            self.settled[server] = back + SETTLED;
            self.quiet_until = self.quiet_until.max(back + DOWN_MIN * 3);
            self.add([(at, Fault::Crash(server)), (back, Fault::Restart(server))]);
        }
    }

    fn wipe(&mut self, server: usize, at: Duration, rng: &mut Rng) {
        if !self.all_well(at) || !self.another(&[server], at) || at + DOWN_MAX > self.end {
            return;
        }
        let back = at + rng.span(DOWN_MIN, DOWN_MAX / 3);
        self.up[server] = back;
        self.settled[server] = back + SETTLED;
        self.add([(at, Fault::Wipe(server)), (back, Fault::Restart(server))]);
    }

    fn fill(&mut self, server: usize, at: Duration, rng: &mut Rng) {
        if self.up[server] > at || !self.another(&[server], at) {
            return;
        }
        let until = (at + rng.span(DOWN_MIN, DOWN_MAX)).max(self.cut_until + DOWN_MIN);
        self.up[server] = until;
        self.settled[server] = until + SETTLED;
        self.add([(at, Fault::Full(server)), (until, Fault::Room(server))]);
    }

    fn pause(&mut self, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        let span = rng.span(PAUSE_MIN, PAUSE_MAX);
        if self.up[server] > at {
            return;
        }
        self.up[server] = at + span;
        self.add([(at, Fault::Pause(server)), (at + span, Fault::Resume(server))]);
    }

    fn slow(&mut self, at: Duration, rng: &mut Rng) {
        let server = rng.index(self.servers);
        let (step, span) = (rng.span(STEP_MIN, STEP_MAX), rng.span(SLOW_MIN, SLOW_MAX));
        if self.up[server] > at {
            return;
        }
        self.up[server] = at + span;
        self.settled[server] = at + span + SETTLED;
        self.add([(at, Fault::Slow(server, step)), (at + span, Fault::Fast(server))]);
    }

    /// A client sleeps until the end at the latest. Where its clock goes on meanwhile, it may have slept for much longer.
    fn sleep(&mut self, at: Duration, rng: &mut Rng) {
        let client = rng.index(self.clients);
        if self.awake[client] > at || at + SLEEP_MIN >= self.end {
            return;
        }
        let shift = rng.below(11) as u32;
        let span = rng.span(SLEEP_MIN, (SLEEP_MIN * (1 << shift)).min(SLEEP_MAX)).min(self.end.saturating_sub(at));
        let clock = (rng.below(2) == 0).then(|| rng.span(span, SLEEP_MAX));
        self.awake[client] = at + span;
        self.add([(at, Fault::Sleep(client)), (at + span, Fault::Wake(client, clock))]);
    }
}

#[cfg(test)]
mod tests;
