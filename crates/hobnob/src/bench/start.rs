//! `hobnob bench start`: how long a server with a long history takes until it serves, and what memory it has then.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use hobnob_proto::rng::Rng;
use hobnob_server::store::fill::fill;

use crate::bench::{
    args::{Common, StartArgs},
    disk::{self, Place},
    failed, process,
    report::{Report, micros},
    server::{Cluster, Server},
};

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
    let setting =
        format!("{entries} messages of {size} bytes in {rooms} rooms, each started {} times, in {from}", args.starts);
    let mut report = Report::new("start", &setting);
    let (empty, full) = (place.path().join("empty"), place.path().join("full"));
    start(&mut report, "empty", "empty", &cluster, &empty, args.starts)?;
    let began = Instant::now();
    let mut said = began;
    let progress = |done: u64| {
        if said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("{:6.1} s  {done} of {entries} messages", began.elapsed().as_secs_f64());
        }
    };
    fill(&full, &cluster.name, (entries, rooms), size as usize, progress)
        .map_err(|error| failed(&error.to_string()))?;
    let filled = began.elapsed();
    let bytes = disk::bytes_in(&full);
    start(&mut report, &format!("with {entries} messages"), "full", &cluster, &full, args.starts)?;
    report.measured(
        "bytes on disk for each message",
        Some(bytes as f64 / entries as f64),
        "",
        "disk_bytes_per_message",
    );
    report.measured("written before", Some(entries as f64 / filled.as_secs_f64()), "/s", "filled_per_s");
    Ok(report)
}

/// Starts a server with that directory, again and again.
fn start(
    report: &mut Report,
    what: &str,
    key: &str,
    cluster: &Cluster,
    directory: &Path,
    times: u64,
) -> Result<(), Fail> {
    let (mut millis, mut rss) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let mut server = Server::start(cluster, 1, &["--data-dir", &directory.to_string_lossy()])?;
        millis.push(micros(server.ready_after) / 1e3);
        std::thread::sleep(REST);
        rss.extend(process::rss_kib(server.pid()));
        server.stop();
    }
    millis.sort_by(f64::total_cmp);
    let median = millis.get(millis.len() / 2).copied();
    report.measured(&format!("{what}: start until ready, median"), median, "ms", &format!("ready_{key}_p50_ms"));
    report.measured("  longest", millis.last().copied(), "ms", &format!("ready_{key}_max_ms"));
    let most = rss.iter().max().map(|kib| *kib as f64);
    report.measured("  memory then, most", most, "KiB", &format!("rss_{key}_kib"));
    Ok(())
}
