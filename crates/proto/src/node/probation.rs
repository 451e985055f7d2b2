//! Probation: a server that comes back is not trusted with anything at once.
//!
//! A server that crashes and restarts again and again, or whose link does so, would take the lead and rooms each time, and
//! each time the cluster would wait for its death. So whoever was here, was dead and comes back leads nobody and is given
//! no rooms for 5 s, twice as long with every time, up to 5 minutes; all is forgiven after 5 minutes without trouble beyond
//! that. (Route flap damping, RFC 2439, has the same reason.)
//!
//! Each server judges by what it remembers itself, since its own start and only in memory. What it imposes goes out in its
//! heartbeats, and the longest that anybody imposes binds all. What was only heard is not told on, so that it ends.
//!
//! - A newer boot than the one remembered came back, however soon.
//! - The same boot was cut off, and so were we: each side saw the other die. The side with fewer servers counts as the one
//!   that came back; of two equal ones, that with the lower top id. Our side are the servers that we have heard for 2 s,
//!   since those that come in during the same meeting are of the other side. The other side are the newcomer and those that
//!   it says it hears and that are not of ours.
//! - One that others have heard for longer than that, before we do, was judged by them.
//! - One that nobody remembers is welcome at once.

use std::collections::BTreeSet;

use crate::{
    ids::{Boot, Origin, ServerId},
    limits,
    sorted::SortedMap,
    time::{Duration, Time},
};

/// The first probation.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_mins(5);
/// How long after its probation a server must have been up to be forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_mins(5);
/// How long a server must have been up to be of our side when two sides meet.
const SETTLED: Duration = Duration::from_secs(2);
/// Servers that are remembered; beyond that the one whose probation ended first is forgotten.
const REMEMBERED_MAX: usize = 4 * limits::SERVERS_MAX;
/// Words of others that are remembered: of each who may be remembered, all that it may say at once.
const TOLD_MAX: usize = limits::SERVERS_MAX * REMEMBERED_MAX;
/// Doublings until the longest is reached, and more.
const FLAPS_MAX: u32 = 10;

/// A server that is remembered.
#[derive(Clone, Copy, Debug)]
struct Record {
    boot: Boot,
    /// Since when it has been here; `None` while it is dead.
    up: Option<Time>,
    /// In which boot, and since when, others have heard it again while it is dead to us.
    rumour: Option<(Boot, Time)>,
    /// How often it came back and was not forgiven.
    flaps: u32,
    /// When the probation that we imposed ends.
    until: Time,
}

/// Who is on probation, as one server knows.
#[derive(Debug, Default)]
pub(super) struct Probations {
    records: SortedMap<ServerId, Record>,
    /// When the probations end that others impose: on whom, and who does.
    told: SortedMap<(ServerId, ServerId), Time>,
}

impl Probations {
    /// `peer` is live to `me`, and says that it hears `its_side`. Says whether it was put on probation for that.
    pub(super) fn alive(&mut self, me: ServerId, peer: Origin, its_side: &[ServerId], now: Time) -> bool {
        let judged = |(boot, since): (Boot, Time)| boot == peer.boot && now.since(since) >= SETTLED;
        let came_back = self.records.get(&peer.id).is_some_and(|known| {
            let came_back = known.boot != peer.boot || known.up.is_none();
            let lesser = known.boot != peer.boot || self.is_lesser(me, peer.id, its_side, now);
            came_back && lesser && !known.rumour.is_some_and(judged)
        });
        let Some(record) = self.meet(peer, now) else { return false };
        if came_back {
            let span = (FIRST * (1 << record.flaps)).min(LONGEST);
            record.flaps = (record.flaps + 1).min(FLAPS_MAX);
            record.until = record.until.max(now + span);
        }
        came_back
    }

    /// Only others hear `peer`.
    pub(super) fn unheard(&mut self, peer: Origin, now: Time) {
        match self.records.get_mut(&peer.id) {
            None => {
                self.meet(peer, now);
            }
            Some(known) if known.boot == peer.boot && known.up.is_some() => {}
            Some(known) if known.rumour.is_some_and(|(boot, _)| boot == peer.boot) => {}
            Some(known) => known.rumour = Some((peer.boot, now)),
        }
    }

    /// A server has died, or left.
    pub(super) fn dead(&mut self, id: ServerId, now: Time) {
        if let Some(record) = self.records.get_mut(&id) {
            record.forgive(now);
            (record.up, record.rumour) = (None, None);
        }
    }

    /// A live server says whom it has put on probation, for so many milliseconds more: that is all it says, so its newest
    /// word takes the place of those before. They may have waited while we stood still, and would end that much later here
    /// than elsewhere; and who names many others takes up no more room than anybody.
    pub(super) fn told(&mut self, by: ServerId, imposed: &[(ServerId, u32)], now: Time) {
        self.told.retain(|(_, teller), until| teller != by && *until > now);
        for (id, left) in imposed.iter().take(limits::SERVERS_MAX) {
            if *left > 0 && self.told.len() < TOLD_MAX {
                self.told.insert((*id, by), now + Duration::from_millis((*left).into()).min(LONGEST));
            }
        }
    }

    /// Whether `id` is on probation, by whomever.
    pub(super) fn is_on(&self, id: ServerId, now: Time) -> bool {
        let ours = self.records.get(&id).map(|record| record.until);
        let told = self.told.iter().filter(|((on, _), _)| *on == id).map(|(_, until)| *until);
        ours.into_iter().chain(told).any(|until| until > now)
    }

    /// The probations that we impose, and for how many milliseconds more.
    pub(super) fn imposed(&self, now: Time) -> Vec<(ServerId, u32)> {
        let left =
            |record: &Record| u32::try_from(record.until.since(now).as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        let imposed = self.records.iter().filter(|(_, record)| record.until > now);
        imposed.map(|(id, record)| (id, left(record))).take(limits::SERVERS_MAX).collect()
    }

    /// The record of a server that is here in this boot, made if need be.
    fn meet(&mut self, peer: Origin, now: Time) -> Option<&mut Record> {
        if !self.records.contains_key(&peer.id) && self.records.len() >= REMEMBERED_MAX {
            let gone = self.records.iter().filter(|(_, record)| record.up.is_none());
            let forgotten = gone.min_by_key(|(_, record)| record.until).map(|(id, _)| id)?;
            self.records.remove(&forgotten);
        }
        let new = Record { boot: peer.boot, up: None, rumour: None, flaps: 0, until: Time::ZERO };
        let record = self.records.or_insert_with(peer.id, || new);
        record.forgive(now);
        if record.boot != peer.boot {
            (record.boot, record.up) = (peer.boot, None);
        }
        record.rumour = None;
        record.up.get_or_insert(now);
        Some(record)
    }

    /// Whether the side of a server that we meet again has fewer servers than ours.
    fn is_lesser(&self, me: ServerId, peer: ServerId, its_side: &[ServerId], now: Time) -> bool {
        let settled = |record: &Record| record.up.is_some_and(|up| now.since(up) >= SETTLED);
        let ours = self.records.iter().filter(|(id, record)| *id != peer && settled(record)).map(|(id, _)| id);
        let ours: BTreeSet<_> = ours.chain([me]).collect();
        let theirs = its_side.iter().copied().filter(|id| !ours.contains(id));
        let theirs: BTreeSet<_> = theirs.chain([peer]).collect();
        (theirs.len(), theirs.last()) < (ours.len(), ours.last())
    }
}

impl Record {
    /// Forgets how often it came back, if it has been up for long enough since.
    fn forgive(&mut self, now: Time) {
        if self.up.is_some_and(|up| now.since(up.max(self.until)) >= FORGIVEN_AFTER) {
            self.flaps = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ServerId = ServerId(3);

    fn origin(id: u32, boot: u64) -> Origin {
        Origin { id: ServerId(id), boot: Boot(boot) }
    }

    fn at(secs: u64) -> Time {
        Time::from_micros(secs * 1_000_000)
    }

    fn ids(ids: &[u32]) -> Vec<ServerId> {
        ids.iter().copied().map(ServerId).collect()
    }

    /// How long its probation lasts yet, seconds.
    fn left(probations: &Probations, id: u32, now: u64) -> u32 {
        probations.imposed(at(now)).iter().find(|(on, _)| *on == ServerId(id)).map_or(0, |(_, left)| left / 1000)
    }

    #[test]
    fn one_that_nobody_remembers_is_welcome() {
        let mut probations = Probations::default();
        assert!(!probations.alive(ME, origin(9, 1), &[], at(1)));
        assert!(!probations.is_on(ServerId(9), at(1)));
        assert_eq!(probations.imposed(at(1)), []);
    }

    #[test]
    fn a_server_that_restarts_is_on_probation_twice_as_long_each_time() {
        let mut probations = Probations::default();
        probations.alive(ME, origin(9, 0), &[], at(0));
        for (boot, expected) in [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300, 300].into_iter().enumerate() {
            let now = 1000 * (boot as u64 + 1);
            // Long between, but never up for long.
            probations.alive(ME, origin(9, boot as u64 + 1), &[], at(now));
            assert_eq!(left(&probations, 9, now), expected);
            assert!(probations.is_on(ServerId(9), at(now + 4)));
            assert!(!probations.is_on(ServerId(9), at(now + u64::from(expected))));
            probations.dead(ServerId(9), at(now + 10));
        }
    }

    #[test]
    fn five_good_minutes_beyond_it_are_forgiveness() {
        fn check(up: u64, expected: u32) {
            let mut probations = Probations::default();
            probations.alive(ME, origin(9, 0), &[], at(0));
            probations.alive(ME, origin(9, 1), &[], at(10));
            probations.dead(ServerId(9), at(10 + up));
            probations.alive(ME, origin(9, 2), &[], at(2000));
            assert_eq!(left(&probations, 9, 2000), expected, "up for {up} s");
        }
        check(1, 10);
        check(304, 10);
        check(305, 5);
    }

    #[test]
    fn of_two_sides_that_meet_the_lesser_came_back() {
        fn check(ours: &[u32], late: &[u32], peer: u32, its_side: &[u32], expected: bool) {
            let mut probations = Probations::default();
            for id in ours.iter().chain(late).chain([&peer]) {
                probations.alive(ME, origin(*id, 1), &[], at(0));
            }
            for id in late.iter().chain([&peer]) {
                probations.dead(ServerId(*id), at(10));
            }
            for id in late {
                let _ = probations.meet(origin(*id, 1), at(19));
            }
            let on = probations.alive(ME, origin(peer, 1), &ids(its_side), at(20));
            assert_eq!(on, expected, "{ours:?}, 3 and lately {late:?}; {peer}, which hears {its_side:?}");
            assert_eq!(probations.is_on(ServerId(peer), at(20)), expected);
        }
        check(&[1, 2], &[], 5, &[4], true);
        check(&[1], &[], 5, &[4], false);
        check(&[], &[], 5, &[4], false);
        check(&[], &[], 5, &[], false);
        check(&[], &[], 2, &[], true);
        check(&[6], &[], 5, &[4], true);
        // It hears some of ours already; and what came in a moment ago is its side, not ours.
        check(&[1, 2], &[], 5, &[1, 2, 3, 4], true);
        check(&[1], &[4], 5, &[1, 3, 4], false);
    }

    #[test]
    fn one_that_only_others_hear_for_long_is_for_them_to_judge() {
        fn check(boot: u64, unheard: u64, expected: bool) {
            let mut probations = Probations::default();
            probations.alive(ME, origin(2, 1), &[], at(0));
            probations.dead(ServerId(2), at(5));
            probations.unheard(origin(2, boot), at(6));
            probations.unheard(origin(2, boot), at(6 + unheard));
            let on = probations.alive(ME, origin(2, boot), &[], at(6 + unheard));
            assert_eq!(on, expected, "boot {boot}, {unheard} s");
        }
        check(1, 0, true);
        check(1, 1, true);
        check(1, 60, false);
        check(2, 1, true);
        check(2, 60, false);
    }

    #[test]
    fn the_longest_that_is_told_binds_and_ends_by_itself() {
        let mut probations = Probations::default();
        probations.told(ServerId(2), &[(ServerId(9), 20_000)], at(0));
        probations.told(ServerId(3), &[(ServerId(9), 5_000)], at(0));
        assert!(probations.is_on(ServerId(9), at(19)) && !probations.is_on(ServerId(9), at(20)));
        assert_eq!(probations.imposed(at(1)), [], "what was only heard is not told on");
        probations.told(ServerId(2), &[(ServerId(9), 100_000_000)], at(30));
        assert!(!probations.is_on(ServerId(9), at(330)));
    }

    #[test]
    fn the_newest_word_of_each_counts_since_those_before_may_have_waited() {
        let mut probations = Probations::default();
        for left in [20_000, 17_000, 15_000] {
            probations.told(ServerId(2), &[(ServerId(9), left)], at(5));
        }
        assert!(probations.is_on(ServerId(9), at(19)) && !probations.is_on(ServerId(9), at(20)));
        probations.told(ServerId(2), &[], at(6));
        assert!(!probations.is_on(ServerId(9), at(7)));
    }

    #[test]
    fn who_names_many_does_not_silence_another() {
        let mut probations = Probations::default();
        for id in 0..10_000 {
            probations.told(ServerId(2), &[(ServerId(100 + id), 300_000)], at(0));
        }
        let crowd: Vec<_> = (0..10_000).map(|id| (ServerId(100 + id), 300_000)).collect();
        probations.told(ServerId(2), &crowd, at(0));
        probations.told(ServerId(3), &[(ServerId(9), 5_000)], at(1));
        assert!(probations.is_on(ServerId(9), at(2)));
        assert!(probations.told.len() <= limits::SERVERS_MAX + 1);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let mut probations = Probations::default();
        for id in 0..3_000 {
            probations.told(ServerId(id), &[(ServerId(id), 300_000)], at(0));
            probations.alive(ME, origin(id, 1), &[], at(0));
            probations.dead(ServerId(id), at(0));
        }
        assert!(probations.told.len() <= TOLD_MAX && probations.records.len() <= REMEMBERED_MAX);
    }
}
