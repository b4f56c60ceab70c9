//! How queue pairs are connected: by Ceph's exchange over TCP, and by RDMA-CM.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use siphon_verbs::{
    CmEvent, CmEventKind, CmId, ConnectParameters, EventChannel, PathTo, QueuePair,
    QueuePairOptions, Transport,
};
use siphon_wire::buf::Rope;

use super::connector::Job;
use super::device::{Device, MAX_INLINE};
use super::driver::{AFTER_TCP, CM_STEP_MS, CmTransport, HELD, POSTED_MIN, RdmaDriver};
use super::record::{Record, path_mtu};
use super::socket::Stage;
use super::source::source_for;
use crate::driver::{Accepted, Completion, Driver, ListenerId, SocketId};
use crate::slab::Key;

/// Work requests of a queue pair's sends, at most: with chunks of 128 KiB, 4 MiB that are under way.
const SENDS_EACH: u32 = 32;
/// Those besides: the last one, and what tells that a dying queue pair is drained.
const LAST_SENDS: u32 = 2;
/// How far a packet may be routed, as Ceph has it.
const HOP_LIMIT: u8 = 6;

impl RdmaDriver {
    /// A queue pair for this connection, by RDMA-CM or to be connected by an exchange.
    pub(super) fn make_queue(&mut self, key: Key) -> io::Result<()> {
        if self.gone {
            return Err(self.device.gone());
        }
        let device = &self.device;
        let own = if self.shared.is_some() { 0 } else { device.options.receive_queue_len };
        let options = QueuePairOptions {
            max_send_wr: device.options.send_buffers.min(SENDS_EACH) + LAST_SENDS,
            max_recv_wr: own.min(POSTED_MIN as u32),
            max_send_sge: device.max_pieces() as u32,
            max_inline: MAX_INLINE,
        };
        // All that is posted may end at once.
        let shared = self.shared.as_ref().map_or(0, |_| device.options.receive_queue_len);
        let each = (options.max_send_wr + options.max_recv_wr) as usize;
        let queues = self.queues.len() + self.dying.len();
        if (queues + 1) * each + shared as usize > self.completions.depth() as usize {
            let message = format!(
                "{queues} RDMA connections are what one worker's completion queue has room for: more \
                 workers (ms_async_op_threads) take more"
            );
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, message));
        }
        let Some(socket) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        let (domain, done, shared) = (&device.domain, &self.completions, self.shared.as_ref());
        let queue = match &socket.cm {
            Some(id) => QueuePair::for_cm(id, domain, done, done, shared, options)?,
            None => {
                let mut queue = QueuePair::new(domain, done, done, shared, options)?;
                queue.init(device.options.port)?;
                queue
            }
        };
        device.set_max_inline(queue.options().max_inline);
        self.counters.created_queue_pair.fetch_add(1, Ordering::Relaxed);
        self.counters.active_queue_pair.fetch_add(1, Ordering::Relaxed);
        self.queues.insert(queue.id(), key);
        self.numbers.insert(queue.number(), key);
        socket.queue = Some(queue);
        socket.psn = random_psn();
        self.refill();
        Ok(())
    }

    /// Sends our record by the exchange's socket.
    pub(super) fn send_record(&mut self, key: Key, peer_qp_num: u32) {
        let Some(socket) = self.sockets.get(key) else {
            return;
        };
        if let (Some(record), Some(tcp)) = (socket.record(&self.device, peer_qp_num), socket.tcp) {
            let mut rope = Rope::from(bytes::Bytes::from(record.encode()));
            // An error comes by its completion; 65 bytes always have room.
            let _ = self.posix.send(tcp, &mut rope);
        }
    }

    /// Takes a step of the exchange with what has come by its socket.
    pub(super) fn exchange(&mut self, key: Key, bytes: &[u8]) -> io::Result<()> {
        let bad = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        let Some(socket) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        let (Stage::Record(have) | Stage::Acknowledgement(have)) = &mut socket.stage else {
            return Ok(()); // Ceph's last word, which nobody waits for
        };
        have.extend_from_slice(bytes);
        if !Record::may_begin_with(have) {
            return bad(
                "the peer does not speak Ceph's exchange for RDMA: has it ms_type = async+rdma?",
            );
        }
        let Some(record) = have.first_chunk().and_then(Record::decode) else {
            return Ok(()); // there is more to come
        };
        if matches!(socket.stage, Stage::Acknowledgement(_)) {
            socket.open();
            self.queue_turn(key);
            return Ok(());
        }
        // A peer that says nothing takes no queue pair.
        if socket.queue.is_none() {
            self.make_queue(key)?;
        }
        let (Some(gid), Some(socket)) = (&self.device.gid, self.sockets.get_mut(key)) else {
            return Ok(());
        };
        let path = PathTo {
            qp_num: record.qp_num,
            psn: record.psn,
            lid: record.lid,
            gid: record.gid,
            gid_index: gid.index,
            port: self.device.options.port,
            mtu: path_mtu(&self.device.port, record.lid),
            service_level: self.device.options.service_level,
            traffic_class: self.device.options.traffic_class,
            hop_limit: HOP_LIMIT,
        };
        if let Some(queue) = socket.queue.take() {
            socket.stage = Stage::Connecting(Vec::new());
            let (psn, done) = (socket.psn, Arc::clone(&self.connected));
            self.device.connector.connect(Job { key, queue, path, psn, done });
        }
        Ok(())
    }

    /// Takes the queue pairs back that were connected.
    pub(super) fn take_connected(&mut self) {
        for (key, queue, peer, result) in self.connected.take() {
            let Some(socket) = self.sockets.get_mut(key) else {
                self.bury(queue, None, None, false);
                continue;
            };
            socket.queue = Some(queue);
            if socket.has_failed() {
                continue;
            }
            let stage =
                if socket.accepted { Stage::Acknowledgement(Vec::new()) } else { Stage::Tcp };
            let before = mem::replace(&mut socket.stage, stage);
            if let Err(error) = result {
                self.fail(key, error.into());
                continue;
            }
            if !socket.accepted {
                socket.open();
            }
            self.send_record(key, peer);
            if let Stage::Connecting(early) = before {
                early.into_iter().for_each(|done| self.complete(done));
            }
            self.queue_turn(key);
        }
    }

    pub(super) fn tcp_received(&mut self, tcp: SocketId, result: io::Result<Vec<u8>>) {
        let Some(key) = self.exchanges.get(&tcp).copied() else {
            let now = self.posix.now();
            match (result, self.dying.iter_mut().find(|dying| dying.tcp == Some(tcp))) {
                (Ok(bytes), Some(_)) if !bytes.is_empty() => self.posix.recv(tcp, None),
                (_, Some(dying)) => dying.peer_gone(now),
                (_, None) => {}
            }
            return;
        };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        match result {
            Ok(bytes) if !bytes.is_empty() => {
                self.posix.recv(tcp, None);
                if let Err(error) = self.exchange(key, &bytes) {
                    self.fail(key, error);
                }
            }
            // What the peer has sent before may still be under way.
            Ok(_) | Err(_) if matches!(socket.stage, Stage::Open | Stage::Acknowledgement(_)) => {
                socket.tcp_ended = true;
                self.set_deadline(key, AFTER_TCP);
            }
            Ok(_) => {
                let message = "the peer closed the socket of the exchange: has it ms_type = async+rdma, \
                               and does it reach our GID? Its log says more";
                self.fail(key, io::Error::new(io::ErrorKind::ConnectionReset, message));
            }
            Err(error) => self.fail(key, error),
        }
    }

    pub(super) fn take_cm_events(&mut self, sink: &mut dyn FnMut(Instant, Completion<'_>)) {
        loop {
            let event = match self.cm.as_ref().map(|cm| cm.channel.next_event()) {
                Some(Ok(Some(event))) => event,
                Some(Err(error)) => return self.lose_device(&error.into()),
                _ => return,
            };
            self.apply_cm(event, sink);
        }
    }

    /// The routes lead to the peer by another device: connects from an address of ours.
    fn resolve_from_device(&mut self, key: Key, by: Option<&str>) -> io::Result<()> {
        let name = &self.device.context.device().name;
        let (Some(cm), Some(socket)) = (&mut self.cm, self.sockets.get_mut(key)) else {
            return Ok(());
        };
        let peer = socket.peer;
        let source = if socket.sourced { None } else { source_for(&cm.channel, name, peer) };
        let Some(source) = source else {
            let by = by.unwrap_or("no RDMA device");
            let message = format!(
                "{peer} is reached by {by} and not by {name}: name the device that the routes lead to, \
                 or give {name}'s interface an address of the peer's network"
            );
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
        };
        socket.sourced = true;
        let id = new_id(&cm.channel, &self.device)?;
        if let Some(before) = socket.cm.replace(id.clone()) {
            cm.ids.remove(&before.key());
        }
        cm.ids.insert(id.key(), key);
        Ok(id.resolve_addr(Some(source), peer, CM_STEP_MS)?)
    }

    pub(super) fn apply_cm(
        &mut self,
        event: CmEvent,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        let Some(cm) = &self.cm else { return };
        if let CmEventKind::ConnectRequest { id, .. } = event.kind {
            let listener = cm.listeners.find(|it| it.key() == event.id);
            let ours = id.device().is_some_and(|name| name == self.device.context.device().name);
            match (listener, id.peer_addr(), id.local_addr()) {
                (Some(key), Some(peer), Some(local)) if ours => {
                    let listener = ListenerId::from_bits(key.bits());
                    let accepted = Accepted::new(peer, local, CmTransport(id));
                    sink(self.posix.now(), Completion::Accepted { listener, accepted });
                }
                _ => drop(id.reject(b"")), // by another device, or nobody listens any more
            }
            return;
        }
        let Some(key) = cm.ids.get(&event.id).copied() else {
            let now = self.posix.now();
            if let (CmEventKind::Disconnected, Some(dying)) =
                (event.kind, self.dying.iter_mut().find(|dying| dying.is_of(event.id)))
            {
                dying.peer_gone(now);
            }
            return;
        };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(id) = socket.cm.clone() else { return };
        let refused = |message: String| io::Error::new(io::ErrorKind::ConnectionRefused, message);
        let result = match event.kind {
            CmEventKind::AddrResolved => {
                socket.local = id.local_addr();
                let name = &self.device.context.device().name;
                match id.device() {
                    Some(by) if by == *name => id.resolve_route(CM_STEP_MS).map_err(Into::into),
                    by => self.resolve_from_device(key, by.as_deref()),
                }
            }
            CmEventKind::RouteResolved => self.make_queue(key).and_then(|()| {
                let shared_receives = self.shared.is_some();
                let parameters = ConnectParameters { shared_receives, ..Default::default() };
                Ok(id.connect(&parameters)?)
            }),
            CmEventKind::Established { .. } => {
                if let Some(queue) = &mut socket.queue {
                    queue.established();
                }
                socket.open();
                let is_iwarp = self.device.context.device().transport == Transport::Iwarp;
                if socket.accepted && is_iwarp && !socket.heard {
                    socket.held_until = Some(self.posix.now() + HELD);
                    self.held.push(key);
                }
                Ok(())
            }
            CmEventKind::Rejected { status, .. } => {
                Err(refused(format!("nobody accepts RDMA there, or not now (status {status})")))
            }
            CmEventKind::Failed(error) => Err(error),
            CmEventKind::Disconnected => {
                while self.poll() {} // what came before
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.end();
                }
                Ok(())
            }
            CmEventKind::DeviceRemoved => {
                self.lose_device(&io::Error::other("the RDMA device was removed"));
                Ok(())
            }
            _ => Ok(()),
        };
        match result {
            Ok(()) => self.queue_turn(key),
            Err(error) => self.fail(key, error),
        }
    }
}

/// An identifier of RDMA-CM whose packets are marked as the options say.
pub(super) fn new_id(channel: &EventChannel, device: &Device) -> io::Result<CmId> {
    let id = channel.create()?;
    // Else iWARP's and RoCE's packets are unmarked.
    if let Err(error) = id.set_traffic_class(device.options.traffic_class) {
        tracing::debug!(%error, "traffic class not set");
    }
    Ok(id)
}

/// 24 bits that the connections of another time or process hardly had.
fn random_psn() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u32 & 0x00ff_ffff
}
