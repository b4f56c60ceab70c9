use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// Asks a monitor which versions of a map there are; an
/// [`MMonGetVersionReply`](super::MMonGetVersionReply) of the same `handle` answers.
///
/// ```
/// use siphon_messages::{MMonGetVersion, TypedMessage};
/// let question = MMonGetVersion { handle: 7, what: "osdmap".into() };
/// let message = question.to_message(siphon_wire::types::Features::ALL);
/// assert_eq!(MMonGetVersion::from_message(&message)?, question);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MMonGetVersion {
    /// Chosen by who asks, and found in the answer.
    pub handle: u64,
    /// The map: `osdmap`, `monmap`, `mdsmap`, `fsmap`.
    pub what: ByteString,
}

impl TypedMessage for MMonGetVersion {
    const TYPE: u16 = msg_type::CEPH_MSG_MON_GET_VERSION;
    const NAME: &'static str = "mon_get_version";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| {
            enc.u64(self.handle);
            enc.value(&self.what);
        })
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MMonGetVersion", |dec| {
            Ok(Self { handle: dec.u64()?, what: dec.value()? })
        })
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mon_get_version(what={} handle={})", self.what, self.handle)
    }
}
