//! The mapping itself (`crush/mapper.c`): a number and a rule in, devices out.
//!
//! What Ceph computes, this computes: every draw, retry and collision is the same, or data would be
//! looked for where they are not. What differs is how: weights are compared without a division where
//! that gives the same answer, hashes are made several at a time, and permutations are kept only as far
//! as they are used.

mod choose;
mod classic;
mod msr;

use crate::hash::hash2;
use crate::{Bucket, ChooseArgs, CrushMap, WEIGHT_ONE};

/// What one mapping may draw, if nothing else is said: a flat cluster of 10,000 devices can be
/// searched 6,000 times over. It takes a good part of a second.
const MAX_DRAWS: u64 = 1 << 26;

/// Memory that mappings use: what one leaves behind, the next takes up. It serves for any map.
///
/// ```
/// use siphon_crush::{CrushMap, Workspace};
/// let mut work = Workspace::new();
/// let map = CrushMap::new();
/// assert!(map.do_rule(0, 1, 3, &[], None, &mut work).is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Workspace {
    max_draws: u64,
    exhausted: bool,
    permutations: Permutations,
    lists: Lists,
}

/// Lists of as many items as a mapping has positions, or more.
#[derive(Clone, Debug, Default)]
struct Lists {
    /// What the step before chose; in the end, the result.
    from: Vec<i32>,
    /// What the present step chooses.
    to: Vec<i32>,
    /// The devices below it; for MSR rules, what each step has in use, one after the other.
    leaves: Vec<i32>,
    result: Vec<i32>,
    /// For MSR rules, what each step gives back at its end, one after the other.
    undo: Vec<i32>,
}

/// Permutations of buckets' items, as far as the present mapping has used them.
#[derive(Clone, Debug, Default)]
struct Permutations {
    /// Counts the mappings: what has another number is of an earlier one.
    mapping: u64,
    /// By the buckets' places.
    buckets: Vec<Option<Box<Permutation>>>,
}

#[derive(Clone, Debug, Default)]
struct Permutation {
    mapping: u64,
    /// How many of `places` are final.
    count: usize,
    places: Vec<u32>,
}

impl Workspace {
    /// One for any map and rule.
    pub fn new() -> Self {
        Self::with_max_draws(MAX_DRAWS)
    }

    /// One whose mappings draw at most so often: a map of a peer can ask for 2^32 tries of a search that
    /// finds nothing. A draw is one item that is looked at; without this, it is 2^26.
    pub fn with_max_draws(max_draws: u64) -> Self {
        Self {
            max_draws,
            exhausted: false,
            permutations: Permutations::default(),
            lists: Lists::default(),
        }
    }

    /// Whether the last mapping was given up because it drew too often. What it found is right as far as
    /// it goes.
    pub fn exhausted(&self) -> bool {
        self.exhausted
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl CrushMap {
    /// Maps `x` by a rule to up to `size` devices: what `crush_do_rule` gives, which is less than `size`
    /// where not so many are found, and [`ITEM_NONE`](crate::ITEM_NONE) at positions of rules that keep
    /// places. A rule that does not exist gives nothing.
    ///
    /// `weights` says, by device, how much of what is mapped to it stays there, with 16 bits behind the
    /// point: 0 for a device that is out. It is not the weight in the map.
    ///
    /// ```
    /// # use siphon_crush::{Bucket, CrushMap, Rule, RuleKind, Step, StepOp, Weights, Workspace};
    /// # let mut map = CrushMap::new();
    /// # map.max_devices = 3;
    /// # map.set_bucket(Bucket::new(-1, 1, vec![0, 1, 2], Weights::Straw2(vec![0x10000; 3])));
    /// # let steps = [(StepOp::TAKE, -1, 0), (StepOp::CHOOSE_INDEP, 3, 0), (StepOp::EMIT, 0, 0)];
    /// # map.set_rule(0, Rule::new(RuleKind::ERASURE, steps.map(Step::from).to_vec()));
    /// let mut work = Workspace::new();
    /// let out = [0x10000, 0, 0x10000];
    /// let devices = map.do_rule(0, 7, 3, &out, map.choose_args_of(5), &mut work);
    /// assert_eq!(devices.iter().filter(|device| **device == siphon_crush::ITEM_NONE).count(), 1);
    /// ```
    pub fn do_rule<'w>(
        &self,
        rule: u32,
        x: u32,
        size: usize,
        weights: &[u32],
        choose_args: Option<&ChooseArgs>,
        work: &'w mut Workspace,
    ) -> &'w [i32] {
        work.exhausted = false;
        work.lists.result.clear();
        let Some(rule) = self.rule(rule) else { return &[] };
        let Workspace { max_draws, permutations, lists, .. } = work;
        permutations.mapping += 1;
        let mut mapper =
            Mapper { map: self, weights, choose_args, x, draws: *max_draws, permutations };
        if rule.kind.is_msr() {
            mapper.map_msr(rule, size, lists);
        } else {
            mapper.map_classic(rule, size, lists);
        }
        work.exhausted = mapper.draws == 0;
        &work.lists.result
    }
}

/// One mapping.
struct Mapper<'a> {
    map: &'a CrushMap,
    weights: &'a [u32],
    choose_args: Option<&'a ChooseArgs>,
    x: u32,
    /// Draws that are left.
    draws: u64,
    permutations: &'a mut Permutations,
}

impl<'a> Mapper<'a> {
    /// Takes what choosing from a bucket costs; false if nothing is left.
    #[inline]
    fn charge(&mut self, bucket: &Bucket) -> bool {
        self.draws = self.draws.saturating_sub(1 + bucket.items.len() as u64);
        self.draws > 0
    }

    /// Whether a device does not keep what is mapped to it (`is_out`).
    #[inline]
    fn is_out(&self, device: i32) -> bool {
        let weight = usize::try_from(device).ok().and_then(|device| self.weights.get(device));
        match weight {
            None | Some(0) => true,
            Some(weight) if *weight >= WEIGHT_ONE => false,
            Some(weight) => hash2(self.x, device.cast_unsigned()) & 0xffff >= *weight,
        }
    }

    /// The type of an item, if it is there.
    #[inline]
    fn kind(&self, item: i32) -> Option<i32> {
        if item >= 0 { Some(0) } else { self.map.bucket(item).map(|bucket| i32::from(bucket.kind)) }
    }

    #[inline]
    fn bucket(&self, item: i32) -> Option<&'a Bucket> {
        self.map.bucket(item)
    }
}
