//! What fuzz targets share: how an input is cut into decisions and bytes.

pub mod cephx;
pub mod maps;
pub mod operations;
pub mod sessions;

use bytes::Bytes;
use siphon_wire::types::Features;
use siphon_wire::{Decode, Encode};

/// An input of the fuzzer, from which a target takes decisions first and bytes then.
///
/// It never runs out: behind its end are zeros, so that an input which was cut is still one.
///
/// ```
/// use siphon_fuzz::Script;
/// let mut script = Script::new(&[7, 1, 2]);
/// assert_eq!((script.byte(), script.rest()), (7, &[1, 2][..]));
/// assert_eq!(script.byte(), 0);
/// ```
#[derive(Debug)]
pub struct Script<'a> {
    input: &'a [u8],
}

impl<'a> Script<'a> {
    /// At the first byte of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { input }
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.input.split_first() {
            Some((first, rest)) => {
                self.input = rest;
                *first
            }
            None => 0,
        }
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Up to `count` bytes: what there is of them.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.input.split_at(count.min(self.input.len()));
        self.input = rest;
        taken
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// A way to cut a stream into pieces: a count of up to 15, and as many bytes.
    pub fn pieces(&mut self) -> Pieces<'a> {
        let count = usize::from(self.byte() % 16);
        Pieces { codes: self.take(count), next: 0 }
    }
}

/// Lengths of the pieces in which a stream arrives, without end.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    codes: &'a [u8],
    next: usize,
}

impl Iterator for Pieces<'_> {
    type Item = usize;

    /// At least 1: small ones to the byte, large ones up to 32 KiB and a little.
    fn next(&mut self) -> Option<usize> {
        let code = self.codes.get(self.next).map_or(0, |code| usize::from(*code));
        self.next = (self.next + 1) % self.codes.len().max(1);
        Some(if code < 128 { code + 1 } else { (code - 127) * 257 })
    }
}

/// Decodes `input` as a `T`. What comes of it must encode for any peer; encoded for one that knows
/// everything it decodes to the same, and from then on to the same bytes.
///
/// # Panics
/// If it does not: that is the finding.
pub fn decode_and_back<T: Encode + Decode + PartialEq + std::fmt::Debug>(input: &Bytes) {
    let value = match T::from_bytes(input) {
        Ok(value) => value,
        Err(error) => return assert!(error.offset <= input.len(), "{error}"),
    };
    value.to_bytes(Features::NONE);
    let wire = value.to_bytes(Features::ALL);
    let again = match T::from_bytes(&wire) {
        Ok(again) => again,
        Err(error) => panic!("{value:?} does not come back: {error}"),
    };
    assert_eq!(again, value);
    assert_eq!(again.to_bytes(Features::ALL), wire);
}
