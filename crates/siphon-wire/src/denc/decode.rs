use bytes::Bytes;

use crate::buf::Input;

use super::error::{DecodeError, DecodeErrorKind, DecodeErrorParts};

/// A value that can be read from Ceph's wire format.
pub trait Decode: Sized {
    /// Length in bytes of the shortest encoding. A container's count is checked against it before
    /// anything is reserved, so a value that is too small costs memory, one that is too large
    /// refuses valid input.
    const MIN_SIZE: usize = 1;

    /// Reads one value from the front of `dec`.
    ///
    /// # Errors
    /// If the bytes are not an encoding of this type; the decoder must not be used further.
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError>;

    /// Reads a value that fills `input` to its last byte.
    ///
    /// # Errors
    /// As [`Decode::decode`], and if bytes are left over.
    fn from_bytes(input: &Bytes) -> Result<Self, DecodeError> {
        let mut dec = Decoder::new(input);
        let value = Self::decode(&mut dec)?;
        dec.finish()?;
        Ok(value)
    }
}

/// Reads values from bytes, and never beyond them.
///
/// Byte sequences come out as slices that share the input's memory if that can be shared, else as copies. Every error tells the offset
/// and the innermost type, which [`Decoder::typed`] and [`Decoder::versioned`] name.
///
/// ```
/// use bytes::Bytes;
/// use siphon_wire::Decoder;
/// let input = Bytes::from_static(&[2, 1, 5, 0, 0, 0, 7, 0, 0, 0, 99]);
/// let mut dec = Decoder::new(&input);
/// // The fifth byte of the section was appended by a version newer than ours, and is skipped.
/// let value = dec.versioned("thing_t", 1, |dec, _version| dec.u32()).unwrap();
/// assert_eq!(value, 7);
/// dec.finish().unwrap();
/// ```
#[derive(Debug)]
pub struct Decoder<'a> {
    input: Input<'a>,
    /// What is left of the input, or of the innermost section.
    rest: &'a [u8],
    /// Bytes of the input behind that section.
    behind: usize,
    /// Names the errors that no type within names.
    type_name: &'static str,
}

/// Bytes of a versioned section before its contents.
const SECTION_HEAD: usize = 6;

macro_rules! get {
    ($($name:ident: $ty:ty;)*) => {$(
        #[doc = concat!("Reads a little-endian `", stringify!($ty), "`.\n\n# Errors\nIf the input is too short.")]
        #[inline]
        pub fn $name(&mut self) -> Result<$ty, DecodeError> {
            Ok(<$ty>::from_le_bytes(self.array()?))
        }
    )*};
}

impl<'a> Decoder<'a> {
    /// A decoder at the first byte of `input`.
    #[inline]
    pub fn new(input: impl Into<Input<'a>>) -> Self {
        Self::named("value", input)
    }

    /// A decoder at the first byte of `input`, of which errors tell this name where no type within has
    /// one.
    #[inline]
    pub fn named(type_name: &'static str, input: impl Into<Input<'a>>) -> Self {
        let input = input.into();
        Self { input, rest: input.rest(), behind: 0, type_name }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.input.len() - self.behind - self.rest.len()
    }

    /// Bytes left in the input, or in the innermost section.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// An error of `kind` at the current byte; its type is named by what encloses it.
    #[cold]
    pub fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeErrorParts { type_name: self.type_name, offset: self.offset(), kind }.into()
    }

    /// An error that says which value was expected and which was `found`.
    #[cold]
    pub fn invalid(&self, expected: &'static str, found: u64) -> DecodeError {
        self.error(DecodeErrorKind::InvalidValue { expected, found })
    }

    /// Makes sure that `len` bytes follow, of values that are read one after the other: what is known to
    /// be there is not checked again where the compiler sees both.
    ///
    /// # Errors
    /// If the input is too short.
    #[inline]
    pub fn require(&self, len: usize) -> Result<(), DecodeError> {
        if len > self.remaining() {
            return Err(self.truncated(len));
        }
        Ok(())
    }

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// If the input is too short.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(self.truncated(N)),
        }
    }

    get! { u8: u8; u16: u16; u32: u32; u64: u64; i8: i8; i16: i16; i32: i32; i64: i64; f32: f32; f64: f64; }

    /// Reads a boolean: any byte but 0 is true, as in Ceph.
    ///
    /// # Errors
    /// If the input is too short.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.u8()? != 0)
    }

    /// Reads `len` bytes, without copying what can be shared.
    ///
    /// # Errors
    /// If the input is too short.
    pub fn raw(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let bytes = self.slice(len)?;
        Ok(self.input.share(bytes))
    }

    /// Passes over `len` bytes.
    ///
    /// # Errors
    /// If the input is too short.
    #[inline]
    pub fn skip(&mut self, len: usize) -> Result<(), DecodeError> {
        self.slice(len).map(|_| ())
    }

    /// The next `len` bytes, without a share in them.
    #[inline]
    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(len) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.truncated(len)),
        }
    }

    /// Reads a counted byte sequence (`bufferlist`) without copying it.
    ///
    /// # Errors
    /// If the input is too short.
    #[inline]
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        match self.u32()? as usize {
            0 => Ok(Bytes::new()),
            len => self.raw(len),
        }
    }

    /// Reads a container's element count, and checks it against the bytes that are left, so that
    /// a caller may reserve that many elements. `min_size` is the encoded size in bytes of the
    /// smallest possible element, at least 1.
    ///
    /// # Errors
    /// If so many elements cannot follow.
    pub fn count(&mut self, min_size: usize) -> Result<usize, DecodeError> {
        let count = self.u32()?;
        if count as usize > self.remaining() / min_size.max(1) {
            let available = self.remaining();
            return Err(self.error(DecodeErrorKind::ImpossibleCount { count, available }));
        }
        Ok(count as usize)
    }

    /// Reads any value.
    ///
    /// # Errors
    /// As its type says.
    #[inline]
    pub fn value<T: Decode>(&mut self) -> Result<T, DecodeError> {
        T::decode(self)
    }

    /// Names the type that `body` decodes, for errors.
    ///
    /// # Errors
    /// As `body`.
    #[inline]
    pub fn typed<T>(
        &mut self,
        name: &'static str,
        body: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        match body(self) {
            Ok(value) => Ok(value),
            Err(error) => Err(self.within(name, error)),
        }
    }

    /// Reads a versioned section: `body` gets the encoded version and sees the section only; what
    /// it leaves unread was appended by a newer version and is skipped. `understood` is the newest
    /// version that `body` knows.
    ///
    /// # Errors
    /// If the section is too new or longer than the input, or as `body`.
    #[inline]
    pub fn versioned<T>(
        &mut self,
        name: &'static str,
        understood: u8,
        body: impl FnOnce(&mut Self, u8) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.typed(name, |dec| {
            dec.require(SECTION_HEAD)?;
            let version = dec.u8()?;
            dec.compat(understood)?;
            dec.length_prefixed(|dec| body(dec, version))
        })
    }

    /// Reads a structure that became a versioned section during its life: it always begins with
    /// its version, from version `compat_since` on the compat version follows, from
    /// `length_since` on the length too (Ceph's `DECODE_START_LEGACY_COMPAT_LEN`).
    ///
    /// # Errors
    /// As [`Decoder::versioned`].
    #[inline]
    pub fn versioned_since<T>(
        &mut self,
        name: &'static str,
        understood: u8,
        compat_since: u8,
        length_since: u8,
        body: impl FnOnce(&mut Self, u8) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.typed(name, |dec| {
            let version = dec.u8()?;
            if version >= compat_since {
                dec.compat(understood)?;
            }
            let after = if version >= length_since { Some(dec.enter()?) } else { None };
            let value = body(dec, version);
            if let Some(after) = after {
                dec.leave(after);
            }
            value
        })
    }

    /// Reads what stands behind its own length as a `u32`: `body` sees no more than that, and what
    /// it leaves unread is skipped.
    ///
    /// # Errors
    /// If the input is shorter than the length says, or as `body`.
    #[inline]
    pub fn length_prefixed<T>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let after = self.enter()?;
        let value = body(self);
        self.leave(after);
        value
    }

    /// Goes on within a section behind its length; returns what follows it.
    #[inline]
    fn enter(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        let section = self.slice(length)?;
        self.behind += self.rest.len();
        Ok(std::mem::replace(&mut self.rest, section))
    }

    #[inline]
    fn leave(&mut self, after: &'a [u8]) {
        self.behind -= after.len();
        self.rest = after;
    }

    /// Ends decoding.
    ///
    /// # Errors
    /// If bytes are left over.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(self.error(DecodeErrorKind::TrailingBytes { count })),
        }
    }

    /// An error of a body: named, if no type within has one. It is taken by value: where the body's whole
    /// result were lent, it would have to lie in memory.
    #[cold]
    fn within(&self, name: &'static str, mut error: DecodeError) -> DecodeError {
        if error.type_name == self.type_name {
            error.type_name = name;
        }
        error
    }

    #[inline]
    fn compat(&mut self, understood: u8) -> Result<(), DecodeError> {
        let compat = self.u8()?;
        if compat > understood {
            return Err(self.error(DecodeErrorKind::TooNew { compat, understood }));
        }
        Ok(())
    }

    #[cold]
    fn truncated(&self, needed: usize) -> DecodeError {
        let needed = needed as u64;
        self.error(DecodeErrorKind::Truncated { needed, available: self.remaining() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<T>(
        input: &'static [u8],
        body: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let input = Bytes::from_static(input);
        let mut dec = Decoder::new(&input);
        let value = body(&mut dec)?;
        dec.finish()?;
        Ok(value)
    }

    fn error<T: std::fmt::Debug>(
        input: &'static [u8],
        body: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
    ) -> DecodeError {
        decode(input, body).unwrap_err()
    }

    #[test]
    fn a_body_sees_no_more_than_its_section() {
        let wire = &[1, 1, 2, 0, 0, 0, 7, 8, 9];
        let error = error(wire, |dec| dec.versioned("thing_t", 1, |dec, _| dec.u32()));
        assert_eq!(error.type_name, "thing_t");
        assert_eq!(error.offset, 6);
        assert_eq!(error.kind, DecodeErrorKind::Truncated { needed: 4, available: 2 });
    }

    #[test]
    fn what_newer_versions_appended_is_skipped() {
        let wire = &[9, 1, 3, 0, 0, 0, 7, 8, 9, 10];
        let value = decode(wire, |dec| {
            let inner = dec.versioned("thing_t", 1, |dec, version| Ok((version, dec.u8()?)))?;
            Ok((inner, dec.u8()?))
        });
        assert_eq!(value, Ok(((9, 7), 10)));
    }

    #[test]
    fn sections_for_newer_decoders_are_refused() {
        let error = error(&[5, 4, 0, 0, 0, 0], |dec| dec.versioned("thing_t", 3, |_, _| Ok(())));
        assert_eq!(error.offset, 2);
        assert_eq!(error.kind, DecodeErrorKind::TooNew { compat: 4, understood: 3 });
    }

    #[test]
    fn a_section_may_not_be_longer_than_what_encloses_it() {
        let wire = &[1, 1, 6, 0, 0, 0, 1, 1, 1, 0, 0, 0, 7];
        let error = error(wire, |dec| {
            dec.versioned("outer_t", 1, |dec, _| dec.versioned("inner_t", 1, |dec, _| dec.u8()))
        });
        assert_eq!((error.type_name, error.offset), ("inner_t", 12));
        assert_eq!(error.kind, DecodeErrorKind::Truncated { needed: 1, available: 0 });
    }

    #[test]
    fn legacy_structures_gain_compat_and_length() {
        let body = |dec: &mut Decoder<'_>| {
            dec.versioned_since("thing_t", 4, 2, 3, |dec, version| Ok((version, dec.u8()?)))
        };
        assert_eq!(decode(&[1, 7], body), Ok((1, 7)));
        assert_eq!(decode(&[2, 1, 7], body), Ok((2, 7)));
        assert_eq!(decode(&[3, 1, 1, 0, 0, 0, 7], body), Ok((3, 7)));
        assert_eq!(
            error(&[2, 5, 7], body).kind,
            DecodeErrorKind::TooNew { compat: 5, understood: 4 }
        );
    }

    #[test]
    fn the_type_after_an_inner_one_is_the_outer_one() {
        let error = error(&[1], |dec| {
            dec.typed("outer_t", |dec| {
                dec.typed("inner_t", |dec| dec.u8())?;
                dec.u8()
            })
        });
        assert_eq!((error.type_name, error.offset), ("outer_t", 1));
    }

    #[test]
    fn a_name_is_for_what_has_none_within() {
        let input = Bytes::from_static(&[1, 2]);
        let mut dec = Decoder::named("Message", &input);
        assert_eq!(dec.u32().unwrap_err().type_name, "Message");
        assert_eq!(dec.finish().unwrap_err().type_name, "Message");
        let inner = dec.typed("inner_t", |dec| dec.require(3)).unwrap_err();
        assert_eq!((inner.type_name, inner.offset), ("inner_t", 0));
        assert_eq!(inner.kind, DecodeErrorKind::Truncated { needed: 3, available: 2 });
        assert_eq!((dec.require(2), dec.remaining()), (Ok(()), 2));
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        let error = error(&[1, 2, 3], |dec| dec.u8());
        assert_eq!(error.kind, DecodeErrorKind::TrailingBytes { count: 2 });
    }

    #[test]
    fn byte_sequences_share_the_inputs_memory() {
        let input = Bytes::from(vec![2, 0, 0, 0, 7, 8]);
        let bytes = Decoder::new(&input).bytes().unwrap();
        assert_eq!(bytes.as_ptr(), input[4..].as_ptr());
    }

    #[test]
    fn lengths_near_the_end_of_the_address_space_do_not_overflow() {
        let huge = error(&[1, 2], |dec| dec.raw(usize::MAX));
        assert_eq!(huge.kind, DecodeErrorKind::Truncated { needed: u64::MAX, available: 2 });
        let huge = error(&[1, 2], |dec| dec.skip(usize::MAX));
        assert_eq!(huge.kind, DecodeErrorKind::Truncated { needed: u64::MAX, available: 2 });
    }
}
