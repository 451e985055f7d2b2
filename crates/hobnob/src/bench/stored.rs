//! `hobnob bench stored`: how long it takes until a message is on the disks of R servers, and how many are in a second.

use std::time::{Duration, Instant};

use hobnob_client::Fail;
use hobnob_proto::{rng::Rng, wire::frame::Ask};
use serde_json::json;

use crate::bench::{
    args::{Common, StoredArgs, seconds},
    audit,
    disk::{self, Place},
    failed,
    posters::{Counted, Posters, Role},
    process::{self, Cpu},
    report::{Report, micros},
    tally::Histogram,
    trio::{self, Trio},
};

/// How rooms of the bench are called.
pub(super) const ROOMS: &str = "bench";
/// How long posters talk before anything is counted: rooms get their homes meanwhile.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long it may take until all that was posted is stored, and all servers have it.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(20);
/// With fewer messages than this, what an empty log takes would be counted as theirs.
const MESSAGES_FOR_BYTES: u64 = 10_000;

/// Measures it.
pub(super) fn run(args: &StoredArgs, common: &Common, rng: &mut Rng) -> Result<Report, Fail> {
    if args.replicas > args.servers {
        let why = format!("a message cannot be on {} of {} servers", args.replicas, args.servers);
        return Err(Fail::new(Fail::USAGE, why));
    }
    let place = Place::new(args.dir.as_deref(), rng)?;
    let before = disk::syncs(place.path())?;
    let window = args.window.unwrap_or(if args.senders == 1 { 1 } else { 64 });
    let rooms = args.rooms.min(args.senders);
    let setting = format!(
        "{} senders in {rooms} rooms, {window} messages of {} bytes under way of each, {} servers, {} copies, in {}",
        args.senders,
        common.size,
        args.servers,
        args.replicas,
        place.path().parent().unwrap_or(place.path()).display()
    );
    let mut trio = Trio::start(place, args.servers, args.replicas, !common.no_pin, rng)?;
    trio.leave_processors();
    let count = args.servers as usize;
    let copies = args.replicas;
    let senders =
        (0..args.senders as usize).map(|at| Role { server: at % count, room: room(at as u64 % rooms), window, copies });
    let roles = (0..count).map(trio::watcher).chain(senders).collect();
    let mut posters = Posters::arrive(trio.targets(rng)?, roles, common.size as usize, rng)?;
    let measured = measure(&trio, &mut posters, seconds(args.seconds))?;
    let held = check(&mut posters, count)?;
    let total = posters.counted.posted;
    let homes = homes(&mut posters, count)?;
    let after = disk::syncs(trio.place.path())?;
    let mut report = Report::new("stored", &setting);
    fill(&mut report, &measured, &homes);
    report.add("held in memory by each server", &format!("{held:?}"), "held", json!(held));
    let wrong = posters.counted.wrong;
    report.add("stored on too few disks", &wrong.to_string(), "wrong", json!(wrong));
    if wrong > 0 {
        report.fail(format!("{wrong} messages were called stored, and were not on {copies} disks"));
    }
    trio.stop();
    tell_bytes(&mut report, &trio, total);
    audit::tell(&mut report, &trio, total)?;
    let mut syncs: Histogram = before;
    syncs.merge(&after);
    disk::tell_syncs(&mut report, &syncs);
    tell_busy(&mut report, &measured);
    Ok(report)
}

/// What was measured.
struct Measured {
    counted: Counted,
    span: Duration,
    cpu: Vec<Option<Cpu>>,
    own: Option<Cpu>,
}

fn measure(trio: &Trio, posters: &mut Posters, span: Duration) -> Result<Measured, Fail> {
    posters.left = u64::MAX;
    posters.until(WARM_UP, |_| false)?;
    let before_it = std::mem::take(&mut posters.counted);
    let (before, own, started) = (trio.cpu(), process::own_cpu(), Instant::now());
    posters.until(span, |_| false)?;
    let span = started.elapsed();
    let since = |now: Option<Cpu>, then: Option<Cpu>| Some(now?.since(then?));
    let cpu = trio.cpu().into_iter().zip(before).map(|(now, then)| since(now, then)).collect();
    let measured = Measured { counted: posters.counted.clone(), span, cpu, own: since(process::own_cpu(), own) };
    posters.counted.posted += before_it.posted;
    posters.counted.wrong += before_it.wrong;
    Ok(measured)
}

/// Waits until all is stored, and all servers hold it and have written it: how many each holds.
fn check(posters: &mut Posters, servers: usize) -> Result<Vec<u64>, Fail> {
    posters.left = 0;
    if !posters.until(SETTLE_MAX, |posters| posters.open() == 0)? {
        return Err(failed(&format!("{} posts were not stored in time", posters.open())));
    }
    let end = Instant::now() + SETTLE_MAX;
    loop {
        let (mut held, mut is_done) = (Vec::new(), true);
        for at in 0..servers {
            let parts = posters.ask(at, &Ask::Status)?;
            held.push(trio::entries(&parts, ROOMS));
            is_done &= held[at] == posters.counted.posted && trio::is_written(&parts);
        }
        if is_done {
            return Ok(held);
        }
        if Instant::now() > end {
            return Err(failed(&format!(
                "{} were posted, and in time the servers held {held:?}, or had not written all of it",
                posters.counted.posted
            )));
        }
        posters.until(Duration::from_millis(50), |_| false)?;
    }
}

/// How many rooms live at each server.
fn homes(posters: &mut Posters, servers: usize) -> Result<Vec<usize>, Fail> {
    let parts = posters.ask(0, &Ask::Status)?;
    let at = |id: usize| {
        let is_there = |room: &&serde_json::Value| {
            room["home"] == id && room["name"].as_str().is_some_and(|name| name.starts_with(ROOMS))
        };
        trio::items(&parts, "rooms").filter(is_there).count()
    };
    Ok((1..=servers).map(at).collect())
}

fn fill(report: &mut Report, measured: &Measured, homes: &[usize]) {
    let Measured { counted, span, cpu, own } = measured;
    report.add("rooms at each server", &format!("{homes:?}"), "homes", json!(homes));
    report.measured("messages stored", Some(counted.stored as f64 / span.as_secs_f64()), "/s", "stored_per_s");
    for (what, key, spans) in
        [("until accepted", "accepted", &counted.accepted), ("until stored", "stored", &counted.latency)]
    {
        for (name, key_end, per_mille) in [("median", "p50", 500), ("99 of 100", "p99", 990)] {
            let value = Some(spans.per_mille(per_mille) as f64);
            report.measured(&format!("{what}, {name}"), value, "us", &format!("{key}_{key_end}_us"));
        }
        report.measured(&format!("{what}, longest"), Some(spans.max() as f64), "us", &format!("{key}_max_us"));
    }
    let each = |cpu: Option<Cpu>| cpu.filter(|_| counted.stored > 0).map(|cpu| micros(cpu.ran) / counted.stored as f64);
    for (at, cpu) in cpu.iter().enumerate() {
        let id = at + 1;
        report.measured(&format!("CPU of server {id} for each"), each(*cpu), "us", &format!("cpu_us_server{id}"));
    }
    report.measured("CPU of the bench for each", each(*own), "us", "cpu_us_bench");
    report.add("said once more", &counted.repeated.to_string(), "repeated", json!(counted.repeated));
}

/// What the logs take, now that the servers have closed them.
fn tell_bytes(report: &mut Report, trio: &Trio, total: u64) {
    let bytes: u64 = (0..trio.servers.len()).map(|at| disk::bytes_in(&trio.directory(at))).sum();
    let each = bytes as f64 / (trio.servers.len() as u64 * total.max(1)) as f64;
    let each = (total >= MESSAGES_FOR_BYTES).then_some(each);
    report.measured("bytes on each disk for each", each, "", "disk_bytes_per_message");
}

fn tell_busy(report: &mut Report, measured: &Measured) {
    let busiest = measured.cpu.iter().flatten().copied().max_by_key(|cpu| cpu.ran);
    let waited = busiest.map(|cpu| cpu.waited.as_secs_f64() / measured.span.as_secs_f64());
    let busy = |cpu: Option<Cpu>| cpu.map(|cpu| cpu.busy(measured.span));
    report.busy(busy(measured.own), busy(busiest), waited);
}

/// A room of the bench.
pub(super) fn room(number: u64) -> hobnob_proto::ids::RoomName {
    format!("{ROOMS}{number}").parse().expect("letters and digits are a name")
}
