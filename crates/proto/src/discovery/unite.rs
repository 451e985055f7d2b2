//! Which cluster: whether two servers that hear each other belong together, and who comes over to whom.
//!
//! Both sides decide by the same facts and come to the same answer, so that exactly one of them moves. Clusters that
//! both hold messages of people stay apart, however they are named: last night's rooms at home never merge into the
//! café's. But a cluster that is younger than a minute is the same evening, begun twice because a HELLO was lost: it
//! goes over to the other with all that was said in it.

use super::packet::Facts;
use crate::planted::{self, Bug};

/// A cluster younger than this, in seconds, unites with another although both hold messages.
pub const YOUNG_SECS: u32 = 60;

/// What two servers of one name and one secret are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Of one cluster.
    Same,
    /// We adopt their cluster.
    WeAdopt,
    /// They adopt ours.
    TheyAdopt,
    /// They stay apart.
    Apart,
}

/// Decides. The names are equal, and the tag has been verified.
pub fn verdict(ours: &Facts, theirs: &Facts) -> Verdict {
    let lower_wins = if theirs.cluster < ours.cluster { Verdict::WeAdopt } else { Verdict::TheyAdopt };
    // Who has nothing goes over; else who is young.
    let (ours_young, theirs_young) = (ours.age_secs < YOUNG_SECS, theirs.age_secs < YOUNG_SECS);
    match ((ours.empty, theirs.empty), (ours_young, theirs_young)) {
        _ if ours.cluster == theirs.cluster => Verdict::Same,
        ((true, true), _) | ((false, false), (true, true)) => lower_wins,
        ((true, false), _) | ((false, false), (true, false)) => Verdict::WeAdopt,
        ((false, true), _) | ((false, false), (false, true)) => Verdict::TheyAdopt,
        ((false, false), (false, false)) if planted::is(Bug::ClustersUnite) => lower_wins,
        ((false, false), (false, false)) => Verdict::Apart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{discovery::tests::facts, ids::ClusterId};

    /// (cluster, empty, age)
    type Brief = (u128, bool, u32);

    fn check(ours: Brief, theirs: Brief, expected: Verdict) {
        let make = |(cluster, empty, age_secs): Brief| crate::discovery::packet::Facts {
            cluster: ClusterId(cluster),
            empty,
            age_secs,
            ..facts(1)
        };
        let (ours, theirs) = (make(ours), make(theirs));
        assert_eq!(verdict(&ours, &theirs), expected, "{ours:?} {theirs:?}");
        let mirrored = match expected {
            Verdict::WeAdopt => Verdict::TheyAdopt,
            Verdict::TheyAdopt => Verdict::WeAdopt,
            same => same,
        };
        assert_eq!(verdict(&theirs, &ours), mirrored, "the other side sees it likewise");
    }

    #[test]
    fn exactly_one_side_comes_over() {
        check((5, false, 900), (5, true, 0), Verdict::Same);
        check((5, true, 900), (3, true, 900), Verdict::WeAdopt);
        check((3, true, 0), (5, true, 0), Verdict::TheyAdopt);
        check((3, true, 0), (5, false, 900), Verdict::WeAdopt);
        check((5, false, 59), (3, false, 59), Verdict::WeAdopt);
        check((5, false, 60), (3, false, 59), Verdict::TheyAdopt);
        check((3, false, 59), (5, false, 60), Verdict::WeAdopt);
        check((5, false, 60), (3, false, 60), Verdict::Apart);
        check((5, false, 3_600), (3, false, 3_600), Verdict::Apart);
    }
}
