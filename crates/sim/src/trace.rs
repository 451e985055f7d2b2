//! The trace of a run: a line for each thing that happens, and a hash of them all.
//!
//! The hash covers every line, printed or not, and the lines of packets carry a hash of their bytes: two runs with equal
//! hashes did the same to the last bit.

use std::{
    fmt,
    io::Write,
    net::{IpAddr, SocketAddr},
};

use hobnob_proto::time::Time;

use crate::host::Datagram;

/// What is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    #[default]
    None,
    /// Faults, what people do, what they and the operators are told.
    Story,
    /// Every packet and every new entry of a log too.
    All,
}

/// The trace of one run, in the making.
#[derive(Debug)]
pub struct Trace {
    detail: Detail,
    hash: Fnv,
    lines: u64,
    line: String,
}

impl Trace {
    /// A trace that prints so much to standard output.
    pub fn new(detail: Detail) -> Self {
        Self { detail, hash: Fnv::default(), lines: 0, line: String::new() }
    }

    /// A line that tells the story.
    pub fn story(&mut self, now: Time, what: fmt::Arguments<'_>) {
        self.line(Detail::Story, now, what);
    }

    /// A line that only matters to who looks closely.
    pub fn detail(&mut self, now: Time, what: fmt::Arguments<'_>) {
        self.line(Detail::All, now, what);
    }

    /// A packet arrives. Most lines are of packets: unless it is printed, its numbers are hashed and no line is written.
    pub fn packet(&mut self, now: Time, (from, to): (SocketAddr, SocketAddr), bytes: &Datagram) {
        let hash = bytes.hash();
        if self.detail >= Detail::All {
            let what = format_args!("{to} gets {} bytes {hash:016x} from {from}", bytes.len());
            self.print(now, what);
        }
        self.lines += 1;
        self.hash.number(now.as_micros());
        self.hash.number(hash);
        for addr in [from, to] {
            let IpAddr::V4(ip) = addr.ip() else { continue };
            self.hash.number(u64::from(ip.to_bits()) << 16 | u64::from(addr.port()));
        }
    }

    /// The hash of all lines so far.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// How many lines there are so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    fn line(&mut self, detail: Detail, now: Time, what: fmt::Arguments<'_>) {
        self.write(now, what);
        self.hash.update(self.line.as_bytes());
        self.lines += 1;
        if detail <= self.detail {
            self.say();
        }
    }

    fn print(&mut self, now: Time, what: fmt::Arguments<'_>) {
        self.write(now, what);
        self.say();
    }

    fn write(&mut self, now: Time, what: fmt::Arguments<'_>) {
        use fmt::Write as _;

        self.line.clear();
        let (secs, micros) = (now.as_micros() / 1_000_000, now.as_micros() % 1_000_000);
        writeln!(self.line, "{secs:4}.{micros:06} {what}").expect("a String takes everything");
    }

    fn say(&self) {
        // Whoever stops reading the story does not want the rest of it.
        let _ = std::io::stdout().write_all(self.line.as_bytes());
    }
}

/// FNV-1a over 64 bits (Fowler, Noll, Vo): not against an enemy, only against chance.
#[derive(Clone, Copy, Debug)]
pub struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Takes a number.
    pub fn number(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x0100_0000_01b3);
        // A product carries upwards only: so the upper half goes into the lower one.
        self.0 = product ^ (product >> 32);
    }

    /// The hash of these bytes alone.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.update(bytes);
        hash.0
    }

    /// A hash of a packet: eight bytes at a time, since packets are hashed more than anything else. Two of one length that
    /// differ in one place never have the same.
    pub fn of_packet(bytes: &[u8]) -> u64 {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut hash = Self(Self::default().0 ^ bytes.len() as u64);
        for word in words {
            hash.number(u64::from_le_bytes(*word));
        }
        hash.update(rest);
        hash.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        fn check(bytes: &[u8], expected: u64) {
            assert_eq!(Fnv::of(bytes), expected);
        }
        check(b"", 0xcbf2_9ce4_8422_2325);
        check(b"a", 0xaf63_dc4c_8601_ec8c);
        check(b"foobar", 0x8594_4171_f739_67e8);
    }

    #[test]
    fn every_bit_and_the_length_of_a_packet_count_in_its_hash() {
        let packet: Vec<u8> = (0..21).collect();
        let bent = (0..packet.len() * 8).map(|bit| {
            let mut bent = packet.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            bent
        });
        let shorter = (0..packet.len()).map(|len| packet[..len].to_vec());
        let mut hashes: Vec<_> =
            bent.chain(shorter).chain([packet.clone()]).map(|bytes| Fnv::of_packet(&bytes)).collect();
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn a_line_that_is_not_printed_counts_in_the_hash() {
        let (mut one, mut other) = (Trace::new(Detail::None), Trace::new(Detail::None));
        one.detail(Time::ZERO, format_args!("x"));
        other.detail(Time::from_micros(1), format_args!("x"));
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.lines(), 1);
    }

    #[test]
    fn everything_of_a_packet_counts_in_the_hash() {
        let hash = |millis: u64, from: &str, to: &str, bytes: &[u8]| {
            let mut trace = Trace::new(Detail::None);
            let bytes = Datagram::new(bytes.to_vec());
            trace.packet(Time::from_micros(millis), (from.parse().unwrap(), to.parse().unwrap()), &bytes);
            trace.hash()
        };
        let (one, other) = ("10.0.0.1:5001", "10.0.0.2:5001");
        let hashes = [
            hash(1, one, other, b"x"),
            hash(2, one, other, b"x"),
            hash(1, other, one, b"x"),
            hash(1, one, "10.0.0.2:5002", b"x"),
            hash(1, one, other, b"y"),
        ];
        assert!((1..hashes.len()).all(|n| !hashes[..n].contains(&hashes[n])), "{hashes:x?}");
    }
}
