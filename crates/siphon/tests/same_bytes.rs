//! Our conversations and Ceph's, recorded on the wire and laid side by side: the same exchange is
//! the same bytes, but for what is new each time.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::{Buf, Bytes};
use common::{Listening, TIMEOUT, siphon, stdout};
use siphon_peers::{CephMon, MonOptions, MonProtocols, ceph, free_ports, require};
use siphon_proto::v2::{
    AuthDoneFrame, AuthRequestFrame, ClientIdent, Hello, MessageHeader2, ServerIdent, Tag,
};
use siphon_wire::types::{EntityAddr, EntityAddrVec, Features};
use siphon_wire::{Decode, Decoder};

/// Connections that a recorder takes: Ceph's client may come again.
const MAX_CONNECTIONS: usize = 16;
/// `MPing`'s number (`CEPH_MSG_PING`).
const PING: u16 = 2;
const BANNER: usize = 26;
const PREAMBLE: usize = 32;

/// What went over one connection, a stream for each direction.
#[derive(Clone, Debug, Default)]
struct Recording {
    client: Vec<u8>,
    server: Vec<u8>,
}

type Tape = Arc<Mutex<Vec<Arc<Mutex<Recording>>>>>;

/// A TCP proxy that keeps what passes.
struct Recorder {
    addr: SocketAddr,
    tape: Tape,
    stopped: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Recorder {
    /// Both sides compare the address that is called with the one that the server knows as its own:
    /// the recorder is at that address, the server listens at another.
    fn start(addr: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let tape = Tape::default();
        let stopped = Arc::new(AtomicBool::new(false));
        let (copies, stop) = (Arc::clone(&tape), Arc::clone(&stopped));
        let thread = thread::spawn(move || {
            for client in listener.incoming().take(MAX_CONNECTIONS) {
                let (Ok(client), false) = (client, stop.load(Ordering::Relaxed)) else { return };
                let Ok(server) = TcpStream::connect(server) else { return };
                let own = Arc::new(Mutex::new(Recording::default()));
                lock(&copies).push(Arc::clone(&own));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let copy = Arc::clone(&own);
                thread::spawn(move || {
                    forward(from, to, |bytes| lock(&copy).client.extend(bytes));
                });
                thread::spawn(move || {
                    forward(server, client, |bytes| lock(&own).server.extend(bytes));
                });
            }
        });
        Self { addr, tape, stopped, thread: Some(thread) }
    }

    /// What `client` and the server say while a ping is answered.
    fn record(&self, client: Command) -> Recording {
        lock(&self.tape).clear();
        stdout(client);
        let is_ping = |frame: &RawFrame| frame.message_type() == Some(PING);
        let answered = |it: &Recording| Stream::parse(&it.server).frames.iter().any(is_ping);
        let recordings: Vec<_> = lock(&self.tape).drain(..).map(|one| lock(&one).clone()).collect();
        recordings.into_iter().find(answered).expect("a ping was answered")
    }
}

/// Lets go of the address.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr); // it waits for somebody
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Recorded first, forwarded then: who has an answer finds it on the tape.
fn forward(mut from: TcpStream, mut to: TcpStream, mut record: impl FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        record(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

#[derive(Debug)]
struct Conversation {
    client: Stream,
    server: Stream,
}

impl Conversation {
    fn parse(recording: &Recording) -> Self {
        Self { client: Stream::parse(&recording.client), server: Stream::parse(&recording.server) }
    }
}

/// One direction.
#[derive(Debug)]
struct Stream {
    banner: Vec<u8>,
    frames: Vec<RawFrame>,
}

impl Stream {
    /// By the layout of revision 1 only, apart from the code under test. The end may be cut.
    fn parse(bytes: &[u8]) -> Self {
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut frames = Vec::new();
        let banner = rest.split_to(BANNER.min(rest.len())).to_vec();
        while let Some(frame) = RawFrame::take(&mut rest) {
            frames.push(frame);
        }
        Self { banner, frames }
    }

    fn tags(&self) -> Vec<Tag> {
        self.frames.iter().map(|frame| frame.tag).collect()
    }

    fn only(&self, tag: Tag) -> &RawFrame {
        let mut found = self.frames.iter().filter(|frame| frame.tag == tag);
        let frame = found.next().unwrap_or_else(|| panic!("no {tag:?} in {:?}", self.tags()));
        assert!(found.next().is_none(), "two of {tag:?}");
        frame
    }

    fn payload<T: Decode>(&self, tag: Tag) -> T {
        let payload = &self.only(tag).segments[0];
        let mut decoder = Decoder::new(payload);
        let value = T::decode(&mut decoder).unwrap();
        decoder.finish().unwrap();
        value
    }

    fn ping(&self) -> &RawFrame {
        let is_ping = |frame: &&RawFrame| frame.message_type() == Some(PING);
        self.frames.iter().find(is_ping).expect("a ping")
    }

    /// The frames up to the ping. Ceph's client asks for the map of monitors on the way, which is
    /// left out.
    fn to_ping(&self) -> Vec<&RawFrame> {
        let end = self.frames.iter().position(|frame| frame.message_type() == Some(PING));
        let frames = self.frames[..=end.expect("a ping")].iter();
        frames.filter(|frame| frame.message_type().is_none_or(|kind| kind == PING)).collect()
    }

    fn tags_to_ping(&self) -> Vec<Tag> {
        self.to_ping().iter().map(|frame| frame.tag).collect()
    }

    /// The ping's header without its place in the conversation.
    fn ping_header(&self) -> MessageHeader2 {
        MessageHeader2 { seq: 0, ack_seq: 0, ..self.ping().header().expect("a message") }
    }
}

#[derive(Debug)]
struct RawFrame {
    tag: Tag,
    preamble: Bytes,
    alignments: [u16; 4],
    segments: Vec<Bytes>,
}

impl RawFrame {
    fn take(rest: &mut Bytes) -> Option<Self> {
        let mut bytes = rest.clone();
        if bytes.len() < PREAMBLE {
            return None;
        }
        let preamble = bytes.split_to(PREAMBLE);
        let mut fields = preamble.clone();
        let tag = Tag::from_wire(fields.get_u8()).expect("a known tag");
        let count = usize::from(fields.get_u8());
        let mut lengths = [0; 4];
        let mut alignments = [0; 4];
        for (length, alignment) in lengths.iter_mut().zip(&mut alignments) {
            *length = fields.get_u32_le() as usize;
            *alignment = fields.get_u16_le();
        }
        let crcs = if count > 1 { 4 + 13 } else { 4 };
        let crcs = if lengths[0] == 0 { crcs - 4 } else { crcs };
        if bytes.len() < lengths.iter().sum::<usize>() + crcs {
            return None;
        }
        let mut segments = Vec::new();
        for (index, length) in lengths.into_iter().take(count).enumerate() {
            segments.push(bytes.split_to(length));
            if index == 0 && length > 0 {
                bytes.advance(4);
            }
        }
        if count > 1 {
            bytes.advance(13);
        }
        *rest = bytes;
        Some(Self { tag, preamble, alignments, segments })
    }

    fn header(&self) -> Option<MessageHeader2> {
        let header = self.segments.first()?.as_ref().try_into().ok()?;
        (self.tag == Tag::MESSAGE).then(|| MessageHeader2::decode(header))
    }

    fn message_type(&self) -> Option<u16> {
        Some(self.header()?.message.msg_type)
    }

    /// Count, lengths and alignments of the segments.
    fn shape(&self) -> (Vec<usize>, [u16; 4]) {
        (self.segments.iter().map(Bytes::len).collect(), self.alignments)
    }
}

/// Without what is new each time.
fn mask_addr(addr: EntityAddr) -> EntityAddr {
    EntityAddr::new(addr.kind(), 0, addr.socket_addr().map(|addr| (addr.ip(), 0).into()))
}

fn mask_addrs(addrs: &EntityAddrVec) -> EntityAddrVec {
    EntityAddrVec(addrs.iter().copied().map(mask_addr).collect())
}

/// Without what differs from run to run, and without the features: Ceph 16.2's are Pacific's, ours
/// are Reef's.
fn masked_client_ident(stream: &Stream) -> ClientIdent {
    let ident: ClientIdent = stream.payload(Tag::CLIENT_IDENT);
    ClientIdent {
        addrs: mask_addrs(&ident.addrs),
        target_addr: mask_addr(ident.target_addr),
        global_seq: 0,
        supported_features: Features::default(),
        cookie: 0,
        ..ident
    }
}

fn masked_server_ident(stream: &Stream) -> ServerIdent {
    let ident: ServerIdent = stream.payload(Tag::SERVER_IDENT);
    ServerIdent {
        addrs: mask_addrs(&ident.addrs),
        gid: 0,
        global_seq: 0,
        supported_features: Features::default(),
        required_features: Features::default(),
        cookie: 0,
        ..ident
    }
}

/// A monitor behind a recorder, and the address of both.
fn recorded_monitor() -> Option<(CephMon, Recorder, SocketAddr)> {
    require(ceph())?;
    let [port] = free_ports();
    let hidden = SocketAddr::from(([127, 0, 0, 1], port));
    let config = vec![format!("public_bind_addr = v2:{hidden}")];
    let options = MonOptions { protocols: MonProtocols::V2, config, ..MonOptions::default() };
    let mon = require(CephMon::start(options))?;
    let addr = mon.addr_v2()?;
    let recorder = Recorder::start(addr, hidden);
    // Until it can hand out global ids it hangs up; Ceph's own clients come again.
    recorder.record(their_ping(addr));
    Some((mon, recorder, addr))
}

fn our_ping(addr: SocketAddr) -> Command {
    siphon(["ping", "mon", &addr.to_string()])
}

fn their_ping(addr: SocketAddr) -> Command {
    let mut ping = ceph().unwrap();
    ping.args(["-m", &format!("v2:{addr}"), "ping", "mon.noname-a"]);
    ping
}

/// Pacific knows of no compression, and says nothing of it; else a banner is as its own.
fn without_compression(banner: &[u8]) -> Vec<u8> {
    let mut banner = banner.to_vec();
    banner[10] &= !2;
    banner
}

fn same_client_side(ours: &Stream, theirs: &Stream) {
    assert_eq!(without_compression(&ours.banner), theirs.banner);
    assert_eq!(ours.tags_to_ping(), theirs.tags_to_ping());
    for (ours, theirs) in ours.to_ping().iter().zip(theirs.to_ping()) {
        assert_eq!(ours.shape(), theirs.shape(), "{:?}", ours.tag);
        assert_eq!(ours.preamble, theirs.preamble, "{:?}", ours.tag);
    }
    let hello = |stream: &Stream| {
        let hello: Hello = stream.payload(Tag::HELLO);
        Hello { peer_addr: mask_addr(hello.peer_addr), ..hello }
    };
    assert_eq!(hello(ours), hello(theirs));
    let request = |stream: &Stream| stream.payload::<AuthRequestFrame>(Tag::AUTH_REQUEST);
    assert_eq!(request(ours), request(theirs));
    let signature = |stream: &Stream| stream.only(Tag::AUTH_SIGNATURE).segments.clone();
    assert_eq!(signature(ours), signature(theirs));
    assert_eq!(masked_client_ident(ours), masked_client_ident(theirs));
    assert_eq!(ours.ping_header(), theirs.ping_header());
    assert_eq!(ours.ping().segments[1..], theirs.ping().segments[1..]);
}

#[test]
fn our_ping_and_ceph_s_are_the_same_to_a_monitor() {
    let Some((_mon, recorder, addr)) = recorded_monitor() else { return };
    let theirs = Conversation::parse(&recorder.record(their_ping(addr)));
    let ours = Conversation::parse(&recorder.record(our_ping(addr)));
    same_client_side(&ours.client, &theirs.client);
    // And so the monitor answers both in the same way.
    same_server_side(&ours.server, &theirs.server);
}

/// An echo is told what Ceph's client told a monitor, byte for byte.
#[test]
fn an_echo_answers_as_a_monitor_does() {
    let Some((mon, recorder, addr)) = recorded_monitor() else { return };
    let theirs = recorder.record(their_ping(addr));
    drop((recorder, mon));
    let echo = Listening::start_at(addr, ["echo", "ADDR", "--as", "mon.a"]);
    let ours = replay(echo.addr, &theirs.client);
    let theirs = Stream::parse(&theirs.server);
    same_server_side(&ours, &theirs);
    // A monitor insists on more than an echo needs.
    let required =
        |stream: &Stream| stream.payload::<ServerIdent>(Tag::SERVER_IDENT).required_features;
    assert_eq!(required(&ours).0 & !required(&theirs).0, 0);
}

/// Says what a client said, and hears until the ping is answered.
fn replay(server: SocketAddr, client: &[u8]) -> Stream {
    let mut socket = TcpStream::connect(server).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.write_all(client).unwrap();
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "hung up after {:?}", Stream::parse(&heard).tags());
        heard.extend(&buffer[..count]);
        let stream = Stream::parse(&heard);
        if stream.frames.iter().any(|frame| frame.message_type() == Some(PING)) {
            return stream;
        }
    }
}

fn same_server_side(ours: &Stream, theirs: &Stream) {
    assert_eq!(without_compression(&ours.banner), theirs.banner);
    assert_eq!(ours.tags_to_ping(), theirs.tags_to_ping());
    for tag in [Tag::HELLO, Tag::AUTH_DONE, Tag::AUTH_SIGNATURE, Tag::SERVER_IDENT] {
        assert_eq!(ours.only(tag).preamble, theirs.only(tag).preamble, "{tag:?}");
    }
    let hello = |stream: &Stream| {
        let hello: Hello = stream.payload(Tag::HELLO);
        Hello { peer_addr: mask_addr(hello.peer_addr), ..hello }
    };
    assert_eq!(hello(ours), hello(theirs));
    let done = |stream: &Stream| AuthDoneFrame {
        global_id: 0,
        ..stream.payload::<AuthDoneFrame>(Tag::AUTH_DONE)
    };
    assert_eq!(done(ours), done(theirs));
    assert_eq!(masked_server_ident(ours), masked_server_ident(theirs));
    assert_eq!(ours.ping().alignments, theirs.ping().alignments);
    assert_eq!(ours.ping_header(), theirs.ping_header());
}
