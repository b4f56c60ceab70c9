//! What comes at once is answered in several rounds, where the workers have to wait for each other.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use siphon_common::{Config, Context};
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack, SteppedWorker};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy};
use siphon_sim::net::{Net, NetOptions};
use siphon_sim::world::FAST;
use siphon_wire::types::{EntityAddr, EntityName, EntityType};

const BURST: u64 = 64;
const DATA: &[u8] = b"data";

/// Answers each message at once, and notes how many bytes of answers are not sent yet.
#[derive(Default)]
struct Server {
    waiting: Mutex<Vec<u64>>,
}

impl Dispatcher for Server {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        connection.send(OutMessage::from(message)).unwrap();
        self.waiting.lock().unwrap().push(connection.outgoing_bytes());
    }
}

/// Keeps the numbers of the answers.
#[derive(Default)]
struct Client {
    got: Mutex<Vec<u64>>,
}

impl Dispatcher for Client {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        self.got.lock().unwrap().push(message.header.tid);
    }
}

struct Two {
    net: Net,
    workers: Vec<SteppedWorker>,
    messengers: Vec<Messenger>,
}

impl Two {
    fn messenger(&mut self, host: u8, kind: EntityType, head: Arc<dyn Dispatcher>) -> Messenger {
        let drivers = vec![self.net.driver(IpAddr::from([10, 0, 0, host]))];
        let (stack, workers) = Stack::stepped(drivers);
        self.workers.extend(workers);
        let messenger =
            Messenger::builder(&Context::new(Config::default()), &stack, EntityName::new(kind, 0))
                .default_policy(if host == 1 {
                    Policy::STATELESS_SERVER
                } else {
                    Policy::LOSSY_CLIENT
                })
                .dispatcher_tail(head)
                .start()
                .unwrap();
        self.messengers.push(messenger.clone());
        messenger
    }

    fn run_until(&mut self, mut holds: impl FnMut() -> bool) {
        let end = self.net.now() + Duration::from_secs(60);
        while !holds() {
            let mut done: usize =
                self.workers.iter_mut().map(|worker| worker.step().unwrap()).sum();
            done += self
                .messengers
                .iter()
                .map(|messenger| messenger.dispatch_waiting(16))
                .sum::<usize>();
            if done == 0 {
                let own = self.workers.iter().filter_map(SteppedWorker::next_deadline);
                let next = own.chain(self.net.next_event()).min().unwrap();
                assert!(next < end, "nothing happens any more");
                self.net.advance_to(next);
            }
        }
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        let (mut future, mut result) = (pin!(future), None);
        self.run_until(|| {
            if let Poll::Ready(value) =
                future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()))
            {
                result = Some(value);
            }
            result.is_some()
        });
        result.unwrap()
    }
}

/// A server and a client, whose workers have seen bursts before.
struct Busy {
    two: Two,
    server: Arc<Server>,
    client: Arc<Client>,
    listening: Messenger,
    connection: Connection,
    /// Bytes of answers that waited at most, of each burst.
    most: Vec<u64>,
}

impl Busy {
    fn new(seed: u64, bursts: u64) -> Self {
        // What is sent at once arrives at once.
        let latency = Duration::from_micros(100);
        let options = NetOptions {
            latency_min: latency,
            latency_max: latency,
            buffer_min: 256 << 10,
            ..NetOptions::default()
        };
        let mut two =
            Two { net: Net::new(seed, options), workers: Vec::new(), messengers: Vec::new() };
        let (server, client) = (Arc::new(Server::default()), Arc::new(Client::default()));
        let listening = two.messenger(1, EntityType::OSD, server.clone());
        let addr = EntityAddr::msgr2("10.0.0.1:6800".parse().unwrap(), 0);
        let addrs = two.block_on(async { listening.bind_once(&[addr]).await.unwrap() });
        let asking = two.messenger(2, EntityType::CLIENT, client.clone());
        let connection = asking.connect_to(EntityType::OSD, addrs);
        two.block_on(connection.attempt()).unwrap();
        let mut busy = Self { two, server, client, listening, connection, most: Vec::new() };
        for burst in 0..bursts {
            busy.send(burst);
            let enough = (burst + 1) * BURST;
            let client = busy.client.clone();
            busy.two.run_until(|| client.got.lock().unwrap().len() as u64 == enough);
            let most = busy.server.waiting.lock().unwrap().drain(..).max();
            busy.most.extend(most);
        }
        busy
    }

    fn send(&self, burst: u64) {
        for tid in burst * BURST..(burst + 1) * BURST {
            let header = MessageHeader { msg_type: FAST, tid, ..Default::default() };
            let data = Bytes::from_static(DATA).into();
            let message = OutMessage::new(header, Payload { data, ..Default::default() });
            self.connection.send(message).unwrap();
        }
    }

    fn answered(&self) -> Vec<u64> {
        self.client.got.lock().unwrap().clone()
    }
}

#[test]
fn the_first_answers_are_on_their_way_before_the_last_request_is_dispatched() {
    let busy = Busy::new(1, 5);
    assert!(busy.answered().into_iter().eq(0..5 * BURST), "in order: {:?}", busy.answered());
    // Of the first burst the worker does not know that it is much: all of its answers waited at once.
    let most = &busy.most;
    assert!(most[1..].iter().all(|bytes| *bytes <= most[0] / 2), "{most:?} bytes waited at most");
}

/// A server that is shut down while it has requests before it still sends what it answers to them.
#[test]
fn what_was_answered_is_sent_though_the_end_comes_between_two_rounds() {
    let mut cut_short = 0;
    for seed in 0..50 {
        let mut busy = Busy::new(seed, 4);
        busy.send(4);
        // The burst is there, and the server's worker has not seen it.
        busy.two.workers[1].step().unwrap();
        let next = busy.two.net.next_event().unwrap();
        busy.two.net.advance_to(next);
        let listening = busy.listening.clone();
        let mut end = pin!(listening.shutdown());
        let is_over = end.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_ready();
        assert!(!is_over, "it waits for its worker");
        // What comes behind the turn in which the worker learns of the end is not promised an answer.
        busy.two.workers[0].step().unwrap();
        let dispatched = busy.server.waiting.lock().unwrap().len();
        busy.two.block_on(end);
        let answered = busy.answered().len() - 4 * BURST as usize;
        assert!(answered >= dispatched, "seed {seed}: {answered} of {dispatched}");
        cut_short += usize::from(dispatched > 32);
    }
    assert!(cut_short > 5, "of 50 ends {cut_short} came with more than one round to be done");
}
