//! What the kernel knows of the pod's TCP sockets, so that nobody has to be connected to in order
//! to learn where he listens: a plugin takes every connection for a worker.
//!
//! Asked over netlink (`sock_diag`), which finds one socket among many at once. The text files in
//! `/proc` walk through the whole node's tables and are read only where netlink does not answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// As `include/net/tcp_states.h` numbers them.
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const LISTEN: u8 = 10;

/// As `linux/netlink.h`, `linux/sock_diag.h` and `linux/in.h` number them.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;

/// Bytes of the header of a message.
const HEADER: usize = 16;
/// Bytes of `struct inet_diag_req_v2` behind it.
const REQUEST: usize = 56;
/// Where `struct inet_diag_msg` has the socket's own end, the other end and the inode.
const LOCAL: (usize, usize) = (4, 8);
const REMOTE: (usize, usize) = (6, 24);
const INODE: usize = 68;
/// Largest answer that is read at once; the kernel cuts a dump into pieces of this size.
const ANSWER: usize = 32 * 1024;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    /// 0 when no process holds it any more.
    inode: u64,
}

/// The addresses at which somebody listens on this port.
pub(super) fn listeners(port: u16) -> Vec<IpAddr> {
    let mut sockets = Vec::new();
    let asked = [AF_INET, AF_INET6]
        .into_iter()
        .try_for_each(|family| ask(&request(family, 1 << LISTEN, port, None), &mut sockets));
    if asked.is_err() {
        sockets = from_proc();
    }
    let listening = sockets
        .iter()
        .filter(|socket| socket.state == LISTEN && socket.local.port() == port);
    listening.map(|socket| socket.local.ip()).collect()
}

/// Whether the process that held the socket at `local` has closed it, and not just its sending
/// half, while `remote` has not yet closed its own. Where the kernel does not tell, the answer is
/// no.
pub(super) fn is_abandoned(local: SocketAddr, remote: SocketAddr) -> bool {
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let question = request(family, u32::MAX, local.port(), Some((local, remote)));
    let mut sockets = Vec::new();
    // One that does not exist any more is an error.
    let _ = ask(&question, &mut sockets);
    sockets.iter().any(|socket| {
        socket.local == local
            && socket.remote == remote
            && socket.inode == 0
            && matches!(socket.state, FIN_WAIT1 | FIN_WAIT2)
    })
}

/// A question for every socket of a family in these states with this port, or for one socket.
fn request(family: u8, states: u32, port: u16, one: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let length = (HEADER + REQUEST) as u32;
    let flags = NLM_F_REQUEST | if one.is_none() { NLM_F_DUMP } else { 0 };
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend(one.map_or(0, |(_, remote)| remote.port()).to_be_bytes());
    for end in [one.map(|(local, _)| local), one.map(|(_, remote)| remote)] {
        match end.map(|end| end.ip()) {
            Some(IpAddr::V4(ip)) => {
                bytes.extend(ip.octets());
                bytes.extend([0; 12]);
            }
            Some(IpAddr::V6(ip)) => bytes.extend(ip.octets()),
            None => bytes.extend([0; 16]),
        }
    }
    // Any interface, any cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

fn ask(question: &[u8], found: &mut Vec<Socket>) -> Result<(), Errno> {
    let socket: OwnedFd = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, question, SendFlags::empty())?;
    let is_dump = question.get(6..8) != Some(&NLM_F_REQUEST.to_ne_bytes());
    let mut answer = vec![0; ANSWER];
    loop {
        // The kernel has answered by the time the question is sent.
        let (_, length) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
        let mut rest = answer.get(..length).unwrap_or_default();
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = body
                        .first_chunk()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(Errno::from_raw_os_error(-code));
                }
                _ => found.extend(read(body)),
            }
            rest = next;
        }
        if !is_dump {
            return Ok(());
        }
    }
}

/// The first message: its kind, its body, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((kind, body, &bytes[next..]))
}

/// Reads `struct inet_diag_msg`.
fn read(body: &[u8]) -> Option<Socket> {
    let family = *body.first()?;
    let end = |(port, address): (usize, usize)| {
        let port = u16::from_be_bytes(*body.get(port..)?.first_chunk()?);
        let bytes: &[u8; 16] = body.get(address..)?.first_chunk()?;
        let ip = match family {
            AF_INET => IpAddr::from(*bytes.first_chunk::<4>()?),
            _ => Ipv6Addr::from(*bytes).to_canonical(),
        };
        Some(SocketAddr::new(ip, port))
    };
    Some(Socket {
        local: end(LOCAL)?,
        remote: end(REMOTE)?,
        state: *body.get(1)?,
        inode: u32::from_ne_bytes(*body.get(INODE..)?.first_chunk()?).into(),
    })
}

fn from_proc() -> Vec<Socket> {
    let mut found = Vec::new();
    for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        // Without IPv6 the second file is missing.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(text.lines().filter_map(parse));
    }
    found
}

/// A line such as `0: 0100007F:1F90 00000000:0000 0A … inode …`; `None` for the heading.
fn parse(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = address(words.next()?)?;
    let remote = address(words.next()?)?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    // Queues, timer, retransmissions, uid and timeout stand between.
    let inode = words.nth(5)?.parse().ok()?;
    Some(Socket {
        local,
        remote,
        state,
        inode,
    })
}

/// The kernel prints each 32-bit word of an address as a number of the machine's own byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (digits, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let number = u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(number.to_ne_bytes())
    };
    let ip: IpAddr = match digits.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn listeners_of_both_families_are_seen() {
        for ip in ["127.0.0.1", "127.0.9.9", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(listeners(port).contains(&ip), "{ip}");
            let in_proc = from_proc()
                .into_iter()
                .find(|socket| socket.state == LISTEN && socket.local == (ip, port).into());
            assert!(in_proc.is_some_and(|socket| socket.inode > 0), "{ip}");
            drop(listener);
            assert!(!listeners(port).contains(&ip), "{ip}");
        }
        assert_eq!(
            parse("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"),
            None
        );
    }

    #[test]
    fn closed_socket_differs_from_one_that_stopped_sending() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(ip).unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            let ends = (near.peer_addr().unwrap(), near.local_addr().unwrap());
            assert!(!is_abandoned(ends.0, ends.1));
            far.shutdown(Shutdown::Write).unwrap();
            assert!(!is_abandoned(ends.0, ends.1));
            drop(far);
            let deadline = Instant::now() + Duration::from_secs(5);
            while !is_abandoned(ends.0, ends.1) {
                assert!(Instant::now() < deadline, "the close is never seen");
                std::thread::yield_now();
            }
            drop(near);
            assert!(!is_abandoned(ends.0, ends.1));
        }
    }
}
