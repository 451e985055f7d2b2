//! `hobnob server`: a server in the foreground.

use std::{io::IsTerminal as _, net::SocketAddr, time::Duration};

use hobnob_client::Fail;
use hobnob_proto::{
    ids::{ClusterName, ServerId},
    node::Stop,
};
use hobnob_server::{
    Exit, Options, Ready,
    control::{self, Handle},
    store::{Keep, Retention},
};

use crate::cli::{LogFormat, ServerArgs};

/// Serves until it is told to stop.
pub(crate) async fn run(args: ServerArgs) -> Result<(), Fail> {
    start_log(args.log);
    let options = options(&args)?;
    let (cluster, open) = (options.cluster.clone(), options.secret.is_none());
    let (control, handle) = control::pair();
    #[cfg(unix)]
    tokio::spawn(obey_signals(handle.clone()));
    tokio::spawn(introduce(handle, cluster, open, args.log));
    end(hobnob_server::run(options, control).await)
}

/// The server's options.
fn options(args: &ServerArgs) -> Result<Options, Fail> {
    Ok(Options {
        id: args.id.map(ServerId),
        port: args.port,
        secret: args.network.secret()?,
        replicas: args.replicas,
        interfaces: args.network.interfaces.clone(),
        discovery_port: args.network.discovery_port,
        peers: args.peers.iter().map(crate::cli::HostPort::look_up).collect::<Result<Vec<SocketAddr>, Fail>>()?,
        keep: match &args.data_dir {
            _ if args.in_memory => Keep::Memory,
            Some(directory) => Keep::In(directory.clone()),
            None => Keep::Latest,
        },
        retention: Retention {
            span: args.keep_days.map(|days| Duration::from_hours(24 * u64::from(days))),
            bytes: args.keep_bytes,
        },
        ..Options::new(args.network.cluster.clone())
    })
}

/// The log goes to standard error.
fn start_log(format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing::Level::INFO);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Signals become orders; where the system refuses that, they end the process as usual.
#[cfg(unix)]
async fn obey_signals(handle: Handle) {
    if let Err(error) = hobnob_server::signals::obey(handle).await {
        tracing::warn!(%error, "signals cannot be heard: the server will not hand over when it is stopped");
    }
}

/// Says who this is, once it serves.
async fn introduce(mut handle: Handle, cluster: ClusterName, open: bool, format: LogFormat) {
    let Some(ready) = handle.ready().await else { return };
    match format {
        LogFormat::Text => eprintln!("{}", introduction(&ready, &cluster, open)),
        LogFormat::Json => {
            let addr = ready.addr().map(|addr| addr.to_string());
            tracing::info!(server = ready.me.id.0, %cluster, addr, open, "serving");
        }
    }
}

/// The one line for people.
fn introduction(ready: &Ready, cluster: &ClusterName, open: bool) -> String {
    format!("Server {} of cluster {cluster} {}. {}", ready.me.id, at(ready), trust(open))
}

/// Where a server is, for people.
pub(crate) fn at(ready: &Ready) -> String {
    ready.addr().map_or_else(|| "without an address yet".to_owned(), |addr| format!("at {addr}"))
}

/// What a cluster's openness means.
pub(crate) fn trust(open: bool) -> &'static str {
    if open {
        "Open cluster: anyone on this network can read and post."
    } else {
        "Closed cluster: only who has its secret can read and post."
    }
}

/// What the end of a server means for the process.
pub(crate) fn end(result: Result<Exit, hobnob_server::Error>) -> Result<(), Fail> {
    match result {
        Ok(Exit::Stopped(Stop::Left | Stop::LeftUnfinished | Stop::LeftAlone { .. } | Stop::Retired)) => Ok(()),
        Ok(Exit::Stopped(Stop::IdTaken { by })) => {
            let message = format!(
                "this id is in use by the server at {by}: choose another with --id, or leave --id out and take the \
                 lowest that is free"
            );
            Err(Fail::new(Fail::FAILED, message))
        }
        Ok(Exit::AtOnce) => Err(Fail::new(Fail::FAILED, "stopped at once: nothing was handed over")),
        Err(error @ hobnob_server::Error::UnknownInterface { .. }) => Err(Fail::new(Fail::USAGE, error.to_string())),
        Err(error) => Err(Fail::new(Fail::FAILED, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::ids::{Boot, ClusterId, Origin};

    use super::*;

    #[test]
    fn a_server_says_who_may_read() {
        let ready = Ready {
            me: Origin { id: ServerId(3), boot: Boot(1) },
            cluster: ClusterId(7),
            founded: true,
            addrs: vec!["192.0.2.2:5001".parse().unwrap(), "127.0.0.1:5001".parse().unwrap()],
        };
        let name: ClusterName = "ship".parse().unwrap();
        assert_eq!(
            introduction(&ready, &name, true),
            "Server 3 of cluster ship at 192.0.2.2:5001. Open cluster: anyone on this network can read and post."
        );
        let waiting = Ready { addrs: Vec::new(), ..ready.clone() };
        assert!(introduction(&waiting, &name, true).starts_with("Server 3 of cluster ship without an address yet. "));
        assert!(introduction(&ready, &name, false).ends_with("only who has its secret can read and post."));
    }

    #[test]
    fn the_end_of_a_server_has_an_exit_code() {
        fn check(exit: &Exit, expected: Result<(), u8>) {
            assert_eq!(end(Ok(exit.clone())).map_err(|fail| fail.code), expected, "{exit:?}");
        }
        check(&Exit::Stopped(Stop::Left), Ok(()));
        check(&Exit::Stopped(Stop::LeftUnfinished), Ok(()));
        check(&Exit::Stopped(Stop::LeftAlone { messages: true }), Ok(()));
        check(&Exit::Stopped(Stop::Retired), Ok(()));
        check(&Exit::Stopped(Stop::IdTaken { by: "192.0.2.2:5001".parse().unwrap() }), Err(Fail::FAILED));
        check(&Exit::AtOnce, Err(Fail::FAILED));
    }
}
