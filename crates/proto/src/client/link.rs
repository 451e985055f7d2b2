//! A session with one server: says hi until it is welcomed, and notices when the server falls silent.
//!
//! Nobody pings fast. Where a room that was talking falls silent, its server is asked once after [`LULL`], then at doubling
//! intervals up to [`KEEPALIVE`]: so whoever only listens notices within a few seconds that both their server and its
//! standby have died, while a quiet room costs no more than the keepalive does.
//!
//! A server counts as silent once something has been unanswered for [`UNANSWERED`]; then it is
//! pinged, and our standby is asked what it knows of it: by a ping too, since servers answer those with whom they hear.
//! Where nothing at all is heard for a while, the server is gone. That while grows with the round trip, so that a slow
//! link is not left for being slow.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    client::{finder::Candidate, repeat::Repeat},
    ids::{Boot, ClusterId, ServerId},
    limits,
    rng::Rng,
    session::SessionId,
    time::{Duration, Time},
    wire::frame::ServerAddrs,
};

/// The first repetition of a hi, and the longest interval.
const HI: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often a server is told who we are because it says that it does not know.
const HI_AGAIN: Duration = Duration::from_secs(1);
/// How long an answer may take before the server is pinged.
const UNANSWERED: Duration = Duration::from_millis(500);
/// The first repetition of a ping, and the longest interval.
const PING: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(200));
/// How long a server that is pinged may be silent: at least, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// How often an idle session is kept alive, +-20 %.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// How soon our server is pinged after it has told us of a room for the last time, +-20 %.
const LULL: Duration = Duration::from_secs(2);
/// How long a standby may be silent that our server hears no longer: at the least.
const PATIENCE_UNHEARD: Duration = Duration::from_millis(200);
/// A standby that has not answered for so long when our server falls silent too is dead as well.
const DEAD_TOO: Duration = Duration::from_millis(250);
/// How long a handshake may take where there is another server to try.
const HANDSHAKE: Duration = Duration::from_millis(700);
/// How often a hi is repeated for the list of servers alone.
const LIST_TRIES: u32 = 4;

/// What a server is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It serves us.
    Primary,
    /// It calls us over when that server dies.
    Standby(ServerId),
}

/// A session with a server.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: SessionId,
    pub(super) addr: SocketAddr,
    pub(super) key: [u8; 32],
    pub(super) cluster: ClusterId,
    pub(super) open: bool,
    /// Who it is, as far as known.
    pub(super) server: Option<ServerId>,
    /// Since when it runs, as far as it has said.
    pub(super) boot: Option<Boot>,
    pub(super) up: bool,
    /// The number of the last hi.
    pub(super) number: u64,
    /// What it was asked to be with the last hi.
    pub(super) part: Option<Part>,
    /// Whether it has answered the last hi.
    pub(super) welcomed: bool,
    /// Whether it has been told what we follow and what we posted.
    pub(super) entered: bool,
    opened_at: Time,
    /// When it may be told again who we are, if it has forgotten.
    again_at: Time,
    is_forgotten: bool,
    hi: Option<Repeat>,
    /// Whether it has named the servers of the cluster, or will not.
    listed: bool,
    list_tries: u32,
    /// The servers that it hears, itself among them, and when it last said so.
    hears: BTreeSet<ServerId>,
    hears_at: Option<Time>,
    keepalive_at: Time,
    /// How long after the next ping the one after it follows.
    quiet: Duration,
    probe: Option<Probe>,
    last_ping: Option<(u64, Time)>,
    round_trip: Duration,
}

/// A server is being asked whether it is alive.
#[derive(Debug)]
struct Probe {
    since: Time,
    /// Whether something has been unanswered for a while.
    missed: bool,
    /// Whether somebody else has said that it is dead.
    unheard: bool,
    repeat: Repeat,
}

/// What a link wants to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) hi: bool,
    pub(super) ping: bool,
    /// To ask somebody else what has become of the server: it has not answered for a while.
    pub(super) doubt: bool,
}

impl Link {
    /// A session that was opened to a server that answered.
    pub(super) fn new(session: SessionId, to: &Candidate, now: Time) -> Self {
        Self {
            session,
            addr: to.addr,
            key: to.key,
            cluster: to.cluster,
            open: to.open,
            server: to.server,
            boot: None,
            up: false,
            number: 0,
            part: None,
            welcomed: false,
            entered: false,
            opened_at: now,
            again_at: now,
            is_forgotten: false,
            hi: None,
            listed: false,
            list_tries: 0,
            hears: BTreeSet::new(),
            hears_at: None,
            keepalive_at: now + KEEPALIVE,
            quiet: KEEPALIVE,
            probe: None,
            last_ping: None,
            round_trip: Duration::ZERO,
        }
    }

    /// Says hi from now on, with a new number.
    pub(super) fn say_hi(&mut self, number: u64, part: Part, now: Time) {
        self.number = number;
        self.part = Some(part);
        (self.welcomed, self.is_forgotten) = (false, false);
        self.hi = Some(Repeat::new(HI.0, HI.1, now));
    }

    /// The hi `number` is answered: whether that is news.
    pub(super) fn welcome(&mut self, number: u64, now: Time) -> bool {
        if number != self.number || self.hi.is_none() {
            return false;
        }
        let news = !self.welcomed;
        self.welcomed = true;
        self.hi = (!self.listed).then(|| Repeat::later(UNANSWERED, HI.1, now));
        news
    }

    /// It names the servers that it hears, and the boots of some of them.
    pub(super) fn names(&mut self, up: &[ServerId], servers: &[ServerAddrs], now: Time) {
        self.hears = up.iter().copied().take(limits::SERVERS_MAX).collect();
        self.hears_at = Some(now);
        if let Some(itself) = servers.iter().find(|server| Some(server.id) == self.server) {
            self.boot = Some(itself.boot);
        }
        self.has_listed();
    }

    /// The servers that it hears, once it has named them.
    pub(super) fn hears(&self) -> Option<&BTreeSet<ServerId>> {
        self.hears_at.map(|_| &self.hears)
    }

    /// Whether it has named them since then.
    pub(super) fn has_named_since(&self, then: Time) -> bool {
        self.hears_at.is_some_and(|at| at > then)
    }

    /// It has named the servers of the cluster, or will not.
    fn has_listed(&mut self) {
        self.listed = true;
        if self.welcomed {
            self.hi = None;
        }
    }

    /// The server says that it does not know us any more.
    pub(super) fn forgotten(&mut self) {
        self.is_forgotten |= self.welcomed;
    }

    /// Whether a hi is due because of that: not more often than each second.
    pub(super) fn take_forgotten(&mut self, now: Time) -> bool {
        let is_due = self.is_forgotten && self.again_at <= now;
        if is_due {
            (self.is_forgotten, self.again_at) = (false, now + HI_AGAIN);
        }
        is_due
    }

    /// It will not serve us as we are: says hi no more.
    pub(super) fn give_up_hi(&mut self) -> bool {
        self.hi.take().is_some() && !self.welcomed
    }

    /// A pong came: the round trip is known.
    pub(super) fn pong(&mut self, n: u64, now: Time) {
        if let Some((_, at)) = self.last_ping.take_if(|(last, _)| *last == n) {
            self.round_trip = now.since(at);
        }
    }

    /// A ping with this number goes out.
    pub(super) fn pinged(&mut self, n: u64, now: Time, rng: &mut Rng) {
        self.last_ping = Some((n, now));
        self.keepalive_at = now + rng.jitter(self.quiet, 20);
        self.quiet = (self.quiet * 2).min(KEEPALIVE);
    }

    /// It has told us of a room: if it goes on so, nobody has to ask whether it is alive.
    pub(super) fn talked(&mut self, now: Time, rng: &mut Rng) {
        self.keepalive_at = now + rng.jitter(LULL, 20);
        self.quiet = LULL * 2;
    }

    /// Pings with the next poll, whatever was said of it before.
    pub(super) fn ask_now(&mut self, now: Time) {
        self.probe = None;
        self.keepalive_at = now;
    }

    /// What is due. `heard` is when the server was last heard, `waiting` since when something that it was asked waits.
    pub(super) fn poll(&mut self, heard: Time, waiting: Option<Time>, now: Time) -> Due {
        if !self.up {
            return Due { hi: false, ping: false, doubt: false };
        }
        self.probe.take_if(|probe| heard > probe.since);
        let silent = self.waiting(waiting).is_some_and(|since| since.max(heard) + UNANSWERED <= now);
        if silent || self.keepalive_at <= now {
            self.doubt(now);
        }
        if let Some(probe) = &mut self.probe {
            probe.missed |= silent;
        }
        let ping = self.probe.as_mut().is_some_and(|probe| probe.repeat.poll(now));
        // A first ping that was not answered is reason enough.
        let unanswered = self.probe.as_ref().is_some_and(|probe| probe.since < now);
        let hi = self.hi.as_mut().is_some_and(|hi| hi.poll(now));
        if hi && self.welcomed {
            self.list_tries += 1;
            if self.list_tries >= LIST_TRIES {
                self.has_listed();
            }
        }
        Due { hi, ping, doubt: ping && (silent || unanswered) }
    }

    /// Asks from now on whether it is alive.
    pub(super) fn doubt(&mut self, now: Time) {
        let repeat = Repeat::new(PING.0, PING.1, now);
        self.probe.get_or_insert(Probe { since: now, missed: false, unheard: false, repeat });
    }

    /// Somebody who has heard it hears it no longer: asks whether it is alive, with less patience.
    pub(super) fn doubt_unheard(&mut self, now: Time) {
        self.doubt(now);
        if let Some(probe) = &mut self.probe {
            probe.unheard = true;
        }
    }

    /// Whether it is being asked because somebody hears it no longer.
    pub(super) fn is_unheard(&self) -> bool {
        self.probe.as_ref().is_some_and(|probe| probe.unheard)
    }

    /// Whether it has not answered while our server did not either. `heard` is when it was last heard.
    pub(super) fn is_dead_too(&self, heard: Time, now: Time) -> bool {
        let span = DEAD_TOO.max(self.round_trip * 2);
        self.probe.as_ref().is_some_and(|probe| heard <= probe.since && probe.since + span <= now)
    }

    /// Whether it has not answered for a while. `heard` is when it was last heard.
    pub(super) fn is_missed(&self, heard: Time) -> bool {
        self.probe.as_ref().is_some_and(|probe| probe.missed && heard <= probe.since)
    }

    /// We have slept ourselves: what it did not answer meanwhile proves nothing.
    pub(super) fn trust(&mut self) {
        self.probe = None;
    }

    /// Whether the server has been silent for too long. A standby is given more time, since nobody waits for it.
    pub(super) fn is_dead(&self, now: Time) -> bool {
        self.probe.as_ref().is_some_and(|probe| probe.since + self.patience() <= now)
    }

    /// Whether the handshake has taken so long that another server, if there is one, is the better bet.
    pub(super) fn is_slow_to_open(&self, now: Time) -> bool {
        !self.up && self.opened_at + HANDSHAKE <= now
    }

    /// When something is to be done.
    pub(super) fn deadline(&self, heard: Time, waiting: Option<Time>, now: Time) -> Option<Time> {
        if !self.up {
            return Some(self.opened_at + HANDSHAKE).filter(|at| *at > now);
        }
        let silent = self.waiting(waiting).map(|since| since.max(heard) + UNANSWERED);
        let watch = match &self.probe {
            Some(probe) => Some(probe.repeat.at.min(probe.since + self.patience())),
            None => silent.into_iter().chain([self.keepalive_at]).min(),
        };
        let again = self.is_forgotten.then_some(self.again_at);
        [watch, self.hi.map(|hi| hi.at), again].into_iter().flatten().min()
    }

    /// Since when anything waits, the hi included.
    fn waiting(&self, others: Option<Time>) -> Option<Time> {
        let hi = self.hi.filter(|_| !self.welcomed).map(|hi| hi.since);
        [hi, others].into_iter().flatten().min()
    }

    fn patience(&self) -> Duration {
        let is_standby = matches!(self.part, Some(Part::Standby(_)));
        let unheard = is_standby && self.probe.as_ref().is_some_and(|probe| probe.unheard);
        let least = if unheard { PATIENCE_UNHEARD } else { PATIENCE.0 };
        let span = (self.round_trip * 4).clamp(least, PATIENCE.1);
        if is_standby && !unheard { span * 4 } else { span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::ServerId,
        session::{SessionId, keys::Suite},
    };

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    /// A link that is up, opened at 0.
    fn link() -> Link {
        let to = Candidate::new(([10, 0, 0, 1], 1).into(), Some(ServerId(1)), ClusterId(1), [1; 32], Suite::ChaChaPoly);
        let mut link = Link::new(SessionId(1), &to, at(0));
        link.up = true;
        link
    }

    /// When it pings, and when it is given up, if nothing is heard after `heard` and something waits since `waiting`.
    fn silence(link: &mut Link, heard: u64, waiting: Option<u64>) -> (Vec<u64>, Option<u64>) {
        let mut pings = Vec::new();
        for ms in heard..60_000 {
            if link.is_dead(at(ms)) {
                return (pings, Some(ms));
            }
            if link.poll(at(heard), waiting.map(at), at(ms)).ping {
                pings.push(ms);
                link.pinged(ms, at(ms), &mut Rng::from_seed([0; 32]));
            }
        }
        (pings, None)
    }

    #[test]
    fn a_silent_server_is_pinged_and_then_given_up() {
        fn check(part: Part, round_trip: u64, waiting: Option<u64>, first: u64, dead: u64) {
            let mut link = link();
            link.part = Some(part);
            link.round_trip = Duration::from_millis(round_trip);
            let (pings, given_up) = silence(&mut link, 10, waiting);
            assert_eq!((pings[0], given_up), (first, Some(dead)), "{part:?} {round_trip} {waiting:?}");
        }
        let standby = Part::Standby(ServerId(2));
        check(Part::Primary, 0, Some(100), 600, 1_100);
        check(Part::Primary, 0, Some(1), 510, 1_010);
        check(Part::Primary, 300, Some(100), 600, 1_800);
        check(Part::Primary, 0, None, 25_000, 25_500);
        check(standby, 0, None, 25_000, 27_000);
    }

    #[test]
    fn a_new_network_is_reason_to_ping_at_once() {
        let mut link = link();
        assert!(!link.poll(at(10), None, at(20)).ping);
        link.ask_now(at(20));
        assert!(link.poll(at(10), None, at(20)).ping);
    }

    #[test]
    fn only_the_answer_to_the_last_hi_counts_and_only_once() {
        let mut link = link();
        link.say_hi(5, Part::Primary, at(0));
        link.say_hi(6, Part::Primary, at(1));
        assert!(!link.welcome(5, at(2)));
        assert!(link.welcome(6, at(3)));
        assert!(!link.welcome(6, at(4)));
        assert!(link.welcomed && !link.give_up_hi());
    }

    #[test]
    fn hi_is_repeated_until_the_servers_are_named_but_not_for_ever() {
        let mut link = link();
        link.say_hi(5, Part::Primary, at(0));
        link.welcome(5, at(0));
        let due = (0..30_000).filter(|ms| link.poll(at(*ms), None, at(*ms)).hi).count();
        assert_eq!(due, LIST_TRIES as usize);
    }
}
