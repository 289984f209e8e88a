//! The process's own figures, under the names that every exporter of Prometheus uses. Read from `/proc`; where there is none, they are left out.

use std::fs;

/// Clock ticks per second in `/proc`: a constant of Linux's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads and sets them.
pub(super) fn sample() {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) {
        metrics::counter!("process_cpu_seconds_total").absolute(stat.cpu_seconds as u64);
        metrics::gauge!("process_threads").set(stat.threads);
        if let Some(booted) = boot_seconds() {
            metrics::gauge!("process_start_time_seconds").set(booted + stat.start_seconds);
        }
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_bytes(&text)) {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(open.count() as f64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(most) = limit.current {
        metrics::gauge!("process_max_fds").set(most as f64);
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// After the machine's start.
    start_seconds: f64,
}

impl Stat {
    /// The fields after the program's name, which may hold anything in its parentheses; see proc(5).
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        // Field 3 of the manual is the first after the name.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            start_seconds: field(22)? / TICKS_PER_SECOND,
        })
    }
}

/// The line `VmRSS` of `/proc/self/status`, which is in KiB.
fn resident_bytes(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// When the machine started, in seconds since 1970.
fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let text = "7 (a ) (b) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 9 0 4200 1000 512 18446744073709551615 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { cpu_seconds: 4.0, threads: 9.0, start_seconds: 42.0 });
        assert_eq!(Stat::parse("nothing"), None);
        let own = Stat::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(own.threads >= 1.0 && boot_seconds().is_some());
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    20 kB\n"), Some(20480.0));
        assert!(resident_bytes(&fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }
}
