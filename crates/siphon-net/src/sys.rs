//! Sockets as the system wants them made.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrAny, SocketFlags, SocketType, sockopt};

use crate::driver::{ListenOptions, SocketOptions};
use crate::error::ListenError;

/// What every socket is: closed on exec, and never blocking.
pub(crate) const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// How long accepting pauses when the system has no room; doubled each time, up to the latter.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A socket that listens, and the address with the port it got.
pub(crate) fn listen(
    addr: SocketAddr,
    options: &ListenOptions,
) -> io::Result<(OwnedFd, SocketAddr)> {
    let open = || -> rustix::io::Result<(OwnedFd, SocketAddr)> {
        let fd = stream_socket(addr)?;
        if addr.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, options.ipv6_only)?;
        }
        if options.reuse_address {
            sockopt::set_socket_reuseaddr(&fd, true)?;
        }
        if options.recv_buffer > 0 {
            prefer("SO_RCVBUF", sockopt::set_socket_recv_buffer_size(&fd, options.recv_buffer));
        }
        net::bind(&fd, &addr)?;
        net::listen(&fd, i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        let local = ip_addr(net::getsockname(&fd)?)?;
        Ok((fd, local))
    };
    open().map_err(|errno| ListenError::wrap(addr, errno))
}

/// Starts to connect. The inner result is the network's first word on it.
pub(crate) fn connect(
    addr: SocketAddr,
    options: &SocketOptions,
) -> io::Result<(OwnedFd, Result<(), Errno>)> {
    let fd = stream_socket(addr)?;
    // Before connecting, since the receive buffer decides about TCP's window scale.
    apply(&fd, options);
    let started = match net::connect(&fd, &addr) {
        // An interrupted connect goes on in the background like any other.
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    };
    Ok((fd, started))
}

/// Sets a connection's options. They are preferences: a failure leaves the connection usable.
pub(crate) fn apply(fd: impl AsFd, options: &SocketOptions) {
    let fd = fd.as_fd();
    if options.nodelay {
        prefer("TCP_NODELAY", sockopt::set_tcp_nodelay(fd, true));
    }
    if options.recv_buffer > 0 {
        prefer("SO_RCVBUF", sockopt::set_socket_recv_buffer_size(fd, options.recv_buffer));
    }
    if options.send_buffer > 0 {
        prefer("SO_SNDBUF", sockopt::set_socket_send_buffer_size(fd, options.send_buffer));
    }
    if let Some(algorithm) = options.congestion_control
        && let Err(error) = algorithm.set(fd)
    {
        let name = algorithm.name();
        tracing::warn!(name, %error, "TCP congestion control not set: the system's is used");
    }
}

/// The address of an IP socket.
pub(crate) fn ip_addr(addr: SocketAddrAny) -> rustix::io::Result<SocketAddr> {
    SocketAddr::try_from(addr)
}

/// Errors of one connection and not of the listener: Linux passes on what the network had to say
/// about the new socket (accept(2)), and the next connection may well be fine.
pub(crate) fn is_the_peers(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::INTR
            | Errno::CONNABORTED
            | Errno::PERM
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
    )
}

fn stream_socket(addr: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    net::socket_with(family, SocketType::STREAM, SOCKET_FLAGS, None)
}

fn prefer(option: &str, result: rustix::io::Result<()>) {
    if let Err(errno) = result {
        tracing::debug!(option, %errno, "socket option not set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CongestionControl;

    #[test]
    fn a_connection_sends_by_what_is_named_and_else_as_the_system_does() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = stream_socket(addr).unwrap();
        let named = |name| CongestionControl::named(name).unwrap();
        for (name, expected) in [("reno", "reno"), ("nosuchthing", "reno")] {
            apply(
                &socket,
                &SocketOptions { congestion_control: named(name), ..Default::default() },
            );
            assert_eq!(CongestionControl::of(&socket).unwrap(), expected);
        }
        let other = stream_socket(addr).unwrap();
        apply(&other, &SocketOptions::default());
        assert_eq!(CongestionControl::of(&other).unwrap(), CongestionControl::of_system().unwrap());
    }
}
