//! How long somebody who could be served was not: the longest time in which a client whose network is whole, with a server
//! that runs, had posted and was told nothing, or did not see what others had seen already.
//!
//! It judges nothing: what is too long depends on what broke. So the longest is kept for each kind of fault, and a sweep
//! says how they are distributed.
//!
//! ```text
//! posted ── the author waits ── told or shown: out ── every other one in the room waits ── shown
//! ```

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    ids::RoomName,
    log::PostKey,
    time::{Duration, Time},
};

use crate::{facts::Fact, faults::Fault, profile::WARM_UP};

/// A fault is the cause of what begins so long after it.
const AFTER: Duration = Duration::from_secs(5);
/// Nothing is waited for longer than a fault of so long ago.
const REMEMBERED: Duration = Duration::from_mins(2);
/// Whoever was away or cut off, and waits for what was said meanwhile.
pub const COMES_BACK: &str = "comes back";
/// No fault was near.
pub const CALM: &str = "calm";
/// What may be the cause, the likeliest first, where there are several.
const KINDS: [&str; 10] =
    ["power", "disk lost", "crash", "leave", "pause", "slow", "full disk", "cut", "another address", "start"];

/// A silence that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Silence {
    /// How long it was.
    pub span: Duration,
    /// When it ended.
    pub until: Time,
    /// At which client.
    pub client: usize,
}

/// A post that not everybody in its room has seen.
#[derive(Debug)]
struct Post {
    author: usize,
    at: Time,
    /// When somebody was first told of it.
    out: Option<Time>,
    /// Who has not been told.
    waiting: BTreeSet<usize>,
}

/// The longest silences of a run.
#[derive(Debug, Default)]
pub struct Silences {
    /// Since when each client can be served; who is not here cannot.
    able: BTreeMap<usize, Time>,
    followers: BTreeMap<RoomName, BTreeSet<usize>>,
    posts: BTreeMap<(RoomName, PostKey), Post>,
    /// What has broken lately, and when.
    recent: Vec<(Time, &'static str)>,
    longest: BTreeMap<&'static str, Silence>,
    /// There may be two clusters, and nobody waits for what is said in the other.
    split: bool,
}

impl Silences {
    /// There may be two clusters from the beginning on: authors alone wait.
    pub fn split(&mut self) {
        self.split = true;
    }

    /// The longest silence for each kind of fault that was near.
    pub fn longest(&self) -> &BTreeMap<&'static str, Silence> {
        &self.longest
    }

    /// Whether a client could be served from now on.
    pub fn set_able(&mut self, client: usize, is_able: bool, now: Time) {
        if is_able {
            self.able.entry(client).or_insert(now.max(Time::ZERO + WARM_UP));
        } else {
            self.able.remove(&client);
        }
    }

    /// Something breaks.
    pub fn breaks(&mut self, fault: &Fault, is_last: bool, now: Time) {
        let kind = match fault {
            Fault::Crash(_) if is_last => "power",
            Fault::Crash(_) => "crash",
            Fault::Wipe(_) | Fault::Retire(..) => "disk lost",
            Fault::Leave(..) | Fault::Replace(..) | Fault::Join(_) => "leave",
            Fault::Pause(_) => "pause",
            Fault::Slow(..) | Fault::Fast(_) => "slow",
            Fault::Full(_) | Fault::Room(_) => "full disk",
            Fault::Cut(_) | Fault::Heal => "cut",
            Fault::Roam(_) | Fault::RoamServer(_) => "another address",
            Fault::Restart(_) => "start",
            _ => return,
        };
        self.recent.retain(|(at, _)| now.since(*at) < REMEMBERED);
        self.recent.push((now, kind));
    }

    /// Something has happened.
    pub fn observe(&mut self, fact: &Fact<'_>, now: Time) {
        match fact {
            Fact::Followed { client, room, .. } => {
                self.followers.entry((*room).clone()).or_default().insert(client.of);
            }
            Fact::Posted { client, room, key, .. } => {
                let author = client.of;
                let others = self.followers.get(*room).filter(|_| !self.split).into_iter().flatten().copied();
                let waiting = others.chain([author]).collect();
                let post = || Post { author, at: now, out: None, waiting };
                self.posts.entry(((*room).clone(), *key)).or_insert_with(post);
            }
            Fact::Acked { client, key, dot: (room, ..), .. } => self.told(client.of, (room, *key), now),
            Fact::Refused { client, key, .. } => {
                let client = client.of;
                self.posts.retain(|(_, of), post| of != key || post.author != client);
            }
            Fact::Shown { client, entry, .. } => self.told(client.of, (&entry.room, entry.post_key()), now),
            _ => {}
        }
    }

    /// A client is told of a post.
    fn told(&mut self, client: usize, (room, key): (&RoomName, PostKey), now: Time) {
        let at = (room.clone(), key);
        let Some(post) = self.posts.get_mut(&at) else { return };
        let out = *post.out.get_or_insert(now);
        if !post.waiting.remove(&client) {
            return;
        }
        let since = if client == post.author { post.at } else { out };
        if post.waiting.is_empty() {
            self.posts.remove(&at);
        }
        let Some(able) = self.able.get(&client).copied() else { return };
        let begin = since.max(able);
        let kind = if begin > since { COMES_BACK } else { self.cause(begin) };
        let silence = Silence { span: now.since(begin), until: now, client };
        let longest = self.longest.entry(kind).or_insert(silence);
        *longest = silence.max(*longest);
    }

    /// What has probably made somebody wait from `begin` until now.
    fn cause(&self, begin: Time) -> &'static str {
        let near: BTreeSet<_> =
            self.recent.iter().filter(|(at, _)| *at + AFTER >= begin).map(|(_, kind)| *kind).collect();
        KINDS.into_iter().find(|kind| near.contains(kind)).unwrap_or(CALM)
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::log::VersionVector;

    use super::*;
    use crate::invariants::history::{entry, key, process};

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    /// What happens at some second.
    #[derive(Clone, Copy)]
    enum Happens {
        Posts,
        Shows(usize),
        Back,
        Crash,
    }

    /// Clients 0 and 1 are in the lobby; client 0 posts at 30 s, and each is shown it at these seconds. Client 1 was away
    /// until `back`. The longest silence of each kind, in seconds.
    fn check(crash: Option<u64>, back: u64, shown: [u64; 2], expected: &[(&str, u64)]) {
        let (mut silences, lobby) = (Silences::default(), RoomName::lobby());
        silences.set_able(0, true, at(0));
        for of in [0, 1] {
            let base = VersionVector::default();
            silences.observe(&Fact::Followed { client: process(of), room: &lobby, base: &base }, at(1));
        }
        let shows = [(shown[0], Happens::Shows(0)), (shown[1], Happens::Shows(1))];
        let mut happens = vec![(30, Happens::Posts), (back, Happens::Back)];
        happens.extend(crash.map(|secs| (secs, Happens::Crash)).into_iter().chain(shows));
        happens.sort_by_key(|(secs, _)| *secs);
        let entry = entry(1, 1, 1, 5, "x");
        for (now, what) in happens.into_iter().map(|(secs, what)| (at(secs), what)) {
            match what {
                Happens::Posts => {
                    let posted = Fact::Posted { client: process(0), room: &lobby, key: key(1), body: "x" };
                    silences.observe(&posted, now);
                }
                Happens::Shows(of) => {
                    silences.observe(&Fact::Shown { client: process(of), entry: &entry, late: false }, now);
                }
                Happens::Back => silences.set_able(1, true, now),
                Happens::Crash => silences.breaks(&Fault::Crash(1), false, now),
            }
        }
        let longest: Vec<_> =
            silences.longest().iter().map(|(kind, silence)| (*kind, silence.span.as_secs())).collect();
        assert_eq!(longest, expected, "{crash:?} {back} {shown:?}");
    }

    #[test]
    fn the_author_waits_from_its_post_on_and_others_from_when_somebody_saw_it() {
        check(None, 2, [33, 34], &[(CALM, 3)]);
        check(None, 2, [33, 40], &[(CALM, 7)]);
    }

    #[test]
    fn a_silence_is_of_the_fault_that_is_near() {
        check(Some(31), 2, [33, 34], &[("crash", 3)]);
        check(Some(27), 2, [33, 34], &[(CALM, 1), ("crash", 3)]);
        check(Some(20), 2, [33, 34], &[(CALM, 3)]);
    }

    #[test]
    fn who_was_away_waits_from_when_it_is_back() {
        check(None, 50, [30, 52], &[(CALM, 0), (COMES_BACK, 2)]);
        check(None, 60, [30, 52], &[(CALM, 0)]);
    }
}
