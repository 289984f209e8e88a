//! Encryption of what the relay must be able to read again and a stolen database must not tell: secrets of second factors, and what a browser carries
//! for us. AES-256-GCM under a key that is a file of its own; what it is for, and for whom, is authenticated with it, so that no sealed value can be put
//! in another's place.

use super::random;
use crate::service::{ServiceError, ServiceResult};
use crate::store::keyfile;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use std::path::Path;

/// The key.
pub(crate) struct SealKey(RandomizedNonceKey);

impl SealKey {
    /// Loads the key at `path` (64 hexadecimal digits), or makes one (mode 0600). An unreadable or foreign file is an error (R08).
    pub(crate) fn load_or_make(path: &Path) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot use the secrets key {}: {e}", path.display());
        if !path.try_exists().map_err(|e| failed(&e))? {
            let fresh = random::<32>().map_err(|e| failed(&e))?;
            keyfile::write(path, format!("{}\n", hex::encode(fresh)).as_bytes()).map_err(|e| failed(&e))?;
        }
        let text = keyfile::read(path).map_err(|e| failed(&e))?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim_ascii_end(), &mut bytes).map_err(|_| failed(&"it does not hold 64 hexadecimal digits"))?;
        if bytes.iter().all(|b| *b == bytes[0]) {
            return Err(failed(&"it is no secret; remove the file and a new one is made"));
        }
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(Self).map_err(|e| failed(&e))
    }

    /// Encrypts. `purpose` says what it is for, `of` whose it is.
    pub(crate) fn seal(&self, purpose: &str, of: &[u8], secret: &[u8]) -> ServiceResult<Vec<u8>> {
        let mut sealed = secret.to_vec();
        let failed = |_| ServiceError::internal("cannot encrypt");
        let nonce = self.0.seal_in_place_append_tag(bound_to(purpose, of), &mut sealed).map_err(failed)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Decrypts what was sealed for this purpose and owner; none for everything else.
    pub(crate) fn open(&self, purpose: &str, of: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = sealed.to_vec();
        let length = self.0.open_in_place(nonce, bound_to(purpose, of), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

/// The length keeps two pairs apart that read the same when written one after the other.
fn bound_to(purpose: &str, of: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[purpose.len() as u8], purpose.as_bytes(), of].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = SealKey::load_or_make(&dir.path().join("a")).unwrap();
        let sealed = key.seal("totp", b"ana", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_ne!(key.seal("totp", b"ana", b"secret").unwrap(), sealed, "never the same twice");
        let again = SealKey::load_or_make(&dir.path().join("a")).unwrap();
        assert_eq!(again.open("totp", b"ana", &sealed).as_deref(), Some(&b"secret"[..]), "the key survives a restart");
        let other = SealKey::load_or_make(&dir.path().join("b")).unwrap();
        assert_eq!(other.open("totp", b"ana", &sealed), None);
        assert_eq!(key.open("totp", b"bob", &sealed), None);
        assert_eq!(key.open("oidc", b"ana", &sealed), None);
        assert_eq!(key.open("tot", b"pana", &sealed), None);
        for cut in [0, 5, NONCE_LEN, sealed.len() - 1] {
            assert_eq!(key.open("totp", b"ana", &sealed[..cut]), None);
        }
        let mut flipped = sealed.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(key.open("totp", b"ana", &flipped), None);
    }

    #[test]
    fn a_key_that_is_none_stops_the_start() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for text in ["", "secret", &"0".repeat(64), &"zz".repeat(32), &"01".repeat(31)] {
            keyfile::write(&path, text.as_bytes()).unwrap();
            assert!(SealKey::load_or_make(&path).err().unwrap().contains("secrets key"), "{text}");
        }
        keyfile::write(&path, format!("{}\n", "0123456789abcdef".repeat(4)).as_bytes()).unwrap();
        assert!(SealKey::load_or_make(&path).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(SealKey::load_or_make(&path).err().unwrap().contains("chmod 600"));
    }
}
