use std::time::{Duration, Instant};

use siphon_messages::mon::MgrMap;
use siphon_msgr::CloseReason;
use siphon_wire::types::{EntityAddrVec, Features};

use super::SessionId;
use crate::error::Tried;

/// Between two attempts to connect to a manager that ended the connection
/// (`mgr_connect_retry_interval`).
const RETRY: Duration = Duration::from_secs(1);

/// Where the active manager is, and our connection to it.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// Somebody asked for it: the map is subscribed to.
    pub(super) wanted: bool,
    pub(super) map: Option<MgrMap>,
    session: Option<SessionId>,
    retry_at: Option<Instant>,
    failure: Option<CloseReason>,
}

impl Manager {
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Whether the active manager takes commands for its modules in a message of their own.
    pub(super) fn is_octopus(&self) -> bool {
        let features = self.map.as_ref().map(|map| map.active_mgr_features);
        features.is_some_and(|features| features.contains(Features::SERVER_OCTOPUS))
    }

    /// Takes a newer map. Returns the session that is with nobody who counts any more.
    pub(super) fn handle_map(&mut self, map: MgrMap) -> Option<SessionId> {
        let place = |map: &MgrMap| (map.active_gid, map.active_addrs.clone());
        let moved = self.map.as_ref().is_none_or(|known| place(known) != place(&map));
        self.map = Some(map);
        if !moved {
            return None;
        }
        (self.retry_at, self.failure) = (None, None);
        self.session.take()
    }

    /// Where to connect to now, if there is reason to.
    pub(super) fn target(&self) -> Option<EntityAddrVec> {
        if self.session.is_some() || self.retry_at.is_some() {
            return None;
        }
        let map = self.map.as_ref()?;
        (map.available && !map.active_addrs.is_empty()).then(|| map.active_addrs.clone())
    }

    pub(super) fn opened(&mut self, session: SessionId) {
        self.session = Some(session);
    }

    /// It has let us in.
    pub(super) fn handle_open(&mut self) {
        self.failure = None;
    }

    /// Whether the last attempt to reach it failed.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.session.is_none() || self.failure.is_some()
    }

    pub(super) fn handle_fault(&mut self, reason: &CloseReason) {
        self.failure = Some(reason.clone());
    }

    /// The connection has ended.
    pub(super) fn handle_reset(&mut self, reason: &CloseReason, now: Instant) {
        self.session = None;
        self.failure = Some(reason.clone());
        self.retry_at = Some(now + RETRY);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|at| *at > now);
    }

    /// What is known of it, for an error.
    pub(super) fn tried(&self) -> Vec<Tried> {
        let active = self.map.iter().filter(|map| !map.active_addrs.is_empty());
        let tried = |map: &MgrMap| Tried {
            name: format!("mgr.{}", map.active_name),
            addrs: map.active_addrs.clone(),
            reason: self.failure.clone(),
        };
        active.map(tried).collect()
    }
}
