//! A client that authenticates by cephx with a real monitor, and asks it for its map.
//!
//! `authenticated MONITOR --name client.admin`: the key is that of the keyring, as ceph.conf says.

use std::sync::Arc;

use siphon_common::Context;
use siphon_common::config::ConfigLoader;
use siphon_messages::{MMonGetMap, MMonMap, TypedMessage};
use siphon_msgr::{Inbox, InboxEvent, Messenger, Stack, cephx_client};
use siphon_proto::Policy;
use siphon_wire::types::{EntityName, EntityType};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Ceph's options may stand anywhere; what is left is ours.
    let (options, rest) = ConfigLoader::new().split(std::env::args().skip(1).collect())?;
    let config = ConfigLoader::new().load(options)?.config;
    let monitor = rest.first().ok_or("which monitor? v2:HOST:PORT/0")?.parse()?;

    // Who we are, our key, and the modes that we allow: ms_client_mode and its like.
    let auth = cephx_client(&config, config.name().parse()?)?;
    let context = Context::new(config);
    let stack = Stack::new(&context)?;
    let (dispatcher, mut inbox) = Inbox::new();
    // The monitor gives a client its number.
    let name = EntityName::new(EntityType::CLIENT, EntityName::NEW);
    let messenger = Messenger::builder(&context, &stack, name)
        .default_policy(Policy::LOSSY_CLIENT)
        .auth_client(Arc::new(auth))
        .dispatcher_tail(dispatcher)
        .start()?;
    let connection = messenger.connect_to(EntityType::MON, [monitor].into_iter().collect());

    pollster::block_on(async {
        // The first attempt tells of a wrong key; `ready` would go on trying.
        let peer = connection.attempt().await?;
        println!("{} lets us in: {}, {}", peer.name, peer.protocol, peer.mode);
        connection.send(MMonGetMap.into_out())?;
        // A monitor tells its clients of other things as well.
        while let Some(event) = inbox.next().await {
            let InboxEvent::Message(_, message) = event else { break };
            if message.header.msg_type == MMonMap::TYPE {
                let map = MMonMap::from_message(&message)?.monmap;
                println!("cluster {} has {} monitor(s)", map.fsid, map.by_rank().count());
                break;
            }
        }
        messenger.shutdown().await;
        Ok(())
    })
}
