//! The simulated world: 1,500 seeds, the seeds that failed once, and that the same seed is the same run. A failure names its seed.

use ferry_tests::sim::world::{Options, kept_seeds, run};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn failed(seeds: impl IntoIterator<Item = u64>) -> Vec<String> {
    let runs = seeds.into_iter().map(Options::of);
    runs.filter(|options| catch_unwind(AssertUnwindSafe(|| run(options))).is_err()).map(|options| options.command()).collect()
}

#[test]
fn every_seed_ends_well() {
    assert_eq!(failed(0..1500), Vec::<String>::new(), "repeat with these commands");
}

#[test]
fn seeds_that_failed_once_end_well() {
    assert_eq!(failed(kept_seeds()), Vec::<String>::new(), "repeat with these commands");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 7, 21, 30] {
        let options = Options::of(seed);
        assert_eq!(run(&options), run(&options), "seed {seed}");
    }
}
