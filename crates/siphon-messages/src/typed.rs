use std::fmt;
use std::sync::Arc;

use siphon_proto::{EncodePayload, Message, MessageHeader, MessageParts, OutMessage, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use crate::message_name;

/// A Ceph message with named fields.
///
/// What belongs to any message (transaction id, priority) stays in its [`MessageHeader`]: set it
/// on what [`into_out`](Self::into_out) gives, and read it from the
/// [`Message`] that arrived.
pub trait TypedMessage: fmt::Debug + Send + Sync + Sized + 'static {
    /// Ceph's number for this type (`CEPH_MSG_*`, `MSG_*`).
    const TYPE: u16;
    /// Ceph's name for it in logs (`get_type_name`).
    const NAME: &'static str;
    /// Newest version of the encoding that is written and understood (`HEAD_VERSION`).
    const VERSION: u16;
    /// Oldest decoder that makes sense of [`VERSION`](Self::VERSION) (`COMPAT_VERSION`).
    const COMPAT_VERSION: u16;
    /// Whether the encoding depends on the peer's features.
    const BY_FEATURES: bool = false;

    /// Encodes the fields for a peer with `features` into `payload`, which is empty. `header` comes with
    /// the constants above, and is lowered to the version that was written.
    fn encode_payload(&self, features: Features, header: &mut MessageHeader, payload: &mut Payload);

    /// Reads the fields back; `header` says of which version they are. Large parts share the
    /// payload's memory.
    ///
    /// # Errors
    /// If the payload is not of this type, or of a version that is not understood.
    fn decode_payload(header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError>;

    /// Prints the message as Ceph's logs do, without the version that closes the line there.
    /// `header` is that of the message which these fields came from.
    ///
    /// # Errors
    /// As the formatter.
    fn print(&self, header: &MessageHeader, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = header;
        write!(f, "{} magic: 0", Self::NAME)
    }

    /// The header of a new message of this type.
    fn header() -> MessageHeader {
        MessageHeader {
            msg_type: Self::TYPE,
            version: Self::VERSION,
            compat_version: Self::COMPAT_VERSION,
            ..MessageHeader::default()
        }
    }

    /// The message as a peer with `features` would receive it.
    fn to_message(&self, features: Features) -> Message {
        let mut message = Message::default();
        let MessageParts { header, payload, .. } = &mut *message;
        *header = Self::header();
        self.encode_payload(features, header, payload);
        message
    }

    /// The message to be sent: encoded at once, or when the peer's features are known if the
    /// encoding depends on them.
    fn into_out(self) -> OutMessage {
        if Self::BY_FEATURES {
            return OutMessage::deferred(Self::header(), Arc::new(Deferred(self)));
        }
        self.to_message(Features::NONE).into()
    }

    /// Reads a message that arrived.
    ///
    /// # Errors
    /// If it is of another type, needs a newer decoder, or is malformed.
    fn from_message(message: &Message) -> Result<Self, MessageError> {
        let header = &message.header;
        if header.msg_type != Self::TYPE {
            return Err(MessageError::WrongType { expected: Self::TYPE, found: header.msg_type });
        }
        if header.compat_version > Self::VERSION {
            return Err(MessageError::TooNew {
                msg_type: Self::TYPE,
                compat_version: header.compat_version,
                understood: Self::VERSION,
            });
        }
        Self::decode_payload(header, &message.payload)
            .map_err(|error| MessageError::Decode { msg_type: Self::TYPE, error })
    }
}

/// Why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// It is of another type than was expected.
    WrongType {
        /// The expected type.
        expected: u16,
        /// Its type.
        found: u16,
    },
    /// Its sender says that only decoders of a newer version understand it.
    TooNew {
        /// Its type.
        msg_type: u16,
        /// The oldest version that may decode it.
        compat_version: u16,
        /// The newest version that we understand.
        understood: u16,
    },
    /// Its payload is malformed.
    Decode {
        /// Its type.
        msg_type: u16,
        /// What is wrong, and where in the payload.
        error: DecodeError,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType { expected, found } => {
                write!(f, "expected {}, found {}", Named(*expected), Named(*found))
            }
            Self::TooNew { msg_type, compat_version, understood } => write!(
                f,
                "{} needs a decoder of version {compat_version}, this one is of version {understood}",
                Named(*msg_type)
            ),
            Self::Decode { msg_type, error } => {
                write!(f, "{} is malformed: {error}", Named(*msg_type))
            }
        }
    }
}

impl std::error::Error for MessageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Decode { error, .. } => Some(error),
            Self::WrongType { .. } | Self::TooNew { .. } => None,
        }
    }
}

/// A message type as an error names it.
struct Named(u16);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match message_name(self.0) {
            Some(name) => write!(f, "a message {name} (type {})", self.0),
            None => write!(f, "a message of unknown type {}", self.0),
        }
    }
}

/// Carries a message to the moment when its peer's features are known.
#[derive(Debug)]
struct Deferred<M>(M);

impl<M: TypedMessage> EncodePayload for Deferred<M> {
    fn encode_payload(
        &self,
        features: Features,
        header: &mut MessageHeader,
        payload: &mut Payload,
    ) {
        self.0.encode_payload(features, header, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MMonGetMap, MPing};

    #[test]
    fn messages_that_cannot_be_read_say_why() {
        let error = |message: &Message| MPing::from_message(message).unwrap_err().to_string();
        let mut message = MMonGetMap.to_message(Features::ALL);
        assert_eq!(
            error(&message),
            "expected a message ping (type 2), found a message mon_getmap (type 5)",
        );
        message.header.msg_type = MPing::TYPE;
        message.payload.front = bytes::Bytes::from_static(b"abc").into();
        assert_eq!(
            error(&message),
            "a message ping (type 2) is malformed: MPing at byte 0: needs 4 bytes, 3 are left",
        );
        message.header.compat_version = 2;
        assert_eq!(
            error(&message),
            "a message ping (type 2) needs a decoder of version 2, this one is of version 1",
        );
    }
}
