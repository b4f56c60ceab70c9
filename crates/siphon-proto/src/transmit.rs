use std::time::Duration;

use siphon_wire::buf::Rope;

use crate::OutMessage;

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
    /// Messages sent for the first time that waited for nothing: they go in the turn in which they came.
    pub at_once: u64,
    /// How long each other message had waited that is sent for the first time.
    pub waits: Vec<Duration>,
    /// Messages that are sent once and that nothing needs any more, to be dropped when the bytes are on their
    /// way: the peer has them the sooner. Whoever writes next drops what is left here.
    pub spent: Vec<OutMessage>,
}
