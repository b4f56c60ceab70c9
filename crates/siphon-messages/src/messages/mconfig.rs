use std::collections::BTreeMap;
use std::fmt;

use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::{ByteString, Features};

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// The options that the monitors' central configuration has for whoever subscribed to it.
///
/// ```
/// use siphon_messages::{MConfig, TypedMessage};
/// let config = MConfig { config: [("ms_crc_data".into(), "false".into())].into() };
/// let message = config.to_message(siphon_wire::types::Features::ALL);
/// assert_eq!(MConfig::from_message(&message)?, config);
/// # Ok::<(), siphon_messages::MessageError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MConfig {
    /// Values by the options' names, as text.
    pub config: BTreeMap<ByteString, ByteString>,
}

impl TypedMessage for MConfig {
    const TYPE: u16 = msg_type::MSG_CONFIG;
    const NAME: &'static str = "config";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, features: Features, _: &mut MessageHeader, payload: &mut Payload) {
        payload.front.encode(features, |enc| enc.value(&self.config))
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        decode_front(&payload.front, "MConfig", |dec| Ok(Self { config: dec.value()? }))
    }

    fn print(&self, _header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config({} keys)", self.config.len())
    }
}
