//! Many datagrams for one call of the system: `sendmmsg` for datagrams to many, segmentation offload (GSO) for a run of
//! equal ones to one, `recvmmsg` for what has come. Where the system has none of that, one call for each does the same.
//!
//! A datagram that cannot be sent is dropped and told of; the others go. Of what is dropped because the system's buffer
//! is full, the rest of the batch goes too: it would find no room either.

use std::{io, net::SocketAddr};

use hobnob_proto::session::Datagrams;
use socket2::SockRef;
use tokio::net::UdpSocket;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::Batch;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::portable::Batch;

/// What addresses a socket hears from: the system has to be given room for one of that length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The way without any of that, which works everywhere.
#[cfg_attr(target_os = "linux", cfg(test))]
mod portable {
    use hobnob_proto::limits;

    use super::{Datagrams, Family, SockRef, SocketAddr, UdpSocket, io};

    /// Sends and receives, one by one.
    #[derive(Debug)]
    pub(crate) struct Batch {
        buffer: Vec<u8>,
    }

    impl Batch {
        /// Nothing has been sent.
        pub(crate) fn new() -> Self {
            // One byte more than anybody may send, so that what is too long is seen.
            Self { buffer: vec![0; limits::DATAGRAM_BYTES_MAX + 1] }
        }

        /// Sends each from the socket that `socket` gives for its receiver. Each error is told to `failed`.
        #[allow(clippy::unused_self, reason = "the other way of sending keeps what it needs")]
        pub(crate) fn send<'a>(
            &mut self,
            datagrams: &Datagrams,
            socket: impl Fn(SocketAddr) -> io::Result<SockRef<'a>>,
            mut failed: impl FnMut(&io::Error),
        ) {
            for (to, bytes) in datagrams.iter() {
                if let Err(error) = socket(to).and_then(|socket| socket.send_to(bytes, &to.into())) {
                    failed(&error);
                }
            }
        }

        /// Hands over at most `max` datagrams that have come. Each error is told to `failed`.
        pub(crate) fn receive(
            &mut self,
            socket: &UdpSocket,
            _family: Family,
            max: usize,
            mut take: impl FnMut(SocketAddr, &[u8]),
            mut failed: impl FnMut(&io::Error),
        ) {
            for _ in 0..max {
                match socket.try_recv_from(&mut self.buffer) {
                    Ok((len, from)) => take(from, &self.buffer[..len]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(error) => failed(&error),
                }
            }
        }

        /// The same of a socket that nobody waits for; how many it were. Here there is none.
        #[cfg(not(target_os = "linux"))]
        #[allow(clippy::unused_self, reason = "the other way of receiving needs it")]
        pub(crate) fn receive_from(
            &mut self,
            _socket: &SockRef<'_>,
            _family: Family,
            _max: usize,
            _take: impl FnMut(SocketAddr, &[u8]),
            _failed: impl FnMut(&io::Error),
        ) -> usize {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Datagrams of these lengths, each to one of two sockets in turn or all to the first, marked with their number.
    fn fill(lengths: &[usize], to: [SocketAddr; 2], shared: bool) -> Datagrams {
        let mut datagrams = Datagrams::default();
        for (at, len) in lengths.iter().enumerate() {
            let mut bytes = vec![b'x'; *len];
            bytes[..2].copy_from_slice(&(at as u16).to_be_bytes());
            datagrams.push(to[if shared { 0 } else { at % 2 }], &bytes);
        }
        datagrams
    }

    macro_rules! everything_arrives_in_order {
        ($name:ident, $batch:ty) => {
            #[tokio::test]
            async fn $name() {
                async fn check(lengths: &[usize], shared: bool, v6: bool) {
                    let (host, family) = if v6 { ("[::1]:0", Family::V6) } else { ("127.0.0.1:0", Family::V4) };
                    let Ok(sender) = UdpSocket::bind(host).await else {
                        return crate::tests::skip("no IPv6 here");
                    };
                    let sockets = [UdpSocket::bind(host).await.unwrap(), UdpSocket::bind(host).await.unwrap()];
                    let to = [sockets[0].local_addr().unwrap(), sockets[1].local_addr().unwrap()];
                    let mut batch = <$batch>::new();
                    let mut failures = 0;
                    batch.send(&fill(lengths, to, shared), |_| Ok(SockRef::from(&sender)), |_| failures += 1);
                    let mut seen = vec![Vec::new(); 2];
                    let from = sender.local_addr().unwrap();
                    let end = std::time::Instant::now() + Duration::from_secs(10);
                    while seen.iter().map(Vec::len).sum::<usize>() < lengths.len() && std::time::Instant::now() < end {
                        for (socket, seen) in sockets.iter().zip(&mut seen) {
                            let ready = tokio::time::timeout(Duration::from_millis(200), socket.readable());
                            if ready.await.is_err() && shared {
                                continue;
                            }
                            let take = |source, bytes: &[u8]| {
                                assert_eq!(source, from);
                                seen.push((u16::from_be_bytes([bytes[0], bytes[1]]), bytes.len()));
                            };
                            batch.receive(socket, family, 1_000, take, |_| {});
                        }
                    }
                    let all = lengths.iter().enumerate().map(|(at, len)| (at as u16, *len));
                    let expected: Vec<Vec<_>> = if shared {
                        vec![all.collect(), Vec::new()]
                    } else {
                        (0..2).map(|side| all.clone().filter(|(at, _)| at % 2 == side).collect()).collect()
                    };
                    assert_eq!((seen, failures), (expected, 0), "{lengths:?}");
                }
                for v6 in [false, true] {
                    check(&[10, 20, 30], false, v6).await;
                    check(&[100; 5], true, v6).await;
                    check(&[100, 100, 40, 100, 200, 200, 7], true, v6).await;
                    // More than one run has; more of them might not fit a socket's buffer.
                    check(&[1_229; 70], true, v6).await;
                    check(&[300; 140], false, v6).await;
                }
            }
        };
    }

    everything_arrives_in_order!(everything_arrives_in_order, Batch);
    everything_arrives_in_order!(everything_arrives_in_order_without_the_systems_help, portable::Batch);

    #[tokio::test]
    async fn who_sent_is_known_in_either_family_whatever_came_before() {
        let mut batch = Batch::new();
        for (host, family) in [("127.0.0.1:0", Family::V4), ("[::1]:0", Family::V6), ("127.0.0.1:0", Family::V4)] {
            let Ok(receiver) = UdpSocket::bind(host).await else {
                return crate::tests::skip("no IPv6 here");
            };
            let sender = UdpSocket::bind(host).await.unwrap();
            sender.send_to(b"x", receiver.local_addr().unwrap()).await.unwrap();
            receiver.readable().await.unwrap();
            let mut seen = Vec::new();
            batch.receive(&receiver, family, 10, |from, _| seen.push(from), |error| panic!("{error}"));
            assert_eq!(seen, [sender.local_addr().unwrap()]);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_sent_does_not_stop_the_rest() {
        let (sender, receiver) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let to = receiver.local_addr().unwrap();
        let nowhere: SocketAddr = "255.255.255.255:9".parse().unwrap();
        let mut datagrams = Datagrams::default();
        for (to, bytes) in [(nowhere, b"a"), (to, b"b"), (nowhere, b"c"), (to, b"d")] {
            datagrams.push(to, bytes);
        }
        let (mut failures, mut seen) = (0, Vec::new());
        let mut batch = Batch::new();
        batch.send(&datagrams, |_| Ok(SockRef::from(&sender)), |_| failures += 1);
        while seen.len() < 2 {
            receiver.readable().await.unwrap();
            batch.receive(&receiver, Family::V4, 10, |_, bytes| seen.push(bytes[0]), |_| {});
        }
        assert_eq!((failures, &seen[..]), (2, &b"bd"[..]));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_receiver_that_is_out_of_reach_does_not_end_the_cutting_of_runs() {
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Nobody may broadcast from a socket that has not asked for it.
        let nowhere: SocketAddr = "255.255.255.255:9".parse().unwrap();
        let (mut batch, mut failures) = (Batch::new(), 0);
        batch.send(&fill(&[100; 5], [nowhere; 2], true), |_| Ok(SockRef::from(&sender)), |_| failures += 1);
        assert_eq!((failures, batch.cuts), (5, true));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_cutting_of_runs_ends_once_two_receivers_on_end_are_refused() {
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let good = receiver.local_addr().unwrap().to_string();
        let check = |receivers: &[&str], expected: bool| {
            let mut batch = Batch::new();
            for to in receivers {
                let to: SocketAddr = to.parse().unwrap();
                batch.send(&fill(&[100; 5], [to; 2], true), |_| Ok(SockRef::from(&sender)), |_| {});
            }
            assert_eq!(batch.cuts, expected, "{receivers:?}");
        };
        // Nothing can be sent to port 0: the system says of such a run what it says of those that it cannot cut.
        check(&["127.0.0.1:0"], true);
        check(&["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"], true);
        check(&["127.0.0.1:0", "127.0.0.2:0"], false);
        check(&["127.0.0.1:0", &good, "127.0.0.2:0"], true);
        check(&["127.0.0.1:0", &good, "127.0.0.2:0", "127.0.0.1:0"], false);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_comes_behind_an_error_is_received_in_the_same_turn() {
        async fn check(receive: impl Fn(&mut Batch, &UdpSocket, &mut dyn FnMut(u8), &mut dyn FnMut())) {
            let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            // To a connected socket it is said that nobody was there.
            receiver.connect(gone).await.unwrap();
            receiver.send(b"anybody?").await.unwrap();
            let sender = UdpSocket::bind(gone).await.unwrap();
            for byte in 0..3 {
                sender.send_to(&[byte], receiver.local_addr().unwrap()).await.unwrap();
            }
            receiver.readable().await.unwrap();
            let (mut seen, mut failures) = (Vec::new(), 0);
            receive(&mut Batch::new(), &receiver, &mut |byte| seen.push(byte), &mut || failures += 1);
            // The error takes the place of one.
            assert_eq!((seen, failures), (vec![0, 1], 1));
        }
        check(|batch, socket, take, failed| {
            batch.receive(socket, Family::V4, 3, |_, bytes| take(bytes[0]), |_| failed());
        })
        .await;
        check(|batch, socket, take, failed| {
            let socket = SockRef::from(socket);
            let count = batch.receive_from(&socket, Family::V4, 3, |_, bytes| take(bytes[0]), |_| failed());
            assert_eq!(count, 3);
        })
        .await;
    }

    #[tokio::test]
    async fn a_turn_takes_no_more_than_its_share() {
        let (sender, receiver) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        for _ in 0..50 {
            sender.send_to(b"x", receiver.local_addr().unwrap()).await.unwrap();
        }
        receiver.readable().await.unwrap();
        let (mut batch, mut counts) = (Batch::new(), Vec::new());
        for max in [40, 40] {
            let mut count = 0;
            batch.receive(&receiver, Family::V4, max, |_, _| count += 1, |_| {});
            counts.push(count);
        }
        assert_eq!(counts, [40, 10]);
    }
}
