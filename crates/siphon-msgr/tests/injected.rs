//! Faults that the configuration asks for.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use common::{HUNG, Seen, Witness, bound, context, message, messenger, next_seen};
use siphon_common::Context;
use siphon_msgr::{CloseReason, Connection, Dispatcher, Stack};
use siphon_proto::{Message, Policy};
use siphon_wire::types::{EntityAddrVec, EntityType};

/// Of each direction; another network stack than TCP gets fewer, on emulated processors.
fn messages() -> u64 {
    if std::env::var("SIPHON_TEST_OPTIONS").is_ok_and(|it| !it.is_empty()) {
        10_000
    } else {
        1_000_000
    }
}

/// Messages under way.
const WINDOW: u64 = 64;
/// Where the child finds its server; its presence tells that we are the child.
const SERVER: &str = "SIPHON_TEST_SERVER";

fn unreliable() -> Context {
    context(|config| {
        // Of operations, each of which has a batch of messages.
        config.ms_inject_socket_failures = 100;
        config.ms_initial_backoff = Duration::from_millis(1);
        config.ms_max_backoff = Duration::from_millis(50);
    })
}

/// Answers each message by itself, and checks that each comes once and in order.
struct InOrder {
    answers: bool,
    last: AtomicU64,
    tell: Sender<u64>,
}

impl Dispatcher for InOrder {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let tid = message.header.tid;
        let before = self.last.swap(tid, Ordering::Relaxed);
        if tid != before + 1 {
            eprintln!("message {tid} after {before}");
            std::process::abort();
        }
        if self.answers {
            connection.send(message).unwrap();
        } else {
            let _ = self.tell.send(tid);
        }
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        eprintln!("{connection} was reset, which loses messages");
        std::process::abort();
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        eprintln!("{connection} has ended, which loses messages: {reason}");
        std::process::abort();
    }
}

/// The other process: asks, and gets each answer once and in order.
fn client(server: &str) {
    let context = unreliable();
    let stack = Stack::new(&context).unwrap();
    let (tell, told) = channel();
    let in_order: Arc<dyn Dispatcher> =
        Arc::new(InOrder { answers: false, last: AtomicU64::new(0), tell });
    let us = messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSLESS_CLIENT, &[in_order]);
    let addrs: EntityAddrVec = server.parse().unwrap();
    let connection = us.connect_to(EntityType::MDS, addrs);
    for tid in 1..=messages() + WINDOW {
        if tid > WINDOW {
            assert_eq!(told.recv_timeout(HUNG).unwrap(), tid - WINDOW);
        }
        if tid <= messages() {
            connection.send(message(42, tid)).unwrap();
        }
    }
    let counts = us.session_counts();
    println!("{} messages each way; {counts}", messages());
    assert!(counts.resumed > messages() / 10_000 && counts.resets == 0, "{counts}");
    connection.mark_down();
    pollster::block_on(us.shutdown());
}

#[test]
fn a_million_messages_survive_socket_failures_between_two_processes() {
    if let Ok(server) = std::env::var(SERVER) {
        return client(&server);
    }
    let context = unreliable();
    let stack = Stack::new(&context).unwrap();
    let (tell, _) = channel();
    let in_order = Arc::new(InOrder { answers: true, last: AtomicU64::new(0), tell });
    let chain: Arc<dyn Dispatcher> = in_order.clone();
    let server = messenger(&context, &stack, EntityType::MDS, Policy::STATEFUL_SERVER, &[chain]);
    let addrs = bound(&server, &["v2:127.0.0.1:0/0"]);
    let name = "a_million_messages_survive_socket_failures_between_two_processes";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(SERVER, addrs.to_string())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    let counts = server.session_counts();
    eprintln!("{output}server: {counts}");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert_eq!(in_order.last.load(Ordering::Relaxed), messages());
    pollster::block_on(server.shutdown_within(Duration::ZERO));
}

#[test]
fn delayed_messages_keep_their_order() {
    let context = context(|config| {
        config.set("ms_inject_delay_type", "client, mon").unwrap();
        config.ms_inject_delay_probability = 0.5;
        config.ms_inject_delay_max = Duration::from_millis(5);
        config.ms_inject_internal_delays = Duration::from_millis(1);
    });
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[witness]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = common::client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    for tid in 1..=100 {
        connection.send(message(42, tid)).unwrap();
    }
    for expected in 1..=100 {
        let tid = next_seen(&seen, |seen| match seen {
            Seen::FastMessage(tid) => Some(tid),
            _ => None,
        });
        assert_eq!(tid, expected);
    }
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}

/// What comes from a peer of that type is dropped; others are served.
#[test]
fn a_blackhole_swallows_messages_of_its_type_and_no_others() {
    let context = context(|config| config.ms_blackhole_client = true);
    let stack = Stack::new(&context).unwrap();
    let (witness, seen) = Witness::new();
    let osd = messenger(&context, &stack, EntityType::OSD, Policy::STATELESS_SERVER, &[witness]);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = common::client(&context, &stack);
    let swallowed = client.connect_to(EntityType::OSD, addrs.clone());
    swallowed.send(message(42, 1)).unwrap();
    pollster::block_on(swallowed.flushed()).unwrap();
    let mds = messenger(&context, &stack, EntityType::MDS, Policy::LOSSY_CLIENT, &[]);
    mds.connect_to(EntityType::OSD, addrs).send(message(42, 2)).unwrap();
    let first = next_seen(&seen, |seen| match seen {
        Seen::FastMessage(tid) => Some(tid),
        _ => None,
    });
    assert_eq!(first, 2);
    for messenger in [client, mds, osd] {
        pollster::block_on(messenger.shutdown());
    }
}
