//! Who follows a room, in the order of their sessions: side by side in memory, since each new entry goes through all of
//! them. To come and to go costs a little more for that.

use super::followers::Follower;
use crate::session::SessionId;

/// Followers by session.
#[derive(Debug, Default)]
pub(super) struct Audience(Vec<(SessionId, Follower)>);

impl Audience {
    fn find(&self, session: SessionId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&session, |(session, _)| *session)
    }

    /// One follower.
    pub(super) fn get(&self, session: SessionId) -> Option<&Follower> {
        self.find(session).ok().map(|at| &self.0[at].1)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Follower> {
        self.find(session).ok().map(|at| &mut self.0[at].1)
    }

    /// Puts one in, in place of what it was before; whether it is new.
    pub(super) fn insert(&mut self, session: SessionId, follower: Follower) -> bool {
        match self.find(session) {
            Ok(at) => self.0[at].1 = follower,
            Err(at) => {
                self.0.insert(at, (session, follower));
                return true;
            }
        }
        false
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Follower> {
        let follower = self.find(session).ok().map(|at| self.0.remove(at).1);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        follower
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Follower)> {
        self.0.iter().map(|(session, follower)| (*session, follower))
    }

    /// The same, to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SessionId, &mut Follower)> {
        self.0.iter_mut().map(|(session, follower)| (*session, follower))
    }
}
