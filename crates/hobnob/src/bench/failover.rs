//! `hobnob bench failover`: a leader, or the home of a room, is killed while people talk, and how long it takes until each
//! of them has got a message that was written after that. The servers and people are those of the demo.

use std::time::Duration;

use hobnob_client::Fail;
use serde_json::json;

use crate::{
    bench::{
        args::{Common, FailoverArgs},
        failed,
        report::Report,
        tally::Histogram,
    },
    demo::stage::Stage,
};

/// Between two lines of each of four people.
const GAP: Duration = Duration::from_millis(20);
/// How long they talk before the kill.
const TALK: Duration = Duration::from_millis(500);
/// After this it counts as never.
const RECOVERY_MAX: Duration = Duration::from_secs(20);

/// Measures it.
pub(super) fn run(args: &FailoverArgs, _common: &Common) -> Result<Report, Fail> {
    let mut spans = [Histogram::default(), Histogram::default(), Histogram::default()];
    for kill in 0..args.kills {
        let span = kill_one(kill % 2 == 0)?;
        spans[(kill % 2) as usize].add(span.as_micros() as u64);
        spans[2].add(span.as_micros() as u64);
        eprintln!("kill {} of {}: {} ms", kill + 1, args.kills, span.as_millis());
    }
    let setting = format!("{} kills, 3 servers, 4 people in 2 rooms, a line each {} ms", args.kills, GAP.as_millis());
    let mut report = Report::new("failover", &setting);
    report.add("kills", &args.kills.to_string(), "kills", json!(args.kills));
    for (what, key, spans) in
        [("the leader", "leader", &spans[0]), ("a home", "home", &spans[1]), ("either", "either", &spans[2])]
    {
        for (name, end, per_mille) in [("median", "p50", 500), ("99 of 100", "p99", 990), ("longest", "max", 1_000)] {
            let millis = spans.per_mille(per_mille) as f64 / 1e3;
            let known = (spans.max() > 0).then_some(millis);
            report.measured(&format!("{what} killed until all chat, {name}"), known, "ms", &format!("{key}_{end}_ms"));
        }
    }
    Ok(report)
}

/// One cluster, and one kill: of the leader, or of the home of a room.
fn kill_one(leads: bool) -> Result<Duration, Fail> {
    let mut stage = Stage::set()?.quietly(GAP);
    let leader = stage.start_servers()?;
    stage.start_people()?;
    let victim = if leads { leader } else { stage.home()?.ok_or_else(|| failed("a room has no home"))? };
    stage.talk_for(TALK)?;
    let killed = stage.kill(victim)?;
    let mut span = None;
    while span.is_none() && killed.elapsed() < RECOVERY_MAX {
        stage.talk_once()?;
        span = stage.recovered(killed);
    }
    span.ok_or_else(|| failed("not everybody heard a new message in time"))
}
