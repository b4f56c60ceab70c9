//! What the kernel knows of a TCP connection.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// How a TCP connection fares, as the kernel sees it (`TCP_INFO` of tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// How much it varies.
    pub rtt_var: Duration,
    /// After how long without an acknowledgement something is sent again.
    pub rto: Duration,
    /// Segments that are sent again just now.
    pub retransmits: u8,
    /// Segments that were sent again, since the connection began.
    pub total_retransmits: u32,
    /// Segments that are not acknowledged.
    pub unacked: u32,
    /// Segments that are taken to be lost.
    pub lost: u32,
    /// Congestion window in segments.
    pub snd_cwnd: u32,
    /// Bytes of a segment that we send.
    pub snd_mss: u32,
    /// Bytes of a segment that we receive.
    pub rcv_mss: u32,
    /// Bytes that we are ready to receive.
    pub rcv_space: u32,
    /// Bytes of the path's largest packet.
    pub path_mtu: u32,
    /// How long nothing was sent.
    pub last_data_sent: Duration,
    /// How long nothing was received.
    pub last_data_received: Duration,
}

/// Asks the kernel.
#[allow(unsafe_code)]
pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel writes at most `len` bytes to
    // `info`, which has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is of integers, for which zeros do where an older kernel has written less.
    let info = unsafe { info.assume_init() };
    let us = |us: u32| Duration::from_micros(us.into());
    let ms = |ms: u32| Duration::from_millis(ms.into());
    Ok(TcpInfo {
        rtt: us(info.tcpi_rtt),
        rtt_var: us(info.tcpi_rttvar),
        rto: us(info.tcpi_rto),
        retransmits: info.tcpi_retransmits,
        total_retransmits: info.tcpi_total_retrans,
        unacked: info.tcpi_unacked,
        lost: info.tcpi_lost,
        snd_cwnd: info.tcpi_snd_cwnd,
        snd_mss: info.tcpi_snd_mss,
        rcv_mss: info.tcpi_rcv_mss,
        rcv_space: info.tcpi_rcv_space,
        path_mtu: info.tcpi_pmtu,
        last_data_sent: ms(info.tcpi_last_data_sent),
        last_data_received: ms(info.tcpi_last_data_recv),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_connection_has_a_round_trip_and_a_file_has_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let info = of(stream.as_fd()).unwrap();
        assert!(info.rtt > Duration::ZERO && info.snd_mss > 0 && info.snd_cwnd > 0, "{info:?}");
        assert!(of(std::io::stdin().as_fd()).is_err());
    }
}
