use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use siphon_common::{Context, Timer};
use siphon_messages::mon::{MgrMap, MonMap};
use siphon_messages::{SubscribeItem, TypedMessage};
use siphon_msgr::{Dispatcher, Messenger};
use siphon_proto::OutMessage;
use siphon_wire::types::{AuthName, ByteString, Uuid};

use crate::builder::MonClientBuilder;
use crate::core::{Answer, MonTarget, Question, Route};
use crate::error::MonError;
use crate::shell::Inner;
use crate::{Command, CommandOutput};

/// A session with the monitors of a cluster, that is kept whatever becomes of one of them. Clones are
/// the same client.
///
/// A question that is given up, by dropping its future, is taken back if it was not sent yet; else
/// nobody hears of its answer. A time of `None` is `rados_mon_op_timeout`, which by default does not
/// end. Once the last clone is dropped, or [`shutdown`](Self::shutdown) was called, its connections are
/// closed.
///
/// ```
/// use siphon_common::{Config, Context};
/// use siphon_monclient::{Command, MonClient, MonError};
///
/// let mut config = Config::default();
/// config.set("mon_host", "v2:127.0.0.1:1/0")?; // where nobody is
/// config.set("auth_client_required", "none")?;
/// config.set("ms_mon_client_mode", "crc")?;
/// let mon = MonClient::builder(&Context::new(config)).start()?;
/// let asked = mon.command(Command::new("status"), Some(std::time::Duration::from_millis(50)));
/// assert!(matches!(pollster::block_on(asked), Err(MonError::NoMonitor { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MonClient {
    inner: Arc<Inner>,
}

impl MonClient {
    /// A client of the monitors that the context's configuration names.
    pub fn builder(context: &Context) -> MonClientBuilder {
        MonClientBuilder::new(context)
    }

    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Waits until a monitor has let us in, and told us of which cluster it is.
    ///
    /// # Errors
    /// [`MonError::NoMonitor`] if none does within `timeout`; before that [`MonError::Denied`] if all that
    /// can be reached refuse us, and [`MonError::WrongFsid`].
    pub async fn authenticate(&self, timeout: Duration) -> Result<(), MonError> {
        self.ask(Question::Session, Route::Monitors, Some(timeout)).await.map(drop)
    }

    /// The context that it was made with.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// Who we are: `client.admin`.
    pub fn name(&self) -> &AuthName {
        &self.inner.name
    }

    /// The cluster's id, once a monitor told it.
    pub fn fsid(&self) -> Option<Uuid> {
        self.inner.lock().core.fsid()
    }

    /// The number that the monitors know us by; 0 before the first session. OSDs know us by the first that
    /// there was, which the [messenger](Self::messenger)'s name has: a monitor that does not know us any
    /// more, after hours without a session, gives another one.
    pub fn global_id(&self) -> u64 {
        self.inner.authenticator.global_id()
    }

    /// The messenger, for sessions with others. It goes by our first number once that is known.
    pub fn messenger(&self) -> &Messenger {
        &self.inner.messenger
    }

    /// The timer, for others' deadlines.
    pub fn timer(&self) -> &Timer {
        &self.inner.timer
    }

    /// The newest map of monitors; before the first session that of the configuration.
    pub fn monmap(&self) -> MonMap {
        self.inner.lock().core.map().clone()
    }

    /// The newest map of managers, once somebody wanted it
    /// ([`subscribe_to_manager`](Self::subscribe_to_manager), [`mgr_command`](Self::mgr_command)).
    pub fn mgrmap(&self) -> Option<MgrMap> {
        self.inner.lock().core.manager_map().cloned()
    }

    /// The options that the monitors' central configuration has for us, by name.
    pub fn central_config(&self) -> BTreeMap<ByteString, ByteString> {
        self.inner.lock().core.central_config().clone()
    }

    /// The monitor that there is a session with (`mon.a`), if there is one now.
    pub fn monitor(&self) -> Option<String> {
        self.inner.lock().core.monitor()
    }

    /// Gives everything that is not ours to a dispatcher: messages and news of connections with OSDs,
    /// and what monitors publish, such as OSD maps. It sees them as if it were behind us in the
    /// messenger's chain. It is not kept alive by this.
    ///
    /// # Errors
    /// The dispatcher comes back if there is one already.
    pub fn attach(&self, dispatcher: Weak<dyn Dispatcher>) -> Result<(), Weak<dyn Dispatcher>> {
        self.inner.front.attached.set(dispatcher)
    }

    /// Has a map published to us (`osdmap`, `mdsmap`, …), from the version `start` on: all versions, or one
    /// of them if `onetime`. The messages go to whoever is [attached](Self::attach), who says what
    /// has [arrived](Self::got).
    pub fn subscribe(&self, what: &str, start: u64, onetime: bool) {
        let item = match onetime {
            true => SubscribeItem::once(start),
            false => SubscribeItem::from_version(start),
        };
        self.inner.run(|core, now| core.subscribe(what.into(), item, now));
    }

    /// Wants a map no more, from the next session on.
    pub fn unsubscribe(&self, what: &str) {
        self.inner.run(|core, _| core.unsubscribe(what.as_bytes()));
    }

    /// A version of a map that we subscribed to has arrived. A later session begins behind it, and a
    /// subscription for one version has ended.
    pub fn got(&self, what: &str, version: u64) {
        self.inner.run(|core, _| core.got(what.as_bytes(), version));
    }

    /// Has the map of managers published to us: [`mgrmap`](Self::mgrmap).
    pub fn subscribe_to_manager(&self) {
        self.inner.run(|core, now| core.want_manager(now));
    }

    /// The newest version of a map (`osdmap`, `monmap`, …), and the oldest that the monitors still have.
    ///
    /// # Errors
    /// If there is no answer in time, or no session.
    pub async fn newest_version(
        &self,
        what: &str,
        timeout: Option<Duration>,
    ) -> Result<(u64, u64), MonError> {
        match self.ask(Question::Version(what.into()), Route::Monitors, timeout).await? {
            Answer::Version { newest, oldest } => Ok((newest, oldest)),
            other => unreachable!("{other:?} does not answer which versions there are"),
        }
    }

    /// Has the monitors do a command.
    ///
    /// # Errors
    /// If there is no answer in time. A command that fails has an output that says so.
    pub async fn command(
        &self,
        command: Command,
        timeout: Option<Duration>,
    ) -> Result<CommandOutput, MonError> {
        self.ask_for_output(command, Route::Monitors, timeout).await
    }

    /// Has one certain monitor do a command, over a connection of its own (`ceph tell mon.a …`).
    ///
    /// # Errors
    /// [`MonError::NoSuchMonitor`], [`MonError::Unreachable`], or if there is no answer in time.
    pub async fn tell_mon(
        &self,
        target: MonTarget,
        command: Command,
        timeout: Option<Duration>,
    ) -> Result<CommandOutput, MonError> {
        self.ask_for_output(command, Route::Monitor(target), timeout).await
    }

    /// Has the manager's modules do a command: `pg dump`, `osd df`.
    ///
    /// # Errors
    /// [`MonError::NoManager`] if none is active in time; if there is no answer in time.
    pub async fn mgr_command(
        &self,
        command: Command,
        timeout: Option<Duration>,
    ) -> Result<CommandOutput, MonError> {
        self.ask_for_output(command, Route::Manager { tell: false }, timeout).await
    }

    /// Has the active manager itself do a command (`ceph tell mgr …`).
    ///
    /// # Errors
    /// As [`mgr_command`](Self::mgr_command).
    pub async fn tell_mgr(
        &self,
        command: Command,
        timeout: Option<Duration>,
    ) -> Result<CommandOutput, MonError> {
        self.ask_for_output(command, Route::Manager { tell: true }, timeout).await
    }

    /// Asks the monitors anything that they answer with a message of the same `tid`: `MPoolOp`,
    /// `MStatfs`, `MGetPoolStats`. It goes again where a session is lost.
    ///
    /// ```no_run
    /// # async fn room(mon: &siphon_monclient::MonClient) -> Result<(), siphon_monclient::MonError> {
    /// use siphon_messages::{MStatfs, MStatfsReply};
    /// let fsid = mon.fsid().unwrap_or_default();
    /// let room: MStatfsReply = mon.request(MStatfs { fsid, ..MStatfs::default() }, None).await?;
    /// println!("{} KiB are left", room.kb_avail);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there is no answer in time, or it cannot be read.
    pub async fn request<Q: TypedMessage, A: TypedMessage>(
        &self,
        question: Q,
        timeout: Option<Duration>,
    ) -> Result<A, MonError> {
        let question = Question::Message { message: question.into_out(), reply: A::TYPE };
        match self.ask(question, Route::Monitors, timeout).await? {
            Answer::Message(message) => A::from_message(&message)
                .map_err(|source| MonError::Malformed { from: "a monitor".to_owned(), source }),
            other => unreachable!("{other:?} does not answer a message"),
        }
    }

    /// Sends the monitor something that needs no answer, if there is a session now; whether there is.
    pub fn send_mon_message(&self, message: impl Into<OutMessage>) -> bool {
        let message = message.into();
        self.inner.run(|core, _| core.send(message))
    }

    /// Ends the client: questions that wait fail with [`MonError::Shutdown`], and its messenger, with
    /// all connections of others, is shut down.
    pub async fn shutdown(&self) {
        self.inner.run(|core, _| core.shutdown());
        self.inner.messenger.shutdown().await;
    }

    async fn ask_for_output(
        &self,
        command: Command,
        route: Route,
        timeout: Option<Duration>,
    ) -> Result<CommandOutput, MonError> {
        match self.ask(Question::Command(command), route, timeout).await? {
            Answer::Command(output) => Ok(output),
            other => unreachable!("{other:?} does not answer a command"),
        }
    }

    async fn ask(
        &self,
        question: Question,
        route: Route,
        timeout: Option<Duration>,
    ) -> Result<Answer, MonError> {
        let default = self.inner.context.config().rados_mon_op_timeout;
        let timeout = timeout.or((!default.is_zero()).then_some(default));
        let (sender, receiver) = oneshot::channel();
        let tid = self.inner.run(|core, now| core.ask(sender, question, route, timeout, now))?;
        Asked { inner: &self.inner, tid, receiver }.await
    }
}

/// A question that waits for its answer; dropping it takes it back.
struct Asked<'a> {
    inner: &'a Inner,
    tid: u64,
    receiver: oneshot::Receiver<Result<Answer, MonError>>,
}

impl Future for Asked<'_> {
    type Output = Result<Answer, MonError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.receiver).poll(context);
        answer.map(|answer| answer.unwrap_or(Err(MonError::Shutdown)))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.inner.run(|core, _| core.cancel(self.tid)); // nothing, if it was answered
    }
}

impl fmt::Debug for MonClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.lock();
        f.debug_struct("MonClient")
            .field("name", &self.inner.name)
            .field("global_id", &self.global_id())
            .field("fsid", &state.core.fsid())
            .field("monitor", &state.core.monitor())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_be_used_by_several_threads() {
        fn shared<T: Send + Sync + Clone>() {}
        fn sent<T: Send>(_: T) {}
        shared::<MonClient>();
        let asked = |mon: &'static MonClient| sent(mon.authenticate(Duration::ZERO));
        let _ = asked;
    }
}
