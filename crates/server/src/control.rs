//! The two ends between a server and whoever started it.

use hobnob_proto::node::Event;
use tokio::sync::{mpsc, watch};

use crate::Ready;

/// What a running server can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Hand everything over, then stop: 10 s at most.
    Leave,
    /// Stop without a word.
    StopAtOnce,
}

/// The server's end.
#[derive(Debug)]
pub struct Control {
    /// What it is told. Once all handles are gone nothing more comes, and the server runs on.
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    /// That it serves.
    pub(crate) ready: watch::Sender<Option<Ready>>,
    /// What it tells.
    pub(crate) events: Option<mpsc::UnboundedSender<Event>>,
}

/// The other end; may be cloned, one for each who gives orders.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    ready: watch::Receiver<Option<Ready>>,
}

/// Both ends.
pub fn pair() -> (Control, Handle) {
    let (order, orders) = mpsc::unbounded_channel();
    let (ready, is_ready) = watch::channel(None);
    (Control { orders, ready, events: None }, Handle { orders: order, ready: is_ready })
}

impl Control {
    /// Where the server's events are to go, beside its log. They are few (members and leaders that come and go), so the
    /// channel has no bound; a receiver that is gone is no error.
    #[must_use]
    pub fn with_events(mut self, events: mpsc::UnboundedSender<Event>) -> Self {
        self.events = Some(events);
        self
    }
}

impl Handle {
    /// Tells the server something; nothing happens where it has stopped already.
    pub fn order(&self, order: Order) {
        let _stopped_already = self.orders.send(order);
    }

    /// Waits until the server serves; `None` where it stopped before.
    pub async fn ready(&mut self) -> Option<Ready> {
        self.ready.wait_for(Option::is_some).await.ok().and_then(|ready| ready.clone())
    }

    /// What it last said of itself; `None` until it serves.
    pub fn is_ready(&self) -> Option<Ready> {
        self.ready.borrow().clone()
    }
}
