//! What a review found, each with its story.

mod common;

use std::time::Duration;

use common::{HUNG, PANIC, bound, client, context, message, next_message, osd};
use siphon_msgr::{CloseReason, Stack};
use siphon_wire::types::EntityType;

/// A send that followed a connect in the same batch of mail was dropped: connecting had to wait
/// for the event center, and sending did not wait for it.
#[test]
fn what_is_sent_right_after_connecting_arrives() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    for round in 0..200 {
        let client = client(&context, &stack);
        let connection = client.connect_to(EntityType::OSD, addrs.clone());
        let sent: Vec<u64> = (1..=10).map(|i| round * 10 + i).collect();
        sent.iter().for_each(|tid| connection.send(message(42, *tid)).unwrap());
        pollster::block_on(connection.flushed()).unwrap();
        for tid in sent {
            assert_eq!(next_message(&received), tid);
        }
        pollster::block_on(client.shutdown());
    }
    pollster::block_on(osd.shutdown());
}

/// A connection that was marked down was handed out again until its worker had heard of it, and
/// took messages that nobody ever got.
#[test]
fn a_connection_that_was_marked_down_is_not_handed_out_again() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let client = client(&context, &stack);
    for tid in 1..50 {
        let connection = client.connect_to(EntityType::OSD, addrs.clone());
        connection.send(message(42, tid)).unwrap();
        assert_eq!(next_message(&received), tid);
        connection.mark_down();
        assert!(connection.send(message(42, 0)).is_err());
    }
    pollster::block_on(client.shutdown());
    pollster::block_on(osd.shutdown());
}

/// A second bind that failed closed the listeners of the first, one that succeeded made its
/// addresses be forgotten.
#[test]
fn a_second_bind_leaves_the_first_alone() {
    let context = context(|config| config.ms_bind_retry_count = 0);
    let stack = Stack::new(&context).unwrap();
    let (osd, _received) = osd(&context, &stack);
    let first = bound(&osd, &["v2:127.0.0.1:0/0"]);
    osd.bind(&[first[0]]).unwrap_err();
    let second = bound(&osd, &["v2:127.0.0.1:0/0"]);
    assert_eq!(osd.addrs().len(), 2);
    for addrs in [first, second] {
        let client = client(&context, &stack);
        pollster::block_on(client.connect_to(EntityType::OSD, addrs).attempt()).unwrap();
        pollster::block_on(client.shutdown());
    }
    pollster::block_on(osd.shutdown());
}

/// A server that listened at every interface let nobody in but those who came by the address of
/// its first peer.
#[test]
fn who_listens_at_every_interface_is_found_at_each() {
    for learn in [true, false] {
        let context = context(|config| config.ms_learn_addr_from_peer = learn);
        let stack = Stack::new(&context).unwrap();
        let (osd, _received) = osd(&context, &stack);
        let addrs = bound(&osd, &["v2:[::]:0/0", "v2:0.0.0.0:0/0"]);
        let port = |at: usize| addrs[at].port();
        for addr in [
            format!("v2:127.0.0.1:{}/0", port(1)),
            format!("v2:127.0.0.2:{}/0", port(1)),
            format!("v2:[::1]:{}/0", port(0)),
        ] {
            let client = client(&context, &stack);
            let connection = client.connect_to(EntityType::OSD, addr.parse().unwrap());
            let ready = pollster::block_on(connection.attempt());
            assert!(ready.is_ok(), "{addr}, learning {learn}: {ready:?}");
            assert!(!client.addrs().front().is_blank_ip(), "it knows its own address");
            pollster::block_on(client.shutdown());
        }
        pollster::block_on(osd.shutdown());
    }
}

/// Each call made a connection of its own, which lasted for ever; after a shutdown it kept the
/// workers from ending.
#[test]
fn there_is_one_loopback_and_it_ends_with_the_messenger() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let loopback = osd.loopback();
    assert_eq!(loopback, osd.loopback());
    assert_eq!(loopback, osd.connect_to(EntityType::OSD, addrs));
    loopback.send(message(42, 7)).unwrap();
    assert_eq!(received.recv_timeout(HUNG), Ok(7));
    pollster::block_on(osd.shutdown());
    assert!(matches!(loopback.close_reason(), Some(CloseReason::Shutdown)));
    assert!(osd.loopback().send(message(42, 8)).is_err());
    drop((osd, loopback, stack)); // joins the workers
}

/// A dispatcher's panic took the dispatch thread with it, and later ones waited for ever.
#[test]
fn a_panic_in_a_dispatcher_ends_its_connection_and_nothing_else() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let (osd, received) = osd(&context, &stack);
    let addrs = bound(&osd, &["v2:127.0.0.1:0/0"]);
    let (unlucky, lucky) = (client(&context, &stack), client(&context, &stack));
    unlucky.connect_to(EntityType::OSD, addrs.clone()).send(message(1, PANIC)).unwrap();
    assert_eq!(received.recv_timeout(HUNG), Ok(PANIC), "the end of the unlucky one's connection");
    lucky.connect_to(EntityType::OSD, addrs).send(message(1, 5)).unwrap();
    assert_eq!(received.recv_timeout(HUNG), Ok(5));
    for messenger in [unlucky, lucky, osd] {
        pollster::block_on(messenger.shutdown());
    }
}

/// Shutting down while connecting to somebody who does not answer took all of its time, with
/// nothing to send.
#[test]
fn a_shutdown_does_not_wait_for_a_connection_that_has_nothing_to_say() {
    let context = context(|_| {});
    let stack = Stack::new(&context).unwrap();
    let client = client(&context, &stack);
    // Its backlog takes the connection, and nobody ever says a word on it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("v2:{}/0", listener.local_addr().unwrap());
    let connection = client.connect_to(EntityType::OSD, addr.parse().unwrap());
    pollster::block_on(client.shutdown_within(Duration::from_secs(3600)));
    assert!(matches!(connection.close_reason(), Some(CloseReason::Shutdown)));
}
