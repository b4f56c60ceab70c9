//! The structures of msgr1, packed and little-endian.

use bytes::{Buf, BufMut, BytesMut};
use siphon_wire::crc32c::crc32c;
use siphon_wire::types::{EntityName, EntityType, Features};

use crate::message::{MessageHeader, Priority};

/// What either side begins with (`CEPH_BANNER`).
pub(super) const BANNER: &[u8; 9] = b"ceph v027";
/// Bytes of an address in its legacy form.
pub(super) const ADDR: usize = 136;
/// The longest authorizer that is accepted, in bytes.
pub(super) const MAX_AUTHORIZER: u32 = 64 << 10;
/// `CEPH_MSG_CONNECT_LOSSY`.
pub(super) const LOSSY: u8 = 1;

/// `CEPH_MSGR_TAG_*`.
pub(super) mod tag {
    pub(crate) const READY: u8 = 1;
    pub(crate) const RESETSESSION: u8 = 2;
    pub(crate) const WAIT: u8 = 3;
    pub(crate) const RETRY_SESSION: u8 = 4;
    pub(crate) const RETRY_GLOBAL: u8 = 5;
    pub(crate) const CLOSE: u8 = 6;
    pub(crate) const MSG: u8 = 7;
    pub(crate) const ACK: u8 = 8;
    pub(crate) const KEEPALIVE: u8 = 9;
    pub(crate) const BADPROTOVER: u8 = 10;
    pub(crate) const BADAUTHORIZER: u8 = 11;
    pub(crate) const FEATURES: u8 = 12;
    pub(crate) const SEQ: u8 = 13;
    pub(crate) const KEEPALIVE2: u8 = 14;
    pub(crate) const KEEPALIVE2_ACK: u8 = 15;
    pub(crate) const CHALLENGE_AUTHORIZER: u8 = 16;
}

/// `CEPH_MSG_FOOTER_COMPLETE`: the sender did not give up on the message.
pub(super) const COMPLETE: u8 = 1;
/// `CEPH_MSG_FOOTER_NOCRC`: the data has no checksum.
pub(super) const NOCRC: u8 = 2;
/// `CEPH_MSG_FOOTER_SIGNED`.
pub(super) const SIGNED: u8 = 4;

/// What a client says first (`ceph_msg_connect`); an authorizer follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) features: Features,
    pub(super) host_type: u32,
    pub(super) global_seq: u32,
    pub(super) connect_seq: u32,
    pub(super) protocol_version: u32,
    pub(super) authorizer_protocol: u32,
    pub(super) authorizer_len: u32,
    pub(super) flags: u8,
}

impl Connect {
    pub(super) const LEN: usize = 33;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.features.0);
        out.put_u32_le(self.host_type);
        out.put_u32_le(self.global_seq);
        out.put_u32_le(self.connect_seq);
        out.put_u32_le(self.protocol_version);
        out.put_u32_le(self.authorizer_protocol);
        out.put_u32_le(self.authorizer_len);
        out.put_u8(self.flags);
    }

    /// `bytes` are as many as [`Connect::LEN`].
    pub(super) fn decode(mut bytes: &[u8]) -> Self {
        Self {
            features: Features(bytes.get_u64_le()),
            host_type: bytes.get_u32_le(),
            global_seq: bytes.get_u32_le(),
            connect_seq: bytes.get_u32_le(),
            protocol_version: bytes.get_u32_le(),
            authorizer_protocol: bytes.get_u32_le(),
            authorizer_len: bytes.get_u32_le(),
            flags: bytes.get_u8(),
        }
    }

    pub(super) fn peer_type(&self) -> EntityType {
        EntityType(u8::try_from(self.host_type).unwrap_or(EntityType::ANY.0))
    }
}

/// What a server answers (`ceph_msg_connect_reply`); its part of authentication follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectReply {
    pub(super) tag: u8,
    pub(super) features: Features,
    pub(super) global_seq: u32,
    pub(super) connect_seq: u32,
    pub(super) protocol_version: u32,
    pub(super) authorizer_len: u32,
    pub(super) flags: u8,
}

impl ConnectReply {
    pub(super) const LEN: usize = 26;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.tag);
        out.put_u64_le(self.features.0);
        out.put_u32_le(self.global_seq);
        out.put_u32_le(self.connect_seq);
        out.put_u32_le(self.protocol_version);
        out.put_u32_le(self.authorizer_len);
        out.put_u8(self.flags);
    }

    /// `bytes` are as many as [`ConnectReply::LEN`].
    pub(super) fn decode(mut bytes: &[u8]) -> Self {
        Self {
            tag: bytes.get_u8(),
            features: Features(bytes.get_u64_le()),
            global_seq: bytes.get_u32_le(),
            connect_seq: bytes.get_u32_le(),
            protocol_version: bytes.get_u32_le(),
            authorizer_len: bytes.get_u32_le(),
            flags: bytes.get_u8(),
        }
    }
}

/// A message's header (`ceph_msg_header`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) seq: u64,
    pub(super) front_len: u32,
    pub(super) middle_len: u32,
    pub(super) data_len: u32,
    pub(super) src: EntityName,
    pub(super) message: MessageHeader,
    /// Of all before it.
    pub(super) crc: u32,
}

impl Header {
    pub(super) const LEN: usize = 53;
    const CRC_AT: usize = Self::LEN - 4;

    /// Appends the header with its checksum, which is returned.
    pub(super) fn encode(&self, out: &mut BytesMut) -> u32 {
        let (at, m) = (out.len(), &self.message);
        out.put_u64_le(self.seq);
        out.put_u64_le(m.tid);
        out.put_u16_le(m.msg_type);
        out.put_u16_le(m.priority.0);
        out.put_u16_le(m.version);
        out.put_u32_le(self.front_len);
        out.put_u32_le(self.middle_len);
        out.put_u32_le(self.data_len);
        out.put_u16_le(m.data_off);
        out.put_u8(self.src.kind.0);
        out.put_i64_le(self.src.num);
        out.put_u16_le(m.compat_version);
        out.put_u16_le(0);
        let crc = crc32c(0, &out[at..]);
        out.put_u32_le(crc);
        crc
    }

    /// `bytes` are as many as [`Header::LEN`]. Returns the checksum that they have as well.
    pub(super) fn decode(bytes: &[u8]) -> (Self, u32) {
        let calculated = crc32c(0, &bytes[..Self::CRC_AT]);
        let mut bytes = bytes;
        let seq = bytes.get_u64_le();
        let tid = bytes.get_u64_le();
        let msg_type = bytes.get_u16_le();
        let priority = Priority(bytes.get_u16_le());
        let version = bytes.get_u16_le();
        let front_len = bytes.get_u32_le();
        let middle_len = bytes.get_u32_le();
        let data_len = bytes.get_u32_le();
        let data_off = bytes.get_u16_le();
        let src = EntityName::new(EntityType(bytes.get_u8()), bytes.get_i64_le());
        let compat_version = bytes.get_u16_le();
        let _reserved = bytes.get_u16_le();
        let crc = bytes.get_u32_le();
        let message = MessageHeader { msg_type, tid, priority, version, compat_version, data_off };
        (Self { seq, front_len, middle_len, data_len, src, message, crc }, calculated)
    }
}

/// What follows a message (`ceph_msg_footer`, or `ceph_msg_footer_old` without the signature).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) front_crc: u32,
    pub(super) middle_crc: u32,
    pub(super) data_crc: u32,
    pub(super) signature: u64,
    pub(super) flags: u8,
}

impl Footer {
    /// Peers without `MSG_AUTH` know of no signatures.
    pub(super) const fn len(features: Features) -> usize {
        if features.contains(Features::MSG_AUTH) { 21 } else { 13 }
    }

    pub(super) fn encode(&self, features: Features, out: &mut BytesMut) {
        out.put_u32_le(self.front_crc);
        out.put_u32_le(self.middle_crc);
        out.put_u32_le(self.data_crc);
        if features.contains(Features::MSG_AUTH) {
            out.put_u64_le(self.signature);
        }
        out.put_u8(self.flags);
    }

    /// `bytes` are as many as [`Footer::len`] says.
    pub(super) fn decode(features: Features, mut bytes: &[u8]) -> Self {
        let front_crc = bytes.get_u32_le();
        let middle_crc = bytes.get_u32_le();
        let data_crc = bytes.get_u32_le();
        let signed = features.contains(Features::MSG_AUTH);
        let signature = if signed { bytes.get_u64_le() } else { 0 };
        Self { front_crc, middle_crc, data_crc, signature, flags: bytes.get_u8() }
    }
}

/// The version of the protocol between two kinds of entities, of which `server` is the one that is
/// connected to (`AsyncMessenger::get_proto_version`; the numbers are those of Ceph's
/// `include/ceph_fs.h`, `mon/Monitor.h`, `osd/OSD.h` and `mds/MDSDaemon.h`).
pub(super) fn protocol_version(client: EntityType, server: EntityType) -> u32 {
    match (client == server, server) {
        (true, EntityType::MON) => 13,
        (true, EntityType::OSD) => 10,
        (true, EntityType::MDS) => 36,
        (false, EntityType::MON) => 15,
        (false, EntityType::OSD) => 24,
        (false, EntityType::MDS) => 32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_structure_has_its_length_and_comes_out_as_it_went_in() {
        let mut out = BytesMut::new();
        let connect = Connect {
            features: Features(0x0102_0304_0506_0708),
            host_type: 8,
            global_seq: 1,
            connect_seq: 2,
            protocol_version: 15,
            authorizer_protocol: 2,
            authorizer_len: 7,
            flags: LOSSY,
        };
        connect.encode(&mut out);
        assert_eq!((out.len(), Connect::decode(&out)), (Connect::LEN, connect));

        out.clear();
        let features = Features(3);
        let reply = ConnectReply { tag: tag::SEQ, features, connect_seq: 9, ..Default::default() };
        reply.encode(&mut out);
        assert_eq!((out.len(), ConnectReply::decode(&out)), (ConnectReply::LEN, reply));

        out.clear();
        let header = Header { seq: 5, data_len: 4, src: EntityName::osd(3), ..Default::default() };
        let crc = header.encode(&mut out);
        assert_eq!(out.len(), Header::LEN);
        assert_eq!(Header::decode(&out), (Header { crc, ..header }, crc));

        for (features, len) in [(Features::NONE, 13), (Features::MSG_AUTH, 21)] {
            out.clear();
            let footer = Footer { data_crc: 3, flags: COMPLETE, ..Default::default() };
            footer.encode(features, &mut out);
            assert_eq!((out.len(), Footer::len(features)), (len, len));
            assert_eq!(Footer::decode(features, &out), footer);
        }
    }
}
