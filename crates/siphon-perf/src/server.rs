use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use siphon_common::Config;
use siphon_messages::{MOSDOp, TypedMessage};
use siphon_msgr::{Connection, Dispatcher};
use siphon_proto::{Message, Throttle, Throttles};

use crate::work;

/// Requests that wait for a thread; a worker that has more waits itself.
const MAX_WAITING: usize = 4096;

/// How a server works.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerOptions {
    /// Threads that do the thinking.
    pub threads: usize,
    /// How long each request takes. At zero there is nothing to wait for, and the worker that
    /// received a request answers it.
    pub think_time: Duration,
}

/// Answers every `MOSDOp` by an `MOSDOpReply`: the dispatcher of the benchmark's server.
#[derive(Debug)]
pub struct Server {
    pool: Option<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// None only while it is being dropped.
    sender: Option<SyncSender<(Connection, Message)>>,
    threads: Vec<JoinHandle<()>>,
}

impl ServerOptions {
    /// What bounds requests that wait for a thread, for a messenger of this configuration:
    /// `ms_dispatch_throttle_bytes`. Who answers at once holds nothing.
    pub fn throttles(&self, config: &Config) -> Throttles {
        let bytes = || Throttle::new("perf_server_bytes", config.ms_dispatch_throttle_bytes);
        let bytes = (!self.think_time.is_zero()).then(bytes);
        Throttles { bytes, ..Throttles::default() }
    }
}

impl Server {
    /// A server's dispatcher.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(options: ServerOptions) -> std::io::Result<Self> {
        if options.think_time.is_zero() {
            return Ok(Self { pool: None });
        }
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for index in 0..options.threads.max(1) {
            let receiver = Arc::clone(&receiver);
            let name = std::thread::Builder::new().name(format!("perf-server-{index}"));
            threads.push(name.spawn(move || think(&receiver, options.think_time))?);
        }
        Ok(Self { pool: Some(Pool { sender: Some(sender), threads }) })
    }
}

impl Dispatcher for Server {
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.msg_type == MOSDOp::TYPE
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        match self.pool.as_ref().and_then(|pool| pool.sender.as_ref()) {
            Some(sender) => {
                let _ = sender.send((connection.clone(), message)); // its threads end with us
            }
            None => answer(connection, &message),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sender = None;
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn think(receiver: &Mutex<Receiver<(Connection, Message)>>, think_time: Duration) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((connection, message)) = next else {
            return;
        };
        std::thread::sleep(think_time);
        answer(&connection, &message);
    }
}

fn answer(connection: &Connection, request: &Message) {
    match work::answer(request) {
        // An error says that the peer is gone, and so is whoever waited for this.
        Ok(answer) => drop(connection.send(answer)),
        Err(error) => {
            tracing::warn!(peer = %connection, %error, "a request that cannot be decoded; closing");
            connection.mark_down();
        }
    }
}
