//! In how many rounds a worker does what came at once.

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
    /// Messages of this turn.
    turn: usize,
    /// The most messages of a turn, by which it is known what is much; forgotten slowly.
    peak: usize,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { round: MIN_ROUND, left: 0, turn: 0, peak: 0 }
    }

    /// A round begins. If it is the first of its turn, the worker `waited` for that or not.
    pub(crate) fn begin_round(&mut self, waited: bool) {
        let least = (self.peak / MAX_ROUNDS).max(MIN_ROUND);
        if self.turn == 0 {
            self.round = match waited {
                true => self.round - self.round / SHRINK,
                false => self.round + self.round.div_ceil(GROW),
            };
            self.round = self.round.clamp(least, self.peak.max(least));
        }
        self.left = if self.round < self.peak { self.round } else { usize::MAX };
    }

    /// Whether the application may be told of something in this round.
    pub(crate) fn goes_on(&self) -> bool {
        self.left > 0
    }

    /// The application is told of a message.
    pub(crate) fn count(&mut self) {
        self.left -= 1;
        self.turn += 1;
    }

    /// All of a turn is done.
    pub(crate) fn end_turn(&mut self) {
        let turn = std::mem::take(&mut self.turn);
        if turn > 0 {
            self.peak = turn.max(self.peak - self.peak.div_ceil(FORGET));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rounds of a turn with so many messages.
    fn turn(pace: &mut Pace, waited: bool, messages: usize) -> Vec<usize> {
        let mut rounds = Vec::new();
        let mut left = messages;
        while left > 0 {
            pace.begin_round(waited);
            let before = left;
            while left > 0 && pace.goes_on() {
                pace.count();
                left -= 1;
            }
            rounds.push(before - left);
        }
        pace.end_turn();
        rounds
    }

    #[test]
    fn one_who_waits_works_in_rounds_and_one_who_does_not_in_one() {
        let mut pace = Pace::new();
        turn(&mut pace, true, 128);
        assert_eq!(turn(&mut pace, true, 128), [32; 4]);
        assert_eq!(turn(&mut pace, true, 128), [32; 4], "no more than are useful");
        let rounds: Vec<usize> = (0..20).map(|_| turn(&mut pace, false, 128).len()).collect();
        assert!(rounds.is_sorted_by(|before, after| before >= after), "{rounds:?}");
        assert_eq!(rounds.last(), Some(&1));
        assert_eq!(turn(&mut pace, true, 128), [64, 64]);
    }

    #[test]
    fn a_few_messages_are_one_round() {
        let mut pace = Pace::new();
        for messages in (1..=MIN_ROUND).chain([1; 500]) {
            assert_eq!(turn(&mut pace, true, messages), [messages]);
        }
    }

    #[test]
    fn what_is_much_is_forgotten() {
        let mut pace = Pace::new();
        turn(&mut pace, true, 10_000);
        assert_eq!(turn(&mut pace, true, 1000), [1000], "less than one round of those before");
        for _ in 0..1000 {
            turn(&mut pace, true, 16);
        }
        assert_eq!(turn(&mut pace, true, 16), [8, 8]);
    }
}
