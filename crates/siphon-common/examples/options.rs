//! A program that takes Ceph's options, and heeds a change of one.

use siphon_common::Context;
use siphon_common::config::ConfigLoader;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let loaded = ConfigLoader::new().load(std::env::args().skip(1))?;
    let context = Context::new(loaded.config);
    let _observation = context.observe(["ms_tcp_rcvbuf"], |config, _| {
        println!("ms_tcp_rcvbuf is now {}", config.ms_tcp_rcvbuf);
    });
    context.set_option("ms_tcp_rcvbuf", "64K")?;
    Ok(())
}
