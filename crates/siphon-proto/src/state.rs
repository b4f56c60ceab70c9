use std::time::Duration;

use crate::policy::Policy;
use crate::throttle::Throttle;

/// What a [`Connection`](crate::Connection) tells of itself, for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionState {
    /// What it is doing: "authenticating".
    pub stage: &'static str,
    /// The session is open and has a link.
    pub connected: bool,
    /// How it treats faults.
    pub policy: Policy,
    /// The last message that came.
    pub in_seq: u64,
    /// The last message that was numbered.
    pub out_seq: u64,
    /// Messages that wait for being sent.
    pub queued: usize,
    /// Messages that were sent and that the peer has not acknowledged, of a lossless session.
    pub unacknowledged: usize,
    /// Links that were tried since it was opened.
    pub connect_seq: u64,
    /// Our number of the last attempt to connect.
    pub global_seq: u64,
    /// The peer's.
    pub peer_global_seq: u64,
    /// A message of the peer waits for a throttle.
    pub throttled: bool,
    /// What bounds the peer's messages.
    pub throttles: Vec<Throttle>,
    /// How long ago the last attempt to connect began.
    pub started_ago: Duration,
    /// How long nothing has arrived.
    pub last_active_ago: Duration,
}
