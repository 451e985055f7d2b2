//! What both sides say in the handshake, beside proving their keys.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Boot, ClusterId, Origin, ServerId},
    session::keys,
    wire::number,
};

/// What is said in the handshake, encrypted to the cluster's key: by whoever opens the session, then by the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Greeting {
    /// A server of the cluster.
    Server {
        /// Who speaks.
        id: ServerId,
        /// In which run.
        boot: Boot,
        /// Of which cluster.
        cluster: ClusterId,
        /// Grows with every session that the speaker opens; 0 in an answer. Of several sessions between two servers, both
        /// use the same by it.
        #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "number::safe")]
        n: u64,
        /// Whom it takes the other side for; nobody in an answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Origin>,
        /// Whether it keeps everything in memory: see [`Member::memory`](crate::wire::frame::Member::memory).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        memory: bool,
    },
    /// A client.
    Client {
        /// [`pass`](keys::pass), in a closed cluster.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pass: Option<String>,
    },
}

/// Whether a number says nothing.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Greeting {
    /// As the payload of a handshake message.
    pub fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a greeting is plain data")
    }

    /// What a payload says; `None` for anything else.
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// A client's, who proves with `secret` that it may enter a closed cluster.
    pub fn client(secret: Option<&keys::Secret>, public: &[u8; 32]) -> Self {
        Self::Client { pass: secret.map(|secret| keys::pass(secret, public)) }
    }
}
