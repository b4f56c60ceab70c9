use std::collections::VecDeque;

use crate::message::OutMessage;
use crate::weighted::WeightedQueue;

/// Most messages for which an empty queue keeps room, of 8 bytes each.
const MAX_IDLE: usize = 1024;

/// Messages that wait to be sent: by priority as [`WeightedQueue`] says, in order within each.
///
/// A message costs the length of its payload. One that is not encoded yet costs the least there is.
/// The queue's length is bounded by whoever calls [`push`](OutQueue::push).
#[derive(Debug, Default)]
pub(crate) struct OutQueue {
    /// Messages of one priority, while there are no others: nothing is to be weighed then.
    alike: VecDeque<OutMessage>,
    /// All messages, once there are two priorities, until none is left.
    mixed: WeightedQueue<(), OutMessage>,
}

impl OutQueue {
    pub(crate) fn len(&self) -> usize {
        self.alike.len() + self.mixed.len()
    }

    #[inline]
    pub(crate) fn push(&mut self, message: OutMessage) {
        let priority = |message: &OutMessage| message.header().priority;
        let differs = |other: &OutMessage| priority(other) != priority(&message);
        if self.mixed.is_empty() && !self.alike.back().is_some_and(differs) {
            return self.alike.push_back(message);
        }
        for message in self.alike.drain(..).chain([message]) {
            let cost = message.payload().map_or(0, |payload| payload.len() as u64);
            self.mixed.push((), priority(&message), cost, message);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<OutMessage> {
        let Some(message) = self.alike.pop_front() else {
            return self.mixed.pop().map(|((), message)| message);
        };
        if self.alike.is_empty() && self.alike.capacity() > MAX_IDLE {
            self.alike = VecDeque::new();
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageHeader, Payload, Priority};

    fn message(priority: u16, tid: u64, len: usize) -> OutMessage {
        let header = MessageHeader { priority: Priority(priority), tid, ..Default::default() };
        OutMessage::new(header, Payload { front: vec![0; len].into(), ..Default::default() })
    }

    fn drain(queue: &mut OutQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|message| message.header().tid).collect()
    }

    #[test]
    fn strict_priorities_overtake_and_order_is_kept_within_each() {
        let mut queue = OutQueue::default();
        for (priority, tid) in [(127, 1), (255, 2), (200, 3), (127, 4), (255, 5), (200, 6)] {
            queue.push(message(priority, tid, 10));
        }
        assert_eq!(drain(&mut queue), [2, 5, 3, 6, 1, 4]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_waits_alone_is_weighed_once_others_come_and_alone_again_behind_them() {
        let mut queue = OutQueue::default();
        for (priority, tid) in [(127, 1), (127, 2), (196, 3), (127, 4)] {
            queue.push(message(priority, tid, 10));
        }
        assert_eq!((queue.alike.len(), queue.len()), (0, 4));
        assert_eq!(drain(&mut queue), [3, 1, 2, 4]);
        queue.push(message(64, 5, 10));
        assert_eq!((queue.alike.len(), queue.len()), (1, 1));
    }

    #[test]
    fn large_messages_of_a_priority_leave_room_for_lower_ones() {
        let mut queue = OutQueue::default();
        for tid in 0..20 {
            queue.push(message(127, tid, 4 << 20));
        }
        queue.push(message(64, 100, 10));
        let place = drain(&mut queue).iter().position(|tid| *tid == 100);
        assert_eq!(place, Some(1), "the first large one earned its 64 KiB many times over");
    }
}
