//! Servers of one cluster, each with a data directory of its own: started, awaited until they agree, and stopped.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use hobnob_proto::{rng::Rng, wire::frame::Ask};
use serde_json::Value;

use crate::bench::{
    crowd::Target,
    disk::Place,
    failed,
    posters::{Posters, Role},
    process::{self, Cpu},
    server::{self, Cluster, Server},
};

/// How long servers may take to find each other and agree.
const AGREE_MAX: Duration = Duration::from_secs(20);

/// The servers. Dropped, they are killed, and what they kept is removed.
#[derive(Debug)]
pub(super) struct Trio {
    // Before the place: who is dead writes no more.
    pub(super) servers: Vec<Server>,
    pub(super) place: Place,
    cluster: Cluster,
    replicas: u64,
    processors: Vec<usize>,
}

impl Trio {
    /// So many servers that store on `replicas` of them, and know each other.
    pub(super) fn start(place: Place, count: u64, replicas: u64, pins: bool, rng: &mut Rng) -> Result<Self, Fail> {
        let all = process::processors();
        // On a machine with few, servers and bench have to share them.
        let processors = if pins && all.len() > 2 { all[..2].to_vec() } else { Vec::new() };
        let mut trio = Self { servers: Vec::new(), place, cluster: Cluster::new(rng)?, replicas, processors };
        for at in 0..count as usize {
            let server = trio.start_one(at)?;
            trio.servers.push(server);
        }
        trio.agree(rng)?;
        Ok(trio)
    }

    /// Where that server keeps what it has.
    pub(super) fn directory(&self, at: usize) -> PathBuf {
        self.place.path().join(format!("server{}", at + 1))
    }

    /// Starts one, with what its directory has.
    pub(super) fn start_one(&self, at: usize) -> Result<Server, Fail> {
        let (directory, replicas) = (self.directory(at).to_string_lossy().into_owned(), self.replicas.to_string());
        let args = ["--data-dir", &directory, "--replicas", &replicas];
        let server = Server::start(&self.cluster, at as u32 + 1, &args)?;
        if !self.processors.is_empty() {
            process::pin(server.pid(), &self.processors);
        }
        Ok(server)
    }

    /// How clients reach them.
    pub(super) fn targets(&self, rng: &mut Rng) -> Result<Vec<Target>, Fail> {
        self.servers.iter().map(|server| server::target(server.addr, None, rng)).collect()
    }

    /// Where the bench runs, if it is not to run where servers do.
    pub(super) fn leave_processors(&self) {
        let others: Vec<_> =
            process::processors().into_iter().filter(|processor| !self.processors.contains(processor)).collect();
        if !self.processors.is_empty() {
            process::pin(0, &others);
        }
    }

    /// Waits until each hears all others, and all follow the one with the highest id: rooms stay where they are then.
    fn agree(&self, rng: &mut Rng) -> Result<(), Fail> {
        let count = self.servers.len();
        let roles = (0..count).map(watcher).collect();
        let mut watchers = Posters::arrive(self.targets(rng)?, roles, 0, rng)?;
        let end = Instant::now() + AGREE_MAX;
        while Instant::now() < end {
            let mut agree = 0;
            for at in 0..count {
                let parts = watchers.ask(at, &Ask::Status)?;
                let up = items(&parts, "servers").filter(|server| server["state"] == "up").count();
                agree += usize::from(up == count && parts[0]["leader"] == count);
            }
            if agree == count {
                return Ok(());
            }
            watchers.until(Duration::from_millis(50), |_| false)?;
        }
        Err(failed("the servers did not agree in time"))
    }

    /// Lets each close its log and end.
    pub(super) fn stop(&mut self) {
        for server in &mut self.servers {
            server.stop();
        }
    }

    /// CPU time of each so far.
    pub(super) fn cpu(&self) -> Vec<Option<Cpu>> {
        self.servers.iter().map(|server| process::cpu(server.pid())).collect()
    }
}

/// A client that only asks.
pub(super) fn watcher(server: usize) -> Role {
    Role { server, room: hobnob_proto::ids::RoomName::lobby(), window: 0, copies: 0 }
}

/// The items of a list that goes over several parts of an answer.
pub(super) fn items<'a>(parts: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    parts.iter().filter_map(move |part| part[name].as_array()).flatten()
}

/// How many entries a server holds of the rooms whose names begin so.
pub(super) fn entries(parts: &[Value], rooms: &str) -> u64 {
    let is_ours = |room: &&Value| room["name"].as_str().is_some_and(|name| name.starts_with(rooms));
    items(parts, "rooms").filter(is_ours).filter_map(|room| room["entries"].as_u64()).sum()
}

/// Whether all that the server holds that says this is on its disk.
pub(super) fn is_written(parts: &[Value]) -> bool {
    items(parts, "servers").find_map(|server| server["unwritten"].as_u64()) == Some(0)
}
