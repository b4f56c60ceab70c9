use std::collections::VecDeque;
use std::time::Instant;

use siphon_wire::types::Features;

use crate::error::{PeerMisbehaved, ProtocolError};
use crate::message::{Message, MessageHeader, OutMessage, Payload};
use crate::queue::OutQueue;
use crate::throttle::Throttle;
use crate::v2::{Limits, MessageFrame, MessageHeader2};

/// `CEPH_MSG_FOOTER_COMPLETE` and `CEPH_MSG_FOOTER_NOCRC`, which Ceph sets in every header of msgr2:
/// the frame has the checksums, not the message.
const FLAGS: u8 = 1 | 2;

/// What outlives a link: the session's identity, sequence numbers, the messages that wait and, if
/// it is lossless, those that the peer has not acknowledged.
///
/// Invariants: `in_acked <= in_seq`; the numbers in `sent` rise and are at most `out_seq`;
/// `on_link <= sent.len()`; a lossy session keeps nothing in `sent`.
#[derive(Debug)]
pub(crate) struct Session {
    lossy: bool,
    features: Features,
    pub(crate) id: SessionId,
    /// The last message that we received, and the last one of which the peer was told.
    in_seq: u64,
    in_acked: u64,
    /// The last message that we numbered.
    out_seq: u64,
    queue: OutQueue,
    sent: VecDeque<Sent>,
    /// So many at the front of `sent` went over the link that we have; the others are to be sent
    /// again.
    on_link: usize,
    cookies: Cookies,
    /// What messages were charged to, until they are sent, and on a lossless session acknowledged.
    outgoing: Option<Throttle>,
    /// What is to be given back of that.
    freed: u64,
}

/// By which both sides know a session, and what orders their attempts to go on with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionId {
    /// 0 until it is known, and for lossy sessions.
    pub(crate) client_cookie: u64,
    pub(crate) server_cookie: u64,
    /// Links that were tried since it was opened.
    pub(crate) connect_seq: u64,
    pub(crate) peer_global_seq: u64,
}

/// A message that the peer may not have.
#[derive(Debug)]
struct Sent {
    seq: u64,
    message: OutMessage,
}

/// Numbers that are not 0 and not the same twice (splitmix64). Whoever could guess one would still
/// have to be authenticated.
#[derive(Debug)]
struct Cookies(u64);

impl Cookies {
    fn next(&mut self) -> u64 {
        loop {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            if mixed != 0 {
                return mixed;
            }
        }
    }
}

impl Session {
    pub(crate) fn new(cookie_seed: u64) -> Self {
        Self {
            lossy: false,
            features: Features::NONE,
            id: SessionId::default(),
            in_seq: 0,
            in_acked: 0,
            out_seq: 0,
            queue: OutQueue::default(),
            sent: VecDeque::new(),
            on_link: 0,
            cookies: Cookies(cookie_seed),
            outgoing: None,
            freed: 0,
        }
    }

    pub(crate) fn set_outgoing(&mut self, throttle: Throttle) {
        self.outgoing = Some(throttle);
    }

    /// This message needs not be sent any more, or never was.
    pub(crate) fn free(&mut self, message: &OutMessage) {
        self.freed += message.charge();
    }

    /// Gives back what has become free, all at once.
    pub(crate) fn settle(&mut self) {
        if self.freed > 0
            && let Some(throttle) = &self.outgoing
        {
            throttle.put(std::mem::take(&mut self.freed));
        }
    }

    fn forget_sent(&mut self) {
        self.freed += self.sent.drain(..).map(|sent| sent.message.charge()).sum::<u64>();
        self.sent = VecDeque::new();
        self.on_link = 0;
    }

    fn forget_queued(&mut self) {
        while let Some(message) = self.queue.pop() {
            self.free(&message);
        }
        self.queue = OutQueue::default();
    }

    pub(crate) fn is_lossy(&self) -> bool {
        self.lossy
    }

    pub(crate) fn in_seq(&self) -> u64 {
        self.in_seq
    }

    /// The session is open with a peer that has these features.
    pub(crate) fn open(&mut self, lossy: bool, features: Features) {
        self.features = features;
        if lossy {
            self.make_lossy();
        }
    }

    pub(crate) fn make_lossy(&mut self) {
        self.lossy = true;
        self.forget_sent();
        self.settle();
    }

    /// Our name for the session that we ask for.
    pub(crate) fn client_cookie(&mut self, lossy: bool) -> u64 {
        if !lossy && self.id.client_cookie == 0 {
            self.id.client_cookie = self.cookies.next();
        }
        self.id.client_cookie
    }

    /// A peer opens the session that it calls by this name; the numbers of what it sends begin anew.
    pub(crate) fn accept(&mut self, client_cookie: u64, peer_global_seq: u64, lossy: bool) -> u64 {
        self.in_seq = 0;
        self.in_acked = 0;
        self.id.client_cookie = client_cookie;
        self.id.peer_global_seq = peer_global_seq;
        if !lossy {
            self.id.server_cookie = self.cookies.next();
        }
        self.id.server_cookie
    }

    /// The peer knows nothing of a session: what it sends begins anew, what we have is still to be
    /// sent.
    pub(crate) fn introduce_again(&mut self) {
        self.id.server_cookie = 0;
        self.id.connect_seq = 0;
        self.in_seq = 0;
        self.in_acked = 0;
    }

    /// The peer has forgotten the session, and so do we: all that waits is dropped.
    pub(crate) fn reset(&mut self) {
        self.id = SessionId::default();
        self.in_seq = 0;
        self.in_acked = 0;
        self.out_seq = 0;
        self.forget_sent();
        self.forget_queued();
        self.settle();
    }

    /// What went over the link, and is not acknowledged, goes over the next one again.
    pub(crate) fn link_lost(&mut self) {
        self.on_link = 0;
        self.sent.shrink_to(0); // it may be long until there is one
    }

    pub(crate) fn push(&mut self, message: OutMessage) {
        self.queue.push(message);
    }

    /// Gives up room that only a busy session needs.
    pub(crate) fn release(&mut self) {
        if self.unsent() == 0 {
            self.queue = OutQueue::default();
            self.sent = VecDeque::new();
        }
    }

    /// Messages that were neither sent nor, on a lossless session, acknowledged.
    pub(crate) fn unsent(&self) -> usize {
        self.queue.len() + self.sent.len()
    }

    /// The last message that we numbered, and how many are queued and not acknowledged.
    pub(crate) fn outgoing(&self) -> (u64, usize, usize) {
        (self.out_seq, self.queue.len(), self.sent.len())
    }

    /// Whether there are messages that the peer has not acknowledged.
    pub(crate) fn is_unacknowledged(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Gives the next message to `write`, with its number, and the acknowledgement of what we
    /// received, which it carries if it `acks`. Says whether there was one, and whether it is sent
    /// again, or since when it had waited.
    pub(crate) fn transmit_next(
        &mut self,
        limits: &Limits,
        acks: bool,
        write: impl FnOnce(&MessageHeader2, &Payload),
    ) -> Result<Transmitted, ProtocolError> {
        let again = self.on_link < self.sent.len();
        let mut spent = None;
        let mut queued_at = None;
        let (seq, message) = if again {
            let sent = &self.sent[self.on_link];
            (sent.seq, &sent.message)
        } else {
            let Some(mut message) = self.queue.pop() else {
                return Ok(Transmitted::Nothing);
            };
            queued_at = message.take_queued();
            self.out_seq += 1;
            if self.lossy {
                self.free(&message); // it goes now, or never
                (self.out_seq, &*spent.insert(message))
            } else {
                self.sent.push_back(Sent { seq: self.out_seq, message });
                (self.out_seq, &self.sent[self.on_link].message)
            }
        };
        let header = |message: MessageHeader| MessageHeader2 {
            seq,
            ack_seq: self.in_seq,
            flags: FLAGS,
            message,
        };
        message.with_payload(self.features, |own, payload| {
            limits.check(payload).map_err(ProtocolError::ApiMisuse)?;
            write(&header(own), payload);
            Ok::<_, ProtocolError>(())
        })?;
        if acks {
            self.in_acked = self.in_seq;
        }
        if !self.lossy {
            self.on_link += 1;
        }
        Ok(if again { Transmitted::Again } else { Transmitted::First { queued_at, spent } })
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
        let MessageFrame { message, ack_seq, .. } = frame;
        self.handle_ack(ack_seq)?;
        if message.seq <= self.in_seq {
            return Ok(None);
        }
        self.in_seq = message.seq;
        Ok(Some(message))
    }

    /// The peer has everything up to `seq`.
    pub(crate) fn handle_ack(&mut self, seq: u64) -> Result<(), PeerMisbehaved> {
        if self.lossy {
            return Ok(());
        }
        if seq > self.out_seq {
            return Err(PeerMisbehaved::AckOfUnsent { acked: seq, sent: self.out_seq });
        }
        while self.sent.front().is_some_and(|sent| sent.seq <= seq)
            && let Some(sent) = self.sent.pop_front()
        {
            self.free(&sent.message);
            self.on_link = self.on_link.saturating_sub(1);
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.forget_sent();
        self.forget_queued();
        self.settle();
    }
}

/// What [`Session::transmit_next`] did.
#[derive(Debug)]
pub(crate) enum Transmitted {
    Nothing,
    /// Since when it had waited, and the message if nothing needs it any more.
    First {
        queued_at: Option<Instant>,
        spent: Option<OutMessage>,
    },
    Again,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(seq: u64, ack_seq: u64) -> MessageFrame {
        let mut message = Message::default();
        message.seq = seq;
        MessageFrame { message, ack_seq, flags: 0 }
    }

    fn outgoing(tid: u64) -> OutMessage {
        OutMessage::new(MessageHeader { tid, ..Default::default() }, Payload::default())
    }

    /// All that is to be sent now: numbers and transactions.
    fn transmit(session: &mut Session) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        loop {
            let write = |header: &MessageHeader2, _: &Payload| {
                all.push((header.seq, header.message.tid));
            };
            let sent = session.transmit_next(&Limits::SESSION, true, write).unwrap();
            if matches!(sent, Transmitted::Nothing) {
                return all;
            }
        }
    }

    #[test]
    fn messages_carry_acks_and_an_ack_of_its_own_follows_only_if_none_did() {
        let mut session = Session::new(1);
        assert!(session.handle_message(incoming(1, 0)).unwrap().is_some());
        session.push(outgoing(1));
        let mut acked = 0;
        session.transmit_next(&Limits::SESSION, true, |header, _| acked = header.ack_seq).unwrap();
        assert_eq!((acked, session.ack_due()), (1, None));
        assert!(session.handle_message(incoming(2, 1)).unwrap().is_some());
        assert_eq!(session.ack_due(), Some(2));
        assert_eq!(session.ack_due(), None);
    }

    #[test]
    fn a_repeated_message_is_dropped_and_a_gap_is_not() {
        let mut session = Session::new(1);
        for (seq, delivered) in [(1, true), (1, false), (5, true), (4, false), (6, true)] {
            assert_eq!(session.handle_message(incoming(seq, 0)).unwrap().is_some(), delivered);
        }
    }

    #[test]
    fn what_is_sent_once_is_spent_and_what_may_be_sent_again_is_kept() {
        for lossy in [true, false] {
            let mut session = Session::new(1);
            session.lossy = lossy;
            session.push(outgoing(7));
            let sent = session.transmit_next(&Limits::SESSION, true, |_, _| {}).unwrap();
            let Transmitted::First { spent, .. } = sent else { panic!("{sent:?}") };
            assert_eq!(spent.map(|message| message.header().tid), lossy.then_some(7));
            assert_eq!(session.unsent(), usize::from(!lossy));
        }
    }

    #[test]
    fn acks_count_what_was_sent_and_nothing_else() {
        let mut session = Session::new(1);
        (1..=3).for_each(|tid| session.push(outgoing(tid)));
        transmit(&mut session);
        session.push(outgoing(4));
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
    fn what_is_not_acknowledged_is_sent_again_before_anything_else_under_its_number() {
        let mut session = Session::new(1);
        (1..=4).for_each(|tid| session.push(outgoing(tid)));
        assert_eq!(transmit(&mut session), [(1, 1), (2, 2), (3, 3), (4, 4)]);
        session.handle_ack(1).unwrap();
        session.push(outgoing(5));
        session.link_lost();
        session.handle_ack(2).unwrap(); // as the peer says when it comes back
        assert_eq!(transmit(&mut session), [(3, 3), (4, 4), (5, 5)]);
        session.link_lost();
        session.handle_ack(5).unwrap();
        assert_eq!((transmit(&mut session).len(), session.unsent()), (0, 0));
    }

    #[test]
    fn an_ack_between_two_messages_sent_again_skips_none() {
        let mut session = Session::new(1);
        (1..=4).for_each(|tid| session.push(outgoing(tid)));
        transmit(&mut session);
        session.link_lost();
        let mut first = 0;
        session.transmit_next(&Limits::SESSION, true, |header, _| first = header.seq).unwrap();
        assert_eq!(first, 1);
        session.handle_ack(1).unwrap();
        assert_eq!(transmit(&mut session), [(2, 2), (3, 3), (4, 4)]);
    }

    #[test]
    fn a_reset_forgets_all_but_what_comes_after() {
        let mut session = Session::new(1);
        session.client_cookie(false);
        (1..=2).for_each(|tid| session.push(outgoing(tid)));
        transmit(&mut session);
        session.push(outgoing(3));
        session.handle_message(incoming(9, 0)).unwrap();
        session.reset();
        assert_eq!((session.unsent(), session.in_seq(), session.id), (0, 0, SessionId::default()));
        session.push(outgoing(4));
        assert_eq!(transmit(&mut session), [(1, 4)]);
    }

    #[test]
    fn a_lossy_session_keeps_and_acknowledges_nothing() {
        let mut session = Session::new(1);
        session.open(true, Features::NONE);
        session.push(outgoing(1));
        transmit(&mut session);
        session.handle_message(incoming(1, 0)).unwrap();
        assert_eq!((session.unsent(), session.ack_due()), (0, None));
    }

    #[test]
    fn cookies_are_neither_zero_nor_the_same() {
        let mut cookies = Cookies(0u64.wrapping_sub(0x9e37_79b9_7f4a_7c15));
        let drawn: std::collections::HashSet<u64> = (0..1000).map(|_| cookies.next()).collect();
        assert!(drawn.len() == 1000 && !drawn.contains(&0));
    }
}
