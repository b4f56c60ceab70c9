//! Room for an operation, which is waited for before its data is there.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::OpError;
use crate::core::BudgetTicket;
use crate::objecter::Shared;

/// Room for an operation among those under way, for [`Objecter::submit_within`](crate::Objecter::submit_within).
/// Dropping it gives the room to others.
///
/// ```no_run
/// # async fn example(objecter: &siphon_objecter::Objecter) -> Result<(), siphon_objecter::OpError> {
/// let budget: siphon_objecter::Budget = objecter.reserve(4096).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it gives the room to others"]
pub struct Budget {
    shared: Arc<Shared>,
    id: u64,
    spent: bool,
}

impl Budget {
    /// The core's number of it, which has the room now; none if it is of another objecter, which gives its
    /// room to others.
    pub(crate) fn spend(mut self, shared: &Arc<Shared>) -> Option<u64> {
        self.spent = Arc::ptr_eq(&self.shared, shared);
        self.spent.then_some(self.id)
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if !self.spent {
            self.shared.with(|core, now| core.release(self.id, now));
        }
    }
}

/// A [`Budget`], when there is room. It is in line whether this is polled or not; dropping it leaves the line.
///
/// # Errors
/// [`OpError::Shutdown`].
///
/// ```no_run
/// # async fn example(objecter: &siphon_objecter::Objecter) -> Result<(), siphon_objecter::OpError> {
/// let reserve: siphon_objecter::Reserve = objecter.reserve(4096); // in line
/// let budget = reserve.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it leaves the line"]
pub struct Reserve {
    shared: Arc<Shared>,
    ticket: BudgetTicket,
    over: bool,
}

impl Reserve {
    pub(crate) fn new(shared: Arc<Shared>, ticket: BudgetTicket) -> Self {
        Self { shared, ticket, over: false }
    }
}

impl Future for Reserve {
    type Output = Result<Budget, OpError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let granted = ready!(self.ticket.poll(context));
        self.over = true;
        let shared = Arc::clone(&self.shared);
        Poll::Ready(granted.map(|()| Budget { shared, id: self.ticket.id(), spent: false }))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if !mem::replace(&mut self.over, true) {
            self.shared.with(|core, now| core.release(self.ticket.id(), now));
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve").field("over", &self.over).finish_non_exhaustive()
    }
}
