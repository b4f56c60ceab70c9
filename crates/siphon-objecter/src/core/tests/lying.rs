//! Peers that say anything: nothing panics, and nothing is told twice. When they behave again all has a result,
//! and at the end nothing is left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use siphon_messages::osd::{BackoffOp, OsdFlags, OsdOp, OsdOpCode, WatchEventKind};
use siphon_messages::{
    MCommand, MCommandReply, MOSDBackoff, MOSDMap, MOSDOp, MOSDOpReply, MWatchNotify, MessageError,
    TypedMessage,
};
use siphon_osdmap::{Incremental, MapFlags, OsdState, PoolFlags};
use siphon_proto::Message;
use siphon_wire::Encode as _;
use siphon_wire::types::{Epoch, Features, HObject, ObjectLocator, PgId, RequestRedirect, SpgId};

use super::world::{CODED, FSID, OSDS, REPLICATED, addr, arrived, config, first_map};
use crate::core::{CommandTarget, Core, CoreConfig, Done, Output, SessionId, Then};
use crate::ticket::Ticket;
use crate::watch::WatchQueue;
use crate::{Op, Target};

/// A core, and peers that make up what they say.
struct Lies {
    core: Core,
    now: Instant,
    rng: ChaCha8Rng,
    /// Sessions that the core believes in.
    open: BTreeSet<SessionId>,
    /// All that there were.
    sessions: Vec<SessionId>,
    requests: Vec<(SessionId, u64, MOSDOp)>,
    /// What was sent and is not looked at yet.
    sent: Vec<(SessionId, Message)>,
    newest_asked: bool,
    ids: Vec<u64>,
    cookies: Vec<u64>,
    asked: Vec<Asked>,
    budgets: Vec<Ticket<Result<(), crate::OpError>>>,
}

/// Something that was asked for and not given up.
struct Asked {
    /// The number by which to give it up.
    id: Box<dyn Fn() -> u64>,
    is_done: Box<dyn Fn() -> bool>,
    /// An operation or a command, and not what has another way to give it up.
    plain: bool,
}

impl Lies {
    #[expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
    fn new(seed: u64) -> Self {
        let config = CoreConfig {
            max_ops: 20,
            max_bytes: 2_000,
            timeout: seed.is_multiple_of(2).then_some(Duration::from_secs(40)),
            ..config()
        };
        let mut lies = Self {
            core: Core::new(config),
            now: Instant::now(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            open: BTreeSet::new(),
            sessions: vec![],
            requests: vec![],
            sent: vec![],
            newest_asked: false,
            ids: vec![0],
            cookies: vec![0],
            asked: vec![],
            budgets: vec![],
        };
        lies.core.begin();
        lies.drain();
        lies
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Open { session, .. } => {
                    assert!(self.open.insert(session), "a session is opened once");
                    self.sessions.push(session);
                }
                // One that waits to be opened is closed as well.
                Output::Close { session } => {
                    self.open.remove(&session);
                }
                Output::Send { session, message } => {
                    assert!(self.open.contains(&session), "what is sent has a session");
                    let message = arrived(&message);
                    if let Ok(request) = MOSDOp::from_message(&message) {
                        self.requests.push((session, message.header.tid, request));
                    }
                    self.ids.push(message.header.tid);
                    self.sent.push((session, message));
                }
                Output::WantMap { .. } => {}
                Output::CheckNewest => self.newest_asked = true,
                Output::Done(done) => {
                    assert!(!is_told(&done), "{done:?} is told twice");
                    done.deliver();
                }
            }
        }
    }

    fn any<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.rng).expect("there is one").clone()
    }

    fn session(&mut self) -> SessionId {
        let open: Vec<_> = self.open.iter().copied().collect();
        match open.choose(&mut self.rng) {
            Some(session) if self.rng.random_bool(0.9) => *session,
            // One that is over: nothing comes on one that waits to be opened.
            _ => {
                let any = SessionId(self.rng.random_range(0..100));
                if self.core.osd_of(any).is_some() { SessionId(0) } else { any }
            }
        }
    }

    /// Mostly one that there is.
    fn id(&mut self) -> u64 {
        let recent = self.ids.len().saturating_sub(40);
        match self.rng.random_bool(0.9) {
            true => *self.ids[recent..].choose(&mut self.rng).expect("there is one"),
            false => self.rng.random(),
        }
    }

    fn pool(&mut self) -> i64 {
        self.any(&[REPLICATED, REPLICATED, CODED, CODED, 3, -1, i64::MAX])
    }

    fn op(&mut self) -> Op {
        let name = format!("object{}", self.rng.random_range(0..20));
        let target = Target::object(self.pool(), name.as_str());
        let length = self.any(&[0, 1, 100, 1_000, u64::MAX]);
        let mut op = match self.rng.random_bool(0.5) {
            true => Op::read(target, vec![OsdOp::read(0, length)]),
            false => Op::write(target, vec![OsdOp::write_full(Bytes::from(vec![0; 50]).into())]),
        };
        let flags = [OsdFlags::NONE, OsdFlags::NONE, OsdFlags::BALANCE_READS, OsdFlags::FULL_TRY];
        op.flags |= self.any(&flags);
        op
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..25 => self.ask(),
            25..30 => self.give_up(),
            30..60 => self.reply(),
            60..68 => self.hold_back(),
            68..76 => self.tell_of_a_watch(),
            76..80 => {
                let reply = match self.rng.random_bool(0.8) {
                    true => {
                        let result = self.any(&[0, -2, -11, i32::MIN]);
                        Ok(MCommandReply { result, ..MCommandReply::default() })
                    }
                    false => Err(malformed()),
                };
                let (session, id) = (self.session(), self.id());
                self.core.handle_command_reply(session, id, reply);
            }
            80..90 => self.send_map(),
            90..92 => {
                let epoch = self.core.map().epoch;
                let newest = [None, Some(epoch), Some(Epoch(epoch.0.wrapping_add(3)))];
                let newest = self.any(&[newest[0], newest[1], newest[2], Some(Epoch(0))]);
                self.core.handle_newest(newest, self.now);
            }
            92..96 => {
                let session = self.session();
                self.open.remove(&session);
                self.core.handle_reset(session, self.now);
            }
            _ => {
                let millis = self.rng.random_range(1..9_000);
                self.now += Duration::from_millis(millis);
                self.core.handle_timeout(self.now);
            }
        }
        self.drain();
    }

    /// Notes what was asked for; `cookie` is a watch's or a notification's.
    fn keep<T: 'static>(&mut self, ticket: &Ticket<T>, cookie: Option<u64>, plain: bool) {
        self.ids.push(ticket.id());
        let (numbered, told) = (ticket.clone(), ticket.clone());
        let id = move || cookie.unwrap_or_else(|| numbered.id());
        let is_done = move || told.is_done();
        self.asked.push(Asked { id: Box::new(id), is_done: Box::new(is_done), plain });
    }

    fn ask(&mut self) {
        let (op, now) = (self.op(), self.now);
        match self.rng.random_range(0..10) {
            0..5 => {
                let ticket = Ticket::new();
                self.core.submit(op, Then::Reply(ticket.clone()), now);
                self.keep(&ticket, None, true);
            }
            5 => {
                let ticket = Ticket::new();
                let bytes = self.any(&[0, 100, 3_000, u64::MAX]);
                self.core.reserve(bytes, ticket.clone(), now);
                self.keep(&ticket, None, false);
                self.budgets.push(ticket);
            }
            6 => {
                let granted = self.budgets.iter().position(Ticket::is_done);
                let Some(granted) = granted else { return };
                let (id, ticket) = (self.budgets.swap_remove(granted).id(), Ticket::new());
                self.core.submit_within(id, op, Then::Reply(ticket.clone()), now);
                self.keep(&ticket, None, true);
            }
            7 => {
                let ticket = Ticket::new();
                let cookie = self.core.watch(op, 30, WatchQueue::default(), ticket.clone(), now);
                self.cookies.push(cookie);
                self.keep(&ticket, Some(cookie), false);
            }
            8 => {
                let ticket = Ticket::new();
                let cookie = self.core.notify(op, &Bytes::new(), 10, ticket.clone(), now);
                self.cookies.push(cookie);
                self.keep(&ticket, Some(cookie), false);
            }
            _ if self.rng.random_bool(0.5) => {
                let ticket = Ticket::new();
                let pg = PgId { pool: self.pool().cast_unsigned(), seed: self.rng.random() };
                let target = match self.rng.random_bool(0.5) {
                    true => CommandTarget::Osd(self.rng.random_range(-1..OSDS + 1)),
                    false => CommandTarget::Pg(pg),
                };
                self.core.command(target, vec![], Bytes::new(), None, ticket.clone(), now);
                self.keep(&ticket, None, true);
            }
            _ => {
                let ticket = Ticket::new();
                let epoch = Epoch(self.core.map().epoch.0.saturating_add(2));
                self.core.wait_for_epoch(epoch, None, ticket.clone(), now);
                self.keep(&ticket, None, false);
            }
        }
    }

    /// What is given up is told nobody.
    fn give_up(&mut self) {
        let now = self.now;
        match self.rng.random_range(0..3) {
            0 => {
                let cookies = self.cookies.clone();
                let cookie = self.any(&cookies);
                self.core.forget_linger(cookie, now);
                self.asked.retain(|asked| (asked.id)() != cookie);
            }
            1 if !self.budgets.is_empty() => {
                let any = self.rng.random_range(0..self.budgets.len());
                let id = self.budgets.swap_remove(any).id();
                self.core.release(id, now);
                self.asked.retain(|asked| (asked.id)() != id);
            }
            _ => {
                let Some(asked) = self.asked.choose(&mut self.rng).filter(|it| it.plain) else {
                    return;
                };
                let id = (asked.id)();
                self.core.cancel(id, now);
                self.asked.retain(|asked| (asked.id)() != id);
            }
        }
    }

    fn reply(&mut self) {
        let recent = self.requests.len().saturating_sub(30);
        let Some((session, tid, request)) = self.requests[recent..].choose(&mut self.rng).cloned()
        else {
            return;
        };
        let result = self.any(&[0, 0, 0, -2, -11, -11, -108, -4_100, i32::MIN, 7]);
        let mut reply = MOSDOpReply::new(&request, result, OsdFlags::ONDISK);
        if self.rng.random_bool(0.1) {
            reply.retry_attempt = self.any(&[-1, 0, 1, 2, i32::MAX, i32::MIN]);
        }
        if self.rng.random_bool(0.1) {
            reply.ops.truncate(self.rng.random_range(0..2));
        }
        if self.rng.random_bool(0.1) {
            let object = self.any(&["", "elsewhere"]).into();
            let locator = ObjectLocator::new(self.pool());
            reply.redirect = Some(RequestRedirect { locator, object });
        }
        let session = if self.rng.random_bool(0.9) { session } else { self.session() };
        let tid = if self.rng.random_bool(0.9) { tid } else { self.id() };
        let reply = if self.rng.random_bool(0.95) { Ok(reply) } else { Err(malformed()) };
        self.core.handle_reply(session, tid, reply, self.now);
    }

    fn hold_back(&mut self) {
        let pool = self.pool().cast_unsigned();
        let pgid = SpgId::from(PgId { pool, seed: self.rng.random_range(0..8) });
        let op = self.any(&[BackoffOp::BLOCK, BackoffOp::UNBLOCK, BackoffOp::ACK_BLOCK]);
        let mut edge = || match self.rng.random_range(0..4) {
            0 => HObject::min(),
            1 => HObject::max(),
            _ => HObject::new(REPLICATED, "object7", self.rng.random()),
        };
        let (begin, end) = (edge(), edge());
        let id = self.rng.random_range(0..5);
        let backoff = MOSDBackoff { pgid, op, id, begin, end, ..MOSDBackoff::default() };
        let session = self.session();
        self.core.handle_backoff(session, &backoff, self.now);
    }

    fn tell_of_a_watch(&mut self) {
        let cookies = self.cookies.clone();
        let kinds =
            [WatchEventKind::NOTIFY, WatchEventKind::NOTIFY_COMPLETE, WatchEventKind::DISCONNECT];
        let event = MWatchNotify {
            cookie: self.any(&cookies),
            kind: self.any(&kinds),
            notify_id: self.rng.random_range(0..3),
            answers: Bytes::from(vec![7; self.any(&[0, 0, 9])]).into(),
            ..MWatchNotify::default()
        };
        let session = self.session();
        self.core.handle_watch_notify(session, event);
    }

    /// All sessions are lost, and from then on everybody behaves.
    fn heal(&mut self) {
        let budgets: Vec<u64> = self.budgets.drain(..).map(|budget| budget.id()).collect();
        budgets.iter().for_each(|id| self.core.release(*id, self.now));
        self.asked.retain(|asked| !budgets.contains(&(asked.id)()));
        self.drain();
        self.sent.clear();
        for session in self.open.clone() {
            self.open.remove(&session);
            self.core.handle_reset(session, self.now);
            self.drain();
        }
        let mut map = first_map();
        map.epoch = Epoch(self.core.map().epoch.0.saturating_add(5));
        let mut update = MOSDMap { fsid: FSID, ..MOSDMap::default() };
        update.maps.insert(map.epoch, map.to_bytes(Features::ALL));
        self.core.handle_map(&update, self.now);
        self.drain();
        for _ in 0..1_000 {
            if std::mem::take(&mut self.newest_asked) {
                self.core.handle_newest(Some(map.epoch), self.now);
                self.drain();
            }
            for (session, asked) in std::mem::take(&mut self.sent) {
                self.answer(session, &asked);
                self.drain();
            }
            if self.asked.iter().all(|asked| (asked.is_done)()) {
                return;
            }
            self.now += Duration::from_secs(1);
            self.core.handle_timeout(self.now);
            self.drain();
        }
        let waiting = self.asked.iter().filter(|asked| !(asked.is_done)());
        let waiting: Vec<u64> = waiting.map(|asked| (asked.id)()).collect();
        panic!("{waiting:?} have no result: {:#?}", self.core.describe());
    }

    fn answer(&mut self, session: SessionId, asked: &Message) {
        let (tid, now) = (asked.header.tid, self.now);
        if asked.header.msg_type == MCommand::TYPE {
            self.core.handle_command_reply(session, tid, Ok(MCommandReply::default()));
        }
        let Ok(request) = MOSDOp::from_message(asked) else { return };
        let mut reply = MOSDOpReply::new(&request, 0, OsdFlags::ONDISK);
        let notify = reply.ops.iter_mut().find(|op| op.code == OsdOpCode::NOTIFY);
        let cookie = notify.map(|op| {
            op.data = Bytes::copy_from_slice(&[7; 8]).into();
            u64::from_le_bytes(op.args[..8].try_into().unwrap())
        });
        self.core.handle_reply(session, tid, Ok(reply), now);
        if let Some(cookie) = cookie {
            let kind = WatchEventKind::NOTIFY_COMPLETE;
            let notify_id = u64::from_le_bytes([7; 8]);
            let event = MWatchNotify { cookie, kind, notify_id, ..MWatchNotify::default() };
            self.core.handle_watch_notify(session, event);
        }
    }

    /// One that fits, mostly, and changes what it likes.
    fn send_map(&mut self) {
        let have = self.core.map().epoch;
        let mut update = MOSDMap { fsid: FSID, ..MOSDMap::default() };
        if have.0 == 0 || self.rng.random_bool(0.05) {
            let mut map = first_map();
            map.epoch = Epoch(have.0.saturating_add(self.any(&[1, 1, 7])));
            update.maps.insert(map.epoch, map.to_bytes(Features::ALL));
        } else {
            let epoch = Epoch(have.0.saturating_add(self.any(&[0, 1, 1, 1, 1, 1, 1, 2])));
            let mut inc = Incremental { fsid: FSID, epoch, ..Incremental::default() };
            self.change(&mut inc);
            let mut bytes = inc.to_bytes(Features::ALL);
            if self.rng.random_bool(0.05) {
                bytes.truncate(bytes.len() / 2);
            }
            update.incremental_maps.insert(epoch, bytes);
        }
        self.core.handle_map(&update, self.now);
    }

    fn change(&mut self, inc: &mut Incremental) {
        let osd = self.rng.random_range(0..OSDS);
        let pool = self.any(&[REPLICATED, CODED]);
        let pg = PgId { pool: pool.cast_unsigned(), seed: self.rng.random_range(0..8) };
        match self.rng.random_range(0..8) {
            0 => {
                inc.new_state.insert(osd, OsdState::UP);
            }
            // At any address, also one that another has.
            1 | 2 => {
                let other = addr(self.rng.random_range(0..OSDS), self.rng.random_range(1..4));
                inc.new_up_client.insert(osd, other.into());
            }
            3 => {
                let odd = [vec![], vec![-1], vec![osd, -5, 1_000], vec![osd, osd], vec![osd]];
                inc.new_pg_temp.insert(pg, self.any(&odd));
            }
            4 => {
                inc.new_primary_temp.insert(pg, self.any(&[-1, osd, 1_000, i32::MIN]));
            }
            5 => {
                let flags = MapFlags::SORTBITWISE | MapFlags::RECOVERY_DELETES;
                let others = [MapFlags::FULL, MapFlags::PAUSERD, MapFlags::PAUSEWR, flags, flags];
                inc.new_flags = Some(flags | self.any(&others));
            }
            6 if self.rng.random_bool(0.1) => {
                inc.old_pools.insert(pool);
            }
            _ => {
                let Some(known) = self.core.map().pools.get(&pool) else { return };
                let mut changed = known.clone();
                match self.rng.random_range(0..7) {
                    0 => changed.pg_num = self.any(&[0, 1, 3, 8, 12, 16, u32::MAX]),
                    4 => changed.pgp_num = self.any(&[0, 1, 8, u32::MAX]),
                    5 => changed.size = self.any(&[0, 1, 3, u8::MAX]),
                    6 => changed.crush_rule = self.any(&[0, 1, 77, u8::MAX]),
                    1 => changed.flags = self.any(&[PoolFlags(0), PoolFlags::FULL, PoolFlags::EIO]),
                    2 => changed.read_tier = self.any(&[-1, CODED, 77]),
                    _ => changed.last_force_op_resend = inc.epoch,
                }
                inc.new_pools.insert(pool, changed);
            }
        }
    }
}

fn malformed() -> MessageError {
    MOSDOp::from_message(&arrived(&MCommandReply::default().into_out())).unwrap_err()
}

fn is_told(done: &Done) -> bool {
    match done {
        Done::Op(ticket, _) => ticket.is_done(),
        Done::Command(ticket, _) => ticket.is_done(),
        Done::Watch(ticket, _) => ticket.is_done(),
        Done::Notify(ticket, _) => ticket.is_done(),
        Done::Budget(ticket, _) => ticket.is_done(),
        Done::Map(ticket, _) => ticket.is_done(),
        Done::Event(..) => false,
    }
}

#[test]
fn whatever_peers_say_everything_ends() {
    let (mut requests, mut told) = (0, 0);
    for seed in super::history::seeds() {
        println!("seed {seed}");
        let mut lies = Lies::new(seed);
        for _ in 0..2_000 {
            lies.step();
        }
        requests += lies.requests.len();
        told += lies.asked.iter().filter(|asked| (asked.is_done)()).count();
        if seed % 4 < 3 {
            lies.heal();
        }
        lies.core.shut_down();
        lies.drain();
        assert!(lies.asked.iter().all(|asked| (asked.is_done)()), "all is told");
        for budget in std::mem::take(&mut lies.budgets) {
            lies.core.release(budget.id(), lies.now);
        }
        for cookie in std::mem::take(&mut lies.cookies) {
            lies.core.forget_linger(cookie, lies.now);
        }
        lies.drain();
        assert!(lies.core.describe().is_empty() && lies.open.is_empty());
        assert_eq!((lies.core.inflight_ops, lies.core.inflight_bytes), (0, 0));
        assert_eq!(lies.core.poll_timeout(), None);
    }
    println!("{requests} requests, {told} results before everybody behaved");
    assert!(requests > 1_000 && told > 1_000);
}
