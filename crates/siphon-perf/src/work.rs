//! The benchmark's messages, as Ceph's own tools make them.

use bytes::Bytes;
use siphon_messages::osd::OsdFlags;
use siphon_messages::{MOSDOp, MOSDOpReply, MessageError, TypedMessage};
use siphon_proto::Message;
use siphon_wire::types::{Features, HObject, PgId, SnapId, SpgId};

/// Bytes of a frame around a message's front and data: preamble, header with its checksum,
/// epilogue (msgr2.1, crc mode).
const FRAME: usize = 32 + 41 + 4 + 13;

/// Bytes to send. They are not zeros: the kernel would give one page of memory for all of them,
/// which nobody's real data has.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| at as u8 | 1).collect()
}

/// A write of `data` to the object that Ceph's `ceph_perf_msgr_client` writes to, for a peer with
/// `features`.
pub(crate) fn request(tid: u64, data: &Bytes, features: Features) -> Message {
    let mut message = op(data).to_message(features);
    message.header.tid = tid;
    message
}

/// The answer to a request. Like Ceph's `ceph_perf_msgr_server`, it reads the request's head only,
/// so that the answer names neither object nor operations.
pub(crate) fn answer(request: &Message) -> Result<Message, MessageError> {
    let head = MOSDOp::head_of(request)?;
    // The reply's encoding does not depend on features.
    let mut message = MOSDOpReply::new(&head, 0, OsdFlags::NONE).to_message(Features::ALL);
    message.header.tid = request.header.tid;
    Ok(message)
}

/// Bytes on the wire of a request with `size` bytes of data, and of its answer.
pub fn wire_lengths(size: usize) -> (usize, usize) {
    let request = request(1, &Bytes::from(vec![0; size]), Features::ALL);
    let answer = answer(&request).map_or(0, |answer| answer.payload.len());
    (FRAME + request.payload.len(), FRAME + answer)
}

fn op(data: &Bytes) -> MOSDOp {
    let mut object = HObject::min();
    (object.pool, object.oid, object.snap) = (0, "object-name".into(), SnapId::HEAD);
    let mut op = MOSDOp::new(0, object, SpgId::from(PgId::default()));
    // Its operation does not say that the data is its own, which no OSD would take.
    op.write_loose(0, data.clone().into());
    op
}
