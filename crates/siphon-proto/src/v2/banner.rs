use std::fmt;

use bytes::{BufMut, BytesMut};

/// What msgr2 begins with, in both directions.
const PREFIX: &[u8; 8] = b"ceph v2\n";
/// The first bytes of msgr1's banner `ceph v027`.
const V1_PREFIX: &[u8; 7] = b"ceph v0";
/// Bytes of the banner's payload that we understand: two feature words.
const PAYLOAD: usize = 16;
/// Longest payload that we read; longer ones are no banner.
const MAX_PAYLOAD: usize = 256;
/// Prefix and length of the payload.
const HEAD: usize = PREFIX.len() + 2;

/// Features of msgr2 itself, exchanged in the banner (`CEPH_MSGR2_FEATURE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BannerFeatures(pub u64);

impl BannerFeatures {
    /// No feature.
    pub const NONE: Self = Self(0);
    /// Revision 1 of the framing (msgr2.1).
    pub const REVISION_1: Self = Self(1);
    /// Compression on the wire, from Quincy on.
    pub const COMPRESSION: Self = Self(2);

    /// All that we know of.
    pub const ALL: Self = Self(Self::REVISION_1.0 | Self::COMPRESSION.0);

    /// Whether all of `other` are here.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of `self` that `other` lacks.
    #[must_use]
    pub fn missing_from(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for BannerFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Vec::new();
        let mut rest = self.0;
        for (bit, name) in
            [(Self::REVISION_1.0, "revision-1"), (Self::COMPRESSION.0, "compression")]
        {
            if rest & bit != 0 {
                names.push(name.to_owned());
                rest &= !bit;
            }
        }
        if rest != 0 || names.is_empty() {
            names.push(format!("{rest:#x}"));
        }
        f.write_str(&names.join(","))
    }
}

/// The first thing either side says: magic bytes, supported and required features.
///
/// ```text
/// "ceph v2\n" | length u16 = 16 | supported u64 | required u64
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Banner {
    /// What the sender can do.
    pub supported: BannerFeatures,
    /// What its peer must be able to do.
    pub required: BannerFeatures,
}

/// Why first bytes are not msgr2's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BannerError {
    /// The peer speaks msgr1 here.
    V1Peer,
    /// The peer speaks msgr2, and we were told of a v1 address.
    V2Peer,
    /// The peer is no Ceph messenger.
    NotCeph {
        /// Its first bytes.
        found: [u8; 8],
    },
    /// The length of the payload makes no sense.
    PayloadLength(u16),
    /// The peer requires features of msgr2 that we lack.
    WeLack(BannerFeatures),
    /// The peer lacks features of msgr2 that we require.
    PeerLacks(BannerFeatures),
}

impl Banner {
    /// Appends the banner.
    pub fn encode(self, out: &mut BytesMut) {
        out.put_slice(PREFIX);
        out.put_u16_le(PAYLOAD as u16);
        out.put_u64_le(self.supported.0);
        out.put_u64_le(self.required.0);
    }

    /// Whether we and a peer with this banner fit, `ours` being what we sent.
    ///
    /// # Errors
    /// If either requires what the other lacks.
    pub fn check(self, ours: Self) -> Result<(), BannerError> {
        let we_lack = self.required.missing_from(ours.supported);
        let peer_lacks = ours.required.missing_from(self.supported);
        if we_lack != BannerFeatures::NONE {
            Err(BannerError::WeLack(we_lack))
        } else if peer_lacks != BannerFeatures::NONE {
            Err(BannerError::PeerLacks(peer_lacks))
        } else {
            Ok(())
        }
    }
}

/// Collects a banner from bytes that arrive in pieces; holds at most 266 bytes.
///
/// ```
/// use siphon_proto::v2::{BannerError, BannerReader};
/// let mut reader = BannerReader::default();
/// assert_eq!(reader.feed(&mut &b"ceph v0"[..]), Err(BannerError::V1Peer));
/// ```
#[derive(Debug, Default)]
pub struct BannerReader {
    have: Vec<u8>,
}

impl BannerReader {
    /// Takes from `input` what belongs to the banner, and gives it once it is whole.
    ///
    /// # Errors
    /// At the first byte that no banner of msgr2 has there.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Banner>, BannerError> {
        self.take_up_to(HEAD, input);
        self.check_prefix()?;
        let Some(&[lo, hi]) = self.have.get(PREFIX.len()..HEAD) else {
            return Ok(None);
        };
        let length = u16::from_le_bytes([lo, hi]);
        if !(PAYLOAD..=MAX_PAYLOAD).contains(&usize::from(length)) {
            return Err(BannerError::PayloadLength(length));
        }
        let whole = HEAD + usize::from(length);
        self.take_up_to(whole, input);
        if self.have.len() < whole {
            return Ok(None);
        }
        let word =
            |at: usize| self.have[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Some(Banner {
            supported: BannerFeatures(word(HEAD)),
            required: BannerFeatures(word(HEAD + 8)),
        }))
    }

    fn take_up_to(&mut self, len: usize, input: &mut &[u8]) {
        let wanted = len.saturating_sub(self.have.len()).min(input.len());
        let (taken, rest) = input.split_at(wanted);
        self.have.extend_from_slice(taken);
        *input = rest;
    }

    /// Fails at the first byte that is wrong, so that a stranger is told at once.
    fn check_prefix(&self) -> Result<(), BannerError> {
        let len = self.have.len().min(PREFIX.len());
        let have = &self.have[..len];
        if have == &PREFIX[..len] {
            return Ok(());
        }
        let v1_len = len.min(V1_PREFIX.len());
        if have[..v1_len] == V1_PREFIX[..v1_len] {
            return Err(BannerError::V1Peer);
        }
        let mut found = [0; 8];
        found[..len].copy_from_slice(have);
        Err(BannerError::NotCeph { found })
    }
}

impl fmt::Display for BannerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V2Peer => f.write_str(
                "the peer speaks msgr2 here; connect to it by a v2 address, or to its v1 address",
            ),
            Self::V1Peer => f.write_str(
                "the peer speaks msgr1 only; connect to its v2 address, or enable ms_bind_msgr2 there",
            ),
            Self::NotCeph { found } => {
                write!(f, "the peer is not a Ceph messenger: it begins with \"{}\"", found.escape_ascii())
            }
            Self::PayloadLength(length) => {
                write!(f, "the peer's banner announces a payload of {length} bytes")
            }
            Self::WeLack(features) => {
                write!(f, "the peer requires msgr2 features that we lack: {features}")
            }
            Self::PeerLacks(features) => {
                write!(f, "the peer lacks msgr2 features that we require: {features}")
            }
        }
    }
}

impl std::error::Error for BannerError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(banner: Banner) -> Vec<u8> {
        let mut out = BytesMut::new();
        banner.encode(&mut out);
        out.to_vec()
    }

    #[test]
    fn a_banner_arrives_in_single_bytes() {
        let banner = Banner { supported: BannerFeatures(3), required: BannerFeatures(1) };
        let mut bytes = encoded(banner);
        assert_eq!(bytes.len(), 26);
        bytes.push(0xff);
        let mut reader = BannerReader::default();
        for byte in &bytes[..25] {
            assert_eq!(reader.feed(&mut &[*byte][..]), Ok(None));
        }
        let mut rest = &bytes[25..];
        assert_eq!(reader.feed(&mut rest), Ok(Some(banner)));
        assert_eq!(rest, [0xff], "takes no byte of what follows");
    }

    #[test]
    fn strangers_are_told_apart() {
        let feed = |bytes: &[u8]| BannerReader::default().feed(&mut &bytes[..]);
        assert_eq!(feed(b"ceph v027"), Err(BannerError::V1Peer));
        assert!(matches!(feed(b"SSH-2.0-"), Err(BannerError::NotCeph { .. })));
        assert!(matches!(feed(b"G"), Err(BannerError::NotCeph { .. })));
        assert_eq!(feed(b"ceph v2\n\xff\xff"), Err(BannerError::PayloadLength(0xffff)));
        assert_eq!(feed(b"ceph v2\n\x08\x00"), Err(BannerError::PayloadLength(8)));
    }

    #[test]
    fn required_features_bind_both_sides() {
        let one = BannerFeatures::REVISION_1;
        let plain = Banner::default();
        let strict = Banner { supported: one, required: one };
        assert_eq!(strict.check(plain), Err(BannerError::WeLack(one)));
        assert_eq!(plain.check(strict), Err(BannerError::PeerLacks(one)));
        assert_eq!(strict.check(strict), Ok(()));
    }
}
