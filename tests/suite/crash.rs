//! The simulated world: 1,500 seeds, 600 with a LAN, 160 in which texts are merged, 600 on disks that fail to make durable what is written, the seeds
//! that failed once, and that the same seed is the same run. A failure names its seed.

use ferry_tests::sim::world::{Options, kept_seeds, run};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn failed(seeds: impl IntoIterator<Item = u64>, options: fn(u64) -> Options) -> Vec<String> {
    let runs = seeds.into_iter().map(options);
    runs.filter(|options| catch_unwind(AssertUnwindSafe(|| run(options))).is_err()).map(|options| options.command()).collect()
}

#[test]
fn every_seed_ends_well() {
    assert_eq!(failed(0..1500, Options::of), Vec::<String>::new(), "repeat with these commands");
}

#[test]
fn seeds_that_failed_once_end_well() {
    assert_eq!(failed(kept_seeds("failed_once.txt"), Options::of), Vec::<String>::new(), "repeat with these commands");
}

#[test]
fn every_seed_with_a_lan_ends_well() {
    assert_eq!(failed(0..600, Options::lan_of), Vec::<String>::new(), "repeat with these commands");
}

/// K11, K28: disks lose what is not durable, and cannot always make it so.
#[test]
fn every_seed_on_disks_that_fail_to_sync_ends_well() {
    assert_eq!(failed(0..600, Options::unsynced_of), Vec::<String>::new(), "repeat with these commands");
}

#[test]
fn seeds_with_a_lan_that_failed_once_end_well() {
    assert_eq!(failed(kept_seeds("failed_once_lan.txt"), Options::lan_of), Vec::<String>::new(), "repeat with these commands");
}

/// Some of the devices merge texts, others do not. These runs are long: two must write one text before they have heard each other.
#[test]
fn every_seed_with_merges_ends_well() {
    let (mut failed, mut merged) = (Vec::new(), 0);
    for options in (0..160).map(Options::merging_of) {
        match catch_unwind(AssertUnwindSafe(|| run(&options))) {
            Ok(report) => merged += report.merged,
            Err(_) => failed.push(options.command()),
        }
    }
    assert_eq!(failed, Vec::<String>::new(), "repeat with these commands");
    assert!(merged >= 40, "only {merged} texts were merged in so many runs");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for options in
        [3, 7, 21, 30].map(Options::of).into_iter().chain([3, 7, 21, 30].map(Options::lan_of)).chain([3, 6].map(Options::merging_of))
    {
        assert_eq!(run(&options), run(&options), "{}", options.command());
    }
}
