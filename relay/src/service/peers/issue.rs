//! When a grant is the one from before, and which epoch and time a new one gets (G2, G3).

use crate::store::peers::Issued;
use ferry_protocol::grant::Member;
use sha2::{Digest, Sha256};

/// How far ahead of the clock an epoch may be that a device claims to know, in milliseconds: no member can use the numbers up.
const AHEAD_MAX_MS: u64 = 24 * 3600 * 1000;
/// How far ahead the clock of another process of this relay may be, in milliseconds.
const SKEW_MS: i64 = 5 * 60_000;

/// What decides beside the members.
pub(super) struct Terms {
    /// The highest epoch that the asking device knows; 0 is none.
    pub known: u64,
    /// In milliseconds since 1970.
    pub now_ms: i64,
    /// In milliseconds.
    pub renew_after_ms: i64,
}

impl Terms {
    /// What is issued now.
    pub(super) fn next(&self, before: Option<&Issued>, members: &[Member]) -> Issued {
        let digest = digest(members);
        let last = before.map_or(0, |b| b.epoch);
        let believable = self.known <= self.now().saturating_add(AHEAD_MAX_MS);
        // A device knows more than this database: it was restored, and the epochs of its lost life are not used again.
        let lost = believable && self.known > last;
        match before {
            // One that was issued in the future would live too long.
            Some(before) if before.digest == digest && !lost && before.issued_at_ms <= self.now_ms.saturating_add(SKEW_MS) => {
                let is_old = self.now_ms.saturating_sub(before.issued_at_ms) >= self.renew_after_ms;
                Issued { issued_at_ms: if is_old { self.now_ms } else { before.issued_at_ms }, ..before.clone() }
            }
            _ => {
                let beyond = if lost { self.known.max(last) } else { last };
                Issued { epoch: beyond.saturating_add(1).max(self.now()), digest, issued_at_ms: self.now_ms }
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.now_ms).unwrap_or(0)
    }
}

fn digest(members: &[Member]) -> [u8; 32] {
    // Only a serialiser that reports its own failure can fail here; a member has none.
    Sha256::digest(postcard::to_allocvec(members).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::wire::Role;
    use ferry_protocol::{DeviceId, UserId};

    const NOW: i64 = 1_800_000_000_000;
    const RENEW: i64 = 3_600_000;

    fn members(devices: &[u8]) -> Vec<Member> {
        let member = |n: &u8| Member {
            device: DeviceId::from_bytes([*n; 16]),
            user: UserId::from_bytes([1; 16]),
            role: Role::Editor,
            name: "x".into(),
        };
        devices.iter().map(member).collect()
    }

    fn at(now_ms: i64, known: u64) -> Terms {
        Terms { known, now_ms, renew_after_ms: RENEW }
    }

    #[test]
    fn the_first_epoch_is_the_time() {
        let first = at(NOW, 0).next(None, &members(&[1]));
        assert_eq!((first.epoch, first.issued_at_ms), (NOW as u64, NOW));
    }

    #[test]
    fn while_nothing_changes_the_grant_is_the_same_until_it_is_renewed() {
        let first = at(NOW, 0).next(None, &members(&[1]));
        assert_eq!(at(NOW + RENEW - 1, first.epoch).next(Some(&first), &members(&[1])), first);
        let renewed = at(NOW + RENEW, 0).next(Some(&first), &members(&[1]));
        assert_eq!((renewed.epoch, renewed.issued_at_ms), (first.epoch, NOW + RENEW));
        assert_eq!(at(NOW - SKEW_MS, 0).next(Some(&first), &members(&[1])), first, "another process, a little behind");
    }

    #[test]
    fn each_change_of_a_member_raises_the_epoch() {
        let mut last = at(NOW, 0).next(None, &members(&[1]));
        let mut viewer = members(&[1, 2]);
        viewer[1].role = Role::Viewer;
        let mut renamed = viewer.clone();
        renamed[0].name = "y".into();
        for list in [members(&[1, 2]), viewer, renamed, members(&[2]), members(&[1])] {
            let next = at(NOW, 0).next(Some(&last), &list);
            assert!(next.epoch > last.epoch);
            last = next;
        }
    }

    #[test]
    fn a_clock_that_was_set_back_lowers_nothing() {
        let first = at(NOW, 0).next(None, &members(&[1]));
        let earlier = NOW - 365 * 24 * 3_600_000;
        assert_eq!(at(earlier, 0).next(Some(&first), &members(&[1, 2])).epoch, first.epoch + 1);
        let reissued = at(earlier, 0).next(Some(&first), &members(&[1]));
        assert_eq!(
            (reissued.epoch, reissued.issued_at_ms),
            (first.epoch + 1, earlier),
            "what was issued in the future would live too long"
        );
    }

    #[test]
    fn a_restored_relay_goes_above_what_a_device_has_seen() {
        let restored = at(NOW, 0).next(None, &members(&[1]));
        let seen = restored.epoch + 5;
        let next = at(NOW, seen).next(Some(&restored), &members(&[1]));
        assert_eq!(next.epoch, seen + 1);
        assert_eq!(at(NOW, seen + 1).next(Some(&next), &members(&[1])), next, "and stays there");
        assert_eq!(at(NOW, 7).next(None, &members(&[1])).epoch, NOW as u64);
    }

    #[test]
    fn nobody_can_use_the_epochs_up() {
        let first = at(NOW, 0).next(None, &members(&[1]));
        for claimed in [u64::MAX, NOW as u64 + AHEAD_MAX_MS + 1] {
            assert_eq!(at(NOW, claimed).next(Some(&first), &members(&[1])), first, "{claimed}");
        }
        let most = at(NOW, NOW as u64 + AHEAD_MAX_MS).next(Some(&first), &members(&[1]));
        assert_eq!(most.epoch, NOW as u64 + AHEAD_MAX_MS + 1);
        assert_eq!(at(NOW, most.epoch).next(Some(&most), &members(&[1])), most);
    }
}
