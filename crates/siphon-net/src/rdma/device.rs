//! A device, as an RDMA stack uses it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Waker;
use std::time::Duration;

use siphon_verbs::{
    Chunk, Context, DeviceLimits, Gid, GidEntry, GidType, LinkLayer, PageKind, PortInfo, PortState,
    ProtectionDomain, Region, Transport, Verbs, VerbsError, fork_init, memlock_limit,
};

use super::connector::Connector;
use super::counters::{RdmaCounters, RdmaCounts};

/// Pieces of memory of one send: headers and data of some messages.
const MAX_PIECES: u32 = 16;
/// Bytes that are worth being sent inline, where the device takes so many.
pub(super) const MAX_INLINE: u32 = 64;

/// How an RDMA stack is set up: Ceph's `ms_async_rdma_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaOptions {
    /// The device; empty for the first that has an active port and an address.
    pub device_name: String,
    /// Its port, from 1 on.
    pub port: u8,
    /// Which of the port's GIDs is ours. By default that of an IP address, of RoCE v2 if there is one
    /// (Ceph takes the first, which reaches nobody beyond its own switch).
    pub gid: GidChoice,
    /// How queue pairs are connected.
    pub connect: RdmaConnect,
    /// Bytes of a chunk, and so of the longest message of RDMA that is sent or received. Both sides
    /// need the same.
    pub buffer_size: usize,
    /// Chunks that a worker sends from, at most, of each of two lengths.
    pub send_buffers: u32,
    /// Chunks that a worker receives into, at most: those that are posted, and those that the
    /// application keeps. When they are used up, what arrives is copied out of them.
    pub receive_buffers: u32,
    /// Chunks that a worker has posted, at most.
    pub receive_queue_len: u32,
    /// Queue pairs take from a queue that they share, or each from its own.
    pub shared_receives: bool,
    /// How long a worker polls before it sleeps.
    pub polling: Duration,
    /// The service level of packets.
    pub service_level: u8,
    /// Their traffic class: DSCP, and below it ECN.
    pub traffic_class: u8,
    /// Register huge pages, where there are any.
    pub huge_pages: bool,
}

impl Default for RdmaOptions {
    /// Ceph's defaults, apart from the GID.
    fn default() -> Self {
        Self {
            device_name: String::new(),
            port: 1,
            gid: GidChoice::default(),
            connect: RdmaConnect::Tcp,
            buffer_size: 128 << 10,
            send_buffers: 1 << 10,
            receive_buffers: 32 << 10,
            receive_queue_len: 4 << 10,
            shared_receives: true,
            polling: Duration::from_micros(1000),
            service_level: 3,
            traffic_class: 96,
            huge_pages: false,
        }
    }
}

/// Which of a port's GIDs is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GidChoice {
    /// The first of an IP address, of RoCE v2 rather than v1.
    #[default]
    Sensible,
    /// That with this index (`ms_async_rdma_gid_idx`).
    Index(u8),
    /// This one (`ms_async_rdma_local_gid`), of this type if one is given (`ms_async_rdma_roce_ver`).
    Gid(Gid, Option<GidType>),
}

/// The choice of a GID, or of the IP address that it is of, by RoCE v2 or v1.
///
/// # Errors
///
/// If it is neither.
pub fn rdma_gid(gid: &str, roce_v2: bool) -> io::Result<GidChoice> {
    let gid = gid.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let kind = if roce_v2 { GidType::RoceV2 } else { GidType::RoceV1 };
    Ok(GidChoice::Gid(gid, Some(kind)))
}

/// How queue pairs are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RdmaConnect {
    /// By an exchange over TCP, as Ceph has it.
    #[default]
    Tcp,
    /// By RDMA-CM (`ms_async_rdma_cm`, `ms_async_rdma_type = iwarp`).
    Cm,
}

/// What one worker learns and all have to know.
#[derive(Default)]
struct News {
    lost: Option<String>,
    queue_pairs: Vec<(u32, QueuePairNews)>,
    workers: Vec<Waker>,
}

/// What a device tells of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuePairNews {
    /// Nothing goes by it any more.
    Failed,
    /// It dies, and takes nothing more from its shared receive queue.
    LastWqe,
}

/// News of queue pairs that are remembered until their worker hears of them.
const MAX_NEWS: usize = 1024;

/// A device that is open, for all workers of a stack.
pub(super) struct Device {
    pub(super) context: Context,
    pub(super) domain: ProtectionDomain,
    pub(super) options: RdmaOptions,
    pub(super) limits: DeviceLimits,
    pub(super) port: PortInfo,
    /// None where addresses are RDMA-CM's business.
    pub(super) gid: Option<GidEntry>,
    /// By worker.
    counters: Mutex<BTreeMap<usize, Arc<RdmaCounters>>>,
    pub(super) connector: Connector,
    inline: AtomicUsize,
    news: Mutex<News>,
    /// How often there were news.
    heard: AtomicU64,
    /// By where they begin: to find whether bytes are registered.
    regions: RwLock<BTreeMap<usize, Region>>,
}

impl Device {
    /// Opens what the options name, and checks what would go wrong later.
    pub(super) fn open(options: RdmaOptions) -> io::Result<Self> {
        let verbs = Verbs::load().map_err(io::Error::other)?;
        prepare(&verbs, options.huge_pages)?;
        let name = choose(&verbs, &options)?;
        let context = match options.connect {
            RdmaConnect::Tcp => verbs.open(&name)?,
            RdmaConnect::Cm => verbs.open_for_cm(&name)?,
        };
        let limits = context.limits()?;
        let port = usable_port(&context, &limits, options.port)?;
        let gid = match options.connect {
            RdmaConnect::Cm => None,
            RdmaConnect::Tcp if context.device().transport == Transport::Iwarp => {
                let message = format!(
                    "{name} is iWARP, which connects by RDMA-CM alone: set ms_async_rdma_type = iwarp"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            RdmaConnect::Tcp => Some(choose_gid(&context, &options, port.link_layer)?),
        };
        let options = fit(options, &limits, &name);
        let domain = ProtectionDomain::new(&context)?;
        tracing::info!(device = %name, gid = gid.as_ref().map(|it| it.gid.to_string()), "RDMA");
        let (counters, connector, inline, news, heard, regions) = Default::default();
        Ok(Self {
            context,
            domain,
            options,
            limits,
            port,
            gid,
            counters,
            connector,
            inline,
            news,
            heard,
            regions,
        })
    }

    /// A worker's.
    pub(super) fn counters_of(&self, worker: usize) -> Arc<RdmaCounters> {
        Arc::clone(self.lock_counters().entry(worker).or_default())
    }

    /// What all workers have counted until now, those included that have ended.
    pub(super) fn counts(&self) -> RdmaCounts {
        let all = self.lock_counters();
        all.values().fold(RdmaCounts::default(), |sum, counters| sum + counters.counts())
    }

    fn lock_counters(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<RdmaCounters>>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers chunks, which are found by [`region_of`](Self::region_of) from then on.
    pub(super) fn register(&self, len: usize, count: usize) -> Result<Vec<Chunk>, VerbsError> {
        let pages = if self.options.huge_pages { PageKind::Huge } else { PageKind::Usual };
        let chunks = self.domain.register(len, count, pages)?;
        if let Some(chunk) = chunks.first() {
            let region = chunk.region().clone();
            let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
            regions.insert(region.range().0, region);
        }
        Ok(chunks)
    }

    /// The region in which these bytes lie.
    pub(super) fn region_of(&self, bytes: &[u8]) -> Option<Region> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let (_, region) = regions.range(..=bytes.as_ptr().addr()).next_back()?;
        region.contains(bytes).then(|| region.clone())
    }

    /// A worker, which is woken when there are news; returns how many there were before.
    pub(super) fn add_worker(&self, waker: Waker) -> usize {
        let workers = &mut self.news().workers;
        workers.push(waker);
        workers.len() - 1
    }

    /// How often there were news: a worker that has seen fewer [takes them](Self::take_news).
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    /// The device is gone.
    pub(super) fn tell_lost(&self, error: &io::Error) {
        self.tell(|news| news.lost = Some(error.to_string()));
    }

    /// Something of a queue pair, which may be any worker's: one takes the event for all.
    pub(super) fn tell_of(&self, qp_num: u32, what: QueuePairNews) {
        self.tell(|news| {
            if news.queue_pairs.len() == MAX_NEWS {
                news.queue_pairs.remove(0);
            }
            news.queue_pairs.push((qp_num, what));
        });
    }

    /// Why the device is gone, if it is; and takes the news out of the queue pairs that are `ours`.
    pub(super) fn take_news(
        &self,
        ours: impl Fn(u32) -> bool,
    ) -> (Option<String>, Vec<(u32, QueuePairNews)>) {
        let mut news = self.news();
        let told = news.queue_pairs.extract_if(.., |(number, _)| ours(*number)).collect();
        (news.lost.clone(), told)
    }

    /// A queue pair was destroyed: its number may be another's from now on.
    pub(super) fn forget(&self, qp_num: u32) {
        self.news().queue_pairs.retain(|(number, _)| *number != qp_num);
    }

    fn tell(&self, change: impl FnOnce(&mut News)) {
        let mut news = self.news();
        change(&mut news);
        self.heard.fetch_add(1, Ordering::Release);
        news.workers.iter().for_each(Waker::wake_by_ref);
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pieces of memory that a send of ours has at most.
    pub(super) fn max_pieces(&self) -> usize {
        self.limits.max_sge.clamp(1, MAX_PIECES) as usize
    }

    /// Bytes that are sent inline.
    pub(super) fn max_inline(&self) -> usize {
        self.inline.load(Ordering::Relaxed)
    }

    /// Learns, from a queue pair that was made, what the device takes inline.
    pub(super) fn set_max_inline(&self, bytes: u32) {
        self.inline.store((bytes as usize).min(MAX_INLINE as usize), Ordering::Relaxed);
    }

    /// Why nothing more is connected, once the device is gone.
    pub(super) fn gone(&self) -> io::Error {
        let name = &self.context.device().name;
        let message = format!("the RDMA device {name} is gone: start anew when it is back");
        io::Error::new(io::ErrorKind::NotConnected, message)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("context", &self.context).finish_non_exhaustive()
    }
}

/// What has to be done once for a process, before memory is registered.
fn prepare(verbs: &Verbs, huge_pages: bool) -> io::Result<()> {
    /// With huge pages or without.
    static DONE: Mutex<Option<bool>> = Mutex::new(None);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if huge_pages && *done == Some(false) {
        let message = "the first RDMA stack of this process had no huge pages, and libibverbs allows \
                       none after that: set ms_async_rdma_enable_hugepage for it as well";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    if done.is_none() {
        fork_init(verbs, huge_pages)?;
        const ENOUGH: u64 = 64 << 20;
        if let Some(limit) = memlock_limit().filter(|limit| *limit < ENOUGH) {
            tracing::warn!(
                limit_bytes = limit,
                "little memory may be locked, and so registered: set `ulimit -l unlimited`, or \
                 LimitMEMLOCK=infinity in the systemd unit"
            );
        }
        *done = Some(huge_pages);
    }
    Ok(())
}

/// The device's name.
fn choose(verbs: &Verbs, options: &RdmaOptions) -> io::Result<String> {
    if !options.device_name.is_empty() {
        return Ok(options.device_name.clone());
    }
    let devices = verbs.devices()?;
    let mut why = Vec::new();
    for device in &devices {
        let by_cm = options.connect == RdmaConnect::Cm;
        if device.transport == Transport::Iwarp && !by_cm {
            why.push(format!("{} is iWARP", device.name));
            continue;
        }
        let usable = verbs.open(&device.name).map_err(io::Error::from).and_then(|context| {
            let port = usable_port(&context, &context.limits()?, options.port)?;
            if by_cm { Ok(()) } else { choose_gid(&context, options, port.link_layer).map(drop) }
        });
        match usable {
            Ok(()) => return Ok(device.name.clone()),
            Err(error) => why.push(format!("{}: {error}", device.name)),
        }
    }
    let why = if why.is_empty() { "there is none".to_owned() } else { why.join("; ") };
    let message = format!("no RDMA device can be used: {why}. `rdma link` shows the system's");
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

fn usable_port(context: &Context, limits: &DeviceLimits, number: u8) -> io::Result<PortInfo> {
    let name = &context.device().name;
    if number == 0 || number > limits.ports {
        let message = format!("{name} has ports 1 to {}, and no port {number}", limits.ports);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let port = context.port(number)?;
    if port.state != PortState::Active {
        let message = format!(
            "port {number} of {name} is {:?}: see the cable, and `ip link` of its interface",
            port.state
        );
        return Err(io::Error::new(io::ErrorKind::NetworkDown, message));
    }
    Ok(port)
}

fn choose_gid(
    context: &Context,
    options: &RdmaOptions,
    link_layer: LinkLayer,
) -> io::Result<GidEntry> {
    let gids = context.gids(options.port)?;
    let routed = |it: &&GidEntry| !it.gid.is_link_local();
    let found = match options.gid {
        GidChoice::Index(index) => gids.iter().find(|it| it.index == index),
        GidChoice::Gid(gid, kind) => gids
            .iter()
            .filter(|it| it.gid == gid && kind.is_none_or(|kind| it.kind == kind))
            .max_by_key(|it| it.kind == GidType::RoceV2),
        GidChoice::Sensible if link_layer == LinkLayer::InfiniBand => gids.first(),
        GidChoice::Sensible => {
            let v2 = |it: &&GidEntry| it.kind == GidType::RoceV2;
            let of_v2 = gids.iter().filter(routed).find(v2);
            of_v2.or_else(|| gids.iter().find(routed)).or(gids.first())
        }
    };
    found.cloned().ok_or_else(|| {
        let shown = gids.iter().map(|it| format!("{} {} ({})", it.index, it.gid, it.kind));
        let shown: Vec<_> = shown.collect();
        let wanted = match options.gid {
            GidChoice::Sensible => "an address".to_owned(),
            GidChoice::Index(index) => format!("GID {index}"),
            GidChoice::Gid(gid, None) => format!("GID {gid}"),
            GidChoice::Gid(gid, Some(kind)) => format!("GID {gid} of {kind}"),
        };
        let name = &context.device().name;
        let message = format!(
            "port {} of {name} has not {wanted}; it has: {}",
            options.port,
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
        );
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

/// Cuts what is asked for to what the device has.
fn fit(mut options: RdmaOptions, limits: &DeviceLimits, name: &str) -> RdmaOptions {
    let cut = |what: &str, wanted: &mut u32, most: u32| {
        if *wanted > most {
            tracing::info!(device = %name, what, wanted = *wanted, most, "cut to what the device has");
            *wanted = most;
        }
    };
    if limits.max_srq == 0 && options.shared_receives {
        tracing::info!(device = %name, "no shared receive queues: each queue pair has its own");
        options.shared_receives = false;
    }
    let most = if options.shared_receives { limits.max_srq_wr } else { limits.max_qp_wr };
    cut("ms_async_rdma_receive_queue_len", &mut options.receive_queue_len, most);
    let buffers = options.receive_buffers;
    cut("ms_async_rdma_receive_queue_len", &mut options.receive_queue_len, buffers);
    // One more work request tells the peer of our end, and one ourselves that all is flushed.
    cut(
        "ms_async_rdma_send_buffers",
        &mut options.send_buffers,
        limits.max_qp_wr.saturating_sub(2),
    );
    options
}
