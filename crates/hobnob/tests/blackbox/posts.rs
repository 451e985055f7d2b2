//! Messages: stored, in order, once; and those that are too long.

use std::{collections::BTreeSet, time::Duration};

use crate::common::{Place, Process, patience, wait_for};

#[test]
fn a_message_is_accepted_then_stored_on_two_servers() {
    let place = Place::new();
    let servers = place.servers(2);
    let ended = place.run(&["send", "--json", "--room", "tea", "hello"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let last = ended.json_lines().pop().expect("there is a line for each step");
    assert_eq!((&last["ack"], &last["copies"], &last["durable"]), (&"stored".into(), &2.into(), &true.into()));
    for server in &servers {
        let log = place.log_of(server, "tea");
        assert_eq!(log.len(), 1, "{log:?}");
        assert_eq!((&log[0]["body"], &log[0]["seq"]), (&"hello".into(), &last["seq"]));
    }
}

#[test]
fn a_server_alone_stores_one_copy() {
    let place = Place::new();
    let _server = place.server(1);
    let ended = place.run(&["send", "--json", "--room", "tea", "hello"]);
    let last = ended.json_lines().pop().expect("there is a line for each step");
    assert_eq!((&last["ack"], &last["copies"]), (&"stored".into(), &1.into()));
}

#[test]
fn lines_of_standard_input_are_messages_in_order() {
    let place = Place::new();
    let servers = place.servers(2);
    let lines: Vec<String> = (1..=100).map(|number| format!("line {number}")).collect();
    let ended = place.run_with_input(&["send", "--room", "tea"], &format!("{}\n", lines.join("\n")));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let log: Vec<_> = place.log_of(&servers[0], "tea");
    let bodies: Vec<&str> = log.iter().filter_map(|entry| entry["body"].as_str()).collect();
    assert_eq!(bodies, lines);
}

#[test]
fn fifty_sends_at_once_under_one_home_are_fifty_messages() {
    let place = Place::new();
    let servers = place.servers(2);
    let sends: Vec<Process> =
        (1..=50).map(|number| place.start(&["send", "--room", "tea", &format!("message {number}")])).collect();
    for send in sends {
        let ended = send.wait(Duration::from_mins(1));
        assert_eq!(ended.code, Some(0), "{}", ended.err);
    }
    let log = place.log_of(&servers[0], "tea");
    let bodies: BTreeSet<&str> = log.iter().filter_map(|entry| entry["body"].as_str()).collect();
    assert_eq!((log.len(), bodies.len()), (50, 50));
}

#[test]
fn words_without_quotation_marks_are_one_message() {
    let place = Place::new();
    let server = place.server(1);
    assert_eq!(place.run(&["send", "--room", "tea", "hello", "world"]).code, Some(0));
    assert_eq!(place.log_of(&server, "tea")[0]["body"], "hello world");
}

#[test]
fn who_is_told_to_end_says_goodbye() {
    let place = Place::new();
    let server = place.server(1);
    let names = || -> Vec<String> {
        let who: serde_json::Value = serde_json::from_str(&place.ask(&server, &["who", "--json"]).out).unwrap();
        who.as_array().unwrap().iter().map(|person| person["name"].as_str().unwrap().to_owned()).collect()
    };
    for args in [&["client", "--plain", "--name", "ada"][..], &["tail", "--follow", "--room", "lobby"]] {
        let process = place.start(args);
        wait_for("somebody is here", patience(5_000), || (!names().is_empty()).then_some(()));
        process.terminate();
        assert_eq!(process.wait(patience(5_000)).code, Some(0), "{args:?}");
        wait_for("nobody is here", patience(2_000), || names().is_empty().then_some(()));
    }
    let mut ben = place.start(&["send", "--room", "tea", "--name", "ben"]);
    ben.type_text("hello\n");
    wait_for("the message is there", patience(5_000), || (!place.log_of(&server, "tea").is_empty()).then_some(()));
    ben.terminate();
    assert_eq!(ben.wait(patience(5_000)).code, Some(0));
}

#[test]
fn a_message_of_16_kib_arrives_whole() {
    let place = Place::new();
    let servers = place.servers(2);
    let text = "x".repeat(16 * 1024);
    let ended = place.run(&["send", "--room", "tea", &text]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    for server in &servers {
        assert_eq!(place.log_of(server, "tea")[0]["body"], *text);
    }
}

#[test]
fn a_message_of_20_kib_is_refused_with_a_sentence() {
    let place = Place::new();
    let server = place.server(1);
    let ended = place.run(&["send", "--room", "tea", &"x".repeat(20 * 1024)]);
    assert!(matches!(ended.code, Some(1 | 2)), "{:?}: {}", ended.code, ended.err);
    assert!(ended.err.contains("at most 16384"), "{}", ended.err);
    assert!(place.log_of(&server, "tea").is_empty());
}
