//! Where a messenger listens, and what its user learns when it cannot.
//!
//! Ranges of ports are tried at loopback addresses that nobody else uses, one a test, so that no
//! other socket of the machine is in them.

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use common::{bound, client, context, osd};
use siphon_common::{Config, Context};
use siphon_msgr::{BindError, Messenger, Stack};
use siphon_wire::types::{EntityAddr, EntityName, EntityType};

fn range(min: u16, max: u16, retries: u32) -> Context {
    context(|config: &mut Config| {
        config.ms_bind_port_min = min;
        config.ms_bind_port_max = max;
        config.ms_bind_retry_count = retries;
        config.ms_bind_retry_delay = Duration::ZERO;
    })
}

fn addr(text: &str) -> EntityAddr {
    text.parse().unwrap()
}

#[test]
fn a_range_is_used_from_its_first_free_port_to_its_last() {
    let context = range(6800, 6803, 1);
    let stack = Stack::new(&context).unwrap();
    let _taken: Vec<_> =
        [6800, 6802].map(|port| TcpListener::bind(("127.77.0.1", port)).unwrap()).into();
    let osd = Messenger::builder(&context, &stack, EntityName::new(EntityType::OSD, 0))
        .nonce(4711)
        .start()
        .unwrap();
    let any = addr("v2:127.77.0.1:0/0");
    assert_eq!(osd.bind(&[any]).unwrap().to_string(), "v2:127.77.0.1:6801/4711");
    assert_eq!(osd.bind(&[any]).unwrap().to_string(), "v2:127.77.0.1:6803/4711");
    let error = osd.bind(&[any]).unwrap_err();
    assert!(matches!(error, BindError::NoFreePort { min: 6800, max: 6803, tries: 2, .. }));
    let text = error.to_string();
    for words in ["127.77.0.1", "6800 to 6803", "2 times"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(osd.addrs().len(), 2);
    pollster::block_on(osd.shutdown());
    drop(TcpListener::bind("127.77.0.1:6801").unwrap());
}

/// A port that is let go of when the log says that it is in use.
static HELD: Mutex<Option<TcpListener>> = Mutex::new(None);

/// The only address of whose ports one is held.
const HELD_IP: &str = "127.77.0.2";

struct LetGo;

impl Write for LetGo {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        if line.contains("trying again") && line.contains(HELD_IP) {
            HELD.lock().unwrap().take();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_port_that_becomes_free_between_two_attempts_is_had() {
    // For the process: a thread's own subscriber can miss what other threads logged before it.
    let log = siphon_common::logging::subscriber("info", || LetGo).unwrap();
    tracing::subscriber::set_global_default(log).unwrap();
    let context = range(6900, 6900, 3);
    let stack = Stack::new(&context).unwrap();
    let (osd, _received) = osd(&context, &stack);
    for (port, expected) in [(0, 6900), (6901, 6901)] {
        *HELD.lock().unwrap() = Some(TcpListener::bind((HELD_IP, expected)).unwrap());
        let had = osd.bind(&[addr(&format!("v2:{HELD_IP}:{port}/0"))]).unwrap();
        assert!(HELD.lock().unwrap().is_none(), "it was tried again");
        assert_eq!(had[0].port(), expected);
    }
    pollster::block_on(osd.shutdown());
}

#[test]
fn a_port_in_use_is_named_after_all_attempts() {
    let context = range(0, 0, 2);
    let stack = Stack::new(&context).unwrap();
    let (osd, _received) = osd(&context, &stack);
    let _taken = TcpListener::bind("127.77.0.3:7000").unwrap();
    let error = osd.bind(&[addr("v2:127.77.0.3:7000/0")]).unwrap_err();
    let text = error.to_string();
    for words in ["v2:127.77.0.3:7000", "another process listens there"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(std::error::Error::source(&error).is_some());
    pollster::block_on(osd.shutdown());
}

#[test]
fn all_addresses_are_had_or_none() {
    let context = range(0, 0, 0);
    let stack = Stack::new(&context).unwrap();
    let (osd, _received) = osd(&context, &stack);
    let taken = TcpListener::bind("127.77.0.4:7001").unwrap();
    let both = [addr("v2:127.77.0.4:7000/0"), addr("v2:127.77.0.4:7001/0")];
    osd.bind(&both).unwrap_err();
    assert!(osd.addrs().is_empty());
    drop(taken);
    assert_eq!(osd.bind(&both).unwrap().len(), 2, "the first was not kept");
    let six = bound(&osd, &["v2:[::1]:0/0", "v2:127.77.0.4:0/0"]);
    for addr in six.iter() {
        assert_ne!(addr.port(), 0);
        let client = client(&context, &stack);
        pollster::block_on(client.connect_to(EntityType::OSD, (*addr).into()).attempt()).unwrap();
        pollster::block_on(client.shutdown());
    }
    pollster::block_on(osd.shutdown());
}

#[test]
fn addresses_that_nobody_can_listen_at_are_refused_with_the_reason() {
    let context = range(0, 0, 0);
    let stack = Stack::new(&context).unwrap();
    let (osd, _received) = osd(&context, &stack);
    for (text, expected) in [
        ("-", "no IP address"),
        ("v2:192.0.2.1:0/0", "no interface of this machine has that address"),
    ] {
        let error = osd.bind(&[addr(text)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    pollster::block_on(osd.shutdown());
}
