//! One detector that hears what a script says. (Whole clusters: `tests/detect`.)

use super::*;
use crate::ids::Boot;

const BEAT: Duration = Duration::from_millis(100);

fn origin(id: u32, boot: u64) -> Origin {
    Origin { id: ServerId(id), boot: Boot(boot) }
}

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

fn detector() -> Heartbeat {
    Heartbeat::new(Config::default(), Rng::from_seed([1; 32]), at(0))
}

/// Takes every turn on time up to `end`.
fn quiet_until(detector: &mut Heartbeat, end: Time) -> Vec<Change> {
    let mut changes = Vec::new();
    while detector.deadline() <= end {
        let due = detector.deadline();
        changes.extend(detector.tick(due).1);
        assert!(detector.deadline() > due, "its turn at {due:?} comes again and again");
    }
    changes
}

/// How long a peer may be silent before it counts as dead, as things stand.
fn timeout(detector: &Heartbeat, peer: ServerId) -> Duration {
    healthy(detector.peers.get(&peer).unwrap().timeout, detector.health())
}

/// Whom its beat names, and whether both hear each other.
fn hears(detector: &Heartbeat) -> Vec<(u32, bool)> {
    detector.hears(at(0)).iter().map(|heard| (heard.peer.id.0, heard.both)).collect()
}

/// Hears a beat of each of `peers` at each of `times` (milliseconds).
fn hear(detector: &mut Heartbeat, peers: &[(Origin, bool)], times: impl Iterator<Item = u64>) -> Vec<Change> {
    let mut changes = Vec::new();
    for millis in times {
        changes.extend(quiet_until(detector, at(millis)));
        for (peer, hears_us) in peers {
            detector.heard(*peer, *hears_us, at(millis));
        }
    }
    changes.extend(detector.tick(detector.next_beat).1);
    changes
}

fn died(changes: &[Change]) -> Vec<Origin> {
    let dead = |change: &Change| match change {
        Change::Dead { peer, .. } => Some(*peer),
        Change::Alive(_) | Change::Unheard(_) => None,
    };
    changes.iter().filter_map(dead).collect()
}

#[test]
fn a_beat_is_due_every_100_ms() {
    let mut detector = detector();
    let mut beats = 0;
    while detector.deadline() < at(10_000) {
        beats += u32::from(detector.tick(detector.deadline()).0);
    }
    assert!((95..=106).contains(&beats), "{beats} beats in 10 s");
}

#[test]
fn a_peer_is_live_once_it_hears_us_too() {
    let mut detector = detector();
    let peer = origin(2, 1);
    detector.up(peer, at(0));
    assert_eq!(hear(&mut detector, &[(peer, false)], (0..5).map(|n| n * 100)), []);
    assert_eq!((hears(&detector), detector.live().count()), (vec![(2, false)], 0));
    assert_eq!(hear(&mut detector, &[(peer, true)], 500..=500), [Change::Alive(peer)]);
    assert_eq!(detector.live().collect::<Vec<_>>(), [peer]);
}

#[test]
fn a_silent_peer_dies_after_half_a_second() {
    let mut detector = detector();
    let peer = origin(2, 1);
    assert_eq!(hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100))[0], Change::Alive(peer));
    let changes = quiet_until(&mut detector, at(4_000));
    assert_eq!(changes, [Change::Dead { peer, silent: Duration::from_millis(500) }]);
    assert_eq!(hears(&detector), []);
}

#[test]
fn a_peer_that_is_deaf_to_us_dies_though_it_is_heard() {
    let mut detector = detector();
    let peer = origin(2, 1);
    hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100));
    let changes = hear(&mut detector, &[(peer, false)], (20..30).map(|n| n * 100));
    assert_eq!(died(&changes), [peer]);
    assert_eq!(hears(&detector), [(2, false)], "our beat still says that we hear it");
}

#[test]
fn a_timeout_adapts_to_how_a_peer_beats() {
    fn check(spans: [u64; 4], expected: std::ops::RangeInclusive<u128>) {
        let mut detector = detector();
        let mut now = 0;
        let times = (0..40).map(|n| {
            now += spans[n % 4];
            now
        });
        hear(&mut detector, &[(origin(2, 1), true)], times);
        let span = timeout(&detector, ServerId(2)).as_millis();
        assert!(expected.contains(&span), "{spans:?}: {span}");
    }
    check([100, 100, 100, 100], 500..=500);
    check([50, 150, 90, 110], 500..=500);
    check([20, 300, 20, 300], 710..=730);
    check([100, 900, 20, 1500], 2000..=2000);
}

#[test]
fn one_that_is_slow_itself_is_slow_to_blame() {
    let mut detector = detector();
    let peer = origin(2, 1);
    hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100));
    assert_eq!(timeout(&detector, ServerId(2)), BEAT * 5);
    let late = detector.next_beat + Duration::from_millis(220);
    detector.tick(late);
    assert_eq!(timeout(&detector, ServerId(2)), BEAT * 15, "20 ms are ordinary, 200 ms count twice");
    assert!(detector.lag() > Duration::from_millis(20));
    detector.heard(peer, true, late);
    let mut now = late.as_millis();
    for _ in 0..40 {
        now += 100;
        hear(&mut detector, &[(peer, true)], now..=now);
    }
    assert_eq!(timeout(&detector, ServerId(2)), BEAT * 5, "it has recovered");
}

#[test]
fn a_pause_of_our_own_is_found_by_whatever_comes_first() {
    fn check(wake: fn(&mut Heartbeat, Time)) {
        let mut detector = detector();
        let (one, other) = (origin(2, 1), origin(3, 1));
        hear(&mut detector, &[(one, true), (other, true)], (0..20).map(|n| n * 100));
        wake(&mut detector, at(60_000));
        assert_eq!(died(&quiet_until(&mut detector, at(61_000))), []);
        assert_eq!(died(&quiet_until(&mut detector, at(63_000))), [one, other], "credit runs out");
    }
    check(|detector, now| drop(detector.tick(now)));
    check(|detector, now| detector.heard(origin(4, 1), false, now));
    check(|detector, now| detector.up(origin(4, 1), now));
}

#[test]
fn the_newest_boot_is_the_peer() {
    let mut detector = detector();
    let (old, new) = (origin(2, 1), origin(2, 2));
    hear(&mut detector, &[(old, true)], (0..20).map(|n| n * 100));
    detector.heard(new, false, at(2_010));
    assert_eq!(died(&detector.tick(at(2_010)).1), [old]);
    detector.heard(old, true, at(2_020));
    assert_eq!(detector.live().count(), 0, "the old boot is over");
    detector.heard(new, true, at(2_030));
    assert_eq!(detector.tick(at(2_030)).1, [Change::Alive(new)]);
}

#[test]
fn an_older_boot_goes_on_once_the_newer_is_dead() {
    let mut detector = detector();
    let (old, new) = (origin(2, 1), origin(2, 2));
    hear(&mut detector, &[(new, true)], (0..20).map(|n| n * 100));
    detector.up(old, at(2_000));
    assert_eq!(detector.status(new), Status::Live);
    quiet_until(&mut detector, at(3_000));
    detector.heard(old, true, at(3_000));
    assert_eq!(detector.status(old), Status::Dead, "no session says so");
    detector.up(old, at(3_000));
    detector.heard(old, true, at(3_010));
    assert_eq!(detector.status(old), Status::Live);
}

#[test]
fn one_that_said_goodbye_is_forgotten_without_an_alarm() {
    let mut detector = detector();
    let peer = origin(2, 1);
    hear(&mut detector, &[(peer, true)], (0..20).map(|n| n * 100));
    detector.gone(peer.id);
    detector.heard(peer, true, at(2_000));
    assert_eq!(quiet_until(&mut detector, at(5_000)), []);
    assert_eq!(hears(&detector), []);
    detector.up(peer, at(5_000));
    detector.heard(peer, true, at(5_000));
    assert_eq!(detector.tick(at(5_000)).1, [Change::Alive(peer)]);
}

#[test]
fn strangers_do_not_fill_the_memory() {
    let mut detector = detector();
    (1..1000).for_each(|id| detector.heard(origin(id, 1), id % 2 == 0, at(0)));
    assert!(detector.peers.len() <= PEERS_MAX);
}

/// A detector at 2 s that has heard all of them both ways since its start.
fn among(peers: &[Origin]) -> Heartbeat {
    let mut detector = detector();
    let beats: Vec<_> = peers.iter().map(|peer| (*peer, true)).collect();
    hear(&mut detector, &beats, (0..=20).map(|n| n * 100));
    detector
}

/// From 2 s on, beats of 2 that it heard 3 (last at `last`, milliseconds), but none of 3, up to `end`; what changes of 3.
fn vouched_by_two(detector: &mut Heartbeat, last: Option<u64>, end: u64) -> Vec<(u64, Change)> {
    let (two, three) = (origin(2, 1), origin(3, 1));
    let mut found = Vec::new();
    for millis in (2_100..=end).step_by(10) {
        if millis % 100 == 0 {
            detector.heard(two, true, at(millis));
            let age = last.map_or(0, |last| millis.saturating_sub(last));
            detector.vouched(two.id, three, Duration::from_millis(age), at(millis));
        }
        found.extend(detector.tick(at(millis)).1.into_iter().map(|change| (millis, change)));
    }
    found
}

#[test]
fn whom_a_live_peer_hears_is_unheard_and_not_dead() {
    let mut detector = among(&[origin(2, 1), origin(3, 1)]);
    let three = origin(3, 1);
    assert_eq!(vouched_by_two(&mut detector, None, 9_000), [(2_500, Change::Unheard(three))]);
    assert_eq!((detector.status(three), detector.detour(three)), (Status::Unheard, Some(ServerId(2))));
    assert_eq!(detector.unheard().collect::<Vec<_>>(), [three]);
    assert_eq!(hears(&detector), [(2, true)], "only what we hear ourselves is vouched for");
    detector.heard(three, true, at(9_010));
    assert_eq!(detector.tick(at(9_010)).1, [Change::Alive(three)]);
}

#[test]
fn a_death_that_all_see_takes_no_longer_for_their_vouching() {
    let three = origin(3, 1);
    let dead = |silent| Change::Dead { peer: three, silent: Duration::from_millis(silent) };
    // Its last beat came to both, or was lost on its way to us.
    let mut detector = among(&[origin(2, 1), three]);
    assert_eq!(vouched_by_two(&mut detector, Some(2_000), 9_000), [(2_500, dead(500))]);
    let mut detector = among(&[origin(2, 1), three]);
    assert_eq!(vouched_by_two(&mut detector, Some(2_100), 9_000), [(2_600, dead(500))]);
    // It was unheard when it died.
    let mut detector = among(&[origin(2, 1), three]);
    let changes = vouched_by_two(&mut detector, Some(4_000), 9_000);
    assert_eq!(changes, [(2_500, Change::Unheard(three)), (4_500, dead(500))]);
}

#[test]
fn a_vouch_counts_from_a_live_peer_of_the_boot_that_we_know() {
    fn check(by: u32, peer: Origin, expected: Status) {
        let mut detector = among(&[origin(2, 1), origin(3, 5)]);
        detector.heard(origin(4, 1), false, at(2_000));
        for millis in (2_100..3_000).step_by(100) {
            detector.heard(origin(2, 1), true, at(millis));
            detector.heard(origin(4, 1), false, at(millis));
            detector.vouched(ServerId(by), peer, Duration::ZERO, at(millis));
            detector.tick(at(millis));
        }
        assert_eq!(detector.status(origin(3, 5)), expected, "{by} vouches for {peer}");
    }
    check(2, origin(3, 5), Status::Unheard);
    check(2, origin(3, 4), Status::Dead);
    check(2, origin(3, 6), Status::Dead);
    check(3, origin(3, 5), Status::Dead);
    check(4, origin(3, 5), Status::Dead);
    check(9, origin(3, 5), Status::Dead);
}

#[test]
fn a_pause_of_our_own_blames_nobody_that_others_hear() {
    let mut detector = among(&[origin(2, 1), origin(3, 1)]);
    vouched_by_two(&mut detector, None, 4_000);
    detector.tick(at(60_000));
    assert_eq!(detector.status(origin(3, 1)), Status::Unheard);
    let heard = detector.hears(at(60_000));
    assert!(heard[0].age > 50_000, "credit is not vouched for: {heard:?}");
}

#[test]
fn a_server_of_which_only_others_tell_is_known_within_bounds() {
    let mut detector = among(&[origin(2, 1)]);
    for millis in [2_100, 2_200, 2_300, 2_400] {
        detector.heard(origin(2, 1), true, at(millis));
        (3..1000).for_each(|id| detector.vouched(ServerId(2), origin(id, 1), Duration::ZERO, at(millis)));
    }
    assert_eq!(detector.status(origin(3, 1)), Status::Unheard);
    assert!(detector.peers.len() <= HEARSAY_MAX);
}

#[test]
fn what_others_tell_is_told_on_with_its_age_over_so_many_servers() {
    fn check(hops: u8, expected: &[(u32, u32, u8)]) {
        let mut detector = among(&[origin(2, 1)]);
        let rumour = Rumour { peer: origin(3, 1), age: 40, hops };
        for millis in [2_100, 2_200, 2_300, 2_400] {
            detector.heard(origin(2, 1), true, at(millis));
            detector.told(ServerId(2), rumour, at(millis));
        }
        let told = detector.hearsay(at(2_450));
        let told: Vec<_> = told.iter().map(|told| (told.peer.id.0, told.age, told.hops)).collect();
        assert_eq!(told, expected, "after {hops} servers");
    }
    check(0, &[(3, 90, 1)]);
    check(1, &[(3, 90, 2)]);
    check(2, &[]);
    check(3, &[]);
    check(255, &[]);
}

#[test]
fn the_way_leads_over_as_few_servers_as_may_be_and_not_over_old_news() {
    let mut detector = among(&[origin(2, 1), origin(4, 1)]);
    let three = origin(3, 1);
    // 4 has it by others, a little later; then 2 has not heard it for a while.
    for (millis, age, expected) in [(2_300, 30, 2), (2_400, 130, 2), (2_700, 430, 2), (2_900, 630, 4)] {
        for peer in [2, 4] {
            detector.heard(origin(peer, 1), true, at(millis));
        }
        detector.vouched(ServerId(2), three, Duration::from_millis(age), at(millis));
        detector.told(ServerId(4), Rumour { peer: three, age: 10, hops: 1 }, at(millis));
        assert_eq!(detector.detour(three), Some(ServerId(expected)), "at {millis}");
        assert_eq!(detector.is_detour(ServerId(4), three), expected == 4);
    }
}

#[test]
fn what_is_news_of_one_that_was_live_a_moment_ago_is_told_before_it_is_missed() {
    let mut detector = among(&[origin(2, 1), origin(3, 1)]);
    let mut told_at = None;
    for millis in (2_100..2_500).step_by(100) {
        detector.heard(origin(2, 1), true, at(millis));
        detector.vouched(ServerId(2), origin(3, 1), Duration::ZERO, at(millis));
        if !detector.hearsay(at(millis)).is_empty() {
            told_at.get_or_insert(millis);
        }
    }
    assert_eq!((detector.status(origin(3, 1)), told_at), (Status::Live, Some(2_300)));
}

#[test]
fn a_newer_boot_that_only_others_tell_of_kills_nobody_and_locks_nobody_out() {
    let invented = |id| origin(id, (1 << 52) - 1);
    let mut detector = detector();
    hear(&mut detector, &[(origin(1, 1), true)], (0..1_000).step_by(100));
    for millis in [1_000, 1_250] {
        detector.vouched(ServerId(1), origin(2, 1), Duration::ZERO, at(millis));
    }
    detector.vouched(ServerId(1), invented(2), Duration::ZERO, at(1_250));
    assert_eq!(died(&detector.tick(at(1_250)).1), [], "it is unheard, and lives");
    assert_eq!(detector.status(origin(2, 1)), Status::Unheard);
    detector.vouched(ServerId(1), invented(3), Duration::ZERO, at(1_250));
    detector.vouched(ServerId(1), invented(3), Duration::ZERO, at(1_500));
    detector.up(origin(3, 1), at(1_500));
    detector.heard(origin(3, 1), true, at(1_500));
    assert_eq!(detector.status(origin(3, 1)), Status::Live, "it is heard");
    assert_eq!(died(&detector.tick(at(1_500)).1), [invented(3)]);
}

#[test]
fn one_that_was_dead_and_is_heard_again_outdoes_a_newer_boot_told_of_meanwhile() {
    let (three, invented) = (origin(3, 1), origin(3, 9));
    let mut detector = among(&[origin(2, 1), three]);
    hear(&mut detector, &[(origin(2, 1), true)], (2_100..5_000).step_by(100));
    assert_eq!(detector.status(three), Status::Dead);
    for millis in [5_000, 5_250] {
        detector.heard(origin(2, 1), true, at(millis));
        detector.vouched(ServerId(2), invented, Duration::ZERO, at(millis));
    }
    assert_eq!(detector.status(invented), Status::Unheard);
    detector.heard(three, true, at(5_300));
    assert_eq!((detector.status(three), detector.status(invented)), (Status::Live, Status::Dead));
}
