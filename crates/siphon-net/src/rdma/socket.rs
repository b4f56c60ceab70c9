//! A connection over a queue pair, and what is in flight on it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use siphon_verbs::{CmId, Piece, QueuePair, WorkCompletion};
use siphon_wire::buf::{Input, Rope};
use smallvec::SmallVec;

use super::counters::add;
use super::device::Device;
use super::pool::SendPool;
use super::record::{Record, told_lid};
use crate::FillBuf;
use crate::driver::{Completion, SendStatus, SocketId};
use crate::outgoing::Outgoing;

/// Segments from this many bytes on are sent from where they are, if that is registered.
const MIN_REGISTERED: usize = 512;
/// Work requests of which one, at least, tells of its end.
const SIGNAL_EVERY: usize = 8;
/// Work requests that are kept free, to tell the peer of our end.
const RESERVED: usize = 1;
/// What there is to send goes in so many messages of RDMA, so that the peer begins on the first while
/// the others are under way; none is shorter than this for it.
const PARTS: usize = 2;
const MIN_MESSAGE: usize = 32 << 10;
/// Bytes of a receive that came in several pieces.
const MAX_DELIVERED: usize = 64 << 10;
/// Work requests that are handed to the device at once.
const MAX_BATCH: usize = 64;

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Stage {
    /// The socket for the exchange over TCP connects.
    Tcp,
    /// The peer's record is awaited, of which this has come.
    Record(Vec<u8>),
    /// Accepting: the peer's record comes once more, as an acknowledgement.
    Acknowledgement(Vec<u8>),
    /// The queue pair is being connected, by a thread that has it; and what it received meanwhile.
    Connecting(Vec<WorkCompletion>),
    /// RDMA-CM connects, or is about to have accepted.
    Cm,
    /// Bytes go.
    Open,
    /// Connecting failed and was reported, or is about to be.
    Dead,
}

#[derive(Debug)]
enum Receive {
    Idle,
    Armed(Option<FillBuf>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stage: Stage,
    pub(super) accepted: bool,
    pub(super) queue: Option<QueuePair>,
    /// The exchange's, in the inner driver. Its end tells that the peer's process is gone.
    pub(super) tcp: Option<SocketId>,
    pub(super) cm: Option<CmId>,
    /// It connects from an address of the device's, as the routes lead elsewhere.
    pub(super) sourced: bool,
    /// The number of our first packet.
    pub(super) psn: u32,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<SocketAddr>,
    /// Nothing is sent before something has come, or until then. See [`HELD`](super::driver::HELD).
    pub(super) held_until: Option<Instant>,
    /// Something has come.
    pub(super) heard: bool,
    /// When it has failed if nothing else comes.
    pub(super) deadline: Option<Instant>,
    incoming: VecDeque<Bytes>,
    incoming_bytes: usize,
    ended: bool,
    failure: Option<Arc<io::Error>>,
    connected: Option<io::Result<()>>,
    receive: Receive,
    outgoing: Outgoing,
    sending: bool,
    shutdown: bool,
    said_end: bool,
    /// The exchange's socket was closed by the peer, which is as good as gone.
    pub(super) tcp_ended: bool,
    /// Work requests since the last one that tells of its end.
    unsignaled: usize,
    /// It was sent after the end.
    too_late: bool,
    /// It waits for a chunk, or room in its queue.
    pub(super) starved: bool,
    /// Whether the driver's turn queue holds it.
    pub(super) queued: bool,
}

impl Socket {
    pub(super) fn new(stage: Stage, accepted: bool, peer: SocketAddr) -> Self {
        Self {
            stage,
            accepted,
            queue: None,
            tcp: None,
            cm: None,
            sourced: false,
            psn: 0,
            peer,
            local: None,
            held_until: None,
            heard: false,
            deadline: None,
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            ended: false,
            failure: None,
            connected: None,
            receive: Receive::Idle,
            outgoing: Outgoing::default(),
            sending: false,
            shutdown: false,
            said_end: false,
            tcp_ended: false,
            unsignaled: 0,
            too_late: false,
            starved: false,
            queued: false,
        }
    }

    /// Our record, for the peer.
    pub(super) fn record(&self, device: &Device, peer_qp_num: u32) -> Option<Record> {
        let queue = self.queue.as_ref()?;
        let gid = device.gid.as_ref()?.gid;
        let (lid, qp_num, psn) = (told_lid(&device.port), queue.number(), self.psn);
        Some(Record { lid, qp_num, psn, peer_qp_num, gid })
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open) && self.failure.is_none()
    }

    /// Whether bytes may go now.
    pub(super) fn may_send(&self) -> bool {
        self.is_open() && self.held_until.is_none()
    }

    /// Nothing goes any more, or never did.
    pub(super) fn has_failed(&self) -> bool {
        let connecting = matches!(self.connected, Some(Err(_)));
        self.failure.is_some() || connecting || matches!(self.stage, Stage::Dead)
    }

    /// Bytes go from here on.
    pub(super) fn open(&mut self) {
        if matches!(self.stage, Stage::Open | Stage::Dead) {
            return;
        }
        self.stage = Stage::Open;
        if !self.tcp_ended {
            self.deadline = None;
        }
        if !self.accepted {
            self.connected = Some(Ok(()));
        }
    }

    /// Nothing goes any more. What has arrived is still delivered.
    pub(super) fn fail(&mut self, error: io::Error) {
        if self.failure.is_some() {
            return;
        }
        tracing::debug!(peer = %self.peer, %error, "RDMA connection failed");
        self.deadline = None;
        if matches!(self.stage, Stage::Open) || self.accepted {
            self.failure = Some(Arc::new(error));
        } else if self.connected.is_none() && !matches!(self.stage, Stage::Dead) {
            self.connected = Some(Err(error));
        }
    }

    /// The peer said that nothing more comes.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.incoming_bytes += bytes.len();
        self.incoming.push_back(bytes);
    }

    /// Bytes that arrived and were not read.
    pub(super) fn unread(&self) -> usize {
        self.incoming_bytes
    }

    /// Whether a [`turn`](Self::turn) would do anything.
    pub(super) fn wants_turn(&self) -> bool {
        let failed = self.failure.is_some();
        let goes = self.may_send() && !self.starved;
        let sends = self.sending && (failed || self.too_late || goes);
        let receives = !self.incoming.is_empty() || self.ended || failed;
        self.connected.is_some()
            || sends
            || (receives && matches!(self.receive, Receive::Armed(_)))
            || (self.shutdown && !self.said_end && self.may_send() && !self.sending)
    }

    pub(super) fn arm(&mut self, fill: Option<FillBuf>) {
        assert!(matches!(self.receive, Receive::Idle), "one receive at a time for a socket");
        self.receive = Receive::Armed(fill);
    }

    pub(super) fn send(
        &mut self,
        rope: &mut Rope,
        device: &Device,
        pool: &mut SendPool,
    ) -> SendStatus {
        assert!(!self.sending, "one send at a time for a socket");
        self.outgoing.load(rope);
        self.sending = true;
        if self.shutdown {
            self.too_late = true;
            return SendStatus::Pending;
        }
        if self.may_send() {
            self.pump(device, pool);
            if self.outgoing.is_empty() && self.failure.is_none() {
                self.finish_send();
                return SendStatus::Complete;
            }
        }
        SendStatus::Pending
    }

    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        if self.failure.is_some() || matches!(self.stage, Stage::Dead) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.shutdown = true;
        Ok(())
    }

    /// Does what can be done now, and reports what ended.
    pub(super) fn turn(
        &mut self,
        id: SocketId,
        now: Instant,
        device: &Device,
        pool: &mut SendPool,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        if let Some(result) = self.connected.take() {
            if result.is_err() {
                self.stage = Stage::Dead;
            }
            sink(now, Completion::Connected { socket: id, result });
        }
        if matches!(self.stage, Stage::Dead) {
            return;
        }
        if self.sending && self.may_send() && !self.too_late {
            self.pump(device, pool);
        }
        if mem::take(&mut self.too_late) {
            self.finish_send();
            let result = Err(io::ErrorKind::BrokenPipe.into());
            sink(now, Completion::Sent { socket: id, result });
        } else if self.sending
            && let Some(error) = self.error()
        {
            self.finish_send();
            sink(now, Completion::Sent { socket: id, result: Err(error) });
        } else if self.sending && self.outgoing.is_empty() && self.may_send() {
            self.finish_send();
            sink(now, Completion::Sent { socket: id, result: Ok(()) });
        }
        if self.shutdown && !self.sending && self.may_send() {
            self.say_end();
        }
        self.deliver(id, now, sink);
    }

    /// Tells the peer that nothing more comes: a message of no bytes, as Ceph does.
    pub(super) fn say_end(&mut self) {
        if self.said_end {
            return;
        }
        self.said_end = true;
        if let Some(queue) = &mut self.queue {
            let mut batch = queue.batch();
            // Its room is reserved; if it does not go, the peer learns by its own means.
            let _ = batch.send(&mut SmallVec::new(), true);
            if let Err(unsent) = batch.post() {
                tracing::debug!(error = %unsent.error, "the end could not be told");
            }
        }
    }

    fn error(&self) -> Option<io::Error> {
        self.failure.as_ref().map(|error| io::Error::new(error.kind(), Arc::clone(error)))
    }

    fn deliver(
        &mut self,
        id: SocketId,
        now: Instant,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) {
        let Receive::Armed(mut fill) = mem::replace(&mut self.receive, Receive::Idle) else {
            return;
        };
        // What waits comes at once, so that its answers share a work request.
        let mut delivered = 0;
        while let Some(next) = self.incoming.front()
            && (delivered == 0 || delivered + next.len() <= MAX_DELIVERED)
            && let Some(bytes) = self.incoming.pop_front()
        {
            delivered += bytes.len();
            self.incoming_bytes -= bytes.len();
            let (result, fill, bytes) = (Ok(bytes.len()), fill.take(), Input::from(&bytes));
            sink(now, Completion::Received { socket: id, result, fill, bytes });
        }
        if delivered > 0 {
            return;
        }
        if self.ended || self.failure.is_some() {
            let result = if self.ended { Ok(0) } else { Err(self.error().expect("it failed")) };
            let bytes = Input::default();
            sink(now, Completion::Received { socket: id, result, fill, bytes });
        } else {
            self.receive = Receive::Armed(fill);
        }
    }

    fn finish_send(&mut self) {
        self.sending = false;
        self.starved = false;
        self.outgoing.clear();
    }

    /// Posts what can be posted now.
    fn pump(&mut self, device: &Device, pool: &mut SendPool) {
        self.starved = false;
        let Some(queue) = &mut self.queue else {
            return;
        };
        let mut pieces = SmallVec::new();
        while !self.outgoing.is_empty() && !self.starved {
            let mut batch = queue.batch();
            let (mut added, mut waited_for) = (0, false);
            while !self.outgoing.is_empty() && added < MAX_BATCH {
                self.starved = batch.room() <= RESERVED
                    || !gather(&mut self.outgoing, device, pool, &mut pieces);
                if self.starved {
                    break;
                }
                added += 1;
                self.unsignaled += 1;
                // Of a queue that this one fills something has to come back.
                let fills = batch.room() <= RESERVED + 1;
                let signaled = fills || self.unsignaled >= SIGNAL_EVERY;
                if signaled {
                    (self.unsignaled, waited_for) = (0, false);
                } else {
                    // Buffers of the application.
                    waited_for |= pieces.iter().any(|piece| matches!(piece, Piece::Registered(..)));
                }
                if let Err(refused) = batch.send(&mut pieces, signaled) {
                    unreachable!("it was made to fit: {refused:?}");
                }
            }
            // What somebody waits for tells of its end at once, be it we or chunks run short.
            if (waited_for || self.starved || pool.is_short()) && batch.signal_last() {
                self.unsignaled = 0;
            }
            match batch.post() {
                Ok(posted) => add(&pool.counters.tx_wr, posted),
                Err(unsent) => {
                    add(&pool.counters.tx_failed_post, 1);
                    unsent.pieces.into_iter().for_each(|piece| recycle(piece, pool));
                    self.fail(unsent.error.into());
                    return;
                }
            }
        }
        if self.starved {
            add(&pool.counters.tx_parital_mem, 1);
        }
    }
}

/// Puts a piece's chunk back.
pub(super) fn recycle(piece: Piece, pool: &mut SendPool) {
    if let Piece::Chunk(chunk, _) = piece {
        pool.give_back(chunk);
    }
}

/// Adds the pieces of the next message of RDMA: up to a chunk's bytes. False if there is no chunk to copy
/// into.
fn gather(
    outgoing: &mut Outgoing,
    device: &Device,
    pool: &mut SendPool,
    pieces: &mut SmallVec<[Piece; 3]>,
) -> bool {
    let most_pieces = device.max_pieces();
    let (segments, offset) = outgoing.segments();
    if outgoing.remaining() <= device.max_inline() && segments.len() <= most_pieces {
        let mut offset = offset;
        for segment in segments {
            pieces.push(Piece::Inline(segment.slice(offset..)));
            offset = 0;
        }
        add(&pool.counters.tx_inline_bytes, outgoing.remaining());
        add(&pool.counters.tx_bytes, outgoing.remaining());
        let all = outgoing.remaining();
        outgoing.advance(all);
        return true;
    }
    let mut room = (outgoing.remaining() / PARTS).max(MIN_MESSAGE).min(device.options.buffer_size);
    let mut bytes = 0;
    while room > 0 && pieces.len() < most_pieces && !outgoing.is_empty() {
        let (segments, offset) = outgoing.segments();
        let segment = &segments[0];
        let len = (segment.len() - offset).min(room);
        if let Some(region) = registered(device, &segment[offset..]) {
            pieces.push(Piece::Registered(segment.slice(offset..offset + len), region));
            outgoing.advance(len);
            (room, bytes) = (room - len, bytes + len);
            continue;
        }
        let run = run_to_copy(outgoing, device, room);
        let Some(mut chunk) = pool.take(device, run) else {
            break;
        };
        let copied = copy_run(outgoing, &mut chunk[..], run);
        add(&pool.counters.tx_copied_bytes, copied);
        pieces.push(Piece::Chunk(chunk, copied));
        (room, bytes) = (room - copied, bytes + copied);
    }
    add(&pool.counters.tx_chunks, pieces.len());
    add(&pool.counters.tx_bytes, bytes);
    !pieces.is_empty()
}

fn registered(device: &Device, bytes: &[u8]) -> Option<siphon_verbs::Region> {
    if bytes.len() < MIN_REGISTERED { None } else { device.region_of(bytes) }
}

/// How many bytes there are, up to `most`, before some that can be sent from where they are.
fn run_to_copy(outgoing: &Outgoing, device: &Device, most: usize) -> usize {
    let (segments, mut offset) = outgoing.segments();
    let mut run = 0;
    for segment in segments {
        if run >= most || (run > 0 && registered(device, segment).is_some()) {
            break;
        }
        run += segment.len() - offset;
        offset = 0;
    }
    run.min(most)
}

/// Copies `run` bytes, or what the chunk has room for.
fn copy_run(outgoing: &mut Outgoing, chunk: &mut [u8], run: usize) -> usize {
    let wanted = run.min(chunk.len());
    let mut copied = 0;
    while copied < wanted {
        let (segments, offset) = outgoing.segments();
        let from = &segments[0][offset..];
        let len = from.len().min(wanted - copied);
        chunk[copied..copied + len].copy_from_slice(&from[..len]);
        copied += len;
        outgoing.advance(len);
    }
    copied
}
