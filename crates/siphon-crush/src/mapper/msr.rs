//! Rules of Squid that retry over several steps (`crush_msr_do_rule` of Ceph's `crush/mapper.c` since 19;
//! its `doc/dev/crush-msr.rst` says why).
//!
//! A block of such a rule is a take, any number of choosemsr steps, and an emit. Its positions are
//! divided by the first step into strides, each stride by the next step into shorter ones, down to one
//! device for each. A stride may end up with several items where tries failed, but no two strides share
//! one.

use super::{Lists, Mapper};
use crate::{Bucket, ITEM_NONE, ITEM_UNDEF, Rule, RuleKind, Step, StepOp};

/// Most choosemsr steps of a block: each is a level of a cluster's tree, of which there are ten at most
/// (`CRUSH_MAX_DEPTH`). More map nothing.
const MAX_STEPS: usize = 64;

/// The positions of a block, or of a stride in it, and the steps by which they are filled.
#[derive(Clone, Copy)]
struct Part<'r> {
    steps: &'r [Step],
    /// The number of the first of `steps` in its block.
    level: usize,
    start: usize,
    end: usize,
    /// Positions that the steps ask for, which may be more than there are.
    width: u32,
}

/// What is the same for all of a mapping.
#[derive(Clone, Copy)]
struct Limits {
    size: usize,
    descents: u32,
    collision_tries: u32,
}

/// Where devices go.
struct Output<'l> {
    result: &'l mut [i32],
    count: usize,
    firstn: bool,
}

impl<'a> Mapper<'a> {
    pub(super) fn map_msr(&mut self, rule: &Rule, size: usize, lists: &mut Lists) {
        let tunables = &self.map.tunables;
        let mut limits = Limits {
            size,
            descents: tunables.msr_descents,
            collision_tries: tunables.msr_collision_tries,
        };
        let blocks = limits.configure(&rule.steps);
        let mut result = std::mem::take(&mut lists.result);
        result.resize(size, ITEM_NONE);
        let firstn = rule.kind == RuleKind::MSR_FIRSTN;
        let mut output = Output { result: &mut result, count: 0, firstn };
        let valid = self.map_blocks(blocks, limits, &mut output, lists);
        let length = match valid {
            None => 0,
            Some(()) if firstn => output.count,
            Some(()) => size,
        };
        result.truncate(length);
        lists.result = result;
    }

    /// `None` if the rule has not the form that it must have.
    fn map_blocks(
        &mut self,
        mut steps: &[Step],
        limits: Limits,
        output: &mut Output<'_>,
        lists: &mut Lists,
    ) -> Option<()> {
        let mut start = 0;
        while !steps.is_empty() {
            let (take, choices, rest) = split_block(steps)?;
            steps = rest;
            if take >= 0 {
                // A device, with nothing to choose from.
                if !choices.is_empty() {
                    return None;
                }
                output.emit(start, take);
                start = (start + 1).min(limits.size);
                continue;
            }
            let root = self.bucket(take)?;
            let asked = |step: &Step| match step.arg1 {
                0 => limits.size as u32,
                count => count.cast_unsigned(),
            };
            let width = choices.iter().map(asked).fold(1, u32::wrapping_mul);
            let end = start.saturating_add(width as usize).min(limits.size);
            let part = Part { steps: choices, level: 0, start, end, width };
            self.map_block(root, part, limits, output, lists);
            start = end;
        }
        Some(())
    }

    /// Descends from the root until all positions of a block are filled, or often enough.
    fn map_block(
        &mut self,
        root: &'a Bucket,
        part: Part<'_>,
        limits: Limits,
        output: &mut Output<'_>,
        lists: &mut Lists,
    ) {
        let levels = part.steps.len();
        if levels == 0 || levels > MAX_STEPS {
            return;
        }
        for list in [&mut lists.leaves, &mut lists.undo] {
            list.clear();
            list.resize(levels * limits.size, ITEM_UNDEF);
        }
        let wanted = output.count + (part.end - part.start);
        let mut descent = 0;
        while descent < limits.descents && output.count < wanted && self.draws > 0 {
            let left = self.draws;
            self.msr_choose(root, part, descent, limits, output, lists);
            if self.draws == left {
                // Steps that do not divide the positions draw nothing, however often.
                break;
            }
            descent += 1;
        }
    }

    /// Fills the positions of a part as far as it can; returns how many it filled.
    fn msr_choose(
        &mut self,
        bucket: &'a Bucket,
        part: Part<'_>,
        descent: u32,
        limits: Limits,
        output: &mut Output<'_>,
        lists: &mut Lists,
    ) -> usize {
        let Some((step, rest)) = part.steps.split_first() else { return 0 };
        let strides = if step.arg1 == 0 { limits.size as u32 } else { step.arg1.cast_unsigned() };
        // Where the product of the steps has overflowed, or is 0.
        if strides == 0 || part.width == 0 || !part.width.is_multiple_of(strides) {
            return 0;
        }
        let width = part.width / strides;
        let starts = (part.start..part.end).step_by(width as usize);
        let undo = part.level * limits.size;
        let mut mapped = 0;
        for (index, start) in starts.clone().enumerate() {
            let end = start.saturating_add(width as usize).min(part.end);
            lists.undo[undo + index] = ITEM_UNDEF;
            let bottom = lists.level(part.level + part.steps.len() - 1, limits.size);
            if !bottom[start..end].contains(&ITEM_UNDEF) {
                continue;
            }
            let used = &*lists.level(part.level, limits.size);
            let stride = Stride { index: index as u32, part, start, end };
            let Some(item) = self.msr_pick(bucket, step.arg2, stride, descent, limits, used) else {
                continue;
            };
            if step.arg2 == 0 {
                // A device that is out is tried again by the next descent.
                if width == 1 && rest.is_empty() && item >= 0 && !self.is_out(item) {
                    lists.level(part.level, limits.size)[start] = item;
                    output.emit(start, item);
                    mapped += 1;
                }
                continue;
            }
            let Some(child) = self.bucket(item).filter(|_| !rest.is_empty()) else { continue };
            let below = Part { steps: rest, level: part.level + 1, start, end, width };
            let count = self.msr_choose(child, below, descent, limits, output, lists);
            let added = push(&mut lists.level(part.level, limits.size)[start..end], item);
            if added && count == 0 {
                // It keeps others from it until the end of this descent.
                lists.undo[undo + index] = item;
            } else {
                mapped += count;
            }
        }
        for (index, start) in starts.enumerate() {
            if lists.undo[undo + index] != ITEM_UNDEF {
                let end = start.saturating_add(width as usize).min(part.end);
                pop(&mut lists.level(part.level, limits.size)[start..end]);
            }
        }
        mapped
    }

    /// Draws until an item comes that no other stride uses, or often enough.
    fn msr_pick(
        &mut self,
        bucket: &'a Bucket,
        kind: i32,
        stride: Stride<'_>,
        descent: u32,
        limits: Limits,
        used: &[i32],
    ) -> Option<i32> {
        let index = descent.wrapping_mul(limits.size as u32).wrapping_add(stride.index);
        for attempt in 0..limits.collision_tries {
            let r = (index << 16).wrapping_add(attempt);
            let item = self.msr_descend(bucket, kind, r, stride.index as usize)?;
            // The first place that has it decides.
            let mut places = stride.part.start..stride.part.end;
            let place = places.find(|place| used[*place] == item);
            if place.is_none_or(|place| (stride.start..stride.end).contains(&place)) {
                return Some(item);
            }
        }
        None
    }

    /// Goes down to a device or a bucket of a type.
    fn msr_descend(
        &mut self,
        bucket: &'a Bucket,
        kind: i32,
        r: u32,
        position: usize,
    ) -> Option<i32> {
        let mut inside = bucket;
        loop {
            if !self.charge(inside) {
                return None;
            }
            let item = self.choose(inside, r, position)?;
            if item >= 0 {
                return Some(item);
            }
            inside = self.bucket(item)?;
            if i32::from(inside.kind) == kind {
                return Some(item);
            }
        }
    }
}

/// One of the equal divisions of a part.
#[derive(Clone, Copy)]
struct Stride<'r> {
    index: u32,
    part: Part<'r>,
    start: usize,
    end: usize,
}

impl Limits {
    /// Takes the tunables that a rule begins with, and returns what follows them.
    fn configure<'r>(&mut self, steps: &'r [Step]) -> &'r [Step] {
        let mut rest = steps;
        while let Some((step, after)) = rest.split_first() {
            match step.op {
                StepOp::SET_MSR_DESCENTS => self.descents = step.arg1.cast_unsigned(),
                StepOp::SET_MSR_COLLISION_TRIES => {
                    self.collision_tries = step.arg1.cast_unsigned();
                }
                _ => break,
            }
            rest = after;
        }
        rest
    }
}

/// Splits off a block: the item that is taken, the steps that choose, and what follows the block.
fn split_block(steps: &[Step]) -> Option<(i32, &[Step], &[Step])> {
    let (take, rest) = steps.split_first().filter(|(step, _)| step.op == StepOp::TAKE)?;
    let count = rest.iter().position(|step| step.op != StepOp::CHOOSE_MSR)?;
    let (choices, rest) = rest.split_at(count);
    let (_, rest) = rest.split_first().filter(|(step, _)| step.op == StepOp::EMIT)?;
    Some((take.arg1, choices, rest))
}

impl Lists {
    /// What a step has in use, by position: those of a stride stand at its positions, from its first on.
    fn level(&mut self, level: usize, size: usize) -> &mut [i32] {
        &mut self.leaves[level * size..(level + 1) * size]
    }
}

impl Output<'_> {
    fn emit(&mut self, position: usize, item: i32) {
        let at = if self.firstn { self.count } else { position };
        if let Some(place) = self.result.get_mut(at) {
            *place = item;
            self.count += 1;
        }
    }
}

/// Adds an item to those of a stride; tells whether it was not among them.
fn push(stride: &mut [i32], item: i32) -> bool {
    for place in stride {
        if *place == item {
            return false;
        }
        if *place == ITEM_UNDEF {
            *place = item;
            return true;
        }
    }
    false
}

/// Takes the last item out of a stride.
fn pop(stride: &mut [i32]) {
    if let Some(last) = stride.iter_mut().rfind(|place| **place != ITEM_UNDEF) {
        *last = ITEM_UNDEF;
    }
}
