//! Compression with real OSDs. Between clients and OSDs Ceph has none, so we come as another OSD.

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use common::{HUNG, context};
use siphon_auth::{AuthClient, CephxClient, ConnectionMode, Keyring, ModeList, Modes};
use siphon_messages::{MCommand, MCommandReply, TypedMessage};
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack, SystemEnv};
use siphon_peers::{Cluster, ClusterOptions, Release, require};
use siphon_proto::v2::compression::{Algorithm, CompressionOptions, Mode};
use siphon_proto::{Message, OutMessage, Policy};
use siphon_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType, Uuid};

/// Of each kind of connection.
const MESSAGES: u64 = 1000;
/// Messages under way.
const WINDOW: u64 = 16;

struct Tell(Sender<Message>);

impl Dispatcher for Tell {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        let _ = self.0.send(message); // the test may be over
    }
}

/// An OSD, as far as another one needs it.
struct Peer {
    _stack: Stack,
    messenger: Messenger,
    answers: Receiver<Message>,
    fsid: Uuid,
}

impl Peer {
    /// OSD 7, whose key is in `keyring`, with tickets from the monitor.
    fn new(cluster: &Cluster, keyring: &str, mode: ConnectionMode, algorithm: Algorithm) -> Self {
        let keyring: Keyring = keyring.parse().unwrap();
        let name = "osd.7".parse().unwrap();
        let key = keyring.get(&name).unwrap().key.clone();
        let modes = Modes::all(&ModeList::only(mode));
        let cephx = CephxClient::new(name, key, modes, Arc::new(SystemEnv));
        let context = context(|_| {});
        let stack = Stack::new(&context).unwrap();
        let (sender, answers) = channel();
        let auth: Arc<dyn AuthClient> = Arc::new(cephx);
        let compression = CompressionOptions {
            mode: Mode::Force,
            algorithms: vec![algorithm],
            secure: true,
            ..CompressionOptions::default()
        };
        let name = EntityName::new(EntityType::OSD, 7);
        let messenger = Messenger::builder(&context, &stack, name)
            .default_policy(Policy::LOSSY_CLIENT)
            .policy(EntityType::OSD, Policy::LOSSLESS_PEER)
            .auth_client(auth)
            .compression(compression)
            .dispatcher_tail(Arc::new(Tell(sender)))
            .start()
            .unwrap();
        let fsid = cluster.ceph(&["fsid"]).unwrap().trim().parse().unwrap();
        let peer = Self { _stack: stack, messenger, answers, fsid };
        let mon = peer.open(EntityType::MON, EntityAddr::msgr2(cluster.mon_v2(), 0).into());
        assert_eq!(mon.peer().unwrap().compression, None, "monitors do not compress");
        mon.mark_down();
        peer
    }

    fn open(&self, kind: EntityType, addrs: EntityAddrVec) -> Connection {
        let connection = self.messenger.connect_to(kind, addrs);
        pollster::block_on(connection.attempt())
            .unwrap_or_else(|reason| panic!("{kind}: {reason}"));
        connection
    }

    /// A question of more than the 1 KiB from which on frames are compressed, and its long answer.
    fn question(&self, tid: u64) -> OutMessage {
        let blank = " ".repeat(4096);
        let cmd = vec![format!(r#"{{"prefix": "config show",{blank}"format": "json"}}"#).into()];
        let mut question = MCommand { fsid: self.fsid, cmd, ..Default::default() }.into_out();
        question.header_mut().tid = tid;
        question
    }

    fn exchange(&self, osd: &Connection) {
        let mut asked = 0;
        let mut answered = vec![false; MESSAGES as usize];
        for done in 0..MESSAGES {
            while asked < MESSAGES && asked < done + WINDOW {
                osd.send(self.question(asked)).unwrap();
                asked += 1;
            }
            let answer = self.answers.recv_timeout(HUNG).expect("an answer");
            let reply = MCommandReply::from_message(&answer).unwrap();
            let text = answer.payload.data.to_bytes();
            assert!(text.len() > 10_000, "{reply:?}, {} bytes", text.len());
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(json["ms_osd_compress_mode"], "force");
            let slot = &mut answered[answer.header.tid as usize];
            assert!(!*slot, "answered twice");
            *slot = true;
        }
    }
}

#[test]
fn osds_compress_with_us_by_every_algorithm_they_have() {
    let mut rows = Vec::new();
    for release in [Release::Reef, Release::Tentacle] {
        let config = vec![
            "ms_osd_compress_mode = force".to_owned(),
            "ms_osd_compression_algorithm = snappy zlib zstd lz4".to_owned(),
            "ms_compress_secure = true".to_owned(),
        ];
        let options = ClusterOptions { config, ..ClusterOptions::default() };
        let Some(cluster) = require(Cluster::start(release, &options)) else { continue };
        let caps = ["mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"];
        let keyring = [&["auth", "get-or-create", "osd.7"][..], &caps].concat();
        let keyring = cluster.ceph(&keyring).unwrap();
        let dump = cluster.json(&["osd", "dump"]).unwrap();
        // Where OSDs talk to each other. (Sent to the public address, one compressed message ends the
        // OSD: Ceph's throttle for clients takes the compressed length and gives back the other.)
        let osd: EntityAddrVec = dump["osds"][0]["cluster_addrs"]["addrvec"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|addr| addr["type"] == "v2")
            .map(|addr| format!("v2:{}/{}", addr["addr"].as_str().unwrap(), addr["nonce"]))
            .map(|addr| addr.parse::<EntityAddr>().unwrap())
            .collect();
        for mode in [ConnectionMode::CRC, ConnectionMode::SECURE] {
            for algorithm in Algorithm::ALL {
                let peer = Peer::new(&cluster, &keyring, mode, algorithm);
                let osd = peer.open(EntityType::OSD, osd.clone());
                let info = osd.peer().unwrap();
                assert_eq!((info.compression, info.mode), (Some(algorithm), mode));

                peer.exchange(&osd);

                let counts = peer.messenger.session_counts();
                assert!(counts.compressed >= MESSAGES, "{counts}");
                assert!(counts.decompressed >= MESSAGES, "{counts}");
                assert!(counts.compressed_to < counts.compressed_from / 4, "{counts}");
                pollster::block_on(peer.messenger.shutdown());
                rows.push(format!("| {} | {mode} | {algorithm} | yes |", cluster.version()));
            }
        }
    }
    println!("| Ceph | mode | algorithm | OSD, as its peer |\n|---|---|---|---|");
    let kept = include_str!("../../../docs/compatibility.md");
    for row in rows {
        println!("{row}");
        assert!(kept.contains(&row), "docs/compatibility.md has no row {row}");
    }
}
