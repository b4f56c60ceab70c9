//! What the rounds gave.

use siphon_perf::Measurement;

use crate::operator::Done;

/// A round with commands.
pub(crate) struct Round {
    pub(crate) measured: Measurement,
    pub(crate) done: Done,
    /// Seconds of the processor time of the thread that answers.
    pub(crate) answering: f64,
}

/// Rounds without and with commands, in turn; the first and the last without.
#[derive(Default)]
pub(crate) struct Figures {
    quiet: Vec<Measurement>,
    operated: Vec<Round>,
}

impl Figures {
    pub(crate) fn add_quiet(&mut self, measured: Measurement) {
        self.quiet.push(measured);
    }

    pub(crate) fn add_operated(&mut self, round: Round) {
        self.operated.push(round);
    }

    /// Operations of all rounds.
    pub(crate) fn operations(&self) -> u64 {
        let operated = self.operated.iter().map(|round| &round.measured);
        self.quiet.iter().chain(operated).map(|it| it.operations).sum()
    }

    pub(crate) fn print(&self, only: &Option<String>) {
        let (mut quiet, mut operated) = (Measurement::new(), Measurement::new());
        self.quiet.iter().for_each(|round| quiet.add(round));
        self.operated.iter().for_each(|round| operated.add(&round.measured));
        let commands: u64 = self.operated.iter().map(|round| round.done.commands).sum();
        let seconds = operated.elapsed.as_secs_f64();
        let asking: f64 = self.operated.iter().map(|round| round.done.cpu).sum();
        // A round is held against those before and after it.
        let mut costs: Vec<f64> = self
            .operated
            .iter()
            .zip(self.quiet.windows(2))
            .map(|(round, around)| {
                let alone = (around[0].rate() + around[1].rate()) / 2.0;
                100.0 * (1.0 - round.measured.rate() / alone)
            })
            .collect();
        costs.sort_by(f64::total_cmp);
        let answering: f64 = self.operated.iter().map(|round| round.answering).sum();
        let cpu = |it: &Measurement| it.cpu.total().as_secs_f64();
        let per_op = |it: &Measurement| cpu(it) * 1e6 / it.operations.max(1) as f64;
        let each = 1e6 / commands.max(1) as f64;
        let what = only.as_deref().unwrap_or("commands");
        println!("{commands} {what} in {seconds:.1} s, {:.0} a second", commands as f64 / seconds);
        println!(
            "rate: {:.0} op/s, without them {:.0}; of {} rounds the cost is {:.2} % in the middle, {:.2} % \
             in sum",
            operated.rate(),
            quiet.rate(),
            costs.len(),
            costs.get(costs.len() / 2).copied().unwrap_or_default(),
            100.0 * (1.0 - operated.rate() / quiet.rate()),
        );
        println!(
            "processor time of an operation: {:.3} us, without them {:.3} us",
            per_op(&operated),
            per_op(&quiet)
        );
        println!(
            "processor time of a command: {:.1} us of who asks, {:.1} us of the thread that answers; of all \
             that was used {:.2} % and {:.2} %",
            asking * each,
            answering * each,
            100.0 * asking / (cpu(&operated) + asking),
            100.0 * answering / (cpu(&operated) + asking),
        );
    }
}
