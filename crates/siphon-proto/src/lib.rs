//! The Ceph messenger protocol as state machines that do no IO.

mod message;

pub use message::{
    EncodePayload, Message, MessageHeader, OutMessage, OutPayload, Payload, Priority,
};
