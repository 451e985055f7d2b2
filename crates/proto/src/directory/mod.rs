//! The directory: what every server knows of the whole cluster. Where each room lives, who the members are, which client
//! is served where.
//!
//! Any server can answer "where is this room, who is here?" from its own copy, since all that is learnt is told to all.
//! Nothing here needs agreement. Rooms and members merge: for each key the greatest record wins, so copies that have
//! heard the same are the same, in whatever order they heard it. Clients have one writer, the server that serves them,
//! and versions.
//!
//! ```text
//!   rooms      the highest fence wins              Rooms, Assign, SyncRep
//!   members    the later boot wins, then leaving   Members
//!   clients    each server's own list, versioned   Clients, ClientsReq
//!   placement  what a leader decides over them
//! ```
//!
//! Heartbeats carry [`digest`] and the version of the sender's own list of clients: where one differs for longer than
//! news takes to travel, the receiver asks. A new leader merges what all others know; so followers' knowledge becomes
//! the state of the cluster again.

mod chunk;
pub mod clients;
mod digest;
pub mod members;
pub mod placement;
pub mod rooms;

pub use self::{
    clients::{Applied, Clients, Who},
    members::Members,
    placement::Placer,
    rooms::Rooms,
};

/// 53 bits over rooms and members, for [`Beat::directory`](crate::wire::frame::Beat::directory): equal where both are.
pub fn digest(rooms: &Rooms, members: &Members) -> u64 {
    digest::of(&(rooms.digest(), members.digest()))
}
