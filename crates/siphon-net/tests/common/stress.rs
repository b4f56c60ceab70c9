//! Clients that send messages of random lengths, several at once, and servers that echo them.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::Bytes;
use siphon_net::{
    Accepted, Completion, EventCenter, Handler, ListenOptions, MailSender, NetworkStack,
    SendStatus, SocketId, SocketOptions, StackKind,
};
use siphon_wire::buf::Rope;

const WORKERS: usize = 2;
const CLIENTS_PER_WORKER: usize = 8;
const MESSAGES_PER_CLIENT: usize = 600;
const DEPTH: usize = 16;
const MAX_MESSAGE: u64 = 1024;
/// What a server holds before it stops reading.
const MAX_ECHO: usize = 64 << 10;

pub(crate) fn run(kind: StackKind) {
    let (report, reports) = mpsc::channel();
    let workers = NetworkStack::new(kind.here())
        .spawn(WORKERS, move |index, peers| Stress::new(index, peers, report.clone()))
        .unwrap();
    let answered: usize = (0..WORKERS).map(|_| reports.recv().unwrap()).sum();
    assert_eq!(answered, WORKERS * CLIENTS_PER_WORKER * MESSAGES_PER_CLIENT);
    for sender in workers.senders() {
        sender.send(Mail::Stop);
    }
    workers.join().unwrap();
}

enum Mail {
    Listening(SocketAddr),
    Adopt(Accepted),
    Stop,
}

struct Stress {
    index: usize,
    peers: Arc<[MailSender<Mail>]>,
    report: mpsc::Sender<usize>,
    next_peer: usize,
    listened: bool,
    connect_to: Option<SocketAddr>,
    adopt: Vec<Accepted>,
    ends: HashMap<SocketId, End>,
    clients_left: usize,
    answered: usize,
    stopping: bool,
}

/// One end of a connection.
struct End {
    role: Role,
    outgoing: Rope,
    sending: bool,
    receiving: bool,
    ended: bool,
}

enum Role {
    Client {
        random: u64,
        unsent: usize,
        /// Sent and not yet echoed; of the first, so much was.
        expected: VecDeque<Bytes>,
        matched: usize,
    },
    Server,
}

impl Stress {
    fn new(index: usize, peers: Arc<[MailSender<Mail>]>, report: mpsc::Sender<usize>) -> Self {
        Self {
            index,
            peers,
            report,
            next_peer: 0,
            listened: false,
            connect_to: None,
            adopt: Vec::new(),
            ends: HashMap::new(),
            clients_left: CLIENTS_PER_WORKER,
            answered: 0,
            stopping: false,
        }
    }
}

impl Handler for Stress {
    type Mail = Mail;

    fn handle_completion(&mut self, _: Instant, completion: Completion<'_>) {
        match completion {
            Completion::Accepted { accepted, .. } => {
                self.peers[self.next_peer].send(Mail::Adopt(accepted));
                self.next_peer = (self.next_peer + 1) % self.peers.len();
            }
            Completion::Connected { result, .. } => result.unwrap(),
            Completion::Received { socket, result, bytes, .. } => {
                let end = self.ends.get_mut(&socket).unwrap();
                end.receiving = false;
                assert_eq!(result.unwrap(), bytes.len());
                self.answered += end.received(bytes.rest());
            }
            Completion::Sent { socket, result } => {
                result.unwrap();
                self.ends.get_mut(&socket).unwrap().sending = false;
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn handle_timer(&mut self, _: Instant, token: u64) {
        panic!("nobody set timer {token}");
    }

    fn handle_mail(&mut self, _: Instant, mail: Mail) {
        match mail {
            Mail::Listening(addr) => self.connect_to = Some(addr),
            Mail::Adopt(accepted) => self.adopt.push(accepted),
            Mail::Stop => self.stopping = true,
        }
    }

    fn drain(&mut self, center: &mut EventCenter) {
        let options = SocketOptions::default();
        if self.index == 0 && !self.listened {
            self.listened = true;
            let any = "127.0.0.1:0".parse().unwrap();
            let (_, addr) = center.listen(any, &ListenOptions::default()).unwrap();
            for peer in &*self.peers {
                peer.send(Mail::Listening(addr));
            }
        }
        for accepted in self.adopt.drain(..) {
            self.ends.insert(center.adopt(accepted, &options).unwrap(), End::new(Role::Server));
        }
        if let Some(addr) = self.connect_to.take() {
            for client in 0..CLIENTS_PER_WORKER {
                let random = 1 + (self.index * CLIENTS_PER_WORKER + client) as u64;
                let role = Role::Client {
                    random,
                    unsent: MESSAGES_PER_CLIENT,
                    expected: VecDeque::new(),
                    matched: 0,
                };
                self.ends.insert(center.connect(addr, &options).unwrap(), End::new(role));
            }
        }
        self.ends.retain(|&id, end| {
            let stays = end.drain(id, center);
            if !stays {
                center.close(id);
                if let Role::Client { .. } = end.role {
                    self.clients_left -= 1;
                    if self.clients_left == 0 {
                        self.report.send(self.answered).unwrap();
                    }
                }
            }
            stays
        });
    }

    fn is_done(&self) -> bool {
        // A server outlives its client until it has read the end of file.
        self.stopping && self.ends.is_empty() && self.adopt.is_empty()
    }
}

impl End {
    fn new(role: Role) -> Self {
        Self { role, outgoing: Rope::new(), sending: false, receiving: false, ended: false }
    }

    /// Takes what came. Gives the number of messages that it completes.
    fn received(&mut self, mut bytes: &[u8]) -> usize {
        self.ended |= bytes.is_empty();
        let Role::Client { expected, matched, .. } = &mut self.role else {
            self.outgoing.push(Bytes::copy_from_slice(bytes));
            return 0;
        };
        assert!(!bytes.is_empty(), "the server ended first");
        let mut messages = 0;
        while !bytes.is_empty() {
            let message = expected.front().expect("nothing but what was sent comes back");
            let count = bytes.len().min(message.len() - *matched);
            assert_eq!(bytes[..count], message[*matched..*matched + count]);
            bytes = &bytes[count..];
            *matched += count;
            if *matched == message.len() {
                expected.pop_front();
                *matched = 0;
                messages += 1;
            }
        }
        messages
    }

    /// Whether it goes on.
    fn drain(&mut self, id: SocketId, center: &mut EventCenter) -> bool {
        let mut finished = self.ended && self.outgoing.is_empty() && !self.sending;
        if let Role::Client { random, unsent, expected, .. } = &mut self.role {
            while *unsent > 0 && expected.len() < DEPTH {
                *unsent -= 1;
                let message = random_message(random);
                expected.push_back(message.clone());
                self.outgoing.push(message);
            }
            finished = expected.is_empty();
        }
        if finished {
            return false;
        }
        if !self.sending && !self.outgoing.is_empty() {
            self.sending = center.send(id, &mut self.outgoing) == SendStatus::Pending;
        }
        if !self.receiving && !self.ended && self.outgoing.len() < MAX_ECHO {
            center.recv(id, None);
            self.receiving = true;
        }
        true
    }
}

fn random_message(random: &mut u64) -> Bytes {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let (len, first) = (1 + (*random >> 33) % MAX_MESSAGE, *random >> 56);
    (first..first + len).map(|at| (at * at) as u8).collect()
}
