//! Ceph's own clients at a messenger of ours that stands in for a monitor.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use common::HUNG;
use common::stand_in::{FSID, STATUS, StandIn};
use siphon_auth::{CryptoKey, KeyType, ModeList};
use siphon_msgr::SystemEnv;
use siphon_peers::{Cluster, ClusterOptions, Release, require, run};
use siphon_wire::types::AddrType;

#[test]
fn ceph_and_librados_authenticate_in_every_mode() {
    let Some(_) = require(siphon_peers::ceph_with_key()) else {
        return;
    };
    let rows = [(AddrType::MSGR2, "crc"), (AddrType::MSGR2, "secure"), (AddrType::LEGACY, "crc")];
    for (protocol, modes) in rows {
        let mon = StandIn::start(protocol, modes, KeyType::AES);
        let options = mon.options("client.admin", &mon.key, modes);
        let mut ceph = siphon_peers::ceph_with_key().unwrap();
        ceph.args(&options).arg("-s");
        let output = run(ceph, HUNG).unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(STATUS), "{output:?}");

        let mut python = siphon_peers::librados(CONNECT).unwrap();
        python.args(&options);
        let output = run(python, HUNG).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), FSID, "{output:?}");

        let sessions = mon.seen.sessions.lock().unwrap().clone();
        assert!(sessions.len() >= 2, "{sessions:?}");
        let mode = modes.parse::<ModeList>().unwrap().as_slice()[0];
        for (name, caps, found) in sessions {
            assert_eq!(
                (name.to_string().as_str(), &*caps, found),
                ("client.admin", "allow *", mode)
            );
        }
        mon.shutdown();
    }
}

/// Connects by librados and prints the cluster's id.
const CONNECT: &str = "
import rados, sys
cluster = rados.Rados(rados_id='admin')
cluster.conf_parse_argv(sys.argv[1:])
cluster.conf_set('client_mount_timeout', '10')
cluster.connect()
print(cluster.get_fsid())
";

#[test]
fn who_proves_nothing_is_refused_as_ceph_refuses_it() {
    let Some(_) = require(siphon_peers::ceph_with_key()) else {
        return;
    };
    for protocol in [AddrType::MSGR2, AddrType::LEGACY] {
        let mon = StandIn::start(protocol, "crc secure", KeyType::AES);
        let other = CryptoKey::generate(KeyType::AES, &SystemEnv).unwrap();
        // The text is that of librados for EACCES.
        let denied = "[errno 13] RADOS permission denied (error connecting to the cluster)";
        let rows = [("client.admin", &other), ("client.nobody", &mon.key)];
        for (name, key) in rows {
            let mut ceph = siphon_peers::ceph_with_key().unwrap();
            ceph.args(mon.options(name, key, "crc")).arg("-s");
            let output = ceph.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains(denied), "{protocol:?}, {name}: {text}");
            assert_eq!(output.status.code(), Some(13));
        }
        assert!(mon.seen.sessions.lock().unwrap().is_empty());
        mon.shutdown();
    }
}

/// Connects, and asks for the status once it is told to.
const ASK_LATER: &str = "
import rados, sys
cluster = rados.Rados(rados_id='admin')
cluster.conf_parse_argv(sys.argv[1:])
cluster.conf_set('client_mount_timeout', '10')
cluster.conf_set('rados_mon_op_timeout', '5')
cluster.connect()
print(cluster.get_fsid(), flush=True)
sys.stdin.readline()
print(cluster.mon_command('{\"prefix\": \"status\"}', b''), flush=True)
";

/// Ceph gives a global id back to whoever shows the ticket that came with it, and to nobody once the
/// ticket has ended.
#[test]
fn an_ended_ticket_is_refused() {
    let Some(_) = require(siphon_peers::ceph_with_key()) else {
        return;
    };
    for protocol in [AddrType::MSGR2, AddrType::LEGACY] {
        let mon = StandIn::start(protocol, "crc", KeyType::AES);
        let mut python = siphon_peers::librados(ASK_LATER).unwrap();
        python.args(mon.options("client.admin", &mon.key, "crc"));
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut python = python.spawn().unwrap();
        let mut output = BufReader::new(python.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), FSID);
        assert!(mon.seen.refusals().is_empty());
        let sessions = mon.seen.sessions.lock().unwrap().len();
        mon.clock.0.store(100 * 3600, Ordering::Relaxed);
        mon.seen.connections.lock().unwrap().drain(..).for_each(|it| it.mark_down());
        python.stdin.take().unwrap().write_all(b"\n").unwrap();
        line.clear();
        output.read_line(&mut line).unwrap();
        assert!(python.wait().unwrap().success());
        // librados looks for another monitor then, until the time is over: ETIMEDOUT.
        assert!(line.starts_with("(-110,"), "{line}");
        let refusals = mon.seen.refusals();
        assert!(!refusals.is_empty() && refusals.iter().all(|it| *it == EACCES), "{refusals:?}");
        assert_eq!(mon.seen.sessions.lock().unwrap().len(), sessions, "nobody else came in");
        mon.shutdown();
    }
}

/// What `ceph` said to a monitor is worth nothing the second time: ours refuses it as Ceph's does.
#[test]
fn a_replayed_conversation_is_refused() {
    let Some(_) = require(siphon_peers::ceph_with_key()) else {
        return;
    };
    let mon = StandIn::start(AddrType::MSGR2, "crc", KeyType::AES);
    let addr = mon.addrs.front().socket_addr().unwrap();
    let record = Record::of_ceph(addr, &mon.options("client.admin", &mon.key, "crc"));
    assert!(mon.seen.refusals().is_empty(), "the first time it was believed");
    let answer = record.replay(addr);
    assert_eq!(mon.seen.refusals(), [EACCES]);
    assert_eq!(bad_method(&answer), Some(EACCES));
    mon.shutdown();

    let options = ClusterOptions::default();
    let Some(cluster) = require(Cluster::start(Release::Pacific, &options)) else {
        return;
    };
    let keyring = cluster.keyring().display().to_string();
    let options = ["-n", "client.admin", "--keyring", &keyring, "--ms_mon_client_mode", "crc"];
    let options = options.map(str::to_owned);
    let record = Record::of_ceph(cluster.mon_v2(), &options);
    let answer = record.replay(cluster.mon_v2());
    assert_eq!(bad_method(&answer), Some(EACCES), "what Ceph's monitor says to that");
}

const EACCES: i32 = -13;

/// What a client said, with the lengths of the answers that it had waited for.
struct Record {
    turns: Vec<(Vec<u8>, usize)>,
}

impl Record {
    /// `ceph -s` through a proxy to a monitor, up to the end of that connection.
    fn of_ceph(mon: SocketAddr, options: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("v2:{}", listener.local_addr().unwrap());
        let mut ceph = siphon_peers::ceph_with_key().unwrap();
        let options = options.iter().skip_while(|it| *it == "-m" || it.contains(':'));
        ceph.arg("-m").arg(at).args(options).arg("-s").stdout(Stdio::null()).stderr(Stdio::null());
        let mut ceph = ceph.spawn().unwrap();
        let (client, _) = listener.accept().unwrap();
        let turns = record(client, TcpStream::connect(mon).unwrap());
        drop(listener);
        let _ = ceph.kill(); // the monitor has another address than that it came to
        ceph.wait().unwrap();
        assert!(turns.len() >= 4, "banner, hello, and two steps of authentication");
        Self { turns }
    }

    /// Says it again, and returns what is answered.
    fn replay(&self, mon: SocketAddr) -> Vec<u8> {
        let mut stream = TcpStream::connect(mon).unwrap();
        stream.set_read_timeout(Some(HUNG)).unwrap();
        let mut answers = Vec::new();
        let mut expected = 0;
        for (said, answered) in &self.turns {
            if stream.write_all(said).is_err() {
                break; // it has hung up
            }
            expected += answered;
            let mut chunk = [0; 4096];
            while answers.len() < expected {
                match stream.read(&mut chunk) {
                    Ok(len @ 1..) => answers.extend_from_slice(&chunk[..len]),
                    _ => return answers,
                }
            }
        }
        answers
    }
}

/// Passes bytes between two, and keeps what the first said and how much was answered.
fn record(client: TcpStream, server: TcpStream) -> Vec<(Vec<u8>, usize)> {
    let (sender, events) = mpsc::channel();
    let pump = |mut from: TcpStream, mut to: TcpStream, is_client: bool| {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut chunk) {
                let _ = sender.send((is_client, chunk[..len].to_vec()));
                if to.write_all(&chunk[..len]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        })
    };
    let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let pumps = [pump(from_client, server, true), pump(from_server, client, false)];
    drop(sender);
    let mut turns: Vec<(Vec<u8>, usize)> = vec![Default::default()];
    for (is_client, bytes) in events {
        let last = turns.last_mut().expect("there is one");
        match is_client {
            false => last.1 += bytes.len(),
            true if last.1 == 0 => last.0.extend_from_slice(&bytes),
            true => turns.push((bytes, 0)),
        }
    }
    pumps.into_iter().for_each(|it| it.join().unwrap());
    turns
}

/// The result in AUTH_BAD_METHOD among frames of crc mode, revision 1.
fn bad_method(bytes: &[u8]) -> Option<i32> {
    const BANNER: usize = 8 + 2 + 16;
    const AUTH_BAD_METHOD: u8 = 3;
    let mut rest = bytes.get(BANNER..)?;
    while let [tag, segments, lens @ ..] = rest {
        assert_eq!(*segments, 1, "the handshake's frames have one segment");
        if *tag == AUTH_BAD_METHOD {
            return Some(i32::from_le_bytes(rest[32 + 4..32 + 8].try_into().unwrap()));
        }
        let len = u32::from_le_bytes(lens[..4].try_into().unwrap()) as usize;
        rest = &rest[32 + len + 4..];
    }
    None
}
