//! The benchmark's messages, as Ceph's own tools make them.

use std::fmt::Write as _;

use bytes::Bytes;
use siphon_messages::osd::OsdFlags;
use siphon_messages::{MOSDOp, MOSDOpReply, MessageError, TypedMessage};
use siphon_proto::Message;
use siphon_proto::v2::compression::{Algorithm, Compressor};
use siphon_wire::buf::Rope;
use siphon_wire::types::{Features, HObject, PgId, SnapId, SpgId};

/// Bytes of a frame around a message's front and data: preamble, header with its checksum,
/// epilogue (msgr2.1, crc mode).
const FRAME: usize = 32 + 41 + 4 + 13;

/// What the data of requests is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Numbers that count up: nothing looks at them.
    #[default]
    Counting,
    /// Lines of a daemon's log, which compress to a third or a fourth.
    Log,
    /// Random numbers, which do not compress.
    Random,
}

impl Content {
    /// So many bytes of it, the same each time. They are not zeros: the kernel would give one page of
    /// memory for all of them, which nobody's real data has.
    pub fn bytes(self, len: usize) -> Vec<u8> {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        match self {
            Self::Counting => (0..len).map(|at| at as u8 | 1).collect(),
            Self::Random => (0..len).map(|_| next() as u8).collect(),
            Self::Log => {
                let mut text = String::with_capacity(len + 128);
                let mut us = 0;
                while text.len() < len {
                    let (a, b) = (next(), next());
                    us += a % 1000;
                    let operation = ["read", "write", "stat", "delete", "omap_get"][b as usize % 5];
                    let (seconds, us) = (us / 1_000_000 % 60, us % 1_000_000);
                    let _ = writeln!(
                        text,
                        "2026-01-05T10:12:{seconds:02}.{us:06}+0000 7f3a{:08x} 10 osd.{} pg_epoch: {} \
                         pg[{}.{:x}] {operation} rbd_data.{:012x}.{:016x} {}~4096",
                        a as u32,
                        b >> 8 & 63,
                        4711 + (b >> 16 & 7),
                        b >> 20 & 7,
                        b >> 24 & 255,
                        0x1f2e_3d4c_5b6a_u64,
                        b >> 32 & 0xfff,
                        (b >> 44 & 1023) * 4096,
                    );
                }
                text.truncate(len);
                text.into_bytes()
            }
        }
    }

    /// What `algorithm` leaves of each byte of so much of it.
    pub fn compressed(self, len: usize, algorithm: Algorithm) -> f64 {
        let packed = Compressor::new(algorithm).compress(&Bytes::from(self.bytes(len)).into());
        packed.map_or(1.0, |packed| packed.len() as f64 / len.max(1) as f64)
    }
}

/// The request with this number, for a peer with `features`.
pub(crate) fn request(op: &MOSDOp, tid: u64, features: Features) -> Message {
    let mut message = op.to_message(features);
    message.header.tid = tid;
    message
}

/// The answer to a request. Like Ceph's `ceph_perf_msgr_server`, it reads the request's head only,
/// so that the answer names neither object nor operations.
pub(crate) fn answer(request: &Message) -> Result<Message, MessageError> {
    let mut head = MOSDOp::default();
    head.fill_head(request)?;
    // The reply's encoding does not depend on features.
    let mut message = MOSDOpReply::new(&head, 0, OsdFlags::NONE).to_message(Features::ALL);
    message.header.tid = request.header.tid;
    Ok(message)
}

/// Bytes on the wire of a request with `size` bytes of data, and of its answer.
pub fn wire_lengths(size: usize) -> (usize, usize) {
    let op = op(Bytes::from(vec![0; size]).into());
    let request = request(&op, 1, Features::ALL);
    let answer = answer(&request).map_or(0, |answer| answer.payload.len());
    (FRAME + request.payload.len(), FRAME + answer)
}

/// A write of `data` to the object that Ceph's `ceph_perf_msgr_client` writes to.
pub(crate) fn op(data: Rope) -> MOSDOp {
    let mut object = HObject::min();
    (object.pool, object.oid, object.snap) = (0, "object-name".into(), SnapId::HEAD);
    let mut op = MOSDOp::new(0, object, SpgId::from(PgId::default()));
    // Its operation does not say that the data is its own, which no OSD would take.
    op.write_loose(0, data);
    op
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_compresses_as_logs_do_and_random_bytes_do_not() {
        for algorithm in Algorithm::ALL {
            let log = Content::Log.compressed(1 << 20, algorithm);
            assert!((0.15..0.5).contains(&log), "{algorithm}: {log}");
            assert!(Content::Random.compressed(1 << 20, algorithm) > 0.99);
        }
        assert_eq!(Content::Log.bytes(1001).len(), 1001);
    }
}
