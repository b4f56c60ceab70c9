//! On the RDMA devices of the machine that `cargo xtask rdma-vm` boots.
#![allow(clippy::disallowed_methods, reason = "waits for devices by the clock")]

mod forked;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use siphon_verbs::{
    Chunk, CmEvent, CmEventKind, CmId, CompletionQueue, ConnectParameters, Context, EventChannel,
    Gid, Mtu, PageKind, PathTo, Piece, PollRoom, PortState, ProtectionDomain, QueuePair,
    QueuePairOptions, SendRefused, SharedReceiveQueue, Transport, Verbs, WorkCompletion,
    WorkStatus, fork_init,
};
use smallvec::SmallVec;

const CHUNK: usize = 16 << 10;
const HUNG: Duration = Duration::from_secs(30);
const OPTIONS: QueuePairOptions =
    QueuePairOptions { max_send_wr: 64, max_recv_wr: 0, max_send_sge: 3, max_inline: 64 };

/// The devices, for one test at a time, since some count what there is; elsewhere a test skips.
fn devices() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if std::env::var_os("SIPHON_RDMA_VM").is_some() {
        return Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    println!("SKIPPED: needs RDMA devices: cargo xtask rdma-vm --suite");
    None
}

/// A device with queues to be used.
struct Side {
    context: Context,
    domain: ProtectionDomain,
    completions: CompletionQueue,
    receives: SharedReceiveQueue,
    chunks: Vec<Chunk>,
    room: PollRoom,
    done: Vec<WorkCompletion>,
}

impl Side {
    fn open(name: &str) -> Self {
        Self::new(Verbs::load().unwrap().open(name).unwrap())
    }

    fn new(context: Context) -> Self {
        let domain = ProtectionDomain::new(&context).unwrap();
        let completions = CompletionQueue::new(&context, 512).unwrap();
        let receives = SharedReceiveQueue::new(&domain, 64).unwrap();
        let mut posted = domain.register(CHUNK, 32, PageKind::Usual).unwrap();
        receives.post(&mut posted).unwrap();
        let chunks = domain.register(CHUNK, 32, PageKind::Usual).unwrap();
        let (room, done) = (PollRoom::default(), Vec::new());
        Self { context, domain, completions, receives, chunks, room, done }
    }

    fn queue_pair(&self) -> QueuePair {
        let Self { domain, completions, receives, .. } = self;
        QueuePair::new(domain, completions, completions, Some(receives), OPTIONS).unwrap()
    }

    fn cm_queue_pair(&self, id: &CmId) -> QueuePair {
        let Self { domain, completions, receives, .. } = self;
        let options = QueuePairOptions { max_send_sge: 1, ..OPTIONS };
        QueuePair::for_cm(id, domain, completions, completions, Some(receives), options).unwrap()
    }

    /// The GID by which RoCE v2 reaches the device at this address.
    fn gid(&self, ip: &str) -> (u8, Gid) {
        let gid: Gid = ip.parse().unwrap();
        let gids = self.context.gids(1).unwrap();
        let entry = gids.iter().find(|it| it.gid == gid).unwrap_or_else(|| panic!("{gids:?}"));
        (entry.index, gid)
    }

    /// Waits, by the channel, for what ended.
    fn next(&mut self) -> WorkCompletion {
        let hung = Instant::now() + HUNG;
        while self.done.is_empty() {
            assert!(Instant::now() < hung, "nothing ends");
            let done = &mut self.done;
            if self.completions.poll(&mut self.room, &mut |it| done.push(it)).unwrap() == 0 {
                self.completions.arm().unwrap();
                if self.completions.poll(&mut self.room, &mut |it| done.push(it)).unwrap() == 0 {
                    readable(&self.completions);
                    self.completions.take_events().unwrap();
                }
            }
        }
        self.done.remove(0)
    }

    /// Waits for a message, and returns its bytes.
    fn receive(&mut self) -> Vec<u8> {
        loop {
            let done = self.next();
            if done.queue() == self.receives.id() {
                let received = self.receives.complete(done).unwrap();
                assert_eq!(received.status, WorkStatus::SUCCESS);
                let bytes = received.chunk[..received.len].to_vec();
                self.receives.post(&mut vec![received.chunk]).unwrap();
                return bytes;
            }
            self.done.push(done);
        }
    }
}

fn readable(file: &impl std::os::fd::AsFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "nothing comes");
}

/// Connects two queue pairs by what each is told of the other.
fn connect(a: (&mut QueuePair, (u8, Gid)), b: (&mut QueuePair, (u8, Gid))) {
    let path = |from: u8, to: &QueuePair, gid: Gid, psn: u32| PathTo {
        qp_num: to.number(),
        psn,
        lid: 0,
        gid,
        gid_index: from,
        port: 1,
        mtu: Mtu::B1024,
        service_level: 0,
        traffic_class: 0,
        hop_limit: 6,
    };
    let (to_b, to_a) = (path(a.1.0, b.0, b.1.1, 7), path(b.1.0, a.0, a.1.1, 9));
    for (queue, path, psn) in [(a.0, to_b, 9), (b.0, to_a, 7)] {
        queue.init(1).unwrap();
        queue.connect(&path, psn).unwrap();
    }
}

fn piece(chunks: &mut Vec<Chunk>, bytes: &[u8]) -> Piece {
    let mut chunk = chunks.pop().expect("a chunk is free");
    chunk[..bytes.len()].copy_from_slice(bytes);
    Piece::Chunk(chunk, bytes.len())
}

fn send(queue: &mut QueuePair, pieces: impl IntoIterator<Item = Piece>) {
    let mut batch = queue.batch();
    batch.send(&mut pieces.into_iter().collect(), true).unwrap();
    assert_eq!(batch.post().unwrap(), 1);
}

/// Everything there is to know of what was made: `rdma resource`.
fn resources() -> String {
    let output = Command::new("rdma").args(["resource", "show"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn devices_tell_what_they_are() {
    let Some(_alone) = devices() else { return };
    let verbs = Verbs::load().unwrap();
    let devices = verbs.devices().unwrap();
    for (name, transport) in [("rxe0", Transport::InfiniBand), ("siw0", Transport::Iwarp)] {
        let device = devices.iter().find(|device| device.name == name).unwrap();
        assert_eq!(device.transport, transport, "{device}");
        let context = verbs.open(name).unwrap();
        let limits = context.limits().unwrap();
        assert!(limits.ports >= 1 && limits.max_qp > 100 && limits.max_sge >= 1, "{limits:?}");
        let port = context.port(1).unwrap();
        assert_eq!(port.state, PortState::Active, "{port:?}");
    }
    let (index, _) = Side::open("rxe0").gid("10.77.0.1");
    assert_eq!(index, 1);
    let error = verbs.open("mlx5_0").unwrap_err().to_string();
    assert!(error.contains("mlx5_0") && error.contains("rxe0"), "{error}");
}

#[test]
fn messages_go_between_devices_in_chains_of_pieces() {
    let Some(_alone) = devices() else { return };
    for peer in [("rxe0", "10.77.0.1"), ("rxe1", "10.77.0.2")] {
        let (mut a, mut b) = (Side::open("rxe0"), Side::open(peer.0));
        let (mut from, mut to) = (a.queue_pair(), b.queue_pair());
        connect((&mut from, a.gid("10.77.0.1")), (&mut to, b.gid(peer.1)));

        // Twenty messages by one chain, of which only the last tells of its end.
        let mut batch = from.batch();
        for n in 0..20u8 {
            let mut pieces: SmallVec<_> = [1, 400, 1000]
                .into_iter()
                .map(|len| piece(&mut a.chunks, &vec![n; len]))
                .take(usize::from(n % 3) + 1)
                .collect();
            batch.send(&mut pieces, n == 19).unwrap();
            if a.chunks.len() < 3 {
                a.chunks.extend(a.domain.register(CHUNK, 8, PageKind::Usual).unwrap());
            }
        }
        assert_eq!(batch.post().unwrap(), 20);
        for n in 0..20u8 {
            let len = [1, 401, 1401][usize::from(n % 3)];
            assert_eq!(b.receive(), vec![n; len], "message {n}");
        }
        let mut back = Vec::new();
        let posted = from.complete_send(a.next(), &mut |piece| back.push(piece)).unwrap();
        assert_eq!((posted.sends, posted.status), (20, WorkStatus::SUCCESS));
        assert_eq!(back.len(), 20 * 2 - 1, "1, 2, 3, 1, … pieces");

        // Inline, from memory that no device knows; and nothing at all.
        send(&mut to, [Piece::Inline(bytes::Bytes::from_static(b"inline"))]);
        send(&mut to, []);
        assert_eq!(a.receive(), b"inline");
        assert_eq!(a.receive(), b"");
        let long = bytes::Bytes::from(vec![0; 10_000]);
        let mut long = [Piece::Inline(long)].into_iter().collect();
        assert_eq!(to.batch().send(&mut long, true), Err(SendRefused::NotRegistered));
    }
}

#[test]
fn what_a_dying_queue_pair_had_comes_back() {
    let Some(_alone) = devices() else { return };
    let (mut a, b) = (Side::open("rxe0"), Side::open("rxe0"));
    let (mut from, mut to) = (a.queue_pair(), b.queue_pair());
    connect((&mut from, a.gid("10.77.0.1")), (&mut to, b.gid("10.77.0.1")));
    from.fail().unwrap();
    for n in 0..5 {
        let pieces = [piece(&mut a.chunks, &[n; 100])];
        send(&mut from, pieces);
    }
    let mut back = 0;
    while back < 5 {
        let posted = from.complete_send(a.next(), &mut |_| back += 1).unwrap();
        assert_eq!(posted.status, WorkStatus::FLUSHED);
    }
    assert_eq!(from.sends(), 0);
}

#[test]
fn a_message_longer_than_the_chunk_for_it_ends_the_connection() {
    let Some(_alone) = devices() else { return };
    let (mut a, mut b) = (Side::open("rxe0"), Side::open("rxe0"));
    let (mut from, mut to) = (a.queue_pair(), b.queue_pair());
    connect((&mut from, a.gid("10.77.0.1")), (&mut to, b.gid("10.77.0.1")));
    let mut large = a.domain.register(2 * CHUNK, 1, PageKind::Huge).unwrap();
    let len = large[0].len();
    send(&mut from, [Piece::Chunk(large.remove(0), len)]);
    let posted = from.complete_send(a.next(), &mut |_| {}).unwrap();
    // The standard has the first; rxe says the second.
    let expected = [WorkStatus::REMOTE_INVALID_REQUEST, WorkStatus::REMOTE_OPERATION];
    assert!(expected.contains(&posted.status), "{}", posted.status);
    let done = b.next();
    assert!(!done.status().is_success(), "{}", done.status());
    let received = b.receives.complete(done).unwrap();
    assert_eq!((received.len, received.chunk.len()), (0, CHUNK));
}

/// Waits for events of a channel until one is taken.
fn until<T>(channel: &EventChannel, mut take: impl FnMut(CmEvent) -> Option<T>) -> T {
    loop {
        while let Some(event) = channel.next_event().unwrap() {
            if let Some(taken) = take(event) {
                return taken;
            }
        }
        readable(channel);
    }
}

#[test]
fn rdma_cm_connects_by_addresses() {
    let Some(_alone) = devices() else { return };
    let verbs = Verbs::load().unwrap();
    for (device, ip) in [("rxe0", "10.77.0.1"), ("siw0", "10.77.1.1")] {
        let (here, there) =
            (EventChannel::new(&verbs).unwrap(), EventChannel::new(&verbs).unwrap());
        let mut server = Side::new(verbs.open_for_cm(device).unwrap());
        let mut client = Side::new(verbs.open_for_cm(device).unwrap());
        let listener = there.create().unwrap();
        listener.bind(format!("{ip}:0").parse().unwrap()).unwrap();
        listener.listen(8).unwrap();
        let addr = listener.local_addr().unwrap();

        for round in 0..2 {
            let id = here.create().unwrap();
            id.resolve_addr(None, addr, 5000).unwrap();
            let step = |event: CmEvent, wanted: fn(&CmEventKind) -> bool| {
                assert!(wanted(&event.kind), "{event:?}");
                Some(())
            };
            until(&here, |it| step(it, |kind| matches!(kind, CmEventKind::AddrResolved)));
            assert_eq!(id.device().as_deref(), Some(device));
            id.resolve_route(5000).unwrap();
            until(&here, |it| step(it, |kind| matches!(kind, CmEventKind::RouteResolved)));
            let mut queue = client.cm_queue_pair(&id);
            let private_data = b"who I am".to_vec();
            id.connect(&ConnectParameters { private_data, shared_receives: true }).unwrap();
            let (peer, said) = until(&there, |event| match event.kind {
                CmEventKind::ConnectRequest { id, private_data } => {
                    assert_eq!(event.id, listener.key());
                    Some((id, private_data))
                }
                other => panic!("{other:?}"),
            });
            assert!(said.starts_with(b"who I am"), "{said:?}");
            if round == 1 {
                peer.reject(b"no").unwrap();
                until(&here, |it| step(it, |kind| matches!(kind, CmEventKind::Rejected { .. })));
                continue;
            }
            let mut peer_queue = server.cm_queue_pair(&peer);
            peer.migrate(&there).unwrap();
            peer.accept(&ConnectParameters { shared_receives: true, ..Default::default() })
                .unwrap();
            until(&here, |it| step(it, |kind| matches!(kind, CmEventKind::Established { .. })));
            queue.established();
            send(&mut queue, [piece(&mut client.chunks, b"to the server")]);
            until(&there, |it| step(it, |kind| matches!(kind, CmEventKind::Established { .. })));
            peer_queue.established();
            assert_eq!(server.receive(), b"to the server");
            send(&mut peer_queue, [piece(&mut server.chunks, b"to the client")]);
            assert_eq!(client.receive(), b"to the client");
            id.disconnect().unwrap();
            until(&there, |it| matches!(it.kind, CmEventKind::Disconnected).then_some(()));
        }
    }
}

#[test]
fn a_thousand_queue_pairs_leave_nothing_behind() {
    let Some(_alone) = devices() else { return };
    let side = Side::open("rxe1");
    let before = resources();
    for _ in 0..1000 {
        let queue = side.queue_pair();
        let chunks = side.domain.register(4096, 2, PageKind::Usual).unwrap();
        drop((queue, chunks));
    }
    assert_eq!(resources(), before);
    // In whichever order.
    let queue = side.queue_pair();
    drop(side);
    drop(queue);
}

#[test]
fn memory_that_may_not_be_locked_is_told_with_what_to_do() {
    let Some(_alone) = devices() else { return };
    // Root may lock what it likes, so it is somebody else, in a process of its own.
    if std::env::var_os("SIPHON_TEST_MEMLOCK").is_some() {
        let side = Verbs::load().unwrap().open("rxe0").unwrap();
        let domain = ProtectionDomain::new(&side).unwrap();
        let error = domain.register(1 << 20, 8, PageKind::Usual).unwrap_err();
        println!("said: {error}");
        return;
    }
    let name = "memory_that_may_not_be_locked_is_told_with_what_to_do";
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "chmod a+rw /dev/infiniband/*; ulimit -l 64; exec setpriv --reuid 65534 --clear-groups \
         --bounding-set=-all --inh-caps=-all {} --exact {name} --nocapture",
        exe.display()
    );
    let output =
        Command::new("sh").args(["-c", &script]).env("SIPHON_TEST_MEMLOCK", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("ulimit -l"), "{output:?}");
}

/// The first to write to a page after a fork gets a copy of it. If that is the parent, the device goes
/// on with the page that is the child's from then on: what arrives is not seen, and what is sent is old.
/// So `fork_init` keeps registered memory from the child.
///
/// Without `fork_init` the child can write there, and no signal ends it: that is checked too. Bytes are
/// then wrong before Linux 5.12 only: later kernels copy at the fork what a device has pinned.
#[test]
fn a_fork_leaves_registered_memory_to_the_parent() {
    let Some(_alone) = devices() else { return };
    let name = "a_fork_leaves_registered_memory_to_the_parent";
    let Some(first) = std::env::var_os("SIPHON_TEST_FORK") else {
        for first in ["fork_init", "nothing"] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", name, "--nocapture"]).env("SIPHON_TEST_FORK", first);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{first}: {output:?}");
        }
        return;
    };
    let verbs = Verbs::load().unwrap();
    if first == "fork_init" {
        fork_init(&verbs, false).unwrap();
    }
    let (mut a, mut b) = (Side::open("rxe0"), Side::open("rxe1"));
    b.receives = SharedReceiveQueue::new(&b.domain, 64).unwrap();
    let (mut from, mut to) = (a.queue_pair(), b.queue_pair());
    connect((&mut from, a.gid("10.77.0.1")), (&mut to, b.gid("10.77.0.2")));
    let mut touched: Vec<&mut [u8]> =
        a.chunks.iter_mut().chain(&mut b.chunks).map(|chunk| &mut chunk[..]).collect();
    let child = forked::Child::that_writes(&mut touched);
    for chunk in touched {
        chunk.fill(0xee);
    }
    b.receives.post(&mut b.chunks).unwrap();
    for n in 0..32_u8 {
        let bytes: Vec<u8> = (0..CHUNK).map(|at| (at / 7) as u8 ^ n).collect();
        send(&mut from, [piece(&mut a.chunks, &bytes)]);
        assert_eq!(b.receive(), bytes, "message {n}");
    }
    let is_kept = child.signal() == Some(libc::SIGSEGV);
    if first == "fork_init" {
        assert!(is_kept || forked::kernel_copies(), "the child has registered memory");
    } else {
        assert!(!is_kept, "without fork_init nothing keeps it");
    }
}
