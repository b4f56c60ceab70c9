use bytes::Buf;

use crate::message::{MessageHeader, Priority};

/// The first segment of a MESSAGE frame: `ceph_msg_header2` of Ceph's `include/msgr.h`.
///
/// ```text
/// seq u64 | tid u64 | type u16 | priority u16 | version u16 | data_pre_padding_len u32
/// | data_off u16 | ack_seq u64 | flags u8 | compat_version u16 | reserved u16
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageHeader2 {
    /// Number of the message within its session.
    pub seq: u64,
    /// The newest message of the receiver's that the sender has seen.
    pub ack_seq: u64,
    /// `CEPH_MSG_FOOTER_*`; v2 gives them no meaning, senders set 3 (complete, no
    /// checksums in the message).
    pub flags: u8,
    /// What the application says of the message.
    pub message: MessageHeader,
}

impl MessageHeader2 {
    /// Bytes on the wire.
    pub const LEN: usize = 41;

    /// Its bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        self.put(&mut bytes);
        bytes
    }

    /// Writes its bytes, by words: the checksum reads words, and the processor has those at hand that were
    /// written as such.
    #[inline]
    pub(crate) fn put(&self, bytes: &mut [u8; Self::LEN]) {
        let Self { seq, ack_seq, flags, message: m } = *self;
        let [msg_type, priority] = [m.msg_type, m.priority.0].map(u64::from);
        let [version, compat_version, data_off] =
            [m.version, m.compat_version, m.data_off].map(u64::from);
        // data_pre_padding_len, behind the version, is 0: no sender pads. So is what is reserved, at the end.
        let words = [
            seq,
            m.tid,
            msg_type | priority << 16 | version << 32,
            data_off << 16 | ack_seq << 32,
            ack_seq >> 32 | u64::from(flags) << 32 | compat_version << 40,
        ];
        let (places, rest) = bytes.as_chunks_mut();
        for (place, word) in places.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        rest.fill(0);
    }

    /// Reads a header; every bit pattern is one.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let mut bytes = &bytes[..];
        let seq = bytes.get_u64_le();
        let tid = bytes.get_u64_le();
        let msg_type = bytes.get_u16_le();
        let priority = Priority(bytes.get_u16_le());
        let version = bytes.get_u16_le();
        let _data_pre_padding_len = bytes.get_u32_le();
        let data_off = bytes.get_u16_le();
        let ack_seq = bytes.get_u64_le();
        let flags = bytes.get_u8();
        let compat_version = bytes.get_u16_le();
        Self {
            seq,
            ack_seq,
            flags,
            message: MessageHeader { msg_type, tid, priority, version, compat_version, data_off },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place() {
        let header = MessageHeader2 {
            seq: 0x0102_0304_0506_0708,
            ack_seq: 0x1112_1314_1516_1718,
            flags: 1,
            message: MessageHeader {
                msg_type: 42,
                tid: 7,
                priority: Priority(127),
                version: 8,
                compat_version: 3,
                data_off: 0xabcd,
            },
        };
        let bytes = header.encode();
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16..22], [42, 0, 127, 0, 8, 0], "type, priority, version");
        assert_eq!(bytes[26..28], [0xcd, 0xab], "data_off behind the padding length");
        assert_eq!(bytes[36..41], [1, 3, 0, 0, 0], "flags, compat_version, reserved");
        assert_eq!(MessageHeader2::decode(&bytes), header);
    }
}
