//! Invariant 19: no frame is accepted that was not sealed for this session, and none twice. The network doubles packets,
//! and an outsider replays, bends, redirects and makes up some: whoever opens one must be the one for whom exactly these
//! bytes were sealed, and may not have opened them before.

use std::collections::BTreeSet;

use hobnob_proto::time::Time;

use super::Invariant;
use crate::facts::{At, Fact};

/// The invariant.
#[derive(Debug, Default)]
pub struct SealedOnce {
    opened: BTreeSet<(At, u64)>,
}

impl Invariant for SealedOnce {
    fn name(&self) -> &'static str {
        "i19_sealed_once_for_this_session"
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        let Fact::Opened { at, packet, sealed_for, packets } = fact else { return Ok(()) };
        let (host, run) = at;
        let who = format!("host {host} in run {run}");
        let Some(packet) = packet else { return Err(format!("{who} has opened {packets} packets, and none came")) };
        if *packets > 1 {
            return Err(format!("{who} has made {packets} packets of {packet:016x}"));
        }
        if *sealed_for != Some(*at) {
            return Err(format!("{who} has opened {packet:016x}, which was sealed for {sealed_for:?}"));
        }
        if !self.opened.insert((*at, *packet)) {
            return Err(format!("{who} has opened {packet:016x} twice"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::first_bad;

    fn opened(at: At, packet: u64, sealed_for: Option<At>) -> Fact<'static> {
        Fact::Opened { at, packet: Some(packet), sealed_for, packets: 1 }
    }

    #[test]
    fn a_packet_that_is_opened_twice_or_by_another_is_seen() {
        fn check(second: Fact<'_>, expected: Option<usize>) {
            let facts = [opened((1, 1), 7, Some((1, 1))), second];
            assert_eq!(first_bad(&mut SealedOnce::default(), &facts), expected, "{facts:?}");
        }
        check(opened((1, 1), 8, Some((1, 1))), None);
        check(opened((2, 1), 8, Some((2, 1))), None);
        check(opened((1, 1), 7, Some((1, 1))), Some(1));
        check(opened((1, 1), 8, Some((2, 1))), Some(1));
        check(opened((1, 2), 8, Some((1, 1))), Some(1));
        check(opened((1, 1), 8, None), Some(1));
        check(Fact::Opened { at: (1, 1), packet: None, sealed_for: None, packets: 1 }, Some(1));
        check(Fact::Opened { at: (1, 1), packet: Some(8), sealed_for: Some((1, 1)), packets: 2 }, Some(1));
    }
}
