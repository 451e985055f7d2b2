//! Lines that wait for the end of the turn: each text once, whoever gets it, and what each session gets as one number.
//!
//! What sessions get is a tree: each node is a line after those of the nodes above it. Followers of one room get the same
//! lines in the same order, so they come to the same node, and what one more line costs for each of them is a step to
//! the next one. Packets of a node are put together once, and sealed for each. All of it is emptied at once, and nothing
//! is given back or taken anew from turn to turn.

use std::{ops::Range, sync::Arc};

use crate::{
    limits,
    log::{Entry, Hash, room::Kept},
    wire::then,
};

/// Beyond so much it is given back once it has been emptied: a burst is not to be paid for forever.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Bytes of texts, and nodes, in one turn: 16 new leaders' worth.
const TURN_BYTES_MAX: usize = 512 << 20;
const NODES_MAX: usize = 32 << 20;
/// No node.
const NONE: u32 = u32::MAX;

/// Lines, and who gets them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    texts: Vec<u8>,
    lines: Vec<Line>,
    nodes: Vec<Node>,
    /// The entry whose line was put in last.
    last: Option<Arc<Entry>>,
}

/// A text, and the same shortened, to be said directly after another one.
#[derive(Debug)]
struct Line {
    start: u32,
    len: u32,
    /// Of the short form, which stands behind it; 0: there is none.
    short: u32,
    /// The node of nothing but this line.
    root: u32,
    /// Which entry it is, and after which one it may be said in short; of other lines nothing.
    entry: Option<(Hash, Hash)>,
}

/// A line, after those of the node above.
#[derive(Clone, Copy, Debug)]
struct Node {
    above: u32,
    line: u32,
    /// The node below that was made last.
    below: u32,
    /// Of all lines down to here.
    bytes: u32,
}

/// A line that is in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineId(u32);

/// What one session gets in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain(u32);

impl Default for Chain {
    fn default() -> Self {
        Self(NONE)
    }
}

impl Chain {
    /// Whether it is nothing.
    pub(super) fn is_empty(self) -> bool {
        self.0 == NONE
    }
}

impl Outbox {
    /// Puts a line in, with its newline; once, if it is the one that was put in last.
    pub(super) fn put(&mut self, line: &[u8]) -> LineId {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(last) = self.lines.last()
            && self.texts[last.text()].strip_suffix(b"\n") == Some(line)
        {
            return self.last_line();
        }
        self.add(line, None)
    }

    /// Puts the line of an entry in; `before` is the one before it of the same origin, where that is at hand: directly
    /// after that one it is said in short.
    pub(super) fn put_entry(&mut self, kept: &Kept, before: Option<&Entry>) -> LineId {
        if self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &kept.entry)) {
            return self.last_line();
        }
        let full = kept.line.trim_end_matches('\n').as_bytes();
        let after = before.map_or(Hash::default(), |before| before.hash);
        let line = self.add(full, Some((kept.entry.hash, after)));
        if let Some(before) = before {
            let start = self.texts.len();
            if then::shorten(before, &kept.entry, full, &mut self.texts) {
                self.texts.push(b'\n');
                self.lines[line.0 as usize].short = (self.texts.len() - start) as u32;
            }
        }
        self.last = Some(Arc::clone(&kept.entry));
        line
    }

    fn add(&mut self, line: &[u8], entry: Option<(Hash, Hash)>) -> LineId {
        let start = self.texts.len() as u32;
        self.texts.extend_from_slice(line);
        self.texts.push(b'\n');
        self.lines.push(Line { start, len: line.len() as u32 + 1, short: 0, root: NONE, entry });
        self.last = None;
        self.last_line()
    }

    fn last_line(&self) -> LineId {
        LineId((self.lines.len() - 1) as u32)
    }

    /// A session gets that line too.
    pub(super) fn append(&mut self, chain: &mut Chain, line: LineId) {
        let known = match self.nodes.get(chain.0 as usize) {
            Some(node) => node.below,
            None => self.lines[line.0 as usize].root,
        };
        if self.nodes.get(known as usize).is_some_and(|node| node.line == line.0) {
            *chain = Chain(known);
            return;
        }
        let new = self.nodes.len() as u32;
        let bytes = self.bytes(*chain) as u32 + self.lines[line.0 as usize].len;
        match self.nodes.get_mut(chain.0 as usize) {
            Some(node) => node.below = new,
            None => self.lines[line.0 as usize].root = new,
        }
        self.nodes.push(Node { above: chain.0, line: line.0, below: NONE, bytes });
        *chain = Chain(new);
    }

    /// How many bytes the lines of a session have, none of them in short.
    pub(super) fn bytes(&self, chain: Chain) -> usize {
        self.nodes.get(chain.0 as usize).map_or(0, |node| node.bytes as usize)
    }

    /// A line, not in short.
    pub(super) fn text(&self, line: LineId) -> &[u8] {
        &self.texts[self.lines[line.0 as usize].text()]
    }

    /// What a session gets, line by line, none of them in short.
    pub(super) fn lines(&self, chain: Chain) -> impl Iterator<Item = &[u8]> {
        let mut order = Vec::new();
        self.order(chain, &mut order);
        order.into_iter().map(|line| &self.texts[self.lines[line as usize].text()])
    }

    /// The numbers of a session's lines.
    fn order(&self, chain: Chain, order: &mut Vec<u32>) {
        order.clear();
        let mut at = chain.0;
        while let Some(node) = self.nodes.get(at as usize) {
            order.push(node.line);
            at = node.above;
        }
        order.reverse();
    }

    /// Whether a turn has so much to say that no more is taken.
    pub(super) fn is_full(&self) -> bool {
        self.texts.len() >= TURN_BYTES_MAX || self.nodes.len() >= NODES_MAX
    }

    /// Empties it: no chain is to be followed any more.
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.lines.clear();
        self.nodes.clear();
        self.last = None;
        let lists = [self.lines.capacity() * size_of::<Line>(), self.nodes.capacity() * size_of::<Node>()];
        if self.texts.capacity() > KEPT_BYTES_MAX || lists.iter().any(|bytes| *bytes > KEPT_BYTES_MAX) {
            *self = Self::default();
        }
    }
}

impl Line {
    fn text(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }

    fn short(&self) -> Option<Range<usize>> {
        let start = (self.start + self.len) as usize;
        (self.short > 0).then(|| start..start + self.short as usize)
    }
}

/// What packets say that are about to be sealed: that of one session, or of many that are to get the same.
#[derive(Debug, Default)]
pub(super) struct Packets {
    /// One after the other, each with room for as much as fits.
    bytes: Vec<u8>,
    lens: Vec<usize>,
    /// Who gets just that.
    of: Chain,
    order: Vec<u32>,
}

impl Packets {
    /// Puts together what a session gets: lines of its own first, then its chain. Where that was done for another one with
    /// the same chain just before, nothing is done.
    pub(super) fn fill(&mut self, own: Option<&[u8]>, chain: Chain, outbox: &Outbox) {
        if own.is_none() && !chain.is_empty() && self.of == chain {
            return;
        }
        self.forget();
        for line in own.into_iter().flat_map(|own| own.split_inclusive(|byte| *byte == b'\n')) {
            self.push(line, None);
        }
        let mut order = std::mem::take(&mut self.order);
        outbox.order(chain, &mut order);
        let mut before = None;
        for &line in &order {
            let line = &outbox.lines[line as usize];
            let follows = line.entry.is_some_and(|(_, after)| before == Some(after));
            let short = line.short().filter(|_| follows).map(|short| &outbox.texts[short]);
            self.push(&outbox.texts[line.text()], short);
            before = line.entry.map(|(hash, _)| hash);
        }
        self.order = order;
        self.of = if own.is_none() { chain } else { Chain::default() };
        self.even_out();
    }

    /// One after the other.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(limits::PAYLOAD_BYTES_MAX).zip(&self.lens).map(|(packet, len)| &packet[..*len])
    }

    /// Forgets them: the numbers of chains begin anew. What a burst took is given back.
    pub(super) fn clear(&mut self) {
        self.forget();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            *self = Self::default();
        }
    }

    fn forget(&mut self) {
        self.lens.clear();
        self.of = Chain::default();
    }

    /// Adds a line to the last packet, in short if there is something before it, or to a new one.
    fn push(&mut self, full: &[u8], short: Option<&[u8]>) {
        if let Some((last, len)) = self.last()
            && let line = short.filter(|_| *len > 0).unwrap_or(full)
            && let Some(free) = last.get_mut(*len..*len + line.len())
        {
            free.copy_from_slice(line);
            *len += line.len();
            return;
        }
        self.lens.push(0);
        let all = self.lens.len() * limits::PAYLOAD_BYTES_MAX;
        if self.bytes.len() < all {
            self.bytes.resize(all, 0);
        }
        if let Some((last, len)) = self.last()
            && let Some(free) = last.get_mut(..full.len())
        {
            free.copy_from_slice(full);
            *len = full.len();
        }
    }

    fn last(&mut self) -> Option<(&mut [u8], &mut usize)> {
        let at = self.lens.len().checked_sub(1)?;
        let packet = self.bytes.chunks_mut(limits::PAYLOAD_BYTES_MAX).nth(at)?;
        Some((packet, self.lens.last_mut()?))
    }

    /// Fills all but the last up with newlines to the same length, so that they can be handed to the system as one
    /// [`Run`](crate::session::Run): that costs less than the bytes do.
    fn even_out(&mut self) {
        let longest = self.lens.iter().copied().max().unwrap_or(0);
        let Some((_, others)) = self.lens.split_last_mut() else { return };
        for (packet, len) in self.bytes.chunks_mut(limits::PAYLOAD_BYTES_MAX).zip(others) {
            // What is not half full would cost more bytes than it saves time.
            if *len >= longest / 2 {
                packet[*len..longest].fill(b'\n');
                *len = longest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hlc::Hlc,
        ids::{Boot, DeviceId, Origin, PersonId, ServerId},
        log::entry::MESSAGE,
        wire::then::Context,
    };

    fn packets(own: Option<&[u8]>, chain: Chain, outbox: &Outbox) -> Vec<Vec<u8>> {
        let mut packets = Packets::default();
        packets.fill(own, chain, outbox);
        packets.iter().map(<[u8]>::to_vec).collect()
    }

    fn kept(seq: u64, body: usize) -> Kept {
        let mut entry = Entry {
            room: "tea".parse().unwrap(),
            origin: Origin { id: ServerId(2), boot: Boot(1_882_552_126_147_351) },
            seq,
            hlc: Hlc { millis: 1_795_341_723_456 + seq, counter: 0 },
            from: "anna".parse().unwrap(),
            person: PersonId([7; 16]),
            device: DeviceId(9),
            client_seq: seq,
            kind: MESSAGE.into(),
            body: "x".repeat(body).into(),
            hash: Hash::default(),
        };
        entry.hash = entry.digest();
        entry.into()
    }

    #[test]
    fn what_a_burst_took_is_given_back() {
        fn check(lines: usize, expected: bool) {
            let (mut outbox, mut packets, mut chain) = (Outbox::default(), Packets::default(), Chain::default());
            for line in 0..lines {
                let put = outbox.put(format!("{line:1000}").as_bytes());
                outbox.append(&mut chain, put);
            }
            packets.fill(None, chain, &outbox);
            packets.clear();
            outbox.clear();
            assert_eq!([packets.bytes.capacity() == 0, outbox.texts.capacity() == 0], [expected; 2], "{lines}");
        }
        check(10, false);
        check(2_000, true);
    }

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
        assert_eq!(packets(None, first, &outbox), [b"for both\nfor one\n"]);
        assert_eq!(packets(None, second, &outbox), [b"for one\nfor both\n"]);
        assert_eq!(packets(Some(b"before\n"), second, &outbox), [b"before\nfor one\nfor both\n"]);
        assert_eq!(outbox.lines(first).collect::<Vec<_>>().concat(), b"for both\nfor one\n");
        assert_eq!((outbox.bytes(first), outbox.bytes(Chain::default())), (17, 0));
        assert!(packets(None, Chain::default(), &outbox).is_empty());
        outbox.clear();
        assert_eq!((outbox.texts.len(), outbox.nodes.len(), outbox.is_full()), (0, 0, false));
    }

    #[test]
    fn what_many_get_is_kept_and_put_together_once() {
        let mut outbox = Outbox::default();
        let mut chains = [Chain::default(); 3];
        for text in ["hello\n", "hello", "you"] {
            let line = outbox.put(text.as_bytes());
            for chain in &mut chains {
                outbox.append(chain, line);
            }
        }
        assert_eq!((outbox.texts.len(), outbox.lines.len(), outbox.nodes.len()), (10, 2, 3));
        assert_eq!(chains, [chains[0]; 3]);
        let mut packets = Packets::default();
        packets.fill(None, chains[0], &outbox);
        let at = packets.bytes.as_ptr();
        packets.bytes[0] = b'H';
        packets.fill(None, chains[1], &outbox);
        assert_eq!((packets.bytes.as_ptr(), packets.bytes[0]), (at, b'H'), "it is not put together again");
        packets.clear();
        packets.fill(None, chains[1], &outbox);
        assert_eq!(packets.iter().collect::<Vec<_>>(), [b"hello\nhello\nyou\n"]);
    }

    #[test]
    fn an_entry_is_said_in_short_behind_the_one_before_it() {
        let mut outbox = Outbox::default();
        let all: Vec<_> = (1..=12).map(|seq| kept(seq, 120)).collect();
        let mut chain = Chain::default();
        for (at, kept) in all.iter().enumerate() {
            let line = outbox.put_entry(kept, at.checked_sub(1).map(|before| &*all[before].entry));
            assert_eq!(line, outbox.put_entry(kept, None), "it is in there once");
            outbox.append(&mut chain, line);
        }
        let packets = packets(None, chain, &outbox);
        assert_eq!(packets.len(), 3, "five of them fit one packet, where three did in full");
        let mut seen = Vec::new();
        for packet in &packets {
            let mut lines = packet.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let first = lines.next().unwrap();
            let mut context = Context::of_line(first).unwrap();
            seen.push(first.to_vec());
            for line in lines {
                let (next, full) = context.expand(line).unwrap();
                context = next;
                seen.push(full);
            }
        }
        let expected: Vec<_> = all.iter().map(|kept| kept.line.trim_end().as_bytes().to_vec()).collect();
        assert_eq!(seen, expected);
        assert_eq!(outbox.lines(chain).count(), 12);
    }

    #[test]
    fn behind_anything_else_an_entry_is_said_in_full() {
        let mut outbox = Outbox::default();
        let all: Vec<_> = (1..=3).map(|seq| kept(seq, 20)).collect();
        let [one, two, three] = &all[..] else { unreachable!() };
        let lines = [outbox.put_entry(one, None), outbox.put_entry(two, Some(&one.entry))];
        let three_line = outbox.put_entry(three, Some(&two.entry));
        let other = outbox.put(b"other");
        let mut check = |order: &[LineId], expected: &[bool]| {
            let mut chain = Chain::default();
            for line in order {
                outbox.append(&mut chain, *line);
            }
            let packets = packets(None, chain, &outbox).concat();
            let short = packets.split_inclusive(|byte| *byte == b'\n').map(|line| line.starts_with(then::LINE_START));
            assert_eq!(short.collect::<Vec<_>>(), expected);
        };
        check(&[lines[0], lines[1], three_line], &[false, true, true]);
        check(&[lines[0], three_line], &[false, false]);
        check(&[lines[0], other, lines[1]], &[false, false, false]);
        check(&[lines[1], lines[0]], &[false, false]);
        check(&[lines[1], three_line, lines[1]], &[false, true, false]);
    }

    #[test]
    fn all_packets_but_the_last_are_of_one_length() {
        fn check(lines: &[usize], expected: &[usize]) {
            let mut outbox = Outbox::default();
            let mut chain = Chain::default();
            for (at, len) in lines.iter().enumerate() {
                let line = outbox.put(&vec![b'a' + at as u8; len - 1]);
                outbox.append(&mut chain, line);
            }
            let packets = packets(None, chain, &outbox);
            assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{lines:?}");
            let said: usize = packets.iter().flatten().filter(|byte| **byte != b'\n').count();
            assert_eq!(said, lines.iter().map(|len| len - 1).sum::<usize>(), "{lines:?}");
        }
        check(&[600, 600], &[1200]);
        check(&[600, 601], &[601, 601]);
        check(&[1000, 900, 50, 1100, 20], &[1120, 1120, 1120]);
        check(&[1000, 1100, 300], &[1100, 1100, 300]);
        check(&[400, 1000], &[400, 1000]);
        check(&[1200, 1200, 7], &[1200, 1200, 7]);
    }
}
