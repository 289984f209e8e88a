//! Access tokens: JWTs signed with an Ed25519 key that never leaves the relay (EdDSA, the only algorithm that is accepted).
//!
//! A token is believed only when its header has exactly the fields that we write, its key id is ours, the signature holds, and `iss`, `aud` and `typ` are
//! those of an access token of this relay. Whether its session still lives is asked separately, on each request.

use crate::service::{ServiceError, ServiceResult, SessionId};
use crate::store::keyfile;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_protocol::{DeviceId, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Who a token is for.
const AUDIENCE: &str = "ferry";
/// What a token is.
const TYPE: &str = "access";
/// Longest token that is looked at, in bytes.
const TOKEN_MAX_BYTES: usize = 4096;
/// How far ahead another replica's clock may be, in seconds.
const SKEW_S: i64 = 60;

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The user.
    pub sub: UserId,
    /// The device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<DeviceId>,
    /// The session, in hexadecimal.
    pub sid: String,
    /// Always `access`.
    pub typ: String,
    /// Always `ferry`.
    pub aud: String,
    /// This relay.
    pub iss: String,
    /// In seconds since 1970.
    pub exp: i64,
    /// In seconds since 1970.
    pub iat: i64,
    /// In seconds since 1970; we do not write it, but obey it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
}

/// Exactly the header that we write; whatever else a header carries (`crit`, `jku`, `jwk`, ...) makes the token ungood.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// The relay's signing key.
pub(crate) struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    kid: String,
    issuer: String,
}

impl TokenKey {
    /// Loads the key at `path`, or makes one (mode 0600). An unreadable or foreign file is an error.
    pub(crate) fn load_or_make(path: &Path, issuer: String) -> Result<Self, String> {
        let pair = keyfile::ed25519(path, "token key")?;
        let public = pair.public_key_raw();
        Ok(Self {
            encoding: EncodingKey::from_ed_der(&pair.serialize_der()),
            decoding: DecodingKey::from_ed_der(public),
            kid: hex::encode(&Sha256::digest(public)[..8]),
            issuer,
        })
    }

    /// Signs an access token that is good until `expires_at_ms`.
    pub(crate) fn sign(
        &self,
        user: UserId,
        device: Option<DeviceId>,
        session: SessionId,
        now_ms: i64,
        expires_at_ms: i64,
    ) -> ServiceResult<String> {
        let claims = Claims {
            sub: user,
            did: device,
            sid: session.to_string(),
            typ: TYPE.into(),
            aud: AUDIENCE.into(),
            iss: self.issuer.clone(),
            exp: expires_at_ms / 1000,
            iat: now_ms / 1000,
            nbf: None,
        };
        self.sign_claims(&claims)
    }

    fn sign_claims(&self, claims: &Claims) -> ServiceResult<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(ServiceError::internal)
    }

    /// What a good token says; none for every other string, without a reason.
    pub(crate) fn verify(&self, token: &str, now_ms: i64) -> Option<Claims> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
        let header: StrictHeader = serde_json::from_slice(&header).ok()?;
        if header.alg != "EdDSA" || header.typ != "JWT" || header.kid != self.kid {
            return None;
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        // Times are compared below, with the service's clock.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).ok()?.claims;
        let now_s = now_ms / 1000;
        let timely = claims.exp > now_s && claims.iat <= now_s + SKEW_S && claims.nbf.is_none_or(|nbf| nbf <= now_s + SKEW_S);
        (timely && claims.typ == TYPE).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW_MS: i64 = 1_800_000_000_000;

    fn key(dir: &tempfile::TempDir, name: &str) -> TokenKey {
        TokenKey::load_or_make(&dir.path().join(name), "relay-1".into()).unwrap()
    }

    fn good(key: &TokenKey) -> String {
        key.sign(UserId::from_bytes([1; 16]), None, SessionId::from_bytes([2; 16]), NOW_MS, NOW_MS + 900_000).unwrap()
    }

    /// A token with this header and these claims, signed by `key` as it stands.
    fn forged(key: &TokenKey, header: &Value, claims: &Value) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key.encoding, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn claims() -> Value {
        json!({"sub": "01".repeat(16), "sid": "02".repeat(16), "typ": "access", "aud": "ferry", "iss": "relay-1",
               "exp": NOW_MS / 1000 + 900, "iat": NOW_MS / 1000})
    }

    #[test]
    fn a_good_token_is_understood_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&dir, "a");
        let token = good(&key);
        assert_eq!(key.verify(&token, NOW_MS).unwrap().sub, UserId::from_bytes([1; 16]));
        assert!(key.verify(&token, NOW_MS + 899_000).is_some());
        assert!(key.verify(&token, NOW_MS + 900_000).is_none());
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": key.kid});
        assert!(key.verify(&forged(&key, &header, &claims()), NOW_MS).is_some(), "the forger of this test must be able to make a good one");
    }

    #[test]
    fn headers_that_we_do_not_write_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&dir, "a");
        for header in [
            json!({"alg": "none", "typ": "JWT", "kid": key.kid}),
            json!({"alg": "None", "typ": "JWT", "kid": key.kid}),
            json!({"alg": "HS256", "typ": "JWT", "kid": key.kid}),
            json!({"alg": "EdDSA", "typ": "JWT"}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": "../../x"}),
            json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": key.kid, "crit": ["x"]}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": key.kid, "jku": "https://x.invalid"}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": key.kid, "jwk": {"kty": "OKP"}}),
        ] {
            assert!(key.verify(&forged(&key, &header, &claims()), NOW_MS).is_none(), "{header}");
        }
        let unsigned = good(&key);
        let (message, _) = unsigned.rsplit_once('.').unwrap();
        assert!(key.verify(&format!("{message}."), NOW_MS).is_none());
        assert!(key.verify(message, NOW_MS).is_none());
        for text in ["", ".", "..", "x", &"a.".repeat(5000)] {
            assert!(key.verify(text, NOW_MS).is_none());
        }
    }

    #[test]
    fn a_secret_made_of_the_public_key_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&dir, "a");
        let public = key.decoding.try_get_as_bytes().unwrap().to_vec();
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(key.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&public)).unwrap();
        assert!(key.verify(&token, NOW_MS).is_none());
    }

    #[test]
    fn claims_of_another_kind_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&dir, "a");
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": key.kid});
        for (name, value) in [
            ("typ", json!("refresh")),
            ("aud", json!("other")),
            ("iss", json!("relay-2")),
            ("exp", json!(NOW_MS / 1000 - 1)),
            ("iat", json!(NOW_MS / 1000 + 3600)),
            ("nbf", json!(NOW_MS / 1000 + 3600)),
            ("sub", json!("alice")),
            ("sid", Value::Null),
            ("exp", Value::Null),
            ("aud", Value::Null),
            ("iss", Value::Null),
        ] {
            let mut changed = claims();
            changed.as_object_mut().unwrap().insert(name.into(), value.clone());
            if value.is_null() {
                changed.as_object_mut().unwrap().remove(name);
            }
            assert!(key.verify(&forged(&key, &header, &changed), NOW_MS).is_none(), "{name}={value}");
        }
    }

    #[test]
    fn another_key_and_a_flipped_bit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (key(&dir, "a"), key(&dir, "b"));
        assert!(a.verify(&good(&b), NOW_MS).is_none());
        let mut token = good(&a).into_bytes();
        let at = token.len() - 10;
        token[at] = if token[at] == b'A' { b'B' } else { b'A' };
        assert!(a.verify(&String::from_utf8(token).unwrap(), NOW_MS).is_none());
    }

    #[test]
    fn the_key_is_kept_closed_and_foreign_files_stop_the_start() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let token = good(&key(&dir, "a"));
        assert!(key(&dir, "a").verify(&token, NOW_MS).is_some(), "the key survives a restart");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(TokenKey::load_or_make(&path, "r".into()).err().unwrap().contains("chmod 600"));
        for text in ["", "secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            keyfile::write(&path, text.as_bytes()).unwrap();
            assert!(TokenKey::load_or_make(&path, "r".into()).is_err());
        }
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        keyfile::write(&path, other.serialize_pem().as_bytes()).unwrap();
        assert!(TokenKey::load_or_make(&path, "r".into()).err().unwrap().contains("Ed25519"));
    }
}
