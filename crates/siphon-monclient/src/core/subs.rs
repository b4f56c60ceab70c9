use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use siphon_messages::{MMonSubscribe, MMonSubscribeAck, SubscribeItem};
use siphon_wire::types::ByteString;

/// What a monitor is to publish to us, and from which version on.
///
/// Monitors since Jewel remember what their clients subscribed to as long as the session lasts; older
/// ones want to be reminded, and say so by an acknowledgement (`MonSub` of Ceph's `mon/MonSub.cc`).
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    wanted: BTreeMap<ByteString, Wanted>,
    hostname: ByteString,
    sent_at: Option<Instant>,
    renew_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    item: SubscribeItem,
    /// The monitor of the session knows of it.
    sent: bool,
}

impl Subscriptions {
    pub(super) fn new(hostname: ByteString) -> Self {
        Self { hostname, ..Self::default() }
    }

    /// Subscribes, or changes what is wanted of the same map.
    pub(super) fn want(&mut self, what: ByteString, item: SubscribeItem) {
        let known = self.wanted.get(&what);
        if known.is_none_or(|known| known.item != item) {
            self.wanted.insert(what, Wanted { item, sent: false });
        }
    }

    /// Wants it no more. The monitor of the session is not told: it goes on until the session ends.
    pub(super) fn unwant(&mut self, what: &[u8]) {
        self.wanted.remove(&ByteString::from(what));
    }

    /// A version has arrived: the next session begins behind it.
    pub(super) fn got(&mut self, what: &[u8], version: u64) {
        let what = ByteString::from(what);
        let Some(wanted) = self.wanted.get_mut(&what) else { return };
        if wanted.item.start > version {
            return;
        }
        if wanted.item.is_once() {
            self.wanted.remove(&what);
        } else {
            wanted.item.start = version.saturating_add(1);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// A new session, whose monitor knows of nothing.
    pub(super) fn forget_sent(&mut self) {
        self.wanted.values_mut().for_each(|wanted| wanted.sent = false);
        self.renew_at = None;
    }

    /// What the monitor of the session does not know of yet.
    pub(super) fn take_unsent(&mut self, now: Instant) -> Option<MMonSubscribe> {
        let unsent = self.wanted.iter_mut().filter(|(_, wanted)| !wanted.sent);
        let what: BTreeMap<_, _> = unsent
            .map(|(what, wanted)| {
                wanted.sent = true;
                (what.clone(), wanted.item)
            })
            .collect();
        if what.is_empty() {
            return None;
        }
        self.sent_at = Some(now);
        Some(MMonSubscribe { what, hostname: self.hostname.clone() })
    }

    /// The monitor forgets in so many seconds.
    pub(super) fn handle_ack(&mut self, ack: &MMonSubscribeAck) {
        if let Some(sent_at) = self.sent_at.take() {
            let half = Duration::from_secs(u64::from(ack.interval.max(2))) / 2;
            self.renew_at = Some(sent_at + half);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.renew_at
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.renew_at.is_some_and(|at| at <= now) {
            self.forget_sent();
        }
    }
}
