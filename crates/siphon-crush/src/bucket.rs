use std::fmt;

/// How an item of a bucket is drawn (`CRUSH_BUCKET_*` of `crush/crush.h`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketAlg(pub u8);

impl BucketAlg {
    /// Equal items, by a permutation of them.
    pub const UNIFORM: Self = Self(1);
    /// A list, which is walked from its end.
    pub const LIST: Self = Self(2);
    /// A binary tree.
    pub const TREE: Self = Self(3);
    /// Straws whose lengths were computed beforehand, and not quite right.
    pub const STRAW: Self = Self(4);
    /// Straws by the logarithm.
    pub const STRAW2: Self = Self(5);

    /// Its name, if it has one.
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 5] = ["uniform", "list", "tree", "straw", "straw2"];
        NAMES.get(usize::from(self.0).checked_sub(1)?).copied()
    }
}

impl fmt::Display for BucketAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "unknown({})", self.0),
        }
    }
}

impl fmt::Debug for BucketAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a bucket's items are drawn by, in the order of the items. Weights have 16 bits behind the
/// point: [`WEIGHT_ONE`](crate::WEIGHT_ONE) is 1, by custom a terabyte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// All items weigh the same.
    Uniform(u32),
    /// Each item's weight, and the sum of those up to and with it.
    List {
        /// The items' weights.
        items: Vec<u32>,
        /// Their running sums.
        sums: Vec<u32>,
    },
    /// The nodes of a binary tree in order, of which item `n` is node `2 n + 1`.
    Tree(Vec<u32>),
    /// Each item's weight, and the factor by which its straw is longer.
    Straw {
        /// The items' weights.
        items: Vec<u32>,
        /// The straws' factors, with 16 bits behind the point.
        straws: Vec<u32>,
    },
    /// Each item's weight.
    Straw2(Vec<u32>),
}

/// What holds other buckets or devices: a host, a rack, a root (`crush_bucket`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its number, below 0. It stands in its map's table at `-1 - id`.
    pub id: i32,
    /// What it is, by the map's types: 1 for a host, by custom. Devices have type 0.
    pub kind: u16,
    /// How numbers are hashed; only 0 (rjenkins1) has a meaning.
    pub hash: u8,
    /// Its own weight, with 16 bits behind the point: usually the sum of the items'.
    pub weight: u32,
    /// Devices (0 and above) and buckets (below 0).
    pub items: Vec<i32>,
    /// What the items are drawn by.
    pub weights: Weights,
}

impl Bucket {
    /// A bucket that weighs what its items do.
    ///
    /// ```
    /// use siphon_crush::{Bucket, Weights};
    /// let host = Bucket::new(-2, 1, vec![0, 1], Weights::Straw2(vec![0x10000, 0x20000]));
    /// assert_eq!(host.weight, 0x30000);
    /// ```
    pub fn new(id: i32, kind: u16, items: Vec<i32>, weights: Weights) -> Self {
        let mut bucket = Self { id, kind, hash: 0, weight: 0, items, weights };
        let all = (0..bucket.items.len()).filter_map(|at| bucket.item_weight(at));
        bucket.weight = all.fold(0, u32::saturating_add);
        bucket
    }

    /// How an item is drawn.
    pub const fn alg(&self) -> BucketAlg {
        match self.weights {
            Weights::Uniform(_) => BucketAlg::UNIFORM,
            Weights::List { .. } => BucketAlg::LIST,
            Weights::Tree(_) => BucketAlg::TREE,
            Weights::Straw { .. } => BucketAlg::STRAW,
            Weights::Straw2(_) => BucketAlg::STRAW2,
        }
    }

    /// The weight of the item at a place in [`items`](Self::items), with 16 bits behind the point.
    pub fn item_weight(&self, at: usize) -> Option<u32> {
        self.items.get(at)?;
        match &self.weights {
            Weights::Uniform(weight) => Some(*weight),
            Weights::Tree(nodes) => nodes.get(2 * at + 1).copied(),
            Weights::List { items, .. } | Weights::Straw { items, .. } | Weights::Straw2(items) => {
                items.get(at).copied()
            }
        }
    }
}
