//! The way of Linux: `sendmmsg`, segmentation offload, `recvmmsg`.

use std::{io::IoSlice, io::IoSliceMut, net::IpAddr, os::fd::AsRawFd as _};

use hobnob_proto::{limits, session::Run};
use nix::{
    errno::Errno,
    sys::socket::{
        ControlMessage, MsgFlags, MultiHeaders, SockaddrLike as _, SockaddrStorage, recvmmsg, sendmmsg, sendmsg,
    },
};
use tokio::io::Interest;

use super::{Datagrams, Family, SockRef, SocketAddr, UdpSocket, io};

/// Datagrams that one run has at most: the kernel takes 64 (128 since 6.9).
const RUN_MAX: usize = 64;
/// Bytes of one run: less than an IPv4 packet, of which each run is first made.
const RUN_BYTES_MAX: usize = 65_000;
/// Datagrams for one call.
const CALL_MAX: usize = 64;
/// The same for receiving, where each needs a buffer as long as the longest.
const RECEIVED_MAX: usize = 32;
const BUFFER_BYTES: usize = limits::DATAGRAM_BYTES_MAX + 1;

/// Sends and receives, many in one call.
#[derive(Debug)]
pub(crate) struct Batch {
    sent: MultiHeaders<SockaddrStorage>,
    /// For each family: what is left of a call is the length of its addresses, and the next call gets no more than
    /// that.
    received_v4: MultiHeaders<SockaddrStorage>,
    received_v6: MultiHeaders<SockaddrStorage>,
    buffer: Vec<u8>,
    /// What the last call has received: from where, and how much.
    found: Vec<(Option<SocketAddr>, usize)>,
    /// Whether the system cuts runs into datagrams; not where a network card cannot.
    pub(super) cuts: bool,
    /// To whom the last run was refused, where none was sent since.
    refused: Option<IpAddr>,
}

impl Batch {
    /// Nothing has been sent.
    pub(crate) fn new() -> Self {
        Self {
            sent: MultiHeaders::preallocate(CALL_MAX, None),
            received_v4: MultiHeaders::preallocate(RECEIVED_MAX, None),
            received_v6: MultiHeaders::preallocate(RECEIVED_MAX, None),
            buffer: vec![0; RECEIVED_MAX * BUFFER_BYTES],
            found: Vec::with_capacity(RECEIVED_MAX),
            cuts: true,
            refused: None,
        }
    }

    /// Sends each from the socket that `socket` gives for its receiver. Each error is told to `failed`.
    pub(crate) fn send<'a>(
        &mut self,
        datagrams: &Datagrams,
        socket: impl Fn(SocketAddr) -> io::Result<SockRef<'a>>,
        mut failed: impl FnMut(&io::Error),
    ) {
        let mut singles: Vec<(SocketAddr, &[u8])> = Vec::with_capacity(CALL_MAX);
        let mut full = false;
        for run in datagrams.runs(if self.cuts { RUN_MAX } else { 1 }, RUN_BYTES_MAX) {
            if full {
                return;
            }
            let is_run = run.count() > 1;
            let turns = singles.first().is_some_and(|(to, _)| to.is_ipv4() != run.to.is_ipv4());
            if is_run || turns || singles.len() == CALL_MAX {
                full = self.send_singles(&mut singles, &socket, &mut failed);
            }
            if !is_run {
                singles.push((run.to, run.bytes));
            } else if !self.send_run(&run, &socket) {
                for bytes in run.bytes.chunks(run.segment) {
                    singles.push((run.to, bytes));
                    if singles.len() == CALL_MAX {
                        full |= self.send_singles(&mut singles, &socket, &mut failed);
                    }
                }
            }
        }
        self.send_singles(&mut singles, &socket, &mut failed);
    }

    /// Hands over at most `max` datagrams that have come. Each error is told to `failed`.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
        family: Family,
        max: usize,
        take: impl FnMut(SocketAddr, &[u8]),
        failed: impl FnMut(&io::Error),
    ) {
        let receive = || {
            let count = self.receive_from(&SockRef::from(socket), family, max, take, failed);
            // There is nothing left: so the runtime is to wait for more, without another call to find that out.
            if count < max { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        let _nothing_is_left = socket.try_io(Interest::READABLE, receive);
    }

    /// The same of a socket that nobody waits for. How many it were, and errors, each of which takes the place of one;
    /// less than `max` only where nothing is left.
    pub(crate) fn receive_from(
        &mut self,
        socket: &SockRef<'_>,
        family: Family,
        max: usize,
        mut take: impl FnMut(SocketAddr, &[u8]),
        mut failed: impl FnMut(&io::Error),
    ) -> usize {
        let mut count = 0;
        while count < max {
            let wanted = (max - count).min(RECEIVED_MAX);
            match self.receive_some(socket, family, wanted) {
                Ok(some) => {
                    self.hand_over(&mut take);
                    count += some;
                    // A call stops short where nothing is left, or at an error that the next call is told of: but
                    // nothing is held against a socket of ours, which is not connected and has not asked for errors
                    // (`IP_RECVERR`).
                    if some < wanted {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    failed(&error);
                    count += 1;
                }
            }
        }
        count
    }

    /// One call; how many have come.
    fn receive_some(&mut self, socket: &SockRef<'_>, family: Family, wanted: usize) -> io::Result<usize> {
        let Self { received_v4, received_v6, buffer, found, .. } = self;
        let received = match family {
            Family::V4 => received_v4,
            Family::V6 => received_v6,
        };
        let mut slices: Vec<_> =
            buffer.chunks_mut(BUFFER_BYTES).take(wanted).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let results = recvmmsg(socket.as_raw_fd(), received, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
        found.clear();
        found.extend(results.map(|result| (result.address.and_then(address), result.bytes)));
        Ok(found.len())
    }

    /// Hands over what that call has found.
    fn hand_over(&self, take: &mut impl FnMut(SocketAddr, &[u8])) {
        for ((from, len), bytes) in self.found.iter().zip(self.buffer.chunks(BUFFER_BYTES)) {
            if let Some(from) = from {
                take(*from, &bytes[..(*len).min(BUFFER_BYTES)]);
            }
        }
    }

    /// Sends a run in one call; whether that could be done.
    fn send_run<'a>(&mut self, run: &Run<'_>, socket: impl Fn(SocketAddr) -> io::Result<SockRef<'a>>) -> bool {
        let (Ok(socket), Ok(segment)) = (socket(run.to), u16::try_from(run.segment)) else { return false };
        let to = SockaddrStorage::from(run.to);
        let slices = [IoSlice::new(run.bytes)];
        let messages = [ControlMessage::UdpGsoSegments(&segment)];
        match sendmsg(socket.as_raw_fd(), &slices, &messages, MsgFlags::MSG_DONTWAIT, Some(&to)) {
            Ok(_) => {
                self.refused = None;
                true
            }
            // It is tried once more, one by one, and then dropped.
            Err(error) => {
                if may_say_no_cuts(error) {
                    self.on_refused(run.to.ip(), error);
                }
                false
            }
        }
    }

    /// Ends the cutting once runs to two hosts on end are refused: one host alone may itself be the reason. Where there is
    /// only one, each run to it costs one call in vain.
    fn on_refused(&mut self, to: IpAddr, error: Errno) {
        if self.refused.is_some_and(|other| other != to) {
            tracing::debug!(%error, "runs cannot be sent in one call: sends each datagram from now on");
            self.cuts = false;
        }
        self.refused = Some(to);
    }

    /// Sends what goes to one family, and empties it. Whether there was no room for all.
    fn send_singles<'a>(
        &mut self,
        singles: &mut Vec<(SocketAddr, &[u8])>,
        socket: impl Fn(SocketAddr) -> io::Result<SockRef<'a>>,
        failed: &mut impl FnMut(&io::Error),
    ) -> bool {
        let mut rest = &singles[..];
        let mut full = false;
        while let Some((to, _)) = rest.first() {
            let sent = socket(*to).and_then(|socket| self.send_some(&socket, rest));
            match sent {
                Ok(count) => rest = &rest[count.clamp(1, rest.len())..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    for _ in rest {
                        failed(&error);
                    }
                    full = true;
                    break;
                }
                Err(error) => {
                    // It is the first that cannot be sent.
                    failed(&error);
                    rest = &rest[1..];
                }
            }
        }
        singles.clear();
        full
    }

    /// One call; how many of them went.
    fn send_some(&mut self, socket: &SockRef<'_>, singles: &[(SocketAddr, &[u8])]) -> io::Result<usize> {
        let slices: Vec<_> = singles.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
        let addrs: Vec<_> = singles.iter().map(|(to, _)| Some(SockaddrStorage::from(*to))).collect();
        let none: [ControlMessage<'_>; 0] = [];
        let results = sendmmsg(socket.as_raw_fd(), &mut self.sent, &slices, addrs, none, MsgFlags::MSG_DONTWAIT)?;
        Ok(results.count())
    }
}

/// Whether that is what a system says which cannot cut runs, or not for this network card. It may say the same of a
/// receiver: that its port is 0, that the way to it is encrypted, or, until 2025, that a datagram is too long
/// for that way. All else is of the receiver (no route to it) or of the moment (no room now).
fn may_say_no_cuts(error: Errno) -> bool {
    matches!(error, Errno::EINVAL | Errno::EIO | Errno::EOPNOTSUPP)
}

/// An address of the system as one of ours.
fn address(addr: SockaddrStorage) -> Option<SocketAddr> {
    debug_assert!(addr.len() > 0);
    let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}
