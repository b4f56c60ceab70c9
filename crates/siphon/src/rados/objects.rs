//! Objects as a whole.
#![expect(clippy::disallowed_methods, reason = "a person's now")]

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use siphon_messages::osd::{AllocHintFlags, OsdFlags};
use siphon_rados::WriteOp;
use siphon_wire::types::Utime;

use super::args::Words;
use super::output::{local_time, prettify};
use super::{Session, named, number, say};

impl Session {
    pub(super) async fn stat(&self, words: Words, fractions: bool) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let answer = pool.stat(words[0].clone()).await;
        let stat = answer.with_context(|| format!("error stat-ing {}", named(&pool, &words[0])))?;
        if self.json().is_some() {
            let name = words[0].to_string();
            return self.show(&json!({
                "pool": pool.name().to_string(),
                "namespace": pool.namespace().to_string(),
                "name": name,
                "mtime": local_time(stat.mtime),
                "size": stat.size,
            }));
        }
        let nsec = if fractions { stat.mtime.nsec } else { 0 };
        let time = local_time(Utime { nsec, ..stat.mtime });
        say(&format!("{} mtime {time}, size {}\n", named(&pool, &words[0]), stat.size))
    }

    pub(super) async fn touch(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "SECONDS"], 1)?);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seconds = match words.get(1) {
            Some(word) => number(word, "timestamp")?,
            None => now(),
        };
        let Ok(seconds) = u32::try_from(seconds) else {
            bail!("Invalid value for timestamp: '{seconds}': Ceph's times end in 2106");
        };
        let mut op = WriteOp::new();
        op.create(false).set_mtime(Utime::new(seconds, 0));
        let done = pool.operate(words[0].clone(), op).await;
        done.with_context(|| format!("error touch-ing {}", named(&pool, &words[0]))).map(drop)
    }

    pub(super) async fn truncate(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "BYTES"], 2)?);
        let size: u64 = number(&words[1], "size")?;
        let done = pool.truncate(words[0].clone(), size).await;
        let context = || format!("error truncating oid {} to {size}", prettify(&words[0]));
        done.with_context(context).map(drop)
    }

    pub(super) async fn create(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let done = pool.create(words[0].clone(), true).await;
        done.with_context(|| format!("error creating {}", named(&pool, &words[0]))).map(drop)
    }

    pub(super) async fn rm(&self, words: Words) -> Result<()> {
        let pool = self.pool().await?;
        for object in self.names(words)? {
            let mut op = WriteOp::new();
            op.remove();
            if self.options.force_full {
                op.set_flags(OsdFlags::FULL_FORCE | OsdFlags::FULL_TRY);
            }
            let done = pool.operate(object.clone(), op).await;
            done.with_context(|| {
                let namespace = pool.namespace();
                let slash = if namespace.is_empty() { "" } else { "/" };
                format!("error removing {}>{namespace}{slash}{}", pool.name(), prettify(&object))
            })?;
        }
        Ok(())
    }

    pub(super) async fn set_alloc_hint(&self, words: Words) -> Result<()> {
        let pool = self.pool().await?;
        let words = self.words(words, &["OBJECT", "BYTES", "WRITE_BYTES"], 3)?;
        let (size, write) =
            (number(&words[1], "expected object size")?, number(&words[2], "expected write size")?);
        let mut op = WriteOp::new();
        op.set_alloc_hint(size, write, AllocHintFlags::NONE);
        let done = pool.operate(words[0].clone(), op).await;
        done.with_context(|| format!("error setting alloc-hint {}", named(&pool, &words[0])))
            .map(drop)
    }

    pub(super) async fn cp(&self, words: Words) -> Result<()> {
        let pool = self.pool().await?;
        let words = self.words(words, &["OBJECT", "TARGET"], 1)?;
        let options = &self.options;
        let target_name = options.target_pool.clone().unwrap_or_else(|| pool.name().clone());
        if words.len() < 2 && target_name == *pool.name() {
            bail!("cannot copy object into itself: name a target, or another --target-pool");
        }
        let opened = self.cluster.pool(target_name.clone()).await;
        let mut target_pool =
            opened.with_context(|| format!("error opening target pool {target_name}"))?;
        if let Some(key) = &options.target_locator {
            target_pool = target_pool.with_locator(key.clone());
        }
        if let Some(namespace) = &options.target_nspace {
            target_pool = target_pool.with_namespace(namespace.clone());
        }
        let target = words.get(1).unwrap_or(&words[0]).clone();
        let done = target_pool.copy_from(target.clone(), &pool, words[0].clone()).await;
        let names = || (named(&pool, &words[0]), named(&target_pool, &target));
        done.with_context(|| {
            let (from, to) = names();
            format!("error copying {from} => {to}")
        })
        .map(drop)
    }
}
