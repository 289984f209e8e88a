//! How often a secret may be guessed. Only failures count, so that no number of good logins is ever refused.
//!
//! Three counts, all in this process: per address (IPv6: per /64), per neighbourhood (IPv4 /24, IPv6 /48), and a growing pause per account. The pause does not
//! apply to an address from which the account's owner has logged in before: an attacker elsewhere cannot lock the owner out (R09).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Failures per address and minute.
const PER_ADDRESS: f64 = 5.0;
/// Failures per neighbourhood and minute.
const PER_NEIGHBOURHOOD: f64 = 25.0;
/// Failures of one account before pauses begin.
const ACCOUNT_FREE: u32 = 5;
/// Longest pause of an account, in milliseconds.
const PAUSE_MAX_MS: i64 = 60_000;
/// After this long without a failure an account's count begins anew, in milliseconds.
const ACCOUNT_MEMORY_MS: i64 = 15 * 60_000;
/// Most entries of each kind; the oldest half is forgotten beyond it.
const ENTRIES_MAX: usize = 50_000;
const MINUTE_MS: f64 = 60_000.0;

/// Counts failures and says when the next attempt may come.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    addresses: HashMap<u128, Bucket>,
    neighbourhoods: HashMap<u128, Bucket>,
    accounts: HashMap<String, Failures>,
    known: HashMap<(String, u128), i64>,
}

/// Failures that still count, draining evenly over a minute.
#[derive(Clone, Copy)]
struct Bucket {
    level: f64,
    at_ms: i64,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    at_ms: i64,
}

impl Limiter {
    /// Whether an attempt may be made now; otherwise in how many seconds.
    pub(crate) fn check(&self, ip: IpAddr, account: &str, now_ms: i64) -> Result<(), u64> {
        let inner = self.inner();
        let (address, neighbourhood) = keys(ip);
        let mut wait_ms = wait_of(inner.addresses.get(&address), PER_ADDRESS, now_ms).max(wait_of(
            inner.neighbourhoods.get(&neighbourhood),
            PER_NEIGHBOURHOOD,
            now_ms,
        ));
        if let Some(failures) = inner.accounts.get(account)
            && !inner.known.contains_key(&(account.to_owned(), address))
        {
            wait_ms = wait_ms.max(failures.at_ms + pause_ms(failures.count) - now_ms);
        }
        if wait_ms <= 0 { Ok(()) } else { Err(wait_ms.unsigned_abs().div_ceil(1000)) }
    }

    /// Counts a failure. `account` is empty where there is none (codes).
    pub(crate) fn failed(&self, ip: IpAddr, account: &str, now_ms: i64) {
        let mut inner = self.inner();
        let (address, neighbourhood) = keys(ip);
        add(&mut inner.addresses, address, PER_ADDRESS, now_ms);
        add(&mut inner.neighbourhoods, neighbourhood, PER_NEIGHBOURHOOD, now_ms);
        if !account.is_empty() {
            forget_oldest(&mut inner.accounts, |f| f.at_ms);
            let failures = inner.accounts.entry(account.to_owned()).or_insert(Failures { count: 0, at_ms: now_ms });
            if now_ms - failures.at_ms > ACCOUNT_MEMORY_MS {
                failures.count = 0;
            }
            *failures = Failures { count: failures.count.saturating_add(1), at_ms: now_ms };
        }
    }

    /// The right password was given: the account's count begins anew and the address is its owner's.
    pub(crate) fn succeeded(&self, ip: IpAddr, account: &str, now_ms: i64) {
        let mut inner = self.inner();
        inner.accounts.remove(account);
        forget_oldest(&mut inner.known, |at_ms| *at_ms);
        inner.known.insert((account.to_owned(), keys(ip).0), now_ms);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Counts stay usable after a panic elsewhere; refusing to count would open the door.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(ip: IpAddr) -> (u128, u128) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let bits = v4.to_ipv6_mapped().to_bits();
            (bits, bits >> 8)
        }
        IpAddr::V6(v6) => (v6.to_bits() >> 64, v6.to_bits() >> 80),
    }
}

fn level_at(bucket: &Bucket, per_minute: f64, now_ms: i64) -> f64 {
    let passed_ms = (now_ms - bucket.at_ms).max(0) as f64;
    (bucket.level - passed_ms * per_minute / MINUTE_MS).max(0.0)
}

/// How long until one more failure fits, in milliseconds.
fn wait_of(bucket: Option<&Bucket>, per_minute: f64, now_ms: i64) -> i64 {
    let level = bucket.map_or(0.0, |b| level_at(b, per_minute, now_ms));
    // The tolerance swallows what rounding leaves over.
    ((level + 1.0 - per_minute - 1e-6).max(0.0) * MINUTE_MS / per_minute).ceil() as i64
}

fn add(buckets: &mut HashMap<u128, Bucket>, key: u128, per_minute: f64, now_ms: i64) {
    forget_oldest(buckets, |b| b.at_ms);
    let bucket = buckets.entry(key).or_insert(Bucket { level: 0.0, at_ms: now_ms });
    *bucket = Bucket { level: level_at(bucket, per_minute, now_ms) + 1.0, at_ms: now_ms };
}

fn pause_ms(count: u32) -> i64 {
    match count.checked_sub(ACCOUNT_FREE) {
        None => 0,
        Some(over) => (1000_i64 << over.min(16)).min(PAUSE_MAX_MS),
    }
}

fn forget_oldest<K: Clone + Eq + Hash, V>(map: &mut HashMap<K, V>, at_ms: impl Fn(&V) -> i64) {
    if map.len() < ENTRIES_MAX {
        return;
    }
    let mut times: Vec<i64> = map.values().map(&at_ms).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    map.retain(|_, v| at_ms(v) > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn five_failures_a_minute_per_address() {
        let limiter = Limiter::default();
        for i in 0..5 {
            assert_eq!(limiter.check(ip("10.0.0.1"), &format!("u{i}"), 0), Ok(()));
            limiter.failed(ip("10.0.0.1"), &format!("u{i}"), 0);
        }
        assert_eq!(limiter.check(ip("10.0.0.1"), "other", 0), Err(12));
        assert_eq!(limiter.check(ip("10.0.0.2"), "other", 0), Ok(()));
        assert_eq!(limiter.check(ip("10.0.0.1"), "other", 12_000), Ok(()));
    }

    #[test]
    fn a_neighbourhood_is_limited_too() {
        let limiter = Limiter::default();
        for i in 0..25 {
            limiter.failed(ip(&format!("10.0.0.{i}")), &format!("u{i}"), 0);
            limiter.failed(ip(&format!("2001:db8:1:{i}::1")), &format!("v{i}"), 0);
        }
        assert!(limiter.check(ip("10.0.0.200"), "x", 0).is_err());
        assert!(limiter.check(ip("10.0.1.200"), "x", 0).is_ok());
        assert!(limiter.check(ip("2001:db8:1:ffff::1"), "x", 0).is_err());
        assert!(limiter.check(ip("2001:db8:2::1"), "x", 0).is_ok());
    }

    #[test]
    fn an_account_pauses_but_its_owner_gets_in() {
        let limiter = Limiter::default();
        limiter.succeeded(ip("192.168.1.1"), "owner", 0);
        for i in 0..11 {
            limiter.failed(ip(&format!("10.{i}.0.1")), "owner", 0);
        }
        assert!(limiter.check(ip("10.99.0.1"), "owner", 0).is_err());
        assert!(limiter.check(ip("192.168.1.1"), "owner", 0).is_ok());
        assert!(limiter.check(ip("10.99.0.1"), "owner", PAUSE_MAX_MS).is_ok(), "no pause is for ever");
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::default();
        for i in 0..ENTRIES_MAX as i64 + 10 {
            limiter.failed(IpAddr::V4(std::net::Ipv4Addr::from_bits(i as u32 * 256)), &i.to_string(), i);
        }
        let inner = limiter.inner();
        assert!(inner.addresses.len() <= ENTRIES_MAX && inner.accounts.len() <= ENTRIES_MAX);
    }
}
