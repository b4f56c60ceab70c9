//! `Encode` and `Decode` of the standard library's types and of `Bytes`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Decode, DecodeError, DecodeErrorKind, Decoder, Encode, Encoder};
use crate::buf::Rope;

macro_rules! numbers {
    ($($ty:ident)*) => {$(
        impl Encode for $ty {
            #[inline]
            fn encode(&self, enc: &mut Encoder) {
                enc.$ty(*self);
            }
        }

        impl Decode for $ty {
            const MIN_SIZE: usize = size_of::<Self>();

            #[inline]
            fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                dec.$ty()
            }
        }
    )*};
}

// A boolean is one byte, so `size_of` holds for it too.
numbers! { u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 bool }

impl<T: Encode + ?Sized> Encode for &T {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        (**self).encode(enc);
    }
}

impl<T: Encode + ?Sized> Encode for Box<T> {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        (**self).encode(enc);
    }
}

impl<T: Decode> Decode for Box<T> {
    const MIN_SIZE: usize = T::MIN_SIZE;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.value().map(Self::new)
    }
}

impl Encode for str {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.bytes(self.as_bytes());
    }
}

impl Encode for String {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        self.as_str().encode(enc);
    }
}

/// For strings that are text by their meaning. What a Ceph user may choose freely, such as an
/// object's name, can hold any bytes: see [`ByteString`](crate::types::ByteString).
impl Decode for String {
    const MIN_SIZE: usize = 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let len = dec.u32()?;
        let bytes = dec.slice(len as usize)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(dec.error(DecodeErrorKind::InvalidUtf8)),
        }
    }
}

impl Encode for Bytes {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        enc.bytes(self);
    }
}

/// Shares the input's memory.
impl Decode for Bytes {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.bytes()
    }
}

/// A counted byte sequence, as for [`Bytes`].
impl Encode for Rope {
    fn encode(&self, enc: &mut Encoder) {
        enc.count(self.len());
        for segment in self.segments() {
            enc.raw(segment);
        }
    }
}

/// Shares the input's memory.
impl Decode for Rope {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.bytes().map(Self::from)
    }
}

/// One byte that tells whether the value follows (`std::optional`).
impl<T: Encode> Encode for Option<T> {
    fn encode(&self, enc: &mut Encoder) {
        enc.bool(self.is_some());
        if let Some(value) = self {
            enc.value(value);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    const MIN_SIZE: usize = 1;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if dec.bool()? { dec.value().map(Some) } else { Ok(None) }
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, enc: &mut Encoder) {
        enc.count(self.len());
        for item in self {
            enc.value(item);
        }
    }
}

impl<T: Encode> Encode for Vec<T> {
    #[inline]
    fn encode(&self, enc: &mut Encoder) {
        self.as_slice().encode(enc);
    }
}

impl<T: Decode> Decode for Vec<T> {
    const MIN_SIZE: usize = 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = dec.count(T::MIN_SIZE)?;
        // An element may be larger in memory than on the wire: reserve no more memory than there
        // is input, and let what is decoded pay for the rest.
        let mut items = Self::with_capacity(count.min(dec.remaining() / size_of::<T>().max(1)));
        for _ in 0..count {
            items.push(dec.value()?);
        }
        Ok(items)
    }
}

impl<K: Encode, V: Encode> Encode for BTreeMap<K, V> {
    fn encode(&self, enc: &mut Encoder) {
        enc.count(self.len());
        for (key, value) in self {
            enc.value(key);
            enc.value(value);
        }
    }
}

/// Accepts keys in any order; of equal keys the last one wins, as in Ceph.
impl<K: Decode + Ord, V: Decode> Decode for BTreeMap<K, V> {
    const MIN_SIZE: usize = 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = dec.count(K::MIN_SIZE + V::MIN_SIZE)?;
        let mut map = Self::new();
        for _ in 0..count {
            let key = dec.value()?;
            map.insert(key, dec.value()?);
        }
        Ok(map)
    }
}

impl<T: Encode> Encode for BTreeSet<T> {
    fn encode(&self, enc: &mut Encoder) {
        enc.count(self.len());
        for item in self {
            enc.value(item);
        }
    }
}

impl<T: Decode + Ord> Decode for BTreeSet<T> {
    const MIN_SIZE: usize = 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = dec.count(T::MIN_SIZE)?;
        let mut set = Self::new();
        for _ in 0..count {
            set.insert(dec.value()?);
        }
        Ok(set)
    }
}

/// The elements without a count (`std::array`).
impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, enc: &mut Encoder) {
        for item in self {
            enc.value(item);
        }
    }
}

impl<T: Decode, const N: usize> Decode for [T; N] {
    const MIN_SIZE: usize = N * T::MIN_SIZE;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut items = Vec::with_capacity(N);
        for _ in 0..N {
            items.push(dec.value()?);
        }
        Ok(Self::try_from(items).unwrap_or_else(|_| unreachable!("N items were pushed")))
    }
}

macro_rules! tuples {
    ($(($($ty:ident $index:tt),+))*) => {$(
        impl<$($ty: Encode),+> Encode for ($($ty,)+) {
            #[inline]
            fn encode(&self, enc: &mut Encoder) {
                $(enc.value(&self.$index);)+
            }
        }

        impl<$($ty: Decode),+> Decode for ($($ty,)+) {
            const MIN_SIZE: usize = 0 $(+ $ty::MIN_SIZE)+;

            #[inline]
            fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                dec.require(Self::MIN_SIZE)?;
                Ok(($(dec.value::<$ty>()?,)+))
            }
        }
    )*};
}

tuples! { (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Features;

    /// `value` encodes to `wire`, and `wire` decodes to `value`.
    #[track_caller]
    fn check<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: T, wire: &[u8]) {
        assert_eq!(&value.to_bytes(Features::ALL)[..], wire);
        assert!(T::MIN_SIZE <= wire.len(), "MIN_SIZE is a lower bound");
        assert_eq!(T::from_bytes(&Bytes::copy_from_slice(wire)).unwrap(), value);
        for cut in 0..wire.len() {
            let error = T::from_bytes(&Bytes::copy_from_slice(&wire[..cut])).unwrap_err();
            assert!(error.offset <= cut, "{error}");
        }
    }

    #[test]
    fn numbers_are_little_endian() {
        check(0x12u8, &[0x12]);
        check(-2i16, &[0xfe, 0xff]);
        check(0x1234_5678u32, &[0x78, 0x56, 0x34, 0x12]);
        check(i64::MIN, &[0, 0, 0, 0, 0, 0, 0, 0x80]);
        check(1.0f64, &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        check(true, &[1]);
    }

    #[test]
    fn any_byte_but_zero_is_true() {
        assert!(bool::from_bytes(&Bytes::from_static(&[0x80])).unwrap());
    }

    #[test]
    fn containers_are_counted() {
        check("ceph".to_owned(), b"\x04\0\0\0ceph");
        check(Bytes::from_static(b"\xff\0"), b"\x02\0\0\0\xff\0");
        check(vec![1u16, 2], &[2, 0, 0, 0, 1, 0, 2, 0]);
        check(BTreeSet::from([3u8, 1]), &[2, 0, 0, 0, 1, 3]);
        check(BTreeMap::from([(2u8, -1i8), (1, 0)]), &[2, 0, 0, 0, 1, 0, 2, 0xff]);
        check(Rope::from(Bytes::from_static(b"ab")), b"\x02\0\0\0ab");
    }

    #[test]
    fn arrays_and_tuples_are_not_counted() {
        check([1u16, 2], &[1, 0, 2, 0]);
        check((1u8, 2u16, true), &[1, 2, 0, 1]);
        check(Some(7u8), &[1, 7]);
        check(None::<u64>, &[0]);
        check(Box::new(7u8), &[7]);
    }

    #[test]
    fn text_must_be_utf8() {
        let error = String::from_bytes(&Bytes::from_static(b"\x01\0\0\0\xff")).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::InvalidUtf8);
    }

    #[test]
    fn of_equal_keys_the_last_wins() {
        let wire = Bytes::from_static(&[3, 0, 0, 0, 9, 1, 5, 2, 9, 3]);
        assert_eq!(BTreeMap::from_bytes(&wire).unwrap(), BTreeMap::from([(5u8, 2u8), (9, 3)]));
    }

    #[test]
    fn counts_beyond_the_input_are_refused_before_anything_is_reserved() {
        let wire = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        let impossible = DecodeErrorKind::ImpossibleCount { count: u32::MAX, available: 8 };
        assert_eq!(Vec::<u64>::from_bytes(&wire).unwrap_err().kind, impossible);
        assert_eq!(BTreeSet::<u8>::from_bytes(&wire).unwrap_err().kind, impossible);
        assert_eq!(BTreeMap::<u8, u8>::from_bytes(&wire).unwrap_err().kind, impossible);
        // Elements that take no bytes on the wire count as one each.
        assert_eq!(Vec::<[u8; 0]>::from_bytes(&wire).unwrap_err().kind, impossible);
    }
}
