//! Messages captured between Ceph's own programs of 18.2.7.

use bytes::Bytes;
use siphon_messages::{MOSDOp, MOSDOpReply, TypedMessage, describe_from};
use siphon_proto::{Message, MessageHeader, Payload};
use siphon_wire::types::{EntityName, Features, HObject, SpgId};

/// What `ceph_perf_msgr_client` sends to write 16 bytes.
const PERF_REQUEST: &str = "\
    01011200000001000000000000000000000000ffffffffff000000000000000000000000020215000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000006031c0000000000000000000000ffffffff0000000000000000ffffffffffffffff0b00\
    00006f626a6563742d6e616d650100012200000000000000000000000010000000000000000000000000000000\
    0000000000000000feffffffffffffff000000000000000000000000fffffffffffffdffbfcf013f";

/// What `ceph_perf_msgr_server` answers. It does not look at the operations, and so leaves out
/// the object's name and them.
const PERF_REPLY: &str = "\
    0000000001000000000000000000000000ffffffff000000000000000000000000000000000000000000000000\
    0000000000000000ffffffff000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000";

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_benchmarks_request() {
    let mut request = MOSDOp::new(0, HObject::new(0, "object-name", 0), SpgId::default());
    request.write_loose(0, Bytes::from_static(&[0; 16]).into());
    let message = request.to_message(Features::REEF);
    assert_eq!((message.header.version, message.header.compat_version), (8, 3));
    assert_eq!(message.payload.front, hex(PERF_REQUEST));
    assert_eq!(message.payload.data, [0; 16][..]);
    assert_eq!(MOSDOp::from_message(&message).unwrap(), request);
    assert_eq!(
        describe_from(&message, EntityName::client(0)),
        "osd_op(client.0.0:0 0.0 0:00000000:::object-name:head [write 0~16] \
         snapc 0=[] - e0) v8",
    );
}

#[test]
fn the_benchmarks_reply() {
    let header = MessageHeader { tid: 0, ..MOSDOpReply::header() };
    assert_eq!((header.version, header.compat_version), (8, 2));
    let payload = Payload { front: hex(PERF_REPLY).into(), ..Payload::default() };
    let message = Message::new(header, payload);
    let reply = MOSDOpReply::from_message(&message).unwrap();
    assert_eq!(reply, MOSDOpReply { retry_attempt: -1, ..MOSDOpReply::default() });
    assert_eq!(reply.to_message(Features::REEF).payload.front, message.payload.front);
}
