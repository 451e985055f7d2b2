//! Datagrams on the discovery port.

use std::net::SocketAddr;

use hobnob_proto::{
    discovery::{
        Config, Discovery, Facts, Input, Output,
        packet::{self, BYTES, Nonce, Packet},
    },
    ids::{Boot, ClusterId, ServerId},
    rng::Rng,
    session::keys::{self, Suite},
    time::{Duration, Time},
};

/// Reads a datagram, writes what it says again, and lets a server hear both: as it came, and under the server's own tag,
/// so that a tag holds nothing back.
///
/// # Panics
/// If what is written is read as something else, if a tag is taken that is none, or if a stranger is told more than it said.
pub fn run(data: &[u8]) {
    let key = keys::discovery_key(None, &"hobnob".parse().expect("this is a name"));
    let tagged = packet::parse(data).ok().map(|heard| write(&heard, &key));
    if let (Ok(heard), Some(tagged)) = (packet::parse(data), &tagged) {
        let again = packet::parse(tagged).expect("what we write can be read");
        assert_eq!(sorted(again), sorted(heard));
        let is_find = matches!(packet::parse(tagged), Ok(Packet::Find { .. }));
        assert_eq!(packet::verify(tagged, &key), !is_find, "a FIND alone has no tag");
    }
    let mut other = key.clone();
    other[0] ^= 1;
    assert!(!(packet::verify(data, &key) && packet::verify(data, &other)));
    for ours in [facts(Some(ServerId(2))), facts(None)] {
        let config = Config { key: key.clone(), peers: vec![addr(9)] };
        let mut server = Discovery::new(config, Rng::from_seed([1; 32]), Time::ZERO);
        let mut now = Time::ZERO;
        for datagram in [Some(data), tagged.as_deref(), Some(data), None].into_iter().flatten() {
            if packet::is_discovery(datagram) {
                server.handle(Input::Datagram { from: addr(1), bytes: datagram }, &ours, now);
                settle(&mut server, datagram.len().max(BYTES));
            }
            now = now + Duration::from_millis(200);
            server.handle(Input::Tick, &ours, now);
            settle(&mut server, BYTES);
        }
        assert!(server.foreign(now).count() <= 4);
    }
}

fn settle(server: &mut Discovery, bytes_max: usize) {
    let outputs: Vec<_> = std::iter::from_fn(|| server.poll()).collect();
    assert!(outputs.len() <= 8, "{outputs:?}");
    for output in outputs {
        if let Output::Broadcast { bytes } | Output::Send { bytes, .. } = output {
            assert!(bytes.len() <= bytes_max && packet::parse(&bytes).is_ok());
        }
    }
}

fn write(heard: &Packet, key: &[u8; 32]) -> Vec<u8> {
    match heard {
        Packet::Hello { facts } => packet::hello(facts, Nonce([7; 8]), key),
        Packet::Here { facts, nonce } => packet::here(facts, *nonce, key),
        Packet::Find { name, nonce } => packet::find(name.as_ref(), *nonce),
    }
}

/// Ids are told in order, and as many as fit.
fn sorted(mut heard: Packet) -> Packet {
    if let Packet::Hello { facts } | Packet::Here { facts, .. } = &mut heard {
        facts.ids.sort_unstable();
        facts.ids.truncate(4);
    }
    heard
}

fn facts(id: Option<ServerId>) -> Facts {
    let cluster: ClusterId = "5f0c1e2d3b4a59687786958493a2b1c0".parse().expect("this is an id");
    let name = "hobnob".parse().expect("this is a name");
    let key = keys::cluster_key(None, &name, cluster).public;
    Facts {
        cluster,
        name,
        id,
        boot: Boot(77),
        port: 5001,
        key,
        open: true,
        empty: true,
        age_secs: 3,
        servers: 1,
        suite: Suite::AesGcm,
        ids: id.into_iter().collect(),
    }
}

fn addr(last: u8) -> SocketAddr {
    ([127, 0, 0, last], 5001).into()
}
