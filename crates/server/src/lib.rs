//! The server: sockets around [`hobnob_proto::node::Node`].
//!
//! The node decides everything and touches nothing; this crate touches everything and decides nothing. [`run`] serves
//! on the current task until the node stops, which is what `hobnob server` does; [`background::spawn`] does the same on
//! a thread of its own, for a program that chats at the same time.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use hobnob_proto::{
    config::ServerConfig,
    ids::{ClusterId, ClusterName, Origin, ServerId},
    node::{Node, Stop},
    rng::Rng,
    session::keys::{Secret, Suite},
    store::Restored,
};

use crate::{
    clock::Clock,
    control::Control,
    driver::{Around, Driver, End},
    network::Network,
    store::{Directory, Keep, OpenError, Realm, Retention, Store},
    udp::{DiscoveryError, Session, Sockets},
};

mod back;
pub mod background;
mod batch;
mod clock;
pub mod control;
mod driver;
pub mod interfaces;
mod log;
mod network;
#[cfg(unix)]
pub mod signals;
pub mod store;
mod udp;

/// The session port where none was asked for, if it is free.
pub const PORT_DEFAULT: u16 = 5001;
/// The port that all servers of a host share, to be found by broadcast.
pub const DISCOVERY_PORT_DEFAULT: u16 = 5005;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The id that was asked for; `None`: the lowest that is free.
    pub id: Option<ServerId>,
    /// The session port that was asked for; 0: any that is free; `None`: [`PORT_DEFAULT`] or one of the next 100.
    pub port: Option<u16>,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The secret of a closed cluster; `None` for an open one.
    pub secret: Option<Secret>,
    /// On how many servers a message is to be before it counts as stored; at least 1.
    pub replicas: u32,
    /// Names of the interfaces to use; empty: all that lead to other people's machines.
    pub interfaces: Vec<String>,
    /// The discovery port, the same on every machine of the cluster.
    pub discovery_port: u16,
    /// Session addresses of servers that no broadcast reaches. Where there is one, a discovery port that cannot be
    /// used is no error.
    pub peers: Vec<SocketAddr>,
    /// Where it keeps what it is told.
    pub keep: Keep,
    /// How much of it.
    pub retention: Retention,
}

impl Options {
    /// A server of this cluster, with nothing else said.
    pub fn new(cluster: ClusterName) -> Self {
        Self {
            id: None,
            port: None,
            cluster,
            secret: None,
            replicas: 2,
            interfaces: Vec::new(),
            discovery_port: DISCOVERY_PORT_DEFAULT,
            peers: Vec::new(),
            keep: Keep::Latest,
            retention: Retention::default(),
        }
    }
}

/// What a server says of itself once it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its id and boot.
    pub me: Origin,
    /// In which cluster.
    pub cluster: ClusterId,
    /// Whether it made that cluster.
    pub founded: bool,
    /// Its session addresses, the one for other machines first. Empty while it waits for a network.
    pub addrs: Vec<SocketAddr>,
}

impl Ready {
    /// The address to tell people; `None`: it has none yet.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addrs.first().copied()
    }
}

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The node stopped by itself, or because it was asked to leave.
    Stopped(Stop),
    /// It was told to stop at once: nothing was handed over, the others find out by its silence.
    AtOnce,
}

/// Why a server could not start. Nothing was sent, and every socket is closed again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine does not tell its interfaces.
    #[error("the network interfaces of this machine cannot be read: {0}")]
    Interfaces(#[source] std::io::Error),
    /// No interface of that name has an address.
    #[error("there is no interface {name} with an address: choose from {known}")]
    UnknownInterface {
        /// What was asked for.
        name: String,
        /// Those that there are, with commas.
        known: String,
    },
    /// No interface is up.
    #[error("no network interface of this machine is up with an address: connect to a network and start again")]
    NoInterface,
    /// The session port that was asked for is taken.
    #[error("port {0} is in use by another program: choose another with --port")]
    PortTaken(u16),
    /// None of the session ports that were tried is free.
    #[error("ports {first} to {last} are all in use by other programs: choose another with --port")]
    NoPortFree {
        /// The first that was tried.
        first: u16,
        /// The last.
        last: u16,
    },
    /// The session socket could not be made for another reason.
    #[error("port {port} cannot be opened: {source}")]
    Port {
        /// Which.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The discovery port is not to be shared.
    #[error(
        "discovery port {port} cannot be used ({source}): choose another with --discovery-port, the same on all \
         machines, or name a server with --peer"
    )]
    Discovery {
        /// Which.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("this machine gives no random numbers: {0}")]
    Entropy(getrandom::Error),
    /// What it keeps cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The runtime or its thread could not be started.
    #[error("the server cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
}

/// Serves until the node stops, or until `control` says to stop at once.
///
/// To be run on a current-thread runtime with I/O and time. Ends within 10 s of [`control::Order::Leave`].
pub async fn run(options: Options, control: Control) -> Result<Exit, Error> {
    let choices = interfaces::choose(interfaces::all().map_err(Error::Interfaces)?, &options.interfaces)?;
    // Where no interface was named, or one has no address yet, a network may come later.
    let only_loopback = interfaces::is_only_loopback(&choices, &options.interfaces);
    if !choices.iter().any(|choice| choice.used) {
        tracing::warn!(interfaces = options.interfaces.join(", "), "no address yet: waits for one");
    }
    let session = Session::open(options.port, only_loopback)?;
    let port = session.port();
    let (sockets, discovery) = Sockets::open(session, &choices, options.discovery_port);
    match discovery {
        Ok(()) => {}
        Err(DiscoveryError { source }) if options.peers.is_empty() => {
            return Err(Error::Discovery { port: options.discovery_port, source });
        }
        Err(DiscoveryError { source }) => tracing::warn!(
            port = options.discovery_port,
            error = %source,
            "the discovery port cannot be used: only the named peers will be found"
        ),
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Error::Entropy)?;
    let mut rng = Rng::from_seed(seed);
    let realm = Realm::new(&options.cluster, options.secret.as_ref());
    let (mut store, mut restored) = match Directory::choose(&options.keep, &realm, options.id)? {
        Some(directory) => {
            tracing::info!(directory = %directory.path().display(), "keeps messages");
            let (store, restored) = Store::open(directory, options.retention, &mut rng)?;
            (Some(store), Some(restored))
        }
        None => (None, None),
    };
    let network = Network::new(options.interfaces.clone(), port, choices);
    tracing::debug!(addrs = ?network.addrs(), discovery_port = options.discovery_port, "sockets are open");
    let clock = Clock::start();
    let mut around = Around { sockets, control, network };
    loop {
        rng.fill(&mut seed);
        let node = Node::new(config(&options, port, around.network.addrs(), restored), seed, clock.now());
        let driver = Driver::new(node, around, clock, store, rng);
        match driver.run().await {
            End::Exit(exit) => return Ok(exit),
            // The disk can be written to again: a new boot goes on with what is durable.
            End::Reopened(again) => {
                (store, restored) = (Some(again.store), Some(again.restored));
                (around, rng) = (again.around, again.rng);
            }
        }
    }
}

/// The node's configuration.
fn config(options: &Options, session_port: u16, addrs: Vec<SocketAddr>, store: Option<Restored>) -> ServerConfig {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ServerConfig {
        id: options.id,
        cluster: options.cluster.clone(),
        secret: options.secret.clone(),
        replicas: options.replicas.max(1),
        session_port,
        addrs,
        peers: options.peers.clone(),
        suite: faster_suite(),
        wall_millis: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        store,
    }
}

/// The suite that is faster on this processor.
fn faster_suite() -> Suite {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let aes = false;
    if aes { Suite::AesGcm } else { Suite::ChaChaPoly }
}

#[cfg(test)]
mod tests {
    /// Says what is not tested here; fails where all is to be.
    pub(crate) fn skip(why: &str) {
        assert!(std::env::var("HOBNOB_REQUIRE_ALL").as_deref() != Ok("1"), "skipped, but all is required: {why}");
        println!("skipped: {why}");
    }
}
