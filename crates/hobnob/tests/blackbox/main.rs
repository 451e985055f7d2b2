//! Black-box tests: the program as people start it, in separate processes on loopback.
//!
//! Each test has its own home directory, cluster name, ports and discovery port, so they run side by side. Nothing
//! waits for a fixed time: conditions are polled, and limits are generous ([`common::patience`]).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bare;
mod bench;
mod closed;
mod cluster;
#[allow(dead_code, reason = "other targets use the rest")]
mod common;
mod demo;
#[cfg(target_os = "linux")]
mod disk;
mod hostile;
mod join;
mod kills;
mod planned;
mod posts;
#[cfg(target_os = "linux")]
mod terminal;
mod transfer;
mod usage;
