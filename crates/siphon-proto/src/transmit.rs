use std::time::Duration;

use siphon_wire::buf::Rope;

/// What connections have to be sent, and what is to be told of it. Whoever sends it takes what it wants
/// from here, and keeps the rest for its capacity.
///
/// ```
/// let mut transmit = siphon_proto::Transmit::default();
/// assert!(transmit.out.is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Transmit {
    /// The bytes.
    pub out: Rope,
    /// Messages in them, also those that are sent again.
    pub messages: u64,
    /// Bytes of their frames.
    pub message_bytes: u64,
    /// The budget ended it: there may be more to be sent.
    pub more: bool,
    /// How long each message that is sent for the first time had waited for that.
    pub waits: Vec<Duration>,
}
