//! Pools as a whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, Result, bail};
use futures_util::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use siphon_messages::osd::{ListObject, OsdFlags};
use siphon_rados::{Pool, WriteOp};
use siphon_wire::types::{ByteString, Errno};

use super::output::{ByteU, Table, pretty};
use super::{Session, say};
use crate::exit::Stdout;

impl Session {
    pub(super) fn lspools(&self) -> Result<()> {
        let pools = self.cluster.pools();
        if self.json().is_some() {
            let pool =
                |(id, name): &(i64, ByteString)| json!({ "id": id, "name": name.to_string() });
            return self.show(&pools.iter().map(pool).collect());
        }
        pools.iter().try_for_each(|(_, name)| say(&format!("{name}\n")))
    }

    pub(super) async fn df(&self) -> Result<()> {
        let mut pools = self.cluster.pools();
        if let Some(name) = &self.options.pool {
            pools.retain(|(_, it)| it == name);
            if pools.is_empty() {
                bail!("error opening pool {name}: there is no such pool");
            }
        }
        pools.sort_by(|a, b| a.1.cmp(&b.1));
        let stats = self.cluster.pool_stats().await.context("error fetching pool stats")?;
        let total = self.cluster.stat().await.context("error getting total cluster usage")?;
        let known = |name: &ByteString| stats.get(name).cloned().unwrap_or_default();
        if self.json().is_some() {
            let pool = |(id, name): &(i64, ByteString)| {
                let usage = known(name);
                let (sum, store) = (&usage.stat.stats.sum, &usage.stat.store_stats);
                json!({
                    "name": name.to_string(),
                    "id": id,
                    "size_bytes": usage.bytes_used,
                    "size_kb": usage.bytes_used.div_ceil(1024),
                    "num_objects": sum.num_objects,
                    "num_object_clones": sum.num_object_clones,
                    "num_object_copies": sum.num_object_copies,
                    "num_objects_missing_on_primary": sum.num_objects_missing_on_primary,
                    "num_objects_unfound": sum.num_objects_unfound,
                    "num_objects_degraded": sum.num_objects_degraded,
                    "read_ops": sum.num_rd,
                    "read_bytes": bytes_of(sum.num_rd_kb),
                    "write_ops": sum.num_wr,
                    "write_bytes": bytes_of(sum.num_wr_kb),
                    "compress_bytes_used": store.data_compressed_allocated,
                    "compress_under_bytes": store.data_compressed_original,
                })
            };
            return self.show(&json!({
                "pools": pools.iter().map(pool).collect::<Vec<_>>(),
                "total_objects": total.num_objects,
                "total_used": total.kb_used,
                "total_avail": total.kb_avail,
                "total_space": total.kb,
            }));
        }
        let headings = [
            "POOL_NAME",
            "USED",
            "OBJECTS",
            "CLONES",
            "COPIES",
            "MISSING_ON_PRIMARY",
            "UNFOUND",
            "DEGRADED",
            "RD_OPS",
            "RD",
            "WR_OPS",
            "WR",
            "USED COMPR",
            "UNDER COMPR",
        ];
        let mut table = Table::new(&headings, 1);
        for (_, name) in &pools {
            let usage = known(name);
            let (sum, store) = (&usage.stat.stats.sum, &usage.stat.store_stats);
            let bytes = |number: u64| ByteU(number).to_string();
            let stored = |number: i64| bytes(u64::try_from(number).unwrap_or(0));
            table.row(vec![
                name.to_string(),
                bytes(usage.bytes_used),
                sum.num_objects.to_string(),
                sum.num_object_clones.to_string(),
                sum.num_object_copies.to_string(),
                sum.num_objects_missing_on_primary.to_string(),
                sum.num_objects_unfound.to_string(),
                sum.num_objects_degraded.to_string(),
                sum.num_rd.to_string(),
                bytes(bytes_of(sum.num_rd_kb)),
                sum.num_wr.to_string(),
                bytes(bytes_of(sum.num_wr_kb)),
                stored(store.data_compressed_allocated),
                stored(store.data_compressed_original),
            ]);
        }
        let kib = |kib: u64| ByteU(kib << 10);
        say(&format!(
            "{table}\ntotal_objects    {}\ntotal_used       {}\ntotal_avail      {}\n\
             total_space      {}\n",
            total.num_objects,
            kib(total.kb_used),
            kib(total.kb_avail),
            kib(total.kb)
        ))
    }

    pub(super) async fn ls(&self, stdout: Option<OsString>) -> Result<()> {
        let options = &self.options;
        if stdout.is_some_and(|word| word != "-") {
            bail!("Please use --output to specify the output file name");
        }
        let all = options.all && !options.default && options.namespace.is_none();
        let mut pool = match (&options.pool, options.pgid) {
            (Some(_), _) => self.pool().await?,
            (None, Some(pg)) => self.cluster.pool_by_id(pg.pool.cast_signed())?,
            (None, None) => bail!("which pool? name it with -p, or a placement group with --pgid"),
        };
        if all {
            pool = pool.with_all_namespaces();
        }
        let mut objects = match options.pgid {
            Some(pg) if pg.pool.cast_signed() != pool.id() => {
                bail!("{pg} is not of pool {}", pool.name())
            }
            Some(pg) => pool.objects_of_pg(pg.seed)?,
            None => pool.objects(),
        };
        let mut out = self.out()?;
        let json = self.json().is_some();
        let (mut first, is_pretty) = (true, self.json() == Some(true));
        if json {
            out.write_all(b"[")?;
        }
        while let Some(object) = objects.try_next().await? {
            if json {
                out.write_all(if first { b"" } else { b"," })?;
                let object = to_json(&object);
                match is_pretty {
                    true => write!(out, "\n    {}", pretty(&object).replace('\n', "\n    "))?,
                    false => write!(out, "{object}")?,
                }
            } else {
                write_line(&mut *out, &object, all)?;
            }
            first = false;
        }
        if json {
            out.write_all(if is_pretty && !first { b"\n]\n" } else { b"]\n" })?;
        }
        out.flush()?;
        Ok(())
    }

    /// Standard output, or the file of `--output`.
    pub(super) fn out(&self) -> Result<Box<dyn Write>> {
        Ok(match &self.options.output {
            None => Box::new(BufWriter::new(Stdout::lock())),
            Some(path) => {
                let file = File::create(path);
                let file = file.with_context(|| format!("cannot write {}", path.display()))?;
                Box::new(BufWriter::new(file))
            }
        })
    }

    pub(super) async fn cppool(
        &self,
        source: ByteString,
        target: ByteString,
        although: bool,
    ) -> Result<()> {
        if source == target {
            bail!("cannot copy pool into itself");
        }
        let open = async |name: &ByteString, which| {
            let pool = self.cluster.pool(name.clone()).await;
            pool.with_context(|| format!("cannot open {which} pool: {name}"))
        };
        let (from, to) = (open(&source, "source").await?, open(&target, "target").await?);
        eprintln!(
            "WARNING: pool copy does not preserve user_version, which some apps may rely on."
        );
        if from.has_selfmanaged_snaps()? && !although {
            bail!(
                "pool {source} has snapshots that an application manages, which a copy would not \
                 have; to copy without them, say --yes-i-really-mean-it"
            );
        }
        let mut objects = from.clone().with_all_namespaces().objects();
        while let Some(object) = objects.try_next().await? {
            let from = place(&from, &object);
            let to = to.clone().with_namespace(object.nspace.clone());
            let name = name_of(&object);
            let locator = match object.locator.is_empty() {
                true => String::new(),
                false => format!("(@{})", object.locator),
            };
            say(&format!("{source}:{name}{locator} => {target}:{name}\n"))?;
            let done = to.copy_from(object.oid.clone(), &from, object.oid.clone()).await;
            done.with_context(|| format!("error copying object {name}"))?;
        }
        say(&format!("successfully copied pool {source}\n"))
    }

    pub(super) async fn purge(&self, name: ByteString, sure: bool) -> Result<()> {
        if !sure {
            bail!(
                "this removes all objects of pool {name} for good; to have it done, say \
                 --yes-i-really-really-mean-it"
            );
        }
        let pool = self.cluster.pool(name.clone()).await;
        let pool = pool.with_context(|| format!("error opening pool {name}"))?;
        let all = pool.clone().with_all_namespaces();
        let removed = self.remove_all(&all, |_| true).await;
        let removed = removed.with_context(|| format!("pool {name} could not be purged"))?;
        say(&format!("Removed {removed} object{}\n", if removed == 1 { "" } else { "s" }))?;
        say(&format!("successfully purged pool {name}\n"))
    }

    /// Removes the listed objects that are chosen, many at once; returns how many there were.
    pub(super) async fn remove_all(
        &self,
        pool: &Pool,
        chosen: impl Fn(&ListObject) -> bool,
    ) -> Result<u64> {
        let mut objects = pool.objects();
        let mut under_way = FuturesUnordered::new();
        let mut removed = 0;
        loop {
            let room = under_way.len() < self.options.concurrent_ios as usize;
            let next = if room { objects.try_next().await? } else { None };
            match next {
                Some(object) if !chosen(&object) => {}
                Some(object) => {
                    let mut op = WriteOp::new();
                    op.remove().set_flags(OsdFlags::FULL_TRY);
                    under_way.push(place(pool, &object).operate(object.oid, op));
                }
                None => match under_way.next().await {
                    Some(Ok(_)) => removed += 1,
                    Some(Err(error)) if error.errno() == Errno::ENOENT => {} // gone by itself
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(removed),
                },
            }
        }
    }
}

/// KiB as bytes; none are less than none.
fn bytes_of(kib: i64) -> u64 {
    u64::try_from(kib).unwrap_or(0) << 10
}

/// The pool's handle that reaches a listed object.
fn place(pool: &Pool, object: &ListObject) -> Pool {
    let pool = pool.clone().with_namespace(object.nspace.clone());
    pool.with_locator(object.locator.clone())
}

fn name_of(object: &ListObject) -> String {
    let slash = if object.nspace.is_empty() { "" } else { "/" };
    format!("{}{slash}{}", object.nspace, object.oid)
}

/// A name as it is, whatever bytes it has.
fn write_line(out: &mut dyn Write, object: &ListObject, namespaces: bool) -> io::Result<()> {
    if namespaces {
        out.write_all(&object.nspace)?;
        out.write_all(b"\t")?;
    }
    out.write_all(&object.oid)?;
    if !object.locator.is_empty() {
        out.write_all(b"\t")?;
        out.write_all(&object.locator)?;
    }
    out.write_all(b"\n")
}

fn to_json(object: &ListObject) -> Value {
    let mut value = json!({
        "namespace": object.nspace.to_string(),
        "name": object.oid.to_string(),
    });
    if !object.locator.is_empty() {
        value["locator"] = object.locator.to_string().into();
    }
    value
}
