//! What the tests stand on: a place of their own, processes that die with the test, and waiting for conditions.

use std::{
    net::UdpSocket,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) use self::process::{Ended, Process};

mod process;
pub(crate) mod traffic;

/// How long a command may take that only has to end.
const COMMAND_MAX: Duration = Duration::from_secs(30);
/// How long to wait before a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);
/// The same where looking takes a process for each server.
pub(crate) const STATUS_POLL: Duration = Duration::from_millis(200);

/// How long a test waits for what takes `millis` where nothing else runs. Machines that run tests are busy: three times
/// as long, or as many times as `HOBNOB_TEST_PATIENCE` says (1: the bounds of the design).
pub(crate) fn patience(millis: u64) -> Duration {
    Duration::from_millis(millis * number_of("HOBNOB_TEST_PATIENCE").unwrap_or(3))
}

/// Whether the bounds of the design are held to the millisecond: with `HOBNOB_TEST_PATIENCE=1`, where nothing else runs.
pub(crate) fn is_strict() -> bool {
    number_of("HOBNOB_TEST_PATIENCE") == Some(1)
}

/// The number in that variable of the environment.
pub(crate) fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Waits until `condition` gives something, and fails the test after `limit`.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_every(POLL, what, limit, condition)
}

/// The same, and looks once in `poll`.
#[track_caller]
fn wait_for_every<T>(poll: Duration, what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        thread::sleep(poll);
    }
}

/// A UDP port that nobody uses, and that no other test of this process gets. Below those that systems hand out by
/// themselves, so that it stays free until it is used.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = std::process::id().wrapping_mul(97) as u16;
    loop {
        let port = 10_000 + base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// A name that no other test has, of this process or of another.
pub(crate) fn tag() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new home directory.
fn home(tag: &str) -> PathBuf {
    let home = std::env::temp_dir().join(format!("hobnob-test-{tag}"));
    std::fs::create_dir_all(&home).unwrap();
    home
}

/// A test's own world: home directory, cluster and discovery port; on loopback alone, or in a network namespace.
#[derive(Debug)]
pub(crate) struct Place {
    /// The home directory, removed in the end.
    pub(crate) home: PathBuf,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The discovery port.
    pub(crate) discovery_port: u16,
    /// The network namespace that its processes run in; `None`: this one, on loopback alone.
    pub(crate) netns: Option<String>,
}

impl Place {
    /// A new one.
    pub(crate) fn new() -> Self {
        let tag = tag();
        let home = home(&tag);
        Self { home, cluster: format!("test-{tag}"), discovery_port: free_port(), netns: None }
    }

    /// One in that network namespace: a machine of its own, on all its interfaces.
    pub(crate) fn inside(netns: &str, cluster: &str) -> Self {
        let (cluster, netns) = (cluster.to_owned(), Some(netns.to_owned()));
        Self { home: home(&tag()), cluster, discovery_port: 5005, netns }
    }

    /// `hobnob ARGS` in this place, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_hobnob");
        let mut command = Command::new(if self.netns.is_some() { "ip" } else { program });
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOBNOB_")) {
            command.env_remove(name);
        }
        match &self.netns {
            Some(netns) => command.args(["netns", "exec", netns, program]),
            None => command.env("HOBNOB_INTERFACE", "lo"),
        };
        command
            .args(args)
            .env("HOME", &self.home)
            .env("XDG_STATE_HOME", self.home.join("state"))
            .env("HOBNOB_CLUSTER", &self.cluster)
            .env("HOBNOB_DISCOVERY_PORT", self.discovery_port.to_string());
        command
    }

    /// Starts `hobnob ARGS`.
    pub(crate) fn start(&self, args: &[&str]) -> Process {
        Process::start(self.command(args))
    }

    /// Runs `hobnob ARGS` to its end, with an empty input.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with_input(args, "")
    }

    /// Runs `hobnob ARGS` to its end, with this input.
    #[track_caller]
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ended {
        let mut process = self.start(args);
        process.type_text(input);
        process.end_input();
        process.wait(COMMAND_MAX)
    }

    /// Starts a server with that id and waits until it serves.
    #[track_caller]
    pub(crate) fn server(&self, id: u64) -> Server {
        self.server_with(Some(id), &[])
    }

    /// Starts a server with other options too.
    #[track_caller]
    pub(crate) fn server_with(&self, id: Option<u64>, args: &[&str]) -> Server {
        let server = self.start_server(id, args);
        server.process.wait_for_error("the server serves", patience(5_000), |line| line.contains("\"serving\""));
        server
    }

    /// Starts a server and does not wait for it.
    pub(crate) fn start_server(&self, id: Option<u64>, args: &[&str]) -> Server {
        let port = free_port();
        let (port_text, id_text) = (port.to_string(), id.unwrap_or_default().to_string());
        let mut all = vec!["server", "--port", &port_text, "--log", "json"];
        if id.is_some() {
            all.extend(["--id", &id_text]);
        }
        all.extend(args);
        Server { process: self.start(&all), port }
    }

    /// Servers 1 to `count`, which agree that the last of them leads.
    #[track_caller]
    pub(crate) fn servers(&self, count: u64) -> Vec<Server> {
        let servers: Vec<Server> = (1..=count).map(|id| self.server(id)).collect();
        self.wait_for_agreement(&servers.iter().collect::<Vec<_>>(), count, patience(5_000));
        servers
    }

    /// Waits until all of `servers` say that `leader` leads, that exactly they are up, and the same of everything else.
    /// What they say.
    #[track_caller]
    pub(crate) fn wait_for_agreement(&self, servers: &[&Server], leader: u64, limit: Duration) -> Value {
        let what = format!("{} servers agree that {leader} leads", servers.len());
        wait_for_every(STATUS_POLL, &what, limit, || {
            agreement(servers.iter().map(|server| self.status(server))).filter(|view| view["leader"] == leader)
        })
    }

    /// `status --json` of that server; `None` where it does not answer.
    pub(crate) fn status(&self, server: &Server) -> Option<Value> {
        let ended = self.ask(server, &["status", "--json"]);
        (ended.code == Some(0)).then(|| serde_json::from_str(&ended.out).expect("status --json prints JSON"))
    }

    /// Runs a command that asks that very server.
    #[track_caller]
    pub(crate) fn ask(&self, server: &Server, args: &[&str]) -> Ended {
        let port = server.port.to_string();
        let args: Vec<&str> =
            args.iter().copied().chain(["--server-ip", "127.0.0.1", "--server-port", &port]).collect();
        self.run(&args)
    }

    /// All of a room's entries as a server has them; none of a room that there is not.
    #[track_caller]
    pub(crate) fn log_of(&self, server: &Server, room: &str) -> Vec<Value> {
        let ended = self.ask(server, &["tail", "--json", "--since", "all", "--room", room]);
        if ended.code == Some(1) && ended.err.contains("there is no room") {
            return Vec::new();
        }
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.json_lines()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.home);
    }
}

/// A server process.
#[derive(Debug)]
pub(crate) struct Server {
    /// The process.
    pub(crate) process: Process,
    /// Its session port.
    pub(crate) port: u16,
}

/// What all these servers say, where exactly they are up, and all say the same.
pub(crate) fn agreement(statuses: impl Iterator<Item = Option<Value>>) -> Option<Value> {
    let views: Vec<Value> = statuses.map(|status| status.as_ref().map(shared)).collect::<Option<_>>()?;
    let first = views.first()?;
    let agreed = first["up"].as_array()?.len() == views.len() && views.iter().all(|view| view == first);
    agreed.then(|| first.clone())
}

/// The part of a status that is the same from every server.
fn shared(status: &Value) -> Value {
    let mut up: Vec<u64> = items(status, "servers")
        .filter(|server| server["state"] == "up" || server["state"] == "probation")
        .filter_map(|server| server["id"].as_u64())
        .collect();
    up.sort_unstable();
    let mut homes: Vec<(String, u64)> = items(status, "rooms")
        .filter_map(|room| Some((room["name"].as_str()?.to_owned(), room["home"].as_u64()?)))
        .collect();
    homes.sort();
    serde_json::json!({
        "cluster": status["cluster"], "cluster_id": status["cluster_id"], "leader": status["leader"],
        "term": status["term"], "up": up, "homes": homes,
    })
}

/// The items of a list in an object.
pub(crate) fn items<'a>(object: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    object[list].as_array().into_iter().flatten()
}
