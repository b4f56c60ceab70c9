//! A peer that says anything by msgr1, to either side.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon_fuzz::Script;
use siphon_fuzz::sessions::{addr_v1, config, converse_v1, start};
use siphon_proto::{Connection, MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::types::EntityType;

fuzz_target!(|data: &[u8]| {
    let mut input = Script::new(data);
    let (role, now) = (input.byte(), start());
    let policy = match role % 4 {
        0 => Policy::LOSSLESS_PEER,
        1 => Policy::LOSSLESS_PEER_REUSE,
        2 => Policy::STATEFUL_SERVER,
        _ => Policy::STATELESS_REGISTERED_SERVER,
    };
    let connect = |kind, from, to, policy| {
        let config = config(kind, addr_v1(from), policy, u64::from(from));
        let mut connection = Connection::connect(config, addr_v1(to), Some(EntityType::OSD), now);
        connection.send(now, OutMessage::new(MessageHeader::default(), Payload::default()));
        connection
    };
    let rest = input.rest();
    if role & 4 == 0 {
        let client = connect(EntityType::CLIENT, 1, 2, Policy::LOSSLESS_PEER);
        return converse_v1(client, None, rest);
    }
    // Servers may be connecting to the client that comes, from a higher or a lower address.
    let own = if role & 8 == 0 { 2 } else { 0 };
    let existing = (role & 16 == 0).then(|| connect(EntityType::OSD, own, 1, policy));
    let config = config(EntityType::OSD, addr_v1(own), policy, 2);
    converse_v1(Connection::accept(config, addr_v1(1), now), existing, rest);
});
