//! What a server and a client are told at their start.

use std::net::SocketAddr;

use crate::{
    ids::{ClusterName, DeviceId, PersonName, ServerId},
    session::keys::{KeyPair, Secret, Suite},
    store::Restored,
};

/// What a server is told at its start.
#[derive(Debug)]
pub struct ServerConfig {
    /// Its id, where `--id` asked for one; otherwise it takes the lowest that is free.
    pub id: Option<ServerId>,
    /// The cluster's name for people.
    pub cluster: ClusterName,
    /// The secret of a closed cluster; `None` for an open one.
    pub secret: Option<Secret>,
    /// On how many servers a message is stored before it counts as such; at least 1, default 2.
    pub replicas: u32,
    /// The port of its session socket, for HELLO.
    pub session_port: u16,
    /// All addresses of its session socket on this machine's interfaces.
    pub addrs: Vec<SocketAddr>,
    /// Session addresses of servers to ask although no broadcast reaches them (`--peer`).
    pub peers: Vec<SocketAddr>,
    /// The suite that is faster on this machine.
    pub suite: Suite,
    /// What the clock on the wall says at the start: milliseconds since 1970. May be wrong.
    pub wall_millis: u64,
    /// What its store holds; `None` for a server that keeps everything in memory, and forgets it when it ends.
    pub store: Option<Restored>,
}

/// What a client is told at its start.
#[derive(Debug)]
pub struct ClientConfig {
    /// The cluster's name for people.
    pub cluster: ClusterName,
    /// The secret of a closed cluster; `None` for an open one.
    pub secret: Option<Secret>,
    /// The key pair that is the person.
    pub person: KeyPair,
    /// This process.
    pub device: DeviceId,
    /// The name to be shown under.
    pub name: PersonName,
    /// How it talks: `terminal`, `pipe`, ...
    pub via: String,
    /// Session addresses to ask, and to stay with (`--server-ip`, `--server-port`); empty: find a cluster by broadcast.
    pub servers: Vec<SocketAddr>,
    /// The first session number; greater than any that this device used before: milliseconds since 1970 will do.
    pub session: u64,
}

#[cfg(test)]
impl ServerConfig {
    /// A server of tests: of an open cluster, without a disk and without an address.
    pub(crate) fn sample(id: u32) -> Self {
        Self {
            id: Some(ServerId(id)),
            cluster: "test".parse().expect("this is a name"),
            secret: None,
            replicas: 2,
            session_port: 5_001,
            addrs: Vec::new(),
            peers: Vec::new(),
            suite: Suite::ChaChaPoly,
            wall_millis: 1_700_000_000_000,
            store: None,
        }
    }
}
