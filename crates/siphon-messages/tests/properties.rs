//! What holds for every message and every input.

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use siphon_messages::mon::{ElectionStrategy, MonFeatures, MonMap, Release};
use siphon_messages::osd::{OsdFlags, OsdOp, OsdOpCode, OsdOpFlags};
use siphon_messages::{
    MMonGetMap, MMonMap, MMonSubscribe, MMonSubscribeAck, MOSDOp, MOSDOpReply, MPing,
    SubscribeItem, TypedMessage, describe,
};
use siphon_proto::{Message, MessageHeader, Payload};
use siphon_wire::buf::Rope;
use siphon_wire::types::{
    ByteString, EVersion, EntityAddr, Epoch, Features, HObject, PgId, RequestRedirect, SnapId,
    SpgId, Utime, Uuid, Version,
};

/// Luminous is the oldest peer, Squid the first that gets version 9 of a request.
const SQUID: Features = Features(Features::REEF.0 | Features::SERVER_SQUID.0);
const LUMINOUS: Features =
    Features(Features::REEF.0 & !(Features::SERVER_NAUTILUS.0 & !Features::SERVER_LUMINOUS.0));

fn text() -> impl Strategy<Value = ByteString> {
    vec(any::<u8>(), 0..12).prop_map(ByteString::from)
}

fn rope() -> impl Strategy<Value = Rope> {
    vec(vec(any::<u8>(), 0..8), 0..4)
        .prop_map(|segments| segments.into_iter().map(Bytes::from).collect())
}

fn op() -> impl Strategy<Value = OsdOp> {
    let code = prop_oneof![
        Just(OsdOpCode::WRITE),
        Just(OsdOpCode::CALL),
        Just(OsdOpCode::SETXATTR),
        any::<u16>().prop_map(OsdOpCode),
    ];
    (code, any::<u32>(), any::<[u8; OsdOp::ARGS_LEN]>(), rope()).prop_map(
        |(code, flags, args, data)| OsdOp {
            flags: OsdOpFlags(flags),
            args,
            data,
            ..OsdOp::new(code)
        },
    )
}

prop_compose! {
    fn request()(
        pg in (any::<u64>(), any::<u32>()),
        ids in (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<i32>()),
        names in (text(), text(), text()),
        ops in vec(op(), 0..5),
        loose_data in rope(),
        snaps in vec(any::<u64>(), 0..4),
        mtime in (any::<u32>(), any::<u32>()),
    ) -> MOSDOp {
        let mut object = HObject::new(pg.0 as i64, names.0, ids.0);
        (object.key, object.namespace) = (names.1, names.2);
        let pgid = SpgId::from(PgId { pool: pg.0, seed: pg.1 });
        let mut request = MOSDOp::new(ids.1, object, pgid);
        request.osdmap_epoch = Epoch(ids.2);
        request.flags = OsdFlags(ids.3);
        request.retry_attempt = ids.4;
        request.ops = ops;
        request.loose_data = loose_data;
        request.snap_seq = SnapId(pg.0);
        request.snaps = snaps.into_iter().map(SnapId).collect();
        request.mtime = Utime::new(mtime.0, mtime.1);
        request
    }
}

prop_compose! {
    fn reply()(
        request in request(),
        result in any::<i32>(),
        rval in any::<i32>(),
        versions in any::<(u32, u64, u64)>(),
        redirect in proptest::option::of(text()),
    ) -> MOSDOpReply {
        let mut reply = MOSDOpReply::new(&request, result, OsdFlags::ONDISK);
        for (answer, question) in reply.ops.iter_mut().zip(&request.ops) {
            answer.data = question.data.clone();
            answer.rval = rval;
        }
        reply.replay_version = EVersion::new(versions.0, versions.1);
        reply.user_version = Version(versions.2);
        reply.redirect = redirect.map(|object| RequestRedirect { object, ..Default::default() });
        reply
    }
}

prop_compose! {
    fn monmap()(
        mons in btree_map(text(), vec(addr(), 0..3), 0..4),
        bits in any::<(u64, u64, u8, u8, u32)>(),
        sets in (btree_set(text(), 0..3), btree_set(any::<i32>(), 0..3)),
        stretch in (any::<bool>(), text()),
        fsid in any::<[u8; 16]>(),
    ) -> MonMap {
        let mut map = MonMap {
            epoch: Epoch(bits.4),
            fsid: Uuid(fsid),
            created: Utime::new(bits.4, 5),
            persistent_features: MonFeatures(bits.0),
            optional_features: MonFeatures(bits.1),
            min_mon_release: Release(bits.2),
            strategy: ElectionStrategy(bits.3),
            removed_ranks: sets.1,
            disallowed_leaders: sets.0.clone(),
            stretch_marked_down_mons: sets.0,
            stretch_mode_enabled: stretch.0,
            tiebreaker_mon: stretch.1,
            ..MonMap::default()
        };
        for (name, addrs) in mons {
            map.add(name, addrs.into());
        }
        map
    }
}

fn addr() -> impl Strategy<Value = EntityAddr> {
    (any::<bool>(), any::<[u8; 4]>(), any::<u16>(), any::<u32>()).prop_map(
        |(msgr2, ip, port, nonce)| {
            let addr = (ip, port).into();
            if msgr2 { EntityAddr::msgr2(addr, nonce) } else { EntityAddr::legacy(addr, nonce) }
        },
    )
}

fn survives<M: TypedMessage + PartialEq>(typed: &M, features: Features) {
    let message = typed.to_message(features);
    assert_eq!(&M::from_message(&message).unwrap(), typed);
    assert!(!describe(&message).contains("bytes)"), "{}", describe(&message));
}

/// Reads anything as every type and version; what comes out must be writable.
fn read_as_all(version: u16, payload: &Payload) {
    fn read<M: TypedMessage>(version: u16, payload: &Payload) {
        let header = MessageHeader { version, compat_version: 1, ..M::header() };
        let mut message = Message::new(header, payload.clone());
        message.seq = 1;
        if let Ok(typed) = M::from_message(&message) {
            typed.to_message(Features::ALL);
            typed.to_message(Features::NONE);
        }
        assert!(describe(&message).contains(M::NAME));
    }
    read::<MPing>(version, payload);
    read::<MMonGetMap>(version, payload);
    read::<MMonMap>(version, payload);
    read::<MMonSubscribe>(version, payload);
    read::<MMonSubscribeAck>(version, payload);
    read::<MOSDOp>(version, payload);
    read::<MOSDOpReply>(version, payload);
}

proptest! {
    #[test]
    fn requests_survive(request in request()) {
        for features in [LUMINOUS, Features::REEF, SQUID] {
            survives(&request, features);
        }
    }

    #[test]
    fn replies_survive(reply in reply()) {
        survives(&reply, Features::REEF);
    }

    #[test]
    fn monmaps_survive(monmap in monmap()) {
        survives(&MMonMap { monmap }, Features::REEF);
    }

    #[test]
    fn old_peers_get_the_names_ranks_and_legacy_addresses(monmap in monmap()) {
        let sent = MMonMap { monmap };
        let message = sent.to_message(LUMINOUS);
        let MMonMap { monmap } = MMonMap::from_message(&message).unwrap();
        prop_assert_eq!(monmap.fsid, sent.monmap.fsid);
        prop_assert_eq!(monmap.ranks.len(), sent.monmap.ranks.len());
        for (name, mon) in &sent.monmap.mons {
            let legacy = mon.public_addrs.legacy();
            let [addr] = monmap.mons[name].public_addrs[..] else { panic!("{name}: one address") };
            prop_assert!(legacy.is_none_or(|legacy| legacy == addr));
        }
    }

    #[test]
    fn subscriptions_survive(
        what in btree_map(text(), any::<(u64, u8)>(), 0..4),
        hostname in text(),
    ) {
        let item = |(start, flags)| SubscribeItem { start, flags };
        let what = what.into_iter().map(|(name, value)| (name, item(value))).collect();
        survives(&MMonSubscribe { what, hostname }, Features::ALL);
    }

    #[test]
    fn small_messages_survive(text in ".{0,20}", interval in any::<u32>(), fsid in any::<[u8; 16]>()) {
        survives(&MPing::answer(text), Features::ALL);
        survives(&MPing::question(), Features::ALL);
        survives(&MMonGetMap, Features::ALL);
        survives(&MMonSubscribeAck { interval, fsid: Uuid(fsid) }, Features::ALL);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        version in 0u16..12,
        front in vec(any::<u8>(), 0..200),
        data in rope(),
    ) {
        read_as_all(version, &Payload { front: front.into(), data, ..Payload::default() });
    }

    #[test]
    fn almost_messages_are_read_or_refused(
        request in request(),
        monmap in monmap(),
        reply in reply(),
        (at, byte, cut) in any::<(prop::sample::Index, u8, prop::sample::Index)>(),
        version in 0u16..12,
    ) {
        let map = MMonMap { monmap };
        for mut message in [
            request.to_message(LUMINOUS),
            request.to_message(SQUID),
            reply.to_message(SQUID),
            map.to_message(SQUID),
            map.to_message(LUMINOUS),
            map.to_message(Features::NONE),
        ] {
            let mut front = message.payload.front.to_vec();
            let index = at.index(front.len());
            front[index] = byte;
            read_as_all(version, &Payload { front: front.clone().into(), ..message.payload.clone() });
            front.truncate(cut.index(front.len()));
            message.payload.front = front.into();
            read_as_all(version, &message.payload);
        }
    }
}

#[test]
fn only_what_depends_on_features_waits_for_them() {
    let op = MOSDOp::new(0, HObject::min(), SpgId::default());
    assert!(op.into_out().payload().is_none());
    assert!(MMonMap::default().into_out().payload().is_none());
    assert!(MPing::answer("").into_out().payload().is_some());
    assert!(MOSDOpReply::default().into_out().payload().is_some());
}
