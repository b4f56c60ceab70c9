//! Messages of an open session of msgr1, both ways.

use bytes::{BufMut, Bytes, BytesMut};
use siphon_auth::{Keys, SignedMessage};
use siphon_wire::buf::{Input, Rope, SegmentBuf, SegmentPool};
use siphon_wire::crc32c::crc32c;
use siphon_wire::types::{EntityName, Features};

use super::wire::{COMPLETE, Footer, Header, NOCRC, SIGNED, tag};
use crate::error::{PeerMisbehaved, ProtocolError};
use crate::front::Front;
use crate::message::{Grants, Message, Payload};
use crate::part::{Part, Shape};
use crate::v2::{FrameError, Limits, MessageFrame, MessageHeader2, SegmentName, Tag};

/// Parts up to this many bytes are copied behind their headers.
const COPY_MAX: usize = 1024;

/// What both sides agreed on for the session's messages.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) features: Features,
    /// Sign messages, if there is a session key.
    pub(super) keys: Keys,
    /// `ms_crc_data`.
    pub(super) crc_data: bool,
}

impl Terms {
    fn signature(&self, header: &Header, footer: &Footer) -> Option<u64> {
        if !self.features.contains(Features::MSG_AUTH) {
            return None;
        }
        self.keys.sign_message(&SignedMessage {
            cephx_v2: self.features.contains(Features::CEPHX_V2),
            header_crc: header.crc,
            front: (footer.front_crc, header.front_len),
            middle: (footer.middle_crc, header.middle_len),
            data: (footer.data_crc, header.data_len),
            seq: header.seq as u32,
        })
    }
}

/// Writes a message; what is small gathers in `gather`.
pub(super) fn write_message(
    terms: &Terms,
    src: EntityName,
    header: &MessageHeader2,
    payload: &Payload,
    gather: &mut BytesMut,
    out: &mut Rope,
) {
    let len = |len: usize| u32::try_from(len).expect("lengths were checked");
    let mut header = Header {
        seq: header.seq,
        front_len: len(payload.front.len()),
        middle_len: len(payload.middle.len()),
        data_len: len(payload.data.len()),
        src,
        message: header.message,
        crc: 0,
    };
    gather.reserve(1 + Header::LEN + 64);
    gather.put_u8(tag::MSG);
    header.crc = header.encode(gather);
    let mut footer = Footer {
        front_crc: crc32c(0, &payload.front),
        middle_crc: crc32c(0, &payload.middle),
        data_crc: 0,
        signature: 0,
        flags: COMPLETE,
    };
    if terms.crc_data {
        footer.data_crc = payload.data.crc32c(0);
    } else {
        footer.flags |= NOCRC;
    }
    if let Some(signature) = terms.signature(&header, &footer) {
        footer.signature = signature;
        footer.flags |= SIGNED;
    }
    // What is copied there anyway is in nobody's way.
    const { assert!(Front::MAX_OWN <= COPY_MAX, "short fronts are not shared") };
    let parts = [Input::from(&payload.front), Input::from(&payload.middle)];
    let data = payload.data.segments().iter().map(Input::from);
    for mut piece in parts.into_iter().chain(data) {
        if piece.len() <= COPY_MAX {
            gather.extend_from_slice(piece.rest());
        } else {
            out.push(gather.split().freeze());
            out.push(piece.take_bytes(piece.len()));
        }
    }
    footer.encode(terms.features, gather);
}

/// A message that is arriving.
#[derive(Debug, Default)]
pub(super) struct InMessage {
    header: Header,
    lengths: [usize; 3],
    /// The part being filled, which is `index`; those before it are done.
    part: Part,
    index: usize,
    /// Front and middle.
    done: [Bytes; 2],
    data: Rope,
    grants: Grants,
}

impl InMessage {
    /// Begins the message that this header announces.
    pub(super) fn begin(bytes: &[u8], limits: &Limits) -> Result<Self, FrameError> {
        let (header, calculated) = Header::decode(bytes);
        let (tag, segment) = (Tag::MESSAGE, SegmentName::Header);
        if header.crc != calculated {
            let expected = header.crc;
            return Err(FrameError::SegmentCrc { tag, segment, expected, calculated });
        }
        let parts = [
            (SegmentName::Front, header.front_len, limits.front),
            (SegmentName::Middle, header.middle_len, limits.middle),
            (SegmentName::Data, header.data_len, limits.data),
        ];
        for (segment, length, limit) in parts {
            if length > limit {
                return Err(FrameError::SegmentTooLong { tag, segment, length, limit });
            }
        }
        let lengths = parts.map(|(_, length, _)| length as usize);
        let mut message = Self { header, lengths, ..Self::default() };
        message.begin_part();
        Ok(message)
    }

    /// Bytes of the payload.
    pub(super) fn payload_len(&self) -> u64 {
        self.lengths.iter().map(|len| *len as u64).sum()
    }

    pub(super) fn set_grants(&mut self, grants: Grants) {
        self.grants = grants;
    }

    /// Moves bytes into the parts; true once all are there.
    pub(super) fn fill(
        &mut self,
        input: &mut Input<'_>,
        pool: &SegmentPool,
        copied: &mut u64,
    ) -> bool {
        while self.index < self.lengths.len() {
            let taken = self.part.fill(input, pool).len();
            if self.part.copies() {
                *copied += taken as u64;
            }
            if !self.part.is_full() {
                return false;
            }
            match self.done.get_mut(self.index) {
                Some(done) => *done = self.part.take_bytes(),
                None => self.data = self.part.take(),
            }
            self.index += 1;
            self.begin_part();
        }
        true
    }

    fn begin_part(&mut self) {
        if let Some(len) = self.lengths.get(self.index).copied() {
            let pieces = self.index == self.done.len();
            self.part.begin(Shape { len, page_aligned: false, pieces });
        }
    }

    pub(super) fn lend(&mut self, pool: &SegmentPool) -> Option<SegmentBuf> {
        self.part.lend(pool)
    }

    pub(super) fn give_back(&mut self, buffer: SegmentBuf) {
        self.part.give_back(buffer);
    }

    /// The message, whose footer has come; none if its sender gave up on it.
    pub(super) fn finish(
        mut self,
        terms: &Terms,
        footer: &[u8],
    ) -> Result<Option<MessageFrame>, ProtocolError> {
        let wire_len = 1 + Header::LEN + self.payload_len() as usize + footer.len();
        let footer = Footer::decode(terms.features, footer);
        if footer.flags & COMPLETE == 0 {
            return Ok(None);
        }
        let signature = terms.signature(&self.header, &footer);
        // The signature covers the checksum and not the flag, which anybody on the way can set: who
        // signs a checksum has one.
        let waived = footer.flags & NOCRC != 0 && (signature.is_none() || footer.data_crc == 0);
        let checked = terms.crc_data && !waived;
        let parts = [
            (SegmentName::Front, footer.front_crc),
            (SegmentName::Middle, footer.middle_crc),
            (SegmentName::Data, footer.data_crc),
        ];
        if checked {
            self.data.remember_crc32c(0);
        }
        let [front, middle] = &self.done;
        let crcs = [
            crc32c(0, front),
            crc32c(0, middle),
            match checked {
                true => self.data.crc32c(0),
                false => footer.data_crc,
            },
        ];
        for ((segment, expected), calculated) in parts.into_iter().zip(crcs) {
            if calculated != expected {
                let tag = Tag::MESSAGE;
                return Err(FrameError::SegmentCrc { tag, segment, expected, calculated }.into());
            }
        }
        if signature.is_some_and(|it| it != footer.signature) {
            return Err(PeerMisbehaved::BadMessageSignature { seq: self.header.seq }.into());
        }
        let ([front, middle], data) = (self.done, self.data);
        let payload = Payload { front: front.into(), middle, data };
        let mut message = Message::new(self.header.message, payload);
        message.seq = self.header.seq;
        message.grants = self.grants;
        message.wire_len = wire_len;
        Ok(Some(MessageFrame { message, ack_seq: 0, flags: footer.flags }))
    }
}
