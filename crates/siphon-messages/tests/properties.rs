//! What holds for every message and every input.

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use siphon_messages::mon::{ElectionStrategy, MgrMap, MonFeatures, MonMap, PoolStat, Release};
use siphon_messages::osd::{BackoffOp, OsdFlags, OsdOp, OsdOpCode, OsdOpFlags, WatchEventKind};
use siphon_messages::{
    MCommand, MCommandReply, MConfig, MGetPoolStats, MGetPoolStatsReply, MMgrCommand,
    MMgrCommandReply, MMgrMap, MMonGetMap, MMonGetVersion, MMonGetVersionReply, MMonMap,
    MMonSubscribe, MMonSubscribeAck, MOSDBackoff, MOSDMap, MOSDOp, MOSDOpReply, MPing, MPoolOp,
    MPoolOpReply, MStatfs, MStatfsReply, MWatchNotify, PoolOpCode, SubscribeItem, TypedMessage,
    describe,
};
use siphon_proto::{Front, Message, MessageHeader, Payload};
use siphon_wire::buf::Rope;
use siphon_wire::types::{
    BlkinTrace, ByteString, EVersion, EntityAddr, EntityName, EntityType, Epoch, Features, HObject,
    PgId, ReqId, RequestRedirect, SnapId, SpgId, Utime, Uuid, Version,
};

/// Luminous is the oldest peer, Squid the first that gets version 9 of a request.
const SQUID: Features = Features(Features::REEF.0 | Features::SERVER_SQUID.0);
/// What gets version 7, which has no traces.
const BEFORE_LUMINOUS: Features = Features(Features::REEF.0 & !Features::RESEND_ON_SPLIT.0);
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
        // Ceph writes some names in one word, and the messages in two.
        let one_word = |text: &str| text.replace('_', "");
        assert!(one_word(&describe(&message)).contains(&one_word(M::NAME)));
    }
    read::<MPing>(version, payload);
    read::<MMonGetMap>(version, payload);
    read::<MMonMap>(version, payload);
    read::<MMonSubscribe>(version, payload);
    read::<MMonSubscribeAck>(version, payload);
    read::<MOSDOp>(version, payload);
    read::<MOSDOpReply>(version, payload);
    read::<MConfig>(version, payload);
    read::<MGetPoolStats>(version, payload);
    read::<MGetPoolStatsReply>(version, payload);
    read::<MMgrCommand>(version, payload);
    read::<MMgrCommandReply>(version, payload);
    read::<MMgrMap>(version, payload);
    read::<MMonGetVersion>(version, payload);
    read::<MMonGetVersionReply>(version, payload);
    read::<MOSDBackoff>(version, payload);
    read::<MOSDMap>(version, payload);
    read::<MPoolOp>(version, payload);
    read::<MPoolOpReply>(version, payload);
    read::<MStatfs>(version, payload);
    read::<MStatfsReply>(version, payload);
    read::<MWatchNotify>(version, payload);
}

proptest! {
    #[test]
    fn requests_survive(request in request()) {
        for features in [LUMINOUS, Features::REEF, SQUID] {
            survives(&request, features);
        }
    }

    #[test]
    fn the_head_of_a_request_is_that_of_the_whole(
        request in request(),
        ids in any::<(i64, u64)>(),
        cut in 0..60_usize,
    ) {
        let name = EntityName::new(EntityType::CLIENT, ids.0);
        let reqid = ReqId { name, tid: ids.1, ..request.reqid };
        let trace = BlkinTrace { trace_id: ids.0, span_id: 2, parent_span_id: 3 };
        let request = MOSDOp { reqid, trace, ..request };
        let mut head = MOSDOp { trace, ..MOSDOp::default() };
        for (version, features) in [(9, SQUID), (8, Features::REEF), (7, BEFORE_LUMINOUS)] {
            let mut message = request.to_message(features);
            let whole = MOSDOp::from_message(&message).unwrap();
            prop_assert_eq!(message.header.version, version);
            head.fill_head(&message).unwrap();
            let fields = |it: &MOSDOp| {
                (it.pgid, it.hash, it.osdmap_epoch, it.flags, it.reqid, it.trace, it.otel_trace)
            };
            prop_assert_eq!(fields(&head), fields(&whole));
            let sent = if version >= 8 { trace } else { BlkinTrace::default() };
            prop_assert_eq!((head.reqid, head.trace), (reqid, sent));
            prop_assert!(head.oid.is_empty() && head.ops.is_empty() && head.loose_data.is_empty());
            message.payload.front = Front::copy_of(&message.payload.front[..cut]);
            let error = MOSDOp::default().fill_head(&message).unwrap_err();
            prop_assert_eq!(error, MOSDOp::from_message(&message).unwrap_err());
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
    fn what_osds_tell_their_clients_survives(
        request in request(),
        end in text(),
        (payload, answers) in (vec(any::<u8>(), 0..12), rope()),
        (op, cookie, notify_id, return_code) in any::<(u8, u64, u64, i32)>(),
    ) {
        survives(
            &MOSDBackoff {
                pgid: request.pgid,
                map_epoch: request.osdmap_epoch,
                op: BackoffOp(op),
                id: cookie,
                begin: request.object(),
                end: HObject::new(request.locator.pool, end, request.hash),
            },
            Features::ALL,
        );
        survives(
            &MWatchNotify {
                cookie,
                version: 0,
                notify_id,
                kind: WatchEventKind(op),
                payload: payload.into(),
                return_code,
                notifier_gid: cookie,
                answers,
            },
            Features::ALL,
        );
    }

    #[test]
    fn what_clients_ask_monitors_survives(
        names in vec(text(), 1..4),
        (number, version) in any::<(u32, u64)>(),
        fsid in any::<[u8; 16]>(),
        (rule, pool) in any::<(i16, Option<i64>)>(),
    ) {
        let (fsid, name) = (Uuid(fsid), names[0].clone());
        survives(&MMonGetVersion { handle: version, what: name.clone() }, Features::ALL);
        survives(&MStatfs { version, fsid, data_pool: pool }, Features::ALL);
        survives(&MGetPoolStats { version, fsid, pools: names.clone() }, Features::ALL);
        let (op, snapid) = (PoolOpCode(number), SnapId(version));
        let op = MPoolOp { version, fsid, pool: number, op, snapid, name, crush_rule: rule };
        survives(&op, Features::ALL);
        let input = Bytes::from_static(b"input");
        survives(&MMgrCommand(MCommand { fsid, cmd: names, input }), Features::ALL);
    }

    #[test]
    fn what_monitors_answer_clients_survives(
        names in vec(text(), 1..4),
        (number, version) in any::<(u32, u64)>(),
        fsid in any::<[u8; 16]>(),
        (code, flag) in any::<(i32, bool)>(),
    ) {
        let (fsid, epoch, name) = (Uuid(fsid), Epoch(number), names[0].clone());
        let blob = Bytes::from_static(b"some bytes");
        let reply = MMonGetVersionReply { handle: version, version, oldest_version: version / 2 };
        survives(&reply, Features::ALL);
        let config = names.iter().map(|name| (name.clone(), name.clone())).collect();
        survives(&MConfig { config }, Features::ALL);
        let mut stat = PoolStat { log_size: i64::from(code), ..PoolStat::default() };
        stat.stats.sum.num_objects = i64::from(number);
        let pool_stats = names.into_iter().map(|name| (name, stat.clone())).collect();
        let stats = MGetPoolStatsReply { version, fsid, pool_stats, per_pool: flag };
        survives(&stats, Features::ALL);
        let (kb, kb_used, kb_avail, num_objects) = (version, version / 2, version / 3, version / 4);
        survives(&MStatfsReply { fsid, version, kb, kb_used, kb_avail, num_objects }, Features::ALL);
        let response_data = if flag { blob.clone() } else { Bytes::new() };
        let done = MPoolOpReply { version, fsid, reply_code: code, epoch, response_data };
        survives(&done, Features::ALL);
        let status = name.clone();
        let reply = MCommandReply { result: code, status, output: blob.clone() };
        survives(&MMgrCommandReply(reply), Features::ALL);
        let mut map = MgrMap { epoch, active_gid: version, available: flag, ..MgrMap::default() };
        map.standbys.insert(version, name);
        survives(&MMgrMap { map }, Features::ALL);
        let mut maps = MOSDMap { fsid, oldest_map: epoch, newest_map: epoch, ..MOSDMap::default() };
        maps.maps.insert(epoch, blob);
        maps.gap_removed_snaps.insert(3, [(SnapId(version), 1)].into());
        survives(&maps, Features::ALL);
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
