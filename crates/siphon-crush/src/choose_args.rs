use std::collections::BTreeMap;

/// What replaces the weights and numbers of straw2 buckets while a pool's data are mapped, and nothing
/// else (`crush_choose_arg_map`): how the balancer of weights ("weight set") works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChooseArgs {
    /// What is replaced, by the place of the bucket in the map's table: `-1 - id`.
    pub buckets: BTreeMap<u32, ChooseArg>,
}

/// What replaces a bucket's weights and numbers (`crush_choose_arg`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChooseArg {
    /// For each position of a mapping, the weights of the bucket's items, with 16 bits behind the point;
    /// the last one serves for all positions after it. If it is empty, the bucket's weights stand.
    pub weight_set: Vec<Vec<u32>>,
    /// What is hashed in place of the items' numbers; if it is empty, the items' numbers are.
    pub ids: Vec<i32>,
}

impl ChooseArgs {
    /// What replaces the weights and numbers of a bucket.
    #[inline]
    pub fn of_bucket(&self, id: i32) -> Option<&ChooseArg> {
        // `!id` is `-1 - id`.
        self.buckets.get(&u32::try_from(!id).ok()?)
    }
}

impl ChooseArg {
    /// The weights at a position of a mapping.
    #[inline]
    pub(crate) fn weights(&self, position: usize) -> Option<&[u32]> {
        let last = self.weight_set.len().checked_sub(1)?;
        self.weight_set.get(position.min(last)).map(Vec::as_slice)
    }

    /// Whether nothing is replaced.
    pub(crate) fn is_empty(&self) -> bool {
        self.weight_set.is_empty() && self.ids.is_empty()
    }
}
