//! Payloads of the control frames. Addresses are always encoded with their types, as every peer
//! that speaks msgr2 understands them (`msgr2_frame_assumed` of Ceph's `frames_v2.h`).

use bytes::Bytes;
use siphon_auth::{AuthMethod, ConnectionMode};
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityType, Features, Utime};
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

use super::compression::CompressionMethod;

/// Most methods or modes that a list may have.
const MAX_CHOICES: usize = 64;

/// A control frame's payload.
pub(crate) trait ControlFrame: Encode + Decode {
    /// The payload's bytes.
    fn payload(&self) -> Bytes {
        self.to_bytes(Features::ALL)
    }

    /// Reads a payload. Newer senders may append fields, which are ignored as Ceph does.
    fn parse(payload: &Bytes) -> Result<Self, DecodeError> {
        Self::decode(&mut Decoder::new(payload))
    }
}

impl<T: Encode + Decode> ControlFrame for T {}

/// HELLO: the first frame in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the sender is.
    pub entity_type: EntityType,
    /// The receiver's address as the sender sees it.
    pub peer_addr: EntityAddr,
}

/// AUTH_REQUEST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequestFrame {
    /// The method asked for.
    pub method: AuthMethod,
    /// Acceptable connection modes, the preferred one first.
    pub preferred_modes: Vec<ConnectionMode>,
    /// The method's own bytes.
    pub payload: Bytes,
}

/// AUTH_BAD_METHOD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthBadMethodFrame {
    /// The method that was asked for.
    pub method: AuthMethod,
    /// A negative errno.
    pub result: i32,
    /// Methods that would do.
    pub allowed_methods: Vec<AuthMethod>,
    /// Connection modes that would do.
    pub allowed_modes: Vec<ConnectionMode>,
}

/// AUTH_REPLY_MORE and AUTH_REQUEST_MORE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthPayloadFrame {
    /// The method's own bytes.
    pub payload: Bytes,
}

/// AUTH_DONE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthDoneFrame {
    /// The client's global id.
    pub global_id: u64,
    /// The connection mode that the server chose.
    pub mode: ConnectionMode,
    /// The method's own bytes.
    pub payload: Bytes,
}

/// AUTH_SIGNATURE: HMAC-SHA256 of all that was received before, zeros without a session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSignatureFrame {
    /// The signature.
    pub signature: [u8; 32],
}

/// COMPRESSION_REQUEST, from a client behind the signatures if both banners have
/// [`BannerFeatures::COMPRESSION`](super::BannerFeatures::COMPRESSION)
/// (`CompressionRequestFrame` of Ceph's `frames_v2.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionRequestFrame {
    /// Whether the client wants to compress.
    pub is_compress: bool,
    /// How, the preferred one first.
    pub preferred_methods: Vec<CompressionMethod>,
}

/// COMPRESSION_DONE: the server's answer (`CompressionDoneFrame` of Ceph's `frames_v2.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionDoneFrame {
    /// Whether either side may compress from here on.
    pub is_compress: bool,
    /// How.
    pub method: CompressionMethod,
}

/// CLIENT_IDENT: opens a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdent {
    /// The client's addresses.
    pub addrs: EntityAddrVec,
    /// The server's address that it wants to reach.
    pub target_addr: EntityAddr,
    /// The client's number: 0 of `osd.0`, the global id of a client.
    pub gid: i64,
    /// Counts the client's connections to anybody.
    pub global_seq: u64,
    /// Features it offers.
    pub supported_features: Features,
    /// Features it insists on.
    pub required_features: Features,
    /// Bit 0: lossy.
    pub flags: u64,
    /// The client's half of the session's identity; 0 for a lossy session.
    pub cookie: u64,
}

/// SERVER_IDENT: accepts a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdent {
    /// The server's addresses.
    pub addrs: EntityAddrVec,
    /// The server's number.
    pub gid: i64,
    /// Counts the server's connections.
    pub global_seq: u64,
    /// Features it offers.
    pub supported_features: Features,
    /// Features it insists on.
    pub required_features: Features,
    /// Bit 0: lossy.
    pub flags: u64,
    /// The server's half of the session's identity; 0 for a lossy session.
    pub cookie: u64,
}

/// `CEPH_MSG_CONNECT_LOSSY` in the flags of the ident frames.
pub(crate) const FLAG_LOSSY: u64 = 1;

/// IDENT_MISSING_FEATURES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentMissingFeatures {
    /// What the client lacks.
    pub features: Features,
}

/// SESSION_RECONNECT: goes on with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconnectFrame {
    /// The client's addresses.
    pub addrs: EntityAddrVec,
    /// The client's half of the session's identity.
    pub client_cookie: u64,
    /// The server's half.
    pub server_cookie: u64,
    /// Counts the client's connections to anybody.
    pub global_seq: u64,
    /// Counts the links of this session.
    pub connect_seq: u64,
    /// The last message that the client received.
    pub msg_seq: u64,
}

/// SESSION_RESET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionResetFrame {
    /// Whether the server knows nothing of the session's peer at all.
    pub full: bool,
}

/// A single 64-bit number: ACK, SESSION_RECONNECT_OK (message sequence), SESSION_RETRY
/// (connect_seq), SESSION_RETRY_GLOBAL (global_seq).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceFrame {
    /// The number.
    pub seq: u64,
}

/// KEEPALIVE2 and KEEPALIVE2_ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepaliveFrame {
    /// The asking side's time when it asked.
    pub stamp: Utime,
}

/// Fields in order, each by the decoder and encoder method named, or as a value.
macro_rules! fields {
    ($($frame:ident $name:literal { $($field:ident: $kind:tt),* })*) => {$(
        impl Encode for $frame {
            fn encode(&self, enc: &mut Encoder) {
                $(fields!(@put enc, self.$field, $kind);)*
            }
        }

        impl Decode for $frame {
            fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                dec.typed($name, |dec| Ok(Self { $($field: fields!(@take dec, $kind)),* }))
            }
        }
    )*};
    (@put $enc:ident, $value:expr, value) => { $enc.value(&$value) };
    (@put $enc:ident, $value:expr, features) => { $enc.u64($value.0) };
    (@put $enc:ident, $value:expr, method) => { $enc.u32($value.0) };
    (@put $enc:ident, $value:expr, mode) => { $enc.u32($value.0) };
    (@put $enc:ident, $value:expr, methods) => { put_list($enc, $value.iter().map(|v| v.0)) };
    (@put $enc:ident, $value:expr, modes) => { put_list($enc, $value.iter().map(|v| v.0)) };
    (@put $enc:ident, $value:expr, compression) => { $enc.u32($value.0) };
    (@put $enc:ident, $value:expr, compressions) => { put_list($enc, $value.iter().map(|v| v.0)) };
    (@put $enc:ident, $value:expr, entity_type) => { $enc.u8($value.0) };
    (@put $enc:ident, $value:expr, bytes) => { $enc.bytes(&$value) };
    (@put $enc:ident, $value:expr, array) => { $enc.raw(&$value) };
    (@put $enc:ident, $value:expr, $int:ident) => { $enc.$int($value) };
    (@take $dec:ident, value) => { $dec.value()? };
    (@take $dec:ident, features) => { Features($dec.u64()?) };
    (@take $dec:ident, method) => { AuthMethod($dec.u32()?) };
    (@take $dec:ident, mode) => { ConnectionMode($dec.u32()?) };
    (@take $dec:ident, methods) => { take_list($dec, AuthMethod)? };
    (@take $dec:ident, modes) => { take_list($dec, ConnectionMode)? };
    (@take $dec:ident, compression) => { CompressionMethod($dec.u32()?) };
    (@take $dec:ident, compressions) => { take_list($dec, CompressionMethod)? };
    (@take $dec:ident, entity_type) => { EntityType($dec.u8()?) };
    (@take $dec:ident, $int:ident) => { $dec.$int()? };
}

fields! {
    Hello "HELLO" { entity_type: entity_type, peer_addr: value }
    AuthRequestFrame "AUTH_REQUEST" { method: method, preferred_modes: modes, payload: bytes }
    AuthBadMethodFrame "AUTH_BAD_METHOD" {
        method: method, result: i32, allowed_methods: methods, allowed_modes: modes
    }
    AuthPayloadFrame "AUTH_MORE" { payload: bytes }
    AuthDoneFrame "AUTH_DONE" { global_id: u64, mode: mode, payload: bytes }
    AuthSignatureFrame "AUTH_SIGNATURE" { signature: array }
    CompressionRequestFrame "COMPRESSION_REQUEST" {
        is_compress: bool, preferred_methods: compressions
    }
    CompressionDoneFrame "COMPRESSION_DONE" { is_compress: bool, method: compression }
    ClientIdent "CLIENT_IDENT" {
        addrs: value, target_addr: value, gid: i64, global_seq: u64,
        supported_features: features, required_features: features, flags: u64, cookie: u64
    }
    ServerIdent "SERVER_IDENT" {
        addrs: value, gid: i64, global_seq: u64,
        supported_features: features, required_features: features, flags: u64, cookie: u64
    }
    IdentMissingFeatures "IDENT_MISSING_FEATURES" { features: features }
    ReconnectFrame "SESSION_RECONNECT" {
        addrs: value, client_cookie: u64, server_cookie: u64, global_seq: u64, connect_seq: u64,
        msg_seq: u64
    }
    SessionResetFrame "SESSION_RESET" { full: bool }
    SequenceFrame "sequence number" { seq: u64 }
    KeepaliveFrame "KEEPALIVE2" { stamp: value }
}

fn put_list(enc: &mut Encoder, values: impl ExactSizeIterator<Item = u32>) {
    enc.count(values.len());
    values.for_each(|value| enc.u32(value));
}

fn take_list<T>(dec: &mut Decoder<'_>, wrap: impl Fn(u32) -> T) -> Result<Vec<T>, DecodeError> {
    let count = dec.count(4)?;
    if count > MAX_CHOICES {
        return Err(dec.invalid("at most 64 methods or modes", count as u64));
    }
    (0..count).map(|_| dec.u32().map(&wrap)).collect()
}
