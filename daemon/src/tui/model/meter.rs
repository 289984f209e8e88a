//! Rates on the wire, from totals at moments.

use std::collections::VecDeque;

/// How many seconds the curves go back.
pub const HISTORY_S: usize = 240;
/// Below so many bytes per second it is only the keeping in touch.
pub const QUIET_BYTES_PER_S: f64 = 1000.0;

/// Bytes per second over the LAN and over the relay, now and in the last minutes.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    last: Option<(i64, [u64; 4])>,
    rates: [f64; 4],
    lan: VecDeque<u64>,
    relay: VecDeque<u64>,
}

impl Meter {
    /// The totals (LAN in, LAN out, relay in, relay out) at a moment in milliseconds. A total that has shrunk is that of a new daemon.
    pub fn look(&mut self, now_ms: i64, totals: [u64; 4]) {
        let Some((then_ms, before)) = self.last else {
            self.last = Some((now_ms, totals));
            return;
        };
        let passed_ms = now_ms.saturating_sub(then_ms);
        if passed_ms <= 0 {
            // No time has passed, or the clock was set back: then it is measured from here.
            if passed_ms < 0 {
                self.last = Some((now_ms, totals));
            }
            return;
        }
        self.last = Some((now_ms, totals));
        let moved = |i: usize| totals[i].saturating_sub(before[i]) as f64 * 1000.0 / passed_ms as f64;
        let new = [0, 1, 2, 3].map(moved);
        // Smoothed, so that the figures can be read; the curves are not.
        self.rates = [0, 1, 2, 3].map(|i: usize| if new[i] < 1.0 { 0.0 } else { (self.rates[i] + new[i]) / 2.0 });
        // One point a second; a longer time between two looks is as many points of its mean.
        let seconds = usize::try_from((passed_ms + 500) / 1000).unwrap_or(HISTORY_S).clamp(1, HISTORY_S);
        for _ in 0..seconds {
            self.lan.push_back((new[0] + new[1]) as u64);
            self.relay.push_back((new[2] + new[3]) as u64);
        }
        for curve in [&mut self.lan, &mut self.relay] {
            curve.drain(..curve.len().saturating_sub(HISTORY_S));
        }
    }

    /// Bytes per second: LAN in, LAN out, relay in, relay out.
    pub fn rates(&self) -> [u64; 4] {
        self.rates.map(|rate| rate as u64)
    }

    /// Whether more moves than the keeping in touch.
    pub fn is_busy(&self) -> bool {
        self.rates.iter().sum::<f64>() >= QUIET_BYTES_PER_S
    }

    /// Bytes per second over the LAN, second by second, the newest last, as many as `count`.
    pub fn lan(&self, count: usize) -> Vec<u64> {
        newest(&self.lan, count)
    }

    /// Like [`Meter::lan`], for the relay.
    pub fn relay(&self, count: usize) -> Vec<u64> {
        newest(&self.relay, count)
    }
}

/// The newest points behind as many zeros as are missing.
fn newest(curve: &VecDeque<u64>, count: usize) -> Vec<u64> {
    let there = curve.len().min(count);
    let zeros = std::iter::repeat_n(0, count - there);
    zeros.chain(curve.iter().skip(curve.len() - there).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_and_go_and_a_new_daemon_is_no_flood() {
        let mut meter = Meter::default();
        meter.look(1000, [0, 0, 5_000_000, 0]);
        assert_eq!(meter.rates(), [0; 4], "what was before is not a rate");
        meter.look(2000, [4_000_000, 0, 5_000_000, 0]);
        meter.look(3000, [8_000_000, 0, 5_000_000, 0]);
        assert_eq!(meter.rates(), [3_000_000, 0, 0, 0]);
        assert!(meter.is_busy());
        assert_eq!(meter.lan(4), [0, 0, 4_000_000, 4_000_000]);
        meter.look(4000, [0; 4]);
        assert_eq!(meter.rates(), [0; 4]);
        assert!(!meter.is_busy());
        meter.look(14_000, [0, 0, 0, 10_000]);
        assert_eq!(meter.relay(10), [1000; 10], "ten seconds are ten points");
        meter.look(14_000, [9, 9, 9, 9]);
        assert_eq!(meter.relay(1), [1000], "no time has passed");
        meter.look(i64::MAX, [0; 4]);
        assert_eq!(meter.lan(2 * HISTORY_S).len(), 2 * HISTORY_S);
    }
}
