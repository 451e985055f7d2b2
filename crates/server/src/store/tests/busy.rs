//! Stores that have much to do, and threads that end.

use std::time::Instant;

use super::*;

/// A store with that many entries of one origin.
fn filled(directory: &TestDir, entries: u64) -> Store {
    let (mut store, _) = directory.open();
    (1..=entries).for_each(|seq| store.persist(Write::Entry(entry("tea", 1, seq, seq, (1, seq)))));
    wait_durable(&mut store, entries);
    store
}

fn question(what: What) -> Read {
    Read { id: 7, room: "tea".parse().unwrap(), what }
}

#[test]
fn too_many_questions_are_answered_with_nothing_at_once() {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    // Nobody takes them.
    let (reads, _waiting) = mpsc::channel();
    store.reads = Some(reads);
    (0..=WAITING_READS_MAX).for_each(|_| store.read(question(all(&[1]))));
    let Notice::Answer(answer) = next(&mut store) else { panic!("the last one is answered") };
    assert!(matches!(answer.found, Found::Nothing), "{answer:?}");
    assert!(store.notices.try_recv().is_err(), "the others wait");
}

#[test]
fn a_store_that_is_dropped_answers_no_more() {
    let directory = TestDir::new();
    let store = filled(&directory, 3_000);
    (0..500).for_each(|_| store.read(question(all(&[1]))));
    let began = Instant::now();
    drop(store);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!directory.0.join("log.db-wal").exists(), "everything is in the file");
}

#[test]
fn a_writer_that_has_ended_is_noticed() {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    store.writes = Some(mpsc::channel().0);
    store.persist(Write::Term(1));
    store.persist(Write::Term(2));
    let Notice::Unwritable { cause, .. } = next(&mut store) else { panic!("it is said") };
    assert_eq!(cause, Cause::Ended);
    assert!(store.notices.try_recv().is_err(), "once");
    store.reads = Some(mpsc::channel().0);
    assert!(matches!(ask(&mut store, "tea", all(&[1])).found, Found::Nothing));
}

#[test]
fn the_scrub_goes_on_where_it_was_and_though_others_read() {
    let directory = TestDir::new();
    drop(filled(&directory, 600));
    let connection = rusqlite::Connection::open(directory.0.join("log.db")).unwrap();
    let mut scrub = scrub::Scrub::new(0);
    // The first step comes to the part, the next ones through it.
    scrub.hurry();
    scrub.step(&connection);
    let row = scrub.row();
    assert_eq!(schema::seq_of(row), 250);
    batch::put(&connection, "scrubbed", row).unwrap();
    drop(connection);
    let (store, _) = directory.open();
    assert_eq!(store.queue.scrubbed.load(Ordering::Relaxed), row);
    drop(store);
    // The reader takes a step before the next answer.
    let (notice, mut notices) = unbounded_channel();
    let (reads, to_read) = mpsc::channel();
    let connection = schema::open_to_read(&directory.0.join("log.db")).unwrap();
    let queue = Arc::new(Queue { scrubbed: row.into(), reads: 3.into(), ..Queue::default() });
    let mut reader = reader::Reader::new(connection, notice, Arc::clone(&queue));
    reader.hurry();
    (0..3).for_each(|_| reads.send((Instant::now(), question(What::Last { count: 1 }))).unwrap());
    drop(reads);
    reader.run(&to_read);
    assert_eq!(std::iter::from_fn(|| notices.try_recv().ok()).count(), 3);
    assert_eq!(schema::seq_of(queue.scrubbed.load(Ordering::Relaxed)), 500);
}

/// Reads again and again, each time for a while.
fn read_until(file: PathBuf, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        let connection = schema::open_to_read(&file).unwrap();
        while !is_over.load(Ordering::Relaxed) {
            let transaction = connection.unchecked_transaction().unwrap();
            transaction.query_row("SELECT count(*) FROM parts", [], |row| row.get::<_, i64>(0)).unwrap();
            thread::sleep(Duration::from_millis(40));
        }
    })
}

#[test]
fn the_write_ahead_log_is_cut_once_those_who_read_let_it() {
    let directory = TestDir::new();
    let mut store = filled(&directory, 10);
    let wal = directory.0.join("log.db-wal");
    let is_over = Arc::new(AtomicBool::new(false));
    let readers = [(); 2].map(|()| read_until(directory.0.join("log.db"), Arc::clone(&is_over)));
    let body = "x".repeat(8_000);
    // The last round comes when nobody reads any more: how long the others wait for a gap depends on the machine.
    for round in 0..30 {
        if round == 29 {
            is_over.store(true, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(500));
        }
        for seq in round * 100 + 1..=(round + 1) * 100 {
            let mut made = (*entry("tea", 2, seq, seq, (2, seq)).entry).clone();
            made.body = body.as_str().into();
            made.hash = made.digest();
            store.persist(Write::Entry(rows::kept(made)));
        }
        wait_durable(&mut store, 10 + (round + 1) * 100);
    }
    let len = std::fs::metadata(&wal).unwrap().len();
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(len < 20 << 20, "{len} bytes");
}

#[test]
fn when_it_was_last_used_is_when_it_last_ran() {
    let directory = TestDir::new();
    let (store, _) = directory.open();
    let connection = rusqlite::Connection::open(directory.0.join("log.db")).unwrap();
    batch::put(&connection, "used", 5).unwrap();
    drop(store);
    assert!(batch::get::<i64>(&connection, "used").unwrap().unwrap() > 5, "noted at the end");
}

#[test]
fn ages_of_past_days_are_merged_and_stale_ones_taken_away_some_at_a_time() {
    let directory = TestDir::new();
    let connection = schema::open(&directory.0.join("log.db")).unwrap();
    let days = retention::DAY_SLOTS;
    let fill = "WITH RECURSIVE slots (slot) AS (SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot < 5 * ?1 - 1)
                INSERT INTO ages SELECT slot, part, slot FROM slots, (SELECT 1 AS part UNION SELECT 2)";
    connection.execute(fill, [days]).unwrap();
    let ran = days.cast_unsigned() * retention::SLOT_SECS * 5;
    (0..9).for_each(|_| retention::merge_ages(&connection, ran).unwrap());
    let ages = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(ages("SELECT count(*) FROM ages"), 2 * (4 + days), "one of each day, all of the last one");
    assert_eq!(ages("SELECT min(slot) FROM ages WHERE part = 2"), days - 1, "the last of the day");
    let at_once = i64::try_from(retention::AGES_AT_ONCE).unwrap();
    let fill = "WITH RECURSIVE parts (part) AS (SELECT 10 UNION ALL SELECT part + 1 FROM parts WHERE part < ?1 + 9)
                INSERT INTO ages SELECT 0, part, 1 FROM parts";
    connection.execute(fill, [at_once + 500]).unwrap();
    let before = ages("SELECT count(*) FROM ages");
    let keep = Retention { span: Some(Duration::from_secs(1)), bytes: None };
    retention::wishes(&connection, keep, ran).unwrap();
    assert_eq!(ages("SELECT count(*) FROM ages"), before - at_once);
}
