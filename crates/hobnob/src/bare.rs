//! Bare `hobnob`: finds a cluster or starts one, serves beside the chat while there are few servers, and hands over at
//! the end. And `hobnob client`, which is the chat alone.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hobnob_client::{Fail, Notices, Options};
use hobnob_proto::{ids::ClusterName, node::Stop};
use hobnob_server::{
    Exit, Ready,
    background::{self, Running},
    store::{
        Keep, Realm,
        place::{self, Past},
    },
};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    cli::{BareArgs, ChatArgs},
    find::{self, Around},
    serve::{self, trust},
};

/// How long it listens for a cluster before it starts one.
const LOOK_FOR: Duration = Duration::from_millis(400);
/// After so long a cluster of this machine alone is one of another day.
const ANOTHER_DAY: Duration = Duration::from_hours(12);
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
    let serve = Serve { never: args.no_serve, in_memory: args.in_memory, terminal };
    let server = if options.servers.is_empty() { serve_beside(&options, serve, say).await? } else { None };
    let result = talk(options, terminal, notices).await;
    match server {
        Some(server) => {
            let left = leave(server, args.in_memory).await;
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

/// How to serve beside the chat.
#[derive(Clone, Copy, Debug)]
struct Serve {
    /// Not at all.
    never: bool,
    /// Without a file.
    in_memory: bool,
    /// With somebody at a terminal who can be asked.
    terminal: bool,
}

/// Looks around, starts a server where one is needed, and says what it found and did.
async fn serve_beside(options: &Options, serve: Serve, say: impl Fn(String)) -> Result<Option<Running>, Fail> {
    let around = find::look(options, LOOK_FOR).await?;
    if serve.never || !needs_another(around) {
        say(found(around, &options.cluster));
        return Ok(None);
    }
    let server = hobnob_server::Options {
        secret: options.secret.clone(),
        interfaces: options.interfaces.clone(),
        discovery_port: options.discovery_port,
        keep: keep(around, options, serve)?,
        ..hobnob_server::Options::new(options.cluster.clone())
    };
    match background::spawn(server).await {
        Ok(Ok((running, ready))) => {
            // A terminal is told of memory with its first message.
            let say_so = serve.in_memory && !serve.terminal && around == Around::Nobody;
            let memory = if say_so { " Messages are kept in memory only." } else { "" };
            say(serving(around, &options.cluster, &ready, options.secret.is_none()) + memory);
            Ok(Some(running))
        }
        Ok(Err(exit)) => without_server(around, &options.cluster, serve::end(Ok(exit)), say),
        Err(error) => without_server(around, &options.cluster, serve::end(Err(error)), say),
    }
}

/// Where the server is to keep what it is told: where this machine kept it when it was last in that cluster. Alone, a
/// cluster of another day is taken up again only by whoever says so.
fn keep(around: Around, options: &Options, serve: Serve) -> Result<Keep, Fail> {
    match around {
        _ if serve.in_memory => Ok(Keep::Memory),
        Around::Cluster { id, .. } => Ok(Keep::Of(id)),
        Around::Nobody => {
            let cluster = &options.cluster;
            let realm = Realm::new(cluster, options.secret.as_ref());
            let past = place::latest(&realm).map_err(|error| Fail::new(Fail::FAILED, error.to_string()))?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let is_over = past.is_some_and(|past| {
                is_of_another_day(&past, now) && !(serve.terminal && is_wanted(&past, cluster, now))
            });
            Ok(if is_over { Keep::New } else { Keep::Latest })
        }
    }
}

/// Whether it holds messages that may be no longer what people here talk about.
fn is_of_another_day(past: &Past, now: Duration) -> bool {
    past.entries > 0 && now.saturating_sub(Duration::from_secs(past.used_secs)) > ANOTHER_DAY
}

/// Asks at the terminal whether to take it up again. Without an answer: no, since it is still there another time.
fn is_wanted(past: &Past, cluster: &ClusterName, now: Duration) -> bool {
    eprint!("{} [y/N] ", question(past, cluster, now));
    let mut answer = String::new();
    let is_read = std::io::stdin().read_line(&mut answer).is_ok();
    is_read && matches!(answer.trim().chars().next(), Some('y' | 'Y'))
}

/// What it asks.
fn question(past: &Past, cluster: &ClusterName, now: Duration) -> String {
    let hours = now.saturating_sub(Duration::from_secs(past.used_secs)).as_secs() / 3_600;
    let ago = if hours < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) };
    let messages = if past.entries == 1 { "1 message" } else { &format!("{} messages", past.entries) };
    format!("Nobody is here. This machine has {messages} of a cluster {cluster}, last used {ago} ago. Open it again?")
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
        Around::Cluster { servers, fits, .. } => fits && servers < SERVERS_WANTED,
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
async fn leave(server: Running, in_memory: bool) -> Result<(), Fail> {
    let exit = tokio::select! {
        exit = server.leave() => exit,
        () = hobnob_client::told_to_end() => Ok(Exit::AtOnce),
    };
    if let Ok(Exit::Stopped(stop)) = &exit
        && let Some(word) = last_word(stop, in_memory)
    {
        // A terminal that has gone takes no word.
        let _unread = writeln!(std::io::stderr(), "{word}");
    }
    serve::end(exit)
}

/// What people are told of messages that no server has any more, or not enough.
fn last_word(stop: &Stop, in_memory: bool) -> Option<&'static str> {
    match stop {
        Stop::LeftUnfinished => Some("Not everything could be handed over: the others have what was stored."),
        Stop::LeftAlone { messages: true } if in_memory => {
            Some("This was the last server: its messages were in memory, and are gone.")
        }
        Stop::LeftAlone { messages: true } => {
            Some("This was the last server: its messages are on this machine's disk, for the next start here.")
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
        check(Around::Cluster { id: ClusterId(7), servers: 1, fits: true }, true);
        check(Around::Cluster { id: ClusterId(7), servers: 2, fits: true }, true);
        check(Around::Cluster { id: ClusterId(7), servers: 3, fits: true }, false);
        check(Around::Cluster { id: ClusterId(7), servers: 1, fits: false }, false);
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
            Around::Cluster { id: ClusterId(7), servers: 1, fits: true },
            "Found cluster hobnob, 1 server. This machine serves too, as server 1 at",
        );
    }

    #[test]
    fn a_cluster_of_another_day_is_not_taken_up_by_itself() {
        fn check(entries: u64, hours_ago: u64, expected: Option<&str>) {
            let now = Duration::from_hours(1_000);
            let used_secs = now.as_secs() - hours_ago * 3_600;
            let past = Past { id: None, cluster: Some(ClusterId(7)), used_secs, entries };
            let asked = is_of_another_day(&past, now).then(|| question(&past, &"ship".parse().unwrap(), now));
            assert_eq!(asked.as_deref(), expected);
        }
        check(0, 100, None);
        check(9, 12, None);
        check(
            1,
            13,
            Some(
                "Nobody is here. This machine has 1 message of a cluster ship, last used 13 hours ago. Open it again?",
            ),
        );
        check(
            9,
            100,
            Some("Nobody is here. This machine has 9 messages of a cluster ship, last used 4 days ago. Open it again?"),
        );
    }
}
