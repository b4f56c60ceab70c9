//! Ceph's `ceph_perf_msgr_client`: the same arguments, messages, policy and closing line. Unlike
//! Ceph's, it has exactly CONCURRENCY operations in flight and counts what was answered.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ceph_perf_msgr::Tool;
use siphon_common::interrupt::Interrupt;
use siphon_msgr::Stack;
use siphon_perf::{Client, ClientOptions, Limit, Progress, Workload};

const USAGE: &str = "\
Usage: ceph_perf_msgr_client [server ip:port] [numjobs] [concurrency] [ios] [thinktime us] [msg length]
       [server ip:port]: the server to connect to
       [numjobs]: clients, each with a messenger and a connection of its own
       [concurrency]: messages in flight of each
       [ios]: messages of each
       [thinktime us]: how long to sleep when an answer comes
       [msg length]: bytes of data of a message
Options: -c FILE, --version, and any option of Ceph's that Siphon honours, as --ms_async_op_threads 3,
         --admin_socket PATH, --log_file PATH";

const TOOL: Tool =
    Tool { name: "ceph_perf_msgr_client", usage: USAGE, arguments: 6, entity: "client.0" };

fn main() -> ExitCode {
    TOOL.run(|args| {
        let server = args.addr()?;
        let jobs: u16 = args.number(1, "numjobs")?;
        let depth: u32 = args.number(2, "concurrency")?;
        let ios: u64 = args.number(3, "ios")?;
        let think_time: u64 = args.number(4, "thinktime us")?;
        let size: u32 = args.number(5, "msg length")?;
        println!(" using ms-public-type {}", args.ms_type);
        println!("       server ip:port {}", args.text(0));
        println!("       numjobs {jobs}");
        println!("       concurrency {depth}");
        println!("       ios {ios}");
        println!("       thinktime(us) {think_time}");
        println!("       message data bytes {size}");
        if jobs == 0 || depth == 0 || ios == 0 {
            return Err("numjobs, concurrency and ios are at least 1".to_owned());
        }

        let options =
            ClientOptions { think_time: Duration::from_micros(think_time), ..Default::default() };
        let stack = Stack::new(&args.context).map_err(|error| error.to_string())?;
        let client = Client::connect(&args.context, &stack, &server, jobs.into(), options)
            .map_err(|error| error.to_string())?;
        let workload = Workload {
            size: size as usize,
            jobs: jobs.into(),
            depth: depth as usize,
            limit: Limit::Operations(ios),
        };
        // The first SIGINT ends it in good order, with what was measured so far.
        let interrupt = Interrupt::listen().map_err(|error| error.to_string())?;
        let progress = Arc::new(Progress::stopped_by(workload.jobs, interrupt.flag()));
        let measured = client.measure(&workload, &progress).map_err(|error| error.to_string())?;
        let micros = measured.elapsed.as_micros();
        println!(" Total op {} run time {micros}us.", measured.operations);
        client.shutdown();
        if interrupt.is_set() { Err("interrupted".to_owned()) } else { Ok(()) }
    })
}
