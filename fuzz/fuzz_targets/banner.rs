//! The banner: strangers are told, and how it is cut into pieces makes no difference.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use siphon_fuzz::Script;

// The reader belongs to siphon-proto alone, and this file to nothing else.
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "of siphon-proto only the reader is used"
)]
#[path = "../../crates/siphon-proto/src/v2/banner.rs"]
mod banner;

use banner::{Banner, BannerError, BannerReader};

/// Prefix, length, and the longest payload.
const MAX_BANNER: usize = 8 + 2 + 256;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let mut pieces = script.pieces();
    let stream = script.rest();

    let mut rest = stream;
    let whole = BannerReader::default().feed(&mut rest);
    let taken = stream.len() - rest.len();
    assert!(taken <= MAX_BANNER, "{taken} bytes are held");

    let mut reader = BannerReader::default();
    let mut at = 0;
    let cut = loop {
        let piece = pieces.next().unwrap_or(1).min(stream.len() - at);
        let mut input = &stream[at..at + piece];
        let read = reader.feed(&mut input);
        at += piece - input.len();
        match read {
            Ok(None) if at < stream.len() => {
                assert!(input.is_empty(), "left {} bytes", input.len())
            }
            read => break read,
        }
    };
    match (whole, cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(whole, cut);
            assert_eq!(taken, at, "takes what is the banner's");
            whole.into_iter().for_each(comes_back);
        }
        // A stranger is told at the first wrong byte, so that fewer are shown of shorter pieces.
        (Err(BannerError::NotCeph { found: whole }), Err(BannerError::NotCeph { found: cut })) => {
            assert!(cut.iter().zip(whole).all(|(cut, whole)| *cut == whole || *cut == 0));
        }
        (whole, cut) => assert_eq!(whole, cut),
    }
});

fn comes_back(banner: Banner) {
    let mut wire = BytesMut::new();
    banner.encode(&mut wire);
    assert_eq!(BannerReader::default().feed(&mut &wire[..]), Ok(Some(banner)));
    // Whoever requires what it does not offer fits nobody, not even its like.
    let fits = banner.check(banner).is_ok();
    assert_eq!(fits, banner.supported.contains(banner.required));
}
