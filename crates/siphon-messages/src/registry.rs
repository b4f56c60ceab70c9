//! All of Ceph's message types by number, and what to call a message in a log.

use std::fmt;

use siphon_proto::{Message, MessageHeader};
use siphon_wire::types::EntityName;

use crate::{
    MConfig, MGetPoolStats, MGetPoolStatsReply, MMgrCommand, MMgrCommandReply, MMgrMap, MMonGetMap,
    MMonGetVersion, MMonGetVersionReply, MMonMap, MMonSubscribe, MMonSubscribeAck, MOSDBackoff,
    MOSDMap, MOSDOp, MOSDOpReply, MPing, MPoolOp, MPoolOpReply, MStatfs, MStatfsReply,
    MWatchNotify, TypedMessage,
};

/// Ceph's name in logs for messages of this type, if there is such a type.
///
/// ```
/// assert_eq!(siphon_messages::message_name(42), Some("osd_op"));
/// assert_eq!(siphon_messages::message_name(0), None);
/// ```
pub fn message_name(msg_type: u16) -> Option<&'static str> {
    msg_type::name(msg_type)
}

/// The message in one line, as Ceph's logs have it: `mon_map magic: 0 v1`. Of messages that have
/// no type here, or are malformed, it tells the name and the lengths of the parts.
///
/// A request to an OSD that has no explicit id is known by its sender: see [`describe_from`].
///
/// ```
/// use siphon_messages::{MPing, TypedMessage, describe};
/// use siphon_wire::types::Features;
/// assert_eq!(describe(&MPing::question().to_message(Features::ALL)), "ping magic: 0 v1");
/// ```
pub fn describe(message: &Message) -> String {
    describe_from(message, EntityName::default())
}

/// [`describe`], for a message that came from `source`.
pub fn describe_from(message: &Message, source: EntityName) -> String {
    Line { message, source }.to_string()
}

struct Line<'a> {
    message: &'a Message,
    source: EntityName,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.message.header;
        let print_known = match header.msg_type {
            MPing::TYPE => self.print::<MPing>(f),
            MMonMap::TYPE => self.print::<MMonMap>(f),
            MMonGetMap::TYPE => self.print::<MMonGetMap>(f),
            MMonSubscribe::TYPE => self.print::<MMonSubscribe>(f),
            MMonSubscribeAck::TYPE => self.print::<MMonSubscribeAck>(f),
            MMonGetVersion::TYPE => self.print::<MMonGetVersion>(f),
            MMonGetVersionReply::TYPE => self.print::<MMonGetVersionReply>(f),
            MMgrMap::TYPE => self.print::<MMgrMap>(f),
            MConfig::TYPE => self.print::<MConfig>(f),
            MPoolOp::TYPE => self.print::<MPoolOp>(f),
            MPoolOpReply::TYPE => self.print::<MPoolOpReply>(f),
            MStatfs::TYPE => self.print::<MStatfs>(f),
            MStatfsReply::TYPE => self.print::<MStatfsReply>(f),
            MGetPoolStats::TYPE => self.print::<MGetPoolStats>(f),
            MGetPoolStatsReply::TYPE => self.print::<MGetPoolStatsReply>(f),
            MMgrCommand::TYPE => self.print::<MMgrCommand>(f),
            MMgrCommandReply::TYPE => self.print::<MMgrCommandReply>(f),
            MOSDMap::TYPE => self.print::<MOSDMap>(f),
            MOSDOp::TYPE => {
                self.print_with(f, |op: &MOSDOp, header, f| op.print_from(self.source, header, f))
            }
            MOSDOpReply::TYPE => self.print::<MOSDOpReply>(f),
            MOSDBackoff::TYPE => self.print::<MOSDBackoff>(f),
            MWatchNotify::TYPE => self.print::<MWatchNotify>(f),
            _ => None,
        };
        match print_known {
            Some(printed) => printed?,
            None => self.print_parts(f)?,
        }
        // A version of 0 is none.
        if header.version == 0 { Ok(()) } else { write!(f, " v{}", header.version) }
    }
}

impl Line<'_> {
    /// `None` if the message is malformed.
    fn print<M: TypedMessage>(&self, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
        self.print_with(f, M::print)
    }

    fn print_with<M: TypedMessage>(
        &self,
        f: &mut fmt::Formatter<'_>,
        print: impl FnOnce(&M, &MessageHeader, &mut fmt::Formatter<'_>) -> fmt::Result,
    ) -> Option<fmt::Result> {
        let typed = M::from_message(self.message).ok()?;
        Some(print(&typed, &self.message.header, f))
    }

    fn print_parts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match message_name(self.message.header.msg_type) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "unknown type {}", self.message.header.msg_type)?,
        }
        let payload = &self.message.payload;
        let (front, middle, data) = (payload.front.len(), payload.middle.len(), payload.data.len());
        write!(f, " ({front} + {middle} + {data} bytes)")
    }
}

macro_rules! message_types {
    ($($number:literal $constant:ident $name:literal;)*) => {
        /// The numbers under Ceph's names for them (`include/ceph_fs.h`, `msg/Message.h`).
        pub mod msg_type {
            $(
                #[doc = concat!("`", $name, "` in logs.")]
                pub const $constant: u16 = $number;
            )*

            pub(super) const fn name(msg_type: u16) -> Option<&'static str> {
                match msg_type {
                    $($constant => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

// Those of Pacific (16.2.7). A name is `get_type_name` of the class that a number is decoded to;
// where there is no such class (any more), it is the number's name in lower case.
message_types! {
    1 CEPH_MSG_SHUTDOWN "generic";
    2 CEPH_MSG_PING "ping";
    4 CEPH_MSG_MON_MAP "mon_map";
    5 CEPH_MSG_MON_GET_MAP "mon_getmap";
    6 CEPH_MSG_MON_GET_OSDMAP "mon_get_osdmap";
    7 CEPH_MSG_MON_METADATA "mon_metadata";
    13 CEPH_MSG_STATFS "statfs";
    14 CEPH_MSG_STATFS_REPLY "statfs_reply";
    15 CEPH_MSG_MON_SUBSCRIBE "mon_subscribe";
    16 CEPH_MSG_MON_SUBSCRIBE_ACK "mon_subscribe_ack";
    17 CEPH_MSG_AUTH "auth";
    18 CEPH_MSG_AUTH_REPLY "auth_reply";
    19 CEPH_MSG_MON_GET_VERSION "mon_get_version";
    20 CEPH_MSG_MON_GET_VERSION_REPLY "mon_get_version_reply";
    21 CEPH_MSG_MDS_MAP "mdsmap";
    22 CEPH_MSG_CLIENT_SESSION "client_session";
    23 CEPH_MSG_CLIENT_RECONNECT "client_reconnect";
    24 CEPH_MSG_CLIENT_REQUEST "creq";
    25 CEPH_MSG_CLIENT_REQUEST_FORWARD "client_request_forward";
    26 CEPH_MSG_CLIENT_REPLY "creply";
    27 CEPH_MSG_CLIENT_RECLAIM "client_reclaim";
    28 CEPH_MSG_CLIENT_RECLAIM_REPLY "client_reclaim_reply";
    29 CEPH_MSG_CLIENT_METRICS "client_metrics";
    40 MSG_PAXOS "paxos_service";
    41 CEPH_MSG_OSD_MAP "osdmap";
    42 CEPH_MSG_OSD_OP "osd_op";
    43 CEPH_MSG_OSD_OPREPLY "osd_op_reply";
    44 CEPH_MSG_WATCH_NOTIFY "watch-notify";
    45 CEPH_MSG_FS_MAP "fsmap";
    46 MSG_FORWARD "forward";
    47 MSG_ROUTE "route";
    48 CEPH_MSG_POOLOP_REPLY "poolopreply";
    49 CEPH_MSG_POOLOP "poolop";
    50 MSG_MON_COMMAND "mon_command";
    51 MSG_MON_COMMAND_ACK "mon_command";
    52 MSG_LOG "log";
    53 MSG_LOGACK "log_ack";
    54 MSG_KV_DATA "kv_data";
    58 MSG_GETPOOLSTATS "getpoolstats";
    59 MSG_GETPOOLSTATSREPLY "getpoolstats";
    60 MSG_MON_GLOBAL_ID "global_id";
    61 CEPH_MSG_OSD_BACKOFF "osd_backoff";
    62 MSG_CONFIG "config";
    63 MSG_GET_CONFIG "get_config";
    64 MSG_MON_SCRUB "mon_scrub";
    65 MSG_MON_ELECTION "election";
    66 MSG_MON_PAXOS "paxos";
    67 MSG_MON_PROBE "mon_probe";
    68 MSG_MON_JOIN "mon_join";
    69 MSG_MON_SYNC "mon_sync";
    70 MSG_OSD_PING "osd_ping";
    71 MSG_OSD_BOOT "osd_boot";
    72 MSG_OSD_FAILURE "osd_failure";
    73 MSG_OSD_ALIVE "osd_alive";
    74 MSG_OSD_MARK_ME_DOWN "MOSDMarkMeDown";
    75 MSG_OSD_FULL "osd_full";
    76 MSG_MON_GET_PURGED_SNAPS "mon_get_purged_snaps";
    77 MSG_MON_GET_PURGED_SNAPS_REPLY "mon_get_purged_snaps_reply";
    78 MSG_OSD_PGTEMP "osd_pgtemp";
    79 MSG_OSD_BEACON "osd_beacon";
    80 MSG_OSD_PG_NOTIFY "PGnot";
    81 MSG_OSD_PG_QUERY "pg_query";
    83 MSG_OSD_PG_LOG "PGlog";
    84 MSG_OSD_PG_REMOVE "PGrm";
    85 MSG_OSD_PG_INFO "pg_info";
    86 MSG_OSD_PG_TRIM "pg_trim";
    87 MSG_PGSTATS "pg_stats";
    88 MSG_PGSTATSACK "pg_stats_ack";
    89 MSG_OSD_PG_CREATE "pg_create";
    90 MSG_REMOVE_SNAPS "remove_snaps";
    91 MSG_OSD_SCRUB "scrub";
    92 MSG_OSD_SCRUB_RESERVE "MOSDScrubReserve";
    93 MSG_OSD_REP_SCRUB "replica scrub";
    94 MSG_OSD_PG_SCAN "pg_scan";
    95 MSG_OSD_PG_BACKFILL "pg_backfill";
    96 MSG_OSD_PG_BACKFILL_REMOVE "backfill_remove";
    97 MSG_COMMAND "command";
    98 MSG_COMMAND_REPLY "command_reply";
    99 MSG_OSD_BACKFILL_RESERVE "MBackfillReserve";
    100 MSG_MDS_BEACON "mdsbeacon";
    101 MSG_MDS_PEER_REQUEST "peer_request";
    102 MSG_MDS_TABLE_REQUEST "mds_table_request";
    103 CEPH_MSG_FS_MAP_USER "fsmap.user";
    105 MSG_OSD_PG_PUSH "MOSDPGPush";
    106 MSG_OSD_PG_PULL "MOSDPGPull";
    107 MSG_OSD_PG_PUSH_REPLY "MOSDPGPushReply";
    108 MSG_OSD_EC_WRITE "MOSDECSubOpWrite";
    109 MSG_OSD_EC_WRITE_REPLY "MOSDECSubOpWriteReply";
    110 MSG_OSD_EC_READ "MOSDECSubOpRead";
    111 MSG_OSD_EC_READ_REPLY "MOSDECSubOpReadReply";
    112 MSG_OSD_REPOP "osd_repop";
    113 MSG_OSD_REPOPREPLY "osd_repop_reply";
    114 MSG_OSD_PG_UPDATE_LOG_MISSING "PGUpdateLogMissing";
    115 MSG_OSD_PG_UPDATE_LOG_MISSING_REPLY "PGUpdateLogMissingReply";
    116 MSG_OSD_PG_CREATED "pg_created";
    117 MSG_OSD_REP_SCRUBMAP "rep_scrubmap";
    118 MSG_OSD_PG_RECOVERY_DELETE "recovery_delete";
    119 MSG_OSD_PG_RECOVERY_DELETE_REPLY "recovery_delete_reply";
    120 MSG_OSD_PG_CREATE2 "pg_create2";
    121 MSG_OSD_SCRUB2 "scrub2";
    122 MSG_OSD_PG_READY_TO_MERGE "osd_pg_ready_to_merge";
    123 MSG_OSD_MARK_ME_DEAD "MOSDMarkMeDead";
    130 MSG_OSD_PG_NOTIFY2 "pg_notify2";
    131 MSG_OSD_PG_QUERY2 "pg_query2";
    132 MSG_OSD_PG_INFO2 "pg_info2";
    133 MSG_OSD_PG_LEASE "pg_lease";
    134 MSG_OSD_PG_LEASE_ACK "pg_lease_ack";
    135 MSG_MDS_SCRUB "mds_scrub";
    140 MSG_MON_PING "mon_ping";
    150 MSG_OSD_RECOVERY_RESERVE "MRecoveryReserve";
    151 MSG_OSD_FORCE_RECOVERY "force_recovery";
    0x200 MSG_MDS_RESOLVE "mds_resolve";
    0x201 MSG_MDS_RESOLVEACK "resolve_ack";
    0x202 MSG_MDS_CACHEREJOIN "cache_rejoin";
    0x203 MSG_MDS_DISCOVER "Dis";
    0x204 MSG_MDS_DISCOVERREPLY "discover_reply";
    0x205 MSG_MDS_INODEUPDATE "inode_update";
    0x206 MSG_MDS_DIRUPDATE "dir_update";
    0x207 MSG_MDS_CACHEEXPIRE "cache_expire";
    0x208 MSG_MDS_DENTRYUNLINK "dentry_unlink";
    0x209 MSG_MDS_FRAGMENTNOTIFY "fragment_notify";
    0x20a MSG_MDS_OFFLOAD_TARGETS "mds_load_targets";
    0x20c MSG_MDS_DENTRYLINK "dentry_link";
    0x20d MSG_MDS_FINDINO "findino";
    0x20e MSG_MDS_FINDINOREPLY "findinoreply";
    0x20f MSG_MDS_OPENINO "openino";
    0x210 MSG_MDS_OPENINOREPLY "openinoreply";
    0x211 MSG_MDS_SNAPUPDATE "snap_update";
    0x212 MSG_MDS_FRAGMENTNOTIFYACK "fragment_notify_ack";
    0x300 MSG_MDS_LOCK "ILock";
    0x301 MSG_MDS_INODEFILECAPS "inode_file_caps";
    0x310 CEPH_MSG_CLIENT_CAPS "Cfcap";
    0x311 CEPH_MSG_CLIENT_LEASE "client_lease";
    0x312 CEPH_MSG_CLIENT_SNAP "client_snap";
    0x313 CEPH_MSG_CLIENT_CAPRELEASE "client_cap_release";
    0x314 CEPH_MSG_CLIENT_QUOTA "client_quota";
    0x449 MSG_MDS_EXPORTDIRDISCOVER "ExDis";
    0x450 MSG_MDS_EXPORTDIRDISCOVERACK "ExDisA";
    0x451 MSG_MDS_EXPORTDIRCANCEL "ExCancel";
    0x452 MSG_MDS_EXPORTDIRPREP "ExP";
    0x453 MSG_MDS_EXPORTDIRPREPACK "ExPAck";
    0x454 MSG_MDS_EXPORTDIRWARNING "ExWarn";
    0x455 MSG_MDS_EXPORTDIRWARNINGACK "ExWarnA";
    0x456 MSG_MDS_EXPORTDIR "Ex";
    0x457 MSG_MDS_EXPORTDIRACK "ExAck";
    0x458 MSG_MDS_EXPORTDIRNOTIFY "ExNot";
    0x459 MSG_MDS_EXPORTDIRNOTIFYACK "ExNotA";
    0x460 MSG_MDS_EXPORTDIRFINISH "ExFin";
    0x470 MSG_MDS_EXPORTCAPS "export_caps";
    0x471 MSG_MDS_EXPORTCAPSACK "export_caps_ack";
    0x472 MSG_MDS_GATHERCAPS "gather_caps";
    0x500 MSG_MDS_HEARTBEAT "HB";
    0x501 MSG_MDS_METRICS "mds_metrics";
    0x502 MSG_MDS_PING "mdsping";
    0x503 MSG_MDS_SCRUB_STATS "mds_scrub_stats";
    0x600 MSG_TIMECHECK "time_check";
    0x601 MSG_MON_HEALTH "mon_health";
    0x607 MSG_NOP "nop";
    0x608 MSG_MON_HEALTH_CHECKS "mon_health_checks";
    0x609 MSG_TIMECHECK2 "time_check2";
    0x700 MSG_MGR_OPEN "mgropen";
    0x701 MSG_MGR_CONFIGURE "mgrconfigure";
    0x702 MSG_MGR_REPORT "mgrreport";
    0x703 MSG_MGR_BEACON "mgrbeacon";
    0x704 MSG_MGR_MAP "mgrmap";
    0x705 MSG_MGR_DIGEST "mgrdigest";
    0x706 MSG_MON_MGR_REPORT "monmgrreport";
    0x707 MSG_SERVICE_MAP "service_map";
    0x708 MSG_MGR_CLOSE "mgrclose";
    0x709 MSG_MGR_COMMAND "mgr_command";
    0x70a MSG_MGR_COMMAND_REPLY "mgr_command_reply";
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use siphon_proto::Payload;
    use siphon_wire::types::{
        EVersion, EntityName, Epoch, Features, HObject, PgId, RequestRedirect, SnapId, SpgId,
        Version,
    };

    use super::*;
    use crate::osd::{OsdFlags, OsdOp};
    use crate::{PoolOpCode, SubscribeItem};

    fn message(header: MessageHeader, front: &'static [u8]) -> Message {
        let payload = Payload { front: Bytes::from_static(front).into(), ..Payload::default() };
        Message::new(header, payload)
    }

    fn line(typed: impl TypedMessage) -> String {
        describe(&typed.to_message(Features::ALL))
    }

    #[test]
    fn names_are_cephs() {
        for (number, name) in [
            (msg_type::CEPH_MSG_MON_GET_MAP, "mon_getmap"),
            (msg_type::CEPH_MSG_OSD_OPREPLY, "osd_op_reply"),
            (msg_type::MSG_OSD_PG_LOG, "PGlog"),
            (msg_type::MSG_MGR_COMMAND_REPLY, "mgr_command_reply"),
        ] {
            assert_eq!(message_name(number), Some(name));
        }
        assert_eq!(message_name(3), None);
        assert_eq!(message_name(u16::MAX), None);
    }

    #[test]
    fn plain_messages_tell_their_name() {
        assert_eq!(line(MMonGetMap), "mon_getmap magic: 0 v1");
        assert_eq!(line(MMonMap::default()), "mon_map magic: 0 v1");
        let ack = MMonSubscribeAck { interval: 300, ..MMonSubscribeAck::default() };
        assert_eq!(line(ack), "mon_subscribe_ack(300s) v1");
        let what = [
            ("osdmap".into(), SubscribeItem::once(0)),
            ("monmap".into(), SubscribeItem::from_version(2)),
        ];
        let subscribe = MMonSubscribe { what: what.into(), ..MMonSubscribe::default() };
        assert_eq!(line(subscribe), "mon_subscribe({monmap=2+,osdmap=0}) v3");
        let question = MMonGetVersion { handle: 2, what: "osdmap".into() };
        assert_eq!(line(question), "mon_get_version(what=osdmap handle=2) v1");
        let answer = MMonGetVersionReply { handle: 2, version: 9, oldest_version: 1 };
        assert_eq!(line(answer), "mon_get_version_reply(handle=2 version=9) v2");
        let mut maps = MOSDMap { oldest_map: Epoch(1), newest_map: Epoch(9), ..MOSDMap::default() };
        maps.incremental_maps = [3, 4].map(|epoch| (Epoch(epoch), Bytes::new())).into();
        assert_eq!(line(maps), "osd_map(3..4 src has 1..9) v4");
        assert_eq!(line(MMgrMap::default()), "mgrmap(e 0) v1");
        assert_eq!(line(MConfig::default()), "config(0 keys) v1");
        let op = MPoolOp { op: PoolOpCode::CREATE_SNAP, name: "s".into(), ..MPoolOp::default() };
        assert_eq!(line(op), "pool_op(create snap pool 0 tid 0 name s v0) v4");
        assert_eq!(line(MStatfs::default()), "statfs(0 pool -1 v0) v2");
        let stats = MGetPoolStats { pools: vec!["a".into(), "b".into()], ..Default::default() };
        assert_eq!(line(stats), "getpoolstats(0 [a,b] v0) v1");
    }

    #[test]
    fn requests_tell_who_asks_for_what() {
        let pg = SpgId::from(PgId { pool: 1, seed: 7 });
        let mut op = MOSDOp::new(0, HObject::new(1, "name", 7), pg);
        op.write(0, Bytes::from_static(b"1234").into());
        op.flags = OsdFlags::WRITE | OsdFlags::ONDISK | OsdFlags::RETRY;
        op.retry_attempt = 1;
        (op.snap_seq, op.snaps) = (SnapId(0x1f), vec![SnapId(0x1f), SnapId(2)]);
        let mut message = op.to_message(Features::ALL);
        message.header.tid = 9;
        assert_eq!(
            describe_from(&message, EntityName::client(4100)),
            "osd_op(client.4100.0:9 1.7 1:e0000000:::name:head [write 0~4 in=4b] \
             snapc 1f=[1f,2] RETRY=1 ondisk+retry+write e0) v8",
        );
    }

    #[test]
    fn replies_tell_the_result() {
        let mut op = MOSDOp::new(0, HObject::new(1, "name", 7), SpgId::default());
        op.read(0, 8);
        let mut reply = MOSDOpReply::new(&op, -2, OsdFlags::ONDISK);
        reply.ops[0] = OsdOp { data: Bytes::from_static(b"out").into(), ..OsdOp::read(0, 8) };
        (reply.replay_version, reply.user_version) = (EVersion::new(10, 5), Version(6));
        assert_eq!(
            line(reply.clone()),
            "osd_op_reply(0 name [read 0~8 out=3b] v10'5 uv6 ondisk = -2 \
             ((2) No such file or directory)) v8",
        );
        reply.ops.clear();
        (reply.result, reply.flags) = (0, OsdFlags::NONE);
        reply.redirect = Some(RequestRedirect::default());
        let text = line(reply);
        assert!(text.starts_with("osd_op_reply(0 name [] v10'5 uv6 ack = 0 redirect: {"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_tells_its_parts() {
        let header = |msg_type| MessageHeader { msg_type, version: 4, ..MessageHeader::default() };
        assert_eq!(describe(&message(header(41), b"abc")), "osdmap (3 + 0 + 0 bytes) v4");
        assert_eq!(describe(&message(header(3), b"")), "unknown type 3 (0 + 0 + 0 bytes) v4");
        assert_eq!(describe(&message(header(43), b"abc")), "osd_op_reply (3 + 0 + 0 bytes) v4");
        let unversioned = MessageHeader { msg_type: 41, ..MessageHeader::default() };
        assert_eq!(describe(&message(unversioned, b"")), "osdmap (0 + 0 + 0 bytes)");
    }
}
