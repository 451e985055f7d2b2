//! Nothing is told before it is durable: acks, leaders, homes, and who a server is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acks;
#[path = "../common/mod.rs"]
mod common;
mod imports;
mod lost;
mod markers;
mod posts;
mod restarts;
mod tails;
mod trouble;
mod world;
