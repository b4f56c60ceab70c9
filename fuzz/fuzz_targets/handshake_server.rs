//! A client that says anything, to a server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon_fuzz::sessions::{addr, config, converse, start};
use siphon_proto::{Connection, Policy};
use siphon_wire::types::EntityType;

fuzz_target!(|data: &[u8]| {
    let now = start();
    let policy = match data.first() {
        Some(0..=99) => Policy::STATEFUL_SERVER,
        Some(100..=199) => Policy::LOSSLESS_PEER,
        _ => Policy::STATELESS_SERVER,
    };
    let config = config(EntityType::OSD, addr(2), policy, 2);
    converse(Connection::accept(config, addr(1), now), now, data.get(1..).unwrap_or_default());
});
