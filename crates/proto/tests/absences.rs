//! What must never be in the source, as ARCHITECTURE.md lists it: who imports whom, and what the core does not touch. The
//! lints of `clippy.toml` keep the rest.

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf};

/// The crates of the workspace.
fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crates lie beside each other").to_owned()
}

/// All source files below a folder, with their texts but for comments.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("it is text");
            let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            found.push((path, code.join("\n")));
        }
    }
    found
}

/// The modules of its own crate that a source file names: the words after `crate::`, and the first words in the braces
/// of `use crate::{..}`.
fn modules_named(source: &str) -> BTreeSet<&str> {
    let mut named = BTreeSet::new();
    for after in source.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            named.extend(first_word(after));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    named.extend(first_word(&list[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    named
}

fn first_word(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then_some(&text[..end])
}

#[test]
fn modules_that_are_named_are_found() {
    let source = "use crate::{\n    ids::{Boot, ServerId},\n    log,\n};\nlet x = crate::wire::Frame;";
    assert_eq!(modules_named(source), BTreeSet::from(["ids", "log", "wire"]));
}

#[test]
fn the_parts_of_a_node_do_not_know_each_other() {
    let parts = ["discovery", "heartbeat", "election", "directory", "log", "delivery", "node", "client"];
    for part in &parts[..5] {
        for (path, source) in sources(&crates().join("proto/src").join(part)) {
            let others = modules_named(&source);
            let known: Vec<_> = parts.iter().filter(|other| *other != part && others.contains(*other)).collect();
            assert!(known.is_empty(), "{} imports {known:?}", path.display());
        }
    }
}

#[test]
fn crates_import_only_what_lies_below_them() {
    fn check(name: &str, expected: &[&str]) {
        let manifest = fs::read_to_string(crates().join(name).join("Cargo.toml")).expect("it is there");
        // For its tests a crate may want other features of what it imports anyway.
        let ours: BTreeSet<_> =
            manifest.lines().filter(|line| line.starts_with("hobnob-")).filter_map(first_of_name).collect();
        let expected = expected.iter().copied().collect();
        assert_eq!(ours, expected, "{name}");
    }
    fn first_of_name(line: &str) -> Option<&str> {
        line.split(['.', ' ', '=']).next()
    }
    check("proto", &[]);
    check("sim", &["hobnob-proto"]);
    check("server", &["hobnob-proto"]);
    check("client", &["hobnob-proto"]);
    check("hobnob", &["hobnob-client", "hobnob-proto", "hobnob-server"]);
}

#[test]
fn the_core_has_no_sockets_files_or_processes() {
    for (path, source) in sources(&crates().join("proto/src")) {
        for word in ["UdpSocket", "TcpStream", "TcpListener", "std::fs", "std::env", "std::process", "tokio", "unsafe "]
        {
            assert!(!source.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn only_the_driver_of_a_server_talks_to_its_node() {
    for (path, source) in sources(&crates().join("server/src")) {
        let talks = source.contains("node.handle(") || source.contains("node.poll(");
        assert_eq!(talks, path.ends_with("driver.rs"), "{}", path.display());
    }
}
