//! A device comes in without typing a password into it (RFC 8628): it shows a code, a person who is logged in elsewhere compares it and says yes or no.
//! The codes live in the database: a process holds nothing.

use super::Accounts;
use super::login::{DeviceIntro, TokenSet, check_device};
use super::secrets::{Bearer, new_user_code, user_code_hash};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use crate::store::signin::{DeviceRequest, Poll, RequestState, RequestStored};
use ferry_protocol::DeviceId;
use std::net::IpAddr;

/// How long a person has, in milliseconds.
pub const REQUEST_TTL_MS: i64 = 10 * 60_000;
/// How long a device waits between two questions, in milliseconds, and how much longer after each that came too soon (RFC 8628, 3.5).
const POLL_MS: i64 = 5_000;
/// Requests of one neighbourhood of addresses in [`REQUESTS_WINDOW_MS`].
const REQUESTS_MAX: u32 = 10;
const REQUESTS_WINDOW_MS: i64 = 3600 * 1000;
/// Longest text about a device's system, in bytes.
const SYSTEM_MAX_BYTES: usize = 64;
/// Codes are drawn again when one is in use; more than once is beyond all likelihood.
const DRAWS_MAX: usize = 5;

/// What a device is given that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCodes {
    /// For the device: with it, it asks for its tokens.
    pub device_code: String,
    /// For the person: `WDJB-MJHT`.
    pub user_code: String,
    /// In how many seconds both end.
    pub expires_in_s: u32,
    /// How many seconds the device waits between two questions.
    pub interval_s: u32,
}

/// A device that waits, as the person sees it who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDevice {
    /// The code in its one form.
    pub user_code: String,
    /// The device's name.
    pub name: String,
    /// What it says that it runs on.
    pub system: String,
    /// Where it asks from.
    pub remote_ip: String,
    /// Since when, in milliseconds since 1970.
    pub asked_at_ms: i64,
}

impl Accounts {
    /// A device asks to be let in. Nobody is known yet, so such requests are counted by address.
    pub async fn request_device(&self, device: &DeviceIntro, system: &str, ip: IpAddr) -> ServiceResult<DeviceCodes> {
        let device = check_device(device)?;
        let now_ms = self.clock.now_ms();
        let (device_code, device_hash) = Bearer::DeviceCode.mint()?;
        for _ in 0..DRAWS_MAX {
            let (user_code, user_hash) = new_user_code()?;
            let request = DeviceRequest {
                device_code: device_hash,
                user_code: user_hash,
                device_name: device.name.clone(),
                public_key: device.public_key,
                system: plain_line(system, SYSTEM_MAX_BYTES),
                remote_ip: ip.to_canonical().to_string(),
                remote_net: network_of(ip),
                interval_ms: POLL_MS,
                created_at_ms: now_ms,
                expires_at_ms: now_ms + REQUEST_TTL_MS,
            };
            match self.store.insert_device_request(&request, REQUESTS_MAX, REQUESTS_WINDOW_MS).await? {
                RequestStored::Stored => {
                    self.note("device.asked", None, Some(DeviceId::of_public_key(&device.public_key)), Some(ip), "").await;
                    let seconds = |ms: i64| u32::try_from(ms / 1000).unwrap_or(u32::MAX);
                    return Ok(DeviceCodes { device_code, user_code, expires_in_s: seconds(REQUEST_TTL_MS), interval_s: seconds(POLL_MS) });
                }
                RequestStored::CodeTaken => {}
                RequestStored::TooMany { again_at_ms } => {
                    return Err(ServiceError::too_many((again_at_ms - now_ms).max(1000).unsigned_abs().div_ceil(1000)));
                }
            }
        }
        Err(ServiceError::internal("no free code was drawn"))
    }

    /// The device that waits with this code. Wrong codes count as failed guesses.
    pub async fn waiting_device(&self, user_code: &str, ip: IpAddr) -> ServiceResult<WaitingDevice> {
        let (user_code, request) = self.find_waiting(user_code, ip).await?;
        Ok(WaitingDevice {
            user_code,
            name: request.device_name,
            system: request.system,
            remote_ip: request.remote_ip,
            asked_at_ms: request.created_at_ms,
        })
    }

    /// Lets the waiting device in as the caller's, or refuses it. Only a login decides: neither an app password nor the device itself.
    pub async fn decide_device(&self, caller: &Caller, user_code: &str, let_in: bool, ip: IpAddr) -> ServiceResult<WaitingDevice> {
        let (user_code, request) = self.find_waiting(user_code, ip).await?;
        let device_id = DeviceId::of_public_key(&request.public_key);
        if let Some(known) = self.store.device(device_id).await?.filter(|_| let_in) {
            // Found out now, while a person reads it, and not when the device has its turn.
            if known.user_id != caller.user_id {
                return Err(device_of_another_user());
            }
            if known.revoked_at_ms.is_some() {
                return Err(device_revoked());
            }
        }
        let by = let_in.then_some(caller.user_id);
        if !self.store.decide_device_request(request.user_code, by, self.clock.now_ms()).await? {
            return Err(no_such_request());
        }
        let event = if let_in { "device.approved" } else { "device.denied" };
        self.note(event, Some(caller.user_id), Some(device_id), Some(ip), "").await;
        Ok(WaitingDevice {
            user_code,
            name: request.device_name,
            system: request.system,
            remote_ip: request.remote_ip,
            asked_at_ms: request.created_at_ms,
        })
    }

    /// A device asks for its tokens: it gets them once, after a person let it in. The codes of the refusals are those of RFC 8628.
    pub async fn redeem_device(&self, device_code: &str, ip: IpAddr) -> ServiceResult<TokenSet> {
        self.may_guess(ip, "").await?;
        let refused = |code, detail: &str| ServiceError::new(Kind::Malformed, code, detail);
        let now_ms = self.clock.now_ms();
        let found = match Bearer::DeviceCode.hash(device_code) {
            Some(hash) => self.store.poll_device_request(hash, now_ms, POLL_MS).await?,
            None => Poll::Unknown,
        };
        let (request, user_id) = match found {
            Poll::Approved(request, user_id) => (request, user_id),
            Poll::Waiting => return Err(refused("authorization_pending", "Nobody has decided about this device yet.")),
            Poll::TooSoon => return Err(refused("slow_down", "Ask less often: wait 5 seconds longer between two questions.")),
            Poll::Denied => return Err(refused("access_denied", "This device was refused.")),
            Poll::Expired => return Err(refused("expired_token", "Nobody decided in time. Begin again.")),
            Poll::Unknown => {
                self.limiter.failed(ip, "", now_ms).await?;
                return Err(refused("invalid_grant", "This code is not known here, or was used before. Begin again."));
            }
        };
        let user = self.store.user(user_id).await?.filter(|u| !u.disabled);
        let user = user.ok_or_else(|| refused("access_denied", "The account is locked."))?;
        let device = check_device(&DeviceIntro { name: request.device_name, public_key: hex::encode(request.public_key) })?;
        self.begin_session(&user, Some(device), ip, "login.device").await
    }

    async fn find_waiting(&self, user_code: &str, ip: IpAddr) -> ServiceResult<(String, DeviceRequest)> {
        self.may_guess(ip, "").await?;
        let now_ms = self.clock.now_ms();
        let found = match user_code_hash(user_code) {
            Some((shown, hash)) => self.store.device_request(hash).await?.map(|(request, state)| (shown, request, state)),
            None => None,
        };
        match found {
            Some((shown, request, RequestState::Waiting)) if request.expires_at_ms > now_ms => Ok((shown, request)),
            _ => {
                self.limiter.failed(ip, "", now_ms).await?;
                Err(no_such_request())
            }
        }
    }
}

/// One answer for a code that never was, one that is over and one that was decided: a guess learns nothing.
fn no_such_request() -> ServiceError {
    ServiceError::new(
        Kind::NotFound,
        "code_unknown",
        "No device waits with this code. Check it; after ten minutes the device needs a new one.",
    )
}

pub(super) fn device_of_another_user() -> ServiceError {
    ServiceError::conflict("device_of_another_user", "This device's key is linked to another account.").hint("Give the device a new key.")
}

pub(super) fn device_revoked() -> ServiceError {
    ServiceError::conflict("device_revoked", "This device was revoked.").hint("Give the device a new key and log in again.")
}

/// Addresses that one caller has at will: an IPv4 address, or an IPv6 /64.
fn network_of(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("{}/64", std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// One line of text that a stranger sent, cut to this many bytes.
fn plain_line(text: &str, max_bytes: usize) -> String {
    let mut line: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    while line.len() > max_bytes {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_is_one_short_line() {
        assert_eq!(plain_line(" a\nb\0c ", 64), "abc");
        assert_eq!(plain_line(&"é".repeat(100), 64).len(), 64);
    }

    #[test]
    fn neighbours_of_one_network_count_as_one() {
        let net = |ip: &str| network_of(ip.parse().unwrap());
        assert_eq!(net("2001:db8:1:2::3"), net("2001:db8:1:2:ffff::"));
        assert_ne!(net("2001:db8:1:2::3"), net("2001:db8:1:3::3"));
        assert_eq!(net("::ffff:10.0.0.1"), net("10.0.0.1"));
        assert_ne!(net("10.0.0.1"), net("10.0.0.2"));
    }
}
