//! What the fast path takes of the allocator, once it is warm: server and client of the benchmark as
//! they are, over loopback, with an allocator that counts.

use std::alloc::System;
use std::sync::{Arc, Mutex};

use siphon_auth::{ConnectionMode, CryptoKey, KeyType, ModeList, Modes, SharedSecret};
use siphon_common::{Config, Context};
use siphon_msgr::{Messenger, Stack, SystemEnv};
use siphon_perf::{Client, ClientOptions, Limit, Progress, Server, ServerOptions, Workload};
use siphon_proto::Policy;
use siphon_wire::types::{EntityAddrVec, EntityName, EntityType};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Messages of a measurement, in each direction.
const OPS: u64 = 20_000;

/// Allocations, and growths of what was allocated, for each operation: a request and its answer.
fn allocations_per_operation(size: usize, secure: bool) -> f64 {
    let _alone = ALONE.lock().unwrap();
    let context = Context::new(Config::default());
    let stack = Stack::new(&context).unwrap();
    let mut builder = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
        .default_policy(Policy::STATELESS_SERVER)
        .dispatcher_tail(Arc::new(Server::new(ServerOptions::default()).unwrap()));
    let mut options = ClientOptions::default();
    if secure {
        let key = CryptoKey::generate(KeyType::AES256K, &SystemEnv).unwrap();
        let modes = Modes::all(&ModeList::only(ConnectionMode::SECURE));
        let secret = SharedSecret::new(key, modes, Arc::new(SystemEnv));
        builder = builder.auth_server(Arc::new(secret.server(EntityType::OSD)));
        let client = secret.client("client.perf".parse().unwrap(), EntityType::OSD);
        options.auth = Some(Arc::new(client.unwrap()));
    }
    let server = builder.start().unwrap();
    server.bind(&"127.0.0.1:0".parse::<EntityAddrVec>().unwrap()).unwrap();
    let client = Client::connect(&context, &stack, &server.addrs(), 1, options).unwrap();
    let run = |operations| {
        let limit = Limit::Operations(operations);
        let workload = Workload { size, jobs: 1, depth: 32, limit };
        let region = Region::new(ALLOCATOR);
        let measured = client.measure(&workload, &Arc::new(Progress::new(1))).unwrap();
        assert_eq!(measured.operations, operations);
        let stats = region.change();
        (stats.allocations + stats.reallocations) as f64
    };
    run(OPS); // pools fill, queues find their lengths
    let (few, many) = (run(OPS / 10), run(OPS + OPS / 10));
    client.shutdown();
    pollster::block_on(server.shutdown());
    // What a measurement takes at its ends is in both.
    (many - few) / OPS as f64
}

#[test]
fn small_messages_take_nothing_of_the_allocator() {
    let each = allocations_per_operation(64, false);
    println!("64 B: {each} allocations an operation");
    assert!(each < 0.01, "{each} allocations an operation");
}

#[test]
fn messages_of_4_kib_take_nothing_of_the_allocator() {
    let each = allocations_per_operation(4096, false);
    println!("4 KiB: {each} allocations an operation");
    assert!(each < 0.01, "{each} allocations an operation");
}

#[test]
fn sealed_messages_take_nothing_of_the_allocator() {
    for size in [64, 4096] {
        let each = allocations_per_operation(size, true);
        println!("{size} B, secure: {each} allocations an operation");
        assert!(each < 0.01, "{each} allocations an operation");
    }
}
