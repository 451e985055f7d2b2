//! Power that goes off, and disks that lie: the file is cut, garbled and replaced, and opened again.

use std::{fs, path::Path};

use super::*;

/// A copy of a log with its write-ahead log as it was at some moment.
struct Snapshot {
    db: Vec<u8>,
    wal: Vec<u8>,
    /// How long the write-ahead log was when so many entries had been reported durable.
    durable: Vec<(usize, u64)>,
}

fn snapshot() -> Snapshot {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    let wal = directory.0.join("log.db-wal");
    let mut durable = Vec::new();
    for seq in 1..=40 {
        store.persist(Write::Entry(entry("tea", 1, seq, seq, (1, seq))));
        wait_durable(&mut store, seq);
        durable.push((fs::metadata(&wal).unwrap().len() as usize, seq));
    }
    Snapshot { db: fs::read(directory.0.join("log.db")).unwrap(), wal: fs::read(&wal).unwrap(), durable }
}

/// Opens what is left; checks that at least the first `least` entries are there, whole, without holes.
fn check(db: &[u8], wal: &[u8], least: u64) {
    let directory = TestDir::new();
    fs::write(directory.0.join("log.db"), db).unwrap();
    fs::write(directory.0.join("log.db-wal"), wal).unwrap();
    let (mut store, restored) = directory.open();
    let top = restored.logs.first().map_or(0, |head| head.held.get(origin(1)));
    assert!(top >= least, "{top} of {least} entries are left");
    let answer = ask(&mut store, "tea", all(&[1]));
    assert_eq!(answer.rotten, []);
    assert_eq!(dots(&answer), (1..=top).map(|seq| (1, seq)).collect::<Vec<_>>());
    // And it goes on.
    store.persist(Write::Entry(entry("tea", 1, top + 1, 1_000, (1, top + 1))));
    wait_durable(&mut store, 1);
}

/// How much was reported durable when the write-ahead log was so long.
fn durable_at(snapshot: &Snapshot, len: usize) -> u64 {
    snapshot.durable.iter().take_while(|(at, _)| *at <= len).last().map_or(0, |(_, seq)| *seq)
}

#[test]
fn whatever_was_durable_survives_a_cut_at_any_byte() {
    let snapshot = snapshot();
    let mut rng = Rng::from_seed([5; 32]);
    let frames = (32..=snapshot.wal.len()).step_by(24 + 4_096).filter(|at| at % 3 == 0).take(60);
    let ends = snapshot.durable.iter().map(|(at, _)| *at).step_by(3);
    let bytes: Vec<usize> = (0..40).map(|_| rng.below(snapshot.wal.len() as u64) as usize).collect();
    for cut in frames.chain(ends).chain(bytes) {
        check(&snapshot.db, &snapshot.wal[..cut], durable_at(&snapshot, cut));
    }
}

#[test]
fn a_torn_write_behind_what_was_durable_takes_nothing_with_it() {
    let snapshot = snapshot();
    let mut rng = Rng::from_seed([6; 32]);
    for _ in 0..40 {
        let at = rng.below(snapshot.wal.len() as u64) as usize;
        let mut wal = snapshot.wal.clone();
        rng.fill(&mut wal[at..]);
        check(&snapshot.db, &wal, durable_at(&snapshot, at));
    }
}

/// Why a directory with this file in it cannot be opened.
fn refusal(make: impl Fn(&Path)) -> String {
    let directory = TestDir::new();
    let file = directory.0.join("log.db");
    make(&file);
    let before = fs::read(&file).unwrap();
    let error = directory.try_open().unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), before, "the file is as it was");
    error.to_string()
}

fn with_sqlite(file: &Path, sql: &str) {
    rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_file_that_is_not_ours_is_refused_with_advice() {
    let check = |make: &dyn Fn(&Path), expected: &str| {
        let why = refusal(make);
        assert!(why.contains(expected), "{why}");
    };
    check(
        &|file| fs::write(file, "not a database, but long enough ".repeat(400)).unwrap(),
        "move it aside and start again",
    );
    check(&|file| with_sqlite(file, "CREATE TABLE cats (name)"), "is not a log of hobnob");
    check(&|file| with_sqlite(file, "PRAGMA application_id = 7; CREATE TABLE cats (name)"), "is not a log of hobnob");
    check(
        &|file| {
            drop(schema::open(file).unwrap());
            with_sqlite(file, "PRAGMA user_version = 99");
        },
        &format!("was written by a newer hobnob (format 99, this one knows {})", schema::VERSION),
    );
}

#[test]
fn a_file_of_format_0_is_brought_up_to_date() {
    let directory = TestDir::new();
    let sql = format!("PRAGMA application_id = {}; PRAGMA user_version = 0", schema::APPLICATION_ID);
    with_sqlite(&directory.0.join("log.db"), &sql);
    let (mut store, _) = directory.open();
    store.persist(Write::Term(3));
    wait_durable(&mut store, 1);
    drop(store);
    assert_eq!(directory.open().1.term, 3);
}
