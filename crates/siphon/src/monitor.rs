#![expect(clippy::disallowed_methods, reason = "a person waits for the answer")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;
use serde_json::{Value, json};
use siphon_auth::AuthNone;
use siphon_common::Context;
use siphon_messages::mon::{MonFeatures, MonInfo, MonMap};
use siphon_messages::{MMonGetMap, MMonMap, MPing, TypedMessage};
use siphon_msgr::{CloseReason, Connection, Inbox, InboxEvent, Messenger, Stack};
use siphon_proto::v2::BannerFeatures;
use siphon_proto::{Message, OutMessage, Policy};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};

use crate::stack::StackArgs;
use crate::{address, options};

/// How soon a monitor that hung up is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(crate) enum PingTarget {
    /// Ask a monitor; it answers with its state as JSON
    Mon(MonitorArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct MonitorArgs {
    /// The monitor: HOST, HOST:PORT or an address of Ceph's; port 3300 by default
    addr: String,
    /// Give up after so many seconds of silence
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    timeout: f64,
    /// Don't offer revision 1 of msgr2
    #[arg(long)]
    rev0: bool,
    #[command(flatten)]
    stack: StackArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MonmapArgs {
    #[command(flatten)]
    monitor: MonitorArgs,
    /// Print JSON, with the names of `ceph mon dump -f json`
    #[arg(long)]
    json: bool,
}

pub(crate) fn ping(target: &PingTarget) -> Result<()> {
    let PingTarget::Mon(args) = target;
    let answer = ask(args, MPing::question().into_out(), MPing::TYPE)?;
    let ping = MPing::from_message(&answer)?;
    println!("{}", ping.text.as_deref().unwrap_or_default().trim_end());
    Ok(())
}

pub(crate) fn monmap(args: &MonmapArgs) -> Result<()> {
    let answer = ask(&args.monitor, MMonGetMap.into_out(), MMonMap::TYPE)?;
    let map = MMonMap::from_message(&answer)?.monmap;
    if args.json {
        println!("{}", to_json(&map));
    } else {
        print!("{map}");
    }
    Ok(())
}

/// Sends one message to a monitor, and waits for the first answer of `wanted` type.
fn ask(args: &MonitorArgs, question: OutMessage, wanted: u16) -> Result<Message> {
    let addrs = address::resolve(&args.addr, Some(address::MON_PORT))?;
    let timeout = Duration::try_from_secs_f64(args.timeout)
        .ok()
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| anyhow!("--timeout {}: not a time to wait", args.timeout))?;
    // One question needs one worker, and the messenger's own times end the waiting.
    let mut config = options::config()?;
    config.ms_async_op_threads = 1;
    config = args.stack.config(config)?;
    config.ms_connection_ready_timeout = timeout;
    config.ms_connection_idle_timeout = timeout;
    let modes = siphon_msgr::modes(&config)?;
    let id = config.name().split_once('.').map_or_else(String::new, |(_, id)| id.to_owned());
    let context = Context::new(config);
    options::attend(&context);
    let stack = Stack::new(&context)?;
    // Named and treated as Ceph's own clients are that have no global id yet.
    let name = EntityName::new(EntityType::CLIENT, EntityName::NEW);
    let features = if args.rev0 { BannerFeatures::NONE } else { BannerFeatures::ALL };
    let (dispatcher, mut inbox) = Inbox::new();
    let messenger = Messenger::builder(&context, &stack, name)
        .describe(siphon_messages::describe)
        .default_policy(Policy::LOSSLESS_CLIENT)
        .auth_client(Arc::new(AuthNone::new(name, id.as_str()).with_modes(modes)))
        .banner_features(features)
        .dispatcher_tail(dispatcher)
        .start()?;
    let started = Instant::now();
    let answer = loop {
        let connection = messenger.connect_to(EntityType::MON, addrs.clone());
        let asked = answer(&connection, &mut inbox, question.clone(), wanted, &addrs);
        match pollster::block_on(asked) {
            // A monitor that has just started, and has no global ids to give yet, hangs up.
            Err(_) if hung_up(&connection) && started.elapsed() < timeout => {
                connection.mark_down(); // at its own pace it would try less and less often
                std::thread::sleep(RETRY_DELAY);
            }
            answer => {
                connection.mark_down();
                break answer;
            }
        }
    };
    pollster::block_on(messenger.shutdown_within(timeout));
    answer
}

/// Whether the monitor ended the connection while it authenticated us, and told no reason.
fn hung_up(connection: &Connection) -> bool {
    matches!(connection.last_fault(), Some(CloseReason::PeerClosed { stage: "authenticating" }))
}

async fn answer(
    connection: &Connection,
    inbox: &mut Inbox,
    question: OutMessage,
    wanted: u16,
    addrs: &EntityAddrVec,
) -> Result<Message> {
    let lost = || format!("no answer from the monitor at {addrs}");
    connection.attempt().await.with_context(lost)?;
    connection.send(question).with_context(lost)?;
    loop {
        match inbox.next().await {
            Some(InboxEvent::Message(_, message)) if message.header.msg_type == wanted => {
                return Ok(message);
            }
            Some(InboxEvent::Message(..)) => {} // a monitor also tells what nobody asked for
            Some(InboxEvent::Reset(ended, reason)) if ended == *connection => {
                return Err(reason).with_context(lost);
            }
            Some(InboxEvent::Reset(..)) => {} // one that was tried before
            None => return Err(anyhow!(lost())),
        }
    }
}

/// The names and shapes of `ceph mon dump -f json`.
fn to_json(map: &MonMap) -> Value {
    let leaders: Vec<_> = map.disallowed_leaders.iter().map(ToString::to_string).collect();
    let mons: Vec<_> = map.by_rank().map(|(rank, mon)| mon_to_json(rank, mon)).collect();
    json!({
        "epoch": map.epoch.0,
        "fsid": map.fsid.to_string(),
        "modified": map.last_changed.to_string(),
        "created": map.created.to_string(),
        "min_mon_release": map.min_mon_release.0,
        "min_mon_release_name": map.min_mon_release.to_string(),
        "election_strategy": map.strategy.0,
        "disallowed_leaders": leaders,
        "stretch_mode": map.stretch_mode_enabled,
        "tiebreaker_mon": map.tiebreaker_mon.to_string(),
        "removed_ranks": map.removed_ranks,
        "features": {
            "persistent": feature_names(map.persistent_features),
            "optional": feature_names(map.optional_features),
        },
        "mons": mons,
    })
}

/// Features without a name are told by their bit.
fn feature_names(features: MonFeatures) -> Vec<String> {
    let name = |(bit, name): (MonFeatures, Option<&str>)| match name {
        Some(name) => name.to_owned(),
        None => format!("{:#x}", bit.0),
    };
    features.iter().map(name).collect()
}

fn mon_to_json(rank: usize, mon: &MonInfo) -> Value {
    let addr = |addr: &siphon_wire::types::EntityAddr| {
        json!({
            "type": addr.kind().to_string(),
            "addr": addr.socket_addr().map(|addr| addr.to_string()),
            "nonce": addr.nonce(),
        })
    };
    let location: serde_json::Map<_, _> = mon
        .crush_location
        .iter()
        .map(|(kind, bucket)| (kind.to_string(), Value::String(bucket.to_string())))
        .collect();
    json!({
        "rank": rank,
        "name": mon.name.to_string(),
        "public_addrs": { "addrvec": mon.public_addrs.iter().map(addr).collect::<Vec<_>>() },
        "priority": mon.priority,
        "weight": mon.weight,
        "crush_location": location,
    })
}
