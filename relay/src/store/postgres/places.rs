//! Where namespaces and users stand: asked of the directory, remembered a little.
//!
//! What is remembered may be old by a move of the user. Then the old shard refuses to write, which makes us ask again, and goes on to answer readers
//! for some time: longer than [`KEPT_FOR`], after which everything is asked again. Whoever enters a namespace has asked anyhow.

use super::moves::closed;
use super::rows::{bytes, count, namespace};
use super::{Postgres, StoreError, store_error};
use crate::store::columns::{damaged, permission, role};
use crate::store::content::Shard;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, UserId};
use sqlx::{PgConnection, Row};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most namespaces remembered; beyond this the memory starts anew.
const KEPT_MAX: usize = 100_000;
/// How long a place is believed.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// A place, with the question that it is the answer to.
#[derive(Clone, Copy)]
struct Place {
    shard: Shard,
    asked: Asked,
}

/// When the directory was asked: an answer never replaces that to a later question, however late it comes.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    number: u64,
    at: Instant,
}

/// The shards of namespaces that were asked for lately.
#[derive(Default)]
pub(super) struct Places {
    known: Mutex<HashMap<NamespaceId, Place>>,
    questions: AtomicU64,
}

impl Places {
    /// To be called before the directory is asked.
    pub(super) fn ask(&self) -> Asked {
        Asked { number: self.questions.fetch_add(1, Ordering::Relaxed), at: Instant::now() }
    }

    fn get(&self, namespace: NamespaceId) -> Option<Shard> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&namespace).filter(|place| place.asked.at.elapsed() < KEPT_FOR).map(|place| place.shard)
    }

    pub(super) fn put(&self, namespace: NamespaceId, shard: Shard, asked: Asked) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        if known.get(&namespace).is_none_or(|place| place.asked.number < asked.number) {
            known.insert(namespace, Place { shard, asked });
        }
    }

    pub(super) fn forget(&self, namespace: NamespaceId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&namespace);
    }
}

/// A membership as the directory has it.
pub(super) struct Membership {
    pub(super) namespace: NamespaceId,
    pub(super) role: Role,
    pub(super) shard: Shard,
}

pub(super) fn shard(row: &sqlx::postgres::PgRow, column: usize) -> Result<Shard, StoreError> {
    let key: i16 = row.try_get(column).map_err(store_error)?;
    u16::try_from(key).map(Shard).map_err(|_| damaged("shard_key"))
}

/// The shard key as the schema keeps it.
pub(super) fn key(shard: Shard) -> i16 {
    i16::try_from(shard.0).unwrap_or(i16::MAX)
}

/// All memberships of a user.
pub(super) async fn memberships(conn: &mut PgConnection, user: UserId) -> Result<Vec<Membership>, StoreError> {
    let rows = sqlx::query(
        "SELECT m.namespace_id, m.role, o.shard_key FROM members m JOIN placements p USING (namespace_id) JOIN users o ON o.user_id = p.owner_id
         WHERE m.user_id = $1",
    )
    .bind(user.as_bytes().to_vec())
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read =
        |row| Ok(Membership { namespace: namespace(row, 0)?, role: role(row.try_get(1).map_err(store_error)?)?, shard: shard(row, 2)? });
    rows.iter().map(read).collect()
}

/// One membership.
pub(super) async fn membership(conn: &mut PgConnection, of: NamespaceId, user: UserId) -> Result<Option<Membership>, StoreError> {
    let row = sqlx::query(
        "SELECT m.role, o.shard_key FROM members m JOIN placements p USING (namespace_id) JOIN users o ON o.user_id = p.owner_id
         WHERE m.namespace_id = $1 AND m.user_id = $2",
    )
    .bind(of.as_bytes().to_vec())
    .bind(user.as_bytes().to_vec())
    .fetch_optional(conn)
    .await
    .map_err(store_error)?;
    row.map(|row| Ok(Membership { namespace: of, role: role(row.try_get(0).map_err(store_error)?)?, shard: shard(&row, 1)? })).transpose()
}

/// In which namespaces a file is shared with a user, as memberships of it alone; of one of them only with `of`.
pub(super) async fn shared(
    conn: &mut PgConnection,
    user: UserId,
    file: NodeId,
    of: Option<NamespaceId>,
) -> Result<Vec<Membership>, StoreError> {
    let rows = sqlx::query(
        "SELECT s.namespace_id, s.permission, o.shard_key
         FROM shared_files s JOIN placements p USING (namespace_id) JOIN users o ON o.user_id = p.owner_id
         WHERE s.shared_with_user_id = $1 AND s.file_id = $2 AND ($3 IS NULL OR s.namespace_id = $3) ORDER BY s.namespace_id",
    )
    .bind(user.as_bytes().to_vec())
    .bind(file.as_bytes().to_vec())
    .bind(of.map(|n| n.as_bytes().to_vec()))
    .fetch_all(conn)
    .await
    .map_err(store_error)?;
    let read = |row| {
        let role = permission(row_text(row, 1)?)?;
        Ok(Membership { namespace: namespace(row, 0)?, role, shard: shard(row, 2)? })
    };
    rows.iter().map(read).collect()
}

fn row_text(row: &sqlx::postgres::PgRow, column: usize) -> Result<&str, StoreError> {
    row.try_get(column).map_err(store_error)
}

/// The shard of a user; nothing if the user is gone.
pub(super) async fn of_user(conn: &mut PgConnection, user: UserId) -> Result<Option<Shard>, StoreError> {
    let row = sqlx::query("SELECT shard_key FROM users WHERE user_id = $1")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map(|row| shard(&row, 0)).transpose()
}

/// The shard of a namespace's owner; nothing if there is no such namespace.
pub(super) async fn of_namespace(conn: &mut PgConnection, namespace: NamespaceId) -> Result<Option<Shard>, StoreError> {
    let row = sqlx::query("SELECT u.shard_key FROM placements p JOIN users u ON u.user_id = p.owner_id WHERE p.namespace_id = $1")
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map(|row| shard(&row, 0)).transpose()
}

impl Postgres {
    /// The only shard there is, if there is only one: then nobody need be asked.
    pub(super) fn only_shard(&self) -> Option<Shard> {
        let mut all = self.0.shards.keys();
        all.next().copied().filter(|_| all.next().is_none())
    }

    /// The shard of a namespace; nothing if there is no such namespace.
    pub(super) async fn place(&self, namespace: NamespaceId) -> Result<Option<Shard>, StoreError> {
        if let Some(known) = self.only_shard().or_else(|| self.0.places.get(namespace)) {
            return Ok(Some(known));
        }
        let asked = self.0.places.ask();
        let found = of_namespace(&mut *self.directory().read().await?, namespace).await?;
        if let Some(shard) = found {
            self.0.places.put(namespace, shard, asked);
        }
        Ok(found)
    }

    /// Asks again where a namespace is.
    pub(super) fn forget_place(&self, namespace: NamespaceId) {
        self.0.places.forget(namespace);
    }

    /// To be called before the directory is asked for what [`Self::learn_place`] is then told.
    pub(super) fn ask_places(&self) -> Asked {
        self.0.places.ask()
    }

    /// Remembers what the directory has just said.
    pub(super) fn learn_place(&self, membership: &Membership, asked: Asked) {
        if self.only_shard().is_none() {
            self.0.places.put(membership.namespace, membership.shard, asked);
        }
    }

    /// The shard of a new user, whose row is written in the same transaction.
    pub(super) async fn shard_of_new(&self, conn: &mut PgConnection, user: UserId) -> Result<Shard, StoreError> {
        if let Some(only) = self.only_shard() {
            return Ok(only);
        }
        closed::lock(conn, closed::For::Placing).await?;
        let closed = closed::read(conn).await?;
        Ok(shard_for(user, &self.0.shards.keys().copied().filter(|s| !closed.contains(s)).collect::<Vec<_>>()))
    }
}

/// Which of these shards a new user goes to: one of those beside the directory, if there are any, by a hash of the user's id. The directory if all are
/// closed, which no command does.
fn shard_for(user: UserId, open: &[Shard]) -> Shard {
    let apart: Vec<Shard> = open.iter().copied().filter(|s| *s != Shard::default()).collect();
    // FNV-1a; which shard an id leads to is noted with the user, so that another number of shards changes it for nobody.
    let hash = user.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let number = (hash >> 32) as usize % apart.len().max(1);
    apart.get(number).copied().unwrap_or_default()
}

/// Users of one shard with what they use.
pub(super) async fn used_bytes(conn: &mut PgConnection, of: Shard, users: &[Vec<u8>]) -> Result<HashMap<[u8; 16], i64>, StoreError> {
    let rows = sqlx::query("SELECT user_id, storage_used FROM owners WHERE shard_key = $1 AND user_id = ANY($2)")
        .bind(key(of))
        .bind(users)
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| Ok((bytes(row, 0)?, row.try_get(1).map_err(store_error)?))).collect()
}

/// How many users stand in each shard.
pub(super) async fn users_by_shard(conn: &mut PgConnection) -> Result<HashMap<Shard, u64>, StoreError> {
    let rows = sqlx::query("SELECT shard_key, count(*) FROM users GROUP BY shard_key").fetch_all(conn).await.map_err(store_error)?;
    rows.iter().map(|row| Ok((shard(row, 0)?, count(row, 1)?))).collect()
}

/// The setting by which the databases of one relay know each other.
const GROUP: &str = "shard_group";
/// The setting in which a database says which shard it is.
const NUMBER: &str = "shard_number";

/// The value of a setting; `value` if there is none yet.
async fn agreed(conn: &mut PgConnection, name: &str, value: &str) -> Result<String, StoreError> {
    sqlx::query("INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(value)
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    let row = sqlx::query("SELECT value FROM settings WHERE key = $1").bind(name).fetch_one(conn).await.map_err(store_error)?;
    row.try_get(0).map_err(store_error)
}

impl Postgres {
    /// Makes sure that every database is the one that its place in the configuration says, and that no user stands where this process does not look.
    pub(super) async fn check_shards(&self) -> Result<(), StoreError> {
        let mut fresh = [0; 16];
        getrandom::fill(&mut fresh).map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let group = agreed(&mut *self.directory().read().await?, GROUP, &hex::encode(fresh)).await?;
        for (shard, db) in &self.0.shards {
            let mut conn = db.read().await?;
            let (own_group, number) = (agreed(&mut conn, GROUP, &group).await?, agreed(&mut conn, NUMBER, &shard.to_string()).await?);
            if own_group != group {
                return Err(StoreError::Unavailable(format!("{} is a database of another relay: look at database.shards", db.label())));
            }
            if number != shard.to_string() {
                let label = db.label();
                return Err(StoreError::Unavailable(format!(
                    "{label} is shard {number}, not {shard}: the order of database.shards never changes"
                )));
            }
        }
        let users = users_by_shard(&mut *self.directory().read().await?).await?;
        match users.keys().find(|shard| !self.0.shards.contains_key(*shard)) {
            None => Ok(()),
            Some(missing) => Err(StoreError::Unavailable(format!("users stand in shard {missing}, which database.shards does not name"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two requests ask at the two sides of a move, and the earlier one is answered last.
    #[test]
    fn a_late_answer_does_not_replace_a_later_question() {
        let (places, namespace) = (Places::default(), NamespaceId::from_bytes([1; 16]));
        let (before, after) = (places.ask(), places.ask());
        places.put(namespace, Shard(2), after);
        places.put(namespace, Shard(1), before);
        assert_eq!(places.get(namespace), Some(Shard(2)));
        places.put(namespace, Shard(3), places.ask());
        assert_eq!(places.get(namespace), Some(Shard(3)));
        let old = Asked { number: u64::MAX, at: Instant::now().checked_sub(KEPT_FOR).unwrap() };
        places.put(namespace, Shard(4), old);
        assert_eq!(places.get(namespace), None, "what was asked long ago is asked again");
    }
}
