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
    env, fmt,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use hobnob_proto::{
    ids::{ClusterId, ClusterName, ServerId},
    session::keys::{self, Secret},
};
use rusqlite::Connection;

use super::{
    batch::{get, put},
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

/// What servers know that may be in one cluster: what one of them has kept, another may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    name: String,
    /// `open`, or the fingerprint of the key that all servers of a closed cluster have.
    trust: String,
}

impl Realm {
    /// The clusters of this name that know this secret; `None`: the open ones.
    pub fn new(cluster: &ClusterName, secret: Option<&Secret>) -> Self {
        // Of the key that servers show to everybody, so that the file tells nothing of the secret.
        let fingerprint = |secret| keys::cluster_key(Some(secret), cluster, ClusterId(0)).person().to_string();
        let trust = secret.map_or_else(|| OPEN.to_owned(), fingerprint);
        Self { name: cluster.to_string(), trust }
    }

    /// Writes it down in a log.
    pub(crate) fn note(&self, connection: &Connection) -> rusqlite::Result<()> {
        put(connection, "name", &self.name)?;
        put(connection, "trust", &self.trust)
    }

    fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let (name, trust) = (get(connection, "name")?, get(connection, "trust")?);
        Ok(name.zip(trust).map(|(name, trust)| Self { name, trust }))
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.trust == OPEN {
            write!(f, "the open cluster {}", self.name)
        } else {
            write!(f, "the cluster {} that is closed with secret {}", self.name, self.trust)
        }
    }
}

/// The trust of a cluster without a secret.
const OPEN: &str = "open";

/// A directory that this process has locked.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    /// Whose it is, or is to be.
    realm: Option<Realm>,
    _lock: Arc<File>,
}

/// What a slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    pub fn choose(keep: &Keep, realm: &Realm, id: Option<ServerId>) -> Result<Option<Self>, OpenError> {
        let chosen = match keep {
            Keep::Memory => return Ok(None),
            Keep::In(path) => Self::given(path, realm),
            Keep::Latest | Keep::Of(_) | Keep::New => Slots::open(slots_of(realm)?)?.choose(keep, realm, id),
        };
        chosen.map(|directory| Some(Self { realm: Some(realm.clone()), ..directory }))
    }

    /// The one that was asked for.
    fn given(path: &Path, realm: &Realm) -> Result<Self, OpenError> {
        let unwritable = |source| OpenError::Unwritable { path: path.to_path_buf(), source };
        make(path).map_err(unwritable)?;
        let directory = lock(path).map_err(unwritable)?.ok_or_else(|| in_use(path))?;
        match held(&directory.file()) {
            Held::Log { realm: kept, past } if !fits(kept.as_ref(), &past, realm) => Err(OpenError::Other {
                path: path.to_path_buf(),
                kept: kept.map_or_else(|| "a cluster that it does not name".to_owned(), |kept| kept.to_string()),
                asked: realm.to_string(),
            }),
            // Whoever opens it is told what is wrong.
            _ => Ok(directory),
        }
    }

    /// Where the log is.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(schema::FILE)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub(crate) fn realm(&self) -> Option<&Realm> {
        self.realm.as_ref()
    }
}

/// What the slot holds that [`Keep::Latest`] would choose; `None` where it would be a new one.
pub fn latest(realm: &Realm) -> Result<Option<Past>, OpenError> {
    let path = slots_of(realm)?;
    if !path.is_dir() {
        return Ok(None);
    }
    Slots::open(path)?.latest(realm)
}

/// Where the slots of a cluster's name are.
fn slots_of(realm: &Realm) -> Result<PathBuf, OpenError> {
    Ok(home()?.join(file_name(&realm.name)))
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

    /// The slot to be used.
    fn choose(&self, keep: &Keep, realm: &Realm, id: Option<ServerId>) -> Result<Directory, OpenError> {
        if *keep == Keep::New {
            return self.new_one();
        }
        let wanted = |past: &Past| match keep {
            Keep::Of(cluster) => past.cluster == Some(*cluster),
            _ => id.is_none_or(|id| past.id == Some(id)),
        };
        let mut damaged = None;
        let mut latest: Option<(Slot, u64)> = None;
        for slot in self.free(realm)? {
            let used = match &slot.held {
                Held::Log { past, .. } if wanted(past) => past.used_secs,
                Held::Log { .. } => continue,
                // It may be the one: whoever opens it is told what is wrong.
                Held::Damaged { changed_secs, .. } if *keep == Keep::Latest && id.is_none() => *changed_secs,
                Held::Damaged { why, .. } => {
                    damaged = Some(OpenError::Corrupt { path: slot.path.join(schema::FILE), why: why.clone() });
                    continue;
                }
            };
            if latest.as_ref().is_none_or(|(_, latest)| used >= *latest) {
                latest = Some((slot, used));
            }
        }
        match (latest, damaged) {
            (Some((slot, _)), _) => slot.directory.ok_or(OpenError::Checked(slot.path)),
            // Another start in a new slot would hide that there was one.
            (None, Some(damaged)) => Err(damaged),
            (None, None) => self.new_one(),
        }
    }

    /// What the slot holds that was used last.
    fn latest(&self, realm: &Realm) -> Result<Option<Past>, OpenError> {
        let pasts = self.free(realm)?.into_iter().map(|slot| match slot.held {
            Held::Log { past, .. } => past,
            Held::Damaged { changed_secs, .. } => Past { used_secs: changed_secs, ..Past::default() },
        });
        Ok(pasts.max_by_key(|past| past.used_secs))
    }

    /// The slots that no server runs in and that may be served as `realm`. One that cannot be looked at is left out.
    fn free(&self, realm: &Realm) -> Result<Vec<Slot>, OpenError> {
        let mut free = Vec::new();
        for number in self.numbers().map_err(|error| self.unwritable(error))? {
            let path = self.path.join(number.to_string());
            let directory = match lock(&path) {
                Ok(directory) => directory,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a directory with messages cannot be used: skipped");
                    continue;
                }
            };
            if directory.is_none() && !is_checked(&path) {
                continue;
            }
            let held = held(&path.join(schema::FILE));
            match &held {
                Held::Log { realm: kept, past } if !fits(kept.as_ref(), past, realm) => {}
                _ => free.push(Slot { path, directory, held }),
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

/// A slot that no server runs in.
#[derive(Debug)]
struct Slot {
    path: PathBuf,
    /// Locked; `None` while it is being checked.
    directory: Option<Directory>,
    held: Held,
}

/// What a directory holds.
#[derive(Debug)]
enum Held {
    /// A log, or nothing yet.
    Log { realm: Option<Realm>, past: Past },
    /// Something that cannot be read, last changed then: seconds since 1970.
    Damaged { why: String, changed_secs: u64 },
}

/// Whether what was kept in one realm may be served in another. What names none is nobody's as long as it is empty.
fn fits(kept: Option<&Realm>, past: &Past, realm: &Realm) -> bool {
    kept.map_or_else(|| past.entries == 0 && past.cluster.is_none(), |kept| kept == realm)
}

/// What a file holds.
fn held(file: &Path) -> Held {
    let meta = fs::metadata(file).ok();
    if meta.as_ref().is_none_or(|meta| meta.len() == 0) {
        return Held::Log { realm: None, past: Past::default() };
    }
    read_past(file).unwrap_or_else(|error| {
        let changed = meta.and_then(|meta| meta.modified().ok()).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Held::Damaged { why: error.to_string(), changed_secs: changed.map_or(0, |at| at.as_secs()) }
    })
}

fn read_past(file: &Path) -> rusqlite::Result<Held> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    let cluster: Option<String> = get(&connection, "cluster")?;
    let id: Option<u32> = get(&connection, "id")?;
    let used: Option<i64> = get(&connection, "used")?;
    let entries: i64 = connection.query_row("SELECT coalesce(sum(top - floor), 0) FROM parts", [], |row| row.get(0))?;
    let past = Past {
        id: id.map(ServerId),
        cluster: cluster.and_then(|id| id.parse().ok()),
        used_secs: used.unwrap_or(0).max(0).cast_unsigned(),
        entries: entries.max(0).cast_unsigned(),
    };
    Ok(Held::Log { realm: Realm::read(&connection)?, past })
}

/// Locks a directory; `None` where another process has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<Directory>> {
    let file = open_lock(&path.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Directory { path: path.to_path_buf(), realm: None, _lock: Arc::new(file) })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Keeps servers away from a directory that is only read, if that can be done: nothing is made for it.
pub(crate) fn lock_to_read(path: &Path) -> Result<Option<File>, OpenError> {
    let Ok(file) = File::open(path.join("lock")) else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_path_buf())),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Whether a directory that cannot be locked is only being read.
fn is_checked(path: &Path) -> bool {
    matches!(lock_to_read(path), Ok(Some(_)))
}

/// Why a directory cannot be locked.
fn in_use(path: &Path) -> OpenError {
    if is_checked(path) { OpenError::Checked(path.to_path_buf()) } else { OpenError::Locked(path.to_path_buf()) }
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

#[cfg(test)]
mod tests;
