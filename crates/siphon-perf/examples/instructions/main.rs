//! Pieces of work that take the same instructions each time, for `cargo xtask bench` to count.
//!
//! ```text
//! instructions --list    names, and how often each is done
//! instructions --cpu     what of the processor the code chose by
//! instructions NAME      does it; what is to be counted is within `measured`
//! ```

mod pair;
mod world;

use std::hint::black_box;

use anyhow::{Result, bail};
use bytes::Bytes;
use siphon_messages::osd::OsdFlags;
use siphon_messages::{MOSDOp, MOSDOpReply, TypedMessage};
use siphon_proto::v2::{
    Assembler, Disassembler, Framing, Limits, MessageHeader2, Protection, Revision,
};
use siphon_proto::{MessageHeader, Payload};
use siphon_wire::buf::{Input, Rope, SegmentPool};
use siphon_wire::crc32c::{SEED, crc32c};
use siphon_wire::types::{Features, HObject, PgId, SpgId};

use crate::pair::Pair;

/// Bytes of a front: about those of an `MOSDOp`.
const FRONT: usize = 200;

/// A name, how often it is done, and what makes it.
type Work = (&'static str, u32, fn() -> Box<dyn FnMut()>);

const WORKS: [Work; 18] = [
    ("crc32c-64", 50_000, || crc(64)),
    ("crc32c-4k", 10_000, || crc(4 << 10)),
    ("crc32c-64k", 1_000, || crc(64 << 10)),
    ("encode-mosdop", 5_000, encode_request),
    ("decode-mosdop", 5_000, decode_request),
    ("encode-mosdopreply", 5_000, encode_reply),
    ("decode-mosdopreply", 5_000, decode_reply),
    ("assemble-64", 5_000, || assemble(64)),
    ("assemble-4k", 5_000, || assemble(4 << 10)),
    ("disassemble-64", 5_000, || disassemble(64)),
    ("disassemble-4k", 5_000, || disassemble(4 << 10)),
    ("session-crc-64", 200, || session(false, 64)),
    ("session-crc-4k", 200, || session(false, 4 << 10)),
    ("session-crc-64k", 20, || session(false, 64 << 10)),
    ("session-secure-64", 100, || session(true, 64)),
    ("session-secure-4k", 100, || session(true, 4 << 10)),
    ("session-secure-64k", 10, || session(true, 64 << 10)),
    ("messenger-4k", 20, || world::messengers(4 << 10)),
];

fn main() -> Result<()> {
    let word = std::env::args().nth(1).unwrap_or_default();
    match word.as_str() {
        "--list" => WORKS.iter().for_each(|(name, count, _)| println!("{name} {count}")),
        "--cpu" => println!("{}", cpu()),
        name => {
            let Some((_, count, make)) = WORKS.iter().find(|(known, ..)| *known == name) else {
                bail!("there is no work {name:?}: --list has the names");
            };
            let mut work = make();
            // What is done for the first time only, such as filling pools, is not what is counted.
            (0..3).for_each(|_| work());
            measured(*count, &mut *work);
        }
    }
    Ok(())
}

/// The part that is counted, by this name.
#[inline(never)]
fn measured(count: u32, work: &mut dyn FnMut()) {
    for _ in 0..count {
        work();
    }
}

/// By what checksums, ciphers and copies choose their code.
fn cpu() -> String {
    let mut features = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => {
                $(if std::is_x86_feature_detected!($name) { features.push($name); })*
            };
        }
        detect!("sse4.2" "pclmulqdq" "aes" "avx" "avx2" "vaes" "vpclmulqdq" "avx512f" "avx512vl");
    }
    features.join(" ")
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| at as u8 | 1).collect()
}

fn crc(len: usize) -> Box<dyn FnMut()> {
    let bytes = pattern(len);
    Box::new(move || {
        let _ = black_box(crc32c(SEED, black_box(&bytes)));
    })
}

fn request() -> MOSDOp {
    let object = HObject::new(1, "rbd_data.1f2e3d4c5b6a.0000000000000123", 0x1234_5678);
    let mut request = MOSDOp::new(7, object, SpgId::from(PgId { pool: 1, seed: 0x78 }));
    request.write(8192, pattern(4096).into());
    request
}

fn encode_request() -> Box<dyn FnMut()> {
    let request = request();
    Box::new(move || drop(black_box(request.to_message(Features::ALL))))
}

fn decode_request() -> Box<dyn FnMut()> {
    let message = request().to_message(Features::ALL);
    Box::new(move || drop(black_box(MOSDOp::from_message(&message))))
}

fn encode_reply() -> Box<dyn FnMut()> {
    let reply = MOSDOpReply::new(&request(), 0, OsdFlags::ONDISK);
    Box::new(move || drop(black_box(reply.to_message(Features::ALL))))
}

fn decode_reply() -> Box<dyn FnMut()> {
    let message = MOSDOpReply::new(&request(), 0, OsdFlags::ONDISK).to_message(Features::ALL);
    Box::new(move || drop(black_box(MOSDOpReply::from_message(&message))))
}

const FRAMING: Framing =
    Framing { revision: Revision::Rev1, protection: Protection::Crc { data: true } };

fn payload(data: usize) -> Payload {
    Payload { front: pattern(FRONT).into(), middle: Bytes::new(), data: pattern(data).into() }
}

fn header() -> MessageHeader {
    MessageHeader { msg_type: 42, tid: 7, version: 8, compat_version: 3, ..Default::default() }
}

fn header2() -> MessageHeader2 {
    MessageHeader2 { seq: 1, ack_seq: 0, flags: 3, message: header() }
}

fn assemble(data: usize) -> Box<dyn FnMut()> {
    let mut assembler = Assembler::new(FRAMING);
    let (header, payload, mut out) = (header2(), payload(data), Rope::new());
    Box::new(move || {
        assembler.message(&header, &payload, &mut out);
        assembler.flush(&mut out);
        black_box(&out);
        out.clear();
    })
}

fn disassemble(data: usize) -> Box<dyn FnMut()> {
    let mut assembler = Assembler::new(FRAMING);
    let mut out = Rope::new();
    assembler.message(&header2(), &payload(data), &mut out);
    assembler.flush(&mut out);
    let bytes = out.to_bytes();
    let mut disassembler = Disassembler::new(FRAMING, Limits::SESSION, SegmentPool::new(1 << 20));
    Box::new(move || {
        let frame = disassembler.feed(&mut Input::from(&bytes[..]));
        assert!(matches!(black_box(frame), Ok(Some(_))), "it is a frame");
    })
}

/// 32 messages from one side of a session to the other, and their acknowledgement.
fn session(secure: bool, data: usize) -> Box<dyn FnMut()> {
    let mut pair = Pair::open(secure);
    let payload = payload(data);
    Box::new(move || pair.exchange(32, header(), &payload))
}
