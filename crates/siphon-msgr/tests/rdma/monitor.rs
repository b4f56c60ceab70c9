//! A real monitor with `ms_type = async+rdma`, in both directions of connecting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::Duration;

use siphon_messages::{MMonGetMap, MMonMap, TypedMessage};
use siphon_msgr::{Connection, Dispatcher, Stack};
use siphon_peers::{CephMon, MonOptions, MonProtocols, require};
use siphon_proto::{Message, Policy};
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityType};

use crate::common::{bound, messenger};
use crate::{HUNG, devices, rdma};

/// Counts what a monitor answers, and tells who asks it for its state.
struct Maps {
    monitors: usize,
    answered: Sender<()>,
    probed: Sender<Connection>,
}

impl Maps {
    fn new(monitors: usize) -> (Arc<Self>, Receiver<()>, Receiver<Connection>) {
        let ((answered, answers), (probed, probes)) = (channel(), channel());
        (Arc::new(Self { monitors, answered, probed }), answers, probes)
    }
}

impl Dispatcher for Maps {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        /// `MSG_MON_PROBE`.
        const PROBE: u16 = 67;
        if message.header.msg_type == MMonMap::TYPE {
            let map = MMonMap::from_message(&message).unwrap();
            assert_eq!(map.monmap.by_rank().count(), self.monitors);
            let _ = self.answered.send(());
        } else if message.header.msg_type == PROBE {
            let _ = self.probed.send(connection.clone());
        }
    }
}

/// Has the monitor answer so often on one session.
fn ask(connection: &Connection, answers: &Receiver<()>, count: usize) {
    for at in 0..count + 16 {
        if at < count {
            connection.send(MMonGetMap.into_out()).unwrap();
        }
        if at >= 16 {
            answers.recv_timeout(HUNG).expect("an answer in time");
        }
    }
}

fn monitor_by_rdma(others: Vec<(String, SocketAddr)>) -> Option<CephMon> {
    let config = [
        "ms_type = async+rdma",
        "ms_async_rdma_device_name = rxe0",
        "ms_async_rdma_gid_idx = 1",
        "ms_async_rdma_receive_queue_len = 256",
        "ms_async_rdma_receive_buffers = 1024",
        "ms_async_rdma_send_buffers = 64",
    ];
    let config = config.map(str::to_owned).to_vec();
    let protocols = MonProtocols::V2;
    let options = MonOptions { protocols, config, others, ..MonOptions::default() };
    require(CephMon::start(options))
}

#[test]
fn a_real_monitor_answers_by_rdma_and_is_survived() {
    let Some(_alone) = devices() else { return };
    let Some(mut mon) = monitor_by_rdma(Vec::new()) else { return };
    let addrs: EntityAddrVec = EntityAddr::msgr2(mon.addr_v2().unwrap(), 0).into();
    let context = rdma("rxe0", "", |_| {});
    let stack = Stack::new(&context).unwrap();
    let (maps, answers, _) = Maps::new(1);
    let us = messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[maps]);
    // As Ceph's clients do: who gets no answer for some seconds opens another session.
    let open = || {
        for _ in 0..50 {
            let connection = us.connect_to(EntityType::MON, addrs.clone());
            if pollster::block_on(connection.attempt()).is_ok()
                && connection.send(MMonGetMap.into_out()).is_ok()
                && answers.recv_timeout(Duration::from_secs(5)).is_ok()
            {
                return connection;
            }
            connection.mark_down();
            sleep(Duration::from_millis(200));
        }
        panic!("the monitor opens no session");
    };
    for count in [1000, 100] {
        let connection = open();
        ask(&connection, &answers, count);
        connection.mark_down();
        if count == 1000 {
            mon.kill().unwrap();
            mon.restart().unwrap();
        }
    }
    println!("{:?}", stack.rdma().unwrap().counts());
}

/// A monitor looks for the others of its cluster, of which we are one: the session is of its making.
#[test]
fn a_real_monitor_connects_to_us_by_rdma() {
    let Some(_alone) = devices() else { return };
    let context = rdma("rxe0", "", |_| {});
    let stack = Stack::new(&context).unwrap();
    let (maps, answers, probes) = Maps::new(2);
    let us = messenger(&context, &stack, EntityType::MON, Policy::LOSSLESS_PEER, &[maps]);
    let addrs = bound(&us, &["v2:127.0.0.1:0/0"]);
    let ours = addrs.front().socket_addr().unwrap();
    let Some(mut mon) = monitor_by_rdma(vec![("b".to_owned(), ours)]) else { return };
    for count in [1000, 100] {
        let connection = probes.recv_timeout(HUNG).expect("the monitor looks for us");
        ask(&connection, &answers, count);
        if count == 1000 {
            mon.kill().unwrap();
            // What it had sent before may still come.
            for connection in probes.try_iter() {
                connection.mark_down();
            }
            mon.restart().unwrap();
        }
    }
    println!("{:?}", stack.rdma().unwrap().counts());
}
