//! An entry of a log, as a line of an export has it.

use hobnob_proto::log::Entry;

/// What is read from a line, and written again, is the same entry, with the same hash.
///
/// # Panics
/// If not.
pub fn run(data: &[u8]) {
    let Ok(entry) = serde_json::from_slice::<Entry>(data) else { return };
    let line = serde_json::to_string(&entry).expect("an entry is plain data");
    assert!(!line.contains('\n'), "one line: {line:?}");
    let again: Entry = serde_json::from_str(&line).expect("what we write can be read");
    assert_eq!(again, entry);
    assert_eq!((again.digest(), again.content()), (entry.digest(), entry.content()));
    // A body that is another has another hash.
    let other = Entry { body: format!("{}x", entry.body).into(), ..entry.clone() };
    assert_ne!(other.digest(), entry.digest());
    let whole = Entry { hash: entry.digest(), ..entry };
    assert!(whole.is_intact());
}
