//! Ceph's `ceph_perf_msgr_server`: the same arguments, messages and policy.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ceph_perf_msgr::Tool;
use siphon_common::interrupt::Ending;
use siphon_msgr::{Messenger, Stack};
use siphon_perf::{Server, ServerOptions};
use siphon_proto::Policy;
use siphon_wire::types::{EntityName, EntityType};

const USAGE: &str = "\
Usage: ceph_perf_msgr_server [bind ip:port] [server worker threads] [thinktime us]
       [bind ip:port]: the address to listen at, which clients connect to
       [server worker threads]: threads that think; without a think time there is nothing for
         them to do, and the messenger's workers answer
       [thinktime us]: how long each request takes
Options: -c FILE, --version, and any option of Ceph's that Siphon honours, as --ms_async_op_threads 3,
         --admin_socket PATH, --log_file PATH, --pid_file PATH";

const TOOL: Tool =
    Tool { name: "ceph_perf_msgr_server", usage: USAGE, arguments: 3, entity: "osd.0" };

fn main() -> ExitCode {
    TOOL.run(|args| {
        let addrs = args.addr()?;
        let threads: u16 = args.number(1, "server worker threads")?;
        let think_time = args.number(2, "thinktime us")?;
        eprintln!(" using ms-public-type {}", args.ms_type);
        eprintln!("       bind ip:port {}", args.text(0));
        eprintln!("       worker threads {threads}");
        eprintln!("       thinktime(us) {think_time}");

        let options = ServerOptions {
            threads: threads.into(),
            think_time: Duration::from_micros(think_time),
        };
        let ending = Ending::listen().map_err(|error| error.to_string())?;
        let stack = Stack::new(&args.context).map_err(|error| error.to_string())?;
        let server = Server::new(options).map_err(|error| error.to_string())?;
        let osd = EntityName::new(EntityType::OSD, 0);
        let messenger = Messenger::builder(&args.context, &stack, osd)
            .default_policy(Policy::STATELESS_SERVER)
            .throttles(EntityType::CLIENT, options.throttles(&args.context.config()))
            .dispatcher_tail(Arc::new(server))
            .start()
            .map_err(|error| error.to_string())?;
        messenger.bind(&addrs).map_err(|error| error.to_string())?;
        ending.wait().map_err(|error| error.to_string())?;
        pollster::block_on(messenger.shutdown());
        Ok(())
    })
}
