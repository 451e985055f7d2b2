//! What the operating system says of a process: its CPU time and its memory. Linux tells; elsewhere nothing is known.

use std::{fs, time::Duration};

/// CPU time of a process or a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    /// That it ran for.
    pub(super) ran: Duration,
    /// That it was ready to run, while something else did.
    pub(super) waited: Duration,
}

impl Cpu {
    /// What was added since.
    pub(super) fn since(self, before: Self) -> Self {
        Self { ran: self.ran.saturating_sub(before.ran), waited: self.waited.saturating_sub(before.waited) }
    }

    /// For how much of that span it could not have done more: it ran, or was ready to. Between 0 and 1.
    pub(super) fn busy(self, span: Duration) -> f64 {
        if span.is_zero() { 0.0 } else { ((self.ran + self.waited).as_secs_f64() / span.as_secs_f64()).min(1.0) }
    }
}

/// CPU time of all threads that the process has now.
pub(super) fn cpu(pid: u32) -> Option<Cpu> {
    let mut sum = Cpu::default();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end while we read.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        let cpu = schedstat(&text)?;
        sum = Cpu { ran: sum.ran + cpu.ran, waited: sum.waited + cpu.waited };
    }
    Some(sum)
}

/// CPU time of this thread.
pub(super) fn own_cpu() -> Option<Cpu> {
    schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// Reads `RAN WAITED SLICES`, in nanoseconds.
fn schedstat(text: &str) -> Option<Cpu> {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse().map(Duration::from_nanos));
    Some(Cpu { ran: numbers.next()?.ok()?, waited: numbers.next()?.ok()? })
}

/// KiB of memory that the process has in RAM.
pub(super) fn rss_kib(pid: u32) -> Option<u64> {
    rss(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn rss(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Lets a process (0: this thread, and those that it starts) run on these processors alone. Whether it could be done.
#[cfg(target_os = "linux")]
pub(super) fn pin(pid: u32, processors: &[usize]) -> bool {
    use rustix::thread::{CpuSet, Pid, sched_setaffinity};
    let mut set = CpuSet::new();
    for &processor in processors {
        set.set(processor);
    }
    sched_setaffinity(Pid::from_raw(pid.cast_signed()), &set).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_pid: u32, _processors: &[usize]) -> bool {
    false
}

/// The processors that this thread may run on; empty: not known.
#[cfg(target_os = "linux")]
pub(super) fn processors() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn processors() -> Vec<usize> {
    Vec::new()
}

/// Lets this process open as many files as it may: each socket is one. How many those are.
#[cfg(unix)]
pub(super) fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let raised = setrlimit(Resource::Nofile, wanted).is_ok();
    (if raised { limit.maximum } else { limit.current }).unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
pub(super) fn raise_open_files() -> u64 {
    1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read() {
        let expected = Cpu { ran: Duration::from_micros(1_500), waited: Duration::from_nanos(20) };
        assert_eq!(schedstat("1500000 20 7\n"), Some(expected));
        assert_eq!(schedstat("1500000\n"), None);
        assert_eq!(rss("Name:\thobnob\nVmPeak:\t 9000 kB\nVmRSS:\t    5120 kB\n"), Some(5_120));
        assert_eq!(rss("Name:\thobnob\n"), None);
    }

    #[test]
    fn who_waits_for_a_processor_is_as_busy_as_who_has_one() {
        let cpu = |ran, waited| Cpu { ran: Duration::from_millis(ran), waited: Duration::from_millis(waited) };
        assert!((cpu(30, 20).busy(Duration::from_millis(100)) - 0.5).abs() < 1e-9);
        assert!((cpu(90, 90).busy(Duration::from_millis(100)) - 1.0).abs() < 1e-9);
        assert_eq!(cpu(30, 20).since(cpu(10, 30)), cpu(20, 0));
    }
}
