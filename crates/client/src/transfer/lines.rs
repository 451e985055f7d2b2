//! The lines of a file that is imported, read and understood on a thread of their own.
//!
//! The thread waits while nobody takes what it has read, so a long file does not fill the memory; and a line is never kept
//! beyond the longest that an export has.

use std::{
    io::{self, BufRead, Read},
    sync::Arc,
};

use hobnob_proto::{ids::RoomName, limits, log::Entry};
use tokio::sync::mpsc;

use super::{Floors, Head, Mark, VERSION, record::Record};
use crate::Fail;

/// Bytes of a line; longer than the longest entry, and than a `room` line of so many floors as stand in one.
pub(super) const LINE_BYTES_MAX: usize = 128 * 1024;
/// Lines that are handed over together, and how often that may wait.
const BATCH: usize = 64;
const BATCHES_AHEAD: usize = 4;

/// A line that was read.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Its number in the file, from 1.
    pub(super) n: u64,
    /// What it says.
    pub(super) said: Said,
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// What the file is.
    Head(Head),
    /// The entries of a room come next.
    Room(RoomName, Floors),
    /// An entry.
    Entry(Arc<Entry>),
    /// The file is complete, and has so many entries.
    End(u64),
    /// Nothing that can be used; why.
    Bad(String),
}

/// Batches of lines; the end of the channel is the end of the file.
pub(super) type Lines = mpsc::Receiver<Vec<Line>>;

/// The lines of `input`.
pub(super) fn read(input: impl Read + Send + 'static) -> Lines {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    std::thread::spawn(move || {
        let mut input = io::BufReader::with_capacity(LINE_BYTES_MAX, input);
        let (mut batch, mut n) = (Vec::new(), 0);
        while let Some(said) = next(&mut input) {
            n += 1;
            batch.push(Line { n, said });
            if batch.len() == BATCH && sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                return;
            }
        }
        let _nobody_waits = sender.blocking_send(batch);
    });
    receiver
}

/// The next line; `None` at the end, and where the input fails.
fn next(input: &mut impl BufRead) -> Option<Said> {
    let mut bytes = Vec::new();
    let len = Read::take(&mut *input, LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes).ok()?;
    if len == 0 {
        return None;
    }
    let is_whole = bytes.last() == Some(&b'\n');
    if !is_whole && len == LINE_BYTES_MAX {
        let _end = input.skip_until(b'\n');
        return Some(Said::Bad(format!("it has more than {LINE_BYTES_MAX} bytes")));
    }
    Some(understand(&bytes))
}

/// What a line says.
fn understand(line: &[u8]) -> Said {
    if let Ok(record) = serde_json::from_slice::<Record>(line) {
        let entry = Entry::from(record);
        if entry.body.len() > limits::BODY_BYTES_MAX || entry.kind.len() > limits::KIND_BYTES_MAX {
            return Said::Bad("it is longer than any message".to_owned());
        }
        if !entry.is_intact() {
            return Said::Bad("its content does not have the hash that it carries".to_owned());
        }
        return Said::Entry(Arc::new(entry));
    }
    match serde_json::from_slice::<Mark>(line) {
        Ok(Mark::Export(head)) => Said::Head(head),
        Ok(Mark::Room { room, floors }) => Said::Room(room, floors.iter().collect()),
        Ok(Mark::End { entries }) => Said::End(entries),
        Err(_) => Said::Bad("it is no line of an export".to_owned()),
    }
}

/// Whether the first line says that this is a file that can be imported.
pub(super) fn check_head(line: Option<&Line>) -> Result<(), Fail> {
    let why = match line.map(|line| &line.said) {
        Some(Said::Head(head)) if head.version <= VERSION => return Ok(()),
        Some(Said::Head(_)) => "it was made by a newer version of hobnob: import it with that",
        None => "it is empty",
        Some(_) => "its first line is not that of an export: make one with `hobnob export`",
    };
    Err(Fail::new(Fail::FAILED, format!("nothing was imported from this file: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{script::tests::message, transfer::record};

    fn entry() -> Entry {
        let mut entry = message("tea", 7, "anna", "hi");
        entry.hash = entry.digest();
        entry
    }

    #[test]
    fn a_line_is_understood_or_said_to_be_bad() {
        fn check(line: &str, expected: &str) {
            let said = match understand(line.as_bytes()) {
                Said::Bad(why) => why,
                Said::Entry(entry) => format!("entry {}", entry.seq),
                Said::Room(room, floors) => format!("room {room}, {} floors", floors.len()),
                Said::End(entries) => format!("end of {entries}"),
                Said::Head(head) => format!("export of {}", head.cluster),
            };
            assert_eq!(said, expected, "{line}");
        }
        let whole = record::line(entry());
        check(&whole, "entry 3");
        check(&whole.replace("\"hi\"", "\"ho\""), "its content does not have the hash that it carries");
        check(&whole.replace("\"seq\":3", "\"seq\":4"), "its content does not have the hash that it carries");
        check(&whole.replace("\"hi\"", &format!("\"{}\"", "x".repeat(20_000))), "it is longer than any message");
        check(&whole[..40], "it is no line of an export");
        check(
            &whole.replace("\"seq\":3", "\"seq\":9007199254740992"),
            "its content does not have the hash that it carries",
        );
        check(r#"{"hobnob":"room","room":"tea","floors":{"1.7":3}}"#, "room tea, 1 floors");
        check(r#"{"hobnob":"room","room":"tea"}"#, "room tea, 0 floors");
        check(r#"{"hobnob":"end","entries":3}"#, "end of 3");
        check(r#"{"hobnob":"dance"}"#, "it is no line of an export");
        check("[[[[", "it is no line of an export");
        check(&"[".repeat(100_000), "it is no line of an export");
        check("", "it is no line of an export");
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let text = format!("{}\n{{\"hobnob\":\"end\",\"entries\":1}}", "x".repeat(3 * LINE_BYTES_MAX));
        let mut input = text.as_bytes();
        assert_eq!(next(&mut input), Some(Said::Bad(format!("it has more than {LINE_BYTES_MAX} bytes"))));
        assert_eq!(next(&mut input), Some(Said::End(1)));
        assert_eq!(next(&mut input), None);
    }

    #[test]
    fn the_first_line_decides_whether_anything_is_imported() {
        fn check(said: Option<Said>, expected: Option<&str>) {
            let line = said.map(|said| Line { n: 1, said });
            let fail = check_head(line.as_ref()).err().map(|fail| fail.message);
            assert_eq!(fail.is_some(), expected.is_some());
            assert!(fail.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
        let head = |version: u32| {
            let id = "5f0c1e2d3b4a59687786958493a2b1c0";
            understand(
                format!(r#"{{"hobnob":"export","version":{version},"cluster":"a","cluster_id":"{id}","made":7}}"#)
                    .as_bytes(),
            )
        };
        check(Some(head(1)), None);
        check(Some(head(2)), Some("newer version"));
        check(Some(Said::End(0)), Some("not that of an export"));
        check(Some(Said::Bad(String::new())), Some("not that of an export"));
        check(None, Some("it is empty"));
    }
}
