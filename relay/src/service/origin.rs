//! On whose behalf, by which way and from where the work at hand is done: what the audit log has of it.
//!
//! It goes along with the task rather than through every function: whoever lets somebody in ([`within`]) says who that is, and what is written to the
//! audit log anywhere below says it too, so that no event can forget it.

use ferry_protocol::UserId;
use std::future::Future;
use std::net::IpAddr;

/// By which way a request for work came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Over HTTP.
    Http,
    /// By a command on the relay's machine.
    Cli,
    /// By nobody: the relay's own work.
    Relay,
}

impl Via {
    /// Its name in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Cli => "cli",
            Self::Relay => "relay",
        }
    }
}

/// Who is behind the work at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The user whose token was checked; none before that, and for an operator at the command line.
    pub actor: Option<UserId>,
    /// The caller's address.
    pub ip: Option<IpAddr>,
    /// The way.
    pub via: Via,
}

tokio::task_local! {
    static ORIGIN: Origin;
}

/// Does the work on behalf of `origin`.
pub async fn within<F: Future>(origin: Origin, work: F) -> F::Output {
    ORIGIN.scope(origin, work).await
}

/// Does the work on behalf of a user, by the way by which the request came.
pub async fn as_user<F: Future>(actor: UserId, work: F) -> F::Output {
    ORIGIN.scope(Origin { actor: Some(actor), ..current() }, work).await
}

/// Who is behind the work at hand; the relay itself where nobody has said anything.
pub fn current() -> Origin {
    ORIGIN.try_with(|origin| *origin).unwrap_or(Origin { actor: None, ip: None, via: Via::Relay })
}
