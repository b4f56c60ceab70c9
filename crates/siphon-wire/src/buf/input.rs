use bytes::Bytes;

use super::ring::copied;

/// Bytes that arrived, taken from the front: borrowed from where a stack keeps them for a moment, or
/// in a buffer that can be shared, so that nothing of it need be copied.
///
/// ```
/// use bytes::Bytes;
/// use siphon_wire::buf::Input;
///
/// let chunk = Bytes::from_static(b"siphon");
/// let mut input = Input::from(&chunk);
/// assert_eq!(input.take(2), b"si");
/// let rest = input.take_bytes(4);
/// assert_eq!((rest.as_ptr(), &rest[..]), (chunk[2..].as_ptr(), &b"phon"[..]));
/// assert!(input.is_empty());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    rest: &'a [u8],
    /// Invariant: `rest` lies within it.
    shared: Option<&'a Bytes>,
    /// Bytes of a part that is not worth being shared.
    copied: usize,
}

impl<'a> Input<'a> {
    /// Bytes that are not taken yet.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether all is taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether [`take_bytes`](Self::take_bytes) copies nothing.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// With parts of up to so many bytes better copied, where whoever gets them has a place for them: a copy of
    /// that length costs less than counting who has a share.
    #[must_use]
    pub fn copying(self, copied: usize) -> Self {
        Self { copied, ..self }
    }

    /// Whether a part of so many bytes is better shared than copied.
    pub fn shares(&self, len: usize) -> bool {
        self.is_shared() && len > self.copied
    }

    /// What is not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `count` bytes, or what there is.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Takes `N` bytes, if there are so many; else nothing.
    pub fn take_array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(taken)
    }

    /// Takes `count` bytes, or what there is, as a part of the buffer they are in; copies where that
    /// cannot be shared.
    pub fn take_bytes(&mut self, count: usize) -> Bytes {
        let taken = self.take(count);
        self.share(taken)
    }

    /// Bytes that were taken, as a part of the buffer they are in, or a copy.
    pub(crate) fn share(&self, taken: &'a [u8]) -> Bytes {
        match self.shared {
            Some(bytes) => bytes.slice_ref(taken),
            None => copied(taken),
        }
    }
}

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(rest: &'a [u8]) -> Self {
        Self { rest, shared: None, copied: 0 }
    }
}

impl<'a> From<&'a Bytes> for Input<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        Self { rest: bytes, shared: Some(bytes), copied: 0 }
    }
}
