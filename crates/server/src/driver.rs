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
    limits::KEEPALIVE_BYTES,
    node::{Event, Input, Node, Output},
    rng::Rng,
    session::Datagrams,
    store::Restored,
};
use socket2::SockRef;
use tokio::time::sleep_until;

use crate::{
    Exit, Ready,
    batch::Batch,
    clock::Clock,
    control::{Control, Order},
    log,
    network::Network,
    store::{Notice, Store},
    udp::Sockets,
};

/// Datagrams that one turn takes from the session socket.
const SESSION_BATCH: usize = 256;
/// Bytes that are sealed before they are sent: much less than what a processor keeps close by.
const SENT_BYTES: usize = 128 * 1_024;
/// Datagrams that one turn takes from each discovery socket.
const DISCOVERY_BATCH: usize = 32;
/// The least time between two ticks: bounds what a deadline that stands still could cost.
const TICK_GAP: Duration = Duration::from_millis(1);

/// What is around a node, and outlives it.
#[derive(Debug)]
pub(crate) struct Around {
    /// Where its datagrams come and go.
    pub(crate) sockets: Sockets,
    /// Whoever started it.
    pub(crate) control: Control,
    /// Which interfaces there are.
    pub(crate) network: Network,
}

/// A node with its sockets and its store.
#[derive(Debug)]
pub(crate) struct Driver {
    node: Node,
    around: Around,
    clock: Clock,
    store: Option<Store>,
    rng: Rng,
    batch: Batch,
    /// What is sent in a turn.
    datagrams: Datagrams,
    exit: Option<Exit>,
    /// The store, opened anew after trouble.
    reopened: Option<(Store, Restored)>,
    /// Errors of the network, by what failed and how. They change nothing: whatever was lost is sent again.
    errors: BTreeMap<(&'static str, io::ErrorKind), u64>,
}

/// How a run of a node ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The server has ended.
    Exit(Exit),
    /// Its store failed, and has been opened anew: another node is to go on.
    Reopened(Box<Reopened>),
}

/// What the next node begins with.
#[derive(Debug)]
pub(crate) struct Reopened {
    /// The store.
    pub(crate) store: Store,
    /// What it holds.
    pub(crate) restored: Restored,
    /// What the last node had.
    pub(crate) around: Around,
    /// Where randomness comes from.
    pub(crate) rng: Rng,
}

/// What ended a wait.
enum Wake {
    /// The store says something.
    Notice(Notice),
    /// Something may have arrived, or is due.
    Turn,
    /// Whoever started us wants something.
    Order(Order),
}

impl Driver {
    /// A driver that has done nothing yet.
    pub(crate) fn new(node: Node, around: Around, clock: Clock, store: Option<Store>, rng: Rng) -> Self {
        Self {
            node,
            around,
            clock,
            store,
            rng,
            batch: Batch::new(),
            datagrams: Datagrams::default(),
            exit: None,
            reopened: None,
            errors: BTreeMap::new(),
        }
    }

    /// Runs until the node stops, or is told to stop at once, or its store has failed and can be written to again.
    pub(crate) async fn run(mut self) -> End {
        self.tell_network();
        let mut next_tick = self.clock.now();
        loop {
            if self.around.network.look(&mut self.around.sockets) {
                self.tell_network();
            }
            self.drain();
            self.hear_store();
            let now = self.clock.now();
            if now >= next_tick.max(self.node.deadline()) {
                self.node.handle(Input::Tick, now);
                next_tick = now + TICK_GAP;
            }
            self.send();
            while let Some(output) = self.node.poll() {
                self.perform(output);
            }
            if let Some(exit) = self.exit.take() {
                tracing::debug!(errors = ?self.errors, "stopped");
                return End::Exit(exit);
            }
            if let Some((store, restored)) = self.reopened.take() {
                return End::Reopened(Box::new(Reopened { store, restored, around: self.around, rng: self.rng }));
            }
            let Around { sockets, control, network } = &mut self.around;
            let due = next_tick.max(self.node.deadline());
            let due = sockets.session.backs.next().map_or(due, |next| next.min(due));
            let wake_at = self.clock.instant(due).min(network.next().into());
            let wake = tokio::select! {
                () = readable(sockets) => Wake::Turn,
                () = sleep_until(wake_at) => Wake::Turn,
                Some(notice) = next_notice(self.store.as_mut()) => Wake::Notice(notice),
                Some(order) = control.orders.recv() => Wake::Order(order),
            };
            match wake {
                Wake::Turn => {}
                Wake::Notice(notice) => self.hear(notice),
                Wake::Order(Order::Leave) => self.node.handle(Input::Leave, self.clock.now()),
                Wake::Order(Order::StopAtOnce) => self.exit = Some(Exit::AtOnce),
            }
        }
    }

    /// Hands a batch from each socket to the node.
    fn drain(&mut self) {
        let Self { node, around: Around { sockets, .. }, clock, errors, batch, .. } = self;
        let mut failed = |error: &io::Error| count(errors, "receive", error);
        let (mut keepalives, mut unheard) = (0, 0);
        let mut take = |from, bytes: &[u8]| unheard += usize::from(!hand_over(node, from, bytes, clock));
        for (socket, family) in sockets.session.families() {
            let take = |from, bytes: &[u8]| {
                keepalives += usize::from(KEEPALIVE_BYTES.contains(&bytes.len()));
                take(from, bytes);
            };
            batch.receive(socket, family, SESSION_BATCH, take, &mut failed);
        }
        for discovery in &sockets.discovery {
            batch.receive(&discovery.socket, discovery.family(), DISCOVERY_BATCH, &mut take, &mut failed);
        }
        let take_waiting =
            |back: &SockRef<'_>, family| batch.receive_from(back, family, SESSION_BATCH, &mut take, &mut failed);
        sockets.session.backs.mind(keepalives, SESSION_BATCH, clock.now(), take_waiting);
        for _ in 0..unheard {
            count(errors, "hear", &io::Error::new(io::ErrorKind::AddrNotAvailable, "sent from port 0"));
        }
    }

    /// Sends all that sessions have to say, once in a turn: in pieces, each of which the system copies while the
    /// processor still has it at hand.
    fn send(&mut self) {
        let Self { node, around: Around { sockets, .. }, errors, batch, datagrams, .. } = self;
        loop {
            let has_more = node.flush_some(datagrams, SENT_BYTES);
            batch.send(datagrams, |to| sockets.session.towards(to), |error| count(errors, "send", error));
            datagrams.clear();
            if !has_more {
                return;
            }
        }
    }

    /// Hands to the node what the store has said meanwhile.
    fn hear_store(&mut self) {
        while let Some(notice) = self.store.as_mut().and_then(|store| store.notices.try_recv().ok()) {
            self.hear(notice);
        }
    }

    /// What the store says.
    fn hear(&mut self, notice: Notice) {
        let now = self.clock.now();
        match notice {
            Notice::Durable { through } => self.node.handle(Input::Durable { through }, now),
            Notice::Answer(answer) => self.node.handle(Input::Answer(&answer), now),
            Notice::Unwritable { cause, why } => {
                tracing::error!(
                    why,
                    "the disk cannot be written to: nothing new is stored here and other servers take the rooms over; \
                     what is stored can be read. What to do: {}",
                    cause.advice()
                );
                self.node.handle(Input::Unwritable, now);
            }
            Notice::Retain { room, before } => {
                self.node.handle(Input::Retain { room: &room, before: &before }, now);
            }
            Notice::WritableAgain => self.reopen(),
        }
    }

    /// The disk takes something again.
    fn reopen(&mut self) {
        let Some(store) = &self.store else { return };
        match store.reopen(&mut self.rng) {
            Ok(reopened) => {
                tracing::info!("the disk can be written to again: starts anew with what is stored");
                self.reopened = Some(reopened);
            }
            Err(error) => tracing::warn!(%error, "the disk can be written to, but the log cannot be opened yet"),
        }
    }

    /// The one place where the node's wishes become effects.
    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { to, bytes } => {
                if let Err(error) = self.around.sockets.session.send(to, &bytes) {
                    count(&mut self.errors, "send", &error);
                }
            }
            Output::Broadcast { bytes } => {
                let Self { around, errors, .. } = self;
                around.sockets.broadcast(&bytes, |error| count(errors, "broadcast", error));
            }
            Output::Persist(write) => {
                if let Some(store) = &self.store {
                    store.persist(write);
                }
            }
            Output::Read(read) => {
                if let Some(store) = &self.store {
                    store.read(read);
                }
            }
            Output::Event(event) => self.tell(event),
        }
    }

    /// Tells the node of our interfaces and addresses, and whoever started us of the addresses.
    fn tell_network(&mut self) {
        let addrs = self.around.network.addrs();
        let input = Input::Network { addrs: &addrs, interfaces: self.around.network.choices() };
        self.node.handle(input, self.clock.now());
        self.around.control.ready.send_if_modified(|ready| {
            let Some(ready) = ready else { return false };
            let is_news = ready.addrs != addrs;
            ready.addrs = addrs;
            is_news
        });
    }

    /// Tells the log, and whoever started us.
    fn tell(&mut self, event: Event) {
        log::event(&event, self.store.is_none());
        match &event {
            Event::Ready { me, cluster, founded } => {
                let ready = Ready { me: *me, cluster: *cluster, founded: *founded, addrs: self.around.network.addrs() };
                self.around.control.ready.send_replace(Some(ready));
            }
            Event::Adopted { cluster } => self.around.control.ready.send_modify(|ready| {
                if let Some(ready) = ready {
                    ready.cluster = *cluster;
                }
            }),
            Event::Stopped(stop) => self.exit = Some(Exit::Stopped(stop.clone())),
            Event::Conflict { .. }
            | Event::Lost { .. }
            | Event::PeerUp { .. }
            | Event::PeerDown { .. }
            | Event::Leader { .. } => {}
        }
        if let Some(events) = &self.around.control.events {
            let _nobody_listens = events.send(event);
        }
    }
}

/// Hands a datagram to the node, unless its sender cannot be answered; whether it did.
fn hand_over(node: &mut Node, mut from: SocketAddr, bytes: &[u8], clock: &Clock) -> bool {
    // Nothing can be sent to that port.
    if from.port() == 0 {
        return false;
    }
    // The flow that a packet belonged to is no part of its sender's address.
    if let SocketAddr::V6(from) = &mut from {
        from.set_flowinfo(0);
    }
    node.handle(Input::Datagram { from, bytes }, clock.now());
    true
}

/// Waits for the next word of the store; for ever where there is none.
async fn next_notice(store: Option<&mut Store>) -> Option<Notice> {
    match store {
        Some(store) => store.notices.recv().await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn a_sender_that_cannot_be_answered_is_not_heard() {
        let options = Options::new("deaf-to-port-0".parse().unwrap());
        let clock = Clock::start();
        let config = crate::config(&options, 5_000, Vec::new(), None);
        let mut node = Node::new(config, [7; 32], clock.now());
        // Nothing that anybody says: heard, it is counted.
        let mut heard = |from: &str| {
            hand_over(&mut node, from.parse().unwrap(), &[b'x'; 50], &clock);
            node.counters().get("packet_type").copied().unwrap_or_default()
        };
        assert_eq!(heard("127.0.0.1:9"), 1);
        assert_eq!(heard("127.0.0.1:0"), 1);
        assert_eq!(heard("[::1]:0"), 1);
        assert_eq!(heard("[::1]:9"), 2);
    }
}
