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
    #[inline]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let short = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (words, _) = bytes.as_chunks().0.split_first_chunk().expect("two words of five");
        let [seq, tid] = words.map(u64::from_le_bytes);
        let ack_seq = bytes[28..].first_chunk().expect("13 bytes follow");
        Self {
            seq,
            ack_seq: u64::from_le_bytes(*ack_seq),
            flags: bytes[36],
            message: MessageHeader {
                msg_type: short(16),
                tid,
                priority: Priority(short(18)),
                version: short(20),
                compat_version: short(37),
                // Behind the version is data_pre_padding_len, which no sender uses.
                data_off: short(26),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place() {
        let header = MessageHeader2 {
            seq: 0x0807_0605_0403_0201,
            ack_seq: 0x2423_2221_201f_1e1d,
            flags: 0x25,
            message: MessageHeader {
                tid: 0x100f_0e0d_0c0b_0a09,
                msg_type: 0x1211,
                priority: Priority(0x1413),
                version: 0x1615,
                data_off: 0x1c1b,
                compat_version: 0x2726,
            },
        };
        let mut wire: [u8; MessageHeader2::LEN] = std::array::from_fn(|at| at as u8 + 1);
        assert_eq!(MessageHeader2::decode(&wire), header, "whatever is padding or reserved");
        let mut written = [0xff; MessageHeader2::LEN];
        header.put(&mut written);
        wire[22..26].fill(0); // data_pre_padding_len
        wire[39..].fill(0); // reserved
        assert_eq!((written, header.encode()), (wire, wire));
        let most = MessageHeader2::decode(&[0xff; MessageHeader2::LEN]);
        assert_eq!((most.seq, most.message.compat_version), (u64::MAX, u16::MAX));
    }
}
