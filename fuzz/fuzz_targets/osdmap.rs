//! OSD maps, increments to them and CRUSH maps: what is read is written and read again, what is applied
//! and mapped comes to an end, and a workspace that served another mapping makes no difference.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siphon_crush::{CrushMap, WEIGHT_ONE, Workspace};
use siphon_fuzz::Script;
use siphon_fuzz::maps::{NEWEST, osdmap};
use siphon_osdmap::{Incremental, OsdMap, PgSplit as _, PgWorkspace};
use siphon_wire::types::{Features, PgId};
use siphon_wire::{Decode, Encode};

/// Draws that a mapping may make: maps as small as these need a few dozen.
const MAX_DRAWS: u64 = 1 << 12;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let (which, x) = (script.byte() % 3, script.u16().into());
    let bytes = Bytes::copy_from_slice(script.rest());
    match which {
        0 => {
            if let Some(map) = decode::<OsdMap>(&bytes) {
                map_some(&map, x);
            }
        }
        1 => {
            let mut map = osdmap();
            if decode::<Incremental>(&bytes).is_some_and(|inc| map.apply(&inc).is_ok()) {
                map_some(&map, x);
            }
        }
        _ => {
            if let Some(map) = decode::<CrushMap>(&bytes) {
                crush(&map, x);
            }
        }
    }
});

/// What decodes must encode for any peer, and come back from what a new one gets.
fn decode<T: Decode + Encode>(bytes: &Bytes) -> Option<T> {
    let value = T::from_bytes(bytes).ok()?;
    value.to_bytes(Features::NONE);
    let written = value.to_bytes(NEWEST);
    match T::from_bytes(&written) {
        Ok(again) => assert_eq!(again.to_bytes(NEWEST), written),
        Err(error) => panic!("what was written cannot be read: {error}"),
    }
    Some(value)
}

fn map_some(map: &OsdMap, x: u32) {
    let mut used = PgWorkspace::with_max_draws(MAX_DRAWS);
    for (id, pool) in map.pools.iter().take(4) {
        for seed in [x, 0, pool.pg_num.wrapping_sub(1)] {
            let pg = PgId { pool: id.cast_unsigned(), seed };
            let fresh = &mut PgWorkspace::with_max_draws(MAX_DRAWS);
            let osds = map.map_pg(pg, fresh);
            assert_eq!(map.map_pg(pg, &mut used), osds);
            map.primary_shard(pg, &mut used);
            pool.pg_num_divisor(pg);
            pg.children(pool.pgp_num, pool.pg_num).take(9).for_each(drop);
            pg.merge_target(pool.pg_num, pool.pgp_num);
        }
    }
}

fn crush(map: &CrushMap, x: u32) {
    let mut used = Workspace::with_max_draws(MAX_DRAWS);
    for (rule, _) in map.rules().take(4) {
        for size in [3, 7] {
            let args = map.choose_args_of(0);
            let fresh = &mut Workspace::with_max_draws(MAX_DRAWS);
            let devices = map.do_rule(rule, x, size, &[WEIGHT_ONE; 8], args, fresh);
            assert!(devices.len() <= size);
            let again = map.do_rule(rule, x, size, &[WEIGHT_ONE; 8], args, &mut used);
            assert_eq!(again, devices);
        }
    }
    for item in [-1, 0] {
        map.location(item);
        map.devices_below(item);
    }
}
