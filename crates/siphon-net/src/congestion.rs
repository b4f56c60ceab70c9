//! By which algorithm TCP sends.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// The longest name, in bytes (`TCP_CA_NAME_MAX` of linux/tcp.h, less the zero at its end).
const MAX_NAME: usize = 15;

/// The algorithm by which TCP decides how much may be under way and how fast it is sent
/// (`TCP_CONGESTION` of tcp(7)).
///
/// ```
/// use siphon_net::CongestionControl;
///
/// let reno = CongestionControl::named("reno").unwrap().unwrap();
/// let stream = std::net::TcpListener::bind("127.0.0.1:0")?;
/// reno.set(&stream)?;
/// assert_eq!(CongestionControl::of(&stream)?, "reno");
/// assert_eq!(CongestionControl::named(""), Ok(None));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionControl {
    /// Zeros behind it.
    name: [u8; MAX_NAME],
}

impl CongestionControl {
    /// The one of this name, and none for an empty name, which leaves it to the system.
    ///
    /// # Errors
    /// If no algorithm has such a name: a text that says so.
    pub fn named(name: &str) -> Result<Option<Self>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        if name.len() > MAX_NAME || name.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(format!("{name:?} is no name of a TCP congestion control{}", available()));
        }
        let mut own = [0; MAX_NAME];
        own[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Some(Self { name: own }))
    }

    /// The one that a socket has.
    ///
    /// # Errors
    /// If it is no TCP socket.
    pub fn of(socket: impl AsFd) -> io::Result<String> {
        Ok(sockopt::tcp_congestion(socket)?)
    }

    /// The one that a socket gets from the system.
    ///
    /// # Errors
    /// If the system has no socket left.
    pub fn of_system() -> io::Result<String> {
        Self::of(tcp_socket()?)
    }

    /// Whether this system has it, and lets us have it.
    ///
    /// # Errors
    /// If not: an error that says what there is.
    pub fn check(&self) -> io::Result<()> {
        self.set(tcp_socket()?).map_err(|error| {
            let text = match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => format!("the system does not have it{}", available()),
                Some(Errno::PERM) => "only root may use it: it is not in the sysctl \
                                      net.ipv4.tcp_allowed_congestion_control"
                    .to_owned(),
                _ => error.to_string(),
            };
            let name = self.name();
            io::Error::new(error.kind(), format!("TCP congestion control {name}: {text}"))
        })
    }

    /// Has a socket use it.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn set(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(sockopt::set_tcp_congestion(socket, self.name())?)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME);
        str::from_utf8(&self.name[..len]).unwrap_or_default()
    }
}

fn tcp_socket() -> rustix::io::Result<std::os::fd::OwnedFd> {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// What there is, for behind an error.
fn available() -> String {
    let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let Ok(names) = std::fs::read_to_string(path) else {
        return String::new();
    };
    format!("; there is {}, and more by `modprobe tcp_NAME`", names.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_not_is_told_with_what_there_is() {
        for name in ["a name with blanks", "sixteen_letters_", "z\u{e4}h"] {
            let error = CongestionControl::named(name).unwrap_err();
            assert!(error.contains("no name") && error.contains("reno"), "{error}");
        }
        let unknown = CongestionControl::named("nosuchthing").unwrap().unwrap();
        let error = unknown.check().unwrap_err().to_string();
        assert!(error.contains("nosuchthing") && error.contains("there is reno"), "{error}");
    }
}
