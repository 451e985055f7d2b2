//! The server that is measured: one of our own, or one that runs already.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use hobnob_proto::{
    discovery::packet::{self, Nonce, Packet},
    ids::ClusterName,
    rng::Rng,
    session::keys::Secret,
};

use crate::bench::{crowd::Target, failed};

/// How long a server may take to start, and to answer.
const START_MAX: Duration = Duration::from_secs(10);
/// How long it may take to end, and how often it is told to.
const STOP_MAX: Duration = Duration::from_secs(10);
const STOP_LOOK: Duration = Duration::from_millis(100);
/// How often it is asked who it is.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// A server of ours. Killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// Where it takes sessions.
    pub(super) addr: SocketAddr,
    /// How long it took from its start until it served.
    pub(super) ready_after: Duration,
}

/// What servers of one cluster have in common.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) name: ClusterName,
    pub(super) discovery_port: u16,
}

impl Cluster {
    /// One that nobody else is in.
    pub(super) fn new(rng: &mut Rng) -> Result<Self, Fail> {
        let name = format!("bench-{:016x}", rng.u64()).parse().map_err(|_| failed("a cluster cannot be named"))?;
        Ok(Self { name, discovery_port: free_port()? })
    }
}

impl Server {
    /// Starts one on loopback, and waits until it serves.
    pub(super) fn start(cluster: &Cluster, id: u32, more: &[&str]) -> Result<Self, Fail> {
        let program = std::env::current_exe().map_err(|error| failed(&format!("where this program is: {error}")))?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HOBNOB_") {
                command.env_remove(variable);
            }
        }
        let port = free_port()?;
        let started = Instant::now();
        let child = command
            .args(["server", "--interface", "lo", "--log", "json", "--id", &id.to_string()])
            .args(["--port", &port.to_string(), "--cluster", cluster.name.as_str()])
            .args(["--discovery-port", &cluster.discovery_port.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format!("a server cannot be started: {error}")))?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Self { child, addr, ready_after: Duration::ZERO };
        server.await_ready()?;
        server.ready_after = started.elapsed();
        Ok(server)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it close its log and end: asked twice, it leaves at once. Waits for that, though not for long.
    #[cfg(unix)]
    pub(super) fn stop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        let end = Instant::now() + STOP_MAX;
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            let _ended_already = kill_process(Pid::from_child(&self.child), Signal::TERM);
            thread::sleep(STOP_LOOK);
        }
    }

    #[cfg(not(unix))]
    pub(super) fn stop(&mut self) {
        let _ended_already = self.child.kill();
    }

    /// Ends it without a word, as a power cut would.
    pub(super) fn kill(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }

    /// Waits for the line that says so. What else it says is read and forgotten, so that it never waits for us.
    fn await_ready(&mut self) -> Result<(), Fail> {
        let errors = self.child.stderr.take().ok_or_else(|| failed("a server's words cannot be read"))?;
        let (ready, waits) = mpsc::channel();
        let listen = move || {
            let mut last = String::new();
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if line.contains("serving") {
                    let _nobody_waits = ready.send(Ok(()));
                }
                last = line;
            }
            let _nobody_waits = ready.send(Err(last));
        };
        thread::Builder::new()
            .name("listen".into())
            .spawn(listen)
            .map_err(|error| failed(&format!("a thread cannot be started: {error}")))?;
        match waits.recv_timeout(START_MAX) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(last)) => Err(failed(&format!("a server ended: {last}"))),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(failed("a server did not start")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        self.kill();
    }
}

/// Asks a server for its cluster's key, as a client does.
pub(super) fn target(addr: SocketAddr, secret: Option<Secret>, rng: &mut Rng) -> Result<Target, Fail> {
    let broken = |error: std::io::Error| failed(&format!("the server cannot be asked: {error}"));
    let any: SocketAddr = if addr.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(any).map_err(broken)?;
    socket.set_read_timeout(Some(ASK_AGAIN)).map_err(broken)?;
    let nonce = Nonce::random(rng);
    let end = Instant::now() + START_MAX;
    let mut buffer = [0; 2_048];
    while Instant::now() < end {
        socket.send_to(&packet::find(None, nonce), addr).map_err(broken)?;
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if let Ok(Packet::Here { facts, nonce: answered }) = packet::parse(&buffer[..len])
                && (from, answered) == (addr, nonce)
            {
                return Ok(Target { addr, key: facts.key, suite: facts.suite, secret });
            }
        }
    }
    Err(Fail::new(Fail::NOT_FOUND, format!("no server answers at {addr}")))
}

/// A port that nobody has at the moment.
fn free_port() -> Result<u16, Fail> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
    socket.map(|addr| addr.port()).map_err(|error| failed(&format!("no port is free: {error}")))
}
