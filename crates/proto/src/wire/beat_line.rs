//! Heartbeats as hobnob itself writes them, written and read at a fifth of the cost.
//!
//! Between servers most lines are beats: each says one to each other, ten times a second. Here one is written to the byte as
//! serde writes it, and one is read that has its fields in our own order and nothing else; any other says `None`, and is left
//! to what reads all frames. What is read here is the same there.

use super::{
    frame::{Beat, Epoch, Heard, Rumour},
    number::BOUND,
    reader::Reader,
};
use crate::{
    ids::{Origin, ServerId},
    text,
};

/// Bytes of a beat beside its lists, mostly.
const AROUND_BYTES: usize = 320;
/// Bytes of a server that is heard, mostly.
const HEARD_BYTES: usize = 40;

/// The line of [`Frame::Beat`](super::Frame::Beat), newline included.
pub(super) fn write(beat: &Beat) -> String {
    let lists = HEARD_BYTES * (beat.hears.len() + beat.hearsay.len() + beat.probation.len());
    let mut line = Line(Vec::with_capacity(AROUND_BYTES + lists));
    line.number(r#"{"t":"beat","epoch":{"term":"#, beat.epoch.term);
    line.number(r#","leader":"#, beat.epoch.leader.0.into());
    line.number(r#","boot":"#, beat.epoch.boot.0);
    line.0.push(b'}');
    line.flag(r#","led":"#, beat.led);
    line.number(r#","load":"#, beat.load.into());
    line.number(r#","lag":"#, beat.lag.into());
    line.number(r#","sessions":"#, beat.sessions.into());
    line.list(r#","hears":["#, &beat.hears, |line, heard| {
        line.origin(heard.peer);
        line.number(",", heard.age.into());
        line.flag(",", heard.both);
        line.0.push(b']');
    });
    if !beat.hearsay.is_empty() {
        line.list(r#","hearsay":["#, &beat.hearsay, |line, rumour| {
            line.origin(rumour.peer);
            line.number(",", rumour.age.into());
            line.number(",", rumour.hops.into());
            line.0.push(b']');
        });
    }
    line.flag(r#","eligible":"#, beat.eligible);
    if !beat.may_lead.is_empty() {
        line.list(r#","may_lead":["#, &beat.may_lead, |line, id| line.number("", id.0.into()));
    }
    line.flag(r#","takes_rooms":"#, beat.takes_rooms);
    if beat.unwritable {
        line.flag(r#","unwritable":"#, true);
    }
    if !beat.probation.is_empty() {
        line.list(r#","probation":["#, &beat.probation, |line, (id, left)| {
            line.number("[", id.0.into());
            line.number(",", (*left).into());
            line.0.push(b']');
        });
    }
    line.number(r#","time":"#, beat.time);
    line.number(r#","directory":"#, beat.directory);
    line.number(r#","clients":"#, beat.clients);
    line.number(r#","logs":"#, beat.logs);
    line.0.extend_from_slice(b"}\n");
    String::from_utf8(line.0).expect("digits and what stands here are text")
}

/// A line in the making. Each part comes with the text before it.
struct Line(Vec<u8>);

impl Line {
    fn number(&mut self, before: &str, number: u64) {
        self.0.extend_from_slice(before.as_bytes());
        self.0.extend_from_slice(text::decimal(number, &mut [0; 20]));
    }

    fn flag(&mut self, before: &str, flag: bool) {
        self.0.extend_from_slice(before.as_bytes());
        self.0.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    /// `[id,boot`: the beginning of a list.
    fn origin(&mut self, origin: Origin) {
        self.number("[", origin.id.0.into());
        self.number(",", origin.boot.0);
    }

    fn list<T>(&mut self, before: &str, items: &[T], push: impl Fn(&mut Self, &T)) {
        self.0.extend_from_slice(before.as_bytes());
        for (n, item) in items.iter().enumerate() {
            if n > 0 {
                self.0.push(b',');
            }
            push(self, item);
        }
        self.0.push(b']');
    }
}

/// The beat that a line says in exactly this form.
pub(super) fn read(line: &[u8]) -> Option<Beat> {
    let mut reader = Reader(line);
    reader.skip(br#"{"t":"beat","epoch":{"term":"#)?;
    let term = reader.number(BOUND)?;
    reader.skip(br#","leader":"#)?;
    let leader = reader.id()?;
    reader.skip(br#","boot":"#)?;
    let epoch = Epoch { term, leader, boot: reader.boot()? };
    reader.skip(br#"},"led":"#)?;
    let led = reader.flag()?;
    reader.skip(br#","load":"#)?;
    let load = reader.small()?;
    reader.skip(br#","lag":"#)?;
    let lag = reader.small()?;
    reader.skip(br#","sessions":"#)?;
    let sessions = reader.small()?;
    reader.skip(br#","hears":"#)?;
    let hears = reader.list(Reader::heard)?;
    let hearsay = reader.list_if(br#","hearsay":"#, Reader::rumour)?;
    reader.skip(br#","eligible":"#)?;
    let eligible = reader.flag()?;
    let may_lead = reader.list_if(br#","may_lead":"#, Reader::id)?;
    reader.skip(br#","takes_rooms":"#)?;
    let takes_rooms = reader.flag()?;
    let unwritable = reader.has(br#","unwritable":true"#);
    let probation = reader.list_if(br#","probation":"#, Reader::probation)?;
    reader.skip(br#","time":"#)?;
    let time = reader.number(BOUND)?;
    reader.skip(br#","directory":"#)?;
    let directory = reader.number(BOUND)?;
    reader.skip(br#","clients":"#)?;
    let clients = reader.number(BOUND)?;
    reader.skip(br#","logs":"#)?;
    let logs = reader.number(BOUND)?;
    reader.end()?;
    Some(Beat {
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

impl Reader<'_> {
    fn heard(&mut self) -> Option<Heard> {
        self.skip(b"[")?;
        let peer = self.origin()?;
        self.skip(b",")?;
        let age = self.small()?;
        self.skip(b",")?;
        let both = self.flag()?;
        self.skip(b"]")?;
        Some(Heard { peer, age, both })
    }

    fn rumour(&mut self) -> Option<Rumour> {
        self.skip(b"[")?;
        let peer = self.origin()?;
        self.skip(b",")?;
        let age = self.small()?;
        self.skip(b",")?;
        let hops = u8::try_from(self.small()?).ok()?;
        self.skip(b"]")?;
        Some(Rumour { peer, age, hops })
    }

    fn probation(&mut self) -> Option<(ServerId, u32)> {
        self.skip(b"[")?;
        let id = self.id()?;
        self.skip(b",")?;
        let left = self.small()?;
        self.skip(b"]")?;
        Some((id, left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::Boot,
        wire::{Frame, number::BOOT_BOUND},
    };

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
            let frame = Frame::Beat(beat.clone());
            let line = frame.to_line();
            prop_assert_eq!(&line, &(serde_json::to_string(&frame).unwrap() + "\n"));
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
}
