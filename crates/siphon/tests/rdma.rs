//! `siphon perf` over RDMA, on the devices of the machine that `cargo xtask rdma-vm` boots.

mod common;

use std::process::Command;
use std::time::Duration;

use common::{siphon, stdout};
use siphon_peers::{CephMon, Leash, MonOptions, MonProtocols, require, run};

/// For one measurement, on emulated processors.
const TIMEOUT: Duration = Duration::from_secs(60);
/// From a message that goes inline to one of 32 chunks, with operations and how many are in flight.
const SIZES: [(&str, &str, &str); 8] = [
    ("64", "200", "16"),
    ("512", "200", "16"),
    ("4K", "100", "16"),
    ("16K", "50", "8"),
    ("64K", "50", "8"),
    ("256K", "10", "4"),
    ("1M", "6", "2"),
    ("4M", "3", "2"),
];

/// A way to connect: the options of both sides, their devices, and where the server is.
struct Way {
    options: &'static [&'static str],
    devices: [&'static str; 2],
    ip: &'static str,
}

const BY_CM: &[&str] = &["-o", "ms_async_rdma_cm=true"];
const BY_IWARP: &[&str] = &["-o", "ms_async_rdma_type=iwarp"];
const WAYS: [Way; 6] = [
    Way { options: &[], devices: ["rxe0", "rxe0"], ip: "127.0.0.1" },
    Way { options: &[], devices: ["rxe0", "rxe1"], ip: "10.77.0.2" },
    Way { options: BY_CM, devices: ["rxe0", "rxe0"], ip: "10.77.0.1" },
    Way { options: BY_CM, devices: ["rxe0", "rxe1"], ip: "10.77.0.2" },
    Way { options: BY_IWARP, devices: ["siw0", "siw0"], ip: "10.77.1.1" },
    Way { options: BY_IWARP, devices: ["siw0", "siw1"], ip: "10.77.1.2" },
];

fn has_devices() -> bool {
    if std::env::var_os("SIPHON_RDMA_VM").is_some() {
        return true;
    }
    println!("SKIPPED: needs RDMA devices: cargo xtask rdma-vm --suite");
    false
}

/// All sizes by all ways in both modes; each side checks the checksums of what it gets, or opens
/// what is sealed.
#[test]
fn perf_measures_every_size_by_every_way() {
    if !has_devices() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let key = ["--mode", "secure", "--keyfile", key.to_str().unwrap()];
    let mut ports = 7100..;
    for way in &WAYS {
        for (mode, args) in [("crc", &[][..]), ("secure", &key)] {
            let addr = format!("{}:{}", way.ip, ports.next().unwrap());
            let what = format!("{:?} {:?} {mode}", way.devices, way.options);
            let side = |kind: &str, device: &str| {
                let args = args.iter().chain(way.options);
                let mut command = siphon(["perf", kind, &addr, "--stack", "rdma"]);
                command.args(["--device", device, "--workers", "1"]).args(args);
                command.args(["-o", "ms_async_rdma_receive_queue_len=256"]);
                command
            };
            let log = folder.path().join(format!("log of {}", addr.replace(':', " ")));
            let server = Leash::start(side("server", way.devices[1]), &log).unwrap();
            server.wait_until("ready", TIMEOUT, || server.output().contains("answering")).unwrap();
            for (size, ops, depth) in SIZES {
                let mut client = side("client", way.devices[0]);
                client.args(["--size", size, "--ops", ops, "--depth", depth, "--json"]);
                let output = run(client, TIMEOUT).unwrap_or_else(|error| {
                    panic!("{what}, {size}: {error}\nserver: {}", server.output())
                });
                let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(report["ops"].to_string(), ops, "{what}, {size}: {report}");
                assert_eq!(report["mode"], mode, "{what}, {size}: {report}");
            }
        }
    }
}

/// Who may not open a device is shown what anybody may know, and told why there is no more.
#[test]
fn a_device_that_may_not_be_opened_is_shown_with_what_is_unknown() {
    if !has_devices() {
        return;
    }
    let shown = |json: &str| {
        let mut command = Command::new("sh");
        command.arg("-ec").arg(format!(
            "chmod go-rw /dev/infiniband/uverbs*; exec setpriv --reuid 65534 --clear-groups \
             --bounding-set=-all --inh-caps=-all {} rdma devices {json}",
            env!("CARGO_BIN_EXE_siphon")
        ));
        stdout(command)
    };
    let text = shown("");
    for expected in [
        "rxe0 (InfiniBand)",
        "siw0 (Iwarp)",
        "firmware        unknown",
        "limits          unknown",
        "ports           unknown",
        "its firmware, limits and ports are unknown: /dev/infiniband/uverbs",
        "Permission denied",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("null") && !text.contains("GUID            unknown"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&shown("--json")).unwrap();
    assert!(json["devices"][0]["limits"].is_null() && json["devices"][0]["guid"].is_string());
}

#[test]
fn a_real_monitor_answers_ping_and_monmap_by_rdma() {
    if !has_devices() {
        return;
    }
    let config = [
        "ms_type = async+rdma",
        "ms_async_rdma_device_name = rxe0",
        "ms_async_rdma_gid_idx = 1",
        "ms_async_rdma_receive_queue_len = 256",
        "ms_async_rdma_receive_buffers = 1024",
        "ms_async_rdma_send_buffers = 64",
    ];
    let config = config.map(str::to_owned).to_vec();
    let options = MonOptions { protocols: MonProtocols::V2, config, ..MonOptions::default() };
    let Some(mon) = require(CephMon::start(options)) else { return };
    let addr = mon.addr_v2().unwrap().to_string();
    // As Ceph's clients do: it opens no session before it has a quorum, and gives no answer to some.
    let asked = |args: &[&str]| {
        let attempt = |_| {
            let mut command = siphon([]);
            command.args(args).args([&addr, "--stack", "rdma", "--device", "rxe0"]);
            command.args(["--gid-index", "1", "--timeout", "5"]);
            command.args(["-o", "ms_async_rdma_receive_queue_len=256"]);
            run(command, TIMEOUT).map(|output| String::from_utf8(output.stdout).unwrap())
        };
        let mut answers = (0..20).map(attempt);
        let answer = answers.find(Result::is_ok);
        let answer = answer.unwrap_or_else(|| panic!("{args:?}: {:?}", attempt(0)));
        serde_json::from_str::<serde_json::Value>(&answer.unwrap()).unwrap()
    };
    let map = asked(&["monmap", "--json"]);
    assert_eq!(map["fsid"], mon.fsid(), "{map}");
    assert_eq!(map["mons"].as_array().unwrap().len(), 1, "{map}");
    let status = asked(&["ping", "mon"]);
    assert_eq!(status["mon_status"]["name"], "a", "{status}");
    assert_eq!(status["mon_status"]["monmap"]["fsid"], mon.fsid(), "{status}");
}
