//! Monitors and managers that say anything: nothing panics, nobody is told twice, no time comes again and
//! again; who still waits when they behave has an answer, and at the end all is closed.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use siphon_auth::{AuthMethod, BadMethod, ConnectionMode};
use siphon_messages::{
    MAuthReply, MCommand, MCommandReply, MConfig, MMgrCommand, MMgrCommandReply, MMgrMap,
    MMonCommand, MMonCommandAck, MMonGetVersion, MMonGetVersionReply, MMonMap, MMonSubscribe,
    MMonSubscribeAck, MStatfs, MStatfsReply, TypedMessage,
};
use siphon_msgr::{CloseReason, SendError};
use siphon_proto::{Message, ProtocolError};
use siphon_wire::types::{Epoch, Features, Release};

use super::*;
use crate::Command;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

struct Lies {
    core: Core<u64>,
    now: Instant,
    rng: StdRng,
    /// Connections that there are, and to whom.
    open: BTreeMap<SessionId, (EntityType, EntityAddrVec)>,
    /// What was sent last.
    sent: Vec<(SessionId, Message)>,
    /// Who asked and waits.
    waiting: BTreeMap<u64, u64>,
    tids: Vec<u64>,
    asked: u64,
    told: u64,
    lies: bool,
}

fn addrs(n: u16) -> EntityAddrVec {
    format!("v2:10.0.0.1:{}/0", 3300 + n).parse().unwrap()
}

impl Lies {
    #[expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let map = monmap(&mut rng, 0);
        Self {
            core: Core::new(Options::new(&Config::default()), map, None, "host".into(), seed),
            now: Instant::now(),
            rng,
            open: BTreeMap::new(),
            sent: Vec::new(),
            waiting: BTreeMap::new(),
            tids: vec![0],
            asked: 0,
            told: 0,
            lies: true,
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Open { session, kind, addrs } => {
                    let before = self.open.insert(session, (kind, addrs));
                    assert!(before.is_none(), "it is opened once");
                }
                Action::Close(session) => assert!(self.open.remove(&session).is_some(), "once"),
                Action::Send { session, message } => {
                    assert!(self.open.contains_key(&session), "what is sent has a connection");
                    self.sent.push((session, message.clone().deliver(Features::ALL)));
                    self.tids.push(message.header().tid);
                    if self.lies && self.rng.random_bool(0.01) {
                        let (tid, full) = (message.header().tid, SendError::Full(message));
                        self.core.handle_unsendable(tid, full);
                    }
                }
                Action::Keepalive(session) | Action::RenewTickets(session) => {
                    assert!(self.open.contains_key(&session), "it is there");
                }
                Action::Configure(_) => {}
                Action::Done(waiter, _) => {
                    self.told += 1;
                    assert!(self.waiting.remove(&waiter).is_some(), "{waiter} is told once");
                }
            }
        }
        // One to each monitor, two for hunting anew, a manager's, and those of questions to one monitor.
        assert!(self.open.len() <= 2 * NAMES.len() + 1 + self.waiting.len());
    }

    fn session(&mut self) -> SessionId {
        let open: Vec<_> = self.open.keys().copied().collect();
        match open.choose(&mut self.rng) {
            Some(session) if self.rng.random_bool(0.95) => *session,
            _ => SessionId(self.rng.random_range(0..50)),
        }
    }

    fn step(&mut self) {
        let (session, now) = (self.session(), self.now);
        match self.rng.random_range(0..100) {
            0..20 => self.ask(),
            20..25 => {
                let waiting: Vec<_> = self.waiting.iter().map(|(who, tid)| (*who, *tid)).collect();
                let Some((waiter, tid)) = waiting.choose(&mut self.rng).copied() else { return };
                self.waiting.remove(&waiter);
                self.core.cancel(tid);
            }
            25..40 => {
                let at = addrs(self.rng.random_range(0..6));
                self.core.handle_open(session, &at, now);
            }
            40..48 => {
                let reason = self.reason();
                self.core.handle_fault(session, &reason, now);
            }
            48..55 => {
                self.open.remove(&session);
                let reason = self.reason();
                self.core.handle_reset(session, &reason, now);
            }
            55..58 => self.core.handle_alive(session, now),
            58..60 => self.core.renewal_failed(session, now),
            60..62 => {
                let at = now.checked_add(Duration::from_secs(self.rng.random_range(0..100)));
                self.core.set_renewal(session, at);
            }
            62..65 => {
                let item = SubscribeItem::once(self.rng.random_range(0..9));
                self.core.subscribe("osdmap".into(), item, now);
                self.core.got(b"osdmap", self.rng.random());
            }
            65..88 => {
                let message = self.message();
                self.core.handle_message(session, &message, now);
            }
            _ => self.wait(),
        }
        self.drain();
    }

    /// To the next time that is wanted, or not as long.
    fn wait(&mut self) {
        let next = self.core.poll_timeout();
        let some = self.now + Duration::from_millis(self.rng.random_range(0..5_000));
        let at = next.filter(|_| self.rng.random_bool(0.7)).unwrap_or(some);
        self.now = self.now.max(at);
        self.core.handle_timeout(self.now);
        self.drain();
        assert!(self.core.poll_timeout().is_none_or(|at| at > self.now), "no time comes twice");
    }

    /// All connections are lost, and from then on everybody behaves.
    fn heal(&mut self) {
        self.lies = false;
        self.sent.clear();
        for session in self.open.keys().copied().collect::<Vec<_>>() {
            self.open.remove(&session);
            let lost = CloseReason::PeerClosed { stage: "a session was open" };
            self.core.handle_reset(session, &lost, self.now);
            self.drain();
        }
        let fsid = self.core.fsid().unwrap_or(Uuid([7; 16]));
        let mut monmap = MonMap { epoch: Epoch(100), fsid, ..MonMap::default() };
        monmap.min_mon_release = Release::PACIFIC;
        // Where the client may look for them, all of them.
        (0..6).for_each(|n| monmap.add(["a", "b", "c", "d", "e", "f"][usize::from(n)], addrs(n)));
        let monmap = MMonMap { monmap }.to_message(Features::ALL);
        let mut known = BTreeSet::new();
        for _ in 0..1_000 {
            for (session, (kind, at)) in self.open.clone() {
                if !self.open.contains_key(&session) || !known.insert(session) {
                    continue;
                }
                self.core.handle_open(session, &at, self.now);
                if kind == EntityType::MON {
                    self.core.handle_message(session, &monmap, self.now);
                }
                self.drain();
            }
            for (session, asked) in std::mem::take(&mut self.sent) {
                if let Some(mut answer) = answer(&asked)
                    && self.open.contains_key(&session)
                {
                    answer.header.tid = asked.header.tid;
                    self.core.handle_message(session, &answer, self.now);
                    self.drain();
                }
            }
            if self.waiting.is_empty() {
                return;
            }
            self.wait();
        }
        panic!("{:?} have no answer", self.waiting);
    }

    fn ask(&mut self) {
        let question = match self.rng.random_range(0..4) {
            0 => Question::Session,
            1 => Question::Version("osdmap".into()),
            2 => {
                let message = MStatfs::default().into_out();
                Question::Message { message, reply: MStatfsReply::TYPE }
            }
            _ => Question::Command(Command::new("status")),
        };
        let route = match (&question, self.rng.random_range(0..5)) {
            (Question::Command(_), 0) => {
                let name = NAMES.choose(&mut self.rng).expect("there are some");
                Route::Monitor(MonTarget::Name((*name).to_owned()))
            }
            (Question::Command(_), 1) => Route::Monitor(MonTarget::Rank(2)),
            (Question::Command(_), 2) => Route::Manager { tell: self.rng.random() },
            _ => Route::Monitors,
        };
        let times = [None, Some(Duration::ZERO), Some(Duration::from_secs(9)), Some(Duration::MAX)];
        let timeout = *times.choose(&mut self.rng).expect("there are some");
        self.asked += 1;
        let waiter = self.asked;
        // It may be told before the call returns.
        self.waiting.insert(waiter, 0);
        let tid = self.core.ask(waiter, question, route, timeout, self.now).unwrap();
        self.waiting.insert(waiter, tid);
        self.tids.push(tid);
    }

    fn reason(&mut self) -> CloseReason {
        match self.rng.random_range(0..4) {
            0 => {
                let source = Arc::new(std::io::ErrorKind::ConnectionRefused.into());
                CloseReason::Refused { addr: addrs(0)[0], source }
            }
            1 => {
                let refusal = BadMethod {
                    method: AuthMethod::CEPHX,
                    result: -13,
                    allowed_methods: vec![],
                    allowed_modes: vec![ConnectionMode::CRC],
                };
                CloseReason::Protocol(ProtocolError::AuthRejected(AuthError::Denied { refusal }))
            }
            _ => CloseReason::PeerClosed { stage: "a session was open" },
        }
    }

    fn message(&mut self) -> Message {
        fn of(message: &impl TypedMessage) -> Message {
            message.to_message(Features::ALL)
        }
        let recent = self.tids.len().saturating_sub(20);
        let tid = *self.tids[recent..].choose(&mut self.rng).expect("there is one");
        let epoch = self.rng.random_range(0..9);
        let mut message = match self.rng.random_range(0..12) {
            0..3 => of(&MMonMap { monmap: monmap(&mut self.rng, epoch) }),
            3 => {
                of(&MMonSubscribeAck { interval: self.rng.random(), ..MMonSubscribeAck::default() })
            }
            4 => of(&MConfig::default()),
            5 => {
                let mut map = MgrMap { epoch: Epoch(epoch), ..MgrMap::default() };
                (map.active_gid, map.available) = (self.rng.random_range(0..3), self.rng.random());
                map.active_addrs = addrs(self.rng.random_range(0..6));
                of(&MMgrMap { map })
            }
            6 => of(&MMonGetVersionReply { handle: tid, version: u64::MAX, oldest_version: 1 }),
            7 => of(&MMonCommandAck::default()),
            8 => of(&MCommandReply::default()),
            9 => of(&MMgrCommandReply(MCommandReply::default())),
            10 => of(&MStatfsReply::default()),
            _ => of(&MAuthReply::default()),
        };
        message.header.tid = tid;
        if self.rng.random_bool(0.1) {
            let cut: Vec<u8> = message.payload.front.iter().copied().take(3).collect();
            message.payload.front = cut.into();
        }
        message
    }
}

/// What a monitor or a manager says to it.
fn answer(asked: &Message) -> Option<Message> {
    fn of(message: &impl TypedMessage) -> Option<Message> {
        Some(message.to_message(Features::ALL))
    }
    match asked.header.msg_type {
        MMonGetVersion::TYPE => {
            let handle = MMonGetVersion::from_message(asked).unwrap().handle;
            let reply = MMonGetVersionReply { handle, version: 9, oldest_version: 1 };
            of(&reply)
        }
        MStatfs::TYPE => of(&MStatfsReply::default()),
        MMonCommand::TYPE => of(&MMonCommandAck::default()),
        MCommand::TYPE => of(&MCommandReply::default()),
        MMgrCommand::TYPE => of(&MMgrCommandReply(MCommandReply::default())),
        MMonSubscribe::TYPE => {
            let wanted = MMonSubscribe::from_message(asked).unwrap();
            if !wanted.what.contains_key(&ByteString::from("mgrmap")) {
                return None;
            }
            let mut map = MgrMap { epoch: Epoch(100), ..MgrMap::default() };
            (map.active_gid, map.available, map.active_addrs) = (100, true, addrs(9));
            of(&MMgrMap { map })
        }
        _ => None,
    }
}

/// Of some monitors, at any of some addresses; now and then of another cluster, or of none.
fn monmap(rng: &mut StdRng, epoch: u32) -> MonMap {
    let fsid = if rng.random_bool(0.95) { 7 } else { 8 };
    let mut map = MonMap { epoch: Epoch(epoch), fsid: Uuid([fsid; 16]), ..MonMap::default() };
    map.min_mon_release = Release::PACIFIC;
    for name in NAMES {
        if epoch == 0 || rng.random_bool(0.7) {
            map.add(name, addrs(rng.random_range(0..6)));
        }
    }
    map
}

#[test]
fn whatever_monitors_say_everything_ends() {
    let (mut asked, mut told) = (0, 0);
    for seed in 0..100 {
        println!("seed {seed}");
        let mut lies = Lies::new(seed);
        for _ in 0..1_000 {
            lies.step();
        }
        (asked, told) = (asked + lies.asked, told + lies.told);
        lies.heal();
        lies.core.shutdown();
        lies.drain();
        assert!(lies.open.is_empty());
        assert_eq!(lies.core.poll_timeout(), None);
    }
    println!("{told} of {asked} questions had a result before everybody behaved");
    assert!(told > 1_000);
}
