//! The clock of a world in which time passes from one thing that happens to the next.

use hobnob_proto::time::Time;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next<Host> {
    /// The datagram that has been under way for longest arrives.
    Arrival,
    /// Somebody's deadline has come.
    Tick(Host),
}

/// Lets time pass until an arrival or a tick, whichever is first, but not beyond `end`; `None`: it is `end` now.
pub(crate) fn pass<Host: Ord>(
    now: &mut Time,
    end: Time,
    arrival: Option<Time>,
    ticks: impl Iterator<Item = (Time, Host)>,
) -> Option<Next<Host>> {
    let tick = ticks.min();
    let next = arrival.into_iter().chain(tick.as_ref().map(|(at, _)| *at)).min();
    let Some(next) = next.filter(|next| *next <= end) else {
        *now = end;
        return None;
    };
    // Somebody may have wished for a moment that has passed.
    *now = (*now).max(next);
    if arrival.is_some_and(|at| at <= *now) {
        return Some(Next::Arrival);
    }
    tick.map(|(_, host)| Next::Tick(host))
}
