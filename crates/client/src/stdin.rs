//! Lines of standard input.
//!
//! A plain thread reads them: a read of a terminal or a pipe cannot be given up, so a task of the runtime would keep the
//! process from ending. The thread waits while nobody takes its lines, so a fast pipe does not fill the memory.

use std::io::{self, BufRead};

use tokio::sync::mpsc;

/// Bytes of a line that are kept; far more than a message may have, so that a text that is refused can be shown again.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Lines that wait to be taken.
const LINES_AHEAD: usize = 64;

/// Lines, without their newlines; the end of the channel is the end of the input.
pub(crate) type Lines = mpsc::Receiver<Result<String, String>>;

/// The lines of standard input, or a sentence about a line that cannot be used.
pub(crate) fn lines() -> Lines {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input, LINE_BYTES_MAX) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next line; `None` at the end of the input.
fn next_line(input: &mut impl BufRead, bytes_max: u64) -> Option<Result<String, String>> {
    let mut bytes = Vec::new();
    let len = match io::Read::take(&mut *input, bytes_max).read_until(b'\n', &mut bytes) {
        // An input that fails, as a terminal that has gone, is at its end.
        Ok(0) | Err(_) => return None,
        Ok(len) => len as u64,
    };
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    } else if len == bytes_max {
        let _end = input.skip_until(b'\n');
        return Some(Err(format!(
            "a line has more than {bytes_max} bytes: send it in pieces, or as a file by other means"
        )));
    }
    Some(String::from_utf8(bytes).map_err(|_| "a line is not UTF-8 text: convert it first".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_a_newline_or_the_input() {
        fn check(mut input: &[u8], expected: &[Result<&str, ()>]) {
            let mut lines = Vec::new();
            while let Some(line) = next_line(&mut input, 8) {
                lines.push(line.map_err(|_| ()));
            }
            let expected: Vec<_> = expected.iter().map(|line| line.map(str::to_owned)).collect();
            assert_eq!(lines, expected);
        }
        check(b"", &[]);
        check(b"a\n\r\nb", &[Ok("a"), Ok(""), Ok("b")]);
        check(b"1234567\nb", &[Ok("1234567"), Ok("b")]);
        check(b"123456789012\nb\n", &[Err(()), Ok("b")]);
        check(b"\xff\nb\n", &[Err(()), Ok("b")]);
    }
}
