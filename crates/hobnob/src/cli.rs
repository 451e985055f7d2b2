//! The arguments of every command. Each option also comes from the environment, as `HOBNOB_` and its name.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use clap::{Args, Parser, Subcommand, ValueEnum};
use hobnob_client::{Fail, Since};
use hobnob_proto::{
    addr::with_port,
    ids::{ClusterId, ClusterName, PersonName, RoomName},
    limits,
    session::keys::Secret,
};

use crate::secret;

/// What people see of the exit codes.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no cluster found, 4 not trusted or not \
                          allowed, 5 accepted but not stored in time.";

/// Chat that needs nothing but a local network
///
/// Without a command: finds a cluster and joins it, or starts one; then chats. While the cluster has fewer than three
/// servers, this process serves too, so that two machines are two servers.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Options of the bare command.
    #[command(flatten)]
    pub(crate) bare: BareArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server
    Server(ServerArgs),
    /// Chat, and never serve
    Client(ChatArgs),
    /// Post one message, or each line of standard input; waits up to 10 s for it to be stored
    Send(SendArgs),
    /// Print messages of a room
    Tail(TailArgs),
    /// Print the state of the cluster
    Status(ShowArgs),
    /// Print the rooms
    Rooms(ShowArgs),
    /// Print who is here, and which server each is served by
    Who(WhoArgs),
    /// Print the clusters that can be heard
    Clusters(ShowArgs),
    /// Write everything that was said, as a file that `import` reads
    Export(ExportArgs),
    /// Merge what `export` has written into the cluster
    Import(ImportArgs),
    /// Remove a server from the cluster for good
    Retire(RetireArgs),
    /// Bring this machine's server, with all that it holds, into another cluster
    Join(JoinArgs),
    /// Look whether what a server has kept is sound, while it does not run
    Check(CheckArgs),
    /// Print a new secret for a closed cluster
    Secret,
    /// Measure what a server costs on this machine
    Bench(crate::bench::BenchArgs),
    /// Show it: three servers and four people on this machine, a leader that dies, and a chat that goes on
    Demo,
}

/// Which cluster, and how to reach it.
#[derive(Args, Clone, Debug)]
pub(crate) struct NetworkArgs {
    /// The cluster's name
    #[arg(long, env = "HOBNOB_CLUSTER", value_name = "NAME", default_value = "hobnob")]
    pub(crate) cluster: ClusterName,
    /// A file with the secret of a closed cluster, as `hobnob secret` prints it; else from `HOBNOB_SECRET`
    #[arg(long, env = "HOBNOB_SECRET_FILE", value_name = "FILE")]
    pub(crate) secret_file: Option<std::path::PathBuf>,
    /// Look for servers and be found on this network interface alone; may be repeated (in the environment: with commas).
    /// Else on all but those of containers and VPNs. A server takes sessions on every interface, unless only `lo` is named
    #[arg(long = "interface", env = "HOBNOB_INTERFACE", value_name = "IF", value_delimiter = ',')]
    pub(crate) interfaces: Vec<String>,
    /// The port at which servers are found, the same on all machines
    #[arg(
        long,
        env = "HOBNOB_DISCOVERY_PORT",
        value_name = "PORT",
        default_value_t = hobnob_server::DISCOVERY_PORT_DEFAULT,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) discovery_port: u16,
}

impl NetworkArgs {
    /// The secret, from the file or the environment.
    pub(crate) fn secret(&self) -> Result<Option<Secret>, Fail> {
        secret::read(self.secret_file.as_deref())
    }
}

/// What every client command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Ask the server at this address instead of looking for one
    #[arg(long, alias = "server_ip", env = "HOBNOB_SERVER_IP", value_name = "IP", value_parser = server_ip)]
    pub(crate) server_ip: Option<ServerIp>,
    /// The port of that server; else 5001
    #[arg(
        long,
        alias = "server_port",
        env = "HOBNOB_SERVER_PORT",
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) server_port: Option<u16>,
}

impl ClientArgs {
    /// The client's options.
    pub(crate) fn options(
        &self,
        name: Option<PersonName>,
        room: Option<RoomName>,
    ) -> Result<hobnob_client::Options, Fail> {
        if let (None, Some(port)) = (self.server_ip, self.server_port) {
            let why = format!(
                "a server port was given ({port}, by --server-port or HOBNOB_SERVER_PORT), but no server: name its \
                 address with --server-ip, or leave the port out"
            );
            return Err(Fail::new(Fail::USAGE, why));
        }
        let port = self.server_port.unwrap_or(hobnob_server::PORT_DEFAULT);
        Ok(hobnob_client::Options {
            cluster: self.network.cluster.clone(),
            secret: self.network.secret()?,
            interfaces: self.network.interfaces.clone(),
            discovery_port: self.network.discovery_port,
            servers: self.server_ip.map(|ip| with_port(ip.0, port)).into_iter().collect(),
            name,
            room,
        })
    }
}

/// Options of a chat.
#[derive(Args, Debug)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The name to be shown under
    #[arg(long, env = "HOBNOB_NAME")]
    pub(crate) name: Option<PersonName>,
    /// The room to be in
    #[arg(long, env = "HOBNOB_ROOM")]
    pub(crate) room: Option<RoomName>,
    /// Read lines and print messages plainly, as without a terminal
    #[arg(long, env = "HOBNOB_PLAIN", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) plain: bool,
}

/// Options of the bare command.
#[derive(Args, Debug)]
pub(crate) struct BareArgs {
    #[command(flatten)]
    pub(crate) chat: ChatArgs,
    /// Keep messages in memory and write no file, where this process serves
    #[arg(long, env = "HOBNOB_IN_MEMORY", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) in_memory: bool,
    /// Never serve: only chat
    #[arg(long, env = "HOBNOB_NO_SERVE", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) no_serve: bool,
}

/// How a server's log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// One JSON object a line
    Json,
}

/// Options of a server.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The server's id, of which the highest leads; else the lowest that is free
    #[arg(long, env = "HOBNOB_ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) id: Option<u32>,
    /// The UDP port for sessions (0: any); else 5001, or the next that is free
    #[arg(long, env = "HOBNOB_PORT")]
    pub(crate) port: Option<u16>,
    /// The directory to keep messages in; else the one under `$XDG_STATE_HOME/hobnob/servers` (or `~/.local/state`) that a server
    /// of this cluster's name, and of this id, used last and that is free
    #[arg(long, env = "HOBNOB_DATA_DIR", value_name = "D", conflicts_with = "in_memory")]
    pub(crate) data_dir: Option<std::path::PathBuf>,
    /// Keep messages in memory and write no file: what this server has to itself is gone when it ends
    #[arg(long, env = "HOBNOB_IN_MEMORY", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) in_memory: bool,
    /// Forget messages that this server has kept for so many days of its own running time; else they are kept for ever
    #[arg(long, env = "HOBNOB_KEEP_DAYS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_days: Option<u32>,
    /// Forget the oldest messages where the log on disk gets larger than so many bytes (or 500k, 20M, 4G)
    #[arg(long, env = "HOBNOB_KEEP_BYTES", value_name = "N", value_parser = bytes)]
    pub(crate) keep_bytes: Option<u64>,
    /// On how many servers a message is to be before it counts as stored
    #[arg(
        long,
        env = "HOBNOB_REPLICAS",
        value_name = "R",
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=limits::SERVERS_MAX as i64)
    )]
    pub(crate) replicas: u32,
    /// A server that no broadcast reaches; may be repeated (in the environment: with commas)
    #[arg(
        long = "peer",
        env = "HOBNOB_PEER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = host_port
    )]
    pub(crate) peers: Vec<HostPort>,
    /// How the log on standard error is written
    #[arg(long, env = "HOBNOB_LOG", value_enum, default_value = "text")]
    pub(crate) log: LogFormat,
}

/// Options of `send`.
#[derive(Args, Debug)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The room to post in
    #[arg(long, env = "HOBNOB_ROOM")]
    pub(crate) room: RoomName,
    /// The name to be shown under
    #[arg(long, env = "HOBNOB_NAME")]
    pub(crate) name: Option<PersonName>,
    /// One JSON object for each step of each message
    #[arg(long, env = "HOBNOB_JSON", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) json: bool,
    /// The message, its words with a space between them; without it each line of standard input is one
    pub(crate) text: Vec<String>,
}

/// Options of `tail`.
#[derive(Args, Debug)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The room to print
    #[arg(long, env = "HOBNOB_ROOM")]
    pub(crate) room: RoomName,
    /// One JSON object a line
    #[arg(long, env = "HOBNOB_JSON", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) json: bool,
    /// From when on: `all`, a span like 10m, 2h or 1d, or a time like 2026-11-22T10:00:00Z; else the last 50
    #[arg(long, env = "HOBNOB_SINCE", value_name = "TIME")]
    pub(crate) since: Option<Since>,
    /// Go on with what is new
    #[arg(long, env = "HOBNOB_FOLLOW", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) follow: bool,
    /// End after so many messages
    #[arg(long, env = "HOBNOB_COUNT", value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Options of what only prints.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// JSON instead of text
    #[arg(long, env = "HOBNOB_JSON", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) json: bool,
}

/// Options of `who`.
#[derive(Args, Debug)]
pub(crate) struct WhoArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Only those in this room
    #[arg(long, env = "HOBNOB_ROOM")]
    pub(crate) room: Option<RoomName>,
    /// JSON instead of text
    #[arg(long, env = "HOBNOB_JSON", action = clap::ArgAction::SetTrue, value_parser = yes_or_no())]
    pub(crate) json: bool,
}

/// Options of `export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Only this room; else all, which only somebody on the machine of a server may have, or who has the cluster's secret
    #[arg(long, env = "HOBNOB_ROOM")]
    pub(crate) room: Option<RoomName>,
    /// Only from then on: a span like 10m, 2h or 1d, or a time like 2026-11-22T10:00:00Z; else everything
    #[arg(long, env = "HOBNOB_SINCE", value_name = "TIME")]
    pub(crate) since: Option<Since>,
}

/// Options of `import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The file that `hobnob export` has written; else it is read from standard input
    pub(crate) file: Option<std::path::PathBuf>,
}

/// Options of `retire`.
#[derive(Args, Debug)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Which server; else the one on this machine
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) id: Option<u32>,
}

/// Options of `join`.
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The id of that cluster, as `hobnob clusters` lists it
    #[arg(value_name = "CLUSTER_ID", value_parser = cluster_id)]
    pub(crate) id: ClusterId,
}

/// Options of `check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The directory, with a log.db in it
    #[arg(long, env = "HOBNOB_DATA_DIR", value_name = "D")]
    pub(crate) data_dir: std::path::PathBuf,
}

/// Reads a number of bytes, at least as many as an empty log has.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes >= 200_000)
        .ok_or_else(|| "this is not a number of bytes, at least 200k: 20M, 4G".into())
}

/// Reads the id of a cluster.
fn cluster_id(text: &str) -> Result<ClusterId, String> {
    text.parse()
        .map_err(|_| "this is not the id of a cluster, 32 hexadecimal digits: `hobnob clusters` lists them".into())
}

/// An address without a port; of an IPv6 link-local one with its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerIp(SocketAddr);

impl ServerIp {
    /// The address, with port 0.
    pub(crate) fn addr(self) -> SocketAddr {
        self.0
    }
}

/// Reads an address: `192.0.2.7`, `2001:db8::7`, `fe80::7%eth0`.
fn server_ip(text: &str) -> Result<ServerIp, String> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let why = "this is not an IP address, as 192.0.2.7, 2001:db8::7 or fe80::7%eth0";
    let (ip, interface) = text.split_once('%').map_or((text, None), |(ip, interface)| (ip, Some(interface)));
    let ip: IpAddr = ip.parse().map_err(|_| why.to_owned())?;
    match interface {
        // The system knows the numbers of its interfaces.
        Some(_) => {
            let found = (text, 0).to_socket_addrs().ok().and_then(|mut found| found.next());
            found.map(ServerIp).ok_or_else(|| format!("{why}: there is no such interface"))
        }
        None if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) => {
            Err(format!("{ip} may be on any link: name the interface too, as in {ip}%eth0"))
        }
        None => Ok(ServerIp((ip, 0).into())),
    }
}

/// A switch from the environment: `0`, `no`, `false`, `off` and nothing are no, all else is yes.
fn yes_or_no() -> clap::builder::FalseyValueParser {
    clap::builder::FalseyValueParser::new()
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort(String);

/// Reads `HOST:PORT` or `[IPV6]:PORT`; the host is looked up later.
fn host_port(text: &str) -> Result<HostPort, String> {
    let is_host =
        |host: &str| !host.is_empty() && (host.starts_with('[') && host.ends_with(']') || !host.contains(':'));
    let port = text.rsplit_once(':').filter(|(host, _)| is_host(host)).and_then(|(_, port)| port.parse().ok());
    match port {
        Some(1_u16..) => Ok(HostPort(text.to_owned())),
        _ => Err("this is not HOST:PORT: name the machine and the session port of its server, as in ship:5001 or \
                  [2001:db8::7]:5001"
            .into()),
    }
}

impl HostPort {
    /// Its first IPv4 address; its first IPv6 address where it has none. Asks the system's resolver, which may take a while.
    pub(crate) fn look_up(&self) -> Result<SocketAddr, Fail> {
        let (host, port) = self.0.rsplit_once(':').expect("it was read as a host and a port");
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port: u16 = port.parse().expect("it was read as a port");
        let found: Vec<SocketAddr> =
            (host, port).to_socket_addrs().map_err(|error| self.unknown(&error.to_string()))?.collect();
        let v4 = found.iter().find(|addr| addr.is_ipv4());
        v4.or(found.first()).copied().ok_or_else(|| self.unknown("it has no address"))
    }

    /// Why it cannot be used.
    fn unknown(&self, why: &str) -> Fail {
        Fail::new(Fail::FAILED, format!("the peer {} cannot be looked up ({why}): give its IP address", self.0))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_says_what_to_do() {
        fn check(args: &[&str], expected: &str) {
            let error = Cli::try_parse_from(std::iter::once(&"hobnob").chain(args)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{args:?}");
            assert!(error.to_string().contains(expected), "{args:?}: {error}");
        }
        check(&["send", "--room", "", "x"], "it is empty: type at least one character");
        check(&["send", "x"], "--room <ROOM>");
        check(&["client", "--name", &"n".repeat(40)], "it is too long: use at most 32 characters");
        check(&["server", "--id", "0"], "0 is not in 1..");
        check(&["server", "--replicas", "17"], "17 is not in 1..=16");
        check(&["server", "--data-dir", "d", "--in-memory"], "cannot be used with");
        check(&["server", "--keep-days", "0"], "0 is not in 1..");
        check(&["server", "--keep-bytes", "4T"], "this is not a number of bytes");
        check(&["server", "--keep-bytes", "100k"], "at least 200k");
        check(&["check"], "--data-dir <D>");
        check(&["server", "--peer", "ship"], "this is not HOST:PORT");
        check(&["server", "--peer", "ship:0"], "this is not HOST:PORT");
        check(&["server", "--peer", "2001:db8::7:5001"], "this is not HOST:PORT");
        check(&["join", "hobnob"], "this is not the id of a cluster");
        check(&["status", "--server-ip", "fe80::1"], "name the interface too, as in fe80::1%eth0");
        check(&["status", "--server-ip", "fe80::1%nowhere9"], "there is no such interface");
        check(&["tail", "--room", "tea", "--since", "yesterday"], "this is not a time");
        check(&["dance"], "dance");
    }

    #[test]
    fn both_spellings_of_a_servers_address_are_understood() {
        for args in [["--server-ip", "--server-port"], ["--server_ip", "--server_port"]] {
            let cli = Cli::try_parse_from(["hobnob", "client", args[0], "100.64.156.17", args[1], "5002"]).unwrap();
            let Some(Command::Client(chat)) = cli.command else { panic!("it is a client") };
            let options = chat.client.options(None, None).unwrap();
            assert_eq!(options.servers, ["100.64.156.17:5002".parse().unwrap()]);
        }
    }

    #[test]
    fn a_server_and_a_peer_may_have_ipv6_addresses() {
        fn check(server_ip: &str, expected: &str) {
            let cli = Cli::try_parse_from(["hobnob", "client", "--server-ip", server_ip]).unwrap();
            let Some(Command::Client(chat)) = cli.command else { panic!("it is a client") };
            assert_eq!(chat.client.options(None, None).unwrap().servers, [expected.parse().unwrap()]);
            let peer = HostPort(expected.to_owned()).look_up().unwrap();
            assert_eq!((host_port(expected).is_ok(), peer), (true, expected.parse().unwrap()));
        }
        check("192.0.2.7", "192.0.2.7:5001");
        check("2001:db8::7", "[2001:db8::7]:5001");
        check("[::1]", "[::1]:5001");
        check("fe80::7%1", "[fe80::7%1]:5001");
    }

    #[test]
    fn a_servers_port_needs_its_address() {
        let cli = Cli::try_parse_from(["hobnob", "client", "--server-port", "5002"]).unwrap();
        let Some(Command::Client(chat)) = cli.command else { panic!("it is a client") };
        let fail = chat.client.options(None, None).unwrap_err();
        assert_eq!(fail.code, Fail::USAGE);
        assert!(fail.message.contains("name its address with --server-ip"), "{}", fail.message);
    }

    #[test]
    fn help_is_no_error() {
        let help = Cli::try_parse_from(["hobnob", "server", "--help"]).unwrap_err();
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    }
}
