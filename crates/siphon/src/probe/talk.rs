//! What is said with an address: just enough to be told what it is, and never enough to be let in.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use siphon_auth::{AuthMethod, ConnectionMode, NoneHello};
use siphon_messages::mon::Release;
use siphon_proto::Protocol;
use siphon_proto::v1::{self, Connect, ConnectReply, LOSSY, ServerAddrs, tag};
use siphon_proto::v2::{
    Assembler, AuthBadMethodFrame, AuthDoneFrame, AuthRequestFrame, Banner, BannerError,
    BannerFeatures, BannerReader, Disassembler, Frame, Framing, Hello, Limits, Protection,
    Revision, Tag,
};

use siphon_wire::buf::{Input, Rope, SegmentPool};
use siphon_wire::types::{AddrType, EntityAddr, EntityType, Features};
use siphon_wire::{Decode, Decoder, Encode};

use super::failure::Failure;
use super::line::{Line, time_left};

/// Bytes that are enough to tell what a stranger is.
pub(super) const ENOUGH: usize = 64;
/// How long a peer has to speak first, and a stranger to finish its sentence: at most that, and at most
/// a quarter of the time that is left.
const QUIET: Duration = Duration::from_secs(2);
/// What we are to those we ask.
const WE: EntityType = EntityType::CLIENT;
/// A version of msgr1's protocol that nobody has, so that everybody tells its own.
const NO_VERSION: u32 = u32::MAX;

/// Where something may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An address.
    Addr(SocketAddr),
    /// A host that is to be looked up, and a port.
    Host(String, u16),
}

/// What an address turned out to be.
#[derive(Debug)]
pub(super) enum Seen {
    /// msgr2.
    Msgr2(Box<Msgr2>),
    /// msgr1.
    Msgr1(Box<Msgr1>),
    /// It says something else.
    Stranger {
        /// What it begins with, at most [`ENOUGH`] bytes.
        first: Bytes,
        /// Whether it waited for us to speak.
        spoken_to: bool,
    },
    /// It begins as Ceph does, and goes no further than these bytes.
    HalfABanner(Bytes, Failure),
    /// It accepts the connection and says nothing, although it was spoken to.
    Silent,
    /// It says nothing and closes the connection.
    Closed {
        /// Whether it waited for us to speak.
        spoken_to: bool,
    },
    /// There is no conversation.
    Nothing(Failure),
}

/// What msgr2 tells without a key.
#[derive(Debug)]
pub(super) struct Msgr2 {
    pub(super) banner: Banner,
    pub(super) hello: Option<Hello>,
    /// The methods and modes that would do.
    pub(super) offers: Option<AuthBadMethodFrame>,
    /// What it makes of method `none`, if it allows that.
    pub(super) none: Option<Result<AuthDoneFrame, Failure>>,
    /// Why not all of it is known.
    pub(super) failure: Option<Failure>,
}

/// What msgr1 tells without a key.
#[derive(Debug, Default)]
pub(super) struct Msgr1 {
    pub(super) addrs: Option<ServerAddrs>,
    /// Its answer to a version that nobody has: its own version, and all its features.
    pub(super) about: Option<ConnectReply>,
    /// Its answer to a client of the right version without an authorizer.
    pub(super) without_key: Option<ConnectReply>,
    /// If it wants one: its answer to one of method `none`.
    pub(super) none: Option<Result<ConnectReply, Failure>>,
    /// Why not all of it is known.
    pub(super) failure: Option<Failure>,
}

impl Msgr2 {
    /// What it speaks with us.
    pub(super) fn protocol(&self) -> Protocol {
        Protocol::Msgr2(revision(self.banner))
    }

    /// The oldest release that it can be: msgr2 came with Nautilus, and its compression with Quincy.
    pub(super) fn release(&self) -> Release {
        match self.banner.supported.contains(BannerFeatures::COMPRESSION) {
            true => Release::QUINCY,
            false => Release::NAUTILUS,
        }
    }
}

impl Msgr1 {
    /// What answers here, if its version of the protocol tells.
    pub(super) fn daemon(&self) -> Option<EntityType> {
        let version = self.about?.protocol_version;
        let kinds = [EntityType::MON, EntityType::OSD, EntityType::MDS];
        kinds.into_iter().find(|kind| v1::protocol_version(WE, *kind) == version)
    }

    /// The oldest release that it can be.
    pub(super) fn release(&self) -> Option<Release> {
        let release = Release::of_features(self.about?.features);
        (release != Release::UNKNOWN).then_some(release)
    }
}

/// Talks with what listens at `place`, until the deadline at most. Tells whom it was, if it connected.
pub(super) fn talk(place: &Place, kind: AddrType, deadline: Instant) -> (Option<SocketAddr>, Seen) {
    let line = look_up(place, deadline).and_then(|addrs| Line::connect(&addrs, deadline));
    match line {
        Ok(mut line) => {
            let peer = line.peer();
            let seen = match listen(&mut line, kind) {
                Seen::Closed { spoken_to: true } => speak_tls(peer, deadline),
                seen => seen,
            };
            (Some(peer), seen)
        }
        Err(failure) => (None, Seen::Nothing(failure)),
    }
}

/// Servers of TLS hang up on what is not TLS, many without a word. To an empty ClientHello they answer
/// with an alert.
fn speak_tls(peer: SocketAddr, deadline: Instant) -> Seen {
    let answer = Line::connect(&[peer], deadline).and_then(|mut line| {
        line.say(EMPTY_CLIENT_HELLO)?;
        line.listen()?;
        Ok(stranger(&mut line, true))
    });
    answer.unwrap_or(Seen::Closed { spoken_to: true })
}

/// A record (22) of TLS 1.0, as it is in every ClientHello, with a handshake message (1) of no length
/// (RFC 8446, 4 and 5.1).
const EMPTY_CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00";

/// The system's search for a host can't be interrupted: what takes too long is left behind.
fn look_up(place: &Place, deadline: Instant) -> Result<Vec<SocketAddr>, Failure> {
    let (host, port) = match place {
        Place::Addr(addr) => return Ok(vec![*addr]),
        Place::Host(host, port) => (host.clone(), *port),
    };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody waits any more if this comes too late.
        let _ = sender.send(found);
    });
    let found = receiver.recv_timeout(time_left(deadline)?);
    found.map_err(|_| Failure::NotFoundInTime)?.map_err(Failure::NoHost)
}

/// Whoever accepts a connection says its banner first, in both protocols. Others may wait to be spoken
/// to, and tell by their complaint what they are.
fn listen(line: &mut Line, kind: AddrType) -> Seen {
    let quiet = line.quarter(QUIET);
    let mut spoken = false;
    loop {
        let mut rest = line.heard();
        let banner = BannerReader::default().feed(&mut rest);
        let banner_len = line.heard().len() - rest.len();
        match banner {
            Ok(Some(banner)) => {
                line.take(banner_len);
                return Seen::Msgr2(Box::new(msgr2(line, banner, spoken)));
            }
            Ok(None) => {}
            Err(BannerError::V1Peer) => return Seen::Msgr1(Box::new(msgr1(line, spoken))),
            Err(BannerError::NotCeph { .. }) => return stranger(line, spoken),
            Err(error) => return half(line, Failure::Banner(error)),
        }
        let heard = match spoken || !line.heard().is_empty() {
            true => line.listen(),
            false => match line.listen_until(quiet) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    spoken = true;
                    line.say(&greeting(kind))
                }
                Err(failure) => Err(failure),
            },
        };
        match heard {
            Ok(()) => {}
            Err(failure) if !line.heard().is_empty() => return half(line, failure),
            Err(Failure::TimedOut) => return Seen::Silent,
            Err(Failure::Closed) => return Seen::Closed { spoken_to: spoken },
            Err(failure) => return Seen::Nothing(failure),
        }
    }
}

/// What a client of the protocol says first.
fn greeting(kind: AddrType) -> BytesMut {
    let mut bytes = BytesMut::new();
    match kind {
        AddrType::LEGACY => bytes.extend_from_slice(v1::BANNER),
        _ => OUR_BANNER.encode(&mut bytes),
    }
    bytes
}

const OUR_BANNER: Banner =
    Banner { supported: BannerFeatures::ALL, required: BannerFeatures::NONE };

fn half(line: &mut Line, failure: Failure) -> Seen {
    Seen::HalfABanner(line.take(ENOUGH), failure)
}

/// Hears a line of it, or enough, or until it is quiet.
fn stranger(line: &mut Line, spoken_to: bool) -> Seen {
    let until = line.quarter(QUIET);
    while line.heard().len() < ENOUGH && !line.heard().contains(&b'\n') {
        if !matches!(line.listen_until(until), Ok(true)) {
            break;
        }
    }
    Seen::Stranger { first: line.take(ENOUGH), spoken_to }
}

fn msgr2(line: &mut Line, banner: Banner, spoken: bool) -> Msgr2 {
    let mut seen = Msgr2 { banner, hello: None, offers: None, none: None, failure: None };
    seen.failure = talk2(line, &mut seen, spoken).err();
    seen
}

fn revision(banner: Banner) -> Revision {
    match banner.supported.contains(BannerFeatures::REVISION_1) {
        true => Revision::Rev1,
        false => Revision::Rev0,
    }
}

fn talk2(line: &mut Line, seen: &mut Msgr2, spoken: bool) -> Result<(), Failure> {
    if !spoken {
        line.say(&greeting(AddrType::MSGR2))?;
    }
    seen.banner.check(OUR_BANNER).map_err(Failure::Banner)?;
    let mut frames = Frames::new(revision(seen.banner));
    let peer_addr = EntityAddr::msgr2(line.peer(), 0);
    frames.say(line, Tag::HELLO, &Hello { entity_type: WE, peer_addr })?;
    let hello: Hello = frames.expect(line, Tag::HELLO)?;
    let daemon = hello.entity_type;
    seen.hello = Some(hello);
    frames.hear_more();
    // A server first looks for a mode among those that the client names. Finding none, it refuses,
    // and tells what it would have taken, before it looks at any proof: all kinds of daemons do
    // (`ProtocolV2::handle_auth_request`).
    let (method, payload) = (AuthMethod::CEPHX, Bytes::new());
    let question = AuthRequestFrame { method, preferred_modes: Vec::new(), payload };
    frames.say(line, Tag::AUTH_REQUEST, &question)?;
    let offers: AuthBadMethodFrame = frames.expect(line, Tag::AUTH_BAD_METHOD)?;
    let open_to_all = offers.allowed_methods.contains(&AuthMethod::NONE);
    seen.offers = Some(offers);
    if open_to_all {
        seen.none = Some(ask_none(line, &mut frames, daemon));
    }
    Ok(())
}

/// Authenticates by `none`, and leaves.
fn ask_none(
    line: &mut Line,
    frames: &mut Frames,
    daemon: EntityType,
) -> Result<AuthDoneFrame, Failure> {
    let (method, preferred_modes) = (AuthMethod::NONE, vec![ConnectionMode::CRC]);
    let request = AuthRequestFrame { method, preferred_modes, payload: none_hello(daemon) };
    frames.say(line, Tag::AUTH_REQUEST, &request)?;
    frames.expect(line, Tag::AUTH_DONE)
}

/// Who we say that we are, where everybody is believed.
fn none_hello(daemon: EntityType) -> Bytes {
    let mode = match daemon {
        EntityType::MON => NoneHello::MON,
        _ => NoneHello::AUTHORIZER,
    };
    NoneHello { mode, entity_type: WE, id: "admin".to_owned(), global_id: 0 }
        .to_bytes(Features::ALL)
}

/// Frames on a line.
struct Frames {
    tx: Assembler,
    rx: Disassembler,
}

impl Frames {
    fn new(revision: Revision) -> Self {
        let framing = Framing { revision, protection: Protection::Crc { data: true } };
        let rx = Disassembler::new(framing, Limits::BEFORE_HELLO, SegmentPool::new(0));
        Self { tx: Assembler::new(framing), rx }
    }

    fn hear_more(&mut self) {
        self.rx.set_limits(Limits::HANDSHAKE);
    }

    fn say(&mut self, line: &mut Line, tag: Tag, frame: &impl Encode) -> Result<(), Failure> {
        let mut out = Rope::new();
        self.tx.control(tag, &frame.to_bytes(Features::ALL));
        self.tx.flush(&mut out);
        out.segments().iter().try_for_each(|bytes| line.say(bytes))
    }

    /// The next frame, which must be this one.
    fn expect<T: Decode>(&mut self, line: &mut Line, expected: Tag) -> Result<T, Failure> {
        let frame = line.parse(|bytes| {
            let mut input = Input::from(*bytes);
            let frame = self.rx.feed(&mut input)?;
            *bytes = input.rest();
            Ok(frame)
        })?;
        match frame {
            Frame::Control { tag, payload } if tag == expected => {
                let parsed = T::decode(&mut Decoder::new(&payload));
                parsed.map_err(|error| Failure::Payload(tag.name(), error))
            }
            Frame::Control { tag: found, .. } => Err(Failure::UnexpectedFrame { found, expected }),
            Frame::Message(_) | Frame::Aborted => Err(Failure::NoControlFrame),
        }
    }
}

fn msgr1(line: &mut Line, spoken: bool) -> Msgr1 {
    let mut seen = Msgr1::default();
    seen.failure = talk1(line, &mut seen, spoken).err();
    seen
}

fn talk1(line: &mut Line, seen: &mut Msgr1, spoken: bool) -> Result<(), Failure> {
    if line.exactly(v1::BANNER.len())? != v1::BANNER[..] {
        return Err(Failure::OldBanner);
    }
    let addrs = ServerAddrs::decode(&line.exactly(ServerAddrs::LEN)?);
    seen.addrs = Some(addrs.map_err(|error| Failure::Payload("addresses", error))?);
    let mut out = if spoken { BytesMut::new() } else { greeting(AddrType::LEGACY) };
    // We listen nowhere: the server takes the address from the socket.
    let ours = SocketAddr::from(([0, 0, 0, 0], 0));
    v1::put_addr(&EntityAddr::legacy(ours, 0), &mut out);
    // To another version of the protocol a server answers with its own, and its answer has all
    // features of ours that it supports. It goes on listening (`ProtocolV1::handle_connect_message_2`).
    let mut connect = Connect {
        features: Features(u64::MAX),
        host_type: u32::from(WE.0),
        protocol_version: NO_VERSION,
        flags: LOSSY,
        ..Connect::default()
    };
    connect.encode(&mut out);
    line.say(&out)?;
    let about = connect_reply(line)?;
    seen.about = Some(about);
    connect.features = Features::ALL_SUPPORTED;
    connect.protocol_version = about.protocol_version;
    let reply = ask1(line, connect, &[])?;
    seen.without_key = Some(reply);
    if reply.tag == tag::BADAUTHORIZER {
        connect.authorizer_protocol = AuthMethod::NONE.0;
        let authorizer = none_hello(seen.daemon().unwrap_or(EntityType::ANY));
        seen.none = Some(ask1(line, connect, &authorizer));
    }
    Ok(())
}

fn ask1(line: &mut Line, mut connect: Connect, authorizer: &[u8]) -> Result<ConnectReply, Failure> {
    let mut out = BytesMut::new();
    connect.authorizer_len = u32::try_from(authorizer.len()).unwrap_or(u32::MAX);
    connect.encode(&mut out);
    out.extend_from_slice(authorizer);
    line.say(&out)?;
    connect_reply(line)
}

fn connect_reply(line: &mut Line) -> Result<ConnectReply, Failure> {
    let reply = ConnectReply::decode(&line.exactly(ConnectReply::LEN)?);
    if tag::name(reply.tag).is_none() {
        return Err(Failure::UnknownTag(reply.tag));
    }
    if reply.authorizer_len > v1::MAX_AUTHORIZER {
        return Err(Failure::LongAuthorizer(reply.authorizer_len));
    }
    line.exactly(reply.authorizer_len as usize)?;
    Ok(reply)
}
