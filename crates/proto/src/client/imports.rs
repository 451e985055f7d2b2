//! Lines of an import that are not answered: each is repeated until the server has said what became of it.
//!
//! They are sent in their order, but a packet may get lost or be overtaken; so "an earlier entry is missing" is only
//! believed of a line that was sent when nothing earlier of its origin was under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    client::{api::Event, repeat::Repeat},
    time::{Duration, Time},
    wire::import::{Import, Item, Outcome},
};

/// The first repetition, and the longest interval: a disk may take its time.
const FIRST: Duration = Duration::from_millis(300);
const MAX: Duration = Duration::from_secs(3);

/// All lines that are not answered.
#[derive(Debug, Default)]
pub(super) struct Imports(BTreeMap<u64, Open>);

#[derive(Debug)]
struct Open {
    import: Import,
    /// `None` until it is sent to the present server, and where it is to be sent again at once.
    repeat: Option<Repeat>,
    /// Whether something earlier of its origin was under way when it was sent last.
    follows: bool,
}

impl Imports {
    /// Takes lines. One with a number that is in use takes that one's place.
    pub(super) fn push(&mut self, lines: Vec<Import>) {
        let open = |import: Import| (import.n, Open { import, repeat: None, follows: false });
        self.0.extend(lines.into_iter().map(open));
    }

    /// A server serves us from now on: it is sent everything again.
    pub(super) fn moved(&mut self) {
        for open in self.0.values_mut() {
            open.repeat = None;
        }
    }

    /// The lines that are due.
    pub(super) fn poll(&mut self, now: Time) -> Vec<Import> {
        if self.deadline().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let (mut due, mut parts) = (Vec::new(), BTreeSet::new());
        for open in self.0.values_mut() {
            let is_first = match &open.import.what {
                Item::Entry(entry) => parts.insert((entry.room.clone(), entry.origin)),
                Item::Room(_) => true,
            };
            if open.repeat.get_or_insert(Repeat::new(FIRST, MAX, now)).poll(now) {
                open.follows = !is_first;
                due.push(open.import.clone());
            }
        }
        due
    }

    /// The server says what became of lines.
    pub(super) fn imported(&mut self, lines: &[(u64, u64, Outcome)], events: &mut VecDeque<Event>) {
        for &(first, last, outcome) in lines.iter().filter(|(first, last, _)| first <= last) {
            let said: Vec<u64> = self.0.range(first..=last).map(|(n, _)| *n).collect();
            for n in said {
                match self.0.get_mut(&n) {
                    Some(open) if outcome == Outcome::Hole && open.follows => open.repeat = None,
                    _ => {
                        self.0.remove(&n);
                        events.push_back(Event::Imported { n, outcome });
                    }
                }
            }
        }
    }

    /// When the next is due; at once where one has not been sent.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.0.values().map(|open| open.repeat.map_or(Time::ZERO, |repeat| repeat.at)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hlc::Hlc,
        ids::{Boot, DeviceId, Origin, PersonId, RoomName, ServerId},
        log::{Entry, Hash},
    };

    fn line(n: u64, seq: u64) -> Import {
        let entry = Entry {
            room: RoomName::lobby(),
            origin: Origin { id: ServerId(1), boot: Boot(1) },
            seq,
            hlc: Hlc::default(),
            from: "anna".parse().unwrap(),
            person: PersonId([1; 16]),
            device: DeviceId(1),
            client_seq: 1,
            kind: "message".into(),
            body: "hello".into(),
            hash: Hash::default(),
        };
        Import { n, what: Item::Entry(entry), floor: 0 }
    }

    fn sent(imports: &mut Imports, at_ms: u64) -> Vec<u64> {
        imports.poll(Time::from_micros(at_ms * 1_000)).iter().map(|import| import.n).collect()
    }

    fn told(imports: &mut Imports, lines: &[(u64, u64, Outcome)]) -> Vec<(u64, Outcome)> {
        let mut events = VecDeque::new();
        imports.imported(lines, &mut events);
        events
            .into_iter()
            .map(|event| match event {
                Event::Imported { n, outcome } => (n, outcome),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_line_is_repeated_until_it_is_answered_and_answered_once() {
        let mut imports = Imports::default();
        imports.push(vec![line(4, 1), line(5, 2), line(7, 3)]);
        assert_eq!(sent(&mut imports, 0), [4, 5, 7]);
        assert_eq!(sent(&mut imports, 200), [0; 0]);
        assert_eq!(told(&mut imports, &[(1, 5, Outcome::Kept)]), [(4, Outcome::Kept), (5, Outcome::Kept)]);
        assert_eq!(told(&mut imports, &[(1, 5, Outcome::Known), (7, 2, Outcome::Known)]), []);
        assert_eq!(sent(&mut imports, 300), [7]);
        assert_eq!(told(&mut imports, &[(0, u64::MAX, Outcome::Known)]), [(7, Outcome::Known)]);
        assert_eq!((sent(&mut imports, 9_000), imports.deadline()), (vec![], None));
    }

    #[test]
    fn a_hole_is_believed_only_where_nothing_earlier_was_under_way() {
        let mut imports = Imports::default();
        imports.push(vec![line(1, 1), line(2, 2)]);
        assert_eq!(sent(&mut imports, 0), [1, 2]);
        assert_eq!(told(&mut imports, &[(2, 2, Outcome::Hole)]), []);
        assert_eq!(told(&mut imports, &[(1, 1, Outcome::Kept)]), [(1, Outcome::Kept)]);
        assert_eq!(sent(&mut imports, 10), [2]);
        assert_eq!(told(&mut imports, &[(2, 2, Outcome::Hole)]), [(2, Outcome::Hole)]);
    }
}
