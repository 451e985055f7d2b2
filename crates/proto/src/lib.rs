//! The protocol of hobnob: servers that elect a leader and share out rooms, rooms that are replicated logs, clients that
//! follow them. One deterministic state machine: bytes and time in, bytes and deadlines out. It has no sockets, no
//! clock, no threads and no entropy of its own, and runs unchanged under tokio and under a simulator.

pub mod addr;
pub mod client;
pub mod config;
pub mod delivery;
pub mod directory;
pub mod discovery;
pub mod election;
pub mod heartbeat;
pub mod hlc;
pub mod ids;
mod lent;
pub mod limits;
pub mod log;
pub mod node;
pub mod planted;
pub mod rng;
pub mod session;
mod sorted;
pub mod store;
pub mod text;
pub mod time;
pub mod timer;
pub mod wire;
