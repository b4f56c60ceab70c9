//! Two messengers that talk: one answers pings, the other asks.

use std::sync::Arc;

use siphon_common::Context;
use siphon_messages::{MPing, TypedMessage};
use siphon_msgr::{Connection, Dispatcher, Inbox, InboxEvent, Messenger, Stack};
use siphon_proto::{Message, Policy};
use siphon_wire::types::{EntityName, EntityType};

/// Answers pings. What it does not take goes to the next dispatcher, if there is one.
struct Answers;

impl Dispatcher for Answers {
    fn dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        if message.header.msg_type != MPing::TYPE {
            return Some(message);
        }
        match MPing::from_message(&message) {
            Ok(_) => {
                // An error says that the peer is gone.
                let _ = connection.send(MPing::answer("I am well").into_out());
            }
            // A peer that sends what cannot be read gets no second chance.
            Err(_) => connection.mark_down(),
        }
        None
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The configuration hangs on a context; the stack has the threads that move bytes.
    let context = Context::default();
    let stack = Stack::new(&context)?;

    let server = Messenger::builder(&context, &stack, EntityName::osd(0))
        .default_policy(Policy::STATELESS_SERVER)
        .dispatcher_tail(Arc::new(Answers))
        .start()?;
    let addrs = server.bind(&["v2:127.0.0.1:0/0".parse()?])?;

    let (dispatcher, mut inbox) = Inbox::new();
    let client = Messenger::builder(&context, &stack, EntityName::client(1))
        .default_policy(Policy::LOSSY_CLIENT)
        .dispatcher_tail(dispatcher)
        .start()?;
    let connection = client.connect_to(EntityType::OSD, addrs);
    // It goes when the connection is open.
    connection.send(MPing::question().into_out())?;

    pollster::block_on(async {
        match inbox.next().await {
            Some(InboxEvent::Message(connection, message)) => {
                let answer = MPing::from_message(&message)?.text.unwrap_or_default();
                let peer = connection.peer().ok_or("it is open")?;
                println!("{} says: {answer} ({}, {})", peer.name, peer.protocol, peer.mode);
            }
            Some(InboxEvent::Reset(_, reason)) => println!("the connection ended: {reason}"),
            None => println!("the messenger is gone"),
        }
        client.shutdown().await;
        server.shutdown().await;
        Ok(())
    })
}
