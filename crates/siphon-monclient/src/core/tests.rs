//! The core in simulated time: no socket, no clock, no thread.

use std::sync::Arc;

use siphon_auth::{AuthMethod, BadMethod, ConnectionMode};
use siphon_messages::TypedMessage;
use siphon_messages::mon::MgrMap;
use siphon_messages::{
    MCommandReply, MConfig, MMgrCommand, MMgrCommandReply, MMgrMap, MMonCommand, MMonCommandAck,
    MMonGetVersion, MMonGetVersionReply, MMonMap, MMonSubscribe, MMonSubscribeAck, MStatfs,
    MStatfsReply,
};
use siphon_msgr::CloseReason;
use siphon_proto::Message;
use siphon_proto::ProtocolError;
use siphon_wire::types::{Epoch, Features, Release};

use super::*;
use crate::Command;
use siphon_auth::AuthError;

const SECOND: Duration = Duration::from_secs(1);
const FSID: Uuid = Uuid([7; 16]);

/// A core, its time, and what it wanted done.
struct Bench {
    core: Core<&'static str>,
    now: Instant,
    opened: Vec<(SessionId, EntityType, String)>,
    closed: Vec<SessionId>,
    sent: Vec<(SessionId, Message)>,
    keepalives: usize,
    renewals: usize,
    central: Vec<BTreeMap<ByteString, ByteString>>,
    done: Vec<(&'static str, Result<Answer, MonError>)>,
}

fn addr(name: &str) -> EntityAddrVec {
    let port = 1000 + u32::from(name.as_bytes()[0]);
    format!("v2:10.0.0.1:{port}/0").parse().unwrap()
}

fn map(epoch: u32, names: &[&str]) -> MonMap {
    let mut map = MonMap { epoch: Epoch(epoch), fsid: FSID, ..MonMap::default() };
    map.min_mon_release = Release::PACIFIC;
    names.iter().for_each(|name| map.add(*name, addr(name)));
    map
}

fn refused(name: &str) -> CloseReason {
    let source = Arc::new(std::io::ErrorKind::ConnectionRefused.into());
    CloseReason::Refused { addr: addr(name)[0], source }
}

fn denied() -> CloseReason {
    let refusal = BadMethod {
        method: AuthMethod::CEPHX,
        result: -13,
        allowed_methods: vec![AuthMethod::CEPHX],
        allowed_modes: vec![ConnectionMode::CRC],
    };
    CloseReason::Protocol(ProtocolError::AuthRejected(AuthError::Denied { refusal }))
}

const LOST: CloseReason = CloseReason::PeerClosed { stage: "a session was open" };

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "only differences to this base are seen")]
    fn with(names: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let mut map = map(0, names);
        map.fsid = Uuid::default();
        let fsid = (!config.fsid.is_empty()).then(|| config.fsid.parse().unwrap());
        let core = Core::new(Options::new(&config), map, fsid, "host".into(), 1);
        Self {
            core,
            now: Instant::now(),
            opened: Vec::new(),
            closed: Vec::new(),
            sent: Vec::new(),
            keepalives: 0,
            renewals: 0,
            central: Vec::new(),
            done: Vec::new(),
        }
    }

    fn new(names: &[&str]) -> Self {
        Self::with(names, |_| {})
    }

    fn drain(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Open { session, kind, addrs } => {
                    self.opened.push((session, kind, addrs.to_string()));
                }
                Action::Close(session) => self.closed.push(session),
                Action::Send { session, message } => {
                    self.sent.push((session, message.deliver(Features::ALL)));
                }
                Action::Keepalive(_) => self.keepalives += 1,
                Action::RenewTickets(_) => self.renewals += 1,
                Action::Configure(central) => self.central.push(central),
                Action::Done(waiter, result) => self.done.push((waiter, result)),
            }
        }
    }

    fn ask(&mut self, who: &'static str, question: Question, route: Route, secs: u64) -> u64 {
        let timeout = (secs > 0).then_some(SECOND * secs as u32);
        let tid = self.core.ask(who, question, route, timeout, self.now).unwrap();
        self.drain();
        tid
    }

    fn authenticate(&mut self, secs: u64) -> u64 {
        self.ask("auth", Question::Session, Route::Monitors, secs)
    }

    fn command(&mut self, who: &'static str, secs: u64) -> u64 {
        self.ask(who, Question::Command(Command::new("status")), Route::Monitors, secs)
    }

    /// Goes to the core's next deadline.
    fn next_deadline(&mut self) -> Duration {
        let at = self.core.poll_timeout().expect("something to wait for");
        let passed = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        self.core.handle_timeout(self.now);
        self.drain();
        passed
    }

    /// The connections that are wanted and not closed.
    fn live(&self) -> Vec<(SessionId, String)> {
        let live = self.opened.iter().filter(|(session, ..)| !self.closed.contains(session));
        live.map(|(session, _, addrs)| (*session, addrs.clone())).collect()
    }

    fn live_at(&self, name: &str) -> SessionId {
        let wanted = addr(name).to_string();
        let found = self.live().into_iter().rev().find(|(_, addrs)| *addrs == wanted);
        found.unwrap_or_else(|| panic!("no connection to {name}")).0
    }

    /// A monitor lets us in.
    fn let_in(&mut self, name: &str) -> SessionId {
        let session = self.live_at(name);
        assert!(self.core.handle_open(session, &addr(name), self.now), "{name} is taken");
        self.drain();
        session
    }

    fn receive(&mut self, session: SessionId, message: &impl TypedMessage, tid: u64) -> Taken {
        let mut message = message.to_message(Features::ALL);
        message.header.tid = tid;
        let taken = self.core.handle_message(session, &message, self.now);
        self.drain();
        taken
    }

    /// A session whose monitor has told its map.
    fn open(&mut self, name: &str, names: &[&str]) -> SessionId {
        let session = self.let_in(name);
        self.receive(session, &MMonMap { monmap: map(5, names) }, 0);
        session
    }

    fn reset(&mut self, session: SessionId) {
        self.core.handle_reset(session, &LOST, self.now);
        self.closed.push(session);
        self.drain();
    }

    fn fault(&mut self, session: SessionId, reason: &CloseReason) {
        self.core.handle_fault(session, reason, self.now);
        self.drain();
    }

    /// Messages of a type that were sent on a session.
    fn sent<M: TypedMessage>(&self, session: SessionId) -> Vec<(u64, M)> {
        let sent = self
            .sent
            .iter()
            .filter(|(on, message)| *on == session && message.header.msg_type == M::TYPE);
        sent.map(|(_, message)| (message.header.tid, M::from_message(message).unwrap())).collect()
    }

    fn result(&mut self, who: &str) -> Result<Answer, MonError> {
        let at = self.done.iter().position(|(waiter, _)| *waiter == who);
        self.done.remove(at.unwrap_or_else(|| panic!("{who} has no answer"))).1
    }

    fn has_result(&self, who: &str) -> bool {
        self.done.iter().any(|(waiter, _)| *waiter == who)
    }
}

#[test]
fn several_monitors_are_asked_and_the_first_that_lets_us_in_is_taken() {
    let mut bench = Bench::new(&["a", "b", "c", "d", "e"]);
    bench.authenticate(30);
    let live = bench.live();
    assert_eq!(live.len(), 3, "mon_client_hunt_parallel");
    let taken = live[1].0;
    let at: EntityAddrVec = live[1].1.parse().unwrap();
    assert!(bench.core.handle_open(taken, &at, bench.now));
    bench.drain();
    assert_eq!(bench.live(), [live[1].clone()]);
    assert!(!bench.core.handle_open(live[0].0, &at, bench.now), "it comes too late");
    let [(_, subscribe)] = &bench.sent::<MMonSubscribe>(taken)[..] else { panic!("one") };
    assert_eq!(
        subscribe.what.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["config", "monmap"]
    );
    assert!(!bench.has_result("auth"), "it is not known yet of which cluster it is");
    bench.receive(taken, &MMonMap { monmap: map(5, &["a", "b", "c", "d", "e"]) }, 0);
    assert!(matches!(bench.result("auth"), Ok(Answer::Session)));
    assert_eq!(bench.core.fsid(), Some(FSID));
}

#[test]
fn silent_monitors_are_left_for_others_and_all_are_tried() {
    let mut bench = Bench::with(&["a", "b", "c", "d", "e"], |config| {
        config.mon_client_hunt_parallel = 2;
    });
    bench.authenticate(100);
    let mut seen: BTreeSet<_> = bench.live().into_iter().map(|(_, addrs)| addrs).collect();
    for round in 0..2 {
        assert_eq!(bench.next_deadline(), SECOND * 3, "round {round}");
        seen.extend(bench.live().into_iter().map(|(_, addrs)| addrs));
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(bench.live().len(), 1, "one was left to try");
    bench.next_deadline();
    assert_eq!(bench.live().len(), 2, "it begins anew");
}

#[test]
fn where_all_fail_at_once_others_are_tried_at_once() {
    let mut bench = Bench::new(&["a", "b", "c", "d", "e"]);
    bench.authenticate(30);
    let first = bench.live();
    for (session, _) in &first[..2] {
        bench.fault(*session, &refused("a"));
    }
    assert_eq!(bench.live(), first, "one may still answer");
    bench.fault(first[2].0, &refused("a"));
    assert_eq!(bench.live().len(), 5, "two more, and those that failed go on trying");
    let last = bench.live()[4].clone();
    assert!(bench.core.handle_open(last.0, &last.1.parse().unwrap(), bench.now));
    bench.drain();
    assert_eq!(bench.live(), [last]);
}

#[test]
fn a_lost_session_is_followed_by_another_and_hunting_takes_longer_each_time() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(10);
    let mut session = bench.open("a", &["a"]);
    for expected in [4.5, 4.5, 4.5] {
        bench.reset(session);
        assert_eq!(bench.next_deadline(), Duration::from_secs_f64(expected));
        session = bench.let_in("a");
    }
    // A session brings the wait back to what it was; without one it stays.
    bench.reset(session);
    for _ in 0..3 {
        assert_eq!(bench.next_deadline(), Duration::from_secs_f64(4.5));
    }
}

#[test]
fn what_waits_goes_again_to_the_next_monitor_in_order() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.authenticate(10);
    let first = bench.open("a", &["a", "b"]);
    let one = bench.command("one", 0);
    let version = Question::Version("osdmap".into());
    let two = bench.ask("two", version, Route::Monitors, 0);
    let message = MStatfs::default().into_out();
    let statfs = Question::Message { message, reply: MStatfsReply::TYPE };
    let three = bench.ask("three", statfs, Route::Monitors, 0);
    assert_eq!(bench.sent::<MMonCommand>(first)[0].0, one);
    bench.core.subscribe("osdmap".into(), SubscribeItem::from_version(7), bench.now);
    bench.core.got(b"osdmap", 9);
    bench.reset(first);
    let second = bench.let_in("b");
    let tids: Vec<_> = bench.sent.iter().filter(|(on, _)| *on == second).collect();
    let tids: Vec<_> = tids.iter().map(|(_, message)| message.header.tid).collect();
    assert_eq!(
        tids,
        [0, one, two, three],
        "the subscriptions, then the questions by their numbers"
    );
    let (_, subscribe) = &bench.sent::<MMonSubscribe>(second)[0];
    assert_eq!(subscribe.what[&"osdmap".into()], SubscribeItem::from_version(10));
    assert_eq!(subscribe.what[&"monmap".into()], SubscribeItem::from_version(6));

    let ack = MMonCommandAck { result: -2, status: "no".into(), ..Default::default() };
    bench.receive(first, &ack, one);
    assert!(!bench.has_result("one"), "the session that is gone answers nothing");
    bench.receive(second, &ack, one);
    let Ok(Answer::Command(output)) = bench.result("one") else { panic!("an output") };
    assert_eq!((output.code, &*output.status), (-2, "no"));
    let reply = MMonGetVersionReply { handle: two, version: 12, oldest_version: 3 };
    bench.receive(second, &reply, 0);
    assert!(matches!(bench.result("two"), Ok(Answer::Version { newest: 12, oldest: 3 })));
    bench.receive(second, &MStatfsReply::default(), three);
    assert!(matches!(bench.result("three"), Ok(Answer::Message(_))));
    assert_eq!(bench.receive(second, &MStatfsReply::default(), three), Taken::No, "not twice");
    assert_eq!(bench.sent::<MMonGetVersion>(second)[0].1.what, "osdmap");
}

#[test]
fn a_question_ends_with_its_time_or_with_who_asked() {
    let mut bench = Bench::new(&["a"]);
    let early = bench.command("early", 2);
    assert!(bench.sent.is_empty(), "there is no session");
    assert_eq!(bench.next_deadline(), SECOND * 2);
    let Err(MonError::NoMonitor { after, tried }) = bench.result("early") else { panic!("none") };
    assert_eq!((after, tried.len()), (SECOND * 2, 1));
    assert_eq!(tried[0].to_string(), "mon.a at v2:10.0.0.1:1097/0: no answer");

    let session = bench.open("a", &["a"]);
    let given_up = bench.command("given up", 5);
    bench.core.cancel(given_up);
    let late = bench.command("late", 5);
    assert!(late > given_up && given_up > early);
    let mut passed = Duration::ZERO;
    while !bench.has_result("late") {
        passed += bench.next_deadline();
        bench.core.handle_alive(session, bench.now);
    }
    assert_eq!(passed, SECOND * 5);
    let error = bench.result("late").unwrap_err().to_string();
    let expected =
        "no answer to \"status\" from mon.a within 5s; perhaps the monitors have no quorum";
    assert_eq!(error, expected);
    assert!(!bench.has_result("given up"));
    bench.receive(session, &MMonCommandAck::default(), late);
    assert!(bench.done.is_empty(), "what comes after is for nobody");
    assert!(bench.core.requests.is_empty() && bench.core.deadlines.is_empty());
}

#[test]
fn a_monitor_that_falls_silent_is_left() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.authenticate(10);
    let session = bench.open("a", &["a", "b"]);
    let start = bench.now;
    for n in 1..=3 {
        assert_eq!(bench.next_deadline(), SECOND * 10);
        assert_eq!(bench.keepalives, n);
        if n < 3 {
            bench.core.handle_alive(session, bench.now);
        }
    }
    while bench.core.monitor().is_some() {
        bench.next_deadline();
    }
    assert_eq!(bench.now - start, SECOND * 50, "30 s after the last sign of life");
    assert!(bench.closed.contains(&session));
    assert_eq!(bench.live().len(), 2);
}

#[test]
fn tickets_are_asked_for_when_they_are_due_until_they_come() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(10);
    let session = bench.open("a", &["a"]);
    bench.core.set_renewal(session, Some(bench.now + SECOND * 2));
    assert_eq!((bench.next_deadline(), bench.renewals), (SECOND * 2, 1));
    assert_eq!((bench.next_deadline(), bench.renewals), (SECOND * 5, 2), "no answer");
    bench.core.set_renewal(session, Some(bench.now + SECOND * 3600));
    bench.next_deadline();
    assert_eq!((bench.renewals, bench.keepalives), (2, 1));
    bench.core.renewal_failed(session, bench.now);
    bench.drain();
    assert!(bench.closed.contains(&session) && bench.core.is_hunting());
}

#[test]
fn a_monitor_that_ends_each_session_at_once_does_not_make_us_spin() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(1000);
    for _ in 0..3 {
        let session = bench.open("a", &["a"]);
        assert!(bench.core.monitor().is_some());
        bench.reset(session);
    }
    assert!(bench.live().is_empty(), "the third time we wait");
    assert_eq!(bench.next_deadline(), Duration::from_secs_f64(4.5));
    let session = bench.open("a", &["a"]);
    bench.now += SECOND;
    bench.reset(session);
    assert_eq!(bench.live().len(), 1, "one that lasted is followed at once");
}

#[test]
fn monitors_that_want_to_be_reminded_of_subscriptions_are() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(10);
    let session = bench.open("a", &["a"]);
    bench.receive(session, &MMonSubscribeAck { interval: 8, fsid: FSID }, 0);
    assert_eq!(bench.next_deadline(), SECOND * 4);
    let sent = bench.sent::<MMonSubscribe>(session);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1].1.what[&"monmap".into()], SubscribeItem::from_version(6));
}

#[test]
fn who_is_denied_by_all_hears_so_at_once() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.authenticate(300);
    let live = bench.live();
    bench.fault(live[0].0, &denied());
    assert!(!bench.has_result("auth"), "another may let us in");
    bench.fault(live[1].0, &refused("b"));
    let error = bench.result("auth").unwrap_err();
    assert!(matches!(error, MonError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("check the name"), "{error}");
    assert!(bench.live().is_empty() && bench.core.poll_timeout().is_none(), "nothing goes on");
    // Whoever asks again, tries again.
    bench.authenticate(300);
    bench.open("a", &["a", "b"]);
    bench.result("auth").unwrap();
}

#[test]
fn who_had_a_session_is_denied_only_when_a_new_global_id_does_not_help() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(10);
    let session = bench.open("a", &["a"]);
    bench.command("status", 0);
    bench.reset(session);
    let session = bench.live_at("a");
    bench.fault(session, &denied());
    assert!(!bench.has_result("status"), "that may have been for the old global id");
    bench.fault(session, &denied());
    assert!(matches!(bench.result("status"), Err(MonError::Denied { .. })));
    assert!(bench.core.is_hunting(), "it may be let in later: there are subscriptions");
}

#[test]
fn a_monitor_of_another_cluster_is_no_monitor_of_ours() {
    let mut bench = Bench::with(&["a"], |config| config.fsid = Uuid([8; 16]).to_string());
    bench.authenticate(300);
    let session = bench.open("a", &["a"]);
    let error = bench.result("auth").unwrap_err();
    assert!(matches!(error, MonError::WrongFsid { found: FSID, .. }), "{error}");
    assert!(bench.closed.contains(&session) && bench.core.poll_timeout().is_none());

    // One that we had a session with before is left for another.
    let mut bench = Bench::new(&["a", "b"]);
    bench.authenticate(300);
    let session = bench.open("a", &["a", "b"]);
    let foreign = MonMap { fsid: Uuid([9; 16]), ..map(6, &["a"]) };
    bench.receive(session, &MMonMap { monmap: foreign }, 0);
    assert!(bench.closed.contains(&session) && bench.core.is_hunting());
    assert_eq!(bench.core.fsid(), Some(FSID));
}

#[test]
fn maps_of_monitors_are_followed() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.authenticate(300);
    let session = bench.open("a", &["a", "b"]);
    bench.receive(session, &MMonMap { monmap: map(6, &["a", "b", "c"]) }, 0);
    assert_eq!(bench.core.map().mons.len(), 3);
    bench.receive(session, &MMonMap { monmap: map(4, &["a"]) }, 0);
    assert_eq!(bench.core.map().epoch, Epoch(6), "an old one is passed over");
    bench.receive(session, &MMonMap { monmap: map(7, &[]) }, 0);
    assert_eq!(bench.core.map().epoch, Epoch(6), "and one of nobody");
    bench.receive(session, &MMonMap { monmap: map(8, &["b", "c"]) }, 0);
    assert!(bench.closed.contains(&session), "our monitor was removed");
    let mut live: Vec<_> = bench.live().into_iter().map(|(_, addrs)| addrs).collect();
    live.sort();
    assert_eq!(live, [addr("b").to_string(), addr("c").to_string()]);
}

#[test]
fn a_better_priority_is_tried_first_and_weight_makes_it_likelier() {
    let mut counts = BTreeMap::new();
    for seed in 0..400 {
        let mut map = map(1, &["a", "b", "c"]);
        map.mons.get_mut(&"a".into()).unwrap().weight = 30;
        map.mons.get_mut(&"b".into()).unwrap().weight = 10;
        map.mons.get_mut(&"c".into()).unwrap().priority = 1;
        let mut config = Config::default();
        config.mon_client_hunt_parallel = 1;
        let options = Options::new(&config);
        let mut hunter = Hunter::new(&options, seed);
        let order: Vec<_> =
            std::iter::from_fn(|| hunter.next_batch(&map, &options).pop()).collect();
        assert_eq!((order.len(), &order[2].name), (3, &"c".into()));
        *counts.entry(order[0].name.to_string()).or_insert(0) += 1;
    }
    assert!((260..=340).contains(&counts["a"]), "{counts:?}: three of four");
}

#[test]
fn one_monitor_is_told_over_a_connection_of_its_own() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.authenticate(300);
    bench.open("a", &["a", "b"]);
    let question = || Question::Command(Command::new("mon_status"));
    let target = |name: &str| Route::Monitor(MonTarget::Name(name.to_owned()));
    let tid = bench.ask("told", question(), target("b"), 0);
    let own = bench.live_at("b");
    assert!(bench.sent.iter().all(|(on, _)| *on != own), "it is not open yet");
    assert!(!bench.core.handle_open(own, &addr("b"), bench.now), "it is not the session");
    bench.drain();
    bench.receive(own, &MMonMap { monmap: map(9, &["b"]) }, 0);
    assert_eq!(bench.core.map().epoch, Epoch(5), "it tells nothing but the answer");
    bench.receive(own, &MCommandReply::default(), tid);
    bench.result("told").unwrap();
    assert!(bench.closed.contains(&own));

    bench.ask("unknown", question(), Route::Monitor(MonTarget::Rank(2)), 0);
    let error = bench.result("unknown").unwrap_err().to_string();
    assert_eq!(error, "there is no monitor of rank 2; there are: mon.a, mon.b");

    bench.ask("gone", question(), target("b"), 0);
    let own = bench.live_at("b");
    bench.fault(own, &refused("b"));
    bench.fault(own, &refused("b"));
    assert!(matches!(bench.result("gone"), Err(MonError::Unreachable(_))));
    let dropped = bench.ask("dropped", question(), target("b"), 0);
    let own = bench.live_at("b");
    bench.core.cancel(dropped);
    bench.drain();
    assert!(bench.closed.contains(&own));
}

fn manager_at(epoch: u32, name: &str, available: bool) -> MMgrMap {
    let map = MgrMap {
        epoch: Epoch(epoch),
        active_addrs: if name.is_empty() { EntityAddrVec::default() } else { addr(name) },
        active_gid: name.len() as u64 + u64::from(epoch),
        active_name: name.into(),
        available,
        ..MgrMap::default()
    };
    MMgrMap { map }
}

#[test]
fn the_active_manager_is_asked_wherever_it_is() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(10);
    let session = bench.open("a", &["a"]);
    let question = || Question::Command(Command::new("pg dump"));
    let route = || Route::Manager { tell: false };
    let tid = bench.ask("dump", question(), route(), 0);
    let subscribed = bench.sent::<MMonSubscribe>(session);
    assert!(subscribed[1].1.what.contains_key(&"mgrmap".into()));
    bench.receive(session, &manager_at(1, "x", false), 0);
    assert_eq!(bench.live().len(), 1, "it is not ready");
    bench.receive(session, &manager_at(2, "x", true), 0);
    let first = bench.live_at("x");
    // Features tell that this one takes commands for modules as all others.
    assert_eq!(bench.sent.iter().filter(|(on, _)| *on == first).count(), 1);
    bench.receive(session, &manager_at(3, "y", true), 0);
    assert!(bench.closed.contains(&first), "another is active");
    let second = bench.live_at("y");
    bench.reset(second);
    assert_eq!(bench.next_deadline(), SECOND, "it is asked again after a while");
    let third = bench.live_at("y");
    bench.receive(third, &MCommandReply::default(), tid);
    bench.result("dump").unwrap();

    // One of Octopus or newer has messages of its own for them.
    let mut map = manager_at(4, "z", true);
    map.map.active_mgr_features = Features::ALL;
    let mut message = map.to_message(Features::ALL);
    message.payload.front = newer_manager_map(&map.map).into();
    bench.core.handle_message(session, &message, bench.now);
    bench.drain();
    let tid = bench.ask("again", question(), route(), 0);
    let fourth = bench.live_at("z");
    assert_eq!(bench.sent::<MMgrCommand>(fourth)[0].0, tid);
    bench.receive(fourth, &MMgrCommandReply::default(), tid);
    bench.result("again").unwrap();
}

/// Version 9 of the map, which has the manager's features; we write version 6.
fn newer_manager_map(map: &MgrMap) -> bytes::Bytes {
    let mut enc = siphon_wire::Encoder::new(Features::ALL);
    enc.versioned(9, 6, |enc| {
        enc.value(&map.epoch);
        enc.value(&map.active_addrs);
        enc.u64(map.active_gid);
        enc.bool(map.available);
        enc.value(&map.active_name);
        (0..4).for_each(|_| enc.count(0)); // standbys, modules, services, available modules
        enc.u64(0); // since when it is active
        enc.count(0); // modules that are always on
        enc.value(&map.active_mgr_features);
    });
    enc.finish()
}

#[test]
fn without_a_manager_that_is_said() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(10);
    let session = bench.open("a", &["a"]);
    bench.ask("df", Question::Command(Command::new("osd df")), Route::Manager { tell: false }, 3);
    bench.receive(session, &manager_at(1, "", false), 0);
    assert_eq!(bench.next_deadline(), SECOND * 3);
    let error = bench.result("df").unwrap_err().to_string();
    assert_eq!(error, "no manager is active that could answer \"osd df\" (waited 3s)");

    bench.ask("df", Question::Command(Command::new("osd df")), Route::Manager { tell: false }, 3);
    bench.receive(session, &manager_at(2, "x", true), 0);
    let manager = bench.live_at("x");
    bench.fault(manager, &refused("x"));
    bench.next_deadline();
    let error = bench.result("df").unwrap_err().to_string();
    assert!(error.contains("mgr.x at v2:10.0.0.1:1120/0: nobody listens"), "{error}");

    bench.ask("df", Question::Command(Command::new("osd df")), Route::Manager { tell: false }, 3);
    bench.core.handle_open(manager, &addr("x"), bench.now);
    bench.next_deadline();
    let error = bench.result("df").unwrap_err().to_string();
    assert_eq!(error, "no answer to \"osd df\" from mgr.x within 3s");
}

#[test]
fn options_of_the_monitors_are_kept_and_strange_messages_are_for_others() {
    let mut bench = Bench::new(&["a"]);
    bench.authenticate(10);
    let session = bench.open("a", &["a"]);
    let config = [("debug_ms".into(), "1".into())].into();
    assert_eq!(bench.receive(session, &MConfig { config }, 0), Taken::Yes);
    assert_eq!(bench.core.central_config()[&"debug_ms".into()], "1");
    assert_eq!(bench.central, [bench.core.central_config().clone()]);
    let maps = siphon_messages::MOSDMap::default();
    assert_eq!(bench.receive(session, &maps, 0), Taken::No);
    let mut broken = MMonMap::default().to_message(Features::ALL);
    broken.payload.front = bytes::Bytes::from_static(b"no map").into();
    assert_eq!(bench.core.handle_message(session, &broken, bench.now), Taken::Yes);
    assert_eq!(bench.core.map().epoch, Epoch(5));
}

#[test]
fn the_end_is_told_to_all_who_wait_and_to_who_comes_after() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.authenticate(10);
    bench.command("status", 0);
    bench.core.shutdown();
    bench.drain();
    assert!(matches!(bench.result("auth"), Err(MonError::Shutdown)));
    assert!(matches!(bench.result("status"), Err(MonError::Shutdown)));
    assert!(bench.live().is_empty() && bench.core.poll_timeout().is_none());
    let late = bench.core.ask("late", Question::Session, Route::Monitors, None, bench.now);
    assert!(matches!(late, Err(MonError::Shutdown)));
}

#[test]
fn too_many_questions_are_refused() {
    let mut bench = Bench::new(&["a"]);
    for _ in 0..MAX_QUESTIONS {
        let asked = bench.core.ask("one", Question::Session, Route::Monitors, None, bench.now);
        asked.unwrap();
    }
    let more = bench.core.ask("more", Question::Session, Route::Monitors, None, bench.now);
    assert!(matches!(more, Err(MonError::TooMany { max: MAX_QUESTIONS })));
}
