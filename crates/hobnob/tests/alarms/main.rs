//! No false alarm: servers that live are not called dead, however busy the machine is.
//!
//! Three servers and people who talk, while as many threads as there are cores do nothing but count. Takes 20 s; 30 minutes
//! with `HOBNOB_TEST_MINUTES=30`. A target of its own, since it disturbs everything that runs beside it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../blackbox/common/mod.rs"]
mod common;

use std::{
    collections::BTreeSet,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::common::{
    Place, number_of, patience,
    traffic::{Talker, check_log, talk_until},
};

/// Where people talk.
const ROOM: &str = "tea";
/// Six lines a second of three people: what is said piles up in the tests' memory.
const GAP: Duration = Duration::from_millis(500);
/// How long, unless something else is said.
const SPAN: Duration = Duration::from_secs(20);

/// Threads that keep every core busy. They end when this is dropped.
struct Busy {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Busy {
    /// As many as there are cores.
    fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let count = |over: Arc<AtomicBool>| {
            let mut number = 0_u64;
            while !over.load(Ordering::Relaxed) {
                number = black_box(number.wrapping_add(1));
            }
            number
        };
        let thread = |_| {
            let over = Arc::clone(&is_over);
            thread::spawn(move || count(over))
        };
        let threads = (0..cores).map(thread).collect();
        Self { is_over, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _counted = thread.join();
        }
    }
}

#[test]
fn busy_servers_are_not_called_dead() {
    let place = Place::new();
    let servers = place.servers(3);
    let span = number_of("HOBNOB_TEST_MINUTES").map_or(SPAN, |minutes| Duration::from_secs(60 * minutes));
    let mut talkers: Vec<Talker> = ["ada", "ben", "cleo"].map(|name| Talker::arrive(&place, name, ROOM)).into();
    talk_until(&mut talkers, GAP, patience(10_000), |talkers| talkers.iter().all(|talker| talker.first().is_some()));
    let start = Instant::now();
    let busy = Busy::start();
    talk_until(&mut talkers, GAP, span + patience(10_000), |_| start.elapsed() > span);
    drop(busy);
    let said = |message: &str| servers.iter().map(|server| server.process.log(start, message).len()).sum::<usize>();
    let (alarms, changes) = (said("server is down"), said("leader") + said("no leader"));
    let wait = talkers.iter().map(|talker| talker.longest_wait(start)).max().expect("three talk");
    println!("{span:?} under load: {alarms} false alarms, {changes} changes of leader, longest wait {wait:?}");
    assert_eq!((alarms, changes), (0, 0), "false alarms, and changes of leader");
    let stored: BTreeSet<String> = talkers.into_iter().flat_map(Talker::fall_silent).collect();
    for server in &servers {
        check_log(&place, server, ROOM, &stored);
    }
}
