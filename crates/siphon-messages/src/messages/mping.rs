use siphon_proto::{MessageHeader, Payload};
use siphon_wire::DecodeError;
use siphon_wire::types::Features;

use super::decode_front;
use crate::{TypedMessage, msg_type};

/// Asks a daemon whether it lives. A monitor answers with a ping that carries its status as JSON
/// (`Monitor::handle_ping`); who has not authenticated yet may ask too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MPing {
    /// What the answer says; `None` in a question.
    pub text: Option<String>,
}

impl MPing {
    /// A question.
    pub const fn question() -> Self {
        Self { text: None }
    }

    /// An answer that says `text`.
    pub fn answer(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()) }
    }
}

impl TypedMessage for MPing {
    const TYPE: u16 = msg_type::CEPH_MSG_PING;
    const NAME: &'static str = "ping";
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(
        &self,
        features: Features,
        header: &mut MessageHeader,
        payload: &mut Payload,
    ) {
        let Some(text) = &self.text else {
            return;
        };
        // Ceph's class never encodes: a monitor fills in the payload itself, by which it also
        // passes by where the compat version is set.
        header.compat_version = 0;
        payload.front.encode(features, |enc| enc.value(text))
    }

    fn decode_payload(_header: &MessageHeader, payload: &Payload) -> Result<Self, DecodeError> {
        if payload.front.is_empty() {
            return Ok(Self::question());
        }
        decode_front(&payload.front, "MPing", |dec| Ok(Self { text: Some(dec.value()?) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_empty_and_an_answer_is_a_string() {
        let question = MPing::question().to_message(Features::ALL);
        assert!(question.payload.is_empty());
        assert_eq!((question.header.version, question.header.compat_version), (1, 1));
        let answer = MPing::answer("{}").to_message(Features::ALL);
        assert_eq!(&answer.payload.front[..], b"\x02\0\0\0{}");
        assert_eq!((answer.header.version, answer.header.compat_version), (1, 0));
        assert_eq!(MPing::from_message(&question).unwrap(), MPing::question());
        assert_eq!(MPing::from_message(&answer).unwrap(), MPing::answer("{}"));
    }
}
