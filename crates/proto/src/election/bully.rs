//! The state machine of the election. See the parent module for the protocol.

#[cfg(test)]
#[path = "model/mod.rs"]
mod model;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Input, Message, Output, PeerView, State};
use crate::{
    ids::{Origin, ServerId},
    planted::{self, Bug},
    rng::Rng,
    time::{Duration, Time},
    wire::frame::Epoch,
};

/// Half of the time that a candidate waits for ALIVE: then it asks again those who have not answered, in case the
/// question or the answer was lost.
const ALIVE_WAIT_HALF: Duration = Duration::from_millis(50);
/// How long COORDINATOR is waited for after ALIVE, +-25 %.
const COORDINATOR_WAIT: Duration = Duration::from_millis(400);
/// The longest that a server waits before it looks for a new leader, so that not all ask in the same moment.
const START_JITTER_MS_MAX: u64 = 30;
/// How long a leader that others have, but that is not live here, is waited for, +-33 %.
const LEADER_GRACE: Duration = Duration::from_millis(150);
/// How long before a leader of lower rank is bullied, +-33 %: time to pull the directory.
const BULLY_WAIT: Duration = Duration::from_millis(300);
/// The first wait after standing down, +-25 %; doubled each time up to [`SETBACKS_MAX`] times.
const SETBACK_WAIT: Duration = Duration::from_millis(400);
/// See [`SETBACK_WAIT`].
const SETBACKS_MAX: u32 = 3;
/// The highest term: JSON carries no larger integer. Nobody gets there by elections, only by lying.
const TERM_MAX: u64 = (1 << 53) - 1;
/// How far above the newest known one a term may be: no elections get there while a server is away, only lies.
const TERM_AHEAD_MAX: u64 = 1 << 20;
/// A leader answers those that may not lead and name higher epochs at most so often: each answer is a new term.
const ANSWER_EVERY: Duration = Duration::from_secs(1);

/// What the one timer of the election is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Timer {
    /// There is no leader: become a candidate.
    Start,
    /// The leader has a lower rank: become a candidate.
    Bully,
    /// Half of the wait for ALIVE is over.
    AskAgain,
    /// The wait for ALIVE is over.
    Count,
    /// The wait for COORDINATOR is over.
    Overdue,
}

/// The election as one server sees it.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Election {
    me: Origin,
    rng: Rng,
    state: State,
    /// The highest epoch accepted; leader 0 right after a restart, when only the term is known.
    epoch: Epoch,
    /// The highest term that anybody ever named.
    term_seen: u64,
    /// The term of this server's newest candidacy.
    term_asked: u64,
    /// The highest term that is durable, or is to be.
    term_written: u64,
    /// The epoch that this server has won, and whose term is not durable yet: nobody hears of it.
    won: Option<Epoch>,
    view: BTreeMap<ServerId, PeerView>,
    eligible: bool,
    /// Who answered `LEADER_OK` in this candidacy.
    content: BTreeSet<ServerId>,
    /// When this server last led on in a term above one that named a higher epoch and may not lead.
    answered: Option<Time>,
    /// How many times in a row this server stood down.
    setbacks: u32,
    timer: Option<(Timer, Time)>,
    /// The newest [`Output::Leader`].
    told: Option<Epoch>,
    outputs: VecDeque<Output>,
}

impl Election {
    /// An election that this server, `me`, has yet to join. `term` is the newest that it made durable, 0 if none.
    pub fn new(me: Origin, term: u64, rng: Rng) -> Self {
        let term = term.min(TERM_MAX);
        Self {
            me,
            rng,
            state: State::Joining,
            epoch: Epoch { term, ..Epoch::NONE },
            term_seen: term,
            term_asked: 0,
            term_written: term,
            won: None,
            view: BTreeMap::new(),
            eligible: true,
            content: BTreeSet::new(),
            answered: None,
            setbacks: 0,
            timer: None,
            told: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input, now: Time) {
        match input {
            Input::Message { from, message } => self.message(from, message, now),
            Input::View { live, eligible } => {
                self.view = live;
                self.view.remove(&self.me.id);
                self.eligible = eligible;
                self.look(now);
            }
            Input::SameView => self.look(now),
            Input::HeardEpoch { from, epoch } => self.heard_epoch(from.id, epoch, now),
            Input::Joined if self.state == State::Joining => self.state = State::Follower,
            Input::Synced(epoch) if self.state == State::Syncing && epoch == self.epoch => self.state = State::Leader,
            Input::TermDurable(term) => self.lead(term),
            Input::Joined | Input::Synced(_) => {}
            Input::Tick => self.tick(now),
        }
        self.settle(now);
    }

    /// Whether this, of each server once, is the view that it has: then [`Input::SameView`] says it all.
    pub fn sees(&self, mut live: impl Iterator<Item = (ServerId, PeerView)>, eligible: bool) -> bool {
        let mut count = 0;
        let is_known = live.all(|(id, peer)| {
            count += 1;
            self.view.get(&id) == Some(&peer)
        });
        is_known && count == self.view.len() && eligible == self.eligible
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is wanted, if ever.
    pub fn deadline(&self) -> Option<Time> {
        self.timer.map(|(_, at)| at)
    }

    /// The highest epoch accepted; it never goes back.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Who leads in [`Self::epoch`], if that server lives, or is this one.
    pub fn leader(&self) -> Option<ServerId> {
        if self.leads() {
            return Some(self.me.id);
        }
        let peer = self.view.get(&self.epoch.leader)?;
        (peer.boot == self.epoch.boot).then_some(self.epoch.leader)
    }

    /// The other live servers that may lead, by id.
    pub fn eligible(&self) -> impl Iterator<Item = ServerId> {
        self.view.iter().filter(|(_, peer)| peer.eligible).map(|(id, _)| *id)
    }

    /// Where this server stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether a command under `epoch` may take effect: not after one of a higher epoch.
    pub fn accepts(&self, epoch: Epoch) -> bool {
        epoch >= self.epoch
    }

    fn leads(&self) -> bool {
        matches!(self.state, State::Syncing | State::Leader)
    }

    fn asks(&self) -> bool {
        matches!(self.state, State::Electing | State::AwaitingCoordinator)
    }

    /// Who is above whom. A server that is not in the view (yet) is taken at its word that it may lead.
    fn rank(&self, id: ServerId) -> (bool, ServerId) {
        let eligible =
            if id == self.me.id { self.eligible } else { self.view.get(&id).is_none_or(|peer| peer.eligible) };
        (eligible, id)
    }

    fn outranks(&self, id: ServerId, other: ServerId) -> bool {
        self.rank(id) > self.rank(other)
    }

    /// Those who could answer us.
    fn heard(&self) -> impl Iterator<Item = ServerId> {
        self.view.iter().filter(|(_, peer)| peer.heard).map(|(id, _)| *id)
    }

    fn top(&self) -> bool {
        self.view.keys().all(|id| self.outranks(self.me.id, *id))
    }

    fn send(&mut self, to: ServerId, message: Message) {
        self.outputs.push_back(Output::Send { to, message });
    }

    fn message(&mut self, from: Origin, message: Message, now: Time) {
        match message {
            Message::Election { term } => self.election(from.id, term, now),
            Message::Alive { term } => {
                let mine = self.state == State::Electing && term == self.term_asked;
                if mine && self.outranks(from.id, self.me.id) {
                    self.await_coordinator(COORDINATOR_WAIT, now);
                }
            }
            Message::LeaderOk { epoch } => {
                self.heard_epoch(from.id, epoch, now);
                if epoch == self.epoch && self.asks() {
                    self.content.insert(from.id);
                    if !self.doubted(|election, id| !election.content.contains(&id)) {
                        self.stand_down(now);
                    }
                }
            }
            Message::Coordinator { epoch } => {
                if epoch.leader == from.id && epoch.boot == from.boot {
                    self.heard_epoch(from.id, epoch, now);
                }
            }
        }
    }

    /// Answers a candidate.
    fn election(&mut self, from: ServerId, term: u64, now: Time) {
        if self.is_credible(term) {
            self.term_seen = self.term_seen.max(term);
        }
        if self.state == State::Joining {
            return;
        }
        let above = self.outranks(self.me.id, from);
        if self.leads() {
            if above {
                self.send(from, Message::Alive { term });
                self.send(from, Message::Coordinator { epoch: self.epoch });
            }
            return;
        }
        let leader = self.leader();
        if leader.is_some_and(|leader| self.outranks(leader, from) || !self.rank(from).0) {
            self.send(from, Message::LeaderOk { epoch: self.epoch });
        } else if above {
            self.send(from, Message::Alive { term });
            if self.state == State::Follower {
                self.start(now);
            }
        } else if self.state == State::Electing || (self.state == State::Follower && leader.is_none()) {
            // Its question is as good as its answer: it is alive, and on its way.
            self.await_coordinator(ALIVE_WAIT_HALF * 2 + COORDINATOR_WAIT, now);
        }
    }

    fn heard_epoch(&mut self, from: ServerId, epoch: Epoch, now: Time) {
        if epoch < self.epoch && self.leads() {
            self.send(from, Message::Coordinator { epoch: self.epoch });
        }
        self.learn(epoch, now);
    }

    /// Draws the conclusions of the view.
    fn look(&mut self, now: Time) {
        self.give_up_winning();
        if let Some(epoch) = self.view.values().map(|peer| peer.epoch).max() {
            self.learn(epoch, now);
        }
    }

    /// Accepts an epoch that is higher than the one known. It deposes; whether it ends a candidacy depends on its leader.
    fn learn(&mut self, epoch: Epoch, now: Time) {
        let is_lower = epoch < self.epoch && !planted::is(Bug::EpochNotFenced);
        if is_lower || epoch == self.epoch || !self.is_credible(epoch.term) {
            return;
        }
        if self.is_presumptuous(epoch) {
            self.term_seen = self.term_seen.max(epoch.term);
            let is_due = self.answered.is_none_or(|at| now.since(at) >= ANSWER_EVERY);
            if self.leads() && self.top() && is_due {
                self.answered = Some(now);
                self.win();
            }
            return;
        }
        self.persist(epoch.term);
        self.epoch = epoch;
        let is_beaten = self.won.take_if(|won| *won <= epoch).is_some();
        self.term_seen = self.term_seen.max(epoch.term);
        self.content.clear();
        if self.leads() || is_beaten {
            self.state = State::Follower;
        }
        if self.leader().is_some() && self.asks() {
            self.state = State::Follower;
        }
        if self.state == State::Follower {
            let at = now + self.rng.jitter(LEADER_GRACE, 33);
            self.timer = self.leader().is_none().then_some((Timer::Start, at));
        }
    }

    /// Whether a term may have come of elections. One that knows no term yet takes any.
    fn is_credible(&self, term: u64) -> bool {
        let is_near = self.epoch.term == 0 || term <= self.term_seen.saturating_add(TERM_AHEAD_MAX);
        term <= TERM_MAX && is_near
    }

    /// Whether one leads that may, and this is the epoch of one that may not: it was cut off, has led alone meanwhile, and
    /// comes back. Or of nobody: a server remembers a term over its restart, perhaps one that it asked for in vain. Neither
    /// deposes; the leader goes on, in a term above both.
    fn is_presumptuous(&self, epoch: Epoch) -> bool {
        let may_not = |peer: &PeerView| peer.heard && peer.boot == epoch.boot && !peer.eligible;
        let led = self.leader().is_some_and(|leader| leader != epoch.leader && self.rank(leader).0);
        led && (epoch.leader == Epoch::NONE.leader || self.view.get(&epoch.leader).is_some_and(may_not))
    }

    /// Whether more than half of the live servers other than the leader suspect it: this one does, and of the others
    /// those for which `suspects` holds.
    fn doubted(&self, suspects: impl Fn(&Self, ServerId) -> bool) -> bool {
        let others = || self.heard().filter(|id| *id != self.epoch.leader);
        let suspecting = 1 + others().filter(|id| suspects(self, *id)).count();
        2 * suspecting > 1 + others().count()
    }

    fn stand_down(&mut self, now: Time) {
        let wait = self.rng.jitter(SETBACK_WAIT * (1 << self.setbacks), 25);
        self.setbacks = (self.setbacks + 1).min(SETBACKS_MAX);
        self.state = State::Follower;
        self.won = None;
        self.timer = Some((Timer::Start, now + wait));
    }

    fn await_coordinator(&mut self, wait: Duration, now: Time) {
        self.state = State::AwaitingCoordinator;
        self.won = None;
        self.timer = Some((Timer::Overdue, now + self.rng.jitter(wait, 25)));
    }

    fn tick(&mut self, now: Time) {
        let Some((timer, _)) = self.timer.take_if(|(_, at)| *at <= now) else { return };
        match timer {
            Timer::Start | Timer::Bully | Timer::Overdue => self.start(now),
            Timer::AskAgain => {
                let silent: Vec<_> = self.heard().filter(|id| !self.content.contains(id)).collect();
                for to in silent {
                    self.send(to, Message::Election { term: self.term_asked });
                }
                self.timer = Some((Timer::Count, now + ALIVE_WAIT_HALF));
            }
            Timer::Count => self.win(),
        }
    }

    /// Becomes a candidate, in a term of its own.
    fn start(&mut self, now: Time) {
        self.term_seen = (self.term_seen + 1).min(TERM_MAX);
        self.term_asked = self.term_seen;
        self.content.clear();
        if self.heard().next().is_none() {
            return self.win();
        }
        self.state = State::Electing;
        self.outputs.push_back(Output::Broadcast(Message::Election { term: self.term_asked }));
        self.timer = Some((Timer::AskAgain, now + ALIVE_WAIT_HALF));
    }

    /// Has won, in a term above any that was ever named by another: leads once that is durable.
    fn win(&mut self) {
        self.timer = None;
        if self.won.is_some() {
            return;
        }
        let beaten = self.term_seen > self.term_asked || self.epoch.term >= self.term_asked;
        let term = if beaten { (self.term_seen + 1).min(TERM_MAX) } else { self.term_asked };
        let epoch = Epoch { term, leader: self.me.id, boot: self.me.boot };
        if epoch <= self.epoch {
            // Only where terms have run out: somebody above may still lead.
            self.state = State::Follower;
            return;
        }
        self.term_seen = term;
        if !self.leads() {
            self.state = State::Electing;
        }
        self.won = Some(epoch);
        self.persist(term);
    }

    /// Who has won, and may not lead any more before its term is durable, leaves that to one that may: its disk may never
    /// get there.
    fn give_up_winning(&mut self) {
        let may_lead = |peer: &PeerView| peer.heard && peer.eligible;
        if !self.eligible && !self.leads() && self.view.values().any(may_lead) && self.won.take().is_some() {
            self.state = State::Follower;
        }
    }

    /// Has a term made durable, if it is above those that were before. (One that we have just won in is written already when
    /// we hear that somebody above us leads in it.)
    fn persist(&mut self, term: u64) {
        if term > self.term_written {
            self.term_written = term;
            self.outputs.push_back(Output::PersistTerm(term));
        }
    }

    /// The term is durable: leads in it, if it has been won and nobody has been heard of meanwhile who leads above it.
    fn lead(&mut self, term: u64) {
        let Some(epoch) = self.won.take_if(|won| won.term <= term) else { return };
        self.timer = None;
        self.state = State::Syncing;
        self.epoch = epoch;
        self.content.clear();
        self.outputs.extend([Output::Broadcast(Message::Coordinator { epoch }), Output::Won(epoch)]);
    }

    /// Why this server should become a candidate, if it should.
    fn want(&self) -> Option<Timer> {
        match self.leader() {
            None => Some(Timer::Start),
            // One that may not lead itself does not take over where somebody leads.
            Some(leader) => (leader != self.me.id && self.eligible && self.top()).then_some(Timer::Bully),
        }
    }

    /// Draws the conclusions of an input: sets or clears the timer, ends a candidacy without a reason, tells the node.
    fn settle(&mut self, now: Time) {
        if matches!(self.state, State::Follower | State::Electing | State::AwaitingCoordinator) {
            match self.want() {
                None => {
                    self.state = State::Follower;
                    self.won = None;
                    self.timer = None;
                }
                Some(_) if self.won.is_some() => {}
                Some(_) if self.heard().next().is_none() => self.start(now),
                Some(want) if self.state == State::Follower => self.plan(want, now),
                Some(_) => {}
            }
        } else {
            self.timer = None;
        }
        let leader = self.leader().map(|_| self.epoch);
        if leader.is_some() {
            self.setbacks = 0;
        }
        if leader != self.told {
            self.told = leader;
            self.outputs.push_back(Output::Leader(leader));
        }
    }

    /// Whether the leader goes by its own wish: it leads until somebody takes over, and there is nothing to wait for.
    fn is_led_by_a_leaver(&self) -> bool {
        self.leader().and_then(|leader| self.view.get(&leader)).is_some_and(|leader| leader.leaving)
    }

    /// Sets a follower's timer, unless it is set for that already.
    fn plan(&mut self, want: Timer, now: Time) {
        let soon = now + Duration::from_millis(self.rng.below(START_JITTER_MS_MAX + 1));
        match self.timer {
            Some((Timer::Start, at)) if want == Timer::Start => {
                // After standing down: as soon as the others' heartbeats agree that there is no leader, try again.
                let unled = |election: &Self, id| election.view.get(&id).is_some_and(|peer| !peer.led);
                if self.setbacks > 0 && at > soon && self.doubted(unled) {
                    self.timer = Some((Timer::Start, soon));
                }
            }
            Some((timer, _)) if timer == want => {}
            _ if want == Timer::Bully && !self.is_led_by_a_leaver() => {
                self.timer = Some((want, now + self.rng.jitter(BULLY_WAIT, 33)));
            }
            _ => self.timer = Some((want, soon)),
        }
    }
}
