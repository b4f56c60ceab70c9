//! A stack that breaks connections: what arrives is what was sent up to there, and every operation
//! ends once.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;

use std::io;

use common::{Net, pattern};
use siphon_net::{FaultyDriver, NetworkStack, SendStatus, SocketOptions, StackKind};

const LOOPBACK: &str = "127.0.0.1:0";

fn faulty(one_in: u32, seed: u64) -> Net {
    let mut net = Net::new(StackKind::Posix);
    let inner = std::mem::replace(&mut net.driver, StackKind::Posix.driver().unwrap());
    net.driver = Box::new(FaultyDriver::new(inner, one_in, seed));
    net
}

#[test]
fn every_operation_may_break_its_connection_and_ends_once() {
    let mut broken = [0; 2];
    for seed in 0..200 {
        let mut net = faulty(6, seed);
        let (client, server) = net.pair(LOOPBACK, &SocketOptions::default());
        let bytes = pattern(5000);
        let mut arrived = Vec::new();
        let failure = loop {
            if net.send(client, bytes.clone()) == SendStatus::Pending
                && let Err(error) = net.sent(client)
            {
                broken[0] += 1;
                break error;
            }
            match net.recv(server) {
                Ok(piece) => arrived.extend_from_slice(&piece),
                Err(error) => {
                    broken[1] += 1;
                    break error;
                }
            }
        };
        assert_eq!(failure.kind(), io::ErrorKind::ConnectionReset);
        assert!(failure.to_string().contains("ms_inject_socket_failures"), "{failure}");
        let whole = bytes.iter().cycle();
        assert!(arrived.iter().zip(whole).all(|(got, sent)| got == sent), "seed {seed}");

        // Nothing follows but what is asked for, and that fails as well.
        let victim = if net.driver.peer_addr(client).is_err() { client } else { server };
        assert_eq!(net.driver.detach(victim).unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert!(net.recv(victim).is_err());
        net.driver.close(victim);
        net.wait(siphon_net::Wait::Poll);
        assert!(net.events.is_empty(), "{:?}", net.events);
    }
    assert!(broken[0] > 20 && broken[1] > 20, "{broken:?}");
}

#[test]
fn one_in_none_is_the_stack_as_it_is() {
    let stack = NetworkStack::new(StackKind::Posix).with_socket_failures(0, 1);
    let mut net = Net::new(StackKind::Posix);
    net.driver = stack.driver(0).unwrap();
    let (client, server) = net.pair(LOOPBACK, &SocketOptions::default());
    for _ in 0..100 {
        assert_eq!(net.send(client, pattern(100)), SendStatus::Complete);
        assert_eq!(net.recv_exactly(server, 100), pattern(100));
    }
    assert_eq!(stack.injected_failures(), 0);
}

#[test]
fn a_stack_counts_what_its_drivers_break() {
    let stack = NetworkStack::new(StackKind::Posix).with_socket_failures(1, 1);
    for broken in 1..=3 {
        let mut net = Net::new(StackKind::Posix);
        net.driver = stack.clone().driver(broken).unwrap();
        let (client, _server) = net.pair(LOOPBACK, &SocketOptions::default());
        assert!(net.recv(client).is_err());
        assert!(net.recv(client).is_err(), "it breaks once");
        assert_eq!(stack.injected_failures(), broken as u64);
    }
}
