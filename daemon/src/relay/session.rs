//! Tokens: who this device is to its relay, renewed by one task at a time (N3).

use super::error::RelayError;
use super::http::{Body, Http, JSON, Request};
use crate::identity::{Credentials, CredentialsFile, GrantKey, Identity, IdentityError};
use ferry_protocol::{DeviceId, UserId};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Our name among a relay's OAuth clients.
pub(super) const CLIENT_ID: &str = "ferry";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Where credentials rest. `save` returns when they are on the disk.
pub trait KeepCredentials: Send + Sync + 'static {
    /// Replaces the stored credentials.
    fn save(&self, credentials: &Credentials) -> Result<(), IdentityError>;
    /// Forgets them.
    fn remove(&self) -> Result<(), IdentityError>;
}

impl KeepCredentials for CredentialsFile {
    fn save(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        CredentialsFile::save(self, credentials)
    }

    fn remove(&self) -> Result<(), IdentityError> {
        CredentialsFile::remove(self)
    }
}

/// How this device presents itself when it logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name for people.
    pub name: String,
    /// Its raw Ed25519 public key.
    pub public_key: [u8; 32],
}

impl DeviceInfo {
    /// This identity under a name.
    pub fn new(name: impl Into<String>, identity: &Identity) -> Self {
        Self { name: name.into(), public_key: identity.public_key() }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "name": self.name, "public_key": hex::encode(self.public_key) })
    }
}

/// The relay's answer to login, join and refresh.
#[derive(Deserialize)]
struct TokenReply {
    access_token: String,
    refresh_token: String,
    /// In how many seconds the access token ends.
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    user_id: Option<UserId>,
    #[serde(default)]
    device_id: Option<DeviceId>,
    /// Text, so that a key of another kind does not cost the tokens beside it.
    #[serde(default)]
    grant_key: Option<String>,
}

impl TokenReply {
    fn grant_key(&self) -> Option<GrantKey> {
        self.grant_key.as_deref()?.parse().ok()
    }
}

struct State {
    credentials: Option<Credentials>,
    /// The pair in memory is newer than the stored one, which is used up.
    unsaved: bool,
    /// When to renew the access token without being told: a relay that refuses a long upload may not be heard in the middle of it.
    renew_at: Option<Instant>,
}

/// The session of one device on one relay.
pub(super) struct Session {
    http: Arc<Http>,
    keep: Arc<dyn KeepCredentials>,
    state: Mutex<State>,
}

impl Session {
    pub(super) fn new(http: Arc<Http>, keep: Arc<dyn KeepCredentials>, credentials: Option<Credentials>) -> Self {
        Self { http, keep, state: Mutex::new(State { credentials, unsaved: false, renew_at: None }) }
    }

    pub(super) async fn credentials(&self) -> Option<Credentials> {
        self.state.lock().await.credentials.clone()
    }

    /// Logs in; `code` is that of the second factor, where the account has one.
    pub(super) async fn login(
        self: &Arc<Self>,
        email: &str,
        password: &str,
        code: Option<&str>,
        device: &DeviceInfo,
    ) -> Result<Credentials, RelayError> {
        let device = device.json();
        let first = self.enter("/auth/login", json!({ "email": email, "password": password, "device": device })).await;
        let token = match (&first, code) {
            (Err(RelayError::Forbidden(problem)), Some(_)) => problem.mfa_token.clone(),
            _ => None,
        };
        let (Some(token), Some(code)) = (token, code) else { return first };
        self.enter("/auth/mfa", json!({ "mfa_token": token, "code": code, "device": device })).await
    }

    /// Asks for the tokens of a device that somebody may have let in by now.
    pub(super) async fn redeem(self: &Arc<Self>, device_code: &str) -> Result<Credentials, RelayError> {
        let fields = [("grant_type", DEVICE_GRANT), ("device_code", device_code), ("client_id", CLIENT_ID)];
        self.enter_by(Request::post("/oauth/token", Body::form(&fields), Some(JSON))).await
    }

    pub(super) async fn join(self: &Arc<Self>, secret: &str, device: &DeviceInfo) -> Result<Credentials, RelayError> {
        self.enter("/auth/join", json!({ "secret": secret, "device": device.json() })).await
    }

    async fn enter(self: &Arc<Self>, path: &'static str, body: serde_json::Value) -> Result<Credentials, RelayError> {
        self.enter_by(Request::post(path, Body::json(&body), Some(JSON))).await
    }

    async fn enter_by(self: &Arc<Self>, request: Request) -> Result<Credentials, RelayError> {
        let session = Arc::clone(self);
        // A task of its own: a secret that was used up must not be lost because the caller went away.
        run_to_end(async move {
            let mut state = session.state.lock().await;
            let reply = session.ask_by(&request).await.map_err(|e| match e {
                // A wrong password is not mended by "log in again".
                RelayError::LoginRequired { reason } => {
                    RelayError::Forbidden(super::Problem { code: "not_accepted".into(), detail: reason, ..Default::default() })
                }
                other => other,
            })?;
            let (Some(user_id), Some(device_id)) = (reply.user_id, reply.device_id) else {
                return Err(RelayError::VersionMismatch { detail: "The relay linked no device: upgrade the relay.".into() });
            };
            let relay = session.http.base.to_string();
            let grant_key = reply.grant_key();
            let credentials =
                Credentials { relay, user_id, device_id, access_token: reply.access_token, refresh_token: reply.refresh_token, grant_key };
            state.renew_at = renew_at(reply.expires_in);
            session.store(&mut state, credentials.clone()).await?;
            Ok(credentials)
        })
        .await
    }

    async fn ask(&self, path: &str, body: serde_json::Value) -> Result<TokenReply, RelayError> {
        self.ask_by(&Request::post(path, Body::json(&body), Some(JSON))).await
    }

    async fn ask_by(&self, request: &Request) -> Result<TokenReply, RelayError> {
        let reply = self.http.call(request, None).await?;
        serde_json::from_slice(&reply).map_err(|e| RelayError::VersionMismatch {
            detail: format!("The relay's answer to {} is not what this version expects ({e}): upgrade the older side.", request.path),
        })
    }

    async fn store(&self, state: &mut State, credentials: Credentials) -> Result<(), RelayError> {
        state.credentials = Some(credentials.clone());
        state.unsaved = true;
        let keep = Arc::clone(&self.keep);
        let saved = tokio::task::spawn_blocking(move || keep.save(&credentials)).await;
        match saved {
            Ok(Ok(())) => {
                state.unsaved = false;
                Ok(())
            }
            Ok(Err(e)) => Err(RelayError::retry(format!("The renewed login cannot be stored: {e}."))),
            Err(_) => Err(RelayError::retry("The renewed login cannot be stored; ferry tries again by itself.")),
        }
    }

    /// The access token, renewed when it is about to end. A pair that could not be stored is stored first (N3).
    async fn access_token(self: &Arc<Self>) -> Result<String, RelayError> {
        let mut state = self.state.lock().await;
        let credentials = state.credentials.clone().ok_or_else(not_logged_in)?;
        if state.unsaved {
            self.store(&mut state, credentials.clone()).await?;
        }
        if state.renew_at.is_some_and(|at| at <= Instant::now()) {
            drop(state);
            return self.renewed(credentials.access_token).await;
        }
        Ok(credentials.access_token)
    }

    /// A new access token in place of `refused`. Callers that come while one refresh runs get its result.
    async fn renewed(self: &Arc<Self>, refused: String) -> Result<String, RelayError> {
        let session = Arc::clone(self);
        // A task of its own: the answer that carries the only valid token must not be lost because the caller went away.
        run_to_end(async move {
            let mut state = session.state.lock().await;
            let old = state.credentials.clone().ok_or_else(not_logged_in)?;
            if old.access_token != refused {
                return Ok(old.access_token);
            }
            let reply = session.ask("/auth/refresh", json!({ "refresh_token": old.refresh_token })).await?;
            let grant_key = reply.grant_key().or(old.grant_key);
            let credentials = Credentials { access_token: reply.access_token, refresh_token: reply.refresh_token, grant_key, ..old };
            let token = credentials.access_token.clone();
            state.renew_at = renew_at(reply.expires_in);
            session.store(&mut state, credentials).await?;
            Ok(token)
        })
        .await
    }

    /// The relay signs grants with this key from now on.
    pub(super) async fn keep_grant_key(self: &Arc<Self>, key: GrantKey) -> Result<(), RelayError> {
        let session = Arc::clone(self);
        run_to_end(async move {
            let mut state = session.state.lock().await;
            let old = state.credentials.clone().ok_or_else(not_logged_in)?;
            if old.grant_key.as_ref() == Some(&key) {
                return Ok(());
            }
            session.store(&mut state, Credentials { grant_key: Some(key), ..old }).await
        })
        .await
    }

    /// Ends the session here, and on the relay if that can be reached.
    pub(super) async fn logout(&self) -> Result<(), RelayError> {
        let mut state = self.state.lock().await;
        let Some(credentials) = state.credentials.take() else { return Ok(()) };
        let mut told = self.tell_logout(&credentials.refresh_token, &credentials.access_token).await;
        if let Err(RelayError::LoginRequired { .. }) = told {
            // The access token ended; the login behind it has not.
            if let Ok(new) = self.ask("/auth/refresh", json!({ "refresh_token": credentials.refresh_token })).await {
                told = self.tell_logout(&new.refresh_token, &new.access_token).await;
            }
        }
        let keep = Arc::clone(&self.keep);
        let removed = tokio::task::spawn_blocking(move || keep.remove()).await;
        if let Ok(Err(e)) = removed {
            return Err(RelayError::retry(format!("The stored login cannot be removed: {e}.")));
        }
        match told {
            // The relay had ended it already.
            Err(RelayError::LoginRequired { .. }) => Ok(()),
            told => told,
        }
    }

    async fn tell_logout(&self, refresh_token: &str, access_token: &str) -> Result<(), RelayError> {
        let body = Body::json(&json!({ "refresh_token": refresh_token }));
        self.http.send(&Request::post("/auth/logout", body, None), Some(access_token)).await.map(drop)
    }

    /// Runs a request with the access token, and once more with a new one if the relay refuses it.
    pub(super) async fn with_token<T, F>(self: &Arc<Self>, call: impl Fn(String) -> F) -> Result<T, RelayError>
    where
        F: Future<Output = Result<T, RelayError>>,
    {
        let token = self.access_token().await?;
        match call(token.clone()).await {
            Err(RelayError::LoginRequired { .. }) => call(self.renewed(token).await?).await,
            other => other,
        }
    }
}

/// When a fifth of the token's life is left.
fn renew_at(expires_in: Option<u64>) -> Option<Instant> {
    let life = Duration::from_secs(expires_in?);
    Instant::now().checked_add(life - life / 5)
}

fn not_logged_in() -> RelayError {
    RelayError::LoginRequired { reason: "This device is not logged in.".into() }
}

async fn run_to_end<T: Send + 'static>(work: impl Future<Output = Result<T, RelayError>> + Send + 'static) -> Result<T, RelayError> {
    // It ends without a result only when the runtime stops.
    tokio::spawn(work).await.unwrap_or_else(|_| Err(RelayError::retry("ferry is stopping.")))
}
