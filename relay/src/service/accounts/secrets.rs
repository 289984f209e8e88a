//! Secrets that people, devices and browsers carry. The store sees the SHA-256 (A2). All have 80 bits or more at random, but for the code that a person
//! compares: it is short, lives for minutes, and guessing it is slowed.

use super::random;
use crate::service::ServiceResult;
use crate::store::accounts::SecretHash;
use ferry_protocol::UserId;
use sha2::{Digest, Sha256};

/// Crockford's alphabet: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Longest code that is looked at, in bytes.
const CODE_MAX_BYTES: usize = 128;
/// The letters of codes that a person compares (RFC 8628, 6.1): no vowels, so no words; nothing that looks like something else.
const COMPARED: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// How many letters such a code has.
const COMPARED_LETTERS: usize = 8;
/// Symbols of a recovery code: 80 bits.
const RECOVERY_SYMBOLS: usize = 16;

/// A kind of secret for programs: a prefix that says what it is, and 256 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer {
    /// Exchanged for the next pair of tokens.
    Refresh,
    /// What a device holds that waits for a person's approval.
    DeviceCode,
    /// A browser's login.
    Cookie,
    /// The password was right, the second factor is still to come.
    Mfa,
    /// An app password.
    App,
}

impl Bearer {
    /// How secrets of this kind begin, so that people and secret scanners know what they found.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "frt_",
            Self::DeviceCode => "fdc_",
            Self::Cookie => "fws_",
            Self::Mfa => "fmt_",
            Self::App => "fap_",
        }
    }

    /// A new secret and its hash.
    pub(super) fn mint(self) -> ServiceResult<(String, SecretHash)> {
        let token = format!("{}{}", self.prefix(), hex::encode(random::<32>()?));
        let hash = Sha256::digest(token.as_bytes()).into();
        Ok((token, hash))
    }

    /// The hash of what claims to be of this kind; none when it cannot be.
    pub(super) fn hash(self, token: &str) -> Option<SecretHash> {
        let right = token.len() == self.prefix().len() + 64 && token.starts_with(self.prefix());
        right.then(|| Sha256::digest(token.as_bytes()).into())
    }
}

/// A new refresh token and its hash.
pub(super) fn new_refresh_token() -> ServiceResult<(String, SecretHash)> {
    Bearer::Refresh.mint()
}

/// The hash of what claims to be a refresh token; none when it cannot be one.
pub(super) fn refresh_hash(token: &str) -> Option<SecretHash> {
    Bearer::Refresh.hash(token)
}

/// A new code that a person compares on two screens, as it is shown (`WDJB-MJHT`), and its hash.
pub(super) fn new_user_code() -> ServiceResult<(String, SecretHash)> {
    let mut letters = String::new();
    while letters.len() < COMPARED_LETTERS {
        // 240 is the largest multiple of 20 in a byte: every letter is as likely.
        let fair = random::<16>()?.into_iter().filter(|b| *b < 240).map(|b| char::from(COMPARED[usize::from(b) % COMPARED.len()]));
        letters.extend(fair.take(COMPARED_LETTERS - letters.len()));
    }
    let hash = hash_of_normal(&letters);
    Ok((shown_user_code(&letters), hash))
}

/// The hash of such a code as a person typed it, and the code as it is shown; none when it cannot be one.
pub(super) fn user_code_hash(code: &str) -> Option<(String, SecretHash)> {
    if code.len() > CODE_MAX_BYTES {
        return None;
    }
    let normal: String = code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    let right = normal.len() == COMPARED_LETTERS && normal.bytes().all(|b| COMPARED.contains(&b));
    right.then(|| (shown_user_code(&normal), hash_of_normal(&normal)))
}

fn shown_user_code(letters: &str) -> String {
    let (left, right) = letters.split_at(COMPARED_LETTERS / 2);
    format!("{left}-{right}")
}

/// New recovery codes of a user, as they are shown (`XXXX-XXXX-XXXX-XXXX`), with their hashes.
pub(super) fn new_recovery_codes(user: UserId, count: usize) -> ServiceResult<(Vec<String>, Vec<SecretHash>)> {
    let (mut codes, mut hashes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let bytes = random::<RECOVERY_SYMBOLS>()?;
        let normal: String = bytes.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect();
        hashes.push(recovery_hash_of_normal(user, &normal));
        codes.push((0..RECOVERY_SYMBOLS).step_by(4).map(|i| &normal[i..i + 4]).collect::<Vec<_>>().join("-"));
    }
    Ok((codes, hashes))
}

/// The hash of a recovery code as a person typed it; none when it cannot be one.
pub(super) fn recovery_hash(user: UserId, code: &str) -> Option<SecretHash> {
    normal_code(code, RECOVERY_SYMBOLS).map(|normal| recovery_hash_of_normal(user, &normal))
}

/// The same code of two users has two hashes.
fn recovery_hash_of_normal(user: UserId, code: &str) -> SecretHash {
    Sha256::new().chain_update(b"ferry-recovery-code\0").chain_update(user.as_bytes()).chain_update(code.as_bytes()).finalize().into()
}

/// What a form of the page that this cookie opened must carry: whoever cannot read the page cannot know it (R51).
pub(super) fn csrf_token(cookie: &str) -> String {
    hex::encode(Sha256::new().chain_update(b"ferry-csrf\0").chain_update(cookie.as_bytes()).finalize())
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
    normal_code(code, 25).map(|normal| hash_of_normal(&normal))
}

/// A code of so many symbols as it would be without a person between.
fn normal_code(code: &str, symbols: usize) -> Option<String> {
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
    (normal.len() == symbols).then_some(normal)
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
        for other in [Bearer::DeviceCode, Bearer::Cookie, Bearer::Mfa, Bearer::App] {
            assert_eq!(refresh_hash(&other.mint().unwrap().0), None, "one kind is never taken for another");
        }
    }

    #[test]
    fn compared_codes_have_eight_fair_letters() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let (shown, hash) = new_user_code().unwrap();
            assert!(shown.len() == 9 && shown.as_bytes()[4] == b'-');
            for typed in [shown.clone(), shown.to_lowercase().replace('-', " "), format!(" {} ", shown.replace('-', ""))] {
                assert_eq!(user_code_hash(&typed), Some((shown.clone(), hash)));
            }
            seen.extend(shown.bytes().filter(|b| *b != b'-'));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), COMPARED, "1,600 letters miss none of 20");
        for wrong in ["", "BCDF", "BCDF-GHJA", "BCDF-GHJKL", "BCDF-GHJ\u{130}", &"B".repeat(200)] {
            assert_eq!(user_code_hash(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn recovery_codes_are_their_users() {
        let (ana, bob) = (UserId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let (codes, hashes) = new_recovery_codes(ana, 10).unwrap();
        assert_eq!((codes.len(), hashes.len()), (10, 10));
        for (code, hash) in codes.iter().zip(&hashes) {
            assert_eq!(recovery_hash(ana, &code.to_lowercase().replace('-', " ")), Some(*hash));
            assert_ne!(recovery_hash(bob, code), Some(*hash));
        }
        assert_eq!((recovery_hash(ana, "123456"), recovery_hash(ana, "")), (None, None));
    }

    #[test]
    fn a_form_is_tied_to_its_cookie() {
        assert_ne!(csrf_token("a"), csrf_token("b"));
        assert_eq!(csrf_token("a"), csrf_token("a"));
    }
}
