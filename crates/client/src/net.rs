//! The sockets of a client.
//!
//! Sessions and the search for servers share a socket: servers answer a broadcast FIND to the address that it came from.
//! Without `--interface` there is one socket, and the routes of the system decide. With it there is one socket for each
//! chosen interface, bound to it, so that no packet leaves by another; a datagram to a server goes out of the socket that
//! last heard that server, else the one in whose network the server is.
//!
//! IPv4 only, for now. Errors of sending are not reported: a datagram may always be lost, and whoever sent it repeats it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use hobnob_proto::limits;
use if_addrs::{IfAddr, Interface};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::Fail;

/// Servers whose socket is remembered; past that the memory starts anew, which costs a datagram or two.
const HEARD_MAX: usize = 64;

/// The sockets.
#[derive(Debug)]
pub(crate) struct Net {
    links: Vec<Link>,
    /// Which link last heard an address.
    heard: BTreeMap<SocketAddr, usize>,
    discovery_port: u16,
    /// The link that is read first: the next one each time, so that none starves another.
    turn: usize,
}

/// A socket.
#[derive(Debug)]
struct Link {
    socket: UdpSocket,
    /// The interface that it is bound to; `None`: it sends on all.
    interface: Option<String>,
}

impl Net {
    /// Opens sockets on `interfaces`, or one for all of them where the list is empty.
    pub(crate) fn open(interfaces: &[String], discovery_port: u16) -> Result<Self, Fail> {
        let links = if interfaces.is_empty() {
            vec![Link::open(Ipv4Addr::UNSPECIFIED, None)?]
        } else {
            let existing = list()?;
            let mut names: Vec<&String> = interfaces.iter().collect();
            names.sort_unstable();
            names.dedup();
            let open = |name: &String| Link::open(address_of(&existing, name)?, Some(name.clone()));
            names.into_iter().map(open).collect::<Result<_, _>>()?
        };
        Ok(Self { links, heard: BTreeMap::new(), discovery_port, turn: 0 })
    }

    /// Sends a datagram to `to`, or loses it.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        if let Some(link) = self.links.get(self.link_to(to)) {
            link.send(to, bytes);
        }
    }

    /// Sends a datagram to the discovery port on every interface. Those are looked up each time, since a laptop may have
    /// joined a network meanwhile.
    pub(crate) fn broadcast(&self, bytes: &[u8]) {
        let Ok(existing) = list() else { return };
        for link in &self.links {
            for (_, to) in broadcast_addresses(&existing, link.interface.as_deref()) {
                link.send(SocketAddr::from((to, self.discovery_port)), bytes);
            }
        }
    }

    /// Waits until there may be something to [`Self::receive`]. Nothing is lost where the wait is given up.
    pub(crate) async fn readable(&self) {
        let mut waits: Vec<_> = self.links.iter().map(|link| Box::pin(link.socket.readable())).collect();
        std::future::poll_fn(|context| {
            let is_any = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
            if is_any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// The next datagram that is there, its length and its sender; `None`: there is none. Those that are longer than
    /// anything that is meant for us are skipped.
    pub(crate) fn receive(&mut self, buffer: &mut [u8; limits::DATAGRAM_BYTES_MAX + 1]) -> Option<(usize, SocketAddr)> {
        for step in 0..self.links.len() {
            let index = (self.turn + step) % self.links.len();
            loop {
                match self.links[index].socket.try_recv_from(buffer) {
                    Ok((len, _)) if len > limits::DATAGRAM_BYTES_MAX => {}
                    Ok((len, from)) => {
                        self.remember(from, index);
                        self.turn = index + 1;
                        return Some((len, from));
                    }
                    Err(_) => break,
                }
            }
        }
        None
    }

    /// Where was looked for servers, for people: `on lo, eth0, at discovery port 5005`.
    pub(crate) fn searched(&self) -> String {
        let existing = list().unwrap_or_default();
        let mut names: Vec<String> = self
            .links
            .iter()
            .flat_map(|link| broadcast_addresses(&existing, link.interface.as_deref()))
            .map(|(name, _)| name)
            .collect();
        names.dedup();
        let names = if names.is_empty() { "no interface, since none is up".to_owned() } else { names.join(", ") };
        format!("on {names}, at discovery port {}", self.discovery_port)
    }

    fn remember(&mut self, from: SocketAddr, link: usize) {
        if self.links.len() > 1 {
            if self.heard.len() >= HEARD_MAX {
                self.heard.clear();
            }
            self.heard.insert(from, link);
        }
    }

    fn link_to(&self, to: SocketAddr) -> usize {
        if self.links.len() == 1 {
            return 0;
        }
        self.heard.get(&to).copied().unwrap_or_else(|| {
            let existing = list().unwrap_or_default();
            let reaches = |link: &Link| {
                existing.iter().any(|found| Some(&found.name) == link.interface.as_ref() && contains(found, to.ip()))
            };
            let is_outside = |link: &Link| {
                existing.iter().any(|found| Some(&found.name) == link.interface.as_ref() && !found.is_loopback())
            };
            let routed = || self.links.iter().position(is_outside).filter(|_| !to.ip().is_loopback());
            self.links.iter().position(reaches).or_else(routed).unwrap_or(0)
        })
    }
}

impl Link {
    fn open(ip: Ipv4Addr, interface: Option<String>) -> Result<Self, Fail> {
        let socket = bind(ip, interface.as_deref()).map_err(|why| {
            let place = interface.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
            Fail::new(Fail::FAILED, format!("cannot open a UDP socket{place}: {why}"))
        })?;
        Ok(Self { socket, interface })
    }

    /// Sends past the runtime, which would hold back what is sent before it has polled the socket for the first time.
    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let _lost = SockRef::from(&self.socket).send_to(bytes, &to.into());
    }
}

/// A socket at `ip` that may broadcast, bound to `interface`.
fn bind(ip: Ipv4Addr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_broadcast(true)?;
    if let Some(name) = interface {
        match bind_device(&socket, name) {
            // What has a loopback address as its source does not leave the machine anyway.
            Err(_) if ip.is_loopback() => {}
            result => result?,
        }
    }
    socket.bind(&SocketAddrV4::new(ip, 0).into())?;
    UdpSocket::from_std(socket.into())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn bind_device(socket: &Socket, name: &str) -> io::Result<()> {
    socket.bind_device(Some(name.as_bytes()))
}

/// Elsewhere the address that the socket is bound to has to do.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bind_device(_socket: &Socket, _name: &str) -> io::Result<()> {
    Ok(())
}

fn list() -> Result<Vec<Interface>, Fail> {
    if_addrs::get_if_addrs()
        .map_err(|why| Fail::new(Fail::FAILED, format!("cannot list the network interfaces of this machine: {why}")))
}

/// Whether `ip` is an address of this machine.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || list().is_ok_and(|existing| existing.iter().any(|interface| interface.ip() == ip))
}

/// The IPv4 address of an interface.
fn address_of(existing: &[Interface], name: &str) -> Result<Ipv4Addr, Fail> {
    let address = existing.iter().filter(|interface| interface.name == name).find_map(ipv4);
    address.ok_or_else(|| {
        let mut names: Vec<&str> = existing
            .iter()
            .filter(|interface| ipv4(interface).is_some())
            .map(|interface| interface.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let message =
            format!("there is no interface {name:?} with an IPv4 address here; there are: {}", names.join(", "));
        Fail::new(Fail::USAGE, message)
    })
}

fn ipv4(interface: &Interface) -> Option<Ipv4Addr> {
    match &interface.addr {
        IfAddr::V4(addr) => Some(addr.ip),
        IfAddr::V6(_) => None,
    }
}

fn contains(interface: &Interface, ip: IpAddr) -> bool {
    let (IfAddr::V4(addr), IpAddr::V4(ip)) = (&interface.addr, ip) else { return false };
    let mask = u32::from(addr.netmask);
    u32::from(addr.ip) & mask == u32::from(ip) & mask
}

/// The interfaces with the address that reaches everybody there; all, or those of one name.
fn broadcast_addresses(existing: &[Interface], only: Option<&str>) -> Vec<(String, Ipv4Addr)> {
    let chosen = existing.iter().filter(|interface| only.is_none_or(|name| interface.name == name));
    chosen.filter_map(|interface| Some((interface.name.clone(), broadcast_address(interface)?))).collect()
}

fn broadcast_address(interface: &Interface) -> Option<Ipv4Addr> {
    match &interface.addr {
        _ if !interface.is_oper_up() && !interface.is_loopback() => None,
        IfAddr::V4(_) if interface.is_loopback() => Some(Ipv4Addr::new(127, 255, 255, 255)),
        IfAddr::V4(addr) => addr.broadcast,
        IfAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_loopback() -> Vec<String> {
        vec!["lo".to_owned()]
    }

    #[test]
    fn an_unknown_interface_is_answered_with_those_that_there_are() {
        let fail = Net::open(&["moon0".to_owned()], 1).expect_err("there is no moon0");
        assert_eq!(fail.code, Fail::USAGE);
        assert!(fail.message.contains("\"moon0\"") && fail.message.contains("lo"), "{}", fail.message);
    }

    #[tokio::test]
    async fn a_broadcast_is_heard_on_loopback_and_its_answer_comes_back() {
        let listener = bind(Ipv4Addr::UNSPECIFIED, Some("lo")).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let mut net = Net::open(&on_loopback(), port).expect("loopback is there");
        net.broadcast(b"who?");
        let mut buffer = [0; limits::DATAGRAM_BYTES_MAX + 1];
        let (len, from) = listener.recv_from(&mut buffer).await.expect("it arrives");
        assert_eq!((&buffer[..len], from.ip()), (&b"who?"[..], Ipv4Addr::LOCALHOST.into()));
        listener.send_to(b"me", from).await.expect("it goes out");
        net.readable().await;
        let (len, _) = net.receive(&mut buffer).expect("it arrived");
        assert_eq!(&buffer[..len], b"me");
        assert_eq!(net.searched(), format!("on lo, at discovery port {port}"));
    }
}
