//! The benchmark's messages, as Ceph's own tools make them.

use bytes::Bytes;
use siphon_messages::osd::OsdFlags;
use siphon_messages::{MOSDOp, MOSDOpReply, MessageError, TypedMessage};
use siphon_proto::{Message, OutMessage};
use siphon_wire::types::{Features, HObject, PgId, SnapId, SpgId};

/// Bytes of a frame around a message's front and data: preamble, header with its checksum,
/// epilogue (msgr2.1, crc mode).
const FRAME: usize = 32 + 41 + 4 + 13;

/// A write of `data` to the object that Ceph's `ceph_perf_msgr_client` writes to.
pub(crate) fn request(tid: u64, data: &Bytes) -> OutMessage {
    let mut message = op(data).into_out();
    message.header.tid = tid;
    message
}

/// The answer to a request.
pub(crate) fn answer(request: &Message) -> Result<OutMessage, MessageError> {
    let op = MOSDOp::from_message(request)?;
    let mut message = MOSDOpReply::new(&op, 0, OsdFlags::NONE).into_out();
    message.header.tid = request.header.tid;
    Ok(message)
}

/// Bytes on the wire of a request with `size` bytes of data, and of its answer.
pub fn wire_lengths(size: usize) -> (usize, usize) {
    let op = op(&Bytes::from(vec![0; size]));
    let request = op.to_message(Features::ALL).payload.len();
    let answer = MOSDOpReply::new(&op, 0, OsdFlags::NONE).to_message(Features::ALL).payload.len();
    (FRAME + request, FRAME + answer)
}

fn op(data: &Bytes) -> MOSDOp {
    let mut object = HObject::min();
    (object.pool, object.oid, object.snap) = (0, "object-name".into(), SnapId::HEAD);
    let mut op = MOSDOp::new(0, object, SpgId::from(PgId::default()));
    op.write(0, data.clone().into());
    op
}
