//! People on several machines who talk and listen while something goes wrong, and what has to hold in the end.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    common::{
        Process, patience,
        traffic::{Talker, all_chat, check_listeners, check_log, has, longest_silence, talk_until},
    },
    network::{Host, Network},
};

/// Where everybody talks, unless another room is said.
pub(crate) const ROOM: &str = "tea";
/// Ten lines a second of each.
const GAP: Duration = Duration::from_millis(100);

/// Everybody: one who talks and one who listens on each of some machines.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// Who talk.
    pub(crate) talkers: Vec<Talker>,
    /// Who listen.
    pub(crate) listeners: Vec<Process>,
    room: String,
    gap: Duration,
}

impl Crowd {
    /// They arrive at these machines, and talk until everybody who listens has heard everybody.
    #[track_caller]
    pub(crate) fn arrive<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Self {
        Self::arrive_with(hosts, &[])
    }

    /// They arrive, with other options of their commands too.
    #[track_caller]
    pub(crate) fn arrive_with<'a>(hosts: impl IntoIterator<Item = &'a Host>, args: &[&str]) -> Self {
        Self::arrive_in(ROOM, hosts, args)
    }

    /// They arrive in another room.
    #[track_caller]
    pub(crate) fn arrive_in<'a>(room: &str, hosts: impl IntoIterator<Item = &'a Host>, args: &[&str]) -> Self {
        let names = [("ada", "eve"), ("ben", "fay"), ("cleo", "gil"), ("dan", "hal"), ("ivy", "joy")];
        let mut crowd = Self { talkers: Vec::new(), listeners: Vec::new(), room: room.to_owned(), gap: GAP };
        for (host, (talker, listener)) in hosts.into_iter().zip(names) {
            let listens = ["client", "--plain", "--name", listener, "--room", room];
            crowd.listeners.push(host.start(&[&listens, args].concat()));
            crowd.talkers.push(Talker::arrive_with(&host.place, talker, room, args));
        }
        let Self { talkers, listeners, gap, .. } = &mut crowd;
        let everybody = talkers.len();
        talk_until(talkers, *gap, patience(10_000), |talkers| {
            let firsts: Vec<&str> = talkers.iter().filter_map(Talker::first).collect();
            firsts.len() == everybody && listeners.iter().all(|listener| firsts.iter().all(|body| has(listener, body)))
        });
        crowd
    }

    /// From now on everybody talks so many times a second.
    pub(crate) fn talk_faster(&mut self, lines_per_second: u32) {
        self.gap = Duration::from_secs(1) / lines_per_second;
    }

    /// They talk until that holds.
    #[track_caller]
    pub(crate) fn talk_until(&mut self, limit: Duration, mut enough: impl FnMut(&[Talker]) -> bool) {
        talk_until(&mut self.talkers, self.gap, limit, &mut enough);
    }

    /// They talk so long.
    #[track_caller]
    pub(crate) fn talk_for(&mut self, span: Duration) {
        let start = Instant::now();
        self.talk_until(span + patience(10_000), |_| start.elapsed() >= span);
    }

    /// They talk until everybody who listens has seen a line that was said after `since`. How long after it that was.
    #[track_caller]
    pub(crate) fn talk_until_all_chat(&mut self, since: Instant) -> Duration {
        let Self { talkers, listeners, gap, .. } = self;
        talk_until(talkers, *gap, patience(10_000), |talkers| all_chat(talkers, listeners, since));
        since.elapsed()
    }

    /// The longest that somebody who listens has seen nothing since then, while all talked.
    pub(crate) fn longest_silence(&self, since: Instant) -> Duration {
        self.listeners.iter().map(|listener| longest_silence(listener, since)).max().expect("somebody listens")
    }

    /// They fall silent. Everything that they said is stored, every server has it once and in the same order, and
    /// everybody who listened has seen it once.
    #[track_caller]
    pub(crate) fn settle(self, network: &Network) {
        let stored: BTreeSet<String> = self.talkers.into_iter().flat_map(Talker::fall_silent).collect();
        let mut logs: Vec<Vec<String>> = Vec::new();
        for host in network.serving() {
            logs.push(check_log(&host.place, host.server.as_ref().expect("it serves"), &self.room, &stored));
        }
        for log in &logs[1..] {
            assert_eq!(log, &logs[0], "all servers have the same in the same order");
        }
        check_listeners(&self.listeners, &stored);
    }
}
