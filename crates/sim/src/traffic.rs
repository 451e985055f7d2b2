//! What people do: they come, join rooms, post numbered messages, lose their client now and then, and go.

use hobnob_proto::{ids::RoomName, log::VersionVector, rng::Rng, time::Duration, wire::frame::Start};

use crate::{
    dice::{self, Dice as _, micros},
    invariants::Violation,
    oracle::QUIET,
    profile::{Profile, WARM_UP},
    world::{Task, World},
};

/// Something that people do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A client is started.
    Start(usize),
    /// It is started with an older state file, after nothing was said of its posts for long.
    Rewind(usize),
    /// It follows a room.
    Join(usize, RoomName),
    /// It ends, to come back or not.
    End(usize),
    /// Somebody posts something somewhere.
    Post,
}

/// The longest body of a post here; most are short.
const BODY_BYTES_MAX: u64 = 6_000;

/// The people of a run.
#[derive(Debug)]
pub struct Traffic {
    profile: Profile,
    rng: Rng,
    gone: Vec<bool>,
    posts: u64,
}

impl Traffic {
    /// People who have not come yet.
    pub fn new(profile: &Profile, rng: Rng) -> Self {
        Self { profile: profile.clone(), rng, gone: vec![false; profile.clients], posts: 0 }
    }

    /// Puts what they will do in the world's queue.
    pub fn begin(&mut self, world: &mut World) {
        for of in 0..self.profile.clients {
            let start = self.rng.span(Duration::ZERO, WARM_UP / 2);
            world.schedule(dice::after(start), Task::Act(Act::Start(of)));
            for n in 0..self.profile.rooms.len() {
                // Everybody is in one room at least.
                if n > 0 && self.rng.below(2) == 0 {
                    continue;
                }
                let latest = if self.rng.below(4) == 0 { self.profile.phases.heal } else { WARM_UP };
                let join = self.rng.span(start + Duration::from_millis(1), latest);
                let room = self.profile.rooms[(of + n) % self.profile.rooms.len()].clone();
                world.schedule(dice::after(join), Task::Act(Act::Join(of, room)));
            }
        }
        world.schedule(dice::after(WARM_UP / 4), Task::Act(Act::Post));
    }

    /// They do something. After the heal, nobody ends and nobody posts by themselves.
    pub fn act(&mut self, world: &mut World, act: Act) -> Result<(), Violation> {
        let healed = world.now() >= dice::after(self.profile.phases.heal);
        match act {
            Act::Start(of) => {
                let resume = self.rng.below(3) == 0;
                world.start_client(of, resume)?;
                self.plan_end(world, of);
                Ok(())
            }
            Act::Rewind(of) => {
                world.rewind_client(of);
                self.act(world, Act::Start(of))
            }
            Act::Join(of, _) if self.gone[of] => Ok(()),
            Act::Join(of, room) => {
                if !world.clients()[of].is_up() {
                    world.schedule(world.now() + Duration::from_secs(1), Task::Act(Act::Join(of, room)));
                    return Ok(());
                }
                let from = self.start(world);
                world.follow(of, &room, from)
            }
            Act::End(of) if !healed => self.end(world, of),
            Act::Post if !healed => self.post(world),
            Act::End(_) | Act::Post => Ok(()),
        }
    }

    /// The faults are over: who has not gone for good comes back.
    pub fn heal(&mut self, world: &mut World) -> Result<(), Violation> {
        (0..self.profile.clients).filter(|of| !self.gone[*of]).try_for_each(|of| world.start_client(of, false))
    }

    /// Everybody posts once more in every room that they are in.
    pub fn serve(&mut self, world: &mut World) -> Result<(), Violation> {
        for of in 0..self.profile.clients {
            if !world.clients()[of].is_up() {
                continue;
            }
            let rooms: Vec<_> = world.clients()[of].told.rooms().keys().cloned().collect();
            for room in rooms {
                let body = self.body(of);
                world.post(of, &room, body)?;
            }
        }
        Ok(())
    }

    /// From where on somebody follows a room: mostly from its beginning.
    fn start(&mut self, world: &World) -> Start {
        if !self.rng.chance(self.profile.traffic.partial_ppm) {
            return Start::After(VersionVector::default());
        }
        if self.rng.below(2) == 0 {
            return Start::Last(self.rng.between(0, 50) as u32);
        }
        let ago = self.rng.span(Duration::ZERO, Duration::from_mins(1));
        Start::Since(world.cluster_millis().saturating_sub(micros(ago) / 1_000))
    }

    fn plan_end(&mut self, world: &mut World, of: usize) {
        if let Some(every) = self.profile.traffic.restart_every {
            let at = world.now() + WARM_UP + self.rng.span(Duration::ZERO, every * 2);
            world.schedule(at, Task::Act(Act::End(of)));
        }
    }

    fn end(&mut self, world: &mut World, of: usize) -> Result<(), Violation> {
        let host = &world.clients()[of];
        if !host.is_up() {
            if host.process.is_some() {
                self.plan_end(world, of);
            }
            return Ok(());
        }
        self.gone[of] = self.rng.chance(self.profile.traffic.quit_ppm);
        world.stop_client(of, self.gone[of])?;
        if !self.gone[of] {
            let back = self.rng.span(Duration::from_millis(100), Duration::from_secs(5));
            let rewinds = self.rng.chance(self.profile.traffic.rewind_ppm);
            let (back, act) = if rewinds { (back + QUIET, Act::Rewind(of)) } else { (back, Act::Start(of)) };
            world.schedule(world.now() + back, Task::Act(act));
        }
        Ok(())
    }

    fn post(&mut self, world: &mut World) -> Result<(), Violation> {
        let every = self.profile.traffic.post_every;
        let next = world.now() + self.rng.span(Duration::ZERO, every * 2);
        world.schedule(next, Task::Act(Act::Post));
        if self.profile.clients == 0 {
            return Ok(());
        }
        let of = self.rng.index(self.profile.clients);
        let host = &world.clients()[of];
        if !host.is_up() || host.told.rooms().is_empty() {
            return Ok(());
        }
        let nth = self.rng.index(host.told.rooms().len());
        let room = host.told.rooms().keys().nth(nth).expect("drawn from as many as there are").clone();
        let body = self.body(of);
        world.post(of, &room, body)
    }

    /// A text that nobody posts twice.
    fn body(&mut self, of: usize) -> String {
        self.posts += 1;
        let large = self.rng.chance(self.profile.traffic.large_ppm);
        let pad = if large { self.rng.between(1_000, BODY_BYTES_MAX) } else { self.rng.between(0, 40) };
        format!("message {} of client {of} {}", self.posts, "~".repeat(pad as usize))
    }
}
