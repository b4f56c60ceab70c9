#![expect(clippy::disallowed_methods, reason = "tells how long it has been up")]

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use siphon_messages::{MPing, TypedMessage};
use siphon_msgr::{CloseReason, Connection, Dispatcher, Messenger, Stack};
use siphon_perf::{Server, ServerOptions};
use siphon_proto::{Message, Policy, Priority};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};

use crate::stack::StackArgs;
use crate::{address, options};
use siphon_common::interrupt::Ending;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen: IP:PORT; several with commas
    #[arg(value_delimiter = ',', required = true)]
    addr: Vec<String>,
    /// Who to be: mon.a, osd.3, mgr.x, mds.0, client.admin
    #[arg(long = "as", default_value = "mon.a", value_name = "NAME")]
    name: String,
    #[command(flatten)]
    stack: StackArgs,
}

/// Answers pings. Peers also ask for what only a real daemon has; that is logged and left.
struct Pong {
    name: String,
    started: Instant,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let name = entity_name(&args.name)?;
    let context = args.stack.context()?;
    let _presence = options::present(&context, &args.name)?;
    let ending = Ending::listen()?;
    let stack = Stack::new(&context)?;
    let pong = Pong { name: args.name.clone(), started: Instant::now() };
    let messenger = Messenger::builder(&context, &stack, name)
        .describe(siphon_messages::describe)
        .default_policy(Policy::STATELESS_SERVER)
        .dispatcher_tail(Arc::new(Server::new(ServerOptions::default())?))
        .dispatcher_tail(Arc::new(pong))
        .start()?;
    let mut addrs = Vec::new();
    for addr in &args.addr {
        addrs.extend(address::resolve(addr, None)?.iter().copied());
    }
    let bound: EntityAddrVec = messenger.bind(&addrs)?;
    println!("{} answers at {bound}, until interrupted", args.name);
    ending.wait()?;
    pollster::block_on(messenger.shutdown());
    Ok(())
}

/// An entity's name; an id that is no number, as monitors have, is number 0 on the wire.
fn entity_name(text: &str) -> Result<EntityName> {
    let kinds = [
        ("mon", EntityType::MON),
        ("mds", EntityType::MDS),
        ("osd", EntityType::OSD),
        ("client", EntityType::CLIENT),
        ("mgr", EntityType::MGR),
    ];
    let (kind, id) = text.split_once('.').with_context(|| {
        format!("\"{text}\" is not an entity; write TYPE.ID, as mon.a or osd.3")
    })?;
    let known = kinds.iter().find(|(name, _)| *name == kind);
    let Some((_, kind)) = known else {
        bail!("\"{kind}\" is not a kind of entity; there are mon, mds, osd, client, mgr");
    };
    Ok(EntityName::new(*kind, id.parse().unwrap_or(0)))
}

impl Pong {
    fn text(&self, connection: &Connection) -> String {
        let asked_by = connection.peer().map(|peer| peer.name.to_string());
        serde_json::json!({
            "name": self.name,
            "software": concat!("siphon ", env!("CARGO_PKG_VERSION")),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "asked_by": asked_by,
        })
        .to_string()
    }
}

impl Dispatcher for Pong {
    fn dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        if message.header.msg_type != MPing::TYPE {
            let message = siphon_messages::describe(&message);
            tracing::info!(peer = %connection, message, "not answered");
            return None;
        }
        let mut answer = MPing::answer(self.text(connection)).into_out();
        answer.header_mut().tid = message.header.tid;
        if self.name.starts_with("mon.") {
            answer.header_mut().priority = Priority::HIGH; // of all that Ceph's monitors send
        }
        let _ = connection.send(answer); // an error says that the peer is gone
        None
    }

    fn handle_accept(&self, connection: &Connection) {
        tracing::info!(peer = %connection, "session opened");
    }

    fn handle_reset(&self, connection: &Connection, reason: &CloseReason) -> bool {
        tracing::info!(peer = %connection, %reason, "session ended");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_named_as_in_ceph() {
        assert_eq!(entity_name("osd.3").unwrap(), EntityName::new(EntityType::OSD, 3));
        assert_eq!(entity_name("mon.a").unwrap(), EntityName::new(EntityType::MON, 0));
        assert!(entity_name("osd").unwrap_err().to_string().contains("TYPE.ID"));
        assert!(entity_name("disk.1").unwrap_err().to_string().contains("kind of entity"));
    }
}
