//! Other providers of identities, spoken to in OpenID Connect: the code flow with PKCE, state and nonce. The only door to the outside for it; what a
//! verified identity opens is decided in [`service::accounts`](crate::service::accounts).
//!
//! * **O1** An identity is believed only from an ID token that the provider signed with one of its published keys, for this relay, for this login,
//!   and that is not over.
//! * **O2** No redirect is followed and no long answer is read: a provider is a stranger with a name.

use crate::config::OidcSettings;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreIdTokenClaims, CoreJwsSigningAlgorithm, CoreProviderMetadata,
};
use openidconnect::{
    AccessToken, AccessTokenHash, AsyncHttpClient, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken,
    HttpRequest, HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    TokenResponse,
};
use serde::{Deserialize, Serialize};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long a provider's description and keys are kept.
const METADATA_TTL: Duration = Duration::from_secs(3600);
/// The least time between two looks at them because a token does not fit: whoever sends bad tokens cannot make us ask all the time.
const METADATA_AGAIN: Duration = Duration::from_secs(5);
/// How long a provider may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer that is read, in bytes.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;
/// The algorithms of keys that only the provider has. Neither `none` nor one with a shared secret.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Why a login through a provider did not work.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The provider does not answer, or not as one.
    #[error("{0}")]
    Unavailable(String),
    /// The provider says no, or what it says is not to be believed.
    #[error("{0}")]
    Refused(String),
}

/// Where to send a browser, and what must be remembered until it comes back.
pub struct Started {
    /// The provider's page.
    pub url: String,
    /// For [`Provider::finish`].
    pub flow: Flow,
}

/// A login that is under way at a provider. It travels in the browser's cookie, sealed: its verifier and nonce are nobody's to read.
#[derive(Clone, Serialize, Deserialize)]
pub struct Flow {
    /// The provider's name.
    pub provider: String,
    /// What must come back in the address.
    pub state: String,
    nonce: String,
    verifier: String,
    /// Where the browser wanted to go.
    pub next: String,
}

/// Who the provider says that somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The provider.
    pub issuer: String,
    /// The account there, for ever.
    pub subject: String,
    /// The address there.
    pub email: Option<String>,
    /// Whether the provider has made sure that the address is theirs.
    pub is_email_verified: bool,
    /// For people.
    pub name: Option<String>,
}

/// A provider that the operator has named.
pub struct Provider {
    name: String,
    settings: OidcSettings,
    redirect: RedirectUrl,
    http: Http,
    metadata: Mutex<Option<(Arc<CoreProviderMetadata>, Instant)>>,
}

impl Provider {
    /// The provider `name`; nothing is asked yet. `base_url` is this relay's address, to which browsers come back.
    pub fn new(name: &str, settings: &OidcSettings, base_url: &str) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot use the provider auth.oidc.{name}: {e}");
        crate::install_tls_provider();
        let http = reqwest::Client::builder()
            .user_agent(concat!("ferry-relay/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|e| failed(&e))?;
        let redirect = RedirectUrl::new(format!("{base_url}/auth/oidc/{name}/callback")).map_err(|e| failed(&e))?;
        Ok(Self { name: name.to_owned(), settings: settings.clone(), redirect, http: Http(http), metadata: Mutex::default() })
    }

    /// Its name in addresses.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the operator has set.
    pub fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// Its name for people.
    pub fn label(&self) -> &str {
        if self.settings.label.is_empty() { &self.name } else { &self.settings.label }
    }

    /// Begins a login.
    pub async fn start(&self, next: &str) -> Result<Started, OidcError> {
        let metadata = self.metadata(METADATA_TTL).await?;
        let client = self.client(&metadata);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let scopes = self.settings.scopes.iter().filter(|s| *s != "openid").map(|s| Scope::new(s.clone()));
        let (url, state, nonce) = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(scopes)
            .set_pkce_challenge(challenge)
            .url();
        let flow = Flow {
            provider: self.name.clone(),
            state: state.secret().clone(),
            nonce: nonce.secret().clone(),
            verifier: verifier.secret().clone(),
            next: next.to_owned(),
        };
        Ok(Started { url: url.to_string(), flow })
    }

    /// Exchanges the code that the browser brought back for an identity, and checks it (O1).
    pub async fn finish(&self, code: &str, flow: &Flow) -> Result<Verified, OidcError> {
        let metadata = self.metadata(METADATA_TTL).await?;
        let (token, access) = self.exchange(&metadata, code, flow).await?;
        let nonce = Nonce::new(flow.nonce.clone());
        match self.claims(&metadata, &token, &access, &nonce) {
            Ok(verified) => Ok(verified),
            // The provider may sign with a key that is newer than what we know of it.
            Err(Unbelieved { why, is_signature: true }) => {
                let fresh = self.metadata(METADATA_AGAIN).await?;
                if Arc::ptr_eq(&fresh, &metadata) {
                    return Err(OidcError::Refused(why));
                }
                self.claims(&fresh, &token, &access, &nonce).map_err(|e| OidcError::Refused(e.why))
            }
            Err(Unbelieved { why, .. }) => Err(OidcError::Refused(why)),
        }
    }

    async fn exchange(&self, metadata: &CoreProviderMetadata, code: &str, flow: &Flow) -> Result<(CoreIdToken, AccessToken), OidcError> {
        let client = self.client(metadata);
        let request = client.exchange_code(AuthorizationCode::new(code.to_owned()));
        let request = request.map_err(|_| OidcError::Unavailable("The provider has no token endpoint.".into()))?;
        let answer = request.set_pkce_verifier(PkceCodeVerifier::new(flow.verifier.clone())).request_async(&self.http).await;
        let answer = answer.map_err(|e| match e {
            openidconnect::RequestTokenError::ServerResponse(said) => {
                OidcError::Refused(format!("The provider refused the login: {said}."))
            }
            other => OidcError::Unavailable(format!("The provider's answer cannot be used: {}.", causes(&other))),
        })?;
        let token = answer.id_token().ok_or_else(|| OidcError::Refused("The provider sent no ID token.".into()))?;
        Ok((token.clone(), answer.access_token().clone()))
    }

    fn claims(
        &self,
        metadata: &CoreProviderMetadata,
        token: &CoreIdToken,
        access: &AccessToken,
        nonce: &Nonce,
    ) -> Result<Verified, Unbelieved> {
        let client = self.client(metadata);
        let verifier = client.id_token_verifier().set_allowed_algs(ALGORITHMS);
        let claims: &CoreIdTokenClaims = token.claims(&verifier, nonce).map_err(|e| Unbelieved {
            is_signature: matches!(e, ClaimsVerificationError::SignatureVerification(_)),
            why: format!("The provider's token is not to be believed: {}.", causes(&e)),
        })?;
        if let Some(expected) = claims.access_token_hash() {
            let wrong = |e: &dyn std::fmt::Display| Unbelieved {
                why: format!("The provider's tokens do not belong together: {e}."),
                is_signature: false,
            };
            let key = token.signing_key(&verifier).map_err(|e| wrong(&e))?;
            let found = AccessTokenHash::from_token(access, token.signing_alg().map_err(|e| wrong(&e))?, key).map_err(|e| wrong(&e))?;
            if found != *expected {
                return Err(wrong(&"the access token is another one"));
            }
        }
        Ok(Verified {
            issuer: claims.issuer().to_string(),
            subject: claims.subject().to_string(),
            email: claims.email().map(|e| e.to_string()),
            is_email_verified: claims.email_verified() == Some(true),
            name: claims.name().and_then(|n| n.get(None)).map(|n| n.to_string()),
        })
    }

    /// What the provider says of itself, at most this old.
    async fn metadata(&self, oldest: Duration) -> Result<Arc<CoreProviderMetadata>, OidcError> {
        let mut known = self.metadata.lock().await;
        if let Some((metadata, at)) = &*known
            && at.elapsed() < oldest
        {
            return Ok(metadata.clone());
        }
        let issuer = IssuerUrl::new(self.settings.issuer.clone()).map_err(|e| OidcError::Unavailable(e.to_string()))?;
        let found = CoreProviderMetadata::discover_async(issuer, &self.http).await;
        let found = found.map_err(|e| OidcError::Unavailable(format!("The provider cannot be reached: {}.", causes(&e))))?;
        let found = Arc::new(found);
        *known = Some((found.clone(), Instant::now()));
        Ok(found)
    }

    fn client(&self, metadata: &CoreProviderMetadata) -> ProviderClient {
        let secret = (!self.settings.client_secret.is_empty()).then(|| ClientSecret::new(self.settings.client_secret.clone()));
        CoreClient::from_provider_metadata(metadata.clone(), ClientId::new(self.settings.client_id.clone()), secret)
            .set_redirect_uri(self.redirect.clone())
    }
}

/// The way out: no redirect, no long answer, no secret in clear (O2).
struct Http(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, SendError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

impl Http {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, SendError> {
        let url = request.uri().to_string();
        if !is_safe(&url) {
            return Err(SendError(format!("{url} is neither https:// nor on this machine")));
        }
        let (parts, body) = request.into_parts();
        let failed = |e: reqwest::Error| SendError(causes(&e));
        let mut answer = self.0.request(parts.method, url).headers(parts.headers).body(body).send().await.map_err(failed)?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + piece.len() > ANSWER_MAX_BYTES {
                return Err(SendError(format!("an answer of more than {ANSWER_MAX_BYTES} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        let mut response = HttpResponse::new(bytes);
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

type ProviderClient = CoreClient<
    openidconnect::EndpointSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointMaybeSet,
    openidconnect::EndpointMaybeSet,
>;

/// A token that does not hold.
struct Unbelieved {
    why: String,
    is_signature: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SendError(String);

/// Whether secrets may travel to this address: over TLS, or on this machine only.
pub(crate) fn is_safe(url: &str) -> bool {
    let host = |rest: &str| rest.split(['/', '?', '#']).next().unwrap_or("").rsplit_once(':').map_or(rest, |(host, _)| host).to_owned();
    match url.split_once("://") {
        Some(("https", _)) => true,
        Some(("http", rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
            matches!(host(authority).as_str(), "127.0.0.1" | "localhost" | "[::1]") && !authority.contains('@')
        }
        _ => false,
    }
}

/// An error with what is behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error;
    while let Some(cause) = at.source() {
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!(": {cause}"));
        at = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_over_tls_or_not_at_all() {
        for safe in ["https://id.example/x", "http://127.0.0.1:8080/x", "http://localhost/", "http://[::1]:1/x"] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_ in [
            "http://id.example",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://127.0.0.1:1@evil/",
            "ftp://x",
            "",
        ] {
            assert!(!is_safe(unsafe_), "{unsafe_}");
        }
    }
}
