//! What becomes of placement groups when a pool gets more of them, or fewer.

use siphon_wire::types::PgId;

use crate::hash::{bits_of, mask_of, stable_mod};

/// A placement group among those of its pool.
pub trait PgSplit: Sized {
    /// The group that this one came from when there were `old` of them (`pg_t::get_ancestor`).
    fn ancestor(self, old: u32) -> Self;

    /// The groups that this one's objects go to, besides itself, when there are `new` of them in place of
    /// `old` (`pg_t::is_split`): none if it stays as it is.
    ///
    /// ```
    /// use siphon_osdmap::PgSplit;
    /// use siphon_wire::types::PgId;
    /// let pg = PgId { pool: 1, seed: 2 };
    /// let seeds: Vec<_> = pg.children(4, 16).map(|pg| pg.seed).collect();
    /// assert_eq!(seeds, [6, 10, 14]);
    /// ```
    fn children(self, old: u32, new: u32) -> impl Iterator<Item = Self>;

    /// The group that this one's objects go to when there are `new` of them in place of `old`
    /// (`pg_t::is_merge_source`), or `None` if it stays.
    fn merge_target(self, old: u32, new: u32) -> Option<Self>;

    /// How many of the lowest bits of an object's hash are the same within this group, of `count`
    /// (`pg_t::get_split_bits`).
    fn split_bits(self, count: u32) -> u32;
}

impl PgSplit for PgId {
    fn ancestor(self, old: u32) -> Self {
        // Not the mask of a pool, which goes by one less: that gives the same groups.
        Self { seed: stable_mod(self.seed, old, mask_of(old)), ..self }
    }

    fn children(self, old: u32, new: u32) -> impl Iterator<Item = Self> {
        // Whoever came from this group has all its bits, and more from the highest of `old` on.
        let step = 1_u64 << bits_of(old).saturating_sub(1);
        let low = u64::from(self.seed);
        let end = if self.seed < old { u64::from(new) } else { 0 };
        let high = (1..).map(move |n| n * step).take_while(move |high| *high < end);
        let seeds = high.filter(move |high| high & low == 0).map(move |high| high | low);
        let below = seeds.take_while(move |seed| *seed < end);
        let groups = below.map(move |seed| Self { seed: seed as u32, ..self });
        groups.filter(move |child| child.seed >= old && child.ancestor(old) == self)
    }

    fn merge_target(self, old: u32, new: u32) -> Option<Self> {
        if self.seed >= old || self.seed < new {
            return None;
        }
        let mut seed = self.seed;
        while seed >= new && seed > 0 {
            // Without its highest bit.
            seed &= mask_of(seed.wrapping_add(1)) >> 1;
        }
        Some(Self { seed, ..self })
    }

    fn split_bits(self, count: u32) -> u32 {
        let bits = bits_of(count);
        if count <= 1 {
            return 0;
        }
        let below = (1 << (bits - 1)) - 1;
        if self.seed & below < count & below { bits } else { bits - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which group a number is in, of `count`.
    fn group(number: u32, count: u32) -> u32 {
        stable_mod(number, count, mask_of(count))
    }

    #[test]
    fn children_and_targets_are_where_objects_go() {
        for old in 1..40_u32 {
            for new in 1..80_u32 {
                for seed in 0..old {
                    let pg = PgId { pool: 1, seed };
                    let mut found: Vec<u32> = (0..1024)
                        .filter(|number| group(*number, old) == seed)
                        .map(|number| group(number, new))
                        .filter(|other| *other != seed)
                        .collect();
                    found.sort_unstable();
                    found.dedup();
                    let mut told: Vec<u32> = pg.children(old, new).map(|pg| pg.seed).collect();
                    told.sort_unstable();
                    let target = pg.merge_target(old, new).map(|pg| pg.seed);
                    if new >= old {
                        assert_eq!((found, None), (told, target), "{seed} of {old} to {new}");
                    } else if seed >= new {
                        assert_eq!(found, [target.unwrap()], "{seed} of {old} to {new}");
                    } else {
                        assert_eq!((found.len(), target), (0, None));
                    }
                }
            }
        }
    }

    #[test]
    fn split_bits_are_those_that_a_group_shares() {
        for count in 1..70_u32 {
            for seed in 0..count {
                let bits = PgId { pool: 1, seed }.split_bits(count);
                let numbers = (0..1024).filter(|number| group(*number, count) == seed);
                assert!(numbers.into_iter().all(|n| n & ((1 << bits) - 1) == seed), "{seed}");
            }
        }
    }
}
