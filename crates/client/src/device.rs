//! This process as a device of its person, with the outbox in which its posts wait until they are settled.
//!
//! ```text
//! people/anna/devices/
//!   AAECAwQFBgc.jsonl    the journal of the device with that id
//!   AAECAwQFBgc.lock     locked by the process that is that device
//!   scan.lock            locked while a process looks for a device
//! ```
//!
//! A journal is append-only JSON Lines:
//!
//! ```text
//! {"device":{"cluster":"hobnob","trust":"open"}}
//! {"cluster":{"id":"00ff..."}}                        which cluster it was: open ones only
//! {"post":{"room":"lobby","seq":7,"body":"hello"}}    fsynced before the post leaves
//! {"settled":{"room":"lobby","seq":7}}                not fsynced: a post that is repeated is recognised
//! {"next":{"room":"lobby","seq":8}}                   what a compaction leaves of posts that are settled
//! {"set_aside":{}}                                    its posts wait for that cluster to come back
//! ```
//!
//! A home knows a post by (person, device, room, seq), so a device must never use a number twice, not even in two
//! clusters, which might be united one day. So a device belongs to one cluster, by *name*: the id is not known before a
//! server answers, and may change while a young cluster is adopted by another. Numbers then grow for each room, whichever
//! cluster of that name is there today.
//!
//! A name is not enough for the posts, though: what was written for those who know a secret must not be posted where
//! anybody can read it. So a journal also belongs to a *trust*: `open`, or a fingerprint of the secret. Open clusters of
//! one name may be anybody's, so there posts that were left over go only to the cluster, by id, that they were written
//! in. If another one answers, they are set aside: a new device goes on, and becomes the old one when its cluster is back.
//!
//! The lock is a file of its own, since a compaction replaces the journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use hobnob_proto::{
    ids::{ClusterId, ClusterName, DeviceId, RoomName},
    session::keys::{self, Secret},
};
use serde::{Deserialize, Serialize};

use crate::{Fail, driver, identity};

/// A journal is rewritten on opening once it is longer than this many bytes, and mostly settled.
const COMPACT_BYTES: u64 = 64 * 1024;

/// A line of a journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Device { cluster: ClusterName, trust: String },
    Cluster { id: ClusterId },
    SetAside {},
    Post { room: RoomName, seq: u64, body: String },
    Settled { room: RoomName, seq: u64 },
    Next { room: RoomName, seq: u64 },
}

/// A post that waits to be settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Post {
    /// Where.
    pub(crate) room: RoomName,
    /// The device's number of it in that room.
    pub(crate) seq: u64,
    /// The text.
    pub(crate) body: String,
}

/// A device that this process is.
#[derive(Debug)]
pub(crate) struct Device {
    id: DeviceId,
    directory: PathBuf,
    journal: File,
    /// Keeps other processes away, as long as it is open.
    _lock: File,
    state: State,
    /// Unsettled posts that a home has accepted, as far as this process knows.
    accepted: BTreeSet<(RoomName, u64)>,
    /// Whether the last write failed, and may have left a part of a line behind.
    is_torn: bool,
}

/// What a device belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Realm {
    cluster: ClusterName,
    trust: String,
}

impl Realm {
    /// The clusters of this name that know this secret; `None`: the open ones.
    pub(crate) fn new(cluster: &ClusterName, secret: Option<&Secret>) -> Self {
        // Of the key that servers show to everybody, so that the journal tells nothing of the secret.
        let fingerprint = |secret| keys::cluster_key(Some(secret), cluster, ClusterId(0)).person().to_string();
        Self { cluster: cluster.clone(), trust: secret.map_or_else(|| "open".to_owned(), fingerprint) }
    }
}

/// What becomes of posts that were left over, now that a cluster has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// They belong here.
    Same,
    /// They belong to another cluster, and the device is a new one.
    Other,
    /// The device is the one that was set aside when this cluster was away.
    Back,
}

/// What a journal says.
#[derive(Debug)]
struct State {
    realm: Realm,
    /// The cluster that it was last; `None`: none yet, or a closed one.
    id: Option<ClusterId>,
    /// Whether its posts were written in another cluster than the one that was there when it was opened last.
    is_aside: bool,
    next: BTreeMap<RoomName, u64>,
    unsettled: BTreeMap<(RoomName, u64), String>,
}

impl Device {
    /// The first device of `realm` in `directory` that no other process is, one with unsettled posts if there is any;
    /// else a new one.
    pub(crate) fn open(directory: &Path, realm: &Realm) -> Result<Self, Fail> {
        take(directory, realm).map_err(|why| failure(directory, &why))
    }

    /// Its id.
    pub(crate) fn id(&self) -> DeviceId {
        self.id
    }

    /// The posts that are not settled, in order.
    pub(crate) fn unsettled(&self) -> Vec<Post> {
        let post = |((room, seq), body): (&(RoomName, u64), &String)| Post {
            room: room.clone(),
            seq: *seq,
            body: body.clone(),
        };
        self.state.unsettled.iter().map(post).collect()
    }

    /// The text of a post that is not settled.
    pub(crate) fn body(&self, room: &RoomName, seq: u64) -> Option<&str> {
        self.state.unsettled.get(&(room.clone(), seq)).map(String::as_str)
    }

    /// Gives each of `bodies` its number in `room` and makes them durable, with one write. Where that fails none of them
    /// has a number, and none may leave.
    pub(crate) fn post(&mut self, room: &RoomName, bodies: Vec<String>) -> Result<Vec<Post>, Fail> {
        let first = self.state.next.get(room).copied().unwrap_or(1);
        let posts: Vec<Post> =
            (first..).zip(bodies).map(|(seq, body)| Post { room: room.clone(), seq, body }).collect();
        let lines: Vec<Line> = posts.iter().cloned().map(Line::from).collect();
        let written = self.append(&lines).and_then(|()| self.journal.sync_data());
        if let Err(why) = written {
            self.is_torn = true;
            // The numbers may be on the disk all the same, so they are used up.
            self.state.next.insert(room.clone(), first + posts.len() as u64);
            return Err(failure(&self.directory, &why));
        }
        for line in lines {
            self.state.apply(line);
        }
        Ok(posts)
    }

    /// Notes that a home has accepted a post.
    pub(crate) fn accept(&mut self, room: &RoomName, seq: u64) {
        let key = (room.clone(), seq);
        if self.state.unsettled.contains_key(&key) {
            self.accepted.insert(key);
        }
    }

    /// Notes that a post is stored or refused.
    pub(crate) fn settle(&mut self, room: &RoomName, seq: u64) {
        self.accepted.remove(&(room.clone(), seq));
        if self.state.unsettled.contains_key(&(room.clone(), seq)) {
            let line = Line::Settled { room: room.clone(), seq };
            // Where this fails the post is repeated at the next start, and recognised by its home.
            self.is_torn |= self.append(std::slice::from_ref(&line)).is_err();
            self.state.apply(line);
        }
    }

    /// Becomes a new device that takes over the numbers and the unsettled posts, but for those that were accepted: posted
    /// by another device they would be in the log twice, so they stay in the old one's journal, and whichever process is
    /// that device next repeats them. For a device whose numbers somebody else has used, as after a disk was cloned.
    pub(crate) fn renew(&mut self) -> Result<(), Fail> {
        let mut unsettled = self.state.unsettled.clone();
        unsettled.retain(|key, _| !self.accepted.contains(key));
        let new =
            State { next: self.state.next.clone(), unsettled, id: self.state.id, ..State::new(&self.state.realm) };
        let mut device = create(&self.directory, new).map_err(|why| failure(&self.directory, &why))?;
        std::mem::swap(self, &mut device);
        for (room, seq) in self.state.unsettled.keys() {
            let settled = Line::Settled { room: room.clone(), seq: *seq };
            let _repeated_later = device.append(std::slice::from_ref(&settled));
        }
        Ok(())
    }

    /// An open cluster has answered. `leftovers` are the posts of an earlier process.
    pub(crate) fn meet(&mut self, cluster: ClusterId, leftovers: &BTreeSet<(RoomName, u64)>) -> Result<Met, Fail> {
        if self.state.id.is_some_and(|id| id != cluster) && !leftovers.is_empty() {
            self.set_aside(cluster, leftovers).map_err(|why| failure(&self.directory, &why))?;
            return Ok(Met::Other);
        }
        let is_free = self.state.unsettled.is_empty();
        if is_free && let Some(back) = take_back(&self.directory, &self.state.realm, cluster) {
            *self = back;
            return Ok(Met::Back);
        }
        self.note_cluster(cluster);
        Ok(Met::Same)
    }

    /// Notes which cluster this is now.
    pub(crate) fn note_cluster(&mut self, id: ClusterId) {
        if self.state.id != Some(id) {
            let line = Line::Cluster { id };
            // Where this fails its posts are taken for those of the cluster before, and kept longer than need be.
            self.is_torn |= self.append(std::slice::from_ref(&line)).is_err();
            self.state.apply(line);
        }
    }

    /// Becomes a new device that takes over the numbers, and the posts that are not `leftovers`.
    fn set_aside(&mut self, cluster: ClusterId, leftovers: &BTreeSet<(RoomName, u64)>) -> io::Result<()> {
        let mut unsettled = self.state.unsettled.clone();
        unsettled.retain(|key, _| !leftovers.contains(key));
        let moved: Vec<(RoomName, u64)> = unsettled.keys().cloned().collect();
        let next = self.state.next.clone();
        let new = State { next, unsettled, id: Some(cluster), ..State::new(&self.state.realm) };
        let mut old = create(&self.directory, new)?;
        std::mem::swap(self, &mut old);
        let settled = moved.into_iter().map(|(room, seq)| Line::Settled { room, seq });
        old.append(&settled.chain([Line::SetAside {}]).collect::<Vec<_>>())
    }

    fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut bytes = if std::mem::take(&mut self.is_torn) { b"\n".to_vec() } else { Vec::new() };
        for line in lines {
            bytes.extend_from_slice(&line.to_bytes());
        }
        self.journal.write_all(&bytes)
    }
}

impl From<Post> for Line {
    fn from(post: Post) -> Self {
        Self::Post { room: post.room, seq: post.seq, body: post.body }
    }
}

impl Line {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("lines have string keys and no failing parts");
        bytes.push(b'\n');
        bytes
    }
}

impl State {
    fn new(realm: &Realm) -> Self {
        let (next, unsettled) = (BTreeMap::new(), BTreeMap::new());
        Self { realm: realm.clone(), id: None, is_aside: false, next, unsettled }
    }

    /// What a journal says; `None` for one of another realm, or one that does not begin as a journal does. A part of a
    /// line, which a power cut or a full disk leaves, is passed over: no post left without its whole line.
    fn read(journal: &[u8], realm: &Realm) -> Option<Self> {
        let mut lines = journal.split(|&byte| byte == b'\n');
        match serde_json::from_slice(lines.next()?) {
            Ok(Line::Device { cluster, trust }) if cluster == realm.cluster && trust == realm.trust => {}
            _ => return None,
        }
        let mut state = Self::new(realm);
        lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|line| state.apply(line));
        Some(state)
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Device { .. } => {}
            Line::Cluster { id } => self.id = Some(id),
            Line::SetAside {} => self.is_aside = true,
            Line::Post { room, seq, body } => {
                self.raise(&room, seq.saturating_add(1));
                self.unsettled.insert((room, seq), body);
            }
            Line::Settled { room, seq } => {
                self.raise(&room, seq.saturating_add(1));
                self.unsettled.remove(&(room, seq));
            }
            Line::Next { room, seq } => self.raise(&room, seq),
        }
    }

    fn raise(&mut self, room: &RoomName, next: u64) {
        let held = self.next.entry(room.clone()).or_insert(1);
        *held = next.max(*held);
    }

    /// The shortest journal that says the same.
    fn to_journal(&self) -> Vec<u8> {
        let Realm { cluster, trust } = self.realm.clone();
        let mut journal = Line::Device { cluster, trust }.to_bytes();
        if let Some(id) = self.id {
            journal.extend(Line::Cluster { id }.to_bytes());
        }
        if self.is_aside && !self.unsettled.is_empty() {
            journal.extend(Line::SetAside {}.to_bytes());
        }
        for (room, seq) in &self.next {
            journal.extend(Line::Next { room: room.clone(), seq: *seq }.to_bytes());
        }
        for ((room, seq), body) in &self.unsettled {
            journal.extend(Line::Post { room: room.clone(), seq: *seq, body: body.clone() }.to_bytes());
        }
        journal
    }
}

fn failure(directory: &Path, why: &io::Error) -> Fail {
    let message = format!("cannot write to {}: {why}: {}", directory.display(), identity::ELSEWHERE);
    Fail::new(Fail::FAILED, message)
}

/// See [`Device::open`].
fn take(directory: &Path, realm: &Realm) -> io::Result<Device> {
    identity::create_private_dir(directory)?;
    // One process at a time looks, so that none passes over a device that another holds only to look at it.
    let scan = identity::create_private(&directory.join("scan.lock"))?;
    scan.lock()?;
    let mut idle = None;
    for id in journals(directory)? {
        let Some(device) = try_open(directory, id, realm)? else { continue };
        if device.state.unsettled.is_empty() {
            idle.get_or_insert(device);
        } else if !device.state.is_aside {
            return Ok(device);
        }
    }
    if let Some(device) = idle {
        return Ok(device);
    }
    create(directory, State::new(realm))
}

/// A device whose posts were set aside when this cluster was away. What cannot be read waits for another time.
fn take_back(directory: &Path, realm: &Realm, cluster: ClusterId) -> Option<Device> {
    let scan = identity::create_private(&directory.join("scan.lock")).ok()?;
    scan.lock().ok()?;
    let devices = journals(directory).ok()?.into_iter().filter_map(|id| try_open(directory, id, realm).ok()?);
    let waits = |state: &State| state.is_aside && state.id == Some(cluster) && !state.unsettled.is_empty();
    devices.into_iter().find(|device| waits(&device.state))
}

/// All devices in a directory, in order.
fn journals(directory: &Path) -> io::Result<Vec<DeviceId>> {
    let mut journals: Vec<PathBuf> = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    journals.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    journals.sort_unstable();
    Ok(journals.iter().filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).collect())
}

/// The device `id`, unless another process is it, or it belongs to another realm.
fn try_open(directory: &Path, id: DeviceId, realm: &Realm) -> io::Result<Option<Device>> {
    let lock = identity::create_private(&directory.join(format!("{id}.lock")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(why)) => return Err(why),
    }
    let path = directory.join(format!("{id}.jsonl"));
    let content = fs::read(&path)?;
    let Some(state) = State::read(&content, realm) else { return Ok(None) };
    let compact = state.to_journal();
    if content.len() as u64 > COMPACT_BYTES && compact.len() < content.len() / 2 {
        identity::write_whole(&path, &compact)?;
    }
    let is_torn = content.last() != Some(&b'\n');
    let journal = identity::create_private(&path)?;
    Ok(Some(Device {
        id,
        directory: directory.to_owned(),
        journal,
        _lock: lock,
        state,
        accepted: BTreeSet::new(),
        is_torn,
    }))
}

/// A new device that starts from `state`.
fn create(directory: &Path, state: State) -> io::Result<Device> {
    let random = driver::seed().map_err(|fail| io::Error::other(fail.message))?;
    let id = DeviceId(u64::from_be_bytes(*random.first_chunk().expect("a seed has 32 bytes")));
    let lock = identity::create_private(&directory.join(format!("{id}.lock")))?;
    lock.lock()?;
    let path = directory.join(format!("{id}.jsonl"));
    identity::write_whole(&path, &state.to_journal())?;
    let journal = identity::create_private(&path)?;
    Ok(Device {
        id,
        directory: directory.to_owned(),
        journal,
        _lock: lock,
        state,
        accepted: BTreeSet::new(),
        is_torn: false,
    })
}

#[cfg(test)]
mod tests;
