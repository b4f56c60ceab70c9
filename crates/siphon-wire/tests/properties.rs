//! What holds for every value and every input of every type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use siphon_wire::buf::Rope;
use siphon_wire::types::{
    AddrType, AuthName, BlkinTrace, ByteString, EVersion, EntityAddr, EntityAddrVec, EntityName,
    EntityType, Epoch, Features, HObject, ObjectLocator, PgId, ReqId, RequestRedirect, ShardId,
    SnapId, SpgId, Utime, Uuid, Version,
};
use siphon_wire::{Decode, DecodeError, Encode};

/// A value comes back from its encoding, and from no shorter one.
fn round_trip<T: Encode + Decode + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let wire = value.to_bytes(Features::ALL);
    prop_assert!(T::MIN_SIZE <= wire.len());
    prop_assert_eq!(&T::from_bytes(&wire).map_err(failed)?, value);
    for cut in 0..wire.len() {
        let Err(error) = T::from_bytes(&wire.slice(..cut)) else {
            return Err(TestCaseError::fail(format!("decoded from {cut} bytes")));
        };
        prop_assert!(error.offset <= cut, "{} of {cut}", error);
    }
    Ok(())
}

/// Any input either decodes to what can be encoded and decoded again, or gives an error within it.
fn any_input<T: Encode + Decode + PartialEq + Debug>(input: &Bytes) -> Result<(), TestCaseError> {
    match T::from_bytes(input) {
        Ok(value) => {
            let wire = value.to_bytes(Features::ALL);
            prop_assert_eq!(T::from_bytes(&wire).map_err(failed)?, value);
        }
        Err(error) => prop_assert!(error.offset <= input.len(), "{error}"),
    }
    Ok(())
}

fn failed(error: DecodeError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// `wire` with some bytes replaced: closer to what a type expects than random bytes are.
fn damaged(wire: &[u8], damage: &[(prop::sample::Index, u8)]) -> Bytes {
    let mut wire = wire.to_vec();
    for (at, byte) in damage.iter().filter(|_| !wire.is_empty()).collect::<Vec<_>>() {
        let at = at.index(wire.len());
        wire[at] = *byte;
    }
    wire.into()
}

macro_rules! properties {
    ($($name:ident: $ty:ty = $values:expr;)*) => {$(
        mod $name {
            use super::*;

            proptest! {
                #[test]
                fn comes_back(value in $values) {
                    round_trip::<$ty>(&value)?;
                }

                #[test]
                fn takes_any_input(input in vec(any::<u8>(), 0..200)) {
                    any_input::<$ty>(&input.into())?;
                }

                #[test]
                fn takes_damaged_input(
                    value in $values,
                    damage in vec(any::<(prop::sample::Index, u8)>(), 1..4),
                ) {
                    any_input::<$ty>(&damaged(&Encode::to_bytes(&value, Features::ALL), &damage))?;
                }
            }
        }
    )*};
}

properties! {
    integers: (u8, (i16, u32, i64)) = any::<(u8, (i16, u32, i64))>();
    strings: Vec<String> = vec(".{0,8}", 0..4);
    byte_sequences: Vec<Bytes> = vec(vec(any::<u8>(), 0..8).prop_map(Bytes::from), 0..4);
    ropes: Rope = vec(any::<u8>(), 0..40).prop_map(|bytes| Rope::from(Bytes::from(bytes)));
    options: Vec<Option<u16>> = vec(option::of(any::<u16>()), 0..8);
    maps: BTreeMap<u16, String> = btree_map(any::<u16>(), ".{0,4}", 0..5);
    sets: BTreeSet<[u8; 3]> = btree_set(any::<[u8; 3]>(), 0..8);
    feature_sets: Features = any::<u64>().prop_map(Features);
    byte_strings: ByteString = byte_string();
    entity_names: EntityName = entity_name();
    auth_names: AuthName = (any::<u8>(), byte_string())
        .prop_map(|(kind, id)| AuthName::new(EntityType(kind), id));
    addresses: EntityAddr = addr();
    address_vectors: EntityAddrVec = vec(addr(), 0..4).prop_map(EntityAddrVec);
    times: Utime = any::<(u32, u32)>().prop_map(|(sec, nsec)| Utime::new(sec, nsec));
    uuids: Uuid = any::<[u8; 16]>().prop_map(Uuid);
    snapshots: SnapId = any::<u64>().prop_map(SnapId);
    epochs: (Epoch, Version) = any::<(u32, u64)>().prop_map(|(e, v)| (Epoch(e), Version(v)));
    changes: EVersion = any::<(u32, u64)>().prop_map(|(e, v)| EVersion::new(e, v));
    placement_groups: PgId = pg();
    shards: SpgId = (pg(), any::<i8>()).prop_map(|(pg, shard)| SpgId { pg, shard: ShardId(shard) });
    request_ids: ReqId = (entity_name(), any::<(i32, u64)>())
        .prop_map(|(name, (incarnation, tid))| ReqId { name, incarnation, tid });
    locators: ObjectLocator = locator();
    redirects: RequestRedirect = (locator(), byte_string())
        .prop_map(|(locator, object)| RequestRedirect { locator, object });
    objects: HObject = object();
    traces: BlkinTrace = any::<(i64, i64, i64)>().prop_map(|(trace_id, span_id, parent_span_id)| {
        BlkinTrace { trace_id, span_id, parent_span_id }
    });
}

proptest! {
    /// Texts that `Display` writes are read again, where they tell all.
    #[test]
    fn texts_come_back(addrs in vec(ip_addr(), 1..4), object in object(), pg in pg()) {
        let addrs = EntityAddrVec(addrs);
        prop_assert_eq!(addrs.to_string().parse(), Ok(addrs));
        prop_assert_eq!(object.to_string().parse(), Ok(object));
        prop_assert_eq!(pg.to_string().parse(), Ok(pg));
    }

    /// No text makes the parsers panic.
    #[test]
    fn any_text_is_read_or_refused(text in r"[\[\]v12:.,/0-9a-f%s\-?]{0,24}|\PC{0,12}") {
        let _ = text.parse::<EntityAddr>();
        let _ = text.parse::<EntityAddrVec>();
        let _ = text.parse::<EntityName>();
        let _ = text.parse::<HObject>();
        let _ = text.parse::<SpgId>();
        let _ = text.parse::<Uuid>();
    }

    /// The order of objects agrees with their equality.
    #[test]
    fn only_equal_objects_compare_equal(a in object(), b in object()) {
        prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    }

    /// However a rope is cut, and wherever it is drained, its bytes are the same.
    #[test]
    fn ropes_are_their_bytes(
        pieces in vec(vec(any::<u8>(), 0..5), 0..6),
        at in any::<prop::sample::Index>(),
    ) {
        let bytes = pieces.concat();
        let at = at.index(bytes.len() + 1);
        let mut rope: Rope = pieces.into_iter().map(Bytes::from).collect();
        prop_assert_eq!(rope.slice(at..bytes.len()), &bytes[at..]);
        let head = rope.split_to(at);
        prop_assert_eq!(head.to_bytes(), &bytes[..at]);
        prop_assert_eq!(&rope, &bytes[at..]);
        prop_assert_eq!(rope.crc32c(head.crc32c(7)), siphon_wire::crc32c::crc32c(7, &bytes));
    }
}

fn byte_string() -> impl Strategy<Value = ByteString> {
    vec(any::<u8>(), 0..8).prop_map(ByteString::from)
}

fn entity_name() -> impl Strategy<Value = EntityName> {
    any::<(u8, i64)>().prop_map(|(kind, num)| EntityName::new(EntityType(kind), num))
}

fn addr() -> impl Strategy<Value = EntityAddr> {
    (0..6u32, any::<u32>(), option::of(any::<SocketAddr>()))
        .prop_map(|(kind, nonce, addr)| EntityAddr::new(AddrType(kind), nonce, addr))
}

/// An address whose text tells all: of a protocol, and without IPv6's flow and scope.
fn ip_addr() -> impl Strategy<Value = EntityAddr> {
    (1..=2u32, any::<(u32, IpAddr, u16)>()).prop_map(|(kind, (nonce, ip, port))| {
        EntityAddr::new(AddrType(kind), nonce, Some(SocketAddr::new(ip, port)))
    })
}

fn pg() -> impl Strategy<Value = PgId> {
    any::<(u64, u32)>().prop_map(|(pool, seed)| PgId { pool, seed })
}

fn locator() -> impl Strategy<Value = ObjectLocator> {
    (any::<i64>(), byte_string(), byte_string(), -1..=i64::MAX)
        .prop_map(|(pool, key, namespace, hash)| ObjectLocator { pool, key, namespace, hash })
}

fn object() -> impl Strategy<Value = HObject> {
    let real = (0..3i64, byte_string(), 0..3u32, byte_string(), byte_string(), any::<u64>());
    let real = real.prop_map(|(pool, oid, hash, key, namespace, snap)| {
        let mut object = HObject::new(pool, oid, hash);
        (object.key, object.namespace, object.snap) = (key, namespace, SnapId(snap));
        object
    });
    prop_oneof![8 => real, 1 => Just(HObject::min()), 1 => Just(HObject::max())]
}
