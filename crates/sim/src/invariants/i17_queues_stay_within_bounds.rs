//! Invariant 17: memory and queues stay within their bounds. What servers and clients keep beside their logs has a bound
//! each, whatever others do; and what waits for something is gone once all is quiet.

use std::collections::BTreeMap;

use hobnob_proto::time::Time;

use super::Invariant;
use crate::facts::{Fact, Picture, Process};

/// Who keeps something: a server or a client.
type Keeper = (bool, Process);

/// The invariant.
#[derive(Debug, Default)]
pub struct WithinBounds {
    /// What should be empty by the end and is not, of each one that was looked at last.
    waiting: BTreeMap<Keeper, Vec<(&'static str, usize)>>,
}

impl Invariant for WithinBounds {
    fn name(&self) -> &'static str {
        "i17_queues_stay_within_bounds"
    }

    fn judged(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        let Fact::Keeps { server, process, queues } = fact else { return Ok(()) };
        let who = if *server { "server" } else { "client" };
        if let Some(queue) = queues.iter().find(|queue| queue.len > queue.max) {
            let (of, name, len, max) = (process.of, queue.name, queue.len, queue.max);
            return Err(format!("{who} {of} keeps {name}: {len}, and may keep {max}"));
        }
        let waiting = queues.iter().filter(|queue| queue.drains && queue.len > 0);
        self.waiting.insert((*server, *process), waiting.map(|queue| (queue.name, queue.len)).collect());
        Ok(())
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        let servers = picture.servers.iter().map(|server| (true, server.process));
        for keeper in servers.chain(picture.clients.iter().map(|client| (false, client.process))) {
            let Some((name, len)) = self.waiting.get(&keeper).and_then(|waiting| waiting.first()) else { continue };
            let (who, of) = (if keeper.0 { "server" } else { "client" }, keeper.1.of);
            return Err(format!("{who} {of} still keeps {name} though all is quiet: {len}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::node::census::Queue;

    use super::*;
    use crate::invariants::history::{client, fence, first_bad, process, server};

    fn keeps(server: bool, queues: &[Queue]) -> Fact<'_> {
        Fact::Keeps { server, process: process(usize::from(server)), queues }
    }

    #[test]
    fn a_queue_beyond_its_bound_is_seen() {
        fn check(len: usize, expected: Option<usize>) {
            let queues = [Queue { name: "things", len, max: 2, drains: false }];
            assert_eq!(first_bad(&mut WithinBounds::default(), &[keeps(true, &queues)]), expected);
        }
        check(2, None);
        check(3, Some(0));
    }

    #[test]
    fn what_does_not_drain_is_seen_in_the_end() {
        fn check(len: usize, drains: bool, of_server: bool, expected: bool) {
            let queues = [Queue { name: "things", len, max: 2, drains }];
            let mut invariant = WithinBounds::default();
            assert_eq!(first_bad(&mut invariant, &[keeps(of_server, &queues)]), None);
            let servers = vec![server(1, 1, fence(1, 1), true, &[])];
            let picture = Picture { servers, clients: vec![client(&[])], ..Picture::default() };
            assert_eq!(invariant.settled(&picture).is_ok(), expected);
        }
        check(0, true, true, true);
        check(1, true, true, false);
        check(1, true, false, false);
        check(1, false, true, true);
    }
}
