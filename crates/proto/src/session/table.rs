//! The table of sessions. An index that the other side puts on its packets says where its session lies: so finding it
//! costs the same with ten sessions and with a hundred thousand. Above that place it is random, so that packets of a
//! session that is gone are not taken for its successor's.

use std::ops::Index;

use crate::{
    limits,
    rng::Rng,
    session::{SessionId, outbox::Chain, state::Session},
};

/// Bits of an index that say where its session lies.
const PLACE_BITS: u32 = 18;
const _: () = assert!(limits::SESSIONS_MAX < 1 << PLACE_BITS, "each session has a place");

/// Sessions by index.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// With what each gets in this turn: lines for many go out without a look at the sessions themselves.
    places: Vec<Option<(SessionId, Chain, Box<Session>)>>,
    /// Places that are free, the next to be taken last.
    free: Vec<u32>,
    len: usize,
}

// Keys are given as to any other map.
#[expect(clippy::trivially_copy_pass_by_ref)]
impl Table {
    /// An index that no session has; `None` where all places are taken. The next session that is inserted is to have it.
    pub(super) fn new_id(&self, rng: &mut Rng) -> Option<SessionId> {
        let place = self.free.last().copied().unwrap_or(self.places.len() as u32);
        let above = rng.u32() << PLACE_BITS;
        // Zero is nobody's.
        let id = if above | place == 0 { 1 << PLACE_BITS } else { above | place };
        (place < 1 << PLACE_BITS).then_some(SessionId(id))
    }

    /// Adds a session with the index that [`Self::new_id`] gave.
    pub(super) fn insert(&mut self, id: SessionId, session: Box<Session>) {
        let at = place(id);
        if self.free.last().is_some_and(|free| *free as usize == at) {
            self.free.pop();
        } else {
            debug_assert_eq!(at, self.places.len(), "its index was given to it");
            self.places.push(None);
        }
        self.places[at] = Some((id, Chain::default(), session));
        self.len += 1;
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, id: &SessionId) -> Option<Box<Session>> {
        let (_, _, session) = self.places.get_mut(place(*id))?.take_if(|(held, ..)| held == id)?;
        self.free.push(place(*id) as u32);
        self.len -= 1;
        Some(session)
    }

    /// The session with that index.
    pub(super) fn get(&self, id: &SessionId) -> Option<&Session> {
        let (held, _, session) = self.places.get(place(*id))?.as_ref()?;
        (held == id).then_some(session)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        let (held, _, session) = self.places.get_mut(place(*id))?.as_mut()?;
        (held == id).then_some(session)
    }

    /// What the session with that index gets in this turn, to change it.
    pub(super) fn chain_mut(&mut self, id: &SessionId) -> Option<&mut Chain> {
        let (held, chain, _) = self.places.get_mut(place(*id))?.as_mut()?;
        (held == id).then_some(chain)
    }

    /// The same, of none if there is no such session.
    pub(super) fn chain(&self, id: &SessionId) -> Chain {
        let found = self.places.get(place(*id)).and_then(Option::as_ref).filter(|(held, ..)| held == id);
        found.map_or_else(Chain::default, |(_, chain, _)| *chain)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All of them.
    pub(super) fn values(&self) -> impl Iterator<Item = (Chain, &Session)> {
        self.places.iter().flatten().map(|(_, chain, session)| (*chain, &**session))
    }
}

impl Index<&SessionId> for Table {
    type Output = Session;

    fn index(&self, id: &SessionId) -> &Session {
        self.get(id).expect("there is such a session")
    }
}

/// Where the session with that index lies.
fn place(id: SessionId) -> usize {
    (id.0 & ((1 << PLACE_BITS) - 1)) as usize
}
