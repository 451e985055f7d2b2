//! The store from outside: what was reported durable is there again.

use std::{path::PathBuf, time::Duration};

use hobnob_proto::{
    hlc::Hlc,
    ids::{Boot, DeviceId, Origin, PersonId, ServerId},
    log::{Entry, Hash, entry::MESSAGE, room::Kept},
    store::{Answer, Found, Read, What},
};

use super::{place, *};

mod busy;
mod model;
mod power;
mod trouble;

/// A directory that vanishes with the value.
#[derive(Debug)]
pub(crate) struct TestDir(pub(crate) PathBuf);

impl TestDir {
    pub(crate) fn new() -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let path = std::env::temp_dir().join(format!("hobnob-store-{:016x}", u64::from_ne_bytes(random)));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Opens the store that is in it.
    pub(crate) fn open(&self) -> (Store, Restored) {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<(Store, Restored), OpenError> {
        let directory = place::lock(&self.0).unwrap().expect("nobody else has it");
        Store::open(directory, Retention::default(), &mut Rng::from_seed([3; 32]))
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn origin(id: u32) -> Origin {
    Origin { id: ServerId(id), boot: Boot(1_000 + u64::from(id)) }
}

/// An entry with everything that matters to a store.
pub(crate) fn entry(room: &str, id: u32, seq: u64, millis: u64, post: (u64, u64)) -> Kept {
    let mut entry = Entry {
        room: room.parse().unwrap(),
        origin: origin(id),
        seq,
        hlc: Hlc { millis, counter: 0 },
        from: "anna".parse().unwrap(),
        person: PersonId([1; 16]),
        device: DeviceId(post.0.wrapping_neg()),
        client_seq: post.1,
        kind: MESSAGE.into(),
        body: format!("number {seq} of {id}").into(),
        hash: Hash::default(),
    };
    entry.hash = entry.digest();
    rows::kept(entry)
}

/// Waits until so many writes are durable.
pub(crate) fn wait_durable(store: &mut Store, wanted: u64) {
    loop {
        match next(store) {
            Notice::Durable { through } if through >= wanted => return,
            Notice::Durable { .. } | Notice::Answer(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The next thing that a store says.
pub(crate) fn next(store: &mut Store) -> Notice {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(notice) = store.notices.try_recv() {
            return notice;
        }
        assert!(std::time::Instant::now() < deadline, "the store says nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Asks, and waits for the answer.
pub(crate) fn ask(store: &mut Store, room: &str, what: What) -> Answer {
    store.read(Read { id: 7, room: room.parse().unwrap(), what });
    loop {
        if let Notice::Answer(answer) = next(store) {
            assert_eq!((answer.id, answer.room.as_str()), (7, room));
            return answer;
        }
    }
}

/// The entries of an answer, as (origin, number).
pub(crate) fn dots(answer: &Answer) -> Vec<(u32, u64)> {
    let Found::Entries(found) = &answer.found else { panic!("{answer:?}") };
    found.iter().map(|kept| (kept.entry.origin.id.0, kept.entry.seq)).collect()
}

/// A question for all of these origins' entries.
pub(crate) fn all(ids: &[u32]) -> What {
    let want = ids.iter().map(|id| (origin(*id), 1, u64::MAX)).collect();
    What::Ranges { want, max: usize::MAX, bytes_max: usize::MAX }
}

#[test]
fn what_was_durable_is_there_after_a_restart() {
    let directory = TestDir::new();
    let (mut store, restored) = directory.open();
    assert_eq!((restored.id, restored.logs.len()), (None, 0));
    let me = Origin { id: ServerId(3), boot: restored.boot.unwrap() };
    let writes = [Write::Me(me), Write::Term(9)].into_iter();
    let entries = (1..=5).map(|seq| Write::Entry(entry("tea", 1, seq, 10 * seq, (1, seq))));
    writes.chain(entries).for_each(|write| store.persist(write));
    wait_durable(&mut store, 7);
    drop(store);
    let (mut store, restored) = directory.open();
    assert_eq!((restored.id, restored.term), (Some(ServerId(3)), 9));
    assert!(restored.boot.unwrap() > me.boot, "each start is another boot");
    let last = restored.boot.unwrap();
    store.persist(Write::Me(Origin { id: ServerId(3), boot: Boot(7) }));
    wait_durable(&mut store, 1);
    drop(store);
    let (mut store, restored) = directory.open();
    assert!(restored.boot.unwrap() > last, "whatever it was told meanwhile");
    let [head] = &restored.logs[..] else { panic!("{restored:?}") };
    assert_eq!((head.room.as_str(), head.entries, head.newest.2), ("tea", 5, 5));
    assert_eq!(head.held, [(origin(1), 5)].into_iter().collect::<VersionVector>());
    let answer = ask(&mut store, "tea", all(&[1]));
    assert_eq!(dots(&answer), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
    let Found::Entries(found) = answer.found else { panic!() };
    let expected = entry("tea", 1, 2, 20, (1, 2));
    assert_eq!((&found[1].entry, &found[1].line), (&expected.entry, &expected.line), "to the last byte");
}

#[test]
fn the_directory_of_a_running_server_is_refused() {
    let directory = TestDir::new();
    let (store, _) = directory.open();
    let keep = Keep::In(directory.0.clone());
    let realm = Realm::new(&"ship".parse().unwrap(), None);
    let error = place::Directory::choose(&keep, &realm, None).unwrap_err();
    assert!(error.to_string().contains("is in use by another server: stop that one"), "{error}");
    drop(store);
    assert!(place::Directory::choose(&keep, &realm, None).unwrap().is_some());
}

#[test]
fn unused_names_are_not_kept() {
    let directory = TestDir::new();
    let (mut store, _) = directory.open();
    let room: RoomName = "empty".parse().unwrap();
    let answer = ask(&mut store, room.as_str(), all(&[1]));
    assert_eq!(dots(&answer), []);
    drop(store);
    assert!(directory.open().1.logs.is_empty());
}
