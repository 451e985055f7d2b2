//! Posts that wait for something: at a home for an earlier one of their device, elsewhere for their home to store them.
//!
//! All that is kept here is repeated by the client that posted it, so any of it can be dropped. And a client chooses the
//! numbers and rooms of its posts as it likes, so what it keeps here is counted: in posts and bytes, for each device and in
//! all.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::{DeviceId, PersonId, RoomName},
    time::{Duration, Time},
    wire::frame::Post,
};

/// What of one device waits: posts and bytes.
const DEVICE_MAX: Size = Size { posts: 1_024, bytes: 1024 * 1024 };
/// What of all devices does.
const ALL_MAX: Size = Size { posts: POSTS_MAX, bytes: BYTES_MAX };
/// Posts of all devices.
pub(super) const POSTS_MAX: usize = 16_384;
/// Bytes of all devices.
pub(super) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a post takes beside its body.
pub(super) const OVERHEAD: usize = 512;

/// A device of a person.
pub(super) type Device = (PersonId, DeviceId);

/// Posts that wait, by room, device and number.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    posts: BTreeMap<(RoomName, PersonId, DeviceId, u64), (Time, Post)>,
    devices: BTreeMap<Device, (Size, BTreeSet<(RoomName, u64)>)>,
    all: Size,
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    posts: usize,
    bytes: usize,
}

impl Size {
    fn of(post: &Post) -> Self {
        Self { posts: 1, bytes: post.body.len() + OVERHEAD }
    }

    fn and(self, other: Self) -> Self {
        Self { posts: self.posts + other.posts, bytes: self.bytes + other.bytes }
    }

    fn without(self, other: Self) -> Self {
        Self { posts: self.posts - other.posts, bytes: self.bytes - other.bytes }
    }

    fn fits(self, max: Self) -> bool {
        self.posts <= max.posts && self.bytes <= max.bytes
    }
}

impl Waiting {
    /// How many posts wait, and bytes with what they take beside.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.all.posts, self.all.bytes)
    }

    /// Keeps a post since `now`, in place of one with its number; whether there was space for it.
    pub(super) fn insert(&mut self, post: Post, now: Time) -> bool {
        let Some(author) = &post.author else { return false };
        let device = (author.person, author.device);
        self.remove(&post.room, device, post.seq);
        let of_device = self.devices.get(&device).map(|(size, _)| *size).unwrap_or_default().and(Size::of(&post));
        let all = self.all.and(Size::of(&post));
        if !of_device.fits(DEVICE_MAX) || !all.fits(ALL_MAX) {
            return false;
        }
        self.all = all;
        let (size, keys) = self.devices.entry(device).or_default();
        *size = of_device;
        keys.insert((post.room.clone(), post.seq));
        self.posts.insert((post.room.clone(), device.0, device.1, post.seq), (now, post));
        true
    }

    /// Takes a post out, if it is there.
    pub(super) fn remove(&mut self, room: &RoomName, device: Device, seq: u64) -> Option<Post> {
        let (_, post) = self.posts.remove(&(room.clone(), device.0, device.1, seq))?;
        self.all = self.all.without(Size::of(&post));
        if let Some((size, keys)) = self.devices.get_mut(&device) {
            *size = size.without(Size::of(&post));
            keys.remove(&(room.clone(), seq));
            if keys.is_empty() {
                self.devices.remove(&device);
            }
        }
        Some(post)
    }

    /// Takes out what a device has below `seq` in a room.
    pub(super) fn remove_below(&mut self, room: &RoomName, device: Device, seq: u64) {
        let key = |seq| (room.clone(), device.0, device.1, seq);
        let below: Vec<_> = self.posts.range(key(0)..key(seq)).map(|((.., seq), _)| *seq).collect();
        for seq in below {
            self.remove(room, device, seq);
        }
    }

    /// Takes out all that a device has.
    pub(super) fn remove_device(&mut self, device: Device) {
        let Some((_, keys)) = self.devices.get(&device).cloned() else { return };
        for (room, seq) in keys {
            self.remove(&room, device, seq);
        }
    }

    /// Takes out all of a room, in the order of [`Self::of_room`].
    pub(super) fn take_room(&mut self, room: &RoomName) -> Vec<Post> {
        let posts: Vec<_> = self.of_room(room).cloned().collect();
        for post in &posts {
            if let Some(author) = &post.author {
                self.remove(room, (author.person, author.device), post.seq);
            }
        }
        posts
    }

    /// Takes out what a device has in a room, in order.
    pub(super) fn take_device(&mut self, room: &RoomName, device: Device) -> Vec<Post> {
        let key = |seq| (room.clone(), device.0, device.1, seq);
        let seqs: Vec<_> = self.posts.range(key(0)..=key(u64::MAX)).map(|((.., seq), _)| *seq).collect();
        seqs.into_iter().filter_map(|seq| self.remove(room, device, seq)).collect()
    }

    /// Takes out what has waited for longer than `span`.
    pub(super) fn expire(&mut self, now: Time, span: Duration) {
        let old = self.posts.iter().filter(|(_, (at, _))| now.since(*at) > span);
        let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
        for (room, person, device, seq) in old {
            self.remove(&room, (person, device), seq);
        }
    }

    /// What waits in a room: by device, the oldest of each first.
    pub(super) fn of_room<'a>(&'a self, room: &'a RoomName) -> impl Iterator<Item = &'a Post> {
        self.after(room, (PersonId([0; 16]), DeviceId(0)), 0)
    }

    /// Of these, those from `seq` of a device on.
    pub(super) fn after<'a>(&'a self, room: &'a RoomName, of: Device, seq: u64) -> impl Iterator<Item = &'a Post> {
        let posts = self.posts.range((room.clone(), of.0, of.1, seq)..);
        posts.take_while(move |((name, ..), _)| name == room).map(|(_, (_, post))| post)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hlc::Hlc, limits, log::entry::MESSAGE, wire::frame::Author};

    fn post(room: &str, device: u64, seq: u64, bytes: usize) -> Post {
        Post {
            room: room.parse().unwrap(),
            seq,
            oldest: 1,
            shown: Hlc::default(),
            kind: MESSAGE.into(),
            body: "x".repeat(bytes),
            detour: 0,
            author: Some(Author {
                name: "ada".parse().unwrap(),
                person: PersonId([7; 16]),
                device: DeviceId(device),
                vouched: Hlc::default(),
            }),
        }
    }

    fn of(device: u64) -> Device {
        (PersonId([7; 16]), DeviceId(device))
    }

    /// How many of such posts are kept, of so many devices with so many posts each, in ever new rooms.
    fn kept(devices: u64, posts: u64, bytes: usize) -> usize {
        let mut waiting = Waiting::default();
        for device in 1..=devices {
            for n in 1..=posts {
                waiting.insert(post(&format!("r{n}"), device, n, bytes), Time::ZERO);
            }
        }
        assert_eq!(waiting.posts.len(), waiting.all.posts);
        waiting.all.posts
    }

    #[test]
    fn a_device_and_all_devices_keep_so_much_and_no_more() {
        assert_eq!(kept(1, 10, 1), 10);
        assert_eq!(kept(1, 2_000, 1), DEVICE_MAX.posts);
        let long = limits::BODY_BYTES_MAX;
        assert_eq!(kept(1, 100, long), DEVICE_MAX.bytes / (long + OVERHEAD));
        assert_eq!(kept(2, 100, long), 2 * (DEVICE_MAX.bytes / (long + OVERHEAD)));
        assert_eq!(kept(80, 64, long), ALL_MAX.bytes / (long + OVERHEAD));
        assert_eq!(kept(17, 1_024, 1), ALL_MAX.posts);
    }

    #[test]
    fn what_is_taken_out_makes_space() {
        fn check(take: impl Fn(&mut Waiting)) {
            let mut waiting = Waiting::default();
            for n in 1..=10 {
                assert!(waiting.insert(post("tea", 1, n, 9), Time::ZERO));
                assert!(waiting.insert(post("tea", 1, n, 100), Time::ZERO), "once more");
            }
            assert_eq!(waiting.all, Size { posts: 10, bytes: 10 * (100 + OVERHEAD) });
            take(&mut waiting);
            assert_eq!((waiting.all, waiting.devices.len(), waiting.posts.len()), (Size::default(), 0, 0));
        }
        let tea: RoomName = "tea".parse().unwrap();
        check(|waiting| waiting.remove_device(of(1)));
        check(|waiting| waiting.remove_below(&tea, of(1), 11));
        check(|waiting| assert_eq!(waiting.take_room(&tea).len(), 10));
        check(|waiting| waiting.expire(Time::from_micros(2), Duration::from_micros(1)));
    }

    #[test]
    fn what_stays_is_in_order() {
        let mut waiting = Waiting::default();
        for (room, device, seq) in [("tea", 2, 1), ("tea", 1, 2), ("tea", 1, 1), ("milk", 1, 7), ("zen", 1, 1)] {
            waiting.insert(post(room, device, seq, 1), Time::ZERO);
        }
        let tea: RoomName = "tea".parse().unwrap();
        let seqs = |from: (u64, u64)| -> Vec<_> {
            waiting
                .after(&tea, of(from.0), from.1)
                .map(|post| (post.author.clone().unwrap().device, post.seq))
                .collect()
        };
        assert_eq!(seqs((0, 0)), [(of(1).1, 1), (of(1).1, 2), (of(2).1, 1)]);
        assert_eq!(seqs((1, 2)), [(of(1).1, 2), (of(2).1, 1)]);
    }
}
