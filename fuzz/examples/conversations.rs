//! Writes the seeds of the targets that talk: conversations, and sequences that come far.
//!
//! ```text
//! cd fuzz && cargo run --example conversations
//! ```

use siphon_fuzz::sessions::{addr, addr_v1, answer, config, start};
use siphon_proto::{Connection, Event, MessageHeader, OutMessage, Payload, Policy, Transmit};
use siphon_wire::types::{EntityAddr, EntityType};
use std::fs;
use std::path::Path;

/// Takes the next 3,938 bytes, more than any of these conversations has.
const ALL: u8 = 251;

fn main() -> std::io::Result<()> {
    for (name, client, server) in [
        ("lossless", Policy::LOSSLESS_CLIENT, Policy::STATEFUL_SERVER),
        ("lossy", Policy::LOSSLESS_CLIENT, Policy::STATELESS_SERVER),
    ] {
        let [to_server, to_client] = converse(client, server, addr);
        let first = if server.lossy { 255 } else { 0 };
        write("handshake_server", name, [&[first, ALL], &to_server[..]].concat())?;
        write("handshake_client", name, [&[ALL], &to_client[..]].concat())?;
    }
    let [to_server, to_client] = converse(Policy::LOSSLESS_PEER, Policy::LOSSLESS_PEER, addr_v1);
    for role in [4, 5, 6, 7, 12, 20] {
        write("v1", &format!("server-{role}"), [&[role, ALL], &to_server[..]].concat())?;
    }
    write("v1", "client", [&[0, ALL], &to_client[..]].concat())?;
    for policies in 0..4 {
        // Both send; everything is delivered, several times; a link is cut; and again.
        let deliver = [4, 255, 255, 5, 255, 255].repeat(8);
        let sequence =
            [&[policies, 0, 1][..], &deliver, &[10, 0, 0, 1, 12, 200], &deliver].concat();
        write("operations", &format!("policies-{policies}"), sequence)?;
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: Vec<u8>) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// All bytes that each side sends to open a session and exchange a message.
fn converse(client: Policy, server: Policy, addr: fn(u8) -> EntityAddr) -> [Vec<u8>; 2] {
    let now = start();
    let client = config(EntityType::CLIENT, addr(1), client, 1);
    let server = config(EntityType::OSD, addr(2), server, 2);
    let mut sides = [
        Connection::connect(client, addr(2), Some(EntityType::OSD), now),
        Connection::accept(server, addr(1), now),
    ];
    for side in &mut sides {
        side.send(now, OutMessage::new(MessageHeader::default(), Payload::default()));
    }
    let mut said = [Vec::new(), Vec::new()];
    loop {
        let mut busy = false;
        for at in [0, 1] {
            while let Some(event) = sides[at].poll_event() {
                match event {
                    Event::Auth(event) => sides[at].handle_auth(now, answer(event)),
                    Event::Knock => drop(sides[at].meet(now, None)),
                    Event::Connect(_) => sides[at].handle_connected(now),
                    _ => {}
                }
            }
            let mut transmit = Transmit::default();
            while sides[at].poll_transmit(now, &mut transmit, 1 << 20) {}
            let bytes = transmit.out.to_bytes();
            busy |= !bytes.is_empty() || sides[at].has_events();
            sides[1 - at].handle_recv(now, None, &bytes[..]);
            said[at].extend_from_slice(&bytes);
        }
        if !busy {
            return said;
        }
    }
}
