//! Cables that are pulled, links that pass one way only, a network in two halves.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    common::patience,
    crowd::Crowd,
    network::{Family, Host, Joint, Network},
};

/// How long a cut lasts beyond what the rest of the cluster needs to go on.
const CUT: Duration = Duration::from_secs(3);

/// Longer than a probation after one death: who changes the leader for ever does it within that.
const CALM: Duration = Duration::from_secs(6);

/// Three servers, and people on a fourth machine; something happens to the leader's, and is undone.
#[track_caller]
fn check_leader(people: &[usize], harm: impl Fn(&Network, &Host), mend: impl Fn(&Network, &Host)) {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive(people.iter().map(|at| &network.hosts[*at]));
    let cut = Instant::now();
    harm(&network, &network.hosts[2]);
    let others = &network.hosts[..2];
    let limit = patience(5_000);
    crowd.talk_until(limit, |_| others.iter().all(|host| host.leaders_since(cut).contains(&2)));
    println!("another leads {:?} after the cut", cut.elapsed());
    // Whoever is on the machine that is cut off may be alone with it.
    if !people.contains(&2) {
        println!("all chat again {:?} after the cut", { crowd.talk_until_all_chat(cut) });
    }
    crowd.talk_for(CUT);
    for host in others {
        assert_eq!(host.leaders_since(cut), [2], "the leader changes once for the cut");
    }
    mend(&network, &network.hosts[2]);
    let mended = Instant::now();
    crowd.talk_until(patience(20_000), |_| others.iter().all(|host| host.leaders_since(mended).last() == Some(&3)));
    println!("it leads again {:?} after the cut was mended", mended.elapsed());
    network.wait_for_agreement(3, patience(5_000));
    crowd.talk_until_all_chat(Instant::now());
    for host in others {
        // Alone it may have led in a higher term, which the leader of the others has to exceed when they meet.
        let leaders = host.leaders_since(mended);
        assert!(matches!(leaders[..], [3] | [2, 3]), "the leader changes once when the cut is mended: {leaders:?}");
    }
    crowd.settle(&network);
}

#[test]
fn the_leaders_host_is_cut_off_and_comes_back() {
    check_leader(&[3], |network, _| network.unplug(2), |network, _| network.plug(2));
}

#[test]
fn people_on_the_leaders_host_that_is_cut_off_lose_nothing() {
    check_leader(&[2, 3], |network, _| network.unplug(2), |network, _| network.plug(2));
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    check_leader(&[3], |_, leader| leader.deafen(), |_, leader| leader.hear_and_be_heard());
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    check_leader(&[3], |_, leader| leader.silence(), |_, leader| leader.hear_and_be_heard());
}

/// Three servers of which some do not hear some others (deaf, whom; the first is 0): the leader that was leads on.
#[track_caller]
fn check_no_change(deaf: &[(usize, usize)]) {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive(&network.hosts[3..]);
    let cut = Instant::now();
    for (listener, other) in deaf {
        network.hosts[*listener].deafen_to(&network.hosts[*other]);
    }
    crowd.talk_for(CUT + CUT);
    crowd.talk_until_all_chat(Instant::now());
    for host in network.serving() {
        assert_eq!(host.leaders_since(cut), [] as [u64; 0], "the leader is heard by enough");
    }
    for (listener, _) in deaf {
        network.hosts[*listener].hear_and_be_heard();
    }
    network.wait_for_agreement(3, patience(10_000));
    crowd.settle(&network);
}

#[test]
fn a_link_of_one_direction_between_two_followers_changes_no_leader() {
    check_no_change(&[(0, 1)]);
}

#[test]
fn a_link_of_one_direction_between_leader_and_follower_changes_no_leader() {
    check_no_change(&[(0, 2)]);
}

#[test]
fn a_follower_and_a_leader_that_do_not_hear_each_other_change_no_leader() {
    check_no_change(&[(0, 2), (2, 0)]);
}

#[test]
fn four_servers_in_a_chain_do_not_change_the_leader_for_ever() {
    let Some(mut network) = Network::flat(5) else { return };
    network.serve(4, &[]);
    let mut crowd = Crowd::arrive(&network.hosts[4..]);
    // 2 - 1 - 3 - 4: each hears its neighbours only.
    for (listener, other) in [(1, 2), (1, 3), (0, 3)] {
        network.hosts[listener].deafen_to(&network.hosts[other]);
        network.hosts[other].deafen_to(&network.hosts[listener]);
    }
    crowd.talk_for(CUT);
    let calm = Instant::now();
    crowd.talk_for(CALM);
    crowd.talk_until(patience(20_000), |_| {
        let since = Instant::now().checked_sub(CALM).expect("the test has run for longer");
        network.serving().all(|host| host.leaders_since(since).is_empty())
    });
    println!("nobody follows another for {CALM:?}, {:?} after the cuts were known", calm.elapsed());
    for host in network.serving() {
        host.hear_and_be_heard();
    }
    crowd.talk_until(patience(20_000), |_| network.agreement().is_some_and(|view| view["leader"] == 4));
    crowd.settle(&network);
}

#[test]
fn two_halves_chat_on_and_merge() {
    // Servers 1 and 2, and people, at the one switch; server 3, and other people, at the other.
    let Some(mut network) = Network::build(&[3, 2], Joint::Cable, Family::V4) else { return };
    let [first, second, _, third, _] = &mut network.hosts[..] else { panic!("there are five machines") };
    for (id, host) in (1..).zip([first, second, third]) {
        host.serve(Some(id), &[]);
    }
    network.wait_for_agreement(3, patience(5_000));
    let mut crowd = Crowd::arrive([&network.hosts[2], &network.hosts[4]]);
    crowd.talk_for(Duration::from_secs(1));
    network.cut_in_two();
    let halves = || {
        let sees = |host: &Host, leader: u64, up: usize| {
            let status = host.status()?;
            let servers = status["servers"].as_array()?;
            let live = servers.iter().filter(|server| server["state"] != "down").count();
            (status["leader"] == json!(leader) && live == up).then_some(())
        };
        sees(&network.hosts[0], 2, 2).and(sees(&network.hosts[1], 2, 2)).and(sees(&network.hosts[3], 3, 1))
    };
    crowd.talk_until(patience(10_000), |_| network.asked_rarely(halves).is_some());
    let apart = Instant::now();
    crowd.talk_for(CUT);
    crowd.talk_until_all_chat(apart);
    crowd.talk_until(patience(10_000), |talkers| {
        let [(_, large), (small, _)] = [&talkers[0], &talkers[1]].map(|talker| talker.settled_after(apart));
        large > 0 && small > 0
    });
    assert_eq!(crowd.talkers[1].settled_after(apart).1, 0, "one copy of three servers is not stored");
    let is_alone = |line: &str| line.contains("server 3 hears no other server now");
    crowd.listeners[1].wait_for_error("people are told that their server is alone", patience(5_000), is_alone);
    let is_late = |line: &str| line.contains(" (late, ");
    let late = crowd.listeners.iter().any(|listener| listener.out().iter().any(|(_, line)| is_late(line)));
    assert!(!late, "nothing is late before the other half is heard");
    network.join_again();
    let joined = Instant::now();
    crowd.talk_until(patience(20_000), |_| network.agreement().is_some_and(|view| view["leader"] == 3));
    println!("the halves agree {:?} after they are joined", joined.elapsed());
    let is_joined = |line: &str| line.contains("your server hears") && line.ends_with("again");
    crowd.listeners[1].wait_for_error("people are told that it no longer is", patience(5_000), is_joined);
    for listener in &crowd.listeners {
        listener.wait_for_line("what the other half said is shown as late", patience(10_000), is_late);
    }
    let told = crowd.listeners[0].err().into_iter().find(|(_, line)| line.contains("hears no other server"));
    assert_eq!(told, None, "those at two servers are never alone");
    crowd.settle(&network);
}

#[test]
fn a_client_changes_its_address_while_it_chats() {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive([&network.hosts[3], &network.hosts[0]]);
    crowd.talk_for(Duration::from_secs(1));
    let moved = Instant::now();
    network.hosts[3].ip("addr flush dev eth0\naddr add 10.77.1.99/24 brd + dev eth0");
    println!("all chat again {:?} after an address was changed", crowd.talk_until_all_chat(moved));
    crowd.talk_for(Duration::from_secs(2));
    // Its session goes on from the new address, or is replaced where an answer took too long: that is not the point.
    let (silence, wait) = (crowd.longest_silence(moved), crowd.talkers[0].longest_wait(moved));
    println!("the longest silence was {silence:?}, the longest wait {wait:?}");
    assert!(silence < patience(1_000), "those who listen see nothing for {silence:?}");
    assert!(wait < patience(1_000), "a line waits for {wait:?}");
    crowd.settle(&network);
}
