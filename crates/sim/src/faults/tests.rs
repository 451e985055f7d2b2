use std::collections::BTreeSet;

use super::*;
use crate::{cuts::Shape, disk::DiskProfile, profile::Wanted};

const END: Duration = Duration::from_mins(3);

/// The schedule of a run with all faults that one cluster survives, or with two clusters.
fn draw(seed: u64, servers: usize, split: bool) -> Vec<(Time, Fault)> {
    let wanted = Wanted { servers: Some(servers), clients: Some(3), ..Wanted::default() };
    let faults = FaultProfile {
        every: Some(Duration::from_secs(3)),
        crashes: true,
        pairs: true,
        flapping: true,
        leaves: true,
        late: seed.is_multiple_of(3),
        cuts: Shape::ALL.to_vec(),
        pauses: true,
        slow: seed.is_multiple_of(2),
        sleeps: true,
        roaming: true,
        server_roaming: true,
        replaced: true,
        future: true,
        garbage: true,
        split,
        operators: true,
        only: false,
    };
    let profile =
        Profile { faults, disks: DiskProfile::default(), ..Profile::draw(&mut dice::from_number(seed), &wanted) };
    schedule(&profile, END, &mut dice::from_number(seed))
}

#[test]
fn one_server_is_always_left_and_all_are_mended_in_the_end() {
    for (seed, servers) in (0..60).zip([2, 3, 5, 7].into_iter().cycle()) {
        let (mut down, mut paused, mut asleep) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut cut = false;
        for (at, fault) in draw(seed, servers, false) {
            assert!(at >= dice::after(WARM_UP) && at <= dice::after(END));
            match fault {
                Fault::Crash(server) => assert!(down.insert(server), "seed {seed}: {server} crashes twice"),
                // One that comes late was never up before.
                Fault::Restart(server) => assert!((down.remove(&server) || seed % 3 == 0) && !cut, "seed {seed}"),
                Fault::Leave(server, _) | Fault::Replace(server, _) => {
                    assert!(!down.contains(&server) && !cut, "seed {seed}");
                }
                Fault::Cut(_) => cut = true,
                Fault::Heal => cut = false,
                Fault::Pause(server) => assert!(!down.contains(&server) && paused.insert(server)),
                Fault::Resume(server) => assert!(paused.remove(&server)),
                Fault::Sleep(client) => assert!(asleep.insert(client)),
                Fault::Wake(client, _) => assert!(asleep.remove(&client)),
                Fault::Retire(client, server) => assert!(client < 3 && down.contains(&server), "seed {seed}"),
                Fault::Slow(server, _) => assert!(!down.contains(&server)),
                Fault::Fast(_) | Fault::Flap(..) | Fault::Roam(_) | Fault::RoamServer(_) | Fault::Blurt(..) => {}
                Fault::Join(_) => unreachable!("there is one cluster"),
                Fault::Wipe(_) | Fault::Rot(_) | Fault::Full(_) | Fault::Room(_) => unreachable!("nobody has a disk"),
            }
            assert!(down.len() < servers, "seed {seed}: nobody is left");
        }
        assert!(paused.is_empty() && asleep.is_empty() && !cut, "seed {seed}");
    }
}

#[test]
fn every_fault_is_drawn_by_some_seed() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        seen.extend(
            draw(seed, 5, false).iter().map(|(_, fault)| format!("{fault:?}").split('(').next().map(str::to_owned)),
        );
    }
    assert_eq!(seen.len(), 17, "{seen:?}");
}

#[test]
fn a_flapping_server_is_the_highest_and_nothing_else_happens_meanwhile() {
    for seed in 0..60 {
        let mut flapping = None;
        for (_, fault) in draw(seed, 3, false) {
            match (fault, flapping) {
                (Fault::Flap(server, on), _) => flapping = on.then_some(server),
                (Fault::Crash(server) | Fault::Restart(server), Some(top)) => assert_eq!(server, top, "seed {seed}"),
                // What began before may end.
                (Fault::Resume(_) | Fault::Wake(..), _) | (_, None) => {}
                (other, Some(_)) => panic!("seed {seed}: {other:?} while a server flaps"),
            }
        }
    }
}

#[test]
fn halves_that_become_clusters_are_not_restarted() {
    for seed in 0..60 {
        let faults = draw(seed, 4, true);
        assert!(matches!(faults[0], (Time::ZERO, Fault::Cut(_))), "seed {seed}");
        let healed = faults.iter().find(|(_, fault)| *fault == Fault::Heal).map(|(at, _)| *at);
        assert!(healed.is_some_and(|at| at >= dice::after(SPLIT_MIN)), "seed {seed}");
        let harm = |fault: &Fault| {
            matches!(fault, Fault::Crash(_) | Fault::Leave(..) | Fault::Replace(..) | Fault::Restart(_))
        };
        assert!(!faults.iter().any(|(_, fault)| harm(fault)), "seed {seed}");
    }
}

#[test]
fn a_single_server_in_memory_never_goes() {
    for seed in 0..50 {
        let goes =
            |fault: &Fault| matches!(fault, Fault::Crash(_) | Fault::Leave(..) | Fault::Replace(..) | Fault::Flap(..));
        assert!(!draw(seed, 1, false).iter().any(|(_, fault)| goes(fault)), "seed {seed}");
    }
}
