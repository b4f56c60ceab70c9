use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use crate::error::Missing;
use crate::{PeerError, apt, is_root, run};

const TIMEOUT: Duration = Duration::from_secs(20);
const ADDRS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 213, 7, 1), Ipv4Addr::new(10, 213, 7, 2)];

/// Two hosts with a cable between them whose rate the kernel limits: network namespaces of their own,
/// which take root. They go when this is dropped.
///
/// ```no_run
/// use std::process::Command;
/// use siphon_peers::{Hosts, require, run};
///
/// let Some(hosts) = require(Hosts::with_rate("1gbit")) else { return };
/// let mut ping = Command::new("ping");
/// ping.args(["-c1", &hosts.addrs()[0].to_string()]);
/// run(hosts.on(1, &ping), std::time::Duration::from_secs(5)).unwrap();
/// ```
#[derive(Debug)]
pub struct Hosts {
    names: [String; 2],
}

impl Hosts {
    /// A cable that carries so much in either direction, as `tc` has it: `1gbit`.
    ///
    /// # Errors
    /// [`PeerError::Unavailable`]: `ip` and `tc` are not installed, or we are not root.
    pub fn with_rate(rate: &str) -> Result<Self, PeerError> {
        apt::program("tc", "iproute2")?;
        if !is_root() {
            return Err(Missing::Root("hosts are network namespaces").into());
        }
        let id = std::process::id();
        let hosts = Self { names: ["a", "b"].map(|host| format!("siphon-{id}-{host}")) };
        let [a, b] = &hosts.names;
        let links = ["a", "b"].map(|end| format!("si{id}{end}"));
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["link", "add", &links[0], "netns", a, "type", "veth", "peer", &links[1], "netns", b])?;
        for ((host, link), addr) in hosts.names.iter().zip(&links).zip(ADDRS) {
            ip(&["-n", host, "addr", "add", &format!("{addr}/24"), "dev", link])?;
            ip(&["-n", host, "link", "set", link, "up"])?;
            let mut shape = Command::new("tc");
            shape.args(["-n", host, "qdisc", "add", "dev", link, "root", "tbf"]);
            // A small bucket: a cable does not make up for a time when it was idle.
            shape.args(["rate", rate, "burst", "16kb", "latency", "50ms"]);
            run(shape, TIMEOUT)?;
        }
        Ok(hosts)
    }

    /// Their addresses.
    pub fn addrs(&self) -> [Ipv4Addr; 2] {
        ADDRS
    }

    /// The command on one of them, 0 or 1.
    pub fn on(&self, host: usize, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.names[host]]);
        there.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        there
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &self.names {
            let _ = ip(&["netns", "delete", host]); // with its end of the cable
        }
    }
}

fn ip(args: &[&str]) -> Result<(), PeerError> {
    let mut command = Command::new("ip");
    command.args(args);
    run(command, TIMEOUT).map(drop)
}
