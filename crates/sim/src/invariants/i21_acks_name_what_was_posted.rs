//! Invariant 21: no duplicate is acknowledged whose body was not stored. Every acknowledgement, the first as well as one
//! of a repetition, names an entry that some log has held, with the author, the number and the body of the post.

use std::collections::BTreeMap;

use hobnob_proto::{
    ids::RoomName,
    log::{Entry, PostKey},
    time::Time,
};

use super::Invariant;
use crate::facts::{Dot, Fact, dot};

/// The invariant.
#[derive(Debug, Default)]
pub struct Acks {
    entries: BTreeMap<Dot, Entry>,
    posts: BTreeMap<(RoomName, PostKey), String>,
    acked: bool,
}

impl Invariant for Acks {
    fn name(&self) -> &'static str {
        "i21_acks_name_what_was_posted"
    }

    fn judged(&self) -> bool {
        self.acked
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Held { entry, .. } => {
                self.entries.entry(dot(entry)).or_insert_with(|| (*entry).clone());
            }
            Fact::Posted { room, key, body, .. } => {
                self.posts.insert(((*room).clone(), *key), (*body).to_owned());
            }
            Fact::Acked { client, key, dot, .. } => {
                self.acked = true;
                let (room, origin, seq) = dot;
                let post =
                    format!("client {}: post {} is acknowledged as {room} {origin}:{seq}", client.of, key.client_seq);
                let Some(body) = self.posts.get(&(room.clone(), *key)) else {
                    return Err(format!("{post}, but was never made"));
                };
                let Some(entry) = self.entries.get(dot) else {
                    return Err(format!("{post}, which no log has held"));
                };
                // Whoever is another device meanwhile may still hear of the same post as the old one's.
                let posted = self.posts.get(&(room.clone(), entry.post_key()));
                let is_ours = (entry.person, entry.client_seq) == (key.person, key.client_seq);
                if !is_ours || posted.is_none() || *entry.body != **body {
                    return Err(format!("{post}, which is {entry:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{entry, first_bad, key, process};

    #[test]
    fn an_acknowledgement_of_something_else_is_seen() {
        fn check(client_seq: u64, body: &str, seq: u64, expected: Option<usize>) {
            let (lobby, entry) = (RoomName::lobby(), entry(1, 1, 1, 5, "x"));
            let key = key(client_seq);
            let facts = [
                Fact::Posted { client: process(0), room: &lobby, key, body },
                Fact::Held { server: process(1), own: true, entry: &entry },
                Fact::Acked {
                    client: process(0),
                    key,
                    dot: (lobby.clone(), entry.origin, seq),
                    copies: 2,
                    stored: true,
                    durable: false,
                },
            ];
            assert_eq!(first_bad(&mut Acks::default(), &facts), expected, "{client_seq} {body:?} {seq}");
        }
        check(1, "x", 1, None);
        check(1, "y", 1, Some(2));
        check(2, "x", 1, Some(2));
        check(1, "x", 2, Some(2));
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_posted_is_seen() {
        let entry = entry(1, 1, 1, 5, "x");
        let held = Fact::Held { server: process(1), own: true, entry: &entry };
        let acked =
            Fact::Acked { client: process(0), key: key(1), dot: dot(&entry), copies: 2, stored: false, durable: false };
        assert_eq!(first_bad(&mut Acks::default(), &[held, acked]), Some(1));
    }
}
