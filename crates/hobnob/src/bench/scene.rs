//! One measurement: members come, are quiet, talk, and fall silent; and what the system says of the server meanwhile.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use hobnob_proto::rng::Rng;

use crate::{
    bench::{
        crowd::{Crowd, Outcome, Shared, Target},
        failed, interrupted,
        member::{Role, Stage, Talk},
        process::{self, Cpu},
        tally::{Histogram, Tally},
    },
    interrupt,
};

/// How long all may take to come: at least, and each.
const ARRIVE_MAX: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(20));
/// How long the server has to come to rest before anything is measured.
const QUIET: Duration = Duration::from_millis(500);
/// How long deliveries may be under way once nobody posts any more, if none comes.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How often it looks how far all is, and says so.
const LOOK: Duration = Duration::from_millis(5);
const SAY: Duration = Duration::from_secs(1);

/// What is to be done.
pub(super) struct Scene {
    pub(super) target: Target,
    /// The server's process, where it is known.
    pub(super) pid: Option<u32>,
    pub(super) roles: Vec<Role>,
    pub(super) threads: usize,
    pub(super) sockets: usize,
    /// Bytes of a body.
    pub(super) body: usize,
    /// Whether each datagram wakes the bench, even while members talk.
    pub(super) wake: bool,
    /// How long members talk at the most; `None`: until they have said all.
    pub(super) talk: Option<Duration>,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    /// From the first call until all followed their rooms.
    pub(super) arrival: Duration,
    pub(super) arrivals: Histogram,
    /// Of the server until then.
    pub(super) arrival_cpu: Option<Cpu>,
    /// While members talked, until the last delivery.
    pub(super) span: Duration,
    /// Of the server meanwhile.
    pub(super) cpu: Option<Cpu>,
    /// KiB of the server before anybody came, once all were there, and in the end.
    pub(super) rss_kib: [Option<u64>; 3],
    /// Of the busiest thread of the bench while members talked, with how long that was.
    pub(super) own: Option<(Cpu, Duration)>,
    /// Sessions that were lost.
    pub(super) lost: u64,
}

impl Scene {
    /// Does it. `processors` are those that the bench is to run on.
    pub(super) fn play(self, processors: &[usize], rng: &mut Rng) -> Result<Measured, Fail> {
        let shared = Shared::new();
        let count = self.roles.len();
        let mut measured = Measured::default();
        let rss = || self.pid.and_then(process::rss_kib);
        let cpu = || self.pid.and_then(process::cpu);
        measured.rss_kib[0] = rss();
        let (before, started) = (cpu(), Instant::now());
        let threads = self.start(&shared, processors, rng)?;
        let wait = |until: &dyn Fn() -> bool, max: Duration, say: &dyn Fn() -> String| wait(&shared, until, max, say);
        let joined = || shared.joined.load(Relaxed);
        let max = ARRIVE_MAX.0 + ARRIVE_MAX.1 * u32::try_from(count).unwrap_or(u32::MAX);
        let all_came = wait(&|| joined() >= count, max, &|| format!("{} of {count} members are there", joined()));
        measured.arrival = started.elapsed();
        measured.arrival_cpu = since(cpu(), before);
        if all_came {
            shared.enter(Stage::Quiet);
            wait(&|| false, QUIET, &|| "all are there".to_owned());
            measured.rss_kib[1] = rss();
            let (before, started) = (cpu(), Instant::now());
            shared.enter(Stage::Talking);
            let (expected, got) = (|| shared.expected.load(Relaxed), || shared.got.load(Relaxed));
            let say = || format!("{} of {} deliveries", got(), expected());
            let said_all = || self.talk.is_none() && shared.talkers.load(Relaxed) == 0;
            wait(&said_all, self.talk.unwrap_or(Duration::MAX), &say);
            shared.enter(Stage::Settling);
            settle(&shared, &say);
            measured.span = started.elapsed();
            measured.cpu = since(cpu(), before);
            measured.rss_kib[2] = rss();
        }
        shared.enter(Stage::Ended);
        for thread in threads {
            let outcome = thread.join().map_err(|_| failed("a thread ended"))?.map_err(|why| failed(&why))?;
            measured.add(&outcome);
        }
        interrupted()?;
        if all_came { Ok(measured) } else { Err(failed(&format!("only {} of {count} members came", joined()))) }
    }

    fn start(
        &self,
        shared: &Arc<Shared>,
        processors: &[usize],
        rng: &mut Rng,
    ) -> Result<Vec<JoinHandle<Result<Outcome, String>>>, Fail> {
        let mut roles = vec![Vec::new(); self.threads];
        for role in &self.roles {
            roles[role.number % self.threads].push(role.clone());
        }
        let sockets = self.sockets.div_ceil(self.threads);
        let looks = !self.wake && self.roles.iter().any(|role| role.talk != Talk::Silent);
        let mut threads = Vec::new();
        for roles in roles {
            let crowd = Crowd::new(self.target.clone(), Arc::clone(shared), roles, sockets, self.body, rng.fork())
                .map_err(|error| failed(&format!("a socket cannot be opened: {error}")))?;
            let crowd = if looks { crowd.looking() } else { crowd };
            let (shared, processors) = (Arc::clone(shared), processors.to_vec());
            let run = move || {
                if !processors.is_empty() {
                    process::pin(0, &processors);
                }
                let result = crowd.run();
                shared.failed.fetch_or(result.is_err(), Relaxed);
                result
            };
            let spawned = thread::Builder::new().name("members".into()).spawn(run);
            threads.push(spawned.map_err(|error| failed(&format!("a thread cannot be started: {error}")))?);
        }
        Ok(threads)
    }
}

impl Measured {
    fn add(&mut self, outcome: &Outcome) {
        self.tally.merge(&outcome.tally);
        self.arrivals.merge(&outcome.arrivals);
        self.lost += outcome.lost;
        if let Some(cpu) = outcome.cpu
            && self.own.is_none_or(|(most, _)| most.ran + most.waited < cpu.ran + cpu.waited)
        {
            self.own = Some((cpu, outcome.span));
        }
    }
}

/// Waits until something is so, and says each second how far it is. Whether it came to be so in time.
fn wait(shared: &Shared, until: &dyn Fn() -> bool, max: Duration, say: &dyn Fn() -> String) -> bool {
    let (start, mut said) = (Instant::now(), Instant::now());
    loop {
        if until() {
            return true;
        }
        if start.elapsed() >= max || shared.failed.load(Relaxed) || interrupt::is_told() {
            return false;
        }
        if said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("{:6.1} s  {}", shared.start.elapsed().as_secs_f64(), say());
        }
        thread::sleep(LOOK.min(max));
    }
}

/// Waits for the last deliveries, as long as any come.
fn settle(shared: &Shared, say: &dyn Fn() -> String) {
    loop {
        let got = shared.got.load(Relaxed);
        let all = || shared.got.load(Relaxed) >= shared.expected.load(Relaxed);
        if wait(shared, &all, SETTLE_MAX, say) || shared.got.load(Relaxed) == got {
            return;
        }
    }
}

fn since(now: Option<Cpu>, before: Option<Cpu>) -> Option<Cpu> {
    Some(now?.since(before?))
}
