//! Imports: what a client reads from an export is kept here as if it had been pulled from another server.
//!
//! ```text
//! client                               server
//!   | Ask: import (may I?) ----------------> |
//!   | Import (line n), many under way -----> |  held, on its way to the disk and to who follows the room
//!   | <--- Imported (what became of n) ----- |  said once it is on the disk
//!   | Ask: import (how many rooms lack?) --> |  Compare -> all: they pull what they lack, and say what they keep
//! ```
//!
//! An import is a merge: an entry that is held is known, and is not kept twice. The server that is asked need not be the
//! home of a room: it then holds more than the home, which pulls that, as after a partition. What waits here is bounded by
//! what a client has under way; a line that finds no place is dropped, and comes again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Node,
    copies::{Copies, Enough},
    floors::Elsewhere,
    rooms::{Room, Upstream},
};
use crate::{
    ids::{Origin, RoomName, ServerId},
    limits,
    log::{Entry, room::Kept},
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::Vectors,
        import::{Import, Item, Outcome},
        vectors,
    },
};

/// Between two questions what others hold.
const COMPARE_AGAIN: Duration = Duration::from_millis(500);
/// Spans of lines that one frame tells of.
const SPANS_PER_FRAME: usize = 20;

/// What a session imports.
#[derive(Debug, Default)]
pub(super) struct Importing {
    /// Lines whose names are held, on disk alone: what is held is read first.
    unread: BTreeMap<u64, Entry>,
    /// Lines whose entries are held, and are to be safe before that is said.
    unsafe_yet: BTreeMap<u64, (RoomName, Origin, u64, Outcome)>,
    /// Lines that can be answered.
    decided: BTreeMap<u64, Outcome>,
    /// What others must hold before the import is done.
    copies: Copies,
    /// When others were last asked.
    compared: Option<Time>,
}

impl Node {
    /// Whether a client may copy all rooms, or one; and of what.
    pub(super) fn export_head(&self, session: SessionId, room: Option<&RoomName>) -> Value {
        if room.is_none() && !self.has_authority(session) {
            return refusal("export all rooms (one room anybody may: --room)");
        }
        json!({"allowed": true, "cluster": self.config.cluster, "cluster_id": self.cluster_id(),
            "server": self.me.id, "time": self.cluster_millis()})
    }

    /// Whether a client may import, and how many rooms lack copies of what it has imported.
    pub(super) fn import_state(&mut self, session: SessionId) -> Value {
        if !self.has_authority(session) {
            return refusal("import");
        }
        let (enough, now) = (self.enough_beside(), self.now);
        let importing = self.imports.entry(session).or_default();
        let lacking = importing.copies.lacking(&enough);
        let (rooms, missing) = (lacking.len(), importing.copies.missing(&enough));
        if !lacking.is_empty() && importing.compared.is_none_or(|at| now.since(at) >= COMPARE_AGAIN) {
            importing.compared = Some(now);
            let live: Vec<_> = self.heartbeat.live().collect();
            for line in vectors::lines(lacking, |rooms| Frame::Compare { rooms }) {
                for session in live.iter().filter_map(|peer| self.peers.get(&peer.id)?.session()) {
                    self.endpoint.send(session, line.as_bytes());
                }
            }
        }
        // What is to be copied is known to this session of this server alone.
        let import = format!("{}/{}", self.me, session.0);
        json!({"allowed": true, "import": import, "lacking": rooms, "missing": missing, "copies": self.copies_wanted()})
    }

    /// Whose copies make an entry stored together with ours, if that counts.
    fn enough_beside(&self) -> Enough {
        let others = self.heartbeat.live().filter(|peer| self.members.keeps(peer.id)).collect();
        Enough::beside(self.copies_wanted().saturating_sub(u32::from(self.is_keeper())), others)
    }

    /// A server says what it has kept.
    pub(super) fn on_keeps_for_imports(&mut self, id: ServerId, rooms: &Vectors) {
        if self.imports.is_empty() {
            return;
        }
        let Some(server) = self.peers.get(&id).map(|peer| peer.origin) else { return };
        let enough = self.enough_beside();
        for importing in self.imports.values_mut() {
            importing.copies.hear(server, rooms, &enough);
        }
    }

    /// A client imports a line.
    pub(super) fn on_import(&mut self, session: SessionId, import: Import) {
        if !self.has_authority(session) {
            return self.count("import_not_allowed");
        }
        let is_known = |importing: &Importing| {
            importing.unsafe_yet.contains_key(&import.n) || importing.unread.contains_key(&import.n)
        };
        if self.imports.get(&session).is_some_and(is_known) {
            // What became of it is said once it is on the disk.
            return self.count("import_repeated");
        }
        if !self.kept.is_writable() {
            self.imports.entry(session).or_default().decided.insert(import.n, Outcome::CannotStore);
            return;
        }
        if self.kept.is_behind() {
            return self.count("import_too_soon");
        }
        let waiting = |importing: &Importing| importing.unsafe_yet.len() + importing.unread.len();
        let waiting = self.imports.get(&session).map_or(0, waiting);
        if waiting >= limits::IMPORT_AHEAD_MAX {
            return self.count("import_full");
        }
        let Import { n, what, floor } = import;
        let (outcome, dot) = match what {
            Item::Room(name) => (self.import_room(&name), None),
            Item::Entry(entry) => {
                if self.is_on_disk_alone(&entry) {
                    let name = entry.room.clone();
                    self.imports.entry(session).or_default().unread.insert(n, entry);
                    return self.read_imports(session, &name);
                }
                let dot = (entry.room.clone(), entry.origin, entry.seq);
                let Some(outcome) = self.import_entry(entry, floor) else { return };
                (outcome, Some(dot))
            }
        };
        self.decide(session, n, outcome, dot);
    }

    /// This has become of a line; of one whose entry is held it is said once that is safe.
    fn decide(&mut self, session: SessionId, n: u64, outcome: Outcome, dot: Option<(RoomName, Origin, u64)>) {
        let importing = self.imports.entry(session).or_default();
        match (outcome, dot) {
            (Outcome::Kept | Outcome::Known, Some((name, origin, seq))) => {
                importing.unsafe_yet.insert(n, (name, origin, seq, outcome));
            }
            (outcome, _) => {
                importing.decided.insert(n, outcome);
            }
        }
    }

    /// There is such a room, from now on at the latest.
    fn import_room(&mut self, name: &RoomName) -> Outcome {
        let is_known = self.records.get(name).is_some();
        if self.room(name).is_none() {
            return Outcome::Full;
        }
        if !is_known {
            self.ask_place(name);
        }
        if is_known { Outcome::Known } else { Outcome::Kept }
    }

    /// Keeps an entry, unless something speaks against it. `None`: that is not known yet, and it is to come again.
    fn import_entry(&mut self, entry: Entry, floor: u64) -> Option<Outcome> {
        if !entry.is_intact() {
            return Some(Outcome::Rotten);
        }
        if !entry.is_bounded(self.cluster_millis()) {
            return Some(Outcome::Invalid);
        }
        if self.import_room(&entry.room) == Outcome::Full {
            return Some(Outcome::Full);
        }
        let (me, name) = (self.me, entry.room.clone());
        let (origin, seq) = (entry.origin, entry.seq);
        let held = self.rooms.get(&name).map_or(0, |room| room.held().get(origin));
        if seq <= held {
            return Some(self.compare_import(&entry));
        }
        let is_new = held == 0;
        let origins = self.rooms.get(&name).map_or(0, |room| room.held().origins());
        if origin == me {
            // Nobody else may write our part.
            return Some(Outcome::Invalid);
        }
        if is_new && origins >= limits::ORIGINS_MAX {
            return Some(Outcome::Full);
        }
        if entry.is_lost() && !self.takes_marker(&entry, None) {
            return Some(Outcome::Invalid);
        }
        if is_new && floor > 0 && seq == floor + 1 && !self.begin_above(&name, origin, floor)? {
            return Some(Outcome::Invalid);
        }
        let Some(room) = self.rooms.get_mut(&name) else { return Some(Outcome::Full) };
        if seq != room.held().get(origin) + 1 {
            return Some(Outcome::Hole);
        }
        let mut ready = room.receiver.note(&entry);
        ready.insert(0, entry);
        if let (None, &Upstream::Server { session: home, joined: true, .. }) = (&room.durable, &room.upstream) {
            // The home learns so what there is to be pulled here; where there is a disk, once it is on it.
            self.acks.entry(home).or_default().insert(name.clone());
        }
        for entry in ready {
            self.keep(&name, entry, None);
        }
        self.wake_room(&name);
        Some(Outcome::Kept)
    }

    /// An origin of which nothing is held begins above this number, if nobody else has what is below. False: it is of a
    /// member, whose part is in the cluster. `None`: others have been asked, or are to be pulled from.
    fn begin_above(&mut self, name: &RoomName, origin: Origin, floor: u64) -> Option<bool> {
        if self.members.get(origin.id).is_some_and(|member| member.boot == origin.boot) {
            return Some(false);
        }
        match self.elsewhere(name, origin) {
            Elsewhere::Nothing => {}
            Elsewhere::Gone(theirs) if floor <= theirs => {}
            Elsewhere::Unknown | Elsewhere::At(_) | Elsewhere::Gone(_) => {
                self.survey(name, origin, false);
                self.count("import_floor_asked");
                return None;
            }
        }
        self.forget_survey(name, origin);
        self.take_floors(name, &[(origin, floor)].into_iter().collect());
        Some(true)
    }

    /// Whether something else may be held on disk under the name of a sound entry, and memory cannot say.
    fn is_on_disk_alone(&self, entry: &Entry) -> bool {
        let (origin, seq) = (entry.origin, entry.seq);
        let Some(room) = self.rooms.get(&entry.room).filter(|_| self.kept.has_store()) else { return false };
        let is_known = room.rotten.contains(origin, seq)
            || room.lost.contains(&(origin, seq))
            || room.log.get(origin, seq).is_some()
            || room.log.floors().holds(origin, seq);
        !is_known && seq > 0 && room.held().holds(origin, seq) && entry.is_intact()
    }

    /// Asks the disk what is held under the names of lines that wait: of all that have come meanwhile at once.
    fn read_imports(&mut self, session: SessionId, name: &RoomName) {
        let Some(importing) = self.imports.get(&session) else { return };
        let of_room = importing.unread.values().filter(|entry| entry.room == *name);
        let want: Vec<_> = of_room.map(|entry| (entry.origin, entry.seq, entry.seq)).collect();
        if !want.is_empty() && !self.is_read_for_import(session, name) {
            self.read_for_import(session, name, want);
        }
    }

    /// The disk has said what is held under the names of lines, or some of them; `None`: it cannot be read, and they are to
    /// come again.
    pub(super) fn compare_imports(&mut self, session: SessionId, name: &RoomName, found: Option<&[Kept]>) {
        let Some(importing) = self.imports.get_mut(&session) else { return };
        let lines: Vec<_> = importing.unread.extract_if(.., |_, entry| entry.room == *name).collect();
        let Some(found) = found else { return self.count("import_unread") };
        let dot = |entry: &Entry| (entry.origin, entry.seq);
        let found: BTreeMap<_, _> = found.iter().map(|kept| (dot(&kept.entry), kept)).collect();
        let is_open = |entry: &Entry| !found.contains_key(&dot(entry)) && self.is_on_disk_alone(entry);
        if lines.iter().all(|(_, entry)| is_open(entry)) {
            // They come again, if there was any.
            return self.count("import_unread");
        }
        for (n, entry) in lines {
            let there = found.get(&dot(&entry)).map(|kept| (kept.entry.hash, kept.entry.is_lost()));
            if there.is_none() && self.is_on_disk_alone(&entry) {
                // The answer went only so far, or the line has come since.
                if let Some(importing) = self.imports.get_mut(&session) {
                    importing.unread.insert(n, entry);
                }
                continue;
            }
            let name = (name.clone(), entry.origin, entry.seq);
            let outcome = match there {
                Some((_, true)) if !entry.is_lost() => self.import_found(entry),
                Some((hash, _)) if hash != entry.hash && !entry.is_lost() => {
                    self.quarantine(entry);
                    Outcome::Conflict
                }
                Some(_) => Outcome::Known,
                None => self.compare_import(&entry),
            };
            self.decide(session, n, outcome, Some(name));
        }
        self.read_imports(session, name);
    }

    /// An entry in whose place there is a marker on disk.
    fn import_found(&mut self, entry: Entry) -> Outcome {
        if !entry.is_bounded(self.cluster_millis()) {
            return Outcome::Invalid;
        }
        let is_rotten = |room: &Room| room.rotten.contains(entry.origin, entry.seq);
        if self.rooms.get(&entry.room).is_some_and(is_rotten) {
            self.mends(&entry, None);
        } else {
            self.find_again(entry.into(), None);
        }
        Outcome::Kept
    }

    /// An entry whose name is held, in memory, or rotten, or given up.
    fn compare_import(&mut self, entry: &Entry) -> Outcome {
        let (origin, seq) = (entry.origin, entry.seq);
        let Some(room) = self.rooms.get(&entry.room) else { return Outcome::Known };
        let held = room.log.get(origin, seq).filter(|kept| !kept.entry.is_lost() && !entry.is_lost());
        let is_other = held.is_some_and(|kept| kept.entry.hash != entry.hash);
        let is_lost = room.lost.contains(&(origin, seq)) && !entry.is_lost();
        // A rotten or lost one is mended so; another content is kept aside.
        self.mends(entry, None);
        match (is_other, is_lost) {
            (true, _) => Outcome::Conflict,
            (false, true) => Outcome::Kept,
            (false, false) => Outcome::Known,
        }
    }

    /// Tells what became of lines, once that is sure.
    pub(super) fn send_imported(&mut self) {
        let mut lines = Vec::new();
        let is_writable = self.kept.is_writable();
        for (&session, importing) in &mut self.imports {
            let rooms = &self.rooms;
            let is_safe = |_: &u64, (name, origin, seq, _): &mut (RoomName, Origin, u64, Outcome)| {
                let is_kept = |room: &Room| room.durable().holds(*origin, *seq) && !room.rotten.contains(*origin, *seq);
                rooms.get(name).is_some_and(is_kept)
            };
            for (n, (name, origin, seq, outcome)) in importing.unsafe_yet.extract_if(.., is_safe) {
                importing.copies.want(&name, origin, seq);
                importing.decided.insert(n, outcome);
            }
            if !is_writable {
                let never = std::mem::take(&mut importing.unsafe_yet).into_keys();
                importing.decided.extend(never.map(|n| (n, Outcome::CannotStore)));
            }
            let spans = spans(std::mem::take(&mut importing.decided));
            let frames = spans.chunks(SPANS_PER_FRAME).map(|lines| Frame::Imported { lines: lines.to_vec() });
            lines.extend(frames.map(|frame| (session, frame.to_line())));
        }
        for (session, line) in lines {
            self.endpoint.send(session, line.as_bytes());
        }
    }
}

/// Neighbours that have come to the same as one span.
fn spans(decided: BTreeMap<u64, Outcome>) -> Vec<(u64, u64, Outcome)> {
    let mut spans: Vec<(u64, u64, Outcome)> = Vec::new();
    for (n, outcome) in decided {
        match spans.last_mut() {
            Some((_, last, same)) if *last + 1 == n && *same == outcome => *last = n,
            _ => spans.push((n, n, outcome)),
        }
    }
    spans
}

/// That only some may do this.
fn refusal(what: &str) -> Value {
    let why = format!("only somebody on the machine of a server may {what}: run this command there");
    json!({"allowed": false, "why": why})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_outcome_are_one_span() {
        use Outcome::{Hole, Kept, Known};
        let decided = [(3, Kept), (4, Kept), (5, Hole), (6, Kept), (8, Kept), (9, Known)];
        let expected = [(3, 4, Kept), (5, 5, Hole), (6, 6, Kept), (8, 8, Kept), (9, 9, Known)];
        assert_eq!(spans(decided.into_iter().collect()), expected);
        assert_eq!(spans(BTreeMap::new()), []);
    }
}
