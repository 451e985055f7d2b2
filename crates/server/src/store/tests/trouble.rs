//! Disks that rot, fill up and are trimmed.

use std::time::{Duration, Instant};

use super::*;

/// A log of 20 entries of one origin, closed again.
fn written() -> TestDir {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    (1..=20).for_each(|seq| store.persist(Write::Entry(entry("tea", 1, seq, seq, (1, seq)))));
    wait_durable(&mut store, 20);
    drop(store);
    directory
}

fn change(directory: &TestDir, sql: &str) {
    rusqlite::Connection::open(directory.0.join("log.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn what_has_rotted_is_named_and_repaired() {
    let directory = written();
    change(
        &directory,
        "UPDATE entries SET body = 'another' WHERE client_seq = 3; DELETE FROM entries WHERE client_seq = 7",
    );
    let (mut store, _) = directory.open();
    let answer = ask(&mut store, "tea", all(&[1]));
    assert_eq!(answer.rotten, [(origin(1), 3), (origin(1), 7)]);
    assert_eq!(dots(&answer).len(), 18);
    let device = What::Device { person: PersonId([1; 16]), device: DeviceId(1_u64.wrapping_neg()), from: 3 };
    assert_eq!(ask(&mut store, "tea", device).rotten, [(origin(1), 3)]);
    store.persist(Write::Repair(entry("tea", 1, 3, 3, (1, 3))));
    store.persist(Write::Repair(entry("tea", 1, 7, 7, (1, 7))));
    // What is sound stays as it is.
    store.persist(Write::Repair(entry("tea", 1, 8, 99, (1, 8))));
    wait_durable(&mut store, 3);
    let answer = ask(&mut store, "tea", all(&[1]));
    let Found::Entries(found) = &answer.found else { panic!() };
    assert_eq!((answer.rotten.len(), found.len(), found[7].entry.hlc.millis), (0, 20, 8));
}

/// The numbers at which a marker is found.
fn lost(answer: &Answer) -> Vec<u64> {
    let Found::Entries(found) = &answer.found else { panic!("{answer:?}") };
    found.iter().filter(|kept| kept.entry.is_lost()).map(|kept| kept.entry.seq).collect()
}

fn lose(seq: u64) -> Write {
    Write::Lost { room: "tea".parse().unwrap(), origin: origin(1), seq }
}

#[test]
fn what_is_lost_is_found_as_a_marker_until_it_turns_up() {
    let directory = written();
    change(
        &directory,
        "UPDATE entries SET body = 'another' WHERE client_seq IN (3, 20); DELETE FROM entries WHERE client_seq = 7",
    );
    let (mut store, _) = directory.open();
    for seq in [3, 7, 20, 9] {
        store.persist(lose(seq));
    }
    // A marker of another server.
    let marker = Entry::lost("tea".parse().unwrap(), origin(1), 21, Hlc { millis: 20, counter: 0 });
    store.persist(Write::Entry(rows::kept(marker)));
    wait_durable(&mut store, 5);
    for _ in 0..2 {
        let answer = ask(&mut store, "tea", all(&[1]));
        assert_eq!(answer.rotten, []);
        assert_eq!(dots(&answer), (1..=21).map(|seq| (1, seq)).collect::<Vec<_>>());
        assert_eq!(lost(&answer), [3, 7, 20, 21], "what is sound is found, whatever is said of it");
        let Found::Entries(found) = &answer.found else { panic!() };
        assert_eq!([3, 7, 20].map(|seq: usize| found[seq - 1].entry.hlc.millis), [4, 8, 19]);
        drop(store);
        let restored;
        (store, restored) = directory.open();
        let [head] = &restored.logs[..] else { panic!("{restored:?}") };
        let lost: Vec<_> = head.lost.iter().map(|(_, seq)| *seq).collect();
        assert_eq!((head.held.get(origin(1)), lost), (21, vec![3, 7, 20, 21]));
    }
    for seq in [3, 7, 9, 20, 21] {
        store.persist(Write::Repair(entry("tea", 1, seq, seq, (1, seq))));
    }
    wait_durable(&mut store, 5);
    let answer = ask(&mut store, "tea", all(&[1]));
    assert_eq!((dots(&answer).len(), lost(&answer), answer.rotten.len()), (21, vec![], 0));
    drop(store);
    let (_store, restored) = directory.open();
    assert_eq!(restored.logs[0].lost, []);
}

#[test]
fn what_is_lost_on_a_damaged_page_is_marked_all_the_same() {
    let directory = with_a_damaged_page();
    let (mut store, _) = directory.open();
    let rotten = ask(&mut store, "tea", all(&[1])).rotten;
    let count = rotten.len() as u64;
    for (_, seq) in &rotten {
        store.persist(lose(*seq));
    }
    wait_durable(&mut store, count);
    let answer = ask(&mut store, "tea", all(&[1]));
    assert_eq!((answer.rotten.len(), lost(&answer).len() as u64, dots(&answer).len()), (0, count, 400));
}

#[test]
fn markers_on_a_damaged_page_keep_nothing_from_being_started_or_written() {
    let directory = written();
    change(&directory, "DELETE FROM entries WHERE client_seq IN (5, 7)");
    let (mut store, _) = directory.open();
    store.persist(lose(7));
    wait_durable(&mut store, 1);
    drop(store);
    change(&directory, "PRAGMA wal_checkpoint");
    let file = directory.0.join("log.db");
    let root: u32 = schema::open_to_read(&file)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_master WHERE name = 'lost'", [], |row| row.get(0))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[(root as usize - 1) * 4_096..][..4_096].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    let (mut store, restored) = directory.open();
    assert_eq!((restored.logs[0].held.get(origin(1)), restored.logs[0].lost.len()), (20, 0));
    store.persist(lose(5));
    store.persist(Write::Entry(entry("tea", 1, 21, 21, (1, 21))));
    wait_durable(&mut store, 2);
    let answer = ask(&mut store, "tea", all(&[1]));
    assert_eq!((answer.rotten.len(), dots(&answer).len()), (2, 19));
}

#[test]
fn the_posts_of_a_device_are_found_without_those_that_are_lost() {
    let directory = written();
    change(&directory, "UPDATE entries SET body = 'another' WHERE client_seq = 20");
    let (mut store, _) = directory.open();
    store.persist(lose(20));
    wait_durable(&mut store, 1);
    let device = What::Device { person: PersonId([1; 16]), device: DeviceId(1_u64.wrapping_neg()), from: 15 };
    let answer = ask(&mut store, "tea", device);
    assert_eq!((answer.rotten.len(), dots(&answer)), (0, (15..=19).map(|seq| (1, seq)).collect::<Vec<_>>()));
}

#[test]
fn a_check_counts_what_is_lost_and_finds_nothing_wrong_with_it() {
    let directory = written();
    change(&directory, "DELETE FROM entries WHERE client_seq = 7");
    let (mut store, _) = directory.open();
    store.persist(lose(7));
    wait_durable(&mut store, 1);
    drop(store);
    let report = check::check(&directory.0, |_, _| {}).unwrap();
    assert_eq!((report.is_sound(), report.entries, report.lost), (true, 20, 1), "{report:?}");
    // As a file that no newer server has opened yet.
    change(&directory, "DROP TABLE lost; PRAGMA user_version = 1");
    let report = check::check(&directory.0, |_, _| {}).unwrap();
    assert_eq!((report.is_sound(), report.faults.len()), (false, 1), "{report:?}");
    let (mut store, _) = directory.open();
    assert_eq!(ask(&mut store, "tea", all(&[1])).rotten, [(origin(1), 7)], "and it is brought up to date");
    store.persist(lose(7));
    wait_durable(&mut store, 1);
    assert_eq!(lost(&ask(&mut store, "tea", all(&[1]))), [7]);
}

#[test]
fn the_scrub_finds_what_nobody_asks_for() {
    let directory = written();
    change(&directory, "UPDATE entries SET author = 9 WHERE client_seq = 20");
    let connection = schema::open_to_read(&directory.0.join("log.db")).unwrap();
    let mut scrub = scrub::Scrub::new(0);
    scrub.hurry();
    let answer = scrub.step(&connection).expect("it finds something");
    assert_eq!((answer.id, answer.room.as_str()), (0, "tea"));
    assert_eq!(answer.rotten, [(origin(1), 20)]);
    scrub.hurry();
    assert!(scrub.step(&connection).is_none(), "the round is at its end");
}

/// A log of 400 entries, the 200th of which lies on a page that is not what was written.
fn with_a_damaged_page() -> TestDir {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    (1..=400).for_each(|seq| store.persist(Write::Entry(entry("tea", 1, seq, seq, (1, seq)))));
    wait_durable(&mut store, 400);
    drop(store);
    // Whoever closes it last moves everything into the file.
    change(&directory, "PRAGMA wal_checkpoint");
    let file = directory.0.join("log.db");
    let text = b"number 200 of 1";
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at / 4_096 * 4_096..][..4_096].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    directory
}

#[test]
fn a_page_that_cannot_be_read_costs_what_was_on_it() {
    let directory = with_a_damaged_page();
    let (mut store, _) = directory.open();
    let answer = ask(&mut store, "tea", all(&[1]));
    let found = dots(&answer).len();
    assert!(answer.rotten.contains(&(origin(1), 200)), "{:?}", answer.rotten);
    assert_eq!(found + answer.rotten.len(), 400);
    assert!(found > 300, "{found}");
}

#[test]
fn a_page_that_cannot_be_mended_does_not_keep_others_from_being_written() {
    let directory = with_a_damaged_page();
    let (mut store, _) = directory.open();
    let is_rotten = |store: &mut Store| ask(store, "tea", all(&[1])).rotten.contains(&(origin(1), 200));
    store.persist(Write::Repair(entry("tea", 1, 200, 200, (1, 200))));
    wait_durable(&mut store, 1);
    assert!(is_rotten(&mut store), "it is not said to be well");
    store.persist(Write::Entry(entry("tea", 1, 401, 401, (1, 401))));
    let floors = [(origin(1), 300)].into_iter().collect();
    store.persist(Write::Floors { room: "tea".parse().unwrap(), floors });
    wait_durable(&mut store, 3);
    let connection = schema::open_to_read(&directory.0.join("log.db")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while retention::is_unswept(&connection).unwrap() {
        assert!(Instant::now() < deadline, "the sweep goes on behind the damage");
        std::thread::sleep(Duration::from_millis(5));
    }
    store.persist(Write::Entry(entry("tea", 1, 402, 402, (1, 402))));
    wait_durable(&mut store, 4);
    let kept = ask(&mut store, "tea", all(&[1]));
    assert_eq!(dots(&kept), (301..=402).map(|seq| (1, seq)).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_reported_and_what_is_stored_can_be_read() {
    let directory = TestDir::new();
    let file = directory.0.join("log.db");
    let connection = schema::open(&file).unwrap();
    connection.pragma_update(None, "max_page_count", 60).unwrap();
    let locked = place::lock(&directory.0).unwrap().unwrap();
    let (mut store, _) = Store::start(locked, Retention::default(), connection, &mut Rng::from_seed([3; 32])).unwrap();
    (1..=4_000).for_each(|seq| store.persist(Write::Entry(entry("tea", 1, seq, seq, (1, seq)))));
    let mut durable = 0;
    let why = loop {
        match next(&mut store) {
            Notice::Durable { through } => durable = through,
            Notice::Unwritable { cause, why } => {
                assert_eq!(cause, Cause::Full);
                break why;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(why.contains("full"), "{why}");
    let answer = ask(&mut store, "tea", all(&[1]));
    assert_eq!(dots(&answer).len() as u64, durable, "all that was reported durable, and no more");
    // There is room again for whoever opens it anew.
    let (mut again, restored) = store.reopen(&mut Rng::from_seed([4; 32])).unwrap();
    drop(store);
    let top = restored.logs.first().map_or(0, |head| head.entries);
    assert_eq!(top, durable);
    again.persist(Write::Entry(entry("tea", 1, top + 1, 9_000, (1, top + 1))));
    wait_durable(&mut again, 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_store_that_is_opened_beside_another_leaves_its_locks() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    store.persist(Write::Term(1));
    wait_durable(&mut store, 1);
    let file = directory.0.join("log.db");
    let inode = format!(":{} ", std::fs::metadata(&file).unwrap().ino());
    let locks = || {
        let all = std::fs::read_to_string("/proc/locks").unwrap();
        all.lines().filter(|line| line.contains("POSIX") && line.contains(&inode)).count()
    };
    let before = locks();
    assert!(before > 0, "it has some");
    schema::create(&file).unwrap();
    assert_eq!(locks(), before);
}

#[test]
fn a_writer_that_has_failed_tries_again() {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    // What can never be written fails as what cannot be written now.
    store.persist(Write::Entry(entry("tea", 1, 2, 1, (1, 1))));
    let Notice::Unwritable { cause, why } = next(&mut store) else { panic!("a hole is refused") };
    assert_eq!(cause, Cause::Fault);
    assert!(why.contains("does not follow"), "{why}");
    store.persist(Write::Entry(entry("tea", 1, 1, 1, (1, 1))));
    let Notice::WritableAgain = next(&mut store) else { panic!("it tries, and can write") };
    assert_eq!(store.queue.waiting.load(std::sync::atomic::Ordering::Relaxed), 0, "what came meanwhile is dropped");
    let (_again, restored) = store.reopen(&mut Rng::from_seed([4; 32])).unwrap();
    assert!(restored.logs.is_empty(), "nothing of the failed batch is there");
}

/// What a store would like to give up after `ran` seconds: of `tea`, by origin.
fn wishes(directory: &TestDir, retention: Retention, ran: u64) -> Vec<(u32, u64)> {
    let connection = rusqlite::Connection::open(directory.0.join("log.db")).unwrap();
    let wishes = retention::wishes(&connection, retention, ran).unwrap();
    wishes.iter().flat_map(|(_, floors)| floors.iter()).map(|(origin, seq)| (origin.id.0, seq)).collect()
}

#[test]
fn what_is_too_old_or_too_much_is_given_up_oldest_first() {
    let directory = TestDir::new();
    let mut connection = schema::open(&directory.0.join("log.db")).unwrap();
    let mut names = batch::Names::default();
    for (slot, id, seqs) in [(0, 1, 1..=100), (2, 2, 1..=100), (5, 1, 101..=200)] {
        let transaction = connection.transaction().unwrap();
        for seq in seqs {
            names.apply(&transaction, &Write::Entry(entry("tea", id, seq, seq, (u64::from(id), seq)))).unwrap();
        }
        names.finish(&transaction, slot).unwrap();
        transaction.commit().unwrap();
    }
    drop(connection);
    let days = |slots: u64| Retention { span: Some(Duration::from_secs(slots * retention::SLOT_SECS)), bytes: None };
    let at = 6 * retention::SLOT_SECS;
    assert_eq!(wishes(&directory, Retention::default(), at), []);
    assert_eq!(wishes(&directory, days(6), at), []);
    assert_eq!(wishes(&directory, days(5), at), [(1, 100)]);
    assert_eq!(wishes(&directory, days(3), at), [(1, 100), (2, 100)]);
    assert_eq!(wishes(&directory, days(0), at), [(1, 200), (2, 100)]);
    let size = std::fs::metadata(directory.0.join("log.db")).unwrap().len();
    let bytes = |bytes| Retention { span: None, bytes: Some(bytes) };
    assert_eq!(wishes(&directory, bytes(size), at), []);
    let [(1, first), ..] = wishes(&directory, bytes(size - 4_096), at)[..] else { panic!("the oldest go") };
    assert!(first > 0 && first < 100, "{first}: as many as it takes");
}

#[test]
fn rows_below_a_floor_are_swept_and_their_pages_used_again() {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    let write = |store: &mut Store, seqs: std::ops::RangeInclusive<u64>| {
        seqs.for_each(|seq| store.persist(Write::Entry(entry("tea", 1, seq, seq, (1, seq)))));
    };
    write(&mut store, 1..=5_000);
    wait_durable(&mut store, 5_000);
    let connection = schema::open_to_read(&directory.0.join("log.db")).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let before = count("PRAGMA page_count");
    let floors = [(origin(1), 4_990)].into_iter().collect();
    store.persist(Write::Floors { room: "tea".parse().unwrap(), floors });
    wait_durable(&mut store, 5_001);
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_swept = || count("SELECT count(*) FROM entries") == 10 && count("PRAGMA page_count") < before / 2;
    while !is_swept() {
        assert!(Instant::now() < deadline, "{} rows are left", count("SELECT count(*) FROM entries"));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(dots(&ask(&mut store, "tea", all(&[1]))).len(), 10);
}

#[test]
fn a_check_says_what_is_wrong() {
    let check = |sql: &str, expected: &[&str]| {
        let directory = written();
        change(&directory, sql);
        let report = check::check(&directory.0, |_, _| {}).unwrap();
        assert_eq!(report.faults, expected);
        assert_eq!((report.entries, report.is_sound()), (20, expected.is_empty()));
    };
    check("", &[]);
    check(
        "UPDATE entries SET body = 'x' WHERE client_seq = 3",
        &["#tea: entry 3 of server 1.1001 is missing or not what was written"],
    );
    check(
        "INSERT INTO entries SELECT id + 1, millis, counter, author, 21, kind, hash, body FROM entries WHERE client_seq = 20",
        &["#tea: 1 entries of server 1.1001 lie beyond the last one, 20"],
    );
    check(
        "UPDATE rooms SET record = '{}'; INSERT INTO members VALUES (7, 'x')",
        &[
            "what is kept of room #tea makes no sense: missing field `room` at line 1 column 2",
            "what is kept of server 7 makes no sense: expected value at line 1 column 1",
        ],
    );
    check(
        "DROP INDEX posts; CREATE INDEX posts ON entries (author, client_seq) WHERE client_seq <> 3;
         PRAGMA writable_schema = on;
         UPDATE sqlite_schema SET sql = 'CREATE INDEX posts ON entries (author, client_seq)' WHERE name = 'posts'",
        &[
            "the file is damaged: wrong # of entries in index posts",
            "the file is damaged: row 3 missing from index posts",
        ],
    );
    let directory = written();
    let (_store, _) = directory.open();
    assert!(matches!(check::check(&directory.0, |_, _| {}), Err(OpenError::Locked(_))));
    let nothing = TestDir::new();
    assert!(matches!(check::check(&nothing.0, |_, _| {}), Err(OpenError::Missing(_))));
}

#[test]
fn a_check_changes_nothing() {
    let closed = written();
    change(&closed, "PRAGMA wal_checkpoint");
    let open = written();
    let (mut store, _) = open.open();
    store.persist(Write::Entry(entry("tea", 1, 21, 21, (1, 21))));
    wait_durable(&mut store, 1);
    // As after a crash: with a write-ahead log, and without the rest.
    let killed = TestDir::new();
    for file in ["log.db", "log.db-wal"] {
        std::fs::copy(open.0.join(file), killed.0.join(file)).unwrap();
    }
    drop(store);
    let check = |directory: &TestDir, entries| {
        let files = || {
            let files = std::fs::read_dir(&directory.0).unwrap().map(|file| file.unwrap().path());
            files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<std::collections::BTreeMap<_, _>>()
        };
        let before = files();
        let report = check::check(&directory.0, |_, _| {}).unwrap();
        assert_eq!((report.entries, report.faults), (entries, Vec::new()));
        assert!(files() == before, "{:?}", files().keys());
    };
    check(&closed, 20);
    check(&killed, 21);
}
