//! Frames: a stream means the same however it arrives, and what it means can be said again.
//!
//! Checksums would keep a fuzzer out, so most inputs are not streams but what streams are made of:
//! see [`complete`]. What it writes is written here a second time, apart from the `Assembler`.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use siphon_fuzz::{Pieces, Script};
use siphon_proto::v2::{
    Assembler, Disassembler, Frame, FrameError, Framing, Limits, MessageHeader2, Protection,
    Revision, Tag,
};
use siphon_proto::{Grants, Payload};
use siphon_wire::buf::{Input, Rope, SegmentPool};
use siphon_wire::crc32c::crc32c;

/// Long enough that segments are lent, short enough to be quick.
const LIMITS: Limits =
    Limits { control: 4 << 10, front: 24 << 10, middle: 4 << 10, data: 40 << 10 };
/// Longest segment that is filled up.
const MAX_SEGMENT: u32 = 64 << 10;
/// A stream that is this long gets no further frame.
const MAX_STREAM: usize = 128 << 10;

const REVISION_1: u8 = 1;
const DATA_CRC: u8 = 2;
/// The stream is taken as it is, without [`complete`].
const RAW: u8 = 4;
/// One byte of the completed stream is damaged.
const DAMAGE: u8 = 8;
/// Long segments are filled by the transport.
const LEND: u8 = 16;
/// Messages wait for their admission.
const GATE: u8 = 32;
/// The bytes come in buffers that can be shared.
const SHARE: u8 = 64;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let flags = script.byte();
    let framing = Framing {
        revision: if flags & REVISION_1 == 0 { Revision::Rev0 } else { Revision::Rev1 },
        protection: Protection::Crc { data: flags & DATA_CRC != 0 },
    };
    let pieces = script.pieces();
    let damage = (flags & DAMAGE != 0).then(|| (usize::from(script.u16()), script.byte()));
    let mut stream =
        if flags & RAW != 0 { script.rest().to_vec() } else { complete(framing, &mut script) };
    if let (Some((at, bits)), false) = (damage, stream.is_empty()) {
        let at = at % stream.len();
        stream[at] ^= bits;
    }
    let whole = at_once(framing, &stream);
    assert_eq!(in_pieces(framing, flags, &stream, pieces), whole);
    whole.frames.iter().for_each(|frame| comes_back(framing, frame));
});

/// What a stream turned out to be.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    frames: Vec<Said>,
    error: Option<FrameError>,
    between_frames: bool,
}

/// A frame that can be compared.
#[derive(Debug, PartialEq)]
enum Said {
    Control(Tag, Bytes),
    Message { header: MessageHeader2, parts: [Bytes; 3], wire_len: usize },
    Aborted,
}

impl From<Frame> for Said {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Control { tag, payload } => Self::Control(tag, payload),
            Frame::Message(frame) => {
                let Payload { front, middle, data } = frame.message.payload.clone();
                let parts = [front.to_bytes(), middle, data.to_bytes()];
                Self::Message { header: frame.header(), parts, wire_len: frame.message.wire_len }
            }
            Frame::Aborted => Self::Aborted,
        }
    }
}

fn at_once(framing: Framing, stream: &[u8]) -> Outcome {
    let mut disassembler = Disassembler::new(framing, LIMITS, SegmentPool::new(0));
    let mut outcome = Outcome::default();
    let mut input = Input::from(stream);
    loop {
        let before = input.len();
        match disassembler.feed(&mut input) {
            Ok(Some(frame)) => {
                let frame = Said::from(frame);
                if let Said::Message { wire_len, .. } = frame {
                    assert_eq!(wire_len, before - input.len(), "all of a frame is counted");
                }
                outcome.frames.push(frame);
            }
            Ok(None) => break,
            Err(error) => {
                outcome.error = Some(error);
                break;
            }
        }
    }
    if outcome.error.is_some() {
        assert!(matches!(disassembler.feed(&mut input), Ok(None)), "nothing follows an error");
    }
    assert!(input.is_empty(), "{} bytes are left", input.len());
    outcome.between_frames = disassembler.is_between_frames();
    outcome
}

fn in_pieces(framing: Framing, flags: u8, stream: &[u8], pieces: Pieces<'_>) -> Outcome {
    let mut disassembler = Disassembler::new(framing, LIMITS, SegmentPool::new(1 << 20));
    disassembler.set_gated(flags & GATE != 0);
    let mut outcome = Outcome::default();
    let mut stream = stream;
    for piece in pieces {
        if stream.is_empty() || outcome.error.is_some() {
            break;
        }
        let (mut input, rest) = stream.split_at(piece.min(stream.len()));
        stream = rest;
        let lent = if flags & LEND != 0 { disassembler.lend() } else { None };
        if let Some(mut buffer) = lent {
            let (direct, after) = input.split_at(input.len().min(buffer.remaining()));
            buffer.unfilled()[..direct.len()].copy_from_slice(direct);
            buffer.advance(direct.len());
            disassembler.give_back(buffer);
            input = after;
        }
        if flags & SHARE != 0 {
            let chunk = Bytes::copy_from_slice(input);
            feed_all(&mut disassembler, Input::from(&chunk), &mut outcome);
        } else {
            feed_all(&mut disassembler, Input::from(input), &mut outcome);
        }
    }
    outcome.between_frames = disassembler.is_between_frames();
    outcome
}

fn feed_all(disassembler: &mut Disassembler, mut input: Input<'_>, outcome: &mut Outcome) {
    loop {
        // As a connection does it.
        if let Some(message) = disassembler.next_message(&mut input) {
            outcome.frames.push(Frame::Message(message).into());
            continue;
        }
        match disassembler.feed(&mut input) {
            Ok(Some(frame)) => outcome.frames.push(frame.into()),
            Ok(None) if disassembler.announced().is_some() => {
                disassembler.admit(Grants::default());
            }
            Ok(None) => return assert!(input.is_empty(), "{} bytes are left", input.len()),
            Err(error) => return outcome.error = Some(error),
        }
    }
}

/// What the assembler makes of a frame decodes to that frame.
fn comes_back(framing: Framing, said: &Said) {
    let mut assembler = Assembler::new(framing);
    let mut wire = Rope::new();
    match said {
        Said::Control(tag, payload) => assembler.control(*tag, payload),
        Said::Message { header, parts: [front, middle, data], .. } => {
            let (front, middle) = (front.clone(), middle.clone());
            // In two pieces, as applications have it.
            let data = [data.slice(..data.len() / 2), data.slice(data.len() / 2..)];
            let data = data.into_iter().collect();
            assembler.message(header, &Payload { front: front.into(), middle, data }, &mut wire);
        }
        Said::Aborted => return,
    }
    assembler.flush(&mut wire);
    let again = at_once(framing, &wire.to_bytes());
    assert_eq!((again.error, again.between_frames), (None, true));
    assert_eq!(again.frames, std::slice::from_ref(said));
}

/// Makes a stream of frames out of preambles and contents: it writes the checksums, and fills up
/// segments that announce more than there is. What is no preamble goes in as it is, and ends it.
fn complete(framing: Framing, script: &mut Script<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !script.is_empty() && stream.len() < MAX_STREAM {
        let Some(mut preamble) = script.take(28).first_chunk::<28>().copied() else {
            break;
        };
        // Most numbers are no count of segments: some of them become one.
        if (5..0xf0).contains(&preamble[1]) {
            preamble[1] = 1 + preamble[1] % 4;
        }
        let count = usize::from(preamble[1]);
        stream.extend_from_slice(&preamble);
        stream.extend_from_slice(&crc32c(0, &preamble).to_le_bytes());
        let length = |at: usize| preamble[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let lengths: Vec<u32> = (0..count.min(4)).map(|index| length(2 + 6 * index)).collect();
        if count > 4 || lengths.iter().any(|length| *length > MAX_SEGMENT) {
            break;
        }
        contents(framing, script, &lengths, &mut stream);
    }
    stream.extend_from_slice(script.rest());
    stream
}

fn contents(framing: Framing, script: &mut Script<'_>, lengths: &[u32], stream: &mut Vec<u8>) {
    let mut crcs = [0; 4];
    for (index, length) in lengths.iter().enumerate() {
        let at = stream.len();
        stream.extend_from_slice(script.take(*length as usize));
        stream.resize(at + *length as usize, 0x5a);
        crcs[index] = crc32c(u32::MAX, &stream[at..]);
        if index == 0 && framing.revision == Revision::Rev1 && *length > 0 {
            stream.extend_from_slice(&crcs[0].to_le_bytes());
        }
    }
    let first = match framing.revision {
        Revision::Rev0 => 0,
        Revision::Rev1 if lengths.len() > 1 => 1,
        Revision::Rev1 => return,
    };
    // 0 says complete in revision 0, and 0x0e in revision 1.
    let late = script.byte();
    stream.push(if first == 1 { late ^ 0x0e } else { late });
    for crc in &crcs[first..] {
        stream.extend_from_slice(&crc.to_le_bytes());
    }
}
