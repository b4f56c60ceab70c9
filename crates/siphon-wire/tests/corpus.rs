//! Our base types against the encodings of Ceph's own daemons.

mod corpus_walk;

use corpus_walk::{Exact, check, row};
use siphon_wire::types::{
    AuthName, ByteString, EVersion, EntityAddr, EntityAddrVec, EntityName, HObject, ObjectLocator,
    PgId, ReqId, RequestRedirect, ShardId, SnapId, SpgId, Utime, Uuid,
};

#[test]
fn base_types_are_as_ceph_encodes_them() {
    check(&[
        row::<EntityName>("entity_name_t", Exact::Always),
        row::<AuthName>("EntityName", Exact::Always),
        row::<EntityAddr>("entity_addr_t", Exact::Always),
        row::<EntityAddrVec>("entity_addrvec_t", Exact::Always),
        row::<(EntityName, EntityAddr)>("entity_inst_t", Exact::Always),
        row::<Utime>("utime_t", Exact::Always),
        row::<Uuid>("uuid_d", Exact::Always),
        row::<ByteString>("object_t", Exact::Always),
        row::<(ByteString, SnapId)>("sobject_t", Exact::Always),
        row::<(SnapId, Vec<SnapId>)>("SnapContext", Exact::Always),
        row::<HObject>("hobject_t", Exact::Always),
        row::<ObjectLocator>("object_locator_t", Exact::Always),
        row::<RequestRedirect>("request_redirect_t", Exact::Always),
        row::<EVersion>("eversion_t", Exact::Always),
        row::<ReqId>("osd_reqid_t", Exact::Always),
        row::<PgId>("pg_t", Exact::Always),
        row::<SpgId>("spg_t", Exact::Always),
        row::<ShardId>("shard_id_t", Exact::Always),
    ]);
}
