//! The store is held against the reference store: the same writes, the same questions, the same answers.

use hobnob_proto::{
    ids::ClusterId,
    store::{DEVICE_POSTS_MAX, model::Model},
    wire::frame::{Epoch, Fence, Member, RoomRecord},
};

use super::*;

/// What a run draws from.
struct World {
    rng: Rng,
    model: Model,
    tops: std::collections::BTreeMap<(u64, u32), u64>,
    millis: u64,
    asked: u64,
}

const ROOMS: [&str; 2] = ["tea", "ship"];

impl World {
    fn write(&mut self) -> Write {
        let (room, id) = (self.rng.below(2), self.rng.below(3) as u32 + 1);
        let top = self.tops.get(&(room, id)).copied().unwrap_or(0);
        match self.rng.below(40) {
            0 => {
                let floor = self.rng.below(top + 2).max(1);
                self.tops.insert((room, id), top.max(floor));
                let floors = [(origin(id), floor)].into_iter().collect();
                Write::Floors { room: ROOMS[room as usize].parse().unwrap(), floors }
            }
            1 => Write::Term(self.rng.below(99)),
            2 => {
                let addrs = vec!["192.0.2.7:5001".parse().unwrap()];
                Write::Member(Member { addrs, ..self.member() })
            }
            3 => Write::Room(self.record(room)),
            4 if self.rng.below(9) == 0 => Write::Cluster(ClusterId(u128::from(self.rng.u64()))),
            5 => Write::Me(Origin { id: ServerId(id), boot: Boot(self.rng.below(1 << 40)) }),
            6 => Write::Quarantine(self.entry(room, id, top.max(1))),
            _ => {
                self.tops.insert((room, id), top + 1);
                Write::Entry(self.entry(room, id, top + 1))
            }
        }
    }

    fn entry(&mut self, room: u64, id: u32, seq: u64) -> Kept {
        // Homes run side by side: their times overlap, and grow for each.
        self.millis += self.rng.below(2);
        let made = entry(ROOMS[room as usize], id, seq, 0, (self.rng.below(2), 1 + self.rng.below(400)));
        let mut changed = (*made.entry).clone();
        changed.hlc = Hlc { millis: self.millis, counter: seq as u32 };
        if self.rng.below(3) == 0 {
            changed.from = "ben".parse().unwrap();
        }
        changed.hash = changed.digest();
        rows::kept(changed)
    }

    fn member(&mut self) -> Member {
        let json = format!(r#"{{"id":{},"boot":{},"addrs":[]}}"#, 1 + self.rng.below(3), self.rng.below(99));
        serde_json::from_str(&json).unwrap()
    }

    fn record(&mut self, room: u64) -> RoomRecord {
        let home = origin(self.rng.below(3) as u32 + 1);
        let epoch = Epoch { term: self.rng.below(9), leader: home.id, boot: home.boot };
        let fence = Fence { epoch, n: self.rng.below(9), home };
        RoomRecord { room: ROOMS[room as usize].parse().unwrap(), fence, successors: vec![ServerId(2)] }
    }

    fn question(&mut self) -> Read {
        self.asked += 1;
        let room = ["tea", "ship", "nowhere"][self.rng.below(3) as usize].parse().unwrap();
        let what = match self.rng.below(4) {
            0 => {
                let range = |rng: &mut Rng| (origin(rng.below(4) as u32 + 1), rng.below(90), rng.below(150));
                let want = (0..self.rng.below(5)).map(|_| range(&mut self.rng)).collect();
                let bytes_max = if self.rng.below(2) == 0 { usize::MAX } else { self.rng.below(9_000) as usize };
                What::Ranges { want, max: self.rng.below(80) as usize, bytes_max }
            }
            1 => What::Last { count: self.rng.below(250) as u32 },
            2 => What::Since { millis: self.rng.below(self.millis + 3) },
            _ => {
                let device = DeviceId(self.rng.below(2).wrapping_neg());
                What::Device { person: PersonId([1; 16]), device, from: self.rng.below(250) }
            }
        };
        Read { id: self.asked, room, what }
    }

    fn compare(&mut self, store: &mut Store) {
        for _ in 0..12 {
            let read = self.question();
            let (theirs, ours) = (self.model.answer(&read), ask_as(store, &read));
            assert_eq!(text(&ours), text(&theirs), "{read:?}");
        }
    }
}

/// An answer, to be compared.
fn text(answer: &Answer) -> String {
    match &answer.found {
        Found::Entries(entries) => {
            assert!(entries.len() <= DEVICE_POSTS_MAX.max(80));
            entries.iter().map(|kept| kept.line.to_string()).collect()
        }
        other => format!("{other:?}"),
    }
}

fn ask_as(store: &mut Store, read: &Read) -> Answer {
    store.read(read.clone());
    loop {
        if let Notice::Answer(answer) = next(store) {
            return answer;
        }
    }
}

#[test]
fn it_answers_as_the_reference_store_does() {
    for seed in 0..6 {
        println!("seed {seed}");
        let rng = Rng::from_seed([seed; 32]);
        let mut world = World {
            rng,
            model: Model::default(),
            tops: std::collections::BTreeMap::default(),
            millis: 1_000,
            asked: 0,
        };
        let directory = TestDir::new();
        let (mut store, _) = directory.open();
        world.model.restore(0, &mut Rng::from_seed([0; 32]));
        for _ in 0..3 {
            let mut writes = 0;
            for _ in 0..4 {
                let count = 1 + world.rng.below(60);
                for _ in 0..count {
                    let write = world.write();
                    world.model.apply(&write);
                    store.persist(write);
                }
                writes += count;
                wait_durable(&mut store, writes);
                world.compare(&mut store);
            }
            assert_eq!(world.model.refused(), 0);
            drop(store);
            let (opened, ours) = directory.open();
            store = opened;
            let theirs = world.model.restore(0, &mut Rng::from_seed([0; 32]));
            assert_eq!(
                format!("{:?}", Restored { boot: None, ..ours }),
                format!("{:?}", Restored { boot: None, ..theirs })
            );
            world.compare(&mut store);
        }
    }
}
