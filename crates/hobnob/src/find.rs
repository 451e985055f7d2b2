//! Is there a cluster already? The bare command asks before it decides whether to start one.
//!
//! It lets a [`Client`] look around, but sends only its broadcasts: no session is opened, so nobody sees us come and go.

use std::time::{Duration, Instant};

use hobnob_client::{Fail, Options, net::Net};
use hobnob_proto::{
    client::{Client, Event, Input, Output},
    config::ClientConfig,
    ids::{ClusterId, DeviceId, PersonName},
    limits,
    rng::Rng,
    session::keys::KeyPair,
    time::Time,
};
use tokio::time::timeout_at;

/// What is out there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    /// No cluster of that name.
    Nobody,
    /// A cluster that we may join, or at least ask.
    Cluster {
        /// Which.
        id: ClusterId,
        /// How many servers it says it has.
        servers: usize,
        /// Whether it has the secret that we have, or neither has one. Else its servers will not talk to us.
        fits: bool,
    },
}

impl Around {
    /// The same cluster, which has another secret.
    fn without_trust(self) -> Self {
        match self {
            Self::Nobody => Self::Nobody,
            Self::Cluster { id, servers, .. } => Self::Cluster { id, servers, fits: false },
        }
    }
}

/// Looks for a cluster of that name, for `limit` at most.
pub(crate) async fn look(options: &Options, limit: Duration) -> Result<Around, Fail> {
    let start = Instant::now();
    let now = || Time::from_micros(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    let mut net = Net::open(&options.interfaces, options.discovery_port)?;
    let mut client = client(options, now())?;
    client.handle(Input::Tick, now());
    let mut seen = Around::Nobody;
    let end = start + limit;
    let mut buffer = [0; limits::DATAGRAM_BYTES_MAX + 1];
    while Instant::now() < end {
        match perform(&mut client, options, &net) {
            Some(fitting @ Around::Cluster { fits: true, .. }) => return Ok(fitting),
            Some(other) => seen = other,
            None => {}
        }
        // At least a millisecond, so that a deadline that stands still costs nothing.
        let due = start + Duration::from_micros(client.deadline().as_micros()).min(limit);
        let wake = due.max(Instant::now() + Duration::from_millis(1)).min(end);
        if timeout_at(wake.into(), net.readable()).await.is_ok() {
            while let Some((len, from)) = net.receive(&mut buffer) {
                client.handle(Input::Datagram { from, bytes: &buffer[..len] }, now());
            }
        }
        if client.deadline() <= now() {
            client.handle(Input::Tick, now());
        }
    }
    Ok(seen)
}

/// Does what the client wants done, as far as we let it. What was found by it.
fn perform(client: &mut Client, options: &Options, net: &Net) -> Option<Around> {
    let mut found = None;
    while let Some(output) = client.poll() {
        match output {
            Output::Broadcast { bytes } => net.broadcast(&bytes),
            Output::Event(Event::Found { name, cluster, servers, open, .. }) if name == options.cluster => {
                found = Some(Around::Cluster { id: cluster, servers, fits: open == options.secret.is_none() });
            }
            // Said of what was found with the same datagram: another secret.
            Output::Event(Event::NotTrusted { .. }) => found = found.map(Around::without_trust),
            Output::Send { .. } | Output::Event(_) => {}
        }
    }
    found
}

/// A client that is nobody in particular.
fn client(options: &Options, now: Time) -> Result<Client, Fail> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Fail::new(Fail::FAILED, format!("this machine gives no random numbers: {error}")))?;
    let mut rng = Rng::from_seed(seed);
    let name: PersonName = "hobnob".parse().expect("it is a short word");
    let config = ClientConfig {
        cluster: options.cluster.clone(),
        secret: options.secret.clone(),
        person: KeyPair::generate(&mut rng),
        device: DeviceId(rng.u64()),
        name,
        via: "pipe".into(),
        servers: Vec::new(),
        session: 1,
    };
    rng.fill(&mut seed);
    Ok(Client::new(config, seed, now))
}
