//! From an object's name to its placement group, and from there to its OSDs.

use siphon_crush::hash::hash2;
use siphon_crush::{ITEM_NONE, Workspace};
use siphon_wire::types::{ObjectLocator, PgId, Release, ShardId, SpgId};

use crate::{DEFAULT_PRIMARY_AFFINITY, OsdMap, PgPool};

/// The OSDs of a placement group (`pg_to_up_acting_osds`).
///
/// In erasure-coded pools, an OSD's place is its shard, and [`ITEM_NONE`] stands where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgOsds<'a> {
    /// Those that it is mapped to, as far as they run.
    pub up: &'a [i32],
    /// The first among them.
    pub up_primary: Option<i32>,
    /// Those that serve it: usually the same.
    pub acting: &'a [i32],
    /// The one that clients speak to.
    pub acting_primary: Option<i32>,
}

/// Memory that mappings use: what one leaves behind, the next takes up. It serves for any map.
#[derive(Clone, Debug, Default)]
pub struct PgWorkspace {
    crush: Workspace,
    up: Vec<i32>,
    acting: Vec<i32>,
    shuffled: Vec<i32>,
}

impl PgWorkspace {
    /// One for any map.
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose mappings give up after so many draws: see [`Workspace::with_max_draws`].
    pub fn with_max_draws(max_draws: u64) -> Self {
        Self { crush: Workspace::with_max_draws(max_draws), ..Self::default() }
    }
}

fn first_osd(osds: &[i32]) -> Option<i32> {
    osds.iter().copied().find(|osd| *osd != ITEM_NONE)
}

impl OsdMap {
    /// The placement group of an object, with its full hash in place of a number
    /// (`object_locator_to_pg`): [`map_pg`](Self::map_pg) takes it so, as OSDs do in requests. `None` if
    /// there is no such pool.
    ///
    /// ```
    /// use siphon_osdmap::{OsdMap, PgPool, PoolType};
    /// use siphon_wire::types::{ObjectLocator, PgId};
    /// let mut map = OsdMap::default();
    /// map.pools.insert(1, PgPool::new(PoolType::REPLICATED, 3, 0, 32));
    /// let raw = map.map_object(b"foo", &ObjectLocator::new(1)).unwrap();
    /// assert_eq!(raw, PgId { pool: 1, seed: 0x7fc1f406 });
    /// assert_eq!(map.actual_pg(raw).unwrap().to_string(), "1.6");
    /// ```
    pub fn map_object(&self, object: &[u8], locator: &ObjectLocator) -> Option<PgId> {
        let pool = self.pool(locator.pool)?;
        let seed = pool.hash_object(object, locator);
        // A pool that is there has an id of 0 or more, but for one of a peer that errs.
        Some(PgId { pool: locator.pool.cast_unsigned(), seed })
    }

    /// The placement group proper of one with a full hash. `None` if there is no such pool.
    pub fn actual_pg(&self, raw: PgId) -> Option<PgId> {
        Some(self.pool(raw.pool.cast_signed())?.pg_of_hash(raw))
    }

    /// The OSDs of a placement group, which may have a full hash in place of its number: none if there is
    /// no such pool.
    ///
    /// See [`siphon_osdmap`](crate) for an example.
    pub fn map_pg<'w>(&self, pg: PgId, work: &'w mut PgWorkspace) -> PgOsds<'w> {
        work.up.clear();
        work.acting.clear();
        let none = PgOsds { up: &[], up_primary: None, acting: &[], acting_primary: None };
        let Some(pool) = self.pool(pg.pool.cast_signed()) else { return none };
        if pool.pg_num == 0 || pool.pgp_num == 0 {
            return none;
        }
        let actual = pool.pg_of_hash(pg);
        let up_primary = self.map_up(pool, pg, actual, work);
        let mut acting_primary = self.map_temporary(pool, actual, work);
        if work.acting.is_empty() {
            work.acting.extend_from_slice(&work.up);
            acting_primary = acting_primary.or(up_primary);
        }
        PgOsds { up: &work.up, up_primary, acting: &work.acting, acting_primary }
    }

    /// The shard of a placement group that clients speak to, and its OSD. `None` if there is no OSD.
    ///
    /// ```
    /// use siphon_osdmap::{OsdMap, OsdState, PgPool, PgWorkspace, PoolType};
    /// use siphon_wire::types::PgId;
    /// let mut map = OsdMap::default();
    /// map.set_max_osd(3);
    /// map.osd_state.fill(OsdState::EXISTS | OsdState::UP);
    /// map.pools.insert(1, PgPool::new(PoolType::ERASURE, 3, 0, 32));
    /// let pg = PgId { pool: 1, seed: 6 };
    /// map.pg_temp.insert(pg, vec![siphon_crush::ITEM_NONE, 2, 0]);
    /// let (shard, osd) = map.primary_shard(pg, &mut PgWorkspace::new()).unwrap();
    /// assert_eq!((shard.to_string(), osd), ("1.6s1".to_owned(), 2));
    /// ```
    pub fn primary_shard(&self, pg: PgId, work: &mut PgWorkspace) -> Option<(SpgId, i32)> {
        let pool = self.pool(pg.pool.cast_signed())?;
        let actual = pool.pg_of_hash(pg);
        let osds = self.map_pg(pg, work);
        let primary = osds.acting_primary?;
        if !pool.is_erasure() {
            return Some((SpgId { pg: actual, shard: ShardId::NO_SHARD }, primary));
        }
        // An OSD may have several shards: then it is the first that may be primary.
        let places = osds.acting.iter().enumerate().filter(|(_, osd)| **osd == primary);
        let reordered = pool.has_primaries_first() && self.pg_temp.contains_key(&actual);
        let later = |place: &usize| (reordered && pool.is_nonprimary_shard(*place), *place);
        let place = places.map(|(place, _)| place).min_by_key(later)?;
        Some((SpgId { pg: actual, shard: pool.shard(place) }, primary))
    }

    /// The rule of a pool. Up to Pacific it was found by the pool's type and size, too, and a pool that
    /// no rule was for was not mapped.
    fn rule_of(&self, pool: &PgPool) -> Option<u32> {
        if self.require_osd_release >= Release::QUINCY {
            return Some(u32::from(pool.crush_rule));
        }
        self.crush.find_rule(pool.crush_rule, pool.kind.0, pool.size)
    }

    /// Maps to OSDs that run, into `work.up`; returns the primary among them.
    fn map_up(
        &self,
        pool: &PgPool,
        raw: PgId,
        actual: PgId,
        work: &mut PgWorkspace,
    ) -> Option<i32> {
        let seed = pool.placement_seed(raw);
        let PgWorkspace { crush, up, .. } = work;
        if let Some(rule) = self.rule_of(pool) {
            let args = self.crush.choose_args_of(raw.pool.cast_signed());
            let size = usize::from(pool.size);
            let osds = self.crush.do_rule(rule, seed, size, &self.osd_weight, args, crush);
            up.extend_from_slice(osds);
        }
        keep(pool, up, |osd| self.exists(osd));
        self.apply_upmap(actual, up);
        keep(pool, up, |osd| self.is_up(osd));
        let primary = first_osd(up);
        self.apply_primary_affinity(seed, pool, up).or(primary)
    }

    /// Replaces OSDs by those that are set by hand, unless they are out (`_apply_upmap`).
    fn apply_upmap(&self, pg: PgId, osds: &mut Vec<i32>) {
        let is_out = |osd: i32| {
            self.is_osd(osd) && self.osd_weight.get(osd as usize).copied().unwrap_or(0) == 0
        };
        if let Some(by_hand) = lookup(&self.pg_upmap, pg) {
            if by_hand.iter().any(|osd| is_out(*osd)) {
                return;
            }
            osds.clear();
            osds.extend_from_slice(by_hand);
        }
        for (from, to) in lookup(&self.pg_upmap_items, pg).into_iter().flatten() {
            if osds.contains(to) || is_out(*to) {
                continue;
            }
            if let Some(osd) = osds.iter_mut().find(|osd| **osd == *from) {
                *osd = *to;
            }
        }
        if let Some(primary) = lookup(&self.pg_upmap_primaries, pg) {
            // The first one is primary as it is.
            let place = osds.iter().skip(1).position(|osd| osd == primary);
            if let Some(place) = place.filter(|_| self.is_osd(*primary) && !is_out(*primary)) {
                osds.swap(0, place + 1);
            }
        }
    }

    /// Passes over primaries whose affinity says so, and returns the one that is left, if any OSD has an
    /// affinity of its own. Copies move: the primary comes first.
    fn apply_primary_affinity(&self, seed: u32, pool: &PgPool, osds: &mut [i32]) -> Option<i32> {
        self.osd_primary_affinity.as_ref()?;
        let affinity = |osd: i32| self.primary_affinity(osd);
        let mut real = osds.iter().filter(|osd| **osd != ITEM_NONE);
        if real.all(|osd| affinity(*osd) == DEFAULT_PRIMARY_AFFINITY) {
            return None;
        }
        let accepts = |osd: i32| {
            let affinity = affinity(osd);
            affinity >= DEFAULT_PRIMARY_AFFINITY
                || hash2(seed, osd.cast_unsigned()) >> 16 < affinity
        };
        let real = |osd: &i32| *osd != ITEM_NONE;
        let willing = osds.iter().position(|osd| real(osd) && accepts(*osd));
        let place = willing.or_else(|| osds.iter().position(real))?;
        let primary = osds[place];
        if pool.can_shift() {
            osds[..=place].rotate_right(1);
        }
        Some(primary)
    }

    /// OSDs for the time being, into `work.acting`; returns the primary for the time being
    /// (`_get_temp_osds`).
    fn map_temporary(&self, pool: &PgPool, pg: PgId, work: &mut PgWorkspace) -> Option<i32> {
        let acting = &mut work.acting;
        if let Some(osds) = lookup(&self.pg_temp, pg) {
            acting.extend_from_slice(osds);
            keep(pool, acting, |osd| self.is_up(osd));
        }
        let primary = lookup(&self.primary_temp, pg).copied().or_else(|| first_osd(acting));
        if pool.has_primaries_first() && acting.len() == usize::from(pool.size) {
            work.shuffled.clear();
            work.shuffled.extend(pool.places_primaries_first().filter_map(|at| acting.get(at)));
            std::mem::swap(acting, &mut work.shuffled);
        }
        primary
    }
}

/// A lookup that costs nothing where there is nothing.
#[inline]
fn lookup<V>(map: &std::collections::BTreeMap<PgId, V>, pg: PgId) -> Option<&V> {
    if map.is_empty() { None } else { map.get(&pg) }
}

/// Leaves out OSDs: others move up, or gaps stay, by the kind of pool.
#[inline]
fn keep(pool: &PgPool, osds: &mut Vec<i32>, good: impl Fn(i32) -> bool) {
    if pool.can_shift() {
        osds.retain(|osd| good(*osd));
    } else {
        osds.iter_mut().filter(|osd| !good(**osd)).for_each(|osd| *osd = ITEM_NONE);
    }
}
