//! A messenger of ours that stands in for a monitor, as far as Ceph's own clients need one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use siphon_auth::{
    AuthEnv, AuthMethod, AuthRequest, AuthServer, AuthServerAnswer, CephxServer, ConnectionMode,
    CryptoKey, EntityAuth, KeyServer, KeyServerOptions, KeyType, Keyring, MessageExchange,
    ModeList, Modes, PeerContext, ServerExchange,
};
use siphon_messages::mon::{ElectionStrategy, MonFeatures, MonInfo, MonMap, Release};
use siphon_messages::{
    MAuth, MAuthReply, MMonCommand, MMonCommandAck, MMonGetMap, MMonMap, MMonSubscribe,
    TypedMessage, msg_type,
};
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack, SystemEnv, save_keyring};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy, Protocol};
use siphon_wire::Encode as _;
use siphon_wire::types::{
    AddrType, AuthName, EntityAddr, EntityAddrVec, EntityName, Epoch, Features, Utime, Uuid,
};

use super::context;

/// The cluster that the monitor says it is of.
pub const FSID: &str = "5d2a3a34-17c1-4f2b-9a38-6b6a2f6cbb11";
/// What our monitor answers to `ceph -s`.
pub const STATUS: &str = "all is well here";

/// A monitor as far as clients need one to connect.
pub struct StandIn {
    stack: Stack,
    messenger: Messenger,
    pub addrs: EntityAddrVec,
    pub seen: Arc<Seen>,
    /// How far ahead its clock is.
    pub clock: Arc<Clock>,
    folder: tempfile::TempDir,
    /// Of client.admin.
    pub key: CryptoKey,
}

/// Answers, and remembers who asked.
pub struct Seen {
    map: Mutex<MonMap>,
    auth: Watched,
    /// Who authenticates by messages, and whether it has.
    exchanges: Mutex<HashMap<Connection, (MessageExchange, bool)>>,
    /// Name, capabilities and mode of each session.
    pub sessions: Mutex<Vec<(AuthName, String, ConnectionMode)>>,
    pub connections: Mutex<Vec<Connection>>,
}

impl Seen {
    /// What clients were refused with, so far.
    pub fn refusals(&self) -> Vec<i32> {
        self.auth.refusals.lock().unwrap().clone()
    }

    fn answer(&self, connection: &Connection, message: &Message) -> Option<OutMessage> {
        let map = || MMonMap { monmap: self.map.lock().unwrap().clone() };
        match message.header.msg_type {
            MAuth::TYPE => {
                let (reply, is_let_in) = self.authenticate(connection, message);
                connection.send(reply).unwrap();
                is_let_in.then(|| map().into_out())
            }
            _ if !self.is_known(connection) => None,
            MMonGetMap::TYPE => Some(map().into_out()),
            MMonSubscribe::TYPE => {
                let wanted = MMonSubscribe::from_message(message).unwrap().what;
                if wanted.contains_key(&b"config"[..].into()) {
                    connection.send(no_config()).unwrap();
                }
                wanted.contains_key(&b"monmap"[..].into()).then(|| map().into_out())
            }
            MMonCommand::TYPE => {
                let command = MMonCommand::from_message(message).unwrap();
                let output = match String::from_utf8_lossy(&command.cmd[0]) {
                    cmd if cmd.contains("get_command_descriptions") => {
                        r#"{"cmd000": {"sig": ["status"], "help": "", "module": "mon",
                            "perm": "r", "flags": 0}}"#
                    }
                    cmd if cmd.contains("\"status\"") => STATUS,
                    cmd => panic!("not taught: {cmd}"),
                };
                let cmd = command.cmd;
                let ack = MMonCommandAck { cmd, output: output.into(), ..Default::default() };
                let mut answer = ack.into_out();
                answer.header_mut().tid = message.header.tid;
                Some(answer)
            }
            _ => None,
        }
    }
}

impl Seen {
    fn is_known(&self, connection: &Connection) -> bool {
        let is_v1 = connection.peer().unwrap().protocol == Protocol::Msgr1;
        let exchanges = self.exchanges.lock().unwrap();
        !is_v1 || exchanges.get(connection).is_some_and(|(_, is_known)| *is_known)
    }

    /// The answer to a step by messages, and whether it lets the client in.
    fn authenticate(&self, connection: &Connection, message: &Message) -> (OutMessage, bool) {
        let mut exchanges = self.exchanges.lock().unwrap();
        let (exchange, is_known) = exchanges.entry(connection.clone()).or_insert_with(|| {
            let peer = connection.peer().unwrap();
            match connection.take_auth_exchange() {
                Some(exchange) => (MessageExchange::with_known(exchange), true),
                None => (MessageExchange::new(&self.auth, peer.name.kind), false),
            }
        });
        let MAuth { protocol, auth_payload, .. } = MAuth::from_message(message).unwrap();
        let answer = exchange.handle(AuthMethod(protocol), &auth_payload);
        let is_let_in = answer.identity.is_some();
        if let Some(identity) = answer.identity {
            *is_known = true;
            let session = (identity.name, identity.caps, ConnectionMode::CRC);
            self.sessions.lock().unwrap().push(session);
        }
        let reply = MAuthReply {
            protocol: answer.method.0,
            result: answer.result,
            global_id: answer.global_id,
            auth_payload: answer.payload,
            ..Default::default()
        };
        (reply.into_out(), is_let_in)
    }
}

impl Dispatcher for Seen {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        if let Some(answer) = self.answer(connection, &message) {
            let _ = connection.send(answer); // it may have left
        }
    }

    fn handle_fast_accept(&self, connection: &Connection) {
        self.connections.lock().unwrap().push(connection.clone());
        let peer = connection.peer().unwrap();
        if peer.protocol == Protocol::Msgr1 {
            return; // it has still to authenticate
        }
        let identity = peer.identity.clone().expect("cephx proves who it is");
        let session = (identity.name, identity.caps, peer.mode);
        self.sessions.lock().unwrap().push(session);
    }
}

/// `MConfig`: no options are set for the client.
fn no_config() -> OutMessage {
    let front = BTreeMap::<String, String>::new().to_bytes(Features::ALL);
    let header = MessageHeader { msg_type: msg_type::MSG_CONFIG, version: 1, ..Default::default() };
    OutMessage::new(header, Payload { front: front.into(), ..Default::default() })
}

impl StandIn {
    pub fn start(protocol: AddrType, modes: &str, key_type: KeyType) -> Self {
        let key = CryptoKey::generate(key_type, &SystemEnv).unwrap();
        let mut keyring = Keyring::default();
        let caps = ["mon", "osd", "mgr"].map(|service| (service.to_owned(), "allow *".to_owned()));
        let auth = EntityAuth { key: key.clone(), caps: caps.into() };
        keyring.insert("client.admin".parse().unwrap(), auth);
        let options = KeyServerOptions { service_key_type: key_type, ..Default::default() };
        let clock = Arc::new(Clock::default());
        let env: Arc<dyn AuthEnv> = Arc::clone(&clock) as _;
        let keys = Arc::new(KeyServer::new(keyring, options, env));
        let modes = Modes::all(&modes.parse::<ModeList>().unwrap());
        let context = context(|_| {});
        let stack = Stack::new(&context).unwrap();
        let server = CephxServer::for_monitor(keys, modes);
        let auth = Watched { server, refusals: Arc::default() };
        let seen = Arc::new(Seen {
            map: Mutex::default(),
            auth: auth.clone(),
            exchanges: Mutex::default(),
            sessions: Mutex::default(),
            connections: Mutex::default(),
        });
        let messenger = Messenger::builder(&context, &stack, EntityName::mon(0))
            .default_policy(Policy::STATELESS_SERVER)
            .auth_server(Arc::new(auth))
            .dispatcher_tail(Arc::clone(&seen) as Arc<dyn Dispatcher>)
            .start()
            .unwrap();
        let addr = EntityAddr::msgr2(([127, 0, 0, 1], 0).into(), 0).with_kind(protocol);
        let addrs = messenger.bind(&[addr]).unwrap();
        *seen.map.lock().unwrap() = monmap(&addrs);
        let folder = tempfile::tempdir().unwrap();
        Self { stack, messenger, addrs, seen, clock, folder, key }
    }

    /// A keyring file of these.
    fn keyring(&self, name: &str, key: &CryptoKey) -> PathBuf {
        let mut keyring = Keyring::default();
        let auth = EntityAuth { key: key.clone(), ..Default::default() };
        keyring.insert(name.parse().unwrap(), auth);
        let path = self.folder.path().join(format!("{name}.keyring"));
        save_keyring(&path, &keyring).unwrap();
        path
    }

    /// A client's options.
    pub fn options(&self, name: &str, key: &CryptoKey, modes: &str) -> Vec<String> {
        let addr = self.addrs.front().to_string();
        let keyring = self.keyring(name, key).display().to_string();
        let mut options = vec!["-m".to_owned(), addr, "-n".to_owned(), name.to_owned()];
        options.extend(["--keyring".to_owned(), keyring]);
        options.extend(["--ms_mon_client_mode".to_owned(), modes.to_owned()]);
        options
    }

    pub fn shutdown(self) {
        pollster::block_on(self.messenger.shutdown());
        drop(self.stack);
    }
}

fn monmap(addrs: &EntityAddrVec) -> MonMap {
    let mon = MonInfo { name: "a".into(), public_addrs: addrs.clone(), ..Default::default() };
    MonMap {
        epoch: Epoch(1),
        fsid: FSID.parse::<Uuid>().unwrap(),
        last_changed: Utime::new(1_600_000_000, 0),
        created: Utime::new(1_600_000_000, 0),
        persistent_features: MonFeatures::LUMINOUS | MonFeatures::MIMIC | MonFeatures::NAUTILUS,
        mons: [("a".into(), mon)].into(),
        ranks: vec!["a".into()],
        min_mon_release: Release::PACIFIC,
        strategy: ElectionStrategy::CLASSIC,
        ..Default::default()
    }
}

/// The system's, some seconds ahead.
#[derive(Debug, Default)]
pub struct Clock(pub AtomicU32);

impl AuthEnv for Clock {
    fn now(&self) -> Utime {
        let Utime { sec, nsec } = SystemEnv.now();
        Utime::new(sec + self.0.load(Ordering::Relaxed), nsec)
    }

    fn fill(&self, bytes: &mut [u8]) {
        SystemEnv.fill(bytes);
    }
}

/// Remembers whom it refused.
#[derive(Clone, Debug)]
struct Watched {
    server: CephxServer,
    refusals: Arc<Mutex<Vec<i32>>>,
}

impl AuthServer for Watched {
    fn begin(&self, peer: PeerContext) -> Box<dyn ServerExchange> {
        let refusals = Arc::clone(&self.refusals);
        Box::new(WatchedExchange { exchange: self.server.begin(peer), refusals })
    }
}

#[derive(Debug)]
struct WatchedExchange {
    exchange: Box<dyn ServerExchange>,
    refusals: Arc<Mutex<Vec<i32>>>,
}

impl WatchedExchange {
    fn see(&self, answer: AuthServerAnswer) -> AuthServerAnswer {
        if let AuthServerAnswer::BadMethod(refusal) = &answer {
            self.refusals.lock().unwrap().push(refusal.result);
        }
        answer
    }
}

impl ServerExchange for WatchedExchange {
    fn request(&mut self, request: &AuthRequest) -> AuthServerAnswer {
        let answer = self.exchange.request(request);
        self.see(answer)
    }

    fn request_more(&mut self, payload: &Bytes) -> AuthServerAnswer {
        let answer = self.exchange.request_more(payload);
        self.see(answer)
    }

    fn global_id(&self) -> u64 {
        self.exchange.global_id()
    }
}
