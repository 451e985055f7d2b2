//! The line that is being typed: keys in, text and cursor out. No terminal here.

use unicode_width::UnicodeWidthChar as _;

use crate::text::visible;

/// Lines that are remembered.
const HISTORY_MAX: usize = 200;

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Types a character.
    Char(char),
    /// One character to the left.
    Left,
    /// One character to the right.
    Right,
    /// One word to the left.
    WordLeft,
    /// One word to the right.
    WordRight,
    /// To the begin of the line.
    Home,
    /// To the end of the line.
    End,
    /// Deletes the character before the cursor.
    Backspace,
    /// Deletes the character under the cursor.
    Delete,
    /// Deletes all before the cursor.
    KillToStart,
    /// Deletes all from the cursor on.
    KillToEnd,
    /// Deletes the word before the cursor.
    KillWord,
    /// The line before in the history.
    Up,
    /// The line after in the history.
    Down,
    /// The line is done.
    Enter,
}

/// A line that is being typed, and those that were.
#[derive(Debug, Default)]
pub(crate) struct LineEdit {
    chars: Vec<char>,
    /// Before which character the cursor stands.
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown; `None`: none of them.
    shown: Option<usize>,
    /// What was being typed before a line of the history was shown.
    draft: String,
}

impl LineEdit {
    /// Whether nothing is typed.
    pub(crate) fn is_empty(&self) -> bool {
        self.chars.is_empty()
    }

    /// Replaces the line; the cursor goes to its end.
    pub(crate) fn set(&mut self, text: &str) {
        self.chars = text.chars().collect();
        self.cursor = self.chars.len();
    }

    /// Takes back the line that was done last. What was typed since stays behind it.
    pub(crate) fn put_back(&mut self, text: &str) {
        let typed: String = std::mem::take(&mut self.chars).into_iter().collect();
        let separator = if typed.is_empty() { "" } else { " " };
        self.set(&format!("{text}{separator}{typed}"));
    }

    /// Types a text, as a paste does: newlines are a part of it.
    pub(crate) fn paste(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let before = self.chars.len();
        self.chars.splice(self.cursor..self.cursor, text.chars());
        self.cursor += self.chars.len() - before;
    }

    /// Takes a key; the line, where it is done.
    pub(crate) fn key(&mut self, key: Key) -> Option<String> {
        match key {
            Key::Char(c) => {
                self.chars.insert(self.cursor, c);
                self.cursor += 1;
            }
            Key::Left => self.cursor = self.left(),
            Key::Right => self.cursor = self.right(),
            Key::WordLeft => self.cursor = self.word_left(),
            Key::WordRight => self.cursor = self.word_right(),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.chars.len(),
            Key::Backspace => self.delete_to(self.left()),
            Key::Delete => self.delete_to(self.right()),
            Key::KillToStart => self.delete_to(0),
            Key::KillToEnd => self.delete_to(self.chars.len()),
            Key::KillWord => self.delete_to(self.word_left()),
            Key::Up => self.show(self.shown.unwrap_or(self.history.len()).checked_sub(1)),
            Key::Down => self.show(self.shown.map(|shown| shown + 1)),
            Key::Enter => return Some(self.done()),
        }
        None
    }

    /// What fits into `width` columns around the cursor, and the cursor's column.
    pub(crate) fn view(&self, width: usize) -> (String, usize) {
        let shown: Vec<(char, usize)> =
            self.chars.iter().map(|&c| visible(c)).map(|c| (c, c.width().unwrap_or(0))).collect();
        let columns = |range: &[(char, usize)]| range.iter().map(|(_, width)| width).sum::<usize>();
        let mut start = 0;
        // The cursor itself takes a column.
        while start < self.cursor && columns(&shown[start..self.cursor]) >= width {
            start += 1;
        }
        let mut text = String::new();
        let mut room = width;
        for &(c, columns) in &shown[start..] {
            if columns > room {
                break;
            }
            room -= columns;
            text.push(c);
        }
        (text, columns(&shown[start..self.cursor]))
    }

    fn done(&mut self) -> String {
        let line: String = std::mem::take(&mut self.chars).into_iter().collect();
        self.cursor = 0;
        self.shown = None;
        self.draft.clear();
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.remove(0);
            }
        }
        line
    }

    /// Shows a line of the history; past its end what was being typed.
    fn show(&mut self, index: Option<usize>) {
        let Some(index) = index else { return };
        if self.shown.is_none() {
            self.draft = self.chars.iter().collect();
        }
        self.shown = Some(index).filter(|&index| index < self.history.len());
        let text = self.shown.and_then(|shown| self.history.get(shown)).unwrap_or(&self.draft).clone();
        self.set(&text);
    }

    /// One character to the left, with the marks on it.
    fn left(&self) -> usize {
        let mut at = self.cursor;
        while at > 0 {
            at -= 1;
            if !is_mark(self.chars[at]) {
                break;
            }
        }
        at
    }

    /// One character to the right, with the marks on it.
    fn right(&self) -> usize {
        let rest = self.chars.get(self.cursor + 1..).unwrap_or_default();
        let marks = rest.iter().take_while(|&&c| is_mark(c)).count();
        (self.cursor + 1 + marks).min(self.chars.len())
    }

    fn word_left(&self) -> usize {
        let before = &self.chars[..self.cursor];
        let end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |last| last + 1);
        before[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |space| space + 1)
    }

    fn word_right(&self) -> usize {
        let rest = &self.chars[self.cursor..];
        let spaces = rest.iter().take_while(|c| c.is_whitespace()).count();
        self.cursor + spaces + rest[spaces..].iter().take_while(|c| !c.is_whitespace()).count()
    }

    fn delete_to(&mut self, to: usize) {
        let (from, to) = (self.cursor.min(to), self.cursor.max(to));
        self.chars.drain(from..to);
        self.cursor = from;
    }
}

/// Whether `c` is drawn onto the character before it.
fn is_mark(c: char) -> bool {
    c.width() == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types `keys`, where `<name>` stands for a special key.
    fn typed(keys: &str) -> LineEdit {
        let mut line = LineEdit::default();
        type_keys(&mut line, keys);
        line
    }

    fn type_keys(line: &mut LineEdit, keys: &str) {
        let mut rest = keys;
        while let Some(c) = rest.chars().next() {
            let special = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'));
            let (key, after) = match special {
                Some((name, after)) => (key(name), after),
                None => (Key::Char(c), &rest[c.len_utf8()..]),
            };
            line.key(key);
            rest = after;
        }
    }

    fn key(name: &str) -> Key {
        match name {
            "left" => Key::Left,
            "right" => Key::Right,
            "wl" => Key::WordLeft,
            "wr" => Key::WordRight,
            "home" => Key::Home,
            "end" => Key::End,
            "bs" => Key::Backspace,
            "del" => Key::Delete,
            "u" => Key::KillToStart,
            "k" => Key::KillToEnd,
            "w" => Key::KillWord,
            "up" => Key::Up,
            "down" => Key::Down,
            "enter" => Key::Enter,
            other => panic!("no key {other}"),
        }
    }

    #[test]
    fn keys_edit_the_line() {
        fn check(keys: &str, expected: &str) {
            let line = typed(keys);
            let mut shown: String = line.chars[..line.cursor].iter().collect();
            shown.push('|');
            shown.extend(&line.chars[line.cursor..]);
            assert_eq!(shown, expected, "{keys}");
        }
        check("abc", "abc|");
        check("abc<left>X", "abX|c");
        check("abc<home>X", "X|abc");
        check("abc<home><end>X", "abcX|");
        check("abc<bs>", "ab|");
        check("<bs><del><left><right><w><u><k>", "|");
        check("abc<home><del>", "|bc");
        check("abc<left><del><del>", "ab|");
        check("one two<w>", "one |");
        check("one two  <w><w>", "|");
        check("one two<left><u>", "|o");
        check("one two<wl><k>", "one |");
        check("one two<home><wr>X", "oneX| two");
        check("日本<left>X", "日X|本");
        check("e\u{301}x<left><left>X", "X|e\u{301}x");
        check("e\u{301}<bs>", "|");
        check("e\u{301}x<home><right>X", "e\u{301}X|x");
    }

    #[test]
    fn the_history_goes_up_and_comes_down_to_what_was_being_typed() {
        fn check(keys: &str, expected: &str) {
            assert_eq!(typed(keys).chars.iter().collect::<String>(), expected, "{keys}");
        }
        check("a<enter>b<enter><up>", "b");
        check("a<enter>b<enter><up><up><up>", "a");
        check("a<enter>b<enter>c<up><up><down><down>", "c");
        check("a<enter>b<enter>c<up><down><down>", "c");
        check("<up><down>", "");
        check("a<enter> <enter><up>", "a");
        check("a<enter><up>x<enter><up>", "ax");
    }

    #[test]
    fn a_line_that_is_done_leaves_an_empty_one() {
        let mut line = typed("hello");
        assert_eq!(line.key(Key::Enter), Some("hello".to_owned()));
        assert!(line.is_empty());
        assert_eq!(line.key(Key::Enter), Some(String::new()));
    }

    #[test]
    fn a_long_line_scrolls_with_the_cursor() {
        fn check(keys: &str, width: usize, expected: (&str, usize)) {
            let (text, column) = typed(keys).view(width);
            assert_eq!((text.as_str(), column), expected, "{keys}");
        }
        check("abc", 10, ("abc", 3));
        check("abcdef", 4, ("def", 3));
        check("abcdef<home>", 4, ("abcd", 0));
        check("abcdef<left><left>", 4, ("bcde", 3));
        check("日本語", 5, ("本語", 4));
        check("日本語<home>", 5, ("日本", 0));
        check("", 4, ("", 0));
        check("abc", 0, ("", 0));
        check("abc", 1, ("", 0));
    }

    #[test]
    fn a_paste_keeps_its_newlines_and_shows_them() {
        let mut line = typed("ab<left>");
        line.paste("1\r\n2\x1b");
        assert_eq!(line.view(20), ("a1⏎2␛b".to_owned(), 5));
        assert_eq!(line.key(Key::Enter), Some("a1\n2\x1bb".to_owned()));
    }

    #[test]
    fn a_text_that_comes_back_stands_before_what_was_typed_since() {
        let mut line = typed("new");
        line.put_back("old");
        assert_eq!(line.view(20).0, "old new");
    }
}
