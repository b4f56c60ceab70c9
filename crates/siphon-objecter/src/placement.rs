//! Where a request goes under one map after the other.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use siphon_crush::hash::hash2;
use siphon_messages::osd::OsdFlags;
use siphon_osdmap::{MapFlags, OsdMap, PgPool, PgWorkspace, PoolFlags};
use siphon_wire::types::{ByteString, Epoch, ObjectLocator, PgId};

use crate::interval::Interval;

/// What a request is for: what of it decides where it goes.
#[derive(Clone, Copy)]
pub(crate) struct Aim<'a> {
    /// The pool that is meant, whichever cache tier stands before it.
    pub(crate) pool: i64,
    pub(crate) oid: &'a [u8],
    /// Its pool is not looked at.
    pub(crate) locator: &'a ObjectLocator,
    pub(crate) flags: OsdFlags,
    /// It lasts, and is lost with any change of interval.
    pub(crate) lasting: bool,
}

impl Aim<'_> {
    fn reads(&self) -> bool {
        self.flags.contains(OsdFlags::READ)
    }

    fn writes(&self) -> bool {
        self.flags.contains(OsdFlags::WRITE)
    }

    /// Whether a full pool stops it (`op_target_t::respects_full`).
    fn respects_full(&self) -> bool {
        let changes = self.writes() || self.flags.contains(OsdFlags::RWORDERED);
        let despite =
            self.flags.contains(OsdFlags::FULL_TRY) || self.flags.contains(OsdFlags::FULL_FORCE);
        changes && !despite
    }
}

/// Where a request goes, by the last map that it was looked up in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    /// `None` before there was a pool.
    pub(crate) interval: Option<Arc<Interval>>,
    /// The full hash, in the pool that it goes to: the one that was meant, or a cache tier of it.
    pub(crate) raw: PgId,
    /// The OSD; `None` if there is none at the time.
    pub(crate) osd: Option<i32>,
    /// The cluster or the pool does not take it at the time.
    pub(crate) paused: bool,
    /// From which epoch on the pool is known not to exist, if it is not there.
    pub(crate) gone_by: Option<Epoch>,
    pool_existed: bool,
    used_replica: bool,
    epoch: Epoch,
}

/// What a map means for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recalc {
    /// Nothing.
    Same,
    /// It goes elsewhere, or has to go again.
    Resend,
    /// There is no such pool in this map.
    NoPool,
    /// The pool fails everything.
    PoolEio,
}

/// What is to be thought of a pool that is not in our map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It does not exist, or does not any more.
    Certain,
    /// A newer map is on its way, which will tell.
    WaitForMap,
    /// There may be a newer map.
    AskForNewest,
}

impl Placement {
    /// Looks the request up in a map.
    pub(crate) fn recalc(&mut self, aim: Aim<'_>, view: &mut View<'_>) -> Recalc {
        let map = view.map;
        let before = std::mem::replace(&mut self.epoch, map.epoch);
        let Some((target, pool)) = target_pool(map, &aim) else {
            self.osd = None;
            return Recalc::NoPool;
        };
        let meant = map.pool(aim.pool).unwrap_or(pool);
        if meant.flags.contains(PoolFlags::EIO) {
            return Recalc::PoolEio;
        }
        self.pool_existed = true;
        self.gone_by = None;
        let forced = before.0 != 0 && before < meant.last_force_op_resend;
        let seed = pool.hash_object(aim.oid, aim.locator);
        let raw = PgId { pool: target.cast_unsigned(), seed };
        let Some(now) = view.interval(pool, raw) else {
            self.osd = None;
            return Recalc::NoPool;
        };
        let paused = is_paused(map, meant, &aim);
        let unpaused = std::mem::replace(&mut self.paused, paused) && !paused;
        let lost = match &self.interval {
            None => true,
            Some(_) if raw != self.raw => true,
            Some(old) if Arc::ptr_eq(old, &now) => false,
            Some(old) if aim.lasting || self.used_replica => old.ends_before(&now),
            Some(old) => old.is_lost_by(&now),
        };
        self.raw = raw;
        if lost || forced {
            (self.osd, self.used_replica) = choose(&now, &aim, view);
        }
        self.interval = Some(now);
        if lost || forced || unpaused { Recalc::Resend } else { Recalc::Same }
    }

    /// After [`Recalc::NoPool`].
    pub(crate) fn missing(&mut self, epoch: Epoch) -> Missing {
        if self.pool_existed {
            // It was there, so it was deleted.
            self.gone_by = Some(epoch);
        }
        match self.gone_by {
            Some(by) if epoch >= by => Missing::Certain,
            Some(_) => Missing::WaitForMap,
            None => Missing::AskForNewest,
        }
    }

    /// Asks the primary from now on, wherever it was asked before.
    pub(crate) fn forget(&mut self) {
        self.interval = None;
    }
}

/// The pool that a request goes to: a cache tier, where the pool has one.
fn target_pool<'m>(map: &'m OsdMap, aim: &Aim<'_>) -> Option<(i64, &'m PgPool)> {
    let pool = map.pool(aim.pool)?;
    let mut target = aim.pool;
    if !aim.flags.contains(OsdFlags::IGNORE_OVERLAY) {
        if aim.reads() && pool.read_tier >= 0 {
            target = pool.read_tier;
        }
        if aim.writes() && pool.write_tier >= 0 {
            target = pool.write_tier;
        }
    }
    Some((target, map.pool(target)?))
}

fn is_paused(map: &OsdMap, pool: &PgPool, aim: &Aim<'_>) -> bool {
    let full = map.flags.contains(MapFlags::FULL) || pool.flags.contains(PoolFlags::FULL);
    (aim.reads() && map.flags.contains(MapFlags::PAUSERD))
        || (aim.writes() && map.flags.contains(MapFlags::PAUSEWR))
        || (aim.writes() && aim.respects_full() && full)
}

/// The OSD to ask, and whether it may be another than the primary.
fn choose(now: &Interval, aim: &Aim<'_>, view: &View<'_>) -> (Option<i32>, bool) {
    let (balanced, localized) =
        (aim.flags.contains(OsdFlags::BALANCE_READS), aim.flags.contains(OsdFlags::LOCALIZE_READS));
    let alone = now.acting.len() < 2 || now.acting_primary.is_none();
    if !(balanced || localized) || !aim.reads() || aim.writes() || !now.replicated || alone {
        return (now.acting_primary, false);
    }
    let place = if balanced {
        // As good as random, and the same for the same object, so that an OSD's cache is of use.
        hash2(now.pg.seed, view.salt) as usize % now.acting.len()
    } else {
        view.nearest(&now.acting)
    };
    (Some(now.acting[place]), place != 0)
}

/// A map as requests see it, with what was found in it before.
pub(crate) struct View<'a> {
    pub(crate) map: &'a OsdMap,
    pub(crate) cache: &'a mut PgCache,
    /// Where we are: types and names of buckets.
    pub(crate) location: &'a [(ByteString, ByteString)],
    /// What tells us from other clients.
    pub(crate) salt: u32,
}

impl View<'_> {
    fn interval(&mut self, pool: &PgPool, raw: PgId) -> Option<Arc<Interval>> {
        self.cache.interval(self.map, pool.pg_of_hash(raw))
    }

    /// The place of the OSD that is nearest to us; the first one's if that is as near.
    fn nearest(&self, osds: &[i32]) -> usize {
        let here: Vec<(&[u8], &[u8])> =
            self.location.iter().map(|(kind, name)| (&**kind, &**name)).collect();
        let far = |osd: i32| self.map.crush.common_ancestor(osd, &here).unwrap_or(i32::MAX);
        let nearest = osds.iter().enumerate().min_by_key(|(place, osd)| (far(**osd), *place));
        nearest.map_or(0, |(place, _)| place)
    }
}

/// The placement groups that were looked up in one map.
#[derive(Default)]
pub(crate) struct PgCache {
    epoch: Epoch,
    found: HashMap<PgId, Arc<Interval>, RandomState>,
    /// Those of the map before: where nothing changed, its entry goes on.
    before: HashMap<PgId, Arc<Interval>, RandomState>,
    work: PgWorkspace,
}

impl PgCache {
    fn interval(&mut self, map: &OsdMap, pg: PgId) -> Option<Arc<Interval>> {
        if self.epoch != map.epoch {
            self.epoch = map.epoch;
            self.before = std::mem::take(&mut self.found);
        }
        if let Some(found) = self.found.get(&pg) {
            return Some(Arc::clone(found));
        }
        let now = Interval::of(map, pg, &mut self.work)?;
        let now = match self.before.remove(&pg) {
            Some(before) if *before == now => before,
            _ => Arc::new(now),
        };
        self.found.insert(pg, Arc::clone(&now));
        Some(now)
    }
}

#[cfg(test)]
mod tests;
