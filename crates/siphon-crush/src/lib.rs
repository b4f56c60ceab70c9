//! CRUSH, by which every Ceph client and daemon finds out on its own where data go: the map of devices
//! and of what they stand in ([`CrushMap`]), its rules, and the mapping of a number to a list of devices
//! ([`CrushMap::do_rule`]), the same in every bit as Ceph's (`src/crush`).
//!
//! Maps of Luminous (12) to Tentacle (20) are read and written; all five bucket algorithms, tunables of
//! every profile, weight sets, device classes and the rules of Squid that retry over several steps
//! (MSR) are mapped.
//!
//! ```
//! use siphon_crush::{Bucket, CrushMap, Rule, RuleKind, Step, StepOp, Weights, Workspace};
//!
//! let mut map = CrushMap::new();
//! map.max_devices = 4;
//! let weights = Weights::Straw2(vec![0x10000; 4]);
//! map.set_bucket(Bucket::new(-1, 11, vec![0, 1, 2, 3], weights));
//! let steps = [(StepOp::TAKE, -1, 0), (StepOp::CHOOSE_FIRSTN, 0, 0), (StepOp::EMIT, 0, 0)];
//! map.set_rule(0, Rule::new(RuleKind::REPLICATED, steps.map(Step::from).to_vec()));
//!
//! let mut work = Workspace::new();
//! let devices = map.do_rule(0, 1234, 3, &[0x10000; 4], None, &mut work);
//! assert_eq!(devices.len(), 3);
//! ```
//!
//! A map may come from a peer that errs or lies: no map makes us panic, loop for ever (see
//! [`Workspace::with_max_draws`]) or take more memory than a small multiple of its bytes.

#![forbid(unsafe_code)]

mod bucket;
mod choose_args;
pub mod hash;
mod ln;
mod map;
mod mapper;
mod rule;
mod tree;
mod tunables;
mod wire;

pub use bucket::{Bucket, BucketAlg, Weights};
pub use choose_args::{ChooseArg, ChooseArgs};
pub use map::CrushMap;
pub use mapper::Workspace;
pub use rule::{Rule, RuleKind, Step, StepOp};
pub use tree::Placement;
pub use tunables::{Profile, Tunables};

/// No device: what stands at a position of a mapping that could not be filled (`CRUSH_ITEM_NONE`).
pub const ITEM_NONE: i32 = 0x7fff_ffff;

/// A position that is yet to be filled (`CRUSH_ITEM_UNDEF`).
const ITEM_UNDEF: i32 = 0x7fff_fffe;

/// The weight 1 of an item, in the fixed-point form of maps: 16 bits stand behind the point.
pub const WEIGHT_ONE: u32 = 0x1_0000;
