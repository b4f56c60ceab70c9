//! Writes objects by the crate `rados`, or reads those of a `siphon rados bench` that wrote, for some seconds and with
//! some operations in flight; prints how many there were, and how many a second.
//!
//! Each operation in flight is a task of tokio that does one after the other, as in `siphon rados bench`. What is
//! written is one buffer that all share, with no hint beside it, and what is read is compared in its length only: a
//! little less work than that of the benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rados::{Client, IoCtx};

const USAGE: &str =
    "usage: crate-rados CONF POOL SECONDS DEPTH BYTES THREADS write PREFIX | rand PREFIX COUNT";

struct Run {
    pool: IoCtx,
    bytes: u64,
    /// Objects that there are, for reading.
    count: Option<u64>,
    prefix: String,
    next: AtomicU64,
    until: Instant,
}

impl Run {
    async fn go_on(&self) -> Result<u64> {
        let content = Bytes::from(vec![b'z'; self.bytes as usize]);
        let mut done = 0;
        while Instant::now() < self.until {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            match self.count {
                None => {
                    let object = format!("{}{number}", self.prefix);
                    self.pool.write(&object, 0, content.clone()).await?;
                }
                Some(count) => {
                    // As good as drawn: the golden section of 2^64 spreads numbers.
                    let drawn = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                    let object = format!("{}{}", self.prefix, drawn % count);
                    let read = self.pool.read(&object, 0, self.bytes).await?;
                    ensure!(read.data.len() as u64 == self.bytes, "{object} is too short");
                }
            }
            done += 1;
        }
        Ok(done)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [conf, pool, seconds, depth, bytes, threads, verb, prefix, rest @ ..] = &args[..] else {
        bail!(USAGE)
    };
    let count = match (verb.as_str(), rest) {
        ("write", []) => None,
        ("rand", [count]) => Some(count.parse::<u64>().context(USAGE)?.max(1)),
        _ => bail!(USAGE),
    };
    let (seconds, depth) =
        (seconds.parse().context(USAGE)?, depth.parse::<usize>().context(USAGE)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.parse().context(USAGE)?)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::builder().config_file(conf).build().await?;
        let pool = client.open_pool(pool).await?;
        // The first operations, if there are several at once, each open a session with the OSD; all but one
        // wait for ever then (0.1.4). So one goes alone; whether there is such an object does not matter.
        let _ = pool.stat("first").await;
        let started = Instant::now();
        let run = Arc::new(Run {
            pool,
            bytes: bytes.parse().context(USAGE)?,
            count,
            prefix: prefix.clone(),
            next: AtomicU64::new(0),
            until: started + Duration::from_secs(seconds),
        });
        let begin = |_| {
            let run = Arc::clone(&run);
            tokio::spawn(async move { run.go_on().await })
        };
        let tasks: Vec<_> = (0..depth).map(begin).collect();
        let mut done = 0;
        for task in tasks {
            done += task.await??;
        }
        let rate = done as f64 / started.elapsed().as_secs_f64();
        println!("{{\"total\": {done}, \"average_iops\": {rate}}}");
        client.shutdown().await?;
        Ok(())
    })
}
