//! A bad link: a machine that passes datagrams on, loses some and keeps others waiting.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hobnob_proto::rng::Rng;

use crate::network::Namespace;

/// How bad a link is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Of a hundred datagrams, so many are lost, each way.
    pub(crate) loss_percent: u64,
    /// How long each takes, half as much more or less.
    pub(crate) delay: Duration,
}

/// A relay. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A datagram under way: the socket that sends it, where to, and what.
type UnderWay = (usize, SocketAddr, Vec<u8>);

impl Relay {
    /// Passes what comes to `port` of that machine on to `server`, and the answers back to whoever asked: the same luck for
    /// the same `seed`.
    pub(crate) fn start(machine: &Namespace, port: u16, server: SocketAddr, weather: Weather, seed: u8) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = machine.work(move || pass_on(port, server, weather, &mut Rng::from_seed([seed; 32]), &over));
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the relay has worked until the end");
        }
    }
}

/// The work of a relay. Each client has a socket of its own towards the server, as behind a router that translates.
fn pass_on(port: u16, server: SocketAddr, weather: Weather, rng: &mut Rng, over: &AtomicBool) {
    let open = |port: u16| {
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    // Socket 0 is for clients; the socket of client n is n + 1.
    let (mut sockets, mut clients) = (vec![open(port)], Vec::<SocketAddr>::new());
    let mut under_way = BTreeMap::<(Instant, u64), UnderWay>::new();
    let mut buffer = [0; 2048];
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        for at in 0..sockets.len() {
            while let Ok((len, from)) = sockets[at].recv_from(&mut buffer) {
                let (by, to) = if at == 0 {
                    let client = clients.iter().position(|client| *client == from).unwrap_or_else(|| {
                        clients.push(from);
                        sockets.push(open(0));
                        clients.len() - 1
                    });
                    (client + 1, server)
                } else {
                    (0, clients[at - 1])
                };
                if rng.below(100) >= weather.loss_percent {
                    count += 1;
                    let due = Instant::now() + rng.jitter(weather.delay, 50);
                    under_way.insert((due, count), (by, to, buffer[..len].to_vec()));
                }
            }
        }
        while let Some(datagram) = under_way.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let (by, to, bytes) = datagram.remove();
            let _lost = sockets[by].send_to(&bytes, to);
        }
        thread::sleep(Duration::from_millis(1));
    }
}
