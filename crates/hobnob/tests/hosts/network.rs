//! Machines, switches and cables: network namespaces, bridges and virtual interfaces, made and removed by the test.

use std::{
    cell::Cell,
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::common::{Place, Process, STATUS_POLL, Server, agreement, tag, wait_for};

/// What the names of all namespaces of these tests begin with; the id of the process follows.
const PREFIX: &str = "hobnob-";

/// How two switches are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    /// By a cable: one subnet.
    Cable,
    /// By a router: two subnets, and no broadcast passes.
    Router,
    /// By a machine with an interface in both, which forwards nothing by itself.
    Nothing,
}

/// What addresses the hosts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4, and of IPv6 what every interface has by itself.
    V4,
    /// No IPv4 address but that of loopback.
    V6,
    /// Nothing but what every interface has by itself: a link-local IPv6 address.
    Local,
}

/// A network of its own. Everything in it ends with it.
#[derive(Debug)]
pub(crate) struct Network {
    /// The machines, in the order in which they were plugged in. The first of them run servers.
    pub(crate) hosts: Vec<Host>,
    /// The machine between two switches.
    pub(crate) middle: Option<Namespace>,
    switch: Namespace,
    /// When servers were asked last.
    asked: Cell<Option<Instant>>,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Host {
    /// The server on it, once there is one. Ends before the machine does.
    pub(crate) server: Option<Server>,
    /// Its home directory, and how processes are started there.
    pub(crate) place: Place,
    /// Its IPv4 address; without [`Family::V4`] it has none, but the number is the same.
    pub(crate) ip: Ipv4Addr,
    /// Which machine of its switch it is.
    number: u8,
    namespace: Namespace,
}

/// A network namespace. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace(String);

impl Network {
    /// So many machines at one switch. `None`: cannot be had here, and it was said why.
    pub(crate) fn flat(hosts: usize) -> Option<Self> {
        Self::build(&[hosts], Joint::Nothing, Family::V4)
    }

    /// One switch for each number of machines in the list, joined as is said.
    pub(crate) fn build(switches: &[usize], joint: Joint, family: Family) -> Option<Self> {
        if let Err(why) = possible() {
            assert!(
                std::env::var_os("HOBNOB_REQUIRE_ALL").is_none_or(|all| all != "1"),
                "cannot be tested here: {why}"
            );
            eprintln!("skipped: {why}");
            return None;
        }
        let tag = tag();
        let switch = Namespace::new(&format!("{PREFIX}{tag}-switch"));
        let mut hosts = Vec::new();
        for (at, count) in switches.iter().enumerate() {
            switch.ip(&format!("link add br{at} type bridge\nlink set br{at} up"));
            let subnet = if joint == Joint::Cable { 1 } else { at as u8 + 1 };
            for _ in 0..*count {
                let number = hosts.len() as u8 + 1;
                let namespace = Namespace::new(&format!("{PREFIX}{tag}-{number}"));
                let place = Place::inside(&namespace.0, &format!("test-{tag}"));
                let host = Host { server: None, place, ip: [10, 77, subnet, number].into(), number, namespace };
                host.plug_in(&switch, at, family);
                if joint == Joint::Router {
                    host.namespace.ip(&format!("route add default via 10.77.{subnet}.254"));
                }
                hosts.push(host);
            }
        }
        let middle = (switches.len() > 1).then(|| join(&switch, &tag, switches.len(), joint)).flatten();
        Some(Self { hosts, middle, switch, asked: Cell::new(None) })
    }

    /// Pulls the cable of that machine (the first is 0), at the switch.
    pub(crate) fn unplug(&self, host: usize) {
        self.switch.ip(&format!("link set {} down", self.hosts[host].port()));
    }

    /// Puts it back.
    pub(crate) fn plug(&self, host: usize) {
        self.switch.ip(&format!("link set {} up", self.hosts[host].port()));
    }

    /// Its interface vanishes, as one that is pulled out of the machine.
    pub(crate) fn pull_out(&self, host: usize) {
        self.hosts[host].ip("link del eth0");
    }

    /// It is put in again: another one to the system, with the same addresses.
    pub(crate) fn put_in(&self, host: usize) {
        self.hosts[host].plug_in(&self.switch, 0, Family::V4);
    }

    /// Cuts the cable between the two switches.
    pub(crate) fn cut_in_two(&self) {
        self.switch.ip("link set trunk down");
    }

    /// Mends it.
    pub(crate) fn join_again(&self) {
        self.switch.ip("link set trunk up");
    }

    /// Starts servers 1 to `count` on the first machines, and waits until they agree that the last of them leads.
    #[track_caller]
    pub(crate) fn serve(&mut self, count: usize, args: &[&str]) {
        for (id, host) in (1..).zip(&mut self.hosts[..count]) {
            host.serve(Some(id), args);
        }
        self.wait_for_agreement(count as u64, Duration::from_secs(30));
    }

    /// Waits until all servers that run agree on everything, and on that leader. What they say.
    #[track_caller]
    pub(crate) fn wait_for_agreement(&self, leader: u64, limit: Duration) -> Value {
        wait_for(&format!("all servers agree that {leader} leads"), limit, || {
            self.agreement().filter(|view| view["leader"] == leader)
        })
    }

    /// What all servers that run say, if they say the same; `None` also where they were asked just now.
    pub(crate) fn agreement(&self) -> Option<Value> {
        self.asked_rarely(|| agreement(self.serving().map(Host::status)))
    }

    /// What is asked, unless something was just now: a process for each question keeps those waiting who talk here.
    pub(crate) fn asked_rarely<T>(&self, ask: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.asked.get().is_some_and(|asked| asked.elapsed() < STATUS_POLL) {
            return None;
        }
        let answer = ask();
        self.asked.set(Some(Instant::now()));
        answer
    }

    /// The machines on which a server runs.
    pub(crate) fn serving(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.server.is_some())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in self.serving() {
                eprintln!("--- status of {} ---\n{:?}", host.ip, host.status());
            }
        }
    }
}

impl Host {
    /// A cable from its `eth0` to that bridge of the switch.
    fn plug_in(&self, switch: &Namespace, bridge: usize, family: Family) {
        let (name, port, number) = (&self.namespace.0, self.port(), self.number);
        switch.ip(&format!(
            "link add {port} type veth peer name eth0 netns {name}\nlink set {port} master br{bridge} up"
        ));
        let address = match family {
            Family::V4 => format!("addr add {}/24 brd + dev eth0", self.ip),
            Family::V6 => format!("addr add fd77::{number}/64 dev eth0 nodad"),
            Family::Local => String::new(),
        };
        let mac = self.mac();
        self.namespace.ip(&format!("link set lo up\nlink set eth0 address {mac}\nlink set eth0 up\n{address}"));
    }

    /// Its port at the switch.
    fn port(&self) -> String {
        format!("port{}", self.number)
    }

    /// The hardware address of its `eth0`.
    fn mac(&self) -> String {
        format!("02:00:00:00:77:{:02x}", self.number)
    }

    /// Changes interfaces, addresses and routes, as `ip -batch` does.
    pub(crate) fn ip(&self, script: &str) {
        self.namespace.ip(script);
    }

    /// Nothing that anybody sends reaches it.
    pub(crate) fn deafen(&self) {
        self.drop_packets("input", "iifname eth0");
    }

    /// Nothing that it sends reaches anybody.
    pub(crate) fn silence(&self) {
        self.drop_packets("output", "oifname eth0");
    }

    /// Nothing that `other` sends reaches it.
    pub(crate) fn deafen_to(&self, other: &Self) {
        self.drop_packets("input", &format!("iifname eth0 ether saddr {}", other.mac()));
    }

    /// Drops the datagrams that match.
    fn drop_packets(&self, hook: &str, matches: &str) {
        let rule = format!("type filter hook {hook} priority 0\n{matches} meta l4proto udp drop");
        let table = format!("table inet cut {{\nchain {hook} {{\n{rule}\n}}\n}}\n");
        run(&["ip", "netns", "exec", &self.namespace.0, "nft", "-f", "-"], &table).unwrap();
    }

    /// Everything reaches everybody again.
    pub(crate) fn hear_and_be_heard(&self) {
        run(&["ip", "netns", "exec", &self.namespace.0, "nft", "flush", "ruleset"], "").unwrap();
    }

    /// A socket of somebody at that machine.
    pub(crate) fn socket(&self) -> UdpSocket {
        self.namespace.work(|| UdpSocket::bind("0.0.0.0:0").unwrap()).join().unwrap()
    }

    /// Starts a server, and does not wait for it.
    pub(crate) fn serve(&mut self, id: Option<u64>, args: &[&str]) {
        self.server = Some(self.place.start_server(id, args));
    }

    /// Starts a command, as somebody at that machine.
    pub(crate) fn start(&self, args: &[&str]) -> Process {
        self.place.start(args)
    }

    /// Its server's process.
    pub(crate) fn process(&self) -> &Process {
        &self.server.as_ref().expect("a server runs here").process
    }

    /// Kills its server.
    pub(crate) fn kill(&mut self) -> Instant {
        self.server.take().expect("a server runs here").process.kill()
    }

    /// What its server says of the cluster; it is asked from the same machine, whatever its cables.
    pub(crate) fn status(&self) -> Option<Value> {
        self.place.status(self.server.as_ref()?)
    }

    /// Whom its server followed since then, one for each term: who leads again in a higher term is there again.
    pub(crate) fn leaders_since(&self, since: Instant) -> Vec<u64> {
        let said = self.process().log(since, "leader").into_iter();
        let mut epochs: Vec<(u64, u64)> =
            said.filter_map(|(_, said)| Some((said["term"].as_u64()?, said["leader"].as_u64()?))).collect();
        epochs.dedup();
        epochs.into_iter().map(|(_, leader)| leader).collect()
    }
}

/// Joins the switches; the machine between them, where there is one.
fn join(switch: &Namespace, tag: &str, switches: usize, joint: Joint) -> Option<Namespace> {
    if joint == Joint::Cable {
        assert_eq!(switches, 2, "a cable has two ends");
        switch
            .ip("link add trunk type veth peer name other\nlink set trunk master br0 up\nlink set other master br1 up");
        return None;
    }
    let middle = Namespace::new(&format!("{PREFIX}{tag}-middle"));
    middle.ip("link set lo up");
    for at in 0..switches {
        let subnet = at + 1;
        switch.ip(&format!(
            "link add middle{at} type veth peer name eth{at} netns {}\nlink set middle{at} master br{at} up",
            middle.0
        ));
        middle.ip(&format!("addr add 10.77.{subnet}.254/24 brd + dev eth{at}\nlink set eth{at} up"));
    }
    if joint == Joint::Router {
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run(&["ip", "netns", "exec", &middle.0, "sh", "-c", forward], "").unwrap();
    }
    Some(middle)
}

impl Namespace {
    /// A new one.
    fn new(name: &str) -> Self {
        // Two at a time disturb each other where `ip` prepares the directory that holds them.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        run(&["ip", "netns", "add", name], "").unwrap();
        Self(name.to_owned())
    }

    /// Does that in it, on a thread of its own.
    pub(crate) fn work<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            what()
        })
    }

    /// Runs lines of `ip -batch` in it.
    fn ip(&self, script: &str) {
        run(&["ip", "-n", &self.0, "-batch", "-"], script).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone_already = run(&["ip", "netns", "del", &self.0], "");
    }
}

/// Whether namespaces, bridges and rules can be made here; why not.
pub(crate) fn possible() -> &'static Result<(), String> {
    static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
    POSSIBLE.get_or_init(|| {
        remove_leftovers();
        let probe = format!("{PREFIX}{}-probe", std::process::id());
        run(&["ip", "netns", "add", &probe], "")?;
        let probe = Namespace(probe);
        run(&["ip", "-n", &probe.0, "link", "add", "br0", "type", "bridge"], "")?;
        run(&["ip", "-n", &probe.0, "link", "add", "one", "type", "veth", "peer", "name", "two"], "")?;
        run(&["ip", "netns", "exec", &probe.0, "nft", "list", "ruleset"], "").map(drop)
    })
}

/// Removes the namespaces of tests that were killed and could not do so, and what still runs in them.
fn remove_leftovers() {
    let list = run(&["ip", "netns", "list"], "").unwrap_or_default();
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let is_alive = |owner: u32| std::path::Path::new(&format!("/proc/{owner}")).exists();
        if owner.is_some_and(|owner| !is_alive(owner)) {
            for id in run(&["ip", "netns", "pids", name], "").unwrap_or_default().lines() {
                let _ended_already = run(&["kill", "-s", "KILL", id], "");
            }
            let _gone_already = run(&["ip", "netns", "del", name], "");
        }
    }
}

/// Runs a command to its end with that input. What it printed; else what it complains of.
fn run(command: &[&str], input: &str) -> Result<String, String> {
    let fail = |why: &str| format!("`{}` failed: {}", command.join(" "), why.trim());
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(&error.to_string()))?;
    let written = child.stdin.take().expect("it is a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| fail(&error.to_string()))?;
    if output.status.success() && written.is_ok() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(fail(&String::from_utf8_lossy(&output.stderr)))
    }
}
