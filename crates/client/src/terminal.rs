//! A real terminal in line mode: messages scroll by above, the line being typed stays at the bottom.
//!
//! The terminal is in raw mode, so the line is ours to draw. To print a line, the one that is being typed is erased, the
//! new line is written in its place, and the typed one is drawn again below it, all in one write, so that nothing
//! flickers. The typed line never takes more than one row: it scrolls sideways.

use std::{
    fmt,
    io::{self, Write as _},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossterm::{
    Command as _,
    cursor::{MoveToColumn, MoveUp},
    event::{self, DisableBracketedPaste, EnableBracketedPaste, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    style::{Attribute, SetAttribute},
    terminal::{self, Clear, ClearType},
};
use tokio::sync::mpsc;
use unicode_width::UnicodeWidthStr as _;

use crate::{
    Fail,
    line_edit::{Key, LineEdit},
};

/// How long the thread that reads keys may take to notice that it is not wanted any more.
const KEY_POLL: Duration = Duration::from_millis(50);

/// Keys that wait to be taken.
const KEYS_AHEAD: usize = 256;

/// What a person did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A line is done.
    Line(String),
    /// Ctrl-C, or Ctrl-D on an empty line: out of here.
    Quit,
    /// The terminal has gone.
    Gone,
}

/// The terminal, in raw mode as long as this lives.
#[derive(Debug)]
pub(crate) struct Terminal {
    line: LineEdit,
    prompt: String,
    /// Columns of the row as it was drawn last.
    drawn: usize,
    width: usize,
    keys: mpsc::Receiver<event::Event>,
    reader: JoinHandle<()>,
    is_over: Arc<AtomicBool>,
}

impl Terminal {
    /// Takes the terminal over.
    pub(crate) fn open() -> Result<Self, Fail> {
        let fail = |why: io::Error| Fail::new(Fail::FAILED, format!("cannot use the terminal: {why}"));
        terminal::enable_raw_mode().map_err(fail)?;
        restore_on_panic();
        let (sender, keys) = mpsc::channel(KEYS_AHEAD);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let reader = std::thread::spawn(move || read_keys(&sender, &over));
        let mut terminal =
            Self { line: LineEdit::default(), prompt: String::new(), drawn: 0, width: width(), keys, reader, is_over };
        terminal.write(|out| EnableBracketedPaste.write_ansi(out));
        Ok(terminal)
    }

    /// Prints a line above the one that is being typed, these bytes of it dimmed.
    pub(crate) fn print(&mut self, text: &str, dimmed: Range<usize>) {
        self.write(|out| write_line(out, text, dimmed));
    }

    /// Changes what stands before the line that is being typed.
    pub(crate) fn set_prompt(&mut self, prompt: String) {
        if prompt != self.prompt {
            self.prompt = prompt;
            self.write(|_| Ok(()));
        }
    }

    /// Puts a text back into the line that is being typed.
    pub(crate) fn put_back(&mut self, text: &str) {
        self.line.put_back(text);
        self.write(|_| Ok(()));
    }

    /// What the person does next. Nothing is lost where the wait is given up.
    pub(crate) async fn typed(&mut self) -> Typed {
        loop {
            let Some(event) = self.keys.recv().await else { return Typed::Gone };
            match event {
                event::Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if is_quit(key, self.line.is_empty()) {
                        return Typed::Quit;
                    }
                    let done = meaning(key).and_then(|key| self.line.key(key));
                    self.write(|_| Ok(()));
                    if let Some(line) = done {
                        return Typed::Line(line);
                    }
                }
                event::Event::Paste(text) => {
                    self.line.paste(&text);
                    self.write(|_| Ok(()));
                }
                event::Event::Resize(columns, _) => self.resize(columns.into()),
                _ => {}
            }
        }
    }

    /// A narrower terminal has broken the row into several: they are all erased.
    fn resize(&mut self, columns: usize) {
        let rows = self.drawn.saturating_sub(1) / columns.max(1);
        self.width = columns;
        let up = u16::try_from(rows).unwrap_or(u16::MAX);
        self.write(|out| {
            if up > 0 {
                MoveUp(up).write_ansi(out)?;
            }
            Clear(ClearType::FromCursorDown).write_ansi(out)
        });
    }

    /// Erases the row, writes what `content` says, and draws the row again. An error is not reported: where the terminal
    /// has gone, its keys end too.
    fn write(&mut self, content: impl FnOnce(&mut String) -> std::fmt::Result) {
        let mut out = String::new();
        let row = row(&self.prompt, &self.line, self.width);
        let drawn = MoveToColumn(0)
            .write_ansi(&mut out)
            .and_then(|()| Clear(ClearType::UntilNewLine).write_ansi(&mut out))
            .and_then(|()| content(&mut out))
            .and_then(|()| row.draw(&mut out));
        if drawn.is_ok() {
            self.drawn = row.text.width();
            let mut screen = io::stdout().lock();
            let _gone = screen.write_all(out.as_bytes()).and_then(|()| screen.flush());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.keys.close();
        restore();
        // A terminal that has gone may hold its reader for ever; then the end of the process ends it.
        let patience = Instant::now() + 2 * KEY_POLL;
        while !self.reader.is_finished() && Instant::now() < patience {
            std::thread::sleep(KEY_POLL / 10);
        }
    }
}

/// The row with the line that is being typed.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    text: String,
    /// The column of the cursor.
    cursor: usize,
}

/// The row in a terminal of `width` columns. The last column stays free, so that the cursor has its place.
fn row(prompt: &str, line: &LineEdit, width: usize) -> Row {
    let width = width.saturating_sub(1);
    // A prompt that leaves no room for the line is not shown.
    let prompt = if prompt.width() + 8 <= width { prompt } else { "" };
    let (text, column) = line.view(width - prompt.width());
    Row { text: format!("{prompt}{text}"), cursor: prompt.width() + column }
}

impl Row {
    fn draw(&self, out: &mut String) -> std::fmt::Result {
        out.push_str(&self.text);
        MoveToColumn(u16::try_from(self.cursor).unwrap_or(u16::MAX)).write_ansi(out)
    }
}

/// Writes a line, these bytes of it dimmed.
fn write_line(out: &mut String, text: &str, dimmed: Range<usize>) -> fmt::Result {
    let (start, end) = (dimmed.start.min(text.len()), dimmed.end.min(text.len()));
    let (Some(before), Some(dim), Some(after)) = (text.get(..start), text.get(start..end), text.get(end..)) else {
        out.push_str(text);
        out.push_str("\r\n");
        return Ok(());
    };
    out.push_str(before);
    if !dim.is_empty() {
        SetAttribute(Attribute::Dim).write_ansi(out)?;
        out.push_str(dim);
        SetAttribute(Attribute::Reset).write_ansi(out)?;
    }
    out.push_str(after);
    out.push_str("\r\n");
    Ok(())
}

fn width() -> usize {
    // A terminal that does not know its size says 0.
    terminal::size().map(|(columns, _)| usize::from(columns)).ok().filter(|&columns| columns > 0).unwrap_or(80)
}

/// Whether there is still a terminal to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    There,
    Gone,
}

/// Waits for input, [`KEY_POLL`] at most. `crossterm` reads a terminal that was hung up again and again, and never
/// returns: so that is found out before it is asked.
#[cfg(unix)]
fn wait_for_input() -> Input {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = io::stdin();
    let mut input = [PollFd::new(&stdin, PollFlags::IN)];
    let span = Timespec { tv_sec: 0, tv_nsec: KEY_POLL.subsec_nanos().into() };
    match poll(&mut input, Some(&span)) {
        Ok(_) if input[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) => Input::Gone,
        Ok(_) | Err(rustix::io::Errno::INTR) => Input::There,
        Err(_) => Input::Gone,
    }
}

#[cfg(not(unix))]
fn wait_for_input() -> Input {
    // An error means the same as no input here.
    let _input = event::poll(KEY_POLL);
    Input::There
}

/// Hands keys over until nobody wants them any more.
fn read_keys(sender: &mpsc::Sender<event::Event>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        if wait_for_input() == Input::Gone {
            return;
        }
        match event::poll(Duration::ZERO) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn is_quit(key: KeyEvent, is_empty: bool) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    is_control && (key.code == KeyCode::Char('c') || (key.code == KeyCode::Char('d') && is_empty))
}

/// What a key means for the line.
fn meaning(key: KeyEvent) -> Option<Key> {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let is_alt = key.modifiers.contains(KeyModifiers::ALT);
    Some(match key.code {
        KeyCode::Enter => Key::Enter,
        KeyCode::Left if is_control || is_alt => Key::WordLeft,
        KeyCode::Right if is_control || is_alt => Key::WordRight,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Backspace if is_control || is_alt => Key::KillWord,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        KeyCode::Char(c) if is_control => match c {
            'a' => Key::Home,
            'b' => Key::Left,
            'd' => Key::Delete,
            'e' => Key::End,
            'f' => Key::Right,
            'h' => Key::Backspace,
            'j' | 'm' => Key::Enter,
            'k' => Key::KillToEnd,
            'n' => Key::Down,
            'p' => Key::Up,
            'u' => Key::KillToStart,
            'w' => Key::KillWord,
            _ => return None,
        },
        KeyCode::Char('b') if is_alt => Key::WordLeft,
        KeyCode::Char('f') if is_alt => Key::WordRight,
        KeyCode::Char(_) if is_alt => return None,
        KeyCode::Char(c) => Key::Char(c),
        _ => return None,
    })
}

/// Gives the terminal back as it was, on an empty row.
fn restore() {
    if !terminal::is_raw_mode_enabled().unwrap_or(false) {
        return;
    }
    let mut out = String::new();
    let drawn = MoveToColumn(0)
        .write_ansi(&mut out)
        .and_then(|()| Clear(ClearType::UntilNewLine).write_ansi(&mut out))
        .and_then(|()| DisableBracketedPaste.write_ansi(&mut out));
    if drawn.is_ok() {
        let mut screen = io::stdout().lock();
        let _gone = screen.write_all(out.as_bytes()).and_then(|()| screen.flush());
    }
    let _gone = terminal::disable_raw_mode();
}

/// Gives the terminal back before a panic is told, so that its message can be read.
fn restore_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        tell(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_never_reaches_the_last_column() {
        fn check(typed: &str, width: usize, expected: (&str, usize)) {
            let mut line = LineEdit::default();
            line.set(typed);
            let row = row("#a> ", &line, width);
            assert_eq!((row.text.as_str(), row.cursor), expected);
            assert!(row.text.width() < width.max(1) && row.cursor < width.max(1));
        }
        check("hello", 80, ("#a> hello", 9));
        check("0123456789", 14, ("#a> 23456789", 12));
        check("0123456789", 8, ("456789", 6));
        check("hello", 1, ("", 0));
        check("hello", 0, ("", 0));
    }

    #[test]
    fn control_c_quits_and_control_d_on_an_empty_line_does() {
        fn check(key: char, is_empty: bool, expected: bool) {
            assert_eq!(is_quit(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL), is_empty), expected);
        }
        check('c', true, true);
        check('c', false, true);
        check('d', true, true);
        check('d', false, false);
        check('a', true, false);
    }

    #[test]
    fn only_what_the_program_says_is_dimmed() {
        fn check(text: &str, dimmed: Range<usize>, expected: &str) {
            let mut out = String::new();
            write_line(&mut out, text, dimmed).expect("a string takes anything");
            assert_eq!(out, expected);
        }
        check("10:01 bob: hi", 0..0, "10:01 bob: hi\r\n");
        check("* served", 0..8, "\x1b[2m* served\x1b[0m\r\n");
        check("10:01 bob (late): hi", 9..16, "10:01 bob\x1b[2m (late)\x1b[0m: hi\r\n");
        check("ö", 1..2, "ö\r\n");
    }
}
