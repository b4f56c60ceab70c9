//! What monitors and the manager of every release answer us.

#![allow(clippy::disallowed_methods, reason = "waits for real clusters by the clock")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::{HUNG, client, config};
use serde_json::{Value, json};
use siphon_messages::{
    MGetPoolStats, MGetPoolStatsReply, MOSDMap, MPoolOp, MPoolOpReply, MStatfs, MStatfsReply,
    PoolOpCode, TypedMessage,
};
use siphon_monclient::{Command, MonClient, MonTarget};
use siphon_msgr::{Connection, Dispatcher};
use siphon_peers::{Cluster, ClusterOptions, Release, require};
use siphon_proto::Message;

/// Tells which epochs of the OSD map have come.
struct Maps(Mutex<Sender<MOSDMap>>);

impl Dispatcher for Maps {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.msg_type == MOSDMap::TYPE
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        let _ = self.0.lock().unwrap().send(MOSDMap::from_message(&message).unwrap());
    }
}

fn ask(mon: &MonClient, command: Command) -> Value {
    let output = pollster::block_on(mon.command(command.json(), Some(HUNG))).unwrap();
    assert_eq!(output.code, 0, "{}", output.status);
    output.json().unwrap()
}

fn follow_osdmap(mon: &MonClient, cluster: &Cluster) {
    let (sender, maps): (_, Receiver<MOSDMap>) = channel();
    let dispatcher: Arc<dyn Dispatcher> = Arc::new(Maps(Mutex::new(sender)));
    mon.attach(Arc::downgrade(&dispatcher)).ok().unwrap();
    let (newest, oldest) = pollster::block_on(mon.newest_version("osdmap", Some(HUNG))).unwrap();
    assert!(oldest <= newest && newest > 1);
    mon.subscribe("osdmap", 0, false);
    let map = maps.recv_timeout(HUNG).unwrap();
    assert_eq!((map.fsid, map.maps.len()), (mon.fsid().unwrap(), 1), "the newest, in full");
    let mut have = u64::from(map.last().0);
    assert!(have >= newest);
    mon.got("osdmap", have);
    let pool = Command::new("osd pool create").arg("pool", "followed").arg("pg_num", 1);
    assert_eq!(pollster::block_on(mon.command(pool, Some(HUNG))).unwrap().code, 0);
    while ask(mon, Command::new("osd dump"))["epoch"].as_u64().unwrap() > have {
        let map = maps.recv_timeout(HUNG).unwrap();
        assert_eq!(u64::from(map.first().0), have + 1, "what changed since");
        assert!(map.maps.is_empty());
        have = u64::from(map.last().0);
        mon.got("osdmap", have);
    }
    assert!(cluster.ceph(&["osd", "lspools"]).unwrap().contains("followed"));
}

fn ask_by_messages(mon: &MonClient) {
    let fsid = mon.fsid().unwrap();
    let room: MStatfsReply =
        pollster::block_on(mon.request(MStatfs { fsid, ..Default::default() }, Some(HUNG)))
            .unwrap();
    assert_eq!(room.fsid, fsid);
    let pools = vec!["followed".into(), "nowhere".into()];
    let question = MGetPoolStats { fsid, pools, ..Default::default() };
    let stats: MGetPoolStatsReply = pollster::block_on(mon.request(question, Some(HUNG))).unwrap();
    assert_eq!(stats.fsid, fsid);
    let dump = ask(mon, Command::new("osd dump"));
    let pools = dump["pools"].as_array().unwrap();
    let pool = pools.iter().find(|pool| pool["pool_name"] == "followed").unwrap();
    let id = u32::try_from(pool["pool"].as_u64().unwrap()).unwrap();
    let (op, name) = (PoolOpCode::CREATE_SNAP, "today".into());
    let question = MPoolOp { fsid, pool: id, op, name, ..Default::default() };
    let done: MPoolOpReply = pollster::block_on(mon.request(question, Some(HUNG))).unwrap();
    assert_eq!(done.reply_code, 0);
    let dump = ask(mon, Command::new("osd dump"));
    let pools = dump["pools"].as_array().unwrap();
    let pool = pools.iter().find(|pool| pool["pool"] == id).unwrap();
    assert_eq!(pool["pool_snaps"][0]["name"], "today");
}

fn ask_the_manager(mon: &MonClient, cluster: &Cluster) {
    let ask = |command: Command| pollster::block_on(mon.mgr_command(command.json(), Some(HUNG)));
    let output = ask(Command::new("osd df")).unwrap();
    assert_eq!(output.code, 0, "{}", output.status);
    assert_eq!(output.json().unwrap()["nodes"][0]["name"], "osd.0");
    let output = ask(Command::new("no such thing")).unwrap();
    assert_eq!(output.code, -22, "{output:?}");
    let told =
        pollster::block_on(mon.tell_mgr(Command::new("version").json(), Some(HUNG))).unwrap();
    if cluster.version().starts_with("14.") {
        assert_eq!(told.code, -22, "a manager of Nautilus does not tell its version");
    } else {
        assert!(told.text().contains(cluster.version()), "{told:?}");
    }
    assert_eq!(mon.mgrmap().unwrap().active_name, "x");
}

/// Options are as the monitors' configuration says, at the time it says it.
fn heed_the_monitors(mon: &MonClient, cluster: &Cluster) {
    let context = mon.context();
    let (sender, changes) = channel();
    let _observed = context.observe(["ms_max_backoff", "ms_tcp_rcvbuf"], move |config, name| {
        let _ = sender.send((name, config.value(name).unwrap()));
    });
    let next = || changes.recv_timeout(HUNG).unwrap();
    let daemon = |command: Value| -> Value {
        serde_json::from_str(&context.commands().execute(&command.to_string()).unwrap()).unwrap()
    };
    let set = |who: &str, name: &str, value: &str| {
        let command = Command::new("config set").arg("who", who);
        let command = command.arg("name", name).arg("value", value);
        assert_eq!(pollster::block_on(mon.command(command, Some(HUNG))).unwrap().code, 0);
    };
    let remove = |who: &str, name: &str| {
        let command = Command::new("config rm").arg("who", who).arg("name", name);
        assert_eq!(pollster::block_on(mon.command(command, Some(HUNG))).unwrap().code, 0);
    };
    cluster.ceph(&["config", "set", "client", "ms_max_backoff", "8"]).unwrap();
    assert_eq!(next(), ("ms_max_backoff", "8.000000".to_owned()));
    let diff = daemon(json!({ "prefix": "config diff" }));
    let diff = &diff["diff"]["ms_max_backoff"];
    assert_eq!((&diff["mon"], &diff["final"]), (&8.into(), &8.into()), "{diff}");
    // What somebody says at the admin socket is stronger, and falls back to it.
    context.set_option("ms_max_backoff", "7").unwrap();
    assert_eq!(next(), ("ms_max_backoff", "7.000000".to_owned()));
    context.unset_option("ms_max_backoff").unwrap();
    assert_eq!(next(), ("ms_max_backoff", "8.000000".to_owned()));
    // What cannot change now does not.
    set("client", "ms_async_op_threads", "5");
    set("global", "ms_tcp_rcvbuf", "65536");
    assert_eq!(next(), ("ms_tcp_rcvbuf", "65536".to_owned()));
    assert_eq!(context.config().ms_async_op_threads, 1);
    // A section that names us better counts more; what is removed falls back to what is left.
    set("client", "ms_tcp_rcvbuf", "32768");
    assert_eq!(next(), ("ms_tcp_rcvbuf", "32768".to_owned()));
    remove("client", "ms_tcp_rcvbuf");
    assert_eq!(next(), ("ms_tcp_rcvbuf", "65536".to_owned()));
    remove("client", "ms_max_backoff");
    assert_eq!(next(), ("ms_max_backoff", "15.000000".to_owned()));
}

fn every_answer_of(release: Release) {
    let Some(cluster) = require(Cluster::start(release, &ClusterOptions::default())) else {
        return;
    };
    let mon = client(config(&cluster));
    assert_eq!(mon.monitor().as_deref(), Some("mon.a"));
    assert_eq!(mon.fsid().unwrap().to_string(), cluster.ceph(&["fsid"]).unwrap().trim());
    assert!(mon.global_id() > 0);
    assert_eq!(mon.messenger().name().num as u64, mon.global_id());
    assert!(ask(&mon, Command::new("version"))["version"].to_string().contains(cluster.version()));

    let output =
        pollster::block_on(mon.command(Command::new("osd no-such-thing"), Some(HUNG))).unwrap();
    assert_eq!(output.code, -22);
    assert!(!output.status.is_empty());

    follow_osdmap(&mon, &cluster);
    ask_by_messages(&mon);
    ask_the_manager(&mon, &cluster);

    let ask =
        |target| pollster::block_on(mon.tell_mon(target, Command::new("mon_status"), Some(HUNG)));
    for target in [MonTarget::Name("a".into()), MonTarget::Rank(0)] {
        assert_eq!(ask(target).unwrap().json().unwrap()["name"], "a");
    }
    let error = ask(MonTarget::Name("z".into())).unwrap_err().to_string();
    assert_eq!(error, "there is no monitor mon.z; there are: mon.a");

    let set = ["config", "set", "client", "rados_mon_op_timeout", "77"];
    cluster.ceph(&set).unwrap();
    let started = std::time::Instant::now();
    let has_it = || {
        let config = mon.central_config();
        // Nautilus has it as 77.000000.
        config.get(&"rados_mon_op_timeout".into()).is_some_and(|value| value.starts_with(b"77"))
    };
    while !has_it() {
        assert!(started.elapsed() < HUNG, "the central configuration does not come");
        std::thread::yield_now();
    }
    heed_the_monitors(&mon, &cluster);
    pollster::block_on(mon.shutdown());
    let error = pollster::block_on(mon.command(Command::new("status"), None)).unwrap_err();
    assert_eq!(error.to_string(), "the monitor client was shut down");
}

#[test]
fn nautilus() {
    every_answer_of(Release::Nautilus);
}

#[test]
fn pacific() {
    every_answer_of(Release::Pacific);
}

#[test]
fn reef() {
    every_answer_of(Release::Reef);
}

#[test]
fn tentacle() {
    every_answer_of(Release::Tentacle);
}
