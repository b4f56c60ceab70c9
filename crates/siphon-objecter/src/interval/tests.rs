//! Every pair of maps out of many, by the rules as they are told in words.

use std::collections::BTreeSet;

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use siphon_crush::ITEM_NONE;
use siphon_osdmap::{PgPool, PoolType};

use super::*;

/// An interval out of few values, so that pairs often differ in one only.
fn interval(rng: &mut ChaCha8Rng, seed: u32) -> Interval {
    let acting = [vec![], vec![0, 1, 2], vec![0, 2, 1], vec![1, 0, 2], vec![0, ITEM_NONE, 1]];
    let acting = acting.choose(rng).unwrap().clone();
    let primaries: Vec<Option<i32>> =
        acting.iter().filter(|osd| **osd != ITEM_NONE).map(|osd| Some(*osd)).collect();
    let acting_primary = primaries.choose(rng).copied().unwrap_or(None);
    let pg_num = [4, 5, 6, 8].choose(rng).copied().unwrap();
    let pg = PgId { pool: 1, seed: seed % pg_num };
    Interval {
        pg,
        spg: pg.into(),
        up: acting.clone(),
        up_primary: acting_primary,
        acting,
        acting_primary,
        size: 3,
        min_size: rng.random_range(1..3),
        pg_num,
        pg_num_pending: pg_num - u32::from(rng.random_bool(0.2)),
        sort_bitwise: true,
        recovery_deletes: rng.random_bool(0.9),
        peering_crush: None,
        replicated: true,
    }
}

/// Objects of a group, by a part of their hashes that is long enough.
fn objects(pg: PgId, pg_num: u32) -> BTreeSet<u32> {
    let pool = PgPool::new(PoolType::REPLICATED, 3, 0, pg_num);
    let group = |hash: &u32| pool.pg_of_hash(PgId { pool: 1, seed: *hash }).seed;
    (0..64).filter(|hash| group(hash) == pg.seed).collect()
}

#[test]
fn what_is_lost_is_what_osds_forget() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut lost, mut kept) = (0, 0);
    for _ in 0..20_000 {
        let seed = rng.random_range(0..8);
        let (old, new) = (interval(&mut rng, seed), interval(&mut rng, seed));
        let role = |interval: &Interval| {
            let primary = interval.acting_primary;
            interval.acting.iter().position(|osd| Some(*osd) == primary)
        };
        // A group that has other objects than before was split or merged.
        let same_objects =
            old.pg_num == new.pg_num || objects(old.pg, old.pg_num) == objects(old.pg, new.pg_num);
        let same_primary = old.acting_primary == new.acting_primary && role(&old) == role(&new);
        assert_eq!(old.is_lost_by(&new), !(same_primary && same_objects), "{old:?}\n{new:?}");
        if old.is_lost_by(&new) {
            lost += 1;
            assert!(old.ends_before(&new));
        } else {
            kept += 1;
            let same = old.acting == new.acting
                && old.min_size == new.min_size
                && old.recovery_deletes == new.recovery_deletes;
            assert!(same || old.ends_before(&new), "{old:?}\n{new:?}");
        }
    }
    assert!(lost > 1_000 && kept > 1_000, "{lost} and {kept}");
}

#[test]
fn nothing_ends_where_nothing_changes_and_one_change_is_enough() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..1_000 {
        let old = interval(&mut rng, 3);
        assert!(!old.is_lost_by(&old) && !old.ends_before(&old));
        let changes: [fn(&mut Interval); 6] = [
            |it| it.up.push(9),
            |it| it.up_primary = Some(9),
            |it| it.size += 1,
            |it| it.min_size += 1,
            |it| it.sort_bitwise = false,
            |it| it.recovery_deletes = !it.recovery_deletes,
        ];
        for change in changes {
            let mut new = old.clone();
            change(&mut new);
            assert!(old.ends_before(&new) && !old.is_lost_by(&new));
        }
    }
}

#[test]
fn a_merge_that_is_pending_ends_an_interval() {
    let pg = PgId { pool: 1, seed: 3 };
    let of = |pending: u32| Interval {
        pg_num_pending: pending,
        ..Interval { pg, spg: pg.into(), ..interval(&mut ChaCha8Rng::seed_from_u64(3), 3) }
    };
    // Of 4 groups the last is to go into the second.
    assert!(of(4).ends_before(&of(3)) && of(3).ends_before(&of(4)));
    let second = |pending: u32| Interval { pg: PgId { pool: 1, seed: 1 }, ..of(pending) };
    assert!(second(4).ends_before(&second(3)));
    let first = |pending: u32| Interval { pg: PgId { pool: 1, seed: 0 }, ..of(pending) };
    assert!(!first(4).ends_before(&first(3)));
}
