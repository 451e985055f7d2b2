//! The sockets of a client.
//!
//! Sessions and the search for servers share a socket: servers answer a FIND to the address that it came from. There is
//! one for IPv4 and one for IPv6, where the machine has both. Without `--interface` the routes of the system decide where
//! a datagram leaves. With it there are such sockets for each chosen interface, bound to it, so that no packet leaves by
//! another; a datagram to a server goes out of the socket that last heard that server, else the one in whose network the
//! server is.
//!
//! The interfaces are looked at every 2 s, since a laptop moves from one network to another. Errors of sending are not
//! reported: a datagram may always be lost, and whoever sent it repeats it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use hobnob_proto::{
    addr::{Reach, reach},
    discovery::interfaces::{self, Address, Choice, GROUP, Interface, Listed},
    limits,
};
use if_addrs::IfAddr;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::Fail;

/// Servers whose socket is remembered; past that the memory starts anew, which costs a datagram or two.
const HEARD_MAX: usize = 64;
/// Between two looks at the interfaces.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The sockets.
#[derive(Debug)]
pub struct Net {
    links: Vec<Link>,
    /// Names of the interfaces to use; empty: all that lead to other people's machines.
    wanted: Vec<String>,
    choices: Vec<Choice>,
    next_look: Instant,
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
    place: Place,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// The address that it is bound to.
    ip: IpAddr,
    /// The interface that it is bound to, by name and number; `None`: it sends on all.
    interface: Option<(String, u32)>,
}

impl Net {
    /// Opens sockets on `wanted` interfaces, or one of each family for all of them where the list is empty.
    pub fn open(wanted: &[String], discovery_port: u16) -> Result<Self, Fail> {
        let all = list()?;
        if let Some((name, known)) = interfaces::unknown(&all, wanted, exists) {
            let message = format!("there is no interface {name} with an address: choose from {known}");
            return Err(Fail::new(Fail::USAGE, message));
        }
        let choices = interfaces::choose(all, wanted);
        let mut net = Self {
            links: Vec::new(),
            wanted: wanted.to_vec(),
            next_look: Instant::now() + LOOK_EVERY,
            heard: BTreeMap::new(),
            discovery_port,
            turn: 0,
            choices,
        };
        match net.follow().1 {
            Some((place, why)) if net.links.is_empty() => {
                let place = place.interface.map(|(name, _)| format!(" on {name}")).unwrap_or_default();
                Err(Fail::new(Fail::FAILED, format!("cannot open a UDP socket{place}: {why}")))
            }
            _ => Ok(net),
        }
    }

    /// When to [`Self::look`] again.
    pub fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Looks at the interfaces, where it is time to. Whether the network has changed; the sockets have followed.
    pub fn look(&mut self) -> bool {
        if Instant::now() < self.next_look {
            return false;
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        let Ok(all) = list() else { return false };
        self.take(all)
    }

    /// These are the interfaces now. Whether those that are used have changed, or a socket has.
    fn take(&mut self, all: Vec<Interface>) -> bool {
        let before = std::mem::replace(&mut self.choices, interfaces::choose(all, &self.wanted));
        // A socket that was refused may be granted now, as that of an interface which was only coming up.
        let (has_moved, _) = self.follow();
        has_moved || !interfaces::is_same_network(&before, &self.choices)
    }

    /// Sends a datagram to `to`, or loses it.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        match to {
            // Somebody has told us of it who could not know on which of our links it is.
            SocketAddr::V6(addr) if addr.scope_id() == 0 && reach(to) == Reach::Link => {
                for interface in self.used().filter(|interface| interface.has_group()) {
                    let to = SocketAddrV6::new(*addr.ip(), addr.port(), 0, interface.index);
                    self.send_on(interface, to.into(), bytes);
                }
            }
            to => {
                if let Some(link) =
                    self.links.get(self.link_to(to)).filter(|link| link.place.ip.is_ipv4() == to.is_ipv4())
                {
                    link.send(to, bytes);
                }
            }
        }
    }

    /// Sends a datagram to the discovery port on every interface.
    pub fn broadcast(&self, bytes: &[u8]) {
        for interface in self.used() {
            for ip in interface.broadcasts() {
                self.send_on(interface, (ip, self.discovery_port).into(), bytes);
            }
            if interface.has_group() {
                let group = SocketAddrV6::new(GROUP, self.discovery_port, 0, interface.index);
                self.send_on(interface, group.into(), bytes);
            }
        }
    }

    /// Waits until there may be something to [`Self::receive`]. Nothing is lost where the wait is given up.
    pub async fn readable(&self) {
        let mut waits: Vec<_> = self.links.iter().map(|link| Box::pin(link.socket.readable())).collect();
        std::future::poll_fn(|context| {
            let is_any = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
            if is_any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// The next datagram that is there, its length and its sender; `None`: there is none. Those that are longer than
    /// anything that is meant for us are skipped.
    pub fn receive(&mut self, buffer: &mut [u8; limits::DATAGRAM_BYTES_MAX + 1]) -> Option<(usize, SocketAddr)> {
        for step in 0..self.links.len() {
            let index = (self.turn + step) % self.links.len();
            loop {
                match self.links[index].socket.try_recv_from(buffer) {
                    Ok((len, _)) if len > limits::DATAGRAM_BYTES_MAX => {}
                    Ok((len, mut from)) => {
                        // The flow that a packet belonged to is no part of its sender's address.
                        if let SocketAddr::V6(from) = &mut from {
                            from.set_flowinfo(0);
                        }
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

    /// Names of the interfaces that were asked for.
    pub(crate) fn wanted(&self) -> &[String] {
        &self.wanted
    }

    /// Where servers are looked for, and where not.
    pub(crate) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// At which port.
    pub(crate) fn discovery_port(&self) -> u16 {
        self.discovery_port
    }

    fn used(&self) -> impl Iterator<Item = &Interface> {
        self.choices.iter().filter(|choice| choice.used).map(|choice| &choice.interface)
    }

    /// Where sockets are wanted.
    fn places(&self) -> Vec<Place> {
        if self.wanted.is_empty() {
            let any = |ip| Place { ip, interface: None };
            return vec![any(Ipv4Addr::UNSPECIFIED.into()), any(Ipv6Addr::UNSPECIFIED.into())];
        }
        let of = |interface: &Interface| {
            let on = |ip| Place { ip, interface: Some((interface.name.clone(), interface.index)) };
            let ips = || interface.addrs.iter().map(|addr| addr.ip);
            let v4 = ips().find(IpAddr::is_ipv4).map(on);
            // Bound to its interface, but to none of its addresses, since those change often.
            let any = if interface.is_loopback() { Ipv6Addr::LOCALHOST } else { Ipv6Addr::UNSPECIFIED };
            v4.into_iter().chain(ips().find(IpAddr::is_ipv6).map(|_| on(any.into()))).collect::<Vec<_>>()
        };
        self.used().flat_map(of).collect()
    }

    /// Closes the sockets of what is not used any more, and opens those that are missing. Whether there were any, and one
    /// that was refused.
    fn follow(&mut self) -> (bool, Option<(Place, io::Error)>) {
        let places = self.places();
        let mut refused = None;
        let before = self.links.len();
        self.links.retain(|link| places.contains(&link.place));
        let mut has_moved = self.links.len() < before;
        for place in places {
            if self.links.iter().any(|link| link.place == place) {
                continue;
            }
            match bind(&place) {
                Ok(socket) => {
                    self.links.push(Link { socket, place });
                    has_moved = true;
                }
                Err(why) => refused = Some((place, why)),
            }
        }
        if has_moved {
            self.heard.clear();
        }
        (has_moved, refused)
    }

    fn remember(&mut self, from: SocketAddr, link: usize) {
        if self.links.len() > 1 {
            if self.heard.len() >= HEARD_MAX {
                self.heard.clear();
            }
            self.heard.insert(from, link);
        }
    }

    /// Sends out of the socket that may send on that interface.
    fn send_on(&self, interface: &Interface, to: SocketAddr, bytes: &[u8]) {
        let sends = |link: &&Link| {
            let is_there = link.place.interface.as_ref().is_none_or(|(name, _)| *name == interface.name);
            is_there && link.place.ip.is_ipv4() == to.is_ipv4()
        };
        if let Some(link) = self.links.iter().find(sends) {
            link.send(to, bytes);
        }
    }

    /// The socket for that server; another family's, where there is none.
    fn link_to(&self, to: SocketAddr) -> usize {
        if let Some(link) = self.heard.get(&to) {
            return *link;
        }
        let of_family = |link: &Link| link.place.ip.is_ipv4() == to.is_ipv4();
        let on = |link: &Link, fits: &dyn Fn(&Interface) -> bool| match &link.place.interface {
            None => true,
            Some((name, _)) => self.used().any(|interface| interface.name == *name && fits(interface)),
        };
        let reaches = |link: &Link| of_family(link) && on(link, &|interface| interface.contains(to.ip()));
        let is_outside = |link: &Link| of_family(link) && on(link, &|interface| !interface.is_loopback());
        let routed = || self.links.iter().position(is_outside).filter(|_| !to.ip().is_loopback());
        let any = || self.links.iter().position(of_family);
        self.links.iter().position(reaches).or_else(routed).or_else(any).unwrap_or(0)
    }
}

impl Link {
    /// Sends past the runtime, which would hold back what is sent before it has polled the socket for the first time.
    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let _lost = SockRef::from(&self.socket).send_to(bytes, &to.into());
    }
}

/// A socket at that place that may broadcast.
fn bind(place: &Place) -> io::Result<UdpSocket> {
    let is_v6 = place.ip.is_ipv6();
    let domain = if is_v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if is_v6 {
        // So no IPv4 address ever comes in the clothes of an IPv6 one.
        socket.set_only_v6(true)?;
    } else {
        socket.set_broadcast(true)?;
    }
    if let Some((name, _)) = &place.interface {
        match bind_device(&socket, name) {
            // What has a loopback address as its source does not leave the machine anyway.
            Err(_) if place.ip.is_loopback() => {}
            result => result?,
        }
    }
    socket.bind(&SocketAddr::new(place.ip, 0).into())?;
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

/// All interfaces that have an address.
fn list() -> Result<Vec<Interface>, Fail> {
    let addrs = if_addrs::get_if_addrs()
        .map_err(|why| Fail::new(Fail::FAILED, format!("cannot list the network interfaces of this machine: {why}")))?;
    let listed = addrs.into_iter().map(|one| {
        let (prefix, broadcast) = match &one.addr {
            IfAddr::V4(addr) => (addr.prefixlen, addr.broadcast),
            IfAddr::V6(addr) => (addr.prefixlen, None),
        };
        Listed {
            index: one.index,
            up: one.is_oper_up(),
            point_to_point: one.is_p2p(),
            addr: Address { ip: one.ip(), prefix, broadcast },
            name: one.name,
        }
    });
    Ok(Interface::collect(listed))
}

/// Whether the system has an interface of that name, with an address or without: it knows its number then. What is a number
/// itself would be taken for one.
fn exists(name: &str) -> bool {
    name.parse::<u32>().is_err() && (format!("fe80::1%{name}").as_str(), 0).to_socket_addrs().is_ok()
}

/// The names of the interfaces that never leave this machine.
pub(crate) fn loopback() -> Vec<String> {
    let all = list().unwrap_or_default();
    all.into_iter().filter(Interface::is_loopback).map(|interface| interface.name).collect()
}

/// Whether `ip` is an address of this machine.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    let is_of = |interface: &Interface| interface.addrs.iter().any(|addr| addr.ip == ip);
    ip.is_loopback() || list().is_ok_and(|all| all.iter().any(is_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a datagram on loopback may take on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(5);

    async fn hear(socket: &UdpSocket, buffer: &mut [u8]) -> (usize, SocketAddr) {
        let heard = tokio::time::timeout(PATIENCE, socket.recv_from(buffer)).await;
        heard.expect("it arrives in time").expect("it arrives")
    }

    /// Says what is not tested here; fails where all is to be.
    fn skip(why: &str) {
        assert!(std::env::var("HOBNOB_REQUIRE_ALL").as_deref() != Ok("1"), "skipped, but all is required: {why}");
        println!("skipped: {why}");
    }

    fn on_loopback() -> Vec<String> {
        vec!["lo".to_owned()]
    }

    #[test]
    fn an_unknown_interface_is_answered_with_those_that_there_are() {
        let fail = Net::open(&["moon0".to_owned()], 1).expect_err("there is no moon0");
        assert_eq!(fail.code, Fail::USAGE);
        assert!(fail.message.contains("moon0") && fail.message.contains("lo"), "{}", fail.message);
    }

    #[test]
    fn a_number_is_no_interface() {
        let fail = Net::open(&["7777".to_owned()], 1).expect_err("a number is no name");
        assert_eq!(fail.code, Fail::USAGE);
        assert!(exists("lo"));
    }

    #[tokio::test]
    async fn an_interface_that_is_left_out_is_no_change() {
        let mut net = Net::open(&on_loopback(), 1).expect("loopback is there");
        net.heard.insert("127.0.0.1:5001".parse().expect("an address"), 0);
        let mut all = list().expect("it can be listed");
        let addrs = vec![Address { ip: [192, 0, 2, 9].into(), prefix: 24, broadcast: None }];
        all.push(Interface { name: "veth99".into(), index: 99, up: true, point_to_point: false, addrs });
        assert!(!net.take(all.clone()));
        assert_eq!((net.choices.len(), net.heard.len()), (all.len(), 1));
        net.links.pop();
        assert!(net.take(all), "a socket that was missing is opened");
        assert!(net.heard.is_empty());
    }

    #[tokio::test]
    async fn a_broadcast_is_heard_on_loopback_and_its_answer_comes_back() {
        let place = Place { ip: Ipv4Addr::UNSPECIFIED.into(), interface: Some(("lo".into(), 1)) };
        let listener = bind(&place).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let mut net = Net::open(&on_loopback(), port).expect("loopback is there");
        net.broadcast(b"who?");
        let mut buffer = [0; limits::DATAGRAM_BYTES_MAX + 1];
        let (len, from) = hear(&listener, &mut buffer).await;
        assert_eq!((&buffer[..len], from.ip()), (&b"who?"[..], Ipv4Addr::LOCALHOST.into()));
        listener.send_to(b"me", from).await.expect("it goes out");
        tokio::time::timeout(PATIENCE, net.readable()).await.expect("it arrives in time");
        let (len, _) = net.receive(&mut buffer).expect("it arrived");
        assert_eq!(&buffer[..len], b"me");
    }

    #[tokio::test]
    async fn a_server_is_reached_by_either_family() {
        for (wanted, ip) in
            [(vec![], "127.0.0.1"), (on_loopback(), "127.0.0.1"), (vec![], "::1"), (on_loopback(), "::1")]
        {
            let ip: IpAddr = ip.parse().expect("it is one");
            let Ok(listener) = UdpSocket::bind((ip, 0)).await else {
                skip(&format!("no address {ip} here"));
                continue;
            };
            let net = Net::open(&wanted, 1).expect("loopback is there");
            net.send(listener.local_addr().expect("it is bound"), b"hi");
            let mut buffer = [0; 16];
            let (len, from) = hear(&listener, &mut buffer).await;
            assert_eq!((&buffer[..len], from.ip()), (&b"hi"[..], ip));
        }
    }
}
