//! Paths between servers that carry nothing, in one direction or in both: people chat on, by a detour where there is one;
//! where there is none, both halves chat on and merge.

#[path = "../common/clock.rs"]
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod world;

use std::time::Duration;

use world::{Host, World};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three servers that have agreed; a client of the lobby's home, one of another server, and which that one is.
struct Three {
    world: World,
    home: Host,
    far: Host,
    peer: Host,
}

/// The client of the home, of the server that will not hear it, and of the third.
const CLIENTS: [Host; 3] = [101, 102, 103];

fn three() -> Three {
    let mut world = World::new();
    (1..=3).for_each(|id| world.start(id));
    world.run(ms(5_000));
    let home = world.home(1);
    let others: Vec<_> = (1..=3).filter(|id| *id != home).collect();
    let (far, peer) = (others[0], others[1]);
    for (client, server) in CLIENTS.into_iter().zip([home, far, peer]) {
        world.client(client, &[server]);
    }
    world.run(ms(2_000));
    world.chat(&CLIENTS, ms(50), ms(500));
    world.run(ms(1_000));
    world.assert_whole(&CLIENTS);
    Three { world, home, far, peer }
}

#[test]
fn a_home_that_is_not_heard_is_reached_through_a_peer() {
    fn check(to: bool, from: bool) {
        let Three { mut world, home, far, peer } = three();
        let cut_at = world.now;
        if to {
            world.cut(far, home);
        }
        if from {
            world.cut(home, far);
        }
        world.chat(&CLIENTS, ms(50), ms(4_000));
        let before = world.now;
        world.run(ms(1_000));
        let (accepted, stored, shown) = world.waits(cut_at, &CLIENTS);
        println!("cut to {to} from {from}: accepted {accepted:?}, stored {stored:?}, shown {shown:?}");
        assert!(stored <= ms(1_000) && shown <= ms(1_000), "stored {stored:?}, shown {shown:?}");
        assert_eq!(world.deaths_since(cut_at), [], "nobody is dead");
        assert_eq!(world.home(far), home, "the room stays where it is");
        world.assert_whole(&CLIENTS);
        // Once the way is known it costs next to nothing.
        world.chat(&CLIENTS, ms(50), ms(2_000));
        world.run(ms(500));
        let (_, stored, shown) = world.waits(before, &CLIENTS);
        assert!(stored <= ms(20) && shown <= ms(20), "stored {stored:?}, shown {shown:?}");
        world.heal();
        let healed = world.now;
        world.run(ms(1_000));
        world.bytes.clear();
        world.chat(&CLIENTS, ms(50), ms(2_000));
        let (there, here) = (world.bytes[&(home, far)], world.bytes[&(peer, far)]);
        assert!(here * 2 < there, "the peer still sends {here} bytes, the home {there}");
        world.run(ms(2_000));
        let (_, stored, shown) = world.waits(healed, &CLIENTS);
        assert!(stored <= ms(20) && shown <= ms(20), "healed: stored {stored:?}, shown {shown:?}");
        assert_eq!(world.deaths_since(cut_at), []);
        world.assert_whole(&CLIENTS);
        assert_eq!(world.entries(home), world.posted.len(), "none was sequenced twice");
    }
    check(true, false);
    check(false, true);
    check(true, true);
}

#[test]
fn a_detour_that_dies_is_replaced() {
    let mut world = World::new();
    (1..=4).for_each(|id| world.start(id));
    world.run(ms(5_000));
    let home = world.home(1);
    let others: Vec<_> = (1..=4).filter(|id| *id != home).collect();
    for (client, server) in [(101, home), (102, others[0])] {
        world.client(client, &[server]);
    }
    world.run(ms(2_000));
    world.cut_both(home, others[0]);
    let begin = world.now;
    world.chat(&[101, 102], ms(100), ms(2_000));
    // Whichever of the two it was, the other one is left.
    let used = world.detour(others[0], home);
    world.kill(used);
    world.chat(&[101, 102], ms(100), ms(3_000));
    world.run(ms(1_000));
    let (_, stored, shown) = world.waits(begin, &[101, 102]);
    assert!(stored <= ms(1_200) && shown <= ms(1_200), "stored {stored:?}, shown {shown:?}");
    assert_eq!(world.home(others[0]), home);
    world.assert_whole(&[101, 102]);
    assert_eq!(world.entries(home), world.posted.len(), "none was sequenced twice");
}

#[test]
fn a_home_that_is_not_heard_and_then_dies_is_followed_by_a_successor() {
    let Three { mut world, home, far, peer } = three();
    world.cut_both(far, home);
    world.chat(&CLIENTS, ms(100), ms(2_000));
    world.run(ms(1_000));
    world.kill(home);
    let killed = world.now;
    world.chat(&[102, 103], ms(100), ms(3_000));
    world.run(ms(1_000));
    let (_, stored, shown) = world.waits(killed, &[102, 103]);
    assert!(stored <= ms(1_200) && shown <= ms(1_200), "stored {stored:?}, shown {shown:?}");
    assert_eq!(world.home(far), world.home(peer));
    assert_ne!(world.home(far), home);
    world.assert_whole(&[102, 103]);
}

#[test]
fn halves_chat_on_and_are_one_again_soon_after_the_heal() {
    fn check(seconds: u64, alone_is_home: bool) {
        let Three { mut world, home, far, peer } = three();
        let (alone, half) = if alone_is_home { (home, [far, peer]) } else { (far, [home, peer]) };
        for other in half {
            world.cut_both(alone, other);
        }
        let of_alone = if alone_is_home { 101 } else { 102 };
        let cut_at = world.now;
        world.chat(&CLIENTS, ms(250), ms(seconds * 1_000));
        for (&(host, seq), &at) in world.posted.iter().filter(|(_, at)| **at >= cut_at) {
            let told = &world.told[&host];
            if world.now.since(at) > ms(2_000) {
                assert!(told.accepted[&seq].since(at) <= ms(1_200), "{host}.{seq} was not accepted");
                assert_eq!(told.stored.contains_key(&seq), host != of_alone, "{host}.{seq}: two copies, or one");
            }
        }
        world.heal();
        let healed = world.now;
        world.chat(&CLIENTS, ms(250), ms(6_000));
        world.run(ms(2_000));
        let before: Vec<_> = world.posted.iter().filter(|(_, at)| **at < healed).collect();
        let latest = before.iter().map(|((host, seq), _)| world.told[host].stored[seq]).max().unwrap_or_default();
        let met = world.met_at(healed).since(healed);
        let took = latest.since(healed);
        println!("cut for {seconds} s, the home alone: {alone_is_home}: met after {met:?}, stored after {took:?}");
        assert!(took <= ms(1_000), "stored only {took:?} after the heal, met after {met:?}");
        world.assert_whole(&CLIENTS);
        let doubled = world.entries(home) - world.posted.len();
        assert_eq!(doubled, 0, "sequenced twice");
        for reader in CLIENTS {
            world.assert_late_is_right(reader);
        }
    }
    // Long enough for more than a device may have under way.
    check(20, true);
    check(5, false);
}

#[test]
fn clients_of_a_server_that_is_mute_or_deaf_go_to_where_the_others_are() {
    fn check(mute: bool, deaf: bool) {
        let mut world = World::new();
        (1..=3).for_each(|id| world.start(id));
        world.run(ms(5_000));
        world.client(101, &[1, 2, 3]);
        world.run(ms(2_000));
        let server = Host::try_from(*world.told[&101].servers.last().expect("it is served")).expect("ids are small");
        let others: Vec<_> = (1..=3).filter(|id| *id != server).collect();
        world.client(102, &others);
        world.run(ms(2_000));
        for other in others {
            if mute {
                world.cut(server, other);
            }
            if deaf {
                world.cut(other, server);
            }
        }
        let cut_at = world.now;
        world.chat(&[101, 102], ms(100), ms(6_000));
        world.run(ms(1_000));
        let now = *world.told[&101].servers.last().expect("it is served");
        assert_ne!(now, u32::from(server), "mute {mute}, deaf {deaf}");
        let (_, stored, shown) = world.waits(cut_at, &[101, 102]);
        println!("mute {mute}, deaf {deaf}: stored {stored:?}, shown {shown:?}, {:?}", world.told[&101].servers);
        assert!(stored <= ms(3_000) && shown <= ms(3_000), "stored {stored:?}, shown {shown:?}");
        assert!(world.told[&101].servers.len() <= 3, "it moves once: {:?}", world.told[&101].servers);
    }
    check(true, false);
    check(false, true);
    check(true, true);
}

#[test]
fn people_at_both_ends_of_a_chain_chat_with_each_other() {
    let mut world = World::new();
    (1..=4).for_each(|id| world.start(id));
    world.run(ms(5_000));
    let people = [101, 102, 103, 104];
    for (client, server) in people.into_iter().zip(1..) {
        world.client(client, &[server]);
    }
    world.run(ms(2_000));
    world.chat(&people, ms(100), ms(1_000));
    // 2 - 1 - 3 - 4: each hears only its neighbours.
    let cut_at = world.now;
    for (one, other) in [(2, 3), (2, 4), (1, 4)] {
        world.cut_both(one, other);
    }
    world.chat(&people, ms(100), ms(4_000));
    let known = world.now;
    world.chat(&people, ms(100), ms(3_000));
    world.run(ms(2_000));
    let (_, stored, shown) = world.waits(cut_at, &people);
    println!("in a chain: stored {stored:?}, shown {shown:?}");
    assert!(stored <= ms(2_000) && shown <= ms(2_000), "stored {stored:?}, shown {shown:?}");
    let (_, stored, shown) = world.waits(known, &people);
    assert!(stored <= ms(50) && shown <= ms(50), "stored {stored:?}, shown {shown:?}");
    assert_eq!(world.deaths_since(cut_at), []);
    world.heal();
    world.run(ms(2_000));
    world.chat(&people, ms(100), ms(1_000));
    world.run(ms(2_000));
    world.assert_whole(&people);
    assert_eq!(world.entries(1), world.posted.len(), "none was sequenced twice");
}
