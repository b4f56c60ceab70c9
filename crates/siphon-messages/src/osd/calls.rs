//! The operations that clients build, with their arguments where Ceph's OSDs look for them
//! (`ceph_osd_op` of include/rados.h, `ObjectOperation` of osdc/Objecter.h, 16.2.7).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use siphon_wire::buf::Rope;
use siphon_wire::types::{ByteString, Epoch, Features, HObject, ObjectLocator, SnapId, Version};
use siphon_wire::{Encode, Encoder};

use super::{AllocHintFlags, OsdOp, OsdOpCode, OsdOpFlags};

/// How a stored value is compared (`CEPH_OSD_CMPXATTR_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CmpOp {
    /// Equal.
    Eq = 1,
    /// Not equal.
    Ne = 2,
    /// Greater.
    Gt = 3,
    /// Greater or equal.
    Gte = 4,
    /// Less.
    Lt = 5,
    /// Less or equal.
    Lte = 6,
}

/// What an attribute is compared with (`CEPH_OSD_CMPXATTR_MODE_*`).
#[derive(Clone, PartialEq, Eq)]
pub enum CmpValue {
    /// Bytes, by their order.
    Bytes(Bytes),
    /// A number; the attribute's bytes are read as a decimal one.
    U64(u64),
}

/// Which sums an OSD computes (`CEPH_OSD_CHECKSUM_OP_TYPE_*`), and what each begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// XXH32, with its seed.
    XxHash32(u32),
    /// XXH64, with its seed.
    XxHash64(u64),
    /// CRC-32C without the final inversion, begun with this.
    Crc32c(u32),
}

impl OsdOp {
    /// Asks for an object's length and time; see [`ObjectStat`](super::ObjectStat).
    pub fn stat() -> Self {
        Self::new(OsdOpCode::STAT)
    }

    /// Reads what was written of `length` bytes from `offset` on; see
    /// [`SparseData`](super::SparseData).
    pub fn sparse_read(offset: u64, length: u64) -> Self {
        Self::extent(OsdOpCode::SPARSE_READ, offset, length)
    }

    /// Writes `data` behind the object's end.
    pub fn append(data: Rope) -> Self {
        Self { data, ..Self::extent(OsdOpCode::APPEND, 0, 0) }.with_data_length()
    }

    /// Makes `length` bytes from `offset` on zero.
    pub fn zero(offset: u64, length: u64) -> Self {
        Self::extent(OsdOpCode::ZERO, offset, length)
    }

    /// Makes the object `size` bytes long.
    pub fn truncate(size: u64) -> Self {
        Self::extent(OsdOpCode::TRUNCATE, size, 0)
    }

    /// Removes the object.
    pub fn remove() -> Self {
        Self::new(OsdOpCode::DELETE)
    }

    /// Creates the object; if `exclusive`, it is an error that it exists.
    pub fn create(exclusive: bool) -> Self {
        let flags = if exclusive { OsdOpFlags::EXCL } else { OsdOpFlags::NONE };
        Self { flags, ..Self::new(OsdOpCode::CREATE) }
    }

    /// Fills `length` bytes from `offset` on with copies of `data`.
    pub fn writesame(offset: u64, length: u64, data: Rope) -> Self {
        let arguments = Args::new().u64(offset).u64(length).u64(data.len() as u64);
        Self { data, ..arguments.of(OsdOpCode::WRITESAME) }
    }

    /// Goes on only if the object has `data` at `offset`.
    pub fn cmpext(offset: u64, data: Rope) -> Self {
        Self { data, ..Self::extent(OsdOpCode::CMPEXT, offset, 0) }.with_data_length()
    }

    /// Asks for the sums of chunks of `chunk_size` bytes (0: of all in one) of `length` bytes from
    /// `offset` on (both 0: of the whole object); see [`Checksums`](super::Checksums).
    pub fn checksum(kind: Checksum, offset: u64, length: u64, chunk_size: u32) -> Self {
        let (number, init) = match kind {
            Checksum::XxHash32(seed) => (0, Bytes::copy_from_slice(&seed.to_le_bytes())),
            Checksum::XxHash64(seed) => (1, Bytes::copy_from_slice(&seed.to_le_bytes())),
            Checksum::Crc32c(begin) => (2, Bytes::copy_from_slice(&begin.to_le_bytes())),
        };
        let arguments = Args::new().u64(offset).u64(length).u32(chunk_size).u8(number);
        Self { data: init.into(), ..arguments.of(OsdOpCode::CHECKSUM) }
    }

    /// Goes on only if the object's version is `version`.
    pub fn assert_version(version: Version) -> Self {
        Args::new().u64(0).u64(version.0).of(OsdOpCode::ASSERT_VER)
    }

    /// Makes the object what it was at `snap`.
    pub fn rollback(snap: SnapId) -> Self {
        Args::new().u64(snap.0).of(OsdOpCode::ROLLBACK)
    }

    /// Replaces the object by a copy of `source`, which the OSD fetches; if `version` is not 0, it must
    /// be at that. `source_flags` are hints for reading it.
    pub fn copy_from(
        source: &ByteString,
        locator: &ObjectLocator,
        snap: SnapId,
        version: Version,
        source_flags: OsdOpFlags,
    ) -> Self {
        let arguments = Args::new().u64(snap.0).u64(version.0).u8(0).u32(source_flags.0);
        let data = Encoder::gathered(Features::ALL, |enc| {
            enc.value(source);
            enc.value(locator);
        });
        Self { data: data.into(), ..arguments.of(OsdOpCode::COPY_FROM) }
    }

    /// Tells how the object will be used: its size, the size of writes, and more.
    pub fn set_alloc_hint(object_size: u64, write_size: u64, flags: AllocHintFlags) -> Self {
        Args::new().u64(object_size).u64(write_size).u32(flags.0).of(OsdOpCode::SETALLOCHINT)
    }

    /// Asks who watches the object; see [`ObjListWatchResponse`](super::ObjListWatchResponse).
    pub fn list_watchers() -> Self {
        Self::new(OsdOpCode::LIST_WATCHERS)
    }

    /// Asks for the object's clones; see [`ObjListSnapResponse`](super::ObjListSnapResponse).
    pub fn list_snaps() -> Self {
        Self::new(OsdOpCode::LIST_SNAPS)
    }

    /// Reads an attribute.
    pub fn getxattr(name: &ByteString) -> Self {
        Self::attr(OsdOpCode::GETXATTR, name, Rope::new())
    }

    /// Reads all attributes: a map from name to value.
    pub fn getxattrs() -> Self {
        Self::new(OsdOpCode::GETXATTRS)
    }

    /// Sets an attribute.
    pub fn setxattr(name: &ByteString, value: Rope) -> Self {
        Self::attr(OsdOpCode::SETXATTR, name, value)
    }

    /// Removes an attribute.
    pub fn rmxattr(name: &ByteString) -> Self {
        Self::attr(OsdOpCode::RMXATTR, name, Rope::new())
    }

    /// Goes on only if `value` compares so with the attribute: [`CmpOp::Gt`] if `value` is the
    /// greater one.
    pub fn cmpxattr(name: &ByteString, op: CmpOp, value: CmpValue) -> Self {
        let (mode, value) = match value {
            CmpValue::Bytes(bytes) => (1, bytes),
            CmpValue::U64(number) => (2, Bytes::copy_from_slice(&number.to_le_bytes())),
        };
        let mut call = Self::attr(OsdOpCode::CMPXATTR, name, value.into());
        call.args[8] = op as u8;
        call.args[9] = mode;
        call
    }

    fn attr(code: OsdOpCode, name: &ByteString, value: Rope) -> Self {
        let arguments = Args::new().len(name.len()).len(value.len());
        let mut data = Rope::from(name.clone().into_bytes());
        data.extend(value);
        Self { data, ..arguments.of(code) }
    }

    /// Reads the names of up to `max` entries of the object's map behind `after`.
    pub fn omap_get_keys(after: &ByteString, max: u64) -> Self {
        Self::omap(OsdOpCode::OMAPGETKEYS, |enc| {
            enc.value(after);
            enc.u64(max);
        })
    }

    /// Reads up to `max` entries behind `after` whose names begin with `prefix`.
    pub fn omap_get_vals(after: &ByteString, prefix: &ByteString, max: u64) -> Self {
        Self::omap(OsdOpCode::OMAPGETVALS, |enc| {
            enc.value(after);
            enc.u64(max);
            enc.value(prefix);
        })
    }

    /// Reads the entries with these names, as far as there are.
    pub fn omap_get_vals_by_keys(keys: &BTreeSet<ByteString>) -> Self {
        Self::omap(OsdOpCode::OMAPGETVALSBYKEYS, |enc| enc.value(keys))
    }

    /// Reads what stands before the object's map.
    pub fn omap_get_header() -> Self {
        Self::new(OsdOpCode::OMAPGETHEADER)
    }

    /// Goes on only if each of these entries compares so with the bytes: [`CmpOp::Gt`] if the entry
    /// is the greater one. An entry that is missing is empty. OSDs know `Eq`, `Lt` and `Gt` here.
    pub fn omap_cmp(entries: &BTreeMap<ByteString, (Bytes, CmpOp)>) -> Self {
        Self::omap(OsdOpCode::OMAP_CMP, |enc| {
            enc.count(entries.len());
            for (key, (value, op)) in entries {
                enc.value(key);
                enc.value(value);
                enc.i32(*op as i32);
            }
        })
    }

    /// Sets entries of the object's map.
    pub fn omap_set_vals(entries: &BTreeMap<ByteString, Bytes>) -> Self {
        Self::omap(OsdOpCode::OMAPSETVALS, |enc| enc.value(entries))
    }

    /// Sets what stands before the object's map.
    pub fn omap_set_header(header: Rope) -> Self {
        Self { data: header, ..Self::extent(OsdOpCode::OMAPSETHEADER, 0, 0) }.with_data_length()
    }

    /// Removes the object's map, and what stands before it.
    pub fn omap_clear() -> Self {
        Self::new(OsdOpCode::OMAPCLEAR)
    }

    /// Removes entries of the object's map.
    pub fn omap_rm_keys(keys: &BTreeSet<ByteString>) -> Self {
        Self::omap(OsdOpCode::OMAPRMKEYS, |enc| enc.value(keys))
    }

    /// Removes the entries from `begin` on, and before `end`. OSDs know it since Nautilus.
    pub fn omap_rm_range(begin: &ByteString, end: &ByteString) -> Self {
        Self::omap(OsdOpCode::OMAPRMKEYRANGE, |enc| {
            enc.value(begin);
            enc.value(end);
        })
    }

    fn omap(code: OsdOpCode, body: impl FnOnce(&mut Encoder)) -> Self {
        let data = Encoder::gathered(Features::ALL, body).into();
        Self { data, ..Self::extent(code, 0, 0) }.with_data_length()
    }

    /// Calls a method of an object class with `input`.
    ///
    /// # Panics
    /// If a name is longer than [`MAX_CLASS_NAME`](Self::MAX_CLASS_NAME).
    pub fn call(class: &str, method: &str, input: Rope) -> Self {
        let short = |name: &str| u8::try_from(name.len()).expect("a class's names fit");
        let arguments = Args::new().u8(short(class)).u8(short(method)).u8(0).len(input.len());
        let names = Encoder::gathered(Features::ALL, |enc| {
            enc.raw(class.as_bytes());
            enc.raw(method.as_bytes());
        });
        let mut data = Rope::from(names);
        data.extend(input);
        Self { data, ..arguments.of(OsdOpCode::CALL) }
    }

    /// The longest name of an object class, or of a method, in bytes: its length is one byte.
    pub const MAX_CLASS_NAME: usize = u8::MAX as usize;

    /// Lists up to `count` objects of a placement group from `start` on; see
    /// [`PgNlsResponse`](super::PgNlsResponse). `epoch` is the map's with which the listing of this
    /// group began.
    pub fn pgnls(count: u64, start: &HObject, epoch: Epoch) -> Self {
        let data = start.to_bytes(Features::ALL).into();
        Self { data, ..Args::new().u64(count).u32(epoch.0).of(OsdOpCode::PGNLS) }
    }
}

impl fmt::Debug for CmpValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::U64(number) => write!(f, "{number}"),
        }
    }
}

/// Arguments, written one behind the other.
struct Args {
    bytes: [u8; OsdOp::ARGS_LEN],
    len: usize,
}

impl Args {
    fn new() -> Self {
        Self { bytes: [0; OsdOp::ARGS_LEN], len: 0 }
    }

    fn put<const N: usize>(mut self, value: [u8; N]) -> Self {
        self.bytes[self.len..self.len + N].copy_from_slice(&value);
        self.len += N;
        self
    }

    fn u64(self, value: u64) -> Self {
        self.put(value.to_le_bytes())
    }

    fn u32(self, value: u32) -> Self {
        self.put(value.to_le_bytes())
    }

    fn u8(self, value: u8) -> Self {
        self.put([value])
    }

    /// A length of the operation's data: a message holds less than 4 GiB of it.
    fn len(self, len: usize) -> Self {
        self.u32(u32::try_from(len).expect("an operation's data is shorter than 4 GiB"))
    }

    fn of(self, code: OsdOpCode) -> OsdOp {
        OsdOp { args: self.bytes, ..OsdOp::new(code) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(op: &OsdOp) -> Vec<u8> {
        op.data.to_bytes().to_vec()
    }

    #[test]
    fn arguments_stand_where_ceph_looks_for_them() {
        let op = OsdOp::writesame(1, 8, Bytes::from_static(b"ab").into());
        assert_eq!(op.args[..17], *b"\x01\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x02");
        let op = OsdOp::checksum(Checksum::Crc32c(!0), 1, 2, 3);
        assert_eq!(op.args[..21], *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x02");
        assert_eq!(data(&op), [0xff; 4]);
        let op = OsdOp::cmpxattr(&"ab".into(), CmpOp::Lte, CmpValue::U64(7));
        assert_eq!(op.args[..11], *b"\x02\0\0\0\x08\0\0\0\x06\x02\0");
        assert_eq!(data(&op), b"ab\x07\0\0\0\0\0\0\0");
        let op = OsdOp::call("lock", "get_info", Bytes::from_static(b"xyz").into());
        assert_eq!(op.args[..8], *b"\x04\x08\0\x03\0\0\0\0");
        assert_eq!(data(&op), b"lockget_infoxyz");
        let op = OsdOp::set_alloc_hint(1, 2, AllocHintFlags::IMMUTABLE);
        assert_eq!(op.args[16..21], *b"\x20\0\0\0\0");
        let copy = OsdOp::copy_from(
            &"a".into(),
            &ObjectLocator::new(2),
            SnapId::HEAD,
            Version(5),
            OsdOpFlags::FADVISE_NOCACHE,
        );
        assert_eq!(
            copy.args[..22],
            *b"\xfe\xff\xff\xff\xff\xff\xff\xff\x05\0\0\0\0\0\0\0\0\x40\0\0\0\0"
        );
        assert_eq!(copy.data.slice(0..7), b"\x01\0\0\0a\x06\x03");
        assert_eq!(OsdOp::assert_version(Version(9)).args[8], 9);
        assert_eq!(OsdOp::create(true).flags, OsdOpFlags::EXCL);
        let op = OsdOp::pgnls(3, &HObject::min(), Epoch(5));
        assert_eq!(op.args[..13], *b"\x03\0\0\0\0\0\0\0\x05\0\0\0\0");
    }

    #[test]
    fn maps_are_the_operations_data() {
        let op = OsdOp::omap_get_vals(&"a".into(), &"p".into(), 2);
        assert_eq!(data(&op), b"\x01\0\0\0a\x02\0\0\0\0\0\0\0\x01\0\0\0p");
        assert_eq!(op.as_extent(), None, "an object's map has no extent in logs");
        assert_eq!(op.args[8], 18);
        let entries = BTreeMap::from([("k".into(), (Bytes::from_static(b"v"), CmpOp::Gt))]);
        let wire = b"\x01\0\0\0\x01\0\0\0k\x01\0\0\0v\x03\0\0\0";
        assert_eq!(data(&OsdOp::omap_cmp(&entries)), wire);
        let op = OsdOp::omap_rm_range(&"a".into(), &"b".into());
        assert_eq!(data(&op), b"\x01\0\0\0a\x01\0\0\0b");
    }

    #[test]
    fn an_attributes_value_is_not_copied() {
        let value = Bytes::from(vec![7; 100]);
        let op = OsdOp::setxattr(&"name".into(), value.clone().into());
        assert_eq!(op.args[..8], *b"\x04\0\0\0\x64\0\0\0");
        assert_eq!(op.data.segments()[1].as_ptr(), value.as_ptr());
    }
}
