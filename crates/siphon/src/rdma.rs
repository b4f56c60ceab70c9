//! `siphon rdma`: the RDMA devices of this host, and what would go wrong with them.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};
use siphon_verbs::{
    Context, DeviceInfo, GidType, LinkLayer, PortInfo, PortState, Transport, Verbs, VerbsError,
    memlock_limit,
};

/// Memory that three workers, which are the most by default, register with a few connections, in bytes: docs/rdma.md
/// counts it.
const MEMLOCK_NEEDED: u64 = 64 << 20;
/// What Ceph asks of a device by default, in chunks that are posted.
const RECEIVE_QUEUE: u32 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show each device, its ports, GIDs and limits, and what would go wrong
    Devices {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    let Command::Devices { json } = command;
    let verbs = Verbs::load()?;
    let cm = verbs.check_cm().err().map(|error| error.to_string());
    let devices = verbs.devices().context("the system has no RDMA: modprobe ib_uverbs")?;
    let shown: Vec<Value> = devices
        .iter()
        .map(|device| {
            let shown = verbs.open(&device.name).and_then(|context| describe(&context));
            shown.unwrap_or_else(|error| describe_closed(device, &error))
        })
        .collect();
    let mut warnings: Vec<String> = cm.into_iter().collect();
    if let Some(limit) = memlock_limit().filter(|limit| *limit < MEMLOCK_NEEDED) {
        warnings.push(format!(
            "{limit} bytes may be locked, and so registered: set `ulimit -l unlimited`, or \
             LimitMEMLOCK=infinity in the systemd unit (root may lock what it likes)"
        ));
    }
    if devices.is_empty() {
        warnings.push("there is no device: see `lspci`, and `rdma link` for soft ones".to_owned());
    }
    let all = json!({ "devices": shown, "memlock_bytes": memlock_limit(), "warnings": warnings });
    if *json {
        println!("{all}");
    } else {
        print(&all);
    }
    Ok(())
}

fn describe(context: &Context) -> Result<Value, VerbsError> {
    let device = context.device();
    let limits = context.limits()?;
    let mut warnings = Vec::new();
    let mut ports = Vec::new();
    for number in 1..=limits.ports {
        let port = context.port(number)?;
        let gids = context.gids(number).unwrap_or_default();
        if port.state != PortState::Active {
            warnings
                .push(format!("port {number} is {:?}: see the cable and `ip link`", port.state));
        }
        let routed = gids.iter().any(|it| it.kind == GidType::RoceV2 && !it.gid.is_link_local());
        if device.transport == Transport::InfiniBand
            && port.link_layer == LinkLayer::Ethernet
            && !routed
        {
            warnings.push(format!(
                "port {number} has no GID of RoCE v2 with an address: give its interface one"
            ));
        }
        let gids: Vec<Value> = gids
            .iter()
            .map(|it| {
                json!({
                    "index": it.index, "gid": it.gid.to_string(), "type": it.kind.to_string(),
                    "address": it.gid.ip().to_string(), "interface": it.interface,
                })
            })
            .collect();
        ports.push(port_json(number, &port, gids));
    }
    if limits.max_srq == 0 {
        warnings.push("no shared receive queues: each connection has its own".to_owned());
    } else if limits.max_srq_wr < RECEIVE_QUEUE {
        let most = limits.max_srq_wr;
        warnings.push(format!("ms_async_rdma_receive_queue_len is cut to {most}"));
    }
    if device.transport == Transport::Iwarp {
        warnings.push("iWARP: connects by RDMA-CM, set ms_async_rdma_type = iwarp".to_owned());
    }
    Ok(json!({
        "name": device.name,
        "transport": format!("{:?}", device.transport),
        "guid": format!("{:016x}", device.guid),
        "firmware": limits.firmware,
        "limits": {
            "queue_pairs": limits.max_qp, "work_requests": limits.max_qp_wr,
            "pieces_of_a_work_request": limits.max_sge, "completion_queues": limits.max_cq,
            "completions": limits.max_cqe, "memory_regions": limits.max_mr,
            "memory_region_bytes": limits.max_mr_size, "shared_receive_queues": limits.max_srq,
            "shared_receives": limits.max_srq_wr,
        },
        "ports": ports,
        "warnings": warnings,
    }))
}

/// What is known of a device that cannot be opened or asked, and why the rest is not.
fn describe_closed(device: &DeviceInfo, error: &VerbsError) -> Value {
    let unknown = "its firmware, limits and ports are unknown";
    // libibverbs looks for the file elsewhere too, and tells of the last place.
    let file = format!("/dev/infiniband/{}", device.file);
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(&file);
    let reason = match opened {
        Ok(_) => error.to_string(),
        Err(error) => {
            format!("{file}: {error}; see who may open it; a container needs its devices")
        }
    };
    json!({
        "name": device.name,
        "transport": format!("{:?}", device.transport),
        "guid": format!("{:016x}", device.guid),
        "firmware": null,
        "limits": null,
        "ports": null,
        "warnings": [format!("{unknown}: {reason}")],
    })
}

fn port_json(number: u8, port: &PortInfo, gids: Vec<Value>) -> Value {
    json!({
        "port": number,
        "state": format!("{:?}", port.state),
        "link_layer": format!("{:?}", port.link_layer),
        "mtu_bytes": port.active_mtu.bytes(),
        "max_mtu_bytes": port.max_mtu.bytes(),
        "lid": port.lid,
        "gids": gids,
    })
}

fn limits_text(limits: &Value) -> String {
    let Some(limits) = limits.as_object() else { return "unknown".to_owned() };
    let limits = limits.iter().map(|(name, value)| format!("{value} {}", name.replace('_', " ")));
    limits.collect::<Vec<_>>().join(", ")
}

fn print(all: &Value) {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        value => value.to_string(),
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for device in list(&all["devices"]) {
        println!("{} ({})", text(&device["name"]), text(&device["transport"]));
        println!("  GUID            {}", text(&device["guid"]));
        println!("  firmware        {}", text(&device["firmware"]));
        println!("  limits          {}", limits_text(&device["limits"]));
        if device["ports"].is_null() {
            println!("  ports           unknown");
        }
        for port in list(&device["ports"]) {
            println!(
                "  port {}          {}, {}, MTU {} B of {} B",
                port["port"],
                text(&port["state"]),
                text(&port["link_layer"]),
                port["mtu_bytes"],
                port["max_mtu_bytes"],
            );
            for gid in list(&port["gids"]) {
                println!(
                    "    GID {:<3}       {} {} ({}, {})",
                    gid["index"].to_string(),
                    text(&gid["gid"]),
                    text(&gid["type"]),
                    text(&gid["address"]),
                    gid["interface"].as_str().unwrap_or("no interface"),
                );
            }
        }
        list(&device["warnings"]).iter().for_each(|it| println!("  note            {}", text(it)));
    }
    match all["memlock_bytes"].as_u64() {
        Some(limit) => println!("memory that may be locked: {limit} B"),
        None => println!("memory that may be locked: no limit"),
    }
    list(&all["warnings"]).iter().for_each(|it| println!("note: {}", text(it)));
}
