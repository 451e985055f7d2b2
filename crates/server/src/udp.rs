//! The sockets of a server: one for sessions, and one for each interface for discovery.
//!
//! Discovery sockets of all servers of a host share one port (`SO_REUSEADDR`): each of them gets a copy of every
//! broadcast, but a unicast would reach only one of them, so nothing is ever sent to that port but broadcasts. Bound to
//! its device, a socket hears its own interface alone, and what it sends leaves there whatever the routes say.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::{Error, PORT_DEFAULT, interfaces::Interface};

/// How many ports beyond the default one are tried.
const PORTS_TRIED: u16 = 100;
/// Bytes that the system is asked to keep for a socket that is not read for a while; it may give less.
const BUFFER_BYTES: usize = 4 << 20;

/// All sockets of a server.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// For sessions, and for answers to whoever asked by broadcast.
    pub(crate) session: UdpSocket,
    /// For broadcasts; empty where the port cannot be used but peers were named.
    pub(crate) discovery: Vec<Discovery>,
}

/// The discovery socket of one interface.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// The socket.
    pub(crate) socket: UdpSocket,
    /// Where its broadcasts go.
    pub(crate) broadcast: Vec<SocketAddr>,
}

/// Why there is no discovery socket.
#[derive(Debug)]
pub(crate) struct DiscoveryError {
    /// What the system says.
    pub(crate) source: io::Error,
}

/// Opens the session socket: exactly on `asked` (0: any free port), else on the first free port from the default one on.
pub(crate) fn session(asked: Option<u16>, only_loopback: bool) -> Result<UdpSocket, Error> {
    let ip = if only_loopback { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    if let Some(port) = asked {
        return open_session(ip, port).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortTaken(port),
            _ => Error::Port { port, source },
        });
    }
    let last = PORT_DEFAULT + PORTS_TRIED;
    for port in PORT_DEFAULT..=last {
        match open_session(ip, port) {
            Ok(socket) => return Ok(socket),
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(Error::Port { port, source }),
        }
    }
    Err(Error::NoPortFree { first: PORT_DEFAULT, last })
}

/// Opens a session socket on that very port. No `SO_REUSEADDR`: a second server on the port would steal packets.
fn open_session(ip: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = new_socket()?;
    socket.bind(&SocketAddr::from((ip, port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// Opens a discovery socket on each of `interfaces`. One that is refused although another works is left out.
pub(crate) fn discovery(interfaces: &[Interface], port: u16) -> Result<Vec<Discovery>, DiscoveryError> {
    let mut sockets = Vec::new();
    let mut refused = None;
    for interface in interfaces {
        match open_discovery(interface, port) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                tracing::debug!(interface = interface.name, %error, "no discovery on this interface");
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(source) if sockets.is_empty() => Err(DiscoveryError { source }),
        _ => Ok(sockets),
    }
}

/// Opens the discovery socket of one interface.
fn open_discovery(interface: &Interface, port: u16) -> io::Result<Discovery> {
    let socket = new_socket()?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Err(error) = socket.bind_device(Some(interface.name.as_bytes())) {
        tracing::debug!(interface = interface.name, %error, "not bound to the interface: goes on without");
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    let mut broadcast: Vec<SocketAddr> =
        interface.addrs.iter().filter_map(|addr| addr.broadcast).map(|ip| (ip, port).into()).collect();
    broadcast.dedup();
    Ok(Discovery { socket: UdpSocket::from_std(socket.into())?, broadcast })
}

/// A datagram socket that never blocks, with as much buffer as the system gives.
fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // A smaller buffer only means that more is sent again.
    let _smaller = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _smaller = socket.set_send_buffer_size(BUFFER_BYTES);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::interfaces;

    fn lo() -> Vec<Interface> {
        interfaces::up().unwrap().into_iter().filter(Interface::is_loopback).collect()
    }

    #[tokio::test]
    async fn a_port_that_was_asked_for_is_had_or_refused() {
        let first = session(Some(0), true).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = session(Some(port), true);
        assert_eq!(
            second.unwrap_err().to_string(),
            format!("port {port} is in use by another program: choose another with --port")
        );
    }

    #[tokio::test]
    async fn a_port_that_was_not_asked_for_is_the_next_free_one() {
        let first = session(None, true).unwrap().local_addr().unwrap();
        let both = (session(None, true).unwrap(), session(None, true).unwrap());
        let second = both.1.local_addr().unwrap();
        assert!(first.port() >= PORT_DEFAULT);
        assert_ne!(both.0.local_addr().unwrap(), second);
    }

    #[tokio::test]
    async fn a_broadcast_on_loopback_reaches_every_socket_that_shares_the_port() {
        let port = session(Some(0), true).unwrap().local_addr().unwrap().port();
        let first = discovery(&lo(), port).unwrap();
        let second = discovery(&lo(), port).unwrap();
        first[0].socket.writable().await.unwrap();
        first[0].socket.try_send_to(b"hello", first[0].broadcast[0]).unwrap();
        for sockets in [&first, &second] {
            let mut buffer = [0; 16];
            let heard = tokio::time::timeout(Duration::from_secs(5), sockets[0].socket.recv_from(&mut buffer)).await;
            let (len, from) = heard.expect("it arrives").unwrap();
            assert_eq!((&buffer[..len], from.ip().is_loopback()), (&b"hello"[..], true));
        }
    }

    #[tokio::test]
    async fn a_discovery_port_that_is_not_shared_is_refused() {
        let taken = session(Some(0), false).unwrap();
        assert!(discovery(&lo(), taken.local_addr().unwrap().port()).is_err());
    }
}
