//! The clients of hobnob: a line-mode chat in a terminal, a chat through a pipe, and commands for scripts.
//!
//! All of the protocol is in [`hobnob_proto::client::Client`]; here are the sockets, files, keys and screens around it.
//! Each public function is one command: it runs until the command is done, writes data to standard output and words for
//! people to standard error, and says by [`Fail`] what went wrong. They want a current-thread tokio runtime with I/O and
//! time enabled; wherever one of them reads standard input, a plain thread does, which ends with the process.

use std::{net::SocketAddr, path::PathBuf};

use hobnob_proto::{
    ids::{ClusterId, ClusterName, PersonName, RoomName, ServerId},
    session::keys::Secret,
};

pub use crate::{signals::told_to_end, since::Since};

mod advice;
mod ask;
mod chat;
mod company;
mod device;
mod driver;
mod face;
mod identity;
mod line_edit;
pub mod net;
mod output;
mod plain;
mod script;
mod signals;
mod since;
mod speaker;
mod stdin;
mod table;
mod terminal;
mod text;
mod transfer;

/// What every client command takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's name for people; `hobnob` if nothing else is said.
    pub cluster: ClusterName,
    /// The secret of a closed cluster; `None` for an open one.
    pub secret: Option<Secret>,
    /// The only interfaces to send on, by name; empty: all that lead to other people's machines.
    pub interfaces: Vec<String>,
    /// Where servers listen for clients that look for them; 5005 if nothing else is said.
    pub discovery_port: u16,
    /// Session addresses of servers to ask instead of looking for some.
    pub servers: Vec<SocketAddr>,
    /// The name to be shown under. `None`: a terminal asks for it, everything else takes `$USER`, or `hobnob`.
    pub name: Option<PersonName>,
    /// The room. `None`: a terminal asks for it, `who` lists all, everything else takes the lobby.
    pub room: Option<RoomName>,
}

/// What `tail` takes besides.
#[derive(Clone, Debug, Default)]
pub struct TailOptions {
    /// One JSON object a line instead of `name: text`.
    pub json: bool,
    /// From when on; `None`: the last 50 messages.
    pub since: Option<Since>,
    /// Go on with what is new, until interrupted.
    pub follow: bool,
    /// End after so many messages.
    pub count: Option<u64>,
}

/// Lines that the surrounding program wants shown to the person, for example what the server in the same process did.
pub type Notices = tokio::sync::mpsc::UnboundedReceiver<String>;

/// A command that did not do what it was asked to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fail {
    /// The exit code of the process, one of the constants of this type.
    pub code: u8,
    /// One or more sentences for people, perhaps on several lines, without a newline at the end. Says what to do.
    pub message: String,
}

impl Fail {
    /// The exit code of whatever has none of its own.
    pub const FAILED: u8 = 1;
    /// The exit code of wrong usage.
    pub const USAGE: u8 = 2;
    /// The exit code where no cluster was found.
    pub const NOT_FOUND: u8 = 3;
    /// The exit code where a side does not trust the other, or does not allow something.
    pub const NOT_ALLOWED: u8 = 4;
    /// The exit code of a message that was accepted, but not stored in time.
    pub const NOT_STORED: u8 = 5;

    /// A failure with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Chats in the terminal, until the person quits. `notices` are shown as status lines.
pub async fn chat(options: Options, notices: Option<Notices>) -> Result<(), Fail> {
    face::chat(options, notices).await
}

/// Chats through a pipe: posts lines of standard input, prints messages. At the end of the input it waits up to 5 s for
/// what was posted to be stored, else fails with [`Fail::NOT_STORED`]. `notices` go to standard error.
pub async fn plain(options: Options, notices: Option<Notices>) -> Result<(), Fail> {
    plain::chat(options, notices).await
}

/// Posts `text`, or each line of standard input, and waits up to 10 s for it to be stored. `json`: a line on standard
/// output for each step.
pub async fn send(options: Options, text: Option<String>, json: bool) -> Result<(), Fail> {
    script::send(options, text, json).await
}

/// Prints messages of a room.
pub async fn tail(options: Options, tail: TailOptions) -> Result<(), Fail> {
    script::tail(options, tail).await
}

/// Prints the state of the cluster.
pub async fn status(options: Options, json: bool) -> Result<(), Fail> {
    ask::status(options, json).await
}

/// Prints the rooms.
pub async fn rooms(options: Options, json: bool) -> Result<(), Fail> {
    ask::rooms(options, json).await
}

/// Prints who is here: in [`Options::room`], or anywhere.
pub async fn who(options: Options, json: bool) -> Result<(), Fail> {
    ask::who(options, json).await
}

/// Prints the clusters that answer within a second.
pub async fn clusters(options: Options, json: bool) -> Result<(), Fail> {
    ask::clusters(options, json).await
}

/// Writes all entries to standard output, of [`Options::room`] or of all rooms, from `since` on or from the beginning.
pub async fn export(options: Options, since: Option<Since>) -> Result<(), Fail> {
    transfer::export::export(options, since).await
}

/// Merges an export into the cluster: that file, or standard input. Fails with [`Fail::FAILED`] where not all of it could be
/// used, and with [`Fail::NOT_STORED`] where it does not get to enough servers in time.
pub async fn import(options: Options, file: Option<PathBuf>) -> Result<(), Fail> {
    transfer::import::import(options, file).await
}

/// Removes a server from the cluster for good; without `server`, the one that runs on this machine.
pub async fn retire(options: Options, server: Option<ServerId>) -> Result<(), Fail> {
    ask::retire(options, server).await
}

/// Brings the server on this machine, with all that it holds, into another cluster, and waits until it is there.
pub async fn join(options: Options, cluster: ClusterId) -> Result<(), Fail> {
    ask::join(options, cluster).await
}
