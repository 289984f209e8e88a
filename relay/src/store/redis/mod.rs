//! Redis, for a relay of many processes: wake-ups ([`bus`]) and counters ([`limits`]) that the processes share. Nothing that
//! matters lives there: whoever empties it costs time only.
//!
//! * **RD1** No call waits longer than [`ANSWER_MAX`]; after a failure calls fail at once for [`REST`], so that a server that is gone slows nobody down.
//! * **RD2** What Redis holds is named by hashes under the relay's own prefix, and ends by itself.

pub mod bus;
pub mod limits;
#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;

use super::{Health, StoreError};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult, ScriptInvocation};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// How long nobody asks again after a failure.
const REST: Duration = Duration::from_millis(500);
/// How long the first connection may take.
const FIRST_MAX: Duration = Duration::from_secs(3);

/// A connection that all askers of this process share; lost, it comes back by itself.
pub struct Link {
    client: Client,
    manager: ConnectionManager,
    /// Before all names, so that several relays can share one server.
    prefix: String,
    began: Instant,
    /// Until when nobody asks, in milliseconds since `began`.
    rests_until_ms: AtomicU64,
}

/// Whether this is an address of a Redis server that we can talk to; a sentence if not. Never names the password.
pub fn check_url(url: &str) -> Result<(), String> {
    let takes = "expected redis://[:PASSWORD@]HOST[:PORT][/DATABASE] or redis+unix:///PATH";
    match url.split_once("://") {
        Some(("rediss", _)) => {
            Err("rediss:// is not supported: put a TLS tunnel, or a network of your own, between the relay and Redis".into())
        }
        Some(("redis" | "redis+unix" | "unix", _)) => {
            url.into_connection_info().map(drop).map_err(|_| format!("it is no address of a Redis server: {takes}"))
        }
        _ => Err(takes.into()),
    }
}

impl Link {
    /// A connection to the server at `url` for the relay of this id. A server that does not answer now may come later; one that refuses us is an error.
    pub async fn open(url: &str, relay_id: &str) -> Result<Self, String> {
        check_url(url)?;
        let client = Client::open(url).map_err(|e| without_secrets(&e))?;
        // One attempt each: whoever asks later tries again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(ANSWER_MAX))
            .set_response_timeout(Some(ANSWER_MAX))
            .set_pipeline_buffer_size(1024);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(|e| without_secrets(&e))?;
        let prefix = format!("ferry:{relay_id}:");
        let link = Self { client, manager, prefix, began: Instant::now(), rests_until_ms: AtomicU64::new(0) };
        match tokio::time::timeout(FIRST_MAX, link.ask::<String>(&redis::cmd("PING"))).await {
            Ok(Err(Failure::Refused(why))) => Err(format!("Redis refuses the relay: {why}. Check redis.url")),
            Ok(Ok(_)) => Ok(link),
            _ => {
                tracing::warn!("Redis does not answer; the relay goes on without it and tries again");
                Ok(link)
            }
        }
    }

    /// The name of something of this relay.
    fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    async fn ask<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, Failure> {
        let mut manager = self.manager.clone();
        self.bounded(cmd.query_async(&mut manager)).await
    }

    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Failure> {
        let mut manager = self.manager.clone();
        self.bounded(script.invoke_async(&mut manager)).await
    }

    /// RD1.
    async fn bounded<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, Failure> {
        let now_ms = || u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now_ms() < self.rests_until_ms.load(Ordering::Relaxed) {
            return Err(Failure::Gone("it did not answer a moment ago".into()));
        }
        let failure = match tokio::time::timeout(ANSWER_MAX, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::Gone("it does not answer".into()),
        };
        if matches!(failure, Failure::Gone(_)) {
            let rest_ms = u64::try_from(REST.as_millis()).unwrap_or(0);
            self.rests_until_ms.store(now_ms().saturating_add(rest_ms), Ordering::Relaxed);
        }
        Err(failure)
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Health {
        match self.ask::<String>(&redis::cmd("PING")).await {
            Ok(_) => Health::Good,
            Err(why) => Health::Degraded(format!("Redis: {why}. Rate limits count per process, wake-ups reach one process only")),
        }
    }
}

/// Why Redis gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Failure {
    /// It is not there, or too slow.
    #[error("{0}")]
    Gone(String),
    /// It is there and says no.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    fn of(error: &RedisError) -> Self {
        let refused = matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::Server(_) | ErrorKind::Extension);
        // A server that is starting, or failing over, comes back.
        let passing = error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_cluster_error();
        let busy = matches!(error.code(), Some("LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "READONLY"));
        if refused && !passing && !busy { Self::Refused(without_secrets(error)) } else { Self::Gone(without_secrets(error)) }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(format!("Redis: {failure}"))
    }
}

/// What an error says, without what the URL holds: kind and code, and the system's own words.
fn without_secrets(error: &RedisError) -> String {
    match (error.code(), std::error::Error::source(error)) {
        (Some(code), _) => format!("it answers {code}"),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.category().to_owned(),
    }
}
