//! Which directory a server takes.

use super::*;
use crate::store::{Retention, Store, tests::TestDir};
use hobnob_proto::{ids::Boot, ids::Origin, rng::Rng, store::Write};

fn realm(secret: Option<&str>) -> Realm {
    let secret = secret.map(|secret| Secret::from_text(secret).unwrap());
    Realm::new(&"ship".parse().unwrap(), secret.as_ref())
}

const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const ANOTHER: &str = "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What is chosen among the slots in a directory: the name of the slot, locked as long as the directory lives.
fn choose(home: &TestDir, keep: &Keep, realm: &Realm, id: Option<u32>) -> Result<Directory, OpenError> {
    let chosen = Slots::open(home.0.clone())?.choose(keep, realm, id.map(ServerId))?;
    Ok(Directory { realm: Some(realm.clone()), ..chosen })
}

/// The number of a slot.
fn number(directory: &Directory) -> &str {
    directory.path().file_name().unwrap().to_str().unwrap()
}

/// A server has run in a new slot, with this id and in this cluster, and was last used then.
fn used(home: &TestDir, realm: &Realm, id: u32, cluster: u128, used_secs: i64) {
    let directory = choose(home, &Keep::New, realm, None).unwrap();
    let file = directory.file();
    let (mut store, _) = Store::open(directory, Retention::default(), &mut Rng::from_seed([3; 32])).unwrap();
    store.persist(Write::Cluster(ClusterId(cluster)));
    store.persist(Write::Me(Origin { id: ServerId(id), boot: Boot(9) }));
    crate::store::tests::wait_durable(&mut store, 2);
    drop(store);
    put(&Connection::open(file).unwrap(), "used", used_secs).unwrap();
}

#[test]
fn a_server_takes_the_slot_that_was_used_last_among_those_that_fit() {
    let home = TestDir::new();
    let open = realm(None);
    used(&home, &open, 5, 70, 1_000);
    used(&home, &open, 6, 71, 3_000);
    used(&home, &open, 5, 70, 2_000);
    let check = |keep: &Keep, id: Option<u32>, expected: &str| {
        let chosen = choose(&home, keep, &open, id).unwrap();
        assert_eq!(number(&chosen), expected, "{keep:?} {id:?}");
        if expected == "4" {
            drop(chosen);
            fs::remove_dir_all(home.0.join("4")).unwrap();
        }
    };
    check(&Keep::Latest, None, "2");
    check(&Keep::Latest, Some(5), "3");
    check(&Keep::Latest, Some(7), "4");
    check(&Keep::Of(ClusterId(70)), None, "3");
    check(&Keep::Of(ClusterId(71)), None, "2");
    check(&Keep::Of(ClusterId(72)), None, "4");
    check(&Keep::New, None, "4");
    assert_eq!(Slots::open(home.0.clone()).unwrap().latest(&open).unwrap().unwrap().id, Some(ServerId(6)));
}

#[test]
fn two_servers_at_once_have_two_slots() {
    let home = TestDir::new();
    used(&home, &realm(None), 5, 70, 1_000);
    let first = choose(&home, &Keep::Latest, &realm(None), None).unwrap();
    let second = choose(&home, &Keep::Latest, &realm(None), None).unwrap();
    let third = choose(&home, &Keep::Latest, &realm(None), None).unwrap();
    assert_eq!((number(&first), number(&second), number(&third)), ("1", "2", "3"));
}

#[test]
fn what_was_said_behind_a_secret_is_not_served_without_it() {
    let home = TestDir::new();
    used(&home, &realm(Some(SECRET)), 5, 70, 1_000);
    let check = |secret: Option<&str>, expected: &str| {
        for keep in [Keep::Latest, Keep::Of(ClusterId(70))] {
            let chosen = choose(&home, &keep, &realm(secret), None).unwrap();
            assert_eq!(number(&chosen), expected, "{keep:?}");
            let path = chosen.path().to_path_buf();
            drop(chosen);
            if expected == "2" {
                fs::remove_dir_all(path).unwrap();
            }
        }
        let past = Slots::open(home.0.clone()).unwrap().latest(&realm(secret)).unwrap();
        assert_eq!(past.is_some(), expected == "1");
    };
    check(None, "2");
    check(Some(ANOTHER), "2");
    check(Some(SECRET), "1");
    let given = Keep::In(home.0.join("1"));
    let error = Directory::choose(&given, &realm(None), None).unwrap_err().to_string();
    assert!(error.contains("keeps the messages of the cluster ship that is closed"), "{error}");
    assert!(error.contains("this server is to be one of the open cluster ship: start it with"), "{error}");
    assert!(!error.contains(SECRET), "{error}");
    assert!(Directory::choose(&given, &realm(Some(ANOTHER)), None).is_err());
    assert!(Directory::choose(&given, &realm(Some(SECRET)), None).is_ok());
    let other_name = Realm::new(&"boat".parse().unwrap(), Some(&Secret::from_text(SECRET).unwrap()));
    assert!(Directory::choose(&given, &other_name, None).is_err());
}

#[test]
fn a_damaged_slot_is_not_passed_over_in_silence() {
    let home = TestDir::new();
    let open = realm(None);
    used(&home, &open, 5, 70, 1_000);
    fs::write(home.0.join("1/log.db"), "no database at all ".repeat(999)).unwrap();
    for (keep, id) in [(Keep::Latest, Some(5)), (Keep::Of(ClusterId(70)), None)] {
        let error = choose(&home, &keep, &open, id).unwrap_err().to_string();
        assert!(error.contains("1/log.db is damaged") && error.contains("move it"), "{error}");
    }
    // Without another word it is the latest, and whoever opens it says what is wrong.
    assert_eq!(number(&choose(&home, &Keep::Latest, &open, None).unwrap()), "1");
    // Where another fits there is no need to say anything.
    used(&home, &open, 5, 70, 1_000);
    assert_eq!(number(&choose(&home, &Keep::Latest, &open, Some(5)).unwrap()), "2");
}

#[test]
fn a_slot_that_cannot_be_locked_is_skipped() {
    let home = TestDir::new();
    used(&home, &realm(None), 5, 70, 1_000);
    // A directory where the lock should be: not even root can open it to write.
    fs::create_dir_all(home.0.join("9/lock")).unwrap();
    assert_eq!(number(&choose(&home, &Keep::Latest, &realm(None), None).unwrap()), "1");
    assert_eq!(number(&choose(&home, &Keep::New, &realm(None), None).unwrap()), "10");
}

#[test]
fn a_slot_that_is_being_checked_is_waited_for() {
    let home = TestDir::new();
    used(&home, &realm(None), 5, 70, 1_000);
    let checking = lock_to_read(&home.0.join("1")).unwrap().expect("nobody runs there");
    let error = choose(&home, &Keep::Latest, &realm(None), None).unwrap_err().to_string();
    assert!(error.contains("is being looked at by `hobnob check`"), "{error}");
    let given = Keep::In(home.0.join("1"));
    assert!(matches!(Directory::choose(&given, &realm(None), None), Err(OpenError::Checked(_))));
    drop(checking);
    let directory = choose(&home, &Keep::Latest, &realm(None), None).unwrap();
    assert_eq!(number(&directory), "1");
    assert!(matches!(lock_to_read(directory.path()), Err(OpenError::Locked(_))));
}

#[cfg(unix)]
#[test]
fn the_user_alone_may_read_what_is_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = TestDir::new();
    let path = home.0.join("deep/data");
    let directory = Directory::choose(&Keep::In(path.clone()), &realm(None), None).unwrap().unwrap();
    let (_store, _) = Store::open(directory, Retention::default(), &mut Rng::from_seed([3; 32])).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&home.0.join("deep")), mode(&path)), (0o700, 0o700));
    for file in ["lock", "log.db", "log.db-wal", "log.db-shm"] {
        assert_eq!(mode(&path.join(file)), 0o600, "{file}");
    }
}
