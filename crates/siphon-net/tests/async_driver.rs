//! The scenarios of Ceph's test_async_driver, under its names.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Instant;

use common::{Event, Net};
use rustix::event::{EventfdFlags, eventfd};
use rustix::pipe::{PipeFlags, pipe_with};
use siphon_net::{Completion, EventCenter, Handler, Interest, NetworkStack, Wait};

fn ready(net: &mut Net) -> (u64, bool, bool) {
    net.until(|event| match event {
        Event::FileReady { token, readable, writable } => Ok((token, readable, writable)),
        other => Err(other),
    })
}

fn assert_quiet(net: &mut Net) {
    net.wait(Wait::Poll);
    assert!(net.events.is_empty(), "{:?}", net.events);
}

#[test]
fn pipe_test() {
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let id = net.driver.register_file(reader.as_fd(), Interest::READABLE, 7).unwrap();
        assert_quiet(&mut net);

        for _ in 0..2 {
            rustix::io::write(&writer, b"A").unwrap();
            assert_eq!(ready(&mut net), (7, true, false));
        }
        // Level-triggered: what is not read is told again.
        assert_eq!(ready(&mut net), (7, true, false));
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]).unwrap(), 2);
        assert_quiet(&mut net);

        net.driver.deregister_file(id);
        rustix::io::write(&writer, b"A").unwrap();
        assert_quiet(&mut net);
        // The duplicate is gone: with the reader closed, nobody is left to write to.
        drop(reader);
        assert!(rustix::io::write(&writer, b"A").is_err());
    }
}

#[test]
fn network_socket_test() {
    const ROUNDS: usize = 30;
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let listening = net.driver.register_file(listener.as_fd(), Interest::READABLE, 1).unwrap();
        assert_quiet(&mut net);

        let echo_client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            for _ in 0..ROUNDS {
                stream.write_all(b"banner").unwrap();
                stream.read_exact(&mut [0; 6]).unwrap();
            }
        });
        assert_eq!(ready(&mut net), (1, true, false));
        let (mut stream, _) = listener.accept().unwrap();
        net.driver.deregister_file(listening);

        let id = net.driver.register_file(stream.as_fd(), Interest::READABLE, 2).unwrap();
        let mut rounds = 0;
        loop {
            assert_eq!(ready(&mut net), (2, true, false));
            let mut data = [0; 100];
            let count = stream.read(&mut data).unwrap();
            if count == 0 {
                break;
            }
            net.driver.modify_file(id, Interest::WRITABLE).unwrap();
            assert_eq!(ready(&mut net), (2, false, true));
            net.driver.modify_file(id, Interest::NONE).unwrap();
            assert_quiet(&mut net);
            stream.write_all(&data[..count]).unwrap();
            net.driver.modify_file(id, Interest::READABLE).unwrap();
            rounds += 1;
        }
        assert_eq!(rounds, ROUNDS);
        echo_client.join().unwrap();
        // A hang-up does not report itself to someone who asked for nothing.
        net.driver.modify_file(id, Interest::NONE).unwrap();
        assert_quiet(&mut net);
    }
}

#[test]
fn file_event_expansion() {
    const FILES: u64 = 300;
    for &kind in common::SYSTEM_STACKS {
        let mut net = Net::new(kind);
        let files: Vec<_> =
            (0..FILES).map(|_| eventfd(1, EventfdFlags::CLOEXEC).unwrap()).collect();
        let ids: Vec<_> = (0..FILES)
            .zip(&files)
            .map(|(token, file)| {
                net.driver.register_file(file.as_fd(), Interest::READABLE, token).unwrap()
            })
            .collect();
        // More than one wait takes; each is told nevertheless.
        let mut missing: std::collections::BTreeSet<u64> = (0..FILES).collect();
        while !missing.is_empty() {
            missing.remove(&ready(&mut net).0);
        }
        for &id in &ids {
            net.driver.deregister_file(id);
        }
        net.events.clear();
        assert_quiet(&mut net);
        assert!(net.driver.modify_file(ids[0], Interest::BOTH).is_err());
    }
}

/// Counts down in the worker's thread, and ends with a mail of `false`.
struct Dispatch {
    told: mpsc::Sender<()>,
    done: bool,
}

impl Handler for Dispatch {
    type Mail = bool;

    fn handle_completion(&mut self, _: Instant, completion: Completion<'_>) {
        panic!("nobody asked for {completion:?}");
    }

    fn handle_timer(&mut self, _: Instant, token: u64) {
        panic!("nobody set timer {token}");
    }

    fn handle_mail(&mut self, _: Instant, go_on: bool) {
        self.done = !go_on;
        self.told.send(()).unwrap();
    }

    fn drain(&mut self, _: &mut EventCenter) {}

    fn is_done(&self) -> bool {
        self.done
    }
}

/// Each round waits for both workers, which sleep in between or not: no wakeup may be lost.
#[test]
fn dispatch_test() {
    for &kind in common::SYSTEM_STACKS {
        let (told, counter) = mpsc::channel();
        let workers = NetworkStack::new(kind.here())
            .spawn(2, move |_, _| Dispatch { told: told.clone(), done: false })
            .unwrap();
        for _ in 0..10_000 {
            for sender in workers.senders() {
                sender.send(true);
            }
            for _ in workers.senders() {
                counter.recv().unwrap();
            }
        }
        for sender in workers.senders() {
            sender.send(false);
        }
        workers.join().unwrap();
    }
}
