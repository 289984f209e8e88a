//! Telling systemd: ready, what we are doing, alive, reloading, stopping. Without systemd every call does nothing.

use sd_notify::NotifyState;
use std::time::Duration;

/// The connection to the service manager.
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
    status: String,
}

impl Notifier {
    /// Looks at the environment once.
    pub fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), status: String::new() }
    }

    /// How often [`Notifier::alive`] must be called at least.
    pub fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 3)
    }

    /// The socket is bound, the settings are valid, the folders run.
    pub fn ready(&mut self, status: &str) {
        self.status = status.into();
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Still going round; and what we are doing, if that changed. To be called from the main loop only, so that a stuck loop is noticed.
    pub fn alive(&mut self, status: &str) {
        if self.watchdog.is_some() {
            send(&[NotifyState::Watchdog]);
        }
        if self.status != status {
            self.status = status.into();
            send(&[NotifyState::Status(status)]);
        }
    }

    /// The settings are being read again; [`Notifier::ready`] follows.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(_) => send(&[NotifyState::Reloading]),
        }
    }

    /// On the way out.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}

fn send(state: &[NotifyState<'_>]) {
    // The service manager may have gone away; there is nobody else to tell.
    let _ = sd_notify::notify(state);
}
