//! What can be left out of a run by its name (`--without`), one by one: to see what a failure needs.

use hobnob_proto::time::Duration;

use crate::{
    cuts::Shape,
    profile::{Profile, WallProfile},
};

/// Takes something out of a run.
type Off = fn(&mut Profile);

/// Everything that a run can do without, by name.
pub const ALL: &[(&str, Off)] = &[
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
];

/// Takes it out; nothing happens where there is no such name.
pub fn off(name: &str, profile: &mut Profile) {
    if let Some((_, off)) = ALL.iter().find(|(other, _)| *other == name) {
        off(profile);
    }
}

/// The name as it stands in [`ALL`].
pub fn parse(name: &str) -> Result<&'static str, String> {
    let names = || ALL.iter().map(|(name, _)| *name);
    names()
        .find(|other| *other == name)
        .ok_or_else(|| format!("these can be left out: {}", names().collect::<Vec<_>>().join(", ")))
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
