//! A second socket on the session port, for which nobody waits: what is sent leaves through it, and keepalives come in
//! through it while there are many.
//!
//! A hundred thousand silent clients say four thousand keepalives a second, one by one, and waking up for one costs more
//! than answering it. Nobody minds if that answer is some milliseconds late; a post is not to wait so long, and which is
//! which nobody can tell before they are opened, but for their length. So the two sockets share the port
//! (`SO_REUSEPORT`), and a filter in the system (the packet filter of BSD: `McCanne` and Jacobson, USENIX Winter 1993) hands
//! what is as long as a sealed keepalive to this one, while that is looked at each [`REST`]. Anything else of that length
//! comes a little later than it could, and no more than that.
//!
//! What is sent leaves through this one because of the system, which after each datagram looks whether somebody waits
//! until there is room: at this socket nobody does.
//!
//! Linux alone can do that. Elsewhere, and where it is refused, there is no such socket, and the one that there is does all.

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
    pace: Pace,
}

impl Backs {
    /// Those, of which none takes keepalives yet.
    pub(crate) fn new(v4: Option<Back>, v6: Option<Back>) -> Self {
        Self { v4, v6, pace: Pace::default() }
    }

    /// When keepalives that wait are to be looked at; `None`: none waits.
    pub(crate) fn next(&self) -> Option<Time> {
        self.pace.next
    }

    /// So many keepalives have come by themselves. Where it is time for those that wait, `take` takes them from a socket, up
    /// to `max`, and says how many it were.
    pub(crate) fn mind(
        &mut self,
        came: usize,
        max: usize,
        now: Time,
        mut take: impl FnMut(&SockRef<'_>, Family) -> usize,
    ) {
        let Self { v4, v6, pace } = self;
        let mut take_of = |back: &Option<Back>, family| back.as_ref().map_or(0, |back| take(&back.socket(), family));
        let mut take_all = || take_of(v4, Family::V4).max(take_of(v6, Family::V6));
        let wait = match pace.next {
            None => pace.came(came, now).then_some(true),
            Some(next) if now < next => None,
            Some(_) => pace.waited(take_all(), max, now).then_some(false),
        };
        let Some(wait) = wait else { return };
        for back in v4.iter().chain(v6.iter()) {
            if let Err(error) = back.take_keepalives(wait) {
                // What it still takes is to be looked at.
                pace.next = Some(now + REST);
                tracing::debug!(%error, "the filter stays as it is");
            }
        }
        if !wait {
            // Some may have come before the filter changed.
            take_all();
        }
    }
}

/// When keepalives are looked at: as soon as they come, or each [`REST`].
#[derive(Debug, Default)]
struct Pace {
    /// How many have come, and since when that is counted.
    count: usize,
    since: Time,
    /// While there are many: when the next look is.
    next: Option<Time>,
}

impl Pace {
    /// So many have come by themselves. Whether others are to wait from now on.
    fn came(&mut self, count: usize, now: Time) -> bool {
        if now.since(self.since) > MANY.1 {
            (self.count, self.since) = (0, now);
        }
        self.count += count;
        let are_many = self.next.is_none() && self.count >= MANY.0;
        if are_many {
            self.next = Some(now + REST);
        }
        are_many
    }

    /// So many had waited, of which no more than `max` were taken. Whether none is to wait any more.
    fn waited(&mut self, count: usize, max: usize, now: Time) -> bool {
        let are_few = count <= FEW;
        let rest = if count < max { REST } else { Duration::ZERO };
        self.next = (!are_few).then(|| now + rest);
        if are_few {
            (self.count, self.since) = (0, now);
        }
        are_few
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, net::SocketAddr};

    use hobnob_proto::limits::KEEPALIVE_BYTES;
    use nix::{
        libc::{sock_filter, sock_fprog},
        sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
    };
    use socket2::{SockRef, Socket};

    /// Instructions of the filter, in the words of `linux/bpf_common.h`: `A` becomes the length of the datagram, go on so many
    /// instructions further if `A >= k` or `A > k`, and answer `k`.
    const LOAD_LENGTH: u16 = 0x80;
    const JUMP_GREATER_EQUAL: u16 = 0x35;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    /// What it answers: the socket that was there first, and this one.
    const FRONT: u32 = 0;
    const BACK: u32 = 1;

    /// The socket.
    #[derive(Debug)]
    pub(crate) struct Back(Socket);

    impl Back {
        /// Makes `new` one, beside `front`, which was bound for itself alone: so no other server has that port, and none can
        /// have it that asks for it so. Nothing comes in through it yet.
        pub(crate) fn beside(front: &SockRef<'_>, addr: SocketAddr, new: Socket) -> io::Result<Self> {
            front.set_reuse_port(true)?;
            let shared = new.set_reuse_port(true).and_then(|()| new.bind(&addr.into()));
            let back = Self(new);
            match shared.and_then(|()| back.take_keepalives(false)) {
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

    #[test]
    fn keepalives_wait_while_there_are_many_and_no_longer() {
        let at = Time::from_micros;
        let mut pace = Pace::default();
        assert!(!pace.came(63, at(10_000)));
        assert!(!pace.came(63, at(110_001)), "those were too long ago");
        assert_eq!(pace.next, None);
        assert!(pace.came(1, at(200_000)));
        assert!(!pace.came(100, at(201_000)), "they do already");
        assert_eq!(pace.next, Some(at(210_000)));
        assert!(!pace.waited(2, 256, at(210_100)));
        assert_eq!(pace.next, Some(at(220_100)));
        assert!(!pace.waited(256, 256, at(220_200)));
        assert_eq!(pace.next, Some(at(220_200)), "there may be more of them");
        assert!(pace.waited(1, 256, at(230_000)));
        assert_eq!(pace.next, None);
        assert!(!pace.came(63, at(231_000)));
    }
}
