//! A room's log: a grow-only set of entries, named by dots.

pub mod entry;
mod posts;
pub mod room;
pub mod version_vector;

pub use entry::{Entry, Hash, PostKey};
pub use room::RoomLog;
pub use version_vector::VersionVector;
