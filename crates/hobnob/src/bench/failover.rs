//! `hobnob bench failover`: a leader, or the home of a room, is killed while people talk, and how long it takes until each
//! of them has got a message that was written after that. The servers and people are those of the demo.

use std::time::Duration;

use hobnob_client::Fail;
use serde_json::json;

use crate::{
    bench::{
        args::{Common, FailoverArgs},
        failed, interrupted,
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

/// What came of kills of one kind.
#[derive(Debug, Default)]
struct Kills {
    spans: Histogram,
    recovered: u64,
    /// After which not everybody heard a new message in time.
    never: u64,
}

/// Measures it.
pub(super) fn run(args: &FailoverArgs, _common: &Common) -> Result<Report, Fail> {
    let mut kinds = [Kills::default(), Kills::default(), Kills::default()];
    for kill in 0..args.kills {
        interrupted()?;
        let span = kill_one(kill % 2 == 0)?;
        kinds[(kill % 2) as usize].add(span);
        kinds[2].add(span);
        let shown = span.map_or_else(|| "never".to_owned(), |span| format!("{} ms", span.as_millis()));
        eprintln!("kill {} of {}: {shown}", kill + 1, args.kills);
    }
    let setting = format!("{} kills, 3 servers, 4 people in 2 rooms, a line each {} ms", args.kills, GAP.as_millis());
    let mut report = Report::new("failover", &setting);
    report.add("kills", &args.kills.to_string(), "kills", json!(args.kills));
    for (what, key, kills) in
        [("the leader", "leader", &kinds[0]), ("a home", "home", &kinds[1]), ("either", "either", &kinds[2])]
    {
        for (name, end, per_mille) in [("median", "p50", 500), ("99 of 100", "p99", 990), ("longest", "max", 1_000)] {
            let what = format!("{what} killed until all chat, {name}");
            report.measured(&what, kills.millis(per_mille), "ms", &format!("{key}_{end}_ms"));
        }
    }
    let never = kinds[2].never;
    report.add(&format!("not within {} s", RECOVERY_MAX.as_secs()), &never.to_string(), "never", json!(never));
    if never > 0 {
        report.fail(format!("after {never} of the kills not everybody heard a new message in {RECOVERY_MAX:?}"));
    }
    Ok(report)
}

impl Kills {
    fn add(&mut self, span: Option<Duration>) {
        match span {
            Some(span) => {
                self.spans.add(span.as_micros() as u64);
                self.recovered += 1;
            }
            None => self.never += 1,
        }
    }

    /// After so many milliseconds that share of all kills was over; `None` where that many never were.
    fn millis(&self, per_mille: u64) -> Option<f64> {
        let rank = ((self.recovered + self.never) * per_mille).div_ceil(1_000).max(1);
        let share = (rank * 1_000).checked_div(self.recovered).filter(|_| rank <= self.recovered)?;
        Some(self.spans.per_mille(share) as f64 / 1e3)
    }
}

/// One cluster, and one kill: of the leader, or of the home of a room. `None`: not everybody heard a new message in time.
fn kill_one(leads: bool) -> Result<Option<Duration>, Fail> {
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
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_that_nobody_recovers_from_is_longer_than_all_others() {
        fn check(spans: &[Option<u64>], expected: [Option<f64>; 2]) {
            let mut kills = Kills::default();
            for span in spans {
                kills.add(span.map(Duration::from_micros));
            }
            assert_eq!([500, 1_000].map(|share| kills.millis(share)), expected, "{spans:?}");
        }
        check(&[], [None, None]);
        check(&[Some(10), Some(20), Some(30)], [Some(0.02), Some(0.03)]);
        check(&[Some(10), None, Some(30)], [Some(0.03), None]);
        check(&[Some(10), None, None], [None, None]);
    }
}
