//! The structures of msgr1, packed and little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use siphon_wire::crc32c::crc32c;
use siphon_wire::types::{EntityAddr, EntityName, EntityType, Features};
use siphon_wire::{DecodeError, Decoder, Encode as _};

use crate::message::{MessageHeader, Priority};

/// What either side begins with (`CEPH_BANNER`).
pub const BANNER: &[u8; 9] = b"ceph v027";
/// Bytes of an address in its legacy form.
pub(super) const ADDR: usize = 136;
/// The longest authorizer that is accepted, in bytes.
pub const MAX_AUTHORIZER: u32 = 64 << 10;
/// `CEPH_MSG_CONNECT_LOSSY`: a flag of who connects, that the session ends with its connection.
pub const LOSSY: u8 = 1;

macro_rules! tags {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        /// What a reply or a part of the stream is (`CEPH_MSGR_TAG_*`).
        pub mod tag {
            $(#[doc = $doc] pub const $name: u8 = $value;)*

            /// Ceph's name of a tag, if it has one.
            pub const fn name(tag: u8) -> Option<&'static str> {
                match tag {
                    $($name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

tags! {
    READY = 1, "A session is open.";
    RESETSESSION = 2, "The session to go on with is not known.";
    WAIT = 3, "Our own attempt to connect to you comes first.";
    RETRY_SESSION = 4, "Go on with a higher `connect_seq`.";
    RETRY_GLOBAL = 5, "Go on with a higher `global_seq`.";
    CLOSE = 6, "The sender ends the session.";
    MSG = 7, "A message.";
    ACK = 8, "Messages up to this one have arrived.";
    KEEPALIVE = 9, "Are you there? Nobody answers this one.";
    BADPROTOVER = 10, "The versions of the protocol differ.";
    BADAUTHORIZER = 11, "The authorizer is missing, or proves nothing.";
    FEATURES = 12, "The client lacks features.";
    SEQ = 13, "A session goes on.";
    KEEPALIVE2 = 14, "Are you there?";
    KEEPALIVE2_ACK = 15, "Yes.";
    CHALLENGE_AUTHORIZER = 16, "The authorizer has to answer a challenge.";
}

/// `CEPH_MSG_FOOTER_COMPLETE`: the sender did not give up on the message.
pub(super) const COMPLETE: u8 = 1;
/// `CEPH_MSG_FOOTER_NOCRC`: the data has no checksum.
pub(super) const NOCRC: u8 = 2;
/// `CEPH_MSG_FOOTER_SIGNED`.
pub(super) const SIGNED: u8 = 4;

/// What a server says behind its banner, two addresses in their legacy form; a client says one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAddrs {
    /// The server's own.
    pub server: EntityAddr,
    /// The client's, as the server sees it.
    pub client: EntityAddr,
}

impl ServerAddrs {
    /// Bytes on the wire.
    pub const LEN: usize = 2 * ADDR;

    /// Appends both.
    pub fn encode(&self, out: &mut BytesMut) {
        put_addr(&self.server, out);
        put_addr(&self.client, out);
    }

    /// Reads both.
    ///
    /// # Errors
    /// If these are no two addresses.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut dec = Decoder::new(bytes);
        Ok(Self { server: dec.value()?, client: dec.value()? })
    }
}

/// Appends an address in its legacy form, as a client does behind its banner.
pub fn put_addr(addr: &EntityAddr, out: &mut BytesMut) {
    out.put_slice(&addr.to_bytes(Features::NONE));
}

/// What a client says when it knows the addresses (`ceph_msg_connect`); an authorizer follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// Features that it offers.
    pub features: Features,
    /// What it is: an [`EntityType`].
    pub host_type: u32,
    /// Counts its connections to anybody.
    pub global_seq: u32,
    /// Counts the connections of this session.
    pub connect_seq: u32,
    /// Its version of the protocol; see [`protocol_version`].
    pub protocol_version: u32,
    /// The authorizer's method; 0 without one.
    pub authorizer_protocol: u32,
    /// The authorizer's length in bytes, at most [`MAX_AUTHORIZER`].
    pub authorizer_len: u32,
    /// Bit 0: lossy.
    pub flags: u8,
}

impl Connect {
    /// Bytes on the wire, without the authorizer.
    pub const LEN: usize = 33;

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.features.0);
        out.put_u32_le(self.host_type);
        out.put_u32_le(self.global_seq);
        out.put_u32_le(self.connect_seq);
        out.put_u32_le(self.protocol_version);
        out.put_u32_le(self.authorizer_protocol);
        out.put_u32_le(self.authorizer_len);
        out.put_u8(self.flags);
    }

    /// Reads it.
    ///
    /// # Panics
    /// If `bytes` are fewer than [`Connect::LEN`].
    pub fn decode(mut bytes: &[u8]) -> Self {
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
pub struct ConnectReply {
    /// What becomes of it: one of [`tag`].
    pub tag: u8,
    /// Features that both sides have, and those that the server requires.
    pub features: Features,
    /// With [`RETRY_GLOBAL`](tag::RETRY_GLOBAL): the highest that the server has seen.
    pub global_seq: u32,
    /// With [`RETRY_SESSION`](tag::RETRY_SESSION): that of the server.
    pub connect_seq: u32,
    /// The server's version of the protocol.
    pub protocol_version: u32,
    /// Length in bytes of what follows, at most [`MAX_AUTHORIZER`].
    pub authorizer_len: u32,
    /// Bit 0: lossy.
    pub flags: u8,
}

impl ConnectReply {
    /// Bytes on the wire, without what follows.
    pub const LEN: usize = 26;

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.tag);
        out.put_u64_le(self.features.0);
        out.put_u32_le(self.global_seq);
        out.put_u32_le(self.connect_seq);
        out.put_u32_le(self.protocol_version);
        out.put_u32_le(self.authorizer_len);
        out.put_u8(self.flags);
    }

    /// Reads it.
    ///
    /// # Panics
    /// If `bytes` are fewer than [`ConnectReply::LEN`].
    pub fn decode(mut bytes: &[u8]) -> Self {
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
pub fn protocol_version(client: EntityType, server: EntityType) -> u32 {
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
    fn tags_have_ceph_s_names() {
        assert_eq!(tag::name(tag::BADPROTOVER), Some("BADPROTOVER"));
        assert_eq!((tag::name(0), tag::name(17)), (None, None));
    }

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
        let server = EntityAddr::legacy("127.0.0.1:6789".parse().unwrap(), 7);
        let addrs = ServerAddrs { server, client: EntityAddr::NONE };
        addrs.encode(&mut out);
        assert_eq!(out.len(), ServerAddrs::LEN);
        assert_eq!(ServerAddrs::decode(&out.split().freeze()), Ok(addrs));

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
