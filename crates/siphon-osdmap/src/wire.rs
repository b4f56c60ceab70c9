//! How maps and increments are encoded (`OSDMap::encode`, `OSDMap::Incremental::encode` of
//! `osd/OSDMap.cc`): a section for clients, one for OSDs, and a checksum over all the rest.
//!
//! ```text
//! 8 │ 7 │ length u32 │ section for clients │ section for OSDs │ crc u32 │ increments: crc of the full map u32
//! ```

mod incremental;
mod map;

use bytes::Bytes;
use siphon_wire::crc32c::{SEED, crc32c};
use siphon_wire::types::{AddrType, ByteString, EntityAddr, EntityAddrVec, Features, Release};
use siphon_wire::{DecodeError, DecodeErrorKind, Decoder, Encoder};

/// The version that the outer section has, and the oldest that has one.
const VERSION: u8 = 8;
const OLDEST: u8 = 7;
/// From this version on there is a checksum.
const CHECKED: u8 = 8;

/// What says that an encoder knows what it does: Ceph's own encoders are given it, and leave it out.
fn wanted(features: Features) -> Features {
    Features(features.0 & !Features::RESERVED.0)
}

/// Writes the outer section around what `body` appends, with the checksum of it and of the 4 bytes of
/// `tail`, if there are any, behind.
fn encode_checked(enc: &mut Encoder, tail: Option<u32>, body: impl FnOnce(&mut Encoder)) -> u32 {
    let mut inner = Encoder::new(wanted(enc.features()));
    body(&mut inner);
    let inner = inner.finish();
    let tail = tail.map(u32::to_le_bytes);
    let tail = tail.as_ref().map_or(&[][..], |tail| tail);
    let length = u32::try_from(inner.len() + 4 + tail.len()).expect("a map under 4 GiB");
    let mut head = [VERSION, OLDEST, 0, 0, 0, 0];
    head[2..].copy_from_slice(&length.to_le_bytes());
    let crc = [&head, &inner[..], tail].iter().fold(SEED, |crc, part| crc32c(crc, part));
    enc.raw(&head);
    enc.raw(&inner);
    enc.u32(crc);
    enc.raw(tail);
    crc
}

/// Reads the outer section, and checks its checksum. `body` gets a decoder of what is within, and reads
/// up to the checksum; `tail` reads what follows that.
fn decode_checked<T>(
    dec: &mut Decoder<'_>,
    name: &'static str,
    body: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
    tail: impl FnOnce(&mut T, u32, &mut Decoder<'_>) -> Result<(), DecodeError>,
) -> Result<T, DecodeError> {
    dec.typed(name, |dec| {
        let version = dec.u8()?;
        if version < OLDEST {
            return Err(dec.error(DecodeErrorKind::TooOld { version, oldest: OLDEST }));
        }
        let compat = dec.u8()?;
        if compat > VERSION {
            let understood = VERSION;
            return Err(dec.error(DecodeErrorKind::TooNew { compat, understood }));
        }
        let length = dec.u32()?;
        let base = dec.offset();
        let within = dec.raw(length as usize)?;
        let moved = |error| behind(base, error);
        let mut inner = Decoder::new(&within);
        let mut value = inner.typed(name, |dec| body(dec)).map_err(moved)?;
        if version >= CHECKED {
            let at = inner.offset();
            let crc = inner.u32().map_err(moved)?;
            let mut head = [version, compat, 0, 0, 0, 0];
            head[2..].copy_from_slice(&length.to_le_bytes());
            let parts = [&head, &within[..at], &within[at + 4..]];
            let actual = parts.iter().fold(SEED, |crc, part| crc32c(crc, part));
            if crc != actual {
                return Err(dec.invalid("the checksum of what was encoded", u64::from(crc)));
            }
            tail(&mut value, crc, &mut inner).map_err(moved)?;
        }
        Ok(value)
    })
}

/// The legacy address of an OSD, for peers that know no vectors.
fn encode_legacy(addrs: &EntityAddrVec, enc: &mut Encoder) {
    enc.value(&addrs.of_type(AddrType::LEGACY).unwrap_or(EntityAddr::NONE));
}

/// A release by its name, as development versions of Luminous had it.
fn decode_release_name(dec: &mut Decoder<'_>) -> Result<Release, DecodeError> {
    let name = dec.value::<ByteString>()?;
    let known = (0..=u8::MAX).map(Release);
    let release = known.take_while(|release| release.name().is_some());
    let found = release
        .into_iter()
        .find(|release| release.name().is_some_and(|known| known.as_bytes() == &name[..]));
    Ok(found.unwrap_or(Release::UNKNOWN))
}

/// An error of what begins at byte `base`.
fn behind(base: usize, mut error: DecodeError) -> DecodeError {
    error.offset += base;
    error
}

/// Reads what stands behind its own length, if anything does.
fn decode_within<T>(
    bytes: &Bytes,
    base: usize,
    body: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    body(&mut Decoder::new(bytes)).map_err(|error| behind(base, error))
}
