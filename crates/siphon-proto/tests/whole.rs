//! A message that arrives whole is read at once; that must make no difference.

use bytes::Bytes;
use siphon_proto::v2::{
    Assembler, Disassembler, Frame, FrameError, Framing, Limits, MessageHeader2, Protection,
    Revision, SegmentName, Tag,
};
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::buf::{Input, Rope, SegmentPool};

const FRAMING: Framing =
    Framing { revision: Revision::Rev1, protection: Protection::Crc { data: true } };

/// Messages with parts of these lengths, an acknowledgement behind each third.
fn stream(framing: Framing, shapes: &[[usize; 3]]) -> Bytes {
    let mut assembler = Assembler::new(framing);
    let mut out = Rope::new();
    for (seq, shape) in (1..).zip(shapes) {
        let [front, middle, data] =
            shape.map(|len| Bytes::from_iter((0..len).map(|at| (at as u64 * 7 + seq) as u8)));
        let payload = Payload { front: front.into(), middle, data: data.into() };
        let message = MessageHeader { tid: seq, ..MessageHeader::default() };
        let header = MessageHeader2 { seq, ack_seq: seq - 1, flags: 3, message };
        assembler.message(&header, &payload, &mut out);
        if seq % 3 == 0 {
            assembler.control(Tag::ACK, &seq.to_le_bytes());
        }
    }
    assembler.flush(&mut out);
    out.to_bytes()
}

fn disassembler(framing: Framing) -> Disassembler {
    Disassembler::new(framing, Limits::SESSION, SegmentPool::new(0))
}

/// What comes of the frames in these pieces, and how it ends; messages that can be are taken at once.
fn receive<'a>(
    framing: Framing,
    pieces: impl IntoIterator<Item = Input<'a>>,
) -> (Vec<String>, Option<FrameError>) {
    let mut disassembler = disassembler(framing);
    let mut frames = Vec::new();
    for mut input in pieces {
        loop {
            if let Some(message) = disassembler.next_message(&mut input) {
                frames.push(described(&Frame::Message(message)));
                continue;
            }
            match disassembler.feed(&mut input) {
                Ok(Some(frame)) => frames.push(described(&frame)),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn described(frame: &Frame) -> String {
    match frame {
        Frame::Message(frame) => {
            let Payload { front, middle, data } = &frame.message.payload;
            let data = (data.to_bytes(), data.crc32c(u32::MAX));
            let wire_len = frame.message.wire_len;
            format!("{:?} {front:?} {middle:?} {data:?} {wire_len}", frame.header())
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn whole_or_byte_by_byte_a_stream_has_the_same_frames() {
    let shapes = [
        [200, 0, 4096],
        [200, 0, 4096],
        [200, 0, 4096],
        [200, 0, 0],
        [0, 0, 0],
        [0, 5, 0],
        [0, 0, 1],
        [1, 1, 1],
        [3, 0, 40_000],
        [200, 0, 4096],
        [1, 1, 1],
        [0, 0, 0],
    ];
    for data in [true, false] {
        for revision in [Revision::Rev0, Revision::Rev1] {
            let framing = Framing { revision, protection: Protection::Crc { data } };
            let stream = stream(framing, &shapes);
            let expected = receive(framing, stream.chunks(1).map(Input::from));
            assert_eq!((expected.0.len(), &expected.1), (shapes.len() + 4, &None));
            assert_eq!(receive(framing, [Input::from(&stream)]), expected);
            for piece in [stream.len(), 6000, 4500, 333] {
                assert_eq!(receive(framing, stream.chunks(piece).map(Input::from)), expected);
            }
        }
    }
}

#[test]
fn damage_is_found_in_the_same_place() {
    for shape in [[20, 3, 30], [20, 0, 30], [0, 0, 30], [20, 3, 0], [20, 0, 0], [0, 0, 0]] {
        let stream = stream(FRAMING, &[shape; 3]);
        let mut errors = 0;
        for at in 0..stream.len() {
            for bit in [0, 7] {
                let mut damaged = stream.to_vec();
                damaged[at] ^= 1 << bit;
                let expected = receive(FRAMING, damaged.chunks(1).map(Input::from));
                assert_eq!(receive(FRAMING, [Input::from(&damaged[..])]), expected, "{at} {bit}");
                errors += usize::from(expected.1.is_some());
            }
        }
        // What is not looked at: the upper half of a late status, and checksums of segments left out.
        let unseen = 3 * (1 + 2 * 4 * shape.iter().rev().take_while(|len| **len == 0).count());
        assert!(errors >= 2 * stream.len() - unseen, "{errors} of {}", 2 * stream.len());
    }
}

#[test]
fn all_but_the_first_of_a_shape_are_taken_at_once() {
    let stream = stream(FRAMING, &[[200, 0, 4096], [200, 0, 4096], [30, 0, 0]]);
    let (mut disassembler, mut input) = (disassembler(FRAMING), Input::from(&stream));
    let mut taken = Vec::new();
    for _ in 0..3 {
        let message = disassembler.next_message(&mut input);
        taken.push(message.is_some());
        if message.is_none() {
            assert!(matches!(disassembler.feed(&mut input), Ok(Some(Frame::Message(_)))));
        }
    }
    assert_eq!(taken, [false, true, false]);
}

#[test]
fn a_shape_that_was_let_in_is_checked_again_once_less_is_accepted() {
    let stream = stream(FRAMING, &[[200, 0, 4096]; 2]);
    let mut disassembler = disassembler(FRAMING);
    let mut input = Input::from(&stream);
    assert!(matches!(disassembler.feed(&mut input), Ok(Some(Frame::Message(_)))));
    disassembler.set_limits(Limits { data: 4095, ..Limits::SESSION });
    let segment = SegmentName::Data;
    assert!(disassembler.next_message(&mut input).is_none());
    let expected =
        FrameError::SegmentTooLong { tag: Tag::MESSAGE, segment, length: 4096, limit: 4095 };
    assert_eq!(disassembler.feed(&mut input).unwrap_err(), expected);
}

#[test]
fn data_that_are_copied_begin_a_page_and_a_front_that_is_shared_is_where_it_arrived() {
    let stream = stream(FRAMING, &[[200, 3, 4096]; 2]);
    for shared in [false, true] {
        let mut disassembler = disassembler(FRAMING);
        let mut input = if shared { Input::from(&stream) } else { Input::from(&stream[..]) };
        let Ok(Some(Frame::Message(first))) = disassembler.feed(&mut input) else {
            panic!("a message");
        };
        let second = disassembler.next_message(&mut input).expect("another of its shape");
        for message in [first.message, second.message] {
            let Payload { front, data, .. } = &message.payload;
            let at = data.segments()[0].as_ptr().addr();
            assert!(shared || at.is_multiple_of(4096), "{at:#x}");
            assert_eq!(stream.as_ptr_range().contains(&front.as_ptr()), shared);
        }
        assert_eq!(disassembler.take_copied(), if shared { 0 } else { 2 * (200 + 3 + 4096) });
    }
}
