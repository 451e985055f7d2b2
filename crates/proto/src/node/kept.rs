//! What is written and not durable yet, and what waits for it.
//!
//! ```text
//!   entry    pushed to followers at once; counts as ours, in acks and cursors, once it is durable
//!   term     COORDINATOR leaves once it is durable
//!   fence    of our own making: takes effect, and is told, once it is durable
//!   me       joining is over once it is durable
//! ```
//!
//! What others decided (their epochs, their fences, members) is written too, but waited for by nobody: they made it durable,
//! and tell it again. Writes become durable in their order, several at a time (group commit, as in
//! "Implementation techniques for main memory database systems", 1984), so what waits stands in one queue, and costs a
//! room's name and a dot for each entry.
//!
//! A disk that does not move for [`STILL_MAX`] while something is to be written counts as one that cannot be written to: who
//! waits for it would answer beats for ever, and neither accept nor refuse. It counts again once it has written what had
//! gathered by then; what waited for it goes on, since it was never given up.
//!
//! Without a store everything counts as durable at once. So it does for terms and fences where the disk cannot be written
//! to any more: the boot in them keeps them apart from those of every other run. An entry then never counts.

use std::collections::{BTreeMap, VecDeque};

use super::{Node, Output, Stage, Timer, fences::By, rooms::Upstream};
use crate::{
    election,
    ids::{Origin, RoomName},
    log::VersionVector,
    planted::{self, Bug},
    store::Write,
    time::{Duration, Time},
    wire::frame::{Member, RoomRecord},
};

/// Entries that wait for a disk, past which no more are taken in: a disk that stands still fills no memory, and whoever has
/// something for us says it again.
const WAITING_MAX: usize = 65_536;
/// The same, in bytes of their lines.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of entries that are taken in after the disk has failed: they stay in memory, for those who follow here.
const UNKEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A disk that has moved nothing for so long stands still.
const STILL_MAX: Duration = Duration::from_secs(3);

/// The node's side of its store.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Whether there is a store.
    has_store: bool,
    /// Whether it has failed.
    failed: bool,
    /// How many writes were asked for, and how many of them are durable.
    written: u64,
    durable: u64,
    waiting: VecDeque<(u64, Waiting)>,
    /// Bytes of entries that wait.
    waiting_bytes: usize,
    /// Bytes of entries that will never be durable.
    unkept_bytes: usize,
    /// Since when nothing has become durable, though something is to.
    unmoved: Option<Time>,
    /// The last write that was asked for when the disk was found to stand still.
    still: Option<u64>,
    /// Fences of ours that are not durable yet.
    pub(super) fences: BTreeMap<RoomName, RoomRecord>,
    /// Who we are, as it was last written, and which write that was.
    me: Option<Origin>,
    me_written: u64,
    /// The highest term of our cluster that is written.
    pub(super) term: u64,
}

/// What waits for a write.
#[derive(Debug)]
pub(super) enum Waiting {
    /// An entry is ours to count on; how long its line is.
    Entry(RoomName, Origin, u64, usize),
    /// What was written in the place of a rotten entry is to be read again.
    Again(RoomName, Origin, u64),
    /// A candidate that has won may say so.
    Term(u64),
    /// Rooms get these homes.
    Fences(Vec<RoomRecord>, By),
}

impl Kept {
    /// For a server with a store that knows these, or for one without.
    pub(super) fn new(has_store: bool, me: Option<Origin>, term: u64) -> Self {
        Self { has_store, me, term, ..Self::default() }
    }

    /// Whether there is a disk, be it one that fails.
    pub(super) fn has_store(&self) -> bool {
        self.has_store
    }

    /// Whether what is taken in now will be kept, or need not be.
    pub(super) fn is_writable(&self) -> bool {
        !self.failed && self.still.is_none()
    }

    /// Whether writes are issued.
    pub(super) fn writes(&self) -> bool {
        self.has_store && !self.failed
    }

    /// How many writes are asked for and not durable.
    pub(super) fn unwritten(&self) -> u64 {
        self.written - self.durable
    }

    /// Whether who we are is durable: nothing is sequenced before.
    pub(super) fn is_me_durable(&self) -> bool {
        !self.writes() || self.durable >= self.me_written
    }

    /// Whether the disk is so far behind that nothing more is to be taken in, or has failed and memory is full of what it
    /// will never have.
    pub(super) fn is_behind(&self) -> bool {
        let is_full = self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX;
        is_full || self.unkept_bytes >= UNKEPT_BYTES_MAX
    }

    /// One more write is asked for; its number.
    fn ask(&mut self, now: Time) -> u64 {
        self.unmoved = self.unmoved.or(Some(now));
        self.written += 1;
        self.written
    }

    /// Something waits for the write of this number, which is no lower than that of anything that waits.
    pub(super) fn wait(&mut self, n: u64, what: Waiting) {
        self.waiting.push_back((n, what));
    }

    /// The disk has moved; whether it had stood still.
    fn moved(&mut self, through: u64, now: Time) -> bool {
        let through = through.min(self.written);
        if through <= self.durable {
            return false;
        }
        self.durable = through;
        self.unmoved = (self.durable < self.written).then_some(now);
        self.still.take_if(|last| *last <= through).is_some()
    }

    /// Whether the disk has just been found to stand still.
    fn stops(&mut self, now: Time) -> bool {
        let is_still = self.unmoved.is_some_and(|since| now.since(since) > STILL_MAX);
        let is_news = is_still && self.writes() && self.still.is_none();
        if is_news {
            self.still = Some(self.written);
        }
        is_news
    }

    /// The disk is given up: what waits for it is not waited for any more.
    fn fail(&mut self) -> VecDeque<(u64, Waiting)> {
        (self.failed, self.still, self.unmoved) = (true, None, None);
        self.unkept_bytes += std::mem::take(&mut self.waiting_bytes);
        std::mem::take(&mut self.waiting)
    }

    /// Everything but entries is forgotten: it was of another cluster, or of another server.
    pub(super) fn forget(&mut self) {
        self.fences.clear();
        self.waiting.retain(|(_, waiting)| matches!(waiting, Waiting::Entry(..) | Waiting::Again(..)));
    }
}

impl Node {
    /// Asks for a write; its number, if it is to be waited for.
    pub(super) fn persist(&mut self, write: Write) -> Option<u64> {
        if !self.kept.writes() {
            return None;
        }
        self.out.push_back(Output::Persist(write));
        Some(self.kept.ask(self.now))
    }

    /// An entry has come into the log.
    pub(super) fn persist_entry(&mut self, kept: crate::log::room::Kept) {
        let (room, origin, seq, bytes) = (kept.entry.room.clone(), kept.entry.origin, kept.entry.seq, kept.line.len());
        if let Some(n) = self.persist(Write::Entry(kept)) {
            if planted::is(Bug::AckBeforeFsync) {
                self.on_room_durable(&room, &[(origin, seq)].into_iter().collect());
            }
            self.kept.waiting_bytes += bytes;
            self.kept.wait(n, Waiting::Entry(room, origin, seq, bytes));
        } else if self.kept.failed {
            self.kept.unkept_bytes += bytes;
        }
    }

    /// Asks for a write in the place of a rotten entry, which is read again then: a store may not be able to do it. False
    /// where nothing is written any more.
    pub(super) fn persist_and_read(&mut self, write: Write, room: &RoomName, (origin, seq): (Origin, u64)) -> bool {
        let written = self.persist(write);
        if let Some(n) = written {
            self.kept.wait(n, Waiting::Again(room.clone(), origin, seq));
        }
        written.is_some()
    }

    /// A term is to be durable before anybody hears that we lead in it; one that others lead in is written too.
    pub(super) fn persist_term(&mut self, term: u64) {
        self.kept.term = self.kept.term.max(term);
        match self.persist(Write::Term(self.kept.term)) {
            Some(n) => self.kept.wait(n, Waiting::Term(term)),
            None => self.elect(election::Input::TermDurable(term)),
        }
    }

    /// Writes down who we are, if that is news.
    pub(super) fn persist_me(&mut self) {
        if self.kept.me != Some(self.me)
            && let Some(n) = self.persist(Write::Me(self.me))
        {
            (self.kept.me, self.kept.me_written) = (Some(self.me), n);
        }
    }

    /// Takes what is known of a member; whether that is news.
    pub(super) fn learn_member(&mut self, member: Member) -> bool {
        let id = member.id;
        let is_news = self.members.merge(member);
        if is_news && let Some(member) = self.members.get(id).cloned() {
            self.persist(Write::Member(member));
        }
        is_news
    }

    /// The store has made writes durable: what waited for them goes on.
    pub(super) fn on_durable(&mut self, through: u64) {
        let moves_again = self.kept.moved(through, self.now);
        let mut rooms: BTreeMap<RoomName, VersionVector> = BTreeMap::new();
        let durable = self.kept.durable;
        while let Some((_, waiting)) = self.kept.waiting.pop_front_if(|(n, _)| *n <= durable) {
            match waiting {
                Waiting::Entry(room, origin, seq, bytes) => {
                    self.kept.waiting_bytes -= bytes;
                    rooms.entry(room).or_default().raise(origin, seq);
                }
                Waiting::Again(room, origin, seq) => self.read_again(&room, origin, seq),
                Waiting::Term(term) => self.elect(election::Input::TermDurable(term)),
                Waiting::Fences(records, by) => self.take_fences(&records, by),
            }
        }
        for (name, durable) in rooms {
            self.on_room_durable(&name, &durable);
        }
        if moves_again {
            self.disk_changed();
        }
    }

    /// Entries of a room are on our disk: those who wait hear of it, and so does the home.
    fn on_room_durable(&mut self, name: &RoomName, durable: &VersionVector) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut news = Vec::new();
        if let Some(ours) = &mut room.durable {
            news.extend(durable.iter().map(|(origin, top)| (origin, ours.get(origin) + 1, top)));
            ours.merge(durable);
            durable.iter().for_each(|(origin, _)| room.said.rises(origin));
        }
        if let Upstream::Server { session, joined: true, .. } = room.upstream {
            // Copies are counted by the home, and a person waits for them: they are told at once.
            self.acks.entry(session).or_default().insert(name.clone());
        }
        self.tell_waiters(name, news.into_iter(), true);
        self.trim(name);
        self.trim_posts(name);
    }

    /// The disk cannot be written to: what is not durable never will be, and rooms go to servers that can write.
    pub(super) fn on_unwritable(&mut self) {
        if !self.kept.writes() {
            return;
        }
        self.count("unwritable");
        for (_, waiting) in self.kept.fail() {
            match waiting {
                Waiting::Entry(..) => {}
                Waiting::Again(room, origin, seq) => self.mend_later(&room, (origin, seq)),
                Waiting::Term(term) => self.elect(election::Input::TermDurable(term)),
                Waiting::Fences(records, by) => self.take_fences(&records, by),
            }
        }
        self.disk_changed();
    }

    /// Looks whether the disk still moves.
    pub(super) fn watch_disk(&mut self) {
        if self.kept.stops(self.now) {
            self.count("disk_still");
            self.disk_changed();
        }
    }

    /// Whether the disk can be written to has changed: all are to know.
    fn disk_changed(&mut self) {
        if self.stage == Stage::Serving {
            self.update_view();
            self.say_beats();
            self.timers.hasten(Timer::Sweep, self.now);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        config::ServerConfig,
        ids::{Boot, ClusterId},
        store::Restored,
    };

    /// A server with an empty disk, which has written what it writes when it starts.
    pub(in super::super) fn server() -> Node {
        let store = Restored { boot: Some(Boot(1)), ..Restored::default() };
        let config = ServerConfig { store: Some(store), ..ServerConfig::sample(1) };
        let mut node = Node::new(config, [1; 32], Time::ZERO);
        node.cluster.id = ClusterId(7);
        node.out.clear();
        node
    }

    /// What it writes, in its order.
    pub(in super::super) fn writes(node: &mut Node) -> Vec<Write> {
        let is_write = |output| match output {
            Output::Persist(write) => Some(write),
            _ => None,
        };
        node.out.drain(..).filter_map(is_write).collect()
    }

    #[test]
    fn a_term_on_disk_never_goes_back() {
        let mut node = server();
        for term in [5, 3, 6] {
            node.persist_term(term);
        }
        let terms: Vec<_> =
            writes(&mut node).into_iter().map(|write| matches!(write, Write::Term(n) if n > 4)).collect();
        assert_eq!(terms, [true; 3]);
        assert_eq!(node.kept.term, 6);
    }

    #[test]
    fn nothing_more_is_taken_in_where_too_much_waits() {
        fn check(waiting_bytes: usize, fails: bool, is_behind: bool) {
            let mut kept = Kept { waiting_bytes, ..Kept::new(true, None, 0) };
            if fails {
                assert_eq!(kept.fail().len(), 0);
            }
            assert_eq!(kept.is_behind(), is_behind, "{waiting_bytes}, {fails}");
        }
        check(WAITING_BYTES_MAX - 1, false, false);
        check(WAITING_BYTES_MAX, false, true);
        check(UNKEPT_BYTES_MAX, false, false);
        check(UNKEPT_BYTES_MAX - 1, true, false);
        check(UNKEPT_BYTES_MAX, true, true);
    }

    #[test]
    fn a_disk_stands_still_where_it_moves_nothing_though_it_should() {
        /// What happens at which second: a write is asked for, or all up to a number are durable. Whether it can be written
        /// to at the last of them.
        fn check(steps: &[(u64, Option<u64>)], is_writable: bool) {
            let mut kept = Kept::new(true, None, 0);
            for &(second, durable) in steps {
                let now = Time::from_micros(second * 1_000_000);
                match durable {
                    None => _ = kept.ask(now),
                    Some(through) => _ = kept.moved(through, now),
                }
                kept.stops(now);
            }
            assert_eq!(kept.is_writable(), is_writable, "{steps:?}");
        }
        check(&[(1, None), (3, None), (4, None)], true);
        check(&[(1, None), (3, None), (5, None)], false);
        check(&[(1, None), (2, Some(1)), (9, None)], true);
        check(&[(1, None), (3, None), (4, Some(1)), (7, None)], true);
        check(&[(1, None), (3, None), (4, Some(1)), (8, None)], false);
        check(&[(1, None), (9, None), (9, Some(1))], false);
        check(&[(1, None), (9, None), (9, Some(2))], true);
        check(&[(1, None), (9, Some(0))], false);
    }
}
