//! Standard output, which may be a pipe that somebody closes.

use std::io::{self, Write as _};

use crate::Fail;

/// Whether there is still somebody who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// There is.
    Listens,
    /// The other end of the pipe was closed, as by `head`: time to end, quietly.
    Gone,
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<Reader, Fail> {
    let mut output = io::stdout().lock();
    let written =
        output.write_all(text.as_bytes()).and_then(|()| output.write_all(b"\n")).and_then(|()| output.flush());
    match written {
        Ok(()) => Ok(Reader::Listens),
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(why) => Err(Fail::new(Fail::FAILED, format!("cannot write to standard output: {why}"))),
    }
}

/// Writes a status line to standard error, if somebody reads it.
pub(crate) fn status(text: &str) {
    let _unread = writeln!(io::stderr().lock(), "* {text}");
}
