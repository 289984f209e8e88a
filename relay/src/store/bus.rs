//! Wake-ups: "something about this namespace has changed". Losing every message costs latency only (R5); whoever listens asks.

use ferry_protocol::{DeviceId, NamespaceId};
use tokio::sync::broadcast;

/// A wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// The namespace that it is about: its members hear of it.
    pub namespace: NamespaceId,
    /// What is worth asking for.
    pub about: About,
}

/// What a wake-up is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The feed.
    Feed {
        /// Its head then; a hint.
        seq: u64,
    },
    /// Its devices, their roles or their addresses.
    Peers {
        /// The device that has just announced itself, and knows.
        by: Option<DeviceId>,
    },
}

impl Wake {
    /// The feed of a namespace has grown.
    pub fn feed(namespace: NamespaceId, seq: u64) -> Self {
        Self { namespace, about: About::Feed { seq } }
    }

    /// The devices of a namespace have changed.
    pub fn peers(namespace: NamespaceId, by: Option<DeviceId>) -> Self {
        Self { namespace, about: About::Peers { by } }
    }
}

/// Carries wake-ups between connections, and with another implementation between processes.
pub trait Bus: Send + Sync + 'static {
    /// Tells every listener. Never waits.
    fn publish(&self, wake: Wake);
    /// Hears everything published from now on. A listener that is too slow is told that it missed something.
    fn subscribe(&self) -> broadcast::Receiver<Wake>;
}

/// Wake-ups that a listener may be behind before it loses the oldest.
const QUEUE_MAX: usize = 1024;

/// The bus of one process.
#[derive(Debug, Clone)]
pub struct LocalBus(broadcast::Sender<Wake>);

impl Default for LocalBus {
    fn default() -> Self {
        Self(broadcast::Sender::new(QUEUE_MAX))
    }
}

impl Bus for LocalBus {
    fn publish(&self, wake: Wake) {
        // An error says that nobody listens.
        let _ = self.0.send(wake);
    }

    fn subscribe(&self) -> broadcast::Receiver<Wake> {
        self.0.subscribe()
    }
}
