//! Invariant 18: the same seed gives the same trace, byte for byte. Judged over two runs, by the hashes of their traces.

use hobnob_proto::time::Time;

use super::Violation;

/// Its name, as those of the others: that of its file.
pub const NAME: &str = "i18_same_seed_same_trace";

/// Compares the traces of two runs of one seed: hash and number of lines.
pub fn check(first: (u64, u64), second: (u64, u64)) -> Result<(), Violation> {
    if first == second {
        return Ok(());
    }
    let what =
        format!("the trace has hash {:016x} of {} lines, and then {:016x} of {}", first.0, first.1, second.0, second.1);
    Err(Violation { invariant: NAME, at: Time::ZERO, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_hash_or_another_length_is_seen() {
        assert!(check((1, 9), (1, 9)).is_ok());
        assert!(check((1, 9), (2, 9)).is_err());
        assert!(check((1, 9), (1, 8)).is_err());
    }
}
