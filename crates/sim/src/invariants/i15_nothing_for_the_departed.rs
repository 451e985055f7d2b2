//! Invariant 15: nothing is delivered to a member after its removal is known there. Nobody who knows that a server has
//! left seals another packet for its machine.

use std::collections::BTreeSet;

use hobnob_proto::time::Time;

use super::Invariant;
use crate::facts::{Fact, Process};

/// The invariant.
#[derive(Debug, Default)]
pub struct NothingForTheDeparted {
    known: BTreeSet<(Process, Process)>,
}

impl Invariant for NothingForTheDeparted {
    fn name(&self) -> &'static str {
        "i15_nothing_for_the_departed"
    }

    fn judged(&self) -> bool {
        !self.known.is_empty()
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        match fact {
            Fact::KnowsOf { server, departed } => {
                self.known.insert((*server, *departed));
                Ok(())
            }
            Fact::SealedFor { server, departed } if self.known.contains(&(*server, *departed)) => {
                Err(format!("server {} knows that server {} has left, and sends it something", server.of, departed.of))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{first_bad, process};

    #[test]
    fn a_packet_for_somebody_who_is_known_to_have_left_is_seen() {
        let knows = |of, departed| Fact::KnowsOf { server: process(of), departed };
        let sealed = |of, departed| Fact::SealedFor { server: process(of), departed };
        let (left, other) = (process(3), process(4));
        let facts = [sealed(1, left), knows(1, left), sealed(2, left), sealed(1, other), sealed(1, left)];
        assert_eq!(first_bad(&mut NothingForTheDeparted::default(), &facts), Some(4));
    }
}
