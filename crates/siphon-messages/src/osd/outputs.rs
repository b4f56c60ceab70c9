//! What operations on objects come back with (osd/osd_types.h, 16.2.7).

use bytes::Bytes;
use siphon_wire::types::{ByteString, EntityAddr, EntityName, HObject, SnapId, Utime};
use siphon_wire::{Decode, DecodeError, DecodeErrorKind, Decoder, Encode, Encoder};

/// An object's length and time: the answer to `stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ObjectStat {
    /// Length in bytes.
    pub size: u64,
    /// When it was changed, by the clock of who changed it.
    pub mtime: Utime,
}

/// The parts of a range that were written, and their bytes: the answer to `sparse-read`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SparseData {
    /// Offset and length of each part, in bytes, ascending.
    pub extents: Vec<(u64, u64)>,
    /// The parts' bytes, one behind the other.
    pub data: Bytes,
}

/// Sums of chunks: the answer to `checksum`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// One for each chunk.
    pub values: Vec<u64>,
}

impl Checksums {
    /// Reads the sums, each of `width` bytes: 8 for XXH64, else 4.
    ///
    /// # Errors
    /// If there are not as many as are announced.
    pub fn decode(dec: &mut Decoder<'_>, width: usize) -> Result<Self, DecodeError> {
        // An OSD answers nothing if the range is behind the object's end.
        if dec.remaining() == 0 {
            return Ok(Self::default());
        }
        let count = dec.count(width)?;
        let value = |dec: &mut Decoder<'_>| match width {
            8 => dec.u64(),
            _ => dec.u32().map(u64::from),
        };
        let values = (0..count).map(|_| value(dec)).collect::<Result<_, _>>()?;
        Ok(Self { values })
    }
}

/// A part of an object's map, and whether there is more: the answer to `omap-get-vals` and
/// `omap-get-keys`, in which `T` is a map or a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OmapPart<T> {
    /// The entries.
    pub entries: T,
    /// Whether there are more behind them.
    pub more: bool,
}

impl<T: Encode> Encode for OmapPart<T> {
    fn encode(&self, enc: &mut Encoder) {
        enc.value(&self.entries);
        enc.bool(self.more);
    }
}

impl<T: Decode> Decode for OmapPart<T> {
    const MIN_SIZE: usize = T::MIN_SIZE + 1;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { entries: dec.value()?, more: dec.bool()? })
    }
}

/// Who watches an object (`watch_item_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[denc(version = 2, name = "watch_item_t")]
pub struct WatchItem {
    /// The client.
    pub name: EntityName,
    /// Which of its watches.
    pub cookie: u64,
    /// How long, in seconds, it may be silent.
    pub timeout_seconds: u32,
    /// Its address.
    #[denc(since = 2)]
    pub addr: EntityAddr,
}

/// The answer to `list-watchers` (`obj_list_watch_response_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "obj_list_watch_response_t")]
pub struct ObjListWatchResponse {
    /// Those who watch.
    pub entries: Vec<WatchItem>,
}

/// An object's state at some snapshots (`clone_info`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "clone_info")]
pub struct CloneInfo {
    /// The newest snapshot that it stands for, or [`SnapId::HEAD`] for the live object.
    pub cloneid: SnapId,
    /// The snapshots that it stands for, ascending.
    pub snaps: Vec<SnapId>,
    /// Offset and length of what it shares with the next newer state, in bytes.
    pub overlap: Vec<(u64, u64)>,
    /// Length in bytes.
    pub size: u64,
}

/// The answer to `list-snaps` (`obj_list_snap_response_t`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjListSnapResponse {
    /// The object's states, ascending.
    pub clones: Vec<CloneInfo>,
    /// The newest snapshot that the object has seen.
    pub seq: SnapId,
}

impl Encode for ObjListSnapResponse {
    fn encode(&self, enc: &mut Encoder) {
        enc.versioned(2, 1, |enc| {
            enc.value(&self.clones);
            enc.value(&self.seq);
        });
    }
}

impl Decode for ObjListSnapResponse {
    const MIN_SIZE: usize = 6 + 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.versioned("obj_list_snap_response_t", 2, |dec, version| {
            let clones = dec.value()?;
            let seq = if version >= 2 { dec.value()? } else { SnapId::HEAD };
            Ok(Self { clones, seq })
        })
    }
}

/// An object that was listed (`librados::ListObjectImpl`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ListObject {
    /// Its namespace.
    pub nspace: ByteString,
    /// Its name.
    pub oid: ByteString,
    /// What was hashed in place of its name, if that is not empty.
    pub locator: ByteString,
}

/// A part of a placement group's objects: the answer to `pgnls` (`pg_nls_response_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[denc(version = 1, name = "pg_nls_response_t")]
pub struct PgNlsResponse {
    /// Where to go on; at the group's end, where the next group begins.
    pub handle: HObject,
    /// The objects.
    pub entries: Vec<ListObject>,
}

/// Reads an operation's output to its last byte.
///
/// # Errors
/// If it is no `T`, or something follows.
pub fn decode_output<T: Decode>(output: &Bytes) -> Result<T, DecodeError> {
    let mut dec = Decoder::new(output);
    let value = dec.value()?;
    match dec.remaining() {
        0 => Ok(value),
        count => Err(dec.error(DecodeErrorKind::TrailingBytes { count })),
    }
}

#[cfg(test)]
mod tests {
    use siphon_wire::types::Features;

    use super::*;

    #[test]
    fn outputs_are_read_to_their_last_byte() {
        let wire = Bytes::from_static(b"\x05\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0");
        let stat = ObjectStat { size: 5, mtime: Utime::new(1, 2) };
        assert_eq!(decode_output(&wire), Ok(stat));
        for cut in 0..wire.len() {
            assert!(decode_output::<ObjectStat>(&wire.slice(..cut)).is_err());
        }
        let longer = Bytes::from([&wire[..], b"x"].concat());
        let error = decode_output::<ObjectStat>(&longer).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::TrailingBytes { count: 1 });
    }

    #[test]
    fn sums_are_as_wide_as_their_kind() {
        let wire = Bytes::from_static(b"\x01\0\0\0\x01\0\0\0\x02\0\0\0");
        let read = |width| Checksums::decode(&mut Decoder::new(&wire), width);
        assert_eq!(read(8).unwrap().values, [0x2_0000_0001]);
        assert_eq!(read(4).unwrap().values, [1]);
        let huge = Bytes::from_static(b"\xff\xff\xff\xff\0\0\0\0");
        Checksums::decode(&mut Decoder::new(&huge), 4).unwrap_err();
        assert_eq!(Checksums::decode(&mut Decoder::new(&Bytes::new()), 4).unwrap().values, []);
    }

    #[test]
    fn a_list_of_snapshots_of_old_has_no_sequence() {
        let wire = Bytes::from_static(b"\x01\x01\x04\0\0\0\0\0\0\0");
        assert_eq!(decode_output::<ObjListSnapResponse>(&wire).unwrap().seq, SnapId::HEAD);
        let now = ObjListSnapResponse { clones: vec![CloneInfo::default()], seq: SnapId(3) };
        assert_eq!(decode_output(&now.to_bytes(Features::ALL)), Ok(now));
    }
}
