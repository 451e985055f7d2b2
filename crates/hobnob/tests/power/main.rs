//! The power goes off, and the disk has only what it was told to sync.
//!
//! A process that is killed leaves its page cache behind, so that a sync that is missing goes unseen. Here a library that is
//! loaded before the C library writes down what the server does to its log, in order: writes and syncs. Of the moment
//! after each message that was reported stored, and of others, the files are then made as a disk would have them: what was
//! synced, and of the rest any part. All that had been reported stored has to be in them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../blackbox/common/mod.rs"]
mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hobnob_proto::rng::Rng;

use crate::common::{Place, Process, patience, wait_for};

/// Messages that are sent at once, and how often: the write-ahead log is moved into the file meanwhile.
const BURST: usize = 40;
const BURSTS: usize = 20;
/// Bytes of a message.
const BYTES: usize = 8_000;

/// Builds the library; `None` where there is no C compiler.
fn shim(place: &Place) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/shim.c");
    let library = place.home.join("shim.so");
    let mut compiler = Command::new("cc");
    let built = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    if built.is_ok_and(|status| status.success()) {
        return Some(library);
    }
    assert!(std::env::var("HOBNOB_REQUIRE_ALL").as_deref() != Ok("1"), "all is required, and this needs a C compiler");
    println!("skipped: there is no C compiler");
    None
}

/// What was done to a file.
enum Done<'a> {
    Write(usize, &'a [u8]),
    Cut(usize),
    Sync,
}

/// The next record, and its file; `None` where the journal ends.
fn next<'a>(journal: &mut &'a [u8]) -> Option<(usize, Done<'a>)> {
    let (head, rest) = journal.split_at_checked(18)?;
    let number = |at: usize| usize::try_from(u64::from_ne_bytes(head[at..at + 8].try_into().unwrap())).unwrap();
    let (data, rest) = rest.split_at_checked(if head[0] == b'W' { number(10) } else { 0 })?;
    *journal = rest;
    let done = match head[0] {
        b'W' => Done::Write(number(2), data),
        b'T' => Done::Cut(number(2)),
        b'S' => Done::Sync,
        other => panic!("no such record: {other}"),
    };
    Some((usize::from(head[1]), done))
}

/// A file as the disk has it.
#[derive(Default)]
struct File<'a> {
    synced: Vec<u8>,
    pending: Vec<Done<'a>>,
}

fn apply(bytes: &mut Vec<u8>, done: &Done<'_>) {
    match *done {
        Done::Write(at, data) => {
            bytes.resize(bytes.len().max(at + data.len()), 0);
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        Done::Cut(length) => bytes.resize(length, 0),
        Done::Sync => {}
    }
}

impl<'a> File<'a> {
    fn hear(&mut self, done: Done<'a>) {
        if matches!(done, Done::Sync) {
            self.pending.drain(..).for_each(|done| apply(&mut self.synced, &done));
        } else {
            self.pending.push(done);
        }
    }

    /// What may be left: all that was synced, and of the rest any part.
    fn left(&self, rng: &mut Rng) -> Vec<u8> {
        let mut left = self.synced.clone();
        let chance = rng.below(3);
        self.pending.iter().filter(|_| rng.below(2) < chance).for_each(|done| apply(&mut left, done));
        left
    }
}

/// Starts a server whose journal is written.
fn start(place: &Place, shim: &Path, journal: &Path) -> Process {
    let directory = place.home.join("data");
    let port = common::free_port().to_string();
    let args = ["server", "--id", "1", "--port", &port, "--log", "json", "--data-dir", directory.to_str().unwrap()];
    let mut command = place.command(&args);
    command.env("LD_PRELOAD", shim).env("POWER_JOURNAL", journal);
    let process = Process::start(command);
    process.wait_for_error("the server serves", patience(5_000), |line| line.contains("\"serving\""));
    process
}

/// Sends, and says how long the journal was, and how many messages were reported stored by then.
fn send(place: &Place, journal: &Path) -> Vec<(usize, usize)> {
    let mut sender = place.start(&["send", "--room", "tea", "--json"]);
    let stored = |sender: &Process| sender.out().iter().filter(|(_, line)| line.contains("\"stored\"")).count();
    let line = "x".repeat(BYTES) + "\n";
    let mut moments = Vec::new();
    for burst in 1..=BURSTS {
        sender.type_text(&line.repeat(BURST));
        wait_for("all is stored", patience(10_000), || (stored(&sender) >= burst * BURST).then_some(()));
        moments.push((usize::try_from(fs::metadata(journal).unwrap().len()).unwrap(), burst * BURST));
    }
    sender.end_input();
    moments
}

#[test]
fn what_was_reported_stored_was_synced() {
    let place = Place::new();
    let Some(shim) = shim(&place) else { return };
    let journal = place.home.join("journal");
    let mut server = start(&place, &shim, &journal);
    let moments = send(&place, &journal);
    server.kill();
    let journal = fs::read(journal).unwrap();
    let mut rng = Rng::from_seed([9; 32]);
    let between = (0..BURSTS).map(|_| usize::try_from(rng.below(journal.len() as u64)).unwrap());
    let mut cuts: Vec<usize> =
        moments.iter().map(|(at, _)| *at).chain(between).filter(|at| *at >= moments[0].0).collect();
    cuts.sort_unstable();
    let (mut files, mut rest, mut moved) = (<[File<'_>; 2]>::default(), &journal[..], 0);
    for cut in cuts {
        while journal.len() - rest.len() < cut {
            let Some((file, done)) = next(&mut rest) else { break };
            moved += usize::from(file == 0 && matches!(done, Done::Write(..)));
            files[file].hear(done);
        }
        let stored = moments.iter().take_while(|(at, _)| *at <= cut).last().map_or(0, |(_, stored)| *stored);
        check(&place, &files, stored, &mut rng);
    }
    assert!(moved > 100, "the write-ahead log was moved into the file: {moved} pages");
}

/// Looks at what the disk may have.
fn check(place: &Place, files: &[File<'_>; 2], stored: usize, rng: &mut Rng) {
    let directory = place.home.join("left");
    let _there_is_none = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("log.db"), files[0].left(rng)).unwrap();
    fs::write(directory.join("log.db-wal"), files[1].left(rng)).unwrap();
    let ended = place.run(&["check", "--data-dir", directory.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "after {stored} were stored: {ended:?}");
    let left = ended.out.trim_start_matches("All is well: ").split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(left >= stored, "{left} of {stored} messages that were reported stored are left");
}
