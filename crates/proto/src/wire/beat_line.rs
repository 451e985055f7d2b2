//! Heartbeats as hobnob itself writes them, read at a fifth of the cost.
//!
//! Between servers most lines are beats: each says one to each other, ten times a second. Here one is read that has its
//! fields in our own order and nothing else; any other says `None`, and is left to what reads all frames. What is read here
//! is the same there.

use super::{
    frame::{Beat, Epoch, Heard, Rumour},
    number::{BOOT_BOUND, BOUND},
};
use crate::ids::{Boot, Origin, ServerId};

/// Digits of a number that cannot overflow.
const DIGITS_MAX: usize = 16;

/// The beat that a line says in exactly this form.
pub(super) fn read(line: &[u8]) -> Option<Beat> {
    let mut rest = Rest(line);
    rest.text(br#"{"t":"beat","epoch":{"term":"#)?;
    let term = rest.number(BOUND)?;
    rest.text(br#","leader":"#)?;
    let leader = rest.id()?;
    rest.text(br#","boot":"#)?;
    let epoch = Epoch { term, leader, boot: rest.boot()? };
    rest.text(br#"},"led":"#)?;
    let led = rest.flag()?;
    rest.text(br#","load":"#)?;
    let load = rest.small()?;
    rest.text(br#","lag":"#)?;
    let lag = rest.small()?;
    rest.text(br#","sessions":"#)?;
    let sessions = rest.small()?;
    rest.text(br#","hears":"#)?;
    let hears = rest.list(Rest::heard)?;
    let hearsay = rest.list_if(br#","hearsay":"#, Rest::rumour)?;
    rest.text(br#","eligible":"#)?;
    let eligible = rest.flag()?;
    let may_lead = rest.list_if(br#","may_lead":"#, Rest::id)?;
    rest.text(br#","takes_rooms":"#)?;
    let takes_rooms = rest.flag()?;
    let unwritable = rest.is(br#","unwritable":true"#);
    let probation = rest.list_if(br#","probation":"#, Rest::probation)?;
    rest.text(br#","time":"#)?;
    let time = rest.number(BOUND)?;
    rest.text(br#","directory":"#)?;
    let directory = rest.number(BOUND)?;
    rest.text(br#","clients":"#)?;
    let clients = rest.number(BOUND)?;
    rest.text(br#","logs":"#)?;
    let logs = rest.number(BOUND)?;
    rest.text(b"}")?;
    matches!(rest.0, b"" | b"\n").then_some(Beat {
        epoch,
        led,
        load,
        lag,
        sessions,
        hears,
        hearsay,
        eligible,
        may_lead,
        takes_rooms,
        unwritable,
        probation,
        time,
        directory,
        clients,
        logs,
    })
}

/// What is left of a line.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Goes over this text, if it stands here.
    fn is(&mut self, text: &[u8]) -> bool {
        self.text(text).is_some()
    }

    /// Goes over this text, which has to stand here.
    fn text(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// A number below `bound`. What JSON would not take for an integer is left to what knows JSON.
    fn number(&mut self, bound: u64) -> Option<u64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        if count == 0 || count > DIGITS_MAX || (count > 1 && digits[0] == b'0') {
            return None;
        }
        self.0 = rest;
        let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        (number < bound).then_some(number)
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number(1 << 32)?).ok()
    }

    fn id(&mut self) -> Option<ServerId> {
        self.small().map(ServerId)
    }

    fn boot(&mut self) -> Option<Boot> {
        self.number(BOOT_BOUND).map(Boot)
    }

    fn flag(&mut self) -> Option<bool> {
        let is_true = self.is(b"true");
        (is_true || self.is(b"false")).then_some(is_true)
    }

    /// `id,boot`.
    fn origin(&mut self) -> Option<Origin> {
        let id = self.id()?;
        self.text(b",")?;
        Some(Origin { id, boot: self.boot()? })
    }

    fn heard(&mut self) -> Option<Heard> {
        self.text(b"[")?;
        let peer = self.origin()?;
        self.text(b",")?;
        let age = self.small()?;
        self.text(b",")?;
        let both = self.flag()?;
        self.text(b"]")?;
        Some(Heard { peer, age, both })
    }

    fn rumour(&mut self) -> Option<Rumour> {
        self.text(b"[")?;
        let peer = self.origin()?;
        self.text(b",")?;
        let age = self.small()?;
        self.text(b",")?;
        let hops = u8::try_from(self.small()?).ok()?;
        self.text(b"]")?;
        Some(Rumour { peer, age, hops })
    }

    fn probation(&mut self) -> Option<(ServerId, u32)> {
        self.text(b"[")?;
        let id = self.id()?;
        self.text(b",")?;
        let left = self.small()?;
        self.text(b"]")?;
        Some((id, left))
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.text(b"[")?;
        let mut items = Vec::new();
        if self.is(b"]") {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.is(b"]") {
                return Some(items);
            }
            self.text(b",")?;
        }
    }

    /// A list after this text, or an empty one where that does not stand here.
    fn list_if<T>(&mut self, text: &[u8], item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        if self.is(text) { self.list(item) } else { Some(Vec::new()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Frame;

    fn origins() -> impl Strategy<Value = Origin> {
        (any::<u32>(), 0..BOOT_BOUND).prop_map(|(id, boot)| Origin { id: ServerId(id), boot: Boot(boot) })
    }

    fn beats() -> impl Strategy<Value = Beat> {
        let heard = (origins(), any::<u32>(), any::<bool>()).prop_map(|(peer, age, both)| Heard { peer, age, both });
        let rumour = (origins(), 0..10_000_u32, any::<u8>()).prop_map(|(peer, age, hops)| Rumour { peer, age, hops });
        let lists = (
            prop::collection::vec(heard, 0..4),
            prop::collection::vec(rumour, 0..3),
            prop::collection::vec(any::<u32>().prop_map(ServerId), 0..3),
            prop::collection::vec((any::<u32>().prop_map(ServerId), any::<u32>()), 0..3),
        );
        let numbers = (0..BOUND, any::<u32>(), 0..3_u32, [0..BOUND, 0..BOUND, 0..10, 0..BOUND]);
        (origins(), any::<[bool; 4]>(), numbers, lists).prop_map(|(leader, flags, numbers, lists)| {
            let (term, load, lag, [time, directory, clients, logs]) = numbers;
            let (hears, hearsay, may_lead, probation) = lists;
            let [led, eligible, takes_rooms, unwritable] = flags;
            let epoch = Epoch { term, leader: leader.id, boot: leader.boot };
            Beat {
                epoch,
                led,
                load,
                lag,
                sessions: lag,
                hears,
                hearsay,
                eligible,
                may_lead,
                takes_rooms,
                unwritable,
                probation,
                time,
                directory,
                clients,
                logs,
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_we_write_is_read_here(beat in beats()) {
            let line = Frame::Beat(beat.clone()).to_line();
            prop_assert_eq!(read(line.as_bytes()), Some(beat.clone()), "{}", line);
            prop_assert_eq!(read(line.trim_end().as_bytes()), Some(beat));
        }

        #[test]
        fn what_is_read_here_is_the_same_to_what_reads_all(
            beat in beats(),
            at in any::<prop::sample::Index>(),
            cut in 0..3_usize,
            put in prop::sample::select(vec!["", "0", "9", "-1", ".5", "e3", " ", ",", "[", "]", "}", "true", "00", "\n", "[]"]),
        ) {
            let mut line = Frame::Beat(beat).to_line();
            let at = at.index(line.len());
            line.replace_range(at..line.len().min(at + cut), put);
            let of_all = serde_json::from_str(&line).ok();
            if let Some(beat) = read(line.as_bytes()) {
                let Some(Frame::Beat(other)) = of_all else { panic!("{line} is no beat") };
                prop_assert_eq!(beat, other, "{}", line);
            }
        }
    }

    #[test]
    fn numbers_end_where_they_end_everywhere() {
        fn check(number: &str, expected: Option<u64>) {
            assert_eq!(Rest(number.as_bytes()).number(BOUND), expected, "{number}");
        }
        check("0", Some(0));
        check("9007199254740991", Some(BOUND - 1));
        check("9007199254740992", None);
        check("99999999999999999999", None);
        check("01", None);
        check("-1", None);
        check("", None);
    }
}
