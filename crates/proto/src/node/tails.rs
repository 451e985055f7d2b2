//! How much of the logs stays in memory: a tail of each room, and of all rooms together so much and no more.
//!
//! What is durable can be looked up on disk. A room keeps its newest entries, since those are what followers miss and
//! newcomers want; where all rooms together have too much, those quiet for longest keep none. A server without a store
//! keeps everything. So it is with the records that tell one post of a device from another that says its number again.

use super::Node;
use crate::ids::RoomName;

/// What one room keeps: entries, and bytes of their lines.
const ROOM_ENTRIES_MAX: usize = 512;
const ROOM_BYTES_MAX: usize = 256 * 1024;
/// Bytes of lines that all rooms keep.
pub(super) const LINES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records of posts that all rooms keep, about 100 bytes each: see [`crate::log::RoomLog::posts_size`].
pub(super) const POSTS_MAX: usize = 65_536;

impl Node {
    /// More of a room is durable: what is too much goes out of memory.
    pub(super) fn trim(&mut self, name: &RoomName) {
        if !self.kept.has_store() {
            return;
        }
        let Some(bytes) = self.trim_room(name, ROOM_ENTRIES_MAX, ROOM_BYTES_MAX) else { return };
        self.lines.touch(name, bytes);
        while let Some(quiet) = self.lines.too_much() {
            let bytes = self.trim_room(&quiet, 0, 0).unwrap_or_default();
            self.lines.shrunk(&quiet, bytes);
        }
    }

    fn trim_room(&mut self, name: &RoomName, entries_max: usize, bytes_max: usize) -> Option<usize> {
        let room = self.rooms.get_mut(name)?;
        let durable = room.durable.as_ref()?;
        room.log.trim(durable, entries_max, bytes_max);
        Some(room.log.bytes())
    }

    /// All rooms together keep so many records of posts: those quiet for longest forget theirs first.
    pub(super) fn trim_posts(&mut self, name: &RoomName) {
        let Some(size) = self.rooms.get(name).map(|room| room.log.posts_size()) else { return };
        self.posts.touch(name, size);
        while let Some(quiet) = self.posts.too_much() {
            if let Some(room) = self.rooms.get_mut(&quiet) {
                room.log.shrink_posts(0);
                self.posts.shrunk(&quiet, room.log.posts_size());
            }
        }
    }

    /// How many bytes of entries' lines are in memory.
    pub fn bytes_in_memory(&self) -> usize {
        self.rooms.values().map(|room| room.log.bytes()).sum()
    }
}
