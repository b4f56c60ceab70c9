//! What a run does: writes, or reads and compares.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use siphon_common::Task;
use siphon_messages::osd::AllocHintFlags;
use siphon_rados::{Pool, WriteOp};
use siphon_wire::types::ByteString;

use super::content::Content;
use super::table::Counter;
use super::{LastRun, object_name};
use crate::rados::args::{BenchArgs, BenchOperation};
use siphon_common::interrupt::Interrupt;

/// What a run does.
pub(super) struct Plan {
    pub(super) pool: Pool,
    pub(super) host: String,
    pub(super) content: Content,
    pub(super) run: LastRun,
    pub(super) deadline: Duration,
    /// Operations in flight.
    pub(super) depth: u64,
    /// Operations in all, if there is a limit.
    pub(super) most: Option<u64>,
    /// Nothing is begun any more when this is set.
    pub(super) interrupt: Interrupt,
}

impl Plan {
    fn name(&self, number: u64) -> ByteString {
        object_name(&self.host, self.run.pid, number / self.run.per_object())
    }

    fn offset(&self, number: u64) -> u64 {
        number % self.run.per_object() * self.run.op_size
    }

    fn write_op(&self, args: &BenchArgs, number: u64) -> WriteOp {
        let (data, offset) = (self.content.of(number), self.offset(number));
        let mut op = WriteOp::new();
        if args.write_object || !(args.write_omap || args.write_xattr) {
            if !args.no_hints {
                let flags = AllocHintFlags::SEQUENTIAL_WRITE
                    | AllocHintFlags::SEQUENTIAL_READ
                    | AllocHintFlags::APPEND_ONLY
                    | AllocHintFlags::IMMUTABLE;
                op.set_alloc_hint(self.run.object_size, self.run.op_size, flags);
            }
            op.write(offset, data.clone());
        }
        if args.write_omap {
            let key = format!("bench-omap-key-{offset}").into();
            op.omap_set(&BTreeMap::from([(key, data.to_bytes())]));
        }
        if args.write_xattr {
            op.set_xattr(format!("bench-xattr-key-{offset}"), data);
        }
        op
    }
}

/// A run that goes on: each operation in flight is a task, which begins the next where its answer
/// comes, on a worker of the messenger. So no thread has to be woken for an operation.
pub(super) struct Running {
    plan: Plan,
    args: BenchArgs,
    counter: Counter,
    lottery: Mutex<Lottery>,
}

impl Running {
    pub(super) fn new(plan: Plan, args: BenchArgs, counter: Counter) -> Arc<Self> {
        Arc::new(Self { plan, args, counter, lottery: Mutex::new(Lottery::new()) })
    }

    /// Goes on until the time is over, a signal comes, or all is done; returns how many reads were not what was
    /// written.
    pub(super) async fn to_end(self: &Arc<Self>) -> Result<u64> {
        let first = match self.args.operation {
            BenchOperation::Write => self.plan.depth,
            BenchOperation::Seq | BenchOperation::Rand => {
                let written = u64::from(self.plan.run.ops);
                if written == 0 {
                    bail!("the run before has written nothing");
                }
                self.plan.depth.min(written)
            }
        };
        // All at once: who ends before the last is begun takes the number behind it.
        self.counter.stats().started = first;
        let begin = |number| Task::spawn(Arc::clone(self).go_on_from(number));
        let tasks: Vec<_> = (0..first).map(begin).collect();
        Ok(try_join_all(tasks).await?.into_iter().sum())
    }

    /// One operation after the other, from operation `number` on.
    async fn go_on_from(self: Arc<Self>, mut number: u64) -> Result<u64> {
        let mut wrong = 0;
        loop {
            let started = Instant::now();
            let data = match self.args.operation {
                BenchOperation::Write => {
                    let op = self.plan.write_op(&self.args, number);
                    self.plan.pool.operate(self.plan.name(number), op).await?;
                    None
                }
                BenchOperation::Seq | BenchOperation::Rand => {
                    let (name, offset) = (self.plan.name(number), self.plan.offset(number));
                    Some(self.plan.pool.read(name, offset, self.plan.run.op_size).await?)
                }
            };
            let ended = Instant::now();
            if let Some(data) = data
                && !self.args.no_verify
                && !self.plan.content.is(number, &data)
            {
                eprintln!("{} is not correct!", self.plan.name(number));
                wrong += 1;
            }
            match self.next(started, ended) {
                Some(next) => number = next,
                None => return Ok(wrong),
            }
        }
    }

    /// Counts an operation that has ended; returns which is to be begun in its place.
    fn next(&self, started: Instant, ended: Instant) -> Option<u64> {
        let mut stats = self.counter.stats();
        stats.finish(ended.saturating_duration_since(started));
        let (next, written) = (stats.started, u64::from(self.plan.run.ops));
        let more = match self.args.operation {
            BenchOperation::Write => self.plan.most.is_none_or(|most| next < most),
            BenchOperation::Seq => next < written,
            BenchOperation::Rand => true,
        };
        if !more || self.plan.interrupt.is_set() || stats.until(ended) >= self.plan.deadline {
            return None;
        }
        stats.started += 1;
        drop(stats);
        match self.args.operation {
            BenchOperation::Rand => {
                let lottery = self.lottery.lock();
                Some(lottery.unwrap_or_else(PoisonError::into_inner).below(written))
            }
            BenchOperation::Write | BenchOperation::Seq => Some(next),
        }
    }
}

/// Numbers that look drawn (xorshift64*).
struct Lottery(u64);

impl Lottery {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(now.map_or(1, |since| since.as_nanos() as u64) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }
}
