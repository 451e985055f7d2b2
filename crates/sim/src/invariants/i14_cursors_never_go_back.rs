//! Invariant 14: a client's cursor never goes back, and every hole is filled. What a cursor has passed over has been
//! shown; in the end it covers all that any server holds.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    ids::RoomName,
    log::{PostKey, VersionVector, entry::MESSAGE},
    time::Time,
    wire::frame::Start,
};

use super::Invariant;
use crate::facts::{ClientPicture, Dot, Fact, Picture, Process, dot};

/// The invariant.
#[derive(Debug, Default)]
pub struct Cursors {
    /// Every message that some log has ever held.
    messages: BTreeMap<Dot, (PostKey, u64)>,
    /// What was asked for where no cursor was given.
    asked: BTreeMap<(Process, RoomName), Start>,
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
        let before: BTreeSet<_> = messages
            .clone()
            .filter(|((_, origin, seq), _)| base.holds(*origin, *seq))
            .map(|(_, (key, _))| *key)
            .collect();
        for ((_, origin, seq), (key, _)) in messages {
            if cursor.holds(*origin, *seq) && !shown.contains(key) && !before.contains(key) {
                return Err(format!("client {} has passed over {room} {origin}:{seq}", client.process.of));
            }
        }
        Ok(())
    }
}

impl Cursors {
    /// Of those who did not begin at a cursor: the last posts, as many as were asked for, or all from that time on.
    fn as_asked(&self, client: &ClientPicture, room: &RoomName, cursor: &VersionVector) -> Result<(), String> {
        let at = (client.process, room.clone());
        let Some(from) = self.asked.get(&at) else { return Ok(()) };
        let shown = self.shown.get(&at);
        let is_shown = |key: &PostKey| shown.is_some_and(|shown| shown.contains(key));
        let messages = self.messages.iter().filter(|((of, origin, seq), _)| of == room && cursor.holds(*origin, *seq));
        let posts: BTreeMap<_, _> = messages.map(|(_, (key, millis))| (*key, *millis)).collect();
        let of = client.process.of;
        match from {
            Start::Since(millis) => match posts.iter().find(|(key, at)| *at >= millis && !is_shown(key)) {
                Some((key, at)) => Err(format!("client {of} was not shown {room} from {millis} on: {key:?} at {at}")),
                None => Ok(()),
            },
            Start::Last(count) => {
                let (shown, wanted) = (shown.map_or(0, BTreeSet::len), posts.len().min(*count as usize));
                let why = || format!("client {of} was shown {shown} of the last {wanted} in {room}");
                if shown < wanted { Err(why()) } else { Ok(()) }
            }
            Start::After(_) => Ok(()),
        }
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
                self.messages.insert(dot(entry), (entry.post_key(), entry.hlc.millis));
            }
            Fact::Asked { client, room, from } => {
                self.asked.insert((*client, (*room).clone()), (*from).clone());
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
                self.as_asked(client, room, cursor)?;
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
    fn who_asks_for_the_last_posts_or_since_a_time_is_shown_these() {
        fn check(from: &Start, shown: &[u64], expected: bool) {
            let entries = [entry(1, 1, 1, 5, "x"), entry(1, 2, 2, 6, "y")];
            let (lobby, base) = (RoomName::lobby(), vector(&[(1, 2 - shown.len() as u64)]));
            let mut facts = vec![Fact::Asked { client: process(0), room: &lobby, from }];
            facts.push(Fact::Followed { client: process(0), room: &lobby, base: &base });
            facts.extend(entries.iter().map(|entry| Fact::Held { server: process(1), own: true, entry }));
            let seen = entries.iter().filter(|entry| shown.contains(&entry.seq));
            facts.extend(seen.map(|entry| Fact::Shown { client: process(0), entry, late: false }));
            let mut invariant = Cursors::default();
            assert_eq!(first_bad(&mut invariant, &facts), None);
            let servers = vec![server(1, 1, fence(1, 1), true, &[(1, 2)])];
            let picture = Picture { servers, clients: vec![client(&[(1, 2)])], ..Picture::default() };
            assert_eq!(invariant.settled(&picture).is_ok(), expected, "{from:?}, shown {shown:?}");
        }
        check(&Start::Last(1), &[2], true);
        check(&Start::Last(2), &[2], false);
        check(&Start::Last(9), &[1, 2], true);
        check(&Start::Since(6), &[2], true);
        check(&Start::Since(5), &[2], false);
        check(&Start::Since(7), &[], true);
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
