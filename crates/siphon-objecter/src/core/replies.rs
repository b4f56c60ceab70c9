//! What OSDs answer.

use std::sync::Arc;
use std::time::Instant;

use siphon_messages::osd::OsdFlags;
use siphon_messages::{MOSDOpReply, MessageError};
use siphon_wire::types::{Errno, RequestRedirect};

use super::{Core, SessionId};
use crate::error::BadReply;
use crate::placement::Placement;
use crate::{OpError, OpReply};

/// How often OSDs may send an operation on to another object.
const MAX_REDIRECTS: u8 = 16;
/// How often an operation is tried again at once; then it waits for the next tick.
const MAX_QUICK_AGAINS: u8 = 8;

impl Core {
    /// An OSD answered the transaction `tid`.
    pub(crate) fn handle_reply(
        &mut self,
        session: SessionId,
        tid: u64,
        reply: Result<MOSDOpReply, MessageError>,
        now: Instant,
    ) {
        let Some(osd) = self.osd_of(session) else { return };
        if let Some(session) = self.sessions.get_mut(&osd) {
            session.heard = true;
        }
        let Some(op) = self.ops.get(&tid).filter(|op| op.session == Some(osd)) else {
            return; // given up, or asked elsewhere meanwhile
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(osd, tid, %error, "an OSD's reply cannot be read");
                self.end(tid, Err(BadReply::Malformed(error).into()), now);
                return;
            }
        };
        // That to an earlier attempt does not count: another one is on its way.
        if op.attempts == 0
            || (reply.retry_attempt >= 0 && reply.retry_attempt != op.attempts.wrapping_sub(1))
        {
            return;
        }
        match reply {
            MOSDOpReply { redirect: Some(redirect), .. } => self.redirect(tid, redirect, now),
            reply if Errno::of_result(reply.result) == Some(Errno::EAGAIN) => self.again(tid, now),
            reply => {
                let sent = op.message.ops.len();
                self.end(tid, judged(reply, sent), now);
            }
        }
    }

    fn end(&mut self, tid: u64, result: Result<OpReply, OpError>, now: Instant) {
        self.finish(tid, result, now);
        self.admit(now);
        self.check();
    }

    /// The OSD knows another object to ask. Its name and place take those of the one that was meant.
    fn redirect(&mut self, tid: u64, to: RequestRedirect, now: Instant) {
        let Some(op) = self.ops.get_mut(&tid) else { return };
        if op.redirects >= MAX_REDIRECTS {
            self.end(tid, Err(OpError::TooManyRedirects), now);
            return;
        }
        op.redirects += 1;
        if op.pool != to.locator.pool {
            // What is known of that pool is another matter: our map may not have it yet.
            op.place = Placement::default();
        }
        op.pool = to.locator.pool;
        let message = Arc::make_mut(&mut op.message);
        message.locator = to.locator;
        if !to.object.is_empty() {
            message.oid = to.object;
        }
        message.flags |= OsdFlags::REDIRECTED | OsdFlags::IGNORE_CACHE | OsdFlags::IGNORE_OVERLAY;
        self.place_anew(tid, now);
    }

    /// The OSD cannot serve it, the primary can.
    fn again(&mut self, tid: u64, now: Instant) {
        let Some(op) = self.ops.get_mut(&tid) else { return };
        op.agains = op.agains.saturating_add(1);
        op.parked = op.agains > MAX_QUICK_AGAINS;
        let replicas = OsdFlags::BALANCE_READS.0 | OsdFlags::LOCALIZE_READS.0;
        Arc::make_mut(&mut op.message).flags.0 &= !replicas;
        self.place_anew(tid, now);
    }

    fn place_anew(&mut self, tid: u64, now: Instant) {
        if let Some(tid) = self.renumber(tid) {
            self.place(tid, now);
        }
        self.admit(now);
        self.check();
    }
}

/// A reply as a result.
fn judged(reply: MOSDOpReply, sent: usize) -> Result<OpReply, OpError> {
    let came = reply.ops.len();
    match Errno::of_result(reply.result) {
        Some(Errno::ESHUTDOWN) => Err(OpError::Blocklisted),
        Some(_) => Err(OpError::Refused(Box::new(reply.into()))),
        None if came != sent => Err(BadReply::OpCount { sent, came }.into()),
        None => Ok(reply.into()),
    }
}
