//! What the server's log says of the node's events.

use hobnob_proto::node::{Event, Stop};

/// Writes one event to the log.
pub(crate) fn event(event: &Event, in_memory: bool) {
    match event {
        Event::Ready { me, cluster, founded } => {
            tracing::info!(server = me.id.0, boot = me.boot.0, %cluster, founded, "ready");
        }
        Event::Adopted { cluster } => tracing::info!(%cluster, "joined another cluster of this name"),
        Event::PeerUp { peer, addr } => {
            tracing::info!(server = peer.id.0, boot = peer.boot.0, %addr, "server is up");
        }
        Event::PeerDown { peer, silent_ms } => {
            tracing::warn!(server = peer.id.0, boot = peer.boot.0, silent_ms, "server is down");
        }
        Event::Leader { leader: Some(leader), term } => tracing::info!(leader = leader.0, term, "leader"),
        Event::Leader { leader: None, term } => tracing::warn!(term, "no leader"),
        Event::Conflict { room, origin, seq } => tracing::error!(
            %room, %origin, seq,
            "two messages have one name: a data directory was copied, or put back from a backup while others went on; \
             both are kept, see `hobnob check`"
        ),
        Event::Lost { room, origin, seq } => tracing::error!(
            %room, %origin, seq,
            "a message is lost: it cannot be read from this disk any more, and no other server has it. An export that has it \
             brings it back: `hobnob import`"
        ),
        Event::Stopped(stop) => stopped(stop, in_memory),
    }
}

/// Writes why the server stops.
fn stopped(stop: &Stop, in_memory: bool) {
    match stop {
        Stop::Left => tracing::info!("left the cluster: everything is handed over"),
        Stop::LeftUnfinished => tracing::warn!("not everything could be handed over in 10 s: stays a member, down"),
        Stop::LeftAlone { messages: true } if in_memory => {
            tracing::warn!("this was the last server: its messages were in memory, and are gone");
        }
        Stop::LeftAlone { .. } => tracing::info!("stopped: this was the last server"),
        Stop::IdTaken { by } => tracing::error!(%by, "the id is taken"),
        Stop::Retired => tracing::warn!("retired by an operator"),
    }
}
