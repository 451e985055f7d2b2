//! Fragments: lines that are larger than a packet, cut into frames and put together again.
//!
//! Only entries and posts are that large. Each piece says which line it is of, where it starts, how long the line is
//! and what it hashes to, so pieces of several lines may arrive mixed, in any order, twice, and over several repetitions
//! of the line: what has arrived is kept. A line is the same line as long as its name, length and hash are.
//!
//! Where there is no place for all lines, those that began first stay: what is repeated is repeated in the same order,
//! and the first is needed first. Were the newest to stay, lines would drive each other out for ever.
//!
//! The receiver keeps only bytes that were sent to it: claiming a great length costs it nothing.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::{
    limits,
    time::Time,
    wire::frame::{Fragment, FragmentOf, Frame},
};

/// How every line begins that is a fragment: `t` comes first.
pub const LINE_START: &[u8] = br#"{"t":"fragment""#;

/// What keeping a piece costs beyond its bytes, about.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// Cuts `line` (with or without its newline) into lines, newline included, each within [`limits::FRAME_BYTES_MAX`].
///
/// The same line is always cut in the same places.
pub fn split(of: FragmentOf, line: &str) -> Vec<String> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let len = u32::try_from(line.len()).expect("lines are far shorter than 4 GiB");
    let mut fragment = Fragment { of, at: len, len, sum: sum(line), piece: String::new() };
    let head = Frame::Fragment(fragment.clone()).to_line().len();
    let room = limits::FRAME_BYTES_MAX - head;
    let mut lines = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(fitting(rest, room));
        fragment.at = len - u32::try_from(rest.len()).expect("shorter than the line");
        piece.clone_into(&mut fragment.piece);
        lines.push(Frame::Fragment(fragment.clone()).to_line());
        rest = after;
    }
    lines
}

/// How many bytes of `text` fit into `room` bytes of JSON, up to the end of a character; at least one character.
fn fitting(text: &str, room: usize) -> usize {
    let mut written = 0;
    for (at, c) in text.char_indices() {
        written += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => c.len_utf8(),
        };
        if written > room && at > 0 {
            return at;
        }
    }
    text.len()
}

/// What [`Fragment::sum`] says of a line.
fn sum(line: &str) -> u32 {
    let hash = Sha256::digest(line.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// A fragment that contradicts itself or others, and is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFragment;

/// Puts the lines of one session together. Holds at most [`limits::FRAGMENTED_LINES_MAX`] lines and
/// [`limits::FRAGMENTS_BYTES_MAX`] bytes; past that a line is forgotten: one that has been said in other words since, else
/// one of which nothing new has come for [`limits::FRAGMENTED_LINE_SPAN_MAX`], else the newest.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Oldest first.
    lines: Vec<Partial>,
}

/// A line of which something is missing.
#[derive(Debug)]
struct Partial {
    of: FragmentOf,
    len: u32,
    sum: u32,
    /// Where each piece starts; they do not overlap, so they are the line once there are `len` bytes of them.
    pieces: BTreeMap<u32, String>,
    held: usize,
    /// When the last new piece came.
    grew: Time,
}

impl Assembler {
    /// Takes a piece; returns the line, without its newline, if it was the last that was missing.
    pub fn take(&mut self, fragment: Fragment, now: Time) -> Result<Option<String>, BadFragment> {
        let len = fragment.len as usize;
        let end = (fragment.at as usize).saturating_add(fragment.piece.len());
        if fragment.piece.is_empty() || end > len || len > limits::FRAGMENTED_LINE_BYTES_MAX {
            return Err(BadFragment);
        }
        let known = self.lines.iter().position(|line| line.is_of(&fragment));
        let index = known.unwrap_or_else(|| {
            self.lines.push(Partial::new(&fragment, now));
            self.lines.len() - 1
        });
        self.lines[index].insert(fragment.at, fragment.piece, now)?;
        if self.lines[index].held == len {
            return self.lines.remove(index).join().map(Some);
        }
        self.make_place(now);
        Ok(None)
    }

    /// Whether nothing is in progress, so that it may as well be dropped.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn make_place(&mut self, now: Time) {
        while self.lines.len() > limits::FRAGMENTED_LINES_MAX || self.cost() > limits::FRAGMENTS_BYTES_MAX {
            let said_again = |at: usize| self.lines[at + 1..].iter().any(|later| later.of == self.lines[at].of);
            let stale = |at: usize| self.lines[at].grew + limits::FRAGMENTED_LINE_SPAN_MAX <= now;
            let all = 0..self.lines.len();
            let least = all.clone().find(|at| said_again(*at)).or_else(|| all.clone().find(|at| stale(*at)));
            self.lines.remove(least.unwrap_or(all.end - 1));
        }
    }

    /// What it holds, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.lines.iter().map(|line| line.held + line.pieces.len() * PIECE_OVERHEAD_BYTES).sum()
    }
}

impl Partial {
    fn new(fragment: &Fragment, now: Time) -> Self {
        let Fragment { of, len, sum, .. } = fragment;
        Self { of: of.clone(), len: *len, sum: *sum, pieces: BTreeMap::new(), held: 0, grew: now }
    }

    fn is_of(&self, fragment: &Fragment) -> bool {
        self.sum == fragment.sum && self.len == fragment.len && self.of == fragment.of
    }

    /// Keeps a piece that is new. One that overlaps others without being one of them is bad.
    fn insert(&mut self, at: u32, piece: String, now: Time) -> Result<(), BadFragment> {
        let end = at as usize + piece.len();
        let before = self.pieces.range(..=at).next_back();
        if before.is_some_and(|(&start, text)| start == at && *text == piece) {
            return Ok(());
        }
        let overlaps_before = before.is_some_and(|(&start, text)| start as usize + text.len() > at as usize);
        let overlaps_after = self.pieces.range(at..).next().is_some_and(|(&start, _)| end > start as usize);
        if overlaps_before || overlaps_after {
            return Err(BadFragment);
        }
        self.grew = now;
        self.held += piece.len();
        self.pieces.insert(at, piece);
        Ok(())
    }

    /// The line, if it is the one that was sent.
    fn join(self) -> Result<String, BadFragment> {
        let mut line = String::with_capacity(self.held);
        line.extend(self.pieces.into_values());
        if sum(&line) == self.sum { Ok(line) } else { Err(BadFragment) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(seq: u64) -> FragmentOf {
        FragmentOf::Post("tea".parse().unwrap(), seq)
    }

    fn pieces(seq: u64, line: &str) -> Vec<Fragment> {
        let lines = split(of(seq), line);
        lines.iter().map(|line| fragment(line)).collect()
    }

    fn fragment(line: &str) -> Fragment {
        assert!(line.as_bytes().starts_with(LINE_START) && line.len() <= limits::FRAME_BYTES_MAX, "{line}");
        match Frame::from_line(line.as_bytes()) {
            Some(Frame::Fragment(fragment)) => fragment,
            other => panic!("{other:?} is no fragment"),
        }
    }

    fn piece(seq: u64, at: u32, len: u32, piece: &str) -> Fragment {
        Fragment { of: of(seq), at, len, sum: 0, piece: piece.into() }
    }

    #[test]
    fn a_line_survives_pieces_that_are_lost_and_repeated_in_any_order() {
        let line = "\u{1}\"\\ö🫖".repeat(2_000);
        let pieces = pieces(1, &line);
        let mut assembler = Assembler::default();
        let (even, odd): (Vec<_>, Vec<_>) = pieces.iter().enumerate().partition(|(i, _)| i % 2 == 0);
        for (_, piece) in even.iter().rev().chain(&even) {
            assert_eq!(assembler.take((*piece).clone(), Time::ZERO), Ok(None));
        }
        let whole: Vec<_> =
            odd.iter().filter_map(|(_, piece)| assembler.take((*piece).clone(), Time::ZERO).unwrap()).collect();
        assert_eq!(whole, [line]);
        assert!(assembler.is_empty());
    }

    #[test]
    fn the_longest_line_fits() {
        let line = "\u{1}\"".repeat(limits::FRAGMENTED_LINE_BYTES_MAX / 2);
        let mut assembler = Assembler::default();
        let whole: Vec<_> =
            pieces(1, &line).into_iter().filter_map(|piece| assembler.take(piece, Time::ZERO).unwrap()).collect();
        assert_eq!(whole, [line]);
    }

    #[test]
    fn a_line_repeated_with_other_words_is_another_line() {
        let (old, new) = (format!("3{}", "x".repeat(2_000)), format!("4{}", "x".repeat(2_000)));
        let mut assembler = Assembler::default();
        assembler.take(pieces(1, &old)[0].clone(), Time::ZERO).unwrap();
        for piece in &pieces(1, &new)[1..] {
            assert_eq!(assembler.take(piece.clone(), Time::ZERO), Ok(None), "pieces of two lines were mixed");
        }
        assert_eq!(assembler.take(pieces(1, &new)[0].clone(), Time::ZERO), Ok(Some(new)));
    }

    #[test]
    fn a_fragment_that_contradicts_itself_or_others_is_dropped() {
        fn check(fragment: &Fragment) {
            let mut assembler = Assembler::default();
            assembler.take(piece(1, 10, 30, "0123456789"), Time::ZERO).unwrap();
            assert_eq!(assembler.take(fragment.clone(), Time::ZERO), Err(BadFragment), "{fragment:?}");
        }
        check(&piece(1, 0, 10, ""));
        check(&piece(1, 5, 10, "012345"));
        check(&piece(1, u32::MAX, u32::MAX, "x"));
        check(&piece(1, 0, u32::MAX, "x"));
        check(&piece(1, 15, 30, "x"));
        check(&piece(1, 5, 30, "012345"));
        check(&piece(1, 10, 30, "x123456789"));
        check(&piece(1, 10, 30, "0"));
        check(&piece(2, 0, 1, "x"));
    }

    /// The lines in progress after a first piece of each of `seqs` has come, at those milliseconds.
    fn in_progress(assembler: &mut Assembler, seqs: impl IntoIterator<Item = u64>, millis: u64) -> Vec<FragmentOf> {
        for seq in seqs {
            assembler.take(piece(seq, 0, 10, "x"), Time::from_micros(millis * 1_000)).unwrap();
        }
        assembler.lines.iter().map(|line| line.of.clone()).collect()
    }

    #[test]
    fn only_so_many_lines_are_kept_the_oldest() {
        let mut assembler = Assembler::default();
        assert_eq!(in_progress(&mut assembler, 0..100, 0), [of(0), of(1), of(2), of(3)]);
        assert_eq!(assembler.lines.len(), limits::FRAGMENTED_LINES_MAX);
        for at in 0..10_000 {
            assembler.take(piece(3, at * 2, 50_000, "x"), Time::ZERO).unwrap();
            assert!(assembler.cost() <= limits::FRAGMENTS_BYTES_MAX);
        }
    }

    #[test]
    fn a_line_that_does_not_grow_or_was_said_again_gives_its_place_to_another() {
        let mut assembler = Assembler::default();
        in_progress(&mut assembler, 0..4, 0);
        assembler.take(piece(1, 5, 10, "x"), Time::from_micros(1_000)).unwrap();
        assert_eq!(in_progress(&mut assembler, [0, 4], 2_999), [of(0), of(1), of(2), of(3)]);
        assert_eq!(in_progress(&mut assembler, [4], 3_000), [of(1), of(2), of(3), of(4)]);
        assembler.take(piece(4, 0, 20, "y"), Time::ZERO).unwrap();
        assert_eq!(assembler.lines.iter().map(|line| line.len).collect::<Vec<_>>(), [10, 10, 10, 20]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_line_survives(line in "\\PC{0,3000}|[\\x00-\\x7f]{0,3000}") {
            let line = line.trim_end_matches('\n');
            let mut assembler = Assembler::default();
            let mut whole = None;
            for piece in pieces(1, line) {
                prop_assert!(whole.is_none());
                whole = assembler.take(piece, Time::ZERO).unwrap();
            }
            prop_assert_eq!(whole.as_deref().unwrap_or_default(), line);
        }
    }
}
