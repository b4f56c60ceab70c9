//! Who wins when a peer comes to us: a new session, one that goes on, or two that meet.

use std::cmp::Ordering;

/// What a session that we have with a peer looks like when the peer comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Existing {
    /// How far it is.
    pub stage: ExistingStage,
    /// A fault ends it.
    pub lossy: bool,
    /// We never connect to this peer.
    pub server: bool,
    /// The client's half of its identity; 0 before the client has sent it.
    pub client_cookie: u64,
    /// The server's half; 0 before the server has sent it.
    pub server_cookie: u64,
    /// Links that were tried since the session was opened.
    pub connect_seq: u64,
    /// The newest `global_seq` that the peer has told.
    pub peer_global_seq: u64,
}

/// How far an existing session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExistingStage {
    /// We are connecting, wait until we do so again, or were told to wait for the peer.
    Connecting,
    /// It has a link that carries messages.
    Open,
    /// It has no link and waits.
    Standby,
}

/// What the peer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// CLIENT_IDENT: a new session.
    New {
        /// Its name for the session; 0 if lossy.
        client_cookie: u64,
        /// Connections that its messenger has tried so far.
        global_seq: u64,
    },
    /// SESSION_RECONNECT: to go on with one.
    Resume {
        /// The client's half of the session's identity.
        client_cookie: u64,
        /// Connections that its messenger has tried so far.
        global_seq: u64,
        /// Links that it tried for this session.
        connect_seq: u64,
    },
    /// Of msgr1, where sessions have no names: a new one, or to go on with one.
    V1 {
        /// Connections that its messenger has tried so far.
        global_seq: u64,
        /// Links that this session had, and one; 0 for a new session.
        connect_seq: u64,
    },
}

/// What else decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The policy that we have for such a peer: one that forgot a session is told to reset.
    pub resetcheck: bool,
    /// The peer's address, compared with ours: in a race the lower one's attempt wins.
    pub peer_is: Ordering,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// A new session: SERVER_IDENT.
    Accept,
    /// A new session; the existing one, which is lossy, ends.
    Supersede,
    /// The existing session begins anew over the peer's link: SERVER_IDENT.
    Replace {
        /// The peer has forgotten what was before: so do we.
        reset: bool,
    },
    /// The existing session goes on over the peer's link: SESSION_RECONNECT_OK.
    Resume,
    /// Our own attempt to connect to the peer comes first: WAIT.
    Wait,
    /// The peer's `connect_seq` is behind ours: SESSION_RETRY with ours.
    Retry {
        /// Ours.
        connect_seq: u64,
    },
    /// The peer's `global_seq` is older than one we have seen: SESSION_RETRY_GLOBAL with that.
    RetryGlobal {
        /// The newest that we have seen.
        global_seq: u64,
    },
    /// The session is not known: SESSION_RESET.
    Reset {
        /// Nothing of it; otherwise the peer only has to introduce itself again.
        full: bool,
    },
    /// The peer has a newer connection than this one.
    Close,
}

/// Decides what becomes of a peer's wish (`handle_client_ident`, `handle_existing_connection` and
/// `handle_reconnect` of Ceph's `msg/async/ProtocolV2.cc`).
///
/// ```
/// use std::cmp::Ordering;
/// use siphon_proto::resolve::{Existing, ExistingStage, Request, Resolution, Terms, resolve};
///
/// // Both sides connect to each other at the same time.
/// let ours = Existing {
///     stage: ExistingStage::Connecting,
///     lossy: false,
///     server: false,
///     client_cookie: 7,
///     server_cookie: 0,
///     connect_seq: 0,
///     peer_global_seq: 0,
/// };
/// let theirs = Request::New { client_cookie: 8, global_seq: 1 };
/// let at = |peer_is| resolve(Some(&ours), &theirs, &Terms { resetcheck: true, peer_is });
/// assert_eq!(at(Ordering::Less), Resolution::Replace { reset: false });
/// assert_eq!(at(Ordering::Greater), Resolution::Wait);
/// ```
pub fn resolve(existing: Option<&Existing>, request: &Request, terms: &Terms) -> Resolution {
    match (existing, *request) {
        (None, Request::New { .. } | Request::V1 { connect_seq: 0, .. }) => Resolution::Accept,
        (None, Request::Resume { .. } | Request::V1 { .. }) => Resolution::Reset { full: true },
        (Some(existing), Request::V1 { global_seq, connect_seq }) => {
            resolve_v1(existing, global_seq, connect_seq, terms)
        }
        (Some(existing), Request::New { client_cookie, global_seq }) => {
            resolve_new(existing, client_cookie, global_seq, terms)
        }
        (Some(existing), Request::Resume { client_cookie, global_seq, connect_seq }) => {
            resolve_resume(existing, client_cookie, global_seq, connect_seq, terms)
        }
    }
}

fn resolve_new(
    existing: &Existing,
    client_cookie: u64,
    global_seq: u64,
    terms: &Terms,
) -> Resolution {
    if existing.peer_global_seq > global_seq {
        return Resolution::Close;
    }
    if existing.lossy {
        return Resolution::Supersede;
    }
    let established = existing.client_cookie != 0 && existing.server_cookie != 0;
    if established && existing.client_cookie != client_cookie {
        // The peer was restarted, or ended its side.
        return Resolution::Replace { reset: terms.resetcheck };
    }
    let same = existing.client_cookie == client_cookie; // it has not seen our SERVER_IDENT
    let idle = existing.stage != ExistingStage::Connecting;
    if same || idle || incoming_wins(existing, terms) {
        Resolution::Replace { reset: false }
    } else {
        Resolution::Wait
    }
}

fn resolve_resume(
    existing: &Existing,
    client_cookie: u64,
    global_seq: u64,
    connect_seq: u64,
    terms: &Terms,
) -> Resolution {
    if existing.client_cookie != client_cookie {
        return Resolution::Reset { full: terms.resetcheck };
    }
    if existing.server_cookie == 0 {
        // We were the client, and the peer's SERVER_IDENT did not arrive.
        return Resolution::Reset { full: false };
    }
    if existing.peer_global_seq > global_seq {
        return Resolution::RetryGlobal { global_seq: existing.peer_global_seq };
    }
    match connect_seq.cmp(&existing.connect_seq) {
        Ordering::Less => Resolution::Retry { connect_seq: existing.connect_seq },
        Ordering::Equal if !incoming_wins(existing, terms) => Resolution::Wait,
        Ordering::Equal | Ordering::Greater => Resolution::Resume,
    }
}

/// `handle_connect_message_2` of Ceph's `msg/async/ProtocolV1.cc`. A session that never was open is
/// treated alike with every policy, where Ceph without `resetcheck` has a new peer count from 1 and
/// lets one that goes on take over: such a session would have none of what the peer counts.
fn resolve_v1(existing: &Existing, global_seq: u64, connect_seq: u64, terms: &Terms) -> Resolution {
    if existing.peer_global_seq > global_seq {
        return Resolution::RetryGlobal { global_seq: existing.peer_global_seq };
    }
    let is_new = connect_seq == 0;
    if existing.lossy {
        return if is_new { Resolution::Supersede } else { Resolution::Reset { full: true } };
    }
    let retry = Resolution::Retry { connect_seq: existing.connect_seq + 1 };
    let take = if is_new { Resolution::Replace { reset: false } } else { Resolution::Resume };
    match connect_seq.cmp(&existing.connect_seq) {
        // The peer was restarted, or ended its side.
        Ordering::Less if is_new => Resolution::Replace { reset: terms.resetcheck },
        Ordering::Less => retry,
        // It never was open: there is nothing that the peer could be behind.
        Ordering::Equal if existing.stage != ExistingStage::Connecting && is_new => take,
        Ordering::Equal if existing.stage != ExistingStage::Connecting => retry,
        Ordering::Equal if incoming_wins(existing, terms) => take,
        Ordering::Equal => Resolution::Wait,
        // What the peer goes on with is not what we have, which never was open.
        Ordering::Greater if existing.connect_seq == 0 => Resolution::Reset { full: true },
        Ordering::Greater => take,
    }
}

/// Both sides decide the same, each from its own end: the attempt of the lower address wins, or
/// that of the one side which connects at all.
fn incoming_wins(existing: &Existing, terms: &Terms) -> bool {
    existing.server || terms.peer_is != Ordering::Greater
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIES: [u64; 3] = [0, 7, 8];

    /// Every combination in which a value matters by itself or by comparison.
    fn every_existing() -> Vec<Existing> {
        let stages = [ExistingStage::Connecting, ExistingStage::Open, ExistingStage::Standby];
        let mut all = Vec::new();
        for stage in stages {
            for bits in 0..4 {
                for client_cookie in COOKIES {
                    for server_cookie in [0, 9] {
                        for connect_seq in 0..3 {
                            for peer_global_seq in 0..3 {
                                all.push(Existing {
                                    stage,
                                    lossy: bits & 1 != 0,
                                    server: bits & 2 != 0,
                                    client_cookie,
                                    server_cookie,
                                    connect_seq,
                                    peer_global_seq,
                                });
                            }
                        }
                    }
                }
            }
        }
        all
    }

    fn every_request() -> Vec<Request> {
        let mut all = Vec::new();
        for client_cookie in COOKIES {
            for global_seq in 0..3 {
                all.push(Request::New { client_cookie, global_seq });
                for connect_seq in 0..3 {
                    all.push(Request::Resume { client_cookie, global_seq, connect_seq });
                    all.push(Request::V1 { global_seq, connect_seq });
                }
            }
        }
        all
    }

    fn every_terms() -> Vec<Terms> {
        let orders = [Ordering::Less, Ordering::Equal, Ordering::Greater];
        let terms = |peer_is| [true, false].map(|resetcheck| Terms { resetcheck, peer_is });
        orders.into_iter().flat_map(terms).collect()
    }

    /// What must hold of a resolution, said once more and in other words.
    fn justified(e: &Existing, request: &Request, t: &Terms, resolution: Resolution) -> bool {
        let loses = t.peer_is == Ordering::Greater && !e.server;
        match (*request, resolution) {
            (_, Resolution::Accept) => false,
            (Request::New { global_seq, .. }, Resolution::Close) => global_seq < e.peer_global_seq,
            (Request::New { global_seq, .. }, Resolution::Supersede) => {
                e.lossy && global_seq >= e.peer_global_seq
            }
            (Request::New { client_cookie, global_seq }, Resolution::Replace { reset }) => {
                let other = e.client_cookie != client_cookie;
                let forgotten = e.client_cookie != 0 && e.server_cookie != 0 && other;
                !e.lossy
                    && global_seq >= e.peer_global_seq
                    && reset == (forgotten && t.resetcheck)
                    && (forgotten || !other || e.stage != ExistingStage::Connecting || !loses)
            }
            (Request::New { client_cookie, global_seq }, Resolution::Wait) => {
                !e.lossy
                    && global_seq >= e.peer_global_seq
                    && e.stage == ExistingStage::Connecting
                    && e.client_cookie != client_cookie
                    && (e.client_cookie == 0 || e.server_cookie == 0)
                    && loses
            }
            (Request::Resume { client_cookie, .. }, Resolution::Reset { full }) => {
                let other = e.client_cookie != client_cookie;
                if other { full == t.resetcheck } else { !full && e.server_cookie == 0 }
            }
            (
                Request::Resume { client_cookie, global_seq, connect_seq },
                Resolution::RetryGlobal { .. }
                | Resolution::Retry { .. }
                | Resolution::Wait
                | Resolution::Resume,
            ) => {
                let known = e.client_cookie == client_cookie && e.server_cookie != 0;
                known
                    && match resolution {
                        Resolution::RetryGlobal { global_seq: ours } => {
                            ours == e.peer_global_seq && ours > global_seq
                        }
                        Resolution::Retry { connect_seq: ours } => {
                            ours == e.connect_seq
                                && ours > connect_seq
                                && global_seq >= e.peer_global_seq
                        }
                        Resolution::Wait => connect_seq == e.connect_seq && loses,
                        _ => {
                            global_seq >= e.peer_global_seq
                                && (connect_seq > e.connect_seq
                                    || (connect_seq == e.connect_seq && !loses))
                        }
                    }
            }
            (Request::V1 { global_seq, connect_seq }, _) => {
                justified_v1(e, global_seq, connect_seq, t, resolution)
            }
            _ => false,
        }
    }

    fn justified_v1(
        e: &Existing,
        global_seq: u64,
        connect_seq: u64,
        t: &Terms,
        resolution: Resolution,
    ) -> bool {
        let loses = t.peer_is == Ordering::Greater && !e.server;
        let (idle, new) = (e.stage != ExistingStage::Connecting, connect_seq == 0);
        let same = connect_seq == e.connect_seq;
        if let Resolution::RetryGlobal { global_seq: ours } = resolution {
            return ours == e.peer_global_seq && ours > global_seq;
        }
        if global_seq < e.peer_global_seq {
            return false;
        }
        match resolution {
            Resolution::Supersede => e.lossy && new,
            Resolution::Reset { full } => full && !new && (e.lossy || e.connect_seq == 0),
            _ if e.lossy => false,
            Resolution::Replace { reset } => {
                let forgotten = e.connect_seq > 0;
                new && reset == (forgotten && t.resetcheck) && (forgotten || idle || !loses)
            }
            Resolution::Retry { connect_seq: next } => {
                let behind = connect_seq < e.connect_seq && !new;
                next == e.connect_seq + 1 && (behind || (same && idle && !new))
            }
            Resolution::Wait => same && !idle && loses,
            Resolution::Resume => {
                !new && e.connect_seq > 0
                    && (!same || !idle)
                    && (connect_seq > e.connect_seq || !loses)
            }
            _ => false,
        }
    }

    #[test]
    fn every_combination_is_resolved_for_a_reason() {
        let (requests, terms) = (every_request(), every_terms());
        for existing in every_existing() {
            for request in &requests {
                for terms in &terms {
                    let resolution = resolve(Some(&existing), request, terms);
                    assert!(
                        justified(&existing, request, terms, resolution),
                        "{existing:?} {request:?} {terms:?}: {resolution:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_peer_that_nobody_knows_begins_anew() {
        for terms in every_terms() {
            for request in every_request() {
                let expected = match request {
                    Request::New { .. } => Resolution::Accept,
                    Request::V1 { connect_seq: 0, .. } => Resolution::Accept,
                    Request::Resume { .. } | Request::V1 { .. } => Resolution::Reset { full: true },
                };
                assert_eq!(resolve(None, &request, &terms), expected);
            }
        }
    }

    /// Two that connect to each other: one attempt wins at both ends, whatever else holds.
    #[test]
    fn a_race_has_one_winner() {
        let lower_at = |existing: &Existing, request: &Request, resetcheck| {
            let at = |peer_is| resolve(Some(existing), request, &Terms { resetcheck, peer_is });
            (at(Ordering::Less), at(Ordering::Greater))
        };
        let connecting = Existing {
            stage: ExistingStage::Connecting,
            lossy: false,
            server: false,
            client_cookie: 7,
            server_cookie: 0,
            connect_seq: 0,
            peer_global_seq: 0,
        };
        let first = Request::New { client_cookie: 8, global_seq: 1 };
        let again = Request::Resume { client_cookie: 7, global_seq: 1, connect_seq: 2 };
        let reconnecting = Existing { server_cookie: 9, connect_seq: 2, ..connecting };
        for resetcheck in [true, false] {
            assert_eq!(
                lower_at(&connecting, &first, resetcheck),
                (Resolution::Replace { reset: false }, Resolution::Wait)
            );
            assert_eq!(
                lower_at(&reconnecting, &again, resetcheck),
                (Resolution::Resume, Resolution::Wait)
            );
        }
    }

    /// We stood by and never had a session with the peer: without `resetcheck`, it was told to try
    /// the second link of one; what then took over had no peer, and never became open.
    #[test]
    fn a_session_of_msgr1_that_never_was_open_is_begun_and_not_gone_on_with() {
        for existing in every_existing().iter().filter(|it| it.connect_seq == 0 && !it.lossy) {
            for terms in every_terms() {
                let ask = |connect_seq| {
                    let global_seq = existing.peer_global_seq;
                    resolve(Some(existing), &Request::V1 { global_seq, connect_seq }, &terms)
                };
                let begun = ask(0) == Resolution::Replace { reset: false };
                let connecting = existing.stage == ExistingStage::Connecting;
                assert!(begun || (connecting && ask(0) == Resolution::Wait), "{existing:?}");
                assert_eq!(ask(1), Resolution::Reset { full: true }, "{existing:?}");
            }
        }
    }

    /// A peer that does as it is told gets a session after three answers at most, unless it is to wait.
    #[test]
    fn every_answer_leads_to_a_session() {
        for existing in every_existing() {
            for request in every_request() {
                for terms in every_terms() {
                    let mut asked = request;
                    let settled = (0..4).any(|_| {
                        let next = match (asked, resolve(Some(&existing), &asked, &terms)) {
                            (
                                Request::Resume { client_cookie, connect_seq, .. },
                                Resolution::RetryGlobal { global_seq },
                            ) => Request::Resume {
                                client_cookie,
                                connect_seq,
                                global_seq: global_seq + 1,
                            },
                            (
                                Request::Resume { client_cookie, global_seq, .. },
                                Resolution::Retry { connect_seq },
                            ) => Request::Resume {
                                client_cookie,
                                global_seq,
                                connect_seq: connect_seq + 1,
                            },
                            (
                                Request::Resume { global_seq, client_cookie, .. },
                                Resolution::Reset { full },
                            ) => Request::New {
                                client_cookie: if full { 77 } else { client_cookie },
                                global_seq,
                            },
                            (
                                Request::V1 { connect_seq, .. },
                                Resolution::RetryGlobal { global_seq },
                            ) => Request::V1 { connect_seq, global_seq: global_seq + 1 },
                            (Request::V1 { global_seq, .. }, Resolution::Retry { connect_seq }) => {
                                Request::V1 { global_seq, connect_seq }
                            }
                            (Request::V1 { global_seq, .. }, Resolution::Reset { .. }) => {
                                Request::V1 { global_seq, connect_seq: 0 }
                            }
                            _ => return true,
                        };
                        asked = next;
                        false
                    });
                    assert!(settled, "{existing:?} {request:?} {terms:?}");
                }
            }
        }
    }
}
