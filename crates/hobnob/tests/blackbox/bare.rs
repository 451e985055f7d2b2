//! Bare `hobnob`: finds a cluster or starts one, serves beside the chat, and hands over.

use crate::common::{Place, patience, wait_for};

#[test]
fn without_a_terminal_or_any_input_it_says_what_it_did_and_exits_0() {
    let place = Place::new();
    let ended = place.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("No cluster found: started one"), "{}", ended.err);
    assert_eq!(
        ended.err.matches("Open cluster: anyone on this network can read and post.").count(),
        1,
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("handed over") && !ended.err.contains("gone"), "{}", ended.err);
}

#[test]
fn the_last_to_leave_says_what_becomes_of_the_messages() {
    let place = Place::new();
    let check = |args: &[&str], expected: &str| {
        let ended = place.run_with_input(args, "one\n");
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.err.contains(expected), "{}", ended.err);
        assert!(!ended.err.contains("handed over"), "{}", ended.err);
    };
    check(&["--in-memory"], "This was the last server: its messages were in memory, and are gone.");
    check(&[], "This was the last server: its messages are on this machine's disk, for the next start here.");
}

#[test]
fn what_is_piped_in_is_stored_before_it_exits() {
    let place = Place::new();
    let server = place.server(1);
    let ended = place.run_with_input(&["--name", "ada", "--room", "tea"], "one\ntwo\n");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let log = place.log_of(&server, "tea");
    let bodies: Vec<_> = log.iter().filter_map(|entry| entry["body"].as_str()).collect();
    assert_eq!(bodies, ["one", "two"]);
}

#[test]
fn with_no_serve_it_only_chats() {
    let place = Place::new();
    let server = place.server(1);
    let mut ada = place.start(&["--no-serve", "--name", "ada"]);
    ada.type_text("hello\n");
    wait_for("the message is there", patience(5_000), || (!place.log_of(&server, "lobby").is_empty()).then_some(()));
    place.wait_for_agreement(&[&server], 1, patience(3_000));
    ada.end_input();
    assert_eq!(ada.wait(patience(6_000)).code, Some(0));
}

#[test]
fn when_the_first_of_two_is_killed_the_second_chats_on_with_all_history() {
    let place = Place::new();
    let mut first = place.start(&["--name", "ada"]);
    first.wait_for_error("the first starts a cluster", patience(5_000), |line| line.contains("started one"));
    first.type_text("before\n");
    let mut second = place.start(&["--name", "ben"]);
    second.wait_for_error("the second serves too", patience(5_000), |line| line.contains("serves too"));
    second.wait_for_line("the second has the history", patience(5_000), |line| line.contains("before"));
    wait_for("it is one cluster of two servers", patience(5_000), || {
        let status: serde_json::Value = serde_json::from_str(&place.run(&["status", "--json"]).out).ok()?;
        (status["servers"].as_array()?.iter().filter(|server| server["state"] == "up").count() == 2).then_some(())
    });
    let start = first.kill();
    second.type_text("after\n");
    let log = wait_for("the second chats on", patience(1_500) + patience(3_000), || {
        let ended = place.run(&["tail", "--json", "--since", "all", "--room", "lobby"]);
        (ended.code == Some(0) && ended.out.contains("after")).then(|| ended.json_lines())
    });
    println!("it was there {:?} after the kill", start.elapsed());
    let bodies: Vec<_> = log.iter().filter_map(|entry| entry["body"].as_str()).collect();
    assert_eq!(bodies, ["before", "after"]);
}

#[test]
fn one_that_ends_leaves_the_cluster_to_the_other() {
    let place = Place::new();
    let mut first = place.start(&["--name", "ada"]);
    first.wait_for_error("the first starts a cluster", patience(5_000), |line| line.contains("started one"));
    first.type_text("before\n");
    let second = place.start(&["--name", "ben"]);
    second.wait_for_line("the second has the history", patience(5_000), |line| line.contains("before"));
    first.end_input();
    let ended = first.wait(patience(16_000));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let log = place.run(&["tail", "--json", "--since", "all", "--room", "lobby"]);
    assert_eq!(log.json_lines().len(), 1, "{log:?}");
    let status = place.run(&["status", "--json"]).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["servers"].as_array().map(Vec::len), Some(1), "{status}");
}
