//! Finds the least that still fails.

use crate::explore::{Failure, Kind, Plan, run};

/// Most runs that are spent on it.
const MAX_RUNS: u32 = 200;

/// A smaller plan that fails as well, and how. The given one must fail.
pub fn shrink(plan: &Plan, failure: Box<Failure>) -> (Plan, Box<Failure>) {
    let mut best = (plan.clone(), failure);
    let mut runs = 0;
    let mut attempt = |plan: Plan, best: &mut (Plan, Box<Failure>)| {
        runs += 1;
        if runs > MAX_RUNS {
            return false;
        }
        match run(&plan) {
            Err(failure) => {
                *best = (plan, failure);
                true
            }
            Ok(_) => false,
        }
    };
    // Without a kind of fault all else changes too: what fails then is another run, and a smaller.
    for kind in Kind::ALL {
        let mut plan = best.0.clone();
        if plan.without.insert(*kind) {
            attempt(plan, &mut best);
        }
    }
    let mut cut = best.0.steps / 2;
    while cut > 0 {
        let steps = best.0.steps.saturating_sub(cut);
        if !attempt(Plan { steps, ..best.0.clone() }, &mut best) {
            cut /= 2;
        }
    }
    best
}
