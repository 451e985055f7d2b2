//! Journals over restarts, crashes, other clusters and other processes.

use super::*;
use crate::identity::tests::TestDir;

fn room(name: &str) -> RoomName {
    name.parse().expect("a room's name")
}

fn open(directory: &TestDir) -> Device {
    Device::open(&directory.0, &realm("hobnob")).expect("the directory can be written to")
}

fn realm(name: &str) -> Realm {
    Realm::new(&name.parse().expect("a cluster's name"), None)
}

fn post(device: &mut Device, place: &str, body: &str) -> u64 {
    device.post(&room(place), vec![body.to_owned()]).expect("the journal can be written to")[0].seq
}

#[test]
fn a_post_survives_its_process_until_it_is_settled() {
    let directory = TestDir::new();
    let mut device = open(&directory);
    let id = device.id();
    assert_eq!((post(&mut device, "a", "one"), post(&mut device, "a", "two"), post(&mut device, "b", "x")), (1, 2, 1));
    device.settle(&room("a"), 1);
    drop(device);

    let mut device = open(&directory);
    assert_eq!(device.id(), id);
    let two = Post { room: room("a"), seq: 2, body: "two".to_owned() };
    let x = Post { room: room("b"), seq: 1, body: "x".to_owned() };
    assert_eq!(device.unsettled(), [two, x]);
    assert_eq!((post(&mut device, "a", "three"), post(&mut device, "c", "y")), (3, 1));
}

#[test]
fn one_with_unsettled_posts_is_taken_first() {
    let directory = TestDir::new();
    let mut devices: Vec<Device> = (0..5).map(|_| open(&directory)).collect();
    assert_eq!(devices.iter().map(Device::id).collect::<BTreeSet<_>>().len(), 5);
    post(&mut devices[3], "a", "one");
    let id = devices[3].id();
    drop(devices);
    assert_eq!(open(&directory).id(), id);
}

#[test]
fn a_device_belongs_to_one_cluster() {
    let directory = TestDir::new();
    post(&mut open(&directory), "a", "one");
    let other = Device::open(&directory.0, &realm("other")).expect("the directory can be written to");
    assert_eq!(other.unsettled(), []);
    assert_ne!(other.id(), open(&directory).id());
}

#[test]
fn what_was_written_for_a_closed_cluster_is_not_seen_in_an_open_one() {
    let directory = TestDir::new();
    let name = "hobnob".parse().expect("a cluster's name");
    let closed = |seed| {
        let secret = Secret::generate(&mut hobnob_proto::rng::Rng::from_seed([seed; 32]));
        Device::open(&directory.0, &Realm::new(&name, Some(&secret))).expect("the directory can be written to")
    };
    post(&mut closed(1), "a", "the safe is behind the picture");
    assert_eq!((open(&directory).unsettled(), closed(2).unsettled()), (vec![], vec![]));
    assert_eq!(closed(1).unsettled().len(), 1);
}

#[test]
fn what_is_left_over_waits_for_its_own_open_cluster() {
    let directory = TestDir::new();
    let keys = |device: &Device| device.unsettled().into_iter().map(|post| (post.room, post.seq)).collect();
    let (ours, other) = (ClusterId(1), ClusterId(2));
    let mut device = open(&directory);
    assert_eq!(device.meet(ours, &keys(&device)).expect("it can be noted"), Met::Same);
    post(&mut device, "a", "ours");
    let id = device.id();
    drop(device);

    let mut device = open(&directory);
    let leftovers = keys(&device);
    let seq = post(&mut device, "a", "new");
    assert_eq!(device.meet(other, &leftovers).expect("it can be written"), Met::Other);
    assert_ne!(device.id(), id);
    assert_eq!(device.unsettled(), [Post { room: room("a"), seq, body: "new".to_owned() }]);
    device.settle(&room("a"), seq);
    drop(device);

    let mut device = open(&directory);
    assert_eq!(device.meet(other, &keys(&device)).expect("it can be written"), Met::Same, "told once");
    drop(device);

    let mut device = open(&directory);
    assert_eq!(device.meet(ours, &keys(&device)).expect("it can be written"), Met::Back);
    assert_eq!((device.id(), device.unsettled().len()), (id, 1));
    device.settle(&room("a"), 1);
    drop(device);
    let mut device = open(&directory);
    assert_eq!(device.meet(ours, &keys(&device)).expect("it can be written"), Met::Same);
}

#[test]
fn a_torn_line_is_passed_over_and_what_follows_is_whole() {
    let directory = TestDir::new();
    let mut device = open(&directory);
    post(&mut device, "a", "one");
    device.journal.write_all(br#"{"post":{"room":"a","se"#).expect("the journal can be written to");
    drop(device);
    let mut device = open(&directory);
    assert_eq!(post(&mut device, "a", "two"), 2);
    drop(device);
    let bodies: Vec<String> = open(&directory).unsettled().into_iter().map(|post| post.body).collect();
    assert_eq!(bodies, ["one", "two"]);
}

#[test]
fn a_long_journal_is_rewritten_without_what_is_settled() {
    let directory = TestDir::new();
    let mut device = open(&directory);
    let body = "x".repeat(1024);
    for seq in 1..=100 {
        assert_eq!(post(&mut device, "a", &body), seq);
        if seq != 50 {
            device.settle(&room("a"), seq);
        }
    }
    let path = directory.0.join(format!("{}.jsonl", device.id()));
    drop(device);
    let mut device = open(&directory);
    assert!(fs::metadata(&path).expect("it exists").len() < 2048);
    assert_eq!(device.unsettled(), [Post { room: room("a"), seq: 50, body }]);
    assert_eq!(post(&mut device, "a", "more"), 101);
    drop(device);
    assert_eq!(open(&directory).unsettled().len(), 2);
}

#[test]
fn a_new_device_takes_over_what_was_not_accepted_and_leaves_the_rest_to_the_old_one() {
    let directory = TestDir::new();
    let mut device = open(&directory);
    for body in ["one", "two", "three"] {
        post(&mut device, "a", body);
    }
    device.accept(&room("a"), 1);
    device.accept(&room("a"), 2);
    device.settle(&room("a"), 2);
    let old = device.id();
    device.renew().expect("the directory can be written to");
    assert_ne!(device.id(), old);
    assert_eq!(device.unsettled(), [Post { room: room("a"), seq: 3, body: "three".to_owned() }]);
    assert_eq!(post(&mut device, "a", "four"), 4);
    let abandoned = open(&directory);
    assert_eq!(abandoned.id(), old);
    assert_eq!(abandoned.unsettled(), [Post { room: room("a"), seq: 1, body: "one".to_owned() }]);
}

#[test]
fn fifty_at_once_are_fifty_devices_and_the_next_fifty_are_the_same() {
    let directory = TestDir::new();
    let run = || {
        let barrier = std::sync::Barrier::new(50);
        let ids = std::thread::scope(|scope| {
            let start = || {
                let mut device = open(&directory);
                assert_eq!(post(&mut device, "a", "one") + 1, post(&mut device, "a", "two"));
                let _everybody = barrier.wait();
                device.settle(&room("a"), 1);
                device.id()
            };
            let threads: Vec<_> = (0..50).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<BTreeSet<_>>()
        });
        assert_eq!(ids.len(), 50);
        ids
    };
    assert_eq!(run(), run());
}
