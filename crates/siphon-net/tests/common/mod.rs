//! What the stacks' tests share. Each runs for every stack of [`SYSTEM_STACKS`].

#![allow(dead_code, reason = "no test file uses all of it")]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use siphon_net::{
    Accepted, Completion, Driver, FillBuf, ListenOptions, ListenerId, SendStatus, SocketId,
    SocketOptions, StackKind, Wait,
};
use siphon_wire::buf::Rope;

/// A test that hangs fails after this long. None passes or fails by being faster or slower.
pub(crate) const HUNG: Duration = Duration::from_secs(60);

/// Stacks whose connections the system makes and ends by itself, so that one side can be stepped
/// without the other.
pub(crate) const SYSTEM_STACKS: &[StackKind] = &[StackKind::Posix, StackKind::Uring];

/// A completion that owns its bytes.
#[derive(Debug)]
pub(crate) enum Event {
    Accepted { listener: ListenerId, accepted: Accepted },
    AcceptFailed { error: io::Error },
    Connected { socket: SocketId, result: io::Result<()> },
    Received { socket: SocketId, result: io::Result<usize>, fill: Option<FillBuf>, bytes: Vec<u8> },
    Sent { socket: SocketId, result: io::Result<()> },
    FileReady { token: u64, readable: bool, writable: bool },
}

impl From<Completion<'_>> for Event {
    fn from(completion: Completion<'_>) -> Self {
        match completion {
            Completion::Accepted { listener, accepted } => Self::Accepted { listener, accepted },
            Completion::AcceptFailed { error, .. } => Self::AcceptFailed { error },
            Completion::Connected { socket, result } => Self::Connected { socket, result },
            Completion::Received { socket, result, fill, bytes } => {
                Self::Received { socket, result, fill, bytes: bytes.rest().to_vec() }
            }
            Completion::Sent { socket, result } => Self::Sent { socket, result },
            Completion::FileReady { token, readable, writable } => {
                Self::FileReady { token, readable, writable }
            }
        }
    }
}

/// A driver and the completions that no one asked for yet.
pub(crate) struct Net {
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) events: VecDeque<Event>,
}

impl Net {
    pub(crate) fn new(kind: StackKind) -> Self {
        Self { driver: kind.here().driver().unwrap(), events: VecDeque::new() }
    }

    /// One wait.
    pub(crate) fn wait(&mut self, limit: Wait) {
        let events = &mut self.events;
        self.driver.wait(limit, &mut |_, completion| events.push_back(completion.into())).unwrap();
    }

    /// Takes the first completion for which `pick` gives something, and waits for it as long as
    /// that takes. The others stay.
    pub(crate) fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Result<T, Event>) -> T {
        let hung = Instant::now() + HUNG;
        loop {
            for _ in 0..self.events.len() {
                match pick(self.events.pop_front().unwrap()) {
                    Ok(picked) => return picked,
                    Err(other) => self.events.push_back(other),
                }
            }
            assert!(Instant::now() < hung, "hung; left are {:?}", self.events);
            self.wait(Wait::Until(hung));
        }
    }

    pub(crate) fn listen(&mut self, addr: &str) -> (ListenerId, SocketAddr) {
        self.driver.listen(addr.parse().unwrap(), &ListenOptions::default()).unwrap()
    }

    pub(crate) fn connect(&mut self, addr: SocketAddr) -> SocketId {
        self.driver.connect(addr, &SocketOptions::default()).unwrap()
    }

    pub(crate) fn accepted(&mut self) -> Accepted {
        self.until(|event| match event {
            Event::Accepted { accepted, .. } => Ok(accepted),
            other => Err(other),
        })
    }

    pub(crate) fn accept(&mut self) -> SocketId {
        let accepted = self.accepted();
        self.driver.adopt(accepted, &SocketOptions::default()).unwrap()
    }

    pub(crate) fn connected(&mut self, id: SocketId) -> io::Result<()> {
        self.until(|event| match event {
            Event::Connected { socket, result } if socket == id => Ok(result),
            other => Err(other),
        })
    }

    /// A connection of this driver with itself, by `addr`: who connected, who accepted.
    pub(crate) fn pair(&mut self, addr: &str, options: &SocketOptions) -> (SocketId, SocketId) {
        let (listener, addr) = self.listen(addr);
        let client = self.driver.connect(addr, options).unwrap();
        let accepted = self.accepted();
        let server = self.driver.adopt(accepted, options).unwrap();
        self.connected(client).unwrap();
        self.driver.close_listener(listener);
        (client, server)
    }

    /// Sends; whether a completion follows.
    pub(crate) fn send(&mut self, id: SocketId, bytes: impl Into<Bytes>) -> SendStatus {
        let mut rope = Rope::from(bytes.into());
        let status = self.driver.send(id, &mut rope);
        assert!(rope.is_empty());
        status
    }

    pub(crate) fn sent(&mut self, id: SocketId) -> io::Result<()> {
        self.until(|event| match event {
            Event::Sent { socket, result } if socket == id => Ok(result),
            other => Err(other),
        })
    }

    /// The end of a receive that was armed, with all the pieces in which it came.
    pub(crate) fn received(&mut self, id: SocketId) -> io::Result<(Option<FillBuf>, Vec<u8>)> {
        let (result, fill, mut all) = self.until(|event| match event {
            Event::Received { socket, result, fill, bytes } if socket == id => {
                Ok((result, fill, bytes))
            }
            other => Err(other),
        });
        let mut count = result?;
        self.events.retain(|event| match event {
            Event::Received { socket, result: Ok(more), bytes, .. } if *socket == id => {
                assert_eq!(bytes.len(), *more, "all but the first are beside the buffer");
                count += more;
                all.extend_from_slice(bytes);
                false
            }
            _ => true,
        });
        if fill.is_none() {
            assert_eq!(all.len(), count);
        }
        Ok((fill, all))
    }

    /// Arms a receive and takes what it gives; nothing is the end of file.
    pub(crate) fn recv(&mut self, id: SocketId) -> io::Result<Vec<u8>> {
        self.driver.recv(id, None);
        self.received(id).map(|(_, bytes)| bytes)
    }

    /// Receives that many bytes.
    pub(crate) fn recv_exactly(&mut self, id: SocketId, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let bytes = self.recv(id).unwrap();
            assert!(!bytes.is_empty(), "end of file after {} of {count} bytes", all.len());
            all.extend_from_slice(&bytes);
        }
        assert_eq!(all.len(), count);
        all
    }
}

/// Bytes in which every misplaced part shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Whether this machine has IPv6 on its loopback; where not, that part of a test says so.
pub(crate) fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        eprintln!("no IPv6 on this machine: not tested");
    }
    has
}
