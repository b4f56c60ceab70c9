//! What arrives in buffers that can be shared stays where it is.

use bytes::Bytes;
use siphon_proto::MessageHeader;
use siphon_proto::Payload;
use siphon_proto::v2::{
    Assembler, Disassembler, Frame, Framing, Limits, MessageFrame, MessageHeader2, Protection,
    Revision,
};
use siphon_wire::buf::{Input, Rope, SegmentPool};

const COUNT: u64 = 20;

/// Messages with this much data, as they are on the wire.
fn stream(framing: Framing, data: usize) -> Vec<u8> {
    let mut assembler = Assembler::new(framing);
    let mut out = Rope::new();
    for seq in 1..=COUNT {
        let data = Bytes::from_iter((0..data).map(|at| (at as u64 * seq) as u8)).into();
        let payload = Payload { front: vec![seq as u8; 200].into(), middle: Bytes::new(), data };
        let message = MessageHeader { tid: seq, ..MessageHeader::default() };
        let header = MessageHeader2 { seq, ack_seq: 0, flags: 0, message };
        assembler.message(&header, &payload, &mut out);
    }
    assembler.flush(&mut out);
    out.to_bytes().to_vec()
}

/// Receives a stream in chunks; returns the messages and how many bytes were copied.
fn receive(framing: Framing, chunks: &[Bytes]) -> (Vec<MessageFrame>, u64) {
    let mut disassembler = Disassembler::new(framing, Limits::SESSION, SegmentPool::new(0));
    let mut messages = Vec::new();
    for chunk in chunks {
        let mut input = Input::from(chunk);
        while let Some(frame) = disassembler.feed(&mut input).unwrap() {
            let Frame::Message(message) = frame else { panic!("{frame:?}") };
            messages.push(message);
        }
    }
    (messages, disassembler.take_copied())
}

#[test]
fn data_lies_in_the_chunks_it_arrived_in_and_nothing_is_copied() {
    for revision in [Revision::Rev0, Revision::Rev1] {
        let framing = Framing { revision, protection: Protection::Crc { data: true } };
        for data in [4 << 10, 64 << 10, 1 << 20] {
            let stream = stream(framing, data);
            for chunk in [128 << 10, 64 << 10, 5000] {
                let chunks: Vec<_> = stream.chunks(chunk).map(Bytes::copy_from_slice).collect();
                let within = |piece: &Bytes| {
                    let at = piece.as_ptr_range();
                    chunks
                        .iter()
                        .map(|it| it.as_ptr_range())
                        .any(|it| it.start <= at.start && at.end <= it.end)
                };
                let (messages, copied) = receive(framing, &chunks);
                assert_eq!(messages.len() as u64, COUNT);
                // A front that lies across two chunks is made one.
                assert!(copied <= 200 * COUNT.min(chunks.len() as u64), "{copied} bytes");
                for (seq, MessageFrame { message, .. }) in (1..).zip(messages) {
                    assert!(
                        message.payload.data.segments().iter().all(within),
                        "{data} in {chunk}"
                    );
                    let expected = (0..data).map(|at| (at as u64 * seq) as u8);
                    assert!(message.payload.data.iter().eq(expected));
                    assert_eq!(message.payload.front, vec![seq as u8; 200]);
                }
            }
        }
    }
}

#[test]
fn bytes_that_are_borrowed_are_copied_once() {
    let framing = Framing { revision: Revision::Rev1, protection: Protection::Crc { data: true } };
    let stream = stream(framing, 4096);
    let mut disassembler = Disassembler::new(framing, Limits::SESSION, SegmentPool::new(0));
    let mut input = Input::from(&stream[..]);
    while disassembler.feed(&mut input).unwrap().is_some() {}
    assert_eq!(disassembler.take_copied(), COUNT * (200 + 4096));
}
