//! Evening out: the leader moves rooms from the busiest server to the idlest, seldom and slowly.
//!
//! Moving a room costs little, but a cluster in which rooms never rest is hard to understand. So nothing moves before the
//! loads have lain apart by more than 2 + 25 % of the highest for [`UNEVEN`]. Then as many rooms move as it takes, one each
//! [`PACE`], and after that the loads must lie apart for as long again. Loads that waver by less than that move nothing;
//! those that waver by more move no more than they did apart.

use std::collections::{BTreeMap, BTreeSet};

use super::{Placer, RoomRecord};
use crate::{
    ids::{RoomName, ServerId},
    time::{Duration, Time},
};

/// How long loads must lie apart before anything moves.
const UNEVEN: Duration = Duration::from_secs(30);
/// Between two rooms.
const PACE: Duration = Duration::from_secs(1);
/// Rooms that move before the loads must lie apart anew.
const MOVES_MAX: u32 = 1_000;

/// What the leader remembers of loads that lay apart.
#[derive(Debug, Default)]
pub struct Balance {
    uneven_since: Option<Time>,
    moves: u32,
    moved_at: Option<Time>,
    /// Who has given and who has got rooms since the loads lay apart.
    gave: BTreeSet<ServerId>,
    got: BTreeSet<ServerId>,
}

impl Balance {
    /// Something else is moving, or somebody else leads: begins anew.
    pub fn rest(&mut self) {
        *self = Self::default();
    }

    /// The room that is to move now, if any, with its new home. To be asked a few times a second.
    pub fn poll(&mut self, placer: &mut Placer<'_>, now: Time) -> Option<RoomRecord> {
        let loads = placer.loads();
        let (high, low) = extremes(&loads)?;
        let gap = high.load - low.load;
        if self.moves == 0 {
            if gap * 4 <= 8 + high.load {
                self.uneven_since = None;
                return None;
            }
            if now.since(*self.uneven_since.get_or_insert(now)) < UNEVEN {
                return None;
            }
            self.uneven_since = None;
            self.moves = moves_wanted(loads.clone());
            (self.gave, self.got) = Default::default();
        }
        // Where the loads have tipped over, rooms do not go straight back.
        let is_back = self.got.contains(&high.id) || self.gave.contains(&low.id);
        if gap < 2 || high.rooms == 0 || is_back {
            self.moves = 0;
            return None;
        }
        let is_soon = self.moved_at.is_some_and(|at| now.since(at) < PACE);
        // What differs now may be the same in a moment: the newer home is to hold all that the last one does.
        if is_soon || self.moves == 0 || !placer.hold_the_same(high.id, low.id) {
            return None;
        }
        self.moves -= 1;
        self.moved_at = Some(now);
        self.gave.insert(high.id);
        self.got.insert(low.id);
        placer.move_one(high.id, low.id)
    }
}

/// What one server has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Burden {
    id: ServerId,
    load: i64,
    /// Rooms that can be taken from it: not the lobby, which counts for nothing.
    rooms: i64,
}

/// The busiest and the idlest: of equals those with the lowest ids.
fn extremes(loads: &[Burden]) -> Option<(Burden, Burden)> {
    let high = loads.iter().rev().max_by_key(|server| server.load)?;
    let low = loads.iter().min_by_key(|server| server.load)?;
    Some((*high, *low))
}

/// How many rooms have to move until no move would lower the highest load.
fn moves_wanted(mut loads: Vec<Burden>) -> u32 {
    let mut moves = 0;
    while let Some((high, low)) = extremes(&loads)
        && high.load - low.load >= 2
        && high.rooms > 0
        && moves < MOVES_MAX
    {
        moves += 1;
        for server in &mut loads {
            let by = i64::from(server.id == low.id) - i64::from(server.id == high.id);
            server.load += by;
            server.rooms += by;
        }
    }
    moves
}

impl Placer<'_> {
    /// The loads of the servers that take rooms, by id.
    fn loads(&self) -> Vec<Burden> {
        let takers = self.servers.values().filter(|server| server.takes_rooms);
        takers
            .map(|server| {
                let load = self.load(server).0;
                Burden { id: server.id, load, rooms: load - i64::from(server.load) }
            })
            .collect()
    }

    /// Whether two servers say that their logs are the same.
    fn hold_the_same(&self, one: ServerId, other: ServerId) -> bool {
        let logs: BTreeMap<_, _> = self.servers.values().map(|server| (server.id, server.logs)).collect();
        logs.get(&one) == logs.get(&other)
    }

    /// One room of `from` at `to`; `from` is then the first in line for it.
    fn move_one(&mut self, from: ServerId, to: ServerId) -> Option<RoomRecord> {
        let home = self.servers.get(&from)?.origin();
        let known = self.rooms.iter().find(|record| record.fence.home == home && record.room != RoomName::lobby())?;
        self.count(from, -1);
        let heirs = known.successors.iter().copied().filter(|id| self.servers.contains_key(id) && *id != from);
        let heirs: Vec<_> = [from].into_iter().chain(heirs).collect();
        Some(self.record(&known.room, Some(known), to, &heirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        directory::{placement::Server, rooms::Rooms},
        ids::{Boot, Origin},
        rng::Rng,
        wire::frame::{Epoch, Fence},
    };

    const EPOCH: Epoch = Epoch { term: 4, leader: ServerId(3), boot: Boot(13) };

    fn origin(id: u32) -> Origin {
        Origin { id: ServerId(id), boot: Boot(10 + u64::from(id)) }
    }

    fn server(id: u32, load: u32) -> Server {
        let Origin { id, boot } = origin(id);
        Server { id, boot, load, clients: 0, takes_rooms: true, logs: 7 }
    }

    /// So many rooms at servers 1, 2, ...
    fn homed(counts: &[usize]) -> Rooms {
        let mut rooms = Rooms::new();
        for (id, count) in (1..).zip(counts) {
            for n in 0..*count {
                let fence = Fence { epoch: EPOCH, n: 1, home: origin(id) };
                let room = format!("r{id}-{n}").parse().unwrap();
                rooms.merge(RoomRecord { room, fence, successors: Vec::new() });
            }
        }
        rooms
    }

    /// How many rooms each server homes after so many seconds, and at which seconds one moved.
    fn run(rooms: &mut Rooms, secs: u64, mut servers: impl FnMut(u64) -> Vec<Server>) -> (Vec<usize>, Vec<u64>) {
        let (mut balance, mut moved) = (Balance::default(), Vec::new());
        for quarter in 0..secs * 4 {
            let now = Time::from_micros(quarter * 250_000);
            let mut placer = Placer::new(rooms, servers(quarter), (1..9).map(ServerId), EPOCH);
            if let Some(record) = balance.poll(&mut placer, now) {
                assert!(rooms.merge(record), "a move is news");
                moved.push(quarter / 4);
            }
        }
        let count = (1..=servers(0).len() as u32).map(|id| rooms.homed_by(origin(id))).collect();
        (count, moved)
    }

    #[test]
    fn a_third_server_gets_its_share_within_45_seconds_and_then_all_rest() {
        fn check(counts: &[usize], expected: &[usize], last: u64) {
            let mut rooms = homed(counts);
            let ids = 1..=counts.len() as u32;
            let (spread, moved) = run(&mut rooms, 300, |_| ids.clone().map(|id| server(id, 0)).collect());
            assert_eq!((spread.as_slice(), moved.last().copied()), (expected, Some(last)), "{counts:?} {moved:?}");
            assert_eq!(moved.first(), Some(&30));
            assert!(moved.windows(2).all(|pair| pair[1] > pair[0]), "one a second");
        }
        check(&[15, 15, 0], &[10, 10, 10], 39);
        check(&[30, 0], &[15, 15], 44);
        check(&[9, 0, 0, 0], &[3, 2, 2, 2], 35);
    }

    #[test]
    fn loads_that_waver_move_nothing() {
        let mut rooms = homed(&[10, 12, 11]);
        let mut rng = Rng::from_seed([4; 32]);
        let (spread, moved) = run(&mut rooms, 600, |_| {
            let mut load = || 100 + u32::try_from(rng.below(60)).unwrap();
            vec![server(1, load()), server(2, load()), server(3, load())]
        });
        assert_eq!((spread, moved), (vec![10, 12, 11], vec![]));
    }

    #[test]
    fn what_lies_apart_by_2_and_a_quarter_stays() {
        fn check(counts: &[usize], moves: bool) {
            let mut rooms = homed(counts);
            let (_, moved) = run(&mut rooms, 60, |_| vec![server(1, 0), server(2, 0)]);
            assert_eq!(!moved.is_empty(), moves, "{counts:?}");
        }
        check(&[8, 4], false);
        check(&[9, 4], true);
        check(&[2, 0], false);
        check(&[3, 0], true);
    }

    #[test]
    fn a_server_on_probation_gets_none_and_nobody_gets_what_it_does_not_hold() {
        fn check(change: impl Fn(&mut Server)) {
            let mut rooms = homed(&[10, 0]);
            let (spread, _) = run(&mut rooms, 120, |_| {
                let mut second = server(2, 0);
                change(&mut second);
                vec![server(1, 0), second]
            });
            assert_eq!(spread, [10, 0]);
        }
        check(|server| server.takes_rooms = false);
        check(|server| server.logs = 8);
    }

    #[test]
    fn loads_that_tip_over_while_rooms_move_lie_apart_for_as_long_again() {
        let mut rooms = homed(&[20, 20]);
        let (_, moved) = run(&mut rooms, 60, |quarter| {
            let tipped = quarter >= 35 * 4;
            vec![server(1, if tipped { 0 } else { 500 }), server(2, if tipped { 500 } else { 0 })]
        });
        assert_eq!(moved, [30, 31, 32, 33, 34], "none goes back before {}", 35 + 30);
    }

    #[test]
    fn a_busy_server_gives_its_rooms_away_and_gets_none_back() {
        let mut rooms = homed(&[5, 5]);
        let (spread, moved) = run(&mut rooms, 600, |_| vec![server(1, 500), server(2, 100)]);
        assert_eq!((spread, moved.len()), (vec![0, 10], 5));
    }
}
