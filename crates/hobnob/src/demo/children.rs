//! Child processes that never outlive us, and what they print, in one channel.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use hobnob_client::Fail;

/// A line that a child printed.
#[derive(Debug)]
pub(super) struct Line {
    /// Whose.
    pub(super) from: String,
    /// Whether it came on standard error.
    pub(super) is_error: bool,
    /// Without its newline; `None`: nothing more will come.
    pub(super) text: Option<String>,
    /// When it was read.
    pub(super) at: Instant,
}

/// A process of this program. Killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
}

impl Process {
    /// Ends it as a power cut would, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        // It may have ended already, which is as good.
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }

    /// Types a line.
    pub(super) fn type_line(&mut self, line: &str) -> Result<(), Fail> {
        let input = self.input.as_mut().ok_or_else(|| failed(&format!("{} no longer listens", self.name)))?;
        writeln!(input, "{line}").map_err(|error| failed(&format!("{} does not listen: {error}", self.name)))
    }

    /// Ends its input.
    pub(super) fn end_input(&mut self) {
        self.input = None;
    }

    /// Its exit code, once it has ended; -1 for a signal.
    pub(super) fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that is this demo's home, removed when dropped.
#[derive(Debug)]
pub(super) struct Home(PathBuf);

impl Home {
    /// A new empty one, named by `tag`, for this user alone.
    pub(super) fn new(tag: &str) -> Result<Self, Fail> {
        let path = std::env::temp_dir().join(format!("hobnob-demo-{tag}"));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .map_err(|error| failed(&format!("{} cannot be made ({error}): set TMPDIR", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} is left over: {error}", self.0.display());
        }
    }
}

/// Starts processes that share a home, a cluster and a discovery port.
#[derive(Debug)]
pub(super) struct Starter {
    /// Where they keep their files.
    pub(super) home: Home,
    /// The cluster's name.
    pub(super) cluster: String,
    /// The discovery port.
    pub(super) discovery_port: u16,
    /// Where what they print goes.
    pub(super) lines: Sender<Line>,
}

impl Starter {
    /// Starts `hobnob ARGS`; its lines are marked with `name`.
    pub(super) fn start(&self, name: &str, args: &[&str]) -> Result<Process, Fail> {
        let program = std::env::current_exe().map_err(|error| failed(&format!("where this program is: {error}")))?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HOBNOB_") {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .args(args)
            .args(["--interface", "lo", "--cluster", &self.cluster])
            .args(["--discovery-port", &self.discovery_port.to_string()])
            .env("HOME", &self.home.0)
            .env("XDG_STATE_HOME", &self.home.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format!("a process cannot be started: {error}")))?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // From here on it is killed whatever happens.
        let process = Process { name: name.to_owned(), child, input };
        if let Some(output) = output {
            self.listen(name, false, output)?;
        }
        if let Some(errors) = errors {
            self.listen(name, true, errors)?;
        }
        Ok(process)
    }

    /// Forwards lines until the process has closed its end.
    fn listen(&self, name: &str, is_error: bool, from: impl Read + Send + 'static) -> Result<(), Fail> {
        let (lines, name) = (self.lines.clone(), name.to_owned());
        let forward = move || {
            let texts = BufReader::new(from).lines().map_while(Result::ok).map(Some);
            for text in texts.chain(std::iter::once(None)) {
                let line = Line { from: name.clone(), is_error, text, at: Instant::now() };
                if lines.send(line).is_err() {
                    return;
                }
            }
        };
        let spawned = thread::Builder::new().name("listen".into()).spawn(forward);
        spawned.map(drop).map_err(|error| failed(&format!("a thread cannot be started: {error}")))
    }
}

/// How long it waits for something to happen before it looks around.
pub(super) const GLANCE: Duration = Duration::from_millis(10);

/// The demo could not be shown.
pub(super) fn failed(why: &str) -> Fail {
    Fail::new(Fail::FAILED, format!("the demo failed: {why}"))
}
