//! Invariant 16: corruption is detected, repaired from a peer, and never spread. In the end no disk has a rotten entry
//! (each was on another disk when it became so), and nobody has shown anything but what was made.

use std::collections::BTreeMap;

use hobnob_proto::{log::Hash, time::Time};

use super::Invariant;
use crate::facts::{Dot, Fact, Picture, dot};

/// The invariant.
#[derive(Debug, Default)]
pub struct Repaired {
    made: BTreeMap<Dot, Hash>,
    judged: bool,
}

impl Invariant for Repaired {
    fn name(&self) -> &'static str {
        "i16_rot_is_repaired"
    }

    fn judged(&self) -> bool {
        self.judged
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::Rotten { .. } => self.judged = true,
            Fact::Held { own: true, entry, .. } => {
                self.made.insert(dot(entry), entry.hash);
            }
            Fact::Shown { client, entry, .. } => {
                let is_made = self.made.get(&dot(entry)).is_none_or(|hash| *hash == entry.hash);
                if !is_made || !entry.is_intact() {
                    let (room, origin, seq) = dot(entry);
                    return Err(format!("client {} shows {room} {origin}:{seq}, which is rotten", client.of));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        match picture.servers.iter().find(|server| server.rotten) {
            Some(server) => Err(format!("server {} has rotten entries on its disk", server.id)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        facts::ServerPicture,
        invariants::history::{entry, fence, first_bad, process, server},
    };

    #[test]
    fn a_rotten_entry_that_is_shown_or_stays_is_seen() {
        let (good, mut bad) = (entry(1, 1, 1, 5, "x"), entry(1, 1, 1, 5, "x"));
        bad.body = "y".into();
        let shown = |entry| Fact::Shown { client: process(0), entry, late: false };
        assert_eq!(first_bad(&mut Repaired::default(), &[shown(&good), shown(&bad)]), Some(1));
        for rotten in [false, true] {
            let servers = vec![ServerPicture { rotten, ..server(1, 1, fence(1, 1), true, &[]) }];
            let picture = Picture { servers, ..Picture::default() };
            assert_eq!(Repaired::default().settled(&picture).is_err(), rotten);
        }
    }
}
