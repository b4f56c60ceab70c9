//! A run follows from its plan alone.

use siphon_sim::explore::{Plan, run};

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let mut before = None;
    for seed in 0..20 {
        let plan = Plan::new(seed);
        let [first, again] = [run(&plan).unwrap(), run(&plan).unwrap()];
        assert_eq!(first, again, "{plan}");
        assert_ne!(Some(first), before, "{plan}");
        before = Some(first);
    }
}
