//! Password hashing: argon2id for new hashes; bcrypt hashes are verified and replaced at the next login.
//!
//! Hashing is slow on purpose, so it runs off the async threads, a few at a time, and a short queue waits; beyond that the caller is told to come back (I14).

use crate::service::{ServiceError, ServiceResult};
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Shortest password, in bytes.
pub const PASSWORD_MIN_BYTES: usize = 8;
/// Longest password, in bytes.
pub const PASSWORD_MAX_BYTES: usize = 1024;
/// Hashes that wait for a turn; more are turned away.
const QUEUE_MAX: usize = 256;

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the password is right.
    pub good: bool,
    /// Whether the stored hash should be made anew with today's method.
    pub outdated: bool,
}

/// Hashes and compares.
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// The hash of no password: compared with when there is no user, so that the answer takes as long (A3).
    dummy: String,
}

impl Passwords {
    /// As many hashes at once as half of the processors, at least one: other requests go on meanwhile.
    pub(crate) fn new() -> ServiceResult<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let dummy = hash_now(&hex::encode(super::random::<16>()?))?;
        Ok(Self { turns: Arc::new(Semaphore::new(processors.div_ceil(2))), queue: Arc::new(Semaphore::new(QUEUE_MAX)), dummy })
    }

    /// The hash of a new password.
    pub(crate) async fn hash(&self, password: &str) -> ServiceResult<String> {
        let password = password.to_owned();
        self.in_turn(move || hash_now(&password)).await?
    }

    /// Compares a password with a stored hash; with none it takes as long and is wrong.
    pub(crate) async fn verify(&self, password: &str, stored: Option<&str>) -> ServiceResult<Verdict> {
        let (known, hash) = (stored.is_some(), stored.unwrap_or(&self.dummy).to_owned());
        // Longer ones cannot have been set; do not hash them.
        let password = if password.len() <= PASSWORD_MAX_BYTES { password.to_owned() } else { String::new() };
        let verdict = self.in_turn(move || verify_now(&password, &hash)).await?;
        Ok(Verdict { good: verdict.good && known, ..verdict })
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> ServiceResult<T> {
        let busy = || ServiceError::unavailable("Too many logins at once. Try again in a moment.");
        let place = self.queue.clone().try_acquire_owned().map_err(|_| busy())?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop((turn, place));
            result
        });
        done.await.map_err(ServiceError::internal)
    }
}

/// Whether a new password may be used.
pub(crate) fn check_new(password: &str) -> ServiceResult<()> {
    if password.len() < PASSWORD_MIN_BYTES {
        return Err(ServiceError::invalid("password_too_short", format!("The password needs at least {PASSWORD_MIN_BYTES} characters.")));
    }
    if password.len() > PASSWORD_MAX_BYTES {
        return Err(ServiceError::invalid("password_too_long", format!("The password may have at most {PASSWORD_MAX_BYTES} bytes.")));
    }
    Ok(())
}

fn hash_now(password: &str) -> ServiceResult<String> {
    Ok(Argon2::default().hash_password(password.as_bytes()).map_err(ServiceError::internal)?.to_string())
}

fn verify_now(password: &str, stored: &str) -> Verdict {
    if stored.starts_with("$2") {
        return Verdict { good: bcrypt::verify(password, stored).unwrap_or(false), outdated: true };
    }
    let good = PasswordHash::new(stored).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
    Verdict { good, outdated: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R13: so many hash at once, so many wait, and whoever comes then is told so at once instead of waiting with the others.
    #[tokio::test]
    async fn a_crowd_waits_in_a_short_queue() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let at_once = passwords.turns.available_permits();
        assert!(at_once < std::thread::available_parallelism().map_or(2, usize::from).max(2), "other requests have a processor left");
        let held = passwords.turns.clone().acquire_many_owned(at_once as u32).await.unwrap();
        let waiting: Vec<_> = (0..QUEUE_MAX)
            .map(|n| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.in_turn(move || n).await })
            })
            .collect();
        while passwords.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let turned_away = passwords.in_turn(|| ()).await.unwrap_err();
        assert_eq!((turned_away.kind(), turned_away.retry_after_s()), (crate::service::Kind::Unavailable, Some(1)));
        drop(held);
        for (n, one) in waiting.into_iter().enumerate() {
            assert_eq!(one.await.unwrap().unwrap(), n);
        }
        assert!(passwords.in_turn(|| ()).await.is_ok(), "and then there is room again");
    }

    #[tokio::test]
    async fn argon2_and_bcrypt_verify_and_nobody_has_no_password() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert_eq!(passwords.verify("correct horse", Some(&hash)).await.unwrap(), Verdict { good: true, outdated: false });
        assert!(!passwords.verify("wrong horse", Some(&hash)).await.unwrap().good);
        let old = bcrypt::hash("correct horse", 4).unwrap();
        assert_eq!(passwords.verify("correct horse", Some(&old)).await.unwrap(), Verdict { good: true, outdated: true });
        assert!(!passwords.verify("wrong horse", Some(&old)).await.unwrap().good);
        assert!(!passwords.verify("", None).await.unwrap().good);
        assert!(!passwords.verify("x", Some("not a hash")).await.unwrap().good);
        let long = "x".repeat(PASSWORD_MAX_BYTES + 1);
        assert!(check_new(&long).is_err() && check_new("short").is_err() && check_new("12345678").is_ok());
    }
}
