//! Questions that are not answered in full: each is repeated; the parts of its answer are given out in order, once.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    client::{api::Event, repeat::Repeat},
    time::{Duration, Time},
    wire::{Frame, frame::Ask},
};

/// The first repetition.
const FIRST: Duration = Duration::from_millis(300);
/// The longest interval.
const MAX: Duration = Duration::from_secs(5);
/// Parts that wait for an earlier one.
const EARLY_PARTS_MAX: usize = 256;

/// All open questions.
#[derive(Debug, Default)]
pub(super) struct Asks(BTreeMap<u64, Open>);

#[derive(Debug)]
struct Open {
    ask: Ask,
    /// `None` until it is sent to the present server.
    repeat: Option<Repeat>,
    /// The number of the next part to give out.
    next: u32,
    /// Parts that came too early.
    early: BTreeMap<u32, (serde_json::Value, bool)>,
}

impl Asks {
    /// Takes a question. One with a number that is in use takes that one's place.
    pub(super) fn push(&mut self, id: u64, ask: Ask) {
        self.0.insert(id, Open { ask, repeat: None, next: 0, early: BTreeMap::new() });
    }

    /// A server serves us from now on: it is asked everything again, but parts that were given out are not again.
    pub(super) fn moved(&mut self) {
        for open in self.0.values_mut() {
            open.repeat = None;
        }
    }

    /// The questions that are due.
    pub(super) fn poll(&mut self, now: Time) -> Vec<Frame> {
        let open = self.0.iter_mut();
        let due = open.filter_map(|(id, open)| {
            let due = open.repeat.get_or_insert(Repeat::new(FIRST, MAX, now)).poll(now);
            due.then(|| Frame::Ask { id: *id, ask: open.ask.clone() })
        });
        due.collect()
    }

    /// A part of an answer.
    pub(super) fn answer(
        &mut self,
        id: u64,
        part: u32,
        last: bool,
        data: serde_json::Value,
        events: &mut VecDeque<Event>,
    ) {
        let Some(open) = self.0.get_mut(&id) else { return };
        if part < open.next || (part > open.next && open.early.len() >= EARLY_PARTS_MAX) {
            return;
        }
        open.early.insert(part, (data, last));
        while let Some((data, last)) = open.early.remove(&open.next) {
            open.next = open.next.saturating_add(1);
            events.push_back(Event::Answer { id, data, last });
            if last {
                self.0.remove(&id);
                return;
            }
        }
    }

    /// A question that cannot be answered.
    pub(super) fn error(&mut self, id: u64, why: String, events: &mut VecDeque<Event>) {
        if self.0.remove(&id).is_some() {
            events.push_back(Event::AnswerError { id, why });
        }
    }

    /// Since when the oldest question waits.
    pub(super) fn waiting_since(&self) -> Option<Time> {
        self.0.values().filter_map(|open| Some(open.repeat?.since)).min()
    }

    /// When the next is due; at once where one has not been sent.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.0.values().map(|open| open.repeat.map_or(Time::ZERO, |repeat| repeat.at)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_given_out_in_order_and_once() {
        fn check(arrivals: &[(u32, bool)], expected: &[u64]) {
            let (mut asks, mut events) = (Asks::default(), VecDeque::new());
            asks.push(4, Ask::Rooms);
            for &(part, last) in arrivals {
                asks.answer(4, part, last, part.into(), &mut events);
            }
            let parts: Vec<_> = events
                .iter()
                .map(|event| match event {
                    Event::Answer { id: 4, data, .. } => data.as_u64().unwrap(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(parts, expected, "{arrivals:?}");
        }
        check(&[(0, false), (1, true)], &[0, 1]);
        check(&[(2, true), (1, false), (1, false), (0, false), (0, false)], &[0, 1, 2]);
        check(&[(0, true), (0, true), (1, true)], &[0]);
        check(&[(u32::MAX, true)], &[]);
    }

    #[test]
    fn a_question_is_repeated_until_it_is_answered() {
        let (mut asks, mut events) = (Asks::default(), VecDeque::new());
        asks.push(4, Ask::Rooms);
        let due: Vec<_> = (0..1_000).filter(|ms| !asks.poll(Time::from_micros(ms * 1_000)).is_empty()).collect();
        assert_eq!(due, [0, 300, 900]);
        asks.error(4, "no".into(), &mut events);
        asks.error(4, "no".into(), &mut events);
        assert_eq!((events.len(), asks.deadline()), (1, None));
    }
}
