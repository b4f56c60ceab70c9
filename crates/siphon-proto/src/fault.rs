//! What becomes of a connection whose link is gone.

use crate::policy::Policy;

/// How far the link was that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultStage {
    /// We were connecting.
    Connecting,
    /// We were connecting, and the peer told us to wait for its own attempt.
    Waiting,
    /// A peer connected to us, and no session came of it.
    Accepting,
    /// It carried a session.
    Open,
}

/// What decides over a connection whose link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How far the link was.
    pub stage: FaultStage,
    /// How the session treats faults.
    pub policy: Policy,
    /// Messages or a keepalive wait.
    pub to_send: bool,
    /// The peer has an address that can be connected to.
    pub reachable: bool,
    /// The peer can connect to us: who listens nowhere must not wait for it.
    pub listening: bool,
    /// Something of the session arrived over the link: one over which nothing did, though it was
    /// open, was no better than an attempt that failed.
    pub fruitful: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultAction {
    /// The connection ends.
    Close,
    /// Wait: for the peer, or for something to send.
    Standby,
    /// Connect, after a while.
    Reconnect(Backoff),
}

/// How long to wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backoff {
    /// Not at all: the session was open until now.
    None,
    /// `ms_initial_backoff`, doubled with each attempt up to `ms_max_backoff`.
    Grow,
    /// `ms_max_backoff`: by then the peer should have come.
    Max,
}

/// Decides what becomes of a connection whose link is gone (`ProtocolV2::_fault` of Ceph's
/// `msg/async/ProtocolV2.cc`).
///
/// ```
/// use siphon_proto::Policy;
/// use siphon_proto::fault::{Backoff, Fault, FaultAction, FaultStage, fault};
///
/// let open = |policy| Fault {
///     stage: FaultStage::Open,
///     policy,
///     to_send: false,
///     reachable: true,
///     listening: true,
///     fruitful: true,
/// };
/// assert_eq!(fault(&open(Policy::LOSSY_CLIENT)), FaultAction::Close);
/// assert_eq!(fault(&open(Policy::LOSSLESS_PEER)), FaultAction::Standby);
/// assert_eq!(fault(&open(Policy::LOSSLESS_CLIENT)), FaultAction::Reconnect(Backoff::None));
/// ```
pub fn fault(fault: &Fault) -> FaultAction {
    let Fault { stage, policy, to_send, reachable, listening, fruitful } = *fault;
    let connecting = matches!(stage, FaultStage::Connecting | FaultStage::Waiting);
    // What has no session yet has nothing to lose: a lossy client tries again as well.
    if (policy.lossy && !connecting) || stage == FaultStage::Accepting {
        return FaultAction::Close;
    }
    let may_rest = policy.standby && listening && !to_send && stage != FaultStage::Waiting;
    if may_rest || policy.server || !reachable {
        return FaultAction::Standby;
    }
    FaultAction::Reconnect(match stage {
        FaultStage::Open if fruitful => Backoff::None,
        FaultStage::Waiting => Backoff::Max,
        FaultStage::Open | FaultStage::Connecting | FaultStage::Accepting => Backoff::Grow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [Policy; 7] = [
        Policy::STATEFUL_SERVER,
        Policy::STATELESS_REGISTERED_SERVER,
        Policy::STATELESS_SERVER,
        Policy::LOSSLESS_PEER,
        Policy::LOSSLESS_PEER_REUSE,
        Policy::LOSSY_CLIENT,
        Policy::LOSSLESS_CLIENT,
    ];
    const STAGES: [FaultStage; 4] =
        [FaultStage::Connecting, FaultStage::Waiting, FaultStage::Accepting, FaultStage::Open];

    fn every_fault() -> Vec<Fault> {
        let mut all = Vec::new();
        for policy in POLICIES {
            for stage in STAGES {
                for bits in 0..16 {
                    let flag = |bit: i32| bits & bit != 0;
                    let [to_send, reachable, listening, fruitful] = [1, 2, 4, 8].map(flag);
                    all.push(Fault { stage, policy, to_send, reachable, listening, fruitful });
                }
            }
        }
        all
    }

    /// Each policy's row, as Ceph has it, for a peer that can be reached.
    #[test]
    fn an_open_session_of_each_policy() {
        use FaultAction::{Close, Reconnect, Standby};
        let at_once = Reconnect(Backoff::None);
        let expected = [
            (Policy::STATEFUL_SERVER, Standby, Standby),
            (Policy::STATELESS_REGISTERED_SERVER, Close, Close),
            (Policy::STATELESS_SERVER, Close, Close),
            (Policy::LOSSLESS_PEER, Standby, at_once),
            (Policy::LOSSLESS_PEER_REUSE, Standby, at_once),
            (Policy::LOSSY_CLIENT, Close, Close),
            (Policy::LOSSLESS_CLIENT, at_once, at_once),
        ];
        for (policy, idle, busy) in expected {
            let (stage, yes) = (FaultStage::Open, true);
            let at = |to_send| {
                let (reachable, listening, fruitful) = (yes, yes, yes);
                fault(&Fault { stage, policy, to_send, reachable, listening, fruitful })
            };
            assert_eq!((at(false), at(true)), (idle, busy), "{policy:?}");
        }
    }

    #[test]
    fn nothing_to_send_is_lost_but_by_a_lossy_session_or_before_there_was_one() {
        for case in every_fault() {
            if fault(&case) == FaultAction::Close {
                assert!(case.policy.lossy || case.stage == FaultStage::Accepting, "{case:?}");
            }
        }
    }

    #[test]
    fn whoever_can_connect_and_has_something_to_send_does() {
        for case in every_fault() {
            let waits = fault(&case) == FaultAction::Standby;
            assert!(
                !waits
                    || case.policy.server
                    || !case.reachable
                    || (!case.to_send && case.listening),
                "{case:?} would be stuck"
            );
        }
    }

    #[test]
    fn only_a_session_that_was_open_comes_back_at_once() {
        for case in every_fault() {
            let expected = match case.stage {
                FaultStage::Open if case.fruitful => Backoff::None,
                FaultStage::Waiting => Backoff::Max,
                _ => Backoff::Grow,
            };
            if let FaultAction::Reconnect(backoff) = fault(&case) {
                assert_eq!(backoff, expected, "{case:?}");
            }
        }
    }
}
