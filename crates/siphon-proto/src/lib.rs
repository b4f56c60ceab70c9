//! The Ceph messenger protocol as state machines that do no IO: they open no socket, read no
//! clock and start no thread. Bytes, time and randomness come in as arguments.
//!
//! [`Connection`] is the whole of it for one peer; its documentation has the calling contract.
//! [`v2`] has the frames, and [`v1`] the structures of what came before.

#![forbid(unsafe_code)]

mod config;
mod connection;
mod counters;
mod error;
mod event;
pub mod fault;
mod front;
mod link;
mod message;
mod opening;
mod part;
mod policy;
mod queue;
pub mod resolve;
mod session;
mod state;
mod sync;
mod throttle;
mod transmit;
pub mod v1;
pub mod v2;
mod weighted;

pub use config::{ConnectionConfig, GlobalSeq, Policies, Throttles};
pub use connection::Connection;
pub use counters::{SessionCounters, SessionCounts};
pub use error::{PeerIncompatible, PeerMisbehaved, ProtocolError};
pub use event::{AuthAnswer, AuthEvent, CloseReason, Event, Next, PeerInfo, Protocol};
pub use front::Front;
pub use link::learned_addr;
pub use message::{
    EncodePayload, Grants, Message, MessageHeader, MessageParts, OutMessage, Payload, Priority,
};
pub use opening::Met;
pub use policy::Policy;
pub use state::SessionState;
pub use throttle::{Grant, Throttle, ThrottleCounters};
pub use transmit::Transmit;
pub use weighted::WeightedQueue;
