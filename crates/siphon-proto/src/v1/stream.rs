//! Messages of an open session of msgr1, both ways.

use bytes::{BufMut, Bytes, BytesMut};
use siphon_auth::{Keys, SignedMessage};
use siphon_wire::buf::{Rope, SegmentBuf, SegmentPool};
use siphon_wire::crc32c::crc32c;
use siphon_wire::types::{EntityName, Features};

use super::wire::{COMPLETE, Footer, Header, NOCRC, SIGNED, tag};
use crate::error::{PeerMisbehaved, ProtocolError};
use crate::message::{Grants, Payload};
use crate::v2::{FrameError, Limits, MessageFrame, MessageHeader2, SegmentName, Tag};

/// Parts up to this many bytes are copied behind their headers.
const COPY_MAX: usize = 1024;
/// A part with at least this much still to come is worth reading straight into its place.
const MIN_DIRECT: usize = 16 << 10;

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
        let data = payload.data.segments().iter();
        footer.data_crc = data.fold(0, |crc, piece| crc32c(crc, piece));
    } else {
        footer.flags |= NOCRC;
    }
    if let Some(signature) = terms.signature(&header, &footer) {
        footer.signature = signature;
        footer.flags |= SIGNED;
    }
    let parts = [&payload.front, &payload.middle];
    for piece in parts.into_iter().chain(payload.data.segments()) {
        if piece.len() <= COPY_MAX {
            gather.extend_from_slice(piece);
        } else {
            out.push(gather.split().freeze());
            out.push(piece.clone());
        }
    }
    footer.encode(terms.features, gather);
}

/// A message that is arriving.
#[derive(Debug, Default)]
pub(super) struct InMessage {
    header: Header,
    lengths: [usize; 3],
    done: [Bytes; 3],
    /// The part being filled; those before it are done.
    index: usize,
    filling: Filling,
    grants: Grants,
}

#[derive(Debug, Default)]
enum Filling {
    #[default]
    None,
    Small(BytesMut),
    Large(SegmentBuf),
    /// The buffer is with the transport.
    Lent,
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
        Ok(Self { header, lengths, ..Self::default() })
    }

    /// Bytes of the payload.
    pub(super) fn payload_len(&self) -> u64 {
        self.lengths.iter().map(|len| *len as u64).sum()
    }

    pub(super) fn set_grants(&mut self, grants: Grants) {
        self.grants = grants;
    }

    /// Moves bytes into the parts; true once all are there.
    pub(super) fn fill(&mut self, input: &mut &[u8], pool: &SegmentPool) -> bool {
        while let Some(len) = self.lengths.get(self.index).copied() {
            if matches!(self.filling, Filling::None) {
                self.filling = match len {
                    0 => {
                        self.index += 1;
                        continue;
                    }
                    len if len < MIN_DIRECT => Filling::Small(BytesMut::with_capacity(len)),
                    len => Filling::Large(pool.take(len)),
                };
            }
            let missing = match &self.filling {
                Filling::None => 0,
                Filling::Small(buffer) => len - buffer.len(),
                Filling::Large(buffer) => buffer.remaining(),
                Filling::Lent => return false,
            };
            let (taken, rest) = input.split_at(missing.min(input.len()));
            *input = rest;
            match &mut self.filling {
                Filling::None | Filling::Lent => {}
                Filling::Small(buffer) => buffer.extend_from_slice(taken),
                Filling::Large(buffer) => {
                    buffer.unfilled()[..taken.len()].copy_from_slice(taken);
                    buffer.advance(taken.len());
                }
            }
            if taken.len() < missing {
                return false;
            }
            self.done[self.index] = match std::mem::take(&mut self.filling) {
                Filling::Small(buffer) => buffer.freeze(),
                Filling::Large(buffer) => buffer.freeze(),
                Filling::None | Filling::Lent => Bytes::new(),
            };
            self.index += 1;
        }
        true
    }

    pub(super) fn lend(&mut self) -> Option<SegmentBuf> {
        match std::mem::replace(&mut self.filling, Filling::Lent) {
            Filling::Large(buffer) if buffer.remaining() >= MIN_DIRECT => Some(buffer),
            other => {
                self.filling = other;
                None
            }
        }
    }

    pub(super) fn give_back(&mut self, buffer: SegmentBuf) {
        debug_assert!(
            matches!(self.filling, Filling::Lent),
            "a buffer comes back that was not lent"
        );
        self.filling = Filling::Large(buffer);
    }

    /// The message, whose footer has come; none if its sender gave up on it.
    pub(super) fn finish(
        self,
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
            (SegmentName::Front, footer.front_crc, true),
            (SegmentName::Middle, footer.middle_crc, true),
            (SegmentName::Data, footer.data_crc, checked),
        ];
        for ((segment, expected, checked), part) in parts.into_iter().zip(&self.done) {
            let calculated = if checked { crc32c(0, part) } else { expected };
            if calculated != expected {
                let tag = Tag::MESSAGE;
                return Err(FrameError::SegmentCrc { tag, segment, expected, calculated }.into());
            }
        }
        if signature.is_some_and(|it| it != footer.signature) {
            return Err(PeerMisbehaved::BadMessageSignature { seq: self.header.seq }.into());
        }
        let [front, middle, data] = self.done;
        let Header { seq, message, .. } = self.header;
        let header = MessageHeader2 { seq, ack_seq: 0, flags: footer.flags, message };
        Ok(Some(MessageFrame { header, front, middle, data, wire_len, grants: self.grants }))
    }
}
