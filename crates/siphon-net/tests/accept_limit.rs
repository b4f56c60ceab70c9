//! A listener of a process without descriptors. It is alone in its process, since it lowers the
//! limit for all of it.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use common::{Event, Net};
use rustix::process::{Resource, getrlimit, setrlimit};
use siphon_net::Wait;

#[test]
fn accepting_pauses_without_descriptors_and_goes_on_with_them() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (_, addr) = net.listen("127.0.0.1:0");
        let stream = TcpStream::connect(addr).unwrap();

        // The lowest number that is free is the limit: nothing can be opened.
        let free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
        let usual = getrlimit(Resource::Nofile);
        let mut none = usual;
        none.current = Some(free as u64);
        setrlimit(Resource::Nofile, none).unwrap();

        let error = net.until(|event| match event {
            Event::AcceptFailed { error } => Ok(error),
            other => Err(other),
        });
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
        // It does not spin: it pauses for long enough that these waits see nothing, or else, on a
        // machine that stalls, at most the next failure, and not one for each wait.
        for _ in 0..1000 {
            net.wait(Wait::Poll);
        }
        assert!(net.events.len() < 1000, "{} failures", net.events.len());
        net.events.clear();

        setrlimit(Resource::Nofile, usual).unwrap();
        assert_eq!(net.accepted().peer_addr(), stream.local_addr().unwrap());
    }
}
