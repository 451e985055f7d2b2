//! Paths between servers that carry nothing, in one direction or in both: people chat on, by a detour where there is one;
//! where there is none, both halves chat on and merge.

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
        let Three { mut world, home, far, .. } = three();
        let cut_at = world.now;
        if to {
            world.cut(far, home);
        }
        if from {
            world.cut(home, far);
        }
        world.chat(&CLIENTS, ms(50), ms(10_000));
        let before = world.now;
        world.run(ms(2_000));
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
        world.chat(&CLIENTS, ms(50), ms(5_000));
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
