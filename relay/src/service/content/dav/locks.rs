//! Locks (RFC 4918, 6 and 7): decided by pure functions over the locks of a namespace, made inside a transaction that holds the namespace, so that of two
//! clients at two processes one gets it.

use crate::service::content::{Content, Entry, check_membership, patiently, random};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::Scope;
use crate::store::dav::DavLockRow;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, RelPath, UserId};

/// Locks that one namespace can have at a time.
const LOCKS_MAX: usize = 1000;
/// How long a lock lasts when nobody says, and at most, in seconds.
const TIMEOUT_DEFAULT_S: u64 = 600;
const TIMEOUT_MAX_S: u64 = 24 * 3600;
/// What a client may say of its user, in bytes.
const OWNER_MAX_BYTES: usize = 4096;

/// A lock that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DavLock {
    /// Its token's random bytes.
    pub token: [u8; 16],
    /// What is locked.
    pub path: RelPath,
    /// Who locked it.
    pub user: UserId,
    /// What the client says of its user, as XML.
    pub owner_xml: Option<String>,
    /// Whether others may have a shared lock beside it.
    pub is_shared: bool,
    /// Whether it holds for everything below, too.
    pub is_deep: bool,
    /// For how long it was taken, in seconds.
    pub timeout_s: u64,
}

/// A lock that somebody wants.
#[derive(Debug, Clone)]
pub struct LockWish {
    /// What to lock.
    pub path: RelPath,
    /// What the client says of its user, as XML.
    pub owner_xml: Option<String>,
    /// Whether a shared one will do.
    pub is_shared: bool,
    /// Whether for everything below, too.
    pub is_deep: bool,
    /// For how long, in seconds.
    pub timeout_s: Option<u64>,
}

impl DavLock {
    /// Whether it holds for this place.
    pub fn covers(&self, path: &RelPath) -> bool {
        self.path == *path || (self.is_deep && path.starts_with(&self.path))
    }

    /// The lock of a row, unless it has ended.
    fn of_row(row: DavLockRow, now_ms: i64) -> ServiceResult<Option<Self>> {
        if row.expires_at_ms <= now_ms {
            return Ok(None);
        }
        Ok(Some(Self {
            token: row.token,
            path: RelPath::parse(&row.path).map_err(ServiceError::internal)?,
            user: row.user,
            owner_xml: row.owner_xml,
            is_shared: row.is_shared,
            is_deep: row.is_deep,
            timeout_s: row.timeout_s,
        }))
    }

    fn to_row(&self, now_ms: i64) -> DavLockRow {
        DavLockRow {
            token: self.token,
            path: self.path.to_bytes(),
            user: self.user,
            owner_xml: self.owner_xml.clone(),
            is_shared: self.is_shared,
            is_deep: self.is_deep,
            timeout_s: self.timeout_s,
            expires_at_ms: now_ms.saturating_add((self.timeout_s * 1000) as i64),
        }
    }
}

/// The lock that keeps this user, who has shown these tokens, from changing what is at `path`; with `deep` also from changing anything below it, with
/// `as_member` also from putting a name into its directory or taking one out.
pub(super) fn in_the_way<'l>(
    locks: &'l [DavLock],
    path: &RelPath,
    user: UserId,
    tokens: &[[u8; 16]],
    deep: bool,
    as_member: bool,
) -> Option<&'l DavLock> {
    let is_held = |lock: &DavLock| lock.user == user && tokens.contains(&lock.token);
    // An exclusive lock is to be held; of several who share one each may write.
    let missing = |wanted: Vec<&'l DavLock>| {
        let exclusive = wanted.iter().find(|l| !l.is_shared && !is_held(l)).copied();
        let shared = || wanted.first().copied().filter(|_| !wanted.iter().any(|l| is_held(l)));
        exclusive.or_else(shared)
    };
    let directory = path.split_last().map(|(directory, _)| directory).filter(|_| as_member);
    let of_directory = locks.iter().filter(|l| directory.as_ref().is_some_and(|d| l.path == *d)).collect();
    let below = |l: &&DavLock| deep && l.path != *path && l.path.starts_with(path) && !is_held(l);
    missing(locks.iter().filter(|l| l.covers(path)).collect()).or_else(|| missing(of_directory)).or_else(|| locks.iter().find(below))
}

/// The lock beside which the wanted one cannot be.
pub(super) fn excludes<'l>(locks: &'l [DavLock], wish: &LockWish) -> Option<&'l DavLock> {
    let meets = |l: &&DavLock| l.covers(&wish.path) || (wish.is_deep && l.path.starts_with(&wish.path));
    locks.iter().filter(meets).find(|l| !l.is_shared || !wish.is_shared)
}

fn timeout_of(wished: Option<u64>) -> u64 {
    wished.unwrap_or(TIMEOUT_DEFAULT_S).clamp(1, TIMEOUT_MAX_S)
}

impl Content {
    /// The locks of a namespace that have not ended.
    pub async fn dav_locks(&self, namespace: NamespaceId) -> ServiceResult<Vec<DavLock>> {
        living(self.meta.dav_locks(namespace).await?, self.clock.now_ms())
    }

    /// Whether the caller, who has shown these tokens, may change what is at `path`; the lock in the way if not. See [`in_the_way`].
    pub async fn dav_check_locks(
        &self,
        entry: &Entry,
        path: &RelPath,
        tokens: &[[u8; 16]],
        deep: bool,
        as_member: bool,
    ) -> ServiceResult<Option<DavLock>> {
        let locks = self.dav_locks(entry.row.id).await?;
        Ok(in_the_way(&locks, path, entry.caller.user_id, tokens, deep, as_member).cloned())
    }

    /// Locks, or says which lock is in the way.
    pub async fn dav_lock(&self, entry: &Entry, wish: LockWish) -> ServiceResult<Result<DavLock, DavLock>> {
        entry.confine(&wish.path)?;
        if wish.owner_xml.as_ref().is_some_and(|xml| xml.len() > OWNER_MAX_BYTES) {
            return Err(ServiceError::too_large(format!("The owner of a lock has at most {OWNER_MAX_BYTES} bytes.")));
        }
        let token = random()?;
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            let namespace = tx.namespace_for(entry.row.id, entry.caller.user_id).await?.ok_or_else(ServiceError::not_found)?;
            check_membership(&entry.caller, &namespace, Role::Editor)?;
            let now_ms = self.clock.now_ms();
            let rows = tx.dav_locks(entry.row.id).await?;
            let ended: Vec<[u8; 16]> = rows.iter().filter(|row| row.expires_at_ms <= now_ms).map(|row| row.token).collect();
            let locks = living(rows, now_ms)?;
            if let Some(lock) = excludes(&locks, &wish) {
                return Ok(Err(lock.clone()));
            }
            if locks.len() >= LOCKS_MAX {
                return Err(ServiceError::conflict("too_many_locks", format!("This folder has {LOCKS_MAX} locks. Wait until some end.")));
            }
            let lock = DavLock {
                token,
                path: wish.path.clone(),
                user: entry.caller.user_id,
                owner_xml: wish.owner_xml.clone(),
                is_shared: wish.is_shared,
                is_deep: wish.is_deep,
                timeout_s: timeout_of(wish.timeout_s),
            };
            tx.delete_dav_locks(entry.row.id, &ended).await?;
            tx.put_dav_lock(entry.row.id, &lock.to_row(now_ms)).await?;
            tx.commit().await?;
            ServiceResult::Ok(Ok(lock))
        };
        patiently!(attempt().await)
    }

    /// Lets the caller's lock that covers `path` last on; nothing when there is none.
    pub async fn dav_refresh_lock(
        &self,
        entry: &Entry,
        path: &RelPath,
        token: [u8; 16],
        timeout_s: Option<u64>,
    ) -> ServiceResult<Option<DavLock>> {
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            let now_ms = self.clock.now_ms();
            let locks = living(tx.dav_locks(entry.row.id).await?, now_ms)?;
            let mine = |l: &DavLock| l.token == token && l.user == entry.caller.user_id && l.covers(path);
            let Some(mut lock) = locks.into_iter().find(mine) else { return Ok(None) };
            lock.timeout_s = timeout_of(timeout_s.or(Some(lock.timeout_s)));
            tx.put_dav_lock(entry.row.id, &lock.to_row(now_ms)).await?;
            tx.commit().await?;
            ServiceResult::Ok(Some(lock))
        };
        patiently!(attempt().await)
    }

    /// Ends the caller's lock that covers `path`. Whether there was one.
    pub async fn dav_unlock(&self, entry: &Entry, path: &RelPath, token: [u8; 16]) -> ServiceResult<bool> {
        let user = entry.caller.user_id;
        Ok(self.drop_dav_locks(entry, |l| l.token == token && l.user == user && l.covers(path)).await? > 0)
    }

    /// Ends every lock at a place and below it: what was locked is no longer there.
    pub async fn dav_forget_locks(&self, entry: &Entry, path: &RelPath) -> ServiceResult<()> {
        self.drop_dav_locks(entry, |l| l.path.starts_with(path)).await.map(drop)
    }

    async fn drop_dav_locks(&self, entry: &Entry, is_meant: impl Fn(&DavLock) -> bool) -> ServiceResult<usize> {
        let now_ms = self.clock.now_ms();
        if !living(self.meta.dav_locks(entry.row.id).await?, now_ms)?.iter().any(&is_meant) {
            return Ok(0);
        }
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            let locks = living(tx.dav_locks(entry.row.id).await?, now_ms)?;
            let gone: Vec<[u8; 16]> = locks.iter().filter(|l| is_meant(l)).map(|l| l.token).collect();
            tx.delete_dav_locks(entry.row.id, &gone).await?;
            tx.commit().await?;
            ServiceResult::Ok(gone.len())
        };
        patiently!(attempt().await)
    }
}

fn living(rows: Vec<DavLockRow>, now_ms: i64) -> ServiceResult<Vec<DavLock>> {
    rows.into_iter().filter_map(|row| DavLock::of_row(row, now_ms).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANA: UserId = UserId::from_bytes([1; 16]);
    const BOB: UserId = UserId::from_bytes([2; 16]);

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn lock(token: u8, at: &str, is_shared: bool, is_deep: bool) -> DavLock {
        DavLock { token: [token; 16], path: path(at), user: ANA, owner_xml: None, is_shared, is_deep, timeout_s: 1 }
    }

    fn wish(at: &str, is_shared: bool, is_deep: bool) -> LockWish {
        LockWish { path: path(at), owner_xml: None, is_shared, is_deep, timeout_s: None }
    }

    #[test]
    fn a_lock_keeps_others_out_and_lets_its_holder_in() {
        let locks = [lock(1, "a/b", false, true)];
        let blocked = |at: &str, user, tokens: &[[u8; 16]], deep| in_the_way(&locks, &path(at), user, tokens, deep, false).is_some();
        for (at, deep, is_blocked) in [
            ("a/b", false, true),
            ("a/b/c/d", false, true),
            ("a", false, false),
            ("a", true, true),
            ("a/bc", false, false),
            ("x", true, false),
            ("", true, true),
        ] {
            assert_eq!(blocked(at, BOB, &[], deep), is_blocked, "{at}");
            assert_eq!(blocked(at, ANA, &[], deep), is_blocked, "{at}: without the token its own user is nobody");
            assert_eq!(blocked(at, BOB, &[[1; 16]], deep), is_blocked, "{at}: a token is its user's");
            assert!(!blocked(at, ANA, &[[9; 16], [1; 16]], deep), "{at}");
        }
    }

    #[test]
    fn a_directorys_own_lock_is_about_its_names() {
        let locks = [lock(1, "a", false, false)];
        let blocked = |at: &str, as_member| in_the_way(&locks, &path(at), BOB, &[], false, as_member).is_some();
        assert!(blocked("a", false) && !blocked("a/b", false) && blocked("a/b", true) && !blocked("a/b/c", true));
    }

    #[test]
    fn who_shares_a_lock_may_write_and_others_may_not() {
        let locks = [lock(1, "a", true, false), lock(2, "a", true, false)];
        let blocked = |tokens: &[[u8; 16]]| in_the_way(&locks, &path("a"), ANA, tokens, false, false).is_some();
        assert!(blocked(&[]) && !blocked(&[[1; 16]]) && !blocked(&[[2; 16]]));
        assert!(excludes(&locks, &wish("a", true, false)).is_none());
        assert!(excludes(&locks, &wish("a", false, false)).is_some());
        assert!(excludes(&locks, &wish("", false, true)).is_some() && excludes(&locks, &wish("", false, false)).is_none());
    }

    proptest! {
        /// Whoever was given an exclusive lock is the only one who can write below it, whatever was locked before.
        #[test]
        fn no_two_exclusive_locks_meet(wishes in proptest::collection::vec(("[ab](/[ab]){0,3}", any::<bool>(), any::<bool>()), 1..12)) {
            let mut locks: Vec<DavLock> = Vec::new();
            for (token, (at, is_shared, is_deep)) in (1u8..).zip(&wishes) {
                if excludes(&locks, &wish(at, *is_shared, *is_deep)).is_none() {
                    locks.push(lock(token, at, *is_shared, *is_deep));
                }
            }
            for (at, _, _) in &wishes {
                let here: Vec<&DavLock> = locks.iter().filter(|l| l.covers(&path(at))).collect();
                prop_assert!(here.iter().all(|l| l.is_shared) || here.len() == 1);
                for holder in &here {
                    let others = in_the_way(&locks, &path(at), ANA, &[holder.token], false, false);
                    prop_assert!(others.is_none());
                }
                prop_assert_eq!(in_the_way(&locks, &path(at), BOB, &[], false, false).is_some(), !here.is_empty());
            }
        }
    }
}
