//! The receiving side of one room: orders what arrives, asks for what is missing, acknowledges. (Interface only, so
//! far.)

use crate::{
    log::{Entry, VersionVector},
    rng::Rng,
    time::Time,
    wire::frame::{Pull, Pulled},
};

/// What one follower holds of one room, and what it still wants.
#[derive(Debug)]
pub struct Receiver {
    held: VersionVector,
}

#[allow(unused_variables, clippy::unused_self, clippy::needless_pass_by_value, clippy::needless_pass_by_ref_mut)]
impl Receiver {
    /// A follower that holds what `cursor` covers.
    pub fn new(cursor: VersionVector) -> Self {
        Self { held: cursor }
    }

    /// What it holds without holes: its cursor.
    pub fn held(&self) -> &VersionVector {
        &self.held
    }

    /// Something that did not come through [`Self::entry`] is held too (a home's own new entry).
    pub fn note(&mut self, entry: &Entry) {}

    /// Takes an entry. Gives back those that are now without a hole before them, in order: none for a duplicate, none
    /// while there is a hole, several when one is filled.
    pub fn entry(&mut self, entry: Entry, now: Time) -> Vec<Entry> {
        Vec::new()
    }

    /// What there is to be had at the server that is followed.
    pub fn heads(&mut self, heads: &VersionVector, now: Time) {}

    /// The answer to a pull has ended.
    pub fn pulled(&mut self, pulled: &Pulled, now: Time) {}

    /// The server that is followed has changed, or its session is a new one: forgets what was asked for, keeps what is
    /// held, acknowledges at once.
    pub fn moved(&mut self, now: Time) {}

    /// Whether nothing that is known to exist is missing.
    pub fn is_complete(&self) -> bool {
        true
    }

    /// A pull that is due now, if any.
    pub fn poll_pull(&mut self, now: Time, rng: &mut Rng) -> Option<Pull> {
        None
    }

    /// Whether the cursor is to be acknowledged now; asks once for each acknowledgement.
    pub fn poll_ack(&mut self, now: Time) -> bool {
        false
    }

    /// When one of the polls may have something.
    pub fn deadline(&self) -> Option<Time> {
        None
    }
}
