//! Writes the seed corpora anew: what Ceph's messengers say, as our own encoders have it.
//!
//! ```text
//! cargo run --manifest-path fuzz/Cargo.toml --example seeds
//! ```

use std::fs;
use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use siphon_auth::cephx::wire::{Authenticate, ServiceTicketInfo, StoredAuth};
use siphon_auth::{AuthMethod, ConnectionMode, CryptoKey};
use siphon_messages::mon::MonMap;
use siphon_messages::osd::OsdFlags;
use siphon_messages::{
    MMonGetMap, MMonMap, MMonSubscribe, MMonSubscribeAck, MOSDOp, MOSDOpReply, MPing,
    SubscribeItem, TypedMessage,
};
use siphon_proto::v2::compression::{Algorithm, CompressionMethod, Compressor};
use siphon_proto::v2::{
    AuthBadMethodFrame, AuthDoneFrame, AuthPayloadFrame, AuthRequestFrame, AuthSignatureFrame,
    Banner, BannerFeatures, ClientIdent, CompressionDoneFrame, CompressionRequestFrame, Hello,
    IdentMissingFeatures, KeepaliveFrame, MessageHeader2, ReconnectFrame, SequenceFrame,
    ServerIdent, SessionResetFrame, Tag,
};
use siphon_wire::Encode;
use siphon_wire::types::{
    AuthName, EntityAddr, EntityAddrVec, EntityName, EntityType, Features, HObject, ObjectLocator,
    PgId, ReqId, RequestRedirect, SpgId, Utime, Uuid,
};

/// A peer of before Nautilus, which gets older forms.
const LUMINOUS: Features =
    Features(Features::REEF.0 & !(Features::SERVER_NAUTILUS.0 & !Features::SERVER_LUMINOUS.0));

fn main() -> io::Result<()> {
    for (target, seeds) in [
        ("banner", banners()),
        ("cephx", authentications()),
        ("compression", segments()),
        ("denc", values()),
        ("frames", streams()),
        ("keyring", keyrings()),
        ("osdmap", maps()),
        ("payloads", payloads()),
    ] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&dir)?;
        for (name, seed) in seeds {
            fs::write(dir.join(name), seed)?;
        }
    }
    Ok(())
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// A seed: what its target reads first, and the bytes behind.
fn seed(head: &[u8], bytes: &[u8]) -> Vec<u8> {
    [head, bytes].concat()
}

fn banners() -> Seeds {
    let wire = |supported, required| {
        let mut out = BytesMut::new();
        Banner { supported, required }.encode(&mut out);
        out
    };
    let (none, one) = (BannerFeatures::NONE, BannerFeatures::REVISION_1);
    let pacific = wire(one, none);
    vec![
        ("pacific", seed(&[0], &pacific)),
        ("octopus-in-pieces", seed(&[3, 0, 7, 2], &wire(none, none))),
        ("strict-and-more", seed(&[1, 200], &[&wire(one, one)[..], &[1, 1]].concat())),
        ("msgr1", seed(&[0], b"ceph v027")),
        ("stranger", seed(&[1, 3], b"SSH-2.0-OpenSSH_9.2\r\n")),
        ("too-long", seed(&[1, 9], b"ceph v2\n\xff\xff")),
    ]
}

fn addr() -> EntityAddr {
    EntityAddr::msgr2(([127, 0, 0, 1], 3300).into(), 7)
}

fn addrs() -> EntityAddrVec {
    EntityAddrVec(vec![addr(), EntityAddr::legacy(([127, 0, 0, 1], 6789).into(), 7)])
}

fn hello() -> Hello {
    Hello { entity_type: EntityType::MON, peer_addr: addr() }
}

fn client_ident() -> ClientIdent {
    ClientIdent {
        addrs: addrs(),
        target_addr: addr(),
        gid: 4100,
        global_seq: 1,
        supported_features: Features::REEF,
        required_features: Features::NONE,
        flags: 1,
        cookie: 0x1234,
    }
}

/// In the order of the target's table.
fn payloads() -> Seeds {
    let payload = || Bytes::from_static(b"\x0a\x08\0\0\0\x05\0\0\0admin\0\0\0\0\0\0\0\0");
    let request = AuthRequestFrame {
        method: AuthMethod(1),
        preferred_modes: vec![ConnectionMode(1), ConnectionMode(2)],
        payload: payload(),
    };
    let refusal = AuthBadMethodFrame {
        method: AuthMethod(1),
        result: -95,
        allowed_methods: vec![AuthMethod(2)],
        allowed_modes: vec![ConnectionMode(2), ConnectionMode(1)],
    };
    let done = AuthDoneFrame { global_id: 4100, mode: ConnectionMode(1), payload: Bytes::new() };
    let server = ServerIdent {
        addrs: addrs(),
        gid: 0,
        global_seq: 9,
        supported_features: Features::REEF,
        required_features: Features::NONE,
        flags: 0,
        cookie: 0x4321,
    };
    let reconnect = ReconnectFrame {
        addrs: addrs(),
        client_cookie: 1,
        server_cookie: 2,
        global_seq: 3,
        connect_seq: 4,
        msg_seq: 5,
    };
    let offer = CompressionRequestFrame {
        is_compress: true,
        preferred_methods: vec![CompressionMethod(3), CompressionMethod(1)],
    };
    let choice = CompressionDoneFrame { is_compress: true, method: CompressionMethod(3) };
    fn row((frame, name, value): (u8, &'static str, &dyn EncodeAll)) -> (&'static str, Vec<u8>) {
        (name, seed(&[frame], &value.wire()))
    }
    [
        (0, "hello", &hello() as &dyn EncodeAll),
        (1, "auth-request", &request),
        (2, "auth-bad-method", &refusal),
        (3, "auth-reply-more", &AuthPayloadFrame { payload: payload() }),
        (4, "auth-done", &done),
        (5, "auth-signature", &AuthSignatureFrame { signature: [0x5a; 32] }),
        (6, "client-ident", &client_ident()),
        (7, "server-ident", &server),
        (8, "ident-missing-features", &IdentMissingFeatures { features: Features::REEF }),
        (9, "session-reconnect", &reconnect),
        (10, "session-reset", &SessionResetFrame { full: true }),
        (11, "ack", &SequenceFrame { seq: 7 }),
        (12, "keepalive2", &KeepaliveFrame { stamp: Utime::new(1_700_000_000, 5) }),
        (13, "compression-request", &offer),
        (14, "compression-done", &choice),
    ]
    .map(row)
    .into()
}

/// Structures, and steps of an exchange, as the target's `server` and `client` read them.
fn authentications() -> Seeds {
    let ticket = ServiceTicketInfo { session_key: key(), ..ServiceTicketInfo::default() };
    let stored = StoredAuth { key: key(), ..StoredAuth::default() };
    let both_modes = 6;
    vec![
        ("ticket", seed(&[0, 15], &ticket.wire())),
        ("stored", seed(&[0, 17], &stored.wire())),
        ("key", seed(&[0, 8], &key().wire())),
        ("authenticate", seed(&[0, 2], &Authenticate::default().wire())),
        ("sealed-aes", seed(&[0, 19, 0, 1], &[7; 72])),
        ("sealed-aes256k", seed(&[0, 19, 3, 2], &[7; 100])),
        ("monitor", vec![2, 0, 8, 1, both_modes, 0x81]),
        ("monitor-damaged", vec![6, 0, 8, 1, both_modes, 0x82, 9, 0, 1]),
        ("osd", vec![2, 1, 8, 1, both_modes, 0x81]),
        ("osd-aes256k", vec![6, 1, 8, 1, both_modes, 0x81]),
        ("forger", seed(&[2, 1, 8, 3, 1, 255, 255, 0, 9, 2, 7, 0, 0, 0, 0, 0, 0, 0], &[0; 30])),
        (
            "to-client",
            seed(
                &[3, 0, 0x22, 9, 0xa3, 0, 1, 5, 1, 0, 255, 255, 0, 0, 0, 2],
                &[0, 0, 0, 0, 0, 1, 7],
            ),
        ),
        ("refusals", vec![7, 0, 0x22, 9, 0x00, 0, 13, 0xa0, 0, 1, 1]),
        ("to-client-of-osd", vec![3, 1, 0x40, 40, 1, 2, 3, 4]),
    ]
}

fn key() -> CryptoKey {
    "AQBRlwhhAAAAABAA6ZQPdGcyCtGm2z+KcnYZyA==".parse().expect("a key")
}

fn keyrings() -> Seeds {
    let text = "[client.admin]\n\tkey = AQBRlwhhAAAAABAA6ZQPdGcyCtGm2z+KcnYZyA==\n\
        \tcaps mon = \"allow *\"\n\tcaps osd = \"allow r; allow w pool=\\\"a\\\"\" # both\n";
    let other =
        "[ osd.3 ] ; the third\r\ncaps_mgr = allow profile osd\r\nauid = 0\r\n[global]\r\nx";
    vec![
        ("admin", seed(&[0], text.as_bytes())),
        ("osd", seed(&[0], other.as_bytes())),
        ("put-together", seed(&[1], b"\x01a\x03mon\x0dallow r\n[a.b]\x00\x07")),
    ]
}

/// Segments as peers compress them, and text that the target compresses and damages.
fn segments() -> Seeds {
    const LIMIT: [u8; 2] = [0, 4];
    let text: Vec<u8> = b"front and middle, front and data. ".repeat(9);
    let mut seeds = Vec::new();
    for ((at, algorithm), damaged) in (0_u8..).zip(Algorithm::ALL).zip([
        "snappy-damaged",
        "zlib-damaged",
        "zstd-damaged",
        "lz4-damaged",
    ]) {
        let packed = Compressor::new(algorithm).compress(&Bytes::from(text.clone()).into());
        let packed = packed.expect("so little is compressed");
        let head = |flags, rest: &[u8]| [&[flags], &LIMIT[..], rest].concat();
        seeds.push((algorithm.name(), seed(&head(at, &[2, 5, 70, 0]), &packed)));
        seeds.push((damaged, seed(&head(at | 4, &[0, 1, 30, 0, 8]), &text)));
    }
    seeds
}

/// [`Encode`] for a peer that knows everything.
trait EncodeAll {
    fn wire(&self) -> Bytes;
}

impl<T: Encode> EncodeAll for T {
    fn wire(&self) -> Bytes {
        self.to_bytes(Features::ALL)
    }
}

fn monmap() -> MonMap {
    let mut map = MonMap { fsid: Uuid([7; 16]), ..MonMap::default() };
    map.add("a", addrs());
    map.add("b", EntityAddr::msgr2(([10, 0, 0, 2], 3300).into(), 0).into());
    map
}

fn request() -> MOSDOp {
    let mut request =
        MOSDOp::new(0, HObject::new(1, "object-name", 7), SpgId::from(PgId { pool: 1, seed: 7 }));
    request.write(0, Bytes::from_static(b"sixteen bytes...").into());
    request
}

/// In the order of the target's tables.
/// As version 7, which has no checksum to get right.
fn maps() -> Seeds {
    use siphon_fuzz::maps::{NEWEST, crush, incremental, osdmap};
    let unchecked = |bytes: Bytes| [&[7], &bytes[1..]].concat();
    vec![
        ("map", seed(&[0, 1, 2], &unchecked(osdmap().to_bytes(NEWEST)))),
        ("map-luminous", seed(&[0, 3, 0], &unchecked(osdmap().to_bytes(LUMINOUS)))),
        ("incremental", seed(&[1, 1, 2], &unchecked(incremental().to_bytes(NEWEST)))),
        ("crush", seed(&[2, 1, 2], &crush().to_bytes(NEWEST))),
        ("crush-luminous", seed(&[2, 9, 9], &crush().to_bytes(LUMINOUS))),
    ]
}

fn values() -> Seeds {
    let request = request();
    let reply = MOSDOpReply::new(&request, -2, OsdFlags::ONDISK);
    let subscription = MMonSubscribe {
        what: [("monmap".into(), SubscribeItem::from_version(2))].into(),
        hostname: "host".into(),
    };
    let map = MMonMap { monmap: monmap() };
    let redirect = RequestRedirect { object: "other".into(), ..RequestRedirect::default() };
    vec![
        ("addr", seed(&[0], &addr().wire())),
        ("addr-legacy", seed(&[0], &addr().to_bytes(LUMINOUS))),
        ("addrvec", seed(&[1], &addrs().wire())),
        ("entity-name", seed(&[2], &EntityName::client(4100).wire())),
        ("auth-name", seed(&[3], &AuthName::new(EntityType::CLIENT, "admin").wire())),
        ("hobject", seed(&[4], &HObject::new(1, "object-name", 7).wire())),
        ("locator", seed(&[5], &ObjectLocator::default().wire())),
        ("reqid", seed(&[6], &ReqId::default().wire())),
        ("redirect", seed(&[7], &redirect.wire())),
        ("spg", seed(&[8], &SpgId::default().wire())),
        ("monmap", seed(&[10], &monmap().wire())),
        ("monmap-luminous", seed(&[10], &monmap().to_bytes(LUMINOUS))),
        ("monmap-oldest", seed(&[10], &monmap().to_bytes(Features::NONE))),
        ("mping", message(11, &MPing::answer("{}"), Features::ALL)),
        ("mmongetmap", message(12, &MMonGetMap, Features::ALL)),
        ("mmonmap", message(13, &map, Features::ALL)),
        ("mmonmap-luminous", message(13, &map, LUMINOUS)),
        ("mmonsubscribe", message(14, &subscription, Features::ALL)),
        ("mmonsubscribeack", message(15, &MMonSubscribeAck::default(), Features::ALL)),
        ("mosdop", message(16, &request, Features::ALL)),
        ("mosdop-reef", message(16, &request, Features::REEF)),
        ("mosdop-luminous", message(16, &request, LUMINOUS)),
        ("mosdopreply", message(17, &reply, Features::ALL)),
    ]
}

fn message<M: TypedMessage>(which: u8, typed: &M, features: Features) -> Vec<u8> {
    let message = typed.to_message(features);
    let front = &message.payload.front;
    let length = u16::try_from(front.len()).expect("a short front").to_le_bytes();
    let head = [which, message.header.version as u8, length[0], length[1]];
    [&head[..], front, &message.payload.data.to_bytes()].concat()
}

/// Streams without their checksums, which the target writes.
fn streams() -> Seeds {
    let hello = control(Tag::HELLO, &hello().wire());
    let ident = control(Tag::CLIENT_IDENT, &client_ident().wire());
    let ack = control(Tag::ACK, &SequenceFrame { seq: 7 }.wire());
    let op = request().to_message(Features::REEF);
    let op_data = op.payload.data.to_bytes();
    let write = |late| frame(&[&op.payload.front, &[], &op_data], late);
    let ping = frame(&[&MPing::answer("{}").to_message(Features::ALL).payload.front], &[0]);
    let handshake = [&hello[..], &ident].concat();
    let session = [&write(&[0])[..], &ack, &ping].concat();
    let rev0_session = [&write(&[0])[..], &hello_rev0()].concat();
    let long = announced(Tag::MESSAGE, &[(41, 8), (20_000, 8), (0, 8), (40_000, 4096)]);
    vec![
        ("handshake-rev1", seed(&[3, 0], &handshake)),
        ("session-rev1", seed(&[3, 2, 10, 60], &session)),
        ("session-rev1-no-data-crc", seed(&[1, 1, 130], &session)),
        ("session-rev0", seed(&[2, 1, 31], &rev0_session)),
        ("aborted-rev1", seed(&[3, 1, 50], &write(&[0x0f]))),
        ("aborted-rev0", seed(&[2, 1, 50], &write(&[1]))),
        ("header-only", seed(&[3, 1, 5], &frame(&[], &[]))),
        ("damaged", seed(&[3 | 8, 1, 40, 90, 0, 4], &session)),
        ("lent", seed(&[3 | 16, 2, 150, 20], &long)),
        ("lent-and-gated", seed(&[3 | 16 | 32, 1, 255], &[&long[..], &[0; 41]].concat())),
        ("gated", seed(&[3 | 32, 1, 17], &session)),
        ("raw", seed(&[3 | 4, 1, 20], &hello)),
    ]
}

/// A preamble without its checksum.
fn announced(tag: Tag, segments: &[(u32, u16)]) -> Vec<u8> {
    let mut preamble = vec![tag.to_wire(), segments.len() as u8];
    for (length, alignment) in segments {
        preamble.extend_from_slice(&length.to_le_bytes());
        preamble.extend_from_slice(&alignment.to_le_bytes());
    }
    preamble.resize(28, 0);
    preamble
}

fn control(tag: Tag, payload: &[u8]) -> Vec<u8> {
    [&announced(tag, &[(payload.len() as u32, 8)])[..], payload].concat()
}

/// In revision 0 control frames have an epilogue too, which begins with the late flags.
fn hello_rev0() -> Vec<u8> {
    [&control(Tag::HELLO, &hello().wire())[..], &[0]].concat()
}

fn frame(parts: &[&[u8]], late: &[u8]) -> Vec<u8> {
    let header = MessageHeader2 { seq: 1, ..MessageHeader2::default() }.encode();
    let mut segments = vec![(MessageHeader2::LEN as u32, 8)];
    segments.extend(parts.iter().map(|part| (part.len() as u32, 8)));
    if let Some(data) = segments.get_mut(3) {
        data.1 = 4096;
    }
    [&announced(Tag::MESSAGE, &segments)[..], &header, &parts.concat(), late].concat()
}
