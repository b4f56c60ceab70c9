//! One map after the other, and what each means for what is under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_osdmap::{MapFlags, OsdMap, PoolFlags};
use siphon_wire::types::{Epoch, SnapId};

use super::{Core, Done, MapTicket, Output, Subject, Waiter, view};
use crate::OpError;
use crate::placement::Recalc;
use crate::update::{MapUpdate, Step};

/// How the next map came.
enum Advance {
    /// As the one after.
    Next,
    /// Some before it are not known.
    Skipped,
    /// It did not.
    Missing,
}

impl Core {
    /// Maps came, from a monitor or an OSD.
    pub(crate) fn handle_map(&mut self, update: impl Into<MapUpdate>, now: Instant) {
        let mut update = update.into();
        if update.fsid != self.config.fsid {
            tracing::warn!(fsid = %update.fsid, "maps of another cluster are not taken");
            return;
        }
        let before = self.map.epoch;
        while self.map.epoch < update.last() && !self.is_shut {
            let skipped = match self.advance(&mut update) {
                Ok(Advance::Next) => false,
                Ok(Advance::Skipped) => true,
                Ok(Advance::Missing) => {
                    self.wanted = None;
                    self.want_map();
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, epoch = %self.map.epoch, "a map cannot be used");
                    self.want(Epoch(0), false);
                    break;
                }
            };
            self.look_up_all(skipped);
        }
        if self.map.epoch > before {
            let all = matches!(self.wanted.take(), Some((_, true)));
            self.wake_waiters();
            self.flush(now);
            if all && !self.is_held_up() {
                self.want_map(); // one more, and not all
            }
            self.want_more();
        }
        self.admit(now);
        self.check();
    }

    /// Makes the map the next one that there is.
    fn advance(&mut self, update: &mut MapUpdate) -> Result<Advance, Box<dyn std::error::Error>> {
        let have = self.map.epoch;
        let Some((epoch, step)) = update.take_after(have)? else { return Ok(Advance::Missing) };
        match step {
            Step::Incremental(incremental) => Arc::make_mut(&mut self.map).apply(&incremental)?,
            Step::Whole(map) => self.map = Arc::from(map),
        }
        let next = have.0 != 0 && epoch.0 == have.0.wrapping_add(1);
        Ok(if next { Advance::Next } else { Advance::Skipped })
    }

    /// Looks up all that is under way in the map.
    fn look_up_all(&mut self, skipped: bool) {
        let Self { ops, map, cache, config, .. } = self;
        let mut view = view(map, cache, config);
        let (mut lost, mut without_pool, mut failing) = (Vec::new(), Vec::new(), Vec::new());
        for (tid, op) in ops.iter_mut().filter(|(_, op)| !op.queued) {
            prune_snaps(view.map, op);
            match op.recalc(&mut view) {
                Recalc::Same if !skipped => {}
                Recalc::Same | Recalc::Resend => lost.push(*tid),
                Recalc::NoPool => without_pool.push(*tid),
                Recalc::PoolEio => failing.push(*tid),
            }
        }
        self.look_up_lingers(skipped);
        self.look_up_commands();
        for tid in lost {
            self.lose(tid);
        }
        self.close_sessions();
        // Those without an OSD have no session.
        for op in self.ops.values_mut().filter(|op| op.place.osd.is_none() && op.session.is_some())
        {
            op.session = None;
            op.unsent = true;
        }
        without_pool.into_iter().for_each(|tid| self.without_pool(tid));
        failing.into_iter().for_each(|tid| self.pool_fails(tid));
    }

    /// Asks for the maps after ours, unless that was done.
    pub(super) fn want_map(&mut self) {
        let from = match self.map.epoch.0 {
            0 => Epoch(0),
            epoch => Epoch(epoch.saturating_add(1)),
        };
        let continuous = self.is_held_up();
        self.want(from, continuous);
    }

    fn want(&mut self, from: Epoch, continuous: bool) {
        if !self.is_shut && self.wanted != Some((from, continuous)) {
            self.wanted = Some((from, continuous));
            self.outputs.push_back(Output::WantMap { from, continuous });
        }
    }

    /// Whether the cluster or a pool does not take all requests: then each map may change that.
    fn is_held_up(&self) -> bool {
        let flags = self.map.flags;
        let held = MapFlags::PAUSERD | MapFlags::PAUSEWR | MapFlags::FULL;
        let full = |flags: PoolFlags| flags.contains(PoolFlags::FULL);
        flags.0 & held.0 != 0 || self.map.pools.values().any(|pool| full(pool.flags))
    }

    /// After a map: whether another one is waited for.
    fn want_more(&mut self) {
        let homeless = |op: &super::ops::OpState| !op.queued && op.session.is_none();
        if self.is_held_up() || !self.waiters.is_empty() || self.ops.values().any(|op| homeless(op))
        {
            self.want_map();
        }
    }

    /// Waits for a map of an epoch, or a newer one.
    pub(crate) fn wait_for_epoch(
        &mut self,
        epoch: Epoch,
        timeout: Option<Duration>,
        ticket: MapTicket,
        now: Instant,
    ) {
        if self.is_shut {
            self.done(Done::Map(ticket, Err(OpError::Shutdown)));
        } else if self.map.epoch >= epoch && self.map.epoch.0 != 0 {
            let map = Arc::clone(&self.map);
            self.done(Done::Map(ticket, Ok(map)));
        } else {
            let id = self.next_id();
            ticket.set_id(id);
            let timeout = timeout.or(self.config.timeout);
            let timeout = timeout.and_then(|after| Some((now.checked_add(after)?, after)));
            if let Some((at, _)) = timeout {
                self.deadlines.insert((at, id));
            }
            self.waiters.insert((epoch, id), Waiter { ticket, timeout });
            self.keep_ticking(now);
            self.want_map();
        }
    }

    /// Who waited is gone.
    pub(crate) fn forget_waiter(&mut self, epoch: Epoch, id: u64) {
        if let Some(Waiter { timeout: Some((at, _)), .. }) = self.waiters.remove(&(epoch, id)) {
            self.deadlines.remove(&(at, id));
        }
    }

    /// Who waits has waited long enough.
    pub(super) fn expire_waiter(&mut self, id: u64) {
        let place = self.waiters.keys().find(|(_, waiter)| *waiter == id).copied();
        if let Some(Waiter { ticket, timeout: Some((_, after)) }) =
            place.and_then(|place| self.waiters.remove(&place))
        {
            self.done(Done::Map(ticket, Err(OpError::TimedOut { after })));
        }
    }

    fn wake_waiters(&mut self) {
        while let Some(waiter) = self.waiters.first_entry()
            && waiter.key().0 <= self.map.epoch
        {
            let id = waiter.key().1;
            let Waiter { ticket, timeout } = waiter.remove();
            if let Some((at, _)) = timeout {
                self.deadlines.remove(&(at, id));
            }
            let map = Arc::clone(&self.map);
            self.done(Done::Map(ticket, Ok(map)));
        }
    }

    /// Has it looked up whether there is a newer map, for something that ours does not have.
    pub(super) fn check_newest(&mut self, subject: Subject) {
        if !self.unchecked.contains(&subject) && !self.checking.contains(&subject) {
            self.unchecked.push(subject);
        }
        self.ask_newest();
    }

    /// Asks, if there is something to ask for and nothing was asked yet.
    pub(super) fn ask_newest(&mut self) {
        if self.checking.is_empty() && !self.unchecked.is_empty() {
            self.checking = std::mem::take(&mut self.unchecked);
            self.outputs.push_back(Output::CheckNewest);
        }
    }

    /// The monitors' newest epoch; `None` if they could not be asked, and will be at the next tick.
    pub(crate) fn handle_newest(&mut self, newest: Option<Epoch>, now: Instant) {
        let asked = std::mem::take(&mut self.checking);
        let Some(newest) = newest else {
            self.unchecked.splice(0..0, asked);
            self.keep_ticking(now);
            return;
        };
        for subject in asked {
            match subject {
                Subject::Op(tid) => {
                    let Some(op) = self.ops.get_mut(&tid) else { continue };
                    if op.place.osd.is_none() && op.place.interval.is_none() {
                        op.place.gone_by.get_or_insert(newest);
                        self.without_pool(tid);
                    }
                }
                Subject::Linger(id) => self.linger_without_pool(id, Some(newest)),
                Subject::Command(id) => self.command_without_osd(id, Some(newest)),
            }
        }
        self.ask_newest();
        self.admit(now);
        self.check();
    }
}

/// Snapshots that this epoch removed are not written any more (`_prune_snapc`).
fn prune_snaps(map: &OsdMap, op: &mut super::ops::OpState) {
    let Some(removed) = map.new_removed_snaps.get(&op.pool) else { return };
    let is_removed = |snap: &SnapId| removed.contains(*snap);
    if op.message.snaps.iter().any(is_removed) {
        Arc::make_mut(&mut op.message).snaps.retain(|snap| !is_removed(snap));
    }
}
