//! What workers count is what a run did.

mod common;

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use common::{HUNG, bound, client, context, next_message, osd};
use serde_json::{Value, json};
use siphon_common::Context;
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy, Throttle, Throttles};
use siphon_wire::types::{EntityName, EntityType};

/// The sum of a counter over the workers of a context.
fn sum(context: &Context, counter: &str) -> u64 {
    let dump = context.perf().dump(None, Some(counter));
    dump.as_object().unwrap().values().map(|worker| worker[counter].as_u64().unwrap()).sum()
}

/// Waits until the workers have counted what they did.
#[expect(clippy::disallowed_methods, reason = "a test that hangs has to end")]
fn wait_for(context: &Context, counter: &str, wanted: u64) {
    let began = Instant::now();
    while sum(context, counter) != wanted {
        assert!(began.elapsed() < HUNG, "{counter}: {} of {wanted}", sum(context, counter));
        std::thread::yield_now();
    }
}

fn with_data(tid: u64) -> OutMessage {
    let front = Bytes::from(vec![1; tid as usize % 300]);
    let data = Bytes::from(vec![tid as u8; (tid as usize * 97) % 70_000]).into();
    let payload = Payload { front: front.into(), data, ..Payload::default() };
    OutMessage::new(MessageHeader { msg_type: 42, tid, ..Default::default() }, payload)
}

/// Bytes of the frame of [`with_data`]: preamble, header and its checksum, parts, epilogue.
fn frame(tid: u64) -> u64 {
    let (front, data) = (tid % 300, (tid * 97) % 70_000);
    32 + 41 + 4 + front + data + if front + data > 0 { 13 } else { 0 }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that hangs has to end")]
fn a_throttle_with_a_name_is_counted() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (sender, received) = std::sync::mpsc::channel();
    let throttles = Throttles {
        bytes: Some(Throttle::new("osd_client_bytes", 1 << 20)),
        messages: Some(Throttle::new("osd_client_messages", 100)),
    };
    let osd = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER)
        .throttles(EntityType::CLIENT, throttles)
        .dispatcher_tail(Arc::new(common::Tell(sender)))
        .start()
        .unwrap();
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = client(&context, &stack);
    let connection = client.connect_to(EntityType::OSD, addrs);
    let payload: u64 = (1..=50).map(|tid| tid % 300 + tid * 97).sum();
    for tid in 1..=50 {
        pollster::block_on(connection.send_async(with_data(tid))).unwrap();
    }
    for _ in 0..50 {
        next_message(&received);
    }
    let counters = |name: &str| context.perf().dump(Some(name), None)[name].clone();
    let began = Instant::now();
    while counters("throttle-osd_client_bytes")["put_sum"] != payload {
        assert!(began.elapsed() < HUNG, "{}", counters("throttle-osd_client_bytes"));
        std::thread::yield_now();
    }
    let bytes = counters("throttle-osd_client_bytes");
    assert_eq!((&bytes["val"], &bytes["max"]), (&json!(0), &json!(1 << 20)));
    assert_eq!(
        (&bytes["get"], &bytes["get_sum"], &bytes["put"]),
        (&json!(50), &json!(payload), &json!(50))
    );
    assert_eq!(counters("throttle-osd_client_messages")["get_sum"], 50);
    // Each message passes both throttles, at once or after a wait.
    for name in ["throttle-osd_client_bytes", "throttle-osd_client_messages"] {
        let all = counters(name);
        let [success, fail] =
            ["get_or_fail_success", "get_or_fail_fail"].map(|it| all[it].as_u64().unwrap());
        assert_eq!((success, &all["wait"]["avgcount"]), (50, &json!(fail)), "{all:#}");
    }
    assert!(context.perf().reset("throttle-osd_client_bytes"));
    assert_eq!(counters("throttle-osd_client_bytes")["get"], 0);
    pollster::block_on(osd.shutdown());
    drop(osd);
    assert_eq!(counters("throttle-osd_client_bytes"), Value::Null);
}

/// Takes a message when it is told to.
struct Gate(Mutex<Receiver<()>>, bool);

impl Dispatcher for Gate {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        self.1
    }

    fn fast_dispatch(&self, _: &Connection, _: Message) {
        let _ = self.0.lock().unwrap().recv();
    }

    fn dispatch(&self, _: &Connection, _: Message) -> Option<Message> {
        let _ = self.0.lock().unwrap().recv(); // at the end of a test nobody tells it
        None
    }
}

/// `ms_dispatch_throttle_bytes` was heeded, and counted nowhere.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test that hangs has to end")]
fn what_waits_for_the_dispatch_thread_is_counted_as_ceph_counts_it() {
    const MESSAGES: u64 = 40;
    const SIZE: u64 = 4096;
    let context = context(|config| config.ms_dispatch_throttle_bytes = 3 * SIZE);
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack);
    for (number, fast) in [(0, false), (1, true)] {
        let (go, gate) = std::sync::mpsc::channel();
        let name = EntityName::new(EntityType::OSD, number);
        let osd = Messenger::builder(&context, &stack, name)
            .default_policy(Policy::STATELESS_SERVER)
            .dispatcher_tail(Arc::new(Gate(Mutex::new(gate), fast)))
            .start()
            .unwrap();
        let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
        let connection = client.connect_to(EntityType::OSD, addrs);
        let header = MessageHeader { msg_type: 42, ..Default::default() };
        let data = Bytes::from(vec![7; SIZE as usize]);
        for _ in 0..MESSAGES {
            let payload = Payload { data: data.clone().into(), ..Payload::default() };
            connection.send(OutMessage::new(header, payload)).unwrap();
        }
        // One without bytes is not asked for any.
        connection.send(OutMessage::new(header, Payload::default())).unwrap();
        let throttle = format!("throttle-msgr_dispatch_throttler-osd.{number}");
        let all = || context.perf().dump(Some(&throttle), None)[&throttle].clone();
        let began = Instant::now();
        let wait_for = |counter: &str, wanted: u64| {
            while all()[counter] != wanted {
                assert!(began.elapsed() < HUNG, "{counter}, not {wanted}: {:#}", all());
                std::thread::yield_now();
            }
        };
        if !fast {
            // One is with the dispatcher, and as many wait as there is room for, and one more.
            wait_for("get_or_fail_fail", 1);
            wait_for("put", 1);
            // The rest of what that receive has brought may still be on its way to the queue.
            let settled = || {
                let now = all();
                let [val, got] = ["val", "get_sum"].map(|it| now[it].as_u64().unwrap());
                (got - SIZE == val).then_some((now, val))
            };
            let (now, val) = loop {
                if let Some(settled) = settled() {
                    break settled;
                }
                assert!(began.elapsed() < HUNG, "{:#}", all());
                std::thread::yield_now();
            };
            assert_eq!((now["max"].as_u64(), now["put"].as_u64()), (Some(3 * SIZE), Some(1)));
            // What one receive has brought is let in whole.
            assert!((2 * SIZE..MESSAGES * SIZE).contains(&val), "{now:#}");
        }
        (0..=MESSAGES).for_each(|_| go.send(()).unwrap());
        wait_for("put", MESSAGES);
        // A connection reads again when its worker comes to it.
        while all()["wait"]["avgcount"] != all()["get_or_fail_fail"] {
            assert!(began.elapsed() < HUNG, "{:#}", all());
            std::thread::yield_now();
        }
        let now = all();
        let sum = |of: &str| now[of].as_u64().unwrap();
        assert_eq!((sum("get"), sum("get_or_fail_success")), (MESSAGES, MESSAGES));
        assert_eq!((sum("get_sum"), sum("put_sum")), (MESSAGES * SIZE, MESSAGES * SIZE));
        assert_eq!((sum("val"), sum("get_started"), sum("take"), sum("take_sum")), (0, 0, 0, 0));
        assert_eq!(fast, sum("get_or_fail_fail") == 0, "{now:#}");
        assert!(context.perf().reset(&throttle) && all()["get"] == 0);
        pollster::block_on(osd.shutdown());
    }
}

/// Hands messages on, whole.
struct Keep(Mutex<Sender<Message>>);

impl Dispatcher for Keep {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, _: &Connection, message: Message) {
        let _ = self.0.lock().unwrap().send(message); // a test that has ended wants none
    }
}

/// A server that keeps what it got lets no more in than its throttle has room for, and what waits is counted
/// by how often and how long.
#[test]
#[expect(clippy::disallowed_methods, reason = "what is counted is time")]
fn a_throttle_tells_how_long_messages_waited() {
    const MESSAGES: u64 = 8;
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (sender, received) = std::sync::mpsc::channel();
    let throttles =
        Throttles { bytes: None, messages: Some(Throttle::new("osd_client_messages", 1)) };
    let osd = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER)
        .throttles(EntityType::CLIENT, throttles)
        .dispatcher_tail(Arc::new(Keep(Mutex::new(sender))))
        .start()
        .unwrap();
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = client(&context, &stack);
    let began = Instant::now();
    let connection = client.connect_to(EntityType::OSD, addrs);
    (1..=MESSAGES).for_each(|tid| connection.send(common::message(42, tid)).unwrap());
    let name = "throttle-osd_client_messages";
    let counters = || context.perf().dump(Some(name), None)[name].clone();
    for already in 0..MESSAGES {
        let message = received.recv_timeout(HUNG).unwrap();
        // The next one has come, and waits for this one.
        let waiting = u64::from(already + 1 < MESSAGES);
        while counters()["get_or_fail_fail"].as_u64().unwrap() < already + waiting {
            assert!(began.elapsed() < HUNG, "{:#}", counters());
            std::thread::yield_now();
        }
        drop(message);
    }
    let all = counters();
    let sum = |of: &str| all[of].as_u64().unwrap();
    assert_eq!((sum("get"), sum("get_sum")), (MESSAGES, MESSAGES), "{all:#}");
    assert_eq!((sum("get_or_fail_success"), sum("get_or_fail_fail")), (MESSAGES, MESSAGES - 1));
    assert_eq!(all["wait"]["avgcount"], MESSAGES - 1);
    let waited = all["wait"]["sum"].as_f64().unwrap();
    assert!(waited > 0.0 && waited < began.elapsed().as_secs_f64(), "{all:#}");
    pollster::block_on(osd.shutdown());
}

#[test]
fn messages_bytes_and_connections_are_counted_exactly() {
    const MESSAGES: u64 = 2_000;
    const CLIENTS: u64 = 5;
    let (ours, theirs) = (context(|_| {}), context(|_| {}));
    let (stack, far) = (Stack::new(&ours).unwrap(), Stack::new(&theirs).unwrap());
    let (osd, received) = osd(&theirs, &far);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let clients: Vec<Messenger> = (0..CLIENTS).map(|_| client(&ours, &stack)).collect();
    let connections: Vec<_> =
        clients.iter().map(|client| client.connect_to(EntityType::OSD, addrs.clone())).collect();
    for tid in 1..=MESSAGES {
        for connection in &connections {
            pollster::block_on(connection.send_async(with_data(tid))).unwrap();
        }
    }
    for _ in 0..MESSAGES * CLIENTS {
        next_message(&received);
    }
    let bytes = CLIENTS * (1..=MESSAGES).map(frame).sum::<u64>();
    wait_for(&ours, "msgr_send_messages", MESSAGES * CLIENTS);
    wait_for(&ours, "msgr_send_bytes", bytes);
    wait_for(&theirs, "msgr_recv_messages", MESSAGES * CLIENTS);
    wait_for(&theirs, "msgr_recv_bytes", bytes);
    for context in [&ours, &theirs] {
        wait_for(context, "msgr_created_connections", CLIENTS);
        wait_for(context, "msgr_active_connections", CLIENTS);
        assert_eq!(sum(context, "msgr_recv_encrypted_bytes"), 0, "in crc mode");
    }
    assert_eq!((sum(&ours, "msgr_recv_messages"), sum(&theirs, "msgr_send_messages")), (0, 0));

    // Every message waited once, and each wait is in the histogram.
    let dump = ours.perf().dump(None, Some("msgr_send_messages_queue_lat"));
    let waits: u64 = dump
        .as_object()
        .unwrap()
        .values()
        .map(|worker| worker["msgr_send_messages_queue_lat"]["avgcount"].as_u64().unwrap())
        .sum();
    assert_eq!(waits, MESSAGES * CLIENTS);
    let histogram = "msgr_send_messages_queue_lat_histogram";
    let dump = ours.perf().histogram_dump(None, Some(histogram));
    let counts = |worker: &Value| -> u64 {
        worker[histogram]["values"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).sum()
    };
    assert_eq!(dump.as_object().unwrap().values().map(counts).sum::<u64>(), waits);

    // A worker's time is made of its parts, and of more.
    let dump = ours.perf().dump(None, None);
    let is_worker = |name: &str| name.starts_with("AsyncMessenger::");
    for (_, worker) in dump.as_object().unwrap().iter().filter(|it| is_worker(it.0)) {
        let time = |part: &str| worker[format!("msgr_running_{part}_time")].as_f64().unwrap();
        let parts = time("send") + time("recv") + time("fast_dispatch");
        assert!(parts <= time("total") + 1e-6, "{worker}");
    }

    assert!(ours.perf().reset("all"));
    assert_eq!(
        (sum(&ours, "msgr_send_bytes"), sum(&ours, "msgr_active_connections")),
        (0, CLIENTS)
    );
    connections.iter().for_each(|connection| connection.mark_down());
    wait_for(&ours, "msgr_active_connections", 0);
    wait_for(&theirs, "msgr_active_connections", 0);
    pollster::block_on(osd.shutdown());
}
