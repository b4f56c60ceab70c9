use std::fmt;

use siphon_wire::{Decode, Encode};

macro_rules! named {
    ($type:ident: $inner:ty, $($(#[$doc:meta])* $value:literal $name:ident $text:literal;)*) => {
        impl $type {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Its name in the text form of maps, if it has one.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, "unknown({})", self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// What a rule is for (`crush_rule_type`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RuleKind(pub u8);

named! { RuleKind: u8,
    /// Pools that keep copies.
    1 REPLICATED "replicated";
    /// Erasure-coded pools.
    3 ERASURE "erasure";
    /// Pools that keep copies; the rule retries over several steps (Squid).
    4 MSR_FIRSTN "msr_firstn";
    /// Erasure-coded pools; the rule retries over several steps (Squid).
    5 MSR_INDEP "msr_indep";
}

impl RuleKind {
    /// Whether the rule retries over several steps.
    pub const fn is_msr(self) -> bool {
        matches!(self, Self::MSR_FIRSTN | Self::MSR_INDEP)
    }
}

/// What a step of a rule does (`CRUSH_RULE_*`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct StepOp(pub u32);

named! { StepOp: u32,
    /// Nothing.
    0 NOOP "noop";
    /// Starts at the item `arg1`.
    1 TAKE "take";
    /// Chooses `arg1` items of type `arg2` below each, and closes gaps; 0 and less are counted from
    /// the size of the mapping.
    2 CHOOSE_FIRSTN "choose firstn";
    /// The same, but each position keeps its place.
    3 CHOOSE_INDEP "choose indep";
    /// Gives out what was chosen.
    4 EMIT "emit";
    /// Chooses as [`CHOOSE_FIRSTN`](Self::CHOOSE_FIRSTN), and a device below each.
    6 CHOOSELEAF_FIRSTN "chooseleaf firstn";
    /// Chooses as [`CHOOSE_INDEP`](Self::CHOOSE_INDEP), and a device below each.
    7 CHOOSELEAF_INDEP "chooseleaf indep";
    /// Sets the tries from the top to `arg1`.
    8 SET_CHOOSE_TRIES "set_choose_tries";
    /// Sets the tries for a device to `arg1`.
    9 SET_CHOOSELEAF_TRIES "set_chooseleaf_tries";
    /// Sets the tunable to `arg1`.
    10 SET_CHOOSE_LOCAL_TRIES "set_choose_local_tries";
    /// Sets the tunable to `arg1`.
    11 SET_CHOOSE_LOCAL_FALLBACK_TRIES "set_choose_local_fallback_tries";
    /// Sets the tunable to `arg1`.
    12 SET_CHOOSELEAF_VARY_R "set_chooseleaf_vary_r";
    /// Sets the tunable to `arg1`.
    13 SET_CHOOSELEAF_STABLE "set_chooseleaf_stable";
    /// Sets the tunable to `arg1`, in MSR rules.
    14 SET_MSR_DESCENTS "set_msr_descents";
    /// Sets the tunable to `arg1`, in MSR rules.
    15 SET_MSR_COLLISION_TRIES "set_msr_collision_tries";
    /// Divides the mapping into `arg1` parts, each of which has items of type `arg2` of its own; 0 for
    /// as many as there are positions. In MSR rules.
    16 CHOOSE_MSR "choosemsr";
}

/// A step of a rule (`crush_rule_step`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Step {
    /// What it does.
    pub op: StepOp,
    /// Its first argument: an item, a number of items, or a tunable.
    pub arg1: i32,
    /// Its second argument: a type of items.
    pub arg2: i32,
}

impl From<(StepOp, i32, i32)> for Step {
    fn from((op, arg1, arg2): (StepOp, i32, i32)) -> Self {
        Self { op, arg1, arg2 }
    }
}

/// How a pool's data are placed (`crush_rule`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The number by which pools found it before Quincy: since Luminous its own.
    pub ruleset: u8,
    /// What it is for.
    pub kind: RuleKind,
    /// The smallest size of a pool that it was for, before Quincy.
    pub min_size: u8,
    /// The largest size of a pool that it was for, before Quincy.
    pub max_size: u8,
    /// Its steps.
    pub steps: Vec<Step>,
}

impl Rule {
    /// A rule for pools of any size up to 255. Its `ruleset` is given by
    /// [`CrushMap::set_rule`](crate::CrushMap::set_rule).
    pub fn new(kind: RuleKind, steps: Vec<Step>) -> Self {
        Self { ruleset: 0, kind, min_size: 1, max_size: u8::MAX, steps }
    }

    /// Whether a pool of this size was mapped by this rule before Quincy.
    pub fn is_for_size(&self, size: u8) -> bool {
        (self.min_size..=self.max_size).contains(&size)
    }
}
