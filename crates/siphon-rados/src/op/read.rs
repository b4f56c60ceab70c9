use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use siphon_messages::osd::{
    Checksum, Checksums, ObjListSnapResponse, ObjListWatchResponse, ObjectStat, OmapPart, OsdOp,
    SparseData, WatchItem,
};
use siphon_wire::Decoder;
use siphon_wire::buf::Rope;
use siphon_wire::types::ByteString;

use super::output::value;
use super::{InvalidOp, Out, ReadOp};

impl ReadOp {
    /// The object's length and time.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let stat = op.stat();
    /// # let _ = stat;
    /// ```
    pub fn stat(&mut self) -> Out<ObjectStat> {
        self.promise(OsdOp::stat(), value)
    }

    /// Up to `length` bytes from `offset` on; fewer at the object's end. Length 0 means all.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let (head, tail) = (op.read(0, 512), op.read(1 << 20, 512));
    /// # let _ = (head, tail);
    /// ```
    pub fn read(&mut self, offset: u64, length: u64) -> Out<Rope> {
        self.promise(OsdOp::read(offset, length), |op| Ok(op.data.clone()))
    }

    /// What was written of `length` bytes from `offset` on: extents, and their bytes.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let sparse = op.sparse_read(0, 4 << 20);
    /// # let _ = sparse;
    /// ```
    pub fn sparse_read(&mut self, offset: u64, length: u64) -> Out<SparseData> {
        self.promise(OsdOp::sparse_read(offset, length), value)
    }

    /// Sums, computed by the OSD, of chunks of `chunk_size` bytes (0: of all in one) of `length` bytes
    /// from `offset` on (both 0: of the whole object).
    ///
    /// ```
    /// use siphon_rados::types::Checksum;
    /// let mut op = siphon_rados::ReadOp::new();
    /// let sums = op.checksum(Checksum::Crc32c(!0), 0, 8192, 4096);
    /// # let _ = sums;
    /// ```
    pub fn checksum(
        &mut self,
        kind: Checksum,
        offset: u64,
        length: u64,
        chunk_size: u32,
    ) -> Out<Checksums> {
        let whole = |chunk: u32| length != 0 && length.is_multiple_of(chunk.into());
        if chunk_size != 0 && !whole(chunk_size) {
            self.reject(InvalidOp::Chunks { length, chunk_size });
        }
        let op = OsdOp::checksum(kind, offset, length, chunk_size);
        match kind {
            Checksum::XxHash64(_) => self.promise(op, sums::<8>),
            Checksum::XxHash32(_) | Checksum::Crc32c(_) => self.promise(op, sums::<4>),
        }
    }

    /// An attribute; `ENODATA` if there is none of this name.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let owner = op.xattr("owner");
    /// # let _ = owner;
    /// ```
    pub fn xattr(&mut self, name: impl Into<ByteString>) -> Out<Bytes> {
        self.promise(OsdOp::getxattr(&name.into()), |op| Ok(op.data.to_bytes()))
    }

    /// All attributes.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let attributes = op.xattrs();
    /// # let _ = attributes;
    /// ```
    pub fn xattrs(&mut self) -> Out<BTreeMap<ByteString, Bytes>> {
        self.promise(OsdOp::getxattrs(), value)
    }

    /// Names of entries of the object's map: up to `max` of those behind `after`, in their order. An
    /// OSD may give fewer, and says whether there are more.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let names = op.omap_keys("", 1000);
    /// # let _ = names;
    /// ```
    pub fn omap_keys(
        &mut self,
        after: impl Into<ByteString>,
        max: u64,
    ) -> Out<OmapPart<BTreeSet<ByteString>>> {
        self.promise(OsdOp::omap_get_keys(&after.into(), max), value)
    }

    /// Entries of the object's map: up to `max` of those behind `after` whose names begin with
    /// `prefix`. An OSD may give fewer, and says whether there are more.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let entries = op.omap_vals("user.", "user.", 1000);
    /// # let _ = entries;
    /// ```
    pub fn omap_vals(
        &mut self,
        after: impl Into<ByteString>,
        prefix: impl Into<ByteString>,
        max: u64,
    ) -> Out<OmapPart<BTreeMap<ByteString, Bytes>>> {
        self.promise(OsdOp::omap_get_vals(&after.into(), &prefix.into(), max), value)
    }

    /// The entries of the object's map with these names, as far as there are.
    ///
    /// ```
    /// use std::collections::BTreeSet;
    /// let mut op = siphon_rados::ReadOp::new();
    /// let entries = op.omap_vals_by_keys(&BTreeSet::from(["a".into(), "b".into()]));
    /// # let _ = entries;
    /// ```
    pub fn omap_vals_by_keys(
        &mut self,
        keys: &BTreeSet<ByteString>,
    ) -> Out<BTreeMap<ByteString, Bytes>> {
        self.promise(OsdOp::omap_get_vals_by_keys(keys), value)
    }

    /// What stands before the object's map.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let header = op.omap_header();
    /// # let _ = header;
    /// ```
    pub fn omap_header(&mut self) -> Out<Rope> {
        self.promise(OsdOp::omap_get_header(), |op| Ok(op.data.clone()))
    }

    /// Who watches the object.
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let watchers = op.list_watchers();
    /// # let _ = watchers;
    /// ```
    pub fn list_watchers(&mut self) -> Out<Vec<WatchItem>> {
        self.promise(OsdOp::list_watchers(), |op| {
            value::<ObjListWatchResponse>(op).map(|answer| answer.entries)
        })
    }

    /// The object's states at snapshots. Ask for them with a pool that reads
    /// [`SnapId::SNAPDIR`](siphon_rados::types::SnapId::SNAPDIR).
    ///
    /// ```
    /// let mut op = siphon_rados::ReadOp::new();
    /// let states = op.list_snaps();
    /// # let _ = states;
    /// ```
    pub fn list_snaps(&mut self) -> Out<ObjListSnapResponse> {
        self.promise(OsdOp::list_snaps(), value)
    }
}

fn sums<const WIDTH: usize>(op: &OsdOp) -> Result<Checksums, siphon_wire::DecodeError> {
    Checksums::decode(&mut Decoder::new(&op.data.to_bytes()), WIDTH)
}
