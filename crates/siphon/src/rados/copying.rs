//! Objects into files, and files into objects.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use siphon_osdmap::{MapFlags, PoolFlags};
use siphon_rados::{Budget, Error, Operation, Pool, WriteOp};
use siphon_wire::buf::Rope;
use siphon_wire::types::{ByteString, Errno};

use super::args::Words;
use super::{Session, named, path};
use crate::exit::Stdout;

/// Bytes of an operation unless told otherwise, as Ceph's `rados` has it.
pub(super) const BLOCK: usize = 4 << 20;
/// The longest operation, in bytes: a message holds no more (`Limits::SESSION`), and OSDs take less.
pub(super) const MAX_OP: usize = 128 << 20;
/// Operations under way at once.
const WINDOW: usize = 4;

impl Session {
    /// Bytes of an operation on the data of this pool's objects; a message has no room for more than [`MAX_OP`].
    pub(super) fn block_size(&self, pool: &Pool) -> Result<usize> {
        let alignment = pool.required_alignment()?.unwrap_or(1);
        let alignment = usize::try_from(alignment).expect("a stripe's width has 32 bits");
        let most = (MAX_OP / alignment).max(1) * alignment;
        let wanted = self.options.block_size.map_or(BLOCK, |size| size.0);
        let taken = wanted.clamp(1, most).next_multiple_of(alignment);
        if self.options.block_size.is_some() && taken > wanted.max(1) {
            eprintln!("INFO: op_size has been rounded to {taken}");
        }
        Ok(taken)
    }

    pub(super) async fn get(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "FILE"], 2)?);
        let context = || format!("error getting {}", named(&pool, &words[0]));
        let size = pool.stat(words[0].clone()).await.with_context(context)?.size;
        // What a file had is kept if there is no such object.
        let mut file = writer(&words[1])?;
        let on_terminal = words[1] == *"-" && io::stdout().is_terminal();
        let (mut asked, mut got) = (self.options.offset.map_or(0, |it| it.0 as u64), 0);
        let length = Some(size.saturating_sub(asked));
        let bar = if on_terminal { ProgressBar::hidden() } else { self.bar(length) };
        let block = self.block_size(&pool)? as u64;
        let mut reads = VecDeque::new();
        // An object that grows meanwhile is read to its new end.
        loop {
            while reads.len() < WINDOW && (asked < size.max(1) || reads.is_empty()) {
                reads.push_back(pool.read(words[0].clone(), asked, block));
                asked = asked.saturating_add(block);
            }
            let Some(read) = reads.pop_front() else { break };
            let data: Rope = read.await.with_context(context)?;
            for segment in data.segments() {
                file.write_all(segment)
                    .with_context(|| format!("error writing to {}", words[1]))?;
            }
            got += data.len() as u64;
            bar.set_position(got);
            if (data.len() as u64) < block {
                break;
            }
        }
        file.flush().with_context(|| format!("error writing to {}", words[1]))?;
        bar.finish_and_clear();
        Ok(())
    }

    pub(super) async fn put(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "FILE"], 2)?);
        let (mut file, length) = reader(&words[1])?;
        let block_size = self.block_size(&pool)?;
        let offset = self.options.offset.map(|size| size.0 as u64);
        let mut put = Put {
            pool: &pool,
            object: &words[0],
            at: offset.unwrap_or(0),
            // Without an offset the first block replaces what there was.
            replace: offset.is_none(),
            under_way: VecDeque::new(),
            bar: self.bar(length),
        };
        let mut any = false;
        loop {
            // A block is read when there is room for it.
            let budget = pool.reserve(block_size as u64).await?;
            let Some(block) = read_block(&mut *file, &words[1], block_size)? else { break };
            any = true;
            put.block(budget, block).await?;
        }
        if !any {
            put.nothing().await?;
        }
        put.finish().await
    }

    pub(super) async fn append(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "FILE"], 2)?);
        let (mut file, length) = reader(&words[1])?;
        let (bar, block_size) = (self.bar(length), self.block_size(&pool)?);
        let context = || format!("error appending {}", named(&pool, &words[0]));
        let mut any = false;
        while let Some(block) = read_block(&mut *file, &words[1], block_size)? {
            let length = block.len() as u64;
            pool.append(words[0].clone(), block)
                .await
                .map_err(|error| explain(&pool, error))
                .with_context(context)?;
            bar.inc(length);
            any = true;
        }
        if !any {
            // As Ceph: an empty file creates the object.
            pool.append(words[0].clone(), Bytes::new()).await.with_context(context)?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// A bar for a person; nothing where there is none to see it.
    fn bar(&self, length: Option<u64>) -> ProgressBar {
        let target = match self.options.no_progress {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let known = "{bytes:>10} of {total_bytes}  {wide_bar}  {bytes_per_sec}  {eta} left";
        let unknown = "{bytes:>10}  {spinner}  {bytes_per_sec}";
        let style = ProgressStyle::with_template(if length.is_some() { known } else { unknown });
        let bar = ProgressBar::with_draw_target(length, target);
        bar.with_style(style.expect("the template is correct"))
    }
}

/// A file on its way into an object.
struct Put<'a> {
    pool: &'a Pool,
    object: &'a ByteString,
    at: u64,
    replace: bool,
    under_way: VecDeque<(Operation, u64)>,
    bar: ProgressBar,
}

impl Put<'_> {
    /// Sends a block; waits for the first of those under way if there are enough. They take effect in
    /// their order.
    async fn block(&mut self, budget: Budget, block: Bytes) -> Result<()> {
        let length = block.len() as u64;
        let end = self.at.checked_add(length).context("an object ends before 2^64 bytes")?;
        let mut op = WriteOp::new();
        match std::mem::take(&mut self.replace) {
            true => op.write_full(block),
            false => op.write(self.at, block),
        };
        let change = self.pool.operate_within(budget, self.object.clone(), op);
        self.at = end;
        self.under_way.push_back((change, length));
        if self.under_way.len() >= WINDOW {
            self.settle_one().await?;
        }
        Ok(())
    }

    /// Of an empty file: an empty object, or one with nothing but a hole.
    async fn nothing(&mut self) -> Result<()> {
        let mut op = WriteOp::new();
        op.write_full(Bytes::new());
        if self.at > 0 {
            op.truncate(self.at);
        }
        let done = self.pool.operate(self.object.clone(), op).await;
        done.map(drop).map_err(|error| explain(self.pool, error)).with_context(|| self.context())
    }

    async fn settle_one(&mut self) -> Result<()> {
        if let Some((change, length)) = self.under_way.pop_front() {
            change
                .await
                .map_err(|error| explain(self.pool, error))
                .with_context(|| self.context())?;
            self.bar.inc(length);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            self.settle_one().await?;
        }
        self.bar.finish_and_clear();
        Ok(())
    }

    fn context(&self) -> String {
        format!("error putting {}", named(self.pool, self.object))
    }
}

/// What can be done about errors of writing.
fn explain(pool: &Pool, error: Error) -> anyhow::Error {
    let full = || {
        let map = pool.cluster().objecter().map();
        map.flags.contains(MapFlags::FULL)
            || map.pool(pool.id()).is_some_and(|pool| pool.flags.contains(PoolFlags::FULL))
    };
    let advice = match error.errno() {
        Errno::EFBIG => {
            "an object of this size is more than the cluster's osd_max_object_size allows: \
             cut it into several"
        }
        Errno::EMSGSIZE => {
            "the operation is longer than the cluster's osd_max_write_size allows: \
             give a smaller --block-size"
        }
        Errno::ENOSPC | Errno::EDQUOT => "the cluster or the pool is full, or at its quota",
        Errno::ETIMEDOUT if full() => {
            "the cluster or the pool is full, or at its quota: what is written waits for room"
        }
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(advice)
}

/// The next block; `None` at the file's end.
fn read_block(file: &mut dyn Read, name: &ByteString, size: usize) -> Result<Option<Bytes>> {
    let mut block = Vec::with_capacity(size);
    let read = file.take(size as u64).read_to_end(&mut block);
    read.with_context(|| format!("error reading input file {name}"))?;
    Ok((!block.is_empty()).then(|| block.into()))
}

fn reader(name: &ByteString) -> Result<(Box<dyn Read>, Option<u64>)> {
    if *name == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let failed = || format!("error reading input file {name}");
    let file = File::open(path(name.clone())).with_context(failed)?;
    let length = file.metadata().with_context(failed)?;
    Ok((Box::new(file), length.is_file().then_some(length.len())))
}

fn writer(name: &ByteString) -> Result<Box<dyn Write>> {
    if *name == "-" {
        return Ok(Box::new(Stdout::lock()));
    }
    let file = File::create(path(name.clone()));
    Ok(Box::new(file.with_context(|| format!("failed to open file {name}"))?))
}
