//! Invariant 6: a dot never names two contents, in no log and at no client, for ever.

use std::collections::BTreeMap;

use hobnob_proto::{log::Entry, time::Time};

use super::Invariant;
use crate::facts::{Dot, Fact, dot};

/// The invariant.
#[derive(Debug, Default)]
pub struct OneContent {
    contents: BTreeMap<Dot, Entry>,
    /// Some dot was seen twice.
    again: bool,
}

impl Invariant for OneContent {
    fn name(&self) -> &'static str {
        "i06_a_dot_names_one_content"
    }

    fn judged(&self) -> bool {
        self.again
    }

    fn observe(&mut self, fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        let (Fact::Held { entry, .. } | Fact::Shown { entry, .. }) = fact else { return Ok(()) };
        let Some(first) = self.contents.get(&dot(entry)) else {
            self.contents.insert(dot(entry), (*entry).clone());
            return Ok(());
        };
        self.again = true;
        if first == *entry {
            return Ok(());
        }
        let (room, origin, seq) = (&entry.room, entry.origin, entry.seq);
        Err(format!("{room} {origin}:{seq} was {first:?} and is {entry:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{entry, first_bad, process};

    #[test]
    fn another_content_under_a_dot_is_seen_in_a_log_and_at_a_client() {
        fn check(second: &Entry, expected: Option<usize>) {
            let first = entry(1, 1, 1, 5, "x");
            let held = |entry| Fact::Held { server: process(1), own: true, entry };
            let shown = Fact::Shown { client: process(0), entry: second, late: false };
            assert_eq!(first_bad(&mut OneContent::default(), &[held(&first), held(second)]), expected);
            assert_eq!(first_bad(&mut OneContent::default(), &[held(&first), shown]), expected);
        }
        check(&entry(1, 1, 1, 5, "x"), None);
        check(&entry(1, 1, 1, 5, "y"), Some(1));
        check(&entry(1, 1, 1, 6, "x"), Some(1));
        check(&entry(2, 1, 1, 6, "x"), None);
    }
}
