use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::cm::CmId;
use crate::completion::{CompletionQueue, QueueId, WorkCompletion, WorkStatus};
use crate::context::Mtu;
use crate::error::VerbsError;
use crate::ffi::{self, mask, qps};
use crate::memory::{Chunk, InFlight, ProtectionDomain, Region, leaked};
use crate::receive::{self, Received, SharedReceiveQueue};
use crate::sysfs::Gid;

/// How long a queue pair's queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairOptions {
    /// Sends that are not completed.
    pub max_send_wr: u32,
    /// Receives that are not completed; 0 with a shared receive queue.
    pub max_recv_wr: u32,
    /// Pieces of memory of one send.
    pub max_send_sge: u32,
    /// Bytes of a send that the device copies when it is posted.
    pub max_inline: u32,
}

/// `ibv_qp_state`, as far as we take it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePairState {
    /// Of a port; receives may be posted.
    Init,
    /// Ready to receive from its peer.
    ReadyToReceive,
    /// Ready to send as well.
    ReadyToSend,
    /// Dying: what is posted comes back, flushed.
    Error,
}

/// Where the peer of a queue pair is, and how packets go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathTo {
    /// The peer's queue pair.
    pub qp_num: u32,
    /// Its first packet's number, of 24 bits.
    pub psn: u32,
    /// Its port's address in an InfiniBand subnet.
    pub lid: u16,
    /// Its port's GID.
    pub gid: Gid,
    /// The index of our GID.
    pub gid_index: u8,
    /// Our port.
    pub port: u8,
    /// The longest packets that both sides take.
    pub mtu: Mtu,
    /// The service level.
    pub service_level: u8,
    /// The traffic class (DSCP and ECN bits).
    pub traffic_class: u8,
    /// How many routers a packet may cross.
    pub hop_limit: u8,
}

/// A reliable connection (RC): sends and receives, in order, with one peer.
pub struct QueuePair {
    raw: NonNull<ffi::Qp>,
    id: QueueId,
    state: QueuePairState,
    options: QueuePairOptions,
    domain: ProtectionDomain,
    receives: InFlight,
    /// In the order they were posted, which is that of completions.
    sends: VecDeque<Sent>,
    next_send: u32,
    /// Kept for their allocations.
    sges: Vec<ffi::Sge>,
    wrs: Vec<ffi::SendWr>,
    /// Who destroys it, and whether it was done.
    owner: Owner,
    released: bool,
    _completions: [CompletionQueue; 2],
    _shared: Option<Arc<receive::Shared>>,
}

enum Owner {
    Verbs,
    Cm(CmId),
}

// SAFETY: libibverbs locks its queue pairs; the pointer is handed to it only.
unsafe impl Send for QueuePair {}

/// A send that the device has.
struct Sent {
    slot: u32,
    pieces: SmallVec<[Piece; 3]>,
}

/// Memory that a send is made of.
#[derive(Debug)]
pub enum Piece {
    /// The first bytes of a chunk.
    Chunk(Chunk, usize),
    /// Bytes that lie in a region.
    Registered(Bytes, Region),
    /// Any bytes, in sends that go inline.
    Inline(Bytes),
}

impl Piece {
    /// Its bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Chunk(_, len) => *len,
            Self::Registered(bytes, _) | Self::Inline(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl QueuePair {
    /// A queue pair whose peer will be told by [`connect`](Self::connect). What ends is told by
    /// `sends` and `receives`, which may be the same.
    ///
    /// # Errors
    /// What the device says, among it that a queue is longer than it allows.
    pub fn new(
        domain: &ProtectionDomain,
        sends: &CompletionQueue,
        receives: &CompletionQueue,
        shared: Option<&SharedReceiveQueue>,
        options: QueuePairOptions,
    ) -> Result<Self, VerbsError> {
        let mut attr = init_attr(sends, receives, shared, options);
        // SAFETY: the domain lives, and the attributes are whole.
        let raw = unsafe { (domain.ibv().ibv_create_qp)(domain.raw(), &raw mut attr) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_create_qp"))?;
        let options = QueuePairOptions { max_inline: attr.cap.max_inline_data, ..options };
        let queues = [sends.clone(), receives.clone()];
        Ok(Self::own(raw, domain, queues, shared, options, Owner::Verbs))
    }

    /// A queue pair of a connection by RDMA-CM, which takes it through its states.
    ///
    /// # Errors
    /// As of [`new`](Self::new), and if the domain is not of the connection's device.
    pub fn for_cm(
        id: &CmId,
        domain: &ProtectionDomain,
        sends: &CompletionQueue,
        receives: &CompletionQueue,
        shared: Option<&SharedReceiveQueue>,
        options: QueuePairOptions,
    ) -> Result<Self, VerbsError> {
        let mut attr = init_attr(sends, receives, shared, options);
        let raw = id.create_qp(domain, &mut attr)?;
        let options = QueuePairOptions { max_inline: attr.cap.max_inline_data, ..options };
        let queues = [sends.clone(), receives.clone()];
        Ok(Self::own(raw, domain, queues, shared, options, Owner::Cm(id.clone())))
    }

    fn own(
        raw: NonNull<ffi::Qp>,
        domain: &ProtectionDomain,
        completions: [CompletionQueue; 2],
        shared: Option<&SharedReceiveQueue>,
        options: QueuePairOptions,
        owner: Owner,
    ) -> Self {
        Self {
            raw,
            id: QueueId::next(),
            state: QueuePairState::Init,
            options,
            domain: domain.clone(),
            receives: InFlight::default(),
            sends: VecDeque::new(),
            next_send: 0,
            sges: Vec::new(),
            wrs: Vec::new(),
            owner,
            released: false,
            _completions: completions,
            _shared: shared.map(|queue| Arc::clone(queue.shared())),
        }
    }

    /// Which queue its own work requests are of.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        // SAFETY: the queue pair lives.
        unsafe { self.raw.as_ref().qp_num }
    }

    /// Its state. RDMA-CM takes its own to [`QueuePairState::ReadyToSend`]: see
    /// [`established`](Self::established).
    pub fn state(&self) -> QueuePairState {
        self.state
    }

    /// Its queues' lengths, and what the device takes inline.
    pub fn options(&self) -> &QueuePairOptions {
        &self.options
    }

    /// Binds it to a port, before anything else.
    ///
    /// # Errors
    /// What the device says.
    pub fn init(&mut self, port: u8) -> Result<(), VerbsError> {
        let mut attr =
            ffi::QpAttr { qp_state: qps::INIT, port_num: port, ..ffi::QpAttr::default() };
        let what = mask::STATE | mask::PKEY_INDEX | mask::PORT | mask::ACCESS_FLAGS;
        self.modify("ibv_modify_qp (INIT)", &mut attr, what)?;
        self.state = QueuePairState::Init;
        Ok(())
    }

    /// Connects it with its peer: it receives and sends from here on. `psn` is the number of our first
    /// packet, as the peer was told.
    ///
    /// The retries are as Ceph has them: about 1 s apart in sum, seven times; for a peer that has no
    /// chunk posted, for ever.
    ///
    /// # Errors
    /// What the device says, usually that the peer's GID can't be reached from ours.
    pub fn connect(&mut self, path: &PathTo, psn: u32) -> Result<(), VerbsError> {
        let (first, second) = path.gid.0.split_at(8);
        let half = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight of sixteen"));
        let mut attr = ffi::QpAttr {
            qp_state: qps::RTR,
            path_mtu: path.mtu.0,
            dest_qp_num: path.qp_num,
            rq_psn: path.psn & PSN_MASK,
            max_dest_rd_atomic: 1,
            min_rnr_timer: MIN_RNR_TIMER,
            ah_attr: ffi::AhAttr {
                dgid: [half(first), half(second)],
                sgid_index: path.gid_index,
                hop_limit: path.hop_limit,
                traffic_class: path.traffic_class,
                dlid: path.lid,
                sl: path.service_level,
                is_global: 1,
                port_num: path.port,
                ..ffi::AhAttr::default()
            },
            ..ffi::QpAttr::default()
        };
        let what = mask::STATE
            | mask::AV
            | mask::PATH_MTU
            | mask::DEST_QPN
            | mask::RQ_PSN
            | mask::MAX_DEST_RD_ATOMIC
            | mask::MIN_RNR_TIMER;
        self.modify("ibv_modify_qp (RTR)", &mut attr, what)?;
        self.state = QueuePairState::ReadyToReceive;
        let mut attr = ffi::QpAttr {
            qp_state: qps::RTS,
            timeout: ACK_TIMEOUT,
            retry_cnt: 7,
            rnr_retry: 7,
            sq_psn: psn & PSN_MASK,
            max_rd_atomic: 1,
            ..ffi::QpAttr::default()
        };
        let what = mask::STATE
            | mask::TIMEOUT
            | mask::RETRY_CNT
            | mask::RNR_RETRY
            | mask::SQ_PSN
            | mask::MAX_RD_ATOMIC;
        self.modify("ibv_modify_qp (RTS)", &mut attr, what)?;
        self.state = QueuePairState::ReadyToSend;
        Ok(())
    }

    /// RDMA-CM said that the connection stands.
    pub fn established(&mut self) {
        if matches!(self.owner, Owner::Cm(_)) && self.state != QueuePairState::Error {
            self.state = QueuePairState::ReadyToSend;
        }
    }

    /// Has it die: what is posted comes back, flushed.
    ///
    /// # Errors
    /// What the device says, among it that it is gone.
    pub fn fail(&mut self) -> Result<(), VerbsError> {
        let mut attr = ffi::QpAttr { qp_state: qps::ERR, ..ffi::QpAttr::default() };
        self.state = QueuePairState::Error;
        self.modify("ibv_modify_qp (ERR)", &mut attr, mask::STATE)
    }

    /// Sends that the device has, and those of a batch.
    pub fn sends(&self) -> usize {
        self.sends.len()
    }

    /// Sends that may be posted now, or added to a batch.
    pub fn room(&self) -> usize {
        (self.options.max_send_wr as usize).saturating_sub(self.sends.len())
    }

    /// Begins to put sends together, which are posted at once.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch { queue: self }
    }

    /// Posts chunks to be received into, if it has a queue of its own for them. What the device has no
    /// room for is left.
    ///
    /// # Errors
    /// What the device says: the chunks that it did not take are left.
    pub fn post_receives(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), VerbsError> {
        let raw = self.raw.as_ptr();
        let post = self.domain.context().ops().post_recv;
        receive::post_chunks(&mut self.receives, self.id, &self.domain, chunks, |first, bad| {
            // SAFETY: the queue pair lives, and the chain is whole.
            VerbsError::check("ibv_post_recv", unsafe { post(raw, first, bad) })
        })
    }

    /// Chunks that are posted to its own receive queue.
    pub fn receives(&self) -> usize {
        self.receives.len()
    }

    /// The chunk of a receive of its own that ended.
    ///
    /// # Errors
    /// The completion, if it is of a send, or not of this queue.
    pub fn complete_receive(&mut self, done: WorkCompletion) -> Result<Received, WorkCompletion> {
        if done.slot() & SEND != 0 {
            return Err(done);
        }
        receive::complete(&mut self.receives, self.id, done)
    }

    /// Lets go of the sends up to one that ended, in the order of their posting, and gives what they
    /// were made of to `back`.
    ///
    /// # Errors
    /// The completion, if it is of a receive, or not of this queue.
    pub fn complete_send(
        &mut self,
        done: WorkCompletion,
        back: &mut dyn FnMut(Piece),
    ) -> Result<Posted, WorkCompletion> {
        if done.queue() != self.id || done.slot() & SEND == 0 {
            return Err(done);
        }
        let slot = done.slot();
        let Some(at) = self.sends.iter().position(|sent| sent.slot == slot) else {
            return Err(done);
        };
        let mut posted = Posted { sends: 0, status: done.status() };
        for sent in self.sends.drain(..=at) {
            posted.sends += 1;
            sent.pieces.into_iter().for_each(&mut *back);
        }
        Ok(posted)
    }

    /// Destroys it, and gives back what the device still had: of its sends and of its own receives.
    ///
    /// Where the device refuses, it may still write to them: then nothing comes back, ever.
    pub fn destroy(mut self) -> (Vec<Piece>, Vec<Chunk>) {
        self.release();
        let sends = std::mem::take(&mut self.sends);
        let receives = std::mem::take(&mut self.receives);
        (sends.into_iter().flat_map(|sent| sent.pieces).collect(), receives.into_chunks())
    }

    /// Has the device let go of all that was posted.
    fn release(&mut self) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        let refused = match &self.owner {
            Owner::Verbs => {
                // SAFETY: it is destroyed once, as `released` tells, and nobody else has the pointer.
                let result = unsafe { (self.domain.ibv().ibv_destroy_qp)(self.raw.as_ptr()) };
                leaked("ibv_destroy_qp", result);
                result != 0
            }
            Owner::Cm(id) => {
                id.destroy_qp();
                false
            }
        };
        if refused {
            std::mem::forget(std::mem::take(&mut self.sends));
            std::mem::forget(std::mem::take(&mut self.receives));
        }
    }

    fn modify(
        &mut self,
        call: &'static str,
        attr: &mut ffi::QpAttr,
        what: i32,
    ) -> Result<(), VerbsError> {
        // SAFETY: the queue pair lives, and the attributes that `what` names are set.
        let result = unsafe { (self.domain.ibv().ibv_modify_qp)(self.raw.as_ptr(), attr, what) };
        VerbsError::check(call, result)
    }
}

/// The top bit of a work request's slot tells sends from receives of one queue pair.
const SEND: u32 = 1 << 31;
const PSN_MASK: u32 = (1 << 24) - 1;
/// 4.096 us × 2^18: about 1 s, of which the device takes up to twice as much.
const ACK_TIMEOUT: u8 = 18;
/// 0.64 ms, the code 12: how long a sender waits for a receiver that has nothing posted.
const MIN_RNR_TIMER: u8 = 12;

/// Sends that ended together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// How many.
    pub sends: usize,
    /// How the last of them ended; those before it, which asked for no word, alike.
    pub status: WorkStatus,
}

/// Sends that are put together. What is not posted is given back when it is dropped: see
/// [`post`](Self::post).
#[derive(Debug)]
pub struct Batch<'a> {
    queue: &'a mut QueuePair,
}

/// Why a send can't be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefused {
    /// The queue is full until some of it ends.
    NoRoom,
    /// It has more pieces than the queue pair was made for.
    TooManyPieces,
    /// A piece is not registered with the queue pair's domain, and the whole too long to go inline.
    NotRegistered,
}

/// Sends that the device did not take.
#[derive(Debug)]
pub struct Unsent {
    /// Why.
    pub error: VerbsError,
    /// What they were made of.
    pub pieces: Vec<Piece>,
}

impl Batch<'_> {
    /// Sends that may still be added.
    pub fn room(&self) -> usize {
        self.queue.room()
    }

    /// Adds a send made of these pieces, as one message; none is an empty message. A `signaled` one
    /// tells of its end, and of all before it.
    ///
    /// # Errors
    /// What does not fit. The pieces are left then.
    pub fn send(
        &mut self,
        pieces: &mut SmallVec<[Piece; 3]>,
        signaled: bool,
    ) -> Result<(), SendRefused> {
        let queue = &mut *self.queue;
        let options = queue.options;
        let len: usize = pieces.iter().map(Piece::len).sum();
        let inline = len > 0 && len <= options.max_inline as usize;
        let fits = |piece: &Piece| match piece {
            Piece::Chunk(chunk, len) => {
                *len <= chunk.len() && chunk.region().domain().is(&queue.domain)
            }
            Piece::Registered(bytes, region) => {
                region.domain().is(&queue.domain) && region.contains(bytes)
            }
            Piece::Inline(_) => inline,
        };
        if queue.room() == 0 {
            return Err(SendRefused::NoRoom);
        }
        if pieces.len() > options.max_send_sge as usize {
            return Err(SendRefused::TooManyPieces);
        }
        if u32::try_from(len).is_err() || !pieces.iter().all(fits) {
            return Err(SendRefused::NotRegistered);
        }
        for piece in pieces.iter() {
            queue.sges.push(match piece {
                Piece::Chunk(chunk, len) => chunk.sge(*len),
                Piece::Registered(bytes, region) => sge(bytes, region.lkey()),
                Piece::Inline(bytes) => sge(bytes, 0),
            });
        }
        let slot = SEND | queue.next_send;
        queue.next_send = (queue.next_send + 1) & !SEND;
        let mut send_flags = 0;
        if signaled {
            send_flags |= ffi::SEND_SIGNALED;
        }
        if inline {
            send_flags |= ffi::SEND_INLINE;
        }
        queue.wrs.push(ffi::SendWr {
            wr_id: queue.id.work_request(slot),
            next: std::ptr::null_mut(),
            sg_list: std::ptr::null_mut(),
            num_sge: pieces.len() as i32,
            opcode: ffi::WR_SEND,
            send_flags,
            imm_data: 0,
            unions: [0; 11],
        });
        queue.sends.push_back(Sent { slot, pieces: std::mem::take(pieces) });
        Ok(())
    }

    /// Has the last that was added tell of its end, and of all before it. Whether there is one.
    pub fn signal_last(&mut self) -> bool {
        let last = self.queue.wrs.last_mut();
        last.map(|last| last.send_flags |= ffi::SEND_SIGNALED).is_some()
    }

    /// Posts them, as one chain.
    ///
    /// # Errors
    /// What the device says, with what it did not take.
    pub fn post(self) -> Result<usize, Unsent> {
        let queue = &mut *self.queue;
        let (mut next, mut at) = (std::ptr::null_mut(), queue.sges.len());
        for wr in queue.wrs.iter_mut().rev() {
            at -= wr.num_sge as usize;
            wr.sg_list =
                if wr.num_sge == 0 { std::ptr::null_mut() } else { &raw mut queue.sges[at] };
            wr.next = next;
            next = wr;
        }
        let count = queue.wrs.len();
        if count == 0 {
            return Ok(0);
        }
        let post = queue.domain.context().ops().post_send;
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair lives, the chain is whole, and what its pieces point at is in `sends`
        // until the device has said that it let go, or is destroyed.
        let result = unsafe { post(queue.raw.as_ptr(), next, &raw mut bad) };
        let taken = match result {
            0 => count,
            // A device that does not say which one it refused may have all of them.
            _ => queue.wrs.iter().position(|wr| std::ptr::eq(wr, bad)).unwrap_or(count),
        };
        let left = queue.sends.len() - (count - taken);
        queue.wrs.clear();
        queue.sges.clear();
        match VerbsError::check("ibv_post_send", result) {
            Ok(()) => Ok(count),
            Err(error) => {
                let pieces = queue.sends.drain(left..).flat_map(|sent| sent.pieces).collect();
                Err(Unsent { error, pieces })
            }
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // What was not posted is nobody's any more.
        let left = self.queue.sends.len() - self.queue.wrs.len();
        self.queue.sends.truncate(left);
        self.queue.wrs.clear();
        self.queue.sges.clear();
    }
}

fn sge(bytes: &Bytes, lkey: u32) -> ffi::Sge {
    let addr = bytes.as_ptr().expose_provenance() as u64;
    ffi::Sge { addr, length: bytes.len() as u32, lkey }
}

fn init_attr(
    sends: &CompletionQueue,
    receives: &CompletionQueue,
    shared: Option<&SharedReceiveQueue>,
    options: QueuePairOptions,
) -> ffi::QpInitAttr {
    ffi::QpInitAttr {
        qp_context: std::ptr::null_mut(),
        send_cq: sends.raw(),
        recv_cq: receives.raw(),
        srq: shared.map_or(std::ptr::null_mut(), |queue| queue.shared().raw()),
        cap: ffi::QpCap {
            max_send_wr: options.max_send_wr,
            max_recv_wr: options.max_recv_wr,
            max_send_sge: options.max_send_sge,
            max_recv_sge: 1,
            max_inline_data: options.max_inline,
        },
        qp_type: ffi::QPT_RC,
        sq_sig_all: 0,
    }
}

impl From<Unsent> for io::Error {
    fn from(unsent: Unsent) -> Self {
        unsent.error.into()
    }
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("number", &self.number())
            .field("state", &self.state)
            .field("sends", &self.sends.len())
            .finish()
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        self.release(); // what is posted goes after this
    }
}
