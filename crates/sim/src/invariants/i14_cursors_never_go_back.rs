//! Invariant 14: a client's cursor never goes back, and every hole is filled. What a cursor has passed over has been
//! shown; in the end it covers all that any server holds.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    ids::RoomName,
    log::{PostKey, VersionVector, entry::MESSAGE},
    time::Time,
};

use super::Invariant;
use crate::facts::{ClientPicture, Dot, Fact, Picture, Process, dot};

/// The invariant.
#[derive(Debug, Default)]
pub struct Cursors {
    /// Every message that some log has ever held.
    messages: BTreeMap<Dot, PostKey>,
    last: BTreeMap<(Process, RoomName), VersionVector>,
    bases: BTreeMap<(Process, RoomName), VersionVector>,
    shown: BTreeMap<(Process, RoomName), BTreeSet<PostKey>>,
    /// Some cursor took the place of another.
    moved: bool,
}

impl Cursors {
    /// All that a cursor covers has been shown, in this run or before it.
    fn nothing_skipped(&self, client: &ClientPicture, room: &RoomName, cursor: &VersionVector) -> Result<(), String> {
        let at = (client.process, room.clone());
        let (nothing, nowhere) = (BTreeSet::new(), VersionVector::default());
        let (shown, base) = (self.shown.get(&at).unwrap_or(&nothing), self.bases.get(&at).unwrap_or(&nowhere));
        let messages = self.messages.iter().filter(|((of, ..), _)| of == room);
        let before: BTreeSet<_> =
            messages.clone().filter(|((_, origin, seq), _)| base.holds(*origin, *seq)).map(|(_, key)| *key).collect();
        for ((_, origin, seq), key) in messages {
            if cursor.holds(*origin, *seq) && !shown.contains(key) && !before.contains(key) {
                return Err(format!("client {} has passed over {room} {origin}:{seq}", client.process.of));
            }
        }
        Ok(())
    }
}

impl Invariant for Cursors {
    fn name(&self) -> &'static str {
        "i14_cursors_never_go_back"
    }

    fn judged(&self) -> bool {
        self.moved
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Held { entry, .. } if &*entry.kind == MESSAGE => {
                self.messages.insert(dot(entry), entry.post_key());
            }
            Fact::Followed { client, room, base } => {
                self.bases.insert((*client, (*room).clone()), (*base).clone());
            }
            Fact::Shown { client, entry, .. } => {
                self.shown.entry((*client, entry.room.clone())).or_default().insert(entry.post_key());
            }
            Fact::Cursor { client, room, cursor } => {
                let before = self.last.insert((*client, (*room).clone()), (*cursor).clone());
                self.moved |= before.is_some();
                if let Some(before) = before.filter(|before| !cursor.covers(before)) {
                    return Err(format!("client {} goes back in {room} from {before:?} to {cursor:?}", client.of));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        for client in &picture.clients {
            for (room, cursor) in &client.rooms {
                self.nothing_skipped(client, room, cursor)?;
                let held =
                    |room: &RoomName| picture.servers.iter().filter_map(|server| server.rooms.get(room)).collect();
                let held: Vec<_> = held(room);
                if let Some(ahead) = held.iter().find(|view| !cursor.covers(&view.held)) {
                    let of = client.process.of;
                    return Err(format!("client {of} stands in {room} at {cursor:?}, and there is {:?}", ahead.held));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{client, entry, fence, first_bad, process, server, vector};

    #[test]
    fn a_cursor_that_goes_back_is_seen() {
        fn check(first: &[(u32, u64)], second: &[(u32, u64)], expected: Option<usize>) {
            let (lobby, first, second) = (RoomName::lobby(), vector(first), vector(second));
            let cursor = |cursor| Fact::Cursor { client: process(0), room: &lobby, cursor };
            assert_eq!(first_bad(&mut Cursors::default(), &[cursor(&first), cursor(&second)]), expected);
        }
        check(&[(1, 1)], &[(1, 2)], None);
        check(&[(1, 2)], &[(1, 1)], Some(1));
        check(&[(1, 2), (2, 2)], &[(1, 3)], Some(1));
    }

    #[test]
    fn a_hole_that_was_passed_over_or_never_filled_is_seen() {
        fn check(shown: u64, cursor: u64, base: u64, expected: bool) {
            let entries = [entry(1, 1, 1, 5, "x"), entry(1, 2, 2, 6, "y")];
            let (lobby, base) = (RoomName::lobby(), vector(&[(1, base)]));
            let mut facts = vec![Fact::Followed { client: process(0), room: &lobby, base: &base }];
            facts.extend(entries.iter().map(|entry| Fact::Held { server: process(1), own: true, entry }));
            let seen = entries.iter().filter(|entry| entry.seq <= shown);
            facts.extend(seen.map(|entry| Fact::Shown { client: process(0), entry, late: false }));
            let mut invariant = Cursors::default();
            assert_eq!(first_bad(&mut invariant, &facts), None);
            let servers = vec![server(1, 1, fence(1, 1), true, &[(1, 2)])];
            let picture = Picture { servers, clients: vec![client(&[(1, cursor)])], ..Picture::default() };
            assert_eq!(invariant.settled(&picture).is_ok(), expected, "shown {shown}, cursor {cursor}, {base:?}");
        }
        check(2, 2, 0, true);
        check(1, 2, 0, false);
        check(1, 1, 0, false);
        check(0, 2, 2, true);
    }
}
