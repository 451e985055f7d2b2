//! A simulator for hobnob: whole clusters of real servers and clients in virtual time, on a network that loses, doubles,
//! delays and reorders packets, with crashes, cuts and pauses; all of it from one seed. The same seed gives the same
//! trace, byte for byte, so that a failure is replayed by its number.
//!
//! After `TigerBeetle`'s simulator and openraft's `tests-turmoil`: each run ends with heal, converge, serve, check, and
//! each invariant is a file.
//!
//! ```text
//! run ── profile          what the run is like, drawn from the seed
//!  ├── faults, cuts       what breaks, as tasks in the world's queue
//!  ├── traffic            what people do, likewise
//!  └── world ── host      virtual time; the machines and the processes on them
//!       ├── disk          what a server keeps, and what of it is lost
//!       ├── link          when a packet arrives, if it does
//!       ├── noise         what an outsider sends besides
//!       ├── watch, oracle what servers hold and clients are told, as facts
//!       ├── invariants    judge the facts
//!       ├── silence       how long somebody waited who could be served
//!       └── trace         a line for each thing that happened, and their hash
//! ```

pub mod coverage;
pub mod cuts;
pub mod dice;
pub mod disk;
pub mod facts;
pub mod faults;
pub mod host;
pub mod invariants;
pub mod link;
pub mod noise;
pub mod oracle;
pub mod profile;
pub mod run;
pub mod shrink;
pub mod silence;
pub mod sweep;
pub mod switches;
pub mod trace;
pub mod traffic;
pub mod watch;
pub mod world;
