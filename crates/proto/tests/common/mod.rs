//! What servers and people of the tests are told at their start, where a test says nothing else.

use std::net::SocketAddr;

use hobnob_proto::{
    config::{ClientConfig, ServerConfig},
    ids::{DeviceId, ServerId},
    rng::Rng,
    session::keys::{KeyPair, Suite},
    time::Time,
};

/// A server of an open cluster at one address, without a disk; its clock on the wall began with the test.
pub(crate) fn server(id: Option<u32>, addr: SocketAddr, now: Time) -> ServerConfig {
    ServerConfig {
        id: id.map(ServerId),
        cluster: "test".parse().expect("this is a name"),
        secret: None,
        replicas: 2,
        session_port: addr.port(),
        addrs: vec![addr],
        peers: Vec::new(),
        suite: Suite::ChaChaPoly,
        wall_millis: 1_700_000_000_000 + now.as_millis(),
        store: None,
    }
}

/// Somebody whose key comes from a seed, with that device. They ask these servers; none: they look for a cluster.
pub(crate) fn person(seed: [u8; 32], device: u64, name: &str, servers: &[SocketAddr]) -> ClientConfig {
    ClientConfig {
        cluster: "test".parse().expect("this is a name"),
        secret: None,
        person: KeyPair::generate(&mut Rng::from_seed(seed)),
        device: DeviceId(device),
        name: name.parse().expect("this is a name"),
        via: "test".to_owned(),
        servers: servers.to_vec(),
        session: 1,
    }
}
