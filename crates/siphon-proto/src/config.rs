use std::sync::Arc;
use std::time::Duration;

use siphon_wire::buf::SegmentPool;
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType};

use crate::policy::Policy;
use crate::v2::{BannerFeatures, Limits};

/// Policies by the kind of peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    default: Policy,
    by_type: Vec<(EntityType, Policy)>,
}

impl Policies {
    /// The same policy for everyone.
    pub fn new(default: Policy) -> Self {
        Self { default, by_type: Vec::new() }
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
    /// Features of msgr2 that we offer: [`BannerFeatures::REVISION_1`] unless it is to be avoided.
    pub banner_features: BannerFeatures,
    /// Whether message payloads are checksummed (`ms_crc_data`).
    pub crc_data: bool,
    /// Longest segments once a session is open.
    pub limits: Limits,
    /// How long a handshake may take (`ms_connection_ready_timeout`).
    pub ready_timeout: Duration,
    /// How long a session may be silent (`ms_connection_idle_timeout`).
    pub idle_timeout: Duration,
    /// The messenger's count of connections so far (`global_seq`).
    pub global_seq: u64,
    /// Random and not 0: our half of a lossless session's identity.
    pub cookie: u64,
    /// Where long segments are received into.
    pub pool: SegmentPool,
}

/// Which side of the connection we are.
#[derive(Clone, Debug)]
pub enum Role {
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
