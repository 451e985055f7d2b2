//! Options from a file: what somebody would otherwise type each time.
//!
//! `HOBNOB_CONFIG` names the file; else it is `hobnob/hobnob.toml` in `$XDG_CONFIG_HOME` or `~/.config`, if there is one.
//! Its keys are the names of options. The command line wins over the environment, and both win over the file:
//!
//! ```toml
//! cluster = "ship"
//! secret-file = "/etc/hobnob/ship.secret"
//! interface = ["eth0"]
//! ```

use std::{env, ffi::OsStr, fs, io, path::PathBuf};

use clap::{Arg, CommandFactory as _, FromArgMatches as _};
use hobnob_client::Fail;
use toml::{Table, Value};

use crate::cli::Cli;

/// What was asked for, by the command line, the environment and the file. Ends the process with a usage message where
/// that is wrong.
pub(crate) fn cli() -> Result<Cli, Fail> {
    let command = without_empty(Cli::command(), |name| env::var_os(name).is_some_and(|value| value.is_empty()));
    let command = match read()? {
        Some((path, table)) => with_defaults(command, &table)
            .map_err(|why| Fail::new(Fail::USAGE, format!("{}: {why}", path.display())))?,
        None => command,
    };
    let matches = command.get_matches();
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

/// The command without the variables that are set to nothing, which mean the same as ones that are not set.
fn without_empty(command: clap::Command, is_empty: impl Fn(&OsStr) -> bool + Copy) -> clap::Command {
    let unset = move |arg: Arg| if arg.get_env().is_some_and(is_empty) { arg.env(None::<&'static str>) } else { arg };
    command.mut_args(unset).mut_subcommands(move |command| command.mut_args(unset))
}

/// The file, if there is one; one that was named has to be there.
fn read() -> Result<Option<(PathBuf, Table)>, Fail> {
    let Some((path, is_named)) = path() else { return Ok(None) };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_missing(&error) && !is_named => return Ok(None),
        Err(error) => {
            let why = format!("cannot read {}: {error}: mend it, or unset HOBNOB_CONFIG", path.display());
            return Err(Fail::new(Fail::FAILED, why));
        }
    };
    let table =
        text.parse().map_err(|error| Fail::new(Fail::USAGE, format!("{} is not TOML: {error}", path.display())))?;
    Ok(Some((path, table)))
}

/// Whether there is no such file; a home that is no directory has none.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Where the file is, and whether somebody said so.
fn path() -> Option<(PathBuf, bool)> {
    if let Some(path) = env::var_os("HOBNOB_CONFIG").filter(|path| !path.is_empty()) {
        return Some((path.into(), true));
    }
    let config = env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")))?;
    Some((config.join("hobnob").join("hobnob.toml"), false))
}

/// The command with the file's values as defaults, in itself and its subcommands.
fn with_defaults(command: clap::Command, table: &Table) -> Result<clap::Command, String> {
    let mut options = Vec::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        let is_option = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_long() == Some(&name));
        if !is_option(&command) && !command.get_subcommands().any(is_option) {
            return Err(format!("there is no option `{key}`: `hobnob --help` lists them"));
        }
        let values = texts(value).ok_or_else(|| format!("`{key}` is not a text, a number, true, false or a list"))?;
        options.push((name, values));
    }
    let fill = |arg: Arg| match options.iter().find(|(name, _)| arg.get_long() == Some(name)) {
        Some((_, values)) => arg.required(false).default_values(values.clone()),
        None => arg,
    };
    Ok(command.mut_args(fill).mut_subcommands(|command| command.mut_args(fill)))
}

/// A value as the command line would have it.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Boolean(flag) => Some(vec![flag.to_string()]),
        Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(texts).collect();
            texts.map(|texts| texts.concat())
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn parse(file: &str, args: &[&str]) -> Result<Cli, String> {
        // Whatever this process has in its environment.
        let command = without_empty(Cli::command(), |_| true);
        let command = with_defaults(command, &file.parse().unwrap())?;
        let matches = command.try_get_matches_from(args).map_err(|error| error.to_string())?;
        Cli::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_says_what_the_command_line_does_not() {
        let file = "id = 7\ninterface = [\"lo\", \"eth0\"]\nroom = \"tea\"\nplain = true";
        let Some(Command::Server(server)) = parse(file, &["hobnob", "server"]).unwrap().command else { panic!() };
        assert_eq!(server.id, Some(7));
        assert_eq!(server.network.interfaces, ["lo", "eth0"]);
        let typed = parse(file, &["hobnob", "server", "--id", "9", "--interface", "lo"]).unwrap();
        let Some(Command::Server(server)) = typed.command else { panic!() };
        assert_eq!((server.id, server.network.interfaces), (Some(9), vec!["lo".to_owned()]));
        let Some(Command::Send(send)) = parse(file, &["hobnob", "send", "hello"]).unwrap().command else { panic!() };
        assert_eq!(send.room.as_str(), "tea", "what is otherwise required may come from the file");
        assert!(parse(file, &["hobnob"]).unwrap().bare.chat.plain);
    }

    #[test]
    fn a_variable_that_is_empty_is_not_set() {
        let command = without_empty(Cli::command(), |name| name == "HOBNOB_ROOM");
        let send = command.find_subcommand("send").unwrap();
        let variable = |long| send.get_arguments().find(|arg| arg.get_long() == Some(long)).unwrap().get_env();
        assert_eq!((variable("room"), variable("name")), (None, Some(OsStr::new("HOBNOB_NAME"))));
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        let check = |file: &str, expected: &str| {
            let why = parse(file, &["hobnob", "server"]).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check("roomz = 1", "no option `roomz`");
        check("id = 1979-05-27", "`id` is not a text");
        check("id = \"seven\"", "invalid value 'seven'");
    }
}
