//! Rooms and clients over servers.

use super::*;
use crate::wire::frame::Fence;

const EPOCH: Epoch = Epoch { term: 4, leader: ServerId(3), boot: Boot(13) };

fn server(id: u32) -> Server {
    Server { id: ServerId(id), boot: Boot(10 + u64::from(id)), load: 0, clients: 0, takes_rooms: true, logs: 0 }
}

fn servers(ids: &[u32]) -> Vec<Server> {
    ids.iter().copied().map(server).collect()
}

fn everybody() -> impl Iterator<Item = ServerId> {
    (1..=9).map(ServerId)
}

fn ids(ids: &[u32]) -> Vec<ServerId> {
    ids.iter().copied().map(ServerId).collect()
}

fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

fn record(name: &str, home: u32, successors: &[u32]) -> RoomRecord {
    let fence = Fence { epoch: Epoch { term: 1, ..EPOCH }, n: 5, home: server(home).origin() };
    RoomRecord { room: room(name), fence, successors: ids(successors) }
}

fn rooms(records: &[RoomRecord]) -> Rooms {
    let mut rooms = Rooms::new();
    for record in records {
        assert!(rooms.merge(record.clone()));
    }
    rooms
}

/// Places `names` one by one, as requests come in, and tells how many rooms but the lobby each server homes.
fn place_each(rooms: &mut Rooms, live: &[Server], names: impl Iterator<Item = String>) -> Vec<usize> {
    for name in names {
        let record = Placer::new(rooms, live.to_vec(), everybody(), EPOCH).place(&room(&name)).unwrap();
        rooms.merge(record);
    }
    let homes = |server: &Server| {
        let homed = rooms.iter().filter(|record| record.room != RoomName::lobby());
        homed.filter(|record| record.fence.home == server.origin()).count()
    };
    live.iter().map(homes).collect()
}

#[test]
fn thirty_rooms_on_three_servers_lie_ten_ten_ten_whoever_has_the_lobby() {
    for lobby in 1..=3 {
        let mut rooms = rooms(&[record("lobby", lobby, &[])]);
        let spread = place_each(&mut rooms, &servers(&[1, 2, 3]), (0..30).map(|n| format!("room{n}")));
        assert_eq!(spread, [10, 10, 10]);
    }
    let names = std::iter::once("lobby".into()).chain((0..30).map(|n| format!("room{n}")));
    assert_eq!(place_each(&mut Rooms::new(), &servers(&[1, 2, 3]), names), [10, 10, 10]);
}

#[test]
fn a_burst_does_not_herd() {
    // One request after the other through one placer, with nothing merged in between.
    let empty = Rooms::new();
    let mut placer = Placer::new(&empty, servers(&[1, 2, 3]), everybody(), EPOCH);
    let mut homes = BTreeMap::<ServerId, usize>::new();
    for n in 0..30 {
        *homes.entry(placer.place(&room(&format!("room{n}"))).unwrap().fence.home.id).or_default() += 1;
    }
    assert_eq!(homes.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn deliveries_weigh_as_rooms_do() {
    let live = [Server { load: 4, ..server(1) }, server(2)];
    assert_eq!(place_each(&mut Rooms::new(), &live, (0..10).map(|n| format!("room{n}"))), [3, 7]);
}

#[test]
fn a_room_that_has_a_live_home_keeps_it() {
    let known = record("tea", 1, &[2]);
    let rooms = rooms(std::slice::from_ref(&known));
    assert_eq!(Placer::new(&rooms, servers(&[1, 2, 3]), everybody(), EPOCH).place(&room("tea")), Some(known));
    assert_eq!(Placer::new(&rooms, [], everybody(), EPOCH).place(&room("tea")), None);
}

#[test]
fn successors_are_all_others_or_the_least_loaded() {
    fn check(live: &[Server], home: u32, successors: &[u32]) {
        let placed = Placer::new(&Rooms::new(), live.to_vec(), everybody(), EPOCH).place(&room("tea")).unwrap();
        assert_eq!((placed.fence.home, placed.fence.n, placed.fence.epoch), (server(home).origin(), 1, EPOCH));
        assert_eq!(placed.successors, ids(successors));
    }
    check(&servers(&[1]), 1, &[]);
    check(&[Server { load: 9, ..server(1) }, Server { load: 3, ..server(2) }, server(3)], 3, &[2, 1]);
    check(&servers(&[1, 2, 3, 4, 5, 6, 7]), 1, &[2, 3, 4, 5, 6, 7]);
    check(&servers(&[1, 2, 3, 4, 5, 6, 7, 8]), 1, &[2, 3]);
}

#[test]
fn repair_touches_what_needs_it_and_no_more() {
    /// `expected`: home, successors; `None`: nothing is to be done.
    #[allow(clippy::needless_pass_by_value)]
    fn check(known: RoomRecord, live: &[Server], unknown: &[u32], expected: Option<(u32, &[u32])>) {
        let rooms = rooms(std::slice::from_ref(&known));
        let stays = |home: Origin| unknown.contains(&home.id.0);
        let repaired = Placer::new(&rooms, live.to_vec(), everybody(), EPOCH).repair(stays);
        let expected = expected.map(|(home, successors)| RoomRecord {
            room: known.room.clone(),
            fence: Fence { epoch: EPOCH, n: 6, home: server(home).origin() },
            successors: ids(successors),
        });
        assert_eq!(repaired, Vec::from_iter(expected), "{known:?}");
    }
    let reborn = Server { boot: Boot(99), ..server(1) };
    check(record("tea", 1, &[2, 3]), &servers(&[1, 2, 3]), &[], None);
    check(record("tea", 1, &[2, 3]), &servers(&[1, 2]), &[], None);
    check(record("tea", 1, &[3, 2]), &servers(&[2, 3]), &[], Some((3, &[2])));
    check(record("tea", 1, &[3, 2]), &servers(&[2, 4]), &[], Some((2, &[4])));
    check(record("tea", 1, &[3]), &servers(&[2, 4]), &[], Some((2, &[4])));
    check(record("tea", 1, &[2]), &servers(&[1, 2, 4]), &[], Some((1, &[2, 4])));
    check(record("tea", 1, &[2]), &[reborn, server(2)], &[], Some((2, &[1])));
    check(record("tea", 1, &[2]), &servers(&[1, 2, 4]), &[1], None);
    check(record("tea", 1, &[2]), &servers(&[1, 2, 4]), &[2], Some((1, &[2, 4])));
    check(record("tea", 1, &[2]), &[reborn, server(2)], &[1], None);
    check(record("tea", 1, &[2]), &[], &[], None);
}

#[test]
fn a_server_that_leaves_gives_its_rooms_away() {
    let known = rooms(&[record("a", 1, &[2, 3]), record("b", 2, &[1, 3])]);
    let leaving = Server { takes_rooms: false, ..server(1) };
    let repaired = Placer::new(&known, [leaving, server(2), server(3)], everybody(), EPOCH).repair(|_| false);
    let homes: Vec<_> = repaired.iter().map(|record| (record.room.as_str(), record.fence.home.id.0)).collect();
    assert_eq!(homes, [("a", 2)]);
    let alone = rooms(&[record("a", 1, &[])]);
    assert_eq!(Placer::new(&alone, [leaving], everybody(), EPOCH).repair(|_| false), [], "to nobody");
}

#[test]
fn rooms_of_a_dead_server_without_successors_are_spread() {
    let records: Vec<_> = (0..10).map(|n| record(&format!("room{n}"), 1, &[])).collect();
    let known = rooms(&records);
    let repaired = Placer::new(&known, servers(&[2, 3]), everybody(), EPOCH).repair(|_| false);
    assert_eq!(repaired.iter().filter(|record| record.fence.home.id == ServerId(2)).count(), 5);
    let mut after = known.clone();
    assert!(repaired.into_iter().all(|record| after.merge(record)));
    assert_eq!(Placer::new(&after, servers(&[2, 3]), everybody(), EPOCH).repair(|_| false), [], "done at once");
}

#[test]
fn the_first_live_successor_goes_on() {
    fn check(successors: &[u32], live: &[u32], expected: Option<u32>) {
        let live: BTreeSet<_> = ids(live).into_iter().collect();
        let known = record("tea", 1, successors);
        let next = first_live_successor(&known, &live);
        assert_eq!(next, expected.map(ServerId));
        if let Some(next) = next {
            let record = go_on(&known, server(next.0).origin(), EPOCH, &live);
            assert!(record.fence > known.fence);
            assert!(!record.successors.contains(&next) && record.successors.iter().all(|id| live.contains(id)));
        }
    }
    check(&[2, 3], &[2, 3], Some(2));
    check(&[2, 3], &[3, 4], Some(3));
    check(&[2, 3], &[4], None);
    check(&[1, 3], &[1, 3], Some(3));
}

#[test]
fn a_client_moves_only_where_it_is_worth_it() {
    /// Clients of servers 1, 2, 3; ours is 1.
    fn check(clients: [u32; 3], expected: Option<u32>) {
        let servers: Vec<_> = (1..).zip(clients).map(|(id, clients)| Server { clients, ..server(id) }).collect();
        assert_eq!(least_loaded(&servers, ServerId(1)), expected.map(ServerId), "{clients:?}");
    }
    check([0, 0, 0], None);
    check([2, 0, 0], None);
    check([3, 0, 0], Some(3));
    check([3, 0, 1], Some(2));
    check([14, 10, 10], None);
    check([15, 10, 10], Some(3));
    check([1, 50, 50], None);
    assert_eq!(least_loaded(&[server(2)], ServerId(1)), None);
}

#[test]
fn who_has_left_is_nobodys_successor() {
    let rooms = rooms(&[record("tea", 1, &[2, 3, 4])]);
    let members = [1, 3, 4].map(ServerId);
    let repaired = Placer::new(&rooms, servers(&[1, 3]), members, EPOCH).repair(|_| false);
    assert_eq!(repaired.len(), 1);
    assert_eq!(repaired[0].successors, ids(&[3, 4]), "who is only down stays");
}
