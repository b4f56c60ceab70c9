//! When what is under way for a placement group has to be sent again.

use siphon_osdmap::{MapFlags, OsdMap, PeeringCrush, PgSplit as _, PgWorkspace};
use siphon_wire::types::{PgId, SpgId};

/// All that decides who serves a placement group, and by which rules, in an epoch: an OSD begins a new
/// interval where it changes (`PastIntervals::is_new_interval`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// The placement group proper.
    pub(crate) pg: PgId,
    /// The shard of it that clients speak to.
    pub(crate) spg: SpgId,
    pub(crate) up: Vec<i32>,
    pub(crate) up_primary: Option<i32>,
    pub(crate) acting: Vec<i32>,
    pub(crate) acting_primary: Option<i32>,
    pub(crate) size: u8,
    pub(crate) min_size: u8,
    pub(crate) pg_num: u32,
    pub(crate) pg_num_pending: u32,
    pub(crate) sort_bitwise: bool,
    pub(crate) recovery_deletes: bool,
    pub(crate) peering_crush: Option<PeeringCrush>,
    pub(crate) replicated: bool,
}

impl Interval {
    /// Of a placement group, or of one with a full hash in place of its number. `None` if there is no such
    /// pool.
    pub(crate) fn of(map: &OsdMap, pg: PgId, work: &mut PgWorkspace) -> Option<Self> {
        let pool = map.pool(pg.pool.cast_signed())?;
        let pg = pool.pg_of_hash(pg);
        let spg = map.primary_shard(pg, work).map_or_else(|| pg.into(), |(spg, _)| spg);
        let osds = map.map_pg(pg, work);
        Some(Self {
            pg,
            spg,
            up: osds.up.to_vec(),
            up_primary: osds.up_primary,
            acting: osds.acting.to_vec(),
            acting_primary: osds.acting_primary,
            size: pool.size,
            min_size: pool.min_size,
            pg_num: pool.pg_num,
            pg_num_pending: pool.pg_num_pending,
            sort_bitwise: map.flags.contains(MapFlags::SORTBITWISE),
            recovery_deletes: map.flags.contains(MapFlags::RECOVERY_DELETES),
            peering_crush: pool.peering_crush,
            replicated: pool.is_replicated(),
        })
    }

    /// Whether an OSD forgets what the primary was asked under `self`, when it comes to `now`: what it was
    /// asked before then has to be asked again.
    ///
    /// OSDs go by the primary and its place among the acting ones (`OSDMap::primary_changed_broken`), and by
    /// whether the group split or merged; other changes among the acting OSDs they live through.
    pub(crate) fn is_lost_by(&self, now: &Self) -> bool {
        self.pg.pool != now.pg.pool
            || self.acting.is_empty() != now.acting.is_empty()
            || self.acting_primary != now.acting_primary
            || self.role_of_primary() != now.role_of_primary()
            || self.splits_or_merges(now)
    }

    /// Whether a new interval begins with `now`: what lasts, as a watch, has to be begun again, and what a
    /// replica was asked is lost.
    pub(crate) fn ends_before(&self, now: &Self) -> bool {
        self.is_lost_by(now)
            || self.acting != now.acting
            || self.up_primary != now.up_primary
            || self.up != now.up
            || (self.size, self.min_size) != (now.size, now.min_size)
            || merges(self.pg, self.pg_num_pending, now.pg_num_pending)
            || self.sort_bitwise != now.sort_bitwise
            || self.recovery_deletes != now.recovery_deletes
            || self.peering_crush != now.peering_crush
    }

    fn role_of_primary(&self) -> Option<usize> {
        let primary = self.acting_primary?;
        self.acting.iter().position(|osd| *osd == primary)
    }

    fn splits_or_merges(&self, now: &Self) -> bool {
        let (old, new) = (self.pg_num, now.pg_num);
        old != new && (self.pg.children(old, new).next().is_some() || takes_part(self.pg, old, new))
    }
}

/// Whether a placement group is merged into another one or takes one up, or was about to, or is now.
fn merges(pg: PgId, old_pending: u32, new_pending: u32) -> bool {
    old_pending != new_pending
        && (takes_part(pg, old_pending, new_pending) || takes_part(pg, new_pending, old_pending))
}

/// Whether a placement group goes, or takes another one up, when there are `new` of them in place of `old`
/// (`pg_t::is_merge_source`, `pg_t::is_merge_target`).
fn takes_part(pg: PgId, old: u32, new: u32) -> bool {
    let target = || pg.seed < new && pg.children(new, old).next().is_some();
    pg.merge_target(old, new).is_some() || target()
}

#[cfg(test)]
mod tests;
