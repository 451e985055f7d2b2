//! Posts that are not settled: each is repeated until it is stored or refused.
//!
//! A home admits a device's posts in order, so they are sent in order, and only so many and so much at a time that was not
//! accepted ([`IN_FLIGHT_MAX`], [`limits::POSTS_AHEAD_BYTES_MAX`]); the rest waits here. The oldest that were accepted are
//! repeated too: that is how their author learns that they are stored where the word of it got lost, and how they come to
//! life again if their home dies before it had a copy. The first few ([`OFTEN_MAX`]) often, since on a bad link every
//! second word may get lost; the others slowly, until it is their turn; and beyond [`IN_FLIGHT_MAX`] none: a server that
//! is alone accepts for hours what it cannot store.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    client::{api::Event, repeat::Repeat},
    hlc::Hlc,
    ids::RoomName,
    limits,
    log::entry::MESSAGE,
    time::{Duration, Time},
    wire::frame::{Ack, Post, Refusal, Refuse},
};

/// Posts of a room that are under way before any of them is accepted, and that are repeated afterwards.
const IN_FLIGHT_MAX: usize = 64;
/// The first repetition of a post that was not acknowledged.
const FIRST: Duration = Duration::from_millis(100);
/// The longest interval.
const MAX: Duration = Duration::from_secs(5);
/// The first repetition of a post that was accepted, but not stored, and the longest interval.
const ACCEPTED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// The first repetition of a post whose home could not write, and the longest interval: another home may take over soon.
const UNWRITABLE: (Duration, Duration) = (Duration::from_millis(500), MAX);
/// So many of them are repeated so often; the others later by [`SELDOM`].
const OFTEN_MAX: usize = 8;
const SELDOM: Duration = Duration::from_secs(4);

/// All posts of a client that are not settled.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    rooms: BTreeMap<RoomName, Posts>,
}

#[derive(Debug, Default)]
struct Posts {
    unsettled: BTreeMap<u64, Waiting>,
    /// Whether they wait for a new device.
    clashed: bool,
}

#[derive(Debug)]
struct Waiting {
    body: String,
    /// What its author had been shown of the room: fixed, so that every repetition says the same.
    shown: Hlc,
    /// `None` until it is sent to the present server.
    repeat: Option<Repeat>,
    /// Whether it was accepted since it was sent to the present server.
    accepted: bool,
    /// Whether its author was told that it was accepted.
    told: bool,
    /// Whether its home said, since it was sent to the present server, that it cannot write.
    unwritable: bool,
}

impl Waiting {
    /// When it is due, as the `n`th that is under way; at once where it has not been sent.
    fn due_at(&self, n: usize) -> Time {
        match self.repeat {
            None => Time::ZERO,
            Some(repeat) if self.accepted && n >= OFTEN_MAX => repeat.at + SELDOM,
            Some(repeat) => repeat.at,
        }
    }
}

impl Posts {
    /// The posts that may be under way, by their numbers: of those that were accepted the oldest, and the first of all
    /// others. What was accepted is on its home's disk or in its memory, so its bytes do not count.
    fn under_way(&self) -> impl Iterator<Item = (u64, &Waiting)> {
        let mut ahead: Option<usize> = None;
        let mut new = 0;
        let may = move |waiting: &Waiting| {
            if waiting.accepted {
                return true;
            }
            new += 1;
            // The first goes whatever its length.
            let bytes = ahead.map_or(0, |ahead| ahead + waiting.body.len());
            ahead = Some(bytes);
            new <= IN_FLIGHT_MAX && bytes <= limits::POSTS_AHEAD_BYTES_MAX
        };
        let fitting = self.unsettled.iter().scan(may, |may, (seq, waiting)| may(waiting).then_some((*seq, waiting)));
        fitting.enumerate().filter(|(n, (_, waiting))| *n < IN_FLIGHT_MAX || !waiting.accepted).map(|(_, post)| post)
    }
}

impl Outbox {
    /// Takes a post. `shown` is the newest timestamp of the room that its author was shown.
    pub(super) fn push(&mut self, room: RoomName, seq: u64, body: String, shown: Hlc, events: &mut VecDeque<Event>) {
        if body.len() > limits::BODY_BYTES_MAX {
            events.push_back(Event::Refused { room, seq, why: Refusal::TooLong });
            return;
        }
        let posts = self.rooms.entry(room).or_default();
        let new = Waiting { body, shown, repeat: None, accepted: false, told: false, unwritable: false };
        posts.unsettled.entry(seq).or_insert(new);
    }

    /// A server serves us from now on: it is sent everything again.
    pub(super) fn moved(&mut self) {
        for waiting in self.rooms.values_mut().flat_map(|posts| posts.unsettled.values_mut()) {
            (waiting.repeat, waiting.accepted, waiting.unwritable) = (None, false, false);
        }
    }

    /// The device is another one: what was not accepted is posted again, under the same numbers. What was accepted is in
    /// the log as the old device's, so everybody would see it twice: it is forgotten here, and its author hears no more of
    /// it than that it was accepted.
    ///
    /// A post whose acceptance got lost on the way counts as not accepted.
    pub(super) fn new_device(&mut self) {
        for posts in self.rooms.values_mut() {
            posts.clashed = false;
            posts.unsettled.retain(|_, waiting| !waiting.told);
            for waiting in posts.unsettled.values_mut() {
                waiting.repeat = None;
            }
        }
        self.rooms.retain(|_, posts| !posts.unsettled.is_empty());
    }

    /// The posts that are due.
    pub(super) fn poll(&mut self, now: Time) -> Vec<Post> {
        let mut due = Vec::new();
        for (room, posts) in self.rooms.iter_mut().filter(|(_, posts)| !posts.clashed) {
            let Some(oldest) = posts.unsettled.keys().next().copied() else { continue };
            let under_way = posts.under_way().enumerate();
            let under_way: Vec<_> =
                under_way.filter(|(n, (_, waiting))| waiting.due_at(*n) <= now).map(|(_, (seq, _))| seq).collect();
            for seq in under_way {
                let Some(waiting) = posts.unsettled.get_mut(&seq) else { continue };
                if waiting.repeat.get_or_insert(Repeat::new(FIRST, MAX, now)).poll(now) {
                    due.push(Post {
                        room: room.clone(),
                        seq,
                        oldest,
                        shown: waiting.shown,
                        kind: MESSAGE.into(),
                        body: waiting.body.clone(),
                        detour: 0,
                        author: None,
                    });
                }
            }
        }
        due
    }

    /// Takes an acknowledgement: each step is told once.
    pub(super) fn ack(&mut self, ack: Ack, now: Time, events: &mut VecDeque<Event>) {
        let Some(posts) = self.rooms.get_mut(&ack.room) else { return };
        let Some(waiting) = posts.unsettled.get_mut(&ack.seq) else { return };
        if !ack.stored {
            if waiting.accepted {
                return;
            }
            (waiting.accepted, waiting.unwritable) = (true, false);
            waiting.repeat = Some(Repeat::later(ACCEPTED.0, ACCEPTED.1, now));
            if std::mem::replace(&mut waiting.told, true) {
                return;
            }
        }
        let Ack { room, seq, origin, entry, hlc, copies, stored, durable, to: _ } = ack;
        if stored {
            posts.unsettled.remove(&seq);
        }
        self.forget_settled(&room);
        events.push_back(Event::Acked { room, seq, origin, entry, hlc, copies, stored, durable });
    }

    /// Takes a refusal. One that settles nothing is told once, and the post is repeated.
    pub(super) fn refuse(&mut self, refuse: Refuse, now: Time, events: &mut VecDeque<Event>) {
        let Refuse { room, seq, why, to: _ } = refuse;
        let Some(posts) = self.rooms.get_mut(&room) else { return };
        if why == Refusal::CannotStore {
            let Some(waiting) = posts.unsettled.get_mut(&seq).filter(|waiting| !waiting.accepted) else { return };
            if !std::mem::replace(&mut waiting.unwritable, true) {
                waiting.repeat = Some(Repeat::later(UNWRITABLE.0, UNWRITABLE.1, now));
                events.push_back(Event::Refused { room, seq, why });
            }
            return;
        }
        if why == Refusal::Clash {
            if posts.clashed || !posts.unsettled.contains_key(&seq) {
                return;
            }
            posts.clashed = true;
        } else if posts.unsettled.remove(&seq).is_none() {
            return;
        }
        self.forget_settled(&room);
        events.push_back(Event::Refused { room, seq, why });
    }

    /// Since when the oldest post that was sent waits for any answer.
    pub(super) fn waiting_since(&self) -> Option<Time> {
        let open = self.rooms.values().filter(|posts| !posts.clashed);
        let sent = open.flat_map(Posts::under_way);
        let unanswered = sent.filter(|(_, waiting)| !waiting.accepted && !waiting.unwritable);
        unanswered.filter_map(|(_, waiting)| Some(waiting.repeat?.since)).min()
    }

    /// When the next post is due; at once where one has not been sent.
    pub(super) fn deadline(&self) -> Option<Time> {
        let open = self.rooms.values().filter(|posts| !posts.clashed);
        open.flat_map(|posts| posts.under_way().enumerate().map(|(n, (_, waiting))| waiting.due_at(n))).min()
    }

    fn forget_settled(&mut self, room: &RoomName) {
        if self.rooms.get(room).is_some_and(|posts| posts.unsettled.is_empty()) {
            self.rooms.remove(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, Origin, ServerId};

    fn outbox(seqs: impl IntoIterator<Item = u64>) -> Outbox {
        let mut outbox = Outbox::default();
        for seq in seqs {
            outbox.push(RoomName::lobby(), seq, format!("body {seq}"), Hlc::default(), &mut VecDeque::new());
        }
        outbox
    }

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    fn ack(seq: u64, stored: bool) -> Ack {
        let origin = Origin { id: ServerId(1), boot: Boot(1) };
        let (room, hlc) = (RoomName::lobby(), Hlc::default());
        Ack { room, seq, origin, entry: seq, hlc, copies: 1, stored, durable: false, to: None }
    }

    fn refuse(seq: u64, why: Refusal) -> Refuse {
        Refuse { room: RoomName::lobby(), seq, why, to: None }
    }

    fn seqs(posts: &[Post]) -> Vec<(u64, u64)> {
        posts.iter().map(|post| (post.seq, post.oldest)).collect()
    }

    #[test]
    fn a_post_is_repeated_until_it_is_stored() {
        let (mut outbox, mut events) = (outbox([7]), VecDeque::new());
        let due = |outbox: &mut Outbox, from: u64, to: u64| -> Vec<u64> {
            (from..to).filter(|ms| !outbox.poll(at(*ms)).is_empty()).collect()
        };
        assert_eq!(due(&mut outbox, 0, 500), [0, 100, 300]);
        outbox.ack(ack(7, false), at(500), &mut events);
        outbox.ack(ack(7, false), at(501), &mut events);
        let later = [700, 1_100, 1_900, 2_900, 3_900, 4_900, 5_900, 6_900, 7_900, 8_900, 9_900];
        assert_eq!(due(&mut outbox, 500, 10_000), later);
        outbox.ack(ack(7, true), at(10_000), &mut events);
        outbox.ack(ack(7, true), at(10_001), &mut events);
        assert_eq!(outbox.deadline(), None);
        let steps: Vec<_> = events.iter().map(|event| matches!(event, Event::Acked { stored: true, .. })).collect();
        assert_eq!(steps, [false, true], "each step once");
    }

    #[test]
    fn posts_go_out_in_order_and_name_the_oldest_that_is_not_settled() {
        let (mut outbox, mut events) = (outbox([3, 1, 2]), VecDeque::new());
        assert_eq!(seqs(&outbox.poll(at(0))), [(1, 1), (2, 1), (3, 1)]);
        outbox.ack(ack(1, true), at(1), &mut events);
        outbox.refuse(refuse(2, Refusal::UnknownKind), at(1), &mut events);
        assert_eq!(seqs(&outbox.poll(at(100))), [(3, 3)]);
    }

    #[test]
    fn what_a_home_cannot_write_is_told_once_and_repeated_until_another_takes_it() {
        let (mut outbox, mut events) = (outbox([1]), VecDeque::new());
        outbox.poll(at(0));
        outbox.refuse(refuse(1, Refusal::CannotStore), at(1), &mut events);
        assert_eq!((outbox.deadline(), outbox.waiting_since()), (Some(at(501)), None), "that was an answer");
        assert_eq!(seqs(&outbox.poll(at(501))), [(1, 1)]);
        outbox.refuse(refuse(1, Refusal::CannotStore), at(502), &mut events);
        assert!(matches!(events.make_contiguous(), [Event::Refused { seq: 1, why: Refusal::CannotStore, .. }]));
        outbox.ack(ack(1, false), at(1_600), &mut events);
        outbox.refuse(refuse(1, Refusal::CannotStore), at(1_601), &mut events);
        outbox.ack(ack(1, true), at(1_700), &mut events);
        assert_eq!((events.len(), outbox.deadline()), (3, None));
    }

    #[test]
    fn only_so_many_are_in_flight() {
        let (mut outbox, mut events) = (outbox(1..=100), VecDeque::new());
        assert_eq!(outbox.poll(at(0)).len(), 64);
        outbox.ack(ack(1, true), at(1), &mut events);
        assert_eq!(seqs(&outbox.poll(at(1))), [(65, 2)]);
    }

    #[test]
    fn what_was_accepted_holds_nothing_up_and_only_the_oldest_of_it_is_repeated() {
        let (mut outbox, mut events) = (outbox(1..=500), VecDeque::new());
        let mut now = 0;
        for first in (1..=500_u64).step_by(64) {
            let due = outbox.poll(at(now));
            assert_eq!((due.len() as u64, due[0].seq), (64.min(501 - first), first), "at {now} ms");
            for post in &due {
                outbox.ack(ack(post.seq, false), at(now), &mut events);
            }
            now += 10;
        }
        assert_eq!((events.len(), outbox.waiting_since()), (500, None));
        let repeated: Vec<_> = (now..now + 60_000).step_by(50).flat_map(|ms| seqs(&outbox.poll(at(ms)))).collect();
        assert!(repeated.iter().all(|(seq, oldest)| *seq <= 64 && *oldest == 1));
        let often = |seq: u64| repeated.iter().filter(|(of, _)| *of == seq).count();
        assert!((58..=64).contains(&often(1)) && (58..=64).contains(&often(8)), "the oldest: {}", often(1));
        assert!((8..=14).contains(&often(9)) && (8..=14).contains(&often(64)), "the others: {}", often(9));
        // Another server has accepted none of it.
        outbox.moved();
        assert_eq!(outbox.poll(at(now + 60_000)).len(), 64);
        (1..=64).for_each(|seq| outbox.ack(ack(seq, false), at(now + 60_000), &mut events));
        assert_eq!(outbox.poll(at(now + 60_000)).iter().map(|post| post.seq).min(), Some(65));
        assert_eq!(events.len(), 500, "each step once");
    }

    #[test]
    fn only_so_many_bytes_are_in_flight_that_were_not_accepted() {
        let (mut outbox, mut events) = (Outbox::default(), VecDeque::new());
        for seq in 1..=10 {
            let body = "x".repeat(limits::BODY_BYTES_MAX);
            outbox.push(RoomName::lobby(), seq, body, Hlc::default(), &mut VecDeque::new());
        }
        assert_eq!(seqs(&outbox.poll(at(0))), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(outbox.deadline(), Some(at(100)), "the others do not wake it");
        outbox.ack(ack(1, false), at(1), &mut events);
        assert_eq!(seqs(&outbox.poll(at(1))), [(4, 1)]);
        outbox.ack(ack(1, true), at(2), &mut events);
        outbox.ack(ack(2, true), at(2), &mut events);
        assert_eq!(seqs(&outbox.poll(at(2))), [(5, 3)]);
    }

    #[test]
    fn a_clash_waits_for_another_device_which_posts_what_was_not_accepted() {
        let (mut outbox, mut events) = (outbox([1, 2, 3]), VecDeque::new());
        outbox.poll(at(0));
        outbox.ack(ack(1, false), at(1), &mut events);
        outbox.refuse(refuse(2, Refusal::Clash), at(1), &mut events);
        outbox.refuse(refuse(2, Refusal::Clash), at(1), &mut events);
        assert_eq!(events.len(), 2, "it is told once");
        assert!(outbox.poll(at(60_000)).is_empty());
        outbox.new_device();
        assert_eq!(seqs(&outbox.poll(at(60_001))), [(2, 2), (3, 2)]);
        outbox.ack(ack(1, true), at(60_002), &mut events);
        assert_eq!(events.len(), 2, "an acknowledgement of that number is another post's");
    }

    #[test]
    fn a_body_that_no_server_takes_is_refused_at_once() {
        let (mut outbox, mut events) = (Outbox::default(), VecDeque::new());
        let body = "x".repeat(limits::BODY_BYTES_MAX + 1);
        outbox.push(RoomName::lobby(), 1, body, Hlc::default(), &mut events);
        assert!(matches!(events[0], Event::Refused { seq: 1, why: Refusal::TooLong, .. }));
        assert!(outbox.poll(at(0)).is_empty());
    }
}
