//! Heartbeats: what we say of ourselves, what others say, and what follows when somebody dies or comes to life.

use super::{
    Event, Node, Stage, Timer,
    peers::{Peer, RECONNECT_OFTEN},
};
use crate::{
    directory,
    election::{self, PeerView},
    heartbeat::Change,
    ids::{Origin, ServerId},
    limits,
    planted::{self, Bug},
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Beat, Epoch, RoomRecord},
    },
};

/// Between two questions for one server's list of clients.
const CLIENTS_AGAIN: Duration = Duration::from_millis(300);
/// A difference of directories that lasts for so long is mended.
pub(super) const DIRECTORY_DIFFERS: Duration = Duration::from_millis(300);
/// The same where telling all has changed nothing on either side, again and again.
const DIRECTORY_DIFFERS_MAX: Duration = Duration::from_secs(30);
/// A difference of logs that lasts for so long is mended.
const LOGS_DIFFER: Duration = Duration::from_secs(1);

/// A beat as a line that fits a packet: what is least needed goes first, since none at all would be death.
fn fitted(beat: Beat) -> String {
    let mut frame = Frame::Beat(beat);
    loop {
        let line = frame.to_line();
        let Frame::Beat(beat) = &mut frame else { return line };
        let is_cut = line.len() > limits::FRAME_BYTES_MAX
            && (beat.hearsay.pop().is_some()
                || beat.may_lead.pop().is_some()
                || beat.probation.pop().is_some()
                || beat.hears.pop().is_some());
        if !is_cut {
            return line;
        }
    }
}

impl Node {
    /// Looks whether somebody has died or come to life, and sends our own beat where it is due.
    pub(super) fn beat(&mut self) {
        let (due, changes) = self.heartbeat.tick(self.now);
        if due {
            self.close_unused();
            self.watch_disk();
            self.say_beats();
        }
        for change in &changes {
            match *change {
                Change::Alive(peer) => {
                    let addr = self.peers.get(&peer.id).map(|peer| peer.addr);
                    if let Some(addr) = addr {
                        self.event(Event::PeerUp { peer, addr });
                    }
                    self.timers.clear(&Timer::Reconnect(peer.id));
                    self.judge(peer);
                }
                Change::Unheard(peer) => {
                    // The link may be good for another session.
                    self.lost(peer);
                    self.probations.unheard(peer, self.now);
                    self.seek(peer);
                }
                Change::Dead { peer, silent } => {
                    let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
                    self.event(Event::PeerDown { peer, silent_ms });
                    self.clients.drop_server(peer.id);
                    self.probations.dead(peer.id, self.now);
                    if self.granted_now() == Some(peer.id) {
                        self.granted = None;
                    }
                    self.lost(peer);
                }
            }
        }
        if !changes.is_empty() {
            self.update_view();
            self.live_changed(&changes);
        }
    }

    /// A server is not live any more: it is called until it is.
    fn lost(&mut self, peer: Origin) {
        if let Some(known) = self.peers.get_mut(&peer.id).filter(|known| known.origin == peer) {
            (known.lost_at, known.attempts) = (self.now, 0);
            self.timers.set(Timer::Reconnect(peer.id), self.now + RECONNECT_OFTEN);
        }
    }

    /// The live peer over which the shortest way leads to a server that we do not hear, or that does not hear us.
    pub(super) fn detour(&self, origin: Origin) -> Option<ServerId> {
        self.heartbeat.detour(origin)
    }

    /// Beats, to all.
    pub(super) fn say_beats(&mut self) {
        self.logs = self.logs_digest();
        let line = self.my_beat();
        for session in self.peers.values().filter_map(Peer::session) {
            self.endpoint.send(session, line.as_bytes());
        }
    }

    pub(super) fn say_beat(&mut self, session: SessionId) {
        let beat = self.my_beat();
        self.endpoint.send(session, beat.as_bytes());
    }

    /// What we say of ourselves now, as a line.
    fn my_beat(&self) -> String {
        fitted(Beat {
            epoch: self.epoch(),
            led: self.election.leader().is_some(),
            load: self.load.rate(),
            lag: u32::try_from(self.heartbeat.lag().as_millis()).unwrap_or(u32::MAX),
            sessions: self.devices.len() as u32,
            hears: self.heartbeat.hears(self.now),
            hearsay: self.heartbeat.hearsay(self.now),
            eligible: self.is_eligible(),
            may_lead: self.election.eligible().take(limits::SERVERS_MAX).collect(),
            takes_rooms: self.takes_rooms(),
            unwritable: !self.kept.is_writable(),
            probation: self.probations.imposed(self.now),
            time: self.cluster_millis(),
            directory: self.directory_digest(),
            clients: self.clients.own_version(),
            logs: self.logs,
        })
    }

    /// Whether we may lead: we hear more than half of the servers that live, and have not just come back.
    pub(super) fn is_eligible(&self) -> bool {
        let live = self.heartbeat.live().count() + 1;
        let unheard = self.heartbeat.unheard().count();
        self.is_fit() && 2 * live > live + unheard
    }

    /// Whether we may be given rooms: what is kept in memory alone counts for nothing beside a disk.
    pub(super) fn takes_rooms(&self) -> bool {
        self.is_fit() && self.is_keeper()
    }

    /// Whether we stay, have been here for long enough, and can write where there is a disk.
    fn is_fit(&self) -> bool {
        let stays = self.stage == Stage::Serving && self.leaving.is_none();
        stays && self.kept.is_writable() && !self.is_on_probation(self.me.id)
    }

    /// Whether our own copies count.
    pub(super) fn is_keeper(&self) -> bool {
        self.kept.has_store() || !self.members.have_disks()
    }

    /// Whether a server has come back, and not been here for long enough since.
    pub(super) fn is_on_probation(&self, id: ServerId) -> bool {
        self.probations.is_on(id, self.now) && !planted::is(Bug::NoProbation)
    }

    /// A server has come to life: perhaps it has come back.
    fn judge(&mut self, peer: Origin) {
        let beat = self.peers.get(&peer.id).and_then(|known| known.beat.as_ref());
        let hears = beat.into_iter().flat_map(|beat| &beat.hears).take(limits::SERVERS_MAX);
        let its_side: Vec<_> = hears.filter(|heard| heard.both).map(|heard| heard.peer.id).collect();
        if self.probations.alive(self.me.id, peer, &its_side, self.now) {
            self.count("probations");
        }
    }

    /// A peer's heartbeat.
    pub(super) fn on_beat(&mut self, session: SessionId, id: ServerId, beat: Beat) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let origin = peer.origin;
        if !peer.holds(session) {
            return;
        }
        let hears_me = beat.hears.iter().any(|heard| heard.peer == self.me);
        let probation: Vec<_> = beat.probation.iter().copied().take(limits::SERVERS_MAX).collect();
        let epoch = beat.epoch;
        let leads = epoch.leader == id && beat.led && beat.time < limits::CLUSTER_MILLIS_BOUND;
        let time = beat.time;
        let clients = beat.clients;
        let stays = beat.takes_rooms;
        let is_overtaken = peer.beat.as_ref().is_some_and(|newest| beat.time < newest.time);
        self.heartbeat.heard(origin, hears_me, self.now);
        if !is_overtaken {
            let hears = beat.hears.iter().take(limits::SERVERS_MAX);
            for heard in hears.filter(|heard| heard.both && heard.peer.id != self.me.id) {
                self.heartbeat.vouched(id, heard.peer, Duration::from_millis(heard.age.into()), self.now);
            }
            let hearsay = beat.hearsay.iter().take(limits::SERVERS_MAX);
            for rumour in hearsay.filter(|rumour| rumour.peer.id != self.me.id) {
                self.heartbeat.told(id, *rumour, self.now);
            }
            peer.beat = Some(beat);
        }
        self.beat();
        if is_overtaken {
            return;
        }
        if self.is_live(origin) {
            self.probations.told(origin.id, &probation, self.now);
            if stays {
                // It wanted to leave, and does not any more.
                self.granted.take_if(|granted| granted.server == id);
            }
        }
        if leads && self.is_live(origin) && self.election.leader() == Some(id) {
            // Cluster time is the leader's; it goes forward and never back.
            self.clock_offset = self.clock_offset.max(time.saturating_sub(self.now.as_millis()));
        }
        if clients != self.clients.version(origin) {
            self.ask_clients(session, id);
        }
        self.update_view();
        if self.stage == Stage::Serving && self.is_live(origin) {
            self.elect(election::Input::HeardEpoch { from: origin, epoch });
        }
        self.part_guests(id);
        if self.find_ways() {
            self.settle_each();
        }
        self.mend_differences(session, id);
    }

    /// Asks a server for its list of clients, but not again and again while the answer is on its way.
    pub(super) fn ask_clients(&mut self, session: SessionId, id: ServerId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.asked_clients.is_none_or(|asked| now.since(asked) >= CLIENTS_AGAIN) {
            peer.asked_clients = Some(now);
            self.say(session, &Frame::ClientsReq);
        }
    }

    /// Tells the election who lives. That comes with every beat, and is nearly always the same as before: then nothing is
    /// made anew.
    pub(super) fn update_view(&mut self) {
        if !self.members.live_are(self.live_disks()) {
            let live = self.live_disks().collect();
            self.members.set_live(live);
        }
        let eligible = self.is_eligible();
        let input = if self.election.sees(self.views(), eligible) {
            election::Input::SameView
        } else {
            election::Input::View { live: self.views().collect(), eligible }
        };
        self.elect(input);
    }

    /// The servers that live, each once, and whether they have memory alone.
    fn live_disks(&self) -> impl Iterator<Item = (ServerId, bool)> {
        let others = self.heartbeat.live().filter(|peer| peer.id != self.me.id);
        let told = |id| self.members.get(id).is_some_and(|member| member.memory);
        let memory = move |id| self.peers.get(&id).map_or_else(|| told(id), |peer| peer.memory);
        others.map(move |peer| (peer.id, memory(peer.id))).chain([(self.me.id, !self.kept.has_store())])
    }

    /// The servers that live, as the election is to see them, each once.
    fn views(&self) -> impl Iterator<Item = (ServerId, PeerView)> {
        let live = self.heartbeat.live().filter_map(|origin| {
            let beat = self.beat_of(origin)?;
            let eligible = beat.eligible && !self.is_on_probation(origin.id);
            let leaving = !beat.takes_rooms && !self.is_on_probation(origin.id);
            let (boot, led, epoch) = (origin.boot, beat.led, beat.epoch);
            let view = PeerView { boot, heard: true, eligible, leaving, led, epoch };
            Some((origin.id, view))
        });
        let unheard = self.heartbeat.unheard().map(|origin| {
            let beat = self.beat_of(origin);
            let (led, epoch) = beat.map_or((false, Epoch::NONE), |beat| (beat.led, beat.epoch));
            let eligible = self.is_said_to_be_eligible(origin) && !self.is_on_probation(origin.id);
            (origin.id, PeerView { boot: origin.boot, heard: false, eligible, leaving: false, led, epoch })
        });
        live.chain(unheard)
    }

    /// The newest beat of a server, in this boot.
    fn beat_of(&self, origin: Origin) -> Option<&Beat> {
        self.peers.get(&origin.id).filter(|peer| peer.origin == origin)?.beat.as_ref()
    }

    /// Whether a live peer says that `origin` and it hear each other.
    fn is_heard_by(&self, origin: Origin, peer: Origin) -> bool {
        self.beat_of(peer).is_some_and(|beat| beat.hears.iter().any(|heard| heard.both && heard.peer == origin))
    }

    /// Whether a server that only others hear may lead, as the one says over which the way to it leads.
    fn is_said_to_be_eligible(&self, origin: Origin) -> bool {
        let by = self.detour(origin).and_then(|by| self.peers.get(&by)?.beat.as_ref());
        by.is_some_and(|by| by.may_lead.contains(&origin.id))
    }

    // ---- servers that only others hear

    /// The way to the leader, and how many servers may pass on what goes there: itself and none where we hear each other.
    pub(super) fn way_to_leader(&self) -> Option<(ServerId, u8)> {
        let id = self.election.leader().filter(|id| *id != self.me.id)?;
        self.way_round(Origin { id, boot: self.epoch().boot })
    }

    /// The same to any server.
    fn way_round(&self, to: Origin) -> Option<(ServerId, u8)> {
        if self.is_live(to) { Some((to.id, 0)) } else { Some((self.detour(to)?, limits::HOPS_MAX)) }
    }

    /// Where to pass on what has come from `from` for the leader and may be passed on by `hops` servers, this one included;
    /// and by how many after that.
    pub(super) fn way_on_to_leader(&self, from: ServerId, hops: u8) -> Option<(ServerId, u8)> {
        let id = self.election.leader().filter(|id| *id != self.me.id)?;
        self.way_on(Origin { id, boot: self.epoch().boot }, from, hops)
    }

    /// The same to any server.
    pub(super) fn way_on(&self, to: Origin, from: ServerId, hops: u8) -> Option<(ServerId, u8)> {
        let left = hops.min(limits::HOPS_MAX).checked_sub(1)?;
        let (way, needed) = self.way_round(to).filter(|(way, _)| *way != from)?;
        let left = left.min(needed);
        (needed == 0 || left > 0).then_some((way, left))
    }

    /// Whether a server may command us: who does not hear us, or whom we do not hear, is not one to follow blindly.
    pub(super) fn commands(&mut self, id: ServerId) -> bool {
        let heard = self.heartbeat.live().any(|peer| peer.id == id);
        if !heard {
            self.count("command_of_unheard_leader");
        }
        heard
    }

    /// Passes on what a leader said of rooms to those who do not hear it.
    pub(super) fn relay_rooms(&mut self, leader: ServerId, rooms: &[RoomRecord]) {
        let Some(leader) = self.peers.get(&leader).map(|peer| peer.origin) else { return };
        let deaf = self.heartbeat.live().filter(|peer| *peer != leader && !self.is_heard_by(leader, *peer));
        let deaf: Vec<_> = deaf.filter_map(|peer| self.peers.get(&peer.id)?.session()).collect();
        if deaf.is_empty() {
            return;
        }
        for rooms in directory::rooms::chunks(rooms) {
            let line = Frame::Rooms { rooms }.to_line();
            for session in &deaf {
                self.endpoint.send(*session, line.as_bytes());
            }
        }
    }

    /// What a peer holds differs from what we hold: after a while something is done about it.
    pub(super) fn mend_differences(&mut self, session: SessionId, id: ServerId) {
        let (directory, logs, now) = (self.directory_digest(), self.logs, self.now);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(beat) = &peer.beat else { return };
        let lasts = |since: &mut Option<Time>, differs: bool, span: Duration| {
            let start = *since.get_or_insert(now);
            let lasts = differs && now.since(start) >= span;
            if lasts || !differs {
                *since = None;
            }
            lasts
        };
        let both = (directory, beat.directory);
        if both.0 == both.1 || peer.directories.is_some_and(|shared| shared != both) {
            (peer.directory_span, peer.directories) = (DIRECTORY_DIFFERS, None);
        }
        let directory = lasts(&mut peer.directory_differs, both.0 != both.1, peer.directory_span);
        if directory && peer.directories.replace(both).is_some() {
            peer.directory_span = (peer.directory_span * 2).min(DIRECTORY_DIFFERS_MAX);
        }
        let logs = lasts(&mut peer.logs_differ, beat.logs != logs, LOGS_DIFFER);
        if directory {
            self.share_directory(session);
        }
        if logs {
            self.compare_with(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Boot,
        wire::frame::{Heard, Rumour},
    };

    #[test]
    fn the_longest_beat_fits_a_packet_and_names_all_that_are_heard() {
        let number = (1 << 53) - 1;
        let peer = Origin { id: ServerId(u32::MAX), boot: Boot((1 << 52) - 1) };
        let beat = Beat {
            epoch: Epoch { term: number, leader: peer.id, boot: peer.boot },
            led: false,
            load: u32::MAX,
            lag: u32::MAX,
            sessions: u32::MAX,
            hears: vec![Heard { peer, age: 9_999, both: false }; limits::SERVERS_MAX],
            hearsay: vec![Rumour { peer, age: 9_999, hops: 3 }; limits::SERVERS_MAX],
            eligible: false,
            may_lead: vec![peer.id; limits::SERVERS_MAX],
            takes_rooms: false,
            unwritable: true,
            probation: vec![(peer.id, 999_999); limits::SERVERS_MAX],
            time: number,
            directory: number,
            clients: number,
            logs: number,
        };
        let said = |beat: Beat| {
            let line = fitted(beat);
            assert!(line.len() <= limits::FRAME_BYTES_MAX);
            let Some(Frame::Beat(beat)) = Frame::from_line(line.as_bytes()) else { panic!("{line}") };
            beat
        };
        let fits = said(beat.clone());
        assert_eq!((&fits.hears, fits.hearsay.len()), (&beat.hears, 0));
        let short = Beat { hearsay: Vec::new(), may_lead: Vec::new(), probation: Vec::new(), ..beat };
        assert_eq!(said(short.clone()), short);
    }
}
