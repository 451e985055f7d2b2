//! A small model of the election: three servers, everything that can happen to them in any order, up to a bound.
//!
//! Every transition runs the code itself ([`Election::handle`]); only what is around it is made up:
//!
//! - **Time** has no lengths: a timer that is set may fire at any moment, however long it was to be.
//! - **Messages** are a set: each is delivered at any moment, or never. A *fault* delivers one twice.
//! - **Heartbeats** say how a server stands now. That one is late, or lost, is that it has not been heard yet. A *fault* is
//!   that a server loses another that lives: for good, or it only hears others tell of it.
//! - **Disks** make a term durable at any moment after it was asked for; a *fault* is a crash: the server comes back at any
//!   moment after it, in a new boot, with the newest term that was durable, or, without a disk, with none.
//! - **Probation**: in one of the models, a server that has come back may not lead until any moment after it.
//! - The directory is merged at once: Syncing and Leader differ in nothing but the name.
//!
//! The bounds are one fault, terms up to 4 and 7 steps from the start ([`BOUNDS`]): with disks these are 19,017 states, without
//! 19,246, with probation 21,894, and 5,269 of servers that have just been started. A search by breadth (`stateright`) visits
//! all of them, and holds in each:
//!
//! - an epoch has one leader at most, and nobody leads in one that names another;
//! - nobody hears of an epoch before its term is durable, and no server wins in the same epoch twice, over restarts too;
//! - what a server has accepted never goes back, and a higher epoch deposes;
//! - **once faults stop, there is a leader again**: from each state the faults are ended (those who crashed stay away, or come
//!   back; what was under way arrives, or does not), all timers fire in turn, the lowest or the highest server first, and
//!   within [`world::ROUNDS_MAX`] turns all follow one leader, the highest that lives, and nothing is left to do.

mod world;

use stateright::{Checker, Model, Property};

use self::world::{Step, World};

/// How far a model goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Crashes, losses of one that lives, and messages that arrive twice: together.
    faults: u8,
    /// Terms are at most this.
    term: u64,
    /// States in a row, the start counted.
    steps: usize,
    /// Whether servers have a disk.
    disk: bool,
    /// Whether one that comes back is on probation.
    probation: bool,
    /// Whether the servers have just been started; else they follow server 3 in term 1.
    fresh: bool,
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.steps(steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        world.take(self, step);
        Some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.term() <= self.term
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("an epoch has one leader", |_, world: &World| world.has_one_leader_an_epoch()),
            Property::always("no step broke a rule", |_, world: &World| world.broken.is_none()),
            Property::always("there is a leader again", |bounds: &Bounds, world: &World| world.recovers(bounds)),
            Property::sometimes("nobody leads", |_, world: &World| world.leaders().is_empty()),
            Property::sometimes("two lead, or servers are new", |bounds: &Bounds, world: &World| {
                bounds.fresh || world.leaders().len() > 1
            }),
        ]
    }
}

/// The bound of each search.
const BOUNDS: Bounds = Bounds { faults: 1, term: 4, steps: 8, disk: true, probation: false, fresh: false };

fn check(bounds: Bounds) {
    let checker = bounds.checker().threads(2).target_max_depth(bounds.steps).spawn_bfs().join();
    println!("{bounds:?}: {} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn with_disks_an_epoch_has_one_leader_and_there_is_one_again_after_a_fault() {
    check(BOUNDS);
}

#[test]
fn without_disks_an_epoch_has_one_leader_and_there_is_one_again_after_a_fault() {
    check(Bounds { disk: false, ..BOUNDS });
}

#[test]
fn with_probation_an_epoch_has_one_leader_and_there_is_one_again_after_a_fault() {
    check(Bounds { probation: true, ..BOUNDS });
}

#[test]
fn new_servers_have_one_leader_an_epoch_and_find_one() {
    check(Bounds { fresh: true, ..BOUNDS });
}
