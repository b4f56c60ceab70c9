use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use siphon_wire::buf::SegmentPool;
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType};

use crate::counters::SessionCounters;
use crate::policy::Policy;
use crate::throttle::Throttle;
use crate::v2::compression::CompressionOptions;
use crate::v2::{BannerFeatures, Limits};

/// Policies by the kind of peer.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    default: Policy,
    by_type: Vec<(EntityType, Policy)>,
    throttles: Vec<(EntityType, Throttles)>,
}

/// What bounds messages of one kind of peer, from when they begin to arrive until they are dropped:
/// Ceph's `throttler_bytes` and `throttler_messages` of a policy.
#[derive(Clone, Debug, Default)]
pub struct Throttles {
    /// Of their payload, in bytes.
    pub bytes: Option<Throttle>,
    /// Of their number.
    pub messages: Option<Throttle>,
}

impl Policies {
    /// The same policy for everyone.
    pub fn new(default: Policy) -> Self {
        Self { default, ..Self::default() }
    }

    /// Sets the policy for peers without one of their own.
    pub fn set_default(&mut self, policy: Policy) {
        self.default = policy;
    }

    /// Sets the policy for one kind of peer.
    pub fn set(&mut self, peer_type: EntityType, policy: Policy) {
        self.by_type.retain(|(kind, _)| *kind != peer_type);
        self.by_type.push((peer_type, policy));
    }

    /// Bounds the messages of one kind of peer.
    pub fn set_throttles(&mut self, peer_type: EntityType, throttles: Throttles) {
        self.throttles.retain(|(kind, _)| *kind != peer_type);
        self.throttles.push((peer_type, throttles));
    }

    /// What bounds the messages of a kind of peer.
    pub fn throttles_of(&self, peer_type: EntityType) -> Throttles {
        let own = self.throttles.iter().find(|(kind, _)| *kind == peer_type);
        own.map(|(_, throttles)| throttles.clone()).unwrap_or_default()
    }

    /// All that bound messages.
    pub fn throttles(&self) -> impl Iterator<Item = &Throttle> {
        self.throttles.iter().flat_map(|(_, it)| it.bytes.iter().chain(&it.messages))
    }

    /// Whether messages of anybody are bounded.
    pub fn has_throttles(&self) -> bool {
        !self.throttles.is_empty()
    }

    /// The policy for a kind of peer.
    pub fn of(&self, peer_type: EntityType) -> Policy {
        let own = self.by_type.iter().find(|(kind, _)| *kind == peer_type);
        own.map_or(self.default, |(_, policy)| *policy)
    }
}

/// What a connection has to know whichever side opened it.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Our name.
    pub name: EntityName,
    /// Our addresses; blank until they are learned.
    pub addrs: EntityAddrVec,
    /// Our nonce, for an address that is learned.
    pub nonce: u32,
    /// Whether a client without an address takes that which its first peer sees
    /// (`ms_learn_addr_from_peer`).
    pub learn_addr: bool,
    /// How we treat peers, by their kind.
    pub policies: Arc<Policies>,
    /// Features of msgr2 that we offer: all, unless one is to be avoided.
    pub banner_features: BannerFeatures,
    /// With whom frames are compressed, and how.
    pub compression: CompressionOptions,
    /// Whether message payloads are checksummed (`ms_crc_data`).
    pub crc_data: bool,
    /// Segments of up to so many bytes are copied behind their headers, longer ones sent from where they are:
    /// [`COPIED`](Self::COPIED), or less over a transport that sends from registered memory. msgr1 has a
    /// bound of its own, 1 KiB.
    pub copied: usize,
    /// Longest segments once a session is open.
    pub limits: Limits,
    /// How long a handshake may take (`ms_connection_ready_timeout`).
    pub ready_timeout: Duration,
    /// How long a session may be silent (`ms_connection_idle_timeout`).
    pub idle_timeout: Duration,
    /// How long to wait before a second attempt to connect (`ms_initial_backoff`).
    pub initial_backoff: Duration,
    /// How long to wait at most before any attempt to connect (`ms_max_backoff`).
    pub max_backoff: Duration,
    /// In secure mode: how many texts, of which a message takes up to three, the key of a link seals
    /// at most. A session goes on over another link, which has another key. A link that could repeat
    /// a nonce ends in any case: revision 0 has 2^32 of them, revision 1 has 2^64. Less than 384 is
    /// taken for 384.
    pub rekey_after: u64,
    /// The messenger's count of attempts to connect.
    pub global_seq: Arc<GlobalSeq>,
    /// A random number, from which our halves of sessions' identities are drawn.
    pub cookie_seed: u64,
    /// Where it is counted what happens to sessions.
    pub counters: Arc<SessionCounters>,
    /// Where long segments are received into.
    pub pool: SegmentPool,
    /// Wakes whoever drives the connection, when a throttle may let its next message pass: see
    /// [`Connection::handle_room`](crate::Connection::handle_room).
    pub waker: Waker,
}

impl ConnectionConfig {
    /// Segments of up to so many bytes are copied where a system call sends them: the kernel takes more for
    /// another entry of a vectored write than the copy does. With 4 KiB it is a fifth of what sending
    /// takes, with 16 KiB there is no difference.
    pub const COPIED: usize = 8 << 10;

    /// Ceph's defaults, and counts of its own. Whoever makes several connections shares
    /// `global_seq`, `counters` and `pool` among them, and gives each a random `cookie_seed`.
    pub fn new(name: EntityName, addrs: EntityAddrVec) -> Self {
        Self {
            name,
            addrs,
            nonce: 0,
            learn_addr: true,
            policies: Arc::default(),
            banner_features: BannerFeatures::ALL,
            compression: CompressionOptions::default(),
            crc_data: true,
            copied: Self::COPIED,
            limits: Limits::SESSION,
            ready_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(900),
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(15),
            rekey_after: u64::MAX,
            global_seq: Arc::default(),
            cookie_seed: 0,
            counters: Arc::default(),
            pool: SegmentPool::new(0),
            waker: Waker::noop().clone(),
        }
    }
}

/// How often a messenger has tried to connect, or knows that a peer has: a peer tells by it which
/// of two attempts is the newer (`AsyncMessenger::get_global_seq`).
#[derive(Debug, Default)]
pub struct GlobalSeq(AtomicU64);

impl GlobalSeq {
    /// The next number, which is above `seen` as well.
    ///
    /// ```
    /// let seq = siphon_proto::GlobalSeq::default();
    /// assert_eq!((seq.next_after(0), seq.next_after(7), seq.next_after(3)), (1, 8, 9));
    /// ```
    pub fn next_after(&self, seen: u64) -> u64 {
        self.0.fetch_max(seen, Ordering::Relaxed);
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

/// Which side of a link we are.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// We connect.
    Client {
        /// The address we connect to.
        target: EntityAddr,
        /// What must be there; `None` takes what comes.
        peer_type: Option<EntityType>,
    },
    /// We accept.
    Server {
        /// The peer's address as our socket has it.
        peer_addr: EntityAddr,
    },
}
