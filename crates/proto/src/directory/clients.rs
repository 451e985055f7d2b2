//! Which client is served where.
//!
//! Each server owns the list of the clients that it serves and counts its changes. A change goes to all others as a
//! delta with its number. Whoever misses one notices by the number, or by the version in the owner's heartbeats, and
//! asks for the whole list. A client that moves stands in two lists for a while: the higher session number is right.
//! Lists belong to an (id, boot), so a server that starts anew starts a new list.
//!
//! ```text
//!   owner: put -> version 8 ----------------> 7 here: now 8
//!   owner: gone -> version 9 ------- lost
//!   owner: put -> version 10 ---------------> 8 here: a gap
//!          <---------------------- ClientsReq
//!          all, 2 parts, version 10 --------> now 10
//! ```

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::chunk;
use crate::{
    ids::{DeviceId, Origin, PersonId, PersonName, RoomName, ServerId},
    limits,
    wire::frame::{self, ClientRecord, ClientsChange},
};

/// Characters of [`ClientRecord::via`] that are kept.
const VIA_CHARS_MAX: usize = 16;

/// A client: a person's process.
type Key = (PersonId, DeviceId);

/// A name, since when somebody has it, who that is, and whose list says so.
type Claim = (PersonName, u64, PersonId, DeviceId, Origin);

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It changed the list.
    Changed,
    /// It was known, or is a part of a list that is not whole yet.
    Same,
    /// Changes before it are missing, so it was dropped: ask its sender by
    /// [`Frame::ClientsReq`](crate::wire::frame::Frame::ClientsReq).
    Gap,
}

/// A client and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The server.
    pub server: ServerId,
    /// The client.
    pub client: ClientRecord,
}

/// One server's list.
#[derive(Debug, Default)]
struct List {
    version: u64,
    clients: BTreeMap<Key, ClientRecord>,
    coming: Option<Coming>,
}

/// A whole list of which some parts have arrived.
#[derive(Debug)]
struct Coming {
    version: u64,
    parts: BTreeMap<u32, Vec<ClientRecord>>,
    clients: usize,
    last: Option<u32>,
}

/// The lists of all servers, one's own included.
#[derive(Debug)]
pub struct Clients {
    me: Origin,
    lists: BTreeMap<Origin, List>,
    /// Who is listed under which name: of one name the oldest first, since an older claim wins.
    names: BTreeSet<Claim>,
}

impl Clients {
    /// No clients yet; `me` serves those that [`Self::own_put`] adds.
    pub fn new(me: Origin) -> Self {
        Self { me, lists: BTreeMap::from([(me, List::default())]), names: BTreeSet::new() }
    }

    /// Takes another id or boot: the others know our list under the old one no longer.
    pub fn set_me(&mut self, me: Origin) {
        if me == self.me {
            return;
        }
        let own = self.take_list(self.me);
        self.take_list(me);
        self.me = me;
        self.lists.entry(me).or_default().version = own.version;
        for client in own.clients.into_values() {
            self.put(me, client);
        }
    }

    /// Serves a client, or changes what is known of it. Returns what to tell all other servers; `None` where nothing
    /// changed. A list of rooms that fits no frame is cut.
    pub fn own_put(&mut self, mut client: ClientRecord) -> Option<frame::Clients> {
        cut(&mut client);
        let own = self.lists.get_mut(&self.me)?;
        if own.clients.get(&key(&client)) == Some(&client) {
            return None;
        }
        own.version += 1;
        let version = own.version;
        self.put(self.me, client.clone());
        Some(frame::Clients { version, change: ClientsChange::Put { client } })
    }

    /// Serves a client no longer. Returns what to tell all other servers; `None` where it was not served.
    pub fn own_gone(&mut self, person: PersonId, device: DeviceId) -> Option<frame::Clients> {
        self.remove(self.me, (person, device))?;
        let own = self.lists.get_mut(&self.me)?;
        own.version += 1;
        Some(frame::Clients { version: own.version, change: ClientsChange::Gone { person, device } })
    }

    /// What we have told of a client that we serve.
    pub fn own(&self, person: PersonId, device: DeviceId) -> Option<&ClientRecord> {
        self.lists.get(&self.me)?.clients.get(&(person, device))
    }

    /// Version of our own list, for heartbeats.
    pub fn own_version(&self) -> u64 {
        self.version(self.me)
    }

    /// Our own list as parts that each fit a frame: the answer to a `ClientsReq`.
    pub fn own_all(&self) -> Vec<frame::Clients> {
        let Some(own) = self.lists.get(&self.me) else { return Vec::new() };
        let chunks = chunk::chunks(own.clients.values().cloned());
        let count = chunks.len();
        let part = |(at, clients)| frame::Clients {
            version: own.version,
            change: ClientsChange::All { part: at as u32, last: at + 1 == count, clients },
        };
        chunks.into_iter().enumerate().map(part).collect()
    }

    /// The version of a server's list that is known; 0 where none is. While the owner's heartbeat names another, we
    /// have missed something.
    pub fn version(&self, of: Origin) -> u64 {
        self.lists.get(&of).map_or(0, |list| list.version)
    }

    /// Takes what a server says of its own list. A list of an older boot of that server is dropped; what an older boot
    /// says is ignored.
    pub fn apply(&mut self, from: Origin, said: frame::Clients) -> Applied {
        let newest = self.lists.keys().filter(|known| known.id == from.id).max();
        if from.id == self.me.id || newest.is_some_and(|newest| newest.boot > from.boot) {
            return Applied::Same;
        }
        if newest.is_some_and(|newest| newest.boot < from.boot) {
            self.drop_server(from.id);
        }
        match said.change {
            ClientsChange::All { part, last, clients } => self.apply_part(from, said.version, part, last, clients),
            ClientsChange::Put { client } => self.apply_delta(from, said.version, |all| all.put(from, client)),
            ClientsChange::Gone { person, device } => {
                self.apply_delta(from, said.version, |all| drop(all.remove(from, (person, device))))
            }
        }
    }

    /// Forgets the clients of a dead server, of whatever boot.
    pub fn drop_server(&mut self, id: ServerId) {
        let boots: Vec<_> = self.lists.keys().copied().filter(|of| of.id == id && *of != self.me).collect();
        for boot in boots {
            self.take_list(boot);
        }
    }

    /// All clients, or those in a room, by person and device. One that two servers list counts once, where its session
    /// number is higher.
    pub fn who(&self, room: Option<&RoomName>) -> Vec<Who> {
        let mut newest: BTreeMap<Key, (Origin, &ClientRecord)> = BTreeMap::new();
        for (of, list) in &self.lists {
            for (key, client) in &list.clients {
                match newest.entry(*key) {
                    Entry::Vacant(entry) => drop(entry.insert((*of, client))),
                    Entry::Occupied(mut entry) if client.session > entry.get().1.session => {
                        entry.insert((*of, client));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        let in_room = |client: &ClientRecord| room.is_none_or(|room| client.rooms.contains(room));
        let found = newest.into_values().filter(|(_, client)| in_room(client));
        found.map(|(of, client)| Who { server: of.id, client: client.clone() }).collect()
    }

    /// Whether another server lists a client of ours with a higher session number: then it has moved there, and we serve
    /// it no longer.
    pub fn has_moved(&self, person: PersonId, device: DeviceId) -> bool {
        let key = (person, device);
        let Some(own) = self.lists.get(&self.me).and_then(|list| list.clients.get(&key)) else { return false };
        let elsewhere = self.lists.iter().filter(|(of, _)| **of != self.me);
        elsewhere.filter_map(|(_, list)| list.clients.get(&key)).any(|client| client.session > own.session)
    }

    /// The highest session number under which any server lists a client; 0 where none does.
    pub fn session(&self, person: PersonId, device: DeviceId) -> u64 {
        let listed = self.lists.values().filter_map(|list| list.clients.get(&(person, device)));
        listed.map(|client| client.session).max().unwrap_or_default()
    }

    /// Who is here under a name; of several, the one that has been here longest.
    pub fn name_holder(&self, name: &PersonName) -> Option<PersonId> {
        let first = (name.clone(), 0, PersonId([0; 16]), DeviceId(0), Origin::MIN);
        self.names.range(first..).next().filter(|claim| claim.0 == *name).map(|(_, _, person, ..)| *person)
    }

    /// A name like `name` that nobody has: `anna` becomes `anna2`.
    pub fn suggest(&self, name: &PersonName) -> PersonName {
        let stem = name.as_str().trim_end_matches(|c: char| c.is_ascii_digit());
        let stem = if stem.is_empty() { name.as_str() } else { stem };
        let numbered = |n: usize| {
            let number = n.to_string();
            let stem: String = stem.chars().take(limits::NAME_CHARS_MAX - number.len()).collect();
            (stem + &number).parse::<PersonName>().ok()
        };
        // One number more than there are claims: one is free.
        let mut numbers = 2..self.names.len() + 3;
        let free = numbers.find_map(|n| numbered(n).filter(|name| self.name_holder(name).is_none()));
        free.unwrap_or_else(|| name.clone())
    }

    fn apply_delta(&mut self, from: Origin, version: u64, change: impl FnOnce(&mut Self)) -> Applied {
        let list = self.lists.entry(from).or_default();
        if version <= list.version {
            return Applied::Same;
        }
        if version != list.version + 1 || list.clients.len() >= limits::SESSIONS_MAX {
            return Applied::Gap;
        }
        list.version = version;
        change(self);
        Applied::Changed
    }

    fn apply_part(&mut self, from: Origin, version: u64, part: u32, last: bool, clients: Vec<ClientRecord>) -> Applied {
        let list = self.lists.entry(from).or_default();
        if version <= list.version || list.coming.as_ref().is_some_and(|coming| coming.version > version) {
            return Applied::Same;
        }
        let new = || Coming { version, parts: BTreeMap::new(), clients: 0, last: None };
        let mut coming = list.coming.take().filter(|coming| coming.version == version).unwrap_or_else(new);
        // An empty part counts too, so that parts without end cannot pile up.
        let bounded = coming.clients + clients.len() + coming.parts.len() < limits::SESSIONS_MAX;
        if bounded && !coming.parts.contains_key(&part) {
            coming.clients += clients.len();
            coming.parts.insert(part, clients);
        }
        if last {
            coming.last = Some(part);
        }
        // Parts are numbered from 0, so they are all here when there are as many as the last one says.
        let whole = coming.last.is_some_and(|last| {
            coming.parts.len() as u64 == u64::from(last) + 1
                && coming.parts.last_key_value().is_some_and(|(at, _)| *at == last)
        });
        if !whole {
            list.coming = Some(coming);
            return Applied::Same;
        }
        self.take_list(from);
        self.lists.entry(from).or_default().version = version;
        for client in coming.parts.into_values().flatten() {
            self.put(from, client);
        }
        Applied::Changed
    }

    fn put(&mut self, of: Origin, mut client: ClientRecord) {
        // There may be a hundred thousand of them.
        client.rooms.shrink_to_fit();
        client.via.shrink_to_fit();
        self.remove(of, key(&client));
        self.names.insert(claim(of, &client));
        self.lists.entry(of).or_default().clients.insert(key(&client), client);
    }

    fn remove(&mut self, of: Origin, key: Key) -> Option<ClientRecord> {
        let client = self.lists.get_mut(&of)?.clients.remove(&key)?;
        self.names.remove(&claim(of, &client));
        Some(client)
    }

    /// Takes a whole list out.
    fn take_list(&mut self, of: Origin) -> List {
        let list = self.lists.remove(&of).unwrap_or_default();
        for client in list.clients.values() {
            self.names.remove(&claim(of, client));
        }
        list
    }
}

fn key(client: &ClientRecord) -> Key {
    (client.person, client.device)
}

fn claim(of: Origin, client: &ClientRecord) -> Claim {
    (client.name.clone(), client.since, client.person, client.device, of)
}

/// Cuts a record so that it fits a frame.
fn cut(client: &mut ClientRecord) {
    if let Some((at, _)) = client.via.char_indices().nth(VIA_CHARS_MAX) {
        client.via.truncate(at);
    }
    client.rooms.truncate(limits::ROOMS_PER_CLIENT_MAX);
    while chunk::item_bytes(client) > chunk::ITEM_BYTES_MAX && client.rooms.pop().is_some() {}
}

#[cfg(test)]
mod tests;
