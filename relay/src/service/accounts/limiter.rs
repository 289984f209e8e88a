//! How often a secret may be guessed. Only failures count, so that no number of good logins is ever refused.
//!
//! Three counts, shared by all processes: per address (IPv6: per /64), per neighbourhood (IPv4 /24, IPv6 /48), and a growing pause per account. The pause does
//! not apply to an address from which the account's owner has logged in before: an attacker elsewhere cannot lock the owner out (R09).

use crate::service::shared::Shared;
use crate::service::{ServiceError, ServiceResult};
use crate::store::limits::{Meter, MeterKey};
use std::net::IpAddr;

/// Failures per address and minute.
const PER_ADDRESS: u32 = 5;
/// Failures per neighbourhood and minute.
const PER_NEIGHBOURHOOD: u32 = 25;
/// App passwords that failed, per address and neighbourhood and minute: programs try again by themselves. Counted apart, so that a forgotten mount keeps
/// nobody behind the same address from logging in.
const PROGRAMS_PER_ADDRESS: u32 = 60;
const PROGRAMS_PER_NEIGHBOURHOOD: u32 = 300;
/// Failures of one account before pauses begin.
const ACCOUNT_FREE: u32 = 5;
/// First and longest pause of an account, in milliseconds.
const PAUSE_FIRST_MS: i64 = 1000;
const PAUSE_MAX_MS: i64 = 60_000;
/// After this long without a failure an account's count begins anew, in milliseconds.
const ACCOUNT_MEMORY_MS: i64 = 15 * 60_000;
/// How long an address stays its account's owner's after a login, in milliseconds.
const OWNER_MEMORY_MS: i64 = 90 * 24 * 3600 * 1000;

/// Counts failures and says when the next attempt may come.
pub(crate) struct Limiter(Shared);

impl Limiter {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(shared)
    }

    /// Whether an attempt may be made now. `account` is empty where there is none (codes).
    pub(crate) async fn check(&self, ip: IpAddr, account: &str, now_ms: i64) -> ServiceResult<()> {
        refused(self.0.limits.wait_ms(&self.meters(ip, account), now_ms).await?)
    }

    /// Counts a failure; refuses, and counts nothing, when there were too many: then the caller learns no more than that.
    pub(crate) async fn failed(&self, ip: IpAddr, account: &str, now_ms: i64) -> ServiceResult<()> {
        refused(self.0.limits.count(&self.meters(ip, account), now_ms).await?)
    }

    /// Counts a guess before it is compared, where good ones are rare: of many at once no more than fit are compared at all. One that was good, or was
    /// not compared, is given back.
    pub(crate) async fn take_place(&self, ip: IpAddr, account: &str, now_ms: i64) -> ServiceResult<()> {
        self.failed(ip, account, now_ms).await
    }

    /// Takes back what [`Limiter::take_place`] counted.
    pub(crate) async fn give_back(&self, ip: IpAddr, account: &str, now_ms: i64) -> ServiceResult<()> {
        Ok(self.0.limits.give_back(&self.meters(ip, account), now_ms).await?)
    }

    /// Counts an app password that failed; refuses when there were too many.
    pub(crate) async fn app_password_failed(&self, ip: IpAddr, now_ms: i64) -> ServiceResult<()> {
        let (address, neighbourhood) = networks(ip);
        let key = |kind, bits: u128| self.0.meter_key(kind, &bits.to_be_bytes());
        let meters = [
            Meter::Bucket { key: key("program_address", address), per_minute: PROGRAMS_PER_ADDRESS },
            Meter::Bucket { key: key("program_neighbourhood", neighbourhood), per_minute: PROGRAMS_PER_NEIGHBOURHOOD },
        ];
        refused(self.0.limits.count(&meters, now_ms).await?)
    }

    /// The right password was given: the account's count begins anew and the address is its owner's.
    pub(crate) async fn succeeded(&self, ip: IpAddr, account: &str, now_ms: i64) -> ServiceResult<()> {
        let (account_key, owner_key) = self.account_keys(ip, account);
        Ok(self.0.limits.clear_and_mark(account_key, owner_key, OWNER_MEMORY_MS, now_ms).await?)
    }

    fn meters(&self, ip: IpAddr, account: &str) -> Vec<Meter> {
        let (address, neighbourhood) = networks(ip);
        let key = |kind, bits: u128| self.0.meter_key(kind, &bits.to_be_bytes());
        let mut meters = vec![
            Meter::Bucket { key: key("address", address), per_minute: PER_ADDRESS },
            Meter::Bucket { key: key("neighbourhood", neighbourhood), per_minute: PER_NEIGHBOURHOOD },
        ];
        if !account.is_empty() {
            let (key, unless) = self.account_keys(ip, account);
            meters.push(Meter::Pause {
                key,
                free: ACCOUNT_FREE,
                first_ms: PAUSE_FIRST_MS,
                max_ms: PAUSE_MAX_MS,
                memory_ms: ACCOUNT_MEMORY_MS,
                unless,
            });
        }
        meters
    }

    /// The account's count, and the mark that this address is its owner's.
    fn account_keys(&self, ip: IpAddr, account: &str) -> (MeterKey, MeterKey) {
        let owner = [&networks(ip).0.to_be_bytes()[..], account.as_bytes()].concat();
        (self.0.meter_key("account", account.as_bytes()), self.0.meter_key("owner", &owner))
    }
}

fn refused(wait_ms: i64) -> ServiceResult<()> {
    if wait_ms <= 0 { Ok(()) } else { Err(ServiceError::too_many(wait_ms.unsigned_abs().div_ceil(1000))) }
}

/// The address and its neighbourhood. An IPv6 host owns a /64, a site a /48.
fn networks(ip: IpAddr) -> (u128, u128) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let bits = v4.to_ipv6_mapped().to_bits();
            (bits, bits >> 8)
        }
        IpAddr::V6(v6) => (v6.to_bits() >> 64, v6.to_bits() >> 80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limiter() -> Limiter {
        Limiter::new(Shared::local([7; 32]))
    }

    #[tokio::test]
    async fn five_failures_a_minute_per_address() {
        let limiter = limiter();
        for i in 0..5 {
            assert!(limiter.check(ip("10.0.0.1"), &format!("u{i}"), 0).await.is_ok());
            assert!(limiter.failed(ip("10.0.0.1"), &format!("u{i}"), 0).await.is_ok());
        }
        let error = limiter.check(ip("10.0.0.1"), "other", 0).await.unwrap_err();
        assert_eq!(error.retry_after_s(), Some(12));
        assert!(limiter.failed(ip("10.0.0.1"), "other", 0).await.is_err(), "of many at once, those over the limit are refused");
        assert!(limiter.check(ip("10.0.0.2"), "other", 0).await.is_ok());
        assert!(limiter.check(ip("10.0.0.1"), "other", 12_000).await.is_ok());
    }

    #[tokio::test]
    async fn a_neighbourhood_is_limited_too() {
        let limiter = limiter();
        for i in 0..25 {
            limiter.failed(ip(&format!("10.0.0.{i}")), &format!("u{i}"), 0).await.unwrap();
            limiter.failed(ip(&format!("2001:db8:1:{i}::1")), &format!("v{i}"), 0).await.unwrap();
        }
        assert!(limiter.check(ip("10.0.0.200"), "x", 0).await.is_err());
        assert!(limiter.check(ip("10.0.1.200"), "x", 0).await.is_ok());
        assert!(limiter.check(ip("2001:db8:1:ffff::1"), "x", 0).await.is_err());
        assert!(limiter.check(ip("2001:db8:2::1"), "x", 0).await.is_ok());
    }

    #[tokio::test]
    async fn a_forgotten_program_keeps_nobody_out() {
        let limiter = limiter();
        for _ in 0..PROGRAMS_PER_ADDRESS {
            limiter.app_password_failed(ip("10.0.0.1"), 0).await.unwrap();
        }
        assert_eq!(limiter.app_password_failed(ip("10.0.0.1"), 0).await.unwrap_err().retry_after_s(), Some(1));
        assert!(limiter.app_password_failed(ip("10.0.0.2"), 0).await.is_ok());
        assert!(limiter.check(ip("10.0.0.1"), "somebody", 0).await.is_ok());
    }

    #[tokio::test]
    async fn an_account_pauses_but_its_owner_gets_in() {
        let limiter = limiter();
        limiter.succeeded(ip("192.168.1.1"), "owner", 0).await.unwrap();
        for i in 0..5 {
            limiter.failed(ip(&format!("10.{i}.0.1")), "owner", 0).await.unwrap();
        }
        assert!(limiter.check(ip("10.99.0.1"), "owner", 0).await.is_err());
        assert!(limiter.failed(ip("10.99.0.1"), "owner", 0).await.is_err());
        assert!(limiter.check(ip("192.168.1.1"), "owner", 0).await.is_ok());
        assert!(limiter.check(ip("10.99.0.1"), "owner", PAUSE_MAX_MS).await.is_ok(), "no pause is for ever");
    }
}
