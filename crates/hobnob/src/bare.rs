//! Bare `hobnob`: finds a cluster or starts one, serves beside the chat while there are few servers, and hands over at
//! the end. And `hobnob client`, which is the chat alone.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use hobnob_client::{Fail, Notices, Options};
use hobnob_proto::{ids::ClusterName, node::Stop};
use hobnob_server::{
    Exit, Ready,
    background::{self, Running},
};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    cli::{BareArgs, ChatArgs},
    find::{self, Around},
    serve::{self, trust},
};

/// How long it listens for a cluster before it starts one.
const LOOK_FOR: Duration = Duration::from_millis(400);
/// A cluster of so many servers needs no more.
const SERVERS_WANTED: usize = 3;

/// `hobnob client`.
pub(crate) async fn client(args: ChatArgs) -> Result<(), Fail> {
    let options = args.client.options(args.name, args.room)?;
    if is_terminal(args.plain) {
        hobnob_client::chat(options, None).await
    } else {
        hobnob_client::plain(options, None).await
    }
}

/// `hobnob`.
pub(crate) async fn run(args: BareArgs) -> Result<(), Fail> {
    let chat = args.chat;
    let options = chat.client.options(chat.name, chat.room)?;
    let terminal = is_terminal(chat.plain);
    let (notice, notices) = unbounded_channel();
    let say = |line: String| {
        let _nobody_listens = notice.send(line);
    };
    let server =
        if options.servers.is_empty() { serve_beside(&options, args.no_serve, terminal, say).await? } else { None };
    let result = talk(options, terminal, notices).await;
    match server {
        Some(server) => {
            let left = leave(server).await;
            result.and(left)
        }
        None => result,
    }
}

/// Chats until the person, or the input, ends.
async fn talk(options: Options, terminal: bool, notices: Notices) -> Result<(), Fail> {
    if terminal {
        hobnob_client::chat(options, Some(notices)).await
    } else {
        hobnob_client::plain(options, Some(notices)).await
    }
}

/// Whether there is somebody at a terminal, who has not asked for plain lines.
fn is_terminal(plain: bool) -> bool {
    !plain && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Looks around, starts a server where one is needed, and says what it found and did.
async fn serve_beside(
    options: &Options,
    no_serve: bool,
    terminal: bool,
    say: impl Fn(String),
) -> Result<Option<Running>, Fail> {
    let around = find::look(options, LOOK_FOR).await?;
    if no_serve || !needs_another(around) {
        say(found(around, &options.cluster));
        return Ok(None);
    }
    let server = hobnob_server::Options {
        secret: options.secret.clone(),
        interfaces: options.interfaces.clone(),
        discovery_port: options.discovery_port,
        ..hobnob_server::Options::new(options.cluster.clone())
    };
    match background::spawn(server).await {
        Ok(Ok((running, ready))) => {
            // A terminal is told of memory with its first message.
            let memory = if terminal || around != Around::Nobody { "" } else { " Messages are kept in memory only." };
            say(serving(around, &options.cluster, &ready, options.secret.is_none()) + memory);
            Ok(Some(running))
        }
        Ok(Err(exit)) => without_server(around, &options.cluster, serve::end(Ok(exit)), say),
        Err(error) => without_server(around, &options.cluster, serve::end(Err(error)), say),
    }
}

/// A server could not be started: no harm where the cluster has others.
fn without_server(
    around: Around,
    cluster: &ClusterName,
    why: Result<(), Fail>,
    say: impl Fn(String),
) -> Result<Option<Running>, Fail> {
    match (around, why) {
        (Around::Nobody, Err(fail)) => Err(fail),
        (Around::Nobody, Ok(())) => Err(Fail::new(Fail::FAILED, "the server stopped at once: start again")),
        (Around::Cluster { .. }, why) => {
            let because = why.err().map(|fail| format!(" ({})", fail.message)).unwrap_or_default();
            say(format!("{} This machine does not serve{because}.", found(around, cluster)));
            Ok(None)
        }
    }
}

/// Whether this process is to serve. Not beside a cluster that does not trust us: the chat is to say so, instead of
/// going on in a new cluster where nobody is.
fn needs_another(around: Around) -> bool {
    match around {
        Around::Nobody => true,
        Around::Cluster { servers, fits } => fits && servers < SERVERS_WANTED,
    }
}

/// What was found.
fn found(around: Around, cluster: &ClusterName) -> String {
    match around {
        Around::Nobody => format!("No cluster {cluster} found yet."),
        Around::Cluster { servers: 1, .. } => format!("Found cluster {cluster}, 1 server."),
        Around::Cluster { servers, .. } => format!("Found cluster {cluster}, {servers} servers."),
    }
}

/// What was found, and that we serve.
fn serving(around: Around, cluster: &ClusterName, ready: &Ready, open: bool) -> String {
    let (id, at) = (ready.me.id, crate::serve::at(ready));
    // The chat says so of an open one.
    let trust = if open { String::new() } else { format!(" {}", trust(open)) };
    match around {
        Around::Nobody => format!("No cluster found: started one, {cluster}, as server {id} {at}.{trust}"),
        Around::Cluster { .. } => {
            format!("{} This machine serves too, as server {id} {at}.{trust}", found(around, cluster))
        }
    }
}

/// Hands everything over. A signal meanwhile ends it at once.
async fn leave(server: Running) -> Result<(), Fail> {
    let exit = tokio::select! {
        exit = server.leave() => exit,
        () = hobnob_client::told_to_end() => Ok(Exit::AtOnce),
    };
    if let Ok(Exit::Stopped(stop)) = &exit
        && let Some(word) = last_word(stop)
    {
        // A terminal that has gone takes no word.
        let _unread = writeln!(std::io::stderr(), "{word}");
    }
    serve::end(exit)
}

/// What people are told of messages that no server has any more, or not enough.
fn last_word(stop: &Stop) -> Option<&'static str> {
    match stop {
        Stop::LeftUnfinished => Some("Not everything could be handed over: the others have what was stored."),
        Stop::LeftAlone { messages: true } => {
            Some("This was the last server: its messages were in memory, and are gone.")
        }
        Stop::LeftAlone { messages: false } | Stop::Left | Stop::IdTaken { .. } | Stop::Retired => None,
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::ids::{Boot, ClusterId, Origin, ServerId};

    use super::*;

    #[test]
    fn it_serves_while_there_are_fewer_than_three_servers() {
        fn check(around: Around, expected: bool) {
            assert_eq!(needs_another(around), expected, "{around:?}");
        }
        check(Around::Nobody, true);
        check(Around::Cluster { servers: 1, fits: true }, true);
        check(Around::Cluster { servers: 2, fits: true }, true);
        check(Around::Cluster { servers: 3, fits: true }, false);
        check(Around::Cluster { servers: 1, fits: false }, false);
    }

    #[test]
    fn it_says_what_it_found_and_did() {
        fn check(around: Around, expected: &str) {
            let ready = Ready {
                me: Origin { id: ServerId(1), boot: Boot(1) },
                cluster: ClusterId(7),
                founded: around == Around::Nobody,
                addrs: vec!["127.0.0.1:5001".parse().unwrap()],
            };
            let said = serving(around, &"hobnob".parse().unwrap(), &ready, true);
            assert!(said.starts_with(expected), "{said}");
        }
        check(Around::Nobody, "No cluster found: started one, hobnob, as server 1 at 127.0.0.1:5001.");
        check(
            Around::Cluster { servers: 1, fits: true },
            "Found cluster hobnob, 1 server. This machine serves too, as server 1 at",
        );
    }
}
