//! Ceph's own clients at a messenger of ours that stands in for a monitor.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::{HUNG, context};
use siphon_auth::{
    CephxServer, ConnectionMode, CryptoKey, EntityAuth, KeyServer, KeyServerOptions, KeyType,
    Keyring, ModeList, Modes,
};
use siphon_messages::mon::{ElectionStrategy, MonFeatures, MonInfo, MonMap, Release};
use siphon_messages::{
    MMonCommand, MMonCommandAck, MMonGetMap, MMonMap, MMonSubscribe, TypedMessage, msg_type,
};
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack, SystemEnv, save_keyring};
use siphon_peers::{require, run};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::Encode as _;
use siphon_wire::types::{
    AuthName, EntityAddr, EntityAddrVec, EntityName, Epoch, Features, Utime, Uuid,
};

const FSID: &str = "5d2a3a34-17c1-4f2b-9a38-6b6a2f6cbb11";
/// What our monitor answers to `ceph -s`.
const STATUS: &str = "all is well here";

/// A monitor as far as clients need one to connect.
struct StandIn {
    stack: Stack,
    messenger: Messenger,
    addrs: EntityAddrVec,
    seen: Arc<Seen>,
    folder: tempfile::TempDir,
    key: CryptoKey,
}

/// Answers, and remembers who asked.
struct Seen {
    map: Mutex<MonMap>,
    /// Name, capabilities and mode of each session.
    sessions: Mutex<Vec<(AuthName, String, ConnectionMode)>>,
}

impl Seen {
    fn answer(&self, connection: &Connection, message: &Message) -> Option<OutMessage> {
        let map = || MMonMap { monmap: self.map.lock().unwrap().clone() };
        match message.header.msg_type {
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
                answer.header.tid = message.header.tid;
                Some(answer)
            }
            _ => None,
        }
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
        let peer = connection.peer().unwrap();
        let identity = peer.identity.clone().expect("cephx proves who it is");
        let session = (identity.name, identity.caps, peer.mode);
        self.sessions.lock().unwrap().push(session);
    }
}

/// `MConfig`: no options are set for the client.
fn no_config() -> OutMessage {
    let front = BTreeMap::<String, String>::new().to_bytes(Features::ALL);
    let header = MessageHeader { msg_type: msg_type::MSG_CONFIG, version: 1, ..Default::default() };
    OutMessage::new(header, Payload { front, ..Default::default() })
}

impl StandIn {
    fn start(modes: &str, key_type: KeyType) -> Self {
        let key = CryptoKey::generate(key_type, &SystemEnv).unwrap();
        let mut keyring = Keyring::default();
        let caps = ["mon", "osd", "mgr"].map(|service| (service.to_owned(), "allow *".to_owned()));
        let auth = EntityAuth { key: key.clone(), caps: caps.into() };
        keyring.insert("client.admin".parse().unwrap(), auth);
        let options = KeyServerOptions { service_key_type: key_type, ..Default::default() };
        let keys = Arc::new(KeyServer::new(keyring, options, Arc::new(SystemEnv)));
        let modes = Modes::all(&modes.parse::<ModeList>().unwrap());
        let context = context(|_| {});
        let stack = Stack::new(&context).unwrap();
        let seen = Arc::new(Seen { map: Mutex::default(), sessions: Mutex::default() });
        let messenger = Messenger::builder(&context, &stack, EntityName::mon(0))
            .default_policy(Policy::STATELESS_SERVER)
            .auth_server(Arc::new(CephxServer::for_monitor(keys, modes)))
            .dispatcher_tail(Arc::clone(&seen) as Arc<dyn Dispatcher>)
            .start()
            .unwrap();
        let addr = EntityAddr::msgr2(([127, 0, 0, 1], 0).into(), 0);
        let addrs = messenger.bind(&[addr]).unwrap();
        *seen.map.lock().unwrap() = monmap(&addrs);
        let folder = tempfile::tempdir().unwrap();
        Self { stack, messenger, addrs, seen, folder, key }
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
    fn options(&self, name: &str, key: &CryptoKey, modes: &str) -> Vec<String> {
        let addr = self.addrs.front().to_string();
        let keyring = self.keyring(name, key).display().to_string();
        let mut options = vec!["-m".to_owned(), addr, "-n".to_owned(), name.to_owned()];
        options.extend(["--keyring".to_owned(), keyring]);
        options.extend(["--ms_mon_client_mode".to_owned(), modes.to_owned()]);
        options
    }

    fn shutdown(self) {
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

#[test]
fn ceph_and_librados_authenticate_in_every_mode() {
    let Some(_) = require(siphon_peers::ceph_with_key()) else {
        return;
    };
    for modes in ["crc", "secure"] {
        let mon = StandIn::start(modes, KeyType::AES);
        let options = mon.options("client.admin", &mon.key, modes);
        let mut ceph = siphon_peers::ceph_with_key().unwrap();
        ceph.args(&options).arg("-s");
        let output = run(ceph, HUNG).unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(STATUS), "{output:?}");

        let mut python = siphon_peers::librados(CONNECT).unwrap();
        python.args(&options);
        let output = run(python, HUNG).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), FSID, "{output:?}");

        let sessions = mon.seen.sessions.lock().unwrap().clone();
        assert!(sessions.len() >= 2, "{sessions:?}");
        let mode = modes.parse::<ModeList>().unwrap().as_slice()[0];
        for (name, caps, found) in sessions {
            assert_eq!(
                (name.to_string().as_str(), &*caps, found),
                ("client.admin", "allow *", mode)
            );
        }
        mon.shutdown();
    }
}

/// Connects by librados and prints the cluster's id.
const CONNECT: &str = "
import rados, sys
cluster = rados.Rados(rados_id='admin')
cluster.conf_parse_argv(sys.argv[1:])
cluster.conf_set('client_mount_timeout', '10')
cluster.connect()
print(cluster.get_fsid())
";

#[test]
fn who_proves_nothing_is_refused_as_ceph_refuses_it() {
    let Some(_) = require(siphon_peers::ceph_with_key()) else {
        return;
    };
    let mon = StandIn::start("crc secure", KeyType::AES);
    let other = CryptoKey::generate(KeyType::AES, &SystemEnv).unwrap();
    // The text is that of librados for EACCES.
    let denied = "[errno 13] RADOS permission denied (error connecting to the cluster)";
    let rows = [("client.admin", &other), ("client.nobody", &mon.key)];
    for (name, key) in rows {
        let mut ceph = siphon_peers::ceph_with_key().unwrap();
        ceph.args(mon.options(name, key, "crc")).arg("-s");
        let output = ceph.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(denied), "{name}: {text}");
        assert_eq!(output.status.code(), Some(13));
    }
    assert!(mon.seen.sessions.lock().unwrap().is_empty());
    mon.shutdown();
}
