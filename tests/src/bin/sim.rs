//! Runs seeds of the simulated world: `sim --seeds N --from S [--lan | --merging | --unsynced] [--verbose]`. Prints each seed that fails and the command that repeats it.

use ferry_tests::sim::world::{Options, run};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut count, mut from, mut verbose) = (100, 0, false);
    let mut kind: fn(u64) -> Options = Options::of;
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
        match argument.as_str() {
            "--seeds" => count = number(),
            "--from" => from = number(),
            "--verbose" => verbose = true,
            "--lan" => kind = Options::lan_of,
            "--merging" => kind = Options::merging_of,
            "--unsynced" => kind = Options::unsynced_of,
            other => panic!("unknown argument {other}; use --seeds N --from S --lan --merging --unsynced --verbose"),
        }
    }
    let (mut failed, mut merged) = (Vec::new(), 0);
    for seed in from..from + count {
        let options = Options { verbose, ..kind(seed) };
        if count == 1 {
            println!("{options:?}");
        }
        match std::panic::catch_unwind(|| run(&options)) {
            Ok(report) if count == 1 => println!("{report:?}"),
            Ok(report) => merged += report.merged,
            Err(_) => {
                println!("seed {seed} failed; repeat: {}", options.command());
                failed.push(seed);
            }
        }
    }
    println!("{count} seeds from {from}, {merged} merges, {} failed: {failed:?}", failed.len());
    std::process::exit(i32::from(!failed.is_empty()));
}
