use super::world::{World, config, server_addr};
use crate::{
    client::{Command, Event},
    ids::{ClusterId, ServerId},
    rng::Rng,
    session::keys::Secret,
};

fn secret(seed: u8) -> Secret {
    Secret::generate(&mut Rng::from_seed([seed; 32]))
}

fn not_trusted(world: &World) -> Vec<String> {
    let why = |(_, event): &(_, Event)| if let Event::NotTrusted { why } = event { Some(why.clone()) } else { None };
    world.events.iter().filter_map(why).collect()
}

#[test]
fn it_finds_a_server_and_connects() {
    let mut world = World::new(1, config());
    world.run(1_000);
    assert!(world.events.iter().any(|(_, event)| matches!(event, Event::Found { servers: 1, open: true, .. })));
    assert_eq!(world.served_by(), [1]);
    assert_eq!(world.server(1).his.len(), 1, "one hi is enough where nothing is lost");
}

#[test]
fn a_lone_client_asks_more_and_more_rarely_and_says_so() {
    let mut world = World::new(0, config());
    let start = world.now;
    world.run(10_000);
    let asked: Vec<_> = world.broadcasts.iter().map(|at| at.since(start).as_millis()).collect();
    assert_eq!(asked[..6], [0, 150, 400, 1_000, 2_000, 4_000]);
    let told: Vec<_> = world.events.iter().map(|(at, _)| at.since(start).as_millis()).collect();
    assert_eq!(told, [1_000, 3_000, 7_000]);
    assert!(matches!(world.events[0].1, Event::Searching));
}

#[test]
fn servers_that_are_named_are_asked_and_nobody_else() {
    let mut world = World::new(2, crate::config::ClientConfig { servers: vec![server_addr(2)], ..config() });
    world.run(1_000);
    assert!(world.broadcasts.is_empty());
    assert_eq!(world.served_by(), [2]);
    assert!(!world.server(2).his[0].movable);
}

#[test]
fn of_two_clusters_of_our_name_the_larger_is_chosen_then_the_lower_id() {
    fn check(counts: [u32; 2], ids: [u128; 2], expected: i64) {
        let mut world = World::new(2, config());
        for (server, (count, id)) in world.servers.iter_mut().zip(counts.into_iter().zip(ids)) {
            (server.count, server.cluster) = (count, ClusterId(id));
            server.rekey();
        }
        world.run(1_000);
        assert_eq!(world.served_by(), [expected]);
    }
    check([1, 3], [5, 9], 2);
    check([3, 1], [9, 5], 1);
    check([2, 2], [9, 5], 2);
}

#[test]
fn a_server_that_cannot_be_ours_is_named_once_and_not_joined() {
    fn check(theirs: Option<Secret>, ours: Option<Secret>, expected: Option<&str>) {
        let mut world = World::new(1, crate::config::ClientConfig { secret: ours, ..config() });
        world.server(1).secret = theirs;
        world.server(1).rekey();
        world.run(5_000);
        match expected {
            Some(words) => {
                assert_eq!(not_trusted(&world).len(), 1, "once");
                assert!(not_trusted(&world)[0].contains(words), "{:?}", not_trusted(&world));
                assert!(world.served_by().is_empty());
            }
            None => assert_eq!(world.served_by(), [1]),
        }
    }
    check(Some(secret(1)), Some(secret(1)), None);
    check(Some(secret(1)), None, Some("has a secret and we have none"));
    check(Some(secret(1)), Some(secret(2)), Some("another secret"));
    check(None, Some(secret(2)), Some("without a secret"));
}

#[test]
fn a_key_that_is_not_the_clusters_is_not_shaken_hands_with() {
    for secret in [None, Some(secret(1))] {
        let mut world = World::new(1, crate::config::ClientConfig { secret: secret.clone(), ..config() });
        (world.server(1).secret, world.server(1).claims) = (secret, Some([7; 32]));
        world.run(3_000);
        assert_eq!(not_trusted(&world).len(), 1);
        assert_eq!(world.links(), (None, None));
    }
}

#[test]
fn a_cluster_of_another_name_is_told_of_and_not_joined() {
    let mut world = World::new(1, config());
    world.server(1).name = "other".parse().unwrap();
    world.server(1).rekey();
    world.run(3_000);
    assert!(world.when(|event| matches!(event, Event::Found { .. })).is_some());
    assert!(world.served_by().is_empty() && not_trusted(&world).is_empty());
}

#[test]
fn a_name_that_is_taken_is_asked_for_again() {
    let mut world = World::new(1, config());
    world.server(1).taken = vec!["ann".into()];
    world.run(5_000);
    let refused: Vec<_> = world.events.iter().filter(|(_, e)| matches!(e, Event::NotWelcome { .. })).collect();
    assert_eq!(refused.len(), 1);
    assert!(world.served_by().is_empty());
    world.command(Command::Rename { name: "ann2".parse().unwrap() });
    world.run(1_000);
    assert_eq!(world.served_by(), [1]);
    world.command(Command::Rename { name: "ann".parse().unwrap() });
    world.run(1_000);
    assert_eq!(world.server(1).his.last().unwrap().name.as_str(), "ann2", "it goes on under the old name");
    let numbers: Vec<_> = world.server(1).his.iter().map(|hi| hi.session).collect();
    assert!(numbers.is_sorted());
}

#[test]
fn a_less_loaded_server_is_moved_to_once() {
    let mut world = World::new(2, config());
    world.server(2).alive = false;
    world.server(1).go = Some(2);
    world.server(2).go = Some(1);
    world.run(10);
    world.server(2).alive = true;
    world.run(5_000);
    assert_eq!(world.served_by(), [1, 2]);
    assert_eq!(world.server(1).byes, 1);
    assert_eq!(world.links(), (Some(2), Some(1)));
    assert_eq!(world.server(1).his.last().unwrap().standby, Some(ServerId(2)));
}

#[test]
fn a_server_that_we_are_sent_to_and_that_does_not_answer_is_left_again() {
    let mut world = World::new(2, config());
    world.server(2).alive = false;
    world.server(1).go = Some(2);
    world.server(2).mute = true;
    world.run(10);
    world.server(2).alive = true;
    world.run(400);
    world.post(1, "hello");
    world.run(3_000);
    assert_eq!(world.served_by(), [1, 1], "nobody was lost");
    assert_eq!(world.acked(), [(1, false), (1, true)]);
}

#[test]
fn questions_are_answered_in_parts_in_order() {
    let mut world = World::new(1, config());
    world.command(Command::Ask { id: 3, ask: crate::wire::frame::Ask::Rooms });
    world.loss = 30;
    world.run(20_000);
    let parts = world.events.iter().filter_map(|(_, event)| match event {
        Event::Answer { id: 3, data, last } => Some((data.as_u64().unwrap(), *last)),
        _ => None,
    });
    assert_eq!(parts.collect::<Vec<_>>(), [(0, false), (1, true)]);
}

#[test]
fn whoever_quits_says_goodbye_and_is_quiet() {
    let mut world = World::new(2, config());
    world.run(3_000);
    world.command(Command::Quit);
    world.run(3_000);
    assert_eq!((world.server(1).byes, world.server(2).byes), (1, 1));
    let events = world.events.len();
    world.run(60_000);
    assert_eq!(world.events.len(), events);
}
