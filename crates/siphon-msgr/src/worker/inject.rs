//! Faults on purpose, for tests of applications: `ms_inject_delay_*`, `ms_inject_internal_delays`
//! and `ms_blackhole_*`. (`ms_inject_socket_failures` is the stack's.)

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use siphon_common::Config;
use siphon_proto::Message;
use siphon_wire::types::EntityType;

/// What is done to the messages of one connection.
#[derive(Debug)]
pub(crate) struct Injection {
    /// Messages from and to the peer are dropped.
    blackhole: bool,
    delay_probability: f64,
    delay_max: Duration,
    /// Messages that are held back, in order.
    held: VecDeque<(Instant, Message)>,
}

impl Injection {
    /// What the configuration wants for a peer of this type; usually nothing.
    pub(crate) fn for_peer(config: &Config, peer: EntityType) -> Option<Box<Self>> {
        let blackhole = match peer {
            EntityType::OSD => config.ms_blackhole_osd,
            EntityType::MON => config.ms_blackhole_mon,
            EntityType::MDS => config.ms_blackhole_mds,
            EntityType::MGR => config.ms_blackhole_mgr,
            EntityType::CLIENT => config.ms_blackhole_client,
            _ => false,
        };
        let delays = config.ms_inject_delay_probability > 0.0
            && config.delays_messages_from(&peer.to_string());
        (blackhole || delays).then(|| {
            Box::new(Self {
                blackhole,
                delay_probability: if delays { config.ms_inject_delay_probability } else { 0.0 },
                delay_max: config.ms_inject_delay_max,
                held: VecDeque::new(),
            })
        })
    }

    pub(crate) fn is_blackhole(&self) -> bool {
        self.blackhole
    }

    /// Takes a message that arrived; gives it back if it is to be dispatched now.
    pub(crate) fn receive(&mut self, now: Instant, message: Message) -> Option<Message> {
        if self.blackhole {
            return None;
        }
        let delay = if rand::random_bool(self.delay_probability) {
            self.delay_max.mul_f64(rand::random())
        } else {
            Duration::ZERO
        };
        // Behind one that waits, all wait: the order is kept.
        if delay.is_zero() && self.held.is_empty() {
            return Some(message);
        }
        let behind = self.held.back().map_or(now, |(at, _)| *at);
        self.held.push_back(((now + delay).max(behind), message));
        None
    }

    /// A message whose time has come.
    pub(crate) fn release(&mut self, now: Instant) -> Option<Message> {
        self.next_release().filter(|at| *at <= now)?;
        self.held.pop_front().map(|(_, message)| message)
    }

    /// All that is held back, in order: the connection ends.
    pub(crate) fn release_all(&mut self) -> impl Iterator<Item = Message> {
        self.held.drain(..).map(|(_, message)| message)
    }

    /// When the next one's time comes.
    pub(crate) fn next_release(&self) -> Option<Instant> {
        self.held.front().map(|(at, _)| *at)
    }

    /// The session is no more, and what it brought neither.
    pub(crate) fn discard(&mut self) {
        self.held.clear();
    }
}

/// Loses the time that the configuration wants to be lost at a step of opening a session.
pub(crate) fn internal_delay(config: &Config) {
    if !config.ms_inject_internal_delays.is_zero() {
        std::thread::sleep(config.ms_inject_internal_delays);
    }
}
