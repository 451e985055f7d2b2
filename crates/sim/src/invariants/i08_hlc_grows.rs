//! Invariant 8: the HLC grows within an origin and room, and a home's new HLC exceeds all it holds there.

use std::collections::BTreeMap;

use hobnob_proto::{hlc::Hlc, ids::RoomName, time::Time};

use super::Invariant;
use crate::facts::{Dot, Fact, Process, dot};

/// The invariant.
#[derive(Debug, Default)]
pub struct HlcGrows {
    times: BTreeMap<Dot, Hlc>,
    newest: BTreeMap<(Process, RoomName), Hlc>,
    /// Some home has made an entry after another.
    grew: bool,
}

impl Invariant for HlcGrows {
    fn name(&self) -> &'static str {
        "i08_hlc_grows"
    }

    fn judged(&self) -> bool {
        self.grew
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        let Fact::Held { server, own, entry } = fact else { return Ok(()) };
        let (room, origin, seq, hlc) = (&entry.room, entry.origin, entry.seq, entry.hlc);
        let newest = self.newest.entry((*server, room.clone())).or_default();
        if *own && hlc <= *newest {
            return Err(format!("{room} {origin}:{seq} is of {hlc:?}, but its home held {newest:?}"));
        }
        self.grew |= *own && *newest != Hlc::default();
        *newest = hlc.max(*newest);
        self.times.insert(dot(entry), hlc);
        let at = |seq| self.times.get(&(room.clone(), origin, seq)).copied();
        if at(seq - 1).is_some_and(|before| before >= hlc) || at(seq + 1).is_some_and(|after| after <= hlc) {
            return Err(format!("{room} {origin}:{seq} is of {hlc:?}, not between its neighbours"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::log::Entry;

    use super::*;
    use crate::invariants::history::{entry, first_bad, process};

    #[test]
    fn an_hlc_that_does_not_grow_is_seen() {
        fn check(held: &[(bool, Entry); 2], expected: Option<usize>) {
            let facts = held.each_ref().map(|(own, entry)| Fact::Held { server: process(1), own: *own, entry });
            assert_eq!(first_bad(&mut HlcGrows::default(), &facts), expected);
        }
        check(&[(true, entry(1, 1, 1, 5, "x")), (true, entry(1, 2, 2, 6, "y"))], None);
        check(&[(true, entry(1, 1, 1, 5, "x")), (true, entry(1, 2, 2, 5, "y"))], Some(1));
        check(&[(false, entry(2, 1, 1, 5, "x")), (true, entry(1, 1, 2, 4, "y"))], Some(1));
        check(&[(true, entry(1, 1, 1, 5, "x")), (false, entry(2, 1, 2, 4, "y"))], None);
        check(&[(false, entry(2, 2, 1, 5, "x")), (false, entry(2, 1, 2, 6, "y"))], Some(1));
    }
}
