//! Invariant 5: each (person, device, room, `client_seq`) is shown once, by every client, however often it was sent and
//! under however many dots it is held.

use std::collections::BTreeSet;

use hobnob_proto::{ids::RoomName, log::PostKey, time::Time};

use super::Invariant;
use crate::facts::{Fact, Picture, Process};

/// The invariant.
#[derive(Debug, Default)]
pub struct ShownOnce {
    shown: BTreeSet<(Process, RoomName, PostKey)>,
}

impl Invariant for ShownOnce {
    fn name(&self) -> &'static str {
        "i05_each_post_is_shown_once"
    }

    fn judged(&self) -> bool {
        !self.shown.is_empty()
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        let Fact::Shown { client, entry, .. } = fact else { return Ok(()) };
        if self.shown.insert((*client, entry.room.clone(), entry.post_key())) {
            return Ok(());
        }
        let (room, origin, seq) = (&entry.room, entry.origin, entry.seq);
        Err(format!(
            "client {} shows post {} of {} twice: {room} {origin}:{seq}",
            client.of, entry.client_seq, entry.from
        ))
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        for server in &picture.servers {
            if let Some((taken, first)) = server.doubled.iter().find(|(taken, first)| taken != first) {
                return Err(format!("server {} takes {taken:?} for canonical, and not {first:?}", server.id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{entry, first_bad, process};

    #[test]
    fn a_post_under_two_dots_is_shown_once() {
        let (first, again, other) = (entry(1, 1, 1, 5, "x"), entry(2, 1, 1, 6, "x"), entry(1, 2, 2, 7, "x"));
        let shown = |of, entry| Fact::Shown { client: process(of), entry, late: false };
        let facts = [shown(0, &first), shown(0, &other), shown(1, &again), shown(0, &again)];
        assert_eq!(first_bad(&mut ShownOnce::default(), &facts), Some(3));
    }
}
