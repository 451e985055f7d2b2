//! A child process: what it prints is read as it comes, and it dies with the test.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::wait_for;

/// Lines that were printed, and when.
type Lines = Arc<Mutex<Vec<(Instant, String)>>>;

/// A process. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    out: Lines,
    err: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None` for a signal.
    pub(crate) code: Option<i32>,
    /// What it printed on standard output.
    pub(crate) out: String,
    /// What it printed on standard error.
    pub(crate) err: String,
}

impl Ended {
    /// Standard output, a JSON object a line.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

impl Process {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("hobnob starts");
        let (out, err) = (Lines::default(), Lines::default());
        let readers = vec![
            read(child.stdout.take().expect("it is a pipe"), Arc::clone(&out)),
            read(child.stderr.take().expect("it is a pipe"), Arc::clone(&err)),
        ];
        Self { input: child.stdin.take(), child, out, err, readers }
    }

    /// Types this. A process that no longer reads is no error here: its end tells.
    pub(crate) fn type_text(&mut self, text: &str) {
        if let Some(input) = &mut self.input {
            let _no_longer_reads = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        }
    }

    /// Ends its input.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Its lines on standard output so far.
    pub(crate) fn out(&self) -> Vec<(Instant, String)> {
        self.out.lock().unwrap().clone()
    }

    /// Its lines on standard error so far.
    pub(crate) fn err(&self) -> Vec<(Instant, String)> {
        self.err.lock().unwrap().clone()
    }

    /// Waits for a line on standard output. When it came.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, what: &str, limit: Duration, is_it: impl Fn(&str) -> bool) -> Instant {
        wait_for(what, limit, || self.out().into_iter().find(|(_, line)| is_it(line)).map(|(at, _)| at))
    }

    /// Waits for a line on standard error. When it came.
    #[track_caller]
    pub(crate) fn wait_for_error(&self, what: &str, limit: Duration, is_it: impl Fn(&str) -> bool) -> Instant {
        wait_for(what, limit, || self.err().into_iter().find(|(_, line)| is_it(line)).map(|(at, _)| at))
    }

    /// When its JSON log first said `message` with these fields after `since`.
    pub(crate) fn logged(&self, since: Instant, message: &str, fields: &[(&str, u64)]) -> Option<Instant> {
        let is_it = |said: &Value| fields.iter().all(|(name, value)| said[*name] == *value);
        self.log(since, message).into_iter().find(|(_, said)| is_it(said)).map(|(at, _)| at)
    }

    /// Every time that its JSON log said `message` after `since`, with the fields.
    pub(crate) fn log(&self, since: Instant, message: &str) -> Vec<(Instant, Value)> {
        let lines = self.err().into_iter().filter(|(at, line)| *at > since && line.contains(message));
        let read = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["fields"].take());
        let said = lines.filter_map(|(at, line)| Some((at, read(&line)?)));
        said.filter(|(_, said)| said["message"] == message).collect()
    }

    /// SIGKILL. When it was dead.
    pub(crate) fn kill(&mut self) -> Instant {
        let at = Instant::now();
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
        at
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it the signal of that name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the process can be sent {name}");
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits until it ends.
    #[track_caller]
    pub(crate) fn wait(mut self, limit: Duration) -> Ended {
        let status = wait_for("the process ends", limit, || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended { code: status.code(), out: text(&self.out), err: text(&self.err) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- out ---\n{}--- err ---\n{}", timed(&self.out), timed(&self.err));
        }
    }
}

/// Reads lines until the other end is closed.
fn read(from: impl Read + Send + 'static, lines: Lines) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            lines.lock().unwrap().push((Instant::now(), line));
        }
    })
}

/// All lines together, each with how many seconds ago it came.
fn timed(lines: &Lines) -> String {
    let line = |(at, line): &(Instant, String)| format!("-{:.3} s {line}\n", at.elapsed().as_secs_f64());
    lines.lock().unwrap().iter().map(line).collect()
}

/// All lines together.
fn text(lines: &Lines) -> String {
    lines.lock().unwrap().iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
}
