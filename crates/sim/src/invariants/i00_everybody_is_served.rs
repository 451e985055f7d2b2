//! Before all numbers: in the end everybody is served. Every client has a server, and what it posted is settled; no post
//! was refused that is well-formed.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    ids::{PersonId, RoomName},
    log::PostKey,
    time::Time,
    wire::frame::Refusal,
};

use super::Invariant;
use crate::facts::{Fact, Picture};

/// The invariant.
#[derive(Debug, Default)]
pub struct EverybodyIsServed {
    posted: bool,
    /// What was posted under each number, and which numbers were used twice.
    bodies: BTreeMap<(RoomName, PostKey), String>,
    twice: BTreeSet<(PersonId, u64)>,
}

impl Invariant for EverybodyIsServed {
    fn name(&self) -> &'static str {
        "i00_everybody_is_served"
    }

    fn judged(&self) -> bool {
        self.posted
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Posted { room, key, body, .. } => {
                self.posted = true;
                let before = self.bodies.insert(((*room).clone(), *key), (*body).to_owned());
                if before.is_some_and(|before| before != **body) {
                    self.twice.insert((key.person, key.client_seq));
                }
                Ok(())
            }
            Fact::Refused { why: Refusal::CannotStore, .. } => Ok(()),
            Fact::Refused { why: Refusal::Clash, key, .. } if self.twice.contains(&(key.person, key.client_seq)) => {
                Ok(())
            }
            Fact::Refused { client, key, why } => {
                Err(format!("client {}: post {} was refused: {why:?}", client.of, key.client_seq))
            }
            _ => Ok(()),
        }
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        for client in &picture.clients {
            let of = client.process.of;
            if client.connected.is_none() {
                return Err(format!("client {of} has no server"));
            }
            if let Some((room, seq)) = client.unsettled.first() {
                let count = client.unsettled.len();
                return Err(format!("client {of}: post {seq} to {room} and {} others are not stored", count - 1));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        facts::ClientPicture,
        invariants::history::{client, first_bad, key, process},
    };

    #[test]
    fn a_client_without_a_server_or_with_an_open_post_is_seen() {
        fn check(client: ClientPicture, expected: bool) {
            let picture = Picture { clients: vec![client], ..Picture::default() };
            assert_eq!(EverybodyIsServed::default().settled(&picture).is_ok(), expected, "{picture:?}");
        }
        check(client(&[]), true);
        check(ClientPicture { connected: None, ..client(&[]) }, false);
        check(ClientPicture { unsettled: vec![(RoomName::lobby(), 3)], ..client(&[]) }, false);
    }

    #[test]
    fn a_refusal_is_seen() {
        let fact = Fact::Refused { client: process(0), key: key(1), why: Refusal::Clash };
        assert_eq!(first_bad(&mut EverybodyIsServed::default(), &[fact]), Some(0));
    }
}
