//! `hobnob bench start`: how long a server with a long history takes until it serves, and what memory it has then.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use hobnob_proto::{rng::Rng, wire::frame::Ask};
use hobnob_server::store::fill::fill;
use serde_json::json;

use crate::bench::{
    args::{Common, StartArgs},
    disk::{self, Place},
    failed, interrupted,
    posters::Posters,
    process,
    report::{Report, micros},
    server::{self, Cluster, Server},
    stored::ROOMS,
    trio,
};
use crate::interrupt;

/// How often the filling of a log says how far it is.
const SAY: Duration = Duration::from_secs(1);
/// How long a server is left alone before its memory is looked at.
const REST: Duration = Duration::from_millis(300);

/// Measures it.
pub(super) fn run(args: &StartArgs, common: &Common, rng: &mut Rng) -> Result<Report, Fail> {
    let place = Place::new(args.dir.as_deref(), rng)?;
    let cluster = Cluster::new(rng)?;
    let from = place.path().parent().unwrap_or(place.path()).display().to_string();
    let (entries, rooms, size) = (args.entries, args.rooms, common.size);
    let setting = format!(
        "{entries} messages of {size} bytes of one origin in {rooms} rooms, each started {} times, in {from}",
        args.starts
    );
    let mut report = Report::new("start", &setting);
    let (empty, full) = (place.path().join("empty"), place.path().join("full"));
    start(&mut report, ("empty", "empty"), (&cluster, &empty, 0), args.starts, rng)?;
    let began = Instant::now();
    let mut said = began;
    let progress = |done: u64| {
        if said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("{:6.1} s  {done} of {entries} messages", began.elapsed().as_secs_f64());
        }
        !interrupt::is_told()
    };
    fill(&full, &cluster.name, (entries, rooms), size as usize, progress)
        .map_err(|error| failed(&error.to_string()))?;
    interrupted()?;
    let filled = began.elapsed();
    let bytes = disk::bytes_in(&full);
    let what = format!("with {entries} messages");
    start(&mut report, (&what, "full"), (&cluster, &full, entries), args.starts, rng)?;
    report.measured(
        "bytes on disk for each message",
        Some(bytes as f64 / entries as f64),
        "",
        "disk_bytes_per_message",
    );
    report.measured("written before", Some(entries as f64 / filled.as_secs_f64()), "/s", "filled_per_s");
    Ok(report)
}

/// Starts a server with that directory, again and again; the last one says how many messages it has.
fn start(
    report: &mut Report,
    (what, key): (&str, &str),
    (cluster, directory, expected): (&Cluster, &Path, u64),
    times: u64,
    rng: &mut Rng,
) -> Result<(), Fail> {
    let (mut millis, mut rss, mut held) = (Vec::new(), Vec::new(), None);
    for turn in 1..=times {
        interrupted()?;
        let mut server = Server::start(cluster, 1, &["--data-dir", &directory.to_string_lossy()])?;
        millis.push(micros(server.ready_after) / 1e3);
        std::thread::sleep(REST);
        rss.extend(process::rss_kib(server.pid()));
        // Whoever is asked has more in memory than one that is left alone.
        if turn == times {
            held = Some(entries(&server, rng)?);
        }
        server.stop();
    }
    millis.sort_by(f64::total_cmp);
    let median = millis.get(millis.len() / 2).copied();
    report.measured(&format!("{what}: start until ready, median"), median, "ms", &format!("ready_{key}_p50_ms"));
    report.measured("  longest", millis.last().copied(), "ms", &format!("ready_{key}_max_ms"));
    let most = rss.iter().max().map(|kib| *kib as f64);
    report.measured("  memory then, most", most, "KiB", &format!("rss_{key}_kib"));
    let shown = held.map_or_else(String::new, |held| held.to_string());
    report.add("  messages that it has", &shown, &format!("entries_{key}"), json!(held));
    if held != Some(expected) {
        report.fail(format!("it started with {shown} messages, of {expected}"));
    }
    Ok(())
}

/// How many messages a server has.
fn entries(server: &Server, rng: &mut Rng) -> Result<u64, Fail> {
    let target = server::target(server.addr, None, rng)?;
    let mut watcher = Posters::arrive(vec![target], vec![trio::watcher(0)], 0, rng)?;
    Ok(trio::entries(&watcher.ask(0, &Ask::Status)?, ROOMS))
}
