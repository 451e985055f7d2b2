//! The election: the Bully algorithm (Garcia-Molina, "Elections in a Distributed Computing System", 1982), with what
//! practice has added to it since.
//!
//! ```text
//!             the leader is gone, or below me
//!  Joining ──▶ Follower ───────────────────▶ Electing ── nobody above me answers ──▶ Syncing ──▶ Leader
//!                 ▲  ▲                        │    ▲                                    │           │
//!                 │  └──── LEADER_OK ─────────┤    │ silence                            │           │
//!                 │                     ALIVE ▼    │                                    │           │
//!                 └──── COORDINATOR ── AwaitingCoordinator                              │           │
//!                 └──────────────────────── a higher epoch ─────────────────────────────┴───────────┘
//! ```
//!
//! - A server without a leader asks all live ones (ELECTION). Those of a higher *rank* answer ALIVE and ask in turn; if
//!   none does within 100 ms, the candidate has won. Rank is (eligible, id): so the highest eligible id leads, and if
//!   nobody is eligible and nobody leads, the highest id.
//! - The winner leads in an [`Epoch`], which is higher than any it has seen: its term is durable before anybody hears of
//!   it ([`Input::TermDurable`]), and what says a lower epoch is ignored. Epochs travel in COORDINATOR and in every heartbeat, so a lost
//!   COORDINATOR costs 100 ms, and of two leaders that meet the lower stands down.
//! - One server with a bad link must not depose a leader whom all the others hear: they answer `LEADER_OK`, and the
//!   candidate stands down unless more than half of the live servers other than that leader suspect it (the `PreVote` of
//!   Raft; Ongaro 2014, section 9.6).
//! - A leader that only others hear still leads ([`PeerView::heard`]): where the link is bad, and not the leader, there is
//!   no candidacy again and again. Whom we do not hear cannot answer us, and is not counted among those who could.
//! - A leader that was cut off, and comes back with a term from there, is not eligible for a while, and deposes nobody who
//!   is: the leader that it meets takes a term above.
//! - A server that is eligible and outranks the leader takes over (that is the bully), a little later, so that it can pull
//!   the directory first; at once from a leader that is leaving. One that is not eligible takes over from nobody who lives:
//!   where two are on probation, the lead does not change each time that one comes back.
//!
//! Elections are advisory: two leaders in two halves of a cut network do no harm, and each keeps leading though its
//! followers have gone.
//!
//! It is assumed that the node passes on only what authentic sessions said, that terms survive a restart where there is
//! a disk, and that boots never repeat. Messages may be lost, doubled and reordered. What follows from that for three
//! servers is checked over all interleavings up to a bound: see `model.rs`.

mod bully;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::bully::Election;
use crate::{
    ids::{Boot, Origin, ServerId},
    wire::{frame::Epoch, number},
};

/// What servers say to each other about who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Message {
    /// "Is anybody above me alive? Does anybody hear the leader?" To all.
    Election {
        /// The term that the candidate would lead in.
        #[serde(deserialize_with = "number::safe")]
        term: u64,
    },
    /// "I am above you: I take over from here." (The bully's OK.)
    Alive {
        /// The candidate's term, echoed.
        #[serde(deserialize_with = "number::safe")]
        term: u64,
    },
    /// "I still hear the leader."
    LeaderOk {
        /// Which one.
        epoch: Epoch,
    },
    /// "I lead."
    Coordinator {
        /// Under this epoch.
        epoch: Epoch,
    },
}

/// What happens to an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Another server said something in its session.
    Message {
        /// Who.
        from: Origin,
        /// What.
        message: Message,
    },
    /// Which servers are live, or what they say in their heartbeats, may have changed.
    View {
        /// The servers that live, as far as this one knows; without itself.
        live: BTreeMap<ServerId, PeerView>,
        /// Whether this server itself may lead.
        eligible: bool,
    },
    /// The same where [`Election::sees`] says that neither has changed.
    SameView,
    /// A heartbeat named the highest epoch that its sender has accepted.
    HeardEpoch {
        /// Whose heartbeat.
        from: Origin,
        /// Which epoch.
        epoch: Epoch,
    },
    /// Joining is over: the servers that were found are live by now, or there are none. (Said too early, a newcomer takes
    /// itself for alone, and wins.)
    Joined,
    /// The directory has been merged after [`Output::Won`] of this epoch.
    Synced(Epoch),
    /// The term of an [`Output::PersistTerm`] is durable, or never has to be.
    TermDurable(u64),
    /// [`Election::deadline`] has passed.
    Tick,
}

/// A live server, as its newest heartbeat has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerView {
    /// Its boot.
    pub boot: Boot,
    /// Whether this server and it hear each other. Otherwise only others hear it, and the rest is what they know of it.
    pub heard: bool,
    /// Whether it may lead. A server says so only once it has joined.
    pub eligible: bool,
    /// Whether it is about to go, by its own wish.
    pub leaving: bool,
    /// Whether it hears the leader of `epoch`.
    pub led: bool,
    /// The highest epoch that it has accepted.
    pub epoch: Epoch,
}

/// What an election wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell one server.
    Send {
        /// Whom.
        to: ServerId,
        /// What.
        message: Message,
    },
    /// Tell every live server.
    Broadcast(Message),
    /// Make this term durable, then say [`Input::TermDurable`]: until that is said, nobody hears that this server leads in it.
    PersistTerm(u64),
    /// This server has won and leads in this epoch: ask everybody what they know, then say [`Input::Synced`].
    Won(Epoch),
    /// Whom this server follows has changed: a live leader, or itself.
    Leader(Option<Epoch>),
}

/// Where a server stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Still looking for the others: listens, and takes no part.
    #[default]
    Joining,
    /// Follows a leader, or is about to look for one.
    Follower,
    /// Has asked, and waits for ALIVE.
    Electing,
    /// Somebody above it takes over: waits for COORDINATOR.
    AwaitingCoordinator,
    /// Has won, and is learning what the others know.
    Syncing,
    /// Leads.
    Leader,
}
