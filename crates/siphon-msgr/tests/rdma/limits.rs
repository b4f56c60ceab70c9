//! RDMA at the ends of what there is: few chunks, chunks of the least size, peers that are nobody.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack};
use siphon_proto::{Message, MessageHeader, OutMessage, Payload, Policy};
use siphon_wire::types::{EntityAddrVec, EntityType};

use crate::common::{bound, messenger};
use crate::{HUNG, devices, rdma};

/// Answers with what came, which it keeps until the answer is sent; or tells what came.
struct Echo {
    answers: bool,
    bytes: AtomicU64,
    told: Sender<u64>,
}

impl Dispatcher for Echo {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, mut message: Message) {
        self.bytes.fetch_add(message.payload.data.len() as u64, Ordering::Relaxed);
        let tid = message.header.tid;
        if self.answers {
            let _ = connection.send(of_type_42(tid, std::mem::take(&mut message.payload))); // it may have ended
        }
        let _ = self.told.send(tid);
    }
}

fn of_type_42(tid: u64, payload: Payload) -> OutMessage {
    OutMessage::new(MessageHeader { msg_type: 42, tid, ..Default::default() }, payload)
}

/// A messenger on rxe0, with these options.
struct Side {
    stack: Stack,
    messenger: Messenger,
    told: Receiver<u64>,
    echo: Arc<Echo>,
}

impl Side {
    fn new(options: &str, answers: bool) -> Self {
        let context = rdma("rxe0", options, |_| {});
        let stack = Stack::new(&context).unwrap();
        let (sender, told) = channel();
        let echo = Arc::new(Echo { answers, bytes: AtomicU64::new(0), told: sender });
        let (kind, policy) = match answers {
            true => (EntityType::MDS, Policy::STATEFUL_SERVER),
            false => (EntityType::CLIENT, Policy::LOSSLESS_CLIENT),
        };
        let messenger = messenger(&context, &stack, kind, policy, &[Arc::clone(&echo) as _]);
        Self { stack, messenger, told, echo }
    }

    fn server(options: &str) -> (Self, EntityAddrVec) {
        let server = Self::new(options, true);
        let addrs = bound(&server.messenger, &["v2:127.0.0.1:0/0"]);
        (server, addrs)
    }

    /// Has messages of this length answered, `window` at a time.
    fn exchange(&self, peer: &Connection, count: u64, len: usize, window: u64) {
        let data = Bytes::from(vec![7; len]);
        let before = self.echo.bytes.load(Ordering::Relaxed);
        let mut asked = 0;
        for answered in 0..count {
            while asked < count && asked < answered + window {
                let payload = Payload { data: data.clone().into(), ..Payload::default() };
                peer.send(of_type_42(asked, payload)).unwrap();
                asked += 1;
            }
            assert_eq!(self.told.recv_timeout(HUNG).expect("an answer in time"), answered);
        }
        let bytes = self.echo.bytes.load(Ordering::Relaxed) - before;
        assert_eq!(bytes, count * len as u64);
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        pollster::block_on(self.messenger.shutdown_within(Duration::ZERO));
    }
}

/// A chunk of 4 KiB is as long as those for short sends; such chunks were put where nobody looked for
/// them, and when all were, nothing was sent any more.
#[test]
fn chunks_of_the_least_size_are_used_again() {
    let Some(_alone) = devices() else { return };
    let options = "ms_async_rdma_buffer_size=4096 ms_async_rdma_send_buffers=64";
    let (server, addrs) = Side::server(options);
    let client = Side::new(options, false);
    let peer = client.messenger.connect_to(EntityType::MDS, addrs);
    client.exchange(&peer, 1000, 4096, 16);
    client.exchange(&peer, 20, 100_000, 4);
    drop(client);
    println!("{:?}", server.stack.rdma().unwrap().counts());
}

/// A queue of so few sends was full before one of them told of its end, and nothing was sent any more.
#[test]
fn the_fewest_send_buffers_carry_messages_of_any_length() {
    let Some(_alone) = devices() else { return };
    for buffers in [2, 5, 66] {
        let options = format!("ms_async_rdma_send_buffers={buffers}");
        let (server, addrs) = Side::server(&options);
        let client = Side::new(&options, false);
        let peer = client.messenger.connect_to(EntityType::MDS, addrs);
        for (len, window) in [(10, 1), (10, 200), (3000, 200), (100_000, 8), (10, 1)] {
            client.exchange(&peer, 200, len, window);
        }
        drop(client);
        println!("{buffers}: {:?}", server.stack.rdma().unwrap().counts());
    }
}

/// Where messages in arrival had all chunks there were, none was posted for their rest.
#[test]
fn a_window_of_more_than_all_chunks_stalls_nobody() {
    let Some(_alone) = devices() else { return };
    for options in ["", "ms_async_rdma_support_srq=false"] {
        let few = "ms_async_rdma_receive_buffers=8 ms_async_rdma_receive_queue_len=8";
        let few = format!("{few} {options}");
        let (server, addrs) = Side::server(&few);
        let client = Side::new("", false);
        let peer = client.messenger.connect_to(EntityType::MDS, addrs);
        client.exchange(&peer, 200, 64 << 10, 64);
        client.exchange(&peer, 4, 4 << 20, 2);
        let counts = server.stack.rdma().unwrap().counts();
        assert!(counts.rx_copied_bytes > 0, "{counts:?}");
    }
}

/// Connecting to a GID that nobody has takes a second in the kernel, which was the worker's.
#[test]
fn a_peer_that_nobody_has_holds_up_nobody_else() {
    let Some(_alone) = devices() else { return };
    let (server, addrs) = Side::server("");
    let client = Side::new("", false);
    let peer = client.messenger.connect_to(EntityType::MDS, addrs.clone());
    client.exchange(&peer, 1, 1000, 1);
    let addr = addrs.front().socket_addr().unwrap();
    let mut nobody = TcpStream::connect(addr).unwrap();
    nobody
        .write_all(b"0000:00000011:002d5c32:00000000:00000000000000000000ffff0a4d0063\0")
        .unwrap();
    client.exchange(&peer, 10, 1000, 1);
    nobody.set_nonblocking(true).unwrap();
    let nothing = nobody.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(nothing, Err(ErrorKind::WouldBlock), "it was answered before the others");
    nobody.set_nonblocking(false).unwrap();
    nobody.set_read_timeout(Some(HUNG)).unwrap();
    let end = nobody.read(&mut [0; 1]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    client.exchange(&peer, 10, 1000, 1);
    drop(server);
}

/// Each connection of TCP had a queue pair, with chunks posted for it, before it had said a word.
#[test]
fn who_says_nothing_takes_no_queue_pair_and_who_talks_otherwise_is_refused_at_once() {
    let Some(_alone) = devices() else { return };
    let (server, addrs) = Side::server("");
    let addr: SocketAddr = addrs.front().socket_addr().unwrap();
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let client = Side::new("", false);
    let peer = client.messenger.connect_to(EntityType::MDS, addrs);
    client.exchange(&peer, 1, 1000, 1);
    let counts = server.stack.rdma().unwrap().counts();
    assert_eq!(counts.created_queue_pair, 1, "{counts:?}");
    let mut other = TcpStream::connect(addr).unwrap();
    other.write_all(b"ceph v2\n").unwrap();
    other.set_read_timeout(Some(HUNG)).unwrap();
    let end = other.read(&mut [0; 1]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    drop(silent);
}

#[test]
fn an_address_of_another_device_is_refused_with_both_names() {
    let Some(_alone) = devices() else { return };
    let side = Side::new("ms_async_rdma_cm=true ms_bind_retry_count=0", true);
    let error = side.messenger.bind(&["v2:10.77.0.2:0/0".parse().unwrap()]).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    assert!(text.contains("rxe0") && text.contains("rxe1"), "{text}");
}
