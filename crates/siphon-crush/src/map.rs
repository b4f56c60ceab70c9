use std::collections::BTreeMap;

use siphon_wire::types::ByteString;

use crate::{Bucket, ChooseArgs, Rule, Tunables};

/// Most buckets and rules that are added by hand: a mistaken number should not take all memory.
const MAX_TABLE: usize = 1 << 24;

/// The map of a cluster's devices, what they stand in, and the rules by which data are placed
/// (`CrushWrapper`).
///
/// See [`siphon_crush`](crate) for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrushMap {
    /// One more than the highest device.
    pub max_devices: i32,
    /// How the map is evaluated.
    pub tunables: Tunables,
    /// The names of types: `osd` for 0, `host`, `rack`, …
    pub type_names: BTreeMap<i32, ByteString>,
    /// The names of devices and buckets; shadow buckets are called `default~ssd`.
    pub item_names: BTreeMap<i32, ByteString>,
    /// The names of rules.
    pub rule_names: BTreeMap<i32, ByteString>,
    /// Each device's class (`class_map`).
    pub device_classes: BTreeMap<i32, i32>,
    /// The names of classes: `hdd`, `ssd`, …
    pub class_names: BTreeMap<i32, ByteString>,
    /// For each bucket and class, the shadow bucket that has the bucket's devices of that class
    /// (`class_bucket`).
    pub class_buckets: BTreeMap<i32, BTreeMap<i32, i32>>,
    /// Replaced weights, by pool; those of pool [`DEFAULT_CHOOSE_ARGS`](Self::DEFAULT_CHOOSE_ARGS) are
    /// for all others.
    pub choose_args: BTreeMap<i64, ChooseArgs>,
    /// Buckets by `-1 - id`. Boxed, since on the wire a place without one takes 4 bytes.
    pub(crate) buckets: Vec<Option<Box<Bucket>>>,
    pub(crate) rules: Vec<Option<Box<Rule>>>,
}

impl CrushMap {
    /// The pool whose weight set is for all pools without one of their own.
    pub const DEFAULT_CHOOSE_ARGS: i64 = -1;

    /// A map of nothing, with the tunables of [`Profile::Jewel`](crate::Profile::Jewel).
    pub fn new() -> Self {
        Self {
            max_devices: 0,
            tunables: Tunables::default(),
            type_names: BTreeMap::new(),
            item_names: BTreeMap::new(),
            rule_names: BTreeMap::new(),
            device_classes: BTreeMap::new(),
            class_names: BTreeMap::new(),
            class_buckets: BTreeMap::new(),
            choose_args: BTreeMap::new(),
            buckets: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// A bucket by its number, which is below 0.
    #[inline]
    pub fn bucket(&self, id: i32) -> Option<&Bucket> {
        // `!id` is `-1 - id`, and below 0 for devices.
        self.buckets.get(usize::try_from(!id).ok()?)?.as_deref()
    }

    /// All buckets, shadows too, from -1 downwards.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter().flatten().map(|bucket| &**bucket)
    }

    /// Adds a bucket, or replaces the one of its number.
    ///
    /// # Panics
    /// If its number is not from -1 down to -2^24.
    pub fn set_bucket(&mut self, bucket: Bucket) {
        let at = usize::try_from(!bucket.id).ok().filter(|at| *at < MAX_TABLE);
        let at = at.expect("a bucket's number is from -1 down to -2^24");
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, None);
        }
        self.buckets[at] = Some(Box::new(bucket));
    }

    /// Takes a bucket out of the map, and out of no other bucket.
    pub fn remove_bucket(&mut self, id: i32) -> Option<Bucket> {
        self.buckets.get_mut(usize::try_from(!id).ok()?)?.take().map(|bucket| *bucket)
    }

    /// A rule by its number.
    #[inline]
    pub fn rule(&self, id: u32) -> Option<&Rule> {
        self.rules.get(id as usize)?.as_deref()
    }

    /// All rules, with their numbers.
    pub fn rules(&self) -> impl Iterator<Item = (u32, &Rule)> {
        // A table has fewer than 2^32 rules.
        self.rules.iter().enumerate().filter_map(|(id, rule)| Some((id as u32, rule.as_deref()?)))
    }

    /// Adds a rule under a number, or replaces the one that has it.
    ///
    /// # Panics
    /// If the number is 2^24 or more.
    pub fn set_rule(&mut self, id: u32, mut rule: Rule) {
        let at = id as usize;
        assert!(at < MAX_TABLE, "a rule's number is below 2^24");
        rule.ruleset = id as u8;
        if self.rules.len() <= at {
            self.rules.resize(at + 1, None);
        }
        self.rules[at] = Some(Box::new(rule));
    }

    /// The rule that a pool had before Quincy: the first one of this `ruleset` and kind that is for the
    /// pool's size (`crush_find_rule`). Since then a pool names its rule by number.
    pub fn find_rule(&self, ruleset: u8, kind: u8, size: u8) -> Option<u32> {
        let fits =
            |rule: &Rule| rule.ruleset == ruleset && rule.kind.0 == kind && rule.is_for_size(size);
        self.rules().find(|(_, rule)| fits(rule)).map(|(id, _)| id)
    }

    /// The replaced weights for a pool's data: its own, or those for all.
    ///
    /// ```
    /// use siphon_crush::{ChooseArgs, CrushMap};
    /// let mut map = CrushMap::new();
    /// assert!(map.choose_args_of(3).is_none());
    /// map.choose_args.insert(CrushMap::DEFAULT_CHOOSE_ARGS, ChooseArgs::default());
    /// assert!(map.choose_args_of(3).is_some());
    /// ```
    pub fn choose_args_of(&self, pool: i64) -> Option<&ChooseArgs> {
        if self.choose_args.is_empty() {
            return None;
        }
        self.choose_args.get(&pool).or_else(|| self.choose_args.get(&Self::DEFAULT_CHOOSE_ARGS))
    }
}

impl Default for CrushMap {
    fn default() -> Self {
        Self::new()
    }
}
