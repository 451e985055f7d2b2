//! The arguments of `hobnob bench`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use hobnob_proto::limits;

use crate::cli::ClientArgs;

/// Options of the bench.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub(super) what: What,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What every measurement takes.
#[derive(Args, Debug)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    /// One JSON object instead of a table
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The process of the server that is named by --server-ip, so that its CPU time and memory are known
    #[arg(long, global = true, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    /// Bytes of a message's text; `failover` has short lines of its own
    #[arg(long, global = true, default_value_t = 120, value_parser = clap::value_parser!(u64).range(24..=900))]
    pub(super) size: u64,
    /// Sockets that the members share (fanout, burst, idle, join); else as many as members, 1,024 at the most
    #[arg(long, global = true, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub(super) sockets: Option<u64>,
    /// Threads of the bench (fanout, burst, idle, join); else one less than there are processors
    #[arg(long, global = true, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(super) threads: Option<u64>,
    /// Let the system choose where the server and the bench run; `failover` and `start` do anyway
    #[arg(long, global = true)]
    pub(super) no_pin: bool,
    /// Let the system wake the bench for each datagram (fanout, burst); else members look every 3 ms once one of them talks, so that
    /// the server's processor has no part in what would be done on theirs
    #[arg(long, global = true)]
    pub(super) wake: bool,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum What {
    /// One member says a line each so often, and all others hear it
    Fanout {
        /// Members of the room
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
        members: u64,
        /// Between two lines, milliseconds
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=60_000))]
        gap: u64,
        /// Lines
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        lines: u64,
    },
    /// One member of each room says as much as it can, so much of it under way at a time
    Burst {
        /// Rooms
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        rooms: u64,
        /// Members of each room
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        members: u64,
        /// Lines of a room that are under way: not yet back at who said them
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=limits::PUSH_AHEAD_MAX))]
        window: u64,
        /// For so long
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
        seconds: u64,
    },
    /// Members that are there and say nothing
    Idle {
        /// Members, in rooms of a hundred
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=190_000))]
        sessions: u64,
        /// For so long, once all are there
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
    },
    /// Messages are posted by clients that follow no room, and counted once they are on the disks of so many servers
    Stored(StoredArgs),
    /// A server misses messages, and comes back: how long until it has them on its disk
    Catchup(CatchupArgs),
    /// The leader, or the home of a room, is killed while people talk: how long until everybody hears new messages. Its
    /// servers keep what they have where temporary files lie (TMPDIR), as those of the demo do
    Failover(FailoverArgs),
    /// A server starts with a long history that one server wrote: how long until it serves, and the memory that it takes then
    Start(StartArgs),
    /// Members come, as fast as they are let in
    Join {
        /// Members, in rooms of a hundred
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=190_000))]
        members: u64,
    },
}

/// Options of `stored`.
#[derive(Args, Clone, Debug)]
pub(super) struct StoredArgs {
    /// Clients that post
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) senders: u64,
    /// On how many servers a message is to be; not more than there are
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    pub(super) replicas: u64,
    /// For so long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// Servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=16))]
    pub(super) servers: u64,
    /// Rooms that they post in, if there are as many senders
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) rooms: u64,
    /// Messages of one sender that are under way: not stored yet; else 1 of a lone sender, and 64 of several
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(super) window: Option<u64>,
    /// A directory on the disk that is to be measured; else where servers keep what they have
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
}

/// Options of `catchup`.
#[derive(Args, Clone, Debug)]
pub(super) struct CatchupArgs {
    /// Messages that it misses
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(super) entries: u64,
    /// Clients that post them
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) senders: u64,
    /// Rooms that they post in
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) rooms: u64,
    /// A directory on the disk that is to be measured; else where servers keep what they have
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
}

/// Options of `failover`.
#[derive(Args, Clone, Debug)]
pub(super) struct FailoverArgs {
    /// Servers to kill, each in a cluster of its own: leaders and homes in turn
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) kills: u64,
}

/// Options of `start`.
#[derive(Args, Clone, Debug)]
pub(super) struct StartArgs {
    /// Messages that it has; an empty one is started, too
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(super) entries: u64,
    /// Rooms that they are in
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) rooms: u64,
    /// How often each is started
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(super) starts: u64,
    /// A directory on the disk that is to be measured; else where servers keep what they have
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
}

impl What {
    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Fanout { .. } => "fanout",
            Self::Burst { .. } => "burst",
            Self::Idle { .. } => "idle",
            Self::Stored(_) => "stored",
            Self::Catchup(_) => "catchup",
            Self::Failover(_) => "failover",
            Self::Start(_) => "start",
            Self::Join { .. } => "join",
        }
    }
}

/// Seconds as a span.
pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
