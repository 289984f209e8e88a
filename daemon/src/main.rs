//! The `ferry` program.

fn main() -> std::process::ExitCode {
    ferry_daemon::cli::run(std::env::args_os())
}
