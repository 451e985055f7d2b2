//! Who we are: a key pair for each name, in the state directory of the user.
//!
//! ```text
//! $XDG_STATE_HOME/hobnob (or ~/.local/state/hobnob)
//!   people/anna/key              32 random bytes as base64, readable by the user alone
//!   people/anna/devices/...      see the device module
//! ```
//!
//! Any number of processes may start at once: a lock decides which of them makes the key, the others read it.

use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use hobnob_proto::{ids::PersonName, session::keys::KeyPair, text};
use zeroize::Zeroizing;

use crate::{Fail, driver};

/// What to do where the state directory cannot be used.
pub(crate) const ELSEWHERE: &str = "set XDG_STATE_HOME to a directory that you can write to";

/// Where the keys and outboxes of the people of this user are.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
}

/// A person of this user.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The person.
    pub(crate) key: KeyPair,
    /// Where the person's devices are.
    pub(crate) devices: PathBuf,
}

impl StateDir {
    /// The one that the environment says.
    pub(crate) fn of_user() -> Result<Self, Fail> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        let path = state.ok_or_else(|| {
            let message = "there is no place for your key, since HOME is not set: set HOME, or XDG_STATE_HOME, to a \
                           directory of yours";
            Fail::new(Fail::FAILED, message)
        })?;
        Ok(Self { path: path.join("hobnob") })
    }

    /// The person of this name; made on first use.
    pub(crate) fn identity(&self, name: &PersonName) -> Result<Identity, Fail> {
        let directory = self.path.join("people").join(file_name(name));
        let path = directory.join("key");
        let key = create_private_dir(&directory)
            .and_then(|()| read_or_make_key(&directory, &path))
            .map_err(|why| failure(&path, &why))?;
        Ok(Identity { key: KeyPair::from_private(key), devices: directory.join("devices") })
    }
}

/// Why there is no key, and what to do. An error of our own says that itself.
fn failure(path: &Path, why: &io::Error) -> Fail {
    let what = if why.kind() == io::ErrorKind::Other { String::new() } else { format!(": {ELSEWHERE}") };
    Fail::new(Fail::FAILED, format!("cannot use the key in {}: {why}{what}", path.display()))
}

/// The name as the name of a directory: what has a meaning in paths is written as `%` and two hexadecimal digits.
fn file_name(name: &PersonName) -> String {
    let mut file = String::new();
    for c in name.as_str().chars() {
        if matches!(c, '/' | '\\' | ':' | '%' | '*' | '?' | '"' | '<' | '>' | '|') || (c == '.' && file.is_empty()) {
            file.extend(format!("%{:02x}", u32::from(c)).chars());
        } else {
            file.push(c);
        }
    }
    file
}

/// Reads the key; makes it if there is none.
fn read_or_make_key(directory: &Path, path: &Path) -> io::Result<Zeroizing<[u8; 32]>> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let lock = create_private(&directory.join("key.lock"))?;
    lock.lock()?;
    if read_key(path)?.is_none() {
        let random = Zeroizing::new(driver::seed().map_err(|fail| io::Error::other(fail.message))?);
        let line = Zeroizing::new(text::encode(random.as_ref()) + "\n");
        write_whole(path, line.as_bytes())?;
    }
    // What is on the disk counts, not what this process meant to write.
    read_key(path)?.ok_or_else(|| io::Error::other("it vanished as soon as it was written"))
}

/// The key; `None` where there is no file.
fn read_key(path: &Path) -> io::Result<Option<Zeroizing<[u8; 32]>>> {
    match fs::read_to_string(path) {
        Ok(line) => {
            let line = Zeroizing::new(line);
            let key = text::decode(line.trim()).ok_or_else(|| {
                io::Error::other("this is not a key: put back the right file, or move it away to be somebody new")
            })?;
            Ok(Some(Zeroizing::new(key)))
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

/// Replaces a file, so that after a power cut there is the old one or the new one, whole. The caller holds a lock that
/// keeps others from doing the same.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut file = create_private(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_dir(path)
}

/// Makes the entry of a new file in its directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if cfg!(unix) => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

/// Opens a file for writing at its end, readable by the user alone; creates it if there is none.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).read(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Creates a directory, and those above it, that the user alone may enter.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory that vanishes with the value.
    #[derive(Debug)]
    pub(crate) struct TestDir(pub(crate) PathBuf);

    impl TestDir {
        pub(crate) fn new() -> Self {
            let random = driver::seed().expect("the system has entropy");
            let path = env::temp_dir().join(format!("hobnob-test-{}", text::encode(&random[..9])));
            create_private_dir(&path).expect("the temporary directory can be written to");
            Self(path)
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _left_behind = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn many_processes_at_once_agree_on_one_key() {
        let directory = TestDir::new();
        let state = StateDir { path: directory.0.clone() };
        let name: PersonName = "anna".parse().expect("a name");
        let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let start = || state.identity(&name).expect("a key").key.public;
            let threads: Vec<_> = (0..50).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = TestDir::new();
        let state = StateDir { path: directory.0.clone() };
        state.identity(&"anna".parse().expect("a name")).expect("a key");
        let mode = |path| fs::metadata(directory.0.join(path)).expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode("people/anna/key"), 0o600);
        assert_eq!(mode("people/anna"), 0o700);
    }

    #[test]
    fn a_damaged_key_is_kept_and_named() {
        let directory = TestDir::new();
        let state = StateDir { path: directory.0.clone() };
        let name = "anna".parse().expect("a name");
        state.identity(&name).expect("a key");
        let path = directory.0.join("people/anna/key");
        fs::write(&path, "oops").expect("it can be written");
        let fail = state.identity(&name).expect_err("it is damaged");
        assert!(fail.message.contains("people/anna/key"), "{}", fail.message);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "oops");
    }

    #[test]
    fn a_name_stays_inside_its_directory() {
        fn check(name: &str, expected: &str) {
            assert_eq!(file_name(&name.parse().expect("a name")), expected);
        }
        check("anna", "anna");
        check("..", "%2e.");
        check("../../etc", "%2e.%2f..%2fetc");
        check("a%2fb", "a%252fb");
        check("Zoë", "Zoë");
    }
}
