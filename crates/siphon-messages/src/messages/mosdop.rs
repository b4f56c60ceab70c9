use std::fmt;

use siphon_proto::{EncodePayload, Message, MessageHeader, Payload};
use siphon_wire::buf::Rope;
use siphon_wire::types::{
    BlkinTrace, ByteString, EVersion, EntityName, Epoch, Features, HObject, ObjectLocator, PgId,
    ReqId, SnapId, SpgId, Utime,
};
use siphon_wire::{DecodeError, Decoder, Encoder};

use super::check_version;
use crate::osd::{
    DataCursor, OsdFlags, OsdOp, OsdOpCode, OtelTrace, append_data, decode_ops, encode_ops,
    print_ops,
};
use crate::{MessageError, TypedMessage, msg_type};

/// Asks an OSD to apply operations to an object.
///
/// Versions 2 to 9 of the encoding are read; 7, 8 and 9 are written, by the peer's features: 7
/// for those before Luminous, 9 since Squid.
///
/// ```
/// use siphon_messages::{MOSDOp, TypedMessage};
/// use siphon_wire::types::{Features, HObject, PgId, SpgId};
///
/// let object = HObject::new(1, "name", 0);
/// let mut request = MOSDOp::new(0, object, SpgId::from(PgId { pool: 1, seed: 0 }));
/// request.write(0, bytes::Bytes::from_static(b"content").into());
/// let message = request.to_message(Features::ALL);
/// assert_eq!(message.payload.data, b"content"[..]);
/// assert_eq!(MOSDOp::from_message(&message)?.ops, request.ops);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MOSDOp {
    /// The placement group that the sender thinks the object is in.
    pub pgid: SpgId,
    /// The hash of the object's name or key.
    pub hash: u32,
    /// The version of the OSD map that the sender went by.
    pub osdmap_epoch: Epoch,
    /// How to treat the request.
    pub flags: OsdFlags,
    /// Who first made this request, if that is not the message's sender and its transaction.
    pub reqid: ReqId,
    /// The Blkin trace that it belongs to.
    pub trace: BlkinTrace,
    /// The OpenTelemetry trace that it belongs to; sent to peers since Squid.
    pub otel_trace: OtelTrace,
    /// Which of the sender's lives this is.
    pub client_inc: u32,
    /// When the sender changed the object, for changes.
    pub mtime: Utime,
    /// The object's pool, namespace and key.
    pub locator: ObjectLocator,
    /// The object's name.
    pub oid: ByteString,
    /// What to do, in order; all or nothing.
    pub ops: Vec<OsdOp>,
    /// Bytes behind the operations' data that none of them announces: see
    /// [`write_loose`](Self::write_loose).
    pub loose_data: Rope,
    /// The snapshot to read.
    pub snapid: SnapId,
    /// The newest snapshot, for changes.
    pub snap_seq: SnapId,
    /// The existing snapshots, newest first, for changes.
    pub snaps: Vec<SnapId>,
    /// How often this was sent before; -1 if not known.
    pub retry_attempt: i32,
}

impl MOSDOp {
    /// A request for `object`, which the sender thinks is in `pgid`, without operations.
    pub fn new(client_inc: u32, object: HObject, pgid: SpgId) -> Self {
        // Ceph places an object without name by its hash.
        let hash = if object.oid.is_empty() { i64::from(object.hash) } else { -1 };
        Self {
            pgid,
            hash: object.hash,
            // An OSD can tell the sender's lives apart before it has read `client_inc`.
            reqid: ReqId { incarnation: client_inc.cast_signed(), ..ReqId::default() },
            client_inc,
            locator: ObjectLocator {
                pool: object.pool,
                key: if hash == -1 { object.key } else { ByteString::new() },
                namespace: object.namespace,
                hash,
            },
            oid: object.oid,
            snapid: object.snap,
            ..Self::default()
        }
    }

    /// Reads only what an OSD reads first of a request, to find the queue that it goes to: the
    /// placement group, the epoch, the flags, the object's hash, the request's id and traces. Versions before 7 were
    /// not made to be read in two steps, and are read whole. Other fields stay as they are: a request is filled in, not
    /// returned, since it is large. After an error its fields mean nothing.
    ///
    /// ```
    /// use siphon_messages::{MOSDOp, TypedMessage};
    /// use siphon_wire::types::{Epoch, Features};
    ///
    /// let sent = MOSDOp { osdmap_epoch: Epoch(7), oid: "name".into(), ..MOSDOp::default() };
    /// let mut head = MOSDOp::default();
    /// head.fill_head(&sent.to_message(Features::ALL))?;
    /// assert_eq!((head.osdmap_epoch, &head.oid[..]), (Epoch(7), &b""[..]));
    /// # Ok::<_, siphon_messages::MessageError>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_message`](TypedMessage::from_message), but for what is wrong behind the head.
    pub fn fill_head(&mut self, message: &Message) -> Result<(), MessageError> {
        let MessageHeader { msg_type, version, compat_version, .. } = message.header;
        let in_two_steps = (7..=9).contains(&version) && compat_version <= Self::VERSION;
        if msg_type != Self::TYPE || !in_two_steps {
            *self = Self::from_message(message)?;
            return Ok(());
        }
        let mut dec = Decoder::named("MOSDOp", &message.payload.front);
        self.decode_head(&mut dec, version)
            .map_err(|error| MessageError::Decode { msg_type: Self::TYPE, error })
    }

    /// Adds an operation that writes `data` at `offset`.
    pub fn write(&mut self, offset: u64, data: Rope) {
        self.ops.push(OsdOp::write(offset, data));
    }

    /// Makes `data` the message's and adds an operation that writes it at `offset`, but does not
    /// announce it as its own: what Ceph's `MOSDOp::write` does, which only the messenger
    /// benchmark uses. An OSD refuses it.
    pub fn write_loose(&mut self, offset: u64, data: Rope) {
        self.ops.push(OsdOp::extent(OsdOpCode::WRITE, offset, data.len() as u64));
        self.loose_data = data;
    }

    /// Adds an operation that reads `length` bytes from `offset` on.
    pub fn read(&mut self, offset: u64, length: u64) {
        self.ops.push(OsdOp::read(offset, length));
    }

    /// The object.
    pub fn object(&self) -> HObject {
        let mut object = HObject::min();
        object.oid = self.oid.clone();
        object.key = self.locator.key.clone();
        object.snap = self.snapid;
        object.hash = self.hash;
        object.pool = self.locator.pool;
        object.namespace = self.locator.namespace.clone();
        object
    }

    /// The placement group before the pool's number of them is applied: the full hash.
    pub fn raw_pg(&self) -> PgId {
        PgId { pool: self.pgid.pg.pool, seed: self.hash }
    }

    /// What identifies the request: its explicit id, or the transaction `tid` of `source`.
    pub fn effective_reqid(&self, source: EntityName, tid: u64) -> ReqId {
        if self.reqid.name != EntityName::default() || self.reqid.tid != 0 {
            return self.reqid;
        }
        ReqId { name: source, incarnation: self.reqid.incarnation, tid }
    }

    /// Prints the message as the log of an OSD does that got it from `source`.
    pub(crate) fn print_from(
        &self,
        source: EntityName,
        header: &MessageHeader,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let reqid = self.effective_reqid(source, header.tid);
        write!(f, "osd_op({reqid} {} {} ", self.pgid, self.object())?;
        print_ops(f, &self.ops, "in")?;
        write!(f, " snapc {}=[", self.snap_seq)?;
        for (n, snap) in self.snaps.iter().enumerate() {
            write!(f, "{}{snap}", if n == 0 { "" } else { "," })?;
        }
        f.write_str("]")?;
        if self.flags.contains(OsdFlags::RETRY) {
            write!(f, " RETRY={}", self.retry_attempt)?;
        }
        write!(f, " {} e{})", self.flags, self.osdmap_epoch)
    }
}

/// What a request is before it is filled in: in no pool, with no hash in place of a key's, and not known to be sent
/// again.
impl Default for MOSDOp {
    #[inline]
    fn default() -> Self {
        Self {
            pgid: SpgId::default(),
            hash: 0,
            osdmap_epoch: Epoch::default(),
            flags: OsdFlags::NONE,
            reqid: ReqId::default(),
            trace: BlkinTrace::default(),
            otel_trace: OtelTrace::default(),
            client_inc: 0,
            mtime: Utime::default(),
            locator: ObjectLocator::default(),
            oid: ByteString::new(),
            ops: Vec::new(),
            loose_data: Rope::new(),
            snapid: SnapId::default(),
            snap_seq: SnapId::default(),
            snaps: Vec::new(),
            retry_attempt: -1,
        }
    }
}

impl TypedMessage for MOSDOp {
    const TYPE: u16 = msg_type::CEPH_MSG_OSD_OP;
    const NAME: &'static str = "osd_op";
    const VERSION: u16 = 9;
    const COMPAT_VERSION: u16 = 3;
    const BY_FEATURES: bool = true;

    fn encode_payload(
        &self,
        features: Features,
        header: &mut MessageHeader,
        payload: &mut Payload,
    ) {
        header.version = if !features.contains(Features::RESEND_ON_SPLIT) {
            7
        } else if !features.contains(Features::SERVER_SQUID) {
            8
        } else {
            9
        };
        let first_extent = self.ops.iter().find_map(OsdOp::as_extent);
        // Only the position within a page matters, so the upper bits may go.
        header.data_off = first_extent.map_or(0, |extent| extent.offset as u16);
        payload.front.encode(features, |enc| {
            if header.version == 7 {
                self.encode_v7_head(enc);
            } else {
                self.encode_head(enc, header.version);
            }
            self.encode_rest(enc);
        });
        append_data(&self.ops, &mut payload.data);
        payload.data.append_shared(&self.loose_data);
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        let mut dec = Decoder::named("MOSDOp", &payload.front);
        check_version(&dec, header.version, OLDEST, 9)?;
        match header.version {
            ..7 => Self::decode_v6(&mut dec, header.version, &payload.data),
            version => {
                let mut request = Self::default();
                request.decode_head(&mut dec, version)?;
                request.decode_rest(&mut dec, &payload.data)?;
                Ok(request)
            }
        }
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print_from(EntityName::default(), header, f)
    }
}

/// A request that its sender keeps, to send it again: the message shares it.
///
/// ```
/// use std::sync::Arc;
/// use siphon_messages::{MOSDOp, TypedMessage};
/// use siphon_proto::OutMessage;
/// use siphon_wire::types::{HObject, SpgId};
/// let request = Arc::new(MOSDOp::new(0, HObject::min(), SpgId::default()));
/// let out = OutMessage::deferred(MOSDOp::header(), request.clone());
/// ```
impl EncodePayload for MOSDOp {
    fn encode_payload(
        &self,
        features: Features,
        header: &mut MessageHeader,
        payload: &mut Payload,
    ) {
        TypedMessage::encode_payload(self, features, header, payload)
    }
}

/// Version 1 leaves it to the OSD to hash the object's name; peers that old have no msgr2.
const OLDEST: u8 = 2;

/// What an OSD reads first, to find the placement group whose queue the request goes to; and
/// what it reads when the request's turn comes.
impl MOSDOp {
    fn encode_head(&self, enc: &mut Encoder, version: u16) {
        let Self { pgid, hash, osdmap_epoch, flags, reqid, trace, .. } = *self;
        enc.fixed((pgid, hash, osdmap_epoch, flags.0, reqid, trace));
        if version >= 9 {
            enc.value(&self.otel_trace);
        }
    }

    fn encode_v7_head(&self, enc: &mut Encoder) {
        let replayed = EVersion::default(); // of a replayed request, once
        enc.fixed((self.raw_pg(), self.osdmap_epoch, self.flags.0, replayed, self.reqid));
    }

    fn encode_rest(&self, enc: &mut Encoder) {
        enc.fixed((self.client_inc, self.mtime));
        enc.value(&self.locator);
        enc.value(&self.oid);
        // A request has few operations; what does not fit in the count would not be a request.
        let count = u16::try_from(self.ops.len()).unwrap_or(u16::MAX);
        enc.u16(count);
        encode_ops(enc, &self.ops[..usize::from(count)]);
        enc.fixed((self.snapid, self.snap_seq));
        enc.value(&self.snaps);
        // The features are those of the connection; whoever forwards a request tells the OSD by them
        // what its client understands.
        enc.fixed((self.retry_attempt, enc.features().0));
    }

    /// Reads what comes first in versions 7 to 9, each field to its place: moved together, they would wait for the
    /// processor's store buffer.
    fn decode_head(&mut self, dec: &mut Decoder<'_>, version: u16) -> Result<(), DecodeError> {
        if version >= 8 {
            self.pgid = dec.value()?;
            self.hash = dec.u32()?;
        } else {
            self.pgid = dec.value::<PgId>()?.into();
            self.hash = self.pgid.pg.seed;
        }
        self.osdmap_epoch = dec.value()?;
        self.flags = OsdFlags(dec.u32()?);
        if version == 7 {
            let _reassert_version: EVersion = dec.value()?;
        }
        self.reqid = dec.value()?;
        self.trace = if version >= 8 { dec.value()? } else { BlkinTrace::default() };
        self.otel_trace = if version >= 9 { dec.value()? } else { OtelTrace::default() };
        Ok(())
    }

    fn decode_rest(&mut self, dec: &mut Decoder<'_>, data: &Rope) -> Result<(), DecodeError> {
        (self.client_inc, self.mtime) = dec.value()?;
        self.locator = dec.value()?;
        self.oid = dec.value()?;
        let count = dec.u16()?;
        let mut data = DataCursor::new(data);
        self.ops = decode_ops(dec, count.into(), Some(&mut data))?;
        self.loose_data = data.rest();
        (self.snapid, self.snap_seq) = dec.value()?;
        self.snaps = dec.value()?;
        self.retry_attempt = dec.i32()?;
        let _features = dec.u64()?;
        dec.finish()
    }

    /// Versions 2 to 6, which were not read in two steps.
    #[cold]
    fn decode_v6(dec: &mut Decoder<'_>, version: u16, data: &Rope) -> Result<Self, DecodeError> {
        let mut request = Self { client_inc: dec.u32()?, ..Self::default() };
        request.reqid.incarnation = request.client_inc.cast_signed();
        request.osdmap_epoch = dec.value()?;
        request.flags = OsdFlags(dec.u32()?);
        request.mtime = dec.value()?;
        let _reassert_version: EVersion = dec.value()?;
        request.locator = dec.value()?;
        let raw_pg = if version < 3 { decode_old_pg(dec)? } else { dec.value()? };
        request.pgid = raw_pg.into();
        request.hash = raw_pg.seed;
        request.oid = dec.value()?;
        let count = dec.u16()?;
        let mut data = DataCursor::new(data);
        request.ops = decode_ops(dec, count.into(), Some(&mut data))?;
        request.loose_data = data.rest();
        request.snapid = dec.value()?;
        request.snap_seq = dec.value()?;
        request.snaps = dec.value()?;
        if version >= 4 {
            request.retry_attempt = dec.i32()?;
        }
        if version >= 5 {
            let _features = dec.u64()?;
        }
        if version >= 6 {
            let reqid: ReqId = dec.value()?;
            if reqid.name != EntityName::default() || reqid.tid != 0 {
                request.reqid = reqid;
            }
        }
        dec.finish()?;
        Ok(request)
    }
}

/// A placement group of before pools had 64-bit numbers (`ceph_pg`).
fn decode_old_pg(dec: &mut Decoder<'_>) -> Result<PgId, DecodeError> {
    let _preferred = dec.u16()?;
    let seed = dec.u16()?;
    Ok(PgId { pool: dec.u32()?.into(), seed: seed.into() })
}
