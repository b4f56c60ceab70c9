//! Watches and notifications.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use siphon_messages::osd::{OsdFlags, OsdOp, OsdOpCode, WatchEventKind, WatchOp};
use siphon_messages::{MOSDOp, MOSDOpReply, MWatchNotify, TypedMessage, msg_type};
use siphon_osdmap::MapFlags;
use siphon_wire::Encoder;
use siphon_wire::types::{Epoch, Errno, Features};

use super::world::{REPLICATED, World, arrived, config};
use crate::core::{Done, Output, SessionId, Then};
use crate::ticket::Ticket;
use crate::watch::{NotifyReply, WatchQueue};
use crate::{Op, OpError, Target, WatchEvent};

/// A world whose OSDs answer watches by hand.
struct Watching {
    world: World,
    queue: WatchQueue,
    began: Ticket<Result<(), OpError>>,
    cookie: u64,
    sent: Vec<(SessionId, u64, MOSDOp)>,
}

impl Watching {
    fn new() -> Self {
        let mut world = World::with_map(config());
        let (queue, began) = (WatchQueue::default(), Ticket::new());
        let op = Op::write(Target::object(REPLICATED, "watched"), vec![]);
        let now = world.now;
        let cookie = world.core.watch(op, 30, queue.clone(), began.clone(), now);
        let mut watching = Self { world, queue, began, cookie, sent: vec![] };
        watching.drain();
        watching
    }

    fn drain(&mut self) {
        let mut others = Vec::new();
        while let Some(output) = self.world.core.poll_output() {
            match output {
                Output::Send { session, message } => {
                    let message = arrived(&message);
                    if message.header.msg_type == msg_type::CEPH_MSG_OSD_OP {
                        let request = MOSDOp::from_message(&message).unwrap();
                        self.sent.push((session, message.header.tid, request));
                    }
                }
                Output::Done(done) => Done::deliver(done),
                other => others.push(other),
            }
        }
    }

    fn last(&self) -> &(SessionId, u64, MOSDOp) {
        self.sent.last().unwrap()
    }

    /// Action, generation and cookie of the last watch operation.
    fn last_watch(&self) -> (WatchOp, u32, u64) {
        let op = self.last().2.ops.iter().find(|op| op.code == OsdOpCode::WATCH).unwrap();
        let number = |at: usize| u32::from_le_bytes(op.args[at..at + 4].try_into().unwrap());
        let cookie = u64::from_le_bytes(op.args[..8].try_into().unwrap());
        (WatchOp(op.args[16]), number(17), cookie)
    }

    fn answer(&mut self, result: i32) {
        let (session, tid, request) = self.last().clone();
        let reply = MOSDOpReply::new(&request, result, OsdFlags::ONDISK);
        let now = self.world.now;
        self.world.core.handle_reply(session, tid, Ok(reply), now);
        self.drain();
    }

    /// A tick passes.
    fn tick(&mut self) {
        self.world.now += Duration::from_secs(5);
        let now = self.world.now;
        self.world.core.handle_timeout(now);
        self.drain();
    }

    fn event(&self) -> Option<WatchEvent> {
        match self.queue.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        }
    }

    fn tell(&mut self, kind: WatchEventKind, notify_id: u64) {
        let event =
            MWatchNotify { cookie: self.cookie, notify_id, kind, ..MWatchNotify::default() };
        let session = self.last().0;
        self.world.core.handle_watch_notify(session, event);
        self.drain();
    }

    fn lose_session(&mut self) {
        let (session, now) = (self.last().0, self.world.now);
        self.world.core.handle_reset(session, now);
        self.drain();
    }

    fn take_maps(&mut self, from: u32) {
        let (update, now) = (self.world.update(Epoch(from), false), self.world.now);
        self.world.core.handle_map(&update, now);
        self.drain();
    }
}

#[test]
fn a_watch_begins_again_until_it_has_begun_and_is_renewed_after_that() {
    let mut watching = Watching::new();
    assert_eq!(watching.last_watch(), (WatchOp::WATCH, 0, watching.cookie));
    watching.lose_session();
    assert_eq!(watching.last_watch().0, WatchOp::WATCH);
    assert_eq!((watching.sent.len(), watching.world.core.ops.len()), (2, 1));
    watching.answer(0);
    assert_eq!(watching.began.take(), Some(Ok(())));
    watching.lose_session();
    assert_eq!(watching.last_watch(), (WatchOp::RECONNECT, 1, watching.cookie));
    // Another interval, although the primary is the same.
    watching.answer(0);
    watching.world.change_pool(REPLICATED, |pool, _| pool.min_size = 1);
    watching.take_maps(2);
    assert_eq!(watching.last_watch(), (WatchOp::RECONNECT, 2, watching.cookie));
    watching.answer(0);
    assert_eq!(watching.event(), None);
}

#[test]
fn a_watch_that_cannot_begin_fails() {
    let mut watching = Watching::new();
    watching.answer(-2);
    assert_eq!(watching.began.take().unwrap().unwrap_err().errno(), Errno::ENOENT);
    assert!(watching.world.core.lingers.is_empty());
}

#[test]
fn a_watch_that_cannot_be_renewed_is_lost_and_says_so_once() {
    let mut watching = Watching::new();
    watching.answer(0);
    watching.lose_session();
    watching.answer(-2);
    let lost = OpError::WatchLost { errno: Errno::ENOTCONN };
    assert_eq!(watching.event(), Some(WatchEvent::Lost(lost.clone())));
    watching.tell(WatchEventKind::DISCONNECT, 0);
    watching.tell(WatchEventKind::NOTIFY, 1);
    let count = watching.sent.len();
    watching.lose_session();
    assert_eq!((watching.event(), watching.sent.len()), (None, count));
    let (cookie, now) = (watching.cookie, watching.world.now);
    assert_eq!(watching.world.core.check_watch(cookie, now), Err(lost));
}

#[test]
fn watches_are_checked() {
    let mut watching = Watching::new();
    watching.answer(0);
    watching.tick();
    assert_eq!(watching.last_watch(), (WatchOp::PING, 0, watching.cookie));
    let check =
        |watching: &Watching| watching.world.core.check_watch(watching.cookie, watching.world.now);
    assert_eq!(check(&watching), Ok(Duration::from_secs(5)));
    watching.answer(0);
    assert_eq!(check(&watching), Ok(Duration::ZERO));
    watching.tick();
    watching.answer(-107);
    assert!(matches!(watching.event(), Some(WatchEvent::Lost(_))));
    assert!(check(&watching).is_err());
}

#[test]
fn a_watch_is_asked_for_once_at_a_time_and_what_asks_goes_with_it() {
    let mut watching = Watching::new();
    watching.answer(0);
    let before = watching.sent.len();
    for _ in 0..5 {
        watching.tick();
    }
    assert_eq!(watching.sent.len(), before + 1, "the first has no answer yet");
    assert_eq!(watching.last_watch().0, WatchOp::PING);
    watching.answer(0);
    watching.tick();
    assert_eq!(watching.sent.len(), before + 2);
    let now = watching.world.now;
    watching.world.core.forget_linger(watching.cookie, now);
    assert!(watching.world.core.ops.is_empty());
}

#[test]
fn a_watch_that_is_given_up_while_it_begins_is_taken_back_from_the_osd() {
    let mut watching = Watching::new();
    assert_eq!(watching.last_watch().0, WatchOp::WATCH);
    let (session, cookie, now) = (watching.last().0, watching.cookie, watching.world.now);
    watching.world.core.forget_linger(cookie, now);
    watching.drain();
    assert_eq!((watching.last().0, watching.last_watch().0), (session, WatchOp::UNWATCH));
    assert_eq!(watching.last_watch().2, cookie);
}

/// Else who begins watches and gives up takes all the room, if an OSD does not answer.
#[test]
fn what_takes_a_watch_back_does_not_wait_for_ever() {
    let mut watching = Watching::new();
    let (cookie, now) = (watching.cookie, watching.world.now);
    watching.world.core.forget_linger(cookie, now);
    watching.drain();
    assert_eq!((watching.last_watch().0, watching.world.core.ops.len()), (WatchOp::UNWATCH, 1));
    for _ in 0..6 {
        watching.tick();
    }
    assert_eq!((watching.world.core.ops.len(), watching.world.core.inflight_ops), (0, 0));
}

/// An OSD forgets a watch that nobody asks for, whatever the pool takes at the time.
#[test]
fn a_watch_on_a_full_pool_is_asked_for() {
    let mut watching = Watching::new();
    watching.answer(0);
    watching.world.set_full(REPLICATED, true);
    watching.world.set_flags(watching.world.map.flags | MapFlags::PAUSEWR);
    watching.take_maps(2);
    watching.tick();
    assert_eq!(watching.last_watch(), (WatchOp::PING, 0, watching.cookie));
    watching.answer(0);
    let (cookie, now) = (watching.cookie, watching.world.now);
    assert_eq!(watching.world.core.check_watch(cookie, now), Ok(Duration::ZERO));
}

/// An OSD that had a watch before tells of its own, which nobody asks for any more.
#[test]
fn only_the_osd_that_has_a_watch_or_a_notification_ends_it() {
    let mut notifying = Notifying::new();
    let has_it = notifying.watching.last().0;
    let world = &mut notifying.watching.world;
    for n in 0..100 {
        let op = Op::read(
            Target::object(REPLICATED, format!("other{n}").as_str()),
            vec![OsdOp::read(0, 1)],
        );
        world.core.submit(op, Then::Nobody, world.now);
    }
    notifying.watching.drain();
    let other = notifying.watching.sent.iter().map(|sent| sent.0).find(|it| *it != has_it);
    let other = other.expect("objects are with several OSDs");
    let cookies: Vec<u64> = notifying.watching.world.core.lingers.keys().copied().collect();
    for cookie in cookies {
        for kind in [WatchEventKind::DISCONNECT, WatchEventKind::NOTIFY_COMPLETE] {
            let event = MWatchNotify { cookie, kind, ..MWatchNotify::default() };
            notifying.watching.world.core.handle_watch_notify(other, event);
        }
    }
    notifying.watching.drain();
    assert_eq!((notifying.watching.event(), notifying.ticket.take()), (None, None));
    notifying.watching.sent.retain(|sent| sent.0 == has_it);
    notifying.complete(1, 0, answers());
    assert!(notifying.ticket.take().unwrap().is_ok());
}

#[test]
fn what_notifications_say_has_a_maximum() {
    const LEN: usize = 30 << 20;
    let mut watching = Watching::new();
    watching.answer(0);
    let payload = Bytes::from(vec![0; LEN]);
    let session = watching.last().0;
    let tell = |watching: &mut Watching| {
        let (cookie, payload) = (watching.cookie, payload.clone());
        let kind = WatchEventKind::NOTIFY;
        let event = MWatchNotify { cookie, payload, kind, ..MWatchNotify::default() };
        watching.world.core.handle_watch_notify(session, event);
        watching.drain();
    };
    for _ in 0..2 {
        (0..3).for_each(|_| tell(&mut watching));
        let kept = std::iter::from_fn(|| watching.event()).collect::<Vec<_>>();
        assert!(matches!(
            kept[..],
            [WatchEvent::Notify(_), WatchEvent::Notify(_), WatchEvent::Overflow(1)]
        ));
    }
}

#[test]
fn what_does_not_begin_in_time_ends() {
    let mut config = config();
    config.timeout = Some(Duration::from_secs(20));
    let mut world = World::with_map(config);
    for osd in 0..8 {
        world.stop_osd(osd);
    }
    world.settle();
    let now = world.now;
    let (began, told) = (Ticket::new(), Ticket::new());
    let op = Op::write(Target::object(REPLICATED, "watched"), vec![]);
    world.core.watch(op, 300, WatchQueue::default(), began.clone(), now);
    let op = Op::read(Target::object(REPLICATED, "watched"), vec![]);
    world.core.notify(op, &Bytes::new(), 10, told.clone(), now);
    world.wait(Duration::from_secs(21));
    assert!(matches!(began.take(), Some(Err(OpError::TimedOut { .. }))));
    assert!(told.take().is_none(), "it has 10 s more for answers");
    world.wait(Duration::from_secs(10));
    assert!(matches!(told.take(), Some(Err(OpError::TimedOut { .. }))));
}

#[test]
fn what_no_message_can_carry_is_refused_before_it_ends_a_session() {
    let mut world = World::with_map(config());
    let now = world.now;
    let told = Ticket::new();
    let op = Op::read(Target::object(REPLICATED, "watched"), vec![]);
    let payload = Bytes::from(vec![0; (128 << 20) + 1]);
    world.core.notify(op, &payload, 10, told.clone(), now);
    let done = Ticket::new();
    let target = crate::core::CommandTarget::Osd(0);
    world.core.command(target, vec![], payload, None, done.clone(), now);
    world.drain();
    assert!(matches!(told.take(), Some(Err(OpError::TooLong { .. }))));
    assert!(matches!(done.take(), Some(Err(OpError::TooLong { .. }))));
    assert!(world.core.lingers.is_empty() && world.core.commands.is_empty());
}

#[test]
fn who_waits_for_a_map_waits_no_longer_than_asked() {
    let mut world = World::with_map(config());
    let now = world.now;
    let ticket = Ticket::new();
    let timeout = Some(Duration::from_secs(10));
    world.core.wait_for_epoch(Epoch(1_000_000), timeout, ticket.clone(), now);
    world.wait(Duration::from_secs(9));
    world.drain();
    assert!(ticket.take().is_none());
    world.wait(Duration::from_secs(2));
    world.drain();
    let after = Duration::from_secs(10);
    assert!(matches!(ticket.take(), Some(Err(OpError::TimedOut { after: it })) if it == after));
}

/// What a monitor sends for a subscription may come in vain.
#[test]
fn who_waits_for_a_map_asks_again() {
    let mut world = World::with_map(config());
    let ticket = Ticket::new();
    world.core.wait_for_epoch(Epoch(2), None, ticket.clone(), world.now);
    world.drain();
    assert_eq!(world.subscription.take(), Some((Epoch(2), false)));
    world.wait(Duration::from_secs(5));
    assert_eq!(world.subscription, Some((Epoch(2), false)));
    world.set_full(REPLICATED, true);
    world.settle();
    assert!(ticket.take().is_some());
    while world.core.poll_timeout().is_some() {
        world.wait(Duration::from_secs(5));
    }
}

#[test]
fn notifications_reach_the_watch_and_have_a_maximum() {
    let mut watching = Watching::new();
    watching.answer(0);
    for id in 0..5_000 {
        watching.tell(WatchEventKind::NOTIFY, id);
    }
    for id in 0..4_096 {
        let Some(WatchEvent::Notify(event)) = watching.event() else { panic!("{id}") };
        assert_eq!(event.notify_id, id);
    }
    assert_eq!(watching.event(), Some(WatchEvent::Overflow(5_000 - 4_096)));
    watching.tell(WatchEventKind::NOTIFY, 7);
    assert!(matches!(watching.event(), Some(WatchEvent::Notify(_))));
    let (cookie, now) = (watching.cookie, watching.world.now);
    watching.world.core.forget_linger(cookie, now);
    watching.tell(WatchEventKind::NOTIFY, 8);
    assert_eq!(watching.event(), None);
}

#[test]
fn a_pool_that_goes_takes_watches_along() {
    let mut watching = Watching::new();
    watching.answer(0);
    watching.world.change(|_, inc| {
        inc.old_pools.insert(REPLICATED);
    });
    watching.take_maps(2);
    let lost = OpError::NoSuchPool { pool: REPLICATED };
    assert_eq!(watching.event(), Some(WatchEvent::Lost(lost)));
}

struct Notifying {
    watching: Watching,
    ticket: Ticket<Result<NotifyReply, OpError>>,
}

impl Notifying {
    fn new() -> Self {
        let mut watching = Watching::new();
        watching.answer(0);
        let ticket = Ticket::new();
        let op = Op::read(Target::object(REPLICATED, "watched"), vec![]);
        let now = watching.world.now;
        let payload = Bytes::from_static(b"hello");
        watching.cookie = watching.world.core.notify(op, &payload, 10, ticket.clone(), now);
        watching.drain();
        Self { watching, ticket }
    }

    /// The OSD numbers the notification.
    fn number(&mut self, id: &[u8]) {
        let (session, tid, request) = self.watching.last().clone();
        let mut reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
        reply.ops[0].data = Bytes::copy_from_slice(id).into();
        let now = self.watching.world.now;
        self.watching.world.core.handle_reply(session, tid, Ok(reply), now);
        self.watching.drain();
    }

    fn complete(&mut self, notify_id: u64, return_code: i32, answers: Bytes) {
        let event = MWatchNotify {
            cookie: self.watching.cookie,
            notify_id,
            kind: WatchEventKind::NOTIFY_COMPLETE,
            return_code,
            answers: answers.into(),
            ..MWatchNotify::default()
        };
        let session = self.watching.last().0;
        self.watching.world.core.handle_watch_notify(session, event);
        self.watching.drain();
    }
}

fn answers() -> Bytes {
    let mut enc = Encoder::new(Features::ALL);
    enc.value(&vec![((4_u64, 1_u64), Bytes::from_static(b"yes"))]);
    enc.value(&vec![(5_u64, 2_u64)]);
    enc.finish()
}

#[test]
fn a_notification_waits_for_all_answers() {
    let mut notifying = Notifying::new();
    let request = &notifying.watching.last().2;
    let wanted = b"\x01\0\0\0\x0a\0\0\0\x05\0\0\0hello";
    assert_eq!((request.ops.len(), &request.ops[0].data.to_bytes()[..]), (1, &wanted[..]));
    notifying.number(&77_u64.to_le_bytes());
    notifying.complete(76, 0, Bytes::new()); // of another time
    assert!(notifying.ticket.take().is_none());
    notifying.complete(77, -110, answers());
    let reply = notifying.ticket.take().unwrap().unwrap();
    assert_eq!(reply.answers, [((4, 1), Bytes::from_static(b"yes"))].into());
    assert_eq!((reply.missed, reply.error), (vec![(5, 2)], Some(Errno::ETIMEDOUT)));
    assert_eq!(notifying.watching.world.core.lingers.len(), 1, "the watch");
}

#[test]
fn a_notification_goes_again_over_the_next_session() {
    let mut notifying = Notifying::new();
    notifying.number(&77_u64.to_le_bytes());
    notifying.watching.lose_session();
    let codes: Vec<OsdOpCode> =
        notifying.watching.sent.iter().rev().take(2).map(|sent| sent.2.ops[0].code).collect();
    assert!(codes.contains(&OsdOpCode::NOTIFY), "{codes:?}");
    notifying.complete(78, 0, answers());
    assert!(notifying.ticket.take().unwrap().is_ok());
}

#[test]
fn answers_that_cannot_be_read_are_an_error() {
    for number in [&b"short"[..], b""] {
        let mut notifying = Notifying::new();
        notifying.number(number);
        assert!(matches!(notifying.ticket.take(), Some(Err(OpError::BadReply(_)))));
    }
    let whole = answers();
    for cut in 1..whole.len() {
        let mut notifying = Notifying::new();
        notifying.complete(1, 0, whole.slice(..cut));
        assert!(matches!(notifying.ticket.take(), Some(Err(OpError::BadReply(_)))), "{cut}");
    }
}
