//! Each fault, what the two sides see of it, and that a seed gives the same run again.

mod common;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use common::{A, B, Got, Pair, Peer, net, pair, pattern, settle};
use siphon_net::SendStatus;
use siphon_sim::net::{Direction, Fault, FaultCounts, FaultPlan, Net, NetOptions};

const DATA: usize = 10_000;

#[test]
fn a_cut_lets_exactly_its_bytes_through() {
    for seed in 0..100 {
        for after in [0, 1, 4096, DATA as u64 - 1, DATA as u64] {
            let Pair { net, mut client, mut server, cli, srv, conn, .. } = pair(&net(seed));
            assert!(net.cut_after(conn, Direction::ToServer, after));
            let _ = client.send(cli, &pattern(DATA));
            let (all, end) = server.recv_all(srv);
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert!(all == pattern(DATA)[..after as usize], "seed {seed}, {} bytes", all.len());
            assert_eq!(client.recv(cli).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(net.counts(), FaultCounts { cuts: 1, ..FaultCounts::default() });
            client.driver.close(cli);
            server.driver.close(srv);
            assert!(net.connections().is_empty());
        }
    }
}

#[test]
fn a_close_in_mid_stream_is_the_end_of_file_here_and_a_broken_pipe_there() {
    let Pair { net, mut client, mut server, cli, srv, conn, .. } = pair(&net(1));
    let direction = Direction::ToServer;
    net.plan(conn, FaultPlan { fault: Fault::Close, direction, after: 100 });
    assert_eq!(client.send(cli, &pattern(DATA)), SendStatus::Complete);
    let (all, end) = server.recv_all(srv);
    end.unwrap();
    assert!(all == pattern(DATA)[..100]);
    assert_eq!(client.send(cli, b"more"), SendStatus::Pending);
    assert_eq!(client.sent(cli).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(net.counts().closes, 1);
}

#[test]
fn a_half_open_connection_is_silent_until_the_faults_end() {
    let options = NetOptions { tell_half_open: 0.0, ..NetOptions::default() };
    let Pair { net, mut client, mut server, cli, srv, conn, .. } = pair(&Net::new(1, options));
    let direction = Direction::ToServer;
    net.plan(conn, FaultPlan { fault: Fault::HalfOpen, direction, after: 100 });
    let _ = client.send(cli, &pattern(DATA));
    assert_eq!(server.recv_exactly(srv, 100), pattern(100));
    server.driver.recv(srv, None);
    client.driver.recv(cli, None);
    assert_eq!(server.send(srv, b"lost"), SendStatus::Complete);
    settle(&net, &mut [&mut client, &mut server]);
    assert!(server.got.is_empty() && client.got.is_empty());
    net.end_faults();
    settle(&net, &mut [&mut client, &mut server]);
    for peer in [&mut client, &mut server] {
        let Some(Got::Received(_, Err(error), _)) = peer.got.pop_front() else { panic!("silence") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(net.counts().half_opens, 1);
}

#[test]
fn one_side_of_a_half_open_connection_may_be_told() {
    let mut told = [0; 2];
    for seed in 0..20 {
        let options = NetOptions { tell_half_open: 1.0, ..NetOptions::default() };
        let Pair { net, mut client, mut server, cli, srv, conn, .. } =
            pair(&Net::new(seed, options));
        assert!(net.inject_on(conn, Direction::ToClient, Fault::HalfOpen));
        client.driver.recv(cli, None);
        server.driver.recv(srv, None);
        settle(&net, &mut [&mut client, &mut server]);
        assert_eq!(client.got.len() + server.got.len(), 1, "seed {seed}");
        told[server.got.len()] += 1;
    }
    assert!(told[0] > 0 && told[1] > 0, "{told:?}");
}

#[test]
fn a_healed_connection_delivers_what_was_under_way() {
    let Pair { net, mut client, mut server, cli, srv, conn, .. } = pair(&net(3));
    net.inject_on(conn, Direction::ToServer, Fault::HalfOpen);
    let _ = client.send(cli, &pattern(DATA));
    net.advance_to(net.now() + Duration::from_millis(10));
    net.heal(conn);
    assert_eq!(server.recv_exactly(srv, DATA), pattern(DATA));
}

#[test]
fn a_stall_and_a_partition_delay_and_lose_nothing() {
    const TIME: Duration = Duration::from_secs(20);
    for partition in [false, true] {
        let Pair { net, mut client, mut server, cli, srv, conn, .. } = pair(&net(4));
        let before = net.now();
        if partition {
            net.partition(&[A], &[B], TIME);
        } else {
            assert!(net.inject_on(conn, Direction::ToServer, Fault::Stall(TIME)));
        }
        let _ = client.send(cli, &pattern(DATA));
        assert_eq!(server.recv_exactly(srv, DATA), pattern(DATA));
        assert!(net.now() >= before + TIME);
        let counts = net.counts();
        assert_eq!((counts.partitions, counts.stalls, counts.total()), {
            (u64::from(partition), u64::from(!partition), 1)
        });
    }
}

#[test]
fn ending_the_faults_ends_stalls_and_partitions_at_once() {
    let Pair { net, mut client, mut server, cli, srv, conn, .. } = pair(&net(5));
    let before = net.now();
    let hour = Duration::from_secs(3600);
    net.inject_on(conn, Direction::ToServer, Fault::Stall(hour));
    net.partition(&[A], &[B], hour);
    let _ = client.send(cli, &pattern(DATA));
    net.advance_to(before + Duration::from_secs(1));
    net.end_faults();
    assert_eq!(server.recv_exactly(srv, DATA), pattern(DATA));
    assert!(net.now() < before + Duration::from_secs(2));
}

#[test]
fn a_connect_into_a_partition_waits_or_times_out() {
    let net = net(6);
    let (mut server, mut client) = (Peer::new(&net, A), Peer::new(&net, B));
    let (_, addr) = server.listen(SocketAddr::new(A, 6800));
    net.partition(&[A], &[B], Duration::from_secs(60));
    let cli = client.connect(addr);
    client.connected(cli).unwrap();
    assert!(net.elapsed() >= Duration::from_secs(60));

    net.partition(&[B], &[A], Duration::from_secs(600));
    let cli = client.connect(addr);
    assert_eq!(client.connected(cli).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!((net.counts().timeouts, net.counts().partitions), (1, 2));
}

#[test]
fn a_host_that_is_down_refuses() {
    let net = net(7);
    let (mut server, mut client) = (Peer::new(&net, A), Peer::new(&net, B));
    let (_, addr) = server.listen(SocketAddr::new(A, 6800));
    net.set_down(A, true);
    let cli = client.connect(addr);
    assert_eq!(client.connected(cli).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    net.end_faults();
    let cli = client.connect(addr);
    client.connected(cli).unwrap();
    assert_eq!(net.counts().refused, 1);
}

#[test]
fn a_rule_hits_the_connect_that_it_names() {
    let net = net(8);
    let (mut server, mut client) = (Peer::new(&net, A), Peer::new(&net, B));
    let (_, addr) = server.listen(SocketAddr::new(A, 6800));
    let direction = Direction::ToServer;
    net.on_connect(B, A, 1, FaultPlan { fault: Fault::Refuse, direction, after: 0 });
    net.on_connect(B, A, 2, FaultPlan { fault: Fault::Cut, direction, after: 3 });
    let outcomes = [(); 4].map(|()| {
        let cli = client.connect(addr);
        client.connected(cli).map(|()| cli).map_err(|error| error.kind())
    });
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok() && outcomes[3].is_ok());
    assert_eq!(outcomes[1], Err(io::ErrorKind::ConnectionRefused));
    for (index, expected) in [(0, 5), (2, 3), (3, 5)] {
        let srv = server.accept();
        let cli = outcomes[index].unwrap();
        let _ = client.send(cli, b"12345");
        client.driver.shutdown_write(cli).unwrap();
        assert_eq!(server.recv_all(srv).0, b"12345"[..expected]);
    }
}

#[test]
fn a_crashed_host_says_nothing_and_can_restart() {
    let mut silent = 0;
    for seed in 0..20 {
        let Pair { net, mut client, mut server, cli, srv, addr, .. } = pair(&net(seed));
        server.driver.recv(srv, None);
        client.driver.recv(cli, None);
        net.crash(A);
        settle(&net, &mut [&mut client, &mut server]);
        assert!(server.got.is_empty(), "{:?}", server.got);
        match client.got.pop_front() {
            None => silent += 1,
            Some(Got::Received(_, Err(error), _)) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            other => panic!("{other:?}"),
        }
        let again = client.connect(addr);
        assert_eq!(client.connected(again).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let mut restarted = Peer::new(&net, A);
        restarted.listen(addr);
        let again = client.connect(addr);
        client.connected(again).unwrap();
        restarted.accept();
        net.end_faults();
        settle(&net, &mut [&mut client]);
        assert_eq!(net.counts().crashes, 1);
    }
    assert!(silent > 0 && silent < 20, "{silent}");
}

#[test]
fn a_held_connection_goes_on_when_released() {
    let Pair { net, mut client, mut server, cli, srv, conn, .. } = pair(&net(9));
    net.hold(conn);
    let _ = client.send(cli, b"held");
    server.driver.close(srv);
    client.driver.recv(cli, None);
    settle(&net, &mut [&mut client, &mut server]);
    assert!(client.got.is_empty());
    assert_eq!(net.connections()[0].to_server, 0);
    net.release(conn);
    settle(&net, &mut [&mut client, &mut server]);
    assert!(matches!(client.got.pop_front(), Some(Got::Received(_, Ok(0), _))));
}

/// A run with every kind of fault: some connections, one after the other, each with a stream in
/// both directions that is checked byte by byte. Gives the trace and the counts.
fn random_run(seed: u64) -> (Vec<String>, FaultCounts) {
    let options = NetOptions {
        cut: 0.2,
        close: 0.2,
        half_open: 0.2,
        stall: 0.2,
        refuse: 0.1,
        fault_bytes: 200_000,
        trace_lines: 100_000,
        ..NetOptions::default()
    };
    let net = Net::new(seed, options);
    let (mut server, mut client) = (Peer::new(&net, A), Peer::new(&net, B));
    let (_, addr) = server.listen(SocketAddr::new(A, 6800));
    let mut refused = 0;
    let mut broken = 0;
    for _ in 0..5 {
        let cli = client.connect(addr);
        if let Err(error) = client.connected(cli) {
            assert!(matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
            ));
            refused += u64::from(error.kind() == io::ErrorKind::ConnectionRefused);
            client.driver.close(cli);
            continue;
        }
        let srv = server.accept();
        broken += exchange(&net, (&mut client, cli), (&mut server, srv));
        client.driver.close(cli);
        server.driver.close(srv);
        settle(&net, &mut [&mut client, &mut server]);
        assert!(client.got.is_empty() && server.got.is_empty(), "a completion after the close");
        assert!(net.connections().is_empty(), "seed {seed}");
    }
    let counts = net.counts();
    assert_eq!(counts.refused, refused);
    assert!(broken <= counts.cuts + counts.closes + counts.half_opens, "{counts}");
    (net.trace(), counts)
}

/// Sends a pattern both ways and checks that a prefix comes out, all of it without a fault. Gives
/// the number of connections broken: 0 or 1.
fn exchange(
    net: &Net,
    (client, cli): (&mut Peer, siphon_net::SocketId),
    (server, srv): (&mut Peer, siphon_net::SocketId),
) -> u64 {
    const TOTAL: usize = 300_000;
    let data = pattern(TOTAL);
    let (to_server, to_client) = (client.send(cli, &data), server.send(srv, &data));
    let mut sent = [to_client, to_server].map(|status| status == SendStatus::Complete);
    let (mut ended, mut all) = ([false; 2], [Vec::new(), Vec::new()]);
    client.driver.recv(cli, None);
    server.driver.recv(srv, None);
    loop {
        settle(net, &mut [&mut *client, &mut *server]);
        if client.got.is_empty() && server.got.is_empty() {
            break;
        }
        for (side, peer) in [&mut *client, &mut *server].into_iter().enumerate() {
            while let Some(got) = peer.got.pop_front() {
                match got {
                    Got::Received(id, Ok(count), bytes) if count > 0 => {
                        assert!(!ended[side]);
                        all[side].extend(bytes);
                        peer.driver.recv(id, None);
                    }
                    Got::Received(..) => ended[side] = true,
                    Got::Sent(_, result) => sent[1 - side] |= result.is_ok(),
                    other => panic!("nobody asked for {other:?}"),
                }
            }
        }
    }
    let whole = all.iter().all(|all| all.len() == TOTAL);
    for (side, all) in all.iter().enumerate() {
        assert!(all[..] == data[..all.len()], "out of order, or not what was sent");
        assert!(all.len() < TOTAL || sent[side], "all came, and nobody was told it was sent");
    }
    assert!(whole || net.counts().total() > 0);
    u64::from(!whole)
}

#[test]
fn hundreds_of_seeds_keep_the_order_and_the_counts() {
    let mut sum = FaultCounts::default();
    for seed in 0..300 {
        sum = sum + random_run(seed).1;
    }
    let kinds = [sum.cuts, sum.closes, sum.half_opens, sum.stalls, sum.refused];
    assert!(kinds.iter().all(|&count| count > 50), "{sum}");
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..10 {
        let first = random_run(seed);
        assert!(first == random_run(seed), "seed {seed}");
        assert!(first.0 != random_run(seed + 1000).0);
    }
}
