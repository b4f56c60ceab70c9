//! A server that says anything, to a client.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon_fuzz::sessions::{addr, config, converse, start};
use siphon_proto::{Connection, MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::types::EntityType;

fuzz_target!(|data: &[u8]| {
    let now = start();
    let config = config(EntityType::CLIENT, addr(1), Policy::LOSSLESS_CLIENT, 1);
    let mut connection = Connection::connect(config, addr(2), Some(EntityType::OSD), now);
    connection.send(now, OutMessage::new(MessageHeader::default(), Payload::default()));
    converse(connection, now, data);
});
