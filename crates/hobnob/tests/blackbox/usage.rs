//! Wrong usage exits 2, what cannot be done exits 1, and each says in a sentence what to do.

use std::net::UdpSocket;

use crate::common::{Place, free_port};

/// Runs it in an empty place, and compares its exit code and a part of what it says.
#[track_caller]
fn check(args: &[&str], code: i32, says: &str) {
    let place = Place::new();
    let ended = place.run(args);
    assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    assert!(ended.err.contains(says), "{args:?}: {}", ended.err);
    assert_eq!(ended.out, "", "{args:?}: standard output is data");
}

#[test]
fn wrong_usage_exits_2_and_says_what_to_do() {
    check(&["dance"], 2, "dance");
    check(&["server", "--id", "0"], 2, "--id");
    check(&["server", "--id", "one"], 2, "--id");
    check(&["server", "--port", "70000"], 2, "--port");
    check(&["server", "--peer", "ship"], 2, "this is not HOST:PORT");
    check(&["server", "--log", "loud"], 2, "[possible values: text, json]");
    check(&["send", "hello"], 2, "--room");
    check(&["tail", "--room", "tea", "--since", "yesterday"], 2, "this is not a time");
    check(&["status", "--server-port", "5002"], 2, "name its address with --server-ip");
    check(&["status", "--server-ip", "nowhere"], 2, "--server-ip");
}

#[test]
fn names_that_cannot_be_used_are_refused() {
    check(&["client", "--name", &"n".repeat(40)], 2, "it is too long: use at most 32 characters");
    check(&["--name", "two words"], 2, "it has a space");
    check(&["send", "--room", "", "hello"], 2, "it is empty: type at least one character");
    check(&["send", "--room", "\"\"", "hello"], 2, "it is empty: type at least one character");
    check(&["send", "--room", "#", "hello"], 2, "it is empty: type at least one character");
}

#[test]
fn an_unknown_interface_is_answered_by_those_that_there_are() {
    let place = Place::new();
    let mut command = place.command(&["server"]);
    command.env("HOBNOB_INTERFACE", "wlan9");
    let ended = crate::common::Process::start(command).wait(std::time::Duration::from_secs(10));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("there is no interface wlan9 with an address: choose from "), "{}", ended.err);
    assert!(ended.err.contains("lo"), "{}", ended.err);
}

#[test]
fn a_port_in_use_is_said_to_be() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let says = format!("port {port} is in use by another program: choose another with --port");
    check(&["server", "--port", &port.to_string()], 1, &says);
}

#[test]
fn a_discovery_port_that_is_not_shared_is_said_to_be() {
    let port = free_port();
    let _taken = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    check(&["server", "--port", "0", "--discovery-port", &port.to_string()], 1, "choose another with --discovery-port");
}

#[test]
fn a_secret_that_cannot_be_read_is_refused() {
    check(&["server", "--secret-file", "/nonexistent"], 1, "the secret file /nonexistent cannot be read");
    check(&["status", "--secret-file", "/nonexistent"], 1, "the secret file /nonexistent cannot be read");
    check(&["server", "--secret-file", "/dev/null"], 2, "`hobnob secret` prints");
}

#[test]
fn a_secret_is_never_taken_from_the_command_line() {
    check(&["server", "--secret", "swordfish"], 2, "--secret");
}

#[test]
fn each_secret_is_new_and_can_be_used() {
    let place = Place::new();
    let (first, second) = (place.run(&["secret"]), place.run(&["secret"]));
    assert_eq!((first.code, first.out.trim().len()), (Some(0), 43), "{}", first.err);
    assert_ne!(first.out, second.out);
}

#[test]
fn where_there_is_no_cluster_commands_exit_3() {
    let place = Place::new();
    let ended = place.run(&["status"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""), "{ended:?}");
    let port = format!("at UDP port {}", place.discovery_port);
    for says in ["no server answered", "Asked on lo (127.0.0.1", &port, "start a server here with `hobnob server`"] {
        assert!(ended.err.contains(says), "{says}: {}", ended.err);
    }
    let port = free_port().to_string();
    let says = format!("the server at 127.0.0.1:{port} does not answer");
    check(&["status", "--server-ip", "127.0.0.1", "--server-port", &port], 3, &says);
    check(&["send", "--room", "tea", "hello"], 3, "");
    check(&["who"], 3, "");
}

#[test]
fn what_only_asks_needs_no_place_for_files() {
    let place = Place::new();
    let _server = place.server(1);
    for args in [["status"], ["rooms"], ["who"], ["clusters"]] {
        let mut command = place.command(&args);
        command.env("HOME", "/dev/null").env("XDG_STATE_HOME", "/dev/null");
        let ended = crate::common::Process::start(command).wait(std::time::Duration::from_secs(30));
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        assert!(!ended.out.contains("asking"), "who only asks is nobody: {}", ended.out);
    }
    let mut command = place.command(&["send", "--room", "tea", "hello"]);
    command.env("XDG_STATE_HOME", "/dev/null");
    let ended = crate::common::Process::start(command).wait(std::time::Duration::from_secs(30));
    assert!(ended.err.contains("set XDG_STATE_HOME"), "{ended:?}");
}

#[test]
fn a_room_is_not_made_by_reading_it() {
    let place = Place::new();
    let _server = place.server(1);
    let ended = place.run(&["tail", "--room", "nosuch"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("there is no room #nosuch: `hobnob rooms` lists them"), "{}", ended.err);
    assert!(!place.run(&["rooms"]).out.contains("nosuch"));
}

#[test]
fn variables_that_are_empty_are_not_set() {
    let place = Place::new();
    let _server = place.server(1);
    let mut command = place.command(&["status"]);
    for variable in ["SECRET", "SECRET_FILE", "NAME", "ROOM", "SERVER_IP", "SERVER_PORT"] {
        command.env(format!("HOBNOB_{variable}"), "");
    }
    let ended = crate::common::Process::start(command).wait(std::time::Duration::from_secs(30));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.starts_with("Open cluster: anyone on this network can read and post."), "{}", ended.out);
}

#[test]
fn help_and_version_are_data() {
    let place = Place::new();
    for args in [["--help"], ["--version"]] {
        let ended = place.run(&args);
        assert_eq!(ended.code, Some(0));
        assert!(ended.out.contains("hobnob"), "{}", ended.out);
    }
}
