//! The loop: what has arrived, what is due, what is to be done, and again.
//!
//! Sockets are drained before the tick, so that a heartbeat that waits in a buffer is heard before its sender could be
//! called silent. A turn takes a bounded batch from each socket, so that a flood on one delays neither the others nor
//! the heartbeats that a tick sends. All effects happen in [`Driver::perform`], and nowhere else.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use hobnob_proto::{
    limits,
    node::{Event, Input, Node, Output},
};
use tokio::{net::UdpSocket, time::sleep_until};

use crate::{
    Exit, Ready,
    clock::Clock,
    control::{Control, Order},
    log,
    network::Network,
    udp::Sockets,
};

/// Datagrams that one turn takes from the session socket.
const SESSION_BATCH: usize = 256;
/// Datagrams that one turn takes from each discovery socket.
const DISCOVERY_BATCH: usize = 32;
/// The least time between two ticks: bounds what a deadline that stands still could cost.
const TICK_GAP: Duration = Duration::from_millis(1);

/// A node with its sockets.
#[derive(Debug)]
pub(crate) struct Driver {
    node: Node,
    sockets: Sockets,
    clock: Clock,
    control: Control,
    network: Network,
    exit: Option<Exit>,
    /// Errors of the network, by what failed and how. They change nothing: whatever was lost is sent again.
    errors: BTreeMap<(&'static str, io::ErrorKind), u64>,
}

/// What ended a wait.
enum Wake {
    /// Something may have arrived, or is due.
    Turn,
    /// Whoever started us wants something.
    Order(Order),
}

impl Driver {
    /// A driver that has done nothing yet.
    pub(crate) fn new(node: Node, sockets: Sockets, clock: Clock, control: Control, network: Network) -> Self {
        Self { node, sockets, clock, control, network, exit: None, errors: BTreeMap::new() }
    }

    /// Runs until the node stops, or is told to stop at once.
    pub(crate) async fn run(mut self) -> Exit {
        self.until_writable().await;
        self.tell_network();
        let mut next_tick = self.clock.now();
        loop {
            if self.network.look(&mut self.sockets) {
                self.tell_network();
            }
            self.drain();
            let now = self.clock.now();
            if now >= next_tick.max(self.node.deadline()) {
                self.node.handle(Input::Tick, now);
                next_tick = now + TICK_GAP;
            }
            while let Some(output) = self.node.poll() {
                self.perform(output);
            }
            if let Some(exit) = self.exit.take() {
                tracing::debug!(errors = ?self.errors, "stopped");
                return exit;
            }
            let wake_at = self.clock.instant(next_tick.max(self.node.deadline())).min(self.network.next().into());
            let wake = tokio::select! {
                () = readable(&self.sockets) => Wake::Turn,
                () = sleep_until(wake_at) => Wake::Turn,
                Some(order) = self.control.orders.recv() => Wake::Order(order),
            };
            match wake {
                Wake::Turn => {}
                Wake::Order(Order::Leave) => self.node.handle(Input::Leave, self.clock.now()),
                Wake::Order(Order::StopAtOnce) => self.exit = Some(Exit::AtOnce),
            }
        }
    }

    /// Waits until the runtime knows that the sockets can be written to; before that it would drop what is sent first.
    async fn until_writable(&self) {
        for socket in self.sockets.session.iter() {
            if let Err(error) = socket.writable().await {
                tracing::warn!(%error, "a socket cannot be written to");
            }
        }
    }

    /// Hands a batch from each socket to the node.
    fn drain(&mut self) {
        let Self { node, sockets, clock, errors, .. } = self;
        for session in sockets.session.iter() {
            receive(session, SESSION_BATCH, node, *clock, errors);
        }
        for discovery in &sockets.discovery {
            receive(&discovery.socket, DISCOVERY_BATCH, node, *clock, errors);
        }
    }

    /// The one place where the node's wishes become effects.
    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { to, bytes } => {
                if let Err(error) = self.sockets.session.send(to, &bytes) {
                    count(&mut self.errors, "send", &error);
                }
            }
            Output::Broadcast { bytes } => {
                let Self { sockets, errors, .. } = self;
                sockets.broadcast(&bytes, |error| count(errors, "broadcast", error));
            }
            // There is no store yet.
            Output::Persist(_) | Output::Read(_) => {}
            Output::Event(event) => self.tell(event),
        }
    }

    /// Tells the node of our interfaces and addresses, and whoever started us of the addresses.
    fn tell_network(&mut self) {
        let addrs = self.network.addrs();
        let input = Input::Network { addrs: &addrs, interfaces: self.network.choices() };
        self.node.handle(input, self.clock.now());
        self.control.ready.send_if_modified(|ready| {
            let Some(ready) = ready else { return false };
            let is_news = ready.addrs != addrs;
            ready.addrs = addrs;
            is_news
        });
    }

    /// Tells the log, and whoever started us.
    fn tell(&mut self, event: Event) {
        log::event(&event);
        match &event {
            Event::Ready { me, cluster, founded } => {
                let ready = Ready { me: *me, cluster: *cluster, founded: *founded, addrs: self.network.addrs() };
                self.control.ready.send_replace(Some(ready));
            }
            Event::Adopted { cluster } => self.control.ready.send_modify(|ready| {
                if let Some(ready) = ready {
                    ready.cluster = *cluster;
                }
            }),
            Event::Stopped(stop) => self.exit = Some(Exit::Stopped(stop.clone())),
            Event::PeerUp { .. } | Event::PeerDown { .. } | Event::Leader { .. } => {}
        }
        if let Some(events) = &self.control.events {
            let _nobody_listens = events.send(event);
        }
    }
}

/// Hands at most `batch` datagrams of `socket` to the node.
fn receive(
    socket: &UdpSocket,
    batch: usize,
    node: &mut Node,
    clock: Clock,
    errors: &mut BTreeMap<(&'static str, io::ErrorKind), u64>,
) {
    // One byte more than anybody may send, so that the node sees what is too long.
    let mut buffer = [0; limits::DATAGRAM_BYTES_MAX + 1];
    for _ in 0..batch {
        match socket.try_recv_from(&mut buffer) {
            Ok((len, mut from)) => {
                // The flow that a packet belonged to is no part of its sender's address.
                if let SocketAddr::V6(from) = &mut from {
                    from.set_flowinfo(0);
                }
                node.handle(Input::Datagram { from, bytes: &buffer[..len] }, clock.now());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => count(errors, "receive", &error),
        }
    }
}

/// Counts an error of the network, and says the first of each kind.
fn count(errors: &mut BTreeMap<(&'static str, io::ErrorKind), u64>, what: &'static str, error: &io::Error) {
    let seen = errors.entry((what, error.kind())).or_default();
    if *seen == 0 {
        tracing::debug!(what, %error, "an error of the network: counted from now on");
    }
    *seen += 1;
}

/// Waits until one of the sockets has something, or an error, to hand over.
async fn readable(sockets: &Sockets) {
    let any = |context: &mut Context<'_>| {
        let ready = sockets.iter().fold(false, |ready, socket| socket.poll_recv_ready(context).is_ready() | ready);
        if ready { Poll::Ready(()) } else { Poll::Pending }
    };
    std::future::poll_fn(any).await;
}
