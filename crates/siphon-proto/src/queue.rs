use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::message::{OutMessage, Priority};

/// Messages that wait to be sent: higher priorities first, in order within each.
///
/// Its length is bounded by whoever calls [`push`](OutQueue::push).
#[derive(Debug, Default)]
pub(crate) struct OutQueue {
    /// Sorted, highest priority first; a class that ran empty stays for the next message.
    classes: SmallVec<[(Priority, VecDeque<OutMessage>); 2]>,
    len: usize,
}

impl OutQueue {
    /// Most priorities that keep an empty class; a sender uses a handful.
    const MAX_IDLE_CLASSES: usize = 8;

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, message: OutMessage) {
        let priority = message.header.priority;
        if self.classes.len() >= Self::MAX_IDLE_CLASSES {
            self.classes.retain(|(class, messages)| *class == priority || !messages.is_empty());
        }
        let at = self
            .classes
            .iter()
            .position(|(class, _)| *class <= priority)
            .unwrap_or(self.classes.len());
        if self.classes.get(at).is_none_or(|(class, _)| *class != priority) {
            self.classes.insert(at, (priority, VecDeque::new()));
        }
        self.classes[at].1.push_back(message);
        self.len += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<OutMessage> {
        let message = self.classes.iter_mut().find_map(|(_, messages)| messages.pop_front())?;
        self.len -= 1;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageHeader, Payload};

    fn message(priority: u16, tid: u64) -> OutMessage {
        let priority = Priority(priority);
        OutMessage::new(MessageHeader { priority, tid, ..Default::default() }, Payload::default())
    }

    #[test]
    fn higher_priorities_overtake_and_order_is_kept_within_each() {
        let mut queue = OutQueue::default();
        for (priority, tid) in [(127, 1), (196, 2), (64, 3), (127, 4), (196, 5), (255, 6)] {
            queue.push(message(priority, tid));
        }
        let tids: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|m| m.header.tid).collect();
        assert_eq!(tids, [6, 2, 5, 1, 4, 3]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_sender_of_every_priority_leaves_few_classes_behind() {
        let mut queue = OutQueue::default();
        for priority in 0..1000 {
            queue.push(message(priority, 0));
            queue.pop();
        }
        assert!(queue.classes.len() <= OutQueue::MAX_IDLE_CLASSES);
    }
}
