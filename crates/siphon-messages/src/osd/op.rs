use std::fmt;

use bytes::Bytes;
use siphon_wire::buf::Rope;
use siphon_wire::types::{ByteString, SnapId, Utime};
use siphon_wire::{DecodeError, DecodeErrorKind, Decoder, Encoder};

use super::{OsdOpCode, OsdOpFlags, WatchOp};

/// One operation of a request, or what came of it in the reply (`OSDOp`).
///
/// ```
/// use siphon_messages::osd::{OsdOp, OsdOpCode};
/// let read = OsdOp::extent(OsdOpCode::READ, 4096, 512);
/// assert_eq!(read.as_extent().unwrap().offset, 4096);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct OsdOp {
    /// What it does.
    pub code: OsdOpCode,
    /// How it is to be treated.
    pub flags: OsdOpFlags,
    /// Its arguments as on the wire: a union by operation (`ceph_osd_op`).
    pub args: [u8; Self::ARGS_LEN],
    /// In a request what goes in, in a reply what came out.
    pub data: Rope,
    /// In a reply its result: an error is negative, of Linux's numbers. Not part of a request.
    pub rval: i32,
}

/// Arguments of operations on a range of an object's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What the file system has truncated the object to; see `truncate_seq`.
    pub truncate_size: u64,
    /// Which truncation that was; 0 if none.
    pub truncate_seq: u32,
}

impl OsdOp {
    /// Length of the arguments in bytes.
    pub const ARGS_LEN: usize = 28;

    /// An operation without arguments or data.
    pub fn new(code: OsdOpCode) -> Self {
        Self {
            code,
            flags: OsdOpFlags::NONE,
            args: [0; Self::ARGS_LEN],
            data: Rope::new(),
            rval: 0,
        }
    }

    /// An operation on a range of the object's data.
    pub fn extent(code: OsdOpCode, offset: u64, length: u64) -> Self {
        Self { args: Extent { offset, length, ..Extent::default() }.to_args(), ..Self::new(code) }
    }

    /// Writes `data` at `offset`.
    pub fn write(offset: u64, data: Rope) -> Self {
        Self { data, ..Self::extent(OsdOpCode::WRITE, offset, 0) }.with_data_length()
    }

    /// Replaces the object's data.
    pub fn write_full(data: Rope) -> Self {
        Self { data, ..Self::extent(OsdOpCode::WRITEFULL, 0, 0) }.with_data_length()
    }

    /// Reads `length` bytes from `offset` on.
    pub fn read(offset: u64, length: u64) -> Self {
        Self::extent(OsdOpCode::READ, offset, length)
    }

    /// The arguments of an operation that has an extent.
    pub fn as_extent(&self) -> Option<Extent> {
        self.code.has_extent().then(|| Extent::from_args(&self.args))
    }

    pub(super) fn with_data_length(mut self) -> Self {
        let extent = Extent::from_args(&self.args);
        self.args = Extent { length: self.data.len() as u64, ..extent }.to_args();
        self
    }
}

impl Extent {
    fn from_args(args: &[u8; OsdOp::ARGS_LEN]) -> Self {
        Self {
            offset: u64::from_le_bytes(part(args, 0)),
            length: u64::from_le_bytes(part(args, 8)),
            truncate_size: u64::from_le_bytes(part(args, 16)),
            truncate_seq: u32::from_le_bytes(part(args, 24)),
        }
    }

    fn to_args(self) -> [u8; OsdOp::ARGS_LEN] {
        let mut args = [0; OsdOp::ARGS_LEN];
        args[..8].copy_from_slice(&self.offset.to_le_bytes());
        args[8..16].copy_from_slice(&self.length.to_le_bytes());
        args[16..24].copy_from_slice(&self.truncate_size.to_le_bytes());
        args[24..].copy_from_slice(&self.truncate_seq.to_le_bytes());
        args
    }
}

/// The `N` argument bytes from `at` on, both of which are constants of the caller's within
/// [`OsdOp::ARGS_LEN`].
fn part<const N: usize>(args: &[u8; OsdOp::ARGS_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&args[at..at + N]);
    bytes
}

/// Length of an encoded operation (`ceph_osd_op`): code, flags, arguments, length of its data.
const ENCODED_LEN: usize = 2 + 4 + OsdOp::ARGS_LEN + 4;

/// Writes operations as they stand in a message's front; their data goes apart.
pub(crate) fn encode_ops(enc: &mut Encoder, ops: &[OsdOp]) {
    for op in ops {
        let length = u32::try_from(op.data.len()).expect("an operation's data is below 4 GiB");
        enc.fixed((op.code.0, op.flags.0, &op.args, length));
    }
}

/// Appends the data of all operations, one after the other.
pub(crate) fn append_data(ops: &[OsdOp], data: &mut Rope) {
    for op in ops {
        data.append_shared(&op.data);
    }
}

/// Reads `count` operations, and gives each its part of the message's data, if there is some: what it
/// announces, in order.
pub(crate) fn decode_ops(
    dec: &mut Decoder<'_>,
    count: u32,
    mut data: Option<&mut DataCursor<'_>>,
) -> Result<Vec<OsdOp>, DecodeError> {
    let available = dec.remaining();
    if count as usize > available / ENCODED_LEN {
        return Err(dec.error(DecodeErrorKind::ImpossibleCount { count, available }));
    }
    let mut ops = Vec::with_capacity(count as usize);
    dec.typed("ceph_osd_op", |dec| {
        for _ in 0..count {
            dec.require(ENCODED_LEN)?;
            let (code, flags) = (OsdOpCode(dec.u16()?), OsdOpFlags(dec.u32()?));
            let (args, len) = (dec.array()?, dec.u32()?);
            let mut op = OsdOp { code, flags, args, data: Rope::new(), rval: 0 };
            if let Some(data) = &mut data {
                data.take(len as usize, &mut op.data).map_err(|available| {
                    dec.error(DecodeErrorKind::Truncated { needed: len.into(), available })
                })?;
            }
            ops.push(op);
        }
        Ok(())
    })?;
    Ok(ops)
}

/// Takes a rope apart from its front, passing each segment once however many parts there are.
pub(crate) struct DataCursor<'a> {
    segments: &'a [Bytes],
    /// Bytes of the first segment that were taken.
    taken: usize,
    remaining: usize,
}

impl<'a> DataCursor<'a> {
    pub(crate) fn new(rope: &'a Rope) -> Self {
        Self { segments: rope.segments(), taken: 0, remaining: rope.len() }
    }

    /// Moves the next `len` bytes to the empty `part`; an error has how many there are if that is fewer.
    #[inline]
    fn take(&mut self, len: usize, part: &mut Rope) -> Result<(), usize> {
        if len > self.remaining {
            return Err(self.remaining);
        }
        self.remaining -= len;
        while part.len() < len {
            // The rope has as many bytes, so there is a segment.
            let Some((first, others)) = self.segments.split_first() else { break };
            let end = first.len().min(self.taken + len - part.len());
            part.push(first.slice(self.taken..end));
            self.taken = end;
            if end == first.len() {
                (self.segments, self.taken) = (others, 0);
            }
        }
        Ok(())
    }

    /// What nobody has taken.
    pub(crate) fn rest(mut self) -> Rope {
        let mut rest = Rope::new();
        // As many as there are can be taken.
        let _ = self.take(self.remaining, &mut rest);
        rest
    }
}

/// As in Ceph's logs: `[write 0~4096 in=4096b]`. `direction` is `in` for a request, `out` for a
/// reply.
pub(crate) fn print_ops(f: &mut fmt::Formatter<'_>, ops: &[OsdOp], direction: &str) -> fmt::Result {
    f.write_str("[")?;
    for (n, op) in ops.iter().enumerate() {
        f.write_str(if n == 0 { "" } else { "," })?;
        op.print_call(f)?;
        if !op.data.is_empty() {
            write!(f, " {direction}={}b", op.data.len())?;
        }
    }
    f.write_str("]")
}

impl OsdOp {
    fn print_call(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.code.is_data() {
            self.print_data_call(f)
        } else if self.code.is_attr() {
            self.print_attr_call(f)
        } else if self.code.is_exec() {
            let [class, method] = part(&self.args, 0).map(usize::from);
            if class == 0 || self.data.is_empty() {
                return Ok(());
            }
            write!(f, " {}.{}", self.text(0, class), self.text(class, method))
        } else if self.code.is_pg() {
            self.print_pg_call(f)
        } else {
            Ok(())
        }
    }

    fn print_data_call(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = Extent::from_args(&self.args);
        let truncation = (extent.truncate_seq, extent.truncate_size.cast_signed());
        match self.code {
            OsdOpCode::ASSERT_VER => write!(f, " v{}", self.arg(8)),
            OsdOpCode::TRUNCATE => write!(f, " {}", extent.offset),
            OsdOpCode::MASKTRUNC | OsdOpCode::TRIMTRUNC => {
                write!(f, " {}@{}", truncation.0, truncation.1)
            }
            OsdOpCode::ROLLBACK => write!(f, " {}", SnapId(self.arg(0))),
            OsdOpCode::WATCH => {
                let ([action], generation) = (part(&self.args, 16), part(&self.args, 17));
                write!(f, " {} cookie {}", WatchOp(action), self.arg(0))?;
                match u32::from_le_bytes(generation) {
                    0 => Ok(()),
                    generation => write!(f, " gen {generation}"),
                }
            }
            OsdOpCode::NOTIFY => write!(f, " cookie {}", self.arg(0)),
            OsdOpCode::COPY_GET => write!(f, " max {}", self.arg(0)),
            OsdOpCode::COPY_FROM => write!(f, " ver {}", self.arg(8)),
            OsdOpCode::SETALLOCHINT => {
                write!(f, " object_size {} write_size {}", self.arg(0), self.arg(8))
            }
            code if code.has_extent() => {
                write!(f, " {}~{}", extent.offset, extent.length)?;
                if extent.truncate_seq != 0 {
                    write!(f, " [{}@{}]", truncation.0, truncation.1)?;
                }
                if self.flags == OsdOpFlags::NONE {
                    return Ok(());
                }
                write!(f, " [{}]", self.flags)
            }
            _ => Ok(()),
        }
    }

    fn print_attr_call(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [name, value] = [0, 4].map(|at| u32::from_le_bytes(part(&self.args, at)));
        if name != 0 && !self.data.is_empty() {
            write!(f, " {}", self.text(0, name as usize))?;
        }
        if value != 0 {
            write!(f, " ({value})")?;
        }
        if self.code == OsdOpCode::CMPXATTR {
            let [op, mode] = part(&self.args, 8);
            write!(f, " op {op} mode {mode}")?;
        }
        Ok(())
    }

    fn print_pg_call(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            OsdOpCode::PGLS
            | OsdOpCode::PGLS_FILTER
            | OsdOpCode::PGNLS
            | OsdOpCode::PGNLS_FILTER => {
                write!(f, " start_epoch {}", u32::from_le_bytes(part(&self.args, 8)))
            }
            OsdOpCode::PG_HITSET_GET => {
                let [sec, nsec] = [0, 4].map(|at| u32::from_le_bytes(part(&self.args, at)));
                write!(f, " {}", Utime::new(sec, nsec))
            }
            _ => Ok(()),
        }
    }

    /// The 64-bit argument at `at`, a constant of at most 20.
    fn arg(&self, at: usize) -> u64 {
        u64::from_le_bytes(part(&self.args, at))
    }

    /// As many of `len` bytes of the data from `at` on as there are, as text.
    fn text(&self, at: usize, len: usize) -> ByteString {
        let start = at.min(self.data.len());
        let end = at.saturating_add(len).min(self.data.len());
        self.data.slice(start..end).to_bytes().into()
    }
}

/// The call as Ceph's logs show it: `write 0~4096`.
impl fmt::Display for OsdOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print_call(f)
    }
}

impl fmt::Debug for OsdOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print_call(f)?;
        write!(f, " ({} bytes of data) = {}", self.data.len(), self.rval)
    }
}

#[cfg(test)]
mod tests {
    use siphon_wire::types::Features;

    use super::*;

    /// An operation's line in a request's log.
    struct Line(OsdOp);

    impl fmt::Display for Line {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            print_ops(f, std::slice::from_ref(&self.0), "in")
        }
    }

    fn rope(segments: &[&'static [u8]]) -> Rope {
        segments.iter().map(|segment| Bytes::from_static(segment)).collect()
    }

    fn decode(wire: &Bytes, count: u32, data: &Rope) -> Result<(Vec<OsdOp>, Rope), DecodeError> {
        let mut data = DataCursor::new(data);
        let ops = decode_ops(&mut Decoder::new(wire), count, Some(&mut data))?;
        Ok((ops, data.rest()))
    }

    #[test]
    fn an_operation_takes_38_bytes() {
        let mut enc = Encoder::new(Features::ALL);
        let op = OsdOp::write(0x1000, rope(&[b"abc"]));
        encode_ops(&mut enc, std::slice::from_ref(&op));
        let wire = enc.finish();
        assert_eq!(wire.len(), ENCODED_LEN);
        let expected = b"\x01\x22\0\0\0\0\0\x10\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(&wire[..22], expected);
        assert_eq!(&wire[34..], [3, 0, 0, 0]);
        let (decoded, rest) = decode(&wire, 1, &op.data).unwrap();
        assert_eq!((decoded, rest), (vec![op], Rope::new()));
    }

    #[test]
    fn data_is_divided_without_copying() {
        let ops = [&b"ab"[..], b"", b"cdef", b"g"]
            .map(|data| OsdOp::write_full(Bytes::from_static(data).into()));
        let mut enc = Encoder::new(Features::ALL);
        encode_ops(&mut enc, &ops);
        let wire = enc.finish();
        let data = rope(&[b"abc", b"de", b"fg-rest"]);
        let (decoded, rest) = decode(&wire, 4, &data).unwrap();
        assert_eq!(decoded, ops);
        assert_eq!(rest, b"-rest"[..]);
        assert_eq!(decoded[2].data.segments()[1].as_ptr(), data.segments()[1].as_ptr());
        let mut merged = Rope::new();
        append_data(&ops, &mut merged);
        assert_eq!(merged, rope(&[b"abcdefg"]));

        let error = decode(&wire, 4, &rope(&[b"abcde"])).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Truncated { needed: 4, available: 3 });
        let error = decode_ops(&mut Decoder::new(&wire), 5, None).unwrap_err();
        assert!(matches!(error.kind, DecodeErrorKind::ImpossibleCount { count: 5, .. }));
    }

    #[test]
    fn lines_are_cephs() {
        let line = |op| Line(op).to_string();
        assert_eq!(line(OsdOp::write(4, rope(&[b"abc"]))), "[write 4~3 in=3b]");
        let mut read = OsdOp::read(0, 8);
        read.flags = OsdOpFlags::FADVISE_RANDOM | OsdOpFlags::FADVISE_NOCACHE;
        assert_eq!(line(read), "[read 0~8 [fadvise_random+fadvise_nocache]]");
        assert_eq!(line(OsdOp::new(OsdOpCode::STAT)), "[stat]");
        let mut call = OsdOp::new(OsdOpCode::CALL);
        call.args[..2].copy_from_slice(&[4, 2]);
        call.data = rope(&[b"lo", b"ckgo"]);
        assert_eq!(line(call), "[call lock.go in=6b]");
        let mut xattr = OsdOp::new(OsdOpCode::SETXATTR);
        xattr.args[0] = 1;
        xattr.args[4] = 2;
        xattr.data = rope(&[b"avv"]);
        assert_eq!(line(xattr.clone()), "[setxattr a (2) in=3b]");
        // A peer may announce more than there is.
        xattr.args[..4].fill(0xff);
        assert_eq!(line(xattr), "[setxattr avv (2) in=3b]");
        let mut watch = OsdOp::new(OsdOpCode::WATCH);
        (watch.args[0], watch.args[16], watch.args[17]) = (9, 3, 2);
        assert_eq!(line(watch), "[watch watch cookie 9 gen 2]");
    }
}
