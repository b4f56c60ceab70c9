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
}

impl Two {
    fn messenger(&mut self, host: u8, kind: EntityType, head: Arc<dyn Dispatcher>) -> Messenger {
        let drivers = vec![self.net.driver(IpAddr::from([10, 0, 0, host]))];
        let (stack, workers) = Stack::stepped(drivers);
        self.workers.extend(workers);
        Messenger::builder(&Context::new(Config::default()), &stack, EntityName::new(kind, 0))
            .default_policy(if host == 1 { Policy::STATELESS_SERVER } else { Policy::LOSSY_CLIENT })
            .dispatcher_tail(head)
            .start()
            .unwrap()
    }

    fn run_until(&mut self, mut holds: impl FnMut() -> bool) {
        let end = self.net.now() + Duration::from_secs(60);
        while !holds() {
            let applied: usize = self.workers.iter_mut().map(|worker| worker.step().unwrap()).sum();
            if applied == 0 {
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

#[test]
fn the_first_answers_are_on_their_way_before_the_last_request_is_dispatched() {
    // What is sent at once arrives at once.
    let latency = Duration::from_micros(100);
    let options = NetOptions {
        latency_min: latency,
        latency_max: latency,
        buffer_min: 256 << 10,
        ..NetOptions::default()
    };
    let mut two = Two { net: Net::new(1, options), workers: Vec::new() };
    let (server, client) = (Arc::new(Server::default()), Arc::new(Client::default()));
    let listening = two.messenger(1, EntityType::OSD, server.clone());
    let addr = EntityAddr::msgr2("10.0.0.1:6800".parse().unwrap(), 0);
    let addrs = two.block_on(async { listening.bind_once(&[addr]).await.unwrap() });
    let asking = two.messenger(2, EntityType::CLIENT, client.clone());
    let connection = asking.connect_to(EntityType::OSD, addrs);
    two.block_on(connection.attempt()).unwrap();

    let mut most = Vec::new();
    for burst in 0..5 {
        for tid in burst * BURST..(burst + 1) * BURST {
            let header = MessageHeader { msg_type: FAST, tid, ..Default::default() };
            let data = Bytes::from_static(DATA).into();
            connection
                .send(OutMessage::new(header, Payload { data, ..Default::default() }))
                .unwrap();
        }
        two.run_until(|| client.got.lock().unwrap().len() as u64 == (burst + 1) * BURST);
        most.push(server.waiting.lock().unwrap().drain(..).max().unwrap());
    }
    let got = client.got.lock().unwrap();
    assert!(got.iter().copied().eq(0..5 * BURST), "in order: {got:?}");
    // Of the first burst the worker does not know that it is much: all of its answers waited at once.
    assert!(most[1..].iter().all(|bytes| *bytes <= most[0] / 2), "{most:?} bytes waited at most");
}
