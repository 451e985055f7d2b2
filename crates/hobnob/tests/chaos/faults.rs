//! What happens to the servers in a cycle: drawn from the seed and the number of the cycle alone, so that one cycle can be
//! looked at again.

use std::time::Duration;

use hobnob_proto::rng::Rng;

/// How many servers there are.
pub(crate) const SERVERS: usize = 3;

/// Something that happens. Servers are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL; started again after so long.
    Kill(usize, Duration),
    /// SIGSTOP, and SIGCONT after 3 s.
    Pause(usize),
    /// SIGKILL to all at once; started again after so long.
    KillAll(Duration),
    /// SIGKILL, and its data directory is removed; started again after so long.
    Wipe(usize, Duration),
    /// Its cable is pulled.
    Unplug(usize),
    /// It hears nobody.
    Deafen(usize),
    /// Nobody hears it.
    Silence(usize),
    /// The first does not hear the second.
    DeafenTo(usize, usize),
}

impl Fault {
    /// Whether it takes machines with cables.
    fn is_cut(self) -> bool {
        matches!(self, Self::Unplug(_) | Self::Deafen(_) | Self::Silence(_) | Self::DeafenTo(..))
    }
}

/// What happens in a cycle.
pub(crate) fn draw(seed: u64, cycle: u64, with_cuts: bool) -> Fault {
    let words = [seed, cycle, 0, 0].map(u64::to_le_bytes).concat();
    let mut rng = Rng::from_seed(words.try_into().expect("four times eight bytes"));
    loop {
        let one = rng.below(SERVERS as u64) as usize;
        let other = (one + 1 + rng.below(SERVERS as u64 - 1) as usize) % SERVERS;
        let gap = Duration::from_millis(rng.below(2_000));
        let fault = match rng.below(9) {
            0 | 1 => Fault::Kill(one, gap),
            2 => Fault::Pause(one),
            3 => Fault::KillAll(gap),
            4 => Fault::Wipe(one, gap),
            5 => Fault::Unplug(one),
            6 => Fault::Deafen(one),
            7 => Fault::Silence(one),
            _ => Fault::DeafenTo(one, other),
        };
        if with_cuts || !fault.is_cut() {
            return fault;
        }
    }
}

#[test]
fn a_seed_draws_the_same_again_and_everything_in_the_end() {
    let drawn = |with_cuts| (1..=200).map(|cycle| draw(7, cycle, with_cuts)).collect::<Vec<_>>();
    assert_eq!(drawn(true), drawn(true));
    assert!(drawn(false).iter().all(|fault| !fault.is_cut()));
    let name = |fault: &Fault| format!("{fault:?}").split('(').next().map(str::to_owned);
    assert_eq!(drawn(true).iter().map(name).collect::<std::collections::BTreeSet<_>>().len(), 8);
    assert_ne!(drawn(true), (1..=200).map(|cycle| draw(8, cycle, true)).collect::<Vec<_>>());
}
