//! `ferry-relay`: the relay as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferry_relay::cli::main()
}
