//! What is on a server's disk: that it comes back, where it lies, and what happens when the disk is full.

use std::{path::Path, process::Command};

use crate::common::{Place, Process, Server, free_port, patience, wait_for};

fn bodies(place: &Place, server: &Server, room: &str) -> Vec<String> {
    let log = place.log_of(server, room);
    log.iter().filter_map(|entry| entry["body"].as_str()).map(str::to_owned).collect()
}

#[test]
fn a_server_that_was_killed_comes_back_with_everything() {
    let place = Place::new();
    let mut server = place.server(4);
    for body in ["one", "two", "three"] {
        assert_eq!(place.run(&["send", "--room", "tea", body]).code, Some(0));
    }
    server.process.kill();
    let server = place.server_with(None, &[]);
    wait_for("all is there again", patience(5_000), || {
        (bodies(&place, &server, "tea") == ["one", "two", "three"]).then_some(())
    });
    let status = place.status(&server).expect("it answers");
    assert_eq!(status["me"], 4, "without another word it is who it was: {status}");
    // Another server here takes another directory.
    let other = place.server(5);
    let slots = place.home.join("state/hobnob/servers").join(&place.cluster);
    assert!(slots.join("1/log.db").is_file() && slots.join("2/log.db").is_file());
    drop((server, other));
    let ended = place.run(&["check", "--data-dir", slots.join("1").to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.starts_with("All is well: 3 entries"), "{}", ended.out);
}

#[test]
fn a_log_with_a_bound_gives_up_what_is_oldest_and_says_so() {
    const BOUND: u64 = 256 * 1024;
    let place = Place::new();
    let directory = place.home.join("data");
    let args = ["--data-dir", directory.to_str().unwrap(), "--keep-bytes", "256k"];
    let server = place.server_with(None, &args);
    let mut last = 0;
    for _ in 0..2 {
        for _ in 0..8 {
            let lines: Vec<_> = (last + 1..=last + 250).map(|n| format!("{n} {}", "x".repeat(150))).collect();
            last += 250;
            let ended = place.run_with_input(&["send", "--room", "tea"], &(lines.join("\n") + "\n"));
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        // The server looks every ten seconds, and goes on from there.
        wait_for("what is kept is within the bound, whole up to its end", patience(40_000), || {
            let kept = bodies(&place, &server, "tea");
            let first: usize = kept.first()?.split(' ').next()?.parse().ok()?;
            // A floor that rises while somebody reads leaves them a hole, of which they are told.
            let is_whole = kept.len() == last + 1 - first;
            (is_whole && (200..1_400).contains(&kept.len())).then_some(())
        });
    }
    let ended = place.ask(&server, &["tail", "--room", "tea", "--since", "all"]);
    assert!(ended.err.contains("is no longer kept") && ended.out.contains(": 4000 x"), "{}", ended.err);
    server.process.terminate();
    assert_eq!(server.process.wait(patience(10_000)).code, Some(0));
    let bytes = std::fs::metadata(directory.join("log.db")).unwrap().len();
    // Free pages are given back from 64 on, an eighth of a large file.
    assert!(bytes < BOUND + 66 * 4_096, "{bytes} bytes");
    let ended = place.run(&["check", "--data-dir", directory.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_directory_has_one_server() {
    let place = Place::new();
    let directory = place.home.join("data");
    let directory = directory.to_str().unwrap();
    let server = place.server_with(None, &["--data-dir", directory]);
    for args in [&["server", "--data-dir", directory][..], &["check", "--data-dir", directory]] {
        let ended = place.run(args);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("is in use by another server: stop that one"), "{}", ended.err);
    }
    drop(server);
    std::fs::remove_file(Path::new(directory).join("log.db-wal")).unwrap();
    std::fs::write(Path::new(directory).join("log.db"), "not a database ".repeat(999)).unwrap();
    let ended = place.run(&["server", "--data-dir", directory]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("is not a log of hobnob: move it aside"), "{}", ended.err);
}

#[test]
fn what_was_said_behind_a_secret_is_not_served_without_it() {
    let place = Place::new();
    let secret = place.home.join("secret");
    std::fs::write(&secret, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let secret = ["--secret-file", secret.to_str().unwrap()];
    let server = place.server_with(None, &secret);
    let sent = place.run(&[&["send", "--room", "tea"], &secret[..], &["hush"]].concat());
    assert_eq!(sent.code, Some(0), "{sent:?}");
    drop(server);
    let slots = place.home.join("state/hobnob/servers").join(&place.cluster);
    // Where nothing is said it takes another slot; where that very one is asked for it says why not.
    let server = place.server_with(None, &[]);
    assert!(slots.join("2/log.db").is_file());
    assert_eq!(bodies(&place, &server, "tea"), [""; 0]);
    drop(server);
    let ended = place.run(&["server", "--data-dir", slots.join("1").to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("that is closed") && ended.err.contains("start it with the --cluster"), "{}", ended.err);
}

#[test]
fn a_place_that_cannot_be_written_to_is_named_with_a_way_out() {
    let place = Place::new();
    // A file where a directory should be: not even root can write there.
    std::fs::write(place.home.join("state"), "").unwrap();
    let ended = place.run(&["server"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("keep nothing with --in-memory"), "{}", ended.err);
    let server = place.server_with(None, &["--in-memory"]);
    assert_eq!(std::fs::metadata(place.home.join("state")).unwrap().len(), 0);
    drop(server);
}

/// A server on a disk of its own of eight megabytes, most of it taken; `None` where that cannot be made.
fn on_a_tiny_disk(place: &Place) -> Option<Server> {
    let disk = place.home.join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let can = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !can {
        assert!(std::env::var("HOBNOB_REQUIRE_ALL").as_deref() != Ok("1"), "all is required, and this needs root");
        println!("skipped: without root there is no disk to fill");
        return None;
    }
    let port = free_port();
    let disk = disk.display();
    let script = format!(
        "mount -t tmpfs -o size=8m none {disk} && head -c 7500000 /dev/zero >{disk}/ballast && \
         exec {} server --id 1 --port {port} --log json --data-dir {disk}/data",
        env!("CARGO_BIN_EXE_hobnob")
    );
    let mut command = place.command(&["-m", "sh", "-c", &script]);
    let mut unshare = Command::new("unshare");
    unshare.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    command = unshare;
    let process = Process::start(command);
    process.wait_for_error("the server serves", patience(5_000), |line| line.contains("\"serving\""));
    Some(Server { process, port })
}

#[test]
fn a_server_whose_disk_is_full_serves_what_it_has_and_recovers() {
    let place = Place::new();
    let Some(server) = on_a_tiny_disk(&place) else { return };
    let line = "x".repeat(8_000);
    let fill = format!("{line}\n").repeat(100);
    let mut sender = place.start(&["send", "--room", "tea", "--json"]);
    sender.type_text(&fill);
    sender.end_input();
    server.process.wait_for_error("it says that the disk is full", patience(10_000), |line| {
        line.contains("the disk cannot be written to") && line.contains("full")
    });
    let stored = |sender: &Process| sender.out().iter().filter(|(_, line)| line.contains("\"stored\"")).count();
    let before = stored(&sender);
    let there = bodies(&place, &server, "tea").len();
    assert!(there >= before, "{there} of {before} stored messages can be read");
    drop(sender);
    let freed = Command::new("nsenter")
        .args(["-t", &server.process.id().to_string(), "-m", "rm"])
        .arg(place.home.join("disk/ballast"))
        .status();
    assert!(freed.is_ok_and(|status| status.success()));
    server.process.wait_for_error("it sees that there is room", patience(10_000), |line| {
        line.contains("the disk can be written to again")
    });
    wait_for("it stores again", patience(10_000), || {
        (place.run(&["send", "--room", "tea", "after"]).code == Some(0)).then_some(())
    });
    let bodies = bodies(&place, &server, "tea");
    assert!(bodies.len() > before && bodies.iter().any(|body| body == "after"), "{} messages", bodies.len());
}
