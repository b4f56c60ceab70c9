//! A proxy that breaks what goes through it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// After how many bytes of a direction a fault strikes, at most: behind some hundred messages.
const MAX_BYTES: u64 = 50_000;

/// Passes connections on, and cuts, stalls or half-closes each of them at random.
pub struct Proxy {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// Connections pass unharmed.
    kind: AtomicBool,
    cuts: AtomicU64,
    half_closes: AtomicU64,
    stalls: AtomicU64,
}

#[derive(Clone, Copy)]
enum Fate {
    /// Both sides see a reset.
    Cut,
    /// One side sees the end of the stream; the other may speak on for a moment.
    HalfClose,
    /// Nothing passes for this time.
    Stall(Duration),
}

impl Proxy {
    /// Listens at `public`, and connects to `hidden` for each who comes.
    pub fn start(public: SocketAddr, hidden: SocketAddr, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = TcpListener::bind(public).unwrap();
        listener.set_nonblocking(true).unwrap();
        let proxy = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            let mut random = StdRng::seed_from_u64(seed);
            while !proxy.over.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((client, _)) => pass(client, hidden, &proxy, &mut random),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { shared, accepting: Some(accepting) }
    }

    /// Harms no new connection from now on.
    pub fn be_kind(&self) {
        self.shared.kind.store(true, Ordering::Release);
    }

    /// Cuts, half-closes and stalls so far.
    pub fn faults(&self) -> [u64; 3] {
        let Shared { cuts, half_closes, stalls, .. } = &*self.shared;
        [cuts, half_closes, stalls].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn pass(client: TcpStream, hidden: SocketAddr, shared: &Arc<Shared>, random: &mut StdRng) {
    let Ok(server) = TcpStream::connect(hidden) else {
        return; // the client sees the end of the stream
    };
    let _ = client.set_nonblocking(false);
    for (from, to) in [(&client, &server), (&server, &client)] {
        let _ = from.set_nodelay(true);
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (shared, random) = (Arc::clone(shared), StdRng::seed_from_u64(random.random()));
        thread::spawn(move || pump(from, to, &shared, random));
    }
}

/// After how many bytes what happens next. Small numbers come as often as large ones, so that
/// handshakes are hit as well.
fn next_fate(random: &mut StdRng) -> (u64, Fate) {
    let fate = match random.random_range(0..4) {
        0 => Fate::HalfClose,
        1 => Fate::Stall(Duration::from_millis(random.random_range(1..30))),
        _ => Fate::Cut,
    };
    let most = MAX_BYTES >> random.random_range(0..8);
    (random.random_range(0..=most), fate)
}

/// Passes one direction on, until a fault ends the connection.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, mut random: StdRng) {
    let mut buffer = [0; 16 << 10];
    let (mut left, mut fate) = next_fate(&mut random);
    if shared.kind.load(Ordering::Acquire) {
        left = u64::MAX;
    }
    loop {
        if left == 0 {
            let (counter, ends) = match fate {
                Fate::Cut => (&shared.cuts, true),
                Fate::HalfClose => (&shared.half_closes, true),
                Fate::Stall(_) => (&shared.stalls, false),
            };
            counter.fetch_add(1, Ordering::Relaxed);
            match fate {
                Fate::Cut => {}
                Fate::HalfClose => {
                    let _ = to.shutdown(Shutdown::Write);
                    thread::sleep(Duration::from_millis(5));
                }
                Fate::Stall(time) => thread::sleep(time),
            }
            if ends {
                return cut(&from, &to);
            }
            (left, fate) = next_fate(&mut random);
            continue;
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match from.read(&mut buffer[..most]) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => left -= count as u64,
            _ => return cut(&from, &to),
        }
    }
}

fn cut(from: &TcpStream, to: &TcpStream) {
    for stream in [from, to] {
        let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// A free port, which is soon to be bound.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}
