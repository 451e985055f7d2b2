//! Clients of this server: who they are, what they are told, and the directory of all clients of the cluster.

use super::{Node, Party, Stage, Timer};
use crate::{
    directory::{Applied, placement},
    ids::{Boot, DeviceId, Origin, PersonId, PersonName, RoomName, ServerId},
    session::SessionId,
    sorted::Sorted,
    time::Duration,
    wire::{
        Frame,
        frame::{ClientRecord, Clients, ClientsChange, Hi, Welcome},
    },
};

/// Rooms of a client that its record names: as many as fit a frame.
const ROOMS_NAMED_MAX: usize = 12;
/// Bytes of what a client says of how it talks.
const VIA_BYTES_MAX: usize = 16;
/// A client of a dead server is called over again after this.
const COME_AGAIN: Duration = Duration::from_millis(200);
/// So often, at the most.
const COMES_MAX: u8 = 10;
/// How long somebody with a session may take to say who they are.
const HI_SPAN: Duration = Duration::from_secs(10);

/// A client, or somebody who may become one with their first frame.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) person: PersonId,
    pub(super) device: DeviceId,
    pub(super) name: PersonName,
    session: u64,
    since: u64,
    role: Role,
    /// Whether it has said hi, though we may not have taken it.
    said_hi: bool,
    /// Under which boot its server was heard here when it asked us to stand by.
    boot: Option<Boot>,
    comes: u8,
}

/// What a session of a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It has not said hi.
    Unknown,
    /// We serve it.
    Served,
    /// Another server does; we call it over when that one dies.
    Standby(ServerId),
}

impl Served {
    pub(super) fn new(person: PersonId) -> Self {
        let name = "somebody".parse().expect("this is a name");
        Self {
            person,
            device: DeviceId(0),
            name,
            session: 0,
            since: 0,
            role: Role::Unknown,
            said_hi: false,
            boot: None,
            comes: 0,
        }
    }

    /// Whether we serve it.
    pub(super) fn is_served(&self) -> bool {
        self.role == Role::Served
    }

    /// Whether it has been told who it is to us, and has not been turned away since.
    pub(super) fn is_known(&self) -> bool {
        self.role != Role::Unknown
    }
}

impl Node {
    fn served(&self, session: SessionId) -> Option<&Served> {
        match self.sessions.get(&session) {
            Some(Party::Client(served)) => Some(served),
            _ => None,
        }
    }

    fn served_mut(&mut self, session: SessionId) -> Option<&mut Served> {
        match self.sessions.get_mut(&session) {
            Some(Party::Client(served)) => Some(served),
            _ => None,
        }
    }

    /// Whether this is the session of a client that we serve.
    pub(super) fn is_served(&self, session: SessionId) -> bool {
        self.served(session).is_some_and(Served::is_served)
    }

    /// A client says who it is, or says it again.
    pub(super) fn on_hi(&mut self, session: SessionId, hi: Hi) {
        if self.stage != Stage::Serving {
            return self.count("not_ready");
        }
        let since = self.cluster_millis();
        let Some(served) = self.served_mut(session) else { return };
        served.said_hi = true;
        let (person, was, before) = (served.person, served.role, served.session);
        self.timers.clear(&Timer::Hi(session));
        if hi.session < before {
            return self.count("hi_old");
        }
        if let Some(holder) = self.clients.name_holder(&hi.name)
            && holder != person
        {
            let suggestion = Some(self.clients.suggest(&hi.name));
            let why = format!("the name {} is taken: choose another", hi.name);
            return self.say(session, &Frame::NotWelcome { why, suggestion });
        }
        let role = hi.standby.map_or(Role::Served, Role::Standby);
        let device = self.served(session).map(|served| served.device);
        if let Some(old) = device.filter(|old| was == Role::Served && *old != hi.device) {
            self.forget_device(session, person, old);
        }
        let is_repeated = was == role && hi.session == before;
        let go = self.better_server(&hi, role, was);
        let boot = if is_repeated { self.served(session).and_then(|served| served.boot) } else { None };
        let boot = boot.or_else(|| self.heard_boot(hi.standby?));
        let Some(served) = self.served_mut(session) else { return };
        (served.device, served.name, served.session) = (hi.device, hi.name, hi.session);
        (served.role, served.boot) = (role, boot);
        if was != Role::Served {
            served.since = since;
        }
        served.comes = 0;
        self.timers.clear(&Timer::Come(session));
        if role == Role::Served {
            let mut via = hi.via;
            via.truncate(via.floor_char_boundary(VIA_BYTES_MAX));
            self.serve(session, person, hi.device, via);
        } else if was == Role::Served {
            self.stop_serving(session, person, hi.device);
        }
        let standby = role != Role::Served;
        let welcome = Welcome { server: self.me.id, session: hi.session, standby, go, time: since };
        self.say(session, &Frame::Welcome(welcome));
        self.say_servers(session);
    }

    /// Somebody has a session: it is for those who say who they are.
    pub(super) fn client_up(&mut self, session: SessionId, person: PersonId) {
        self.sessions.insert(session, Party::Client(Box::new(Served::new(person))));
        self.timers.set(Timer::Hi(session), self.now + HI_SPAN);
    }

    /// Whoever has not said hi by now holds the place of somebody else.
    pub(super) fn drop_nameless(&mut self, session: SessionId) {
        if self.served(session).is_some_and(|served| !served.said_hi) {
            self.count("hi_never");
            self.endpoint.close(session);
            self.on_closed(session);
        }
    }

    /// A less loaded server, for a client that has just arrived and would move.
    fn better_server(&mut self, hi: &Hi, role: Role, was: Role) -> Option<ServerId> {
        if !hi.movable || role != Role::Served || was == Role::Served {
            return None;
        }
        let better = placement::least_loaded(&self.candidates(), self.me.id)?;
        // It counts there from now on, so that a crowd that arrives together does not move together.
        if let Some(beat) = self.peers.get_mut(&better).and_then(|peer| peer.beat.as_mut()) {
            beat.sessions = beat.sessions.saturating_add(1);
        }
        Some(better)
    }

    /// From now on this session is where the device is.
    fn serve(&mut self, session: SessionId, person: PersonId, device: DeviceId, via: String) {
        let old = self.devices.insert((person, device), session).filter(|old| *old != session);
        self.publish_client(session, via);
        if let Some(old) = old {
            self.unfollow_all(old);
            self.turn_away(old);
        }
    }

    /// A session is not where its client is any more. If the client thinks otherwise it says hi again, since nobody would
    /// answer it else.
    fn turn_away(&mut self, session: SessionId) {
        if let Some(served) = self.served_mut(session) {
            served.role = Role::Unknown;
            self.say_hi_first(session);
        }
    }

    /// Tells a session that it is not served, and what number would be high enough.
    pub(super) fn say_hi_first(&mut self, session: SessionId) {
        let Some(served) = self.served(session) else { return };
        let newest = self.clients.session(served.person, served.device).max(served.session);
        self.say(session, &Frame::HiFirst { session: newest });
    }

    fn stop_serving(&mut self, session: SessionId, person: PersonId, device: DeviceId) {
        self.unfollow_all(session);
        self.forget_device(session, person, device);
    }

    /// This session is no longer where the device is.
    fn forget_device(&mut self, session: SessionId, person: PersonId, device: DeviceId) {
        self.relays.remove_device((person, device));
        self.early.remove_device((person, device));
        if self.devices.get(&(person, device)) == Some(&session) {
            self.devices.remove(&(person, device));
            if let Some(change) = self.clients.own_gone(person, device) {
                self.tell_all(&Frame::Clients(change));
            }
        }
    }

    /// A client's session is gone.
    pub(super) fn client_gone(&mut self, session: SessionId, served: &Served) {
        self.timers.clear(&Timer::Come(session));
        self.timers.clear(&Timer::Hi(session));
        if served.is_served() {
            self.stop_serving(session, served.person, served.device);
            self.hasten_leave();
        }
    }

    /// A client has joined or left a room.
    pub(super) fn client_rooms_changed(&mut self, session: SessionId) {
        let served = self.served(session).filter(|served| served.is_served());
        let told = served.and_then(|served| self.clients.own(served.person, served.device));
        if let Some(via) = told.map(|told| told.via.clone()) {
            self.publish_client(session, via);
        }
    }

    /// Tells all servers who this client is, where that has changed.
    fn publish_client(&mut self, session: SessionId, via: String) {
        let rooms: Vec<RoomName> =
            self.follows.get(&session).into_iter().flat_map(Sorted::iter).take(ROOMS_NAMED_MAX).cloned().collect();
        let Some(served) = self.served(session) else { return };
        let record = ClientRecord {
            name: served.name.clone(),
            person: served.person,
            device: served.device,
            session: served.session,
            via,
            rooms,
            since: served.since,
        };
        if let Some(change) = self.clients.own_put(record) {
            self.tell_all(&Frame::Clients(change));
        }
    }

    /// A server's list of clients, or a change of it.
    pub(super) fn on_clients(&mut self, session: SessionId, id: ServerId, clients: Clients) {
        let Some(origin) = self.peers.get(&id).map(|peer| peer.origin) else { return };
        let named: Vec<_> = match &clients.change {
            ClientsChange::All { clients, .. } => clients.iter().map(|client| (client.person, client.device)).collect(),
            ClientsChange::Put { client } => vec![(client.person, client.device)],
            ClientsChange::Gone { .. } => Vec::new(),
        };
        match self.clients.apply(origin, clients) {
            Applied::Changed => {}
            Applied::Same => return,
            Applied::Gap => return self.ask_clients(session, id),
        }
        for (person, device) in named {
            if self.clients.has_moved(person, device)
                && let Some(&left) = self.devices.get(&(person, device))
            {
                self.stop_serving(left, person, device);
                self.turn_away(left);
            }
        }
    }

    /// Sends our whole list of clients.
    pub(super) fn share_clients(&mut self, session: SessionId) {
        for clients in self.clients.own_all() {
            self.say(session, &Frame::Clients(clients));
        }
    }

    /// A client's keepalive; what it may have missed is said again with the answer.
    pub(super) fn on_ping(&mut self, session: SessionId, n: u64) {
        self.say(session, &Frame::Pong { n });
        match self.served(session).map(|served| served.role) {
            // Whoever only listens says nothing else.
            Some(Role::Unknown) => self.say_hi_first(session),
            Some(_) => self.say_servers(session),
            None => {}
        }
    }

    // ---- clients of dead servers

    /// A server is dead, though it may already run anew: its clients that stand by here are called over.
    pub(super) fn call_over_clients_of(&mut self, dead: Origin) {
        let waiting: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, party)| {
                matches!(party, Party::Client(served)
                if served.role == Role::Standby(dead.id) && served.boot.is_none_or(|boot| boot <= dead.boot))
            })
            .map(|(session, _)| *session)
            .collect();
        for session in waiting {
            self.call_over(session);
        }
    }

    /// Calls one client over, and again until it says hi.
    pub(super) fn call_over(&mut self, session: SessionId) {
        let Some(served) = self.served_mut(session) else { return };
        let Role::Standby(dead) = served.role else { return };
        served.comes = served.comes.saturating_add(1);
        let (again, boot) = (served.comes < COMES_MAX, served.boot);
        if self.heard_boot(dead).is_some_and(|heard| boot.is_none_or(|boot| heard <= boot)) {
            return;
        }
        self.say(session, &Frame::Come { dead });
        if again {
            self.timers.set(Timer::Come(session), self.now + COME_AGAIN);
        }
    }

    /// The boot of a server that is not dead.
    fn heard_boot(&self, id: ServerId) -> Option<Boot> {
        self.heartbeat.live().chain(self.heartbeat.unheard()).find(|peer| peer.id == id).map(|peer| peer.boot)
    }

    /// We are about to stop: our clients are to go to their standbys, and those that we stand by for are to look for others.
    pub(super) fn send_clients_away(&mut self) {
        let dead = self.me.id;
        let line = Frame::Come { dead }.to_line();
        for (session, party) in &self.sessions {
            if matches!(party, Party::Client(served) if served.is_known()) {
                self.endpoint.send(*session, line.as_bytes());
            }
        }
    }
}
