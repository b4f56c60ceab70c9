//! One rule each.

use std::time::Duration;

use bytes::Bytes;
use siphon_messages::osd::{OsdFlags, OsdOp, OsdOpCode};
use siphon_messages::{MCommandReply, MOSDOp, MOSDOpReply, MessageError, TypedMessage, msg_type};
use siphon_osdmap::{MapFlags, PgWorkspace, PoolFlags};
use siphon_wire::types::{
    Epoch, Errno, ObjectLocator, PgId, RequestRedirect, SnapId, Uuid, Version,
};

use super::world::{REPLICATED, World, append, arrived, config, first_map};
use crate::core::{CommandTarget, Core, CoreConfig, Done, Output, SessionId, Then};
use crate::error::BadReply;
use crate::ticket::Ticket;
use crate::{Op, OpError, OpReply, Target};

/// A core with the first map, whose outputs are looked at.
pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) now: std::time::Instant,
    pub(super) sent: Vec<(SessionId, siphon_proto::Message)>,
    opened: Vec<SessionId>,
    closed: Vec<SessionId>,
    wanted: Vec<(Epoch, bool)>,
    asked_newest: usize,
}

impl Bench {
    pub(super) fn new(config: CoreConfig) -> Self {
        let world = World::new(config.clone());
        let mut bench = Self {
            core: Core::new(config),
            now: world.now,
            sent: vec![],
            opened: vec![],
            closed: vec![],
            wanted: vec![],
            asked_newest: 0,
        };
        bench.core.handle_map(&world.update(Epoch(1), true), bench.now);
        bench.drain();
        bench
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Open { session, .. } => self.opened.push(session),
                Output::Close { session } => self.closed.push(session),
                Output::Send { session, message } => self.sent.push((session, arrived(&message))),
                Output::WantMap { from, continuous } => self.wanted.push((from, continuous)),
                Output::CheckNewest => self.asked_newest += 1,
                Output::Done(done) => Done::deliver(done),
            }
        }
    }

    pub(super) fn submit(&mut self, op: Op) -> Ticket<Result<OpReply, OpError>> {
        let ticket = Ticket::new();
        self.core.submit(op, Then::Reply(ticket.clone()), self.now);
        self.drain();
        ticket
    }

    /// The request that was sent last.
    fn last(&self) -> (SessionId, u64, MOSDOp) {
        let (session, message) = self.sent.last().unwrap();
        (*session, message.header.tid, MOSDOp::from_message(message).unwrap())
    }

    fn reply(&mut self, session: SessionId, tid: u64, reply: MOSDOpReply) {
        self.core.handle_reply(session, tid, Ok(reply), self.now);
        self.drain();
    }

    /// Answers the request that was sent last.
    pub(super) fn answer(&mut self, result: i32) {
        let (session, tid, request) = self.last();
        self.reply(session, tid, MOSDOpReply::new(&request, result, OsdFlags::ONDISK));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.core.handle_timeout(self.now);
        self.drain();
    }
}

pub(super) fn get(object: &str) -> Op {
    Op::read(Target::object(REPLICATED, object), vec![OsdOp::read(0, 100)])
}

#[test]
fn a_request_says_all_that_an_osd_needs() {
    let mut bench = Bench::new(config());
    let mut op = append(REPLICATED, "name", 7);
    op.target = op.target.in_namespace("ns").with_key("key");
    op.snapc.seq = SnapId(9);
    op.snapc.snaps = vec![SnapId(9), SnapId(4)];
    let ticket = bench.submit(op);
    let (session, tid, request) = bench.last();
    let map = first_map();
    let locator =
        ObjectLocator { key: "key".into(), namespace: "ns".into(), ..ObjectLocator::new(1) };
    let raw = map.map_object(b"name", &locator).unwrap();
    assert_eq!(request.raw_pg(), raw);
    assert_eq!(request.pgid.pg, map.actual_pg(raw).unwrap());
    assert_eq!((request.locator.clone(), &request.oid), (locator, &"name".into()));
    assert_eq!((request.osdmap_epoch, request.retry_attempt), (Epoch(1), 0));
    let flags = OsdFlags::WRITE | OsdFlags::ONDISK | OsdFlags::KNOWN_REDIR;
    assert_eq!(request.flags, flags);
    assert_eq!((request.snap_seq, request.snaps.len()), (SnapId(9), 2));
    assert_eq!(bench.sent[0].1.header.priority.0, 63);
    let mut reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
    reply.user_version = Version(3);
    bench.reply(session, tid, reply);
    assert_eq!(ticket.take().unwrap().unwrap().version, Version(3));
}

#[test]
fn again_means_the_primary_under_another_number_and_not_for_ever() {
    let mut bench = Bench::new(config());
    let mut op = get("object");
    op.flags |= OsdFlags::BALANCE_READS;
    let ticket = bench.submit(op);
    let (_, first, _) = bench.last();
    bench.answer(-11);
    let (_, second, request) = bench.last();
    assert!(second > first && !request.flags.contains(OsdFlags::BALANCE_READS));
    assert_eq!(request.retry_attempt, 0);
    for _ in 0..100 {
        bench.answer(-11);
    }
    assert_eq!(bench.sent.len(), 9, "then it waits for a tick");
    bench.wait(Duration::from_secs(5));
    let (_, _, request) = bench.last();
    assert_eq!((bench.sent.len(), &request.oid), (10, &"object".into()));
    bench.answer(0);
    assert!(ticket.take().unwrap().is_ok());
}

#[test]
fn a_redirect_goes_elsewhere_and_not_for_ever() {
    let mut bench = Bench::new(config());
    let ticket = bench.submit(get("object"));
    let redirect = |bench: &mut Bench, n: usize| {
        let (session, tid, request) = bench.last();
        let mut reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
        let (locator, object) = (ObjectLocator::new(2), format!("other{n}").as_str().into());
        reply.redirect = Some(RequestRedirect { locator, object });
        bench.reply(session, tid, reply);
    };
    redirect(&mut bench, 0);
    let (_, _, request) = bench.last();
    assert_eq!((&request.oid, request.locator.pool), (&"other0".into(), 2));
    assert_eq!(request.pgid.pg.pool, 2);
    let flags = OsdFlags::REDIRECTED | OsdFlags::IGNORE_OVERLAY | OsdFlags::IGNORE_CACHE;
    assert!(request.flags.contains(flags));
    for n in 1..17 {
        redirect(&mut bench, n);
    }
    assert_eq!(ticket.take(), Some(Err(OpError::TooManyRedirects)));

    let ticket = bench.submit(get("object"));
    let (session, tid, request) = bench.last();
    let mut reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
    let (locator, object) = (ObjectLocator::new(2), "n".repeat(100 << 10).as_str().into());
    reply.redirect = Some(RequestRedirect { locator, object });
    bench.reply(session, tid, reply);
    assert!(matches!(ticket.take(), Some(Err(OpError::BadReply(BadReply::Content(_))))));
}

/// That the pool which was asked exists says nothing of the other.
#[test]
fn a_redirect_to_a_pool_that_our_map_lacks_waits_for_one_that_has_it() {
    const NEW: i64 = 9;
    let mut bench = Bench::new(config());
    let ticket = bench.submit(get("object"));
    let (session, tid, request) = bench.last();
    let mut reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
    let (locator, object) = (ObjectLocator::new(NEW), "".into());
    reply.redirect = Some(RequestRedirect { locator, object });
    bench.reply(session, tid, reply);
    assert!(ticket.take().is_none());
    assert_eq!(bench.asked_newest, 1);
    bench.core.handle_newest(Some(Epoch(2)), bench.now);
    bench.drain();
    assert!(ticket.take().is_none(), "epoch 2 may have it");
    let mut world = World::new(config());
    world.change(|map, inc| {
        inc.new_pools.insert(NEW, map.pools[&REPLICATED].clone());
    });
    bench.core.handle_map(&world.update(Epoch(2), false), bench.now);
    bench.drain();
    let (_, _, request) = bench.last();
    assert_eq!((request.locator.pool, &request.oid), (NEW, &"object".into()));
}

#[test]
fn a_time_that_never_comes_is_no_mistake() {
    let mut bench = Bench::new(CoreConfig { tick: Duration::MAX, ..config() });
    let ticket = bench.submit(get("object"));
    assert_eq!(bench.core.poll_timeout(), None);
    bench.answer(0);
    assert!(ticket.take().unwrap().is_ok());
}

#[test]
fn replies_that_lie_end_in_errors() {
    let mut bench = Bench::new(config());
    let ticket = bench.submit(get("object"));
    let (session, tid, request) = bench.last();
    let reply = || MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
    // Of nothing that was asked, or of a session that is not there.
    bench.reply(session, tid + 5, reply());
    bench.reply(SessionId(99), tid, reply());
    let mut old = reply();
    old.retry_attempt = 5;
    bench.reply(session, tid, old);
    assert_eq!(ticket.take(), None);
    let mut more = reply();
    more.ops.push(OsdOp::read(0, 1));
    bench.reply(session, tid, more);
    let error = OpError::BadReply(BadReply::OpCount { sent: 1, came: 2 });
    assert_eq!(ticket.take(), Some(Err(error)));

    let ticket = bench.submit(get("object"));
    let (session, tid, _) = bench.last();
    let front = Bytes::from_static(b"garbage");
    let payload = siphon_proto::Payload { front: front.into(), ..Default::default() };
    let garbage = siphon_proto::Message::new(MOSDOpReply::header(), payload);
    let garbage: Result<MOSDOpReply, MessageError> = MOSDOpReply::from_message(&garbage);
    bench.core.handle_reply(session, tid, garbage, bench.now);
    bench.drain();
    let error = ticket.take().unwrap().unwrap_err();
    assert!(matches!(error, OpError::BadReply(BadReply::Malformed(_))));
    assert_eq!(error.errno(), Errno::EBADMSG);
}

#[test]
fn errors_are_told_with_what_came() {
    let mut bench = Bench::new(config());
    for (result, error) in [(-2, None), (-108, Some(OpError::Blocklisted)), (-4095 - 7, None)] {
        let ticket = bench.submit(get("object"));
        bench.answer(result);
        let found = ticket.take().unwrap().unwrap_err();
        match error {
            Some(error) => assert_eq!(found, error),
            None => assert_eq!(found.reply().unwrap().result, result),
        }
    }
}

#[test]
fn a_session_that_is_reset_sends_all_of_it_again_in_order() {
    let mut bench = Bench::new(config());
    // All to one placement group, so to one OSD.
    let tickets: Vec<_> = (0..5).map(|n| bench.submit(append(REPLICATED, "object", n))).collect();
    let (session, _, _) = bench.last();
    let numbers = |sent: &[(SessionId, siphon_proto::Message)]| {
        sent.iter().map(|(_, message)| message.header.tid).collect::<Vec<_>>()
    };
    let before = numbers(&bench.sent);
    bench.answer(0); // the last one
    bench.sent.clear();
    bench.core.handle_reset(session, bench.now);
    bench.drain();
    assert_eq!(numbers(&bench.sent), before[..4]);
    for (new, message) in &bench.sent {
        let request = MOSDOp::from_message(message).unwrap();
        assert!(*new != session && bench.opened.contains(new));
        assert_eq!(request.retry_attempt, 1);
        assert!(request.flags.contains(OsdFlags::RETRY));
    }
    // What the old session still brings does not count.
    let (_, tid, request) = bench.last();
    bench.reply(session, tid, MOSDOpReply::new(&request, 0, OsdFlags::ONDISK));
    assert!(tickets[3].take().is_none() && tickets[4].take().is_some());
}

#[test]
fn an_osd_that_ends_every_session_is_not_asked_at_once_for_ever() {
    let mut bench = Bench::new(config());
    let ticket = bench.submit(get("object"));
    for _ in 0..50 {
        let session = *bench.opened.last().unwrap();
        bench.core.handle_reset(session, bench.now);
        bench.drain();
    }
    assert_eq!(bench.opened.len(), 5);
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.opened.len(), 6);
    bench.answer(0);
    assert!(ticket.take().is_some());
}

#[test]
fn a_session_that_nobody_needs_is_not_opened_again() {
    let mut bench = Bench::new(config());
    bench.submit(get("object"));
    let (session, _, _) = bench.last();
    bench.answer(0);
    bench.core.handle_reset(session, bench.now);
    bench.drain();
    assert_eq!(bench.opened.len(), 1);
    bench.submit(get("object"));
    assert_eq!((bench.opened.len(), bench.sent.len()), (2, 2));
}

#[test]
fn what_no_message_can_carry_is_refused() {
    let mut bench = Bench::new(config());
    let mut snaps = append(REPLICATED, "object", 1);
    snaps.snapc.snaps = vec![SnapId(1); 1 << 24];
    let ticket = bench.submit(snaps);
    assert!(matches!(ticket.take(), Some(Err(OpError::TooLong { .. }))));
    let mut many = get("object");
    many.ops = vec![OsdOp::read(0, 1); 1 << 16];
    let ticket = bench.submit(many);
    assert!(matches!(ticket.take(), Some(Err(OpError::OpCount { .. }))));
    assert!(bench.sent.is_empty());
}

#[test]
fn a_time_that_has_passed_and_a_future_that_is_dropped_end_an_operation() {
    let timeout = Duration::from_secs(2);
    let mut bench = Bench::new(CoreConfig { timeout: Some(timeout), ..config() });
    let ticket = bench.submit(get("object"));
    let mut longer = get("object");
    longer.timeout = Some(Duration::from_secs(60));
    let other = bench.submit(longer);
    bench.wait(timeout - Duration::from_millis(1));
    assert!(ticket.take().is_none());
    bench.wait(Duration::from_millis(1));
    assert_eq!(ticket.take(), Some(Err(OpError::TimedOut { after: timeout })));
    bench.core.cancel(other.id(), bench.now);
    bench.drain();
    bench.answer(0);
    assert!(other.take().is_none());
    assert_eq!((bench.core.inflight_ops, bench.core.ops.len()), (0, 0));
}

#[test]
fn there_is_a_maximum_of_operations_and_of_their_bytes() {
    let mut bench = Bench::new(CoreConfig { max_ops: 3, max_bytes: 250, ..config() });
    let tickets: Vec<_> = (0..6).map(|_| bench.submit(get("object"))).collect();
    assert_eq!(bench.sent.len(), 2, "each may bring 100 bytes");
    bench.answer(0);
    assert_eq!(bench.sent.len(), 3);
    // One that waits is given up, and one that is longer than all goes alone.
    bench.core.cancel(tickets[3].id(), bench.now);
    let mut long = get("object");
    long.ops[0] = OsdOp::read(0, 1000);
    let long = bench.submit(long);
    let mut before = 0;
    while bench.sent.len() > before {
        before = bench.sent.len();
        for (session, message) in bench.sent.clone() {
            let request = MOSDOp::from_message(&message).unwrap();
            let reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
            bench.reply(session, message.header.tid, reply);
        }
    }
    assert_eq!(bench.sent.len(), 6);
    assert!(long.take().is_some() && tickets[5].take().is_some() && tickets[3].take().is_none());
}

#[test]
fn a_pool_that_our_map_lacks_is_asked_for() {
    let mut world = World::with_map(config());
    let ticket = world.submit(Op::read(Target::object(7, "x"), vec![OsdOp::read(0, 1)]));
    assert!(world.newest_asked && ticket.take().is_none());
    world.change(|map, inc| {
        inc.new_pools.insert(7, map.pools[&REPLICATED].clone());
    });
    world.settle();
    assert!(ticket.take().unwrap().is_ok());
    let nowhere = world.submit(Op::read(Target::object(8, "x"), vec![OsdOp::read(0, 1)]));
    world.settle();
    assert_eq!(nowhere.take(), Some(Err(OpError::NoSuchPool { pool: 8 })));
    // One that was there is not asked for.
    let gone = world.submit(Op::read(Target::object(7, "x"), vec![OsdOp::read(0, 1)]));
    world.change(|_, inc| {
        inc.old_pools.insert(7);
    });
    world.give_map();
    assert!(!world.newest_asked);
    for session in world.sessions() {
        while world.serve(session) || world.deliver(session) {}
    }
    assert_eq!(gone.take(), Some(Err(OpError::NoSuchPool { pool: 7 })));
}

#[test]
fn monitors_that_do_not_tell_the_newest_epoch_are_asked_again() {
    let mut bench = Bench::new(config());
    let ticket = bench.submit(Op::read(Target::object(7, "x"), vec![OsdOp::read(0, 1)]));
    bench.core.handle_newest(None, bench.now);
    bench.drain();
    assert_eq!((bench.asked_newest, ticket.take()), (1, None));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.asked_newest, 2);
    bench.core.handle_newest(Some(Epoch(1)), bench.now);
    bench.drain();
    assert_eq!(ticket.take(), Some(Err(OpError::NoSuchPool { pool: 7 })));
}

#[test]
fn writes_wait_for_a_full_pool_and_those_that_try_do_not() {
    let mut world = World::with_map(config());
    world.set_full(REPLICATED, true);
    let first = world.append(REPLICATED, "object", 1);
    world.settle(); // the OSD has the newer map, and shares it
    assert!(first.take().is_some(), "it was sent before we knew");
    let waits = world.append(REPLICATED, "object", 2);
    let reads = world.submit(get("object"));
    let mut tries = append(REPLICATED, "object", 3);
    tries.flags |= OsdFlags::FULL_TRY;
    let tries = world.submit(tries);
    world.settle();
    assert!(waits.take().is_none() && reads.take().is_some() && tries.take().is_some());
    world.set_full(REPLICATED, false);
    world.settle();
    assert!(waits.take().is_some());
}

/// An OSD that was full when it got a write has dropped it, and says nothing.
#[test]
fn what_was_under_way_goes_again_when_a_pool_is_not_full_any_more() {
    let mut world = World::with_map(config());
    let ticket = world.append(REPLICATED, "object", 1);
    for (epoch, full) in [(2, true), (3, false)] {
        world.set_full(REPLICATED, full);
        world.core.handle_map(&world.update(Epoch(epoch), false), world.now);
        world.drain();
    }
    assert_eq!(world.sent, 2);
    world.settle();
    assert!(ticket.take().is_some());
    assert_eq!(world.objects[&(REPLICATED, "object".to_owned())].done, [1]);
}

/// What was in between, nobody knows.
#[test]
fn a_map_after_others_that_were_missed_sends_all_again() {
    let mut world = World::with_map(config());
    let ticket = world.append(REPLICATED, "object", 1);
    // Out and in again: as it was, and yet not.
    for weight in [0, siphon_osdmap::WEIGHT_IN] {
        world.change(|_, inc| {
            inc.new_weight.insert(0, weight);
        });
    }
    world.core.handle_map(&world.update(Epoch(3), true), world.now);
    world.drain();
    assert_eq!(world.sent, 2);
    world.settle();
    assert!(ticket.take().is_some());
    assert_eq!(world.objects[&(REPLICATED, "object".to_owned())].done, [1]);
}

#[test]
fn a_pool_that_is_set_to_fail_fails() {
    let mut world = World::with_map(config());
    world.change_pool(REPLICATED, |pool, _| pool.flags |= PoolFlags::EIO);
    world.core.handle_map(&world.update(Epoch(2), false), world.now);
    world.drain();
    let ticket = world.append(REPLICATED, "object", 1);
    assert_eq!(ticket.take(), Some(Err(OpError::PoolFails { pool: REPLICATED })));
}

#[test]
fn reads_that_are_paused_wait() {
    let mut world = World::with_map(config());
    world.set_flags(MapFlags::SORTBITWISE | MapFlags::RECOVERY_DELETES | MapFlags::PAUSERD);
    world.core.handle_map(&world.update(Epoch(2), false), world.now);
    world.drain();
    let (reads, writes) = (world.submit(get("object")), world.append(REPLICATED, "object", 1));
    world.settle();
    assert!(reads.take().is_none() && writes.take().is_some());
    world.set_flags(MapFlags::SORTBITWISE | MapFlags::RECOVERY_DELETES);
    world.settle();
    assert!(reads.take().is_some());
}

#[test]
fn a_cache_tier_takes_what_is_for_its_pool() {
    let mut world = World::with_map(config());
    world.change(|map, inc| {
        inc.new_pools.insert(7, map.pools[&REPLICATED].clone());
        let mut base = map.pools[&REPLICATED].clone();
        (base.read_tier, base.write_tier) = (7, 7);
        inc.new_pools.insert(REPLICATED, base);
    });
    world.core.handle_map(&world.update(Epoch(2), false), world.now);
    world.drain();
    let ticket = world.append(REPLICATED, "object", 1);
    world.settle();
    assert!(ticket.take().unwrap().is_ok());
    assert!(world.objects.contains_key(&(7, "object".to_owned())));
    let mut past = append(REPLICATED, "object", 2);
    past.flags |= OsdFlags::IGNORE_OVERLAY;
    let ticket = world.submit(past);
    world.settle();
    assert!(ticket.take().is_some());
    assert!(world.objects.contains_key(&(REPLICATED, "object".to_owned())));
}

#[test]
fn snapshots_that_were_removed_are_not_written() {
    let mut world = World::with_map(config());
    let mut op = append(REPLICATED, "object", 1);
    op.snapc.seq = SnapId(5);
    op.snapc.snaps = vec![SnapId(5), SnapId(3)];
    let ticket = world.submit(op);
    let before = world.core.ops[&ticket.id()].message.clone();
    world.change(|_, inc| {
        inc.new_removed_snaps.insert(REPLICATED, [(SnapId(3), 1)].into_iter().collect());
    });
    world.core.handle_map(&world.update(Epoch(2), false), world.now);
    world.drain();
    assert_eq!(world.core.ops[&ticket.id()].message.snaps, [SnapId(5)]);
    assert_eq!(before.snaps.len(), 2, "what is being sent stays as it was");
}

#[test]
fn the_map_of_another_cluster_and_one_that_cannot_be_read_are_not_taken() {
    let mut bench = Bench::new(config());
    let mut world = World::new(config());
    world.stop_osd(0);
    let mut other = world.update(Epoch(2), false);
    other.fsid = Uuid([8; 16]);
    bench.core.handle_map(&other, bench.now);
    assert_eq!(bench.core.map().epoch, Epoch(1));
    let mut garbage = world.update(Epoch(2), false);
    garbage.incremental_maps.insert(Epoch(2), Bytes::from_static(b"garbage"));
    bench.core.handle_map(&garbage, bench.now);
    bench.drain();
    assert_eq!(bench.core.map().epoch, Epoch(1));
    assert_eq!(bench.wanted.last(), Some(&(Epoch(0), false)), "a whole one");
}

#[test]
fn a_placement_group_is_asked_by_its_hash() {
    let mut bench = Bench::new(config());
    let op = Op::read(Target::pg(REPLICATED, 5), vec![OsdOp::new(OsdOpCode::PGNLS)]);
    bench.submit(op);
    let (_, _, request) = bench.last();
    assert_eq!(request.pgid.pg, PgId { pool: 1, seed: 5 });
    assert_eq!((request.locator.hash, request.hash), (5, 5));
    assert!(request.oid.is_empty() && request.flags.contains(OsdFlags::IGNORE_OVERLAY));
}

#[test]
fn late_operations_probe_their_connections() {
    let mut bench = Bench::new(config());
    bench.submit(get("object"));
    bench.wait(Duration::from_secs(5));
    assert_eq!((bench.sent.len(), bench.wanted.len()), (1, 0));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.sent[1].1.header.msg_type, msg_type::CEPH_MSG_PING);
    assert_eq!(bench.wanted, [(Epoch(2), false)]);
}

#[test]
fn commands_find_their_osd_and_errors_are_certain() {
    let mut world = World::with_map(config());
    let submit = |world: &mut World, target| {
        let ticket = Ticket::new();
        let (cmd, now) = (vec!["{}".into()], world.now);
        world.core.command(target, cmd, Bytes::new(), None, ticket.clone(), now);
        world.drain();
        ticket
    };
    let primary = {
        let (pg, mut work) = (PgId { pool: 1, seed: 3 }, PgWorkspace::new());
        world.map.map_pg(pg, &mut work).acting_primary.unwrap()
    };
    let by_pg = submit(&mut world, CommandTarget::Pg(PgId { pool: 1, seed: 3 }));
    let (session, osd) = world.conns.iter().map(|(id, conn)| (*id, conn.osd)).next().unwrap();
    assert_eq!(osd, primary);
    world.lose(session);
    world.tell_lost(session);
    let session = world.sessions()[0];
    let again = MCommandReply { result: -11, ..MCommandReply::default() };
    world.core.handle_command_reply(session, by_pg.id(), Ok(again));
    world.wait(Duration::from_secs(5));
    let done = MCommandReply { result: -22, status: "so".into(), ..MCommandReply::default() };
    world.core.handle_command_reply(session, by_pg.id(), Ok(done));
    world.drain();
    assert_eq!(by_pg.take().unwrap().unwrap().code, -22);

    let nobody = submit(&mut world, CommandTarget::Osd(99));
    let no_pool = submit(&mut world, CommandTarget::Pg(PgId { pool: 9, seed: 0 }));
    world.settle();
    assert_eq!(nobody.take(), Some(Err(OpError::NoSuchOsd { osd: 99 })));
    assert_eq!(no_pool.take(), Some(Err(OpError::NoSuchPool { pool: 9 })));
    world.stop_osd(2);
    world.core.handle_map(&world.update(Epoch(2), false), world.now);
    world.drain();
    let down = submit(&mut world, CommandTarget::Osd(2));
    world.start_osd(2); // the monitors know more than we
    world.settle();
    assert!(down.take().is_none());
    world.stop_osd(3);
    let _ = submit(&mut world, CommandTarget::Osd(3));
    world.core.handle_map(&world.update(Epoch(4), false), world.now);
    world.drain();
    let down = submit(&mut world, CommandTarget::Osd(3));
    world.settle();
    assert_eq!(down.take(), Some(Err(OpError::OsdDown { osd: 3 })));
}
