//! What lies on the disks of servers that have stopped, against what was posted: what they say while they run is what they
//! hold in memory.

use hobnob_client::Fail;
use hobnob_server::store::check;
use serde_json::json;

use crate::bench::{failed, report::Report, trio::Trio};

/// What was found on the disks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Of each server, without the markers of what is lost.
    entries: Vec<u64>,
    /// What else is wrong there.
    faults: Vec<String>,
}

/// Reads the directory of each server, all of which have stopped, and says what is not as it must be: each has every message
/// once, and nothing else.
pub(super) fn tell(report: &mut Report, trio: &Trio, posted: u64) -> Result<(), Fail> {
    let mut found = Found::default();
    for at in 0..trio.servers.len() {
        found.add(&check::check(&trio.directory(at), |_, _| {}).map_err(|error| failed(&error.to_string()))?);
    }
    found.tell(report, posted);
    Ok(())
}

impl Found {
    fn add(&mut self, checked: &check::Report) {
        let server = self.entries.len() + 1;
        self.entries.push(checked.entries - checked.lost);
        if !checked.is_sound() {
            let first = checked.faults.first().map_or("entries are kept aside", String::as_str);
            self.faults.push(format!("the log of server {server} is not sound ({first})"));
        }
    }

    fn tell(&self, report: &mut Report, posted: u64) {
        let sum = |off: fn(u64, u64) -> u64| self.entries.iter().map(|entries| off(*entries, posted)).sum::<u64>();
        let (lost, doubled) = (sum(|entries, posted| posted.saturating_sub(entries)), sum(u64::saturating_sub));
        report.add("posted in all", &posted.to_string(), "posted", json!(posted));
        report.add("  on each server's disk", &format!("{:?}", self.entries), "entries", json!(self.entries));
        report.add("  lost, doubled", &format!("{lost}, {doubled}"), "lost", json!(lost));
        report.note("doubled", json!(doubled));
        if lost + doubled > 0 {
            report.fail(format!("{lost} messages are missing on some disk, and {doubled} are there twice"));
        }
        for fault in &self.faults {
            report.fail(fault.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_each_disk_once_is_told() {
        fn check(entries: &[u64], markers: u64, faults: &[&str], expected: (u64, u64, bool)) {
            let mut found = Found::default();
            for entries in entries {
                let faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
                found.add(&check::Report { entries: *entries, lost: markers, faults, ..check::Report::default() });
            }
            let mut report = Report::new("stored", "");
            found.tell(&mut report, 10);
            let object = report.json();
            let number = |key: &str| object[key].as_u64().unwrap_or(u64::MAX);
            assert_eq!((number("lost"), number("doubled"), report.wrong().is_none()), expected, "{object}");
        }
        check(&[10, 10], 0, &[], (0, 0, true));
        check(&[10, 8], 0, &[], (2, 0, false));
        check(&[9, 11], 0, &[], (1, 1, false));
        check(&[10, 10], 1, &[], (2, 0, false));
        check(&[10, 10], 0, &["a page is damaged"], (0, 0, false));
    }
}
