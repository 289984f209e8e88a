//! The brake: deletes of very much at once wait for a person (I3, E10).
//!
//! More than 100 items and more than 30 %, or everything: held until `ferry folder approve`. Deletes trickle in while a directory is being
//! removed, so those of the last half minute count together.

use crate::policy::Policy;
use std::collections::VecDeque;

/// What was deleted lately, and whether deletes are held.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    recent: VecDeque<(u64, u64)>,
    held: Option<(u64, u64)>,
}

impl Brake {
    /// Whether deleting `count` of `total` items now must wait for a person. `total` counts the items before.
    pub fn must_hold(&mut self, policy: &Policy, now_ms: u64, count: u64, total: u64) -> bool {
        while self.recent.front().is_some_and(|(at, _)| at + policy.brake_window_ms < now_ms) {
            self.recent.pop_front();
        }
        let before: u64 = self.recent.iter().map(|(_, n)| n).sum();
        let (deleted, all) = (before + count, before + total);
        let many = deleted > policy.brake_items && deleted * 100 > all * policy.brake_percent;
        // A folder of one item is not worth a question.
        let everything = count == total && all >= 2;
        many || everything
    }

    /// Notes that so many items were deleted.
    pub fn passed(&mut self, now_ms: u64, count: u64) {
        self.recent.push_back((now_ms, count));
        self.held = None;
    }

    /// Holds so many of so many. Whether that is news.
    pub fn hold(&mut self, count: u64, total: u64) -> bool {
        self.held.replace((count, total)) != Some((count, total))
    }

    /// Lets go.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// Whether deletes are held.
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// How many of how many are held.
    pub fn held(&self) -> Option<(u64, u64)> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(count: u64, total: u64) -> bool {
        Brake::default().must_hold(&Policy::default(), 0, count, total)
    }

    #[test]
    fn thresholds() {
        assert!(!asks(1, 1), "the only item");
        assert!(asks(2, 2), "everything");
        assert!(!asks(100, 200), "many in share, few in number");
        assert!(asks(101, 200));
        assert!(!asks(290, 1000), "29 % (K25)");
        assert!(asks(310, 1000), "31 % (K25)");
    }

    #[test]
    fn a_trickle_counts_together() {
        let (policy, mut brake) = (Policy::default(), Brake::default());
        let mut held = false;
        for step in 0..20 {
            if brake.must_hold(&policy, step * 100, 20, 1000 - step * 20) {
                held = true;
                break;
            }
            brake.passed(step * 100, 20);
        }
        assert!(held);
        let mut slow = Brake::default();
        for step in 0..20 {
            assert!(!slow.must_hold(&policy, step * 60_000, 20, 1000 - step * 20));
            slow.passed(step * 60_000, 20);
        }
    }
}
