//! `siphon sessions`: sessions with a monitor, the manager and an OSD, and what they agreed on.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use serde_json::{Value, json};
use siphon_auth::{AuthClient, AuthMethod, AuthNone, ConnectionMode};
use siphon_common::Context;
use siphon_messages::mon::Release;
use siphon_messages::{
    MAuth, MAuthReply, MCommand, MCommandReply, MMonCommand, MMonCommandAck, MMonGetMap, MMonMap,
    TypedMessage,
};
use siphon_msgr::{Connection, Inbox, InboxEvent, Messenger, Stack, cephx_client};
use siphon_proto::{Message, OutMessage, PeerInfo, Policy, Protocol};
use siphon_wire::Encoder;
use siphon_wire::types::{
    AddrType, AuthName, EntityAddrVec, EntityName, EntityType, Features, Uuid,
};

use crate::{address, options};

/// Who asks, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct UserArgs {
    /// How to authenticate
    #[arg(long, value_enum, default_value = "cephx")]
    auth: Method,
    /// Connection modes to offer, the preferred one first [default: Ceph's own]
    #[arg(long, value_name = "crc|secure")]
    mode: Option<String>,
    /// Give up on a daemon after so many seconds
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    timeout: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    Cephx,
    None,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The monitors: HOST, HOST:PORT or addresses of Ceph's; port 3300 by default. The first that
    /// answers is asked
    #[arg(required = true, value_name = "MON")]
    mons: Vec<String>,
    #[command(flatten)]
    user: UserArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(&args.mons, &args.user)?;
    let status = cluster.command_json("status")?;
    let mut sessions = vec![cluster.mon_session()?];
    let others = cluster.daemons(&status)?;
    let name = match cluster.global_id() {
        0 => EntityName::new(EntityType::CLIENT, EntityName::NEW),
        id => EntityName::client(i64::try_from(id).unwrap_or(EntityName::NEW)),
    };
    for daemon in others {
        sessions.push(cluster.visit(name, daemon)?);
    }
    cluster.end();
    if args.json {
        let sessions: Vec<_> = sessions.iter().map(Session::to_json).collect();
        let report = json!({ "status": status, "global_id": name.num, "sessions": sessions });
        println!("{report:#}");
    } else {
        print!("{}", report(&cluster, &status, name, &sessions));
    }
    if let Some(failed) = sessions.iter().find(|session| session.result.is_err()) {
        bail!("no session with {}", failed.name);
    }
    Ok(())
}

/// A daemon to visit.
struct Daemon {
    name: String,
    kind: EntityType,
    addrs: EntityAddrVec,
}

/// What became of a session with a daemon.
struct Session {
    name: String,
    addrs: EntityAddrVec,
    /// The peer and its version, or why there is none.
    result: Result<(Arc<PeerInfo>, Option<String>)>,
}

/// A session with a monitor, from which the others follow.
struct Cluster {
    context: Context,
    stack: Stack,
    auth: Arc<dyn AuthClient>,
    cephx: Option<siphon_auth::CephxClient>,
    name: AuthName,
    messenger: Messenger,
    inbox: Inbox,
    mon: Connection,
    mon_name: String,
    fsid: Uuid,
    timeout: Duration,
    next_tid: u64,
}

impl Cluster {
    fn connect(mons: &[String], user: &UserArgs) -> Result<Self> {
        let timeout = Duration::try_from_secs_f64(user.timeout).ok().filter(|it| !it.is_zero());
        let timeout =
            timeout.ok_or_else(|| anyhow!("--timeout {}: not a time to wait", user.timeout))?;
        let mut config = options::config()?;
        let user_name: AuthName = config.name().parse()?;
        config.ms_async_op_threads = 1;
        config.ms_connection_ready_timeout = timeout;
        config.ms_connection_idle_timeout = timeout;
        if let Some(mode) = &user.mode {
            config.set("ms_mon_client_mode", mode)?;
            config.set("ms_client_mode", mode)?;
        }
        let name = EntityName::new(user_name.kind, EntityName::NEW);
        let cephx = match user.auth {
            Method::Cephx => Some(cephx_client(&config, user_name.clone())?),
            Method::None => None,
        };
        let auth: Arc<dyn AuthClient> = match &cephx {
            Some(cephx) => Arc::new(cephx.clone()),
            None => {
                let none = AuthNone::new(name, user_name.id.to_string());
                Arc::new(none.with_modes(siphon_msgr::modes(&config)?))
            }
        };
        let context = Context::new(config);
        options::attend(&context);
        let stack = Stack::new(&context)?;
        let (messenger, inbox) = messenger(&context, &stack, name, &auth)?;
        let mut errors = Vec::new();
        for mon in mons {
            let addrs = address::resolve(mon, Some(address::MON_PORT))?;
            let connection = messenger.connect_to(EntityType::MON, addrs);
            match pollster::block_on(connection.attempt()) {
                Ok(peer) => {
                    let mut cluster = Self {
                        name: user_name.clone(),
                        mon: connection,
                        mon_name: "mon".to_owned(),
                        fsid: Uuid::default(),
                        next_tid: 1,
                        context,
                        stack,
                        auth,
                        cephx,
                        messenger,
                        inbox,
                        timeout,
                    };
                    if peer.protocol == Protocol::Msgr1 {
                        cluster.authenticate_by_messages()?;
                    }
                    cluster.learn_map()?;
                    return Ok(cluster);
                }
                Err(reason) => {
                    connection.mark_down();
                    errors.push(format!("{mon}: {reason}"));
                }
            }
        }
        bail!("no session with a monitor: {}", errors.join("; "))
    }

    /// Over msgr1 a monitor lets everybody in, and asks then who it is.
    fn authenticate_by_messages(&mut self) -> Result<()> {
        let Some(cephx) = &self.cephx else {
            let auth_payload = auth_methods(AuthMethod::NONE, &self.name);
            return self.auth_step(0, auth_payload).map(drop);
        };
        let (auth_payload, mut exchange) = cephx.begin_by_messages();
        let challenge = self.auth_step(0, auth_payload)?;
        let proof = exchange.reply_more(&challenge.auth_payload)?;
        let done = self.auth_step(AuthMethod::CEPHX.0, proof)?;
        exchange.done(done.global_id, ConnectionMode::CRC, &done.auth_payload)?;
        Ok(())
    }

    fn auth_step(&mut self, protocol: u32, auth_payload: Bytes) -> Result<MAuthReply> {
        let question = MAuth { protocol, auth_payload, monmap_epoch: 0 };
        let answer = self.ask(question.into_out(), MAuthReply::TYPE)?;
        let reply = MAuthReply::from_message(&answer)?;
        if reply.result < 0 {
            let why = match reply.result {
                -13 => " (wrong name or key?)",
                _ => "",
            };
            bail!("{} denies us: error {}{why} {}", self.mon_name, reply.result, reply.result_msg);
        }
        Ok(reply)
    }

    fn learn_map(&mut self) -> Result<()> {
        let answer = self.ask(MMonGetMap.into_out(), MMonMap::TYPE)?;
        let map = MMonMap::from_message(&answer)?.monmap;
        self.fsid = map.fsid;
        let ours = self.mon.peer_addrs();
        let found =
            map.by_rank().find(|(_, mon)| ours.iter().any(|it| mon.public_addrs.contains(it)));
        if let Some((_, mon)) = found {
            self.mon_name = format!("mon.{}", mon.name);
        }
        Ok(())
    }

    fn global_id(&self) -> u64 {
        self.cephx.as_ref().map_or(0, siphon_auth::CephxClient::global_id)
    }

    fn ask(&mut self, question: OutMessage, wanted: u16) -> Result<Message> {
        self.mon.send(question)?;
        let answered = next_of(&mut self.inbox, &self.mon, wanted);
        pollster::block_on(answered).with_context(|| format!("no answer from {}", self.mon_name))
    }

    /// A monitor command's output as JSON.
    fn command_json(&mut self, prefix: &str) -> Result<Value> {
        let cmd = json!({ "prefix": prefix, "format": "json" }).to_string();
        let command = MMonCommand { fsid: self.fsid, cmd: vec![cmd.into()], ..Default::default() };
        let mut question = command.into_out();
        question.header_mut().tid = self.tid();
        let answer = MMonCommandAck::from_message(&self.ask(question, MMonCommandAck::TYPE)?)?;
        if answer.result != 0 {
            bail!("{prefix}: {} (error {})", answer.status, answer.result);
        }
        serde_json::from_slice(&answer.output).with_context(|| format!("what `{prefix}` answers"))
    }

    fn tid(&mut self) -> u64 {
        self.next_tid += 1;
        self.next_tid
    }

    fn mon_session(&mut self) -> Result<Session> {
        let peer = self.mon.peer().ok_or_else(|| anyhow!("the session is lost"))?;
        let version = self.command_json("version").ok();
        let version = version.and_then(|it| Some(it.get("version")?.as_str()?.to_owned()));
        let (name, addrs) = (self.mon_name.clone(), peer.addrs.clone());
        Ok(Session { name, addrs, result: Ok((peer, version)) })
    }

    /// The active manager, and the first OSD that is up.
    fn daemons(&mut self, status: &Value) -> Result<Vec<Daemon>> {
        let mut daemons = Vec::new();
        if status["mgrmap"]["available"] == json!(true) {
            let map = self.command_json("mgr dump")?;
            let name = map["active_name"].as_str().unwrap_or("?");
            let addrs = addrs_of(&map["active_addrs"]).context("the manager's addresses")?;
            daemons.push(Daemon { name: format!("mgr.{name}"), kind: EntityType::MGR, addrs });
        }
        let map = self.command_json("osd dump")?;
        let osds = map["osds"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(osd) = osds.iter().find(|osd| osd["up"] == json!(1)) {
            let addrs = addrs_of(&osd["public_addrs"]).context("the OSD's addresses")?;
            daemons.push(Daemon {
                name: format!("osd.{}", osd["osd"]),
                kind: EntityType::OSD,
                addrs,
            });
        }
        Ok(daemons)
    }

    /// Opens a session with a daemon, and asks for its version.
    fn visit(&mut self, name: EntityName, mut daemon: Daemon) -> Result<Session> {
        // Whoever asks by v1 wants to know what v1 does.
        if self.mon.peer().is_some_and(|peer| peer.protocol == Protocol::Msgr1) {
            let v1 = daemon.addrs.iter().filter(|addr| addr.kind() == AddrType::LEGACY);
            daemon.addrs = v1.copied().collect();
        }
        let (messenger, mut inbox) = messenger(&self.context, &self.stack, name, &self.auth)?;
        let connection = messenger.connect_to(daemon.kind, daemon.addrs.clone());
        let opened = pollster::block_on(connection.attempt());
        let result = opened.map_err(anyhow::Error::from).map(|peer| {
            let cmd = json!({ "prefix": "version" }).to_string();
            let mut question =
                MCommand { fsid: self.fsid, cmd: vec![cmd.into()], ..Default::default() }
                    .into_out();
            question.header_mut().tid = self.tid();
            let answer = connection.send(question).ok().and_then(|()| {
                let answered = next_of(&mut inbox, &connection, MCommandReply::TYPE);
                pollster::block_on(answered).ok()
            });
            let answer = answer.and_then(|it| MCommandReply::from_message(&it).ok());
            (peer, answer.and_then(|it| version_of(&it.output)))
        });
        connection.mark_down();
        pollster::block_on(messenger.shutdown_within(self.timeout));
        Ok(Session { name: daemon.name, addrs: daemon.addrs, result })
    }

    fn end(&self) {
        self.mon.mark_down();
        pollster::block_on(self.messenger.shutdown_within(self.timeout));
    }
}

fn messenger(
    context: &Context,
    stack: &Stack,
    name: EntityName,
    auth: &Arc<dyn AuthClient>,
) -> Result<(Messenger, Inbox)> {
    let (dispatcher, inbox) = Inbox::new();
    let messenger = Messenger::builder(context, stack, name)
        .describe(siphon_messages::describe)
        .default_policy(Policy::LOSSY_CLIENT)
        .auth_client(Arc::clone(auth))
        .dispatcher_tail(dispatcher)
        .start()?;
    Ok((messenger, inbox))
}

/// What opens authentication by messages: the methods that we have, and who we are.
fn auth_methods(method: AuthMethod, name: &AuthName) -> Bytes {
    let mut enc = Encoder::new(Features::ALL);
    enc.u8(1);
    enc.value(&vec![method.0]);
    enc.value(name);
    enc.u64(0);
    enc.finish()
}

/// The next message of a type from a peer.
async fn next_of(inbox: &mut Inbox, connection: &Connection, wanted: u16) -> Result<Message> {
    loop {
        match inbox.next().await {
            Some(InboxEvent::Message(_, message)) if message.header.msg_type == wanted => {
                return Ok(message);
            }
            Some(InboxEvent::Message(..)) => {} // daemons also tell what nobody asked for
            Some(InboxEvent::Reset(ended, reason)) if ended == *connection => {
                return Err(reason.into());
            }
            Some(InboxEvent::Reset(..)) => {} // one that was tried before
            None => bail!("the messenger was shut down"),
        }
    }
}

/// A daemon's own words, as JSON or as text.
fn version_of(output: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(output).ok()?.trim();
    let json: Option<Value> = serde_json::from_str(text).ok();
    let named = json.as_ref().and_then(|it| it.get("version")?.as_str());
    let version = named.unwrap_or(text);
    (!version.is_empty()).then(|| version.to_owned())
}

/// An address vector as Ceph's JSON has it.
fn addrs_of(value: &Value) -> Result<EntityAddrVec> {
    let entries = value["addrvec"].as_array().context("no addrvec in what the monitor answers")?;
    let addr = |entry: &Value| {
        let field = |name| entry[name].as_str().unwrap_or_default();
        let text = format!("{}:{}/{}", field("type"), field("addr"), entry["nonce"]);
        text.parse().with_context(|| format!("{text}, which is no address"))
    };
    entries.iter().map(addr).collect()
}

impl Session {
    fn to_json(&self) -> Value {
        match &self.result {
            Ok((peer, version)) => json!({
                "name": self.name,
                "addrs": self.addrs.to_string(),
                "protocol": peer.protocol.to_string(),
                "mode": peer.mode.to_string(),
                "cipher": cipher(peer.mode),
                "compression": compression(peer),
                "release": release(peer),
                "version": version,
                "features": peer.features.names().collect::<Vec<_>>(),
            }),
            Err(error) => json!({
                "name": self.name,
                "addrs": self.addrs.to_string(),
                "error": format!("{error:#}"),
            }),
        }
    }
}

fn cipher(mode: ConnectionMode) -> &'static str {
    match mode {
        ConnectionMode::SECURE => "AES-128-GCM",
        _ => "none",
    }
}

fn compression(peer: &PeerInfo) -> String {
    peer.compression.map_or("none".to_owned(), |algorithm| algorithm.to_string())
}

/// The newest release whose features the peer has.
fn release(peer: &PeerInfo) -> String {
    Release::of_features(peer.features).to_string()
}

fn report(cluster: &Cluster, status: &Value, name: EntityName, sessions: &[Session]) -> String {
    let mut text = String::new();
    let health = status["health"]["status"].as_str().unwrap_or("unknown");
    let osds = &status["osdmap"];
    let _ = writeln!(text, "cluster   {}", cluster.fsid);
    let _ = writeln!(text, "health    {health}");
    let quorum = status["quorum_names"].as_array().map(Vec::as_slice).unwrap_or_default();
    let quorum: Vec<_> = quorum.iter().filter_map(Value::as_str).collect();
    let _ = writeln!(text, "quorum    {}", quorum.join(", "));
    let _ = writeln!(text, "osds      {} up of {}", osds["num_up_osds"], osds["num_osds"]);
    let _ = writeln!(text, "we are    {} ({name})\n", cluster.name);
    for session in sessions {
        let _ = writeln!(text, "{}  {}", session.name, session.addrs);
        match &session.result {
            Ok((peer, version)) => {
                let (mode, features) = (peer.mode, peer.features.names().collect::<Vec<_>>());
                let version = version.as_deref().unwrap_or("not told");
                let _ = writeln!(text, "  protocol     {}", peer.protocol);
                let _ = writeln!(text, "  mode         {mode}");
                let _ = writeln!(text, "  cipher       {}", cipher(mode));
                let _ = writeln!(text, "  compression  {}", compression(peer));
                let _ =
                    writeln!(text, "  release      {} or newer, by its features", release(peer));
                let _ = writeln!(text, "  version      {version}");
                let _ = writeln!(text, "  features     {}\n", features.join(" "));
            }
            Err(error) => {
                let _ = writeln!(text, "  no session   {error:#}\n");
            }
        }
    }
    text
}
