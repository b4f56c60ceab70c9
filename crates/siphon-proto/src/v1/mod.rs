//! Messenger protocol version 1, as Ceph's `include/msgr.h` and `msg/async/ProtocolV1.cc` have it: what
//! was spoken before Nautilus, and is still offered beside version 2.
//!
//! It has no frames and no modes: a banner, then what opens a session, then messages with a header
//! and a footer. Monitors authenticate their clients by messages within the session; everybody else
//! by an authorizer that opens it.

mod link;
mod stream;
mod wire;

pub(crate) use link::{Link1, own_addr};
pub use wire::{
    BANNER, Connect, ConnectReply, LOSSY, MAX_AUTHORIZER, ServerAddrs, protocol_version, put_addr,
    tag,
};
