//! Wake-ups: "this namespace has changed". Losing every message costs latency only (R5); whoever listens asks the feed.

use ferry_protocol::NamespaceId;
use tokio::sync::broadcast;

/// A wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// The namespace that changed.
    pub namespace: NamespaceId,
    /// Its head then; a hint.
    pub seq: u64,
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
