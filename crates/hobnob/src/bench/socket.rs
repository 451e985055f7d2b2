//! The sockets of members. What comes in a run is taken in one call where the system can (GRO): a network card would hand
//! it over like that too.

use std::{io, net::SocketAddr};

use mio::net::UdpSocket;

/// Bytes that the system is asked to keep for a socket.
const BUFFER_BYTES: usize = 4 << 20;
/// Bytes that one call may hand over.
pub(super) const CALL_BYTES_MAX: usize = 65_536;

/// A socket that only hears the server.
pub(super) fn open(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    let options = socket2::SockRef::from(&socket);
    // A smaller buffer only means that more is sent again.
    let _smaller = options.set_recv_buffer_size(BUFFER_BYTES);
    let _smaller = options.set_send_buffer_size(BUFFER_BYTES);
    #[cfg(target_os = "linux")]
    let _one_by_one = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGroSegment, &true);
    socket.connect(server)?;
    Ok(socket)
}

/// Takes what has come: how many bytes, and how long each datagram but the last is.
#[cfg(target_os = "linux")]
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut messages = nix::cmsg_space!(i32);
    let mut slices = [io::IoSliceMut::new(buffer)];
    let found = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut messages), MsgFlags::MSG_DONTWAIT)?;
    let segment = found.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
        _ => None,
    });
    Ok((found.bytes, segment.filter(|bytes| *bytes > 0).unwrap_or(found.bytes.max(1))))
}

/// Takes what has come: how many bytes, and how long each datagram but the last is.
#[cfg(not(target_os = "linux"))]
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    socket.recv(buffer).map(|len| (len, len.max(1)))
}
