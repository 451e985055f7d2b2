//! Three servers on three machines, and what is between them: what may happen next, and what comes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use super::{
    super::{super::Message, Election, Input, Output, PeerView, State},
    Bounds,
};
use crate::{
    ids::{Boot, Origin, ServerId},
    rng::Rng,
    time::Time,
    wire::frame::Epoch,
};

/// How many servers there are.
const SERVERS: usize = 3;
/// Turns of all timers, after the last fault, within which all is settled.
pub(super) const ROUNDS_MAX: usize = 24;

/// An election, by what makes a difference: neither its randomness nor when its timer is due.
#[derive(Clone, Debug)]
pub(super) struct Server(Election);

impl Server {
    fn new(me: Origin, term: u64) -> Self {
        Self(Election::new(me, term, Rng::from_seed([1; 32])))
    }

    fn key(&self) -> impl Hash + PartialEq + '_ {
        let Election {
            me,
            rng: _,
            state,
            epoch,
            term_seen,
            term_asked,
            term_written,
            won,
            view,
            eligible,
            content,
            answered,
            setbacks,
            timer,
            told,
            outputs: _,
        } = &self.0;
        let numbers = (term_seen, term_asked, term_written, setbacks);
        let timer = timer.map(|(timer, _)| timer);
        (me, state, epoch, numbers, (won, told), view, eligible, content, answered.is_some(), timer)
    }
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Server {}

impl Hash for Server {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

/// A machine, on which a server runs or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Machine {
    server: Option<Server>,
    /// Its newest boot.
    boot: u64,
    /// The newest term that is durable.
    durable: u64,
    /// Terms that are being written.
    writing: Vec<u64>,
    /// The newest epoch in which it won.
    won: Epoch,
    probation: bool,
}

/// A message under way.
type Flying = (Origin, usize, Message);

/// All machines, and what is between them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    machines: [Machine; SERVERS],
    flying: BTreeSet<Flying>,
    faults: u8,
    /// What went wrong.
    pub(super) broken: Option<&'static str>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Deliver { flying: Flying, again: bool },
    Beat { from: usize, to: usize },
    Lose { at: usize, whom: usize, told: bool },
    Fire(usize),
    Durable(usize),
    Join(usize),
    Crash(usize),
    Start(usize),
    EndProbation(usize),
}

fn id(at: usize) -> ServerId {
    ServerId(u32::try_from(at).expect("there are three") + 1)
}

impl World {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let machine = |at| Machine {
            server: Some(Server::new(Origin { id: id(at), boot: Boot(1) }, 0)),
            boot: 1,
            durable: 0,
            writing: Vec::new(),
            won: Epoch::NONE,
            probation: false,
        };
        let mut world = Self {
            machines: std::array::from_fn(machine),
            flying: BTreeSet::new(),
            faults: bounds.faults,
            broken: None,
        };
        if !bounds.fresh {
            world.grow_old(bounds);
        }
        world
    }

    /// Server 3 wins in the first term, and the others hear of it in time.
    fn grow_old(&mut self, bounds: &Bounds) {
        self.carry(bounds);
        while self.election(SERVERS - 1).is_some_and(|election| election.deadline().is_some()) {
            self.input(bounds, SERVERS - 1, Input::Tick);
            self.carry(bounds);
        }
        assert!(self.is_settled() && self.term() == 1, "{self:?}");
    }

    fn origin(&self, at: usize) -> Origin {
        Origin { id: id(at), boot: Boot(self.machines[at].boot) }
    }

    fn election(&self, at: usize) -> Option<&Election> {
        self.machines[at].server.as_ref().map(|server| &server.0)
    }

    fn is_up(&self, at: usize) -> bool {
        self.machines[at].server.is_some()
    }

    fn up(&self) -> impl Iterator<Item = usize> {
        (0..SERVERS).filter(|at| self.is_up(*at))
    }

    fn expect(&mut self, holds: bool, otherwise: &'static str) {
        if !holds {
            self.broken.get_or_insert(otherwise);
        }
    }

    /// A server takes an input; what it wants done is done.
    fn input(&mut self, bounds: &Bounds, at: usize, input: Input) {
        let Some(server) = &mut self.machines[at].server else { return };
        let before = server.0.epoch();
        let now = if input == Input::Tick { server.0.deadline().unwrap_or(Time::ZERO) } else { Time::ZERO };
        server.0.handle(input, now);
        let outputs: Vec<_> = std::iter::from_fn(|| server.0.poll()).collect();
        let after = server.0.epoch();
        self.expect(after >= before, "an epoch went back");
        let others: Vec<_> = (0..SERVERS).filter(|other| *other != at).collect();
        for output in outputs {
            match output {
                Output::Send { to, message } => self.send(at, to.0 as usize - 1, message),
                Output::Broadcast(message) => others.iter().for_each(|to| self.send(at, *to, message)),
                Output::PersistTerm(term) => self.machines[at].writing.push(term),
                Output::Won(epoch) => {
                    self.won(bounds, at, epoch);
                    self.input(bounds, at, Input::Synced(epoch));
                }
                Output::Leader(_) => {}
            }
        }
    }

    /// A message leaves a server.
    fn send(&mut self, from: usize, to: usize, message: Message) {
        if let Message::Coordinator { epoch } = message {
            self.expect(epoch.term <= self.machines[from].durable, "a term was announced before it was durable");
        }
        self.flying.insert((self.origin(from), to, message));
    }

    fn won(&mut self, bounds: &Bounds, at: usize, epoch: Epoch) {
        let (origin, before) = (self.origin(at), self.machines[at].won);
        self.expect((epoch.leader, epoch.boot) == (origin.id, origin.boot), "a server won for another");
        let is_new = epoch.term > before.term || (!bounds.disk && epoch.boot > before.boot);
        self.expect(is_new, "a server won twice in a term");
        self.machines[at].won = epoch;
    }

    /// How a server appears in its heartbeat.
    fn said_of(&self, at: usize, heard: bool) -> Option<PeerView> {
        let election = self.election(at)?;
        let eligible = election.state() != State::Joining && !self.machines[at].probation;
        let (epoch, led) = (election.epoch(), election.leader().is_some());
        Some(PeerView { boot: Boot(self.machines[at].boot), heard, eligible, leaving: false, led, epoch })
    }

    /// What a server knows of the others, with one change.
    fn view(&mut self, bounds: &Bounds, at: usize, change: impl FnOnce(&mut BTreeMap<ServerId, PeerView>)) {
        let eligible = !self.machines[at].probation;
        let Some(server) = &self.machines[at].server else { return };
        let mut live = server.0.view.clone();
        change(&mut live);
        self.input(bounds, at, Input::View { live, eligible });
    }

    fn beat(&mut self, bounds: &Bounds, from: usize, to: usize) {
        let Some(said) = self.said_of(from, true) else { return };
        let leads = said.epoch.leader == id(from) && said.epoch.boot == said.boot && said.led;
        self.expect(
            !leads || said.epoch.term <= self.machines[from].durable,
            "a heartbeat told of a term before it was durable",
        );
        self.view(bounds, to, |live| {
            live.insert(id(from), said);
        });
        if self.election(to).is_some_and(|election| election.state() != State::Joining) {
            self.input(bounds, to, Input::HeardEpoch { from: self.origin(from), epoch: said.epoch });
        }
        let deposed = self.election(to).is_none_or(|election| election.epoch() >= said.epoch);
        self.expect(deposed || bounds.probation, "a higher epoch did not depose");
    }

    fn start(&mut self, bounds: &Bounds, at: usize) {
        let machine = &mut self.machines[at];
        machine.boot += 1;
        machine.probation = bounds.probation;
        machine.durable = if bounds.disk { machine.durable } else { 0 };
        let me = Origin { id: id(at), boot: Boot(machine.boot) };
        machine.server = Some(Server::new(me, machine.durable));
    }

    fn durable(&mut self, bounds: &Bounds, at: usize) {
        let term = self.machines[at].writing.remove(0);
        self.machines[at].durable = self.machines[at].durable.max(term);
        self.input(bounds, at, Input::TermDurable(term));
    }

    /// A server that joins has heard all who are there, and they are told that it has joined.
    fn can_join(&self, at: usize) -> bool {
        let Some(election) = self.election(at) else { return false };
        let knows = |other: usize| election.view.get(&id(other)).is_some_and(|peer| peer.heard);
        election.state() == State::Joining && self.up().all(|other| other == at || knows(other))
    }

    pub(super) fn take(&mut self, bounds: &Bounds, step: Step) {
        match step {
            Step::Deliver { flying, again } => {
                let (from, to, message) = flying;
                if again {
                    self.faults -= 1;
                } else {
                    self.flying.remove(&flying);
                }
                self.input(bounds, to, Input::Message { from, message });
            }
            Step::Beat { from, to } => self.beat(bounds, from, to),
            Step::Lose { at, whom, told } => {
                self.faults -= u8::from(self.is_up(whom));
                let said = told.then(|| self.said_of(whom, false)).flatten();
                self.view(bounds, at, |live| {
                    live.remove(&id(whom));
                    live.extend(said.map(|said| (id(whom), said)));
                });
            }
            Step::Fire(at) => self.input(bounds, at, Input::Tick),
            Step::Durable(at) => self.durable(bounds, at),
            Step::Join(at) => self.input(bounds, at, Input::Joined),
            Step::Crash(at) => {
                self.faults -= 1;
                self.machines[at].server = None;
                self.machines[at].writing.clear();
            }
            Step::Start(at) => self.start(bounds, at),
            Step::EndProbation(at) => {
                self.machines[at].probation = false;
                self.view(bounds, at, |_| {});
            }
        }
    }

    pub(super) fn steps(&self, steps: &mut Vec<Step>) {
        let faulty = self.faults > 0;
        for flying in &self.flying {
            steps.push(Step::Deliver { flying: *flying, again: false });
            if faulty {
                steps.push(Step::Deliver { flying: *flying, again: true });
            }
        }
        for at in 0..SERVERS {
            let machine = &self.machines[at];
            let Some(server) = &machine.server else {
                steps.push(Step::Start(at));
                continue;
            };
            steps.extend(server.0.timer.map(|_| Step::Fire(at)));
            steps.extend((!machine.writing.is_empty()).then_some(Step::Durable(at)));
            steps.extend(machine.probation.then_some(Step::EndProbation(at)));
            steps.extend(self.can_join(at).then_some(Step::Join(at)));
            steps.extend(faulty.then_some(Step::Crash(at)));
            for other in (0..SERVERS).filter(|other| *other != at) {
                steps.extend(self.is_up(other).then_some(Step::Beat { from: other, to: at }));
                if server.0.view.contains_key(&id(other)) && (faulty || !self.is_up(other)) {
                    steps.push(Step::Lose { at, whom: other, told: false });
                    steps.extend(self.is_up(other).then_some(Step::Lose { at, whom: other, told: true }));
                }
            }
        }
    }

    /// Faults are over: everybody hears everybody who is there, everything arrives, all timers fire in turn.
    fn settle(&mut self, bounds: &Bounds, order: [usize; SERVERS]) -> Result<(), &'static str> {
        for machine in &mut self.machines {
            machine.probation = false;
        }
        for _ in 0..ROUNDS_MAX {
            for at in order {
                if self.election(at).is_some_and(|election| election.deadline().is_some()) {
                    self.input(bounds, at, Input::Tick);
                    self.carry(bounds);
                }
            }
            self.carry(bounds);
            if let Some(broken) = self.broken {
                return Err(broken);
            }
            if self.is_settled() {
                return Ok(());
            }
        }
        Err("there was no leader again")
    }

    fn carry(&mut self, bounds: &Bounds) {
        let up: Vec<_> = self.up().collect();
        for at in up.iter().copied() {
            let gone: Vec<_> = (0..SERVERS).filter(|other| !self.is_up(*other)).collect();
            self.view(bounds, at, |live| live.retain(|other, _| !gone.contains(&(other.0 as usize - 1))));
            for from in up.iter().copied().filter(|from| *from != at) {
                self.beat(bounds, from, at);
            }
        }
        for at in up {
            if self.can_join(at) {
                self.input(bounds, at, Input::Joined);
            }
            while !self.machines[at].writing.is_empty() {
                self.durable(bounds, at);
            }
        }
        for _ in 0..8 {
            for (from, to, message) in std::mem::take(&mut self.flying) {
                self.input(bounds, to, Input::Message { from, message });
            }
        }
    }

    fn is_settled(&self) -> bool {
        let top = self.up().last().map(id);
        let mut epochs = BTreeSet::new();
        let follows = |at: usize| {
            let election = self.election(at)?;
            epochs.insert(election.epoch());
            Some(election.deadline().is_none() && election.leader() == top && election.state() != State::Joining)
        };
        let follows: Vec<_> = self.up().map(follows).collect();
        follows.into_iter().all(|follows| follows == Some(true)) && epochs.len() <= 1 && self.flying.is_empty()
    }

    /// Whether there is a leader again, however faults end.
    pub(super) fn recovers(&self, bounds: &Bounds) -> bool {
        let (up, down) = ([0, 1, 2], [2, 1, 0]);
        [(true, true, up), (true, false, down), (false, true, down), (false, false, up)].into_iter().all(
            |(start, deliver, order)| {
                let mut world = self.clone();
                if !deliver {
                    world.flying.clear();
                }
                for at in 0..SERVERS {
                    if start && !world.is_up(at) {
                        world.start(bounds, at);
                    }
                }
                world.settle(bounds, order).is_ok()
            },
        )
    }

    pub(super) fn leaders(&self) -> Vec<Epoch> {
        self.up().filter_map(|at| self.election(at)).filter(|election| election.leads()).map(Election::epoch).collect()
    }

    pub(super) fn has_one_leader_an_epoch(&self) -> bool {
        let leaders = self.leaders();
        let distinct: BTreeSet<_> = leaders.iter().collect();
        let own = |at: usize| {
            let election = self.election(at)?;
            Some(!election.leads() || (election.epoch.leader, election.epoch.boot) == (id(at), self.origin(at).boot))
        };
        distinct.len() == leaders.len() && self.up().all(|at| own(at) == Some(true))
    }

    pub(super) fn term(&self) -> u64 {
        self.up().filter_map(|at| self.election(at)).map(|election| election.term_seen).max().unwrap_or(0)
    }
}
