//! Two messengers over a simulated network: mailbox, worker, dispatch and all below.

use std::time::Duration;

use siphon_proto::{MessageHeader, OutMessage, Policy};
use siphon_sim::net::NetOptions;
use siphon_sim::world::{FAST, News, NodeId, NodeOptions, World};
use siphon_wire::types::EntityType;

const LONG: Duration = Duration::from_secs(10);

/// 32 requests with so much data, and their answers.
pub(crate) fn messengers(data: usize) -> Box<dyn FnMut()> {
    const COUNT: usize = 32;
    let latency = Duration::from_micros(20);
    let options =
        NetOptions { latency_min: latency, latency_max: latency, ..NetOptions::default() };
    let mut world = World::new(1, options);
    let server = world.add(NodeOptions::new(EntityType::OSD, 0, Policy::STATELESS_SERVER));
    let client = world.add(NodeOptions::new(EntityType::CLIENT, 1, Policy::LOSSLESS_CLIENT));
    let connection = world.connect(client, server);
    let request = super::payload(data);
    let answer = super::payload(0);
    let header = MessageHeader { msg_type: FAST, ..MessageHeader::default() };
    Box::new(move || {
        for _ in 0..COUNT {
            let message = OutMessage::new(header, request.clone());
            connection.send(message).expect("the connection is open");
        }
        arrived(&mut world, server, COUNT, |news| {
            if let News::Message(from, _) = news {
                from.send(OutMessage::new(header, answer.clone())).expect("the connection is open");
            }
        });
        arrived(&mut world, client, COUNT, |_| {});
    })
}

/// Runs until so many messages came to a node.
fn arrived(world: &mut World, node: NodeId, count: usize, mut each: impl FnMut(News)) {
    let mut came = 0;
    let run = world.run_until("messages come", LONG, |world| {
        for news in world.take_news(node) {
            came += usize::from(matches!(news, News::Message(..)));
            each(news);
        }
        came >= count
    });
    run.expect("nothing is lost");
}
