//! A room as a bench client follows it: what came, what came twice, what is missing, and what is to be acknowledged.
//!
//! It says what [`Receiver`](hobnob_proto::delivery::receiver::Receiver) would say, at the same times, but it does not
//! read an entry's JSON: it knows its line by how it begins. Otherwise a thousand clients would take more of this machine
//! than the server that is measured. One entry in [`CHECKED`] is read in full, and its hash checked.

use std::{collections::BTreeSet, time::Duration};

use hobnob_proto::{
    ids::{Origin, RoomName},
    limits,
    log::VersionVector,
    time::Time,
    wire::{
        Frame,
        frame::{Pull, Start},
    },
};

/// One entry of so many is read in full.
const CHECKED: u64 = 1_024;
/// How long an entry waits for company before it is acknowledged, and the same while entries keep arriving.
const ACK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
/// So many are acknowledged at once.
const ACK_ENTRIES_MAX: u64 = limits::PUSH_AHEAD_MAX / 4;
/// A hole is asked for after this, and then again after that.
const PULL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// What stands behind the body of an entry's line: a hash of 22 characters is the last field.
const TAIL_BYTES: usize = r#"","x":"0123456789012345678901"}"#.len();

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A delivery, posted at that many microseconds, where its body says so.
    New(Option<u64>),
    /// It came before.
    Doubled,
    /// It is damaged, or from an origin that is not followed.
    Strange,
}

/// A room at one member.
#[derive(Debug)]
pub(super) struct Follow {
    room: RoomName,
    joined: bool,
    held: VersionVector,
    origin: Option<Origin>,
    /// How the line of an entry of that origin begins.
    head: Vec<u8>,
    /// The highest seq without a hole.
    seq: u64,
    above: BTreeSet<u64>,
    /// The highest that exists.
    known: u64,
    unacknowledged: u64,
    last_arrival: Option<Time>,
    ack_at: Option<Time>,
    pull_at: Option<Time>,
    pull_id: u32,
}

impl Follow {
    /// A room that is to be followed.
    pub(super) fn new(room: RoomName) -> Self {
        Self {
            room,
            joined: false,
            held: VersionVector::default(),
            origin: None,
            head: Vec::new(),
            seq: 0,
            above: BTreeSet::new(),
            known: 0,
            unacknowledged: 0,
            last_arrival: None,
            ack_at: None,
            pull_at: None,
            pull_id: 0,
        }
    }

    /// Whether the line is an entry that this room may take.
    pub(super) fn is_entry(&self, line: &[u8]) -> bool {
        !self.head.is_empty() && line.starts_with(&self.head)
    }

    /// The server follows up: from there on.
    pub(super) fn joined(&mut self, start: &VersionVector) {
        self.held.merge(start);
        self.joined = true;
    }

    /// An entry whose line was not known: the first of its origin. Several origins come only of several homes.
    pub(super) fn meet(&mut self, origin: Origin) -> bool {
        if self.origin.is_some_and(|known| known != origin) || !self.joined {
            return false;
        }
        self.origin = Some(origin);
        self.seq = self.held.get(origin);
        self.known = self.seq;
        let (id, boot) = (origin.id, origin.boot.0);
        self.head = format!(r#"{{"t":"entry","r":"{}","o":[{id},{boot}],"s":"#, self.room).into_bytes();
        true
    }

    /// Takes the line of an entry ([`Self::is_entry`]); `body` is how long the bodies of this bench are.
    pub(super) fn take(&mut self, line: &[u8], body: usize, now: Time) -> Taken {
        let Some((seq, _)) = number(&line[self.head.len()..]) else { return Taken::Strange };
        let taken = self.count(seq, now);
        if taken == Taken::Doubled {
            return taken;
        }
        if seq % CHECKED == 1 && !matches!(Frame::from_line(line), Some(Frame::Entry(entry)) if entry.is_intact()) {
            return Taken::Strange;
        }
        Taken::New(stamp(line, body))
    }

    fn count(&mut self, seq: u64, now: Time) -> Taken {
        if seq <= self.seq || self.above.contains(&seq) {
            self.acknowledge_soon(0, now);
            return Taken::Doubled;
        }
        if seq > self.seq + 1 {
            self.above.insert(seq);
            self.exists(seq - 1, now);
            return Taken::New(None);
        }
        let before = self.seq;
        self.seq = seq;
        while self.above.remove(&(self.seq + 1)) {
            self.seq += 1;
        }
        if self.seq >= self.known {
            self.pull_at = None;
        }
        self.acknowledge_soon(self.seq - before, now);
        Taken::New(None)
    }

    /// The server says how far the room goes.
    pub(super) fn heads(&mut self, heads: &VersionVector, now: Time) {
        if let Some((origin, top)) = heads.iter().last()
            && (self.origin == Some(origin) || self.meet(origin))
        {
            if top > self.seq {
                self.exists(top, now);
            } else {
                self.ack_at = Some(now);
            }
        }
    }

    /// The answer to a pull has ended.
    pub(super) fn pulled(&mut self, now: Time) {
        if self.known > self.seq {
            self.pull_at = Some(now);
        }
    }

    /// What is to be asked for now.
    pub(super) fn poll_pull(&mut self, now: Time) -> Option<Frame> {
        let origin = self.origin?;
        self.pull_at.filter(|at| *at <= now)?;
        self.pull_at = Some(now + PULL.1);
        self.pull_id += 1;
        let last = self.above.first().map_or(self.known, |above| above - 1);
        let want = vec![(origin, self.seq + 1, last)];
        Some(Frame::Pull(Pull { room: self.room.clone(), id: self.pull_id, want, max: limits::PULL_ENTRIES_MAX }))
    }

    /// What is to be acknowledged now.
    pub(super) fn poll_ack(&mut self, now: Time) -> Option<Frame> {
        self.ack_at.filter(|at| *at <= now)?;
        (self.ack_at, self.unacknowledged) = (None, 0);
        if let Some(origin) = self.origin {
            self.held.raise(origin, self.seq);
        }
        Some(Frame::Cursor { rooms: [(self.room.clone(), self.held.clone())].into() })
    }

    /// What follows the room from now on.
    pub(super) fn join(&self) -> Frame {
        Frame::Join { room: self.room.clone(), from: Start::Last(0) }
    }

    /// When one of the polls may have something.
    pub(super) fn deadline(&self) -> Option<Time> {
        [self.ack_at, self.pull_at].into_iter().flatten().min()
    }

    fn exists(&mut self, seq: u64, now: Time) {
        self.known = self.known.max(seq);
        self.pull_at.get_or_insert(now + PULL.0);
    }

    fn acknowledge_soon(&mut self, released: u64, now: Time) {
        let steady = self.last_arrival.is_some_and(|last| now.since(last) <= ACK.1);
        self.last_arrival = Some(now);
        self.unacknowledged += released;
        let due = now + if steady { ACK.1 } else { ACK.0 };
        let due = if self.unacknowledged >= ACK_ENTRIES_MAX { now } else { due };
        self.ack_at = Some(self.ack_at.map_or(due, |at| at.min(due)));
    }
}

/// The body of a message that is posted at that many microseconds.
pub(super) fn body(micros: u64, bytes: usize) -> String {
    let mut body = format!("{micros} ");
    while body.len() < bytes {
        body.push(char::from(b'a' + (body.len() % 26) as u8));
    }
    body
}

/// When an entry's message was posted, by the line of the entry.
fn stamp(line: &[u8], body: usize) -> Option<u64> {
    let (before, rest) = line.split_at_checked(line.len().checked_sub(TAIL_BYTES + body)?)?;
    let (micros, after) = number(rest).filter(|_| before.ends_with(br#""b":""#))?;
    (after.first() == Some(&b' ')).then_some(micros)
}

/// The number that a text begins with, and what stands after it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = text[..digits].iter().fold(0_u64, |sum, digit| {
        sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')) // as many digits as a hostile server likes
    });
    (digits > 0).then_some((value, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use hobnob_proto::{
        hlc::Hlc,
        ids::{Boot, DeviceId, PersonId, ServerId},
        log::{Entry, Hash, entry::MESSAGE},
    };

    use super::*;

    const ORIGIN: Origin = Origin { id: ServerId(1), boot: Boot(77) };

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    fn line(seq: u64) -> Vec<u8> {
        let mut entry = Entry {
            room: RoomName::lobby(),
            origin: ORIGIN,
            seq,
            hlc: Hlc { millis: 5, counter: 0 },
            from: "anna".parse().unwrap(),
            person: PersonId([1; 16]),
            device: DeviceId(1),
            client_seq: seq,
            kind: MESSAGE.into(),
            body: body(1_000 + seq, 120).into(),
            hash: Hash::default(),
        };
        entry.hash = entry.digest();
        Frame::Entry(entry).to_line().trim_end().as_bytes().to_vec()
    }

    fn follow() -> Follow {
        let mut follow = Follow::new(RoomName::lobby());
        follow.joined(&[(ORIGIN, 4)].into_iter().collect());
        assert!(follow.meet(ORIGIN));
        follow
    }

    #[test]
    fn each_delivery_counts_once_whatever_the_order() {
        let mut follow = follow();
        let mut check = |seq: u64, expected: Taken| {
            let line = line(seq);
            assert!(follow.is_entry(&line));
            assert_eq!(follow.take(&line, 120, at(1)), expected, "{seq}");
        };
        let new = |seq: u64| Taken::New(Some(1_000 + seq));
        check(5, new(5));
        check(5, Taken::Doubled);
        check(7, new(7));
        check(7, Taken::Doubled);
        check(4, Taken::Doubled);
        check(6, new(6));
        check(7, Taken::Doubled);
        check(8, new(8));
    }

    #[test]
    fn a_hole_is_asked_for_until_it_is_filled() {
        let mut follow = follow();
        follow.take(&line(7), 120, at(10));
        assert!(follow.poll_pull(at(12)).is_none());
        for millis in [15, 215] {
            let Some(Frame::Pull(pull)) = follow.poll_pull(at(millis)) else { panic!("it is asked for at {millis}") };
            assert_eq!(pull.want, [(ORIGIN, 5, 6)]);
        }
        follow.take(&line(5), 120, at(216));
        follow.take(&line(6), 120, at(216));
        assert!(follow.poll_pull(at(9_000)).is_none());
        follow.heads(&[(ORIGIN, 9)].into_iter().collect(), at(300));
        let Some(Frame::Pull(pull)) = follow.poll_pull(at(305)) else { panic!("there is more") };
        assert_eq!(pull.want, [(ORIGIN, 8, 9)]);
    }

    #[test]
    fn acknowledgements_wait_for_company() {
        let mut follow = follow();
        let mut check = |seq: u64, arrives: u64, expected: u64| {
            follow.take(&line(seq), 120, at(arrives));
            assert_eq!(follow.ack_at, Some(at(expected)), "{seq}");
            let Some(Frame::Cursor { rooms }) = follow.poll_ack(at(expected)) else { panic!("it is due") };
            assert_eq!(rooms[&RoomName::lobby()].get(ORIGIN), seq);
        };
        check(5, 1_000, 1_050);
        check(6, 1_100, 1_300);
        check(7, 2_000, 2_050);
    }

    #[test]
    fn a_body_says_when_it_was_posted() {
        assert_eq!(body(1_234, 120).len(), 120);
        let entry = line(9);
        assert_eq!(stamp(&entry, 120), Some(1_009));
        assert_eq!(stamp(&entry, 119), None);
        assert_eq!(stamp(b"short", 120), None);
    }
}
