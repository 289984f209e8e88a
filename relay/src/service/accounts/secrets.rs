//! Secrets that people and devices carry: refresh tokens and one-time codes. 128 bits or more at random; the store sees the SHA-256 (A2).

use super::random;
use crate::service::ServiceResult;
use crate::store::accounts::SecretHash;
use sha2::{Digest, Sha256};

/// Crockford's alphabet: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Longest code that is looked at, in bytes.
const CODE_MAX_BYTES: usize = 128;
const REFRESH_PREFIX: &str = "frt_";

/// A new refresh token and its hash.
pub(super) fn new_refresh_token() -> ServiceResult<(String, SecretHash)> {
    let token = format!("{REFRESH_PREFIX}{}", hex::encode(random::<32>()?));
    let hash = Sha256::digest(token.as_bytes()).into();
    Ok((token, hash))
}

/// The hash of what claims to be a refresh token; none when it cannot be one.
pub(super) fn refresh_hash(token: &str) -> Option<SecretHash> {
    let right = token.len() == REFRESH_PREFIX.len() + 64 && token.starts_with(REFRESH_PREFIX);
    right.then(|| Sha256::digest(token.as_bytes()).into())
}

/// A new one-time code, in groups of five, and its hash.
pub(super) fn new_code() -> ServiceResult<(String, SecretHash)> {
    let mut bits = u128::from_be_bytes(random::<16>()?);
    let mut symbols = Vec::new();
    // 25 symbols of 5 bits; the last 3 bits are not needed.
    for i in 0..25 {
        if i > 0 && i % 5 == 0 {
            symbols.push(b'-');
        }
        symbols.push(ALPHABET[(bits & 31) as usize]);
        bits >>= 5;
    }
    let code: String = symbols.iter().copied().map(char::from).collect();
    let hash = hash_of_normal(&code.replace('-', ""));
    Ok((code, hash))
}

/// The hash of a code as a person typed it: case, dashes and spaces do not count, and look-alikes are taken for what they look like.
pub(super) fn code_hash(code: &str) -> Option<SecretHash> {
    if code.len() > CODE_MAX_BYTES {
        return None;
    }
    let mut normal = String::new();
    for symbol in code.chars().filter(|c| !matches!(c, '-' | ' ')) {
        let symbol = match symbol.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        if !u8::try_from(symbol).is_ok_and(|b| ALPHABET.contains(&b)) {
            return None;
        }
        normal.push(symbol);
    }
    (normal.len() == 25).then(|| hash_of_normal(&normal))
}

fn hash_of_normal(code: &str) -> SecretHash {
    Sha256::digest(code.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_people() {
        let (code, hash) = new_code().unwrap();
        assert_eq!(code_hash(&code), Some(hash));
        assert_eq!(code_hash(&format!(" {} ", code.to_lowercase().replace('-', " "))), Some(hash));
        assert_eq!(code_hash(&code.replace('0', "o").replace('1', "l")), Some(hash));
        assert_ne!(new_code().unwrap().0, code);
        for wrong in ["", "0000", "U".repeat(25).as_str(), "é".repeat(25).as_str(), &"0".repeat(26), &"0".repeat(1000)] {
            assert_eq!(code_hash(wrong), None);
        }
    }

    #[test]
    fn refresh_tokens_have_one_form() {
        let (token, hash) = new_refresh_token().unwrap();
        assert_eq!(refresh_hash(&token), Some(hash));
        assert_eq!(refresh_hash(&token[4..]), None);
        assert_eq!(refresh_hash("eyJhbGciOiJFZERTQSJ9.e30.x"), None);
    }
}
