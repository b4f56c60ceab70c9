//! What a run does: writes, or reads and compares.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use siphon_messages::osd::AllocHintFlags;
use siphon_rados::{Error, Pool, WriteOp};
use siphon_wire::buf::Rope;
use siphon_wire::types::ByteString;

use super::content::Content;
use super::table::Table;
use super::{LastRun, object_name};
use crate::interrupt::Interrupt;
use crate::rados::args::{BenchArgs, BenchOperation};

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

    /// Whether operation `number` is still to be begun.
    fn goes_on(&self, table: &Table, number: u64) -> bool {
        !self.interrupt.is_set()
            && (number < self.depth
                || table.stats().elapsed() < self.deadline
                    && self.most.is_none_or(|most| number < most))
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

    /// Writes until the time is over, or a signal comes; no write is wrong.
    pub(super) async fn write(&self, args: &BenchArgs, table: &Table) -> Result<u64> {
        let begin = |number| {
            let operation = self.pool.operate(self.name(number), self.write_op(args, number));
            timed(operation)
        };
        let mut under_way = FuturesUnordered::new();
        let mut next = 0;
        while self.goes_on(table, next) && next < self.depth {
            under_way.push(begin(next));
            table.stats().started += 1;
            next += 1;
        }
        while let Some((result, latency)) = under_way.next().await {
            result?;
            table.stats().finish(latency);
            if self.goes_on(table, next) {
                under_way.push(begin(next));
                table.stats().started += 1;
                next += 1;
            }
        }
        Ok(0)
    }

    /// Reads until the time is over, a signal comes, or all was read once in its order; returns how many reads were
    /// not what was written.
    pub(super) async fn read(&self, args: &BenchArgs, table: &Table) -> Result<u64> {
        let written = u64::from(self.run.ops);
        if written == 0 {
            bail!("the run before has written nothing");
        }
        let random = args.operation == BenchOperation::Rand;
        let begin = |number: u64| {
            let read = self.pool.read(self.name(number), self.offset(number), self.run.op_size);
            async move { (timed(read).await, number) }
        };
        let mut seed = Lottery::new();
        let mut choose =
            |next: u64| if random && next >= self.depth { seed.below(written) } else { next };
        let mut under_way = FuturesUnordered::new();
        let (mut next, mut wrong) = (0, 0);
        while next < self.depth && next < written && !self.interrupt.is_set() {
            under_way.push(begin(choose(next)));
            table.stats().started += 1;
            next += 1;
        }
        while let Some(((result, latency), number)) = under_way.next().await {
            let data: Rope = result?;
            table.stats().finish(latency);
            if !args.no_verify && !self.content.is(number, &data) {
                eprintln!("{} is not correct!", self.name(number));
                wrong += 1;
            }
            let more = random || next < written;
            if more && !self.interrupt.is_set() && table.stats().elapsed() < self.deadline {
                under_way.push(begin(choose(next)));
                table.stats().started += 1;
                next += 1;
            }
        }
        Ok(wrong)
    }
}

/// A future's result, and how long it took from now.
fn timed<T>(
    future: impl Future<Output = Result<T, Error>>,
) -> impl Future<Output = (Result<T, Error>, Duration)> {
    let started = Instant::now();
    async move {
        let result = future.await;
        (result, started.elapsed())
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
