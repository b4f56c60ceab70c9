use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use siphon_common::perf_counters::PerfSource;
use siphon_common::{Config, Context};
use siphon_net::{
    CongestionControl, Driver, EventCenter, GidChoice, Handler, MailSender, NetworkStack,
    RdmaConnect, RdmaDevice, RdmaOptions, StackKind, Wait, Worker, Workers, mailbox, rdma_gid,
};
use siphon_proto::ConnectionConfig;
use siphon_wire::types::{EntityAddrVec, EntityType};

use crate::connection::{Connection, ConnectionId};
use crate::messenger::Shared;
use crate::rdma_counters;
use crate::worker::{Mail, MessengerWorker, WorkerCounters};

/// A network stack with its worker threads (`ms_async_op_threads`), shared by the messengers that
/// are built over it. Clones are the same stack. Its threads end when the last clone is dropped
/// and all messengers over it are shut down.
#[derive(Clone, Debug)]
pub struct Stack {
    inner: Arc<Inner>,
}

struct Inner {
    /// None for a stack that the caller brought.
    kind: Option<StackKind>,
    rdma: Option<RdmaDevice>,
    /// What keeps the device's counters in dumps.
    _rdma_counters: Vec<Arc<dyn PerfSource>>,
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

    /// A connection came from another worker.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Stack {
    /// Starts the stack that `ms_type` names, with `ms_async_op_threads` workers; where that is not set, or is
    /// assigned the 3 that it is by default, with no more than there are processors for them
    /// ([`NetworkStack::processors`]).
    ///
    /// # Errors
    /// If `ms_type` names no stack that is built in, or `ms_tcp_congestion_control` nothing that the
    /// system has, or a thread cannot be started.
    pub fn new(context: &Context) -> std::io::Result<Self> {
        let config = context.config();
        let name = match config.ms_public_type.as_str() {
            "" => config.ms_type.as_str(),
            public => public,
        };
        let kind = name.parse::<StackKind>().map_err(std::io::Error::other)?.here();
        let (stack, rdma) = match kind {
            StackKind::Rdma => {
                let (stack, device) = NetworkStack::rdma(rdma_options(&config)?)?;
                (stack, Some(device))
            }
            kind => {
                CongestionControl::named(&config.ms_tcp_congestion_control)
                    .map_err(|error| {
                        std::io::Error::other(format!("ms_tcp_congestion_control: {error}"))
                    })?
                    .map_or(Ok(()), |algorithm| algorithm.check())?;
                (NetworkStack::new(kind), None)
            }
        };
        let cores = config.ms_async_affinity_cores.iter().map(|core| *core as usize).collect();
        let stack = stack
            .with_socket_failures(config.ms_inject_socket_failures, rand::random())
            .with_busy_poll(Duration::from_micros(config.ms_async_busy_poll_us.into()))
            .with_affinity(cores);
        let count = worker_count(&config, stack.processors());
        let loads: Arc<[Load]> = (0..count).map(|_| Load::default()).collect();
        let for_workers = Arc::clone(&loads);
        let perf = context.perf().clone();
        let workers = stack.spawn(count, move |index, peers| {
            let counters = WorkerCounters::new(index);
            perf.add(counters.source());
            MessengerWorker::new(index, peers, Arc::clone(&for_workers), counters)
        })?;
        let senders = workers.senders().to_vec();
        let workers = Mutex::new(Some(workers));
        let counters =
            rdma.iter().flat_map(|it| rdma_counters::register(it, count, context.perf()));
        let _rdma_counters = counters.collect();
        let inner = Inner { kind: Some(kind), rdma, _rdma_counters, senders, loads, workers };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A stack over these drivers, without threads: each worker does something only when it is
    /// stepped, and each messenger dispatches only in [`Messenger::dispatch_waiting`]. This is how a
    /// simulator runs a cluster in one thread, and how a program with a loop of its own would.
    ///
    /// What waits for a worker must not block the thread that steps it: use
    /// [`Messenger::bind_once`] there, and poll futures between steps.
    ///
    /// [`Messenger::dispatch_waiting`]: crate::Messenger::dispatch_waiting
    /// [`Messenger::bind_once`]: crate::Messenger::bind_once
    pub fn stepped(drivers: Vec<Box<dyn Driver>>) -> (Self, Vec<SteppedWorker>) {
        let loads: Arc<[Load]> = drivers.iter().map(|_| Load::default()).collect();
        let (senders, mailboxes): (Vec<_>, Vec<_>) = drivers.iter().map(|_| mailbox()).unzip();
        let peers: Arc<[MailSender<Mail>]> = senders.clone().into();
        let worker = |(index, (driver, mailbox))| {
            let (peers, loads) = (Arc::clone(&peers), Arc::clone(&loads));
            let handler = MessengerWorker::new(index, peers, loads, WorkerCounters::new(index));
            SteppedWorker { worker: Worker::new(EventCenter::new(driver), mailbox, handler) }
        };
        let workers = drivers.into_iter().zip(mailboxes).enumerate().map(worker).collect();
        let inner = Inner {
            kind: None,
            rdma: None,
            _rdma_counters: Vec::new(),
            senders,
            loads,
            workers: Mutex::new(None),
        };
        (Self { inner: Arc::new(inner) }, workers)
    }

    /// Which stack it is, if it is one that is built in.
    pub fn kind(&self) -> Option<StackKind> {
        self.inner.kind
    }

    /// The device of an RDMA stack: what it counted, and registered buffers to send from.
    pub fn rdma(&self) -> Option<&RdmaDevice> {
        self.inner.rdma.as_ref()
    }

    /// Segments of up to so many bytes are copied behind their headers.
    pub(crate) fn copied(&self) -> usize {
        /// What is longer may be sent from registered memory as it is; anything else is copied there.
        const BY_RDMA: usize = 1 << 10;
        match self.rdma() {
            Some(_) => BY_RDMA,
            None => ConnectionConfig::COPIED,
        }
    }

    /// Whether its workers have threads of their own.
    pub(crate) fn has_threads(&self) -> bool {
        self.inner.kind.is_some()
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.inner.senders.len()
    }

    /// A connection on the worker with the fewest of them.
    pub(crate) fn place(
        &self,
        messenger: &Arc<Shared>,
        expected: EntityType,
        target: EntityAddrVec,
    ) -> Connection {
        let worker = place(&self.inner.loads);
        let sender = self.inner.senders[worker].clone();
        Connection::new(ConnectionId::next(), sender, Arc::clone(messenger), expected, target)
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

/// As many workers as are asked for. Where nobody asks, no more than there are processors for them: they would only
/// take turns, and those that share one are slower than the others.
fn worker_count(config: &Config, processors: usize) -> usize {
    let count = config.ms_async_op_threads as usize;
    if config.settings("ms_async_op_threads").is_empty() { count.min(processors) } else { count }
}

/// What `ms_async_rdma_*` say.
fn rdma_options(config: &Config) -> std::io::Result<RdmaOptions> {
    let by_cm = config.ms_async_rdma_cm || config.ms_async_rdma_type == "iwarp";
    let gid = match (config.ms_async_rdma_local_gid.as_str(), config.ms_async_rdma_gid_idx) {
        ("", None) => GidChoice::Sensible,
        ("", Some(index)) => GidChoice::Index(u8::try_from(index).unwrap_or(u8::MAX)),
        (gid, _) => rdma_gid(gid, config.ms_async_rdma_roce_ver == 1)?,
    };
    let byte = |value: u32| u8::try_from(value).unwrap_or(u8::MAX); // the table has their ranges
    Ok(RdmaOptions {
        device_name: config.ms_async_rdma_device_name.clone(),
        port: byte(config.ms_async_rdma_port_num),
        gid,
        connect: if by_cm { RdmaConnect::Cm } else { RdmaConnect::Tcp },
        buffer_size: config.ms_async_rdma_buffer_size as usize,
        send_buffers: config.ms_async_rdma_send_buffers,
        receive_buffers: match config.ms_async_rdma_receive_buffers {
            0 => u32::MAX,
            buffers => buffers,
        },
        receive_queue_len: config.ms_async_rdma_receive_queue_len,
        shared_receives: config.ms_async_rdma_support_srq,
        polling: Duration::from_micros(config.ms_async_rdma_polling_us.into()),
        service_level: byte(config.ms_async_rdma_sl),
        traffic_class: byte(config.ms_async_rdma_dscp),
        huge_pages: config.ms_async_rdma_enable_hugepage,
    })
}

/// A worker of a [`Stack::stepped`], which runs when its owner steps it.
#[derive(Debug)]
pub struct SteppedWorker {
    worker: Worker<MessengerWorker>,
}

impl SteppedWorker {
    /// One turn: takes what has happened, and does what follows. Gives the number of things that
    /// had happened.
    ///
    /// # Errors
    /// Those of [`siphon_net::Driver::wait`]: the worker is at its end.
    pub fn step(&mut self) -> std::io::Result<usize> {
        self.worker.step(Wait::Poll)
    }

    /// When it has to be stepped, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.worker.center().next_deadline()
    }

    /// Connections that it owns.
    pub fn connections(&self) -> usize {
        self.worker.handler().connections()
    }

    /// Whether its stack and all connections are gone.
    pub fn is_done(&self) -> bool {
        self.worker.handler().is_done()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_goes_by_the_processors() {
        let mut config = Config::default();
        let counts = |config: &Config| [1, 2, 3, 64].map(|count| worker_count(config, count));
        assert_eq!(counts(&config), [1, 2, 3, 3]);
        for asked in [3, 5] {
            config.set("ms_async_op_threads", &asked.to_string()).unwrap();
            assert_eq!(counts(&config), [asked; 4], "who asks for it gets it");
        }
        let mut assigned = Config::default();
        assigned.ms_async_op_threads = 5;
        let assigned = Context::new(assigned).config();
        assert_eq!(counts(&assigned), [5; 4]);
    }
}
