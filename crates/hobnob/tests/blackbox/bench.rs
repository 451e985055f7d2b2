//! The bench counts what it says, and leaves nothing behind: neither when it is done nor when it is told to end.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::common::{Place, Process, patience, wait_for};

/// A directory for what the servers of the bench keep.
fn disk(place: &Place) -> PathBuf {
    let disk = place.home.join("disk");
    std::fs::create_dir(&disk).unwrap();
    disk
}

fn start(place: &Place, disk: &Path, args: &[&str]) -> Process {
    place.start(&[&["bench"], args, &["--dir", disk.to_str().unwrap(), "--json"]].concat())
}

/// What it has measured.
fn measured(args: &[&str]) -> Value {
    let place = Place::new();
    let disk = disk(&place);
    let ended = start(&place, &disk, args).wait(Duration::from_mins(2));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(std::fs::read_dir(&disk).unwrap().count(), 0, "what it measured with is removed");
    ended.json_lines().remove(0)
}

#[test]
fn what_is_posted_is_stored_and_lies_on_each_disk_once() {
    let report = measured(&["stored", "--senders", "2", "--seconds", "1"]);
    assert_eq!([&report["lost"], &report["doubled"], &report["wrong"]], [0, 0, 0], "{report}");
    assert!(report["stored_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
    let entries: Vec<_> = report["entries"].as_array().into_iter().flatten().collect();
    assert_eq!(entries, [&report["posted"]; 3], "{report}");
}

#[test]
fn a_server_starts_with_all_that_it_was_given() {
    let report = measured(&["start", "--entries", "1000", "--starts", "1"]);
    assert_eq!([&report["entries_empty"], &report["entries_full"]], [0, 1_000], "{report}");
    assert!(report["ready_full_p50_ms"].as_f64().is_some_and(|millis| millis > 0.0), "{report}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    fn check(args: &[&str], expected: &str) {
        let place = Place::new();
        let ended = place.run(&[&["bench"], args].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(expected), "{}", ended.err);
    }
    check(&["stored", "--replicas", "3", "--servers", "2"], "a message cannot be on 3 of 2 servers");
    check(&["start", "--wake"], "leave --wake, --threads and --sockets out");
    check(&["failover", "--server-pid", "1"], "leave --server-ip and --server-pid out");
}

#[test]
fn told_to_end_it_takes_servers_and_data_with_it() {
    fn check(args: &[&str], is_under_way: impl Fn(&Path) -> bool) {
        let place = Place::new();
        let disk = disk(&place);
        let bench = start(&place, &disk, args);
        wait_for("it is under way", patience(20_000), || {
            std::fs::read_dir(&disk).unwrap().flatten().any(|made| is_under_way(&made.path())).then_some(())
        });
        bench.terminate();
        let ended = bench.wait(patience(10_000));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("interrupted"), "{}", ended.err);
        assert_eq!(std::fs::read_dir(&disk).unwrap().count(), 0, "{args:?}");
    }
    let has_log = |directory: PathBuf| directory.join("log.db").is_file();
    check(&["stored", "--senders", "2", "--seconds", "60"], |place| has_log(place.join("server3")));
    check(&["start", "--entries", "100000000"], |place| has_log(place.join("full")));
}
