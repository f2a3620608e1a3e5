//! The media's UDP socket. It looks into datagrams only as far as telling ICE checks from the rest.
//!
//! **Invariant:** a client is answered from the address that it asked, also when the box has several: browsers and
//! routers drop an answer from anywhere else, and the system by itself would answer from the address its routes prefer.

use super::addresses::address;
use mio::net::UdpSocket;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut, Result};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

/// What the kernel may hold for us, in bytes: half a second of 500 talkers.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Routes that are kept before forgotten clients are looked for.
const ROUTES: usize = 4096;

/// A bound socket.
pub struct Datagrams {
    socket: UdpSocket,
    /// True if it is bound to all addresses of the box.
    is_wildcard: bool,
    /// True for IPv6, where IPv4 addresses travel in mapped form.
    is_v6: bool,
    control: Vec<u8>,
    /// The datagram that is being handled: who sent it, to which of our addresses.
    current: Option<(SocketAddr, IpAddr)>,
    /// Which of our addresses each client uses.
    routes: HashMap<SocketAddr, IpAddr>,
    routes_limit: usize,
}

impl Datagrams {
    /// Binds a socket; the port may be 0.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(at: SocketAddr) -> Result<Self> {
        let socket = std::net::UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        let (is_wildcard, is_v6) = (at.ip().is_unspecified(), at.is_ipv6());
        if is_wildcard && is_v6 {
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else if is_wildcard {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        Ok(Datagrams {
            socket: UdpSocket::from_std(socket),
            is_wildcard,
            is_v6,
            control: nix::cmsg_space!(in6_pktinfo),
            current: None,
            routes: HashMap::new(),
            routes_limit: ROUTES,
        })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The socket, to wait for it.
    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Takes the next datagram: its length and who sent it.
    ///
    /// # Errors
    /// As the system tells; `WouldBlock` if there is none.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        self.current = None;
        if !self.is_wildcard {
            return self.socket.recv_from(buffer);
        }
        let mut parts = [IoSliceMut::new(buffer)];
        let control = Some(self.control.as_mut_slice());
        let got = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, control, MsgFlags::empty())?;
        let port = |a: &SockaddrStorage| a.as_sockaddr_in().map(|a| a.port()).or(a.as_sockaddr_in6().map(|a| a.port()));
        let from = got.address.as_ref().and_then(|a| Some(SocketAddr::new(address(a)?.to_canonical(), port(a)?)));
        let from = from.ok_or(std::io::ErrorKind::InvalidData)?;
        let told = got.cmsgs()?.find_map(|message| {
            if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
                return Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            let ControlMessageOwned::Ipv6PacketInfo(info) = message else { return None };
            Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical())
        });
        self.current = told.map(|local| (from, local));
        Ok((got.bytes, from))
    }

    /// Notes the way of the datagram that was received last, whose sender turned out to be a client. An ICE check only
    /// shows that a way can be gone; what follows shows which one the client chose. `is_client` tells who still is one.
    pub fn learn(&mut self, datagram_start: u8, is_client: impl Fn(&SocketAddr) -> bool) {
        let Some((from, local)) = self.current else { return };
        let is_check = datagram_start < 4; // RFC 7983
        match self.routes.get(&from) {
            Some(known) if is_check || *known == local => return,
            Some(_) | None => self.routes.insert(from, local),
        };
        if self.routes.len() > self.routes_limit {
            self.routes.retain(|address, _| is_client(address));
            self.routes_limit = ROUTES.max(2 * self.routes.len());
        }
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// As the system tells.
    pub fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<usize> {
        let answered = self.current.filter(|(from, _)| *from == to).map(|(_, local)| local);
        let local = answered.or_else(|| if self.is_wildcard { self.routes.get(&to).copied() } else { None });
        let to = match to.ip() {
            IpAddr::V4(v4) if self.is_v6 => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        };
        let Some(local) = local else {
            return self.socket.send_to(datagram, to);
        };
        let (parts, to) = ([IoSlice::new(datagram)], SockaddrStorage::from(to));
        let send = |control| sendmsg(self.socket.as_raw_fd(), &parts, &[control], MsgFlags::empty(), Some(&to));
        let sent = match (self.is_v6, local) {
            (false, IpAddr::V4(v4)) => send(ControlMessage::Ipv4PacketInfo(&in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(v4.octets()) },
                ipi_addr: in_addr { s_addr: 0 },
            })),
            (_, local) => send(ControlMessage::Ipv6PacketInfo(&in6_pktinfo {
                ipi6_addr: in6_addr { s6_addr: mapped(local).octets() },
                ipi6_ifindex: 0,
            })),
        };
        Ok(sent?)
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// All of 127.0.0.0/8 is the box's own, so it has several addresses even here; by itself it answers from 127.0.0.1.
    const ASKED: &str = "127.0.0.7";

    fn receive(server: &mut Datagrams) -> (Vec<u8>, SocketAddr) {
        let (deadline, mut buffer) = (Instant::now() + Duration::from_secs(5), [0; 64]);
        loop {
            match server.receive(&mut buffer) {
                Ok((length, from)) => return (buffer[..length].to_vec(), from),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
            }
            assert!(Instant::now() < deadline, "nothing came in");
            std::thread::yield_now();
        }
    }

    fn client(port: u16, asks: &str) -> std::net::UdpSocket {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(&[20, 7], (asks, port)).unwrap();
        socket
    }

    fn answered_from(socket: &std::net::UdpSocket) -> IpAddr {
        socket.recv_from(&mut [0; 64]).unwrap().1.ip()
    }

    #[test]
    fn a_client_is_answered_from_the_address_it_asked() {
        for wildcard in ["0.0.0.0:0", "[::]:0"] {
            let mut server = Datagrams::bind(wildcard.parse().unwrap()).unwrap();
            let socket = client(server.local_addr().unwrap().port(), ASKED);
            let (datagram, from) = receive(&mut server);
            assert_eq!((datagram.as_slice(), from), (&[20, 7][..], socket.local_addr().unwrap()));
            server.send(b"answer", from).unwrap();
            assert_eq!(answered_from(&socket).to_string(), ASKED);
        }
    }

    #[test]
    fn one_socket_serves_clients_of_ipv6_too() {
        let mut server = Datagrams::bind("[::]:0".parse().unwrap()).unwrap();
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(b"hello", ("::1", server.local_addr().unwrap().port())).unwrap();
        let (_, from) = receive(&mut server);
        assert_eq!(from, socket.local_addr().unwrap());
        server.send(b"answer", from).unwrap();
        assert_eq!(answered_from(&socket).to_string(), "::1");
    }

    #[test]
    fn what_comes_later_leaves_from_the_address_the_client_chose() {
        let mut server = Datagrams::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = server.local_addr().unwrap().port();
        let socket = client(port, ASKED);
        let other = client(port, "127.0.0.9");
        for _ in 0..2 {
            receive(&mut server);
            server.learn(20, |_| true);
        }
        // A check of another way is answered on that way, and changes nothing else.
        socket.send_to(&[0, 1], ("127.0.0.8", port)).unwrap();
        let (_, from) = receive(&mut server);
        server.send(b"pong", from).unwrap();
        server.learn(0, |_| true);
        assert_eq!(answered_from(&socket).to_string(), "127.0.0.8");
        server.current = None;
        server.send(b"media", from).unwrap();
        assert_eq!(answered_from(&socket).to_string(), ASKED);
        server.send(b"media", other.local_addr().unwrap()).unwrap();
        assert_eq!(answered_from(&other).to_string(), "127.0.0.9");
    }

    #[test]
    fn routes_of_forgotten_clients_do_not_pile_up() {
        let mut server = Datagrams::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        for port in 1..=10_000 {
            server.current = Some((SocketAddr::from(([192, 0, 2, 1], port)), IpAddr::from([127, 0, 0, 1])));
            server.learn(20, |address| address.port() == 1);
        }
        assert!(server.routes.len() <= ROUTES, "{} routes", server.routes.len());
        assert!(server.routes.contains_key(&SocketAddr::from(([192, 0, 2, 1], 1))));
    }
}
