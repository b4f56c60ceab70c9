//! A socket's way in.

use std::collections::VecDeque;
use std::io;
use std::mem;

use bytes::Bytes;
use io_uring::opcode;
use io_uring::squeue::Flags;
use siphon_wire::buf::Input;

use super::buffers::{Buffers, GROUP};
use super::ring::{Done, Ring, empty_header, fd};
use super::token::{Kind, Token};
use crate::FillBuf;
use crate::slab::Key;

/// Bytes that one turn delivers between long segments: a half of what has arrived, within these bounds.
/// Whoever takes all that is in flight answers it in one go, and lets the peer wait meanwhile.
const MIN_SHARE_BYTES: usize = 64 << 10;
const MAX_SHARE_BYTES: usize = 256 << 10;
/// Bytes that one receive reads straight into a segment's own buffer.
const MAX_DIRECT_BYTES: usize = 1 << 20;
/// Bytes that one receive reads beside the rest of a segment's own buffer.
const BESIDE_BYTES: usize = 512 << 10;
/// Buffers of so many bytes that a worker may have; without one, nothing is read beside.
const MAX_BESIDE: usize = 8;
/// Room in a buffer that makes it worth reading into it and not into the ring's.
const MIN_DIRECT_BYTES: usize = 16 << 10;
/// Bytes that may arrive and wait before the kernel is told to stop.
const MAX_AHEAD_BYTES: usize = 64 << 10;
/// Bytes that are worth being delivered where they are and not copied.
const MIN_SHARED_BYTES: usize = 2 << 10;
/// Bytes of a part of it that is better copied, if it has a place to go to.
const COPIED_BYTES: usize = 1 << 10;
/// Bytes that one receive takes into the ring's buffers while long segments are about: more of one would be copied.
const MAX_BETWEEN_BYTES: u32 = 32 << 10;
/// Bytes that may wait on a socket before the ring needs no more buffers for it.
const ENOUGH_BYTES: usize = 512 << 10;
/// Receives without a buffer of their own after which a socket is left to the kernel.
const STEADY: u8 = 16;

/// The receive of a socket: what was asked for, what the kernel is doing, and what has arrived.
pub(super) struct Receiving {
    armed: Option<Option<FillBuf>>,
    operation: Operation,
    /// What arrived and is not delivered.
    waiting: VecDeque<Piece>,
    waiting_bytes: usize,
    /// Bytes that the kernel put into the buffer given, not delivered.
    filled: usize,
    /// What follows behind all that.
    end: Option<End>,
    /// Receives without a buffer of their own since the last with one.
    steady: u8,
}

enum Operation {
    None,
    /// Into the ring's buffers: once, or until further notice.
    Pooled {
        multishot: bool,
    },
    /// The same, and it was told to end.
    Ending,
    /// Into the buffer given.
    Direct(Box<Direct>),
}

/// What the kernel reads and writes of a receive into the buffer given, where it does not move.
struct Direct {
    header: libc::msghdr,
    slices: [libc::iovec; 2],
    fill: FillBuf,
    room: usize,
    beside: Option<Box<[u8]>>,
}

/// Bytes that arrived.
enum Piece {
    Ring { id: u16, at: usize, end: usize },
    Beside { bytes: Box<[u8]>, at: usize, end: usize },
    Copied { bytes: Box<[u8]>, at: usize },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    OfFile,
    Failed(i32),
}

/// What a receive gives, in order.
pub(super) enum Delivery<'a> {
    Bytes { count: usize, fill: Option<FillBuf>, bytes: Input<'a> },
    End { result: io::Result<usize>, fill: Option<FillBuf> },
}

/// What receives take memory from.
pub(super) struct Memory {
    pub(super) buffers: Buffers,
    /// To be read into beside a segment's own buffer.
    beside: Vec<Box<[u8]>>,
    /// How many of these there are.
    besides: usize,
}

impl Memory {
    pub(super) fn new(buffers: Buffers) -> Self {
        Self { buffers, beside: Vec::new(), besides: 0 }
    }

    fn take_beside(&mut self) -> Option<Box<[u8]>> {
        let buffer = self.beside.pop();
        if buffer.is_some() || self.besides == MAX_BESIDE {
            return buffer;
        }
        self.besides += 1;
        Some(vec![0; BESIDE_BYTES].into_boxed_slice())
    }
}

impl Receiving {
    pub(super) fn new() -> Self {
        Self {
            armed: None,
            operation: Operation::None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            filled: 0,
            end: None,
            steady: STEADY,
        }
    }

    /// What arrived where the socket was before.
    pub(super) fn with(bytes: Vec<u8>, end: Option<End>) -> Self {
        let mut receiving = Self::new();
        receiving.end = end;
        if !bytes.is_empty() {
            receiving.waiting_bytes = bytes.len();
            receiving.waiting.push_back(Piece::Copied { bytes: bytes.into_boxed_slice(), at: 0 });
        }
        receiving
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// Whether the kernel has an operation of it.
    pub(super) fn in_flight(&self) -> bool {
        !matches!(self.operation, Operation::None)
    }

    /// Whether there is something to deliver, and somebody who wants it.
    pub(super) fn wants_turn(&self) -> bool {
        self.armed.is_some()
            && !matches!(self.operation, Operation::Direct(_))
            && (self.filled > 0 || self.waiting_bytes > 0 || self.end.is_some())
    }

    pub(super) fn arm(&mut self, fill: Option<FillBuf>) {
        let busy = self.armed.is_some() || matches!(self.operation, Operation::Direct(_));
        assert!(!busy, "one receive at a time for a socket");
        match fill {
            Some(_) => self.steady = 0,
            None => self.steady = (self.steady + 1).min(STEADY),
        }
        self.armed = Some(fill);
    }

    /// Whether the kernel fills a buffer that was given.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.operation, Operation::Direct(_))
    }

    /// Has the kernel do what the receive that is armed needs, if it is not doing it.
    pub(super) fn start(&mut self, key: Key, socket: i32, ring: &mut Ring, memory: &mut Memory) {
        if self.armed.is_none() || self.wants_turn() {
            return;
        }
        let room = self.armed.iter().flatten().map(FillBuf::remaining).sum::<usize>();
        let direct = room >= MIN_DIRECT_BYTES;
        match self.operation {
            Operation::None if direct => self.start_direct(key, socket, ring, memory),
            Operation::None if memory.buffers.has_any() => self.start_pooled(key, socket, ring),
            Operation::Pooled { multishot: true } if direct => self.stop(key, ring),
            _ => {}
        }
    }

    /// Tells the kernel to take no more.
    pub(super) fn stop(&mut self, key: Key, ring: &mut Ring) {
        match self.operation {
            Operation::None | Operation::Ending => return,
            Operation::Pooled { .. } => self.operation = Operation::Ending,
            Operation::Direct(_) => {}
        }
        ring.cancel(Token::new(Kind::Receive, key));
    }

    fn start_pooled(&mut self, key: Key, socket: i32, ring: &mut Ring) {
        let multishot = self.steady >= STEADY;
        let entry = if multishot {
            opcode::RecvMulti::new(fd(socket), GROUP).build()
        } else {
            opcode::Recv::new(fd(socket), std::ptr::null_mut(), MAX_BETWEEN_BYTES)
                .buf_group(GROUP)
                .build()
                .flags(Flags::BUFFER_SELECT)
        };
        self.operation = Operation::Pooled { multishot };
        // SAFETY: the kernel writes to the ring's buffers only, which outlive every operation, and
        // the socket stays open until this one ends.
        unsafe { ring.push(entry, Token::new(Kind::Receive, key)) };
    }

    fn start_direct(&mut self, key: Key, socket: i32, ring: &mut Ring, memory: &mut Memory) {
        let Some(Some(mut fill)) = self.armed.take() else {
            return;
        };
        let room = fill.remaining().min(MAX_DIRECT_BYTES);
        // With more room than one read takes, nothing stands beside it: the bytes belong there.
        let mut beside = match room == fill.remaining() {
            true => memory.take_beside(),
            false => None,
        };
        let first = libc::iovec { iov_base: fill.unfilled().as_mut_ptr().cast(), iov_len: room };
        let second = match &mut beside {
            Some(beside) => {
                libc::iovec { iov_base: beside.as_mut_ptr().cast(), iov_len: beside.len() }
            }
            None => libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
        };
        let mut header = empty_header();
        header.msg_iovlen = 1 + usize::from(beside.is_some());
        let mut direct = Box::new(Direct { header, slices: [first, second], fill, room, beside });
        direct.header.msg_iov = direct.slices.as_mut_ptr();
        let entry = opcode::RecvMsg::new(fd(socket), &raw mut direct.header).build();
        self.operation = Operation::Direct(direct);
        // SAFETY: the header and its slices are boxed, the buffers are on the heap, and all of them
        // stay in `operation` until it ends; so does the socket.
        unsafe { ring.push(entry, Token::new(Kind::Receive, key)) };
    }

    /// Notes what the kernel did. `keep` is whether anybody will want it.
    pub(super) fn done(&mut self, done: Done, keep: bool, memory: &mut Memory) {
        if let Operation::Direct(_) = self.operation {
            return self.done_direct(done, memory);
        }
        if let Some(id) = done.buffer() {
            memory.buffers.taken();
            self.take_piece(id, done.result, keep, memory);
        }
        if !done.more() {
            self.operation = Operation::None;
        }
        match done.result {
            errno if errno == -libc::ENOBUFS => {
                // Others may have them; a socket that has enough itself goes on when these come back.
                if self.waiting_bytes < ENOUGH_BYTES {
                    memory.buffers.exhausted();
                }
            }
            result => self.note_end(result),
        }
    }

    fn take_piece(&mut self, id: u16, result: i32, keep: bool, memory: &mut Memory) {
        let len = usize::try_from(result).unwrap_or(0);
        if !keep || len == 0 {
            return memory.buffers.give_back(id);
        }
        self.waiting_bytes += len;
        if self.armed.is_some() {
            return self.waiting.push_back(Piece::Ring { id, at: 0, end: len });
        }
        // Nobody says when it will be wanted, and others need the buffer.
        let bytes = Box::from(&memory.buffers.bytes(id)[..len]);
        self.waiting.push_back(Piece::Copied { bytes, at: 0 });
        memory.buffers.give_back(id);
    }

    /// What the kernel put into the buffer given stays there, and what came beside it waits: both are
    /// delivered in the next turn.
    fn done_direct(&mut self, done: Done, memory: &mut Memory) {
        let operation = mem::replace(&mut self.operation, Operation::None);
        let Operation::Direct(direct) = operation else {
            return;
        };
        let Direct { mut fill, room, beside, .. } = *direct;
        let count = usize::try_from(done.result).unwrap_or(0);
        let in_fill = count.min(room);
        fill.advance(in_fill);
        self.filled = in_fill;
        self.armed = Some(Some(fill));
        match beside {
            Some(bytes) if count > room => {
                self.waiting_bytes += count - room;
                self.waiting.push_back(Piece::Beside { bytes, at: 0, end: count - room });
            }
            other => memory.beside.extend(other),
        }
        self.note_end(done.result);
    }

    fn note_end(&mut self, result: i32) {
        match result {
            0 => self.end = Some(End::OfFile),
            again if [-libc::ECANCELED, -libc::EINTR, -libc::EAGAIN].contains(&again) => {}
            errno if errno < 0 => self.end = Some(End::Failed(-errno)),
            _ => {}
        }
    }

    /// Delivers what has arrived: to the buffer given, then as it is, up to a turn's share.
    pub(super) fn deliver(&mut self, memory: &mut Memory, give: &mut dyn FnMut(Delivery<'_>)) {
        let Some(mut fill) = self.armed.take() else {
            return;
        };
        let mut count = mem::take(&mut self.filled);
        if count == 0 && self.waiting_bytes == 0 {
            return give(self.take_end(fill));
        }
        let mut share = (self.waiting_bytes / 2).clamp(MIN_SHARE_BYTES, MAX_SHARE_BYTES);
        if let Some(fill) = &mut fill {
            share = BESIDE_BYTES;
            while !fill.is_full()
                && let Some(piece) = self.waiting.front()
            {
                let bytes = piece.bytes(memory);
                let taken = bytes.len().min(fill.remaining());
                fill.unfilled()[..taken].copy_from_slice(&bytes[..taken]);
                fill.advance(taken);
                count += taken;
                self.consume(taken, memory);
            }
        }
        loop {
            let Some(piece) = self.waiting.front() else {
                if count > 0 {
                    give(Delivery::Bytes { count, fill, bytes: Input::default() });
                }
                return;
            };
            let taken = piece.bytes(memory).len().min(share);
            let shared = match self.steady == STEADY {
                true => piece.share(taken, memory),
                false => None, // long segments are about, and want to be in one piece
            };
            let bytes = match &shared {
                Some(shared) => Input::from(shared).copying(COPIED_BYTES),
                None => Input::from(&piece.bytes(memory)[..taken]),
            };
            give(Delivery::Bytes { count: count + taken, fill: fill.take(), bytes });
            drop(shared);
            count = 0;
            share -= taken;
            self.consume(taken, memory);
            if share == 0 {
                return;
            }
        }
    }

    fn take_end(&mut self, fill: Option<FillBuf>) -> Delivery<'static> {
        let result = match self.end {
            // An error is told once; then, as the system has it, the stream is at its end.
            Some(End::Failed(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(End::OfFile) | None => Ok(0),
        };
        self.end = Some(End::OfFile);
        Delivery::End { result, fill }
    }

    /// Takes so many bytes of the first piece.
    fn consume(&mut self, count: usize, memory: &mut Memory) {
        let Some(piece) = self.waiting.front_mut() else {
            return;
        };
        self.waiting_bytes -= count;
        if piece.advance(count) == 0
            && let Some(piece) = self.waiting.pop_front()
        {
            piece.free(memory);
        }
    }

    /// Whether it waits for a buffer to be free.
    pub(super) fn is_starved(&self) -> bool {
        self.armed.is_some() && !self.in_flight() && !self.wants_turn()
    }

    /// Whether something is left of what arrived.
    pub(super) fn has_more(&self) -> bool {
        self.waiting_bytes > 0
    }

    /// Lets go of the ring's buffers where nobody asks for what is in them: others need them.
    pub(super) fn release_buffers(&mut self, memory: &mut Memory) {
        if self.armed.is_some() {
            return;
        }
        for piece in &mut self.waiting {
            if matches!(piece, Piece::Copied { .. }) {
                continue;
            }
            let bytes = Box::from(piece.bytes(memory));
            mem::replace(piece, Piece::Copied { bytes, at: 0 }).free(memory);
        }
    }

    /// Whether more waits than may, with nobody to take it.
    pub(super) fn is_ahead(&self) -> bool {
        self.armed.is_none() && self.waiting_bytes > MAX_AHEAD_BYTES
    }

    /// Drops what has arrived.
    pub(super) fn discard(&mut self, memory: &mut Memory) {
        self.armed = None;
        self.waiting_bytes = 0;
        for piece in self.waiting.drain(..) {
            piece.free(memory);
        }
    }

    /// What has arrived, and what follows, for whoever gets the socket.
    pub(super) fn take_waiting(&mut self, memory: &mut Memory) -> (Vec<u8>, Option<End>) {
        let mut bytes = Vec::with_capacity(self.waiting_bytes);
        for piece in &self.waiting {
            bytes.extend_from_slice(piece.bytes(memory));
        }
        self.discard(memory);
        (bytes, self.end)
    }
}

impl Piece {
    fn bytes<'a>(&'a self, memory: &'a Memory) -> &'a [u8] {
        match self {
            Self::Ring { id, at, end } => &memory.buffers.bytes(*id)[*at..*end],
            Self::Beside { bytes, at, end } => &bytes[*at..*end],
            Self::Copied { bytes, at } => &bytes[*at..],
        }
    }

    /// The first `count` bytes, to be kept for as long as somebody wants them; none where that is not
    /// worth it, or would take more memory than may be taken.
    fn share(&self, count: usize, memory: &mut Memory) -> Option<Bytes> {
        match self {
            Self::Ring { id, at, .. } if count >= MIN_SHARED_BYTES => {
                memory.buffers.lend(*id, *at..*at + count)
            }
            _ => None,
        }
    }

    /// Bytes that are left.
    fn advance(&mut self, count: usize) -> usize {
        match self {
            Self::Ring { at, end, .. } | Self::Beside { at, end, .. } => {
                *at += count;
                *end - *at
            }
            Self::Copied { bytes, at } => {
                *at += count;
                bytes.len() - *at
            }
        }
    }

    fn free(self, memory: &mut Memory) {
        match self {
            Self::Ring { id, .. } => memory.buffers.give_back(id),
            Self::Beside { bytes, .. } => memory.beside.push(bytes),
            Self::Copied { .. } => {}
        }
    }
}
