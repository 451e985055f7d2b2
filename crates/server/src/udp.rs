//! The sockets of a server: two for sessions (IPv4 and IPv6, on one port; with one behind each, see `back`), and up to
//! two for each interface for discovery.
//!
//! Discovery sockets of all servers of a host share one port (`SO_REUSEADDR`, on macOS and BSD `SO_REUSEPORT` too):
//! each of them gets a copy of every broadcast, but a unicast would reach only one of them, so nothing is ever sent to
//! that port but broadcasts. Bound to its device, a socket hears its own interface alone, and what it sends leaves
//! there whatever the routes say. IPv6 has no broadcast: there a link-local group takes its place, which a socket joins
//! on its own interface.
//!
//! The IPv6 sockets take no IPv4: so no address ever comes in two forms.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use hobnob_proto::discovery::interfaces::{Choice, GROUP};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::{
    Error, PORT_DEFAULT,
    back::{Back, Backs},
    batch::Family,
};

/// How many ports beyond the default one are tried.
const PORTS_TRIED: u16 = 100;
/// How often any port is tried that is free for IPv4, until it is so for IPv6 too.
const ANY_PORT_TRIES: usize = 20;
/// Bytes that the system is asked to keep for a socket that is not read for a while; it may give less.
const BUFFER_BYTES: usize = 4 << 20;

/// All sockets of a server.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// For sessions, and for answers to whoever asked by broadcast.
    pub(crate) session: Session,
    /// For broadcasts; empty where the port cannot be used but peers were named.
    pub(crate) discovery: Vec<Discovery>,
    discovery_port: u16,
}

/// The session sockets: of both families, or of the only one that this machine has.
#[derive(Debug)]
pub(crate) struct Session {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// The socket beside each of them, where the system can do that.
    pub(crate) backs: Backs,
    port: u16,
}

/// A discovery socket of one interface.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// The socket.
    pub(crate) socket: UdpSocket,
    place: Place,
}

/// Where a discovery socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    interface: String,
    index: u32,
    /// Where its broadcasts go; all of one family.
    to: Vec<SocketAddr>,
    is_v6: bool,
}

/// Why there is no discovery socket.
#[derive(Debug)]
pub(crate) struct DiscoveryError {
    /// What the system says.
    pub(crate) source: io::Error,
}

impl Sockets {
    /// Opens discovery sockets on each interface that is used; see [`Sockets::check_discovery`].
    pub(crate) fn open(
        session: Session,
        choices: &[Choice],
        discovery_port: u16,
    ) -> (Self, Result<(), DiscoveryError>) {
        let mut sockets = Self { session, discovery: Vec::new(), discovery_port };
        let refused = sockets.open_missing(&places(choices, discovery_port));
        let checked = sockets.check_discovery(refused);
        (sockets, checked)
    }

    /// Closes the discovery sockets of what is not used any more, and opens those that are missing. Whether one was
    /// opened.
    pub(crate) fn follow(&mut self, choices: &[Choice]) -> bool {
        let places = places(choices, self.discovery_port);
        self.discovery.retain(|open| places.contains(&open.place));
        let before = self.discovery.len();
        self.open_missing(&places);
        self.discovery.len() > before
    }

    /// Sends to everybody on all networks. What could not be sent is told to `failed`.
    pub(crate) fn broadcast(&self, bytes: &[u8], mut failed: impl FnMut(&io::Error)) {
        for discovery in &self.discovery {
            for to in &discovery.place.to {
                if let Err(error) = SockRef::from(&discovery.socket).send_to(bytes, &(*to).into()) {
                    failed(&error);
                }
            }
        }
    }

    /// Every socket.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &UdpSocket> {
        self.session.iter().chain(self.discovery.iter().map(|discovery| &discovery.socket))
    }

    /// Opens what is missing; what was refused. One that is refused although another works is left out.
    fn open_missing(&mut self, places: &[Place]) -> Vec<(bool, io::Error)> {
        let mut refused = Vec::new();
        for place in places {
            if self.discovery.iter().any(|open| open.place == *place) {
                continue;
            }
            match open_discovery(place, self.discovery_port) {
                Ok(socket) => self.discovery.push(Discovery { socket, place: place.clone() }),
                Err(error) => {
                    tracing::debug!(interface = place.interface, v6 = place.is_v6, %error, "no discovery here");
                    refused.push((place.is_v6, error));
                }
            }
        }
        refused
    }

    /// Whether servers can be found: not where the port was refused for IPv4 everywhere, nor where there is no socket.
    fn check_discovery(&self, refused: Vec<(bool, io::Error)>) -> Result<(), DiscoveryError> {
        let has = |is_v6: bool| self.discovery.iter().any(|open| open.place.is_v6 == is_v6);
        if has(false) {
            return Ok(());
        }
        let has_v6 = has(true);
        let why = refused.into_iter().find(|(is_v6, _)| !(*is_v6 && has_v6));
        why.map_or(Ok(()), |(_, source)| Err(DiscoveryError { source }))
    }
}

impl Discovery {
    /// What it hears.
    pub(crate) fn family(&self) -> Family {
        if self.place.is_v6 { Family::V6 } else { Family::V4 }
    }
}

impl Session {
    /// Opens the session sockets: exactly on `asked` (0: any free port), else on the first free port from the default
    /// one on.
    pub(crate) fn open(asked: Option<u16>, only_loopback: bool) -> Result<Self, Error> {
        let tries: Vec<u16> = match asked {
            Some(0) => vec![0; ANY_PORT_TRIES],
            Some(port) => vec![port],
            None => (PORT_DEFAULT..=PORT_DEFAULT + PORTS_TRIED).collect(),
        };
        for port in tries {
            match Self::open_at(port, only_loopback) {
                Ok(session) => return Ok(session),
                Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => {}
                Err(source) => return Err(Error::Port { port, source }),
            }
        }
        let last = PORT_DEFAULT + PORTS_TRIED;
        Err(asked.map_or(Error::NoPortFree { first: PORT_DEFAULT, last }, Error::PortTaken))
    }

    /// Opens both on that very port, or one where the machine has only one family.
    fn open_at(port: u16, only_loopback: bool) -> io::Result<Self> {
        let ips: (IpAddr, IpAddr) = if only_loopback {
            (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())
        } else {
            (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into())
        };
        let v4 = unless_taken(open_session(ips.0, port))?;
        let port = v4.as_ref().map_or(Ok(port), |socket| socket.local_addr().map(|addr| addr.port())).unwrap_or(port);
        let v6 = unless_taken(open_session(ips.1, port))?;
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => {
                let (v4, v6) = (v4.ok(), v6.ok());
                let bound = v4.iter().chain(&v6).find_map(|socket| socket.local_addr().ok());
                let [back_v4, back_v6] = [&v4, &v6].map(|front| open_back(front.as_ref()?));
                let backs = Backs::new(back_v4, back_v6);
                Ok(Self { v4, v6, backs, port: bound.map_or(port, |addr| addr.port()) })
            }
        }
    }

    /// Their port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Both sockets, or the one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &UdpSocket> {
        self.families().map(|(socket, _)| socket)
    }

    /// The same, with what each hears.
    pub(crate) fn families(&self) -> impl Iterator<Item = (&UdpSocket, Family)> {
        let of = |socket, family| Option::map(socket, |socket| (socket, family));
        of(self.v4.as_ref(), Family::V4).into_iter().chain(of(self.v6.as_ref(), Family::V6))
    }

    /// Sends a datagram.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.towards(to)?.send_to(bytes, &to.into()).map(|_| ())
    }

    /// The socket that sends to such an address.
    pub(crate) fn towards(&self, to: SocketAddr) -> io::Result<SockRef<'_>> {
        let (front, back) = if to.is_ipv4() { (&self.v4, &self.backs.v4) } else { (&self.v6, &self.backs.v6) };
        // Past the runtime, which would hold back what is sent before it has polled a new socket.
        let socket = back.as_ref().map(Back::socket).or_else(|| front.as_ref().map(SockRef::from));
        socket.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// That the port is taken is an error; that the machine lacks the family is not one yet.
fn unless_taken(opened: io::Result<UdpSocket>) -> io::Result<io::Result<UdpSocket>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        other => Ok(other),
    }
}

/// Opens a session socket on that very port, for itself alone: a second server on the port would steal packets.
fn open_session(ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = new_socket(ip.is_ipv6())?;
    socket.bind(&SocketAddr::from((ip, port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// Opens the socket beside a session socket; `None` where that is refused.
fn open_back(front: &UdpSocket) -> Option<Back> {
    let open = || {
        let addr = front.local_addr()?;
        Back::beside(&SockRef::from(front), addr, new_socket(addr.is_ipv6())?)
    };
    open().inspect_err(|error| tracing::debug!(%error, "no second socket: the first does all")).ok()
}

/// Where discovery sockets are wanted.
fn places(choices: &[Choice], port: u16) -> Vec<Place> {
    let mut places = Vec::new();
    for interface in choices.iter().filter(|choice| choice.used).map(|choice| &choice.interface) {
        let place = |is_v6, to| Place { interface: interface.name.clone(), index: interface.index, to, is_v6 };
        if interface.addrs.iter().any(|addr| addr.ip.is_ipv4()) {
            places.push(place(false, interface.broadcasts().into_iter().map(|ip| (ip, port).into()).collect()));
        }
        if interface.has_group() {
            places.push(place(true, vec![SocketAddrV6::new(GROUP, port, 0, interface.index).into()]));
        }
    }
    places
}

/// Opens the discovery socket of one interface and family.
fn open_discovery(place: &Place, port: u16) -> io::Result<UdpSocket> {
    let socket = new_socket(place.is_v6)?;
    socket.set_reuse_address(true)?;
    // Elsewhere that alone does not let several sockets have one wildcard address and port. On Linux this would spread
    // what arrives over them, instead of giving each a copy.
    #[cfg(all(
        unix,
        not(any(target_os = "android", target_os = "linux", target_os = "illumos", target_os = "solaris"))
    ))]
    socket.set_reuse_port(true)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Err(error) = socket.bind_device(Some(place.interface.as_bytes())) {
        tracing::debug!(interface = place.interface, %error, "not bound to the interface: goes on without");
    }
    if place.is_v6 {
        socket.set_multicast_if_v6(place.index)?;
        socket.join_multicast_v6(&GROUP, place.index)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    } else {
        socket.set_broadcast(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    }
    UdpSocket::from_std(socket.into())
}

/// A datagram socket that never blocks, with as much buffer as the system gives.
fn new_socket(is_v6: bool) -> io::Result<Socket> {
    let domain = if is_v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if is_v6 {
        socket.set_only_v6(true)?;
    }
    // A smaller buffer only means that more is sent again.
    let _smaller = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _smaller = socket.set_send_buffer_size(BUFFER_BYTES);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hobnob_proto::discovery::interfaces::Interface;

    use super::*;
    use crate::interfaces;

    fn lo() -> Vec<Choice> {
        let all = interfaces::all().unwrap();
        interfaces::choose(all.into_iter().filter(Interface::is_loopback).collect(), &[]).unwrap()
    }

    fn session(asked: Option<u16>, only_loopback: bool) -> Result<Session, Error> {
        Session::open(asked, only_loopback)
    }

    /// Discovery sockets on loopback.
    fn discovery(port: u16) -> Result<Sockets, DiscoveryError> {
        let (sockets, checked) = Sockets::open(session(Some(0), true).unwrap(), &lo(), port);
        checked.map(|()| sockets)
    }

    #[tokio::test]
    async fn a_port_that_was_asked_for_is_had_or_refused() {
        let port = session(Some(0), true).unwrap().port();
        let first = session(Some(port), true).unwrap();
        assert_eq!(first.port(), port);
        let second = session(Some(port), true);
        assert_eq!(
            second.unwrap_err().to_string(),
            format!("port {port} is in use by another program: choose another with --port")
        );
    }

    #[tokio::test]
    async fn a_port_that_was_not_asked_for_is_the_next_free_one() {
        let (first, second) = (session(None, true).unwrap(), session(None, true).unwrap());
        assert!(first.port() >= PORT_DEFAULT);
        assert_ne!(first.port(), second.port());
    }

    #[tokio::test]
    async fn both_families_have_the_same_port() {
        let session = session(Some(0), true).unwrap();
        let ports: Vec<u16> = session.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert!(!ports.is_empty() && ports.iter().all(|port| *port == session.port()), "{ports:?}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_for_ipv6_alone_is_taken() {
        let Ok(taken) = std::net::UdpSocket::bind("[::1]:0") else {
            return crate::tests::skip("no IPv6 here");
        };
        let port = taken.local_addr().unwrap().port();
        assert!(matches!(session(Some(port), true), Err(Error::PortTaken(taken)) if taken == port));
    }

    #[tokio::test]
    async fn a_broadcast_on_loopback_reaches_every_socket_that_shares_the_port() {
        let port = session(Some(0), true).unwrap().port();
        let (first, second) = (discovery(port).unwrap(), discovery(port).unwrap());
        first.broadcast(b"hello", |error| panic!("{error}"));
        for sockets in [&first, &second] {
            let mut buffer = [0; 16];
            let heard =
                tokio::time::timeout(Duration::from_secs(5), sockets.discovery[0].socket.recv_from(&mut buffer));
            let (len, from) = heard.await.expect("it arrives").unwrap();
            assert_eq!((&buffer[..len], from.ip().is_loopback()), (&b"hello"[..], true));
        }
    }

    #[tokio::test]
    async fn a_discovery_port_that_is_not_shared_is_refused() {
        let taken = session(Some(0), false).unwrap();
        assert!(discovery(taken.port()).is_err());
    }

    #[tokio::test]
    async fn sockets_follow_the_interfaces_that_come_and_go() {
        let port = session(Some(0), true).unwrap().port();
        let mut sockets = discovery(port).unwrap();
        assert!(!sockets.follow(&lo()), "nothing is opened that is open");
        assert_eq!(sockets.discovery.len(), 1);
        sockets.follow(&[]);
        assert_eq!(sockets.discovery.len(), 0);
        assert!(sockets.follow(&lo()));
        assert_eq!(sockets.discovery.len(), 1);
    }
}
