//! What one step does, without building an operation for it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use siphon_messages::cls::lock::LockInfo;
use siphon_messages::osd::{
    Checksum, Checksums, ObjListSnapResponse, ObjectStat, OmapPart, OsdOpFlags, SparseData,
    WatchItem,
};
use siphon_wire::buf::Rope;
use siphon_wire::types::{ByteString, EntityName, SnapId, Version};

use crate::{Error, Lock, Operation, Out, Pool, ReadOp, WriteOp};

macro_rules! reads {
    ($(
        $(#[$attr:meta])*
        $name:ident($($arg:ident: $ty:ty),*) -> $output:ty;
    )*) => {
        impl Pool {$(
            $(#[$attr])*
            ///
            /// # Errors
            /// The OSD refuses; `ENOENT` if there is no such object.
            pub fn $name(
                &self,
                object: impl Into<ByteString>,
                $($arg: $ty),*
            ) -> Answer<$output> {
                let mut op = ReadOp::new();
                let out = op.$name($($arg),*);
                Answer { operation: self.operate(object, op), out }
            }
        )*}
    };
}

macro_rules! writes {
    ($(
        $(#[$attr:meta])*
        $name:ident($($arg:ident: $ty:ty),*);
    )*) => {
        impl Pool {$(
            $(#[$attr])*
            ///
            /// # Errors
            /// The OSD refuses.
            pub fn $name(
                &self,
                object: impl Into<ByteString>,
                $($arg: $ty),*
            ) -> Change {
                let mut op = WriteOp::new();
                op.$name($($arg),*);
                Change { operation: self.operate(object, op) }
            }
        )*}
    };
}

reads! {
    /// The object's length and time.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// println!("{} bytes", pool.stat("first").await?.size);
    /// # Ok(())
    /// # }
    /// ```
    stat() -> ObjectStat;
    /// Up to `length` bytes from `offset` on; fewer at the object's end. Length 0 means all. The bytes
    /// are pieces of what arrived, and were not copied.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let data = pool.read("first", 0, 4096).await?.to_bytes();
    /// # Ok(())
    /// # }
    /// ```
    read(offset: u64, length: u64) -> Rope;
    /// What was written of `length` bytes from `offset` on.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// for (offset, length) in pool.sparse_read("image", 0, 4 << 20).await?.extents {
    ///     println!("{offset}~{length}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    sparse_read(offset: u64, length: u64) -> SparseData;
    /// Sums, computed by the OSD, of chunks of `chunk_size` bytes (0: of all in one) of `length` bytes
    /// from `offset` on (both 0: of the whole object).
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use siphon_rados::types::Checksum;
    /// let sum = pool.checksum("first", Checksum::Crc32c(!0), 0, 0, 0).await?.values[0];
    /// # Ok(())
    /// # }
    /// ```
    checksum(kind: Checksum, offset: u64, length: u64, chunk_size: u32) -> Checksums;
    /// An attribute; `ENODATA` if there is none of this name.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let owner = pool.xattr("first", "owner").await?;
    /// # Ok(())
    /// # }
    /// ```
    xattr(name: impl Into<ByteString>) -> Bytes;
    /// All attributes.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// for (name, value) in pool.xattrs("first").await? {
    ///     println!("{name}: {} bytes", value.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    xattrs() -> BTreeMap<ByteString, Bytes>;
    /// Names of entries of the object's map: up to `max` of those behind `after`, in their order.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let (mut after, mut more) = ("".into(), true);
    /// while more {
    ///     let part = pool.omap_keys("index", after, 1000).await?;
    ///     after = part.entries.last().cloned().unwrap_or_default();
    ///     more = part.more;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    omap_keys(after: impl Into<ByteString>, max: u64) -> OmapPart<BTreeSet<ByteString>>;
    /// Entries of the object's map: up to `max` of those behind `after` whose names begin with
    /// `prefix`.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let part = pool.omap_vals("index", "", "user.", 1000).await?;
    /// # Ok(())
    /// # }
    /// ```
    omap_vals(after: impl Into<ByteString>, prefix: impl Into<ByteString>, max: u64)
        -> OmapPart<BTreeMap<ByteString, Bytes>>;
    /// The entries of the object's map with these names, as far as there are.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use std::collections::BTreeSet;
    /// let entries = pool.omap_vals_by_keys("index", &BTreeSet::from(["a".into()])).await?;
    /// # Ok(())
    /// # }
    /// ```
    omap_vals_by_keys(keys: &BTreeSet<ByteString>) -> BTreeMap<ByteString, Bytes>;
    /// What stands before the object's map.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let header = pool.omap_header("index").await?.to_bytes();
    /// # Ok(())
    /// # }
    /// ```
    omap_header() -> Rope;
    /// Who watches the object.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// for watcher in pool.list_watchers("first").await? {
    ///     println!("{} at {}", watcher.name, watcher.addr);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    list_watchers() -> Vec<WatchItem>;
    /// Who has a lock; nobody, if there is none of this name.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// for (id, info) in pool.lock_info("first", "leader").await?.lockers {
    ///     println!("{} at {}", id.locker, info.addr);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    lock_info(name: impl Into<ByteString>) -> LockInfo;
    /// The names of the object's locks.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let names = pool.list_locks("first").await?;
    /// # Ok(())
    /// # }
    /// ```
    list_locks() -> Vec<ByteString>;
}

writes! {
    /// Writes `data` at `offset`; what is between the object's end and there becomes zero.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.write("first", 4096, bytes::Bytes::from_static(b"second page")).await?;
    /// # Ok(())
    /// # }
    /// ```
    write(offset: u64, data: impl Into<Rope>);
    /// Makes `data` all that the object has.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let version = pool.write_full("first", bytes::Bytes::from_static(b"content")).await?;
    /// # Ok(())
    /// # }
    /// ```
    write_full(data: impl Into<Rope>);
    /// Writes `data` behind the object's end.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.append("log", bytes::Bytes::from_static(b"a line\n")).await?;
    /// # Ok(())
    /// # }
    /// ```
    append(data: impl Into<Rope>);
    /// Fills `length` bytes from `offset` on with copies of `data`.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.write_same("first", 0, 1 << 20, bytes::Bytes::from_static(&[0xff; 4096])).await?;
    /// # Ok(())
    /// # }
    /// ```
    write_same(offset: u64, length: u64, data: impl Into<Rope>);
    /// Makes `length` bytes from `offset` on zero, without making the object longer.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.zero("first", 0, 4096).await?;
    /// # Ok(())
    /// # }
    /// ```
    zero(offset: u64, length: u64);
    /// Makes the object `size` bytes long, of which new ones are zero.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.truncate("first", 0).await?;
    /// # Ok(())
    /// # }
    /// ```
    truncate(size: u64);
    /// Creates the object. If `exclusive`, the error is `EEXIST` if it is there.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.create("first", true).await?;
    /// # Ok(())
    /// # }
    /// ```
    create(exclusive: bool);
    /// Removes the object; `ENOENT` if there is none.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.remove("first").await?;
    /// # Ok(())
    /// # }
    /// ```
    remove();
    /// Makes the object what it was at `snap`.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.rollback("first", pool.snap_by_name("yesterday")?).await?;
    /// # Ok(())
    /// # }
    /// ```
    rollback(snap: SnapId);
    /// Sets an attribute.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.set_xattr("first", "owner", bytes::Bytes::from_static(b"me")).await?;
    /// # Ok(())
    /// # }
    /// ```
    set_xattr(name: impl Into<ByteString>, value: impl Into<Rope>);
    /// Removes an attribute.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.rm_xattr("first", "owner").await?;
    /// # Ok(())
    /// # }
    /// ```
    rm_xattr(name: impl Into<ByteString>);
    /// Sets entries of the object's map.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use bytes::Bytes;
    /// use std::collections::BTreeMap;
    /// let entries = BTreeMap::from([("key".into(), Bytes::from_static(b"value"))]);
    /// pool.omap_set("index", &entries).await?;
    /// # Ok(())
    /// # }
    /// ```
    omap_set(entries: &BTreeMap<ByteString, Bytes>);
    /// Sets what stands before the object's map.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.omap_set_header("index", bytes::Bytes::from_static(b"version 1")).await?;
    /// # Ok(())
    /// # }
    /// ```
    omap_set_header(header: impl Into<Rope>);
    /// Removes entries of the object's map.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use std::collections::BTreeSet;
    /// pool.omap_rm_keys("index", &BTreeSet::from(["key".into()])).await?;
    /// # Ok(())
    /// # }
    /// ```
    omap_rm_keys(keys: &BTreeSet<ByteString>);
    /// Removes the entries of the object's map from `begin` on, and before `end`.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.omap_rm_range("index", "a", "b").await?;
    /// # Ok(())
    /// # }
    /// ```
    omap_rm_range(begin: impl Into<ByteString>, end: impl Into<ByteString>);
    /// Removes the object's map, and what stands before it.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.omap_clear("index").await?;
    /// # Ok(())
    /// # }
    /// ```
    omap_clear();
    /// Takes a lock; `EBUSY` if another has it, `EEXIST` if this owner has it.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use siphon_rados::Lock;
    /// pool.lock("first", &Lock::exclusive("leader")).await?;
    /// # Ok(())
    /// # }
    /// ```
    lock(lock: &Lock);
    /// Lets a lock go; `ENOENT` if this owner does not have it.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// pool.unlock("first", "leader", "").await?;
    /// # Ok(())
    /// # }
    /// ```
    unlock(name: impl Into<ByteString>, cookie: impl Into<ByteString>);
    /// Takes a lock from another client's owner; `ENOENT` if that does not have it.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// for (id, _) in pool.lock_info("first", "leader").await?.lockers {
    ///     pool.break_lock("first", "leader", id.locker, id.cookie).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    break_lock(name: impl Into<ByteString>, locker: EntityName, cookie: impl Into<ByteString>);
}

impl Pool {
    /// Replaces an object by a copy of another, which its OSD fetches.
    ///
    /// # Errors
    /// The OSD refuses; `ENOENT` if there is no such source.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let archive = pool.cluster().pool("archive").await?;
    /// archive.copy_from("copy", &pool, "first").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn copy_from(
        &self,
        object: impl Into<ByteString>,
        source_pool: &Self,
        source: impl Into<ByteString>,
    ) -> Change {
        let once = OsdOpFlags::FADVISE_SEQUENTIAL | OsdOpFlags::FADVISE_NOCACHE;
        let (place, snap) = (source_pool.locator(), source_pool.snap());
        let mut op = WriteOp::new();
        op.copy_from(source, &place, snap, Version(0), once);
        op.hint(OsdOpFlags::FADVISE_SEQUENTIAL | OsdOpFlags::FADVISE_DONTNEED);
        Change { operation: self.operate(object, op) }
    }

    /// The object's states at snapshots, of the live object too.
    ///
    /// # Errors
    /// The OSD refuses; `ENOENT` if there is neither the object nor a snapshot of it.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// for state in pool.list_snaps("first").await?.clones {
    ///     println!("{}: {} bytes", state.cloneid, state.size);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list_snaps(&self, object: impl Into<ByteString>) -> Answer<ObjListSnapResponse> {
        let mut op = ReadOp::new();
        let out = op.list_snaps();
        let all = self.clone().at_snap(SnapId::SNAPDIR);
        Answer { operation: all.operate(object, op), out }
    }

    /// Calls a method of an object class that reads.
    ///
    /// # Errors
    /// The method fails; there is no such class (`EPERM`) or no such method of it (`EOPNOTSUPP`).
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let input = bytes::Bytes::from_static(b"world");
    /// let greeting = pool.exec("first", "hello", "say_hello", input).await?.to_bytes();
    /// # Ok(())
    /// # }
    /// ```
    pub fn exec(
        &self,
        object: impl Into<ByteString>,
        class: &str,
        method: &str,
        input: impl Into<Rope>,
    ) -> Answer<Rope> {
        let mut op = ReadOp::new();
        let out = op.exec(class, method, input);
        Answer { operation: self.operate(object, op), out }
    }
}

/// A reading step under way; a future of what it reads.
///
/// ```no_run
/// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
/// let (first, second) = (pool.read("first", 0, 0), pool.read("second", 0, 0));
/// // Both are under way.
/// let both = [first.await?, second.await?];
/// # Ok(())
/// # }
/// ```
#[must_use = "whether it succeeded is known when it is awaited"]
#[derive(Debug)]
pub struct Answer<T> {
    operation: Operation,
    out: Out<T>,
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outputs = ready!(Pin::new(&mut self.operation).poll(context))?;
        Poll::Ready(outputs.get(self.out))
    }
}

/// A writing step under way; a future of the object's version after it.
///
/// ```no_run
/// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
/// let change = pool.append("log", bytes::Bytes::from_static(b"a line\n"));
/// println!("now at {:?}", change.await?);
/// # Ok(())
/// # }
/// ```
#[must_use = "whether it succeeded is known when it is awaited"]
#[derive(Debug)]
pub struct Change {
    operation: Operation,
}

impl Future for Change {
    type Output = Result<Version, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.operation).poll(context).map_ok(|outputs| outputs.version())
    }
}
