use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{Epoch, Features, HObject, SpgId};

use super::decode_front;
use crate::osd::BackoffOp;
use crate::{TypedMessage, msg_type};

/// An OSD's wish that a client holds back requests for some objects of a placement group, the client's
/// answer, and the end of it.
///
/// ```
/// use siphon_messages::osd::BackoffOp;
/// use siphon_messages::{MOSDBackoff, TypedMessage};
/// use siphon_wire::types::Features;
/// let block = MOSDBackoff { op: BackoffOp::BLOCK, id: 7, ..MOSDBackoff::default() };
/// let message = block.acknowledgement().to_message(Features::ALL);
/// assert_eq!(MOSDBackoff::from_message(&message)?.op, BackoffOp::ACK_BLOCK);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MOSDBackoff {
    /// The placement group, or the shard of it that the OSD has.
    pub pgid: SpgId,
    /// The version of the OSD's map when it asked.
    pub map_epoch: Epoch,
    /// What is asked or answered.
    pub op: BackoffOp,
    /// Which request to hold back this is, within the session.
    pub id: u64,
    /// The first object that is meant.
    pub begin: HObject,
    /// The first object behind it that isn't, in the order of objects; the same as `begin` for one object
    /// only.
    pub end: HObject,
}

impl MOSDBackoff {
    /// What a client answers to [`BackoffOp::BLOCK`]. The epoch stays that of the OSD, which tells by it
    /// whether the placement group was split since.
    pub fn acknowledgement(&self) -> Self {
        Self { op: BackoffOp::ACK_BLOCK, ..self.clone() }
    }
}

impl TypedMessage for MOSDBackoff {
    const TYPE: u16 = msg_type::CEPH_MSG_OSD_BACKOFF;
    const NAME: &'static str = "osd_backoff";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.value(&self.pgid);
            enc.value(&self.map_epoch);
            enc.u8(self.op.0);
            enc.u64(self.id);
            enc.value(&self.begin);
            enc.value(&self.end);
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MOSDBackoff", |dec| {
            Ok(Self {
                pgid: dec.value()?,
                map_epoch: dec.value()?,
                op: BackoffOp(dec.u8()?),
                id: dec.u64()?,
                begin: dec.value()?,
                end: dec.value()?,
            })
        })
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pgid, map_epoch, op, id, begin, end } = self;
        write!(f, "osd_backoff({pgid} {op} id {id} [{begin},{end}) e{map_epoch})")
    }
}
