//! Every shape of a cut: who does not hear whom.
//!
//! Real networks seldom fall into two clean halves (Alquraan et al., OSDI 2018: partial and one-way partitions cause much
//! of what goes wrong): a cable passes one way, a host is deaf or mute, two hosts do not hear each other while a third hears both.

use std::collections::BTreeSet;

use hobnob_proto::rng::Rng;

use crate::{
    dice::Dice as _,
    link::{Cut, HostId},
};

/// A shape of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Of up to three pairs, one does not hear the other.
    OneWay,
    /// A host hears nobody, and is heard.
    Deaf,
    /// A host is heard by nobody, and hears.
    Mute,
    /// Two hosts do not hear each other; all others hear both.
    Pair,
    /// Some on one side, the others on the other.
    TwoSides,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::OneWay, Self::Deaf, Self::Mute, Self::Pair, Self::TwoSides];

    /// Draws a cut of this shape. Servers are the first of the hosts; one of them is part of it, except on two sides.
    pub fn draw(self, servers: usize, hosts: usize, rng: &mut Rng) -> Cut {
        let hit = rng.index(servers);
        match self {
            Self::OneWay => {
                let all: Vec<_> = paths(hosts).filter(|(from, to)| *from < servers || *to < servers).collect();
                if all.is_empty() {
                    return Cut::new();
                }
                (0..rng.between(1, 3)).map(|_| all[rng.index(all.len())]).collect::<BTreeSet<_>>()
            }
            Self::Deaf => paths(hosts).filter(|(_, to)| *to == hit).collect(),
            Self::Mute => paths(hosts).filter(|(from, _)| *from == hit).collect(),
            Self::Pair => {
                let other = rng.index(hosts);
                paths(hosts).filter(|path| *path == (hit, other) || *path == (other, hit)).collect()
            }
            Self::TwoSides => two_sides(&(0..hosts).map(|_| rng.below(2) == 0).collect::<Vec<_>>()),
        }
    }
}

/// Everything between those hosts that are on one side and those that are on the other.
pub fn two_sides(side: &[bool]) -> Cut {
    paths(side.len()).filter(|(from, to)| side[*from] != side[*to]).collect()
}

/// A cut that parts servers and clients alike: at least one server on each side, and a client where there are two.
pub fn halves(servers: usize, hosts: usize, rng: &mut Rng) -> Cut {
    let mut side: Vec<bool> = (0..hosts).map(|_| rng.below(2) == 0).collect();
    for group in [0..servers, servers..hosts] {
        if let [first, .., last] = &mut side[group] {
            (*first, *last) = (true, false);
        }
    }
    two_sides(&side)
}

fn paths(hosts: usize) -> impl Iterator<Item = (HostId, HostId)> {
    (0..hosts).flat_map(move |from| (0..hosts).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice;

    /// Checks what all cuts of a shape among three servers and two clients are like.
    fn check(shape: Shape, is_so: impl Fn(&Cut) -> bool) {
        for seed in 0..50 {
            let cut = shape.draw(3, 5, &mut dice::from_number(seed));
            assert!(is_so(&cut), "{shape:?}, seed {seed}: {cut:?}");
        }
    }

    #[test]
    fn each_shape_is_what_it_says() {
        let both_ways = |cut: &Cut| cut.iter().all(|(from, to)| cut.contains(&(*to, *from)));
        check(Shape::OneWay, |cut| (1..=3).contains(&cut.len()));
        check(Shape::Deaf, |cut| {
            cut.len() == 4 && cut.iter().all(|(_, to)| Some(*to) == cut.first().map(|path| path.1))
        });
        check(Shape::Mute, |cut| {
            cut.len() == 4 && cut.iter().all(|path| Some(path.0) == cut.first().map(|path| path.0))
        });
        check(Shape::Pair, |cut| both_ways(cut) && [0, 2].contains(&cut.len()));
        check(Shape::TwoSides, both_ways);
    }

    #[test]
    fn both_halves_have_a_server_and_a_client() {
        for seed in 0..50 {
            let cut = halves(2, 4, &mut dice::from_number(seed));
            assert!(cut.contains(&(0, 1)) && cut.contains(&(3, 2)) && cut.len() == 8, "seed {seed}: {cut:?}");
        }
    }

    #[test]
    fn a_host_alone_cannot_be_cut() {
        for shape in Shape::ALL {
            assert!(shape.draw(1, 1, &mut dice::from_number(1)).is_empty(), "{shape:?}");
        }
    }
}
