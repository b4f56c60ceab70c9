use siphon_wire::types::Features;

use crate::error::PeerMisbehaved;
use crate::message::{Message, OutMessage, OutPayload, Payload};
use crate::queue::OutQueue;
use crate::v2::{MessageFrame, MessageHeader2};

/// `CEPH_MSG_FOOTER_COMPLETE` and `CEPH_MSG_FOOTER_NOCRC`, which Ceph sets in every header of msgr2:
/// the frame has the checksums, not the message.
const FLAGS: u8 = 1 | 2;

/// What outlives a link: sequence numbers, and the messages that wait.
///
/// Invariants: `in_acked <= in_seq`, `out_acked <= out_seq`.
#[derive(Debug)]
pub(crate) struct Session {
    lossy: bool,
    features: Features,
    /// The last message that we received, and the last one of which the peer was told.
    in_seq: u64,
    in_acked: u64,
    /// The last message that we numbered, and the last one that the peer told us of.
    out_seq: u64,
    out_acked: u64,
    queue: OutQueue,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            lossy: false,
            features: Features::NONE,
            in_seq: 0,
            in_acked: 0,
            out_seq: 0,
            out_acked: 0,
            queue: OutQueue::default(),
        }
    }

    /// The session is open with a peer that has these features.
    pub(crate) fn open(&mut self, lossy: bool, features: Features) {
        self.lossy |= lossy;
        self.features = features;
    }

    pub(crate) fn make_lossy(&mut self) {
        self.lossy = true;
    }

    pub(crate) fn push(&mut self, message: OutMessage) {
        self.queue.push(message);
    }

    /// Messages that were neither sent nor, on a lossless session, acknowledged.
    pub(crate) fn unsent(&self) -> usize {
        let unacked = if self.lossy { 0 } else { self.out_seq - self.out_acked };
        self.queue.len() + unacked as usize
    }

    /// Numbers the next message to send; its header acknowledges what we received.
    pub(crate) fn next_outgoing(&mut self) -> Option<(MessageHeader2, Payload)> {
        let OutMessage { mut header, payload } = self.queue.pop()?;
        let payload = match payload {
            OutPayload::Encoded(payload) => payload,
            OutPayload::Deferred(body) => body.encode_payload(self.features, &mut header),
        };
        self.out_seq += 1;
        self.in_acked = self.in_seq;
        let header2 = MessageHeader2 {
            seq: self.out_seq,
            ack_seq: self.in_seq,
            flags: FLAGS,
            message: header,
        };
        Some((header2, payload))
    }

    /// The acknowledgement that no message carried, if one is due.
    pub(crate) fn ack_due(&mut self) -> Option<u64> {
        if self.lossy || self.in_acked == self.in_seq {
            return None;
        }
        self.in_acked = self.in_seq;
        Some(self.in_seq)
    }

    /// A message arrived; none comes out if it is one that we had before.
    ///
    /// Numbers may skip ahead: a sender can withdraw a message that it numbered already, as the
    /// kernel's client does.
    pub(crate) fn handle_message(
        &mut self,
        frame: MessageFrame,
    ) -> Result<Option<Message>, PeerMisbehaved> {
        self.handle_ack(frame.header.ack_seq)?;
        let seq = frame.header.seq;
        if seq <= self.in_seq {
            return Ok(None);
        }
        self.in_seq = seq;
        Ok(Some(Message {
            header: frame.header.message,
            payload: Payload { front: frame.front, middle: frame.middle, data: frame.data.into() },
            seq,
        }))
    }

    /// The peer has everything up to `seq`.
    pub(crate) fn handle_ack(&mut self, seq: u64) -> Result<(), PeerMisbehaved> {
        if self.lossy {
            return Ok(());
        }
        if seq > self.out_seq {
            return Err(PeerMisbehaved::AckOfUnsent { acked: seq, sent: self.out_seq });
        }
        self.out_acked = self.out_acked.max(seq);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::MessageHeader;

    fn incoming(seq: u64, ack_seq: u64) -> MessageFrame {
        MessageFrame {
            header: MessageHeader2 { seq, ack_seq, ..Default::default() },
            front: Bytes::new(),
            middle: Bytes::new(),
            data: Bytes::new(),
            wire_len: 0,
        }
    }

    fn outgoing() -> OutMessage {
        OutMessage::new(MessageHeader::default(), Payload::default())
    }

    #[test]
    fn messages_carry_acks_and_an_ack_of_its_own_follows_only_if_none_did() {
        let mut session = Session::new();
        assert!(session.handle_message(incoming(1, 0)).unwrap().is_some());
        session.push(outgoing());
        assert_eq!(session.next_outgoing().unwrap().0.ack_seq, 1);
        assert_eq!(session.ack_due(), None);
        assert!(session.handle_message(incoming(2, 1)).unwrap().is_some());
        assert_eq!(session.ack_due(), Some(2));
        assert_eq!(session.ack_due(), None);
    }

    #[test]
    fn a_repeated_message_is_dropped_and_a_gap_is_not() {
        let mut session = Session::new();
        for (seq, delivered) in [(1, true), (1, false), (5, true), (4, false), (6, true)] {
            assert_eq!(session.handle_message(incoming(seq, 0)).unwrap().is_some(), delivered);
        }
    }

    #[test]
    fn acks_count_what_was_sent_and_nothing_else() {
        let mut session = Session::new();
        for _ in 0..3 {
            session.push(outgoing());
            session.next_outgoing();
        }
        session.push(outgoing());
        assert_eq!(session.unsent(), 4);
        session.handle_ack(2).unwrap();
        assert_eq!(session.unsent(), 2);
        assert_eq!(
            session.handle_ack(4),
            Err(PeerMisbehaved::AckOfUnsent { acked: 4, sent: 3 }),
            "the fourth is queued, not sent"
        );
    }

    #[test]
    fn a_lossy_session_keeps_and_acknowledges_nothing() {
        let mut session = Session::new();
        session.open(true, Features::NONE);
        session.push(outgoing());
        session.next_outgoing();
        session.handle_message(incoming(1, 0)).unwrap();
        assert_eq!((session.unsent(), session.ack_due()), (0, None));
    }
}
