//! How much of the processors this process has used so far: what the speed of a sweep is measured by, since others run
//! beside it.

/// Parts of a second that Linux counts in, on all machines.
const TICKS: f64 = 100.0;

/// Seconds of all threads, those that have ended too, as Linux tells them (`proc_pid_stat(5)`); `None` elsewhere.
pub(crate) fn secs() -> Option<f64> {
    of_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn of_stat(stat: &str) -> Option<f64> {
    // What stands in brackets is a name, and may be anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    let (user, system) = (fields.next()??, fields.next()??);
    Some((f64::from(user) + f64::from(system)) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_read() {
        fn check(stat: &str, expected: Option<f64>) {
            assert_eq!(of_stat(stat), expected, "{stat}");
        }
        check("7 (sim) R 1 7 7 0 -1 4194304 95 0 0 0 150 25 0 0 20 0 2 0 8 9 10", Some(1.75));
        check("7 (a) b (c) R 1 7 7 0 -1 4194304 95 0 0 0 150 25 0 0 20 0", Some(1.75));
        check("7 (sim) R 1 7 7 0", None);
        check("", None);
    }
}
