//! How one item of a bucket is drawn, by each algorithm (`crush_bucket_choose`).

use super::{Mapper, Permutations};
use crate::hash::{LANES, hash3, hash3_lanes, hash4};
use crate::ln::{LAST_DRAWS_LIKE, shortness};
use crate::{Bucket, Weights};

impl Mapper<'_> {
    /// Draws an item of a bucket for the try `r`, at a position of the mapping. `None` for an empty one.
    #[inline]
    pub(super) fn choose(&mut self, bucket: &Bucket, r: u32, position: usize) -> Option<i32> {
        let first = *bucket.items.first()?;
        // There is no other hash, and Ceph's is 0 for it.
        let hashed = bucket.hash == 0;
        let at = match &bucket.weights {
            Weights::Uniform(_) => return self.choose_permuted(bucket, r),
            Weights::List { items, sums } => list(bucket, items, sums, self.x, r, hashed),
            Weights::Tree(nodes) => tree(bucket, nodes, self.x, r, hashed),
            Weights::Straw { straws, .. } => straw(&bucket.items, straws, self.x, r, hashed),
            Weights::Straw2(weights) => {
                let arg = self.choose_args.and_then(|args| args.of_bucket(bucket.id));
                let weights = arg.and_then(|arg| arg.weights(position)).unwrap_or(weights);
                let ids = arg.map(|arg| &arg.ids).filter(|ids| !ids.is_empty());
                straw2(ids.unwrap_or(&bucket.items), weights, self.x, r, hashed)
            }
        };
        Some(bucket.items.get(at).copied().unwrap_or(first))
    }

    /// Takes the item at place `r` of a permutation (`bucket_perm_choose`): uniform buckets, and other
    /// ones where tries have failed.
    pub(super) fn choose_permuted(&mut self, bucket: &Bucket, r: u32) -> Option<i32> {
        let size = u32::try_from(bucket.items.len()).ok().filter(|size| *size > 0)?;
        let place = r % size;
        let at = self.permutations.at(bucket, self.x, place)?;
        bucket.items.get(at as usize).copied()
    }
}

impl Permutations {
    /// Which item is at a place of the permutation of a bucket.
    fn at(&mut self, bucket: &Bucket, x: u32, place: u32) -> Option<u32> {
        let size = bucket.items.len();
        let draw = |step: usize| match bucket.hash {
            // A table has fewer than 2^32 items.
            0 => hash3(x, bucket.id.cast_unsigned(), step as u32) as usize % (size - step),
            _ => 0,
        };
        if place == 0 {
            // By far the most frequent, and it takes no permutation.
            return u32::try_from(draw(0)).ok();
        }
        let index = usize::try_from(!bucket.id).ok()?;
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, None);
        }
        let permutation = self.buckets.get_mut(index)?.get_or_insert_default();
        if permutation.mapping != self.mapping || permutation.places.len() != size {
            permutation.mapping = self.mapping;
            permutation.count = 0;
            permutation.places.clear();
            permutation.places.extend(0..size as u32);
        }
        let place = place as usize;
        while permutation.count <= place {
            let step = permutation.count;
            // The last one stays where it is.
            if step + 1 < size {
                permutation.places.swap(step, step + draw(step));
            }
            permutation.count += 1;
        }
        permutation.places.get(place).copied()
    }
}

/// Walks the list from its end: an item is taken with its share of what is left.
fn list(bucket: &Bucket, weights: &[u32], sums: &[u32], x: u32, r: u32, hashed: bool) -> usize {
    let id = bucket.id.cast_unsigned();
    let all = bucket.items.iter().zip(weights).zip(sums).enumerate().rev();
    for (at, ((item, weight), sum)) in all {
        let hash = if hashed { hash4(x, item.cast_unsigned(), r, id) } else { 0 };
        let draw = (u64::from(hash & 0xffff) * u64::from(*sum)) >> 16;
        if draw < u64::from(*weight) {
            return at;
        }
    }
    0
}

/// Goes down from the root: node `n`'s children are as far from it as its lowest bit says, halved.
fn tree(bucket: &Bucket, nodes: &[u32], x: u32, r: u32, hashed: bool) -> usize {
    let weight = |node: usize| u64::from(nodes.get(node).copied().unwrap_or(0));
    let id = bucket.id.cast_unsigned();
    let mut node = nodes.len() >> 1;
    while node != 0 && node & 1 == 0 {
        let hash = if hashed { hash4(x, node as u32, r, id) } else { 0 };
        let draw = (u64::from(hash) * weight(node)) >> 32;
        let half = (node & node.wrapping_neg()) >> 1;
        node = if draw < weight(node - half) { node - half } else { node + half };
    }
    node >> 1
}

/// The longest of straws that are as long as a draw times a factor.
fn straw(items: &[i32], straws: &[u32], x: u32, r: u32, hashed: bool) -> usize {
    let (mut best, mut longest) = (0, 0);
    for (at, (item, straw)) in items.iter().zip(straws).enumerate() {
        let hash = if hashed { hash3(x, item.cast_unsigned(), r) } else { 0 };
        let length = u64::from(hash & 0xffff) * u64::from(*straw);
        if at == 0 || length > longest {
            (best, longest) = (at, length);
        }
    }
    best
}

/// The longest of straws whose shortness is that of a draw by its logarithm, divided by the weight: the
/// first of those with the least quotient.
fn straw2(ids: &[i32], weights: &[u32], x: u32, r: u32, hashed: bool) -> usize {
    let mut best = Best::NONE;
    let mut at = 0;
    let (chunks, rest) = ids.as_chunks::<LANES>();
    for ids in chunks {
        let hashes = if hashed { hash3_lanes(x, ids, r) } else { [0; LANES] };
        match weights.get(at..).and_then(|weights| weights.first_chunk::<LANES>()) {
            Some(weights) => {
                for lane in 0..LANES {
                    best.offer(at + lane, hashes[lane] as u16, weights[lane]);
                }
            }
            None => {
                for (lane, hash) in hashes.into_iter().enumerate() {
                    best.offer(
                        at + lane,
                        hash as u16,
                        weights.get(at + lane).copied().unwrap_or(0),
                    );
                }
            }
        }
        at += LANES;
    }
    for id in rest {
        let hash = if hashed { hash3(x, id.cast_unsigned(), r) } else { 0 };
        best.offer(at, hash as u16, weights.get(at).copied().unwrap_or(0));
        at += 1;
    }
    best.at
}

/// The longest straw so far.
struct Best {
    at: usize,
    /// Its shortness divided by its weight, rounded down: of what is less, a straw is longer. (Ceph has
    /// the quotient below 0 and rounds towards 0, which is the same.)
    quotient: u64,
    /// The length of a straw that is longer than any other: see [`Best::compare_huge`].
    bonus: u64,
    /// Its weight, and what was drawn for it at least: of the same weight, no smaller draw is longer.
    weight: u32,
    draw: u16,
}

impl Best {
    /// Shorter than any straw of a weight above 0.
    const NONE: Self = Self { at: 0, quotient: u64::MAX, bonus: 0, weight: 0, draw: 0 };

    #[inline(always)]
    fn offer(&mut self, at: usize, draw: u16, weight: u32) {
        if weight != self.weight || draw > self.draw {
            self.compare(at, draw, weight);
        }
    }

    #[inline]
    fn compare(&mut self, at: usize, draw: u16, weight: u32) {
        if weight == 0 {
            return;
        }
        if weight.cast_signed() < 0 {
            return self.compare_huge(at, draw, weight);
        }
        // a / b, rounded down, is below c where a is below b * c.
        let shortness = shortness(draw);
        if u128::from(shortness) < u128::from(self.quotient) * u128::from(weight) {
            let draw = if draw == u16::MAX { LAST_DRAWS_LIKE } else { draw };
            *self = Self { at, quotient: shortness / u64::from(weight), bonus: 0, weight, draw };
        }
    }

    /// Ceph takes a weight for a signed number of 32 bits: one of 32768 or more is below 0, and so is the
    /// quotient of its draw, which makes its straw longer than those of others.
    #[cold]
    fn compare_huge(&mut self, at: usize, draw: u16, weight: u32) {
        let length = shortness(draw) / u64::from(weight.wrapping_neg());
        if self.quotient > 0 || length > self.bonus {
            // With weight 0 it is compared with every draw.
            *self = Self { at, quotient: 0, bonus: length, weight: 0, draw: u16::MAX };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Ceph has it: each straw's length is a quotient of signed numbers, and the first of the longest
    /// wins.
    fn longest(items: &[(u16, u32)]) -> usize {
        let length = |(draw, weight): (u16, u32)| match weight.cast_signed() {
            0 => i64::MIN,
            weight => -(shortness(draw).cast_signed()) / i64::from(weight),
        };
        let mut best = 0;
        for at in 1..items.len() {
            if length(items[at]) > length(items[best]) {
                best = at;
            }
        }
        best
    }

    #[test]
    fn the_first_of_the_longest_straws_wins() {
        let draws = [0, 1, 2, 255, 256, 32_767, 32_768, 65_532, 65_533, 65_534, 65_535];
        let weights = [0, 1, 2, 0x1_0000, 0x1_0001, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, !0];
        let all: Vec<_> =
            draws.iter().flat_map(|draw| weights.map(|weight| (*draw, weight))).collect();
        let check = |items: &[(u16, u32)]| {
            let mut best = Best::NONE;
            for (at, (draw, weight)) in items.iter().enumerate() {
                best.offer(at, *draw, *weight);
            }
            assert_eq!(best.at, longest(items), "{items:?}");
        };
        for first in &all {
            for second in &all {
                check(&[*first, *second]);
                for third in &all {
                    check(&[*first, *second, *third]);
                }
            }
        }
    }

    #[test]
    fn straws_of_many_items_are_drawn_as_those_of_few() {
        // Around the number of hashes that are made at once.
        for count in 1..4 * LANES as i32 {
            let ids: Vec<i32> = (0..count).map(|id| id * 7 - 40).collect();
            let weights: Vec<u32> = (0..count as u32).map(|n| n % 5 * 0x8000).collect();
            for x in 0..50 {
                let draw = |id: &i32| hash3(x, id.cast_unsigned(), 3) as u16;
                let items: Vec<_> = ids.iter().map(draw).zip(weights.iter().copied()).collect();
                assert_eq!(straw2(&ids, &weights, x, 3, true), longest(&items));
            }
        }
    }
}
