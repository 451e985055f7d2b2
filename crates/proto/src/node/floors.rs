//! Floors: up to where a room is no longer kept.
//!
//! The shell says what it wants to give up, by age or by bytes; the node gives up as much of that as is stored, on as many
//! servers as it takes. Each server has floors of its own. Who pulls below one hears of it: a client tells its person, and
//! a server asks all others before it believes it, since what it takes over it gives up itself:
//!
//! ```text
//! B -- Pull (from 101) ------> A
//! B <- Pulled (floor 500) ---- A    what A has given up, somebody else may have
//! B -- Survey ---------------> A, C
//! B <- Surveyed (held, floor)- A, C
//! ```
//!
//! Where one of them holds what comes next, it is pulled there. Where all have given it up, or have nothing either, the
//! lowest of their floors is taken over, and what lies between counts as held: vectors cover what is below a floor. A
//! single server so makes nobody give up what another one keeps. Only messages are given up; state, once there is any, is
//! to be carried over a floor before it is taken.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, peers::Peer, rooms::Upstream};
use crate::{
    ids::{Origin, RoomName, ServerId},
    limits,
    log::VersionVector,
    session::SessionId,
    store::Write,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Pulled, Vectors},
        vectors,
    },
};

/// Who has not answered is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// What was answered so long ago counts no more.
const FRESH: Duration = Duration::from_secs(5);
/// Origins that one survey asks for, so that its answer fits a frame.
const ORIGINS_MAX: usize = 12;

/// What others are asked for, in each room.
pub(super) type Surveys = BTreeMap<RoomName, Survey>;

/// What is to be given up of a room that has its home elsewhere, and what others have kept of it, as they said.
#[derive(Debug)]
pub(super) struct Retaining {
    since: Time,
    before: VersionVector,
    kept: BTreeMap<Origin, VersionVector>,
}

/// What others hold of some origins of a room.
#[derive(Debug)]
pub(super) struct Survey {
    since: Time,
    asked: Option<Time>,
    /// Of whom; and whether that is because somebody has said that it is no longer kept.
    origins: BTreeMap<Origin, bool>,
    /// Who has answered: up to where they hold it, and up to where not any more.
    answers: BTreeMap<(Origin, Origin), (u64, u64)>,
}

/// What all live servers together say of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// They have not all answered.
    Unknown,
    /// Nobody has, or ever had, more of it than is held here.
    Nothing,
    /// This one has what comes next.
    At(Origin),
    /// Nobody has what comes next: it is no longer kept up to here, by anybody.
    Gone(u64),
}

impl Survey {
    fn new(now: Time) -> Self {
        Self { since: now, asked: None, origins: BTreeMap::new(), answers: BTreeMap::new() }
    }

    /// What is known of `origin`, which we hold up to `held`, if these are the others.
    fn says(&self, origin: Origin, held: u64, others: &[Origin]) -> Elsewhere {
        let (mut gone, mut at, mut is_known) = (None::<u64>, None, true);
        for peer in others {
            match self.answers.get(&(*peer, origin)) {
                None => is_known = false,
                Some((_, floor)) if *floor > held => gone = Some(gone.map_or(*floor, |gone| gone.min(*floor))),
                Some((theirs, _)) if *theirs > held => at = Some(*peer),
                Some(_) => {}
            }
        }
        match (at, is_known, gone) {
            (Some(peer), ..) => Elsewhere::At(peer),
            (None, false, _) => Elsewhere::Unknown,
            (None, true, None) => Elsewhere::Nothing,
            (None, true, Some(floor)) => Elsewhere::Gone(floor),
        }
    }
}

impl Node {
    /// The shell wants to give up everything up to these numbers. Followers tell the home what they have kept; elsewhere all
    /// are asked for it, and what they say is heard by [`Self::on_keeps_for_floors`].
    pub(super) fn retain(&mut self, name: &RoomName, before: &VersionVector) {
        let now = self.now;
        self.retaining.retain(|_, retaining| now.since(retaining.since) <= FRESH);
        let Some(room) = self.rooms.get(name) else { return };
        if room.upstream != Upstream::Home {
            let held = [(name.clone(), room.held().clone())];
            self.retaining.insert(name.clone(), Retaining { since: now, before: before.clone(), kept: <_>::default() });
            let sessions: Vec<_> = self.others().into_iter().filter_map(|peer| self.session_of(peer)).collect();
            for line in vectors::lines(held, |rooms| Frame::Compare { rooms }) {
                for session in &sessions {
                    self.endpoint.send(*session, line.as_bytes());
                }
            }
        }
        self.give_up_stored(name, before);
    }

    /// A server says what it has kept of some rooms: more of what we want to give up may be stored.
    pub(super) fn on_keeps_for_floors(&mut self, id: ServerId, rooms: &Vectors) {
        let now = self.now;
        let Some(server) = self.others().into_iter().find(|peer| peer.id == id) else { return };
        for (name, kept) in rooms {
            let Some(retaining) = self.retaining.get_mut(name) else { continue };
            if now.since(retaining.since) > FRESH {
                self.retaining.remove(name);
                continue;
            }
            retaining.kept.entry(server).or_default().merge(kept);
            let before = retaining.before.clone();
            self.give_up_stored(name, &before);
        }
    }

    fn give_up_stored(&mut self, name: &RoomName, before: &VersionVector) {
        let Some(room) = self.rooms.get(name) else { return };
        let counted = self.counted_beside(room, self.retaining.get(name).map(|retaining| &retaining.kept));
        let stored = |(origin, wanted): (_, u64)| {
            // What is stored, its predecessors are too.
            let (mut low, mut high) = (room.log.floors().get(origin), wanted.min(room.durable().get(origin)));
            while low < high {
                let middle = high - (high - low) / 2;
                if counted.of(origin, middle).stored { low = middle } else { high = middle - 1 }
            }
            (origin, low)
        };
        let floors = before.iter().map(stored).collect();
        self.take_floors(name, &floors);
    }

    /// Gives up everything up to these numbers, held or not.
    pub(super) fn take_floors(&mut self, name: &RoomName, floors: &VersionVector) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        let floors = floors.iter().filter(|(_, floor)| *floor < limits::SEQ_BOUND).collect();
        if !room.log.give_up(&floors) {
            return;
        }
        let floors = room.log.floors().clone();
        if let Some(durable) = &mut room.durable {
            durable.merge(&floors);
        }
        let freed = room.receiver.give_up(&floors, now);
        room.digest = vectors::digest(name, room.receiver.held());
        self.persist(Write::Floors { room: name.clone(), floors });
        for entry in freed {
            self.keep(name, entry, None);
        }
        self.trim(name);
    }

    // ---- what others have given up

    /// The answer to a pull says that some of it is no longer kept there: whether anybody else has it.
    pub(super) fn hear_floors(&mut self, session: SessionId, pulled: &Pulled) {
        let me = self.me;
        let Some(room) = self.rooms.get(&pulled.room).filter(|room| room.source == Some(session)) else { return };
        let gone: Vec<_> = room.receiver.gone(pulled).map(|(origin, _)| origin).filter(|of| *of != me).collect();
        for origin in &gone {
            self.survey(&pulled.room, *origin, true);
        }
        if !gone.is_empty() {
            self.settle_floors(&pulled.room);
        }
    }

    /// Asks all live servers what they hold of an origin, where they have not said so just now.
    pub(super) fn survey(&mut self, name: &RoomName, origin: Origin, is_gone: bool) {
        let (now, others) = (self.now, self.others());
        if self.surveys.get(name).is_some_and(|survey| now.since(survey.since) > FRESH) {
            self.surveys.remove(name);
        }
        let survey = self.surveys.entry(name.clone()).or_insert_with(|| Survey::new(now));
        let is_new = !survey.origins.contains_key(&origin);
        if is_new && survey.origins.len() >= ORIGINS_MAX {
            return;
        }
        *survey.origins.entry(origin).or_default() |= is_gone;
        if !is_new && survey.asked.is_some_and(|at| now.since(at) < ASK_AGAIN) {
            return;
        }
        survey.asked = Some(now);
        let origins: Vec<_> = survey.origins.keys().copied().collect();
        let lacks = |peer: &&Origin| origins.iter().any(|origin| !survey.answers.contains_key(&(**peer, *origin)));
        let asked: Vec<_> = others.iter().filter(lacks).map(|peer| peer.id).collect();
        for id in asked {
            self.tell(id, &Frame::Survey { room: name.clone(), origins: origins.clone() });
        }
    }

    /// What all live servers say of an origin, as far as they were asked.
    pub(super) fn elsewhere(&self, name: &RoomName, origin: Origin) -> Elsewhere {
        let held = self.rooms.get(name).map_or(0, |room| room.held().get(origin));
        match (self.others(), self.surveys.get(name)) {
            (others, _) if others.is_empty() => Elsewhere::Nothing,
            (others, Some(survey)) => survey.says(origin, held, &others),
            (_, None) => Elsewhere::Unknown,
        }
    }

    /// What is elsewhere of this origin is not wanted to be known any more.
    pub(super) fn forget_survey(&mut self, name: &RoomName, origin: Origin) {
        let Some(survey) = self.surveys.get_mut(name) else { return };
        survey.origins.remove(&origin);
        survey.answers.retain(|(_, of), _| *of != origin);
        if survey.origins.is_empty() {
            self.surveys.remove(name);
        }
    }

    /// The live servers that we can ask.
    fn others(&self) -> Vec<Origin> {
        let is_reached = |peer: &Origin| self.peers.get(&peer.id).and_then(Peer::session).is_some();
        self.heartbeat.live().filter(is_reached).collect()
    }

    /// A server asks what we hold of some origins.
    pub(super) fn on_survey(&mut self, session: SessionId, name: &RoomName, origins: &[Origin]) {
        let room = self.rooms.get(name);
        let part = |origin: &Origin| {
            room.map_or((*origin, 0, 0), |room| (*origin, room.held().get(*origin), room.log.floors().get(*origin)))
        };
        let parts = origins.iter().take(ORIGINS_MAX).map(part).collect();
        self.say(session, &Frame::Surveyed { room: name.clone(), parts });
    }

    /// A server says what it holds, and what it has given up.
    pub(super) fn on_surveyed(&mut self, session: SessionId, name: &RoomName, parts: &[(Origin, u64, u64)]) {
        let Some(peer) = self.others().into_iter().find(|peer| self.session_of(*peer) == Some(session)) else { return };
        let Some(survey) = self.surveys.get_mut(name) else { return };
        for &(origin, held, floor) in parts {
            if survey.origins.contains_key(&origin) && floor <= held && held < limits::SEQ_BOUND {
                survey.answers.insert((peer, origin), (held, floor));
            }
        }
        self.settle_floors(name);
    }

    fn session_of(&self, peer: Origin) -> Option<SessionId> {
        self.peers.get(&peer.id).filter(|known| known.origin == peer).and_then(Peer::session)
    }

    /// Takes over what all have given up, and pulls what somebody has where that one has it.
    fn settle_floors(&mut self, name: &RoomName) {
        let (now, me) = (self.now, self.me);
        let Some(survey) = self.surveys.get(name) else { return };
        let asked: BTreeSet<_> = survey.origins.iter().filter(|(_, gone)| **gone).map(|(origin, _)| *origin).collect();
        let (mut floors, mut source) = (VersionVector::default(), None);
        let mut settled = Vec::new();
        for origin in asked.into_iter().filter(|origin| *origin != me) {
            match self.elsewhere(name, origin) {
                Elsewhere::Unknown => continue,
                Elsewhere::Nothing => {}
                Elsewhere::At(peer) => source = self.session_of(peer),
                Elsewhere::Gone(floor) => floors.raise(origin, floor),
            }
            settled.push(origin);
        }
        for origin in settled {
            self.forget_survey(name, origin);
        }
        self.take_floors(name, &floors);
        if let (Some(room), Some(_)) = (self.rooms.get_mut(name), source)
            && room.source != source
        {
            room.source = source;
            room.receiver.moved(now);
        }
        self.wake_room(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ServerConfig,
        hlc::Hlc,
        ids::{Boot, DeviceId, PersonId},
        node::rooms::Due,
        store::Restored,
    };

    #[test]
    fn a_floor_counts_once_all_have_said_that_they_lack_what_comes_next() {
        fn origin(id: u32) -> Origin {
            Origin { id: ServerId(id), boot: Boot(7) }
        }
        /// What servers 1, 2, ... hold of origin 9 and have given up of it, of which we hold 10.
        fn check(said: &[Option<(u64, u64)>], expected: Elsewhere) {
            let mut survey = Survey::new(Time::ZERO);
            let others: Vec<_> = (1..).map(origin).take(said.len()).collect();
            let answers = others.iter().zip(said);
            survey.answers = answers.filter_map(|(peer, said)| Some(((*peer, origin(9)), (*said)?))).collect();
            assert_eq!(survey.says(origin(9), 10, &others), expected, "{said:?}");
        }
        check(&[], Elsewhere::Nothing);
        check(&[Some((90, 50))], Elsewhere::Gone(50));
        check(&[Some((90, 50)), None], Elsewhere::Unknown);
        check(&[Some((90, 50)), Some((10, 0))], Elsewhere::Gone(50));
        check(&[Some((90, 50)), Some((90, 40))], Elsewhere::Gone(40));
        check(&[Some((90, 50)), Some((11, 10))], Elsewhere::At(origin(2)));
        check(&[None, Some((11, 0))], Elsewhere::At(origin(2)));
        check(&[Some((10, 0)), Some((0, 0))], Elsewhere::Nothing);
    }

    #[test]
    fn an_entry_below_a_floor_that_becomes_durable_at_last_is_told_to_nobody() {
        let config = ServerConfig { store: Some(Restored::default()), ..ServerConfig::sample(1) };
        let mut node = Node::new(config, [1; 32], Time::ZERO);
        let (name, origin) = (RoomName::lobby(), Origin { id: ServerId(2), boot: Boot(7) });
        let due = Due { person: PersonId([1; 16]), device: DeviceId(1), client_seq: 1, hlc: Hlc::default() };
        let me = node.me;
        node.room(&name).unwrap().waiters.insert((me, 1, SessionId(1)), due);
        node.take_floors(&name, &[(origin, 40)].into_iter().collect());
        assert_eq!(node.rooms[&name].durable().get(origin), 40);
        node.tell_waiters(&name, [(origin, 41, 15)].into_iter(), true);
        assert_eq!(node.rooms[&name].waiters.len(), 1);
        node.take_floors(&name, &[(origin, limits::SEQ_BOUND)].into_iter().collect());
        assert_eq!(node.rooms[&name].durable().get(origin), 40, "no store holds so many");
    }
}
