//! Black-box tests on real networks: machines of their own addresses, cables that are pulled, links of one direction.
//!
//! A machine is a network namespace, a cable is a pair of virtual interfaces, a switch is a bridge in a namespace of its
//! own: nothing touches the interfaces of the machine that the tests run on ([`network`]). That takes root on Linux, `ip`
//! and `nft`; elsewhere each test says why it skips, and with `HOBNOB_REQUIRE_ALL=1` a skip is a failure.
//!
//! In each test people talk while something goes wrong. In the end every line that was reported as stored is in the log of
//! every server exactly once, in the same order on all of them, and everybody who listened has seen it exactly once
//! ([`crowd`]).

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../blackbox/common/mod.rs"]
mod common;
mod crowd;
mod cuts;
mod finding;
mod keepalives;
mod network;
mod pauses;
mod relay;
mod restarts;
