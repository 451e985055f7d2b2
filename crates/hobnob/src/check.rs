//! `hobnob check`: says whether what a server has kept is sound.

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
};

use hobnob_client::Fail;
use hobnob_server::store::check::{self, Report};

/// Checks a directory; fails where something is wrong.
pub(crate) fn run(directory: &Path) -> Result<(), Fail> {
    let is_watched = std::io::stderr().is_terminal();
    let progress = |done: u64, total: u64| {
        if is_watched {
            let _unread = write!(std::io::stderr(), "\r{}", progress(done, total));
        }
    };
    let checked = check::check(directory, progress);
    if is_watched {
        let _unread = write!(std::io::stderr(), "\r{:40}\r", "");
    }
    let report = checked.map_err(|error| Fail::new(Fail::FAILED, error.to_string()))?;
    for fault in &report.faults {
        println!("{fault}");
    }
    let summary = summary(&report);
    if !report.is_sound() {
        return Err(Fail::new(Fail::FAILED, summary));
    }
    println!("{summary}");
    Ok(())
}

/// How far it is.
fn progress(done: u64, total: u64) -> String {
    format!("{done} of {total} entries, {} %", done * 100 / total.max(1))
}

/// What it came to.
fn summary(report: &Report) -> String {
    let Report { entries, rooms, .. } = report;
    let lost = match report.lost {
        0 => String::new(),
        n => format!(" {n} of them are lost for good: no server had them any more. An import may bring them back."),
    };
    if report.is_sound() {
        return format!("All is well: {entries} entries in {rooms} rooms.{lost}");
    }
    let faults = report.faults.len() as u64 + report.more;
    let aside = match report.quarantined {
        0 => String::new(),
        n => format!("; {n} entries kept aside since another has their name (a directory was copied, or put back)"),
    };
    format!(
        "{faults} faults in {entries} entries{aside}. A running server fetches what is rotten from the others; where the \
         file itself is damaged, move it aside: they bring everything back"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_to_do() {
        fn check(report: &Report, expected: &str) {
            assert!(summary(report).starts_with(expected), "{}", summary(report));
        }
        let sound = Report { entries: 7, rooms: 2, ..Report::default() };
        check(&sound, "All is well: 7 entries in 2 rooms.");
        check(&Report { lost: 1, ..sound.clone() }, "All is well: 7 entries in 2 rooms. 1 of them are lost for good");
        check(
            &Report { faults: vec!["x".into()], more: 2, ..sound.clone() },
            "3 faults in 7 entries. A running server",
        );
        check(&Report { quarantined: 1, ..sound }, "0 faults in 7 entries; 1 entries kept aside");
        assert_eq!(progress(1, 0), "1 of 0 entries, 100 %");
    }
}
