use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::buf::Rope;
use siphon_wire::types::{
    BlkinTrace, ByteString, EVersion, Epoch, Features, PgId, RequestRedirect, Version,
};
use siphon_wire::{DecodeError, Decoder, Encoder};

use super::{MOSDOp, check_version};
use crate::osd::{DataCursor, OsdFlags, OsdOp, append_data, decode_ops, encode_ops, print_ops};
use crate::{TypedMessage, msg_type};

/// An OSD's answer to an [`MOSDOp`], of whose transaction it is.
///
/// Versions 2 to 8 of the encoding are read; 8 is written.
///
/// ```
/// use siphon_messages::osd::OsdFlags;
/// use siphon_messages::{MOSDOp, MOSDOpReply, TypedMessage};
/// use siphon_wire::types::{HObject, SpgId};
///
/// let request = MOSDOp::new(0, HObject::min(), SpgId::default());
/// let reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
/// let mut out = reply.into_out();
/// out.header_mut().tid = 7; // the request's
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MOSDOpReply {
    /// The object's name.
    pub oid: ByteString,
    /// Its placement group.
    pub pgid: PgId,
    /// The request's flags, but for those that say how safe the change is.
    pub flags: OsdFlags,
    /// The request's result: an error is negative, of Linux's numbers.
    pub result: i32,
    /// What `replay_version` and `user_version` became for clients that know neither.
    pub bad_replay_version: EVersion,
    /// The version of the OSD's map.
    pub osdmap_epoch: Epoch,
    /// The request's operations, with their results and what came out.
    pub ops: Vec<OsdOp>,
    /// Which attempt this answers; -1 if not known.
    pub retry_attempt: i32,
    /// The object's version in the placement group's log, for changes.
    pub replay_version: EVersion,
    /// The object's version as users see it.
    pub user_version: Version,
    /// Where to ask instead; `None` if here is right.
    pub redirect: Option<RequestRedirect>,
    /// The Blkin trace that it belongs to.
    pub trace: BlkinTrace,
}

impl MOSDOpReply {
    /// An answer to `request`; `safety` is one of [`OsdFlags::ACK`], [`OsdFlags::ONNVRAM`] and
    /// [`OsdFlags::ONDISK`]. Its operations are the request's without their data.
    pub fn new(request: &MOSDOp, result: i32, safety: OsdFlags) -> Self {
        const SAFETY: u32 = OsdFlags::ACK.0 | OsdFlags::ONNVRAM.0 | OsdFlags::ONDISK.0;
        let without_data =
            |op: &OsdOp| OsdOp { flags: op.flags, args: op.args, ..OsdOp::new(op.code) };
        Self {
            oid: request.oid.clone(),
            pgid: request.pgid.pg,
            flags: OsdFlags(request.flags.0 & !SAFETY) | safety,
            result,
            osdmap_epoch: request.osdmap_epoch,
            ops: request.ops.iter().map(without_data).collect(),
            retry_attempt: request.retry_attempt,
            ..Self::default()
        }
    }
}

impl TypedMessage for MOSDOpReply {
    const TYPE: u16 = msg_type::CEPH_MSG_OSD_OPREPLY;
    const NAME: &'static str = "osd_op_reply";
    const VERSION: u16 = 8;
    const COMPAT_VERSION: u16 = 2;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| self.encode_front(enc));
        append_data(&self.ops, &mut payload.data);
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        let mut dec = Decoder::named("MOSDOpReply", &payload.front);
        check_version(&dec, header.version, OLDEST, 8)?;
        Self::decode_front(&mut dec, header.version, &payload.data)
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "osd_op_reply({} {} ", header.tid, self.oid)?;
        print_ops(f, &self.ops, "out")?;
        let safety = if self.flags.contains(OsdFlags::ONDISK) {
            "ondisk"
        } else if self.flags.contains(OsdFlags::ONNVRAM) {
            "onnvram"
        } else {
            "ack"
        };
        let (version, user_version) = (self.replay_version, self.user_version);
        write!(f, " v{version} uv{user_version} {safety} = {}", self.result)?;
        if self.result < 0 {
            let number = self.result.unsigned_abs();
            match error_text(number) {
                Some(text) => write!(f, " (({number}) {text})")?,
                None => write!(f, " (({number}) Unknown error {number})")?,
            }
        }
        if let Some(redirect) = &self.redirect {
            let RequestRedirect { locator, object } = redirect;
            write!(f, " redirect: {{ object {object}, locator{{{locator}}} }}")?;
        }
        f.write_str(")")
    }
}

/// Version 1 is from before pools had 64-bit numbers; peers that old have no msgr2.
const OLDEST: u8 = 2;

impl MOSDOpReply {
    fn encode_front(&self, enc: &mut Encoder) {
        let Self { pgid, flags, result, bad_replay_version, osdmap_epoch, .. } = *self;
        enc.value(&self.oid);
        enc.fixed((pgid, u64::from(flags.0), result, bad_replay_version, osdmap_epoch));
        enc.count(self.ops.len());
        encode_ops(enc, &self.ops);
        enc.i32(self.retry_attempt);
        for op in &self.ops {
            enc.i32(op.rval);
        }
        enc.fixed((self.replay_version, self.user_version));
        enc.value(&self.redirect);
        enc.value(&self.trace);
    }

    fn decode_front(dec: &mut Decoder<'_>, version: u16, data: &Rope) -> Result<Self, DecodeError> {
        let (oid, pgid) = (dec.value()?, dec.value()?);
        // 64 bits of which Ceph has never used the upper half.
        let (flags, result): (u64, i32) = dec.value()?;
        let (bad_replay_version, osdmap_epoch, count): (EVersion, _, _) = dec.value()?;
        let mut data = (version >= 4).then(|| DataCursor::new(data));
        let mut ops = decode_ops(dec, count, data.as_mut())?;
        let retry_attempt = if version >= 3 { dec.i32()? } else { -1 };
        if version >= 4 {
            for op in &mut ops {
                op.rval = dec.i32()?;
            }
        }
        let (replay_version, user_version) = if version >= 5 {
            dec.value()?
        } else {
            (bad_replay_version, bad_replay_version.version)
        };
        let redirect = match version {
            ..6 => None,
            6 => Some(dec.value()?).filter(|redirect: &RequestRedirect| {
                // Always there, and empty if there is none.
                !(redirect.locator.is_empty() && redirect.object.is_empty())
            }),
            7.. => dec.value()?,
        };
        let trace = if version >= 8 { dec.value()? } else { BlkinTrace::default() };
        dec.finish()?;
        Ok(Self {
            oid,
            pgid,
            flags: OsdFlags(flags as u32),
            result,
            bad_replay_version,
            osdmap_epoch,
            ops,
            retry_attempt,
            replay_version,
            user_version,
            redirect,
            trace,
        })
    }
}

/// What glibc says of an error that OSDs answer with, by its number in Linux.
fn error_text(number: u32) -> Option<&'static str> {
    Some(match number {
        1 => "Operation not permitted",
        2 => "No such file or directory",
        5 => "Input/output error",
        6 => "No such device or address",
        7 => "Argument list too long",
        11 => "Resource temporarily unavailable",
        12 => "Cannot allocate memory",
        13 => "Permission denied",
        16 => "Device or resource busy",
        17 => "File exists",
        19 => "No such device",
        22 => "Invalid argument",
        27 => "File too large",
        28 => "No space left on device",
        30 => "Read-only file system",
        34 => "Numerical result out of range",
        36 => "File name too long",
        39 => "Directory not empty",
        61 => "No data available",
        75 => "Value too large for defined data type",
        95 => "Operation not supported",
        107 => "Transport endpoint is not connected",
        108 => "Cannot send after transport endpoint shutdown",
        110 => "Connection timed out",
        116 => "Stale file handle",
        122 => "Disk quota exceeded",
        125 => "Operation canceled",
        _ => return None,
    })
}
