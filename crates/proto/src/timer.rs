//! Deadlines by name: one table for all timers of a state machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Time;

/// At most one deadline for each `K`.
#[derive(Debug)]
pub struct Timers<K> {
    at: BTreeMap<K, Time>,
    queue: BTreeSet<(Time, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { at: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: K, at: Time) {
        self.clear(&timer);
        self.at.insert(timer.clone(), at);
        self.queue.insert((at, timer));
    }

    /// Sets a deadline, or moves it forward; an earlier one stays.
    pub fn hasten(&mut self, timer: K, at: Time) {
        if self.at.get(&timer).is_none_or(|set| at < *set) {
            self.set(timer, at);
        }
    }

    /// Drops a deadline.
    pub fn clear(&mut self, timer: &K) {
        if let Some(at) = self.at.remove(timer) {
            self.queue.remove(&(at, timer.clone()));
        }
    }

    /// Whether a deadline is set.
    pub fn is_set(&self, timer: &K) -> bool {
        self.at.contains_key(timer)
    }

    /// Takes one that is due, the earliest first.
    pub fn pop(&mut self, now: Time) -> Option<K> {
        let (at, timer) = self.queue.first().filter(|(at, _)| *at <= now).cloned()?;
        self.queue.remove(&(at, timer.clone()));
        self.at.remove(&timer);
        Some(timer)
    }

    /// How many deadlines are set.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// How many deadlines are set that `is_one` of those that are asked for.
    pub fn count(&self, is_one: impl Fn(&K) -> bool) -> usize {
        self.at.keys().filter(|timer| is_one(timer)).count()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_due_in_order_and_once() {
        let at = Time::from_micros;
        let mut timers = Timers::default();
        timers.set("late", at(30));
        timers.set("early", at(20));
        timers.hasten("late", at(10));
        timers.hasten("late", at(40));
        timers.set("gone", at(5));
        timers.clear(&"gone");
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!((timers.pop(at(25)), timers.pop(at(25)), timers.pop(at(25))), (Some("late"), Some("early"), None));
        assert!(!timers.is_set(&"late"));
    }
}
