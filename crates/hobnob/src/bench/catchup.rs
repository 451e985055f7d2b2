//! `hobnob bench catchup`: how long a server that has missed messages takes until they are on its disk.

use std::time::{Duration, Instant};

use hobnob_client::Fail;
use hobnob_proto::{rng::Rng, wire::frame::Ask};
use serde_json::json;

use crate::bench::{
    args::{CatchupArgs, Common},
    audit,
    disk::{self, Place},
    failed,
    posters::{Posters, Role},
    process,
    report::{Report, micros},
    server,
    stored::{ROOMS, SETTLE_MAX, room},
    trio::{self, Trio},
};

/// How many servers there are, on how many a message is to be, and which of them is away: not the leader.
const SERVERS: u64 = 3;
const COPIES: u64 = 2;
const AWAY: usize = 0;
/// How long posting, and then catching up, may take.
const SPAN_MAX: Duration = Duration::from_mins(10);
/// How often it is asked how far it is.
const LOOK: Duration = Duration::from_millis(10);

/// Measures it.
pub(super) fn run(args: &CatchupArgs, common: &Common, rng: &mut Rng) -> Result<Report, Fail> {
    let place = Place::new(args.dir.as_deref(), rng)?;
    let syncs = disk::syncs(place.path())?;
    let mut trio = Trio::start(place, SERVERS, COPIES, !common.no_pin, rng)?;
    trio.leave_processors();
    let rooms = args.rooms.min(args.senders);
    let others: Vec<usize> = (0..SERVERS as usize).filter(|at| *at != AWAY).collect();
    let sender = |at: usize| Role {
        server: others[at % others.len()],
        room: room(at as u64 % rooms),
        window: 64,
        copies: COPIES,
    };
    let roles = (0..args.senders as usize).map(sender).collect();
    let mut posters = Posters::arrive(trio.targets(rng)?, roles, common.size as usize, rng)?;
    // Rooms get their homes while all are there.
    posters.left = args.senders;
    settle(&mut posters)?;
    trio.servers[AWAY].kill();
    let posted = Instant::now();
    posters.left = args.entries;
    settle(&mut posters)?;
    let posted = posted.elapsed();
    let expected = posters.counted.posted;
    let returned = Instant::now();
    trio.servers[AWAY] = trio.start_one(AWAY)?;
    let (ready, pid) = (trio.servers[AWAY].ready_after, trio.servers[AWAY].pid());
    let target = server::target(trio.servers[AWAY].addr, None, rng)?;
    let mut watcher = Posters::arrive(vec![target], vec![trio::watcher(0)], 0, rng)?;
    let Caught { held, is_whole, began } = caught(&mut watcher, args.senders, expected, returned)?;
    let (span, cpu) = (returned.elapsed(), process::cpu(pid));
    // Of what was not finished nobody knows how long it takes.
    let whole = |value: f64| is_whole.then_some(value);
    let from = trio.place.path().parent().unwrap_or(trio.place.path()).display().to_string();
    let (entries, size) = (args.entries, common.size);
    let mut report = Report::new(
        "catchup",
        &format!("{entries} messages of {size} bytes in {rooms} rooms, {SERVERS} servers, in {from}"),
    );
    report.measured("posted meanwhile", Some(entries as f64 / posted.as_secs_f64()), "/s", "posted_per_s");
    report.measured("started until ready", Some(micros(ready) / 1e3), "ms", "ready_ms");
    report.measured("  until the first of them came", began.map(|began| began.as_secs_f64()), "s", "first_s");
    report.measured("  until all were on its disk", whole(span.as_secs_f64()), "s", "caught_up_s");
    let after_ready = span.saturating_sub(ready).as_secs_f64();
    report.measured("ready until all were on its disk", whole(after_ready), "s", "caught_up_after_ready_s");
    report.measured("messages caught up", whole(entries as f64 / after_ready), "/s", "caught_up_per_s");
    let each = cpu.and_then(|cpu| whole(micros(cpu.ran) / entries as f64));
    report.measured("its CPU for each", each, "us", "cpu_us_per_message");
    disk::tell_syncs(&mut report, &syncs);
    let waited = cpu.map(|cpu| cpu.waited.as_secs_f64() / span.as_secs_f64());
    report.busy(None, cpu.map(|cpu| cpu.busy(span)), waited);
    report.add("held in memory by it", &held.to_string(), "held", json!(held));
    if !is_whole {
        let minutes = SPAN_MAX.as_secs() / 60;
        report.fail(format!("after {minutes} minutes it held {held} of {expected}, or had not written all of it"));
    }
    let wrong = posters.counted.wrong;
    report.add("stored on too few disks", &wrong.to_string(), "wrong", json!(wrong));
    if wrong > 0 {
        report.fail(format!("{wrong} messages were called stored, and were not on {COPIES} disks"));
    }
    trio.stop();
    audit::tell(&mut report, &trio, expected)?;
    Ok(report)
}

/// How far it came.
struct Caught {
    held: u64,
    /// Whether it holds all, and has written it.
    is_whole: bool,
    /// When the first came that it had not held before.
    began: Option<Duration>,
}

/// Waits until it has caught up, as long as that may take; it held `before` when it was killed.
fn caught(watcher: &mut Posters, before: u64, expected: u64, returned: Instant) -> Result<Caught, Fail> {
    let end = Instant::now() + SPAN_MAX;
    let mut began = None;
    loop {
        let parts = watcher.ask(0, &Ask::Status)?;
        let held = trio::entries(&parts, ROOMS);
        if held > before {
            began.get_or_insert(returned.elapsed());
        }
        let is_whole = held >= expected && trio::is_written(&parts);
        if is_whole || Instant::now() > end {
            return Ok(Caught { held, is_whole, began });
        }
        watcher.until(LOOK, |_| false)?;
    }
}

/// Posts what is left, and waits until all of it is stored.
fn settle(posters: &mut Posters) -> Result<(), Fail> {
    let is_done = |posters: &Posters| posters.left == 0 && posters.open() == 0;
    if posters.until(SPAN_MAX.max(SETTLE_MAX), is_done)? { Ok(()) } else { Err(failed("not all was stored in time")) }
}
