//! A cluster in one's hand: OSDs that do what OSDs do by the map, lose sessions, hold back, and remember
//! what was done; monitors that give maps to who asked; and a client, the core.

#![expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use siphon_crush::{Bucket, CrushMap, Rule, RuleKind, Step, StepOp, Weights};
use siphon_messages::osd::{BackoffOp, OsdFlags, OsdOp, OsdOpCode};
use siphon_messages::{MOSDBackoff, MOSDMap, MOSDOp, MOSDOpReply, TypedMessage, msg_type};
use siphon_osdmap::{
    Incremental, MapFlags, OsdMap, OsdState, PgPool, PgSplit as _, PgWorkspace, PoolFlags,
    PoolType, WEIGHT_IN,
};
use siphon_proto::{Message, OutMessage, Priority};
use siphon_wire::types::{EntityAddr, Epoch, Features, HObject, PgId, SpgId, Uuid};
use siphon_wire::{Decode as _, Encode as _};

use crate::core::{Core, CoreConfig, Output, SessionId, Then};
use crate::ticket::Ticket;
use crate::{Op, OpError, OpReply, Target};

pub(super) const OSDS: i32 = 6;
pub(super) const REPLICATED: i64 = 1;
pub(super) const CODED: i64 = 2;
pub(super) const FSID: Uuid = Uuid([7; 16]);

pub(super) fn config() -> CoreConfig {
    CoreConfig {
        fsid: FSID,
        max_ops: 1024,
        max_bytes: 1 << 20,
        timeout: None,
        tick: Duration::from_secs(5),
        laggy: Duration::from_secs(10),
        priority: Priority(63),
        location: vec![],
        salt: 1,
    }
}

fn crush() -> CrushMap {
    let mut crush = CrushMap::new();
    crush.max_devices = OSDS;
    let weights = Weights::Straw2(vec![0x10000; OSDS as usize]);
    crush.set_bucket(Bucket::new(-1, 11, (0..OSDS).collect(), weights));
    for (id, kind, op) in [
        (0, RuleKind::REPLICATED, StepOp::CHOOSE_FIRSTN),
        (1, RuleKind::ERASURE, StepOp::CHOOSE_INDEP),
    ] {
        let steps = [(StepOp::TAKE, -1, 0), (op, 0, 0), (StepOp::EMIT, 0, 0)];
        crush.set_rule(id, Rule::new(kind, steps.map(Step::from).to_vec()));
    }
    crush
}

pub(super) fn addr(osd: i32, life: u32) -> EntityAddr {
    EntityAddr::msgr2(([127, 0, 0, 1], 6800 + osd as u16).into(), life)
}

/// A map of which all OSDs run, at epoch 1.
pub(super) fn first_map() -> OsdMap {
    let mut map = OsdMap { fsid: FSID, crush: Arc::new(crush()), ..OsdMap::default() };
    map.epoch = Epoch(1);
    map.flags = MapFlags::SORTBITWISE | MapFlags::RECOVERY_DELETES;
    map.require_osd_release = siphon_wire::types::Release::PACIFIC;
    map.set_max_osd(OSDS);
    for osd in 0..OSDS {
        map.osd_state[osd as usize] = OsdState::EXISTS | OsdState::UP;
        map.osd_weight[osd as usize] = WEIGHT_IN;
        Arc::make_mut(&mut map.osd_addrs).client[osd as usize] = addr(osd, 1).into();
    }
    map.pools.insert(REPLICATED, PgPool::new(PoolType::REPLICATED, 3, 0, 8));
    map.pools.insert(CODED, PgPool::new(PoolType::ERASURE, 3, 1, 4));
    map
}

/// A connection, as the OSD has it.
pub(super) struct Conn {
    pub(super) osd: i32,
    life: u32,
    to_osd: VecDeque<OutMessage>,
    to_client: VecDeque<Message>,
    /// Placement groups that the OSD holds back here.
    backoffs: BTreeMap<SpgId, Held>,
}

/// What an OSD knows of a backoff (`Backoff::state`).
struct Held {
    id: u64,
    acknowledged: bool,
    /// It was ended before the client had acknowledged it: what comes before that is not heard.
    ended: bool,
}

/// What happened to an object, as all OSDs know it.
#[derive(Default)]
pub(super) struct Object {
    /// Numbers of the writes that were done, in order.
    pub(super) done: Vec<u64>,
}

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Instant,
    pub(super) map: OsdMap,
    /// Each epoch, whole and as what it changed.
    history: BTreeMap<Epoch, (Bytes, Bytes)>,
    /// Epochs of which monitors still have what changed.
    pub(super) oldest: Epoch,
    /// Since when each placement group has its primary, and its present number of groups.
    since: BTreeMap<PgId, Epoch>,
    /// Epochs in which a pool took no writes.
    stopped: BTreeSet<(Epoch, i64)>,
    lives: BTreeMap<i32, u32>,
    pub(super) conns: BTreeMap<SessionId, Conn>,
    /// Connections that were lost, of which the client has not heard.
    pub(super) lost: Vec<SessionId>,
    pub(super) subscription: Option<(Epoch, bool)>,
    pub(super) newest_asked: bool,
    pub(super) objects: BTreeMap<(i64, String), Object>,
    /// Versions by transaction, as the logs of placement groups have them.
    versions: BTreeMap<u64, u64>,
    pub(super) sent: u64,
    /// A reservation that the next operation takes up.
    pub(super) budget: Option<u64>,
    next_backoff: u64,
}

impl World {
    pub(super) fn new(config: CoreConfig) -> Self {
        let map = first_map();
        let mut world = Self {
            core: Core::new(config),
            now: Instant::now(),
            history: [(Epoch(1), (map.to_bytes(Features::ALL), Bytes::new()))].into(),
            map,
            oldest: Epoch(1),
            since: BTreeMap::new(),
            stopped: BTreeSet::new(),
            lives: (0..OSDS).map(|osd| (osd, 1)).collect(),
            conns: BTreeMap::new(),
            lost: Vec::new(),
            subscription: None,
            newest_asked: false,
            objects: BTreeMap::new(),
            versions: BTreeMap::new(),
            sent: 0,
            budget: None,
            next_backoff: 0,
        };
        world.note_intervals(&OsdMap::default());
        world
    }

    /// One whose client has the newest map.
    pub(super) fn with_map(config: CoreConfig) -> Self {
        let mut world = Self::new(config);
        let update = world.update(Epoch(1), true);
        world.core.handle_map(&update, world.now);
        world.drain();
        world
    }

    pub(super) fn submit(&mut self, op: Op) -> Ticket<Result<OpReply, OpError>> {
        let ticket = Ticket::new();
        let then = Then::Reply(ticket.clone());
        match self.budget.take() {
            Some(id) => self.core.submit_within(id, op, then, self.now),
            None => self.core.submit(op, then, self.now),
        }
        self.drain();
        ticket
    }

    /// Submits the write that appends `number` to an object.
    pub(super) fn append(
        &mut self,
        pool: i64,
        object: &str,
        number: u64,
    ) -> Ticket<Result<OpReply, OpError>> {
        self.submit(append(pool, object, number))
    }

    /// Does what the core wants.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Open { session, addrs } => {
                    let osd = (0..OSDS).find(|osd| addrs.front().port() == addr(*osd, 0).port());
                    let (osd, life) = (osd.unwrap(), addrs.front().nonce());
                    let conn = Conn {
                        osd,
                        life,
                        to_osd: VecDeque::new(),
                        to_client: VecDeque::new(),
                        backoffs: BTreeMap::new(),
                    };
                    assert!(self.conns.insert(session, conn).is_none());
                }
                Output::Close { session } => {
                    self.conns.remove(&session);
                    self.lost.retain(|lost| *lost != session);
                }
                Output::Send { session, message } => {
                    self.sent += 1;
                    // To one that was lost, it is lost.
                    if let Some(conn) = self.conns.get_mut(&session) {
                        conn.to_osd.push_back(message);
                    }
                }
                Output::WantMap { from, continuous } => {
                    self.subscription = Some((from, continuous));
                }
                Output::CheckNewest => {
                    assert!(!std::mem::replace(&mut self.newest_asked, true), "asked twice");
                }
                Output::Done(done) => done.deliver(),
            }
        }
    }

    /// A new epoch.
    pub(super) fn change(&mut self, change: impl FnOnce(&OsdMap, &mut Incremental)) {
        let epoch = Epoch(self.map.epoch.0 + 1);
        let mut inc = Incremental { fsid: FSID, epoch, ..Incremental::default() };
        change(&self.map, &mut inc);
        let before = self.map.clone();
        let bytes = inc.to_bytes(Features::ALL);
        // What the client reads is what we go by.
        self.map.apply(&Incremental::from_bytes(&bytes).unwrap()).unwrap();
        self.history.insert(epoch, (self.map.to_bytes(Features::ALL), bytes));
        self.note_intervals(&before);
        for (id, pool) in &self.map.pools {
            if pool.flags.contains(PoolFlags::FULL) || self.map.pauses_writes() {
                self.stopped.insert((epoch, *id));
            }
        }
        // An OSD that is down has no connections.
        let map = &self.map;
        let dead = |conn: &Conn| {
            !map.is_up(conn.osd) || map.client_addrs(conn.osd).unwrap().front().nonce() != conn.life
        };
        let dead: Vec<SessionId> =
            self.conns.iter().filter(|(_, conn)| dead(conn)).map(|(id, _)| *id).collect();
        dead.into_iter().for_each(|session| self.lose(session));
    }

    pub(super) fn change_pool(&mut self, pool: i64, change: impl FnOnce(&mut PgPool, Epoch)) {
        self.change(|map, inc| {
            let mut changed = map.pools[&pool].clone();
            change(&mut changed, inc.epoch);
            changed.last_change = inc.epoch;
            inc.new_pools.insert(pool, changed);
        });
    }

    pub(super) fn set_full(&mut self, pool: i64, full: bool) {
        self.change_pool(pool, |pool, _| {
            let others = PoolFlags(pool.flags.0 & !PoolFlags::FULL.0);
            pool.flags = if full { others | PoolFlags::FULL } else { others };
        });
    }

    pub(super) fn set_flags(&mut self, flags: MapFlags) {
        self.change(|_, inc| inc.new_flags = Some(flags));
    }

    pub(super) fn stop_osd(&mut self, osd: i32) {
        if self.map.is_up(osd) {
            self.change(|_, inc| {
                inc.new_state.insert(osd, OsdState::UP);
            });
        }
    }

    pub(super) fn start_osd(&mut self, osd: i32) {
        if !self.map.is_up(osd) {
            let life = self.lives.get_mut(&osd).unwrap();
            *life += 1;
            let addrs = addr(osd, *life).into();
            self.change(|_, inc| {
                inc.new_up_client.insert(osd, addrs);
            });
        }
    }

    /// By the rules of OSDs: what came under an epoch before this one is not heard.
    fn note_intervals(&mut self, before: &OsdMap) {
        let mut work = PgWorkspace::new();
        let mut served = |map: &OsdMap, pg: PgId| {
            let osds = map.map_pg(pg, &mut work);
            let primary = osds.acting_primary;
            let role = osds.acting.iter().position(|osd| Some(*osd) == primary);
            (primary, role, osds.acting.is_empty())
        };
        for (id, pool) in &self.map.pools {
            for seed in 0..pool.pg_num {
                let pg = PgId { pool: *id as u64, seed };
                let old = before.pool(*id);
                let old_num = old.map_or(0, |pool| pool.pg_num);
                let changed = served(&self.map, pg) != served(before, pg);
                let split = old_num != pool.pg_num
                    && (seed >= old_num
                        || pg.children(old_num, pool.pg_num).next().is_some()
                        || pg.children(pool.pg_num, old_num).next().is_some());
                if changed || split {
                    self.since.insert(pg, self.map.epoch);
                }
            }
        }
    }

    /// Maps as a monitor or an OSD sends them.
    pub(super) fn update(&self, from: Epoch, whole: bool) -> MOSDMap {
        let mut update = MOSDMap {
            fsid: FSID,
            oldest_map: self.oldest,
            newest_map: self.map.epoch,
            ..MOSDMap::default()
        };
        if whole || from < self.oldest || from.0 == 0 {
            update.maps.insert(self.map.epoch, self.history[&self.map.epoch].0.clone());
            return update;
        }
        for (epoch, (_, inc)) in self.history.range(from..) {
            update.incremental_maps.insert(*epoch, inc.clone());
        }
        update
    }

    /// A monitor gives what was asked for; `false` if there is nothing to give.
    pub(super) fn give_map(&mut self) -> bool {
        let Some((from, continuous)) = self.subscription else { return false };
        if from > self.map.epoch {
            return false;
        }
        let update = self.update(from, false);
        self.subscription = continuous.then_some((Epoch(self.map.epoch.0 + 1), true));
        self.core.handle_map(&update, self.now);
        self.drain();
        true
    }

    /// A monitor tells the newest epoch, if that was asked.
    pub(super) fn tell_newest(&mut self) -> bool {
        if !std::mem::take(&mut self.newest_asked) {
            return false;
        }
        self.core.handle_newest(Some(self.map.epoch), self.now);
        self.drain();
        true
    }

    pub(super) fn lose(&mut self, session: SessionId) {
        if let Some(conn) = self.conns.get_mut(&session) {
            conn.to_osd.clear();
            conn.to_client.clear();
            if !self.lost.contains(&session) {
                self.lost.push(session);
            }
        }
    }

    /// The client hears that a connection was lost.
    pub(super) fn tell_lost(&mut self, session: SessionId) {
        self.lost.retain(|lost| *lost != session);
        self.conns.remove(&session);
        self.core.handle_reset(session, self.now);
        self.drain();
    }

    pub(super) fn is_lost(&self, session: SessionId) -> bool {
        self.lost.contains(&session)
    }

    /// An OSD takes the next message of a session; `false` if there is none.
    pub(super) fn serve(&mut self, session: SessionId) -> bool {
        if self.is_lost(session) {
            return false;
        }
        let Some(conn) = self.conns.get_mut(&session) else { return false };
        let Some(out) = conn.to_osd.pop_front() else { return false };
        let message = arrived(&out);
        if let Ok(MOSDBackoff { op: BackoffOp::ACK_BLOCK, pgid, .. }) =
            MOSDBackoff::from_message(&message)
            && let Some(held) = conn.backoffs.get_mut(&pgid)
        {
            held.acknowledged = true;
            if held.ended {
                conn.backoffs.remove(&pgid);
            }
        }
        if message.header.msg_type != msg_type::CEPH_MSG_OSD_OP {
            return true;
        }
        let request = MOSDOp::from_message(&message).unwrap();
        if request.osdmap_epoch < self.map.epoch {
            // An OSD shares its map with who has an older one.
            let update = self.update(Epoch(request.osdmap_epoch.0 + 1), false);
            self.answer(session, update.to_message(Features::ALL));
        }
        if let Some(reply) = self.execute(session, &request, message.header.tid) {
            let mut message = reply.to_message(Features::ALL);
            message.header.tid = out.header().tid;
            self.answer(session, message);
        }
        true
    }

    fn answer(&mut self, session: SessionId, message: Message) {
        self.conns.get_mut(&session).unwrap().to_client.push_back(message);
    }

    /// What an OSD does with a request: nothing, if it is not for it or not from now.
    fn execute(&mut self, session: SessionId, request: &MOSDOp, tid: u64) -> Option<MOSDOpReply> {
        let conn = &self.conns[&session];
        let pool = self.map.pool(request.locator.pool)?;
        let pg = pool.pg_of_hash(request.raw_pg());
        let (spg, primary) = self.map.primary_shard(pg, &mut PgWorkspace::new())?;
        let since = self.since.get(&pg).copied().unwrap_or_default();
        let stale = request.osdmap_epoch < since
            || request.osdmap_epoch < pool.last_force_op_resend
            || primary != conn.osd
            || request.pgid != spg;
        // An OSD would drop it and say nothing.
        let stopped = request.flags.contains(OsdFlags::WRITE)
            && self.stopped.contains(&(request.osdmap_epoch, request.locator.pool));
        assert!(
            !stopped || request.flags.contains(OsdFlags::FULL_TRY),
            "a write under epoch {}, which does not take any",
            request.osdmap_epoch
        );
        if stale || conn.backoffs.contains_key(&spg) {
            return None;
        }
        let mut reply = MOSDOpReply::new(request, 0, OsdFlags::ONDISK);
        let version = if let Some(known) = self.versions.get(&tid) {
            *known
        } else {
            let key = (request.locator.pool, request.oid.to_str().unwrap().to_owned());
            let object = self.objects.entry(key).or_default();
            for op in request.ops.iter().filter(|op| op.code == OsdOpCode::APPEND) {
                let bytes = op.data.to_bytes();
                object.done.push(u64::from_le_bytes(bytes[..].try_into().unwrap()));
            }
            let version = object.done.len() as u64;
            self.versions.insert(tid, version);
            version
        };
        reply.user_version = siphon_wire::types::Version(version);
        Some(reply)
    }

    /// The client takes the next message of a session; `false` if there is none.
    pub(super) fn deliver(&mut self, session: SessionId) -> bool {
        let Some(conn) = self.conns.get_mut(&session) else { return false };
        let Some(message) = conn.to_client.pop_front() else { return false };
        let (tid, now) = (message.header.tid, self.now);
        match message.header.msg_type {
            msg_type::CEPH_MSG_OSD_OPREPLY => {
                self.core.handle_reply(session, tid, MOSDOpReply::from_message(&message), now);
            }
            msg_type::CEPH_MSG_OSD_BACKOFF => {
                let backoff = MOSDBackoff::from_message(&message).unwrap();
                self.core.handle_backoff(session, &backoff, now);
            }
            msg_type::CEPH_MSG_OSD_MAP => {
                self.core.handle_map(&MOSDMap::from_message(&message).unwrap(), now);
            }
            other => panic!("an OSD sent a message of type {other}"),
        }
        self.drain();
        true
    }

    /// An OSD begins to hold a placement group back in a session, or ends that.
    pub(super) fn toggle_backoff(&mut self, session: SessionId, pg: PgId) {
        if self.is_lost(session) {
            return;
        }
        let Some((spg, primary)) = self.map.primary_shard(pg, &mut PgWorkspace::new()) else {
            return;
        };
        let Some(conn) = self.conns.get_mut(&session) else { return };
        let mut message = MOSDBackoff {
            pgid: spg,
            map_epoch: self.map.epoch,
            begin: HObject::min(),
            end: HObject::max(),
            ..MOSDBackoff::default()
        };
        match conn.backoffs.get_mut(&spg) {
            Some(held) if held.ended => return,
            Some(held) => {
                (message.op, message.id) = (BackoffOp::UNBLOCK, held.id);
                held.ended = true;
                if held.acknowledged {
                    conn.backoffs.remove(&spg);
                }
            }
            None if primary == conn.osd => {
                self.next_backoff += 1;
                let id = self.next_backoff;
                (message.op, message.id) = (BackoffOp::BLOCK, id);
                conn.backoffs.insert(spg, Held { id, acknowledged: false, ended: false });
            }
            None => return,
        }
        conn.to_client.push_back(message.to_message(Features::ALL));
    }

    pub(super) fn end_backoffs(&mut self) {
        for conn in self.conns.values_mut() {
            for (pgid, held) in conn.backoffs.iter_mut().filter(|(_, held)| !held.ended) {
                held.ended = true;
                let (pgid, op, id) = (*pgid, BackoffOp::UNBLOCK, held.id);
                let message = MOSDBackoff { pgid, op, id, ..MOSDBackoff::default() };
                conn.to_client.push_back(message.to_message(Features::ALL));
            }
            conn.backoffs.retain(|_, held| !held.acknowledged);
        }
    }

    /// Time passes.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        while self.core.poll_timeout().is_some_and(|at| at <= self.now) {
            self.core.handle_timeout(self.now);
            self.drain();
        }
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.conns.keys().copied().collect()
    }

    /// Lets everything go on until nothing happens any more.
    pub(super) fn settle(&mut self) {
        const MAX_STEPS: usize = 1_000_000;
        for _ in 0..MAX_STEPS {
            let mut went_on = self.give_map() | self.tell_newest();
            for lost in self.lost.clone() {
                self.tell_lost(lost);
                went_on = true;
            }
            for session in self.sessions() {
                went_on |= self.serve(session) | self.deliver(session);
            }
            if !went_on {
                return;
            }
        }
        panic!("it never ends");
    }
}

/// The write that appends `number` to an object.
pub(super) fn append(pool: i64, object: &str, number: u64) -> Op {
    let data = Bytes::copy_from_slice(&number.to_le_bytes());
    let op = OsdOp { data: data.into(), ..OsdOp::extent(OsdOpCode::APPEND, 0, 8) };
    Op::write(Target::object(pool, object), vec![op])
}

/// A message as its receiver gets it.
pub(super) fn arrived(out: &OutMessage) -> Message {
    out.clone().deliver(Features::REEF)
}
