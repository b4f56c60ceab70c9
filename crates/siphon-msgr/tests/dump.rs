//! What `messenger dump` tells is so.

mod common;

use common::{bound, client, context, message, next_message, osd};
use serde_json::{Value, json};
use siphon_common::Context;
use siphon_msgr::Stack;
use siphon_wire::types::EntityType;

fn execute(context: &Context, request: &Value) -> Value {
    let answer = context.commands().execute(&request.to_string()).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn a_messenger_tells_of_its_connections() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let clients = [client(&context, &stack), client(&context, &stack)];
    let connections = clients.each_ref().map(|it| it.connect_to(EntityType::OSD, addrs.clone()));
    for tid in 1..=5 {
        connections.iter().for_each(|it| it.send(message(42, tid)).unwrap());
    }
    for _ in 0..10 {
        next_message(&received);
    }
    let names = execute(&context, &json!({ "prefix": "messenger dump" }));
    assert_eq!(names, json!({ "messengers": ["osd.0", "client.1", "client.1#2"] }));

    let request = json!({ "prefix": "messenger dump", "msgr": "osd.0", "tcp_info": "true" });
    let dump = execute(&context, &request);
    let messenger = &dump["messenger"];
    assert_eq!(
        messenger["my_addrs"]["addrvec"][0]["addr"],
        addrs.front().socket_addr().unwrap().to_string()
    );
    assert_eq!(
        (&messenger["connections_count"], &messenger["workers_that_did_not_answer"]),
        (&json!(2), &json!(0))
    );
    for connection in messenger["connections"].as_array().unwrap() {
        let connection = &connection["async_connection"];
        assert_eq!(connection["peer"]["entity_name"], "client.1");
        assert_eq!(connection["status"]["connected"], true, "{connection:#}");
        assert_eq!((&connection["accepted"], &connection["in_seq"]), (&json!(true), &json!(5)));
        assert_eq!(connection["protocol"]["version"], "msgr2.1");
        assert_eq!(connection["protocol"]["con_mode"], "crc");
        if stack.rdma().is_none() {
            assert!(connection["tcp_info"]["tcpi_rtt_us"].as_u64().unwrap() > 0, "{connection:#}");
        }
    }
    let dump = execute(&context, &json!({ "prefix": "messenger dump", "msgr": "client.1#2" }));
    let connection = &dump["messenger"]["connections"][0]["async_connection"];
    assert_eq!((&connection["out_seq"], &connection["accepted"]), (&json!(5), &json!(false)));
    assert_eq!(connection["policy"]["lossy"], true, "the server says so");
    assert_eq!(connection["tcp_info"], Value::Null);

    let error = context
        .commands()
        .execute(&json!({ "prefix": "messenger dump", "msgr": "osd.1" }).to_string())
        .unwrap_err();
    assert_eq!(error.text, "there is no osd.1, but osd.0, client.1, client.1#2");
    drop((clients, connections));
    let names = execute(&context, &json!({ "prefix": "messenger dump" }));
    assert_eq!(names, json!({ "messengers": ["osd.0"] }));
    pollster::block_on(osd.shutdown());
}
