use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use siphon_messages::osd::{AllocHintFlags, OsdFlags, OsdOp, OsdOpFlags};
use siphon_wire::buf::Rope;
use siphon_wire::types::{ByteString, ObjectLocator, SnapId, Utime, Version};

use super::{InvalidOp, WriteOp};

impl WriteOp {
    /// Writes `data` at `offset`; what is between the object's end and there becomes zero.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.write(4096, bytes::Bytes::from_static(b"second page"));
    /// ```
    pub fn write(&mut self, offset: u64, data: impl Into<Rope>) -> &mut Self {
        self.push(OsdOp::write(offset, data.into()))
    }

    /// Makes `data` all that the object has.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.write_full(bytes::Bytes::from_static(b"content"));
    /// ```
    pub fn write_full(&mut self, data: impl Into<Rope>) -> &mut Self {
        self.push(OsdOp::write_full(data.into()))
    }

    /// Writes `data` behind the object's end.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.append(bytes::Bytes::from_static(b"a line\n"));
    /// ```
    pub fn append(&mut self, data: impl Into<Rope>) -> &mut Self {
        self.push(OsdOp::append(data.into()))
    }

    /// Fills `length` bytes from `offset` on with copies of `data`.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.write_same(0, 1 << 20, bytes::Bytes::from_static(&[0xff; 4096]));
    /// ```
    pub fn write_same(&mut self, offset: u64, length: u64, data: impl Into<Rope>) -> &mut Self {
        let data = data.into();
        if data.is_empty() || !length.is_multiple_of(data.len() as u64) {
            self.reject(InvalidOp::WriteSame { length, pattern: data.len() });
        }
        self.push(OsdOp::writesame(offset, length, data))
    }

    /// Makes `length` bytes from `offset` on zero, without making the object longer.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.zero(0, 4096);
    /// ```
    pub fn zero(&mut self, offset: u64, length: u64) -> &mut Self {
        self.push(OsdOp::zero(offset, length))
    }

    /// Makes the object `size` bytes long, of which new ones are zero.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.truncate(0);
    /// ```
    pub fn truncate(&mut self, size: u64) -> &mut Self {
        self.push(OsdOp::truncate(size))
    }

    /// Creates the object. If `exclusive`, the error is `EEXIST` if it is there.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.create(true);
    /// ```
    pub fn create(&mut self, exclusive: bool) -> &mut Self {
        self.push(OsdOp::create(exclusive))
    }

    /// Removes the object; `ENOENT` if there is none.
    ///
    /// ```
    /// use siphon_rados::types::Version;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.assert_version(Version(3)).remove();
    /// ```
    pub fn remove(&mut self) -> &mut Self {
        self.push(OsdOp::remove())
    }

    /// Makes the object what it was at `snap`.
    ///
    /// ```
    /// use siphon_rados::types::SnapId;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.rollback(SnapId(4));
    /// ```
    pub fn rollback(&mut self, snap: SnapId) -> &mut Self {
        self.push(OsdOp::rollback(snap))
    }

    /// Replaces the object by a copy of another, which the OSD fetches from where `source` is; at
    /// `version`, if that is not 0.
    ///
    /// ```
    /// use siphon_rados::types::OsdOpFlags;
    /// use siphon_rados::types::{ObjectLocator, SnapId, Version};
    /// let mut op = siphon_rados::WriteOp::new();
    /// let place = ObjectLocator::new(3);
    /// op.copy_from("original", &place, SnapId::HEAD, Version(0), OsdOpFlags::FADVISE_NOCACHE);
    /// ```
    pub fn copy_from(
        &mut self,
        source: impl Into<ByteString>,
        place: &ObjectLocator,
        snap: SnapId,
        version: Version,
        source_flags: OsdOpFlags,
    ) -> &mut Self {
        self.push(OsdOp::copy_from(&source.into(), place, snap, version, source_flags))
    }

    /// Sets an attribute.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.set_xattr("owner", bytes::Bytes::from_static(b"me"));
    /// ```
    pub fn set_xattr(&mut self, name: impl Into<ByteString>, value: impl Into<Rope>) -> &mut Self {
        self.push(OsdOp::setxattr(&name.into(), value.into()))
    }

    /// Removes an attribute.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.rm_xattr("owner");
    /// ```
    pub fn rm_xattr(&mut self, name: impl Into<ByteString>) -> &mut Self {
        self.push(OsdOp::rmxattr(&name.into()))
    }

    /// Sets entries of the object's map.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use std::collections::BTreeMap;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.omap_set(&BTreeMap::from([("key".into(), Bytes::from_static(b"value"))]));
    /// ```
    pub fn omap_set(&mut self, entries: &BTreeMap<ByteString, Bytes>) -> &mut Self {
        self.push(OsdOp::omap_set_vals(entries))
    }

    /// Sets what stands before the object's map.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.omap_set_header(bytes::Bytes::from_static(b"version 1"));
    /// ```
    pub fn omap_set_header(&mut self, header: impl Into<Rope>) -> &mut Self {
        self.push(OsdOp::omap_set_header(header.into()))
    }

    /// Removes entries of the object's map.
    ///
    /// ```
    /// use std::collections::BTreeSet;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.omap_rm_keys(&BTreeSet::from(["key".into()]));
    /// ```
    pub fn omap_rm_keys(&mut self, keys: &BTreeSet<ByteString>) -> &mut Self {
        self.push(OsdOp::omap_rm_keys(keys))
    }

    /// Removes the entries of the object's map from `begin` on, and before `end`.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.omap_rm_range("a", "b"); // all that begin with a
    /// ```
    pub fn omap_rm_range(
        &mut self,
        begin: impl Into<ByteString>,
        end: impl Into<ByteString>,
    ) -> &mut Self {
        self.push(OsdOp::omap_rm_range(&begin.into(), &end.into()))
    }

    /// Removes the object's map, and what stands before it.
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.omap_clear();
    /// ```
    pub fn omap_clear(&mut self) -> &mut Self {
        self.push(OsdOp::omap_clear())
    }

    /// Tells the OSD how the object will be used: its size and that of writes, in bytes, and more.
    ///
    /// ```
    /// use siphon_rados::types::AllocHintFlags;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.set_alloc_hint(4 << 20, 4 << 20, AllocHintFlags::SEQUENTIAL_WRITE);
    /// ```
    pub fn set_alloc_hint(
        &mut self,
        object_size: u64,
        write_size: u64,
        flags: AllocHintFlags,
    ) -> &mut Self {
        self.push(OsdOp::set_alloc_hint(object_size, write_size, flags));
        // A hint that is not understood is no reason to refuse the rest (Objecter.h, 16.2.7).
        self.fail_ok()
    }

    /// The time that the object shall have been changed at; else that of sending.
    ///
    /// ```
    /// use siphon_rados::types::Utime;
    /// let mut op = siphon_rados::WriteOp::new();
    /// op.create(false).set_mtime(Utime::new(1_500_000_000, 0));
    /// ```
    pub fn set_mtime(&mut self, mtime: Utime) -> &mut Self {
        self.mtime = Some(mtime);
        self
    }

    /// Has the outputs of class methods brought back. OSDs know it since Octopus, keep them with the
    /// change so that it has them also if it is sent twice, and take at most 64 bytes of each
    /// (`osd_max_write_op_reply_len`).
    ///
    /// ```
    /// let mut op = siphon_rados::WriteOp::new();
    /// let answer = op.exec("hello", "write_return_data", bytes::Bytes::new());
    /// op.return_outputs();
    /// # let _ = answer;
    /// ```
    pub fn return_outputs(&mut self) -> &mut Self {
        self.set_flags(OsdFlags::RETURNVEC)
    }
}
