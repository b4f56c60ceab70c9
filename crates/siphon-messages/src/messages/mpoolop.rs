use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::types::{ByteString, Features, SnapId, Uuid};
use siphon_wire::{Decode as _, DecodeError};

use super::{decode_front, paxos_version, put_paxos};
use crate::{TypedMessage, msg_type};

/// What an [`MPoolOp`] does to a pool (`POOL_OP_*` of Ceph's `include/ceph_fs.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PoolOpCode(pub u32);

impl PoolOpCode {
    /// Make it, by the name; of `crush_rule`.
    pub const CREATE: Self = Self(0x01);
    /// Remove it.
    pub const DELETE: Self = Self(0x02);
    /// Make a snapshot of it, by the name.
    pub const CREATE_SNAP: Self = Self(0x11);
    /// Remove its snapshot of the name.
    pub const DELETE_SNAP: Self = Self(0x12);
    /// Give the number for a snapshot that the client manages: the answer's `response_data`.
    pub const CREATE_UNMANAGED_SNAP: Self = Self(0x21);
    /// Remove the snapshot of the number `snapid`.
    pub const DELETE_UNMANAGED_SNAP: Self = Self(0x22);
}

impl fmt::Display for PoolOpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::CREATE => "create",
            Self::DELETE => "delete",
            Self::CREATE_SNAP => "create snap",
            Self::DELETE_SNAP => "delete snap",
            Self::CREATE_UNMANAGED_SNAP => "create unmanaged snap",
            Self::DELETE_UNMANAGED_SNAP => "delete unmanaged snap",
            _ => "???",
        })
    }
}

/// Changes a pool or its snapshots; an [`MPoolOpReply`](super::MPoolOpReply) of the same `tid`
/// answers.
///
/// ```
/// use siphon_messages::{MPoolOp, PoolOpCode, TypedMessage};
/// let op = MPoolOp { pool: 3, op: PoolOpCode::CREATE_SNAP, name: "today".into(), ..MPoolOp::default() };
/// let message = op.to_message(siphon_wire::types::Features::ALL);
/// assert_eq!(MPoolOp::from_message(&message)?, op);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MPoolOp {
    /// The epoch of the OSD map that the client has.
    pub version: u64,
    /// The cluster that is meant.
    pub fsid: Uuid,
    /// The pool; 0 to make one.
    pub pool: u32,
    /// What to do.
    pub op: PoolOpCode,
    /// The snapshot, where a number is wanted.
    pub snapid: SnapId,
    /// The pool's name, or the snapshot's.
    pub name: ByteString,
    /// The CRUSH rule of a pool that is made; -1 for the default one.
    pub crush_rule: i16,
}

impl TypedMessage for MPoolOp {
    const TYPE: u16 = msg_type::CEPH_MSG_POOLOP;
    const NAME: &'static str = "poolop";
    const VERSION: u16 = 4;
    const COMPAT_VERSION: u16 = 2;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            put_paxos(enc, self.version);
            enc.value(&self.fsid);
            enc.u32(self.pool);
            enc.u32(self.op.0);
            enc.u64(0); // an owner, of old
            enc.value(&self.snapid);
            enc.value(&self.name);
            enc.u8(0); // the rule, in version 3
            enc.i16(self.crush_rule);
        })
    }

    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MPoolOp", |dec| {
            super::check_version(dec, header.version, 2, u8::MAX)?;
            let mut op = Self { version: paxos_version(dec)?, ..Self::default() };
            op.fsid = dec.value()?;
            op.pool = dec.u32()?;
            op.op = PoolOpCode(dec.u32()?);
            dec.skip(u64::MIN_SIZE)?;
            op.snapid = dec.value()?;
            op.name = dec.value()?;
            let rule = if header.version >= 3 { Some(dec.u8()?) } else { None };
            op.crush_rule = match rule {
                Some(_) if header.version >= 4 => dec.i16()?,
                Some(rule) => rule.into(),
                None => -1,
            };
            // A newer version appends.
            dec.skip(if header.version > Self::VERSION { dec.remaining() } else { 0 })?;
            Ok(op)
        })
    }

    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, pool, name, version, .. } = self;
        write!(f, "pool_op({op} pool {pool} tid {} name {name} v{version})", header.tid)
    }
}
