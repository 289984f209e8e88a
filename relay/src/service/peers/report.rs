//! What devices say of themselves, for their users: what they run, and how much came to them over the LAN and from the relay.

use super::Peers;
use crate::service::{Caller, ServiceError, ServiceResult};
use crate::store::peers::{DeviceNow, KeptReport, Report};

/// A report that only counts on is stored so often, in milliseconds.
const REPEAT_MS: i64 = 60_000;
/// Longest word for a system or a version.
const WORD_MAX: usize = 64;

/// What is kept once a device says this. A daemon counts from its start, so a new run begins at zero, and what the run before it had counts as earlier.
fn added(before: Option<&KeptReport>, now: Report, now_ms: i64) -> KeptReport {
    let earlier = match before {
        None => (0, 0),
        Some(before) if before.report.run_at_ms == now.run_at_ms => (before.earlier_lan_bytes, before.earlier_relay_bytes),
        Some(before) => (before.lan_bytes(), before.relay_bytes()),
    };
    KeptReport { report: now, earlier_lan_bytes: earlier.0, earlier_relay_bytes: earlier.1, reported_at_ms: now_ms }
}

/// A word as it is shown: nothing where it is none.
fn word(text: String) -> String {
    if text.chars().count() > WORD_MAX || text.chars().any(char::is_control) { String::new() } else { text }
}

impl Peers {
    /// Takes what a device says of itself. Again changes nothing.
    pub async fn take_report(&self, caller: &Caller, report: Report) -> ServiceResult<()> {
        let device_id = caller.device_id.ok_or_else(ServiceError::unauthenticated)?;
        let report = Report { system: word(report.system), version: word(report.version), ..report };
        let before = self.store.report(device_id).await?;
        let now_ms = self.clock.now_ms();
        let is_news = before.as_ref().is_none_or(|b| {
            let is_same_run =
                (b.report.run_at_ms, &b.report.system, &b.report.version) == (report.run_at_ms, &report.system, &report.version);
            !is_same_run || (b.report != report && !(0..REPEAT_MS).contains(&(now_ms - b.reported_at_ms)))
        });
        if is_news {
            self.store.put_report(device_id, &added(before.as_ref(), report, now_ms)).await?;
        }
        Ok(())
    }

    /// What the caller's devices said of themselves.
    pub async fn reports(&self, caller: &Caller) -> ServiceResult<Vec<DeviceNow>> {
        Ok(self.store.reports(caller.user_id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(run_at_ms: i64, lan_bytes: u64) -> Report {
        Report { run_at_ms, lan_bytes, relay_bytes: lan_bytes / 2, system: "Linux".into(), version: "1".into() }
    }

    #[test]
    fn what_a_device_received_adds_up_over_its_runs() {
        let first = added(None, report(1, 100), 10);
        let later = added(Some(&first), report(1, 250), 20);
        assert_eq!((later.lan_bytes(), later.relay_bytes()), (250, 125));
        let restarted = added(Some(&later), report(2, 5), 30);
        assert_eq!((restarted.lan_bytes(), restarted.relay_bytes()), (255, 127));
        assert_eq!(added(Some(&restarted), report(2, 5), 40).lan_bytes(), 255, "told twice");
        assert_eq!(added(Some(&restarted), report(3, u64::MAX), 40).lan_bytes(), u64::MAX);
    }

    #[test]
    fn words_are_short_and_plain() {
        assert_eq!(word("Linux 6.1 x86_64".into()), "Linux 6.1 x86_64");
        assert_eq!(word("a\u{1b}[31m".into()), "");
        assert_eq!(word("x".repeat(65)), "");
    }
}
