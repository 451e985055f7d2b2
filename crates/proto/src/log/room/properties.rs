//! A log of which some is in memory and the rest on disk answers as one that is in memory as a whole.

use proptest::prelude::*;

use super::{tests::origin, *};
use crate::{
    ids::RoomName,
    log::entry::MESSAGE,
    rng::Rng,
    store::{Found, Read, What, Write, model::Model},
};

/// An entry comes: of which origin, of which device and which post, how long after the origin's last; then what is
/// trimmed to, or whether the server starts anew.
type Step = (u32, u64, u64, u64, Option<usize>, bool);

struct Logs {
    whole: RoomLog,
    tail: RoomLog,
    disk: Model,
    held: VersionVector,
}

fn key(device: u64, client_seq: u64) -> PostKey {
    PostKey { person: PersonId([1; 16]), device: DeviceId(device), client_seq }
}

fn entry((id, device, client_seq): (u32, u64, u64), seq: u64, millis: u64) -> Entry {
    let mut entry = Entry {
        room: RoomName::lobby(),
        origin: origin(id),
        seq,
        hlc: Hlc { millis, counter: 0 },
        from: "anna".parse().unwrap(),
        person: PersonId([1; 16]),
        device: DeviceId(device),
        client_seq,
        kind: MESSAGE.into(),
        body: format!("{device}.{client_seq}").into(),
        hash: Hash::default(),
    };
    entry.hash = entry.digest();
    entry
}

impl Logs {
    fn of(steps: &[Step]) -> Self {
        let (whole, tail) = (RoomLog::default(), RoomLog::default());
        let mut logs = Self { whole, tail, disk: Model::default(), held: VersionVector::default() };
        let mut clocks = [0; 4];
        for &(id, device, client_seq, after, trim, restart) in steps {
            clocks[id as usize] += 1 + after;
            let entry = entry((id, device, client_seq), logs.held.get(origin(id)) + 1, clocks[id as usize]);
            logs.held.raise(entry.origin, entry.seq);
            logs.disk.apply(&Write::Entry(entry.clone().into()));
            assert_eq!(logs.tail.insert(entry.clone()), Inserted::New);
            assert_eq!(logs.whole.insert(entry), Inserted::New);
            if let Some(entries_max) = trim {
                logs.tail.trim(&logs.held, entries_max, usize::MAX);
                assert!(logs.tail.in_memory() <= entries_max);
                logs.tail.shrink_posts(2 * entries_max);
                let is_all_on_disk = logs.tail.in_memory() == 0 && logs.tail.cut.is_some();
                assert!(!is_all_on_disk || logs.tail.posts_size() <= 2 * entries_max);
            }
            if restart {
                logs.tail = RoomLog::restored(&logs.disk.restore(1, &mut Rng::from_seed([1; 32])).logs[0]);
            }
        }
        logs
    }

    fn read(&self, what: What) -> Found {
        self.disk.answer(&Read { id: 1, room: RoomName::lobby(), what }).found
    }

    fn start(&self, known: Option<VersionVector>, what: What) -> VersionVector {
        known.unwrap_or_else(|| match self.read(what) {
            Found::Start(start) => start,
            other => panic!("{other:?}"),
        })
    }

    fn entries(&self, what: What) -> Vec<Kept> {
        match self.read(what) {
            Found::Entries(found) => found,
            other => panic!("{other:?}"),
        }
    }

    fn ranges(&self, want: &[(Origin, u64, u64)], max: usize, bytes_max: usize) -> Vec<DisplayOrder> {
        let found = self.tail.ranges(want, max, bytes_max).unwrap_or_else(|| {
            let found = self.entries(What::Ranges { want: want.to_vec(), max, bytes_max });
            self.tail.unite(want, found, max, bytes_max)
        });
        found.iter().map(|kept| kept.entry.order()).collect()
    }

    fn standing(&mut self, key: PostKey, oldest: u64) -> Standing {
        for _ in 0..4 {
            let Standing::Unknown { from } = self.tail.standing(key, oldest) else { break };
            self.tail.expect(key.person, key.device);
            let found = self.entries(What::Device { person: key.person, device: key.device, from });
            assert!(self.tail.learn(key.person, key.device, from, &found));
        }
        self.tail.standing(key, oldest)
    }
}

proptest! {
    #[test]
    fn a_tail_and_a_disk_answer_as_the_whole_log(
        steps in prop::collection::vec(
            (1_u32..4, 1_u64..4, 1_u64..9, 0_u64..9, prop::option::weighted(0.3, 0_usize..6), prop::bool::weighted(0.05)),
            1..40,
        ),
        count in 0_u32..12,
        millis in 0_u64..120,
        want in prop::collection::vec((1_u32..5, 0_u64..15, 0_u64..15), 0..4),
        max in 1_usize..20,
        bytes_max in 0_usize..4_000,
        post in (1_u64..5, 1_u64..10, 1_u64..10),
    ) {
        let mut logs = Logs::of(&steps);
        let (held, disk) = (logs.held.clone(), logs.disk.refused());
        prop_assert_eq!(disk, 0);
        prop_assert_eq!(logs.tail.len(), logs.whole.len());
        prop_assert_eq!(logs.tail.newest(), logs.whole.newest());
        let last = logs.start(logs.tail.start_of_last(count, &held), What::Last { count });
        prop_assert_eq!(Some(last), logs.whole.start_of_last(count, &held));
        let since = logs.start(logs.tail.start_since(millis, &held), What::Since { millis });
        prop_assert_eq!(Some(since), logs.whole.start_since(millis, &held));
        let want: Vec<_> = want.into_iter().map(|(id, from, to)| (origin(id), from, to)).collect();
        let whole: Vec<_> = logs.whole.ranges(&want, max, bytes_max).unwrap().iter().map(|k| k.entry.order()).collect();
        prop_assert_eq!(logs.ranges(&want, max, bytes_max), whole);
        let (device, client_seq, oldest) = post;
        let expected = logs.whole.standing(key(device, client_seq), oldest);
        prop_assert_eq!(logs.standing(key(device, client_seq), oldest), expected);
    }
}
