//! Snapshots of pools.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use siphon_messages::osd::CloneInfo;
use siphon_rados::PoolSnap;
use siphon_wire::types::{ByteString, SnapId};

use super::args::Words;
use super::output::{local_time, prettify, snap_time};
use super::{Session, named, say};

impl Session {
    pub(super) async fn lssnap(&self) -> Result<()> {
        let snaps = self.pool().await?.snaps()?;
        if self.json().is_some() {
            let snaps = snaps.iter().map(|snap| {
                json!({
                    "id": snap.id.0,
                    "name": snap.name.to_string(),
                    "stamp": local_time(snap.stamp),
                })
            });
            return self.show(&Value::Array(snaps.collect()));
        }
        for snap in &snaps {
            say(&format!("{}\t{}\t{}\n", snap.id.0, snap.name, snap_time(snap.stamp)))?;
        }
        say(&format!("{} snaps\n", snaps.len()))
    }

    pub(super) async fn mksnap(&self, snap: ByteString) -> Result<()> {
        let pool = self.pool().await?;
        let done = pool.create_snap(snap.clone()).await;
        done.with_context(|| format!("error creating pool {} snapshot {snap}", pool.name()))?;
        say(&format!("created pool {} snap {snap}\n", pool.name()))
    }

    pub(super) async fn rmsnap(&self, snap: ByteString) -> Result<()> {
        let pool = self.pool().await?;
        let done = pool.remove_snap(snap.clone()).await;
        done.with_context(|| format!("error removing pool {} snapshot {snap}", pool.name()))?;
        say(&format!("removed pool {} snap {snap}\n", pool.name()))
    }

    pub(super) async fn rollback(&self, object: ByteString, snap: ByteString) -> Result<()> {
        let pool = self.pool().await?;
        let context = || format!("error rolling back pool {} to snapshot {snap}", pool.name());
        let id = pool.snap_by_name(snap.clone()).with_context(context)?;
        pool.rollback(object, id).await.with_context(context)?;
        say(&format!("rolled back pool {} to snapshot {snap}\n", pool.name()))
    }

    pub(super) async fn listsnaps(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let answer = pool.list_snaps(words[0].clone()).await;
        let found = answer
            .with_context(|| format!("error listing snap shots {}", named(&pool, &words[0])))?;
        let (names, seq) = (pool.snaps()?, found.seq.0);
        if self.json().is_some() {
            let clones: Vec<_> = found.clones.iter().map(|it| to_json(it, &names)).collect();
            return self
                .show(&json!({ "name": words[0].to_string(), "seq": seq, "clones": clones }));
        }
        let with_names = if self.options.pretty_format { &names[..] } else { &[] };
        let object = prettify(&words[0]);
        let lines: String = found.clones.iter().map(|it| line(it, with_names)).collect();
        say(&format!("{object} (seq:{seq}):\ncloneid\tsnaps\tsize\toverlap\n{lines}\n"))
    }
}

fn name_of(snap: SnapId, names: &[PoolSnap]) -> Option<&ByteString> {
    names.iter().find(|info| info.id == snap).map(|info| &info.name)
}

fn line(clone: &CloneInfo, names: &[PoolSnap]) -> String {
    let snap = |snap: &SnapId| match name_of(*snap, names) {
        Some(name) => format!("{name}({})", snap.0),
        None => snap.0.to_string(),
    };
    let snaps: Vec<_> = clone.snaps.iter().map(snap).collect();
    let snaps = if snaps.is_empty() { "-".to_owned() } else { snaps.join(",") };
    if clone.cloneid == SnapId::HEAD {
        return format!("head\t{snaps}\t{}", clone.size);
    }
    let overlap: Vec<_> = clone.overlap.iter().map(|(at, len)| format!("{at}~{len}")).collect();
    format!("{}\t{snaps}\t{}\t[{}]\n", clone.cloneid.0, clone.size, overlap.join(","))
}

fn to_json(clone: &CloneInfo, names: &[PoolSnap]) -> Value {
    let snap = |snap: &SnapId| match name_of(*snap, names) {
        Some(name) => json!({ "id": snap.0, "name": name.to_string() }),
        None => json!({ "id": snap.0 }),
    };
    let snaps: Vec<_> = clone.snaps.iter().map(snap).collect();
    let head = clone.cloneid == SnapId::HEAD;
    let id = if head { json!("head") } else { json!(clone.cloneid.0) };
    let mut value = json!({ "id": id, "snapshots": snaps, "size": clone.size });
    if !head {
        let section = |(at, len): &(u64, u64)| json!({ "start": at, "length": len });
        value["overlaps"] = clone.overlap.iter().map(section).collect();
    }
    value
}
