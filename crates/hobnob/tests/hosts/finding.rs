//! Servers and clients that find each other on real interfaces.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    common::{items, patience, wait_for},
    crowd::Crowd,
    network::{Family, Joint, Network},
    relay::{Relay, Weather},
};

#[test]
fn three_hosts_find_each_other_by_broadcast() {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive(&network.hosts);
    crowd.talk_for(Duration::from_secs(2));
    crowd.settle(&network);
}

#[test]
fn a_server_that_joins_later_leads_and_holds_everything() {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(2, &[]);
    let mut crowd = Crowd::arrive(&network.hosts[1..]);
    crowd.talk_for(Duration::from_secs(1));
    let start = Instant::now();
    network.hosts[2].serve(Some(3), &[]);
    crowd.talk_until(patience(10_000), |_| !network.hosts[2].leaders_since(start).is_empty());
    network.wait_for_agreement(3, patience(5_000));
    crowd.talk_until_all_chat(Instant::now());
    assert_eq!(network.hosts[0].leaders_since(start), [3], "the leader changes once");
    crowd.settle(&network);
}

#[test]
fn two_subnets_are_one_cluster_by_one_named_peer() {
    let Some(mut network) = Network::build(&[3, 3], Joint::Router, Family::V4) else { return };
    // Machines 0 to 2 are in the one subnet, 3 to 5 in the other; on 2 and 5 are people only.
    network.hosts[0].serve(Some(1), &[]);
    network.hosts[1].serve(Some(2), &[]);
    network.wait_for_agreement(2, patience(5_000));
    let named = network.hosts[0].server.as_ref().expect("it serves").port;
    let peer = format!("{}:{named}", network.hosts[0].ip);
    network.hosts[3].serve(Some(3), &["--peer", &peer]);
    network.hosts[4].serve(Some(4), &[]);
    network.wait_for_agreement(4, patience(10_000));
    let mut crowd = Crowd::arrive([&network.hosts[2], &network.hosts[5]]);
    crowd.talk_for(Duration::from_secs(2));
    crowd.settle(&network);
}

#[test]
fn servers_that_start_in_the_same_instant_are_one_cluster() {
    let Some(mut network) = Network::flat(6) else { return };
    let start = Instant::now();
    for host in &mut network.hosts[..5] {
        host.serve(None, &[]);
    }
    wait_for("five servers agree that the highest of them leads", patience(10_000), || {
        network.agreement().filter(|view| Some(&view["leader"]) == items(view, "up").last())
    });
    println!("five servers that start at once agree after {:?}", start.elapsed());
    let mut crowd = Crowd::arrive([&network.hosts[0], &network.hosts[5]]);
    crowd.talk_for(Duration::from_secs(2));
    crowd.settle(&network);
}

/// Three servers with addresses of that family alone find each other, and go on without the leader.
fn find_each_other(family: Family) {
    let Some(mut network) = Network::build(&[4], Joint::Nothing, family) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive([&network.hosts[0], &network.hosts[3]]);
    let killed = network.hosts[2].kill();
    crowd.talk_until_all_chat(killed);
    network.wait_for_agreement(2, patience(5_000));
    crowd.settle(&network);
}

#[test]
fn hosts_without_ipv4_find_each_other_by_multicast() {
    find_each_other(Family::V6);
}

#[test]
fn an_interface_that_appears_later_is_used() {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(2, &[]);
    let mut crowd = Crowd::arrive(&network.hosts[3..]);
    let late = &mut network.hosts[2];
    late.ip("link set eth0 down\naddr flush dev eth0");
    late.serve(Some(3), &[]);
    wait_for("it serves alone", patience(10_000), || late.status());
    late.ip(&format!("addr add {}/24 brd + dev eth0\nlink set eth0 up", late.ip));
    let there = Instant::now();
    let late = &network.hosts[2];
    crowd.talk_until(patience(5_000), |_| {
        let status = network.asked_rarely(|| late.status());
        status
            .is_some_and(|status| items(&status, "interfaces").any(|one| one["name"] == "eth0" && one["used"] == true))
    });
    println!("an interface is used {:?} after it appeared", there.elapsed());
    crowd.talk_until(patience(10_000), |_| network.agreement().is_some());
    println!("all agree {:?} after it appeared", there.elapsed());
    crowd.settle(&network);
}

#[test]
fn hosts_with_link_local_addresses_only_find_each_other() {
    find_each_other(Family::Local);
}

#[test]
fn an_interface_that_vanishes_and_comes_back_is_used_again() {
    let Some(mut network) = Network::flat(4) else { return };
    network.serve(3, &[]);
    let mut crowd = Crowd::arrive([&network.hosts[1], &network.hosts[3]]);
    let start = Instant::now();
    network.pull_out(1);
    crowd.talk_until(patience(5_000), |_| {
        network.hosts[2].process().logged(start, "server is down", &[("server", 2)]).is_some()
    });
    crowd.talk_for(Duration::from_secs(3));
    network.put_in(1);
    let back = Instant::now();
    crowd.talk_until(patience(20_000), |_| network.agreement().is_some_and(|view| view["leader"] == 3));
    println!("all agree {:?} after an interface came back", back.elapsed());
    crowd.talk_until_all_chat(Instant::now());
    crowd.settle(&network);
}

#[test]
fn a_link_to_containers_is_left_out_and_it_is_said_why() {
    let Some(mut network) = Network::flat(2) else { return };
    network.hosts[0].ip("link add docker0 type veth peer name inside
addr add 172.17.0.1/16 brd + dev docker0
         link set docker0 up
link set inside up");
    network.serve(2, &[]);
    let status = network.hosts[0].status().expect("it serves");
    let choice = |name: &str| {
        let one = items(&status, "interfaces").find(|one| one["name"] == name).expect("it is told of");
        (one["used"].clone(), one["why"].clone())
    };
    assert_eq!(choice("docker0"), (false.into(), "it leads to containers or virtual machines".into()));
    assert_eq!(choice("eth0"), (true.into(), Value::Null));
    let elsewhere = network.hosts[1].status().expect("it serves");
    assert!(!elsewhere["servers"].to_string().contains("172.17.0.1"), "nobody is sent there: {elsewhere}");
}

#[test]
fn people_behind_a_link_that_loses_a_fifth_chat_on() {
    let Some(mut network) = Network::build(&[3, 1], Joint::Nothing, Family::V4) else { return };
    network.serve(3, &[]);
    let server = network.hosts[0].server.as_ref().expect("it serves");
    let weather = Weather { loss_percent: 20, delay: Duration::from_millis(40) };
    let middle = network.middle.as_ref().expect("it stands between the two switches");
    let _relay = Relay::start(middle, 5001, (network.hosts[0].ip, server.port).into(), weather, 7);
    let args = ["--server-ip", "10.77.2.254", "--server-port", "5001"];
    let mut crowd = Crowd::arrive_with([&network.hosts[3]], &args);
    crowd.talk_for(Duration::from_secs(5));
    crowd.settle(&network);
}
