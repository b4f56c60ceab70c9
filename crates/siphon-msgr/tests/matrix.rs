//! Four releases of real Ceph, each protocol and mode, each kind of daemon and of key: authenticate,
//! exchange messages, lose the connection, come again, renew a ticket.

mod common;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{HUNG, context};
use siphon_auth::{AuthClient, CephxClient, ConnectionMode, KeyType, ModeList, Modes};
use siphon_messages::{
    MAuth, MAuthReply, MCommand, MMonCommand, MMonCommandAck, MMonGetMap, MMonMap, TypedMessage,
    msg_type,
};
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack, SystemEnv, load_keyring};
use siphon_peers::{Cluster, ClusterOptions, Release, require};
use siphon_proto::v2::{BannerFeatures, Revision};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy, Protocol};
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType, Uuid};

/// Messages that each cell exchanges before and, a tenth, after its connection is lost.
const MESSAGES: u64 = 1000;
/// Messages under way.
const WINDOW: u64 = 32;
/// How long tickets are good, in seconds.
const TICKET_TTL: u32 = 8;

/// A protocol with its mode.
#[derive(Clone, Copy, Debug)]
struct Way {
    protocol: Protocol,
    mode: ConnectionMode,
}

impl Way {
    const ALL: [Self; 5] = [
        Self { protocol: Protocol::Msgr1, mode: ConnectionMode::CRC },
        Self { protocol: Protocol::Msgr2(Revision::Rev0), mode: ConnectionMode::CRC },
        Self { protocol: Protocol::Msgr2(Revision::Rev0), mode: ConnectionMode::SECURE },
        Self { protocol: Protocol::Msgr2(Revision::Rev1), mode: ConnectionMode::CRC },
        Self { protocol: Protocol::Msgr2(Revision::Rev1), mode: ConnectionMode::SECURE },
    ];

    fn banner_features(self) -> BannerFeatures {
        match self.protocol {
            Protocol::Msgr2(Revision::Rev0) => BannerFeatures::NONE,
            _ => BannerFeatures::ALL,
        }
    }

    /// The address of several that is spoken to in this way.
    fn of(self, addrs: &EntityAddrVec) -> EntityAddrVec {
        match self.protocol {
            Protocol::Msgr1 => addrs.legacy().unwrap().into(),
            Protocol::Msgr2(_) => addrs.msgr2().unwrap().into(),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.mode)
    }
}

#[test]
fn every_release_speaks_with_us_in_every_way() {
    let clusters = [
        (Release::Nautilus, None),
        (Release::Pacific, None),
        (Release::Reef, None),
        (Release::Tentacle, Some("aes")),
        (Release::Tentacle, Some("aes256k")),
    ];
    // At once: most of the time each waits for its tickets to become old.
    let rows: Vec<String> = std::thread::scope(|scope| {
        let visits = clusters.map(|(release, keys)| scope.spawn(move || visit(release, keys)));
        visits.into_iter().flat_map(|visit| visit.join().unwrap()).collect()
    });
    println!("| Ceph | keys | protocol | mon | mgr | osd |\n|---|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    println!("{} cells of {} messages each", rows.len() * 3, MESSAGES + MESSAGES / 10);
    let kept = include_str!("../../../docs/compatibility.md");
    for row in rows {
        assert!(kept.contains(&row), "docs/compatibility.md has no row {row}");
    }
}

/// Each way to one cluster, as rows of the table.
fn visit(release: Release, key_type: Option<&'static str>) -> Vec<String> {
    let config = vec![format!("auth_service_ticket_ttl = {TICKET_TTL}")];
    let options = ClusterOptions { key_type, config, ..ClusterOptions::default() };
    let Some(cluster) = require(Cluster::start(release, &options)) else { return Vec::new() };
    let keys = key_type.unwrap_or("aes");
    let visit = |way: Way| {
        let visit = std::panic::catch_unwind(|| Client::new(&cluster, way).visit_all(keys));
        if let Err(panic) = visit {
            eprintln!("{release} {keys} {way}\n{}", cluster.logs());
            std::panic::resume_unwind(panic);
        }
        format!("| {} | {keys} | {way} | yes | yes | yes |", cluster.version())
    };
    Way::ALL.map(visit).into()
}

/// Tells every answer.
struct Tell(Sender<Message>);

impl Dispatcher for Tell {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        let _ = self.0.send(message); // the test may be over
    }
}

/// A client of a cluster.
struct Client {
    way: Way,
    cephx: CephxClient,
    _stack: Stack,
    messenger: Messenger,
    answers: Receiver<Message>,
    mon_addrs: EntityAddrVec,
    fsid: Uuid,
    tid: u64,
}

impl Client {
    fn new(cluster: &Cluster, way: Way) -> Self {
        let keyring = load_keyring(&cluster.keyring()).unwrap();
        let name = "client.admin".parse().unwrap();
        let key = keyring.get(&name).unwrap().key.clone();
        let modes = Modes::all(&ModeList::only(way.mode));
        let cephx = CephxClient::new(name, key, modes, Arc::new(SystemEnv));
        // A machine that runs five clusters at once may be slow to answer.
        let context = context(|config| config.ms_connection_ready_timeout = HUNG);
        let stack = Stack::new(&context).unwrap();
        let (sender, answers) = channel();
        let auth: Arc<dyn AuthClient> = Arc::new(cephx.clone());
        let name = EntityName::new(EntityType::CLIENT, EntityName::NEW);
        let messenger = Messenger::builder(&context, &stack, name)
            .default_policy(Policy::LOSSY_CLIENT)
            .auth_client(auth)
            .banner_features(way.banner_features())
            .dispatcher_tail(Arc::new(Tell(sender)))
            .start()
            .unwrap();
        let v2 = EntityAddr::msgr2(cluster.mon_v2(), 0);
        let v1 = EntityAddr::legacy(cluster.mon_v1(), 0);
        let mon_addrs = [v2, v1].into_iter().collect();
        let (fsid, tid) = (Uuid::default(), 0);
        Self { way, cephx, _stack: stack, messenger, answers, mon_addrs, fsid, tid }
    }

    fn visit_all(mut self, keys: &str) {
        let key_type: KeyType = keys.parse().unwrap();
        let mon = self.open_mon();
        let map = self.ask(&mon, MMonGetMap.into_out(), MMonMap::TYPE);
        self.fsid = MMonMap::from_message(&map).unwrap().monmap.fsid;
        let mgr = self.addrs_in(&mon, "mgr dump", &["active_addrs"]);
        let osd = self.addrs_in(&mon, "osd dump", &["osds", "0", "public_addrs"]);

        // The monitor: it has our global id again after the connection is lost.
        let global_id = self.cephx.global_id();
        self.exchange(&mon, MESSAGES);
        mon.mark_down();
        let mon = self.open_mon();
        self.exchange(&mon, MESSAGES / 10);
        assert_eq!(self.cephx.global_id(), global_id, "reclaimed by its ticket");

        for (kind, addrs) in [(EntityType::MGR, mgr), (EntityType::OSD, osd)] {
            let connection = self.open(kind, &addrs);
            self.exchange(&connection, MESSAGES);
            connection.mark_down();
            let connection = self.open(kind, &addrs);
            self.exchange(&connection, MESSAGES / 10);
            connection.mark_down();
            // Another ticket, before the one we have ends.
            self.renew(&mon);
            let connection = self.open(kind, &addrs);
            self.exchange(&connection, MESSAGES / 10);
            connection.mark_down();
        }
        assert_eq!(self.cephx.session_key_type(), Some(key_type));
        mon.mark_down();
        pollster::block_on(self.messenger.shutdown());
    }

    fn open(&self, kind: EntityType, addrs: &EntityAddrVec) -> Connection {
        let connection = self.messenger.connect_to(kind, self.way.of(addrs));
        let peer = pollster::block_on(connection.attempt());
        let peer = peer.unwrap_or_else(|reason| panic!("{kind} by {}: {reason}", self.way));
        assert_eq!((peer.protocol, peer.mode), (self.way.protocol, self.way.mode), "{kind}");
        connection
    }

    fn open_mon(&mut self) -> Connection {
        let connection = self.open(EntityType::MON, &self.mon_addrs);
        if self.way.protocol == Protocol::Msgr1 {
            let (payload, mut exchange) = self.cephx.begin_by_messages();
            let challenge = self.auth_step(&connection, 0, payload);
            let proof = exchange.reply_more(&challenge.auth_payload).unwrap();
            let done = self.auth_step(&connection, 2, proof);
            let payload = &done.auth_payload;
            exchange.done(done.global_id, ConnectionMode::CRC, payload).unwrap();
        }
        connection
    }

    fn auth_step(&mut self, mon: &Connection, protocol: u32, auth_payload: Bytes) -> MAuthReply {
        let question = MAuth { protocol, auth_payload, monmap_epoch: 0 };
        let answer = self.ask(mon, question.into_out(), MAuthReply::TYPE);
        let reply = MAuthReply::from_message(&answer).unwrap();
        assert!(reply.result >= 0, "{reply:?}");
        reply
    }

    /// Waits until a ticket is due, and has the monitor renew it.
    fn renew(&mut self, mon: &Connection) {
        let due = (0..HUNG.as_millis() / 50).find_map(|_| {
            sleep(Duration::from_millis(50));
            self.cephx.renewal().unwrap()
        });
        let reply = self.auth_step(mon, 2, due.expect("tickets of 8 seconds are due soon"));
        assert!(self.cephx.handle_reply(&reply.auth_payload).unwrap().is_none());
        assert_eq!(self.cephx.renewal().unwrap(), None, "all are fresh");
    }

    fn ask(&mut self, peer: &Connection, question: OutMessage, wanted: u16) -> Message {
        peer.send(question).unwrap();
        loop {
            let answer = self.answers.recv_timeout(HUNG).expect("an answer");
            if answer.header.msg_type == wanted {
                return answer;
            }
        }
    }

    /// Addresses within what a command prints.
    fn addrs_in(&mut self, mon: &Connection, prefix: &str, path: &[&str]) -> EntityAddrVec {
        let cmd = format!(r#"{{"prefix": "{prefix}", "format": "json"}}"#);
        let command = MMonCommand { fsid: self.fsid, cmd: vec![cmd.into()], ..Default::default() };
        let answer = self.ask(mon, command.into_out(), MMonCommandAck::TYPE);
        let output = MMonCommandAck::from_message(&answer).unwrap().output;
        let json: serde_json::Value = serde_json::from_slice(&output).unwrap();
        let found = path.iter().fold(&json, |json, step| match step.parse::<usize>() {
            Ok(index) => &json[index],
            Err(_) => &json[*step],
        });
        let addr = |it: &serde_json::Value| {
            let field = |name: &str| it[name].as_str().unwrap().to_owned();
            format!("{}:{}/{}", field("type"), field("addr"), it["nonce"]).parse().unwrap()
        };
        found["addrvec"].as_array().unwrap().iter().map(addr).collect()
    }

    /// Asks so many questions, and gets as many answers, each once.
    fn exchange(&mut self, peer: &Connection, count: u64) {
        let is_mon = peer.peer().unwrap().name.kind == EntityType::MON;
        let wanted = match is_mon {
            true => msg_type::CEPH_MSG_MON_GET_VERSION_REPLY,
            false => msg_type::MSG_COMMAND_REPLY,
        };
        let (first, mut asked) = (self.tid + 1, 0);
        let mut answered = vec![false; count as usize];
        for done in 0..count {
            while asked < count && asked < done + WINDOW {
                self.tid += 1;
                asked += 1;
                peer.send(if is_mon { get_version(self.tid) } else { self.command() }).unwrap();
            }
            let tid = loop {
                let answer = self.answers.recv_timeout(HUNG).expect("an answer");
                if answer.header.msg_type == wanted {
                    break if is_mon { handle_of(&answer) } else { answer.header.tid };
                }
            };
            let slot = &mut answered[(tid - first) as usize];
            assert!(!*slot, "answered twice");
            *slot = true;
        }
        assert!(answered.into_iter().all(|it| it));
    }

    fn command(&self) -> OutMessage {
        let cmd = vec![r#"{"prefix": "version"}"#.into()];
        let mut question = MCommand { fsid: self.fsid, cmd, ..Default::default() }.into_out();
        question.header_mut().tid = self.tid;
        question
    }
}

/// `MMonGetVersion`: a handle, which the answer repeats, and what the version is asked of.
fn get_version(handle: u64) -> OutMessage {
    let mut front = BytesMut::new();
    front.extend_from_slice(&handle.to_le_bytes());
    front.extend_from_slice(&6u32.to_le_bytes());
    front.extend_from_slice(b"osdmap");
    let msg_type = msg_type::CEPH_MSG_MON_GET_VERSION;
    let header = MessageHeader { msg_type, version: 1, ..Default::default() };
    OutMessage::new(header, Payload { front: front.freeze().into(), ..Default::default() })
}

fn handle_of(answer: &Message) -> u64 {
    u64::from_le_bytes(answer.payload.front[..8].try_into().unwrap())
}
