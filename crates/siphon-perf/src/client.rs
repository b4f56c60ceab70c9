use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use siphon_auth::{AuthClient, ConnectionMode};
use siphon_common::Context;
use siphon_messages::{MOSDOp, MOSDOpReply, TypedMessage};
use siphon_msgr::{CloseReason, Connection, Dispatcher, Messenger, Stack};
use siphon_proto::v2::compression::{Algorithm, CompressionOptions};
use siphon_proto::v2::{BannerFeatures, Revision};
use siphon_proto::{Message, Policy, Protocol};
use siphon_wire::buf::Rope;
use siphon_wire::crc32c::SEED;
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType, Features};

use crate::cpu::CpuTime;
use crate::measure::{Limit, Measurement, Progress, Recorder, Workload, combine};
use crate::work::{self, Content};

/// Bits of a transaction id that name the place of its operation among those in flight.
const SLOT_BITS: u32 = 20;
/// Most operations in flight on one connection.
const MAX_DEPTH: usize = 1 << SLOT_BITS;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Sleeps so long on the worker when an answer comes, as Ceph's client does.
    pub think_time: Duration,
    /// Features of msgr2 to offer.
    pub banner_features: BannerFeatures,
    /// How to authenticate; by method none if not said.
    pub auth: Option<Arc<dyn AuthClient>>,
    /// How to compress frames; by the context's options if not said.
    pub compression: Option<CompressionOptions>,
    /// What is sent.
    pub content: Content,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            think_time: Duration::ZERO,
            banner_features: BannerFeatures::ALL,
            auth: None,
            compression: None,
            content: Content::default(),
        }
    }
}

/// Why a client could not measure.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// A messenger could not be started.
    Start(std::io::Error),
    /// The server could not be reached, or went away.
    Connection {
        /// The server.
        server: EntityAddrVec,
        /// What happened.
        reason: CloseReason,
    },
    /// More data than a message carries.
    TooLarge {
        /// What was asked for, in bytes.
        size: usize,
        /// The most that a message carries, in bytes.
        most: usize,
    },
    /// More operations in flight than a client keeps apart.
    TooDeep {
        /// What was asked for.
        depth: usize,
    },
}

/// Jobs that are connected to a server and wait for work.
#[derive(Debug)]
pub struct Client {
    server: EntityAddrVec,
    jobs: Vec<Job>,
    protocol: Protocol,
    mode: ConnectionMode,
    compression: Option<Algorithm>,
    content: Content,
}

#[derive(Debug)]
struct Job {
    messenger: Messenger,
    connection: Connection,
    dispatcher: Arc<JobDispatcher>,
}

impl Client {
    /// Connects `jobs` messengers with the OSD at `server`.
    ///
    /// # Errors
    /// If it cannot be reached, or is no OSD's messenger.
    pub fn connect(
        context: &Context,
        stack: &Stack,
        server: &EntityAddrVec,
        jobs: usize,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let name = EntityName::new(EntityType::CLIENT, 0);
        let mut connected = Vec::with_capacity(jobs);
        let (mut protocol, mut mode) = (Protocol::Msgr2(Revision::Rev1), ConnectionMode::CRC);
        let mut compression = None;
        for index in 0..jobs {
            let dispatcher = Arc::new(JobDispatcher::new(index, options.think_time));
            let mut builder = Messenger::builder(context, stack, name)
                .describe(siphon_messages::describe)
                .nonce(std::process::id().wrapping_add(index as u32))
                .default_policy(Policy::LOSSLESS_CLIENT)
                .banner_features(options.banner_features)
                .dispatcher_tail(Arc::clone(&dispatcher) as Arc<dyn Dispatcher>);
            if let Some(auth) = &options.auth {
                builder = builder.auth_client(Arc::clone(auth));
            }
            if let Some(compression) = &options.compression {
                builder = builder.compression(compression.clone());
            }
            let messenger = builder.start().map_err(ClientError::Start)?;
            let connection = messenger.connect_to(EntityType::OSD, server.clone());
            // One after the other, so that with a server over the same stack the two ends of a connection
            // come to different workers: one with both on the same gets three times as much done.
            let ready = pollster::block_on(connection.attempt());
            let failed = |reason| ClientError::Connection { server: server.clone(), reason };
            let peer = ready.map_err(failed)?;
            (protocol, mode, compression) = (peer.protocol, peer.mode, peer.compression);
            connected.push(Job { messenger, connection, dispatcher });
        }
        let (server, content) = (server.clone(), options.content);
        Ok(Self { server, jobs: connected, protocol, mode, compression, content })
    }

    /// Connections that it has.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The protocol that was agreed on.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How frames are protected: `crc` or `secure`.
    pub fn mode(&self) -> ConnectionMode {
        self.mode
    }

    /// How frames are compressed, if the server agreed to that.
    pub fn compression(&self) -> Option<Algorithm> {
        self.compression
    }

    /// What is sent.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Measures; all jobs run at the same time. Every request is answered when this returns.
    ///
    /// # Errors
    /// If the server goes away.
    ///
    /// # Panics
    /// If `workload` has another number of jobs than were connected.
    pub fn measure(
        &self,
        workload: &Workload,
        progress: &Arc<Progress>,
    ) -> Result<Measurement, ClientError> {
        assert_eq!(workload.jobs, self.jobs.len(), "jobs that were connected");
        if !(1..=MAX_DEPTH).contains(&workload.depth) {
            return Err(ClientError::TooDeep { depth: workload.depth });
        }
        let cpu = CpuTime::now();
        let start = Instant::now();
        let most = siphon_proto::v2::Limits::SESSION.data as usize;
        if workload.size > most {
            return Err(ClientError::TooLarge { size: workload.size, most });
        }
        let mut data = Rope::from(Bytes::from(self.content.bytes(workload.size)));
        // As Ceph's buffers do: the same data has its checksum computed once.
        data.remember_crc32c(SEED);
        let op = work::op(data);
        let started: Vec<_> = self
            .jobs
            .iter()
            .map(|job| job.dispatcher.start(&job.connection, workload, &op, start, progress))
            .collect();
        let mut recorders = Vec::with_capacity(started.len());
        for (job, done) in self.jobs.iter().zip(started) {
            // A sender that is gone means a dispatcher that is gone, with its connection.
            let result = done.recv().unwrap_or_else(|_| {
                let reason = job.connection.close_reason().cloned();
                Err(reason.unwrap_or(CloseReason::Shutdown))
            });
            let failed = |reason| ClientError::Connection { server: self.server.clone(), reason };
            recorders.push(result.map_err(failed)?);
        }
        Ok(combine(start, cpu.elapsed(), recorders))
    }

    /// Closes all connections.
    pub fn shutdown(self) {
        for job in &self.jobs {
            pollster::block_on(job.messenger.shutdown());
        }
    }
}

/// Keeps operations of one job in flight, on the worker that owns its connection.
#[derive(Debug)]
struct JobDispatcher {
    index: usize,
    think_time: Duration,
    run: Mutex<Option<Run>>,
}

#[derive(Debug)]
struct Run {
    /// What is sent, each time with a number of its own.
    op: MOSDOp,
    features: Features,
    limit: Limit,
    start: Instant,
    sent: u64,
    in_flight: usize,
    /// When the operation of each slot was sent.
    slots: Vec<Instant>,
    recorder: Recorder,
    progress: Arc<Progress>,
    done: SyncSender<Result<Recorder, CloseReason>>,
}

impl JobDispatcher {
    fn new(index: usize, think_time: Duration) -> Self {
        Self { index, think_time, run: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the first operations; the rest follows as answers come.
    fn start(
        &self,
        connection: &Connection,
        workload: &Workload,
        op: &MOSDOp,
        start: Instant,
        progress: &Arc<Progress>,
    ) -> Receiver<Result<Recorder, CloseReason>> {
        let (done, result) = sync_channel(1);
        let mut slot = self.lock();
        let run = slot.insert(Run {
            op: op.clone(),
            features: connection.features().unwrap_or(Features::ALL),
            limit: workload.limit,
            start,
            sent: 0,
            in_flight: 0,
            slots: vec![start; workload.depth],
            recorder: Recorder::new(start),
            progress: Arc::clone(progress),
            done,
        });
        for index in 0..workload.depth {
            run.send_next(connection, index, start);
        }
        self.end_if_over(connection, &mut slot);
        result
    }

    fn end_if_over(&self, connection: &Connection, slot: &mut Option<Run>) {
        if slot.as_ref().is_some_and(|run| run.in_flight == 0)
            && let Some(run) = slot.take()
        {
            let result = match connection.close_reason() {
                Some(reason) => Err(reason.clone()),
                None => Ok(run.recorder),
            };
            let _ = run.done.send(result); // nobody waits any more
        }
    }
}

impl Run {
    /// Sends one more operation in this slot, unless the limit is reached.
    fn send_next(&mut self, connection: &Connection, slot: usize, now: Instant) {
        let over = match self.limit {
            Limit::Operations(count) => self.sent >= count,
            Limit::Time(time) => now.saturating_duration_since(self.start) >= time,
        };
        if over || self.progress.is_stopped() {
            return;
        }
        let tid = (self.sent + 1) << SLOT_BITS | slot as u64;
        // A connection that has ended is told of by handle_reset.
        if connection.send(work::request(&self.op, tid, self.features)).is_ok() {
            self.slots[slot] = now;
            self.sent += 1;
            self.in_flight += 1;
        }
    }
}

impl Dispatcher for JobDispatcher {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.msg_type == MOSDOpReply::TYPE
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let now = match message.recv_stamp {
            Some(arrived) if self.think_time.is_zero() => arrived,
            _ => {
                std::thread::sleep(self.think_time);
                Instant::now()
            }
        };
        let mut slot = self.lock();
        let Some(run) = slot.as_mut() else {
            return;
        };
        let index = message.header.tid as usize & (MAX_DEPTH - 1);
        let Some(sent) = run.slots.get(index).copied() else {
            tracing::warn!(peer = %connection, tid = message.header.tid, "an answer to no request");
            return;
        };
        run.recorder.record(sent, now);
        run.progress.add(self.index, 1);
        run.in_flight = run.in_flight.saturating_sub(1); // a peer may answer twice
        run.send_next(connection, index, now);
        if run.in_flight == 0 {
            self.end_if_over(connection, &mut slot);
        }
    }

    fn handle_reset(&self, _: &Connection, reason: &CloseReason) -> bool {
        if let Some(run) = self.lock().take() {
            let _ = run.done.send(Err(reason.clone())); // nobody waits any more
        }
        true
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "cannot start a messenger: {error}"),
            Self::Connection { server, reason } => write!(f, "connection to {server}: {reason}"),
            Self::TooLarge { size, most } => {
                write!(f, "{size} bytes of data: a message carries at most {most}")
            }
            Self::TooDeep { depth } => {
                write!(f, "a depth of {depth} is not possible, 1 to {MAX_DEPTH} is")
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => Some(error),
            Self::Connection { reason, .. } => Some(reason),
            Self::TooLarge { .. } | Self::TooDeep { .. } => None,
        }
    }
}
