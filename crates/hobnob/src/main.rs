//! Chat that needs nothing but a local network: the command line.
//!
//! Nothing is decided here: arguments become options of `hobnob-server` and `hobnob-client`, and what those say becomes
//! an exit code. Standard output is data, standard error is for people.

use std::{io::Write as _, process::ExitCode};

use hobnob_client::Fail;

use crate::cli::{Cli, Command};

mod bare;
mod bench;
mod check;
mod cli;
mod config;
mod demo;
mod find;
mod interrupt;
mod secret;
mod serve;

fn main() -> ExitCode {
    match config::cli().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            // A terminal that has gone takes no word.
            let _unread = writeln!(std::io::stderr(), "hobnob: {}", fail.message);
            ExitCode::from(fail.code)
        }
    }
}

/// Does what was asked for.
fn run(cli: Cli) -> Result<(), Fail> {
    let Some(command) = cli.command else { return in_runtime(bare::run(cli.bare)) };
    match command {
        Command::Server(args) => in_runtime(serve::run(args)),
        Command::Client(args) => in_runtime(bare::client(args)),
        Command::Send(args) => {
            let options = args.client.options(args.name, Some(args.room))?;
            let text = (!args.text.is_empty()).then(|| args.text.join(" "));
            in_runtime(hobnob_client::send(options, text, args.json))
        }
        Command::Tail(args) => {
            let options = args.client.options(None, Some(args.room))?;
            let tail = hobnob_client::TailOptions {
                json: args.json,
                since: args.since,
                follow: args.follow,
                count: args.count,
            };
            in_runtime(hobnob_client::tail(options, tail))
        }
        Command::Status(args) => in_runtime(hobnob_client::status(args.client.options(None, None)?, args.json)),
        Command::Rooms(args) => in_runtime(hobnob_client::rooms(args.client.options(None, None)?, args.json)),
        Command::Clusters(args) => in_runtime(hobnob_client::clusters(args.client.options(None, None)?, args.json)),
        Command::Who(args) => in_runtime(hobnob_client::who(args.client.options(None, args.room)?, args.json)),
        Command::Export(args) => in_runtime(hobnob_client::export(args.client.options(None, args.room)?, args.since)),
        Command::Import(args) => in_runtime(hobnob_client::import(args.client.options(None, None)?, args.file)),
        Command::Retire(args) => {
            let server = args.id.map(hobnob_proto::ids::ServerId);
            in_runtime(hobnob_client::retire(args.client.options(None, None)?, server))
        }
        Command::Join(args) => in_runtime(hobnob_client::join(args.client.options(None, None)?, args.id)),
        Command::Check(args) => check::run(&args.data_dir),
        Command::Secret => secret::print_new(),
        Command::Demo => demo::run(),
        Command::Bench(args) => bench::run(args),
    }
}

/// Runs one command to its end, on this thread.
fn in_runtime(command: impl Future<Output = Result<(), Fail>>) -> Result<(), Fail> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fail::new(Fail::FAILED, format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // A thread that waits for standard input must not hold up the end.
    runtime.shutdown_background();
    result
}
