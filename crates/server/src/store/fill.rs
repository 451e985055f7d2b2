//! A store that is filled as fast as the disk takes it: for measurements of what long histories cost.

use std::{path::Path, sync::Arc, sync::atomic::Ordering, thread, time::Duration};

use hobnob_proto::{
    hlc::Hlc,
    ids::{Boot, ClusterId, ClusterName, DeviceId, Origin, PersonId, PersonName, RoomName, ServerId},
    log::{Entry, Hash, entry::MESSAGE, room::Kept},
    rng::Rng,
    store::Write,
};

use super::{Directory, Keep, OpenError, Realm, Retention, Store, WAITING_BYTES_MAX};

/// Who is said to have written everything.
const ORIGIN: Origin = Origin { id: ServerId(1), boot: Boot(1 << 20) };
/// People who are said to have.
const PEOPLE: u64 = 100;
/// Entries of one room that follow each other.
const RUN: u64 = 64;
/// How long it waits where the disk is behind.
const BREATH: Duration = Duration::from_millis(2);

/// Entries with bodies of `body` bytes, in so many rooms in turn, of an open cluster of that name: into an empty directory.
/// Durable when this returns. Now and then it says to `progress` how many have been handed over.
pub fn fill(
    directory: &Path,
    cluster: &ClusterName,
    (entries, rooms): (u64, u64),
    body: usize,
    mut progress: impl FnMut(u64),
) -> Result<(), OpenError> {
    let realm = Realm::new(cluster, None);
    let keep = Keep::In(directory.to_path_buf());
    let Some(directory) = Directory::choose(&keep, &realm, None)? else { return Ok(()) };
    let (store, _) = Store::open(directory, Retention::default(), &mut Rng::from_seed([7; 32]))?;
    store.persist(Write::Me(ORIGIN));
    store.persist(Write::Cluster(ClusterId(7)));
    let rooms: Vec<RoomName> = (0..rooms.max(1)).filter_map(|room| format!("bench{room}").parse().ok()).collect();
    let people: Vec<PersonName> = (0..PEOPLE).filter_map(|person| format!("anna{person}").parse().ok()).collect();
    for n in 0..entries {
        let (run, count) = (n / RUN, rooms.len() as u64);
        let place = (run % count, run / count * RUN + n % RUN);
        let kept = Kept { entry: Arc::new(entry(n, place, (&rooms, &people), body)), line: "".into() };
        store.persist(Write::Entry(kept));
        if n % 4_096 == 0 {
            progress(n);
            while store.queue.waiting.load(Ordering::Relaxed) > WAITING_BYTES_MAX / 8 {
                thread::sleep(BREATH);
            }
        }
    }
    drop(store);
    Ok(())
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
        fill(&place.0, &"test".parse().unwrap(), (1_000, 3), 120, |_| {}).unwrap();
        let report = check::check(&place.0, |_, _| {}).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.entries, report.rooms), (1_000, 3));
    }
}
