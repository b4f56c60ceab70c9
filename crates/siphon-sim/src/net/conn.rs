//! What the network knows of a connection and of the sockets at its ends.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use siphon_net::FillBuf;
use siphon_wire::buf::Rope;

use super::fault::FaultPlan;
use super::slab::Key;

/// The side that connected, and the one that accepted. Side `s` writes to pipe `s`.
pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) addrs: [SocketAddr; 2],
    pub(super) ends: [End; 2],
    pub(super) pipes: [Pipe; 2],
    pub(super) open: bool,
    pub(super) half_open: bool,
    pub(super) held: bool,
    /// A reset arrived for this side while the connection was held.
    pub(super) late_reset: [bool; 2],
    pub(super) plans: Vec<FaultPlan>,
    pub(super) refuse: bool,
    pub(super) started: Instant,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) error: Option<io::ErrorKind>,
    /// The next send fails, and with it the connection.
    pub(super) broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody, not yet or not any more.
    Gone,
    /// It waits at a listener, or as an `Accepted`.
    Waiting,
    Socket(Key),
}

/// Bytes of one direction. `queued` were sent and are on their way; `inbox` arrived and wait to be
/// read; both together are at most `capacity`.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) queued: Chunks,
    pub(super) inbox: Chunks,
    pub(super) capacity: usize,
    pub(super) delivered: u64,
    pub(super) fin: Fin,
    /// A delivery is among the events.
    pub(super) scheduled: bool,
    pub(super) stalled_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    Open,
    Queued,
    Delivered,
}

impl Pipe {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queued: Chunks::default(),
            inbox: Chunks::default(),
            capacity,
            delivered: 0,
            fin: Fin::Open,
            scheduled: false,
            stalled_until: None,
        }
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.queued.len + self.inbox.len)
    }

    pub(super) fn has_more(&self) -> bool {
        self.queued.len > 0 || self.fin == Fin::Queued
    }

    /// Moves up to `count` bytes to where they can be read.
    pub(super) fn arrive(&mut self, count: usize) {
        let mut left = count.min(self.queued.len);
        self.delivered += left as u64;
        while left > 0 {
            let chunk = self.queued.pop(left);
            left -= chunk.len();
            self.inbox.push(chunk);
        }
    }
}

/// Bytes in pieces, from the front to the back.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    chunks: VecDeque<Bytes>,
    pub(super) len: usize,
}

impl Chunks {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// From the first piece, up to `max` bytes; empty where there are none.
    pub(super) fn pop(&mut self, max: usize) -> Bytes {
        let Some(first) = self.chunks.front_mut() else { return Bytes::new() };
        let chunk = first.split_to(first.len().min(max));
        if first.is_empty() {
            self.chunks.pop_front();
        }
        self.len -= chunk.len();
        chunk
    }

    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }
}

/// One driver's end of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) driver: usize,
    pub(super) conn: Key,
    pub(super) side: usize,
    pub(super) phase: Phase,
    pub(super) receive: Option<Option<FillBuf>>,
    pub(super) send: Send,
    pub(super) outgoing: Rope,
    pub(super) shutdown: Shutdown,
    /// It is in its driver's queue.
    pub(super) queued: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Settled(Result<(), io::ErrorKind>),
    Open,
    Dead,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Send {
    Idle,
    InFlight,
    Ended(Result<(), io::ErrorKind>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shutdown {
    No,
    Asked,
    Done,
}

impl Socket {
    pub(super) fn new(driver: usize, conn: Key, side: usize, phase: Phase) -> Self {
        Self {
            driver,
            conn,
            side,
            phase,
            receive: None,
            send: Send::Idle,
            outgoing: Rope::new(),
            shutdown: Shutdown::No,
            queued: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) driver: usize,
    /// Its place in the table of ports.
    pub(super) port: (IpAddr, u16),
    pub(super) backlog: usize,
    pub(super) waiting: VecDeque<Key>,
    pub(super) queued: bool,
}
