//! The chat in a terminal, as a person sees it: a pseudo-terminal with a screen.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command},
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::common::{Place, patience, wait_for};

/// A program in a terminal of 24 rows and 80 columns. Killed and reaped when dropped.
struct Seat {
    child: Child,
    keys: File,
    screen: vt100::Parser,
}

impl Seat {
    /// Starts it.
    fn take(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        // Reading must not wait, and nobody else may hold our end: only so does closing it hang up.
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let copy = || OwnedFd::from(theirs.try_clone().unwrap());
        command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm");
        let child = command.spawn().expect("hobnob starts");
        Self { child, keys: ours.into(), screen: vt100::Parser::default() }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The rows of the screen that have anything on them.
    fn rows(&mut self) -> Vec<String> {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = self.keys.read(&mut bytes) {
            self.screen.process(&bytes[..len]);
        }
        let screen = self.screen.screen();
        screen.rows(0, 80).map(|row| row.trim_end().to_owned()).filter(|row| !row.is_empty()).collect()
    }

    /// Waits until the screen is as `is_it` says.
    #[track_caller]
    fn wait_for(&mut self, what: &str, is_it: impl Fn(&[String]) -> bool) -> Vec<String> {
        wait_for(what, patience(5_000), || {
            let rows = self.rows();
            let seen = is_it(&rows);
            seen.then_some(rows)
        })
    }

    /// Waits for a last row: the one that is typed in.
    #[track_caller]
    fn wait_for_prompt(&mut self, expected: &str) -> Vec<String> {
        self.wait_for(&format!("the prompt is {expected:?}"), |rows| rows.last().is_some_and(|row| row == expected))
    }

    /// Its exit code.
    #[track_caller]
    fn wait(&mut self, limit: Duration) -> Option<i32> {
        wait_for("the chat ends", limit, || {
            let _seen = self.rows();
            self.child.try_wait().unwrap()
        })
        .code()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- screen ---\n{}", self.rows().join("\n"));
        }
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

#[test]
fn a_newcomer_gives_a_name_joins_a_room_and_chats() {
    let place = Place::new();
    let _server = place.server(1);
    assert_eq!(place.run(&["send", "--room", "tea", "--name", "ben", "one"]).code, Some(0));
    let mut command = place.command(&["client"]);
    command.env("USER", "ada");
    let mut ada = Seat::take(command);
    ada.wait_for_prompt("Your name [ada]:");
    ada.type_keys("\r");
    let rows = ada.wait_for_prompt("Room to join or make [lobby]:");
    assert!(rows.iter().any(|row| row == "* #tea: 0 people, 1 message"), "{rows:?}");
    ada.type_keys("tea\r");
    ada.wait_for("what was said before is shown", |rows| rows.iter().any(|row| row.ends_with(" ben: one")));

    ada.type_keys("half a li");
    ada.wait_for_prompt("#tea> half a li");
    assert_eq!(place.run(&["send", "--room", "tea", "--name", "ben", "two"]).code, Some(0));
    let is_above = |rows: &[String]| rows.len() > 1 && rows[rows.len() - 2].ends_with(" ben: two");
    let rows = ada.wait_for("the message is above the line that is typed", is_above);
    assert_eq!(rows.last().unwrap(), "#tea> half a li");
    ada.type_keys("ne\r");
    ada.wait_for("the whole line was said", |rows| rows.iter().any(|row| row.ends_with(" ada: half a line")));

    ada.type_keys("/who\r");
    let is_ada = |row: &String| row == "* ada, served by server 1 (terminal)";
    ada.wait_for("somebody is here", |rows| rows.iter().any(is_ada));
    ada.type_keys("\u{4}");
    assert_eq!(ada.wait(patience(5_000)), Some(0));
}

#[test]
fn a_terminal_that_goes_away_ends_the_chat() {
    let place = Place::new();
    let mut ada = Seat::take(place.command(&["--name", "ada", "--room", "tea"]));
    ada.wait_for_prompt("#tea>");
    // Our end is closed as this is overwritten.
    ada.keys = File::open("/dev/null").unwrap();
    assert_eq!(ada.wait(patience(5_000)), Some(0));
}
