//! What can go wrong between a device and its relay, sorted by what the caller does next.

use reqwest::StatusCode;
use serde::Deserialize;
use std::time::Duration;

/// The relay's own words about a request that it did not do (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// A stable word for programs.
    pub code: String,
    /// One sentence for people.
    pub detail: String,
    /// What to do, when the relay knows.
    pub hint: Option<Box<str>>,
    /// The relay's current epoch, when a cursor of another epoch was used.
    pub epoch: Option<Box<str>>,
    /// With it the second step of a login goes on.
    pub mfa_token: Option<Box<str>>,
    /// The nodes that were refused, when they are why the whole was.
    pub nodes: Box<[String]>,
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
}

impl Problem {
    fn sentence(&self) -> String {
        let detail =
            if self.detail.is_empty() { format!("The relay answered {} {}.", self.status, self.code) } else { self.detail.clone() };
        match &self.hint {
            Some(hint) => format!("{detail} {hint}"),
            None => detail,
        }
    }
}

/// An error of the relay client. Its text is one sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// Try again later, with back-off; nothing is lost (P28). Also for captive portals: what answered was not the relay (P10).
    #[error("{reason}")]
    Retry {
        /// Not before this, when the relay said so.
        after: Option<Duration>,
        /// What happened, and what a person can do if it stays.
        reason: String,
    },
    /// The relay no longer takes this device's tokens.
    #[error("{reason} Run 'ferry login' on this device.")]
    LoginRequired {
        /// The relay's words.
        reason: String,
    },
    /// This user or device may not do that; asking again does not help.
    #[error("{}", .0.sentence())]
    Forbidden(Problem),
    /// It is not there, or not for this user.
    #[error("{}", .0.sentence())]
    NotFound(Problem),
    /// The relay refuses the request as it is; repeating it does not help.
    #[error("{}", .0.sentence())]
    Blocked(Problem),
    /// The relay sent what cannot be right: wrong bytes for a hash, a body that is not what its type says (I5).
    #[error("The relay sent wrong data ({detail}); nothing of it was used. Its operator should run 'ferry-relay storage verify'.")]
    PeerFault {
        /// What was wrong.
        detail: String,
    },
    /// The user's storage on the relay is full.
    #[error("{} Free space by emptying the trash or deleting versions, or ask the relay's operator for more.", .0.sentence())]
    OverQuota(Problem),
    /// One of the two sides is too old.
    #[error("{detail}")]
    VersionMismatch {
        /// Which, and what to do.
        detail: String,
    },
}

impl RelayError {
    /// Something passed in between; try again.
    pub(crate) fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }

    pub(crate) fn peer_fault(detail: impl Into<String>) -> Self {
        Self::PeerFault { detail: detail.into() }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }

    /// How long the relay asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Retry { after, .. } => *after,
            _ => None,
        }
    }

    /// The relay's own words, if it sent any.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Forbidden(p) | Self::NotFound(p) | Self::Blocked(p) | Self::OverQuota(p) => Some(p),
            _ => None,
        }
    }

    /// A stable word for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Retry { .. } => "relay_unreachable",
            Self::LoginRequired { .. } => "login_required",
            Self::PeerFault { .. } => "relay_sent_wrong_data",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::OverQuota(_) => "over_quota",
            Self::Forbidden(p) | Self::NotFound(p) | Self::Blocked(p) => {
                if p.code.is_empty() {
                    "refused"
                } else {
                    &p.code
                }
            }
        }
    }

    /// Sorts an answer that is not a success and is a problem document.
    pub(super) fn of_problem(status: StatusCode, retry_after: Option<Duration>, problem: Problem) -> Self {
        match status.as_u16() {
            // The password was right; the second factor is still to come.
            401 if problem.mfa_token.is_some() => Self::Forbidden(problem),
            // Its hint speaks to people with a browser; what to do here is said by our own words.
            401 => Self::LoginRequired { reason: Problem { hint: None, ..problem }.sentence() },
            // A quota is the user's; a request that is too large for the route is our own mistake.
            413 if problem.code.contains("quota") || problem.code.contains("storage") => Self::OverQuota(problem),
            403 => Self::Forbidden(problem),
            404 => Self::NotFound(problem),
            415 | 426 => Self::VersionMismatch { detail: format!("{} Upgrade the older of ferry and its relay.", problem.sentence()) },
            408 | 425 | 429 | 500..=599 => Self::Retry { after: retry_after, reason: problem.sentence() },
            _ => Self::Blocked(problem),
        }
    }

    /// Sorts an answer that is not a success and not a problem document: not from a relay, or from a proxy in front of it.
    pub(super) fn of_foreign_answer(status: StatusCode, retry_after: Option<Duration>) -> Self {
        let reason = if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            format!("The server in front of the relay answered {status}; ferry tries again by itself.")
        } else {
            not_a_relay(&format!("answered {status}"))
        };
        Self::Retry { after: retry_after, reason }
    }

    /// Sorts an error of the connection.
    pub(super) fn of_transport(error: &reqwest::Error) -> Self {
        let cause = deepest(error);
        if cause.contains("certificate") {
            return Self::retry(format!(
                "The relay's certificate is not trusted ({cause}); if this network has a sign-in page, sign in, else check the relay's address or join again."
            ));
        }
        let what = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
        Self::retry(format!("The relay {what} ({cause}); check that it runs and that this device is online."))
    }
}

/// The words for an answer that cannot come from a relay (P10).
pub(super) fn not_a_relay(what: &str) -> String {
    format!(
        "What answers at the relay's address is not a ferry relay (it {what}); if this network has a sign-in page, sign in, else check the address."
    )
}

/// The text of the innermost cause: the outer ones only repeat the address.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, code: &str) -> RelayError {
        let problem = Problem { code: code.into(), detail: "No.".into(), status, ..Problem::default() };
        RelayError::of_problem(StatusCode::from_u16(status).unwrap(), Some(Duration::from_secs(7)), problem)
    }

    #[test]
    fn statuses_become_what_to_do_next() {
        assert!(matches!(problem(401, "token_expired"), RelayError::LoginRequired { .. }));
        let second = Problem { code: "mfa_required".into(), mfa_token: Some("fmt_1".into()), ..Problem::default() };
        assert_eq!(RelayError::of_problem(StatusCode::UNAUTHORIZED, None, second).code(), "mfa_required");
        assert!(matches!(problem(403, "forbidden"), RelayError::Forbidden(_)));
        assert!(matches!(problem(404, "not_found"), RelayError::NotFound(_)));
        assert!(matches!(problem(413, "quota_exceeded"), RelayError::OverQuota(_)));
        assert!(matches!(problem(413, "body_too_large"), RelayError::Blocked(_)));
        assert!(matches!(problem(422, "invalid_body"), RelayError::Blocked(_)));
        assert!(matches!(problem(426, "upgrade"), RelayError::VersionMismatch { .. }));
        for status in [429, 500, 503, 507] {
            assert_eq!(problem(status, "x").retry_after(), Some(Duration::from_secs(7)), "{status}");
        }
    }

    #[test]
    fn every_error_says_what_to_do() {
        assert_eq!(problem(401, "x").to_string(), "No. Run 'ferry login' on this device.");
        assert!(problem(413, "quota_exceeded").to_string().contains("Free space"));
        assert!(RelayError::of_foreign_answer(StatusCode::FOUND, None).to_string().contains("sign in"));
        assert!(RelayError::of_foreign_answer(StatusCode::BAD_GATEWAY, None).to_string().contains("tries again"));
    }
}
