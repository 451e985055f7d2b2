use proptest::{
    collection::vec,
    prelude::{ProptestConfig, any},
    prop_assert, proptest,
};

use super::world::{World, entry, lobby};
use crate::{ids::Boot, wire::Frame};

/// Frames that a server may send, with `#` where a number may be absurd.
const FRAMES: [&str; 16] = [
    r#"{"t":"joined","room":"lobby","start":{"8.1":#},"heads":{"8.1":#,"9.1":#}}"#,
    r#"{"t":"heads","rooms":{"lobby":{"8.1":#,"7.#":#}}}"#,
    r#"{"t":"heads","rooms":{"attic":{"8.1":#}}}"#,
    r#"{"t":"pulled","room":"lobby","id":#,"sent":#,"top":{"8.1":#}}"#,
    r#"{"t":"pulled","room":"lobby","id":1,"sent":0,"top":{}}"#,
    r#"{"t":"ack","room":"lobby","seq":#,"origin":[1,#],"entry":#,"hlc":[#,0],"copies":#,"stored":false,"durable":true}"#,
    r#"{"t":"ack","room":"lobby","seq":1,"origin":[1,#],"entry":#,"hlc":[#,0],"copies":#,"stored":true,"durable":true}"#,
    r#"{"t":"refuse","room":"lobby","seq":#,"why":"clash"}"#,
    r#"{"t":"welcome","server":2,"session":#,"standby":true,"go":2,"time":#}"#,
    r#"{"t":"not_welcome","why":"because"}"#,
    r#"{"t":"servers","cluster":"000000000000000000000000000000c1","key":"","servers":[{"id":9,"boot":#,"addrs":["10.0.0.9:1"]}]}"#,
    r#"{"t":"answer","id":#,"part":#,"last":false,"data":[]}"#,
    r#"{"t":"come","dead":#}"#,
    r#"{"t":"ping","n":#}"#,
    r#"{"t":"pong","n":#}"#,
    r#"{"t":"pull","room":"lobby","id":#,"want":[[[1,1],#,#]],"max":#}"#,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_a_server_says_brings_a_client_down(says in vec((any::<u8>(), vec(0usize..8, 6)), 0..60)) {
        let mut world = World::joined(2);
        world.post(1, "hello");
        let numbers = ["0", "1", "2", "3", "900", "4294967295", "9007199254740993", "18446744073709551615"];
        for (which, picks) in says {
            let mut picks = picks.iter().cycle();
            let mut filled = String::new();
            for (index, part) in FRAMES[usize::from(which) % FRAMES.len()].split('#').enumerate() {
                if index > 0 {
                    filled.push_str(numbers[*picks.next().unwrap()]);
                }
                filled.push_str(part);
            }
            if let Some(frame) = Frame::from_line(filled.as_bytes()) {
                world.server(1).say_to_all(&frame);
                world.server(2).say_to_all(&frame);
            }
            world.run(30);
        }
        world.run(500);
        prop_assert!(world.client.cursor(&lobby()).is_some());
    }
}

#[test]
fn a_join_of_a_long_cursor_names_what_fits_and_shows_nothing_twice() {
    let mut world = World::joined(2);
    for boot in 0..100 {
        let mut said = entry(8, 1, 10 + boot, &boot.to_string());
        said.origin.boot = Boot((1 << 52) - boot - 1);
        said.client_seq = boot;
        said.hash = said.digest();
        world.publish(&said);
    }
    world.run(3_000);
    let (primary, standby) = world.links();
    world.server(primary.unwrap()).alive = false;
    world.post(1, "mine");
    world.run(5_000);
    assert_eq!(world.links().0, standby);
    assert_eq!(world.shown().len(), 102);
}
