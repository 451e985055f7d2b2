//! The secret of a closed cluster: from a file or the environment, never from the command line, where every process of
//! the machine could read it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
};

use hobnob_client::Fail;
use hobnob_proto::{rng::Rng, session::keys::Secret};

/// Where the secret comes from if no file is named.
const VARIABLE: &str = "HOBNOB_SECRET";
/// Bytes of a file that may hold a secret: 43 characters, and space for a newline or two.
const FILE_BYTES_MAX: u64 = 256;

/// The secret in `file`, else in the environment, else none.
pub(crate) fn read(file: Option<&Path>) -> Result<Option<Secret>, Fail> {
    if let Some(path) = file {
        return from_file(path).map(Some);
    }
    match std::env::var(VARIABLE) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Secret::from_text(&text).map(Some).ok_or_else(|| ill_formed(VARIABLE)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(ill_formed(VARIABLE)),
    }
}

/// The secret in a file.
fn from_file(path: &Path) -> Result<Secret, Fail> {
    let mut bytes = Vec::new();
    let read = |file: File| {
        if is_open_to_others(&file) {
            // Whoever has the secret is in, so this is worth a word; a pipe or a device is somebody's own business.
            let place = path.display();
            let word = format!("others on this machine can read the secret file {place}: `chmod 600 {place}`");
            let _unread = writeln!(std::io::stderr(), "{word}");
        }
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    };
    File::open(path).and_then(read).map_err(|error| {
        let message = format!(
            "the secret file {0} cannot be read ({error}): check its path and who may read it, or make one with \
             `(umask 077; hobnob secret > {0})`",
            path.display()
        );
        Fail::new(Fail::FAILED, message)
    })?;
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(Secret::from_text)
        .ok_or_else(|| ill_formed(&format!("the file {}", path.display())))
}

/// Whether users other than its owner may read a file.
#[cfg(unix)]
fn is_open_to_others(file: &File) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o044 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_file: &File) -> bool {
    false
}

/// Never says what was found instead.
fn ill_formed(place: &str) -> Fail {
    let message = format!(
        "there is no secret in {place}: it has to be the 43 characters that `hobnob secret` prints, the same on every \
         machine"
    );
    Fail::new(Fail::USAGE, message)
}

/// Prints a new secret.
pub(crate) fn print_new() -> Result<(), Fail> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Fail::new(Fail::FAILED, format!("this machine gives no random numbers: {error}")))?;
    let secret = Secret::generate(&mut Rng::from_seed(seed));
    println!("{}", secret.to_text().as_str());
    eprintln!("Keep it in a file that only you can read, and name that to every server and client by --secret-file.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_no_secret_is_refused() {
        fn check(content: &[u8], expected: Result<(), u8>) {
            let path = std::env::temp_dir().join(format!("hobnob-secret-test-{}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            let secret = from_file(&path);
            std::fs::remove_file(&path).unwrap();
            assert_eq!(secret.map(|_| ()).map_err(|fail| fail.code), expected, "{content:?}");
        }
        let good = Secret::generate(&mut Rng::from_seed([7; 32])).to_text();
        check(good.as_bytes(), Ok(()));
        check(format!("{}\n", good.as_str()).as_bytes(), Ok(()));
        check(b"", Err(Fail::USAGE));
        check(b"swordfish", Err(Fail::USAGE));
        check(&[0xff; 43], Err(Fail::USAGE));
        check(&[b'A'; 1000], Err(Fail::USAGE));
    }

    #[test]
    fn a_file_that_is_not_there_is_said_to_be() {
        let fail = from_file(Path::new("/nonexistent/secret")).unwrap_err();
        assert_eq!(fail.code, Fail::FAILED);
        assert!(fail.message.contains("/nonexistent/secret cannot be read"), "{}", fail.message);
    }
}
