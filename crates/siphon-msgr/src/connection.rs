use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use futures_channel::oneshot;
use siphon_auth::ServerExchange;
use siphon_net::MailSender;
use siphon_proto::{Grant, MessageParts, OutMessage, Payload, PeerInfo, Throttle};
use siphon_wire::types::{EntityAddrVec, EntityType, Features, Utime};

use crate::error::{CloseReason, SendError};
use crate::messenger::Shared;
use crate::trace;
use crate::worker::{Mail, Visitor};

/// Number of a connection, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn next() -> Self {
        // An identity, not configuration: the one thing all messengers of a process may share.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// As a timer's token.
    pub(crate) fn token(self) -> u64 {
        self.0
    }

    pub(crate) fn from_token(token: u64) -> Self {
        Self(token)
    }
}

/// A connection with a peer, as the application holds it. Clones are the same connection.
///
/// What is done to it happens on the worker that owns it, in the order in which it was asked for.
/// Messages are handed over whole: dropping a future never leaves half a message on the wire.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    id: ConnectionId,
    worker: MailSender<Mail>,
    messenger: Arc<Shared>,
    /// What must be there; `ANY` takes whoever is.
    expected: EntityType,
    /// What we know of the peer before it says so itself.
    target: EntityAddrVec,
    state: Mutex<State>,
    closed: OnceLock<CloseReason>,
    /// Bounds what waits to be sent.
    outgoing: Throttle,
    /// The application wants nothing more of it.
    marked_down: AtomicBool,
    /// A dispatcher panicked over it: what else it brought would be dispatched with a gap.
    broken: AtomicBool,
}

/// What the worker tells of a connection.
#[derive(Debug, Default)]
struct State {
    /// The peer, once a session was open.
    peer: Option<Arc<PeerInfo>>,
    /// The session is open and has a link.
    connected: bool,
    /// Why the last link was lost or could not be had, unless there is one again.
    fault: Option<CloseReason>,
    keepalive_ack: Option<Utime>,
    /// What is left of authentication.
    auth_exchange: Option<Box<dyn ServerExchange>>,
    /// Who waits for any of this to change.
    waiters: Vec<oneshot::Sender<()>>,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        worker: MailSender<Mail>,
        messenger: Arc<Shared>,
        expected: EntityType,
        target: EntityAddrVec,
    ) -> Self {
        let outgoing = Throttle::new("", messenger.send_bound());
        Self {
            inner: Arc::new(Inner {
                id,
                worker,
                messenger,
                expected,
                target,
                state: Mutex::default(),
                closed: OnceLock::new(),
                outgoing,
                marked_down: AtomicBool::new(false),
                broken: AtomicBool::new(false),
            }),
        }
    }

    /// Queues a message. It is sent as soon as the session is open. A lossless session delivers it
    /// once and in order, whatever happens to its links, as long as both sides remember the session;
    /// of a lossy one it is lost with the connection.
    ///
    /// It never waits: see [`send_async`](Self::send_async) for one that does.
    ///
    /// # Errors
    /// If the connection has ended, a part of the message is longer than the protocol allows, or too
    /// much waits to be sent already ([`MessengerBuilder::send_bound`](crate::MessengerBuilder::send_bound)).
    pub fn send(&self, message: impl Into<OutMessage>) -> Result<(), SendError> {
        let mut message = message.into();
        self.check(&message)?;
        match self.inner.outgoing.try_get(held(&message)) {
            Some(got) => message.set_charge(got),
            None => {
                self.notice_end()?;
                return Err(SendError::Full(message));
            }
        }
        trace::sent(self, &message);
        self.inner.worker.send_with(|| Mail::Send(self.inner.id, message));
        Ok(())
    }

    /// As [`send`](Self::send), but waits until there is room: back-pressure for whoever produces
    /// faster than the peer takes. Dropping the future before that sends nothing.
    ///
    /// # Errors
    /// If the connection has ended or ends meanwhile, or a part of the message is longer than the
    /// protocol allows.
    pub async fn send_async(&self, message: impl Into<OutMessage>) -> Result<(), SendError> {
        let mut message = message.into();
        self.check(&message)?;
        let got = match self.inner.outgoing.try_get(held(&message)) {
            Some(got) => got,
            None => {
                self.notice_end()?;
                let throttle = &self.inner.outgoing;
                let grant = Room { throttle, amount: held(&message), waker: None }.await;
                self.check(&message)?; // it may have ended while we waited
                grant.into_got()
            }
        };
        message.set_charge(got);
        trace::sent(self, &message);
        self.inner.worker.send_with(|| Mail::Send(self.inner.id, message));
        Ok(())
    }

    /// A worker that ended without having taken this connection told nobody: then it is closed here, before
    /// somebody waits for what it will not give back.
    fn notice_end(&self) -> Result<(), SendError> {
        if self.inner.worker.is_closed() {
            self.set_closed(CloseReason::Shutdown);
        }
        match self.inner.closed.get() {
            Some(reason) => Err(SendError::Closed(reason.clone())),
            None => Ok(()),
        }
    }

    fn check(&self, message: &OutMessage) -> Result<(), SendError> {
        if let Some(reason) = self.inner.closed.get() {
            return Err(SendError::Closed(reason.clone()));
        }
        // A deferred payload is checked once it is encoded.
        if let Some(payload) = message.payload() {
            self.inner.messenger.limits().check(payload).map_err(SendError::TooLong)?;
        }
        Ok(())
    }

    /// Bytes that wait to be sent, and on a lossless session to be acknowledged.
    pub fn outgoing_bytes(&self) -> u64 {
        match self.inner.closed.get() {
            Some(_) => 0,
            None => self.inner.outgoing.current(),
        }
    }

    /// Asks the peer for a sign of life; see [`last_keepalive_ack`](Self::last_keepalive_ack).
    #[expect(clippy::disallowed_methods, reason = "the peer gives this time back to us")]
    pub fn keepalive(&self) {
        self.mail(Mail::Keepalive(self.inner.id, Utime::from(SystemTime::now())));
    }

    /// When the newest keepalive that was answered had been sent.
    pub fn last_keepalive_ack(&self) -> Option<Utime> {
        lock(&self.inner.state).keepalive_ack
    }

    /// Ends the connection at once. What waits to be sent is dropped, and nothing more of it is
    /// dispatched: no message that has arrived, and no reset. A call that is under way is not
    /// waited for.
    pub fn mark_down(&self) {
        self.inner.marked_down.store(true, Ordering::Release);
        // At once, so that nobody is handed a connection that is about to end.
        self.set_closed(CloseReason::MarkedDown);
        self.mail(Mail::MarkDown(self.inner.id));
    }

    /// Nothing on this connection is worth keeping across a fault: it becomes lossy.
    pub fn mark_disposable(&self) {
        self.mail(Mail::MarkDisposable(self.inner.id));
    }

    /// Waits until the session is open. An attempt to connect that fails is followed by another, for
    /// as long as the connection is not marked down: see [`attempt`](Self::attempt).
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn ready(&self) -> Result<Arc<PeerInfo>, CloseReason> {
        self.until(|state| state.peer.clone().filter(|_| state.connected).map(Ok)).await
    }

    /// Waits until the session is open, or an attempt to open it has failed. The connection goes on
    /// trying then: whoever wants no more of it marks it down.
    ///
    /// # Errors
    /// Why the last attempt failed, or the connection has ended.
    pub async fn attempt(&self) -> Result<Arc<PeerInfo>, CloseReason> {
        self.until(|state| match &state.fault {
            Some(fault) => Some(Err(fault.clone())),
            None => state.peer.clone().filter(|_| state.connected).map(Ok),
        })
        .await
    }

    /// Waits for what `pick` finds in the state.
    async fn until<T>(
        &self,
        pick: impl Fn(&State) -> Option<Result<T, CloseReason>>,
    ) -> Result<T, CloseReason> {
        loop {
            let changed = {
                let mut state = lock(&self.inner.state);
                if let Some(reason) = self.inner.closed.get() {
                    return Err(reason.clone());
                }
                if let Some(picked) = pick(&state) {
                    return picked;
                }
                let (sender, receiver) = oneshot::channel();
                state.waiters.retain(|waiter| !waiter.is_canceled());
                state.waiters.push(sender);
                receiver
            };
            let _ = changed.await; // a dropped sender means the end, which is seen above
        }
    }

    /// Waits until nothing waits to be sent: until everything that was sent before is with the
    /// operating system, and on a lossless session with the peer. What others send meanwhile is
    /// waited for as well.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn flushed(&self) -> Result<(), CloseReason> {
        let (sender, receiver) = oneshot::channel();
        self.mail(Mail::Flush(self.inner.id, sender));
        match receiver.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.inner.closed.get().cloned().unwrap_or(CloseReason::Shutdown)),
        }
    }

    /// The peer, once the session was open.
    pub fn peer(&self) -> Option<Arc<PeerInfo>> {
        lock(&self.inner.state).peer.clone()
    }

    /// The accepting side of the peer's authentication, which goes on where a monitor's clients renew
    /// their tickets by messages ([`MessageExchange::with_known`](siphon_auth::MessageExchange)). Of
    /// a connection that we accepted over msgr v2; once.
    pub fn take_auth_exchange(&self) -> Option<Box<dyn ServerExchange>> {
        lock(&self.inner.state).auth_exchange.take()
    }

    /// The peer's addresses: those it identified with, else those we try.
    pub fn peer_addrs(&self) -> EntityAddrVec {
        self.peer().map_or_else(|| self.inner.target.clone(), |peer| peer.addrs.clone())
    }

    /// Features that both sides have, once the session was open.
    pub fn features(&self) -> Option<Features> {
        self.peer().map(|peer| peer.features)
    }

    /// Whether the session is open, and not waiting for another link.
    pub fn is_connected(&self) -> bool {
        self.inner.closed.get().is_none() && lock(&self.inner.state).connected
    }

    /// Why the last link was lost, or could not be had; nothing while the session has one.
    pub fn last_fault(&self) -> Option<CloseReason> {
        lock(&self.inner.state).fault.clone()
    }

    /// Why the connection ended, if it has.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.inner.closed.get()
    }

    /// Its number, which no other connection of the process has had:
    /// [`PeerContext::connection`](siphon_auth::PeerContext) of those who authenticate it.
    pub fn number(&self) -> u64 {
        self.inner.id.token()
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.inner.id
    }

    /// What messages are charged to that are to be sent.
    pub(crate) fn outgoing(&self) -> &Throttle {
        &self.inner.outgoing
    }

    pub(crate) fn messenger(&self) -> &Arc<Shared> {
        &self.inner.messenger
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(crate) fn target(&self) -> &EntityAddrVec {
        &self.inner.target
    }

    pub(crate) fn expected(&self) -> EntityType {
        self.inner.expected
    }

    pub(crate) fn is_at(&self, worker: &MailSender<Mail>) -> bool {
        self.inner.worker.is_same(worker)
    }

    /// Has the peer's wish decided by the worker that owns this connection.
    pub(crate) fn meet(&self, visitor: Visitor) {
        self.mail(Mail::Meet(self.clone(), visitor));
    }

    pub(crate) fn start_connecting(&self) {
        self.mail(Mail::Connect(self.clone()));
    }

    pub(crate) fn start_loopback(&self) {
        self.mail(Mail::Loopback(self.clone()));
    }

    /// Whether dispatchers are told nothing more of it.
    pub(crate) fn is_marked_down(&self) -> bool {
        self.inner.marked_down.load(Ordering::Acquire)
    }

    /// Whether messages of it are still to be dispatched.
    pub(crate) fn takes_messages(&self) -> bool {
        !self.inner.broken.load(Ordering::Acquire) && !self.is_marked_down()
    }

    /// A dispatcher panicked over something of this connection's.
    pub(crate) fn dispatcher_panicked(&self) {
        self.inner.broken.store(true, Ordering::Release);
        self.fail(CloseReason::DispatcherPanicked);
    }

    pub(crate) fn fail(&self, reason: CloseReason) {
        self.mail(Mail::Fail(self.inner.id, Box::new(reason)));
    }

    pub(crate) fn continue_later(&self) {
        self.mail(Mail::Continue(self.inner.id));
    }

    pub(crate) fn resume(&self) {
        self.mail(Mail::Resume(self.inner.id));
    }

    pub(crate) fn set_ready(&self, peer: PeerInfo) {
        self.update(|state| {
            state.peer = Some(Arc::new(peer));
            state.connected = true;
            state.fault = None;
        });
    }

    pub(crate) fn set_fault(&self, fault: CloseReason) {
        self.update(|state| {
            state.connected = false;
            state.fault = Some(fault);
        });
    }

    pub(crate) fn set_closed(&self, reason: CloseReason) {
        let _ = self.inner.closed.set(reason); // the first reason counts
        // Whoever waits for room comes to see that; what was charged for messages on their way to the worker
        // nobody gives back.
        self.inner.outgoing.set_max(0);
        self.update(|state| state.connected = false);
    }

    pub(crate) fn set_auth_exchange(&self, exchange: Box<dyn ServerExchange>) {
        lock(&self.inner.state).auth_exchange = Some(exchange);
    }

    pub(crate) fn set_keepalive_ack(&self, stamp: Utime) {
        lock(&self.inner.state).keepalive_ack = Some(stamp);
    }

    /// Changes the state, and wakes who waits for that.
    fn update(&self, change: impl FnOnce(&mut State)) {
        let waiters = {
            let mut state = lock(&self.inner.state);
            change(&mut state);
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            let _ = waiter.send(()); // whoever waited may have given up
        }
    }

    /// Wakes its worker when a throttle has room for its next message.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::new(WakeWorker { id: self.inner.id, worker: self.inner.worker.clone() }))
    }

    fn mail(&self, mail: Mail) {
        self.inner.worker.send(mail);
    }
}

/// What a message is held against the bound for: its payload, which may not be encoded yet, and what
/// it takes to hold it.
fn held(message: &OutMessage) -> u64 {
    let payload = message.payload().map_or(0, Payload::len);
    (payload + MessageParts::HELD) as u64
}

/// Waits for room on a connection.
struct Room<'a> {
    throttle: &'a Throttle,
    amount: u64,
    /// That which the throttle knows.
    waker: Option<Waker>,
}

impl Future for Room<'_> {
    type Output = Grant;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Grant> {
        if let Some(before) = self.waker.take_if(|before| !before.will_wake(context.waker())) {
            self.throttle.forget(&before);
        }
        match self.throttle.take(self.amount, context.waker()) {
            Some(grant) => {
                self.waker = None;
                Poll::Ready(grant)
            }
            None => {
                self.waker.get_or_insert_with(|| context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            self.throttle.forget(&waker);
        }
    }
}

struct WakeWorker {
    id: ConnectionId,
    worker: MailSender<Mail>,
}

impl Wake for WakeWorker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.worker.send(Mail::Room(self.id));
    }
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }
}

impl Eq for Connection {}

impl Hash for Connection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.id.hash(state);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.inner.id.0)
            .field("peer", &self.peer())
            .field("closed", &self.inner.closed.get())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Connection {
    /// As Ceph's logs name a peer: `osd.0 v2:127.0.0.1:6800/0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer() {
            Some(peer) => write!(f, "{} {}", peer.name, peer.addrs),
            None => write!(f, "{}", self.inner.target),
        }
    }
}

/// How long [`crate::Messenger::shutdown`] waits for peers by default.
pub(crate) const DEFAULT_LINGER: Duration = Duration::from_secs(10);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
