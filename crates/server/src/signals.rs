//! Signals of the operating system as orders to a server.

use tokio::signal::unix::{SignalKind, signal};

use crate::control::{Handle, Order};

/// SIGTERM or SIGINT: leave; the second one: stop at once. Never ends. An error where the system refuses to tell us.
pub async fn obey(handle: Handle) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut orders = std::iter::once(Order::Leave).chain(std::iter::repeat(Order::StopAtOnce));
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if let Some(order) = orders.next() {
            tracing::info!(?order, "signal");
            handle.order(order);
        }
    }
}
