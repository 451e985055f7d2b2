//! What was measured, as a table for people and as one object for programs.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};

/// A thread that is so busy may be what holds all up.
const BUSY: f64 = 0.9;

/// Lines of a table, each with its place in the object.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<(String, String)>,
    object: Map<String, Value>,
    warnings: Vec<String>,
    wrong: Vec<String>,
}

impl Report {
    /// Of that measurement.
    pub(super) fn new(bench: &str, setting: &str) -> Self {
        let mut report = Self::default();
        report.add("bench", &format!("{bench}: {setting}"), "bench", json!(bench));
        report.object.insert("setting".to_owned(), json!(setting));
        report
    }

    /// Adds a line: what it is and its value for people, then the same for programs.
    pub(super) fn add(&mut self, what: &str, shown: &str, key: &str, value: Value) {
        self.rows.push((what.to_owned(), shown.to_owned()));
        self.object.insert(key.to_owned(), value);
    }

    /// Adds a measured value with its unit, if it is known.
    pub(super) fn measured(&mut self, what: &str, value: Option<f64>, unit: &str, key: &str) {
        let shown = value.map_or_else(|| "not known".to_owned(), |value| format!("{} {unit}", three_digits(value)));
        self.add(what, shown.trim_end(), key, json!(value));
    }

    /// Says what is to be thought of while reading it.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Adds something for programs alone: people read it in the setting.
    pub(super) fn note(&mut self, key: &str, value: Value) {
        self.object.insert(key.to_owned(), value);
    }

    /// Says what must not be: the bench fails for it, once all is told.
    pub(super) fn fail(&mut self, wrong: String) {
        self.warn(format!("{wrong}: this must not be"));
        self.wrong.push(wrong);
    }

    /// What must not be, if there is anything.
    pub(super) fn wrong(&self) -> Option<String> {
        (!self.wrong.is_empty()).then(|| self.wrong.join("; "))
    }

    /// Says how busy the bench and the server were, and what that means for the figures.
    pub(super) fn busy(&mut self, bench: Option<f64>, server: Option<f64>, waited: Option<f64>) {
        self.measured("busiest thread of the bench", bench.map(|share| share * 100.0), "%", "bench_busy_percent");
        self.measured("the server", server.map(|share| share * 100.0), "%", "server_busy_percent");
        self.measured("  waited for a processor", waited.map(|share| share * 100.0), "%", "server_waited_percent");
        if bench.is_some_and(|share| share > BUSY) {
            self.warn("the bench itself was the bottleneck: the server could have done more".to_owned());
        }
        if waited.is_some_and(|share| share > 0.1) {
            self.warn("other programs took the server's processor: only its CPU time tells anything".to_owned());
        }
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let width = self.rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        let mut table = String::new();
        for (what, shown) in &self.rows {
            let _never = writeln!(table, "{what:width$}  {shown}");
        }
        for warning in &self.warnings {
            let _never = writeln!(table, "Note: {warning}.");
        }
        table
    }

    /// The object.
    pub(super) fn json(&self) -> Value {
        let mut object = self.object.clone();
        object.insert("notes".to_owned(), json!(self.warnings));
        Value::Object(object)
    }
}

/// A number with three digits that mean something, or all those before its point.
pub(super) fn three_digits(value: f64) -> String {
    let whole = value.abs();
    let places = if !(1e-9..100.0).contains(&whole) {
        0
    } else if whole >= 10.0 {
        1
    } else if whole >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.places$}")
}

/// Microseconds of a span.
pub(super) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_but_say_enough() {
        fn check(value: f64, expected: &str) {
            assert_eq!(three_digits(value), expected);
        }
        check(0.0, "0");
        check(0.2954, "0.295");
        check(2.956, "2.96");
        check(29.56, "29.6");
        check(1_234.5, "1234");
    }

    #[test]
    fn a_report_says_what_it_does_not_know_and_who_was_too_slow() {
        let mut report = Report::new("fanout", "2 members");
        report.measured("CPU", None, "us", "cpu_us");
        report.measured("more", Some(2.0), "us", "more_us");
        report.busy(Some(0.95), Some(0.3), Some(0.0));
        assert!(report.table().contains("CPU                          not known\n"), "{}", report.table());
        assert!(report.table().contains("the bench itself was the bottleneck"));
        let object = report.json();
        assert_eq!((&object["cpu_us"], &object["more_us"]), (&Value::Null, &json!(2.0)));
        assert_eq!(object["notes"].as_array().map(Vec::len), Some(1));
        assert_eq!(report.wrong(), None, "the bench does not fail for what only is to be thought of");
        report.fail("3 were lost".to_owned());
        assert!(report.table().contains("Note: 3 were lost: this must not be.\n"), "{}", report.table());
        assert_eq!(report.wrong().as_deref(), Some("3 were lost"));
        let mut report = Report::new("fanout", "2 members");
        report.busy(Some(0.5), Some(0.3), Some(0.3));
        assert!(report.table().contains("other programs took"));
    }
}
