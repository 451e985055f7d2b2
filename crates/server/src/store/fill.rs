//! A store that is filled as fast as the disk takes it: for measurements of what long histories cost.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use hobnob_proto::{
    hlc::Hlc,
    ids::{Boot, ClusterId, ClusterName, DeviceId, Origin, PersonId, PersonName, RoomName, ServerId},
    log::{Entry, Hash, entry::MESSAGE, room::Kept},
    rng::Rng,
    store::Write,
};

use super::{Directory, Keep, Notice, OpenError, Realm, Retention, Store, WAITING_BYTES_MAX};

/// Who is said to have written everything.
const ORIGIN: Origin = Origin { id: ServerId(1), boot: Boot(1 << 20) };
/// People who are said to have.
const PEOPLE: u64 = 100;
/// Entries of one room that follow each other.
const RUN: u64 = 64;
/// Writes before the first entry.
const BEFORE: u64 = 2;
/// How long it waits where the disk is behind.
const BREATH: Duration = Duration::from_millis(2);

/// Entries with bodies of `body` bytes, in so many rooms in turn, of an open cluster of that name: into an empty directory.
/// Now and then it says to `progress` how many have been handed over, and goes no further where that says `false`. How many
/// there are then, all of them durable; an error where the disk did not take them.
pub fn fill(
    directory: &Path,
    cluster: &ClusterName,
    (entries, rooms): (u64, u64),
    body: usize,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<u64, OpenError> {
    let realm = Realm::new(cluster, None);
    let keep = Keep::In(directory.to_path_buf());
    let Some(directory) = Directory::choose(&keep, &realm, None)? else { return Ok(0) };
    let (mut store, _) = Store::open(directory, Retention::default(), &mut Rng::from_seed([7; 32]))?;
    store.persist(Write::Me(ORIGIN));
    store.persist(Write::Cluster(ClusterId(7)));
    let rooms: Vec<RoomName> = (0..rooms.max(1)).filter_map(|room| format!("bench{room}").parse().ok()).collect();
    let people: Vec<PersonName> = (0..PEOPLE).filter_map(|person| format!("anna{person}").parse().ok()).collect();
    let (mut handed, mut durable) = (0, 0);
    while handed < entries {
        if handed % 4_096 == 0 {
            if !progress(handed) {
                break;
            }
            hear(&mut store, &mut durable)?;
            while store.queue.waiting.load(Ordering::Relaxed) > WAITING_BYTES_MAX / 8 {
                thread::sleep(BREATH);
                hear(&mut store, &mut durable)?;
            }
        }
        let (run, count) = (handed / RUN, rooms.len() as u64);
        let place = (run % count, run / count * RUN + handed % RUN);
        let kept = Kept { entry: Arc::new(entry(handed, place, (&rooms, &people), body)), line: "".into() };
        store.persist(Write::Entry(kept));
        handed += 1;
    }
    while durable < handed + BEFORE {
        hear(&mut store, &mut durable)?;
        thread::sleep(BREATH);
    }
    Ok(handed)
}

/// Takes in what the store has said: how many writes are durable. An error if no more will be.
fn hear(store: &mut Store, durable: &mut u64) -> Result<(), OpenError> {
    let failed = |why: String| OpenError::Failed { path: store.directory.file(), why };
    // Looked at first: what it said before it ended is still heard.
    let has_ended = store.writer.as_ref().is_none_or(JoinHandle::is_finished);
    while let Ok(notice) = store.notices.try_recv() {
        match notice {
            Notice::Durable { through } => *durable = through,
            Notice::Unwritable { why, .. } => return Err(failed(why)),
            _ => {}
        }
    }
    if has_ended { Err(failed("the thread that writes has ended".to_owned())) } else { Ok(()) }
}

/// The entry of that number, in a room at a place of it.
fn entry(n: u64, (room, before): (u64, u64), (rooms, people): (&[RoomName], &[PersonName]), body: usize) -> Entry {
    let person = n % PEOPLE;
    let mut entry = Entry {
        room: rooms[room as usize].clone(),
        origin: ORIGIN,
        seq: before + 1,
        hlc: Hlc { millis: 1_700_000_000_000 + n, counter: 0 },
        from: people[person as usize].clone(),
        person: PersonId([person as u8; 16]),
        device: DeviceId(person),
        client_seq: before + 1,
        kind: MESSAGE.into(),
        body: format!("{n:0body$}").into(),
        hash: Hash::default(),
    };
    entry.hash = entry.digest();
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{check, tests::TestDir};

    #[test]
    fn a_filled_store_is_sound() {
        let place = TestDir::new();
        let filled = fill(&place.0, &"test".parse().unwrap(), (1_000, 3), 120, |_| true).unwrap();
        assert_eq!(filled, 1_000);
        let report = check::check(&place.0, |_, _| {}).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.entries, report.rooms), (1_000, 3));
    }

    #[test]
    fn a_store_is_filled_no_further_than_it_is_wanted() {
        let place = TestDir::new();
        let filled = fill(&place.0, &"test".parse().unwrap(), (10_000, 3), 24, |done| done < 8_192).unwrap();
        assert_eq!((filled, check::check(&place.0, |_, _| {}).unwrap().entries), (8_192, 8_192));
    }

    #[test]
    fn a_disk_that_takes_no_more_is_an_error() {
        let place = TestDir::new();
        // Another program spoils the file.
        let mut is_sound = true;
        let filled = fill(&place.0, &"test".parse().unwrap(), (10_000, 3), 24, |_| {
            if std::mem::take(&mut is_sound) {
                let other = rusqlite::Connection::open(place.0.join("log.db")).unwrap();
                other.busy_timeout(Duration::from_secs(10)).unwrap();
                other.execute_batch("DROP TABLE entries").unwrap();
            }
            true
        });
        assert!(filled.is_err(), "{filled:?}");
    }
}
