//! Leaving: how a server hands everything over before it stops.
//!
//! ```text
//! leaver                            leader
//!   | a leader that leaves leads on until another one leads
//!   | Leave (repeated) ----------------> |  one at a time
//!   | <------------- Assign, Leaving --- |  its rooms have other homes: each is handed over (`handoff`)
//!   | Come -------> its clients          |  they go to their standbys; it serves those that have not gone yet
//!   | Compare -------> all               |  it acknowledges nothing more: nobody counts on its copies
//!   | <------- Keeps (what is durable) - |  until enough others have kept all that the leaver holds
//!   | Members: I have left -> all        |
//! ```
//!
//! Who is brought over to another cluster leaves its own in the same way, but takes its clients along: see `over`.
//!
//! Rooms go before clients, so that those find them open where they come to. Who cannot finish within 10 s stops (or goes
//! over) without having left: a member that is down. So does, at once, who is to stop and hears nobody, or goes over and is
//! the only member.

use std::collections::BTreeSet;

use super::{
    Node, Stage, Stop, Timer,
    copies::{Copies, Enough},
};
use crate::{
    ids::{ClusterId, Origin, ServerId},
    limits,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Epoch, Member, Vectors},
        vectors,
    },
};

/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// Between two steps.
pub(super) const STEP: Duration = Duration::from_millis(50);
/// Between two questions what others hold, and between two calls to clients to go.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long a leader that leaves waits for the next one to lead.
const SUCCESSION_MAX: Duration = Duration::from_secs(3);
/// How long clients that do not go are served.
const CLIENTS_MAX: Duration = Duration::from_secs(1);
/// How often the others are told that we have left: a single datagram may be lost.
pub(super) const GOODBYES: u32 = 3;

/// Why a server leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its process is asked to stop.
    Asked,
    /// An operator has retired it.
    Retired,
    /// An operator brings it over to this cluster.
    Joins(ClusterId),
}

/// How far leaving has come.
#[derive(Debug)]
pub(super) struct Leaving {
    why: Why,
    since: Time,
    /// The leader that lets us leave.
    granted: Option<Epoch>,
    /// When others were last asked or called.
    asked: Option<Time>,
    pub(super) step: Step,
}

/// What a leaver does at the moment.
#[derive(Debug)]
pub(super) enum Step {
    /// Hands its rooms over, once the leader lets it.
    Rooms,
    /// Sends its clients away.
    Clients {
        /// Since when.
        since: Time,
    },
    /// Waits until others hold what it held when it ceased to be a copy.
    Copies(Copies),
    /// Has said so often that it has left.
    Gone(u32),
    /// Calls the other cluster: see `over`.
    Over {
        /// Which one.
        cluster: ClusterId,
        /// Since when.
        since: Time,
        /// All whose copies counted, where enough of them held all that it held. Which of them did is not remembered, so it is
        /// said to have left only while all of these are there; and never where there were not enough.
        kept_by: Option<BTreeSet<Origin>>,
    },
}

/// Whom the leader lets leave now.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) server: ServerId,
    until: Time,
}

impl Leaving {
    /// Leaving that begins with this step.
    fn new(why: Why, step: Step, now: Time) -> Self {
        Self { why, since: now, granted: None, asked: None, step }
    }

    /// Whether it is time to ask again.
    fn asks(&mut self, now: Time) -> bool {
        let asks = self.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}

impl Node {
    /// Starts to leave. Who is to stop does not go over to another cluster any more.
    pub(super) fn leave(&mut self, why: Why) {
        if self.is_stopping() {
            return;
        }
        self.stop_calling();
        if self.stage != Stage::Serving || self.is_alone_for(why) {
            return self.leave_alone(why);
        }
        self.leaving = Some(Leaving::new(why, Step::Rooms, self.now));
        self.update_view();
        self.say_beats();
        self.step_leave();
    }

    /// Whether nobody is there to take anything over. Who is to stop does not wait for members that it does not hear. Who goes
    /// over does: they may be out of reach for a moment only, and it serves its clients meanwhile.
    fn is_alone_for(&self, why: Why) -> bool {
        match why {
            Why::Asked | Why::Retired => self.heartbeat.live().next().is_none(),
            Why::Joins(_) => self.members.present().all(|member| member.id == self.me.id),
        }
    }

    /// Stops, or goes over, where nobody is there to take anything over.
    fn leave_alone(&mut self, why: Why) {
        let messages = self.rooms.values().any(|room| !room.log.is_empty());
        match why {
            Why::Asked => self.stop(Stop::LeftAlone { messages }),
            Why::Retired => self.stop(Stop::Retired),
            Why::Joins(cluster) => {
                let step = Step::Over { cluster, since: self.now, kept_by: None };
                self.leaving = Some(Leaving::new(why, step, self.now));
                self.step_leave();
            }
        }
    }

    /// To which cluster an operator brings us over.
    pub(super) fn joins(&self) -> Option<ClusterId> {
        match self.leaving.as_ref()?.why {
            Why::Joins(cluster) => Some(cluster),
            Why::Asked | Why::Retired => None,
        }
    }

    /// Whether it leaves for good, and goes over to no other cluster.
    pub(super) fn is_stopping(&self) -> bool {
        self.leaving.is_some() && self.joins().is_none()
    }

    /// Whether clients are being sent away, or have been: nobody is to find us any more.
    pub(super) fn is_closing(&self) -> bool {
        self.joins().is_none() && self.leaving.as_ref().is_some_and(|leaving| !matches!(leaving.step, Step::Rooms))
    }

    /// Whether nobody may count on our copies any more.
    pub(super) fn is_no_copy(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| {
            matches!(leaving.step, Step::Copies(_) | Step::Gone(_) | Step::Over { kept_by: Some(_), .. })
        })
    }

    /// Something has happened that leaving may have waited for.
    pub(super) fn hasten_leave(&mut self) {
        if self.leaving.is_some() {
            self.timers.hasten(Timer::Leave, self.now);
        }
    }

    /// The next step, until it is done.
    pub(super) fn step_leave(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        if let Step::Over { cluster, since, .. } = leaving.step {
            return self.go_over(cluster, since);
        }
        let why = leaving.why;
        if self.is_alone_for(why) {
            return self.leave_alone(why);
        }
        if self.now.since(leaving.since) > LEAVE_MAX {
            return match why {
                Why::Joins(cluster) => self.leave_for(Step::Over { cluster, since: self.now, kept_by: None }),
                Why::Asked | Why::Retired => self.stop(Stop::LeftUnfinished),
            };
        }
        let is_gone = matches!(leaving.step, Step::Gone(_));
        self.timers.set(Timer::Leave, self.now + STEP);
        if !is_gone {
            // Again and again, so that a new leader knows of it too.
            self.ask_leave();
        }
        let Some(leaving) = &self.leaving else { return };
        if !is_gone && leaving.granted != Some(self.epoch()) {
            return;
        }
        match leaving.step {
            Step::Rooms => self.leave_rooms(),
            Step::Clients { since } => self.leave_clients(since),
            Step::Copies(_) => self.leave_copies(),
            Step::Gone(_) => self.say_goodbye(),
            Step::Over { .. } => {}
        }
    }

    /// Asks the leader. Who leads and leaves does so once another leads: nobody is without a leader meanwhile. Where no
    /// other may lead, it lets itself leave.
    fn ask_leave(&mut self) {
        if let Some((way, detour)) = self.way_to_leader() {
            return self.tell(way, &Frame::Leave { who: None, detour });
        }
        let Some(leaving) = &self.leaving else { return };
        let has_heir = self.heartbeat.live().any(|peer| {
            let beat = self.peers.get(&peer.id).and_then(|peer| peer.beat.as_ref());
            beat.is_some_and(|beat| beat.eligible)
        });
        let waits = has_heir && self.now.since(leaving.since) < SUCCESSION_MAX;
        if waits || !self.is_leader() || self.granted_now().is_some_and(|granted| granted != self.me.id) {
            return;
        }
        if self.granted_now().is_none() {
            self.granted = Some(Granted { server: self.me.id, until: self.now + LEAVE_MAX });
            self.hand_over();
        }
        let epoch = self.epoch();
        if let Some(leaving) = &mut self.leaving {
            leaving.granted = Some(epoch);
        }
    }

    /// Waits until the rooms are open at their new homes, and goes on with the clients.
    fn leave_rooms(&mut self) {
        let is_home = self.records.iter().any(|record| record.fence.home == self.me);
        if !is_home && !self.is_handing_over() {
            let step = if self.joins().is_some() { self.copies_step() } else { Step::Clients { since: self.now } };
            self.leave_for(step);
        }
    }

    /// What we acknowledged so far, others must hold; of what comes from now on we are no copy.
    fn copies_step(&self) -> Step {
        let rooms = self.rooms.iter().filter(|(_, room)| !room.log.is_empty());
        Step::Copies(Copies::new(rooms.map(|(name, room)| (name.clone(), room.held().clone()))))
    }

    /// Sends the clients away, until all have gone or have had time enough.
    fn leave_clients(&mut self, since: Time) {
        if self.devices.is_empty() || self.now.since(since) >= CLIENTS_MAX {
            return self.leave_for(self.copies_step());
        }
        if self.leaving.as_mut().is_some_and(|leaving| leaving.asks(self.now)) {
            self.send_clients_away();
        }
    }

    /// Asks what others hold, until that is all.
    fn leave_copies(&mut self) {
        let (enough, now) = (self.enough_copies(), self.now);
        let last = match self.joins() {
            Some(cluster) => Step::Over { cluster, since: now, kept_by: Some(enough.keepers().clone()) },
            None => Step::Gone(0),
        };
        let Some(leaving) = &mut self.leaving else { return };
        let Step::Copies(copies) = &mut leaving.step else { return };
        let lacking = copies.lacking(&enough);
        if lacking.is_empty() {
            return self.leave_for(last);
        }
        if !leaving.asks(now) {
            return;
        }
        let lines = vectors::lines(lacking, |rooms| Frame::Compare { rooms });
        let live: Vec<_> = self.heartbeat.live().collect();
        for session in live.iter().filter_map(|peer| self.peers.get(&peer.id)?.session()) {
            for line in &lines {
                self.endpoint.send(session, line.as_bytes());
            }
        }
    }

    /// The next step begins now.
    fn leave_for(&mut self, step: Step) {
        if let Some(leaving) = &mut self.leaving {
            leaving.step = step;
            leaving.asked = None;
            self.step_leave();
        }
    }

    /// Whom the leader lets leave at this moment.
    pub(super) fn granted_now(&self) -> Option<ServerId> {
        self.granted.as_ref().filter(|granted| self.now < granted.until).map(|granted| granted.server)
    }

    /// A server wants to leave: one at a time.
    pub(super) fn on_leave(&mut self, from: ServerId, who: Option<ServerId>, detour: u8) {
        let leaver = who.unwrap_or(from);
        if !self.is_leader() {
            if let Some((way, detour)) = self.way_on_to_leader(from, detour) {
                self.tell(way, &Frame::Leave { who: Some(leaver), detour });
            }
            return;
        }
        let granted = self.granted_now();
        if granted.is_some_and(|granted| granted != leaver) {
            return;
        }
        self.granted = Some(Granted { server: leaver, until: self.now + LEAVE_MAX });
        if granted.is_none() {
            // What could not be given away now, the sweep gives.
            self.hand_over();
        }
        let epoch = self.epoch();
        let detour = if who.is_some() { limits::HOPS_MAX } else { 0 };
        self.tell(from, &Frame::Leaving { epoch, who, detour });
    }

    /// The leader gives all rooms of the leaver to others.
    fn hand_over(&mut self) {
        if self.is_leader() {
            self.mend_placements();
        }
    }

    /// The leader lets a server leave: us, or one that it does not hear.
    pub(super) fn on_leaving(&mut self, id: ServerId, epoch: Epoch, who: Option<ServerId>, detour: u8) {
        if let Some(leaver) = who.filter(|leaver| *leaver != self.me.id) {
            let known = self.heartbeat.live().chain(self.heartbeat.unheard()).find(|peer| peer.id == leaver);
            if let Some((way, detour)) = known.and_then(|leaver| self.way_on(leaver, id, detour)) {
                self.tell(way, &Frame::Leaving { epoch, who, detour });
            }
            return;
        }
        let is_on_the_way = self.way_to_leader().is_some_and(|(way, _)| way == id) && epoch == self.epoch();
        if !(epoch.leader == id || is_on_the_way) || !self.election.accepts(epoch) {
            return self.count("command_of_old_epoch");
        }
        if !self.commands(id) {
            return;
        }
        if let Some(leaving) = &mut self.leaving
            && leaving.granted != Some(epoch)
        {
            leaving.granted = Some(epoch);
            self.hasten_leave();
        }
    }

    /// A peer says what it has kept.
    pub(super) fn on_keeps(&mut self, id: ServerId, rooms: &Vectors) {
        if !matches!(self.leaving, Some(Leaving { step: Step::Copies(_), .. })) {
            return;
        }
        let Some(server) = self.peers.get(&id).map(|peer| peer.origin) else { return };
        let enough = self.enough_copies();
        let Some(Leaving { step: Step::Copies(copies), .. }) = &mut self.leaving else { return };
        if copies.hear(server, rooms, &enough) {
            self.hasten_leave();
        }
    }

    /// On whose copies we may count when we leave: of members whose copies count at all. Who leaves as well, or cannot write,
    /// says that it takes no rooms, as do those on probation, which stay.
    fn enough_copies(&self) -> Enough {
        let leaves = |peer: &Origin| {
            let beat = self.peers.get(&peer.id).and_then(|peer| peer.beat.as_ref());
            // Who cannot write stays, and perhaps will.
            beat.is_some_and(|beat| !beat.takes_rooms && !beat.unwritable) && !self.is_on_probation(peer.id)
        };
        let keepers = self.heartbeat.live().filter(|peer| self.members.keeps(peer.id));
        let (leaving, staying) = keepers.partition(leaves);
        Enough::new(self.config.replicas, staying, leaving)
    }

    /// Tells all that we have left, a few times, and stops.
    fn say_goodbye(&mut self) {
        let Some(Leaving { step: Step::Gone(goodbyes), why, .. }) = &mut self.leaving else { return };
        *goodbyes += 1;
        let (done, why) = (*goodbyes > GOODBYES, *why);
        if done {
            return self.stop(if why == Why::Retired { Stop::Retired } else { Stop::Left });
        }
        let me = Member { left: true, ..self.myself() };
        self.tell_all(&Frame::Members { members: vec![me] });
    }
}
