//! A network, its drivers, and the completions that nobody asked for yet.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use siphon_net::{
    Accepted, Completion, Driver, FillBuf, ListenOptions, ListenerId, SendStatus, SocketId,
    SocketOptions, Wait,
};
use siphon_sim::net::{ConnId, DriverId, Net, NetOptions};
use siphon_wire::buf::Rope;

pub(crate) const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

#[derive(Debug)]
pub(crate) enum Got {
    Accepted(ListenerId, Accepted),
    Connected(SocketId, io::Result<()>),
    Received(SocketId, io::Result<usize>, Vec<u8>),
    Sent(SocketId, io::Result<()>),
}

/// One driver with its completions.
pub(crate) struct Peer {
    pub(crate) net: Net,
    pub(crate) id: DriverId,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) got: VecDeque<Got>,
}

pub(crate) fn net(seed: u64) -> Net {
    Net::new(seed, NetOptions { trace_lines: 100_000, ..NetOptions::default() })
}

impl Peer {
    pub(crate) fn new(net: &Net, host: IpAddr) -> Self {
        let (id, driver) = net.driver_with_id(host);
        Self { net: net.clone(), id, driver, got: VecDeque::new() }
    }

    /// One wait, with at most one round for each socket.
    pub(crate) fn wait(&mut self) {
        let got = &mut self.got;
        let sink = &mut |_, completion: Completion<'_>| {
            got.push_back(match completion {
                Completion::Accepted { listener, accepted } => Got::Accepted(listener, accepted),
                Completion::Connected { socket, result } => Got::Connected(socket, result),
                Completion::Sent { socket, result } => Got::Sent(socket, result),
                Completion::Received { socket, result, fill, bytes } => {
                    let mut all = fill.map_or(Vec::new(), |fill| fill.filled().to_vec());
                    all.extend_from_slice(bytes.rest());
                    assert_eq!(all.len(), *result.as_ref().unwrap_or(&0));
                    Got::Received(socket, result, all)
                }
                other => panic!("nobody asked for {other:?}"),
            });
        };
        self.driver.wait(Wait::Forever, sink).unwrap();
    }

    /// Takes the first completion that `pick` takes, moving the time as long as that needs.
    pub(crate) fn until<T>(&mut self, mut pick: impl FnMut(Got) -> Result<T, Got>) -> T {
        loop {
            self.wait();
            for _ in 0..self.got.len() {
                match pick(self.got.pop_front().unwrap()) {
                    Ok(picked) => return picked,
                    Err(other) => self.got.push_back(other),
                }
            }
            if !self.net.has_work(self.id) {
                let next = self.net.next_event();
                let next = next.unwrap_or_else(|| panic!("nothing happens: {:?}", self.got));
                self.net.advance_to(next);
            }
        }
    }

    pub(crate) fn listen(&mut self, addr: SocketAddr) -> (ListenerId, SocketAddr) {
        self.driver.listen(addr, &ListenOptions::default()).unwrap()
    }

    pub(crate) fn connect(&mut self, addr: SocketAddr) -> SocketId {
        self.driver.connect(addr, &SocketOptions::default()).unwrap()
    }

    pub(crate) fn connected(&mut self, id: SocketId) -> io::Result<()> {
        self.until(|got| match got {
            Got::Connected(socket, result) if socket == id => Ok(result),
            other => Err(other),
        })
    }

    pub(crate) fn accepted(&mut self) -> Accepted {
        self.until(|got| match got {
            Got::Accepted(_, accepted) => Ok(accepted),
            other => Err(other),
        })
    }

    pub(crate) fn accept(&mut self) -> SocketId {
        let accepted = self.accepted();
        self.driver.adopt(accepted, &SocketOptions::default()).unwrap()
    }

    pub(crate) fn send(&mut self, id: SocketId, bytes: &[u8]) -> SendStatus {
        let mut rope = Rope::from(Bytes::copy_from_slice(bytes));
        let status = self.driver.send(id, &mut rope);
        assert!(rope.is_empty());
        status
    }

    pub(crate) fn sent(&mut self, id: SocketId) -> io::Result<()> {
        self.until(|got| match got {
            Got::Sent(socket, result) if socket == id => Ok(result),
            other => Err(other),
        })
    }

    pub(crate) fn recv_into(&mut self, id: SocketId, fill: Option<FillBuf>) -> io::Result<Vec<u8>> {
        self.driver.recv(id, fill);
        self.until(|got| match got {
            Got::Received(socket, result, bytes) if socket == id => Ok(result.map(|_| bytes)),
            other => Err(other),
        })
    }

    pub(crate) fn recv(&mut self, id: SocketId) -> io::Result<Vec<u8>> {
        self.recv_into(id, None)
    }

    /// Everything up to the end of file or an error, and which.
    pub(crate) fn recv_all(&mut self, id: SocketId) -> (Vec<u8>, io::Result<()>) {
        let mut all = Vec::new();
        loop {
            match self.recv(id) {
                Ok(bytes) if bytes.is_empty() => return (all, Ok(())),
                Ok(bytes) => all.extend(bytes),
                Err(error) => return (all, Err(error)),
            }
        }
    }

    pub(crate) fn recv_exactly(&mut self, id: SocketId, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let bytes = self.recv(id).unwrap();
            assert!(!bytes.is_empty(), "the end came after {} of {count}", all.len());
            all.extend(bytes);
        }
        assert_eq!(all.len(), count);
        all
    }
}

/// Lets all that is due happen, and takes what that gives.
pub(crate) fn settle(net: &Net, peers: &mut [&mut Peer]) {
    loop {
        peers.iter_mut().for_each(|peer| peer.wait());
        if peers.iter().any(|peer| net.has_work(peer.id)) {
            continue;
        }
        let Some(next) = net.next_event() else { return };
        net.advance_to(next);
    }
}

/// A client at B, connected to a server at A.
pub(crate) struct Pair {
    pub(crate) net: Net,
    pub(crate) server: Peer,
    pub(crate) client: Peer,
    pub(crate) srv: SocketId,
    pub(crate) cli: SocketId,
    pub(crate) conn: ConnId,
    pub(crate) addr: SocketAddr,
}

pub(crate) fn pair(net: &Net) -> Pair {
    let mut server = Peer::new(net, A);
    let mut client = Peer::new(net, B);
    let (_, addr) = server.listen(SocketAddr::new(A, 0));
    let cli = client.connect(addr);
    let conn = net.connections()[0].id;
    client.connected(cli).unwrap();
    let srv = server.accept();
    Pair { net: net.clone(), server, client, srv, cli, conn, addr }
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * at) >> 3) as u8).collect()
}
