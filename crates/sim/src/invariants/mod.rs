//! What must hold, one file for each invariant of the design, with its number.
//!
//! An invariant is told every fact as it happens, and keeps what it needs to judge it; it looks at nothing else. Some
//! things hold only once the network is quiet: these are judged over a picture of everybody.

use std::fmt;

use hobnob_proto::time::Time;

use crate::{
    facts::{Fact, Picture},
    silence::Silences,
};

pub mod i00_a_pause_blames_nobody;
pub mod i00_everybody_is_served;
pub mod i01_stored_is_synced;
pub mod i02_stored_survives;
pub mod i03_power_loss;
pub mod i04_copies_agree;
pub mod i05_each_post_is_shown_once;
pub mod i06_a_dot_names_one_content;
pub mod i07_vectors_cover_what_is_held;
pub mod i08_hlc_grows;
pub mod i09_disks_never_go_back;
pub mod i10_epochs_never_go_back;
pub mod i11_one_leader_once_quiet;
pub mod i12_a_flapping_id_changes_little;
pub mod i13_one_open_home;
pub mod i14_cursors_never_go_back;
pub mod i15_nothing_for_the_departed;
pub mod i16_rot_is_repaired;
pub mod i17_queues_stay_within_bounds;
pub mod i18_same_seed_same_trace;
pub mod i19_sealed_once_for_this_session;
pub mod i20_no_stranger_is_a_member;
pub mod i21_acks_name_what_was_posted;
pub mod i22_old_clusters_stay_two;

/// Something that must hold.
pub trait Invariant: fmt::Debug {
    /// Its number and name: those of its file.
    fn name(&self) -> &'static str;

    /// Whether there was anything so far that could have violated it.
    fn judged(&self) -> bool;

    /// Takes a fact. An error says what it violates; everything before it held.
    fn observe(&mut self, fact: &Fact<'_>, now: Time) -> Result<(), String>;

    /// Whether it holds in a quiet moment, once everything has had the time to converge. By default there is nothing to
    /// say.
    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        let _ = picture;
        Ok(())
    }

    /// Whether it holds in a quiet moment from which on there was time to elect a leader, but not for all else. The picture
    /// is of the servers alone, and not of what they hold. By default there is nothing to say.
    fn led(&mut self, picture: &Picture) -> Result<(), String> {
        let _ = picture;
        Ok(())
    }
}

/// An invariant did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// When it was seen.
    pub at: Time,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.at.as_millis();
        write!(f, "{} at {}.{:03} s: {}", self.invariant, millis / 1_000, millis % 1_000, self.what)
    }
}

/// All invariants of a run.
#[derive(Debug)]
pub struct Checker {
    invariants: Vec<Box<dyn Invariant>>,
    /// The only one that is told of each packet: there are more of them than of all other facts.
    sealed: i19_sealed_once_for_this_session::SealedOnce,
    /// Judges nothing.
    pub silences: Silences,
}

impl Default for Checker {
    fn default() -> Self {
        Self {
            invariants: vec![
                Box::new(i00_a_pause_blames_nobody::PauseBlamesNobody::default()),
                Box::new(i00_everybody_is_served::EverybodyIsServed::default()),
                Box::new(i01_stored_is_synced::StoredIsSynced::default()),
                Box::new(i02_stored_survives::StoredSurvives::default()),
                Box::new(i03_power_loss::PowerLoss::default()),
                Box::new(i04_copies_agree::CopiesAgree::default()),
                Box::new(i05_each_post_is_shown_once::ShownOnce::default()),
                Box::new(i06_a_dot_names_one_content::OneContent::default()),
                Box::new(i07_vectors_cover_what_is_held::Covered::default()),
                Box::new(i08_hlc_grows::HlcGrows::default()),
                Box::new(i09_disks_never_go_back::NeverBack::default()),
                Box::new(i10_epochs_never_go_back::NeverBack::default()),
                Box::new(i11_one_leader_once_quiet::OneLeader::default()),
                Box::new(i12_a_flapping_id_changes_little::LittleChange::default()),
                Box::new(i13_one_open_home::OneOpenHome::default()),
                Box::new(i14_cursors_never_go_back::Cursors::default()),
                Box::new(i15_nothing_for_the_departed::NothingForTheDeparted::default()),
                Box::new(i16_rot_is_repaired::Repaired::default()),
                Box::new(i17_queues_stay_within_bounds::WithinBounds::default()),
                Box::new(i19_sealed_once_for_this_session::SealedOnce::default()),
                Box::new(i20_no_stranger_is_a_member::NoStranger::default()),
                Box::new(i21_acks_name_what_was_posted::Acks::default()),
                Box::new(i22_old_clusters_stay_two::StayTwo::default()),
            ],
            sealed: i19_sealed_once_for_this_session::SealedOnce::default(),
            silences: Silences::default(),
        }
    }
}

impl Checker {
    /// Tells all invariants a fact.
    pub fn observe(&mut self, fact: &Fact<'_>, now: Time) -> Result<(), Violation> {
        let told = |invariant: &mut dyn Invariant| {
            let name = invariant.name();
            invariant.observe(fact, now).map_err(|what| Violation { invariant: name, at: now, what })
        };
        if !matches!(fact, Fact::Opened { .. } | Fact::Stray) {
            self.silences.observe(fact, now);
            self.invariants.iter_mut().try_for_each(|invariant| told(&mut **invariant))?;
        }
        told(&mut self.sealed)
    }

    /// Asks all invariants about a quiet moment. Where there may be two clusters, about each by itself.
    pub fn settled(&mut self, picture: &Picture, now: Time) -> Result<(), Violation> {
        self.ask(picture, now, |invariant, picture| invariant.settled(picture))
    }

    /// Asks those invariants about a quiet moment that hold all the time once there was time to elect a leader.
    pub fn led(&mut self, picture: &Picture, now: Time) -> Result<(), Violation> {
        self.ask(picture, now, |invariant, picture| invariant.led(picture))
    }

    /// The names of all invariants of a run, and whether each had anything to judge so far.
    pub fn judged(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let all = self.invariants.iter().map(|invariant| (invariant.name(), invariant.judged()));
        all.chain([(self.sealed.name(), self.sealed.judged())])
    }

    fn ask(
        &mut self,
        picture: &Picture,
        now: Time,
        ask: impl Fn(&mut dyn Invariant, &Picture) -> Result<(), String>,
    ) -> Result<(), Violation> {
        for cluster in picture.clusters() {
            for invariant in &mut self.invariants {
                let name = invariant.name();
                ask(invariant.as_mut(), &cluster).map_err(|what| Violation { invariant: name, at: now, what })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod history {
    //! Histories for the tests of invariants, in few words.

    use std::collections::BTreeMap;

    use hobnob_proto::{
        hlc::Hlc,
        ids::{Boot, ClusterId, DeviceId, Origin, PersonId, RoomName, ServerId},
        log::{Entry, PostKey, VersionVector, entry::MESSAGE, room::Kept},
        node::view::Role,
        wire::frame::{Epoch, Fence},
    };

    use super::*;
    use crate::facts::{ClientPicture, Process, RoomPicture, ServerPicture};

    /// The first run of a server or a client.
    pub(crate) fn process(of: usize) -> Process {
        Process { of, run: 1 }
    }

    pub(crate) fn origin(id: u32) -> Origin {
        Origin { id: ServerId(id), boot: Boot(u64::from(id)) }
    }

    pub(crate) fn epoch(term: u64) -> Epoch {
        Epoch { term, leader: ServerId(1), boot: Boot(1) }
    }

    pub(crate) fn fence(n: u64, home: u32) -> Fence {
        Fence { epoch: epoch(1), n, home: origin(home) }
    }

    pub(crate) fn vector(pairs: &[(u32, u64)]) -> VersionVector {
        pairs.iter().map(|&(id, seq)| (origin(id), seq)).collect()
    }

    pub(crate) fn key(client_seq: u64) -> PostKey {
        PostKey { person: PersonId([1; 16]), device: DeviceId(1), client_seq }
    }

    /// An entry of the lobby by server `id`: it holds the post of the number `client_seq` of the one person.
    pub(crate) fn entry(id: u32, seq: u64, client_seq: u64, millis: u64, body: &str) -> Entry {
        let key = key(client_seq);
        let mut entry = Entry {
            room: RoomName::lobby(),
            origin: origin(id),
            seq,
            hlc: Hlc { millis, counter: 0 },
            from: "ann".parse().unwrap(),
            person: key.person,
            device: key.device,
            client_seq,
            kind: MESSAGE.into(),
            body: body.into(),
            hash: hobnob_proto::log::Hash::default(),
        };
        entry.hash = entry.digest();
        entry
    }

    /// As it is kept.
    pub(crate) fn kept(entry: &Entry) -> Kept {
        let line = hobnob_proto::wire::Frame::Entry(entry.clone()).to_line().into();
        Kept { entry: entry.clone().into(), line }
    }

    /// A server with the lobby, in a picture.
    pub(crate) fn server(id: u32, leader: u32, fence: Fence, open: bool, held: &[(u32, u64)]) -> ServerPicture {
        ServerPicture {
            process: process(id as usize),
            id: ServerId(id),
            me: Some(origin(id)),
            cluster: Some(ClusterId(1)),
            role: if id == leader { Role::Leader } else { Role::Follower },
            eligible: true,
            epoch: epoch(1),
            leader: Some(ServerId(leader)),
            live: Vec::new(),
            rooms: BTreeMap::from([(RoomName::lobby(), RoomPicture { fence, open, held: vector(held) })]),
            rotten: false,
            doubled: Vec::new(),
        }
    }

    /// The first client, in the lobby, in a picture.
    pub(crate) fn client(cursor: &[(u32, u64)]) -> ClientPicture {
        ClientPicture {
            process: process(0),
            person: key(1).person,
            device: key(1).device,
            connected: Some(ServerId(1)),
            rooms: BTreeMap::from([(RoomName::lobby(), vector(cursor))]),
            unsettled: Vec::new(),
        }
    }

    /// Tells the invariant these facts, a second apart; gives back which was the first that it would not have.
    pub(crate) fn first_bad(invariant: &mut dyn Invariant, facts: &[Fact<'_>]) -> Option<usize> {
        facts.iter().enumerate().position(|(n, fact)| {
            let now = Time::from_micros(n as u64 * 1_000_000);
            invariant.observe(fact, now).is_err()
        })
    }
}
