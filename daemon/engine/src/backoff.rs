//! Patience: what could not be done is tried again after a growing pause.

use crate::disk::Obstacle;
use crate::policy::Policy;
use ferry_protocol::RelPath;

/// A node that something stands in the way of.
#[derive(Debug, Clone)]
pub(crate) struct Blocked {
    /// Where: under which path the issue is told.
    pub path: RelPath,
    /// What.
    pub obstacle: Obstacle,
    /// When it is tried again, in the engine's milliseconds.
    pub until_ms: u64,
    /// How often it was tried.
    pub tries: u32,
}

/// The pause after so many tries, in milliseconds: doubled each time, between the policy's bounds.
pub(crate) fn pause_ms(policy: &Policy, tries: u32) -> u64 {
    policy.retry_min_ms.saturating_mul(1u64 << tries.min(16)).min(policy.retry_max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let policy = Policy::default();
        let pauses: Vec<u64> = (0..40).map(|t| pause_ms(&policy, t)).collect();
        assert!(pauses.is_sorted() && pauses[0] == policy.retry_min_ms && pauses[39] == policy.retry_max_ms);
    }
}
