//! Rules that retry within a step: all but MSR rules (`crush_choose_firstn`, `crush_choose_indep`).

use super::{Lists, Mapper};
use crate::{Bucket, BucketAlg, ITEM_NONE, ITEM_UNDEF, Rule, Step, StepOp};

/// How a step chooses: the tunables, as far as the rule has not changed them.
#[derive(Clone, Copy)]
struct How {
    tries: u32,
    leaf_tries: u32,
    local_tries: u32,
    local_fallback_tries: u32,
    vary_r: u32,
    stable: bool,
    descend_once: bool,
}

/// One search of `choose firstn`.
#[derive(Clone, Copy)]
struct Firstn {
    /// The first position's number, and one more than the last's.
    from: u32,
    to: u32,
    /// The type that is looked for.
    kind: i32,
    /// Positions that are filled already.
    filled: usize,
    /// Positions that may be filled at most.
    count: usize,
    tries: u32,
    leaf_tries: u32,
    parent_r: u32,
}

/// One search of `choose indep`.
#[derive(Clone, Copy)]
struct Indep {
    first: usize,
    count: usize,
    replicas: u32,
    kind: i32,
    tries: u32,
    leaf_tries: u32,
    parent_r: u32,
}

/// What became of a draw.
enum Draw<'a> {
    /// An item of the type that is looked for.
    Found(i32),
    /// A bucket of another type: on from there.
    Below(&'a Bucket),
    /// Something that no retry makes better.
    Bad,
}

impl<'a> Mapper<'a> {
    pub(super) fn map_classic(&mut self, rule: &Rule, size: usize, lists: &mut Lists) {
        let tunables = &self.map.tunables;
        let mut how = How {
            // It counts retries, not tries.
            tries: tunables.choose_total_tries.wrapping_add(1),
            leaf_tries: 0,
            local_tries: tunables.choose_local_tries,
            local_fallback_tries: tunables.choose_local_fallback_tries,
            vary_r: u32::from(tunables.chooseleaf_vary_r),
            stable: tunables.chooseleaf_stable != 0,
            descend_once: tunables.chooseleaf_descend_once != 0,
        };
        lists.from.clear();
        for step in &rule.steps {
            match step.op {
                StepOp::TAKE => {
                    if self.can_take(step.arg1) {
                        lists.from.clear();
                        lists.from.push(step.arg1);
                    }
                }
                StepOp::CHOOSE_FIRSTN | StepOp::CHOOSELEAF_FIRSTN => {
                    self.step_firstn(step, how, size, lists);
                }
                StepOp::CHOOSE_INDEP | StepOp::CHOOSELEAF_INDEP => {
                    self.step_indep(step, how, size, lists);
                }
                StepOp::EMIT => {
                    let room = size.saturating_sub(lists.result.len());
                    lists.result.extend(lists.from.iter().take(room));
                    lists.from.clear();
                }
                _ => how.set(step),
            }
        }
    }

    fn can_take(&self, item: i32) -> bool {
        (0..self.map.max_devices).contains(&item) || self.bucket(item).is_some()
    }

    /// How many items a step chooses, if any.
    fn replicas(step: &Step, size: usize) -> Option<u32> {
        let size = i32::try_from(size).unwrap_or(i32::MAX);
        let count = if step.arg1 > 0 { step.arg1 } else { step.arg1.saturating_add(size) };
        u32::try_from(count).ok().filter(|count| *count > 0)
    }

    fn step_firstn(&mut self, step: &Step, how: How, size: usize, lists: &mut Lists) {
        if lists.from.is_empty() {
            return;
        }
        let leaf = step.op == StepOp::CHOOSELEAF_FIRSTN;
        lists.reset(size);
        let mut done = 0;
        let default_leaf_tries = if how.descend_once { 1 } else { how.tries };
        for from in 0..lists.from.len() {
            let Some(replicas) = Self::replicas(step, size) else { continue };
            let Some(bucket) = self.bucket(lists.from[from]) else { continue };
            let search = Firstn {
                from: 0,
                to: replicas,
                kind: step.arg2,
                filled: 0,
                count: size - done,
                tries: how.tries,
                leaf_tries: if how.leaf_tries > 0 { how.leaf_tries } else { default_leaf_tries },
                parent_r: 0,
            };
            let leaves = leaf.then_some(&mut lists.leaves[done..]);
            done += self.firstn(bucket, search, how, &mut lists.to[done..], leaves);
        }
        lists.next(leaf, done);
    }

    fn step_indep(&mut self, step: &Step, how: How, size: usize, lists: &mut Lists) {
        if lists.from.is_empty() {
            return;
        }
        let leaf = step.op == StepOp::CHOOSELEAF_INDEP;
        lists.reset(size);
        let mut done = 0;
        for from in 0..lists.from.len() {
            let Some(replicas) = Self::replicas(step, size) else { continue };
            let Some(bucket) = self.bucket(lists.from[from]) else { continue };
            let count = (replicas as usize).min(size - done);
            let search = Indep {
                first: 0,
                count,
                replicas,
                kind: step.arg2,
                tries: how.tries,
                leaf_tries: how.leaf_tries.max(1),
                parent_r: 0,
            };
            let leaves = leaf.then_some(&mut lists.leaves[done..]);
            self.indep(bucket, search, &mut lists.to[done..], leaves);
            done += count;
        }
        lists.next(leaf, done);
    }

    /// What a drawn item is to a search for `kind`. A map may refer to buckets that it has not; Ceph
    /// would fail there.
    #[inline]
    fn classify(&self, item: i32, kind: i32) -> Draw<'a> {
        if item >= self.map.max_devices {
            return Draw::Bad;
        }
        match self.kind(item) {
            Some(found) if found == kind => Draw::Found(item),
            Some(_) => self.bucket(item).map_or(Draw::Bad, Draw::Below),
            None => Draw::Bad,
        }
    }

    /// Fills positions one after the other, each with retries, and leaves none empty. Returns how many
    /// are filled then.
    fn firstn(
        &mut self,
        bucket: &'a Bucket,
        search: Firstn,
        how: How,
        out: &mut [i32],
        mut leaves: Option<&mut [i32]>,
    ) -> usize {
        let mut filled = search.filled;
        let mut room = search.count;
        for replica in search.from..search.to {
            if room == 0 || self.draws == 0 {
                break;
            }
            let one = Firstn { filled, count: room, ..search };
            if let Some(item) =
                self.firstn_one(bucket, replica, one, how, out, leaves.as_deref_mut())
            {
                out[filled] = item;
                filled += 1;
                room -= 1;
            }
        }
        filled
    }

    /// Finds an item for the position `search.filled`.
    fn firstn_one(
        &mut self,
        bucket: &'a Bucket,
        replica: u32,
        search: Firstn,
        how: How,
        out: &[i32],
        mut leaves: Option<&mut [i32]>,
    ) -> Option<i32> {
        let (mut failed, mut failed_here) = (0_u32, 0_u32);
        let mut inside = bucket;
        loop {
            if !self.charge(inside) {
                return None;
            }
            let r = replica.wrapping_add(search.parent_r).wrapping_add(failed);
            let size = inside.items.len() as u32;
            let permuted = how.local_fallback_tries > 0
                && failed_here >= size >> 1
                && failed_here > how.local_fallback_tries;
            let item = if permuted {
                self.choose_permuted(inside, r)
            } else {
                self.choose(inside, r, search.filled)
            };
            let mut collides = false;
            if let Some(item) = item {
                match self.classify(item, search.kind) {
                    Draw::Bad => return None,
                    Draw::Below(next) => {
                        inside = next;
                        continue;
                    }
                    Draw::Found(_) => {}
                }
                collides = out[..search.filled].contains(&item);
                let leaves = leaves.as_deref_mut();
                if !collides && self.firstn_accepts(item, r, search, how, leaves) {
                    return Some(item);
                }
            }
            failed += 1;
            failed_here += 1;
            let here = (collides && failed_here <= how.local_tries)
                || (how.local_fallback_tries > 0
                    && failed_here <= size.saturating_add(how.local_fallback_tries));
            if here {
                continue;
            }
            if failed >= search.tries {
                return None;
            }
            inside = bucket;
            failed_here = 0;
        }
    }

    /// Whether an item serves: a device that is in, or a bucket with one below it, which goes to `leaves`.
    fn firstn_accepts(
        &mut self,
        item: i32,
        r: u32,
        search: Firstn,
        how: How,
        leaves: Option<&mut [i32]>,
    ) -> bool {
        let position = search.filled;
        if let Some(leaves) = leaves {
            match self.bucket(item) {
                None => leaves[position] = item,
                Some(bucket) => {
                    let from = if how.stable { 0 } else { position as u32 };
                    let inner = Firstn {
                        from,
                        to: from + 1,
                        kind: 0,
                        tries: search.leaf_tries,
                        leaf_tries: 0,
                        parent_r: match how.vary_r {
                            0 => 0,
                            vary_r => r.wrapping_shr(vary_r - 1),
                        },
                        ..search
                    };
                    if self.firstn(bucket, inner, how, leaves, None) <= position {
                        return false;
                    }
                }
            }
        }
        search.kind != 0 || !self.is_out(item)
    }

    /// Fills positions breadth first, each round those that are left, so that a position's device depends
    /// on the others' as little as can be.
    fn indep(
        &mut self,
        bucket: &'a Bucket,
        search: Indep,
        out: &mut [i32],
        mut leaves: Option<&mut [i32]>,
    ) {
        let positions = search.first..search.first + search.count;
        out[positions.clone()].fill(ITEM_UNDEF);
        if let Some(leaves) = leaves.as_deref_mut() {
            leaves[positions.clone()].fill(ITEM_UNDEF);
        }
        let mut left = search.count;
        let mut failed = 0;
        while left > 0 && failed < search.tries && self.draws > 0 {
            for position in positions.clone() {
                if out[position] != ITEM_UNDEF {
                    continue;
                }
                let leaves = leaves.as_deref_mut();
                if let Some(item) = self.indep_one(bucket, search, position, failed, out, leaves) {
                    out[position] = item;
                    left -= 1;
                }
            }
            failed += 1;
        }
        let none = |list: &mut [i32]| {
            list.iter_mut().filter(|item| **item == ITEM_UNDEF).for_each(|item| *item = ITEM_NONE);
        };
        none(&mut out[positions.clone()]);
        if let Some(leaves) = leaves {
            none(&mut leaves[positions]);
        }
    }

    /// Tries once to fill a position; [`ITEM_NONE`] says that no more tries are to be made.
    fn indep_one(
        &mut self,
        bucket: &'a Bucket,
        search: Indep,
        position: usize,
        failed: u32,
        out: &[i32],
        mut leaves: Option<&mut [i32]>,
    ) -> Option<i32> {
        let mut inside = bucket;
        let (item, r) = loop {
            if !self.charge(inside) {
                return None;
            }
            let replicas = search.replicas;
            let even = inside.alg() == BucketAlg::UNIFORM
                && (inside.items.len() as u32).is_multiple_of(replicas);
            // In a uniform bucket whose size is a multiple, tries would hit the same items.
            let stride = if even { replicas.wrapping_add(1) } else { replicas };
            let r = (position as u32)
                .wrapping_add(search.parent_r)
                .wrapping_add(stride.wrapping_mul(failed));
            let item = self.choose(inside, r, search.first)?;
            match self.classify(item, search.kind) {
                Draw::Found(item) => break (item, r),
                Draw::Below(next) => inside = next,
                Draw::Bad => {
                    if let Some(leaves) = leaves.as_deref_mut() {
                        leaves[position] = ITEM_NONE;
                    }
                    return Some(ITEM_NONE);
                }
            }
        };
        if out[search.first..search.first + search.count].contains(&item) {
            return None;
        }
        if let Some(leaves) = leaves {
            match self.bucket(item) {
                None => leaves[position] = item,
                Some(bucket) => {
                    let inner = Indep {
                        first: position,
                        count: 1,
                        kind: 0,
                        tries: search.leaf_tries,
                        leaf_tries: 0,
                        parent_r: r,
                        ..search
                    };
                    self.indep(bucket, inner, leaves, None);
                    if leaves[position] == ITEM_NONE {
                        return None;
                    }
                }
            }
        }
        if search.kind == 0 && self.is_out(item) { None } else { Some(item) }
    }
}

impl How {
    /// What a `set_…` step changes, if its argument is one that counts.
    fn set(&mut self, step: &Step) {
        let Ok(value) = u32::try_from(step.arg1) else { return };
        match step.op {
            StepOp::SET_CHOOSE_TRIES if value > 0 => self.tries = value,
            StepOp::SET_CHOOSELEAF_TRIES if value > 0 => self.leaf_tries = value,
            StepOp::SET_CHOOSE_LOCAL_TRIES => self.local_tries = value,
            StepOp::SET_CHOOSE_LOCAL_FALLBACK_TRIES => self.local_fallback_tries = value,
            StepOp::SET_CHOOSELEAF_VARY_R => self.vary_r = value,
            StepOp::SET_CHOOSELEAF_STABLE => self.stable = value != 0,
            _ => {}
        }
    }
}

impl Lists {
    /// Makes room for what a step chooses.
    fn reset(&mut self, size: usize) {
        self.to.clear();
        self.to.resize(size, ITEM_NONE);
        self.leaves.clear();
        self.leaves.resize(size, ITEM_NONE);
    }

    /// Makes what a step chose what the next begins with.
    fn next(&mut self, leaf: bool, count: usize) {
        let chosen = if leaf { &mut self.leaves } else { &mut self.to };
        std::mem::swap(&mut self.from, chosen);
        self.from.truncate(count);
    }
}
