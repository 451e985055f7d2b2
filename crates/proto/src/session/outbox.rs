//! Lines that wait for the end of the turn: each text once, whoever gets it, and a chain of them for each session.
//!
//! A line for a thousand followers is copied in here once; what each of them costs until it is sealed is a link of eight
//! bytes. All of it is emptied at once, and nothing is given back or taken anew from turn to turn.

use std::ops::Range;

/// Beyond so much it is given back once it has been emptied: a burst is not to be paid for forever.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Bytes of texts, and lines of sessions, in one turn: 16 new leaders' worth.
const TURN_BYTES_MAX: usize = 512 << 20;
const LINKS_MAX: usize = 64 << 20;
/// Nothing follows.
const END: u32 = u32::MAX;

/// Lines, and who gets them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    texts: Vec<u8>,
    lines: Vec<Range<u32>>,
    links: Vec<Link>,
}

/// A line that a session gets, and what it gets next.
#[derive(Clone, Copy, Debug)]
struct Link {
    line: u32,
    next: u32,
}

/// A line that is in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineId(u32);

/// What one session gets in this turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
    bytes: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self { first: END, last: END, bytes: 0 }
    }
}

impl Chain {
    /// How many bytes that is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Whether it is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.first == END
    }
}

impl Outbox {
    /// Puts a line in, with its newline; once, if it is the one that was put in last.
    pub(super) fn put(&mut self, line: &[u8]) -> LineId {
        if let Some(last) = self.lines.last()
            && let Some(text) = self.texts.get(last.start as usize..last.end as usize)
            && line.strip_suffix(b"\n").unwrap_or(line) == &text[..text.len() - 1]
        {
            return LineId((self.lines.len() - 1) as u32);
        }
        let start = self.texts.len() as u32;
        self.texts.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            self.texts.push(b'\n');
        }
        self.lines.push(start..self.texts.len() as u32);
        LineId((self.lines.len() - 1) as u32)
    }

    /// A session gets that line too.
    pub(super) fn append(&mut self, chain: &mut Chain, line: LineId) {
        let at = self.links.len() as u32;
        self.links.push(Link { line: line.0, next: END });
        match self.links.get_mut(chain.last as usize).filter(|_| !chain.is_empty()) {
            Some(last) => last.next = at,
            None => chain.first = at,
        }
        chain.last = at;
        chain.bytes += self.lines[line.0 as usize].len() as u32;
    }

    /// What a session gets, line by line.
    pub(super) fn lines(&self, chain: Chain) -> impl Iterator<Item = &[u8]> {
        let mut at = chain.first;
        std::iter::from_fn(move || {
            let link = self.links.get(at as usize)?;
            at = link.next;
            let line = &self.lines[link.line as usize];
            Some(&self.texts[line.start as usize..line.end as usize])
        })
    }

    /// Whether a turn has so much to say that no more is taken.
    pub(super) fn is_full(&self) -> bool {
        self.texts.len() >= TURN_BYTES_MAX || self.links.len() >= LINKS_MAX
    }

    /// Empties it: no chain is to be followed any more.
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.lines.clear();
        self.links.clear();
        if self.texts.capacity() > KEPT_BYTES_MAX || self.links.capacity() * size_of::<Link>() > KEPT_BYTES_MAX {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_gets_its_lines_in_order() {
        let mut outbox = Outbox::default();
        let (mut first, mut second) = (Chain::default(), Chain::default());
        let shared = outbox.put(b"for both");
        let own = outbox.put(b"for one\n");
        outbox.append(&mut first, shared);
        outbox.append(&mut second, own);
        outbox.append(&mut first, own);
        outbox.append(&mut second, shared);
        let seen = |chain| outbox.lines(chain).collect::<Vec<_>>().concat();
        assert_eq!(seen(first), b"for both\nfor one\n");
        assert_eq!(seen(second), b"for one\nfor both\n");
        assert_eq!((first.bytes(), seen(Chain::default()).len()), (17, 0));
        outbox.clear();
        assert_eq!((outbox.texts.len(), outbox.links.len(), outbox.is_full()), (0, 0, false));
    }

    #[test]
    fn a_line_for_many_is_kept_once() {
        let mut outbox = Outbox::default();
        let mut chains = [Chain::default(); 3];
        for (chain, line) in chains.iter_mut().zip(["hello\n", "hello", "hell"]) {
            let line = outbox.put(line.as_bytes());
            outbox.append(chain, line);
        }
        assert_eq!((outbox.texts.len(), outbox.lines.len()), (11, 2));
        assert_eq!(outbox.lines(chains[1]).collect::<Vec<_>>(), [b"hello\n"]);
    }
}
