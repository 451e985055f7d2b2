//! The disk that a measurement writes to: a directory of its own on it, and what a sync costs there by itself.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use hobnob_proto::rng::Rng;

use crate::bench::{failed, report::Report, tally::Histogram};

/// What one write has that is synced: a page.
const PAGE_BYTES: usize = 4_096;
/// How many syncs are measured, and for how long at the most.
const SYNCS_MAX: usize = 300;
const SYNC_SPAN: Duration = Duration::from_millis(1_500);

/// An empty directory, removed when dropped.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// A new one in `given`, or else where servers keep what they have: that disk is to be measured, not a temporary one
    /// that may lie in memory.
    pub(super) fn new(given: Option<&Path>, rng: &mut Rng) -> Result<Self, Fail> {
        let above = given.map_or_else(state_directory, Path::to_path_buf);
        let path = above.join(format!("hobnob-bench-{:016x}", rng.u64()));
        fs::create_dir_all(&path).map_err(|error| {
            failed(&format!("{} cannot be made ({error}): name another with --dir", path.display()))
        })?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left over: {error}", self.0.display());
        }
    }
}

/// `$XDG_STATE_HOME`, as servers have it; the current directory where there is no home.
fn state_directory() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state"))).unwrap_or_else(|| PathBuf::from("."))
}

/// How long it takes to write a page and sync it, again and again.
pub(super) fn syncs(directory: &Path) -> Result<Histogram, Fail> {
    let broken = |error: std::io::Error| failed(&format!("the disk cannot be measured: {error}"));
    let path = directory.join("syncs");
    let mut file = File::create(&path).map_err(broken)?;
    // Space that is there already: an entry's way into a log that is emptied and filled again.
    file.write_all(&vec![0; PAGE_BYTES * SYNCS_MAX]).and_then(|()| file.sync_all()).map_err(broken)?;
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    let (mut spans, start) = (Histogram::default(), Instant::now());
    for turn in 0..SYNCS_MAX {
        if start.elapsed() > SYNC_SPAN {
            break;
        }
        let before = Instant::now();
        file.write_all(&[turn as u8; PAGE_BYTES]).and_then(|()| file.sync_data()).map_err(broken)?;
        spans.add(before.elapsed().as_micros() as u64);
    }
    fs::remove_file(&path).map_err(broken)?;
    Ok(spans)
}

/// Puts that into words.
pub(super) fn tell_syncs(report: &mut Report, spans: &Histogram) {
    for (what, key, per_mille) in
        [("a page written and synced, median", "sync_p50_us", 500), ("  99 of 100", "sync_p99_us", 990)]
    {
        report.measured(what, Some(spans.per_mille(per_mille) as f64), "us", key);
    }
}

/// Bytes of all files in a directory and below.
pub(super) fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
