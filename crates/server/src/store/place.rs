//! Where a server's log lies.
//!
//! ```text
//! $XDG_STATE_HOME/hobnob/servers (or ~/.local/state/hobnob/servers)
//!   ship/slots.lock       locked while a process chooses a slot
//!   ship/1/lock           locked by the server that runs there
//!   ship/1/log.db         its log, with log.db-wal and log.db-shm beside it while it runs
//!   ship/2/...            another server of a cluster of this name
//! ```
//!
//! A directory is named after the cluster's name, which people know; which of all clusters of that name it was, and under
//! which id, is said inside, since both may change. A server takes up the slot that was used last and is free.

use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use hobnob_proto::ids::{ClusterId, ClusterName, ServerId};

use super::{
    batch::get,
    schema::{self, OpenError, sync_dir},
};

/// Where a server keeps what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In memory alone: it forgets everything when it ends.
    Memory,
    /// In the free slot that was used last by the id that was asked for; a new one where there is none.
    Latest,
    /// In the free slot that was used last in this very cluster; a new one where there is none.
    Of(ClusterId),
    /// In a new slot.
    New,
    /// In this directory.
    In(PathBuf),
}

/// A directory that this process has locked.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: Arc<File>,
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The id that its server had.
    pub id: Option<ServerId>,
    /// The cluster that it was in.
    pub cluster: Option<ClusterId>,
    /// When it was last used, by this machine's clock: seconds since 1970.
    pub used_secs: u64,
    /// How many entries it keeps.
    pub entries: u64,
}

impl Directory {
    /// The directory of a server, locked; `None` for one that keeps nothing.
    pub fn choose(keep: &Keep, cluster: &ClusterName, id: Option<ServerId>) -> Result<Option<Self>, OpenError> {
        let slots = match keep {
            Keep::Memory => return Ok(None),
            Keep::In(path) => {
                make(path).map_err(|source| OpenError::Unwritable { path: path.clone(), source })?;
                let locked = lock(path).map_err(|source| OpenError::Unwritable { path: path.clone(), source })?;
                return locked.map(Some).ok_or_else(|| OpenError::Locked(path.clone()));
            }
            Keep::Latest | Keep::Of(_) | Keep::New => Slots::open(home()?.join(file_name(cluster.as_str())))?,
        };
        let fits = |past: &Past| match keep {
            Keep::Of(cluster) => past.cluster == Some(*cluster),
            Keep::Latest => id.is_none_or(|id| past.id == Some(id)),
            _ => false,
        };
        let latest = slots.free()?.into_iter().filter(|(_, past)| fits(past)).max_by_key(|(_, past)| past.used_secs);
        latest.map_or_else(|| slots.new_one(), |(slot, _)| Ok(slot)).map(Some)
    }

    /// Where the log is.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(schema::FILE)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the slot holds that [`Keep::Latest`] would choose; `None` where it would be a new one.
pub fn latest(cluster: &ClusterName) -> Result<Option<Past>, OpenError> {
    let path = home()?.join(file_name(cluster.as_str()));
    if !path.is_dir() {
        return Ok(None);
    }
    Ok(Slots::open(path)?.free()?.into_iter().map(|(_, past)| past).max_by_key(|past| past.used_secs))
}

/// Where all slots are.
fn home() -> Result<PathBuf, OpenError> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    Ok(state.ok_or(OpenError::NoHome)?.join("hobnob").join("servers"))
}

/// The slots of clusters of one name, while nobody else chooses among them.
#[derive(Debug)]
struct Slots {
    path: PathBuf,
    _choosing: File,
}

impl Slots {
    fn open(path: PathBuf) -> Result<Self, OpenError> {
        let choosing = make(&path).and_then(|()| {
            let file = open_lock(&path.join("slots.lock"))?;
            file.lock()?;
            Ok(file)
        });
        match choosing {
            Ok(choosing) => Ok(Self { path, _choosing: choosing }),
            Err(source) => Err(OpenError::Unwritable { path, source }),
        }
    }

    fn unwritable(&self, source: io::Error) -> OpenError {
        OpenError::Unwritable { path: self.path.clone(), source }
    }

    /// The slots that no server runs in.
    fn free(&self) -> Result<Vec<(Directory, Past)>, OpenError> {
        let mut free = Vec::new();
        for slot in self.numbers().map_err(|error| self.unwritable(error))? {
            let path = self.path.join(slot.to_string());
            if let Some(directory) = lock(&path).map_err(|error| self.unwritable(error))? {
                let past = past(&directory.file());
                free.push((directory, past));
            }
        }
        Ok(free)
    }

    /// A slot that there was not.
    fn new_one(&self) -> Result<Directory, OpenError> {
        let make_next = || {
            let number = self.numbers()?.last().map_or(1, |last| last + 1);
            let path = self.path.join(number.to_string());
            make(&path)?;
            lock(&path)?.ok_or_else(|| io::Error::other("it was locked as soon as it was made"))
        };
        make_next().map_err(|error| self.unwritable(error))
    }

    /// The numbers of all slots, in order.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            numbers.extend(file.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// What a file holds. One that cannot be read is as old as its date says: whoever takes it up is told what is wrong.
fn past(file: &Path) -> Past {
    let changed = fs::metadata(file).and_then(|meta| meta.modified()).ok();
    let changed = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |at| at.as_secs());
    let unknown = Past { id: None, cluster: None, used_secs: changed, entries: 0 };
    if file.is_file() { read_past(file).unwrap_or(unknown) } else { unknown }
}

fn read_past(file: &Path) -> rusqlite::Result<Past> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(file, flags)?;
    let cluster: Option<String> = get(&connection, "cluster")?;
    let id: Option<u32> = get(&connection, "id")?;
    let used: Option<i64> = get(&connection, "used")?;
    let entries: i64 = connection.query_row("SELECT coalesce(sum(top - floor), 0) FROM parts", [], |row| row.get(0))?;
    Ok(Past {
        id: id.map(ServerId),
        cluster: cluster.and_then(|id| id.parse().ok()),
        used_secs: used.unwrap_or(0).max(0).cast_unsigned(),
        entries: entries.max(0).cast_unsigned(),
    })
}

/// Locks a directory; `None` where another process has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<Directory>> {
    let file = open_lock(&path.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Directory { path: path.to_path_buf(), _lock: Arc::new(file) })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Opens a file to lock it; makes it, for the user alone, where there is none.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a directory, and those above it, for the user alone; what is new is durable.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make(above)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => sync_dir(above),
        _ => Ok(()),
    }
}

/// The name as the name of a directory: what has a meaning in paths is written as `%` and two hexadecimal digits.
fn file_name(name: &str) -> String {
    let mut file = String::new();
    for c in name.chars() {
        if matches!(c, '/' | '\\' | ':' | '%' | '*' | '?' | '"' | '<' | '>' | '|') || (c == '.' && file.is_empty()) {
            file.extend(format!("%{:02x}", u32::from(c)).chars());
        } else {
            file.push(c);
        }
    }
    file
}
