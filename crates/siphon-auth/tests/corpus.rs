//! The structures of cephx against the encodings of Ceph's own daemons.

#[path = "../../siphon-wire/tests/corpus_walk/mod.rs"]
mod corpus_walk;

use corpus_walk::{Exact, check, row};
use siphon_auth::CryptoKey;
use siphon_auth::cephx::database::{AuthChange, KeyServerChange, KeyServerData};
use siphon_auth::cephx::wire::{
    AuthCaps, AuthTicket, Authenticate, Authorize, AuthorizeChallenge, AuthorizeReply,
    ChallengeBlob, ExpiringCryptoKey, RequestHeader, ResponseHeader, RotatingSecrets,
    ServerChallenge, ServiceTicket, ServiceTicketInfo, ServiceTicketRequest, StoredAuth,
    TicketBlob,
};

#[test]
fn cephx_is_as_ceph_encodes_it() {
    check(&[
        row::<CryptoKey>("CryptoKey", Exact::Always),
        row::<AuthCaps>("AuthCapsInfo", Exact::Always),
        row::<AuthTicket>("AuthTicket", Exact::Since(15, 2)),
        row::<Authenticate>("CephXAuthenticate", Exact::Since(16, 2)),
        row::<Authorize>("CephXAuthorize", Exact::Since(15, 2)),
        row::<AuthorizeChallenge>("CephXAuthorizeChallenge", Exact::Always),
        row::<AuthorizeReply>("CephXAuthorizeReply", Exact::Always),
        row::<ChallengeBlob>("CephXChallengeBlob", Exact::Always),
        row::<RequestHeader>("CephXRequestHeader", Exact::Always),
        row::<ResponseHeader>("CephXResponseHeader", Exact::Always),
        row::<ServerChallenge>("CephXServerChallenge", Exact::Always),
        row::<ServiceTicket>("CephXServiceTicket", Exact::Always),
        row::<ServiceTicketInfo>("CephXServiceTicketInfo", Exact::Since(15, 2)),
        row::<ServiceTicketRequest>("CephXServiceTicketRequest", Exact::Always),
        row::<TicketBlob>("CephXTicketBlob", Exact::Always),
        row::<StoredAuth>("EntityAuth", Exact::Since(18, 2)),
        row::<ExpiringCryptoKey>("ExpiringCryptoKey", Exact::Always),
        row::<RotatingSecrets>("RotatingSecrets", Exact::Always),
        row::<KeyServerData>("KeyServer", Exact::Since(18, 2)),
        row::<KeyServerData>("KeyServerData", Exact::Since(18, 2)),
        row::<KeyServerChange>("KeyServerData::Incremental", Exact::Since(18, 2)),
        row::<AuthChange>("AuthMonitor::Incremental", Exact::Always),
    ]);
}
