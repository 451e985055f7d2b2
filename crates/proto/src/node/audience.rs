//! Who follows a room, in the order of their sessions: side by side in memory, since each new entry goes through all of
//! them. They are in pieces of a few hundred, so that to come and to go moves no more than one piece, however many there
//! are: a switch that dies takes thousands with it, and they all come back.

use super::followers::Follower;
use crate::session::SessionId;

/// So many are in one piece at the most: moving half of it takes about a microsecond.
const PIECE_MAX: usize = 512;
/// A piece has no more free places than that: each follower costs next to nothing beyond itself.
const FREE_MAX: usize = 64;

type Piece = Vec<(SessionId, Follower)>;

/// Followers by session.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// In order, none of them empty.
    pieces: Vec<Piece>,
}

impl Audience {
    /// The piece where a session is, or would be.
    fn piece(&self, session: SessionId) -> usize {
        let after = self.pieces.partition_point(|piece| piece.first().is_some_and(|(first, _)| *first <= session));
        after.saturating_sub(1)
    }

    /// One follower.
    pub(super) fn get(&self, session: SessionId) -> Option<&Follower> {
        let piece = self.pieces.get(self.piece(session))?;
        find(piece, session).ok().map(|at| &piece[at].1)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Follower> {
        let at = self.piece(session);
        let piece = self.pieces.get_mut(at)?;
        find(piece, session).ok().map(|at| &mut piece[at].1)
    }

    /// Puts one in, in place of what it was before; whether it is new.
    pub(super) fn insert(&mut self, session: SessionId, follower: Follower) -> bool {
        let mut number = self.piece(session);
        if self.pieces.is_empty() {
            self.pieces.reserve_exact(1);
            self.pieces.push(Vec::new());
        }
        let mut at = match find(&self.pieces[number], session) {
            Ok(at) => {
                self.pieces[number][at].1 = follower;
                return false;
            }
            Err(at) => at,
        };
        if self.pieces[number].len() == PIECE_MAX {
            let behind = self.pieces[number].split_off(PIECE_MAX / 2);
            trim(&mut self.pieces[number]);
            self.pieces.insert(number + 1, behind);
            if at > PIECE_MAX / 2 {
                (number, at) = (number + 1, at - PIECE_MAX / 2);
            }
        }
        let piece = &mut self.pieces[number];
        if piece.len() == piece.capacity() && piece.len() >= FREE_MAX {
            piece.reserve_exact(FREE_MAX);
        }
        piece.insert(at, (session, follower));
        true
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Follower> {
        let number = self.piece(session);
        let piece = self.pieces.get_mut(number)?;
        let (_, follower) = piece.remove(find(piece, session).ok()?);
        if piece.is_empty() {
            self.pieces.remove(number);
            if self.pieces.is_empty() {
                self.pieces = Vec::new();
            }
        } else {
            trim(piece);
            self.join(number);
        }
        Some(follower)
    }

    /// Joins a piece that has become small with the one behind it or before it, so that no two side by side are small.
    fn join(&mut self, number: usize) {
        for first in [Some(number), number.checked_sub(1)].into_iter().flatten() {
            if let [one, other, ..] = &mut self.pieces[first..]
                && one.len() + other.len() <= PIECE_MAX / 2
            {
                one.reserve_exact(other.len());
                one.append(other);
                self.pieces.remove(first + 1);
                return;
            }
        }
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Follower)> {
        self.pieces.iter().flatten().map(|(session, follower)| (*session, follower))
    }

    /// The same, to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SessionId, &mut Follower)> {
        self.pieces.iter_mut().flatten().map(|(session, follower)| (*session, follower))
    }
}

fn find(piece: &Piece, session: SessionId) -> Result<usize, usize> {
    piece.binary_search_by_key(&session, |(session, _)| *session)
}

/// Gives back places that many have left.
fn trim(piece: &mut Piece) {
    if piece.capacity() - piece.len() > FREE_MAX {
        piece.shrink_to(piece.len() + FREE_MAX / 2);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        ids::{Boot, Origin, ServerId},
        log::VersionVector,
        rng::Rng,
        wire::frame::Start,
    };

    /// A follower that is known by its number.
    fn follower(number: u64) -> Follower {
        let server = Origin { id: ServerId(1), boot: Boot(number) };
        Follower::new(Start::Last(0), VersionVector::default(), Some(server))
    }

    fn number(follower: &Follower) -> u64 {
        follower.server.map_or(0, |server| server.boot.0)
    }

    #[track_caller]
    fn check(audience: &Audience, expected: &BTreeMap<SessionId, u64>) {
        assert!(
            audience.iter().map(|(id, follower)| (id, number(follower))).eq(expected.iter().map(|(i, n)| (*i, *n)))
        );
        assert_eq!((audience.len(), audience.is_empty()), (expected.len(), expected.is_empty()));
        assert!(audience.pieces.iter().all(|piece| (1..=PIECE_MAX).contains(&piece.len())));
        assert!(audience.pieces.iter().all(|piece| piece.capacity() - piece.len() <= FREE_MAX));
        assert!(audience.pieces.windows(2).all(|two| two[0].len() + two[1].len() > PIECE_MAX / 2));
    }

    #[test]
    fn thousands_come_and_go_and_each_is_found() {
        let mut rng = Rng::from_seed([7; 32]);
        let (mut audience, mut expected) = (Audience::default(), BTreeMap::new());
        let mut session = move || SessionId(rng.u32() >> 15);
        for (turns, mostly_come) in [(60_000, true), (60_000, false), (30_000, true), (120_000, false)] {
            for turn in 1..=turns {
                let id = session();
                if mostly_come == (turn % 4 > 0) {
                    assert_eq!(audience.insert(id, follower(turn)), expected.insert(id, turn).is_none());
                } else {
                    // Most go by where they are in the order.
                    let gone = expected.range(id..).next().map_or(id, |(id, _)| *id);
                    assert_eq!(audience.remove(gone).map(|follower| number(&follower)), expected.remove(&gone));
                }
                assert_eq!(audience.get(id).map(number), expected.get(&id).copied());
                assert_eq!(audience.get_mut(id).map(|follower| number(follower)), expected.get(&id).copied());
                if turn % 2_000 == 0 {
                    check(&audience, &expected);
                }
            }
        }
        for id in expected.keys() {
            assert!(audience.remove(*id).is_some());
        }
        check(&audience, &BTreeMap::new());
        assert_eq!(audience.pieces.capacity(), 0);
    }
}
