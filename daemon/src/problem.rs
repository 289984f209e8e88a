//! What went wrong, as every surface tells it: a stable code, one sentence, a hint, an HTTP status and an exit code.

use crate::config::ConfigError;
use crate::folder::{CommandError, ErrorKind, FolderStopped};
use crate::identity::IdentityError;
use crate::relay::RelayError;
use serde_json::{Value, json};

/// Exit codes of the command line; the contract of `ferry help`.
pub mod exit {
    /// Success.
    pub const OK: u8 = 0;
    /// Any other failure.
    pub const FAILED: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// The daemon is not running, or its socket refused.
    pub const NO_DAEMON: u8 = 3;
    /// Login required, or forbidden.
    pub const LOGIN: u8 = 4;
    /// The relay or the network is not reachable.
    pub const UNREACHABLE: u8 = 5;
    /// Finished, but some items failed.
    pub const PARTIAL: u8 = 6;
    /// No such path, folder, conflict, device or version.
    pub const NOT_FOUND: u8 = 7;
    /// Conflict, failed precondition, or a confirmation is needed.
    pub const CONFLICT: u8 = 8;
    /// A temporary failure; trying again helps.
    pub const TEMPORARY: u8 = 75;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;
}

/// What went wrong. Nothing was half done unless the message says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What the user can do; may be empty.
    pub hint: String,
    /// For the control socket.
    pub http_status: u16,
    /// For the command line.
    pub exit_code: u8,
}

/// The usual result.
pub type Outcome<T> = Result<T, Problem>;

impl Problem {
    fn new(code: &str, http_status: u16, exit_code: u8, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: String::new(), http_status, exit_code }
    }

    /// Adds what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Replaces the code by a more exact one.
    pub fn code(mut self, code: &str) -> Self {
        self.code = code.into();
        self
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", 400, exit::USAGE, message)
    }

    /// There is no such thing.
    pub fn not_found(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, 404, exit::NOT_FOUND, message)
    }

    /// Not in this state.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, 409, exit::CONFLICT, message)
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new("forbidden", 403, exit::LOGIN, message)
    }

    /// There is no login.
    pub fn login_required() -> Self {
        Self::new("login_required", 401, exit::LOGIN, "this device is not logged in to a relay")
            .hint("log in with: ferry login --relay URL")
    }

    /// The relay refused the login.
    pub fn login_failed(message: impl Into<String>) -> Self {
        Self::new("login_failed", 401, exit::LOGIN, message)
    }

    /// The relay cannot be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new("relay_unreachable", 502, exit::UNREACHABLE, message)
            .hint("check the address and that the relay is running; Ferry tries again by itself")
    }

    /// Trying again helps.
    pub fn temporary(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, 503, exit::TEMPORARY, message)
    }

    /// The settings are wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new("config_invalid", 400, exit::FAILED, message).hint("fix it with: ferry config edit")
    }

    /// Nobody answers on the control socket.
    pub fn no_daemon() -> Self {
        Self::new("daemon_unreachable", 503, exit::NO_DAEMON, "the ferry daemon is not running")
            .hint("start it with: ferry service start      (or in this terminal: ferry daemon)")
    }

    /// Anything else.
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, 500, exit::FAILED, message)
    }

    /// The error object of the command line.
    pub fn to_json(&self) -> Value {
        json!({"type": "error", "code": self.code, "message": self.message, "hint": self.hint, "exit_code": self.exit_code})
    }

    /// Problem details (RFC 9457).
    pub fn to_details(&self) -> Value {
        json!({
            "type": "about:blank", "title": self.message, "status": self.http_status, "detail": self.message,
            "code": self.code, "hint": self.hint, "exit_code": self.exit_code,
        })
    }

    /// A problem from problem details; the daemon may be of another version, so nothing is taken for granted.
    pub fn from_details(http_status: u16, details: &Value) -> Self {
        let text = |name: &str| details[name].as_str().unwrap_or_default().to_owned();
        let exit_code = details["exit_code"].as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| *n != 0).unwrap_or(exit::FAILED);
        let mut message = text("detail");
        if message.is_empty() {
            message = format!("the daemon answered with status {http_status}");
        }
        let code = if text("code").is_empty() { "daemon_error".into() } else { text("code") };
        Self { code, message, hint: text("hint"), http_status, exit_code }
    }
}

impl From<CommandError> for Problem {
    fn from(e: CommandError) -> Self {
        let (http_status, exit_code) = match e.kind {
            ErrorKind::NotFound => (404, exit::NOT_FOUND),
            ErrorKind::Conflict => (409, exit::CONFLICT),
            ErrorKind::Forbidden => (403, exit::LOGIN),
            ErrorKind::Temporary => (503, exit::TEMPORARY),
            ErrorKind::Failed => (500, exit::FAILED),
        };
        Self { code: e.code.into(), message: e.message, hint: e.hint, http_status, exit_code }
    }
}

impl From<FolderStopped> for Problem {
    fn from(_: FolderStopped) -> Self {
        Self::temporary("folder_stopped", "the folder is being stopped").hint("try again when it runs")
    }
}

impl From<RelayError> for Problem {
    fn from(e: RelayError) -> Self {
        let (http_status, exit_code) = match &e {
            RelayError::Retry { after: Some(_), .. } => (503, exit::TEMPORARY),
            RelayError::Retry { after: None, .. } => (502, exit::UNREACHABLE),
            RelayError::LoginRequired { .. } | RelayError::Forbidden(_) => (403, exit::LOGIN),
            RelayError::NotFound(_) => (404, exit::NOT_FOUND),
            RelayError::Blocked(_) => (409, exit::CONFLICT),
            RelayError::PeerFault { .. } | RelayError::OverQuota(_) | RelayError::VersionMismatch { .. } => (502, exit::FAILED),
        };
        // Its text already says what to do.
        Self::new(e.code(), http_status, exit_code, e.to_string())
    }
}

impl From<crate::relay::url::UrlError> for Problem {
    fn from(e: crate::relay::url::UrlError) -> Self {
        let code = match e {
            crate::relay::url::UrlError::Malformed { .. } => "relay_url_invalid",
            crate::relay::url::UrlError::Insecure { .. } => "relay_url_insecure",
        };
        Self::usage(e.to_string()).code(code)
    }
}

impl From<IdentityError> for Problem {
    fn from(e: IdentityError) -> Self {
        Self::failed("device_identity", e.to_string())
    }
}

impl From<ConfigError> for Problem {
    fn from(e: ConfigError) -> Self {
        Self::config(e.message)
    }
}

impl From<std::io::Error> for Problem {
    fn from(e: std::io::Error) -> Self {
        let code = match e.kind() {
            std::io::ErrorKind::PermissionDenied => "permission_denied",
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "disk_full",
            std::io::ErrorKind::InvalidData => "state_damaged",
            _ => "io_error",
        };
        let problem = Self::failed(code, e.to_string());
        match code {
            "state_damaged" => {
                problem.hint("bring it back from a backup, or move it away and set this up again; no file of yours is in it")
            }
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_round_trip_and_foreign_ones_are_survived() {
        let problem = Problem::not_found("folder_not_found", "no folder is called x").hint("list them with: ferry folder list");
        assert_eq!(Problem::from_details(404, &problem.to_details()), problem);
        let foreign = Problem::from_details(418, &json!({"exit_code": 0, "detail": 7}));
        assert_eq!((foreign.exit_code, foreign.message.as_str()), (exit::FAILED, "the daemon answered with status 418"));
    }
}
