//! Servers that are killed, start again, flap, and are restarted one after the other.

use std::time::{Duration, Instant};

use crate::{
    common::{is_strict, patience, traffic::check_never_lost},
    crowd::Crowd,
    network::Network,
};

/// The longest that somebody who listens may be shown nothing while servers are restarted in turn, where nothing else runs.
const SILENCE_MAX: Duration = Duration::from_millis(300);

#[test]
fn a_top_id_that_is_killed_every_two_seconds_does_not_take_the_cluster_with_it() {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive(&network.hosts[3..]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_mins(1) {
        network.hosts[2].kill();
        network.hosts[2].serve(Some(3), &[]);
        crowd.talk_for(Duration::from_secs(2));
    }
    println!("the longest silence was {:?}", crowd.longest_silence(start));
    for host in &network.hosts[..2] {
        let leaders = host.leaders_since(start);
        println!("{} followed {leaders:?}", host.ip);
        assert!(
            leaders.len() <= 2,
            "it changes the leader at most twice for each probation that it served: {leaders:?}"
        );
    }
    // It leads or not: that is a matter of how long it is on probation. But it serves.
    crowd.talk_until(patience(20_000), |_| network.agreement().is_some());
    crowd.settle(&network);
}

#[test]
fn all_servers_are_restarted_in_turn_under_traffic() {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive([&network.hosts[3], &network.hosts[3]]);
    crowd.talk_faster(50);
    let mut leaders = vec![3];
    let mut longest = Duration::ZERO;
    let first = Instant::now();
    for at in 0..3 {
        let start = Instant::now();
        let mut old = network.hosts[at].server.take().expect("it serves");
        old.process.terminate();
        crowd.talk_until(patience(12_000), |_| old.process.has_ended());
        println!("server {} left after {:?}", at + 1, start.elapsed());
        assert_eq!(old.process.wait(patience(1_000)).code, Some(0));
        network.hosts[at].serve(Some(at as u64 + 1), &[]);
        // Nothing is asked meanwhile: that would keep those who talk here waiting, and look like a silence.
        crowd.talk_until(patience(20_000), |_| !network.hosts[at].leaders_since(start).is_empty());
        println!("server {} is back after {:?}", at + 1, start.elapsed());
        crowd.talk_for(Duration::from_secs(2));
        let silence = crowd.longest_silence(start);
        println!("the longest silence was {silence:?}");
        longest = longest.max(silence);
        crowd.talk_until(patience(20_000), |_| network.agreement().is_some());
        let leaver = at as u64 + 1;
        for host in network.serving() {
            let called_down = host.process().logged(first, "server is down", &[("server", leaver)]);
            assert_eq!(called_down, None, "{} calls server {leaver} down, which left as planned", host.ip);
        }
        let watcher = &network.hosts[(at + 1) % 3];
        leaders.extend(watcher.leaders_since(start));
        leaders.dedup();
    }
    assert!(leaders.len() <= 4, "at most one change of leader for each server restarted: {leaders:?}");
    check_never_lost(&crowd.listeners);
    assert!(!is_strict() || longest < SILENCE_MAX, "silence of {longest:?}");
    crowd.settle(&network);
}

#[test]
fn two_of_five_servers_are_killed_at_once() {
    let Some(mut network) = Network::flat(6) else { return };
    // What is stored is on three, so that it outlives two.
    network.serve(5, &["--replicas", "3"]);
    let mut crowd = Crowd::arrive([&network.hosts[0], &network.hosts[5]]);
    network.hosts[4].kill();
    let killed = network.hosts[3].kill();
    println!("all chat again {:?} after two were killed", crowd.talk_until_all_chat(killed));
    network.wait_for_agreement(3, patience(5_000));
    crowd.talk_for(Duration::from_secs(1));
    crowd.settle(&network);
}
