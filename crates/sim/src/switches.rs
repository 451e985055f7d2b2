//! What can be left out of a run by its name (`--without`), one by one: to see what a failure needs; and what can be wanted
//! alone (`--only`): to meet it often.

use hobnob_proto::time::Duration;

use crate::{
    cuts::Shape,
    profile::{FaultProfile, Profile, WallProfile},
};

/// Takes something out of a run, or puts it in.
type Switch = fn(&mut Profile);

/// Everything that a run can do without, by name.
pub const ALL: &[(&str, Switch)] = &[
    ("faults", |profile| profile.faults.every = None),
    ("crashes", |profile| profile.faults.crashes = false),
    ("pairs", |profile| profile.faults.pairs = false),
    ("flapping", |profile| profile.faults.flapping = false),
    ("leaves", |profile| profile.faults.leaves = false),
    ("replaced", |profile| profile.faults.replaced = false),
    ("late", |profile| profile.faults.late = false),
    ("split", |profile| profile.faults.split = false),
    ("one-way", |profile| drop_shape(profile, Shape::OneWay)),
    ("deaf", |profile| drop_shape(profile, Shape::Deaf)),
    ("mute", |profile| drop_shape(profile, Shape::Mute)),
    ("pair-cuts", |profile| drop_shape(profile, Shape::Pair)),
    ("two-sides", |profile| drop_shape(profile, Shape::TwoSides)),
    ("pauses", |profile| profile.faults.pauses = false),
    ("slow", |profile| profile.faults.slow = false),
    ("sleeps", |profile| profile.faults.sleeps = false),
    ("roaming", |profile| profile.faults.roaming = false),
    ("server-roaming", |profile| profile.faults.server_roaming = false),
    ("future", |profile| profile.faults.future = false),
    ("garbage", |profile| profile.faults.garbage = false),
    ("loss", |profile| profile.link.loss_ppm = 0),
    ("duplication", |profile| profile.link.duplication_ppm = 0),
    ("reordering", |profile| profile.link.reordering_ppm = 0),
    ("tail", |profile| profile.link.tail_ppm = 0),
    ("bent", |profile| profile.noise.bent_ppm = 0),
    ("replayed", |profile| profile.noise.replayed_ppm = 0),
    ("forged", |profile| profile.noise.forged_ppm = 0),
    ("strangers", |profile| profile.rogues.clear()),
    ("clocks", |profile| profile.walls.fill(WallProfile::default())),
    ("restarts", |profile| profile.traffic.restart_every = None),
    ("large", |profile| profile.traffic.large_ppm = 0),
    ("partial", |profile| profile.traffic.partial_ppm = 0),
    ("rewinds", |profile| profile.traffic.rewind_ppm = 0),
    ("disks", |profile| profile.disks.on.fill(false)),
    ("stalls", |profile| profile.disks.stall_ppm = 0),
    ("lost-writes", |profile| profile.disks.loses = false),
    ("power", |profile| profile.disks.power = false),
    ("wipes", |profile| profile.disks.wipes = false),
    ("full-disks", |profile| profile.disks.fills = false),
    ("rot", |profile| profile.disks.rots = false),
    ("starts", |profile| profile.starts_within = Duration::ZERO),
    ("operators", |profile| profile.faults.operators = false),
];

/// What may be wanted alone (`--only`), by name.
pub const ALONE: &[(&str, Switch)] = &[
    ("crashes", |profile| profile.faults.crashes = true),
    ("flapping", |profile| profile.faults.flapping = true),
    ("leaves", |profile| profile.faults.leaves = true),
    ("operators", |profile| profile.faults.operators = true),
    ("pauses", |profile| profile.faults.pauses = true),
    ("slow", |profile| profile.faults.slow = true),
    ("split", |profile| profile.faults.split = true),
    ("power", |profile| profile.disks.power = true),
    ("wipes", |profile| profile.disks.wipes = true),
];
/// Where something breaks alone, it does so about as often as this.
const OFTEN: Duration = Duration::from_secs(4);

/// Of what breaks by the schedule, this is on, and nothing else but what was wanted alone before.
pub fn alone(name: &str, profile: &mut Profile) {
    if !profile.faults.only {
        profile.faults = FaultProfile { every: Some(OFTEN), only: true, ..FaultProfile::default() };
        let disks = &mut profile.disks;
        (disks.power, disks.wipes, disks.fills, disks.rots) = (false, false, false, false);
    }
    if let Some((_, on)) = ALONE.iter().find(|(other, _)| *other == name) {
        on(profile);
    }
}

/// The name as it stands in [`ALONE`].
pub fn parse_alone(name: &str) -> Result<&'static str, String> {
    parse_in(ALONE, name)
}

/// Takes it out; nothing happens where there is no such name.
pub fn off(name: &str, profile: &mut Profile) {
    if let Some((_, off)) = ALL.iter().find(|(other, _)| *other == name) {
        off(profile);
    }
}

/// The name as it stands in [`ALL`].
pub fn parse(name: &str) -> Result<&'static str, String> {
    parse_in(ALL, name)
}

fn parse_in(list: &[(&'static str, Switch)], name: &str) -> Result<&'static str, String> {
    let names = || list.iter().map(|(name, _)| *name);
    names()
        .find(|other| *other == name)
        .ok_or_else(|| format!("the names are: {}", names().collect::<Vec<_>>().join(", ")))
}

fn drop_shape(profile: &mut Profile, shape: Shape) {
    profile.faults.cuts.retain(|other| *other != shape);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let names: BTreeSet<_> = ALL.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn a_name_that_is_not_there_is_refused_with_those_that_are() {
        assert_eq!(parse("loss"), Ok("loss"));
        assert!(parse("luck").is_err_and(|why| why.contains("crashes")));
    }
}
