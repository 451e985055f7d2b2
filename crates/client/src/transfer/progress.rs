//! How far a long command has come: a line at the bottom of the terminal, if standard error is one.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Between two pictures.
const EVERY: Duration = Duration::from_millis(200);

/// That line. Wiped away when dropped.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// Nothing is shown yet.
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown: None }
    }

    /// Shows what `text` says, unless something was shown just now.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if self.is_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= EVERY) {
            self.shown = Some(Instant::now());
            let _unread = write!(io::stderr().lock(), "\r\x1b[K* {}", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _unread = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// `8 of 10 (80 %)`.
pub(super) fn share(done: u64, all: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(all.max(1));
    format!("{done} of {all} ({} %)", percent.min(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_more_than_all() {
        assert_eq!(share(8, 10), "8 of 10 (80 %)");
        assert_eq!(share(0, 0), "0 of 0 (0 %)");
        assert_eq!(share(u64::MAX, 3), format!("{} of 3 (100 %)", u64::MAX));
    }
}
