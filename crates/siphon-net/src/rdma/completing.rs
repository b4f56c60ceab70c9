//! What a device tells: work that ended, and events; and the chunks that it receives into.

use std::io;
use std::mem;

use siphon_verbs::{
    AsyncEventKind, Chunk, PollRoom, QueuePair, Received, WorkCompletion, WorkStatus,
};

use super::counters::add;
use super::device::QueuePairNews;
use super::driver::{POSTED_MIN, RdmaDriver};
use super::pool::grow;
use super::socket::{Stage, recycle};
use crate::driver::Driver;
use crate::slab::Key;

/// Chunks that are posted for each connection, up to what the options allow.
const POSTED_EACH: usize = 32;
/// Completions that are taken in one wait.
const COMPLETIONS_PER_WAIT: usize = 256;
/// Bytes of a connection that have arrived and that nobody reads: beyond them it ends.
const MAX_UNREAD: usize = 1 << 30;

impl RdmaDriver {
    pub(super) fn take_async_events(&mut self) {
        loop {
            let event = match self.device.context.async_event() {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => return self.lose_device(&error.into()),
            };
            add(&self.counters.total_async_events, 1);
            let device = &self.device.context.device().name;
            match event.kind {
                AsyncEventKind::LastWqeReached => {
                    add(&self.counters.async_last_wqe_events, 1);
                    if let Some(number) = event.qp_num {
                        self.device.tell_of(number, QueuePairNews::LastWqe);
                    }
                }
                AsyncEventKind::CqError | AsyncEventKind::SrqError => {
                    let error =
                        format!("a queue of the RDMA device {device} failed: {:?}", event.kind);
                    return self.lose_device(&io::Error::other(error));
                }
                AsyncEventKind::DeviceFatal => {
                    let error = io::Error::other(format!("the RDMA device {device} is gone"));
                    return self.lose_device(&error);
                }
                AsyncEventKind::PortError => {
                    tracing::warn!(%device, port = event.port, "port down")
                }
                AsyncEventKind::PortActive => tracing::info!(%device, port = event.port, "port up"),
                kind => {
                    tracing::debug!(%device, ?kind, qp_num = event.qp_num, "RDMA event");
                    let fatal = matches!(
                        kind,
                        AsyncEventKind::QpFatal
                            | AsyncEventKind::QpRequestError
                            | AsyncEventKind::QpAccessError
                    );
                    if let (true, Some(number)) = (fatal, event.qp_num) {
                        self.device.tell_of(number, QueuePairNews::Failed);
                    }
                }
            }
        }
    }

    /// Takes what any worker has learned of the device.
    pub(super) fn take_news(&mut self) {
        self.heard = self.device.heard();
        let (numbers, dying) = (&self.numbers, &self.dying);
        let (lost, told) = self.device.take_news(|number| {
            numbers.contains_key(&number) || dying.iter().any(|it| it.queue().number() == number)
        });
        if let Some(lost) = lost {
            self.end_all(&io::Error::other(lost));
        }
        for (number, what) in told {
            if let Some(dying) = self.dying.iter_mut().find(|it| it.queue().number() == number) {
                dying.last_wqe(); // also where it failed: nothing more comes
            } else if what == QueuePairNews::Failed
                && let Some(key) = self.numbers.get(&number).copied()
            {
                self.fail(key, io::Error::other("the device says that the queue pair failed"));
            }
        }
    }

    /// Nothing goes by it any more, of no worker.
    pub(super) fn lose_device(&mut self, error: &io::Error) {
        if !self.gone {
            tracing::error!(%error, "RDMA device lost: its connections end");
            self.end_all(error);
            self.device.tell_lost(error);
        }
    }

    fn end_all(&mut self, error: &io::Error) {
        if mem::replace(&mut self.gone, true) {
            return;
        }
        // They would be ready for ever.
        for file in mem::take(&mut self.own_files) {
            self.posix.deregister_file(file);
        }
        let keys: Vec<Key> = self.queues.values().copied().collect();
        for key in keys {
            self.fail(key, io::Error::new(error.kind(), error.to_string()));
        }
    }

    /// Takes what ended; returns whether there was anything.
    pub(super) fn poll(&mut self) -> bool {
        let (mut taken, mut is_all) = (0, false);
        while taken < COMPLETIONS_PER_WAIT && !is_all && !self.gone {
            let done = &mut self.done;
            match self.completions.poll(&mut self.room, &mut |it| done.push(it)) {
                Ok(0) => break,
                Ok(count) => {
                    taken += count;
                    is_all = count < PollRoom::LEN;
                }
                Err(error) => self.lose_device(&error.into()),
            }
            let mut done = mem::take(&mut self.done);
            for completion in done.drain(..) {
                self.complete(completion);
            }
            self.done = done;
            if self.posted_is_low() {
                self.refill();
            }
        }
        if taken == 0 {
            return false;
        }
        for key in mem::take(&mut self.starved) {
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.starved = false;
                self.queue_turn(key);
            }
        }
        true
    }

    pub(super) fn complete(&mut self, done: WorkCompletion) {
        if let Some(shared) = &self.shared
            && shared.id() == done.queue()
        {
            if let Ok(received) = shared.complete(done) {
                let key = self.numbers.get(&received.qp_num).copied();
                self.received(key, received);
            }
            return;
        }
        let Some(key) = self.queues.get(&done.queue()).copied() else {
            let now = self.posix.now();
            let sends = &mut self.sends;
            if let Some(dying) = self.dying.iter_mut().find(|it| it.queue().id() == done.queue()) {
                dying.complete(now, done, &mut |piece| recycle(piece, sends));
            }
            return;
        };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(queue) = socket.queue.as_mut() else {
            if let Stage::Connecting(early) = &mut socket.stage {
                early.push(done);
            }
            return;
        };
        let (counters, sends) = (&self.counters, &mut self.sends);
        match queue.complete_receive(done) {
            Ok(received) => self.received(Some(key), received),
            Err(done) => {
                let status = done.status();
                add(&counters.tx_total_wc, 1);
                if queue.complete_send(done, &mut |piece| recycle(piece, sends)).is_ok()
                    && !status.is_success()
                {
                    add(&counters.tx_total_wc_errors, 1);
                    match status {
                        WorkStatus::FLUSHED => add(&counters.tx_wr_flush_errors, 1),
                        WorkStatus::RETRIES_EXCEEDED => add(&counters.tx_retry_errors, 1),
                        _ => {}
                    }
                    self.fail(key, work_failed("sending", status));
                }
            }
        }
    }

    /// A chunk came back, with what the peer at `key` sent.
    pub(super) fn received(&mut self, key: Option<Key>, received: Received) {
        let counters = &self.counters;
        add(&counters.rx_total_wc, 1);
        let Received { chunk, len, status, .. } = received;
        let runs_short = self.runs_short(key);
        let socket = key.and_then(|key| self.sockets.get_mut(key));
        let (Some(key), Some(socket)) = (key, socket) else {
            return self.receives.give_back(chunk);
        };
        if !status.is_success() {
            add(&counters.rx_total_wc_errors, 1);
            self.receives.give_back(chunk);
            return self.fail(key, work_failed("receiving", status));
        }
        if matches!(socket.stage, Stage::Acknowledgement(_)) {
            socket.open(); // it overtook the acknowledgement
        }
        (socket.heard, socket.held_until) = (true, None);
        if len == 0 {
            add(&counters.rx_fin, 1);
            self.receives.give_back(chunk);
            socket.end();
        } else {
            add(&counters.rx_chunks, 1);
            add(&counters.rx_bytes, len);
            if runs_short {
                add(&counters.rx_copied_bytes, len);
                socket.push(bytes::Bytes::copy_from_slice(&chunk[..len]));
                self.receives.give_back(chunk);
            } else {
                socket.push(self.receives.lend(chunk, len));
            }
            if socket.unread() > MAX_UNREAD {
                let message = format!(
                    "{MAX_UNREAD} bytes have arrived that nobody reads, and RDMA can't ask a peer to wait"
                );
                return self.fail(key, io::Error::new(io::ErrorKind::OutOfMemory, message));
            }
        }
        self.queue_turn(key);
    }

    pub(super) fn grow(&mut self) -> io::Result<()> {
        let len = self.device.options.buffer_size;
        let chunks = grow(&self.device, len, &mut self.registered, self.most_registered)?;
        add(&self.counters.rx_bufs_total, chunks.len());
        self.receives.extend(chunks);
        Ok(())
    }

    /// Posts chunks to be received into.
    pub(super) fn refill(&mut self) {
        if self.gone {
            return;
        }
        let Some(shared) = &self.shared else {
            return self.refill_each();
        };
        let (posted, wanted) = (shared.len(), self.wanted());
        if posted + wanted / 8 >= wanted {
            return;
        }
        let mut chunks = self.free_chunks(wanted - posted);
        if posted == 0 && chunks.is_empty() {
            self.receives.starve();
        }
        let result = self.shared.as_ref().map_or(Ok(()), |queue| queue.post(&mut chunks));
        self.keep(chunks);
        if let Err(error) = result {
            self.lose_device(&error.into());
        }
    }

    /// Whether posting chunks cannot wait until all that came has been answered: a quarter is gone, or nobody
    /// knows.
    fn posted_is_low(&self) -> bool {
        let wanted = self.wanted();
        self.shared.as_ref().is_none_or(|shared| shared.len() < wanted - wanted / 4)
    }

    /// Chunks that are to be posted: in the shared queue, or in each.
    fn wanted(&self) -> usize {
        let queues = self.queues.len();
        let most = self.device.options.receive_queue_len as usize;
        let wanted = match &self.shared {
            Some(_) => (queues * POSTED_EACH).clamp(POSTED_MIN, most.max(POSTED_MIN)),
            None => POSTED_MIN.min(self.most_registered / queues.max(1)),
        };
        wanted.min(most).min(self.most_registered).max(1)
    }

    /// Whether so few chunks are left, posted or to be posted, that what arrived must not keep its own.
    fn runs_short(&self, key: Option<Key>) -> bool {
        if self.registered < self.most_registered {
            return false;
        }
        let queue = || self.sockets.get(key?)?.queue.as_ref();
        let posted = match &self.shared {
            Some(shared) => shared.len(),
            None => queue().map_or(0, QueuePair::receives),
        };
        posted + self.receives.len() < self.wanted().div_ceil(2)
    }

    /// The same for queue pairs that have queues of their own.
    pub(super) fn refill_each(&mut self) {
        let wanted = self.wanted();
        let keys: Vec<Key> = self.queues.values().copied().collect();
        for key in keys {
            let queue = self.sockets.get(key).and_then(|socket| socket.queue.as_ref());
            let posted = queue.map_or(wanted, QueuePair::receives);
            if posted + wanted / 8 >= wanted {
                continue;
            }
            let mut chunks = self.free_chunks(wanted - posted);
            let queue = self.sockets.get_mut(key).and_then(|socket| socket.queue.as_mut());
            let Some(queue) = queue else { continue };
            let result = queue.post_receives(&mut chunks);
            if queue.receives() == 0 {
                self.receives.starve();
            }
            self.keep(chunks);
            if let Err(error) = result {
                self.fail(key, error.into());
            }
        }
    }

    /// Up to so many chunks that are free, some of which may have to be registered for it.
    pub(super) fn free_chunks(&mut self, wanted: usize) -> Vec<Chunk> {
        let mut chunks = mem::take(&mut self.spare);
        self.receives.take(wanted, &mut chunks);
        while chunks.len() < wanted && self.registered < self.most_registered {
            if let Err(error) = self.grow() {
                tracing::warn!(%error, "no more memory to receive into can be registered");
                self.most_registered = self.registered;
            }
            self.receives.take(wanted - chunks.len(), &mut chunks);
        }
        chunks
    }

    pub(super) fn keep(&mut self, mut chunks: Vec<Chunk>) {
        chunks.drain(..).for_each(|chunk| self.receives.give_back(chunk));
        self.spare = chunks;
    }
}

fn work_failed(doing: &str, status: WorkStatus) -> io::Error {
    let kind = match status {
        WorkStatus::RETRIES_EXCEEDED | WorkStatus::RNR_RETRIES_EXCEEDED => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::ConnectionReset,
    };
    let advice = match status {
        WorkStatus::LOCAL_LENGTH
        | WorkStatus::REMOTE_INVALID_REQUEST
        | WorkStatus::REMOTE_OPERATION => ": have both sides the same ms_async_rdma_buffer_size?",
        _ => "",
    };
    io::Error::new(kind, format!("{doing} by RDMA: {status}{advice}"))
}
