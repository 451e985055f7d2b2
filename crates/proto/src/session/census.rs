//! A look at all sessions of an endpoint, for whoever checks it: what state they are in, how much waits in them, and which
//! frames were said. Nothing of the protocol goes through it.

use crate::session::{Endpoint, state::Phase};

/// How a frame's line begins: its type comes first.
const TYPE_START: &[u8] = br#"{"t":""#;

/// The sessions of an endpoint, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Those that we opened, and that were not answered yet.
    pub calling: usize,
    /// Those that others opened, and that they have not confirmed yet.
    pub half_open: usize,
    /// Those that are up.
    pub up: usize,
    /// Of these, those whose keys change.
    pub rekeying: usize,
    /// Bytes of lines that wait in the fullest one until it is up.
    pub unsent_early_max: usize,
    /// Bytes of lines that wait in the fullest one that is up.
    pub unsent_up_max: usize,
    /// What the pieces of lines cost in the fullest one.
    pub fragments_max: usize,
    /// Handshakes that wait for a later turn.
    pub waiting: usize,
}

/// How often frames of each type were said and heard, by what stands as `t` in their lines.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    /// Said, mostly the type that was met most first.
    pub said: Vec<(Box<str>, u64)>,
    /// Heard, likewise.
    pub heard: Vec<(Box<str>, u64)>,
}

/// Counts a line by its frame's type.
pub(super) fn note(frames: &mut Vec<(Box<str>, u64)>, line: &[u8]) {
    let Some(rest) = line.strip_prefix(TYPE_START) else { return };
    let Some(kind) = rest.split(|byte| *byte == b'"').next() else { return };
    // There are few types, and what is said most comes to the front.
    if let Some(at) = frames.iter().position(|(known, _)| known.as_bytes() == kind) {
        frames[at].1 += 1;
        if at > 0 && frames[at].1 > frames[at - 1].1 {
            frames.swap(at - 1, at);
        }
    } else if let Ok(kind) = str::from_utf8(kind) {
        frames.push((kind.into(), 1));
    }
}

impl Endpoint {
    /// How its sessions stand. Looks at each of them.
    pub fn census(&self) -> Census {
        let mut census = Census { waiting: self.gate.waiting(), ..Census::default() };
        for (chain, session) in self.sessions.values() {
            let (count, unsent) = match &session.phase {
                Phase::Calling(_) => (&mut census.calling, &mut census.unsent_early_max),
                Phase::HalfOpen(_) => (&mut census.half_open, &mut census.unsent_early_max),
                Phase::Up(_) => (&mut census.up, &mut census.unsent_up_max),
            };
            *count += 1;
            *unsent = (self.outbox.bytes(chain) + session.waiting_bytes()).max(*unsent);
            census.rekeying += usize::from(session.rekey.is_some());
            let fragments = session.assembler.as_ref().map_or(0, |assembler| assembler.0.cost());
            census.fragments_max = census.fragments_max.max(fragments);
        }
        census
    }

    /// Counts the frames of each type from now on.
    pub fn listen_in(&mut self) {
        self.talk.get_or_insert_default();
    }

    /// What was counted since then.
    pub fn talk(&self) -> Option<&Talk> {
        self.talk.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_by_its_type() {
        fn check(line: &str, expected: &[&str]) {
            let mut frames = Vec::new();
            note(&mut frames, line.as_bytes());
            assert_eq!(frames.iter().map(|(kind, _)| &**kind).collect::<Vec<_>>(), expected);
        }
        check("{\"t\":\"bye\"}\n", &["bye"]);
        check("{\"t\":\"ping\",\"n\":7}\n", &["ping"]);
        check("{\"n\":7,\"t\":\"ping\"}\n", &[]);
        check("", &[]);
    }
}
