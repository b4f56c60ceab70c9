//! From how many bytes on the system tells of what came.

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::socket::SetSockOpt;
use nix::{setsockopt_impl, sockopt_impl};
use rustix::system::uname;

use crate::{CongestionControl, SocketOptions, tcp_info};

/// The most bytes that are waited for: as many as a worker takes while the next arrive.
const MOST: usize = 1 << 20;
/// With less than this to come, every byte is told of.
const LEAST: usize = 128 << 10;
/// The round trip within a room, with time to spare.
const NEAR: Duration = Duration::from_millis(2);

sockopt_impl!(RcvLowat, SetOnly, libc::SOL_SOCKET, libc::SO_RCVLOWAT, i32);

/// A socket's low-water mark (`SO_RCVLOWAT` of socket(7)), for who sends by BBR: where much is to come for
/// certain, the worker wakes for a good part of it.
///
/// By measurement (docs/performance.md): under BBR large messages over loopback go up to 1.7 times as fast by it,
/// under cubic somewhat slower. That fits how BBR works, which takes the pace of acknowledgements for that of
/// the path, while these go out as the receiver reads; it was not taken apart further. The peer's algorithm is not
/// known here; mostly it is the same as ours.
#[derive(Debug)]
pub(super) struct LowWater {
    mark: usize,
    /// Whether it may do any good, once somebody wanted to know.
    may_help: Option<bool>,
    is_near: bool,
}

impl LowWater {
    /// That of a socket with these options.
    pub(super) fn new(options: &SocketOptions) -> Self {
        // A buffer of fixed size would be full at the mark, and the sender stand still.
        let may_help = (options.recv_buffer > 0).then_some(false);
        Self { mark: 1, may_help, is_near: false }
    }

    /// With a peer that is near: over a long path it is the path that sets the pace.
    fn helps(&mut self, socket: &impl AsFd) -> bool {
        let may_help = || is_safe() && sends_by_bbr(socket);
        if !*self.may_help.get_or_insert_with(may_help) {
            return false;
        }
        // Who was near is so: a round trip also grows with what is under way.
        self.is_near = self.is_near || is_near(socket);
        self.is_near
    }

    /// Has the system tell of what comes next, which is `missing` bytes at least; 0 if nothing is known. True
    /// if it may have kept something to itself that it would tell of now: look again.
    pub(super) fn expect(&mut self, socket: &impl AsFd, missing: usize) -> bool {
        let wanted = match missing {
            LEAST.. if self.helps(socket) => missing.min(MOST),
            _ => 1,
        };
        if wanted == self.mark || RcvLowat.set(socket, &(wanted as i32)).is_err() {
            return false;
        }
        wanted < std::mem::replace(&mut self.mark, wanted)
    }

    /// Has the system tell of every byte, for whoever has the socket next.
    pub(super) fn reset(&mut self, socket: &impl AsFd) {
        let _ = self.expect(socket, 0); // who has it next looks for himself
    }
}

fn sends_by_bbr(socket: &impl AsFd) -> bool {
    CongestionControl::of(socket).is_ok_and(|name| name.starts_with("bbr"))
}

fn is_near(socket: &impl AsFd) -> bool {
    tcp_info::of(socket.as_fd()).is_ok_and(|info| info.rtt < NEAR)
}

/// Whether Linux tells also of what fills the window below the mark, as it does since 5.12 (its
/// `tcp_epollin_ready`): before, a connection could hang where packets are short or memory is.
fn is_safe() -> bool {
    static IS_SAFE: OnceLock<bool> = OnceLock::new();
    *IS_SAFE.get_or_init(|| tells_of_full_windows(&uname().release().to_string_lossy()))
}

fn tells_of_full_windows(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(12))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn is_told(socket: &TcpStream) -> bool {
        let mut polled = [PollFd::new(socket, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    /// Until all that was sent is there.
    fn await_bytes(socket: &TcpStream, count: usize) {
        let mut peeked = vec![0; count + 1];
        socket.set_nonblocking(true).unwrap();
        while socket.peek(&mut peeked).map_or(true, |there| there < count) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_system_tells_of_as_much_as_is_expected_and_of_all_once_nothing_is() {
        let (mut peer, socket) = pair();
        let mut mark = LowWater { mark: 1, may_help: Some(true), is_near: true };
        assert!(!mark.expect(&socket, 4 << 20), "it keeps nothing that it told of before");
        assert_eq!(mark.mark, MOST);
        peer.write_all(&[7; 1000]).unwrap();
        await_bytes(&socket, 1000);
        assert!(!is_told(&socket));
        assert!(mark.expect(&socket, LEAST - 1), "it may have kept something");
        assert!(is_told(&socket));
        assert!(!mark.expect(&socket, 0), "nothing changed");
    }

    #[test]
    fn whoever_sends_as_the_window_allows_is_read_as_it_comes() {
        let (_peer, socket) = pair();
        if CongestionControl::named("reno").unwrap().unwrap().set(&socket).is_err() {
            return eprintln!("skipped: the system does not let us have reno");
        }
        let mut mark = LowWater::new(&SocketOptions::default());
        assert!(!mark.expect(&socket, 4 << 20));
        assert_eq!((mark.mark, mark.may_help), (1, Some(false)));
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, expected) in [
            ("3.10.0-1160.el7.x86_64", false),
            ("4.18.0-553.el8_10.x86_64", false),
            ("5.4.0", false),
            ("5.12.0-rc1", true),
            ("5.15.0-125-generic", true),
            ("6.18.44-fc-v509", true),
            ("unknown", false),
        ] {
            assert_eq!(tells_of_full_windows(release), expected, "{release}");
        }
    }
}
