//! The demo passes, and leaves nothing behind.

use std::time::Duration;

use crate::common::Place;

#[test]
fn the_demo_loses_nothing_doubles_nothing_and_cleans_up() {
    let place = Place::new();
    let temp = place.home.join("temp");
    std::fs::create_dir(&temp).unwrap();
    let mut command = place.command(&["demo"]);
    command.env("TMPDIR", &temp);
    let ended = crate::common::Process::start(command).wait(Duration::from_mins(2));
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    assert!(ended.out.contains(" 0 lost, 0 doubled."), "{}", ended.out);
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "its home is removed");
}
