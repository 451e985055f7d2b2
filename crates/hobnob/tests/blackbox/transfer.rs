//! `export` and `import`: what was said survives the end of every server, in a file.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::common::{Ended, Place, Server, patience, wait_for};

/// Lines that each of two people says in each of two rooms.
const LINES: usize = 120;

/// Two people say so many lines each in two rooms.
fn talk(place: &Place, lines: usize) {
    for (name, room) in [("ada", "tea"), ("ben", "tea"), ("ada", "milk"), ("ben", "milk")] {
        let input = (1..=lines).fold(String::new(), |mut input, n| {
            writeln!(input, "{name} says {n} in {room}").unwrap();
            input
        });
        let ended = place.run_with_input(&["send", "--room", room, "--name", name], &input);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

fn export(place: &Place, server: &Server, args: &[&str]) -> Ended {
    place.ask(server, &[&["export"], args].concat())
}

fn import(place: &Place, server: &Server, file: &str) -> Ended {
    let port = server.port.to_string();
    place.run_with_input(&["import", "--server-ip", "127.0.0.1", "--server-port", &port], file)
}

/// What a room shows at a server: all that every line says.
fn shown(place: &Place, server: &Server, room: &str) -> Vec<Value> {
    place.log_of(server, room)
}

/// The names of the rooms, and how many entries each has.
fn rooms(place: &Place, server: &Server) -> Vec<(Value, Value)> {
    let ended = place.ask(server, &["rooms", "--json"]);
    let rooms: Value = serde_json::from_str(&ended.out).unwrap();
    rooms.as_array().unwrap().iter().map(|room| (room["name"].clone(), room["entries"].clone())).collect()
}

/// An entry's line of an export.
fn is_entry(line: &str) -> bool {
    !line.starts_with(r#"{"hobnob":"#)
}

/// The lines of an export that pass, with an end that fits them.
fn file_of<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.starts_with(r#"{"hobnob":"end""#)).collect();
    let entries = lines.iter().filter(|line| is_entry(line)).count();
    format!("{}\n{}\n", lines.join("\n"), json!({"hobnob": "end", "entries": entries}))
}

#[test]
fn all_servers_are_wiped_and_one_file_brings_back_rooms_names_and_history() {
    let place = Place::new();
    let mut servers = place.servers(3);
    talk(&place, LINES);
    let ended = export(&place, &servers[0], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let file = ended.out;
    assert_eq!(file.lines().filter(|line| is_entry(line)).count(), 4 * LINES);
    let before = ["tea", "milk"].map(|room| shown(&place, &servers[0], room));
    let rooms_before = rooms(&place, &servers[0]);
    for server in &mut servers {
        server.process.kill();
    }
    drop(servers);
    std::fs::remove_dir_all(place.home.join("state/hobnob/servers")).unwrap();

    let first = place.server(1);
    assert_eq!(rooms(&place, &first), [(json!("lobby"), json!(0))], "nothing is left");
    let ended = import(&place, &first, &file);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let again = import(&place, &first, &file);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.err.contains(": 0 new"), "a second time changes nothing: {}", again.err);
    let servers = [first, place.server(2), place.server(3)];
    place.wait_for_agreement(&servers.iter().collect::<Vec<_>>(), 3, patience(10_000));
    for server in &servers {
        let after = wait_for("everything is back", patience(10_000), || {
            let after = ["tea", "milk"].map(|room| shown(&place, server, room));
            (after == before).then_some(after)
        });
        assert_eq!(after, before);
        assert_eq!(rooms(&place, server), rooms_before);
    }
    // Who goes on posting is not taken for somebody who repeats something.
    talk(&place, 1);
    assert_eq!(shown(&place, &servers[1], "tea").len(), 2 * LINES + 2);
}

#[test]
fn a_file_is_stored_on_all_servers_that_are_wanted() {
    let place = Place::new();
    let source = place.server(1);
    talk(&place, 5);
    let file = export(&place, &source, &[]).out;
    let other = Place::new();
    let servers = other.servers(2);
    let ended = import(&other, &servers[0], &file);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // At once: that it is over means that they have it.
    for server in &servers {
        assert_eq!(other.log_of(server, "tea"), place.log_of(&source, "tea"));
    }
    // From now on one of the two that are members is dead.
    let [first, mut second] = servers.try_into().expect("they are two");
    second.process.kill();
    talk(&place, 1);
    let ended = import(&other, &first, &export(&place, &source, &[]).out);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert_eq!(other.log_of(&first, "tea").len(), 12);
}

#[test]
fn a_part_of_the_history_may_be_asked_for() {
    let place = Place::new();
    let server = place.server(1);
    talk(&place, 3);
    let tea = export(&place, &server, &["--room", "#tea"]);
    let rooms_of = |text: &str| -> Vec<Value> {
        text.lines()
            .filter(|line| is_entry(line))
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["room"].clone())
            .collect()
    };
    assert_eq!(rooms_of(&tea.out), vec![json!("tea"); 6]);
    assert_eq!(export(&place, &server, &["--room", "nowhere"]).code, Some(1));
    // The first second after all that was said so far.
    let newest = place.log_of(&server, "tea").iter().map(|entry| entry["hlc"][0].as_u64().unwrap()).max().unwrap();
    let since = (newest / 1_000 + 1).to_string();
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    let late = place.run(&["send", "--room", "tea", "--name", "ada", "this is late"]);
    assert_eq!(late.code, Some(0), "{late:?}");
    let part = export(&place, &server, &["--since", &since, "--room", "tea"]);
    assert!(part.out.contains("this is late") && !part.out.contains("ada says 1 "), "since {since}: {}", part.out);
    // What begins later says so, and so can be imported all the same.
    let other = Place::new();
    let fresh = other.server(1);
    let ended = import(&other, &fresh, &part.out);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(other.log_of(&fresh, "tea").len(), 1);
}

#[test]
fn a_damaged_or_cut_file_is_imported_as_far_as_it_goes_and_that_is_said() {
    let place = Place::new();
    let server = place.server(1);
    talk(&place, 4);
    let whole = export(&place, &server, &[]).out;
    let lines: Vec<&str> = whole.lines().collect();
    let check = |file: &str, code: i32, said: &str, entries: usize| {
        let other = Place::new();
        let fresh = other.server(1);
        let ended = import(&other, &fresh, file);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.err.contains(said), "{said:?} in {}", ended.err);
        let there = other.log_of(&fresh, "milk").len() + other.log_of(&fresh, "tea").len();
        assert_eq!(there, entries, "{}", ended.err);
    };
    check(&whole, 0, "16 new", 16);
    let cut = &whole[..whole.len() - 60];
    check(cut, 1, "the file was cut", cut.lines().filter(|line| is_entry(line) && line.ends_with('}')).count());
    // Of one origin, which a server that has not been restarted is, nothing comes after what is missing.
    let at = lines.iter().rposition(|line| line.contains(r#""room":"tea""#) && is_entry(line)).unwrap();
    let rotten = whole.replace(lines[at], &lines[at].replace("says", "lies"));
    check(&rotten, 1, &format!("line {}: its content does not have the hash that it carries", at + 1), 15);
    let holed = file_of(lines.iter().enumerate().filter(|(n, _)| *n != at - 1).map(|(_, line)| *line));
    check(&holed, 1, &format!("line {at}: an earlier entry of its origin is missing"), 14);
    check(&file_of(lines.iter().chain([&lines[at]]).copied()), 0, "1 known", 16);
    check("", 1, "it is empty", 0);
    check("hello\n", 1, "not that of an export", 0);
    check(&whole.replace(r#""version":1"#, r#""version":2"#), 1, "newer version", 0);
}
