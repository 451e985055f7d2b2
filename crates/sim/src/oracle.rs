//! What a client was told, and what it was asked to do: its state file, kept over its restarts, and the facts that come
//! out of its events.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    client::{Client, Event},
    ids::{DeviceId, PersonId, RoomName, ServerId},
    log::{PostKey, VersionVector},
    time::{Duration, Time},
    wire::frame::Start,
};

use crate::{
    facts::{ClientPicture, Fact, Process},
    invariants::{Checker, Violation},
    trace::Trace,
};

/// Nothing that was said of a post is under way any more.
pub const QUIET: Duration = Duration::from_secs(10);

/// What one client was told.
#[derive(Debug)]
pub struct Told {
    client: Process,
    person: PersonId,
    device: DeviceId,
    connected: Option<ServerId>,
    cursors: BTreeMap<RoomName, VersionVector>,
    /// Rooms that it follows from somewhere on, and does not know yet from where.
    asking: BTreeSet<RoomName>,
    last_seq: BTreeMap<RoomName, u64>,
    outbox: BTreeMap<(RoomName, u64), String>,
    /// What of that it was told in this run to be accepted.
    accepted: BTreeSet<(RoomName, u64)>,
    /// When it was last told of a post of a room.
    acked: BTreeMap<RoomName, Time>,
    counts: Counts,
}

/// What happened at a client, over all its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Posts made.
    pub posted: u64,
    /// Posts told to be stored.
    pub stored: u64,
    /// Messages shown.
    pub shown: u64,
    /// Servers that served it, one after the other.
    pub moves: u64,
}

impl Told {
    /// A client that was never started.
    pub fn new(of: usize, person: PersonId, device: DeviceId) -> Self {
        Self {
            client: Process { of, run: 0 },
            person,
            device,
            connected: None,
            cursors: BTreeMap::new(),
            asking: BTreeSet::new(),
            last_seq: BTreeMap::new(),
            outbox: BTreeMap::new(),
            accepted: BTreeSet::new(),
            acked: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Its state file is an older one: the number of the last post to each quiet room will be used once more.
    pub fn rewind(&mut self, now: Time) {
        for (room, last) in &mut self.last_seq {
            let waits = self.outbox.keys().any(|(other, _)| other == room);
            let is_quiet = self.acked.get(room).is_some_and(|at| now.since(*at) > QUIET);
            *last -= u64::from(*last > 0 && !waits && is_quiet);
        }
    }

    /// It is another device from now on, and posts again what was not accepted. Of the rest it is told nothing more.
    pub fn new_device(&mut self, device: DeviceId, checker: &mut Checker, now: Time) -> Result<(), Violation> {
        self.device = device;
        for post in std::mem::take(&mut self.accepted) {
            self.outbox.remove(&post);
        }
        for ((room, seq), body) in &self.outbox {
            let fact = Fact::Posted { client: self.client, room, key: self.key(*seq), body };
            checker.observe(&fact, now)?;
        }
        Ok(())
    }

    /// Which device it is.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// A new run begins. Cursors and outbox stay.
    pub fn restarted(&mut self) -> Process {
        self.client.run += 1;
        self.connected = None;
        self.asking.clear();
        self.accepted.clear();
        self.client
    }

    /// Which run of which client it is.
    pub fn process(&self) -> Process {
        self.client
    }

    /// The rooms that it follows, with their cursors.
    pub fn rooms(&self) -> &BTreeMap<RoomName, VersionVector> {
        &self.cursors
    }

    /// Posts that are neither stored nor refused, with their texts.
    pub fn outbox(&self) -> &BTreeMap<(RoomName, u64), String> {
        &self.outbox
    }

    /// The server that serves it, as it was told.
    pub fn connected(&self) -> Option<ServerId> {
        self.connected
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// It asks to follow a room.
    pub fn follow(&mut self, room: &RoomName, from: &Start, checker: &mut Checker, now: Time) -> Result<(), Violation> {
        let base = match from {
            Start::After(base) => base.clone(),
            Start::Last(_) | Start::Since(_) => {
                checker.observe(&Fact::Asked { client: self.client, room, from }, now)?;
                self.asking.insert(room.clone());
                self.cursors.insert(room.clone(), VersionVector::default());
                return Ok(());
            }
        };
        checker.observe(&Fact::Followed { client: self.client, room, base: &base }, now)?;
        self.cursors.insert(room.clone(), base);
        Ok(())
    }

    /// It posts: gives back the number of the post.
    pub fn post(&mut self, room: &RoomName, body: String, checker: &mut Checker, now: Time) -> Result<u64, Violation> {
        let last = self.last_seq.entry(room.clone()).or_default();
        *last += 1;
        let seq = *last;
        let key = self.key(seq);
        checker.observe(&Fact::Posted { client: self.client, room, key, body: &body }, now)?;
        self.outbox.insert((room.clone(), seq), body);
        self.counts.posted += 1;
        Ok(seq)
    }

    /// It was told something.
    pub fn tell(
        &mut self,
        event: &Event,
        checker: &mut Checker,
        trace: &mut Trace,
        now: Time,
    ) -> Result<(), Violation> {
        let client = self.client;
        let of = client.of;
        match event {
            Event::Message { entry, late, .. } => {
                let (room, origin, seq) = (&entry.room, entry.origin, entry.seq);
                let head: String = entry.body.chars().take(24).collect();
                trace.story(now, format_args!("client {of} shows {room} {origin}:{seq} {head:?}, late: {late}"));
                self.counts.shown += 1;
                checker.observe(&Fact::Shown { client, entry, late: *late }, now)
            }
            Event::Acked { room, seq, origin, entry, copies, stored, durable, .. } => {
                let what = if *stored { "stored" } else { "accepted" };
                trace.story(
                    now,
                    format_args!("client {of}: post {seq} to {room} is {what} as {origin}:{entry} on {copies}"),
                );
                let (key, dot) = (self.key(*seq), (room.clone(), *origin, *entry));
                let fact = Fact::Acked { client, key, dot, copies: *copies, stored: *stored, durable: *durable };
                checker.observe(&fact, now)?;
                self.acked.insert(room.clone(), now);
                self.accepted.insert((room.clone(), *seq));
                if *stored && self.outbox.remove(&(room.clone(), *seq)).is_some() {
                    self.counts.stored += 1;
                }
                Ok(())
            }
            Event::Refused { room, seq, why } => {
                trace.story(now, format_args!("client {of}: post {seq} to {room} is refused: {why:?}"));
                checker.observe(&Fact::Refused { client, key: self.key(*seq), why: *why }, now)
            }
            other => {
                trace.story(now, format_args!("client {of} is told {other:?}"));
                match other {
                    Event::Connected { server, .. } => {
                        self.counts.moves += 1;
                        self.connected = Some(*server);
                    }
                    Event::Lost { .. } => self.connected = None,
                    _ => {}
                }
                Ok(())
            }
        }
    }

    /// Its cursors may have changed.
    pub fn look(&mut self, client: &Client, checker: &mut Checker, now: Time) -> Result<(), Violation> {
        for (room, seen) in &mut self.cursors {
            let Some(cursor) = client.cursor(room) else { continue };
            if !self.asking.is_empty() && self.asking.remove(room) {
                // Where it asked from is where it stands now, before anything has come.
                checker.observe(&Fact::Followed { client: self.client, room, base: cursor }, now)?;
            }
            if cursor == seen {
                continue;
            }
            checker.observe(&Fact::Cursor { client: self.client, room, cursor }, now)?;
            seen.clone_from(cursor);
        }
        Ok(())
    }

    /// How it stands.
    pub fn picture(&self) -> ClientPicture {
        ClientPicture {
            process: self.client,
            person: self.person,
            device: self.device,
            connected: self.connected,
            rooms: self.cursors.clone(),
            unsettled: self.outbox.keys().cloned().collect(),
        }
    }

    fn key(&self, client_seq: u64) -> PostKey {
        PostKey { person: self.person, device: self.device, client_seq }
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::{hlc::Hlc, ids::RoomName};

    use super::*;
    use crate::{invariants::history, trace::Detail};

    #[test]
    fn a_post_leaves_the_outbox_when_it_is_stored_and_not_before() {
        let (mut checker, mut trace) = (Checker::default(), Trace::new(Detail::None));
        let key = history::key(1);
        let mut told = Told::new(0, key.person, key.device);
        told.restarted();
        let lobby = RoomName::lobby();
        assert_eq!(told.post(&lobby, "x".to_owned(), &mut checker, Time::ZERO), Ok(1));
        let entry = history::entry(1, 1, 1, 5, "x");
        let held = Fact::Held { server: history::process(1), own: true, entry: &entry };
        checker.observe(&held, Time::ZERO).unwrap();
        for (stored, left) in [(false, 1), (true, 0)] {
            let acked = Event::Acked {
                room: lobby.clone(),
                seq: 1,
                origin: entry.origin,
                entry: 1,
                hlc: Hlc::default(),
                copies: 1,
                stored,
                durable: false,
            };
            told.tell(&acked, &mut checker, &mut trace, Time::ZERO).unwrap();
            assert_eq!(told.outbox().len(), left);
        }
        assert_eq!(told.post(&lobby, "y".to_owned(), &mut checker, Time::ZERO), Ok(2));
    }
}
