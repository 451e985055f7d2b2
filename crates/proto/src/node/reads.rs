//! What is looked up on disk: parts of logs that memory holds no longer, for those who wait for them.
//!
//! ```text
//! pull, join, post -- memory suffices --> answered at once
//!        '----------- else: Read -------> store ---- Answer ----> united with what is in memory, and answered
//! ```
//!
//! Entries go from memory to disk and never back, so an answer and the memory together hold all there is: entries of both
//! are united. Only where the last so many posts begin may be a little early, by what was not on disk yet when it was asked.
//!
//! Whoever waits repeats what they want, so a question that finds no place here is dropped. A disk that cannot be read, or
//! does not answer for [`SPAN_MAX`], is answered for with what memory has: a puller then asks elsewhere, a joiner gets the
//! tail, a post is refused for now, since it might be there already.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Output, rot::RANGES_MAX, waiting::Device};
use crate::{
    ids::{Origin, RoomName},
    limits,
    log::{
        PostKey, VersionVector,
        room::{Kept, Standing},
    },
    session::SessionId,
    store::{Answer, DEVICE_POSTS_MAX, Found, Read, What},
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Post, Pull, Pulled, Refusal, Start},
    },
};

/// Questions under way, in all and for one session.
const READS_MAX: usize = 256;
const READS_PER_SESSION_MAX: usize = 16;
/// Of all places those kept for posts: who only wants to read is not to keep others from speaking.
const READS_FOR_POSTS: usize = 64;
/// Questions one after the other for one device, each for [`DEVICE_POSTS_MAX`] posts: who has more that are unsettled is not
/// waited for.
const ROUNDS_MAX: u32 = 256;
/// How long a disk may take.
const SPAN_MAX: Duration = Duration::from_secs(5);
/// Floors in one answer to a pull, so that it fits a frame; others come with the next.
const FLOORS_MAX: usize = 6;

/// Questions under way, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Reads {
    last: u64,
    pending: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    at: Time,
    room: RoomName,
    /// Who is told, or has posted last.
    session: SessionId,
    asker: Asker,
}

/// What the answer is for.
#[derive(Debug)]
enum Asker {
    Pull(Pull),
    Join {
        from: Start,
        /// Others who want the room from there, and are told too.
        also: BTreeSet<SessionId>,
    },
    /// Ourselves: whether an entry that was rotten is sound now.
    Again(Origin, u64),
    /// Lines of an import that wait in [`Node::imports`]: what is held under their names.
    Import,
    /// Posts that wait in [`Node::unplaced`].
    Device {
        device: Device,
        from: u64,
        round: u32,
    },
}

impl Reads {
    /// Whether a session may have one more question.
    fn has_place_for(&self, session: SessionId, is_for_post: bool) -> bool {
        // Ours are never more than entries that are rotten, and keep nobody from asking.
        let of_others = || self.pending.values().filter(|pending| !matches!(pending.asker, Asker::Again(..)));
        let of_session = of_others().filter(|pending| pending.session == session).count();
        let max = if is_for_post { READS_MAX } else { READS_MAX - READS_FOR_POSTS };
        of_others().count() < max && of_session < READS_PER_SESSION_MAX
    }

    /// A session is gone: nobody is to be answered there.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.pending.retain(|_, pending| {
            if let Asker::Join { also, .. } = &mut pending.asker {
                also.remove(&session);
                if pending.session == session
                    && let Some(next) = also.pop_first()
                {
                    pending.session = next;
                }
            }
            pending.session != session || matches!(pending.asker, Asker::Device { .. } | Asker::Again(..))
        });
    }
}

impl Node {
    fn read(&mut self, room: RoomName, session: SessionId, asker: Asker, what: What) {
        self.reads.last += 1;
        let id = self.reads.last;
        self.reads.pending.insert(id, Pending { at: self.now, room: room.clone(), session, asker });
        self.out.push_back(Output::Read(Read { id, room, what }));
    }

    /// The store has answered, or has found by itself that something is rotten.
    pub(super) fn on_answer(&mut self, answer: &Answer) {
        for &(origin, seq) in &answer.rotten {
            self.on_rotten(&answer.room, origin, seq);
        }
        if let Some(pending) = self.reads.pending.remove(&answer.id) {
            // Of a device's posts, what is rotten might be just the one that is looked for: it is mended first.
            let is_partial = !answer.rotten.is_empty() && matches!(pending.asker, Asker::Device { .. });
            self.take_answer(pending, if is_partial { &Found::Nothing } else { &answer.found });
        }
    }

    /// What the disk has not answered for too long is answered without it.
    pub(super) fn forget_reads(&mut self) {
        let old = self.reads.pending.extract_if(.., |_, pending| self.now.since(pending.at) > SPAN_MAX);
        for (_, pending) in old.collect::<Vec<_>>() {
            self.take_answer(pending, &Found::Nothing);
        }
    }

    fn take_answer(&mut self, pending: Pending, found: &Found) {
        if matches!(found, Found::Nothing) {
            self.count("disk_unreadable");
        }
        let Pending { room, session, asker, .. } = pending;
        match asker {
            Asker::Pull(pull) => match found {
                Found::Entries(found) => self.answer_pull(session, &pull, Some(found)),
                Found::Start(_) | Found::Nothing => self.answer_pull(session, &pull, None),
            },
            Asker::Join { from, also } => {
                let start = match found {
                    Found::Start(start) => start.clone(),
                    Found::Entries(_) | Found::Nothing => {
                        self.rooms.get(&room).map(|room| room.log.start_of_tail()).unwrap_or_default()
                    }
                };
                for session in also.into_iter().chain([session]) {
                    self.start_follower(session, &room, &from, start.clone());
                }
            }
            Asker::Import => match found {
                Found::Entries(found) => self.compare_imports(session, &room, Some(found)),
                Found::Start(_) | Found::Nothing => self.compare_imports(session, &room, None),
            },
            Asker::Again(origin, seq) => match found {
                Found::Entries(found) => self.on_mended(&room, (origin, seq), Some(found)),
                Found::Start(_) | Found::Nothing => self.on_mended(&room, (origin, seq), None),
            },
            Asker::Device { device, from, round } => {
                let found = match found {
                    Found::Entries(found) => Some(&found[..]),
                    Found::Start(_) | Found::Nothing => None,
                };
                self.take_device(session, &room, (device, from, round), found);
            }
        }
    }

    /// Reads an entry that was rotten: it may be sound now. There are never more such questions than entries that are
    /// remembered as rotten.
    pub(super) fn read_again(&mut self, name: &RoomName, origin: Origin, seq: u64) {
        let what = What::Ranges { want: vec![(origin, seq, seq)], max: 1, bytes_max: limits::PULL_BYTES_MAX };
        self.read(name.clone(), SessionId(0), Asker::Again(origin, seq), what);
    }

    /// What is held on disk under the names of lines of an import.
    pub(super) fn read_for_import(&mut self, session: SessionId, name: &RoomName, want: Vec<(Origin, u64, u64)>) {
        if !self.reads.has_place_for(session, false) {
            return self.count("reads_full");
        }
        let what = What::Ranges { max: want.len(), want, bytes_max: limits::PULL_BYTES_MAX };
        self.read(name.clone(), session, Asker::Import, what);
    }

    /// Whether such a question is under way.
    pub(super) fn is_read_for_import(&self, session: SessionId, name: &RoomName) -> bool {
        let mut pending = self.reads.pending.values();
        pending.any(|it| it.session == session && it.room == *name && matches!(it.asker, Asker::Import))
    }

    // ---- pulls

    /// Somebody may have these ranges of a log: from memory, or by way of the disk.
    pub(super) fn serve_pull(&mut self, session: SessionId, pull: &Pull) {
        let Some(room) = self.rooms.get(&pull.room) else {
            if pull.id == limits::PULL_ROTTEN_ID {
                self.answer_pull(session, pull, None);
            }
            return;
        };
        let (max, bytes_max) = (pull.max.min(limits::PULL_ENTRIES_MAX) as usize, limits::PULL_BYTES_MAX);
        if !self.kept.has_store() || room.log.ranges(&pull.want, max, bytes_max).is_some() {
            return self.answer_pull(session, pull, Some(&Vec::new()));
        }
        let asks_again = |pending: &Pending| {
            let is_alike = |other: &Pull| (other.id == limits::PULL_ROTTEN_ID) == (pull.id == limits::PULL_ROTTEN_ID);
            let is_it = |other: &Pull| other.room == pull.room && is_alike(other);
            pending.session == session && matches!(&pending.asker, Asker::Pull(other) if is_it(other))
        };
        // A follower has one pull under way in a room: that one it has given up.
        self.reads.pending.retain(|_, pending| !asks_again(pending));
        if !self.reads.has_place_for(session, false) {
            self.count("reads_full");
            let (top, lacks) = (self.tops(pull, true), Vec::new());
            let pulled = Pulled { room: pull.room.clone(), id: pull.id, sent: 0, top, floors: <_>::default(), lacks };
            return self.say(session, &Frame::Pulled(pulled));
        }
        let what = What::Ranges { want: pull.want.clone(), max, bytes_max };
        self.read(pull.room.clone(), session, Asker::Pull(pull.clone()), what);
    }

    /// Answers a pull with what is in memory and what was `found` on disk, if that can be read.
    fn answer_pull(&mut self, session: SessionId, pull: &Pull, found: Option<&Vec<Kept>>) {
        let (id, lacks) = (pull.id, self.lacks(pull));
        let Some(room) = self.rooms.get(&pull.room).filter(|_| id != limits::PULL_ROTTEN_ID) else {
            return self.answer_rotten(session, pull, found, lacks);
        };
        let top = self.tops(pull, found.is_some());
        let max = pull.max.min(limits::PULL_ENTRIES_MAX) as usize;
        let is_sound = |kept: &&Kept| !room.rotten.contains(kept.entry.origin, kept.entry.seq);
        let on_disk = found.into_iter().flatten().filter(is_sound).cloned().collect();
        let served = room.log.unite(&pull.want, on_disk, max, limits::PULL_BYTES_MAX);
        let floors = pull.want.iter().map(|&(origin, from, _)| (origin, from, room.log.floors().get(origin)));
        let floors = floors.filter(|(_, from, floor)| from <= floor).take(FLOORS_MAX);
        let floors = floors.map(|(origin, _, floor)| (origin, floor)).collect();
        self.send_entries(session, &served);
        let sent = served.len() as u32;
        let pulled = Pulled { room: pull.room.clone(), id, sent, top, floors, lacks };
        self.say(session, &Frame::Pulled(pulled));
    }

    /// The same of a pull for what is rotten at the puller: what there is of it but markers, and what is lacking here too.
    fn answer_rotten(
        &mut self,
        session: SessionId,
        pull: &Pull,
        found: Option<&Vec<Kept>>,
        mut lacks: Vec<(Origin, u64, u64)>,
    ) {
        let in_memory = |(origin, seq, _): &(Origin, u64, u64)| {
            self.rooms.get(&pull.room).and_then(|room| room.log.get(*origin, *seq)).cloned()
        };
        let mut served: Vec<_> = pull.want.iter().take(RANGES_MAX).filter_map(in_memory).collect();
        served.extend(found.into_iter().flatten().take(RANGES_MAX).cloned());
        served.retain(|kept| !kept.entry.is_lost());
        let is_here = |dot| served.iter().any(|kept| (kept.entry.origin, kept.entry.seq) == dot);
        lacks.retain(|&(origin, seq, _)| !is_here((origin, seq)));
        served.sort_unstable_by_key(|kept| kept.entry.order());
        served.dedup_by_key(|kept| kept.entry.order());
        let mut bytes = 0;
        let fits = |kept: &Kept| {
            bytes += kept.line.len();
            bytes <= limits::PULL_BYTES_MAX || bytes == kept.line.len()
        };
        served = served.into_iter().take_while(fits).collect();
        self.send_entries(session, &served);
        let (top, floors) = (VersionVector::default(), VersionVector::default());
        let (room, id, sent) = (pull.room.clone(), pull.id, served.len() as u32);
        self.say(session, &Frame::Pulled(Pulled { room, id, sent, top, floors, lacks }));
    }

    /// The highest numbers that a puller can get here.
    fn tops(&self, pull: &Pull, from_disk: bool) -> VersionVector {
        let Some(room) = self.rooms.get(&pull.room) else { return VersionVector::default() };
        let top = |&(origin, from, _): &(Origin, u64, u64)| {
            let held = room.held().get(origin);
            let sound = room.rotten.first(origin, from).map_or(held, |seq| held.min(seq - 1));
            (origin, if from_disk { sound } else { room.log.top_in_memory(origin, from, sound) })
        };
        pull.want.iter().map(top).collect()
    }

    // ---- joins

    /// Where a follower that wants a room `from` here begins; `None`: the disk is asked.
    pub(super) fn start_of(&mut self, session: SessionId, name: &RoomName, from: &Start) -> Option<VersionVector> {
        let room = self.rooms.get(name)?;
        let held = room.held();
        let (known, what) = match *from {
            Start::After(ref cursor) => return Some(cursor.clone()),
            Start::Last(count) => (room.log.start_of_last(count, held), What::Last { count }),
            Start::Since(millis) => (room.log.start_since(millis, held), What::Since { millis }),
        };
        if known.is_some() || !self.kept.has_store() {
            return Some(room.log.told(known.unwrap_or_else(|| room.log.start_of_tail())));
        }
        // Many join at once where a server has started anew: one answer is for all who ask the same.
        let equal = self.reads.pending.values_mut().find_map(|pending| match &mut pending.asker {
            Asker::Join { from: other, also } if pending.room == *name && other == from => {
                Some((pending.session, also))
            }
            _ => None,
        });
        if let Some((first, also)) = equal {
            if first != session {
                also.insert(session);
            }
            return None;
        }
        if !self.reads.has_place_for(session, false) {
            // It asks again.
            self.count("reads_full");
            return None;
        }
        let also = BTreeSet::new();
        self.read(name.clone(), session, Asker::Join { from: from.clone(), also }, what);
        None
    }

    /// The disk has said where a follower begins.
    fn start_follower(&mut self, session: SessionId, name: &RoomName, from: &Start, start: VersionVector) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let start = room.log.told(start);
        if let Some(follower) = room.followers.get_mut(session) {
            follower.begin_after(from, start);
            self.answer_joins(name);
        }
    }

    // ---- posts

    /// Memory cannot say whether a post is a repetition: it waits until the disk has.
    pub(super) fn look_up(&mut self, session: SessionId, post: Post, device: Device, from: u64) {
        let name = post.room.clone();
        let is_it = |asker: &Asker| matches!(asker, Asker::Device { device: other, .. } if *other == device);
        let asked = self.reads.pending.values_mut().find(|pending| pending.room == name && is_it(&pending.asker));
        let is_asked = asked.is_some();
        if let Some(pending) = asked {
            pending.session = session;
        }
        if !(is_asked || self.reads.has_place_for(session, true)) || !self.unplaced.insert(post, self.now) {
            return self.count("reads_full");
        }
        if !is_asked {
            self.read_device(session, &name, (device, from, 1));
        }
    }

    fn read_device(&mut self, session: SessionId, name: &RoomName, (device, from, round): (Device, u64, u32)) {
        if let Some(room) = self.rooms.get_mut(name) {
            room.log.expect(device.0, device.1);
            let what = What::Device { person: device.0, device: device.1, from };
            self.read(name.clone(), session, Asker::Device { device, from, round }, what);
        }
    }

    /// The disk has said which posts of a device there are, or cannot.
    fn take_device(
        &mut self,
        session: SessionId,
        name: &RoomName,
        (device, from, round): (Device, u64, u32),
        found: Option<&[Kept]>,
    ) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let learnt = found.is_some_and(|found| room.log.learn(device.0, device.1, from, found));
        room.log.forget_expected(device.0, device.1);
        let posts = self.unplaced.take_device(name, device);
        let (true, Some(first)) = (self.sessions.contains_key(&session), posts.first()) else { return };
        if !learnt || round > ROUNDS_MAX {
            return self.refuse_unplaced(session, &posts);
        }
        let key = PostKey { person: device.0, device: device.1, client_seq: first.seq };
        let is_full = found.is_some_and(|found| found.len() >= DEVICE_POSTS_MAX);
        match self.rooms.get(name).map(|room| room.log.standing(key, first.oldest.max(1))) {
            // The answer went only so far, or an earlier post has come since it was asked for.
            Some(Standing::Unknown { from: next }) if is_full || next < from => {
                for post in posts {
                    self.unplaced.insert(post, self.now);
                }
                self.read_device(session, name, (device, next, round + 1));
            }
            Some(Standing::Unknown { .. }) => self.refuse_unplaced(session, &posts),
            _ => {
                // Meanwhile the room may have moved to another home.
                for post in posts {
                    self.route(session, post);
                }
            }
        }
    }

    /// What might be there already is not taken in once more.
    fn refuse_unplaced(&mut self, session: SessionId, posts: &[Post]) {
        self.count("post_unplaced");
        for post in posts {
            self.refuse(session, post, Refusal::CannotStore);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, ServerId};

    #[test]
    fn a_session_and_all_sessions_ask_so_much_and_no_more() {
        /// How many questions find a place, of so many sessions with so many each.
        fn check(sessions: u32, questions: usize, expected: usize) {
            let mut reads = Reads::default();
            for session in (1..=sessions).map(SessionId) {
                for _ in 0..questions {
                    if reads.has_place_for(session, false) {
                        reads.last += 1;
                        let asker = Asker::Join { from: Start::Last(9), also: BTreeSet::new() };
                        let pending = Pending { at: Time::ZERO, room: RoomName::lobby(), session, asker };
                        reads.pending.insert(reads.last, pending);
                    }
                }
            }
            assert_eq!(reads.pending.len(), expected, "{sessions} with {questions}");
            assert!(reads.has_place_for(SessionId(0), true), "for a post there is");
            (1..=sessions).map(SessionId).for_each(|session| reads.forget(session));
            assert_eq!(reads.pending.len(), 0, "nobody is left");
        }
        check(1, 9, 9);
        check(1, 999, READS_PER_SESSION_MAX);
        check(3, 999, 3 * READS_PER_SESSION_MAX);
        check(999, 999, READS_MAX - READS_FOR_POSTS);
    }

    #[test]
    fn what_we_ask_about_rotten_entries_keeps_nobody_else_from_asking() {
        let (mut reads, origin) = (Reads::default(), Origin { id: ServerId(1), boot: Boot(1) });
        for seq in 1..=2 * READS_MAX as u64 {
            let asker = Asker::Again(origin, seq);
            let pending = Pending { at: Time::ZERO, room: RoomName::lobby(), session: SessionId(0), asker };
            reads.pending.insert(seq, pending);
        }
        assert!(reads.has_place_for(SessionId(0), false) && reads.has_place_for(SessionId(1), false));
    }
}
