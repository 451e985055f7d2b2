//! Closed clusters: who has the secret is in, who has not is told so.

use std::path::PathBuf;

use crate::common::{Place, items, patience};

/// Writes a new secret to a file of that name.
fn secret(place: &Place, name: &str) -> String {
    let path: PathBuf = place.home.join(name);
    std::fs::write(&path, place.run(&["secret"]).out).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn who_has_the_secret_is_in_and_nobody_else() {
    let place = Place::new();
    let (right, wrong) = (secret(&place, "right"), secret(&place, "wrong"));
    let server = place.server_with(Some(1), &["--secret-file", &right]);
    let check = |args: &[&str], code: i32| {
        let ended = place.run(&[&["send", "--room", "tea", "hello"], args].concat());
        assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.err);
        assert!(!ended.err.contains(std::fs::read_to_string(&right).unwrap().trim()), "no secret is ever printed");
    };
    check(&["--secret-file", &right], 0);
    check(&["--secret-file", &wrong], 4);
    check(&[], 4);
    let ended = place.ask(&server, &["tail", "--json", "--since", "all", "--room", "tea", "--secret-file", &right]);
    assert_eq!(ended.json_lines().len(), 1, "{ended:?}");
}

#[test]
fn a_secret_may_come_from_the_environment() {
    let place = Place::new();
    let right = secret(&place, "right");
    let _server = place.server_with(Some(1), &["--secret-file", &right]);
    let mut command = place.command(&["status"]);
    command.env("HOBNOB_SECRET", std::fs::read_to_string(&right).unwrap().trim());
    let ended = crate::common::Process::start(command).wait(patience(10_000));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

#[test]
fn what_was_left_unsent_in_a_closed_cluster_is_not_posted_in_an_open_one() {
    let place = Place::new();
    let right = secret(&place, "right");
    let mut ada = place.start(&["client", "--plain", "--name", "ada", "--room", "tea", "--secret-file", &right]);
    ada.type_text("the safe is behind the picture\n");
    ada.end_input();
    assert_eq!(ada.wait(patience(10_000)).code, Some(3), "nobody was there");
    let server = place.server(1);
    assert_eq!(place.run(&["send", "--room", "tea", "--name", "ada", "hello"]).code, Some(0));
    let bodies: Vec<_> = place.log_of(&server, "tea").into_iter().map(|entry| entry["body"].clone()).collect();
    assert_eq!(bodies, ["hello"]);
    let closed = place.server_with(None, &["--secret-file", &right]);
    let asked = place.run(&["send", "--room", "tea", "--name", "ada", "--secret-file", &right, "hello"]);
    assert!(asked.err.contains("sending 1 message that was not stored last time"), "{asked:?}");
    let ended = place.ask(&closed, &["tail", "--since", "all", "--room", "tea", "--secret-file", &right]);
    assert!(ended.out.contains("the safe is behind"), "{ended:?}");
}

#[test]
fn a_server_without_the_secret_never_becomes_a_member() {
    let place = Place::new();
    let (right, wrong) = (secret(&place, "right"), secret(&place, "wrong"));
    let first = place.server_with(Some(1), &["--secret-file", &right]);
    let _wrong = place.server_with(Some(2), &["--secret-file", &wrong]);
    let _open = place.server_with(Some(3), &[]);
    let third = place.server_with(Some(4), &["--secret-file", &right]);
    for server in [&first, &third] {
        crate::common::wait_for("the two with the secret are alone together", patience(5_000), || {
            let ended = place.ask(server, &["status", "--json", "--secret-file", &right]);
            let status: serde_json::Value = serde_json::from_str(&ended.out).ok()?;
            let ids: Vec<_> = items(&status, "servers").filter_map(|server| server["id"].as_u64()).collect();
            assert!(!ids.contains(&2) && !ids.contains(&3), "{ids:?}");
            (ids == [1, 4]).then_some(())
        });
    }
}
