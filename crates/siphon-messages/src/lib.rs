//! Typed Ceph messages, one file each, under their names in Ceph's `src/messages`.
//!
//! A [`TypedMessage`] becomes an [`OutMessage`](siphon_proto::OutMessage) to be sent, and is read
//! from a [`Message`](siphon_proto::Message) that arrived:
//!
//! ```
//! use siphon_messages::{MPing, TypedMessage};
//! use siphon_wire::types::Features;
//!
//! let message = MPing::answer("{}").to_message(Features::ALL);
//! assert_eq!(MPing::from_message(&message)?.text.as_deref(), Some("{}"));
//! # Ok::<(), siphon_messages::MessageError>(())
//! ```
//!
//! Messages of peers since Luminous (12) are written in the form that the peer's features ask
//! for; many older forms can be read.

#![forbid(unsafe_code)]

pub mod cls;
mod messages;
pub mod mon;
pub mod osd;
mod registry;
mod typed;

pub use messages::{
    MAuth, MAuthReply, MCommand, MCommandReply, MConfig, MGetPoolStats, MGetPoolStatsReply,
    MMgrCommand, MMgrCommandReply, MMgrMap, MMonCommand, MMonCommandAck, MMonGetMap,
    MMonGetVersion, MMonGetVersionReply, MMonMap, MMonSubscribe, MMonSubscribeAck, MOSDBackoff,
    MOSDMap, MOSDOp, MOSDOpReply, MPing, MPoolOp, MPoolOpReply, MStatfs, MStatfsReply,
    MWatchNotify, PoolOpCode, SubscribeItem,
};
pub use registry::{describe, describe_from, message_name, msg_type};
pub use typed::{MessageError, TypedMessage};
