//! Counters in Redis: one script looks at all meters of an attempt and counts in all or none, in one step. Keys end when they would not count any more.
//!
//! Redis gone, each process counts for itself (R11): it has counted along all the time, so that nobody begins with a clean sheet at that moment. A server
//! that answers and does not count (full, read-only, its disk broken) is as good as gone: what it says of waiting leaves out what was counted here.

use super::{Failure, Link};
use crate::store::StoreError;
use crate::store::limits::local::LocalLimits;
use crate::store::limits::{LimitStore, Meter, MeterKey};
use async_trait::async_trait;
use redis::Script;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// `KEYS`: of each meter its name, of a pause also its mark. `ARGV`: the time, what to do, and of each meter its kind and rule.
const METERS: &str = r"
local now, deed = tonumber(ARGV[1]), ARGV[2]
local step = deed == 'back' and -1 or 1
local k, a, wait, writes = 1, 3, 0, {}
while a <= #ARGV do
  local key = KEYS[k]
  if ARGV[a] == 'bucket' then
    local rate = tonumber(ARGV[a + 1])
    local kept = redis.call('HMGET', key, 'level', 'at')
    local at = tonumber(kept[2] or now)
    local level = math.max(0, tonumber(kept[1] or 0) - math.max(0, now - at) * rate / 60000)
    wait = math.max(wait, math.ceil(math.max(0, level + 1 - rate - 1e-6) * 60000 / rate))
    table.insert(writes, {key, 'level', string.format('%.17g', math.max(0, level + step)), math.max(now, at), 60000})
    k, a = k + 1, a + 2
  else
    local free, first, most, memory = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
    local kept = redis.call('HMGET', key, 'count', 'at')
    local at, count = tonumber(kept[2] or now), tonumber(kept[1] or 0)
    if now - at > memory then count = 0 end
    if count >= free and now >= tonumber(redis.call('GET', KEYS[k + 1]) or 0) then
      wait = math.max(wait, at + math.min(first * 2 ^ math.min(count - free, 16), most) - now)
    end
    table.insert(writes, {key, 'count', string.format('%d', math.max(0, math.min(count + step, 4294967295))), math.max(now, at), memory})
    k, a = k + 2, a + 5
  end
end
if deed == 'back' or (deed == 'count' and wait <= 0) then
  for _, w in ipairs(writes) do
    redis.call('HSET', w[1], w[2], w[3], 'at', string.format('%d', w[4]))
    redis.call('PEXPIRE', w[1], w[5])
  end
end
return math.max(wait, 0)
";

/// Longest life of a mark, in milliseconds: a number that Redis surely takes.
const MARK_MAX_MS: i64 = 366 * 24 * 3600 * 1000;

/// How long what was counted here is looked at after Redis counts again, in milliseconds: as long as a bucket drains.
const HERE_FOR_MS: i64 = 60_000;

/// The counters of all processes.
pub struct RedisLimits {
    pub(super) link: Arc<Link>,
    script: Script,
    local: LocalLimits,
    /// Until when this process's own counters are looked at beside those of Redis, by the time of the callers: for ever from a count that failed on,
    /// for a while after the next one that did not.
    here_until_ms: AtomicI64,
}

impl RedisLimits {
    /// Counters on this server.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, script: Script::new(METERS), local: LocalLimits::default(), here_until_ms: AtomicI64::new(i64::MIN) }
    }

    async fn ask(&self, meters: &[Meter], deed: &str, now_ms: i64) -> Result<i64, Failure> {
        if meters.is_empty() {
            return Ok(0);
        }
        let mut call = self.script.prepare_invoke();
        call.arg(now_ms).arg(deed);
        for meter in meters {
            match *meter {
                Meter::Bucket { key, per_minute } => {
                    call.key(self.name(key)).arg("bucket").arg(per_minute.max(1));
                }
                Meter::Pause { key, free, first_ms, max_ms, memory_ms, unless } => {
                    call.key(self.name(key)).key(self.name(unless));
                    call.arg("pause").arg(free).arg(first_ms).arg(max_ms).arg(memory_ms.max(1));
                }
            }
        }
        self.link.run(&call).await
    }

    pub(super) fn name(&self, key: MeterKey) -> String {
        self.link.name(&format!("limit:{}", hex::encode(key)))
    }
}

fn fell_back(failure: &Failure) {
    metrics::counter!("ferry_relay_limits_local_total").increment(1);
    tracing::debug!(%failure, "rate limits count in this process");
}

#[async_trait]
impl LimitStore for RedisLimits {
    async fn wait_ms(&self, meters: &[Meter], now_ms: i64) -> Result<i64, StoreError> {
        match self.ask(meters, "look", now_ms).await {
            Ok(wait_ms) if now_ms >= self.here_until_ms.load(Ordering::Relaxed) => Ok(wait_ms),
            Ok(wait_ms) => Ok(wait_ms.max(self.local.wait_ms(meters, now_ms).await?)),
            Err(failure) => {
                fell_back(&failure);
                self.local.wait_ms(meters, now_ms).await
            }
        }
    }

    async fn count(&self, meters: &[Meter], now_ms: i64) -> Result<i64, StoreError> {
        match self.ask(meters, "count", now_ms).await {
            Ok(0) => {
                // That it refused an attempt would not show that it counts.
                if !meters.is_empty() {
                    let until_ms = now_ms.saturating_add(HERE_FOR_MS);
                    let _ = self.here_until_ms.compare_exchange(i64::MAX, until_ms, Ordering::Relaxed, Ordering::Relaxed);
                }
                self.local.count(meters, now_ms).await?;
                Ok(0)
            }
            Ok(wait_ms) => Ok(wait_ms),
            Err(failure) => {
                self.here_until_ms.store(i64::MAX, Ordering::Relaxed);
                fell_back(&failure);
                self.local.count(meters, now_ms).await
            }
        }
    }

    async fn give_back(&self, meters: &[Meter], now_ms: i64) -> Result<(), StoreError> {
        self.local.give_back(meters, now_ms).await?;
        if let Err(failure) = self.ask(meters, "back", now_ms).await {
            fell_back(&failure);
        }
        Ok(())
    }

    async fn clear_and_mark(&self, clear: MeterKey, mark: MeterKey, mark_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        self.local.clear_and_mark(clear, mark, mark_ms, now_ms).await?;
        let mark_ms = mark_ms.clamp(1, MARK_MAX_MS);
        let mut pipe = redis::pipe();
        pipe.del(self.name(clear)).ignore();
        pipe.cmd("SET").arg(self.name(mark)).arg(now_ms.saturating_add(mark_ms)).arg("PX").arg(mark_ms).ignore();
        let mut manager = self.link.manager.clone();
        if let Err(failure) = self.link.bounded(pipe.query_async::<()>(&mut manager)).await {
            fell_back(&failure);
        }
        Ok(())
    }
}
