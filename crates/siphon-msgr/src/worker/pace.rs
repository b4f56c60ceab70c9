//! In how many rounds a worker does what came at once.

use std::time::Instant;

/// The fewest messages of a round.
const MIN_ROUND: usize = 8;
/// The most rounds of a turn that has no more messages than those before.
const MAX_ROUNDS: usize = 4;
/// By which part of itself a round shrinks after a turn that was waited for, and grows after another.
const SHRINK: usize = 2;
const GROW: usize = 8;
/// By which part of itself the most that a turn had is forgotten with each turn.
const FORGET: usize = 64;

/// Of how many messages the application is told before what it does about them is sent.
///
/// One who does all of a turn first, and sends then, lets the peer wait until the last is done; the peer then does
/// the same. So with a fixed number of requests under way the two work in turn, and each sleeps while the
/// other works. Rounds let them work at the same time; each costs a system call, and often the peer a wakeup.
/// They are worth that only to a worker that has time to spare: it makes its rounds shorter while it has to
/// wait for something to do, and longer while it has not.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Messages of a round.
    round: usize,
    /// Those that are left of this one.
    left: usize,
    /// When this turn began, which tells it from others; whether the worker waited for it; its messages.
    began: Option<Instant>,
    waited: bool,
    turn: usize,
    /// The most messages of a turn, by which it is known what is much; forgotten slowly.
    peak: usize,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { round: MIN_ROUND, left: 0, began: None, waited: true, turn: 0, peak: 0 }
    }

    /// A round begins, in the turn that began at `now`, for which the worker `waited` or not.
    pub(crate) fn begin_round(&mut self, now: Instant, waited: bool) {
        if self.began != Some(now) {
            self.end_turn();
            (self.began, self.waited) = (Some(now), waited);
        }
        // What is beyond all turns before is done at once: a turn does not last for ever.
        let is_short = self.round < self.peak && self.turn < self.peak;
        self.left = if is_short { self.round } else { usize::MAX };
    }

    /// What is left of this round is done at once.
    pub(crate) fn end_rounds(&mut self) {
        self.left = usize::MAX;
    }

    /// Whether the application may be told of something in this round.
    pub(crate) fn goes_on(&self) -> bool {
        self.left > 0
    }

    /// The application is told of a message.
    pub(crate) fn count(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.turn += 1;
    }

    /// Learns from a turn that had messages.
    fn end_turn(&mut self) {
        let turn = std::mem::take(&mut self.turn);
        if turn == 0 {
            return;
        }
        self.peak = turn.max(self.peak - self.peak.div_ceil(FORGET));
        let least = (self.peak / MAX_ROUNDS).max(MIN_ROUND);
        self.round = match self.waited {
            true => self.round - self.round / SHRINK,
            false => self.round + self.round.div_ceil(GROW),
        };
        self.round = self.round.clamp(least, self.peak.max(least));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Turns at times of their own.
    struct Turns {
        pace: Pace,
        now: Instant,
    }

    impl Turns {
        fn new() -> Self {
            #[expect(clippy::disallowed_methods, reason = "any time does")]
            let now = Instant::now();
            Self { pace: Pace::new(), now }
        }

        /// The rounds of a turn with so many messages.
        fn turn(&mut self, waited: bool, messages: usize) -> Vec<usize> {
            self.now += Duration::from_micros(1);
            let mut rounds = Vec::new();
            let mut left = messages;
            loop {
                self.pace.begin_round(self.now, waited);
                let before = left;
                while left > 0 && self.pace.goes_on() {
                    self.pace.count();
                    left -= 1;
                }
                if before == left {
                    return rounds;
                }
                rounds.push(before - left);
            }
        }
    }

    #[test]
    fn one_who_waits_works_in_rounds_and_one_who_does_not_in_one() {
        let mut turns = Turns::new();
        turns.turn(true, 128);
        assert_eq!(turns.turn(true, 128), [32; 4]);
        assert_eq!(turns.turn(true, 128), [32; 4], "no more than are useful");
        let rounds: Vec<usize> = (0..20).map(|_| turns.turn(false, 128).len()).collect();
        assert!(rounds.is_sorted_by(|before, after| before >= after), "{rounds:?}");
        assert_eq!(rounds.last(), Some(&1));
        turns.turn(true, 128);
        assert_eq!(turns.turn(true, 128), [64, 64], "by halves");
    }

    #[test]
    fn turns_without_messages_teach_nothing() {
        let mut turns = Turns::new();
        turns.turn(true, 128);
        for waited in [false; 100] {
            assert!(turns.turn(waited, 0).is_empty());
        }
        assert_eq!(turns.turn(true, 128), [32; 4]);
    }

    #[test]
    fn a_few_messages_are_one_round() {
        let mut turns = Turns::new();
        for messages in (1..=MIN_ROUND).chain([1; 500]) {
            assert_eq!(turns.turn(true, messages), [messages]);
        }
    }

    #[test]
    fn what_is_beyond_all_before_is_done_at_once_and_what_is_much_is_forgotten() {
        let mut turns = Turns::new();
        turns.turn(true, 64);
        assert_eq!(turns.turn(true, 1000), [16, 16, 16, 16, 936]);
        for _ in 0..1000 {
            turns.turn(true, 16);
        }
        assert_eq!(turns.turn(true, 16), [8, 8]);
    }
}
