//! Ctrl-C and SIGTERM, for commands that have started processes and made files: they go on until they have looked here, so
//! that both are gone when they end.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Whether there was one.
static TOLD: AtomicBool = AtomicBool::new(false);
/// Whether somebody watches for them; an error is why not.
static WATCH: OnceLock<Result<(), String>> = OnceLock::new();
/// How often it is looked at by who waits for it.
const GLANCE: Duration = Duration::from_millis(10);

/// From here on neither ends the process by itself. One watcher does for the whole process: to be called again is nothing.
/// The error says why there can be none.
pub(crate) fn watch() -> Result<(), String> {
    WATCH.get_or_init(start).clone()
}

/// Whether the person wants it to end.
pub(crate) fn is_told() -> bool {
    TOLD.load(Ordering::Relaxed)
}

/// The same, now or within `span`: the word may come after the end of processes that were told too.
pub(crate) fn is_told_within(span: Duration) -> bool {
    let start = Instant::now();
    while !is_told() && start.elapsed() < span {
        thread::sleep(GLANCE);
    }
    is_told()
}

fn start() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let watch = move || {
        runtime.block_on(hobnob_client::told_to_end());
        TOLD.store(true, Ordering::Relaxed);
    };
    let spawned = thread::Builder::new().name("interrupt".into()).spawn(watch);
    spawned.map(drop).map_err(|error| format!("a thread cannot be started: {error}"))
}
