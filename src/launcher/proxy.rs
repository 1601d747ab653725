//! The proxy port's listening socket. It lives here and not in the sidecar, so that connections
//! wait in its backlog while one sidecar replaces another.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connections that may wait while no sidecar accepts.
const BACKLOG: i32 = 1024;

/// Binds and listens. The unspecified IPv6 address takes IPv4 as well, and falls back to IPv4
/// alone where IPv6 is absent.
pub(crate) fn open(address: SocketAddr) -> Result<OwnedFd, Errno> {
    match open_exactly(address) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
            if address.is_ipv6() && address.ip().is_unspecified() =>
        {
            open_exactly(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                address.port(),
            ))
        }
        result => result,
    }
}

fn open_exactly(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // For a new launcher after a restart of the container; two listeners stay impossible.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
