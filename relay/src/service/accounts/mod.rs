//! Accounts: who may log in, with which devices, and what their tokens are good for.
//!
//! Invariants of this module (all part of I13):
//! * **A1** A token is believed for at most [`CACHE_MS`] after its session, device or user ended, and not at all on the process that ended it. The other processes
//!   hear of it by the bus; the bound holds without the bus.
//! * **A2** Secrets (passwords, refresh tokens, codes) are kept as hashes and compared as hashes.
//! * **A3** An unknown address and a wrong password have one answer and cost the same.
//! * **A4** A failure to find out is a refusal.

mod app_passwords;
mod browser;
mod device_flow;
mod factors;
mod identities;
mod limiter;
mod login;
mod passwords;
mod seal;
mod secrets;
mod tokens;
mod users;

#[cfg(test)]
mod tests;

pub use app_passwords::NewAppPassword;
pub use browser::BrowserLogin;
pub use device_flow::{DeviceCodes, WaitingDevice};
pub use factors::{NewTotp, TotpState};
pub use identities::FLOW_TTL_MS;
pub use login::{DeviceIntro, OneTimeCode, TokenSet};
pub use passwords::{PASSWORD_MAX_BYTES, PASSWORD_MIN_BYTES};
pub(in crate::service) use users::email_key;
pub use users::{Invite, NewUser};

use crate::StartError;
use crate::clock::Clock;
use crate::config::{Auth, Registration};
use crate::service::peers::Peers;
use crate::service::shared::Shared;
use crate::service::{Caller, ServiceError, ServiceResult, SessionId, origin};
use crate::store::accounts::{AccountStore, AuditEntry, SessionAccess};
use crate::store::bus::{Heard, Wake};
use ferry_protocol::{DeviceId, UserId};
use limiter::Limiter;
use passwords::Passwords;
use seal::SealKey;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokens::TokenKey;

/// How long the state of a session is believed without asking the store, in milliseconds (A1).
pub const CACHE_MS: i64 = 5_000;
/// Most sessions remembered; beyond this the memory starts anew.
const CACHE_SESSIONS_MAX: usize = 100_000;

/// Entries of the audit log that are dropped at once.
const AUDIT_BATCH: u32 = 1000;

/// How long ended sessions, tokens and codes are kept, in milliseconds: until nobody asks what became of them.
const ENDED_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;

/// The accounts service.
pub struct Accounts {
    store: Arc<dyn AccountStore>,
    /// Told of devices that come, go or change.
    peers: Arc<Peers>,
    clock: Arc<dyn Clock>,
    policy: Auth,
    key: TokenKey,
    seal: SealKey,
    passwords: Passwords,
    limiter: Limiter,
    shared: Shared,
    relay_id: String,
    cache: Mutex<Cache>,
}

/// Sessions whose state was read within [`CACHE_MS`].
#[derive(Default)]
struct Cache {
    sessions: HashMap<SessionId, (SessionAccess, i64)>,
    /// Grows with each revocation: what was read before it is not remembered after it.
    generation: u64,
}

impl Accounts {
    /// Opens the service; makes the signing key at the first start.
    pub async fn open(
        data: &Path,
        policy: &Auth,
        store: Arc<dyn AccountStore>,
        peers: Arc<Peers>,
        shared: Shared,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let relay_id = store.setting_or_insert("relay_id", &hex::encode(random::<16>()?), clock.now_ms()).await?;
        let path = if policy.jwt_key.is_empty() { data.join("jwt.key") } else { (&policy.jwt_key).into() };
        let key = TokenKey::load_or_make(&path, format!("ferry-relay:{relay_id}")).map_err(StartError::Data)?;
        let path = if policy.secrets_key.is_empty() { data.join("secrets.key") } else { (&policy.secrets_key).into() };
        let seal = SealKey::load_or_make(&path).map_err(StartError::Data)?;
        let passwords = Passwords::new()?;
        Ok(Self {
            store,
            peers,
            clock,
            policy: policy.clone(),
            key,
            seal,
            passwords,
            limiter: Limiter::new(shared.clone()),
            shared,
            relay_id,
            cache: Mutex::default(),
        })
    }

    /// Who holds this access token. Checks signature, claims, and that session, device and user are still good (A1, A4).
    pub async fn authenticate(&self, token: &str) -> ServiceResult<Caller> {
        let now_ms = self.clock.now_ms();
        let claims = self.key.verify(token, now_ms).ok_or_else(ServiceError::unauthenticated)?;
        let session_id: SessionId = claims.sid.parse().map_err(|_| ServiceError::unauthenticated())?;
        let access = self.access(session_id, now_ms).await?;
        if !access.live || access.user_id != claims.sub || access.device_id != claims.did {
            return Err(ServiceError::unauthenticated());
        }
        Ok(Caller {
            user_id: access.user_id,
            device_id: access.device_id,
            session_id,
            role: access.role,
            expires_at_ms: claims.exp.saturating_mul(1000),
            token: None,
        })
    }

    /// The same, asking the store whatever is remembered: for a connection that has just heard of a revocation.
    pub async fn authenticate_anew(&self, token: &str) -> ServiceResult<Caller> {
        if let Some(claims) = self.key.verify(token, self.clock.now_ms()) {
            self.forget_here(Some(claims.sub));
        }
        self.authenticate(token).await
    }

    async fn access(&self, session_id: SessionId, now_ms: i64) -> ServiceResult<SessionAccess> {
        let generation = {
            let cache = self.cache();
            match cache.sessions.get(&session_id) {
                Some((access, at_ms)) if (0..CACHE_MS).contains(&(now_ms - at_ms)) => return Ok(*access),
                _ => cache.generation,
            }
        };
        let access = self.store.session_access(session_id).await?.ok_or_else(ServiceError::unauthenticated)?;
        let mut cache = self.cache();
        if cache.generation == generation {
            if cache.sessions.len() >= CACHE_SESSIONS_MAX {
                cache.sessions.clear();
            }
            cache.sessions.insert(session_id, (access, now_ms));
        }
        Ok(access)
    }

    /// What this user may do has changed: nobody goes by what is remembered of it, here and in the other processes.
    fn forget_cached(&self, user_id: UserId) {
        self.forget_here(Some(user_id));
        self.shared.bus.publish(Wake::access(user_id));
    }

    /// Asks the store about this user again, or about everyone.
    fn forget_here(&self, user_id: Option<UserId>) {
        let mut cache = self.cache();
        match user_id {
            Some(user_id) => cache.sessions.retain(|_, (access, _)| access.user_id != user_id),
            None => cache.sessions.clear(),
        }
        cache.generation += 1;
    }

    /// Forgets what other processes say has changed, until the bus or the service is gone.
    pub fn heed(self: &Arc<Self>) {
        let (accounts, mut wakes) = (Arc::downgrade(self), self.shared.bus.subscribe());
        tokio::spawn(async move {
            while let (Some(heard), Some(accounts)) = (wakes.next().await, accounts.upgrade()) {
                accounts.hear(heard);
            }
        });
    }

    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Wake(Wake::Access { user }) => self.forget_here(Some(user)),
            Heard::Wake(_) => {}
            Heard::Missed => self.forget_here(None),
        }
    }

    /// The relay's own id, the same for all its processes: 32 hexadecimal digits.
    pub fn relay_id(&self) -> &str {
        &self.relay_id
    }

    /// Whether there is an administrator.
    pub async fn is_set_up(&self) -> ServiceResult<bool> {
        Ok(self.store.admins().await? > 0)
    }

    /// Who may register.
    pub fn registration(&self) -> Registration {
        self.policy.registration
    }

    /// Drops what ended long ago: call now and then.
    pub async fn forget_ended(&self) -> ServiceResult<()> {
        let before_ms = self.clock.now_ms() - ENDED_KEPT_MS;
        self.store.forget_ended_signins(before_ms).await?;
        Ok(self.store.forget_ended(before_ms).await?)
    }

    /// Drops entries of the audit log that are older than the configuration keeps them. How many.
    pub async fn forget_audit(&self, keep_days: u32) -> ServiceResult<u64> {
        let mut dropped = 0;
        if keep_days == 0 {
            return Ok(dropped);
        }
        let before_ms = self.clock.now_ms() - i64::from(keep_days) * 24 * 3600 * 1000;
        loop {
            let some = self.store.forget_audit(before_ms, AUDIT_BATCH).await?;
            dropped += some;
            if some < u64::from(AUDIT_BATCH) {
                return Ok(dropped);
            }
        }
    }

    /// A setting of the relay as a whole.
    pub async fn setting(&self, key: &str) -> ServiceResult<Option<String>> {
        Ok(self.store.setting(key).await?)
    }

    /// Gives a setting of the relay as a whole a value.
    pub async fn put_setting(&self, key: &str, value: &str) -> ServiceResult<()> {
        Ok(self.store.put_setting(key, value, self.clock.now_ms()).await?)
    }

    /// Writes an event of the relay as a whole to the audit log: what an operator did with its stores.
    pub async fn note_operation(&self, event: &str, detail: &str) {
        self.note(event, None, None, None, detail).await;
    }

    /// Writes to the audit log that a caller did something that cannot be taken back.
    pub async fn note_act(&self, caller: &Caller, event: &str, detail: &str) {
        self.note(event, Some(caller.user_id), caller.device_id, None, detail).await;
    }

    /// The hash of a password that is none of an account's. It waits in the same queue as logins.
    pub(crate) async fn hash_password(&self, password: &str) -> ServiceResult<String> {
        passwords::check_new(password)?;
        self.passwords.hash(password).await
    }

    /// Compares such a password with its hash.
    pub(crate) async fn is_password(&self, password: &str, hash: &str) -> ServiceResult<bool> {
        Ok(self.passwords.verify(password, Some(hash)).await?.good)
    }

    /// Encrypts what the relay must be able to show again, for this purpose and owner only.
    pub(crate) fn seal(&self, purpose: &str, of: &[u8], secret: &[u8]) -> ServiceResult<Vec<u8>> {
        self.seal.seal(purpose, of, secret)
    }

    /// Decrypts it; none for everything else.
    pub(crate) fn unseal(&self, purpose: &str, of: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.seal.open(purpose, of, sealed)
    }

    /// Writes to the audit log, and to the log, where it can be watched. An audit log that cannot be written does not undo what was done, but the
    /// operator hears of it. Who did it and from where is what [`origin`] says, unless the event itself knows the address.
    async fn note(&self, event: &str, user_id: Option<UserId>, device_id: Option<DeviceId>, ip: Option<IpAddr>, detail: &str) {
        metrics::counter!("ferry_relay_auth_events_total", "event" => event.to_owned()).increment(1);
        let from = origin::current();
        let entry = AuditEntry {
            audit_id: 0,
            actor_id: from.actor,
            via: from.via.as_str().to_owned(),
            at_ms: self.clock.now_ms(),
            event: event.to_owned(),
            user_id,
            device_id,
            remote_ip: ip.or(from.ip).map(|ip| ip.to_string()),
            detail: detail.to_owned(),
        };
        let text = |id: Option<String>| id.unwrap_or_default();
        tracing::info!(
            target: "ferry_relay::audit",
            event,
            user_id = text(user_id.map(|u| u.to_string())),
            device_id = text(device_id.map(|d| d.to_string())),
            actor_id = text(from.actor.map(|u| u.to_string())),
            via = entry.via,
            remote_ip = entry.remote_ip,
            "audit"
        );
        if let Err(error) = self.store.audit(&entry).await {
            tracing::error!(%error, event, "cannot write to the audit log");
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // The map is whole after each statement, so a panic elsewhere leaves nothing half done in it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Random bytes from the operating system. Without them nothing secret can be made, so the caller fails.
fn random<const N: usize>() -> ServiceResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| ServiceError::internal(format!("no random numbers: {e}")))?;
    Ok(bytes)
}
