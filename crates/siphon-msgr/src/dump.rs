//! `messenger dump`: what a messenger has, connection by connection.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde_json::{Value, json};
use siphon_common::admin_socket::{Arg, CommandError, CommandSpec, Registration};
use siphon_net::TcpInfo;
use siphon_proto::{PeerInfo, Policy, SessionState, Throttle};
use siphon_wire::types::{EntityAddr, EntityAddrVec};

use crate::messenger::Shared;
use crate::worker::Mail;

/// How long a worker may take to tell: one that is in a dispatcher for longer is left out.
const PATIENCE: Duration = Duration::from_secs(5);

static SPEC: CommandSpec = CommandSpec {
    prefix: "messenger dump",
    args: &[Arg::optional("msgr"), Arg::optional("tcp_info")],
    help: "dump messengers: names, or of one its connections (tcp_info=true for the kernel's view)",
};

/// Has the admin socket tell of it, as long as it is there.
pub(crate) fn register(messenger: &Arc<Shared>) -> Registration {
    let shared = Arc::downgrade(messenger);
    let named = shared.clone();
    let name = move || named.upgrade().map_or_else(String::new, |it| it.name().to_string());
    messenger.context().commands().register_for(SPEC, "messengers", name, move |request| {
        let shared = shared.upgrade().ok_or_else(|| {
            CommandError::new(CommandError::NOT_FOUND, "the messenger has ended meanwhile")
        })?;
        let tcp_info = request.get("tcp_info").is_some_and(|it| it != "false" && it != "0");
        Ok(dump(&shared, tcp_info))
    })
}

fn dump(messenger: &Arc<Shared>, tcp_info: bool) -> Value {
    let workers = messenger.stack().workers();
    let (told, tells) = sync_channel(workers);
    messenger
        .stack()
        .broadcast(|| (Mail::Describe(Arc::clone(messenger), tcp_info, told.clone()), ()));
    drop(told);
    let mut connections = Vec::new();
    let mut silent = workers;
    while let Ok(some) = tells.recv_timeout(PATIENCE) {
        connections.extend(some.iter().map(Described::to_json));
        silent -= 1;
        if silent == 0 {
            break;
        }
    }
    let (waiting, bytes) = messenger.queue().waiting();
    json!({
        "name": messenger.name().to_string(),
        "messenger": {
            "nonce": messenger.nonce(),
            "my_name": { "type": messenger.name().kind.to_string(), "num": messenger.name().num },
            "my_addrs": addrs(&messenger.addrs()),
            "dispatch_queue": { "length": waiting, "bytes": bytes },
            "workers_that_did_not_answer": silent,
            "connections_count": connections.len(),
            "connections": connections,
        },
    })
}

/// A connection as its worker knows it. Whoever asked makes text of it: the worker has messages to move.
pub(crate) struct Described {
    pub(crate) worker: usize,
    pub(crate) conn_id: u64,
    pub(crate) accepted: bool,
    pub(crate) paused: bool,
    pub(crate) sending: bool,
    pub(crate) target: EntityAddr,
    pub(crate) peer: Option<Arc<PeerInfo>>,
    pub(crate) state: SessionState,
    pub(crate) outgoing_bytes: u64,
    pub(crate) tcp_info: Option<TcpInfo>,
}

impl Described {
    fn to_json(&self) -> Value {
        let state = &self.state;
        let ago = |time: Duration| format!("{:.6}s", time.as_secs_f64());
        json!({
            "addrvec": self.peer.as_ref().map_or_else(|| json!([addr(&self.target)]), |it| addrs(&it.addrs)["addrvec"].clone()),
            "async_connection": {
                "state": state.stage,
                "conn_id": self.conn_id,
                "worker_id": self.worker,
                "status": { "connected": state.connected, "loopback": false },
                "accepted": self.accepted,
                "target_addr": addr(&self.target),
                "peer": self.peer.as_ref().map(|peer| json!({
                    "entity_name": peer.name.to_string(),
                    "type": peer.name.kind.to_string(),
                    "global_id": peer.global_id,
                    "addr": addrs(&peer.addrs),
                    "features": format!("{:#018x}", peer.features.0),
                })),
                "protocol": self.peer.as_ref().map(|peer| json!({
                    "version": peer.protocol.to_string(),
                    "con_mode": peer.mode.to_string(),
                    "compression": peer.compression.map(|it| it.to_string()),
                    "connect_seq": state.connect_seq,
                    "global_seq": state.global_seq,
                    "peer_global_seq": state.peer_global_seq,
                })),
                "policy": policy(&state.policy),
                "in_seq": state.in_seq,
                "out_seq": state.out_seq,
                "queued_messages": state.queued,
                "unacknowledged_messages": state.unacknowledged,
                "outgoing_bytes": self.outgoing_bytes,
                "sending": self.sending,
                "dispatch_queue_full": self.paused,
                "waits_for_throttle": state.throttled,
                "throttles": state.throttles.iter().map(throttle).collect::<Vec<_>>(),
                "last_connect_started_ago": ago(state.started_ago),
                "last_active_ago": ago(state.last_active_ago),
                "tcp_info": self.tcp_info.as_ref().map(tcp),
            },
        })
    }
}

fn addr(addr: &EntityAddr) -> Value {
    let socket = addr.socket_addr().map_or_else(|| "-".to_owned(), |addr| addr.to_string());
    json!({ "type": addr.kind().to_string(), "addr": socket, "nonce": addr.nonce() })
}

fn addrs(addrs: &EntityAddrVec) -> Value {
    json!({ "addrvec": addrs.iter().map(addr).collect::<Vec<_>>() })
}

fn policy(policy: &Policy) -> Value {
    json!({
        "lossy": policy.lossy,
        "server": policy.server,
        "standby": policy.standby,
        "resetcheck": policy.resetcheck,
    })
}

fn throttle(throttle: &Throttle) -> Value {
    json!({ "name": throttle.name(), "val": throttle.current(), "max": throttle.max() })
}

/// By the kernel's names.
fn tcp(info: &TcpInfo) -> Value {
    let us = |time: Duration| time.as_micros() as u64;
    json!({
        "tcpi_rtt_us": us(info.rtt),
        "tcpi_rttvar_us": us(info.rtt_var),
        "tcpi_rto_us": us(info.rto),
        "tcpi_retransmits": info.retransmits,
        "tcpi_total_retrans": info.total_retransmits,
        "tcpi_unacked": info.unacked,
        "tcpi_lost": info.lost,
        "tcpi_snd_cwnd": info.snd_cwnd,
        "tcpi_snd_mss": info.snd_mss,
        "tcpi_rcv_mss": info.rcv_mss,
        "tcpi_rcv_space": info.rcv_space,
        "tcpi_pmtu": info.path_mtu,
        "tcpi_last_data_sent_ms": info.last_data_sent.as_millis() as u64,
        "tcpi_last_data_recv_ms": info.last_data_received.as_millis() as u64,
    })
}
