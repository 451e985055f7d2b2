//! Invariant 20: a server without the secret never becomes a member of a closed cluster, nor does a member of it become one
//! of the stranger's.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{ids::Origin, time::Time};

use super::Invariant;
use crate::facts::{Fact, Process};

/// The invariant.
#[derive(Debug, Default)]
pub struct NoStranger {
    /// Who has, or had, the secret; and who has not, each by itself.
    ours: BTreeSet<Origin>,
    strangers: BTreeMap<Origin, Process>,
}

impl Invariant for NoStranger {
    fn name(&self) -> &'static str {
        "i20_no_stranger_is_a_member"
    }

    fn judged(&self) -> bool {
        !self.ours.is_empty() && !self.strangers.is_empty()
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        let Fact::Members { server, stranger, me, members } = fact else { return Ok(()) };
        if *stranger {
            self.strangers.insert(*me, *server);
        } else {
            self.ours.insert(*me);
        }
        let is_wrong = |member: &&Origin| match stranger {
            true => self.ours.contains(*member),
            false => self.strangers.contains_key(*member),
        };
        match members.iter().find(is_wrong) {
            Some(member) => Err(format!("{member} is a member at {me}, and one of them does not have the secret")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{first_bad, origin, process};

    #[test]
    fn a_stranger_among_us_and_one_of_us_among_strangers_is_seen() {
        fn check(stranger: bool, members: &[u32], expected: Option<usize>) {
            let own = [1, 2, 9].map(|id| [origin(id)]);
            let members: Vec<_> = members.iter().map(|id| origin(*id)).collect();
            let told = |id: u32, stranger, members| Fact::Members {
                server: process(id as usize),
                stranger,
                me: origin(id),
                members,
            };
            let facts = [
                told(1, false, &own[0][..]),
                told(2, false, &own[1]),
                told(9, true, &own[2]),
                told(if stranger { 9 } else { 1 }, stranger, &members),
            ];
            assert_eq!(first_bad(&mut NoStranger::default(), &facts), expected, "{stranger} {members:?}");
        }
        check(false, &[1, 2], None);
        check(false, &[1, 2, 9], Some(3));
        check(true, &[9], None);
        check(true, &[1, 9], Some(3));
    }
}
