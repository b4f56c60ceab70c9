//! What a receiver of large messages holds, however many are sent at once and however slow it is.

mod common;

use common::{Listening, siphon, stdout};

const MIB: u64 = 1 << 20;
/// What messages that wait may take.
const THROTTLE: u64 = 64 * MIB;
/// What a process with up to three workers takes that has received such messages one by one.
const PROCESS: u64 = 32 * MIB;

/// 64 messages of 4 MiB in flight are four times what the throttle lets in: the rest waits in the client.
#[test]
fn messages_that_wait_take_no_more_than_the_throttle_and_a_tenth() {
    for stack in ["posix", "uring"] {
        let throttle = format!("--ms_dispatch_throttle_bytes={THROTTLE}");
        let think = "--think-time=30000";
        let server =
            Listening::start(["perf", "server", "ADDR", think, "--stack", stack, &throttle]);
        let addr = server.addr.to_string();
        let work = ["--size", "4M", "--depth", "64", "--ops", "64", "--stack", stack, "--json"];
        let mut client = siphon(["perf", "client", &addr]);
        client.args(work);
        let report: serde_json::Value = serde_json::from_str(&stdout(client)).unwrap();
        assert_eq!(report["ops"], 64);
        let peak = server.peak_memory();
        let most = THROTTLE + THROTTLE / 10 + PROCESS;
        assert!(peak <= most, "{stack}: {} of {} MiB", peak / MIB, most / MIB);
        assert!(peak >= THROTTLE, "{stack}: nothing waited: {} MiB", peak / MIB);
    }
}
