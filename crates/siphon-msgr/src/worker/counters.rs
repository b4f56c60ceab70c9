//! What a worker counts: `AsyncMessenger::Worker-N` of Ceph's `perf dump`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use siphon_common::perf_counters::{CounterInfo, Counters, PerfSource, Unit};
use siphon_net::EventCenter;
use siphon_proto::{Message, ProtocolError, Transmit};

use crate::error::CloseReason;

/// Places of the counters in [`INFOS`].
mod place {
    pub(super) const RECV_MESSAGES: usize = 0;
    pub(super) const SEND_MESSAGES: usize = 1;
    pub(super) const RECV_BYTES: usize = 2;
    pub(super) const SEND_BYTES: usize = 3;
    pub(super) const CREATED: usize = 4;
    pub(super) const ACTIVE: usize = 5;
    pub(super) const TOTAL_TIME: usize = 6;
    pub(super) const SEND_TIME: usize = 7;
    pub(super) const RECV_TIME: usize = 8;
    pub(super) const FAST_DISPATCH_TIME: usize = 9;
    pub(super) const QUEUE_LAT: usize = 10;
    pub(super) const RECV_ENCRYPTED: usize = 11;
    pub(super) const SEND_ENCRYPTED: usize = 12;
    pub(super) const READY_TIMEOUTS: usize = 13;
    pub(super) const IDLE_TIMEOUTS: usize = 14;
    pub(super) const QUEUE_HISTOGRAM: usize = 15;
    pub(super) const TURN_HISTOGRAM: usize = 16;
}

/// Ceph's names and descriptions (`Worker` of its `msg/async/Stack.h`), and two histograms of our own.
static INFOS: [CounterInfo; 17] = [
    CounterInfo::counter("msgr_recv_messages", "Network received messages"),
    CounterInfo::counter("msgr_send_messages", "Network sent messages"),
    CounterInfo::counter("msgr_recv_bytes", "Network received bytes").unit(Unit::Bytes),
    CounterInfo::counter("msgr_send_bytes", "Network sent bytes").unit(Unit::Bytes),
    CounterInfo::counter("msgr_created_connections", "Created connection number"),
    CounterInfo::gauge("msgr_active_connections", "Active connection number"),
    CounterInfo::time("msgr_running_total_time", "The total time of thread running"),
    CounterInfo::time("msgr_running_send_time", "The total time of message sending"),
    CounterInfo::time("msgr_running_recv_time", "The total time of message receiving"),
    CounterInfo::time("msgr_running_fast_dispatch_time", "The total time of fast dispatch"),
    CounterInfo::time_average("msgr_send_messages_queue_lat", "Network sent messages lat"),
    CounterInfo::counter("msgr_recv_encrypted_bytes", "Network received encrypted bytes")
        .unit(Unit::Bytes),
    CounterInfo::counter("msgr_send_encrypted_bytes", "Network sent encrypted bytes")
        .unit(Unit::Bytes),
    CounterInfo::counter(
        "msgr_connection_ready_timeouts",
        "Number of not yet ready connections declared as dead",
    ),
    CounterInfo::counter(
        "msgr_connection_idle_timeouts",
        "Number of connections closed due to idleness",
    ),
    CounterInfo::histogram(
        "msgr_send_messages_queue_lat_histogram",
        "How long messages waited for being sent",
    ),
    CounterInfo::histogram("msgr_turn_lat_histogram", "How long turns of the worker's loop took"),
];

/// A turn of the worker's loop.
#[derive(Debug)]
struct Turn {
    /// When the stack woke the worker.
    began: Instant,
    /// Until when its times are counted.
    counted: Instant,
}

/// What a time of a turn was spent on.
#[derive(Clone, Copy, Debug)]
enum Lap {
    /// Something was received, or nothing.
    Start {
        received: bool,
    },
    Dispatch,
    Send,
}

/// The counters of a worker, and the watch by which its times are taken.
#[derive(Debug)]
pub(crate) struct WorkerCounters {
    index: usize,
    counters: Counters,
    turn: Option<Turn>,
    /// What this round did since what is counted, and until when.
    laps: Vec<(Lap, Instant)>,
    /// Something was received in the turn that goes on.
    received: bool,
}

impl WorkerCounters {
    pub(crate) fn new(index: usize) -> Self {
        let counters = Counters::new(format!("AsyncMessenger::Worker-{index}"), &INFOS);
        Self { index, counters, turn: None, laps: Vec::new(), received: false }
    }

    /// Whose they are, among the workers of a stack.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// For whoever dumps them.
    pub(crate) fn source(&self) -> Arc<dyn PerfSource> {
        self.counters.source()
    }

    pub(crate) fn connection_created(&mut self) {
        self.counters.add(place::CREATED, 1);
    }

    pub(crate) fn connection_came(&mut self) {
        self.counters.add(place::ACTIVE, 1);
    }

    pub(crate) fn connection_went(&mut self) {
        self.counters.sub(place::ACTIVE, 1);
    }

    /// Why a link was lost, or a connection.
    pub(crate) fn lost(&mut self, reason: &CloseReason) {
        match reason {
            CloseReason::Protocol(ProtocolError::ReadyTimeout) => {
                self.counters.add(place::READY_TIMEOUTS, 1);
            }
            CloseReason::Protocol(ProtocolError::IdleTimeout) => {
                self.counters.add(place::IDLE_TIMEOUTS, 1);
            }
            _ => {}
        }
    }

    pub(crate) fn received(&mut self, message: &Message, secure: bool) {
        self.counters.add(place::RECV_MESSAGES, 1);
        self.counters.add(place::RECV_BYTES, message.wire_len as u64);
        if secure {
            self.counters.add(place::RECV_ENCRYPTED, message.wire_len as u64);
        }
    }

    /// What is told of messages that were handed to the stack, which is taken.
    pub(crate) fn sent(&mut self, transmit: &mut Transmit, secure: bool) {
        let bytes = std::mem::take(&mut transmit.message_bytes);
        self.counters.add(place::SEND_MESSAGES, std::mem::take(&mut transmit.messages));
        self.counters.add(place::SEND_BYTES, bytes);
        if secure {
            self.counters.add(place::SEND_ENCRYPTED, bytes);
        }
        let at_once = std::mem::take(&mut transmit.at_once);
        let first = at_once + transmit.waits.len() as u64;
        self.counters.add_average(place::QUEUE_LAT, first, transmit.waits.iter().sum());
        self.counters.record(place::QUEUE_HISTOGRAM, Duration::ZERO, at_once);
        for wait in transmit.waits.drain(..) {
            self.counters.record(place::QUEUE_HISTOGRAM, wait, 1);
        }
    }

    /// Something was received in this turn, which began when the stack woke the worker.
    pub(crate) fn receives(&mut self) {
        self.received = true;
    }

    /// Dispatching begins, of a turn that may have had some before.
    pub(crate) fn begin_dispatch(&mut self, center: &EventCenter) {
        let began = center.now();
        if self.turn.as_ref().is_some_and(|turn| turn.began == began) {
            return;
        }
        if let Some(turn) = &self.turn {
            let took = turn.counted.saturating_duration_since(turn.began);
            self.counters.record(place::TURN_HISTOGRAM, took, 1);
        }
        self.turn = Some(Turn { began, counted: began });
        let received = std::mem::take(&mut self.received);
        self.end_lap(center, Lap::Start { received });
    }

    /// Messages were dispatched since the last lap.
    pub(crate) fn dispatched(&mut self, center: &EventCenter) {
        self.end_lap(center, Lap::Dispatch);
    }

    /// Messages were sent since the last lap.
    pub(crate) fn transmitted(&mut self, center: &EventCenter) {
        self.end_lap(center, Lap::Send);
    }

    /// One look at the clock ends one time and begins the next.
    fn end_lap(&mut self, center: &EventCenter, lap: Lap) {
        self.laps.push((lap, center.clock()));
    }

    /// A round is over: what was done in it is on its way.
    pub(crate) fn end_round(&mut self) {
        let Self { counters, turn: Some(turn), laps, .. } = self else {
            return;
        };
        for (lap, until) in laps.drain(..) {
            let time = until.saturating_duration_since(turn.counted);
            turn.counted = until;
            counters.add_time(place::TOTAL_TIME, time);
            match lap {
                Lap::Start { received: true } => counters.add_time(place::RECV_TIME, time),
                Lap::Start { received: false } => {}
                Lap::Dispatch => counters.add_time(place::FAST_DISPATCH_TIME, time),
                Lap::Send => counters.add_time(place::SEND_TIME, time),
            }
        }
    }
}
