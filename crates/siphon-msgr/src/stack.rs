use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use siphon_common::Context;
use siphon_net::{MailSender, NetworkStack, StackKind, Workers};
use siphon_wire::types::EntityAddrVec;

use crate::connection::{Connection, ConnectionId};
use crate::messenger::Shared;
use crate::worker::{Mail, MessengerWorker};

/// A network stack with its worker threads (`ms_async_op_threads`), shared by the messengers that
/// are built over it. Clones are the same stack. Its threads end when the last clone is dropped
/// and all messengers over it are shut down.
#[derive(Clone, Debug)]
pub struct Stack {
    inner: Arc<Inner>,
}

struct Inner {
    kind: StackKind,
    senders: Vec<MailSender<Mail>>,
    loads: Arc<[Load]>,
    workers: Mutex<Option<Workers<Mail>>>,
}

/// Connections that a worker owns; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Load(AtomicUsize);

impl Load {
    /// A connection is gone.
    pub(crate) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stack {
    /// Starts the stack that `ms_type` names, with `ms_async_op_threads` workers.
    ///
    /// # Errors
    /// If `ms_type` names no stack that is built in, or a thread cannot be started.
    pub fn new(context: &Context) -> std::io::Result<Self> {
        let config = context.config();
        let name = match config.ms_public_type.as_str() {
            "" => config.ms_type.as_str(),
            public => public,
        };
        let kind: StackKind = name.parse().map_err(std::io::Error::other)?;
        let count = config.ms_async_op_threads as usize;
        let loads: Arc<[Load]> = (0..count).map(|_| Load::default()).collect();
        let for_workers = Arc::clone(&loads);
        let workers = NetworkStack::new(kind).spawn(count, move |index, peers| {
            MessengerWorker::new(index, peers, Arc::clone(&for_workers))
        })?;
        let senders = workers.senders().to_vec();
        let inner = Inner { kind, senders, loads, workers: Mutex::new(Some(workers)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Which stack it is.
    pub fn kind(&self) -> StackKind {
        self.inner.kind
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.inner.senders.len()
    }

    /// A connection on the worker with the fewest of them.
    pub(crate) fn place(&self, messenger: &Arc<Shared>, target: EntityAddrVec) -> Connection {
        let worker = place(&self.inner.loads);
        let sender = self.inner.senders[worker].clone();
        Connection::new(ConnectionId::next(), sender, Arc::clone(messenger), target)
    }

    /// Listening sockets live on the first worker, and hand out what they accept.
    pub(crate) fn listening_worker(&self) -> &MailSender<Mail> {
        &self.inner.senders[0]
    }

    /// Sends each worker a mail of its own, and returns what was made along with them.
    pub(crate) fn broadcast<T>(&self, mut make: impl FnMut() -> (Mail, T)) -> Vec<T> {
        let send = |sender: &MailSender<Mail>| {
            let (mail, kept) = make();
            sender.send(mail);
            kept
        };
        self.inner.senders.iter().map(send).collect()
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("kind", &self.kind)
            .field("workers", &self.senders.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for sender in &self.senders {
            sender.send(Mail::Stop);
        }
        let workers = self.workers.get_mut().unwrap_or_else(|p| p.into_inner()).take();
        // A worker may itself drop the last clone, and cannot wait for itself.
        let on_worker =
            std::thread::current().name().is_some_and(|name| name.starts_with("msgr-worker-"));
        if let Some(workers) = workers
            && !on_worker
            && let Err(error) = workers.join()
        {
            tracing::error!(%error, "a messenger worker ended by a panic");
        }
    }
}

/// The worker for one more connection, which is counted there at once.
pub(crate) fn place(loads: &[Load]) -> usize {
    let load = |index: &usize| loads[*index].0.load(Ordering::Relaxed);
    let index = (0..loads.len()).min_by_key(load).unwrap_or(0);
    loads[index].0.fetch_add(1, Ordering::Relaxed);
    index
}
