//! What the processes of one relay share besides the database: wake-ups and counters. In one process both are memory; with `redis.url` they are Redis.

use crate::StartError;
use crate::config::Config;
use crate::store::Health;
use crate::store::bus::{Bus, LocalBus};
use crate::store::limits::local::LocalLimits;
use crate::store::limits::{LimitStore, MeterKey};
use crate::store::metered::MeteredBus;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The shared parts; cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Wake-ups.
    pub bus: Arc<dyn Bus>,
    /// Counters.
    pub limits: Arc<dyn LimitStore>,
    /// Keys the names of counters.
    secret: [u8; 32],
    #[cfg(feature = "cluster")]
    link: Option<Arc<crate::store::redis::Link>>,
}

impl Shared {
    /// As configured. `secret` is the same in all processes of the relay.
    pub async fn open(config: &Config, relay_id: &str, secret: [u8; 32]) -> Result<Self, StartError> {
        if config.redis.url.is_empty() {
            return Ok(Self::local(secret));
        }
        #[cfg(feature = "cluster")]
        {
            use crate::store::redis::{Link, bus::RedisBus, limits::RedisLimits};
            let link = Arc::new(Link::open(&config.redis.url, relay_id).await.map_err(StartError::Data)?);
            let mut sender = [0; 8];
            getrandom::fill(&mut sender).map_err(|e| StartError::Data(format!("no random numbers: {e}")))?;
            Ok(Self {
                bus: Arc::new(MeteredBus(Arc::new(RedisBus::open(link.clone(), sender).await))),
                limits: Arc::new(RedisLimits::new(link.clone())),
                secret,
                link: Some(link),
            })
        }
        #[cfg(not(feature = "cluster"))]
        {
            let _ = relay_id;
            Err(StartError::Data("this ferry-relay was built without Redis (cargo feature 'cluster'); leave redis.url empty".into()))
        }
    }

    /// For a relay of one process.
    pub fn local(secret: [u8; 32]) -> Self {
        Self {
            bus: Arc::new(MeteredBus(Arc::new(LocalBus::default()))),
            limits: Arc::new(LocalLimits::default()),
            secret,
            #[cfg(feature = "cluster")]
            link: None,
        }
    }

    /// The name of a counter of this kind for this value: a hash that nobody without the database can turn back.
    pub fn meter_key(&self, kind: &str, value: &[u8]) -> MeterKey {
        let mut hash = Sha256::new_with_prefix(self.secret);
        hash.update([kind.len() as u8]);
        hash.update(kind);
        hash.update(value);
        let mut key = MeterKey::default();
        key.copy_from_slice(&hash.finalize()[..16]);
        key
    }

    /// How well Redis does; none without Redis.
    pub async fn health(&self) -> Option<Health> {
        #[cfg(feature = "cluster")]
        if let Some(link) = &self.link {
            return Some(match link.ping().await {
                Health::Good => self.bus.health(),
                degraded => degraded,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_one_name_for_each_kind_value_and_relay() {
        let (a, b) = (Shared::local([1; 32]), Shared::local([2; 32]));
        let names = [
            a.meter_key("address", b"10.0.0.1"),
            a.meter_key("address", b"10.0.0.2"),
            a.meter_key("account", b"10.0.0.1"),
            a.meter_key("addres", b"s10.0.0.1"),
            b.meter_key("address", b"10.0.0.1"),
        ];
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert_eq!(names[0], a.meter_key("address", b"10.0.0.1"));
    }
}
