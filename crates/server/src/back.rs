//! A second socket on the session port, for which nobody waits: what is sent leaves through it, and keepalives come in
//! through it while there are many.
//!
//! A hundred thousand silent clients say four thousand keepalives a second, one by one, and waking up for one costs
//! more than answering it. Nobody minds if that answer is some milliseconds late; a post is not to wait so long, and
//! which is which nobody can tell before they are opened, but for their length. So the two sockets share the port
//! (`SO_REUSEPORT`), and a filter in the system (the packet filter of BSD: `McCanne` and Jacobson, USENIX Winter 1993)
//! hands what is as long as a sealed keepalive to this one, while that is looked at each [`REST`]. Anything else of
//! that length comes a little later than it could, and no more than that.
//!
//! What is sent leaves through this one because of the system, which after each datagram looks whether somebody waits
//! until there is room: at this socket nobody does.
//!
//! Linux alone can do that. Elsewhere, and where it is refused, there is no such socket, and the one that there is does
//! all.

use std::time::Duration;

use hobnob_proto::time::Time;
use socket2::SockRef;

use crate::batch::Family;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::Back;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::nowhere::Back;

/// How long keepalives wait while there are many.
const REST: Duration = Duration::from_millis(10);
/// They are many once so many have come within that span: six or seven in each [`REST`].
const MANY: (usize, Duration) = (64, Duration::from_millis(100));
/// They are not many any more once so few have come in one.
const FEW: usize = 1;

/// The sockets of both families, as far as there are any.
#[derive(Debug)]
pub(crate) struct Backs {
    pub(crate) v4: Option<Back>,
    pub(crate) v6: Option<Back>,
    /// `None`: there are none.
    pace: Option<Pace>,
}

impl Backs {
    /// Those, of which none takes keepalives yet.
    pub(crate) fn new(v4: Option<Back>, v6: Option<Back>) -> Self {
        let has_any = v4.is_some() || v6.is_some();
        Self { v4, v6, pace: has_any.then(Pace::default) }
    }

    /// When keepalives that wait are to be looked at; `None`: none waits.
    pub(crate) fn next(&self) -> Option<Time> {
        self.pace.as_ref()?.next_look()
    }

    /// So many keepalives have come by themselves. Where it is time for those that wait, `take` takes them from a
    /// socket, up to `max`, and says how many it were.
    pub(crate) fn mind(
        &mut self,
        came: usize,
        max: usize,
        now: Time,
        mut take: impl FnMut(&SockRef<'_>, Family) -> usize,
    ) {
        let Self { v4, v6, pace: Some(pace) } = self else { return };
        let mut take_of = |back: &Option<Back>, family| back.as_ref().map_or(0, |back| take(&back.socket(), family));
        let mut take_all = || take_of(v4, Family::V4).max(take_of(v6, Family::V6));
        let mut change = pace.came(came, now);
        if pace.next_look().is_some_and(|next| now >= next) {
            change = pace.waited(take_all(), max, now);
        }
        let does = match change {
            Change::Nothing => return,
            Change::ToBack => true,
            Change::ToFront => false,
        };
        let filter = |back: &Back, does| {
            let done = back.take_keepalives(does);
            done.inspect_err(|error| tracing::debug!(does, %error, "the filter stays as it is")).is_ok()
        };
        let backs = || v4.iter().chain(v6.iter());
        if let Some(refused) = backs().position(|back| !filter(back, does)) {
            // Where one cannot take them, none does.
            let none_takes = does && backs().take(refused).all(|back| filter(back, false));
            pace.refused(none_takes, now);
        }
    }
}

/// When keepalives are looked at: as soon as they come, or each [`REST`].
#[derive(Debug, Default)]
struct Pace {
    /// How many have come, and since when that is counted.
    count: usize,
    since: Time,
    way: Way,
}

/// Where keepalives come in.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Through the front.
    Front,
    /// Through the front again, but some may have come through the back just before: they are looked at once more.
    FrontAgain { last_look: Time },
    /// Through the back.
    Back { next_look: Time },
}

impl Default for Way {
    /// Before a new socket had its filter, anything may have come through it.
    fn default() -> Self {
        Self::FrontAgain { last_look: Time::ZERO }
    }
}

/// What is to become of the filter.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// Keepalives are to wait from now on.
    ToBack,
    /// None is to wait any more.
    ToFront,
}

impl Pace {
    /// When those that wait are looked at.
    fn next_look(&self) -> Option<Time> {
        match self.way {
            Way::Front => None,
            Way::FrontAgain { last_look: next } | Way::Back { next_look: next } => Some(next),
        }
    }

    /// So many have come by themselves.
    fn came(&mut self, count: usize, now: Time) -> Change {
        if now.since(self.since) > MANY.1 {
            (self.count, self.since) = (0, now);
        }
        self.count += count;
        if matches!(self.way, Way::Back { .. }) || self.count < MANY.0 {
            return Change::Nothing;
        }
        self.way = Way::Back { next_look: now + REST };
        Change::ToBack
    }

    /// So many had waited, of which no more than `max` were taken.
    fn waited(&mut self, count: usize, max: usize, now: Time) -> Change {
        let next = now + if count < max { REST } else { Duration::ZERO };
        let was_back = matches!(self.way, Way::Back { .. });
        self.way = match (was_back, count) {
            (true, ..=FEW) => Way::FrontAgain { last_look: next },
            (true, _) => Way::Back { next_look: next },
            (false, _) if count < max => Way::Front,
            (false, _) => Way::FrontAgain { last_look: next },
        };
        if was_back && count <= FEW {
            (self.count, self.since) = (0, now);
            return Change::ToFront;
        }
        Change::Nothing
    }

    /// The change was refused. Unless none takes keepalives, what comes through a back is to be looked at.
    fn refused(&mut self, none_takes: bool, now: Time) {
        let next = now + REST;
        self.way = if none_takes { Way::FrontAgain { last_look: next } } else { Way::Back { next_look: next } };
        (self.count, self.since) = (0, now);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, net::SocketAddr};

    use hobnob_proto::limits::KEEPALIVE_BYTES;
    use nix::{
        libc::{SKF_AD_OFF, SKF_AD_PKTTYPE, sock_filter, sock_fprog},
        sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
    };
    use socket2::{SockFilter, SockRef, Socket};

    /// Instructions of the filter, in the words of `linux/bpf_common.h`: `A` becomes the length of the datagram, go on
    /// so many instructions further if `A >= k` or `A > k`, and answer `k`.
    const LOAD_LENGTH: u16 = 0x80;
    const JUMP_GREATER_EQUAL: u16 = 0x35;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    /// What it answers: the socket that was there first, and this one.
    const FRONT: u32 = 0;
    const BACK: u32 = 1;

    /// The same for the filter of a socket, which sees the header of UDP too, and whether a packet was sent to this
    /// host alone (as is all on loopback, even broadcasts); it answers how much of a datagram it lets in.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const HEADER_BYTES: u32 = 8;
    const PACKET_TYPE: u32 = (SKF_AD_OFF + SKF_AD_PKTTYPE).cast_unsigned();
    const TO_THIS_HOST: u32 = 0;
    const ALL_BYTES: u32 = u32::MAX;
    const NO_BYTES: u32 = 0;

    /// The socket.
    #[derive(Debug)]
    pub(crate) struct Back(pub(super) Socket);

    impl Back {
        /// Makes `new` one, beside `front`, which was bound for itself alone: so no other server has that port, and
        /// none gets it that asks for it so too. Only a program of the same user that sets `SO_REUSEPORT` before it
        /// binds could share it from now on, and take what comes; no server does that.
        ///
        /// From now on nothing comes in through it. In the moment before, anything may have.
        pub(crate) fn beside(front: &SockRef<'_>, addr: SocketAddr, new: Socket) -> io::Result<Self> {
            front.set_reuse_port(true)?;
            let shared = new.set_reuse_port(true).and_then(|()| new.bind(&addr.into()));
            let back = Self(new);
            match shared.and_then(|()| back.take_keepalives(false)).and_then(|()| back.refuse_all_else()) {
                Ok(()) => Ok(back),
                Err(error) => {
                    drop(back);
                    front.set_reuse_port(false)?;
                    Err(error)
                }
            }
        }

        /// Lets keepalives come in through this one, or through the other as all else does.
        pub(crate) fn take_keepalives(&self, does: bool) -> io::Result<()> {
            let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
            let (least, most) = KEEPALIVE_BYTES.into_inner();
            let mut filter = [
                step(LOAD_LENGTH, 0, 0, 0),
                step(JUMP_GREATER_EQUAL, 0, 2, least as u32),
                step(JUMP_GREATER, 1, 0, most as u32),
                step(RETURN, 0, 0, if does { BACK } else { FRONT }),
                step(RETURN, 0, 0, FRONT),
            ];
            let program = sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            Ok(setsockopt(&self.0, AttachReusePortCbpf, &program)?)
        }

        /// Refuses what is no keepalive: a broadcast or a multicast comes to every socket of a port, past the other
        /// filter, and would stay in this one until it is looked at, and then be heard twice.
        fn refuse_all_else(&self) -> io::Result<()> {
            let (least, most) = KEEPALIVE_BYTES.into_inner();
            self.0.attach_filter(&[
                SockFilter::new(LOAD_LENGTH, 0, 0, 0),
                SockFilter::new(JUMP_GREATER_EQUAL, 0, 4, HEADER_BYTES + least as u32),
                SockFilter::new(JUMP_GREATER, 3, 0, HEADER_BYTES + most as u32),
                SockFilter::new(LOAD_WORD, 0, 0, PACKET_TYPE),
                SockFilter::new(JUMP_EQUAL, 0, 1, TO_THIS_HOST),
                SockFilter::new(RETURN, 0, 0, ALL_BYTES),
                SockFilter::new(RETURN, 0, 0, NO_BYTES),
            ])
        }

        /// The system's.
        pub(crate) fn socket(&self) -> SockRef<'_> {
            SockRef::from(&self.0)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use std::{io, net::SocketAddr};

    use socket2::{SockRef, Socket};

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Back {}

    impl Back {
        /// There is none.
        pub(crate) fn beside(_front: &SockRef<'_>, _addr: SocketAddr, _new: Socket) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// There is none.
        pub(crate) fn take_keepalives(&self, _does: bool) -> io::Result<()> {
            match *self {}
        }

        /// There is none.
        pub(crate) fn socket(&self) -> SockRef<'_> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn keepalives_wait_while_there_are_many_and_no_longer() {
        let mut pace = Pace::default();
        assert_eq!(pace.next_look(), Some(Time::ZERO), "something may have come before the filter");
        assert_eq!(pace.waited(7, 256, at(0)), Change::Nothing);
        assert_eq!(pace.next_look(), None);
        assert_eq!(pace.came(63, at(10_000)), Change::Nothing);
        assert_eq!(pace.came(63, at(110_001)), Change::Nothing, "those were too long ago");
        assert_eq!(pace.next_look(), None);
        assert_eq!(pace.came(1, at(200_000)), Change::ToBack);
        assert_eq!(pace.came(100, at(201_000)), Change::Nothing, "they do already");
        assert_eq!(pace.next_look(), Some(at(210_000)));
        assert_eq!(pace.waited(2, 256, at(210_100)), Change::Nothing);
        assert_eq!(pace.next_look(), Some(at(220_100)));
        assert_eq!(pace.waited(256, 256, at(220_200)), Change::Nothing);
        assert_eq!(pace.next_look(), Some(at(220_200)), "there may be more of them");
        assert_eq!(pace.waited(1, 256, at(230_000)), Change::ToFront);
        assert_eq!(pace.next_look(), Some(at(240_000)), "one may have come before the filter changed");
        assert_eq!(pace.came(63, at(231_000)), Change::Nothing);
        assert_eq!(pace.waited(1, 256, at(240_000)), Change::Nothing);
        assert_eq!(pace.next_look(), None);
        assert_eq!(pace.came(1, at(241_000)), Change::ToBack, "the last look does not end the count");
    }

    #[test]
    fn where_there_is_no_second_socket_nothing_ever_waits() {
        let mut backs = Backs::new(None, None);
        backs.mind(1_000, 256, at(1), |_, _| panic!("there is none"));
        assert_eq!(backs.next(), None);
    }

    #[cfg(target_os = "linux")]
    mod with_sockets {
        use std::{mem::MaybeUninit, net::UdpSocket};

        use socket2::{Domain, Socket, Type};

        use super::*;
        use crate::udp::Session;

        const NOTHING: [Vec<usize>; 2] = [Vec::new(), Vec::new()];

        /// The lengths of what has come.
        fn lengths(socket: &SockRef<'_>) -> Vec<usize> {
            let mut buffer = [MaybeUninit::uninit(); 1_024];
            std::iter::from_fn(|| socket.recv(&mut buffer).ok()).collect()
        }

        /// One turn of a driver: what comes in through the front, and what is taken from the back.
        fn turn(session: &mut Session, came: usize, now: Time) -> [Vec<usize>; 2] {
            let front = session.iter().flat_map(|socket| lengths(&SockRef::from(socket))).collect();
            let mut taken = Vec::new();
            session.backs.mind(came, 256, now, |socket, _| {
                let lengths = lengths(socket);
                taken.extend_from_slice(&lengths);
                lengths.len()
            });
            [front, taken]
        }

        #[tokio::test]
        async fn keepalives_come_in_through_the_back_while_it_takes_them() {
            let session = Session::open(Some(0), true).unwrap();
            for (front, family) in session.families() {
                let to = front.local_addr().unwrap();
                let back = if family == Family::V4 { &session.backs.v4 } else { &session.backs.v6 };
                let back = back.as_ref().expect("Linux can do that");
                let stranger = UdpSocket::bind((to.ip(), 0)).unwrap();
                let check = |does, expected: [&[usize]; 2]| {
                    back.take_keepalives(does).unwrap();
                    for len in [47, 48, 52, 53, 100] {
                        stranger.send_to(&[b'x'; 100][..len], to).unwrap();
                    }
                    assert_eq!([lengths(&SockRef::from(front)), lengths(&back.socket())], expected, "{to} {does}");
                };
                check(false, [&[47, 48, 52, 53, 100], &[]]);
                check(true, [&[47, 53, 100], &[48, 52]]);
                check(false, [&[47, 48, 52, 53, 100], &[]]);
                session.send(stranger.local_addr().unwrap(), b"hello").unwrap();
                assert_eq!(stranger.recv_from(&mut [0; 16]).unwrap(), (5, to), "it is sent from the same port");
            }
        }

        #[tokio::test]
        async fn keepalives_are_taken_at_the_next_look_while_there_are_many() {
            for is_v6 in [false, true] {
                let mut session = Session::open(Some(0), true).unwrap();
                let find = session.iter().map(|socket| socket.local_addr().unwrap()).find(|to| to.is_ipv6() == is_v6);
                let Some(to) = find else { return crate::tests::skip("no IPv6 here") };
                let stranger = UdpSocket::bind((to.ip(), 0)).unwrap();
                let send = |len| assert_eq!(stranger.send_to(&[b'x'; 100][..len], to).unwrap(), len);
                assert_eq!(turn(&mut session, 0, at(1)), NOTHING);
                assert_eq!(session.backs.next(), None);
                send(50);
                assert_eq!(turn(&mut session, 64, at(2)), [vec![50], vec![]], "many come: it switches");
                [50, 100, 50].into_iter().for_each(send);
                assert_eq!(turn(&mut session, 0, at(10_001)), [vec![100], vec![]], "it is not time yet");
                assert_eq!(turn(&mut session, 0, at(10_002)), [vec![], vec![50, 50]]);
                send(50);
                assert_eq!(turn(&mut session, 0, at(20_002)), [vec![], vec![50]], "few came: it switches back");
                send(50);
                assert_eq!(turn(&mut session, 1, at(20_003)), [vec![50], vec![]]);
                assert_eq!(session.backs.next(), Some(at(30_002)), "one more look");
                assert_eq!(turn(&mut session, 0, at(30_002)), NOTHING);
                assert_eq!(session.backs.next(), None);
            }
        }

        #[tokio::test]
        async fn what_came_just_before_the_filter_changed_is_taken_once_more() {
            let mut session = Session::open(Some(0), true).unwrap();
            let to = session.iter().next().unwrap().local_addr().unwrap();
            let stranger = UdpSocket::bind((to.ip(), 0)).unwrap();
            turn(&mut session, 64, at(1));
            // It comes between the look and the change.
            session.backs.mind(0, 256, at(10_001), |_, _| {
                stranger.send_to(&[b'x'; 50], to).unwrap();
                0
            });
            assert_eq!(turn(&mut session, 0, at(20_000)), NOTHING);
            let [front, taken] = turn(&mut session, 0, at(20_001));
            assert!(front.is_empty() && !taken.is_empty() && taken.iter().all(|len| *len == 50), "{taken:?}");
            assert_eq!(session.backs.next(), None);
        }

        /// A socket that takes no filter: it shares its port with none.
        fn refusing() -> Back {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            Back(socket)
        }

        #[tokio::test]
        async fn where_one_socket_cannot_take_keepalives_neither_does_and_it_is_tried_again_later() {
            let mut session = Session::open(Some(0), true).unwrap();
            let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
            let to = ("127.0.0.1", session.port());
            let send = || assert_eq!(stranger.send_to(&[b'x'; 50], to).unwrap(), 50);
            let good = session.backs.v6.replace(refusing());
            turn(&mut session, 0, at(1));
            assert_eq!(turn(&mut session, 64, at(2)), NOTHING);
            assert_eq!(session.backs.next(), Some(at(10_002)), "one may have come through the other meanwhile");
            send();
            assert_eq!(turn(&mut session, 0, at(10_002)), [vec![50], vec![]]);
            assert_eq!(session.backs.next(), None, "none waits");
            session.backs.v6 = good;
            send();
            assert_eq!(turn(&mut session, 63, at(10_003)), [vec![50], vec![]]);
            assert_eq!(session.backs.next(), None, "they are counted anew");
            assert_eq!(turn(&mut session, 1, at(10_004)), NOTHING);
            send();
            assert_eq!(turn(&mut session, 0, at(20_004)), [vec![], vec![50]]);
        }

        #[tokio::test]
        async fn a_socket_that_goes_on_to_take_keepalives_is_looked_at() {
            let mut session = Session::open(Some(0), true).unwrap();
            turn(&mut session, 64, at(1));
            session.backs.v6 = Some(refusing());
            for look in [at(10_001), at(20_001), at(30_001)] {
                assert_eq!(session.backs.next(), Some(look));
                turn(&mut session, 0, look);
            }
            session.backs.v6 = None;
            turn(&mut session, 0, at(40_001));
            turn(&mut session, 0, at(50_001));
            assert_eq!(session.backs.next(), None);
        }

        #[tokio::test]
        async fn a_broadcast_comes_in_through_the_front_alone() {
            let mut session = Session::open(Some(0), false).unwrap();
            let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
            stranger.set_broadcast(true).unwrap();
            for (came, now) in [(0, at(1)), (64, at(2))] {
                turn(&mut session, came, now);
                for len in [47, 53, 600] {
                    stranger.send_to(&[b'x'; 600][..len], ("127.255.255.255", session.port())).unwrap();
                }
                let back = session.backs.v4.as_ref().expect("Linux can do that");
                assert_eq!(lengths(&back.socket()), [0; 0]);
                assert_eq!(turn(&mut session, 0, now), [vec![47, 53, 600], vec![]]);
            }
        }
    }
}
