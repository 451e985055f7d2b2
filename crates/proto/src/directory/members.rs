//! Who belongs to the cluster, up or down.
//!
//! For each id the greatest of all that was heard: of the later boot; of one boot, that it left counts for ever, and of
//! addresses the newest list that the member has made counts; what others add to the same list is put together. So copies
//! that have heard the same agree. A server that comes back with a later boot is a member again. One that lives is a
//! member, whatever is remembered of a later boot of its id: its clock may have gone back, or two may have had one id. And it
//! has a disk or none as it said itself when it came, not as others say of it.
//!
//! A message is on a member's disk, or in its memory where no member has a disk: as soon as one has, up or down, only those
//! with a disk count, since memory forgets.
//!
//! Of addresses only those are kept that mean the same to whoever hears of them: none of a link (a HELLO is what finds
//! servers there), and loopback for the servers of this machine alone, so the digest leaves it out.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{chunk, digest::SetDigest};
use crate::{
    addr::{Reach, reach},
    ids::ServerId,
    wire::frame::Member,
};

/// Addresses kept of one member: as many as fit a frame. Of more, the lowest, which is the same choice everywhere; before
/// them those that reach another machine.
pub const ADDRS_MAX: usize = 12;
/// Ids that are remembered, those that left included.
pub const MEMBERS_MAX: usize = 256;

/// All members that a server knows.
#[derive(Clone, Debug, Default)]
pub struct Members {
    by_id: BTreeMap<ServerId, Member>,
    digest: SetDigest,
    /// Who lives, and whether it keeps what it has in memory alone, as it said itself: known here alone, and no part of the
    /// digest.
    live: BTreeMap<ServerId, bool>,
}

impl Members {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what is said of a member; whether that changed anything. An id beyond [`MEMBERS_MAX`] changes nothing.
    pub fn merge(&mut self, mut member: Member) -> bool {
        let known = self.by_id.get(&member.id);
        if let Some(known) = known {
            if member.boot < known.boot {
                return false;
            }
            if member.boot == known.boot {
                member.left |= known.left;
                member.memory |= known.memory;
                if member.n <= known.n {
                    let told = std::mem::replace(&mut member.addrs, known.addrs.clone());
                    member.addrs.extend(told.into_iter().filter(|_| member.n == known.n));
                    member.n = known.n;
                }
            }
        } else if self.by_id.len() >= MEMBERS_MAX {
            return false;
        }
        member.addrs = lowest(std::mem::take(&mut member.addrs));
        if known == Some(&member) {
            return false;
        }
        if let Some(known) = known {
            self.digest.remove(&for_others(known));
        }
        self.digest.add(&for_others(&member));
        self.by_id.insert(member.id, member);
        true
    }

    /// What is known of an id, whether it left or not.
    pub fn get(&self, id: ServerId) -> Option<&Member> {
        self.by_id.get(&id)
    }

    /// Who lives from now on, and whether it has memory alone: these are members even where what is remembered of their ids
    /// is that they left, and have a disk or none whatever others say.
    pub fn set_live(&mut self, live: BTreeMap<ServerId, bool>) {
        self.live = live;
    }

    /// Whether these, each named once, are the ones that live, as far as was told.
    pub fn live_are(&self, mut live: impl Iterator<Item = (ServerId, bool)>) -> bool {
        let mut count = 0;
        live.all(|(id, memory)| {
            count += 1;
            self.live.get(&id) == Some(&memory)
        }) && count == self.live.len()
    }

    /// Whether `id` is a member: known, and has not left.
    pub fn contains(&self, id: ServerId) -> bool {
        self.get(id).is_some_and(|member| self.is_present(member))
    }

    fn is_present(&self, member: &Member) -> bool {
        !member.left || self.live.contains_key(&member.id)
    }

    fn is_memory(&self, member: &Member) -> bool {
        self.live.get(&member.id).copied().unwrap_or(member.memory)
    }

    /// All that is known, by id, those that left included: they are to be gossiped too.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    /// The members, by id: those that have not left.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values().filter(|member| self.is_present(member))
    }

    /// How many members there are, up or down.
    pub fn count(&self) -> usize {
        self.present().count()
    }

    /// Whether any member, up or down, has a disk.
    pub fn have_disks(&self) -> bool {
        self.present().any(|member| !self.is_memory(member))
    }

    /// The members whose copies count, by id: those with a disk, or all where nobody has one. R is never more than there
    /// are of them, up or down.
    pub fn keepers(&self) -> impl Iterator<Item = &Member> {
        let have_disks = self.have_disks();
        self.present().filter(move |member| !(have_disks && self.is_memory(member)))
    }

    /// Whether the copies of this member count.
    pub fn keeps(&self, id: ServerId) -> bool {
        self.get(id).is_some_and(|member| self.is_present(member) && !(self.is_memory(member) && self.have_disks()))
    }

    /// The ids that members hold, up or down.
    pub fn ids(&self) -> Vec<ServerId> {
        self.present().map(|member| member.id).collect()
    }

    /// 53 bits: equal where the content is, loopback addresses aside.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Forgets everybody: the server has adopted another cluster.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Members as lists that each fit a frame; at least one list.
pub fn chunks<'a>(members: impl IntoIterator<Item = &'a Member>) -> Vec<Vec<Member>> {
    chunk::chunks(members.into_iter().cloned())
}

/// A member as other machines are told of it: without loopback addresses.
pub fn for_others(member: &Member) -> Member {
    let addrs = member.addrs.iter().copied().filter(|addr| reach(*addr) == Reach::Anywhere).collect();
    Member { addrs, ..*member }
}

/// The lowest [`ADDRS_MAX`] of `addrs`, in order, each once; those of this machine last. The lowest of a union are the same
/// however it was built.
fn lowest(mut addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addrs.retain(|addr| matches!(reach(*addr), Reach::Anywhere | Reach::Machine));
    addrs.sort_unstable_by_key(|addr| (reach(*addr), *addr));
    addrs.dedup();
    addrs.truncate(ADDRS_MAX);
    addrs
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use proptest::prelude::*;

    use super::*;
    use crate::{ids::Boot, limits, wire::frame::Frame};

    fn member(id: u32, boot: u64, left: bool, ports: &[u16]) -> Member {
        let addrs = ports.iter().map(|port| SocketAddr::from(([192, 0, 2, 1], *port))).collect();
        Member { id: ServerId(id), boot: Boot(boot), left, memory: false, n: 0, addrs }
    }

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let one = (1..4u32, 0..3u64, any::<bool>(), 0..3u32, proptest::collection::vec(1..30u16, 0..10));
        let one = one.prop_map(|(id, boot, left, n, ports)| Member { n, ..member(id, boot, left, &ports) });
        proptest::collection::vec(one, 0..15)
    }

    fn merged(list: &[Member]) -> Members {
        let mut members = Members::new();
        for member in list {
            members.merge(member.clone());
        }
        members
    }

    #[test]
    fn the_later_boot_wins_and_leaving_counts_for_one_boot() {
        #[allow(clippy::needless_pass_by_value)]
        fn check(first: Member, second: Member, expected: Member) {
            let members = merged(&[first.clone(), second.clone()]);
            assert_eq!(members.get(ServerId(1)), Some(&expected), "{first:?} {second:?}");
        }
        check(member(1, 1, false, &[1]), member(1, 2, false, &[2]), member(1, 2, false, &[2]));
        check(member(1, 2, false, &[2]), member(1, 1, true, &[1]), member(1, 2, false, &[2]));
        check(member(1, 1, true, &[1]), member(1, 1, false, &[1]), member(1, 1, true, &[1]));
        check(member(1, 1, true, &[1]), member(1, 2, false, &[1]), member(1, 2, false, &[1]));
        check(member(1, 1, false, &[2]), member(1, 1, false, &[1, 2]), member(1, 1, false, &[1, 2]));
    }

    #[test]
    fn the_newest_list_of_addresses_replaces_those_before_it() {
        #[allow(clippy::needless_pass_by_value)]
        fn check(first: Member, second: Member, expected: Member) {
            for list in [[first.clone(), second.clone()], [second, first]] {
                assert_eq!(merged(&list).get(ServerId(1)), Some(&expected), "{list:?}");
            }
        }
        let list = |n, ports: &[u16]| Member { n, ..member(1, 1, false, ports) };
        check(list(1, &[1, 2]), list(2, &[3]), list(2, &[3]));
        check(list(1, &[1]), list(1, &[2]), list(1, &[1, 2]));
        check(list(0, &[1]), list(1, &[]), list(1, &[]));
        check(Member { left: true, ..list(1, &[1]) }, list(2, &[2]), Member { left: true, ..list(2, &[2]) });
        assert_ne!(merged(&[list(1, &[1])]).digest(), merged(&[list(2, &[1])]).digest());
    }

    #[test]
    fn a_live_server_is_a_member_whatever_is_remembered_of_its_id() {
        let mut members = merged(&[member(1, 9, true, &[]), member(2, 9, true, &[])]);
        members.set_live([(ServerId(1), true)].into());
        assert_eq!((members.count(), members.ids()), (1, vec![ServerId(1)]));
        for (live, expected) in
            [(vec![(1, true)], true), (vec![], false), (vec![(2, true)], false), (vec![(1, false)], false)]
        {
            assert_eq!(
                members.live_are(live.iter().map(|(id, memory)| (ServerId(*id), *memory))),
                expected,
                "{live:?}"
            );
        }
        assert!(members.contains(ServerId(1)) && !members.contains(ServerId(2)));
    }

    #[test]
    fn what_others_say_of_the_disk_of_a_live_server_counts_for_nothing() {
        let mut members = merged(&[member(1, 9, true, &[]), Member { memory: true, ..member(2, 1, false, &[]) }]);
        members.set_live([(ServerId(1), true), (ServerId(2), true)].into());
        assert!(!members.have_disks() && members.keeps(ServerId(1)) && members.keeps(ServerId(2)));
        members.set_live([(ServerId(2), false)].into());
        assert!(members.have_disks() && members.keeps(ServerId(2)) && !members.keeps(ServerId(1)));
    }

    #[test]
    fn those_that_left_hold_no_id_and_do_not_count() {
        let members = merged(&[member(1, 1, false, &[]), member(2, 1, true, &[]), member(3, 1, false, &[])]);
        assert_eq!((members.count(), members.ids()), (2, vec![ServerId(1), ServerId(3)]));
        assert!(!members.contains(ServerId(2)) && members.get(ServerId(2)).is_some());
    }

    #[test]
    fn memory_counts_for_nothing_where_there_is_a_disk_be_it_down() {
        fn check(list: &[(u32, bool, bool)], expected: &[u32]) {
            let with =
                |(id, memory, left): &(u32, bool, bool)| Member { memory: *memory, ..member(*id, 1, *left, &[]) };
            let members = merged(&list.iter().map(with).collect::<Vec<_>>());
            let keepers: Vec<_> = members.keepers().map(|member| member.id.0).collect();
            assert_eq!(keepers, expected, "{list:?}");
            let each: Vec<_> = (0..9).filter(|id| members.keeps(ServerId(*id))).collect();
            assert_eq!(each, expected, "{list:?}");
        }
        check(&[(1, true, false), (2, true, false)], &[1, 2]);
        check(&[(1, true, false), (2, false, false)], &[2]);
        check(&[(1, false, false), (2, false, false), (3, false, true)], &[1, 2]);
        check(&[(1, true, false), (2, false, true)], &[1]);
    }

    #[test]
    fn ids_are_bounded() {
        let many: Vec<_> = (0..1_000).map(|id| member(id, 1, false, &[])).collect();
        assert_eq!(merged(&many).iter().count(), MEMBERS_MAX);
    }

    #[test]
    fn the_longest_addresses_fit_their_frames() {
        let longest = |port| SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from([0xee; 16]), port, 0, u32::MAX));
        let many: Vec<_> = (0..20)
            .map(|id| Member {
                id: ServerId(u32::MAX - id),
                boot: Boot(u64::MAX),
                left: true,
                memory: true,
                n: u32::MAX,
                addrs: (0..40).map(|port| longest(u16::MAX - port)).collect(),
            })
            .collect();
        let members = merged(&many);
        let chunks = chunks(members.iter());
        assert_eq!(chunks.concat().len(), 20);
        for members in chunks {
            assert!(Frame::Members { members }.to_line().len() <= limits::FRAME_BYTES_MAX);
        }
    }

    #[test]
    fn addresses_of_one_machine_are_not_told_to_others_and_those_of_a_link_are_not_kept() {
        let addrs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let with = |texts: &[&str]| Member { addrs: addrs(texts), ..member(1, 1, false, &[]) };
        let here = merged(&[with(&["127.0.0.1:1", "[fe80::1%2]:1", "192.0.2.1:1", "0.0.0.0:1", "[2001:db8::1]:1"])]);
        let there = merged(&[with(&["[2001:db8::1]:1", "192.0.2.1:1"])]);
        let kept = here.get(ServerId(1)).unwrap();
        assert_eq!(kept.addrs, addrs(&["192.0.2.1:1", "[2001:db8::1]:1", "127.0.0.1:1"]));
        assert_eq!(&for_others(kept), there.get(ServerId(1)).unwrap());
        assert_eq!(here.digest(), there.digest());
    }

    proptest! {
        #[test]
        fn servers_that_heard_the_same_agree(list in members(), by in any::<u64>()) {
            let once = merged(&list);
            let mut shuffled = list.clone();
            if !shuffled.is_empty() {
                let at = by as usize % shuffled.len();
                shuffled.rotate_left(at);
                shuffled.reverse();
                shuffled.extend(list);
            }
            let again = merged(&shuffled);
            prop_assert_eq!(&once.by_id, &again.by_id);
            prop_assert_eq!(once.digest(), again.digest());
        }

        #[test]
        fn a_merge_of_merges_is_one_merge(a in members(), b in members(), c in members()) {
            let join = |left: &Members, right: &Members| {
                let mut joined = left.clone();
                for member in right.iter() {
                    joined.merge(member.clone());
                }
                joined
            };
            let (a, b, c) = (merged(&a), merged(&b), merged(&c));
            prop_assert_eq!(join(&join(&a, &b), &c).by_id, join(&a, &join(&b, &c)).by_id);
            prop_assert_eq!(join(&a, &b).by_id, join(&b, &a).by_id);
            prop_assert_eq!(&join(&a, &a).by_id, &a.by_id);
        }

        #[test]
        fn digests_are_equal_where_the_content_is(a in members(), b in members()) {
            let (a, b) = (merged(&a), merged(&b));
            prop_assert_eq!(a.digest() == b.digest(), a.by_id == b.by_id);
        }
    }
}
