//! The names and addresses this box has right now. Decides nothing about who may use them.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use std::net::IpAddr;

/// Every address of a network interface that is up, with the interface's name; not those of the loopback, nor IPv6
/// link-local ones, which no address line of a browser can hold.
///
/// # Errors
/// If the system does not tell.
pub fn interfaces() -> std::io::Result<Vec<(String, IpAddr)>> {
    let up = getifaddrs()?.filter(|i| i.flags.contains(InterfaceFlags::IFF_UP));
    let outside = up.filter(|i| !i.flags.contains(InterfaceFlags::IFF_LOOPBACK));
    let addresses = outside.filter_map(|i| Some((i.interface_name, address(i.address.as_ref()?)?)));
    Ok(addresses.filter(|(_, ip)| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect())
}

/// The address in one of the system's structures.
pub(super) fn address(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|a| a.ip().into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|a| a.ip().into()))
}

/// The box's own name; none if it has not got a usable one.
#[must_use]
pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?.to_ascii_lowercase();
    is_host_name(&name).then_some(name)
}

/// True if it can stand in an address line and in a certificate.
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    tokio_rustls::rustls::pki_types::DnsName::try_from(name).is_ok()
}
