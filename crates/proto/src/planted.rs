//! Bugs that are made on purpose, for a simulator to find: a check that never fails may as well not look.
//!
//! A bug is planted in the run of one thread, by whoever tests there. Without the feature `planted` nothing can be, and
//! every question here is the constant `false`; with it, nothing is planted until a test says so.
//!
//! ```text
//! simulator -- plant(Bug::LaterDuplicate) --> this thread
//! the log   -- is(Bug::LaterDuplicate)? ----> true here, false in every other thread and build
//! ```

/// Whether bugs can be planted in this build.
pub const ENABLED: bool = cfg!(feature = "planted");

/// Defines the bugs with their names.
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// A mistake that somebody may make.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name on a command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)*
                }
            }
        }
    };
}

bugs! {
    /// A server counts its own copy, and says what it holds, before that is fsynced.
    AckBeforeFsync = "ack-before-fsync",
    /// A server that starts goes on in the boot of its last run, and numbers entries from what it has kept.
    DotReused = "dot-reused",
    /// A vector covers what lies above a hole.
    HoleSkipped = "hole-skipped",
    /// A duplicate is acknowledged though it has another body than the post that is held.
    DuplicateOfAnotherBody = "duplicate-of-another-body",
    /// Of two entries of one post, the later one is canonical.
    LaterDuplicate = "later-duplicate",
    /// A server whose disk is new counts as holding what it held before.
    WipedDiskCounts = "wiped-disk-counts",
    /// What is said in a lower epoch is followed.
    EpochNotFenced = "epoch-not-fenced",
    /// A packet that was taken before is taken again.
    ReplayTaken = "replay-taken",
    /// A cluster's secret has no part in its keys.
    SecretIgnored = "secret-ignored",
    /// A server that stood still itself blames others for what it did not hear meanwhile.
    PauseIgnored = "pause-ignored",
    /// A server that has come back may lead at once.
    NoProbation = "no-probation",
    /// Two old clusters with messages unite when they hear each other.
    ClustersUnite = "clusters-unite",
}

/// Plants a bug in this thread, in place of the one that was; `None` digs it up.
pub fn plant(bug: Option<Bug>) {
    #[cfg(feature = "planted")]
    PLANTED.set(bug);
    #[cfg(not(feature = "planted"))]
    let _ = bug;
}

/// Whether this bug is planted here.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted here.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}
