//! What a completion is about.

use crate::slab::Key;

const KIND_SHIFT: u32 = 28;
const INDEX_MASK: u64 = (1 << KIND_SHIFT) - 1;
const KIND_MASK: u64 = 15 << KIND_SHIFT;

/// The entry that an operation is for, and which of its operations that is: at most one of each kind
/// is in flight for an entry.
///
/// ```text
/// generation 32 │ kind 4 │ index 28
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody waits for it.
    Ignored = 0,
    Wake = 1,
    Receive = 2,
    Send = 3,
    Connect = 4,
    Accept = 5,
    File = 6,
}

impl Token {
    pub(super) const IGNORED: Self = Self(Kind::Ignored as u64);
    pub(super) const WAKE: Self = Self((Kind::Wake as u64) << KIND_SHIFT);

    /// # Panics
    ///
    /// With 2^28 entries in use: memory and descriptors end long before.
    pub(super) fn new(kind: Kind, key: Key) -> Self {
        assert!(u64::from(key.index) <= INDEX_MASK, "too many entries");
        Self(key.bits() | (kind as u64) << KIND_SHIFT)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn key(self) -> Key {
        Key::from_bits(self.0 & !KIND_MASK)
    }

    pub(super) fn kind(self) -> Kind {
        match (self.0 & KIND_MASK) >> KIND_SHIFT {
            1 => Kind::Wake,
            2 => Kind::Receive,
            3 => Kind::Send,
            4 => Kind::Connect,
            5 => Kind::Accept,
            6 => Kind::File,
            _ => Kind::Ignored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_kind_and_key() {
        let key = Key { index: INDEX_MASK as u32, generation: u32::MAX };
        let kinds =
            [Kind::Ignored, Kind::Receive, Kind::Send, Kind::Connect, Kind::Accept, Kind::File];
        for kind in kinds {
            let token = Token::from_bits(Token::new(kind, key).bits());
            assert_eq!((token.kind(), token.key()), (kind, key));
        }
        assert_eq!(Token::WAKE.kind(), Kind::Wake);
        assert_eq!(Token::IGNORED.kind(), Kind::Ignored);
    }
}
