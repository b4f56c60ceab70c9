//! `bench` and `cleanup`: what `rados bench` does, with objects that either can use of the other
//! (common/obj_bencher.cc, 16.2.7).
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

mod content;
mod plan;
mod stats;
mod table;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value, json};
use siphon_rados::Pool;
use siphon_wire::types::{ByteString, Errno, Features};
use siphon_wire::{DecodeError, Decoder, Encoder};

use super::args::{BenchArgs, BenchOperation, CleanupArgs};
use super::copying::MAX_OP;
use super::output::pretty;
use super::{Failed, Session, say};
use content::Content;
use plan::{Plan, Running};
use siphon_common::interrupt::Interrupt;
use table::Table;

const LAST_RUN: &str = "benchmark_last_metadata";
const PREFIX: &str = "benchmark_data";

/// What a run of writes leaves for those that read and clean up.
#[derive(Clone, Debug, PartialEq)]
struct LastRun {
    object_size: u64,
    /// Operations that were finished.
    ops: u32,
    pid: u32,
    op_size: u64,
}

impl LastRun {
    fn per_object(&self) -> u64 {
        self.object_size.checked_div(self.op_size).unwrap_or(1).max(1)
    }

    fn objects(&self) -> u64 {
        u64::from(self.ops).div_ceil(self.per_object())
    }

    fn to_bytes(&self) -> Bytes {
        let mut enc = Encoder::new(Features::ALL);
        enc.u64(self.object_size);
        enc.u32(self.ops);
        enc.u32(self.pid);
        enc.u64(self.op_size);
        enc.finish()
    }

    fn read(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut dec = Decoder::new(bytes);
        let (object_size, ops, pid) = (dec.u64()?, dec.u32()?, dec.u32()?);
        // Before Infernalis an operation was always as long as an object.
        let op_size = if dec.remaining() == 0 { object_size } else { dec.u64()? };
        dec.finish()?;
        Ok(Self { object_size, ops, pid, op_size })
    }

    /// # Errors
    /// There was no run, or what it left is damaged.
    async fn of(pool: &Pool, name: &ByteString) -> Result<Self> {
        let data = match pool.read(name.clone(), 0, 64).await {
            Ok(data) if data.is_empty() => return Err(Failed(Errno::ENOENT).into()),
            Err(error) if error.errno() == Errno::ENOENT => {
                return Err(Failed(Errno::ENOENT).into());
            }
            data => data?,
        };
        let run = Self::read(&data.to_bytes());
        let run = run.with_context(|| format!("{name} is not what bench writes there"))?;
        if run.op_size == 0 || run.object_size < run.op_size {
            bail!("{name} is not what bench writes there: objects of {} bytes", run.object_size);
        }
        Ok(run)
    }
}

/// The objects' names: host and process keep runs apart.
fn object_name(host: &str, pid: u32, number: u64) -> ByteString {
    format!("{PREFIX}_{host}_{pid}_object{number}").into()
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

impl Session {
    pub(super) async fn bench(&self, args: BenchArgs) -> Result<ExitCode> {
        let pool = self.pool().await?;
        let ended = self.measure(&pool, &args).await;
        ended.context("error during benchmark")
    }

    async fn measure(&self, pool: &Pool, args: &BenchArgs) -> Result<ExitCode> {
        let write = args.operation == BenchOperation::Write;
        if !write && (self.options.block_size.is_some() || self.options.object_size.is_some()) {
            bail!("-b and -O go with write only: what is read is as long as it was written");
        }
        if !write && (args.write_object || args.write_omap || args.write_xattr) {
            bail!("--write-object, --write-omap and --write-xattr go with write only");
        }
        if self.json().is_none() && self.options.output.is_some() {
            bail!("--output goes with --format json only");
        }
        let meta = args.run_name.clone().unwrap_or_else(|| LAST_RUN.into());
        let before = match !write || args.reuse_bench {
            true => Some(LastRun::of(pool, &meta).await.map_err(|error| {
                let reads = if args.reuse_bench {
                    "using reuse_bench for a write"
                } else {
                    "running a read"
                };
                match error.downcast_ref::<Failed>() {
                    Some(Failed(Errno::ENOENT)) => {
                        error.context(format!("Must write data before {reads} benchmark!"))
                    }
                    _ => error,
                }
            })?),
            false => None,
        };
        let run = match before {
            Some(run) => run,
            None => self.new_run(pool)?,
        };
        if run.op_size == 0 || run.op_size > MAX_OP as u64 {
            bail!("operations of {} bytes: 1 to {MAX_OP} are possible", run.op_size);
        }
        let interrupt = Interrupt::listen()?;
        let plan = Plan {
            pool: pool.clone(),
            host: host_name(),
            content: Content::new(run.op_size as usize),
            deadline: Duration::from_secs(args.seconds.into()),
            depth: u64::from(self.options.concurrent_ios),
            most: args
                .max_objects
                .map(|objects| run.object_size.saturating_mul(objects).div_ceil(run.op_size)),
            run,
            interrupt: interrupt.clone(),
        };
        let mut report = Map::new();
        self.head(args, &plan, &mut report)?;
        let mut table = Table::start(args.show_time, self.json().is_some(), &plan.run, &interrupt);
        let run = plan.run.clone();
        let counted = Running::new(plan, args.clone(), table.counter()).to_end().await;
        let (took, lines) = table.stop();
        let wrong = counted?;
        let (summary, finished) = {
            let stats = table.stats();
            (stats.summary(took, write), stats.finished)
        };
        // Also where nobody can be told, nothing is left behind.
        let mut told = Ok(());
        if self.json().is_some() {
            report.insert("datas".to_owned(), Value::Array(lines));
            summary.add_to(&mut report);
        } else {
            told = say(&summary.to_string());
        }
        if write {
            let ops = u32::try_from(finished).unwrap_or(u32::MAX);
            let run = LastRun { ops, ..run };
            pool.write_full(meta.clone(), run.to_bytes()).await?;
            if !args.no_cleanup {
                let started = Instant::now();
                told = told.and(self.tell("Cleaning up (deleting benchmark objects)"));
                let removed = self.remove_run(pool, &run).await?;
                told = told.and(self.tell(&removed_line(removed)));
                let took = started.elapsed().as_secs_f64();
                told = told.and(self.tell(&format!(
                    "Clean up completed and total clean up time :{}",
                    stats::General(took)
                )));
                pool.remove(meta).await?;
            }
        }
        told?;
        if self.json().is_some() {
            let mut out = self.out()?;
            let value = Value::Object(report);
            match self.json() {
                Some(true) => writeln!(out, "{}", pretty(&value))?,
                _ => writeln!(out, "{value}")?,
            }
            out.flush()?;
        }
        match wrong {
            0 => Ok(interrupt.exit_code()),
            _ => Err(Failed(Errno::EIO).into()),
        }
    }

    fn new_run(&self, pool: &Pool) -> Result<LastRun> {
        let given = |size: Option<crate::size::Size>| size.map(|size| size.0 as u64);
        let impossible = |size: &u64| *size == 0 || *size > MAX_OP as u64;
        let op_size = match given(self.options.block_size).filter(impossible) {
            Some(size) => size,
            None => self.block_size(pool)? as u64,
        };
        let object_size = given(self.options.object_size).filter(|&size| size > 0);
        let object_size = object_size.unwrap_or(op_size);
        let op_size = op_size.min(object_size);
        Ok(LastRun { object_size, ops: 0, pid: std::process::id(), op_size })
    }

    /// What stands before the table.
    fn head(&self, args: &BenchArgs, plan: &Plan, report: &mut Map<String, Value>) -> Result<()> {
        let (depth, run) = (plan.depth, &plan.run);
        let prefix = format!("{PREFIX}_{}_{}", plan.host, run.pid);
        self.tell(&format!("hints = {}", u8::from(!args.no_hints)))?;
        if args.operation != BenchOperation::Write {
            return Ok(());
        }
        let most = args.max_objects.unwrap_or(0);
        if self.json().is_some() {
            report.insert("concurrent_ios".to_owned(), json!(depth));
            report.insert("object_size".to_owned(), json!(run.object_size));
            report.insert("op_size".to_owned(), json!(run.op_size));
            report.insert("seconds_to_run".to_owned(), json!(args.seconds));
            report.insert("max_objects".to_owned(), json!(most));
            report.insert("object_prefix".to_owned(), json!(prefix));
            return Ok(());
        }
        say(&format!(
            "Maintaining {depth} concurrent writes of {} bytes to objects of size {} for up to {} \
             seconds or {most} objects\nObject prefix: {prefix}\n",
            run.op_size, run.object_size, args.seconds
        ))
    }

    /// A line for a person.
    fn tell(&self, line: &str) -> Result<()> {
        if self.json().is_some() { Ok(()) } else { say(&format!("{line}\n")) }
    }

    pub(super) async fn cleanup(&self, args: CleanupArgs) -> Result<()> {
        let options = &self.options;
        let pool = self.pool().await?;
        let all = options.all && !options.default && options.namespace.is_none();
        let pool = if all { pool.with_all_namespaces() } else { pool };
        let done = self.remove_left(&pool, &args).await;
        done.context("error during cleanup")
    }

    async fn remove_left(&self, pool: &Pool, args: &CleanupArgs) -> Result<()> {
        let meta = args.run_name.clone().unwrap_or_else(|| LAST_RUN.into());
        let prefix =
            args.prefix.clone().unwrap_or_else(|| format!("{PREFIX}_{}", host_name()).into());
        if !prefix.starts_with(PREFIX.as_bytes()) {
            eprintln!("Specified --prefix invalid, it must begin with \"{PREFIX}\"");
            return Err(Failed(Errno::EINVAL).into());
        }
        let (mut with_record, mut with_objects) = (BTreeSet::new(), BTreeSet::new());
        let mut objects = pool.objects();
        while let Some(object) = objects.try_next().await? {
            if object.oid == meta {
                with_record.insert(object.nspace);
            } else if object.oid.starts_with(&prefix) {
                with_objects.insert(object.nspace);
            }
        }
        for namespace in with_objects {
            let pool = pool.clone().with_namespace(namespace.clone());
            if with_record.contains(&namespace) {
                let run = LastRun::of(&pool, &meta).await?;
                let removed = self.remove_run(&pool, &run).await?;
                self.tell(&removed_line(removed))?;
                pool.remove(meta.clone()).await?;
            } else {
                self.tell("Warning: using slow linear search")?;
                let ours = |oid: &ByteString| oid.starts_with(&prefix);
                let removed = self.remove_all(&pool, |object| ours(&object.oid)).await?;
                self.tell(&removed_line(removed))?;
            }
        }
        Ok(())
    }

    /// Removes the objects of a run, many at once; returns how many there were.
    async fn remove_run(&self, pool: &Pool, run: &LastRun) -> Result<u64> {
        let (host, depth) = (host_name(), self.options.concurrent_ios as usize);
        let names = (0..run.objects()).map(|number| object_name(&host, run.pid, number));
        let removals = names.map(|name| pool.remove(name));
        let mut removals = futures_util::stream::iter(removals).buffer_unordered(depth);
        let mut removed = 0;
        while let Some(result) = removals.next().await {
            match result {
                Ok(_) => removed += 1,
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }
}

fn removed_line(count: u64) -> String {
    format!("Removed {count} object{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_remembered_as_ceph_does() {
        let run = LastRun { object_size: 4 << 20, ops: 9, pid: 77, op_size: 1 << 20 };
        let wire = b"\0\0\x40\0\0\0\0\0\x09\0\0\0\x4d\0\0\0\0\0\x10\0\0\0\0\0";
        assert_eq!(&run.to_bytes()[..], wire);
        assert_eq!(LastRun::read(&run.to_bytes()), Ok(run.clone()));
        assert_eq!((run.per_object(), run.objects()), (4, 3));
        let old = LastRun::read(&run.to_bytes().slice(..16)).unwrap();
        assert_eq!(old.op_size, 4 << 20);
        LastRun::read(&run.to_bytes().slice(..15)).unwrap_err();
    }
}
