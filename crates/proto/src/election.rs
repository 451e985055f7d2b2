//! The Bully election. (Messages only, so far.)

use serde::{Deserialize, Serialize};

use crate::wire::frame::Epoch;

/// What servers say to each other about who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Message {
    /// "Is anybody above me alive? Does anybody hear the leader?" To all.
    Election {
        /// The term that the candidate would lead in.
        term: u64,
    },
    /// "I am above you: I take over from here." (The bully's OK.)
    Alive {
        /// The candidate's term, echoed.
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
