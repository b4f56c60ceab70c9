//! Sessions with a real monitor, which survive what happens to their links.

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use common::proxy::{Proxy, free_addr};
use common::{context, messenger};
use siphon_messages::{MMonMap, MMonSubscribe, SubscribeItem, TypedMessage};
use siphon_msgr::{CloseReason, Connection, Dispatcher, Stack};
use siphon_peers::{CephMon, MonOptions, MonProtocols, require};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::types::{EntityAddr, EntityType};

/// `CEPH_MSG_MON_GET_VERSION` and its answer, which repeats the question's handle.
const GET_VERSION: u16 = 19;
const GET_VERSION_REPLY: u16 = 20;

const PAIRS: u64 = 10_000;
/// Questions under way.
const WINDOW: u64 = 32;
/// A monitor that was killed takes this long to come back, on a busy machine.
const HUNG: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq)]
enum Told {
    Answer(u64),
    Map { mons: usize },
    RemoteReset,
    Reset(String),
}

struct Tell(Sender<Told>);

impl Dispatcher for Tell {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        let told = match message.header.msg_type {
            GET_VERSION_REPLY => {
                let handle = message.payload.front[..8].try_into().unwrap();
                Told::Answer(u64::from_le_bytes(handle))
            }
            MMonMap::TYPE => Told::Map {
                mons: MMonMap::from_message(&message).unwrap().monmap.by_rank().count(),
            },
            _ => return, // what a monitor tells another one
        };
        let _ = self.0.send(told);
    }

    fn handle_remote_reset(&self, _: &Connection) {
        let _ = self.0.send(Told::RemoteReset);
    }

    fn handle_reset(&self, _: &Connection, reason: &CloseReason) -> bool {
        let _ = self.0.send(Told::Reset(reason.to_string()));
        true
    }
}

fn question(handle: u64) -> OutMessage {
    let header = MessageHeader {
        msg_type: GET_VERSION,
        version: 1,
        compat_version: 1,
        ..Default::default()
    };
    let what = b"monmap";
    let mut front = handle.to_le_bytes().to_vec();
    front.extend_from_slice(&(what.len() as u32).to_le_bytes());
    front.extend_from_slice(what);
    OutMessage::new(header, Payload { front: Bytes::from(front).into(), ..Payload::default() })
}

fn subscription() -> OutMessage {
    let what = [("monmap".into(), SubscribeItem::from_version(0))].into();
    MMonSubscribe { what, ..Default::default() }.into_out()
}

/// A monitor that listens at a hidden address, and goes by that of a proxy.
fn monitor(hidden: std::net::SocketAddr) -> Option<CephMon> {
    let config = vec![format!("public_bind_addr = v2:{hidden}")];
    let protocols = MonProtocols::V2;
    require(CephMon::start(MonOptions { protocols, config, ..MonOptions::default() }))
}

/// We are a monitor as well: those keep sessions with each other that lose nothing.
#[test]
fn a_lossless_session_with_a_monitor_loses_nothing_through_a_proxy_that_breaks_it() {
    let hidden = free_addr();
    let Some(mut mon) = monitor(hidden) else { return };
    let proxy = Proxy::start(mon.addr_v2().unwrap(), hidden, 4711);
    let context = context(|config| {
        config.ms_initial_backoff = Duration::from_millis(1);
        config.ms_max_backoff = Duration::from_millis(50);
    });
    let stack = Stack::new(&context).unwrap();
    let (sender, told) = channel();
    let tell: Arc<dyn Dispatcher> = Arc::new(Tell(sender));
    let us = messenger(&context, &stack, EntityType::MON, Policy::LOSSLESS_PEER_REUSE, &[tell]);
    // We listen nowhere, so that the monitor cannot come to us past the proxy.
    let target = EntityAddr::msgr2(mon.addr_v2().unwrap(), 0);
    let connection = us.connect_to(EntityType::MON, target.into());
    connection.send(subscription()).unwrap();

    let mut maps = 0;
    ask(&connection, &told, 0..PAIRS, &mut maps);
    assert!(maps > 0, "the subscription was answered");
    let counts = us.session_counts();
    let faults = proxy.faults();
    eprintln!("{PAIRS} pairs; cuts, half-closes, stalls: {faults:?}; sessions: {counts}");
    assert!(faults.iter().all(|count| *count > 0), "each kind of fault was met: {faults:?}");
    assert!(counts.resumed > 10 && counts.replayed > 0, "{counts}");
    assert_eq!(counts.resets, 0, "the monitor forgot nothing, and so nothing may be lost");

    // The monitor forgets us: that is told, and what was under way is asked for again.
    proxy.be_kind();
    mon.kill().unwrap();
    connection.send(question(PAIRS)).unwrap();
    mon.restart().unwrap();
    assert_eq!(next(&told), Told::RemoteReset);
    connection.send(subscription()).unwrap();
    ask(&connection, &told, PAIRS + 1..PAIRS + 100, &mut maps);
    assert!(connection.close_reason().is_none());
    connection.mark_down();
    pollster::block_on(us.shutdown());
}

/// Asks each question and gets each answer, once and in order.
fn ask(
    connection: &Connection,
    told: &Receiver<Told>,
    handles: std::ops::Range<u64>,
    maps: &mut usize,
) {
    let mut expected = VecDeque::new();
    let mut asked = handles.start;
    while asked < handles.end || !expected.is_empty() {
        while asked < handles.end && (expected.len() as u64) < WINDOW {
            connection.send(question(asked)).unwrap();
            expected.push_back(asked);
            asked += 1;
        }
        match next(told) {
            Told::Answer(handle) => assert_eq!(Some(handle), expected.pop_front()),
            Told::Map { mons } => {
                assert_eq!(mons, 1);
                *maps += 1;
            }
            other => panic!("{other:?} with {} answers to come", expected.len()),
        }
    }
}

fn next(told: &Receiver<Told>) -> Told {
    told.recv_timeout(HUNG).expect("it is told in time")
}
