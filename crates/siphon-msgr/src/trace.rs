//! A line for each message, at `debug_ms = 1`, in the form that Ceph's users grep for
//! (`AsyncConnection::send_message`, `DispatchQueue::pre_dispatch`, 16.2.7):
//!
//! ```text
//! -- v2:10.0.0.1:0/3 --> v2:10.0.0.2:6800/1 -- osd_op(client.4.0:1 …) -- con 5
//! -- v2:10.0.0.1:0/3 <== osd.0 v2:10.0.0.2:6800/1 7 ==== osd_op_reply(1 …) ==== 153+0+4096 (crc 0 0 0) con 5
//! ```

use siphon_common::logging::MESSAGE_TARGET;
use siphon_proto::{Message, OutMessage};
use siphon_wire::types::Features;
use tracing::Level;

use crate::Connection;

/// How a message is told, if nobody knows better.
pub(crate) fn describe_header(message: &Message) -> String {
    let header = &message.header;
    format!("message {} tid {} v{}", header.msg_type, header.tid, header.version)
}

/// While nobody listens it costs the load of tracing's highest level.
pub(crate) fn sent(connection: &Connection, message: &OutMessage) {
    if tracing::enabled!(target: MESSAGE_TARGET, Level::TRACE) {
        tell_sent(connection, message);
    }
}

/// The same.
pub(crate) fn received(connection: &Connection, message: &Message) {
    if tracing::enabled!(target: MESSAGE_TARGET, Level::TRACE) {
        tell_received(connection, message);
    }
}

#[cold]
fn tell_sent(connection: &Connection, message: &OutMessage) {
    let messenger = connection.messenger();
    // It may be encoded later: for the line it is encoded by itself.
    let text = messenger.describe(&message.clone().deliver(Features::ALL));
    let (mine, peer, con) = (messenger.addrs(), connection.target(), connection.id().token());
    tracing::trace!(target: MESSAGE_TARGET, "-- {mine} --> {peer} -- {text} -- con {con}");
}

#[cold]
fn tell_received(connection: &Connection, message: &Message) {
    let messenger = connection.messenger();
    let (mine, peer, con) = (messenger.addrs(), connection.target(), connection.id().token());
    // The three numbers are checksums of msgr1; Ceph's log has zeros in msgr2.
    let (name, mode) = match connection.peer() {
        Some(peer) => (peer.name.to_string(), peer.mode.to_string()),
        None => ("unknown".to_owned(), "-".to_owned()),
    };
    let (seq, text) = (message.seq, messenger.describe(message));
    let (front, middle, data) =
        (message.payload.front.len(), message.payload.middle.len(), message.payload.data.len());
    tracing::trace!(
        target: MESSAGE_TARGET,
        "-- {mine} <== {name} {peer} {seq} ==== {text} ==== {front}+{middle}+{data} ({mode} 0 0 0) con {con}"
    );
}
