//! Wake-ups: "something about this has changed". Losing every message costs latency only (R5); whoever listens asks.

#[cfg(test)]
pub(super) mod contract;

use super::Health;
use async_trait::async_trait;
use ferry_protocol::{DeviceId, NamespaceId, UserId};
use std::time::Duration;
use tokio::sync::broadcast;

/// A wake-up: what is worth asking for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The feed of a namespace has grown.
    Feed {
        /// The namespace.
        namespace: NamespaceId,
        /// Its head then; a hint.
        seq: u64,
    },
    /// The devices of a namespace, their roles or their addresses have changed.
    Peers {
        /// The namespace.
        namespace: NamespaceId,
        /// The device that has just announced itself, and knows.
        by: Option<DeviceId>,
    },
    /// A user's logins, devices, memberships or rights have changed: what anyone remembers of them counts no more.
    Access {
        /// The user.
        user: UserId,
    },
}

impl Wake {
    /// The feed of a namespace has grown.
    pub fn feed(namespace: NamespaceId, seq: u64) -> Self {
        Self::Feed { namespace, seq }
    }

    /// The devices of a namespace have changed.
    pub fn peers(namespace: NamespaceId, by: Option<DeviceId>) -> Self {
        Self::Peers { namespace, by }
    }

    /// What a user may do has changed.
    pub fn access(user: UserId) -> Self {
        Self::Access { user }
    }
}

/// What a listener hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A wake-up.
    Wake(Wake),
    /// Wake-ups may have been lost: ask about everything.
    Missed,
}

/// Carries wake-ups between connections, and with another implementation between processes.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Tells every listener. Never waits.
    fn publish(&self, wake: Wake);
    /// Hears everything published from now on.
    fn subscribe(&self) -> Wakes;
    /// Whether other processes are reached.
    fn health(&self) -> Health;
    /// Waits until what was published has gone out, at most `limit`; whether it has. For a process that is about to end.
    async fn flush(&self, limit: Duration) -> bool;
}

/// One listener's wake-ups.
#[derive(Debug)]
pub struct Wakes(broadcast::Receiver<Heard>);

impl Wakes {
    /// The next one; none when the bus is gone. A listener that was too slow hears that it missed something.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(heard) => Some(heard),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Heard::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next one, if it has come already.
    pub fn next_now(&mut self) -> Option<Heard> {
        match self.0.try_recv() {
            Ok(heard) => Some(heard),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Heard::Missed),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
        }
    }
}

/// Wake-ups that a listener may be behind before it loses the oldest.
const QUEUE_MAX: usize = 1024;

/// The bus of one process.
#[derive(Debug, Clone)]
pub struct LocalBus(broadcast::Sender<Heard>);

impl LocalBus {
    /// Tells every listener that wake-ups may have been lost.
    pub fn missed(&self) {
        let _ = self.0.send(Heard::Missed);
    }
}

impl Default for LocalBus {
    fn default() -> Self {
        Self(broadcast::Sender::new(QUEUE_MAX))
    }
}

#[async_trait]
impl Bus for LocalBus {
    fn publish(&self, wake: Wake) {
        // An error says that nobody listens.
        let _ = self.0.send(Heard::Wake(wake));
    }

    fn subscribe(&self) -> Wakes {
        Wakes(self.0.subscribe())
    }

    fn health(&self) -> Health {
        Health::Good
    }

    async fn flush(&self, _: Duration) -> bool {
        true
    }
}
