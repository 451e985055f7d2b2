//! `hobnob bench`: what a server costs, measured on this machine.
//!
//! It starts a server of its own on loopback, as a process (or is pointed at one that runs on this machine), and brings
//! members: real sessions, sealed, each with a key of its own. Deliveries are counted where they arrive. CPU time and
//! memory of the server are what the operating system accounts to it; where the machine has two processors or more, the
//! server gets one of them for itself.
//!
//! Ctrl-C and SIGTERM end it as an error does: servers are killed and their data is removed.

use hobnob_client::Fail;
use hobnob_proto::{addr::with_port, ids::RoomName, rng::Rng};

use crate::interrupt;

pub(crate) use self::args::BenchArgs;
use self::{
    args::{Common, What, seconds},
    crowd::Target,
    member::{Role, Talk},
    report::{Report, micros},
    scene::{Measured, Scene},
    server::{Cluster, Server},
};

mod args;
mod audit;
mod catchup;
mod crowd;
mod disk;
mod failover;
mod follow;
mod member;
mod posters;
mod process;
mod report;
mod says;
mod scene;
mod server;
mod socket;
mod start;
mod stored;
mod tally;
mod trio;

/// Sockets where nothing is said.
const SOCKETS_DEFAULT: usize = 1_024;
/// Files that a process has open beside its sockets.
const FILES_SPARE: u64 = 64;
/// Members of a room where nobody talks.
const COMPANY: u64 = 100;
/// How long after its servers the bench itself may hear of Ctrl-C.
const GRACE: std::time::Duration = std::time::Duration::from_millis(100);

/// Measures, and prints what it measured. Fails if that is not what must be, such as messages that were lost.
pub(crate) fn run(args: BenchArgs) -> Result<(), Fail> {
    let BenchArgs { what, common } = args;
    interrupt::watch().map_err(|why| failed(&why))?;
    // All that was started has ended by the time there is a report, or an error.
    let report = match measure(&what, &common) {
        Err(_) if interrupt::is_told_within(GRACE) => return Err(failed("interrupted")),
        report => report?,
    };
    if common.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    match report.wrong() {
        None => Ok(()),
        Some(wrong) => Err(failed(&wrong)),
    }
}

fn measure(what: &What, common: &Common) -> Result<Report, Fail> {
    let mut rng = rng()?;
    match what {
        What::Stored(args) => stored::run(args, own_servers(common)?, &mut rng),
        What::Catchup(args) => catchup::run(args, own_servers(common)?, &mut rng),
        What::Failover(args) => failover::run(args, own_servers(common)?),
        What::Start(args) => start::run(args, own_servers(common)?, &mut rng),
        _ => Stage::set(common, &mut rng)?.measure(what, &mut rng),
    }
}

/// An error once the person wants it to end.
fn interrupted() -> Result<(), Fail> {
    if interrupt::is_told() { Err(failed("interrupted")) } else { Ok(()) }
}

/// The options of a measurement that needs servers of its own.
fn own_servers(common: &Common) -> Result<&Common, Fail> {
    if common.client.server_ip.is_some() || common.server_pid.is_some() {
        let why = "this measures servers of its own: leave --server-ip and --server-pid out";
        return Err(Fail::new(Fail::USAGE, why.to_owned()));
    }
    if common.wake || common.threads.is_some() || common.sockets.is_some() {
        let why =
            "this has one thread, a socket for each client, and is woken: leave --wake, --threads and --sockets out";
        return Err(Fail::new(Fail::USAGE, why.to_owned()));
    }
    Ok(common)
}

/// A server, and where it and the bench run.
struct Stage {
    target: Target,
    pid: Option<u32>,
    /// Ours, if it is.
    server: Option<Server>,
    /// Where the bench runs; empty: anywhere.
    processors: Vec<usize>,
    threads: usize,
    sockets: usize,
    body: usize,
    /// Whether each datagram wakes the bench.
    wake: bool,
}

impl Stage {
    fn set(common: &Common, rng: &mut Rng) -> Result<Self, Fail> {
        let all = process::processors();
        let shares = all.len() > 1 && !common.no_pin;
        let processors = if shares { all[1..].to_vec() } else { Vec::new() };
        let secret = common.client.network.secret()?;
        if common.server_pid.is_some() && common.client.server_ip.is_none() {
            return Err(Fail::new(
                Fail::USAGE,
                "--server-pid is the process of the server that --server-ip names".to_owned(),
            ));
        }
        let server = match common.client.server_ip {
            Some(_) => None,
            None => Some(Server::start(&Cluster::new(rng)?, 1, &["--in-memory"])?),
        };
        let (addr, secret) = match (&server, common.client.server_ip) {
            (Some(server), _) => (server.addr, None),
            (None, Some(ip)) => {
                (with_port(ip.addr(), common.client.server_port.unwrap_or(hobnob_server::PORT_DEFAULT)), secret)
            }
            (None, None) => return Err(failed("there is no server")),
        };
        let pid = server.as_ref().map(Server::pid).or(common.server_pid);
        if let (Some(server), true) = (&server, shares) {
            process::pin(server.pid(), &all[..1]);
        }
        let files = process::raise_open_files().saturating_sub(FILES_SPARE);
        let sockets = common.sockets.map_or(SOCKETS_DEFAULT, |sockets| sockets as usize);
        Ok(Self {
            target: server::target(addr, secret, rng)?,
            pid,
            server,
            processors,
            threads: common.threads.map_or(all.len().saturating_sub(1).max(1), |threads| threads as usize),
            sockets: sockets.min(usize::try_from(files).unwrap_or(usize::MAX)),
            body: common.size as usize,
            wake: common.wake,
        })
    }

    /// How members learn that something has come: a part of what a delivery costs the server.
    fn receives(&self, what: &What) -> String {
        match (what, self.wake) {
            (What::Fanout { .. } | What::Burst { .. }, true) => "; the bench is woken".to_owned(),
            (What::Fanout { .. } | What::Burst { .. }, false) => format!("; the bench looks every {} ms", looks_ms()),
            _ => String::new(),
        }
    }

    fn measure(&self, what: &What, rng: &mut Rng) -> Result<Report, Fail> {
        let (roles, talk, setting) = match *what {
            What::Fanout { members, gap, lines } => {
                let talk = Talk::Every(std::time::Duration::from_millis(gap));
                let setting = format!("{lines} lines of {} bytes, each {gap} ms, to {members} members", self.body);
                (roles(members, members, talk, lines), None, setting)
            }
            What::Burst { rooms, members, window, seconds: span } => {
                let setting =
                    format!("{rooms} rooms of {members}, {window} lines of {} bytes under way in each", self.body);
                (roles(rooms * members, members, Talk::Window(window), u64::MAX), Some(seconds(span)), setting)
            }
            What::Idle { sessions, seconds: span } => {
                let setting = format!("{sessions} members for {span} s");
                (roles(sessions, COMPANY, Talk::Silent, 0), Some(seconds(span)), setting)
            }
            What::Stored(_) | What::Catchup(_) | What::Failover(_) | What::Start(_) => {
                return Err(failed("this is measured elsewhere"));
            }
            What::Join { members } => (roles(members, COMPANY, Talk::Silent, 0), None, format!("{members} members")),
        };
        let members = roles.len();
        let scene = Scene {
            target: self.target.clone(),
            pid: self.pid,
            roles,
            threads: self.threads,
            sockets: self.sockets.min(members),
            body: self.body,
            wake: self.wake,
            talk,
        };
        let sockets = scene.sockets;
        let measured = scene.play(&self.processors, rng)?;
        let mut report = Report::new(what.name(), &format!("{setting}, over {sockets} sockets{}", self.receives(what)));
        if let What::Fanout { .. } | What::Burst { .. } = what {
            report.note("looks_every_ms", if self.wake { serde_json::Value::Null } else { looks_ms().into() });
            report.note("is_woken", self.wake.into());
        }
        if let Some(server) = &self.server {
            let millis = micros(server.ready_after) / 1e3;
            report.measured("start until ready", Some(millis), "ms", "ready_ms");
        }
        fill(&mut report, what, &measured, members);
        Ok(report)
    }
}

/// How often members look, milliseconds.
fn looks_ms() -> u64 {
    crowd::LOOK.as_millis() as u64
}

/// Members in rooms of `company`, of which the first talks.
fn roles(count: u64, company: u64, talk: Talk, posts_max: u64) -> Vec<Role> {
    let role = |number: u64| Role {
        number: number as usize,
        room: format!("bench{}", number / company).parse::<RoomName>().expect("letters and digits are a name"),
        company: company.min(count),
        talk: if number.is_multiple_of(company) { talk } else { Talk::Silent },
        posts_max,
    };
    (0..count).map(role).collect()
}

/// Puts what was measured into words.
fn fill(report: &mut Report, what: &What, measured: &Measured, members: usize) {
    let Measured { tally, arrival, arrivals, arrival_cpu, span, cpu, rss_kib, own, lost } = measured;
    let each = |kib: Option<u64>| Some((kib? as f64 - rss_kib[0]? as f64) / members as f64);
    if tally.sent > 0 {
        for (what, key, count) in [
            ("lines said", "sent", tally.sent),
            ("deliveries expected", "expected", tally.expected),
            ("  got", "got", tally.got),
            ("  doubled", "doubled", tally.doubled),
            ("  damaged", "damaged", tally.strange),
        ] {
            report.add(what, &count.to_string(), key, count.into());
        }
        let got = tally.got as f64;
        let share = |total: f64| (tally.got > 0).then(|| total / got);
        let cpu_each = cpu.and_then(|cpu| share(micros(cpu.ran)));
        report.measured("server's CPU for a delivery", cpu_each, "us", "cpu_us_per_delivery");
        report.measured("deliveries", Some(got / span.as_secs_f64()), "/s", "deliveries_per_s");
        report.measured("  in a second of CPU", cpu_each.map(|each| 1e6 / each), "", "deliveries_per_cpu_s");
        report.measured("bytes for a delivery", share(tally.bytes as f64), "", "wire_bytes_per_delivery");
        report.measured("datagrams for a delivery", share(tally.datagrams as f64), "", "datagrams_per_delivery");
        for (name, key, per_mille) in [
            ("latency, median", "latency_p50_us", 500),
            ("  99 of 100", "latency_p99_us", 990),
            ("  999 of 1000", "latency_p999_us", 999),
        ] {
            report.measured(name, Some(tally.latency.per_mille(per_mille) as f64), "us", key);
        }
        report.measured("  longest", Some(tally.latency.max() as f64), "us", "latency_max_us");
    } else {
        report.measured("all there after", Some(arrival.as_secs_f64()), "s", "join_s");
        report.measured("members", Some(members as f64 / arrival.as_secs_f64()), "/s", "joins_per_s");
        let cpu_each = arrival_cpu.map(|cpu| micros(cpu.ran) / members as f64);
        report.measured("server's CPU for each that came", cpu_each, "us", "cpu_us_per_join");
        report.measured("a member's way in, median", Some(arrivals.per_mille(500) as f64), "us", "join_p50_us");
        report.measured("  99 of 100", Some(arrivals.per_mille(990) as f64), "us", "join_p99_us");
    }
    let kib = |kib: Option<u64>| kib.map(|kib| kib as f64);
    report.measured("memory of the server before", kib(rss_kib[0]), "KiB", "rss_before_kib");
    report.measured("  with all there", kib(rss_kib[1]), "KiB", "rss_joined_kib");
    report.measured("  in the end", kib(rss_kib[2]), "KiB", "rss_after_kib");
    report.measured("  for each member", each(rss_kib[1]), "KiB", "rss_kib_per_member");
    if let What::Idle { .. } = what {
        let busy = cpu.map(|cpu| cpu.ran.as_secs_f64() / span.as_secs_f64() * 100.0);
        report.measured("server's CPU while nobody talks", busy, "%", "idle_cpu_percent");
    }
    if *lost > 0 {
        report.warn(format!("{lost} sessions were lost"));
    }
    if !matches!(what, What::Join { .. }) {
        let waited = cpu.map(|cpu| cpu.waited.as_secs_f64() / span.as_secs_f64());
        let server = cpu.map(|cpu| cpu.busy(*span));
        report.busy(own.map(|(cpu, span)| cpu.busy(span)), server, waited);
    }
}

/// Randomness of the system.
fn rng() -> Result<Rng, Fail> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| failed(&format!("no random numbers: {error}")))?;
    Ok(Rng::from_seed(seed))
}

/// The bench could not be run.
fn failed(why: &str) -> Fail {
    Fail::new(Fail::FAILED, format!("the bench failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_room_talks() {
        let roles = roles(7, 3, Talk::Window(4), 9);
        let seen: Vec<_> = roles.iter().map(|role| (role.room.as_str(), role.talk != Talk::Silent)).collect();
        let expected = [
            ("bench0", true),
            ("bench0", false),
            ("bench0", false),
            ("bench1", true),
            ("bench1", false),
            ("bench1", false),
            ("bench2", true),
        ];
        assert_eq!(seen, expected);
    }
}
