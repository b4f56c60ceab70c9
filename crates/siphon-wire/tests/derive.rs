//! What the derives make of a struct.

use bytes::Bytes;
use siphon_wire::types::Features;
use siphon_wire::{Decode, DecodeErrorKind, Encode, Encoder, Fixed};

#[derive(Debug, PartialEq, Encode, Decode)]
struct Plain {
    first: u16,
    second: String,
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct Wrapped(u32);

#[derive(Debug, Default, PartialEq, Encode, Decode)]
#[denc(version = 3, compat = 2, name = "thing_t")]
struct Versioned<T> {
    number: u8,
    value: T,
    #[denc(since = 2)]
    second: Option<u8>,
    #[denc(since = 3)]
    third: Vec<u16>,
}

#[derive(Debug, PartialEq, Encode, Decode)]
#[denc(version = 1)]
struct Nothing;

#[derive(Debug, PartialEq, Encode, Decode)]
struct Borrowing(Plain, [u8; 3], (bool, Wrapped));

#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
#[denc(fixed)]
struct Place(u16, [u8; 3]);

#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
#[denc(version = 2, compat = 1, name = "placed_t", fixed)]
struct Placed {
    place: Place,
    number: i32,
}

#[track_caller]
fn check<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: T, wire: &'static [u8]) {
    assert_eq!(&value.to_bytes(Features::ALL)[..], wire);
    assert_eq!(T::from_bytes(&Bytes::from_static(wire)), Ok(value));
}

#[test]
fn fields_stand_in_their_order() {
    let plain = || Plain { first: 1, second: "ab".into() };
    check(plain(), b"\x01\0\x02\0\0\0ab");
    check(Wrapped(7), b"\x07\0\0\0");
    check(Borrowing(plain(), *b"xyz", (true, Wrapped(2))), b"\x01\0\x02\0\0\0abxyz\x01\x02\0\0\0");
}

#[test]
fn a_version_makes_a_section() {
    let value = Versioned { number: 1, value: 2u8, second: Some(3), third: vec![4] };
    check(value, b"\x03\x02\x0a\0\0\0\x01\x02\x01\x03\x01\0\0\0\x04\0");
    check(Nothing, b"\x01\x01\0\0\0\0");
}

#[test]
fn what_is_fixed_is_encoded_the_same_alone_and_in_a_run() {
    let place = Place(1, *b"abc");
    check(place, b"\x01\0abc");
    let placed = Placed { place, number: -2 };
    check(placed, b"\x02\x01\x09\0\0\0\x01\0abc\xfe\xff\xff\xff");
    assert_eq!((Place::SIZE, Placed::SIZE), (5, 15));
    let mut enc = Encoder::new(Features::ALL);
    enc.fixed((placed, 7_u8, place));
    let mut one_by_one = Encoder::new(Features::ALL);
    one_by_one.value(&placed);
    one_by_one.u8(7);
    one_by_one.value(&place);
    assert_eq!(enc.finish(), one_by_one.finish());
}

#[test]
fn what_an_older_version_lacks_is_the_default() {
    let second = Bytes::from_static(b"\x02\x02\x04\0\0\0\x01\x02\x01\x03");
    let expected = Versioned { number: 1, value: 2u8, second: Some(3), third: vec![] };
    assert_eq!(Versioned::from_bytes(&second), Ok(expected));
    let first = Bytes::from_static(b"\x01\x01\x02\0\0\0\x01\x02");
    let expected = Versioned { number: 1, value: 2u8, ..Versioned::default() };
    assert_eq!(Versioned::from_bytes(&first), Ok(expected));
}

#[test]
fn what_a_newer_version_appended_is_skipped() {
    let wire = Bytes::from_static(b"\x04\x03\x09\0\0\0\x01\x02\0\0\0\0\0\xff\xff");
    let expected = Versioned { number: 1, value: 2u8, ..Versioned::default() };
    assert_eq!(Versioned::from_bytes(&wire), Ok(expected));
    let wire = Bytes::from_static(b"\x04\x04\0\0\0\0");
    let error = Versioned::<u8>::from_bytes(&wire).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::TooNew { compat: 4, understood: 3 });
}

#[test]
fn errors_name_the_type() {
    let name = |error: siphon_wire::DecodeError| error.type_name;
    let empty = Bytes::new();
    assert_eq!(name(Versioned::<u8>::from_bytes(&empty).unwrap_err()), "thing_t");
    assert_eq!(name(Plain::from_bytes(&empty).unwrap_err()), "Plain");
    assert_eq!(name(Nothing::from_bytes(&empty).unwrap_err()), "Nothing");
    assert_eq!(name(Wrapped::from_bytes(&empty).unwrap_err()), "value");
}

#[test]
fn sizes_are_those_of_the_oldest_version() {
    assert_eq!(Plain::MIN_SIZE, 2 + 4);
    assert_eq!(Versioned::<u64>::MIN_SIZE, 6 + 1 + 8);
    assert_eq!(Nothing::MIN_SIZE, 6);
}
