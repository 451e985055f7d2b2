//! Invariant 4: after a heal all copies of a room hold the same set, in the same order. The copies are the logs of all
//! servers, and what every client in the room has shown.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    ids::RoomName,
    log::{Entry, PostKey, VersionVector, entry::DisplayOrder, entry::MESSAGE},
    time::Time,
};

use super::Invariant;
use crate::facts::{ClientPicture, Dot, Fact, Picture, Process, dot};

/// What one client has shown of one room.
#[derive(Debug, Default)]
struct Shown {
    /// What it had shown before this run.
    base: VersionVector,
    keys: BTreeSet<PostKey>,
    newest: Option<DisplayOrder>,
}

/// The invariant.
#[derive(Debug, Default)]
pub struct CopiesAgree {
    /// Every message that some log has ever held.
    messages: BTreeMap<Dot, PostKey>,
    shown: BTreeMap<(Process, RoomName), Shown>,
    /// Some message was held twice, and has to be the same everywhere.
    copied: bool,
}

impl CopiesAgree {
    fn note(&mut self, entry: &Entry) {
        if &*entry.kind == MESSAGE {
            self.copied |= self.messages.insert(dot(entry), entry.post_key()).is_some();
        }
    }

    /// A shown message belongs below all that were shown before, unless it said so.
    fn order(&mut self, client: Process, entry: &Entry, late: bool) -> Result<(), String> {
        let shown = self.shown.entry((client, entry.room.clone())).or_default();
        let is_late = shown.newest.is_some_and(|newest| entry.order() < newest);
        shown.keys.insert(entry.post_key());
        shown.newest = shown.newest.max(Some(entry.order()));
        if is_late == late {
            return Ok(());
        }
        let (room, origin, seq) = (&entry.room, entry.origin, entry.seq);
        Err(format!("client {}: {room} {origin}:{seq} is late: {is_late}, but it said: {late}", client.of))
    }

    /// A client has shown every message of `held`, or had shown it before this run.
    fn has_shown(&self, client: &ClientPicture, room: &RoomName, held: &VersionVector) -> Result<(), String> {
        let nothing = Shown::default();
        let shown = self.shown.get(&(client.process, room.clone())).unwrap_or(&nothing);
        let in_room = self.messages.iter().filter(|((of, ..), _)| of == room);
        let before: BTreeSet<_> = in_room
            .clone()
            .filter(|((_, origin, seq), _)| shown.base.holds(*origin, *seq))
            .map(|(_, key)| *key)
            .collect();
        let mut missing = in_room.filter(|((_, origin, seq), key)| {
            held.holds(*origin, *seq) && !shown.keys.contains(key) && !before.contains(key)
        });
        let Some(((_, origin, seq), _)) = missing.next() else { return Ok(()) };
        let more = missing.count();
        Err(format!("client {} has not shown {room} {origin}:{seq}, nor {more} others", client.process.of))
    }
}

impl Invariant for CopiesAgree {
    fn name(&self) -> &'static str {
        "i04_copies_agree"
    }

    fn judged(&self) -> bool {
        self.copied
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Held { entry, .. } => self.note(entry),
            Fact::Followed { client, room, base } => {
                let shown = Shown { base: (*base).clone(), ..Shown::default() };
                self.shown.insert((*client, (*room).clone()), shown);
            }
            Fact::Shown { client, entry, late } => return self.order(*client, entry, *late),
            _ => {}
        }
        Ok(())
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        let rooms: BTreeSet<_> = picture.servers.iter().flat_map(|server| server.rooms.keys()).collect();
        for room in rooms {
            let nothing = VersionVector::default();
            let held = |n: usize| picture.servers[n].rooms.get(room).map_or(&nothing, |room| &room.held);
            if let Some(n) = (1..picture.servers.len()).find(|n| held(*n) != held(0)) {
                let (one, other) = (picture.servers[0].id, picture.servers[n].id);
                return Err(format!("{room}: server {one} holds {:?}, server {other} holds {:?}", held(0), held(n)));
            }
            for client in picture.clients.iter().filter(|client| client.rooms.contains_key(room)) {
                self.has_shown(client, room, held(0))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{client, entry, fence, first_bad, process, server};

    #[test]
    fn logs_that_differ_are_seen() {
        fn check(one: &[(u32, u64)], other: &[(u32, u64)], expected: bool) {
            let servers = vec![server(1, 2, fence(1, 1), true, one), server(2, 2, fence(1, 1), false, other)];
            let picture = Picture { servers, ..Picture::default() };
            assert_eq!(CopiesAgree::default().settled(&picture).is_ok(), expected);
        }
        check(&[(1, 5)], &[(1, 5)], true);
        check(&[(1, 5)], &[(1, 4)], false);
        check(&[(1, 5)], &[], false);
    }

    #[test]
    fn a_message_that_a_client_has_not_shown_is_seen() {
        let (first, second) = (entry(1, 1, 1, 5, "x"), entry(1, 2, 2, 6, "y"));
        let mut invariant = CopiesAgree::default();
        let facts = [
            Fact::Held { server: process(1), own: true, entry: &first },
            Fact::Held { server: process(1), own: true, entry: &second },
            Fact::Shown { client: process(0), entry: &first, late: false },
        ];
        assert_eq!(first_bad(&mut invariant, &facts), None);
        let servers = vec![server(1, 1, fence(1, 1), true, &[(1, 2)])];
        let picture = Picture { servers, clients: vec![client(&[(1, 2)])], ..Picture::default() };
        assert!(invariant.settled(&picture).is_err());
        let shown = Fact::Shown { client: process(0), entry: &second, late: false };
        assert_eq!(first_bad(&mut invariant, &[shown]), None);
        assert_eq!(invariant.settled(&picture), Ok(()));
    }

    #[test]
    fn a_message_out_of_its_order_says_so() {
        fn check(late: bool, expected: Option<usize>) {
            let (newer, older) = (entry(1, 1, 1, 9, "x"), entry(2, 1, 2, 5, "y"));
            let facts = [
                Fact::Shown { client: process(0), entry: &newer, late: false },
                Fact::Shown { client: process(0), entry: &older, late },
            ];
            assert_eq!(first_bad(&mut CopiesAgree::default(), &facts), expected);
        }
        check(true, None);
        check(false, Some(1));
    }
}
