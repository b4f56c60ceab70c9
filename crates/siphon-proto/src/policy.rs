use siphon_wire::types::Features;

/// How a messenger treats its connections with one kind of peer: Ceph's `Messenger::Policy`
/// (`msg/Policy.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A fault ends the session; what was in flight is lost.
    pub lossy: bool,
    /// We only accept: after a fault we wait for the peer to come back.
    pub server: bool,
    /// After a fault, connect again only when there is something to send.
    pub standby: bool,
    /// A peer that forgot the session is told to reset.
    pub resetcheck: bool,
    /// Lossy clients are registered under their address, so that a second connection of one
    /// replaces its first.
    pub register_lossy_clients: bool,
    /// Features that we offer.
    pub features_supported: Features,
    /// Features without which a peer is refused.
    pub features_required: Features,
}

impl Policy {
    const fn new(
        lossy: bool,
        server: bool,
        standby: bool,
        resetcheck: bool,
        register: bool,
    ) -> Self {
        Self {
            lossy,
            server,
            standby,
            resetcheck,
            register_lossy_clients: register,
            features_supported: Features::ALL,
            features_required: Features::NONE,
        }
    }

    /// For clients that keep their session at a server that never connects back.
    pub const STATEFUL_SERVER: Self = Self::new(false, true, true, true, true);
    /// Lossy, but one connection a client.
    pub const STATELESS_REGISTERED_SERVER: Self = Self::new(true, true, false, false, true);
    /// Lossy: what an OSD is to clients.
    pub const STATELESS_SERVER: Self = Self::new(true, true, false, false, false);
    /// Between equals that lose nothing.
    pub const LOSSLESS_PEER: Self = Self::new(false, false, true, false, true);
    /// Between equals that may be restarted under the same address.
    pub const LOSSLESS_PEER_REUSE: Self = Self::new(false, false, true, true, true);
    /// A client that starts anew after a fault: of a monitor, say.
    pub const LOSSY_CLIENT: Self = Self::new(true, false, false, false, true);
    /// A client whose session survives faults.
    pub const LOSSLESS_CLIENT: Self = Self::new(false, false, false, true, true);

    /// The same policy for peers that have at least these features.
    #[must_use]
    pub const fn requiring(mut self, features: Features) -> Self {
        self.features_required = features;
        self
    }
}

impl Default for Policy {
    /// Ceph's default for peers without a policy of their own: `stateless_server`'s lossy half.
    fn default() -> Self {
        Self::STATELESS_SERVER
    }
}
