//! Invariant 19: no frame is accepted that was not sealed for this session, and none twice. The network doubles packets,
//! and an outsider replays, bends, redirects and makes up some: what is opened must be exactly what somebody has sealed, and
//! each packet is opened once, by one process: two that open it cannot both be the one that it was sealed for. A packet is
//! what a server sends at one time: one that sent the same bytes twice would not be seen here.

use hobnob_proto::time::Time;

use super::Invariant;
use crate::facts::Fact;

/// No run has this number.
const NOBODY: (u32, u32) = (0, 0);

/// The invariant.
#[derive(Debug, Default)]
pub struct SealedOnce {
    /// By whom each packet was opened, by its number: host and run, or [`NOBODY`].
    opened: Vec<(u32, u32)>,
    /// An outsider has sent something.
    noise: bool,
}

impl Invariant for SealedOnce {
    fn name(&self) -> &'static str {
        "i19_sealed_once_for_this_session"
    }

    fn judged(&self) -> bool {
        self.noise && !self.opened.is_empty()
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        self.noise |= matches!(fact, Fact::Stray);
        let Fact::Opened { at, packet, sealed, packets } = fact else { return Ok(()) };
        let (host, run) = at;
        let who = || format!("host {host} in run {run}");
        let Some(packet) = packet else { return Err(format!("{} has opened {packets} packets, and none came", who())) };
        if *packets > 1 {
            return Err(format!("{} has made {packets} packets of {packet:016x}", who()));
        }
        let Some(number) = sealed.map(|number| number as usize) else {
            return Err(format!("{} has opened {packet:016x}, which nobody has sealed", who()));
        };
        if number >= self.opened.len() {
            self.opened.resize(number + 1, NOBODY);
        }
        let (first, first_run) = std::mem::replace(&mut self.opened[number], (*host as u32, *run));
        if (first, first_run) != NOBODY {
            return Err(format!(
                "{} has opened {packet:016x}, which host {first} in run {first_run} had opened",
                who()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{facts::At, invariants::history::first_bad};

    fn opened(at: At, packet: u32, is_sealed: bool) -> Fact<'static> {
        let sealed = is_sealed.then_some(packet);
        Fact::Opened { at, packet: Some(packet.into()), sealed, packets: 1 }
    }

    #[test]
    fn a_packet_that_is_opened_twice_or_was_never_sealed_is_seen() {
        fn check(second: Fact<'static>, expected: Option<usize>) {
            let facts = [opened((1, 1), 7, true), second];
            assert_eq!(first_bad(&mut SealedOnce::default(), &facts), expected, "{facts:?}");
        }
        check(opened((1, 1), 8, true), None);
        check(opened((2, 1), 8, true), None);
        check(opened((1, 1), 7, true), Some(1));
        check(opened((2, 1), 7, true), Some(1));
        check(opened((1, 2), 7, true), Some(1));
        check(opened((1, 1), 8, false), Some(1));
        check(Fact::Opened { at: (1, 1), packet: None, sealed: None, packets: 1 }, Some(1));
        check(Fact::Opened { at: (1, 1), packet: Some(8), sealed: Some(8), packets: 2 }, Some(1));
    }
}
