//! What an application waits for.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use siphon_messages::osd::{OsdOp, WatchOp};
use siphon_osdmap::OsdMap;
use siphon_wire::types::Epoch;

use crate::core::{CommandTicket, MapTicket, OpTicket};
use crate::objecter::{Objecter, Shared};
use crate::watch::WatchQueue;
use siphon_monclient::CommandOutput;

use crate::{Notification, Op, OpError, OpReply, Target, WatchEvent};

/// The result of an operation. It is under way whether this is polled or not.
///
/// Dropping it takes the operation out: one that was not sent yet is not sent. One that was, the OSD does
/// as a whole or not at all, and nobody hears which.
#[must_use = "dropping it takes the operation out"]
pub struct OpFuture {
    shared: Arc<Shared>,
    ticket: OpTicket,
}

/// The output of a command to an OSD. Dropping it gives the command up.
#[must_use = "dropping it gives the command up"]
pub struct CommandFuture {
    shared: Arc<Shared>,
    ticket: CommandTicket,
}

/// A map of a certain epoch, or a newer one.
#[must_use = "futures do nothing unless polled"]
pub struct MapFuture {
    shared: Arc<Shared>,
    epoch: Epoch,
    ticket: MapTicket,
}

macro_rules! future {
    ($future:ident, $output:ty, |$self:ident| $drop:block) => {
        impl Future for $future {
            type Output = Result<$output, OpError>;

            fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
                self.ticket.poll(context)
            }
        }

        impl Drop for $future {
            fn drop(&mut self) {
                if !self.ticket.is_done() {
                    let $self = self;
                    $drop
                }
            }
        }

        impl fmt::Debug for $future {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($future)).finish_non_exhaustive()
            }
        }
    };
}

future!(OpFuture, OpReply, |this| {
    this.shared.with(|core, now| core.cancel(this.ticket.id(), now));
});
future!(CommandFuture, CommandOutput, |this| {
    this.shared.with(|core, now| core.cancel(this.ticket.id(), now));
});
future!(MapFuture, Arc<OsdMap>, |this| {
    this.shared.with(|core, _| core.forget_waiter(this.epoch, this.ticket.id()));
});

impl OpFuture {
    pub(crate) fn new(shared: Arc<Shared>, ticket: OpTicket) -> Self {
        Self { shared, ticket }
    }
}

impl CommandFuture {
    pub(crate) fn new(shared: Arc<Shared>, ticket: CommandTicket) -> Self {
        Self { shared, ticket }
    }
}

impl MapFuture {
    pub(crate) fn new(shared: Arc<Shared>, epoch: Epoch, ticket: MapTicket) -> Self {
        Self { shared, epoch, ticket }
    }
}

/// A watch or a notification that an OSD is asked for; it is given up when this is dropped, unless it was
/// [kept](Self::keep).
pub(crate) struct Begun {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cookie: u64,
    kept: bool,
}

impl Begun {
    pub(crate) fn new(shared: Arc<Shared>, cookie: u64) -> Self {
        Self { shared, cookie, kept: false }
    }

    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.with(|core, now| core.forget_linger(self.cookie, now));
        }
    }
}

/// A watch on an object: a stream of what happens to it, until it is lost.
///
/// It is renewed wherever the object goes. Dropping it ends it, without waiting for the OSD to hear so:
/// [`unwatch`](Self::unwatch) waits.
pub struct Watch {
    objecter: Objecter,
    cookie: u64,
    target: Target,
    queue: WatchQueue,
    over: bool,
    given_up: bool,
}

impl Watch {
    pub(crate) fn new(objecter: Objecter, cookie: u64, target: Target, queue: WatchQueue) -> Self {
        Self { objecter, cookie, target, queue, over: false, given_up: false }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.objecter.shared
    }

    /// Our number of it, which the OSD lists it by.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// How long ago the OSD last confirmed it. It is asked every `objecter_tick_interval`.
    ///
    /// # Errors
    /// If the watch is lost.
    pub fn check(&self) -> Result<Duration, OpError> {
        self.shared().with(|core, now| core.check_watch(self.cookie, now))
    }

    /// Answers a notification. Who notified waits for that.
    pub fn acknowledge(&self, notification: &Notification, payload: &Bytes) -> OpFuture {
        let ack = OsdOp::notify_ack(notification.notify_id, self.cookie, payload);
        self.shared().submit(Op::read(self.target.clone(), vec![ack]))
    }

    /// Ends it.
    ///
    /// # Errors
    /// Those of an operation; the OSD forgets the watch after a while then.
    pub async fn unwatch(mut self) -> Result<(), OpError> {
        self.given_up = true;
        self.shared().with(|core, now| core.forget_linger(self.cookie, now));
        self.shared().submit(self.end()).await.map(|_| ())
    }

    fn end(&self) -> Op {
        let end = OsdOp::watch(self.cookie, WatchOp::UNWATCH, 0, 0);
        Op::write(self.target.clone(), vec![end])
    }
}

/// Ends after [`WatchEvent::Lost`].
impl Stream for Watch {
    type Item = WatchEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        if self.over {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.queue.poll(context));
        self.over = matches!(event, WatchEvent::Lost(_));
        Poll::Ready(Some(event))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.given_up {
            self.shared().with(|core, now| core.forget_linger(self.cookie, now));
            self.shared().submit_for_nobody(self.end());
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}
