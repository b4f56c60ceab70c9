//! The map by which every client of a Ceph cluster finds its data: pools, placement groups and OSDs
//! ([`OsdMap`]), what changes from one epoch to the next ([`Incremental`]), and the way from an object's
//! name to the OSDs that have it ([`OsdMap::map_object`], [`OsdMap::map_pg`]).
//!
//! ```
//! use std::sync::Arc;
//! use siphon_crush::{Bucket, CrushMap, Rule, RuleKind, Step, StepOp, Weights};
//! use siphon_osdmap::{OsdMap, OsdState, PgPool, PgWorkspace, PoolType, WEIGHT_IN};
//! use siphon_wire::types::ObjectLocator;
//!
//! let mut crush = CrushMap::new();
//! crush.max_devices = 4;
//! crush.set_bucket(Bucket::new(-1, 11, vec![0, 1, 2, 3], Weights::Straw2(vec![0x10000; 4])));
//! let steps = [(StepOp::TAKE, -1, 0), (StepOp::CHOOSE_FIRSTN, 0, 0), (StepOp::EMIT, 0, 0)];
//! crush.set_rule(0, Rule::new(RuleKind::REPLICATED, steps.map(Step::from).to_vec()));
//!
//! let mut map = OsdMap { crush: Arc::new(crush), ..OsdMap::default() };
//! map.set_max_osd(4);
//! for osd in 0..4 {
//!     map.osd_state[osd] = OsdState::EXISTS | OsdState::UP;
//!     map.osd_weight[osd] = WEIGHT_IN;
//! }
//! map.pools.insert(1, PgPool::new(PoolType::REPLICATED, 3, 0, 32));
//!
//! let pg = map.map_object(b"foo", &ObjectLocator::new(1)).unwrap();
//! let mut work = PgWorkspace::new();
//! let osds = map.map_pg(pg, &mut work);
//! assert_eq!(osds.acting.len(), 3);
//! assert_eq!(osds.acting_primary, Some(osds.acting[0]));
//! ```
//!
//! Maps of Luminous (12) to Tentacle (20) are read, and much older ones; they are written in the form that
//! a peer's features ask for. A map may come from a peer that errs or lies: none makes us panic, loop for
//! ever or take more memory than a small multiple of its bytes.

#![forbid(unsafe_code)]

mod apply;
mod flags;
mod hash;
mod incremental;
mod map;
mod mapping;
mod osd;
mod pool;
mod required;
mod snaps;
mod split;
mod wire;

pub use apply::ApplyError;
pub use flags::{MapFlags, PoolFlags};
pub use hash::{StrHash, stable_mod};
pub use incremental::{Incremental, StretchMode};
pub use map::{OsdAddrs, OsdMap};
pub use mapping::{PgOsds, PgWorkspace};
pub use osd::{DEFAULT_PRIMARY_AFFINITY, OsdInfo, OsdState, OsdXinfo, WEIGHT_IN};
pub use pool::{
    CacheMode, HitSetParams, PeeringCrush, PgAutoscaleMode, PgMergeMeta, PgPool, PoolOption,
    PoolOptionKey, PoolOptions, PoolSnap, PoolType,
};
pub use snaps::SnapSet;
pub use split::PgSplit;
