//! OSDs and a monitor of our own, for what real ones seldom or never do.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use siphon_common::{Config, Context, Task};
use siphon_crush::{Bucket, CrushMap, Rule, RuleKind, Step, StepOp, Weights};
use siphon_messages::mon::{MonInfo, MonMap};
use siphon_messages::osd::{OsdFlags, OsdOp};
use siphon_messages::{
    MMonGetVersion, MMonGetVersionReply, MMonMap, MMonSubscribe, MOSDMap, MOSDOp, MOSDOpReply,
    TypedMessage,
};
use siphon_monclient::MonClient;
use siphon_msgr::{Connection, Dispatcher, Messenger, Stack};
use siphon_objecter::{BadReply, Objecter, ObjecterConfig, Op, OpError, OpReply, Target};
use siphon_osdmap::{MapFlags, OsdMap, OsdState, PgPool, PgWorkspace, PoolType, WEIGHT_IN};
use siphon_proto::{Message, Policy};
use siphon_wire::Encode as _;
use siphon_wire::types::{
    EntityAddrVec, EntityName, EntityType, Epoch, Errno, Features, ObjectLocator, Release,
    RequestRedirect, Uuid, Version,
};

const FSID: Uuid = Uuid([7; 16]);
const POOL: i64 = 1;
const OTHER_POOL: i64 = 2;
/// How long a test waits for what must come.
const HUNG: Duration = Duration::from_secs(60);

/// A request as an OSD gets it.
struct Request {
    connection: Connection,
    tid: u64,
    op: MOSDOp,
}

impl Request {
    fn reply(&self) -> MOSDOpReply {
        let mut reply = MOSDOpReply::new(&self.op, 0, OsdFlags::ONDISK);
        // Which object was asked.
        reply.ops[0].data = self.op.oid.clone().into_bytes().into();
        reply
    }

    fn answer(&self, tid: u64, reply: &MOSDOpReply) {
        let mut message = reply.to_message(Features::ALL);
        message.header.tid = tid;
        let _ = self.connection.send(message); // the client may be gone
    }
}

/// Serves every OSD that listens here.
struct Osd<F>(F);

impl<F: Fn(Request) + Send + Sync> Dispatcher for Osd<F> {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        if let Ok(op) = MOSDOp::from_message(&message) {
            let (connection, tid) = (connection.clone(), message.header.tid);
            (self.0)(Request { connection, tid, op });
        }
    }
}

/// Gives the maps that there are.
#[derive(Default)]
struct Monitor {
    monmap: Mutex<MonMap>,
    osdmap: Mutex<OsdMap>,
}

impl Dispatcher for Monitor {
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let osdmap = self.osdmap.lock().unwrap().clone();
        if let Ok(MMonGetVersion { handle, .. }) = MMonGetVersion::from_message(&message) {
            let version = osdmap.epoch.0.into();
            let reply = MMonGetVersionReply { handle, version, oldest_version: 1 };
            connection.send(reply.into_out()).unwrap();
        }
        let Ok(MMonSubscribe { what, .. }) = MMonSubscribe::from_message(&message) else { return };
        if what.contains_key(&b"monmap"[..].into()) {
            let monmap = self.monmap.lock().unwrap().clone();
            connection.send(MMonMap { monmap }.into_out()).unwrap();
        }
        let wanted = what.get(&b"osdmap"[..].into());
        if wanted.is_some_and(|wanted| wanted.start <= u64::from(osdmap.epoch.0)) {
            let whole = osdmap.to_bytes(Features::ALL);
            let maps = BTreeMap::from([(osdmap.epoch, whole)]);
            let update = MOSDMap { fsid: FSID, maps, ..MOSDMap::default() };
            connection.send(update.into_out()).unwrap();
        }
    }
}

/// A cluster whose OSDs all do what `serve` does, and a client of it.
struct World {
    objecter: Objecter,
    messengers: Vec<Messenger>,
}

impl World {
    /// With so many OSDs, all of them at one address if `twins`.
    fn start(osds: i32, twins: bool, serve: impl Fn(Request) + Send + Sync + 'static) -> Self {
        let mut config = Config::default();
        for (option, value) in [("auth_client_required", "none"), ("ms_mon_client_mode", "crc")] {
            config.set(option, value).unwrap();
        }
        config.ms_async_op_threads = 1;
        config.objecter_tick_interval = Duration::from_millis(50);
        let context = Context::new(config.clone());
        let stack = Stack::new(&context).unwrap();
        let monitor = Arc::new(Monitor::default());
        let serve: Arc<dyn Dispatcher> = Arc::new(Osd(serve));
        let mut messengers = Vec::new();
        let mut listen = |name: EntityName, dispatcher: Arc<dyn Dispatcher>| -> EntityAddrVec {
            let messenger = Messenger::builder(&context, &stack, name)
                .default_policy(Policy::STATELESS_SERVER)
                .dispatcher_tail(dispatcher)
                .start()
                .unwrap();
            let bound = messenger.bind(&["v2:127.0.0.1:0".parse().unwrap()]).unwrap();
            messengers.push(messenger);
            bound
        };
        let at = listen(EntityName::new(EntityType::MON, 0), monitor.clone());
        *monitor.monmap.lock().unwrap() = monmap(&at);
        let addrs: Vec<_> = (0..if twins { 1 } else { osds })
            .map(|osd| listen(EntityName::new(EntityType::OSD, osd.into()), Arc::clone(&serve)))
            .collect();
        *monitor.osdmap.lock().unwrap() = osdmap(osds, &addrs);
        config.mon_host = at.to_string();
        let mon = MonClient::builder(&Context::new(config.clone())).stack(&stack).start().unwrap();
        pollster::block_on(mon.authenticate(HUNG)).unwrap_or_else(|error| panic!("{error}"));
        let objecter = Objecter::start(&mon, ObjecterConfig::new(&config)).unwrap();
        pollster::block_on(objecter.wait_for_latest_map(Some(HUNG))).unwrap();
        Self { objecter, messengers }
    }

    fn read(&self, object: &str) -> Result<OpReply, OpError> {
        let mut op = Op::read(Target::object(POOL, object), vec![OsdOp::read(0, 0)]);
        op.timeout = Some(HUNG);
        pollster::block_on(self.objecter.submit(op))
    }

    fn end(self) {
        let mon = self.objecter.mon().clone();
        drop(self.objecter);
        pollster::block_on(mon.shutdown());
        for messenger in self.messengers {
            pollster::block_on(messenger.shutdown());
        }
    }
}

fn monmap(at: &EntityAddrVec) -> MonMap {
    let info = MonInfo { name: "a".into(), public_addrs: at.clone(), ..MonInfo::default() };
    MonMap {
        epoch: Epoch(1),
        fsid: FSID,
        mons: [("a".into(), info)].into(),
        ranks: vec!["a".into()],
        min_mon_release: Release::PACIFIC,
        ..MonMap::default()
    }
}

/// A map of OSDs that all run, with two pools without copies.
fn osdmap(osds: i32, addrs: &[EntityAddrVec]) -> OsdMap {
    let mut crush = CrushMap::new();
    crush.max_devices = osds;
    let weights = Weights::Straw2(vec![0x10000; osds as usize]);
    crush.set_bucket(Bucket::new(-1, 11, (0..osds).collect(), weights));
    let steps = [(StepOp::TAKE, -1, 0), (StepOp::CHOOSE_FIRSTN, 0, 0), (StepOp::EMIT, 0, 0)];
    crush.set_rule(0, Rule::new(RuleKind::REPLICATED, steps.map(Step::from).to_vec()));
    let mut map = OsdMap { fsid: FSID, crush: Arc::new(crush), ..OsdMap::default() };
    map.epoch = Epoch(1);
    map.flags = MapFlags::SORTBITWISE | MapFlags::RECOVERY_DELETES;
    map.require_osd_release = Release::PACIFIC;
    map.set_max_osd(osds);
    for osd in 0..osds as usize {
        map.osd_state[osd] = OsdState::EXISTS | OsdState::UP;
        map.osd_weight[osd] = WEIGHT_IN;
        Arc::make_mut(&mut map.osd_addrs).client[osd] = addrs[osd % addrs.len()].clone();
    }
    for pool in [POOL, OTHER_POOL] {
        map.pools.insert(pool, PgPool::new(PoolType::REPLICATED, 1, 0, 8));
    }
    map
}

/// As an OSD does for an object that lies elsewhere.
#[test]
fn a_redirect_is_followed() {
    let world = World::start(2, false, |request| {
        let mut reply = request.reply();
        if request.op.locator.pool == POOL {
            let (locator, object) = (ObjectLocator::new(OTHER_POOL), "there".into());
            reply.redirect = Some(RequestRedirect { locator, object });
        } else {
            assert!(request.op.flags.contains(OsdFlags::REDIRECTED | OsdFlags::IGNORE_OVERLAY));
        }
        request.answer(request.tid, &reply);
    });
    for n in 0..20 {
        assert_eq!(world.read(&format!("here{n}")).unwrap().ops[0].data, b"there");
    }
    world.end();
}

#[test]
fn answers_that_fit_nothing_harm_nobody() {
    let world = World::start(1, false, |request| {
        let mut reply = request.reply();
        reply.user_version = Version(1);
        request.answer(request.tid + 1_000_000, &reply); // to what nobody asked
        reply.retry_attempt = 7;
        request.answer(request.tid, &reply); // to an attempt that there was not
        reply.retry_attempt = 0;
        match &request.op.oid[..] {
            b"no operations" => reply.ops.clear(),
            b"too many operations" => reply.ops = vec![reply.ops[0].clone(); 1_000],
            b"nothing" => {
                // A front that cannot be read.
                let mut message = reply.to_message(Features::ALL);
                message.header.tid = request.tid;
                message.payload.front = Bytes::from_static(b"\xff\xff\xff\xff").into();
                let _ = request.connection.send(message);
                return;
            }
            _ => {}
        }
        reply.user_version = Version(2);
        request.answer(request.tid, &reply);
        reply.user_version = Version(3);
        request.answer(request.tid, &reply); // once more
    });
    for n in 0..20 {
        let name = format!("object{n}");
        let reply = world.read(&name).unwrap();
        assert_eq!(reply.version, Version(2));
        assert_eq!(reply.ops[0].data, *name.as_bytes());
    }
    for (name, came) in [("no operations", 0), ("too many operations", 1_000)] {
        let bad = BadReply::OpCount { sent: 1, came };
        assert_eq!(world.read(name), Err(OpError::BadReply(bad)));
    }
    let error = world.read("nothing").unwrap_err();
    assert!(matches!(error, OpError::BadReply(BadReply::Malformed(_))), "{error:?}");
    assert_eq!(error.errno(), Errno::EBADMSG);
    assert!(world.read("object").is_ok(), "the session goes on");
    world.end();
}

/// More often than sessions are opened at once.
#[test]
fn an_osd_that_hangs_up_is_asked_again() {
    const TIMES: i32 = 12;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&attempts);
    let world = World::start(1, false, move |request| {
        let mut seen = seen.lock().unwrap();
        seen.push((request.tid, request.op.retry_attempt));
        match seen.len() as i32 {
            ..TIMES => request.connection.mark_down(),
            _ => request.answer(request.tid, &request.reply()),
        }
    });
    world.read("object").unwrap();
    let attempts = attempts.lock().unwrap().clone();
    let tid = attempts[0].0;
    assert_eq!(attempts, (0..TIMES).map(|n| (tid, n)).collect::<Vec<_>>());
    world.end();
}

/// As a map may say while an OSD takes another's place.
#[test]
fn osds_at_one_address_are_two() {
    let world = World::start(2, true, |request| request.answer(request.tid, &request.reply()));
    let (map, mut work) = (world.objecter.map(), PgWorkspace::new());
    let mut primaries = [0; 2];
    for n in 0..40 {
        let name = format!("object{n}");
        world.read(&name).unwrap();
        let raw = map.map_object(name.as_bytes(), &ObjectLocator::new(POOL)).unwrap();
        let osds = map.map_pg(map.actual_pg(raw).unwrap(), &mut work);
        primaries[osds.acting_primary.unwrap() as usize] += 1;
    }
    assert!(primaries.iter().all(|count| *count > 0), "{primaries:?}");
    world.end();
}

/// Each task that has room gives it to the next, on this thread.
#[test]
fn room_goes_on_from_task_to_task_without_taking_stack() {
    const TASKS: u32 = 1_000;
    let world = World::start(1, false, |request| request.answer(request.tid, &request.reply()));
    let all = u64::from(u32::MAX);
    let held = pollster::block_on(world.objecter.reserve(all)).unwrap();
    let had = Arc::new(Mutex::new(0));
    let tasks: Vec<Task<()>> = (0..TASKS)
        .map(|_| {
            let (objecter, had) = (world.objecter.clone(), Arc::clone(&had));
            Task::spawn(async move {
                let budget = objecter.reserve(all).await.unwrap();
                *had.lock().unwrap() += 1;
                drop(budget);
            })
        })
        .collect();
    assert_eq!(*had.lock().unwrap(), 0);
    drop(held);
    assert_eq!(*had.lock().unwrap(), TASKS);
    drop(tasks);
    world.read("object").unwrap();
    world.end();
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

/// What is woken is others' code.
#[test]
fn a_waker_that_panics_keeps_no_result_from_others() {
    let world = World::start(1, false, |_| {});
    let submit = |name| {
        let op = Op::read(Target::object(POOL, name), vec![OsdOp::read(0, 0)]);
        world.objecter.submit(op)
    };
    let (mut first, mut second) = (submit("first"), submit("second"));
    let bad = Waker::from(Arc::new(Panics));
    assert!(first.poll_unpin(&mut task::Context::from_waker(&bad)).is_pending());
    let mut quiet = task::Context::from_waker(Waker::noop());
    assert!(second.poll_unpin(&mut quiet).is_pending());
    let told = catch_unwind(AssertUnwindSafe(|| world.objecter.shutdown()));
    assert!(told.is_err(), "who shuts it down is told");
    assert_eq!(second.poll_unpin(&mut quiet), Poll::Ready(Err(OpError::Shutdown)));
    drop((first, second));
    world.end();
}
