//! Messengers over RDMA, on the devices of the machine that `cargo xtask rdma-vm` boots.

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod monitor;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use common::{bound, context, messenger};
use siphon_auth::{ConnectionMode, CryptoKey, KeyType, ModeList, Modes, SharedSecret};
use siphon_common::{Config, Context};
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack, SystemEnv};
use siphon_net::RdmaCounts;
use siphon_peers::{Leash, run};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};

/// How long a test waits for what must come, on emulated processors and a network that loses.
const HUNG: Duration = Duration::from_secs(120);
/// Its presence tells a test's program that it is the peer, and where its server is.
const SERVER: &str = "SIPHON_TEST_SERVER";

/// The devices, for one test at a time; elsewhere a test skips.
fn devices() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if std::env::var_os("SIPHON_RDMA_VM").is_some() {
        return Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    println!("SKIPPED: needs RDMA devices: cargo xtask rdma-vm --suite");
    None
}

/// A way to connect, with the devices and addresses of its two sides.
#[derive(Clone, Copy, Debug)]
struct Way {
    options: &'static str,
    devices: [&'static str; 2],
    /// Where the second side is.
    ip: &'static str,
    /// By cephx in secure mode, and not in the open.
    secure: bool,
}

const EXCHANGE: Way =
    Way { options: "", devices: ["rxe0", "rxe1"], ip: "10.77.0.2", secure: false };
const BY_CM: Way = Way { options: "ms_async_rdma_cm=true", ..EXCHANGE };
const IWARP: Way = Way {
    options: "ms_async_rdma_type=iwarp",
    devices: ["siw0", "siw1"],
    ip: "10.77.1.2",
    secure: false,
};
const WAYS: [Way; 9] = [
    Way { devices: ["rxe0", "rxe0"], ip: "127.0.0.1", ..EXCHANGE },
    EXCHANGE,
    Way { secure: true, ..EXCHANGE },
    Way { options: "ms_async_rdma_support_srq=false", ..EXCHANGE },
    Way { devices: ["rxe0", "rxe0"], ip: "10.77.0.1", ..BY_CM },
    BY_CM,
    Way { devices: ["siw0", "siw0"], ip: "10.77.1.1", ..IWARP },
    IWARP,
    Way { secure: true, ..IWARP },
];

/// What both sides of a secure way know.
fn secret() -> &'static SharedSecret {
    static SECRET: OnceLock<SharedSecret> = OnceLock::new();
    SECRET.get_or_init(|| {
        let key = CryptoKey::generate(KeyType::AES, &SystemEnv).unwrap();
        let modes = Modes::all(&ModeList::only(ConnectionMode::SECURE));
        SharedSecret::new(key, modes, Arc::new(SystemEnv))
    })
}

fn rdma(device: &str, options: &str, change: impl FnOnce(&mut Config)) -> Context {
    context(|config| {
        config.ms_type = "async+rdma".to_owned();
        config.ms_async_rdma_device_name = device.to_owned();
        config.ms_async_op_threads = 1;
        config.ms_async_rdma_polling_us = 100;
        config.ms_async_rdma_receive_queue_len = 256;
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').unwrap();
            config.set(name, value).unwrap();
        }
        change(config);
    })
}

/// What a byte of a message's data is.
fn byte(tid: u64, at: usize) -> u8 {
    (tid as usize * 31 + at * 7 + at / 251) as u8
}

fn data(tid: u64, len: usize) -> Bytes {
    (0..len).map(|at| byte(tid, at)).collect()
}

fn message(tid: u64, data: Bytes) -> OutMessage {
    let header = MessageHeader { msg_type: 42, tid, ..Default::default() };
    OutMessage::new(header, Payload { data: data.into(), ..Payload::default() })
}

/// Checks that each message comes once, in order, with every byte as it was; answers with its data,
/// or keeps it.
struct Ordered {
    answers: bool,
    keeps: AtomicBool,
    kept: Mutex<Vec<Message>>,
    last: AtomicU64,
    tell: Sender<u64>,
}

impl Ordered {
    fn new(answers: bool) -> (Arc<Self>, Receiver<u64>) {
        let (tell, told) = channel();
        let (keeps, kept, last) = Default::default();
        (Arc::new(Self { answers, keeps, kept, last, tell }), told)
    }
}

impl Dispatcher for Ordered {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let tid = message.header.tid;
        let before = self.last.swap(tid, Ordering::Relaxed);
        let right = message.payload.data.iter().enumerate().all(|(at, it)| it == byte(tid, at));
        if tid != before + 1 || !right {
            eprintln!("message {tid} after {before}, data as it was: {right}");
            std::process::abort();
        }
        if self.answers {
            let data = message.payload.data.to_bytes();
            let _ = connection.send(self::message(tid, data)); // it may have ended
        }
        if self.keeps.load(Ordering::Relaxed) {
            self.kept.lock().unwrap().push(message);
        }
        let _ = self.tell.send(tid);
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        eprintln!("{connection} was reset, which loses messages");
        std::process::abort();
    }
}

/// A server that answers.
struct Server {
    context: Context,
    addrs: EntityAddrVec,
    stack: Stack,
    ordered: Arc<Ordered>,
    messenger: Messenger,
    told: Receiver<u64>,
}

impl Drop for Server {
    fn drop(&mut self) {
        pollster::block_on(self.messenger.shutdown_within(Duration::ZERO));
    }
}

impl Server {
    fn start(way: &Way, answers: bool, change: impl FnOnce(&mut Config)) -> Self {
        let context = rdma(way.devices[1], way.options, change);
        let stack = Stack::new(&context).unwrap();
        let (ordered, told) = Ordered::new(answers);
        let chain: Arc<dyn Dispatcher> = Arc::clone(&ordered) as _;
        let mut server = Messenger::builder(&context, &stack, EntityName::new(EntityType::MDS, 0))
            .default_policy(Policy::STATEFUL_SERVER)
            .dispatcher_tail(chain);
        if way.secure {
            server = server.auth_server(Arc::new(secret().server(EntityType::MDS)));
        }
        let server = server.start().unwrap();
        let addrs = bound(&server, &[&format!("v2:{}:0/0", way.ip)]);
        Self { context, addrs, stack, ordered, messenger: server, told }
    }
}

/// A client with a session that loses nothing.
struct Client {
    context: Context,
    stack: Stack,
    messenger: Messenger,
    told: Receiver<u64>,
}

impl Drop for Client {
    fn drop(&mut self) {
        pollster::block_on(self.messenger.shutdown_within(Duration::ZERO));
    }
}

impl Client {
    fn start(way: &Way, change: impl FnOnce(&mut Config)) -> Self {
        let context = rdma(way.devices[0], way.options, |config| {
            config.ms_initial_backoff = Duration::from_millis(10);
            config.ms_max_backoff = Duration::from_millis(500);
            change(config);
        });
        let stack = Stack::new(&context).unwrap();
        let (ordered, told) = Ordered::new(false);
        let name = EntityName::new(EntityType::CLIENT, 0);
        let mut client = Messenger::builder(&context, &stack, name)
            .default_policy(Policy::LOSSLESS_CLIENT)
            .dispatcher_tail(ordered);
        if way.secure {
            let auth = secret().client("client.a".parse().unwrap(), EntityType::MDS).unwrap();
            client = client.auth_client(Arc::new(auth));
        }
        Self { context, stack, messenger: client.start().unwrap(), told }
    }

    /// Has messages of this length answered, `window` at a time.
    fn exchange(&self, peer: &Connection, tids: std::ops::Range<u64>, len: usize, window: u64) {
        let mut asked = tids.start;
        for tid in tids.clone() {
            while asked < tids.end && asked < tid + window {
                peer.send(message(asked, data(asked, len))).unwrap();
                asked += 1;
            }
            assert_eq!(self.told.recv_timeout(HUNG).expect("an answer in time"), tid);
        }
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..HUNG.as_millis() / 20 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("not in time: {what}");
}

fn sh(script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    let output = run(command, HUNG).unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_size_arrives_byte_for_byte_in_every_way() {
    let Some(_alone) = devices() else { return };
    for way in &WAYS {
        let server = Server::start(way, true, |_| {});
        let client = Client::start(way, |_| {});
        let peer = client.messenger.connect_to(EntityType::MDS, server.addrs.clone());
        let mut tid = 1;
        for len in [0, 1, 64, 4 << 10, 5000, 64 << 10, 200_000, 1 << 20, 4 << 20] {
            // Not more at once than is posted to receive into, for which iWARP does not wait.
            let count = if len > 100_000 { 2 } else { 40 };
            client.exchange(&peer, tid..tid + count, len, 16);
            tid += count;
        }
        let faults = client.messenger.session_counts().faults;
        assert_eq!(faults, 0, "{way:?}: {:?}", peer.last_fault());
        let mode = if way.secure { ConnectionMode::SECURE } else { ConnectionMode::CRC };
        assert_eq!(peer.peer().unwrap().mode, mode, "{way:?}");
        let counts = client.stack.rdma().unwrap().counts();
        assert!(counts.rx_bytes > 10 << 20 && counts.tx_bytes > 10 << 20, "{counts:?}");
    }
}

#[test]
fn copies_are_few() {
    let Some(_alone) = devices() else { return };
    let server = Server::start(&EXCHANGE, false, |config| config.ms_async_op_threads = 2);
    let client = Client::start(&EXCHANGE, |config| config.ms_async_op_threads = 2);
    let peer = client.messenger.connect_to(EntityType::MDS, server.addrs.clone());
    pollster::block_on(peer.attempt()).unwrap();
    let counts = || (client.stack.rdma().unwrap().counts(), server.stack.rdma().unwrap().counts());

    // 64 KiB of a registered buffer: what is copied are headers.
    let (before, _) = counts();
    let copied_before = server.messenger.session_counts().copied;
    for tid in 1..=100 {
        let mut buffer = client.stack.rdma().unwrap().buffer(64 << 10).unwrap();
        buffer.iter_mut().enumerate().for_each(|(at, it)| *it = byte(tid, at));
        peer.send(message(tid, buffer.freeze())).unwrap();
        assert_eq!(server.told.recv_timeout(HUNG).unwrap(), tid);
    }
    let (sent, received) = counts();
    let copied = sent.tx_copied_bytes + sent.tx_inline_bytes
        - (before.tx_copied_bytes + before.tx_inline_bytes);
    println!("64 KiB: {} bytes copied by the sender a message", copied / 100);
    assert!(copied < 100 * 200, "headers and acknowledgements: {copied}");
    assert_eq!(received.rx_copied_bytes, 0);
    let copied = server.messenger.session_counts().copied - copied_before;
    assert!(copied < 100 * 64, "{copied} bytes of parts");
    by_worker(&client.context, &client.stack, "tx_bytes", |it| it.tx_bytes);
    by_worker(&server.context, &server.stack, "rx_bytes", |it| it.rx_bytes);
}

/// What workers counted, each for itself, is what the device did; and only one has the connection.
fn by_worker(context: &Context, stack: &Stack, counter: &str, count: fn(&RdmaCounts) -> u64) {
    let sum = || count(&stack.rdma().unwrap().counts());
    let dump = loop {
        let before = sum();
        let dump = context.perf().dump(None, Some(counter));
        // An acknowledgement may have gone meanwhile.
        if sum() == before {
            break dump;
        }
    };
    let workers = dump.as_object().unwrap().iter();
    let workers = workers.filter(|(name, _)| name.starts_with("AsyncMessenger::RDMAWorker-"));
    let counts: Vec<_> = workers.map(|(_, it)| it[counter].as_u64().unwrap()).collect();
    println!("{counter} by worker: {counts:?}");
    let threads = context.config().ms_async_op_threads as usize;
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (threads, sum()), "{dump:#}");
    assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1, "{dump:#}");
}

/// Keeps a window of requests in flight from where answers arrive, as clients under load do.
struct Window {
    data: Bytes,
    last: u64,
    window: u64,
    tell: Sender<()>,
}

impl Dispatcher for Window {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, answer: Message) {
        let tid = answer.header.tid;
        if tid + self.window <= self.last {
            let _ = connection.send(message(tid + self.window, self.data.clone()));
        }
        if tid == self.last {
            let _ = self.tell.send(());
        }
    }
}

/// Answers without data and without a look at what is asked.
struct Answer;

impl Dispatcher for Answer {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, request: Message) {
        let _ = connection.send(message(request.header.tid, Bytes::new()));
    }
}

#[test]
fn several_messages_share_a_work_request() {
    let Some(_alone) = devices() else { return };
    const COUNT: u64 = 5000;
    const DEPTH: u64 = 16;
    let [ours, theirs] = EXCHANGE.devices.map(|device| {
        let context = rdma(device, "", |_| {});
        let stack = Stack::new(&context).unwrap();
        (context, stack)
    });
    let (context, stack) = &theirs;
    let server =
        messenger(context, stack, EntityType::MDS, Policy::STATEFUL_SERVER, &[Arc::new(Answer)]);
    let addrs = bound(&server, &[&format!("v2:{}:0/0", EXCHANGE.ip)]);
    let (tell, told) = channel();
    let window = Window { data: data(1, 4096), last: COUNT, window: DEPTH, tell };
    let (context, stack) = &ours;
    let policy = Policy::LOSSLESS_CLIENT;
    let client = messenger(context, stack, EntityType::CLIENT, policy, &[Arc::new(window)]);
    let peer = client.connect_to(EntityType::MDS, addrs);
    pollster::block_on(peer.attempt()).unwrap();
    for tid in 1..=DEPTH {
        peer.send(message(tid, data(1, 4096))).unwrap();
    }
    told.recv_timeout(HUNG).unwrap();
    for (side, stack) in [("client", &ours.1), ("server", &theirs.1)] {
        let counts = stack.rdma().unwrap().counts();
        let each = |count: u64| count as f64 / COUNT as f64;
        let requests = each(counts.tx_wr);
        let completions = each(counts.tx_total_wc + counts.rx_total_wc);
        println!("{side}: {requests:.2} work requests, {completions:.2} completions a message");
        assert!(requests <= 0.5 && completions <= 0.5, "{side}: {counts:?}");
    }
    pollster::block_on(client.shutdown_within(Duration::ZERO));
    pollster::block_on(server.shutdown_within(Duration::ZERO));
}

/// A device of its own, which is taken away under load.
#[test]
fn a_device_that_is_removed_is_named_and_the_others_go_on() {
    let Some(_alone) = devices() else { return };
    sh("ip link add gone0 type dummy; ip addr add 10.77.9.1/24 dev gone0; ip link set gone0 up; \
        rdma link add rxe9 type rxe netdev gone0");
    let way = Way { devices: ["rxe9", "rxe9"], ip: "10.77.9.1", ..EXCHANGE };
    let (server, client) = (Server::start(&way, true, |_| {}), Client::start(&way, |_| {}));
    let (other_server, other) =
        (Server::start(&EXCHANGE, true, |_| {}), Client::start(&EXCHANGE, |_| {}));
    let tcp = |config: &mut Config| config.ms_type = "async+posix".to_owned();
    let tcp_way = Way { ip: "127.0.0.1", ..EXCHANGE };
    let (tcp_server, tcp) = (Server::start(&tcp_way, true, tcp), Client::start(&tcp_way, tcp));
    let connect = |client: &Client, server: &Server| {
        client.messenger.connect_to(EntityType::MDS, server.addrs.clone())
    };
    let peer = connect(&client, &server);
    let others = [(connect(&other, &other_server), &other), (connect(&tcp, &tcp_server), &tcp)];
    client.exchange(&peer, 1..101, 4096, 16);
    for tid in 101..117 {
        peer.send(message(tid, data(tid, 4096))).unwrap();
    }
    // It ends when nobody has the device open any more.
    let mut command = Command::new("rdma");
    command.args(["link", "delete", "rxe9"]);
    let log = std::env::temp_dir().join(format!("siphon-rdma-{}.log", std::process::id()));
    let removal = Leash::start(command, &log).unwrap();
    // First why the connection ended, then why none is made.
    let removed = |fault: Option<String>| {
        fault.is_some_and(|it| it.contains("rxe9 was removed") || it.contains("rxe9 is gone"))
    };
    let mut tids = 1..11;
    until("the removal is told", || {
        for (peer, client) in &others {
            client.exchange(peer, tids.clone(), 4096, 4);
        }
        tids = tids.end..tids.end + 10;
        removed(peer.last_fault().map(|fault| fault.to_string()))
    });
    for (peer, client) in &others {
        client.exchange(peer, tids.clone(), 4096, 4);
        assert_eq!(client.messenger.session_counts().faults, 0);
    }
    drop((peer, server, client));
    until("the device is removed", || !removal.is_running());
    let _ = std::fs::remove_file(log);
    sh("ip link del gone0");
}

#[test]
fn a_machine_without_libibverbs_says_what_to_install() {
    let name = "a_machine_without_libibverbs_says_what_to_install";
    if std::env::var_os(SERVER).is_some() {
        // TCP needs no such library.
        Stack::new(&context(|_| {})).unwrap();
        println!("{}", Stack::new(&rdma("rxe0", "", |_| {})).unwrap_err());
        return;
    }
    let Some(_alone) = devices() else { return };
    let program = std::env::current_exe().unwrap();
    // In a mount namespace of its own, the library is an empty file.
    let told = sh(&format!(
        "library=$(ldconfig -p | awk '/libibverbs.so.1 / {{ print $NF; exit }}'); \
         {SERVER}=none unshare -m sh -ec 'mount --bind /dev/null \"$0\"; exec \"$1\" --exact {name} \
         --nocapture' $library {}",
        program.display()
    ));
    assert!(told.contains("libibverbs.so.1") && told.contains("ibverbs-providers"), "{told}");
}

#[test]
fn a_network_that_loses_packets_loses_no_message() {
    let Some(_alone) = devices() else { return };
    sh("modprobe sch_netem");
    for percent in [1, 10] {
        let server = Server::start(&EXCHANGE, true, |_| {});
        let client = Client::start(&EXCHANGE, |_| {});
        let peer = client.messenger.connect_to(EntityType::MDS, server.addrs.clone());
        client.exchange(&peer, 1..11, 4096, 4);
        sh(&format!("tc qdisc add dev rxe0v root netem loss {percent}%"));
        client.exchange(&peer, 11..111, 4096, 16);
        sh("tc qdisc del dev rxe0v root");
        client.exchange(&peer, 111..121, 4096, 4);
        println!("{percent} %: {}", client.messenger.session_counts());
    }
}

#[test]
fn a_link_that_goes_down_and_up_loses_no_message() {
    let Some(_alone) = devices() else { return };
    let server = Server::start(&EXCHANGE, true, |_| {});
    let client = Client::start(&EXCHANGE, |_| {});
    let peer = client.messenger.connect_to(EntityType::MDS, server.addrs.clone());
    client.exchange(&peer, 1..11, 4096, 4);
    for tid in 11..21 {
        peer.send(message(tid, data(tid, 4096))).unwrap();
    }
    sh("ip link set rxe0v down");
    for tid in 21..31 {
        peer.send(message(tid, data(tid, 4096))).unwrap();
    }
    sleep(Duration::from_secs(2));
    sh(
        "ip link set rxe0v up; ip addr show rxe0v | grep -q 10.77.0.1 || ip addr add 10.77.0.1/24 dev rxe0v",
    );
    for tid in 11..31 {
        assert_eq!(client.told.recv_timeout(HUNG).expect("an answer in time"), tid);
    }
    println!("{}", client.messenger.session_counts());
}

#[test]
fn a_peer_that_is_killed_is_noticed_and_its_successor_served() {
    if let Ok(server) = std::env::var(SERVER) {
        let client = Client::start(&EXCHANGE, |_| {});
        let addrs: EntityAddrVec = server.parse().unwrap();
        let peer = client.messenger.connect_to(EntityType::MDS, addrs);
        client.exchange(&peer, 1..u64::MAX, 4096, 8);
        return;
    }
    let Some(_alone) = devices() else { return };
    let server = Server::start(&EXCHANGE, true, |_| {});
    let pairs = || server.stack.rdma().unwrap().counts().active_queue_pair;
    for _ in 0..3 {
        let name = "a_peer_that_is_killed_is_noticed_and_its_successor_served";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([name, "--exact"]).env(SERVER, server.addrs.to_string());
        server.ordered.last.store(0, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("siphon-rdma-{}.log", std::process::id()));
        let mut child = Leash::start(command, &log).unwrap();
        let served = || server.ordered.last.load(Ordering::Relaxed) > 50;
        child.wait_until("served", HUNG, served).unwrap();
        child.signal("KILL").unwrap();
        until("its queue pair is gone", || pairs() == 0);
        let _ = std::fs::remove_file(log);
    }
}

#[test]
fn an_application_that_keeps_what_arrives_stalls_nobody() {
    let Some(_alone) = devices() else { return };
    let small = |config: &mut Config| {
        config.ms_async_rdma_receive_queue_len = 64;
        config.ms_async_rdma_receive_buffers = 96;
        config.ms_async_rdma_buffer_size = 64 << 10;
    };
    let server = Server::start(&EXCHANGE, true, small);
    server.ordered.keeps.store(true, Ordering::Relaxed);
    let client = Client::start(&EXCHANGE, small);
    let peer = client.messenger.connect_to(EntityType::MDS, server.addrs.clone());
    client.exchange(&peer, 1..301, 60_000, 8);
    let counts = server.stack.rdma().unwrap().counts();
    println!("{} of {} bytes were copied out", counts.rx_copied_bytes, counts.rx_bytes);
    assert!(counts.rx_copied_bytes > 0 && counts.rx_bufs_total <= 96, "{counts:?}");
    let kept = std::mem::take(&mut *server.ordered.kept.lock().unwrap());
    let right = |kept: &Message| {
        kept.payload.data.iter().enumerate().all(|(at, it)| it == byte(kept.header.tid, at))
    };
    assert!(kept.len() == 300 && kept.iter().all(right), "what is kept stays as it came");
    drop(kept);
    client.exchange(&peer, 301..341, 60_000, 8);
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let Some(_alone) = devices() else { return };
    let open = |options: &str| {
        let context = rdma("", options, |_| {});
        Stack::new(&context).map(drop).map_err(|error| error.to_string())
    };
    let device = |name: &str| format!("ms_async_rdma_device_name={name}");
    let error = open(&device("mlx5_0")).unwrap_err();
    assert!(error.contains("mlx5_0") && error.contains("rxe0"), "{error}");
    let error = open("ms_async_rdma_gid_idx=77").unwrap_err();
    assert!(error.contains("GID 77") && error.contains("0a4d:0001"), "{error}");
    let error = open("ms_async_rdma_local_gid=10.9.9.9").unwrap_err();
    assert!(error.contains("0a09:0909"), "{error}");
    let error = open("ms_async_rdma_local_gid=nonsense").unwrap_err();
    assert!(error.contains("nonsense"), "{error}");
    let error = open("ms_async_rdma_port_num=9").unwrap_err();
    assert!(error.contains("no port 9"), "{error}");
    let error = open(&device("siw0")).unwrap_err();
    assert!(error.contains("iwarp"), "{error}");
    open("").unwrap();
    open("ms_async_rdma_local_gid=10.77.0.2 ms_async_rdma_device_name=rxe1").unwrap();
}

#[test]
fn five_hundred_connect_at_once() {
    let Some(_alone) = devices() else { return };
    let server = Server::start(&EXCHANGE, true, |_| {});
    let context = rdma("rxe0", "", |config| config.ms_connection_ready_timeout = HUNG);
    let stack = Stack::new(&context).unwrap();
    let connections: Vec<_> = (0..500)
        .map(|_| {
            let client = messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[]);
            let peer = client.connect_to(EntityType::MDS, server.addrs.clone());
            (client, peer)
        })
        .collect();
    for (_, peer) in &connections {
        let open = || {
            let attempt = pollster::block_on(peer.attempt());
            attempt.is_ok()
        };
        assert!((0..10).any(|_| open()), "{:?}", peer.last_fault());
    }
    assert_eq!(server.stack.rdma().unwrap().counts().active_queue_pair, 500);
    for (client, _) in connections {
        pollster::block_on(client.shutdown_within(Duration::ZERO));
    }
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    let Some(_alone) = devices() else { return };
    for (way, count) in [(IWARP, 500), (BY_CM, 500), (EXCHANGE, 5000)] {
        connections_leave_nothing_behind(&way, count);
    }
}

/// What `rdma resource show` counts, by device: `0: rxe0: pd 3 cq 2 qp 1 …`.
fn resources() -> Vec<(String, usize)> {
    let shown = sh("rdma resource show");
    let words: Vec<&str> = shown.split_whitespace().filter(|word| !word.ends_with(':')).collect();
    words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap())).collect()
}

fn connections_leave_nothing_behind(way: &Way, count: usize) {
    /// Slabs of chunks, far fewer than there are connections in a test.
    const OVERLAPPING: usize = 8;
    let server = Server::start(way, true, |_| {});
    let context = rdma(way.devices[0], way.options, |_| {});
    let stack = Stack::new(&context).unwrap();
    let cycle = || {
        let client = messenger(&context, &stack, EntityType::CLIENT, Policy::LOSSY_CLIENT, &[]);
        let peer = client.connect_to(EntityType::MDS, server.addrs.clone());
        pollster::block_on(peer.attempt()).unwrap();
        peer.mark_down();
        pollster::block_on(client.shutdown_within(Duration::ZERO));
    };
    let pairs = |stack: &Stack| stack.rdma().unwrap().counts().active_queue_pair;
    let settle = || until("all are gone", || pairs(&stack) + pairs(&server.stack) == 0);
    let state = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (resources(), files)
    };
    // Chunks are registered as connections need them, which may overlap, and then kept.
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| (0..5).for_each(|_| cycle()));
        }
    });
    settle();
    let (before, before_files) = state();
    (0..count).for_each(|_| cycle());
    settle();
    let counts = server.stack.rdma().unwrap().counts();
    let (mut after, after_files) = state();
    // How many connections overlap differs: one that ends has its chunks until its queue is flushed.
    let regions = before.iter().zip(&mut after).filter(|((name, _), _)| name == "mr");
    for ((_, before), (_, after)) in regions {
        assert!(*after <= before + OVERLAPPING, "{way:?}: {after} memory regions, {before} before");
        *after = *before;
    }
    assert_eq!((after, after_files), (before, before_files), "{way:?}: {counts:?}");
    println!("{way:?}: {count} cycles: {counts:?}");
    assert_eq!(counts.created_queue_pair as usize, count + 100, "{way:?}");
    for counts in [counts, stack.rdma().unwrap().counts()] {
        let chunks = (counts.rx_bufs_in_use, counts.inflight_tx_chunks);
        assert_eq!(chunks, (0, 0), "{way:?}: chunks that did not come back");
    }
}

#[test]
fn tcp_and_two_devices_serve_in_one_process() {
    let Some(_alone) = devices() else { return };
    let tcp = context(|_| {});
    let tcp_stack = Stack::new(&tcp).unwrap();
    let (ordered, _told) = Ordered::new(true);
    let policy = Policy::STATEFUL_SERVER;
    let tcp_server = messenger(&tcp, &tcp_stack, EntityType::MDS, policy, &[ordered]);
    let tcp_addrs = bound(&tcp_server, &["v2:127.0.0.1:0/0"]);
    let (ordered, tcp_told) = Ordered::new(false);
    let tcp_client =
        messenger(&tcp, &tcp_stack, EntityType::CLIENT, Policy::LOSSLESS_CLIENT, &[ordered]);
    let tcp_peer = tcp_client.connect_to(EntityType::MDS, tcp_addrs);

    let ways = [EXCHANGE, Way { devices: ["rxe1", "rxe0"], ip: "10.77.0.1", ..EXCHANGE }];
    let sides = ways.map(|way| (Server::start(&way, true, |_| {}), Client::start(&way, |_| {})));
    let peers = sides
        .each_ref()
        .map(|(server, client)| client.messenger.connect_to(EntityType::MDS, server.addrs.clone()));
    for round in 0..5 {
        let tids = round * 10 + 1..round * 10 + 11;
        for ((_, client), peer) in sides.iter().zip(&peers) {
            client.exchange(peer, tids.clone(), 8192, 4);
        }
        for tid in tids {
            tcp_peer.send(message(tid, data(tid, 8192))).unwrap();
            assert_eq!(tcp_told.recv_timeout(HUNG).unwrap(), tid);
        }
    }
}
