//! [`ShardMoves`] on PostgreSQL. Between two databases there is no common transaction: the order of the steps is what makes them one (MV1, MV2).

pub(super) mod closed;
mod rows;

use super::content::chunks;
use super::places::{self, key, shard};
use super::rows::{chunk as chunk_id, namespace as namespace_id, user as user_id};
use super::{Postgres, StoreError, store_error};
use crate::store::columns::signed;
use crate::store::content::{Shard, StoredChunk};
use crate::store::moves::{Alone, Brought, MoveRow, ShardMoves, Switched};
use async_trait::async_trait;
use ferry_protocol::{ChunkId, NamespaceId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

/// The number of the advisory lock in the directory: "ferrymov".
const LOCK: i64 = 0x6665_7272_796d_6f76;

fn id(user: UserId) -> Vec<u8> {
    user.as_bytes().to_vec()
}

fn move_row(row: &PgRow) -> Result<MoveRow, StoreError> {
    Ok(MoveRow {
        user: user_id(row, 0)?,
        from: shard(row, 1)?,
        to: shard(row, 2)?,
        is_switched: row.try_get(3).map_err(store_error)?,
        started_at_ms: row.try_get(4).map_err(store_error)?,
    })
}

async fn namespaces_in(conn: &mut PgConnection, of: Shard, owner: UserId) -> Result<Vec<NamespaceId>, StoreError> {
    let rows = sqlx::query("SELECT namespace_id FROM namespaces WHERE shard_key = $1 AND owner_id = $2 ORDER BY namespace_id")
        .bind(key(of))
        .bind(id(owner))
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    rows.iter().map(|row| namespace_id(row, 0)).collect()
}

/// Marks what a user has in a shard as on its way, or takes the marks away.
async fn mark(conn: &mut PgConnection, of: Shard, owner: UserId, to: Option<Shard>, until: Option<i64>) -> Result<(), StoreError> {
    // Namespaces first (PG2), and again after the owner's row: one that was being made held that.
    let namespaces = "UPDATE namespaces SET moving_to = $3, moving_until = $4 WHERE shard_key = $1 AND owner_id = $2";
    let owners = "UPDATE owners SET moving_to = $3, moving_until = $4 WHERE shard_key = $1 AND user_id = $2";
    for sql in [namespaces, owners, namespaces] {
        sqlx::query(sql).bind(key(of)).bind(id(owner)).bind(to.map(key)).bind(until).execute(&mut *conn).await.map_err(store_error)?;
    }
    Ok(())
}

/// Locks what a user has in a shard, and says whether all of it has been kept from writers until `until_ms` and still is.
async fn is_held(conn: &mut PgConnection, of: &MoveRow, until_ms: i64) -> Result<bool, StoreError> {
    let mut is_held = true;
    let namespaces =
        "SELECT coalesce(moving_to = $3 AND moving_until = $4 AND $4 > (extract(epoch FROM clock_timestamp()) * 1000)::bigint, false)
         FROM namespaces WHERE shard_key = $1 AND owner_id = $2 ORDER BY namespace_id FOR UPDATE";
    let owners =
        "SELECT coalesce(moving_to = $3 AND moving_until = $4 AND $4 > (extract(epoch FROM clock_timestamp()) * 1000)::bigint, false)
         FROM owners WHERE shard_key = $1 AND user_id = $2 FOR UPDATE";
    for sql in [namespaces, owners] {
        let rows = sqlx::query(sql)
            .bind(key(of.from))
            .bind(id(of.user))
            .bind(key(of.to))
            .bind(until_ms)
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        for row in &rows {
            is_held &= row.try_get::<bool, _>(0).map_err(store_error)?;
        }
    }
    Ok(is_held)
}

/// Leads everybody to the new shard. Returns whether there was such a user in the old one.
async fn lead_on(conn: &mut PgConnection, of: &MoveRow) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE users SET shard_key = $3 WHERE user_id = $1 AND shard_key = $2")
        .bind(id(of.user))
        .bind(key(of.from))
        .bind(key(of.to))
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    sqlx::query("UPDATE shard_moves SET is_switched = true WHERE user_id = $1")
        .bind(id(of.user))
        .execute(conn)
        .await
        .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

/// What a user uses in a shard, counted from the rows (RC5).
async fn count_usage(conn: &mut PgConnection, of: Shard, owner: UserId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE owners SET storage_used = (SELECT coalesce(sum(c.length), 0)::bigint FROM namespaces s
           JOIN namespace_chunks n ON n.shard_key = $1 AND n.namespace_id = s.namespace_id
           JOIN chunks c ON c.shard_key = $1 AND c.chunk_hash = n.chunk_hash WHERE s.shard_key = $1 AND s.owner_id = $2)
         WHERE shard_key = $1 AND user_id = $2",
    )
    .bind(key(of))
    .bind(id(owner))
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

#[async_trait]
impl ShardMoves for Postgres {
    async fn alone(&self) -> Result<Option<Alone>, StoreError> {
        // A connection of its own: the lock ends with it, however that ends.
        let mut conn = self.directory().apart().await?;
        let row = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut conn).await.map_err(store_error)?;
        let is_ours: bool = row.try_get(0).map_err(store_error)?;
        Ok(is_ours.then(|| Box::new(conn) as Alone))
    }

    async fn noted(&self) -> Result<Vec<MoveRow>, StoreError> {
        let rows = sqlx::query("SELECT user_id, from_shard, to_shard, is_switched, started_at FROM shard_moves ORDER BY user_id")
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(move_row).collect()
    }

    async fn note(&self, user: UserId, from: Shard, to: Shard, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO shard_moves (user_id, from_shard, to_shard, started_at) VALUES ($1, $2, $3, $4) ON CONFLICT (user_id) DO NOTHING",
        )
        .bind(id(user))
        .bind(key(from))
        .bind(key(to))
        .bind(now_ms)
        .execute(&mut *self.directory().read().await?)
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn done(&self, user: UserId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM shard_moves WHERE user_id = $1")
            .bind(id(user))
            .execute(&mut *self.directory().read().await?)
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn set_closed(&self, shard: Shard, is_closed: bool, now_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.directory().begin().await?;
        closed::lock(tx.conn(), closed::For::Change).await?;
        let mut all = closed::read(tx.conn()).await?;
        let has_changed = if is_closed { all.insert(shard) } else { all.remove(&shard) };
        if has_changed {
            closed::write(tx.conn(), &all, now_ms).await?;
        }
        tx.commit().await
    }

    async fn closed(&self) -> Result<BTreeSet<Shard>, StoreError> {
        closed::read(&mut *self.directory().read().await?).await
    }

    async fn place_of(&self, user: UserId) -> Result<Option<Shard>, StoreError> {
        places::of_user(&mut *self.directory().read().await?, user).await
    }

    async fn users_in(&self, of: Shard, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, StoreError> {
        let rows =
            sqlx::query("SELECT user_id FROM users WHERE shard_key = $1 AND ($2::bytea IS NULL OR user_id > $2) ORDER BY user_id LIMIT $3")
                .bind(key(of))
                .bind(after.map(id))
                .bind(signed(limit as u64))
                .fetch_all(&mut *self.directory().read().await?)
                .await
                .map_err(store_error)?;
        rows.iter().map(|row| user_id(row, 0)).collect()
    }

    async fn namespaces(&self, of: &MoveRow) -> Result<Vec<NamespaceId>, StoreError> {
        let mut all = BTreeSet::new();
        for shard in [of.from, of.to] {
            all.extend(namespaces_in(&mut *self.shard(shard)?.read().await?, shard, of.user).await?);
        }
        Ok(all.into_iter().collect())
    }

    async fn rows(&self, shard: Shard, namespace: NamespaceId) -> Result<u64, StoreError> {
        let mut snapshot = self.shard(shard)?.unhurried().await?;
        let mut sum = 0;
        for table in rows::tables() {
            sum += rows::number(&mut snapshot, table, shard, namespace).await?;
        }
        snapshot.commit().await.map_err(store_error)?;
        Ok(sum)
    }

    async fn lacking(
        &self,
        of: &MoveRow,
        namespace: NamespaceId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<(Vec<StoredChunk>, Option<ChunkId>), StoreError> {
        let rows = sqlx::query(
            "SELECT n.chunk_hash, c.length, c.pack_id, c.\"offset\", c.damaged_at IS NOT NULL FROM namespace_chunks n
             JOIN chunks c ON c.shard_key = $1 AND c.chunk_hash = n.chunk_hash
             WHERE n.shard_key = $1 AND n.namespace_id = $2 AND ($3::bytea IS NULL OR n.chunk_hash > $3) ORDER BY n.chunk_hash LIMIT $4",
        )
        .bind(key(of.from))
        .bind(namespace.as_bytes().to_vec())
        .bind(after.map(|id| id.as_bytes().to_vec()))
        .bind(signed(limit as u64))
        .fetch_all(&mut *self.shard(of.from)?.read().await?)
        .await
        .map_err(store_error)?;
        let mut page = Vec::with_capacity(rows.len());
        for row in &rows {
            page.push(StoredChunk { location: chunks::location(row, 0)?, is_damaged: row.try_get(4).map_err(store_error)? });
        }
        let hashes: Vec<Vec<u8>> = page.iter().map(|c| c.location.id.as_bytes().to_vec()).collect();
        let there = sqlx::query("SELECT chunk_hash, damaged_at IS NOT NULL FROM chunks WHERE shard_key = $1 AND chunk_hash = ANY($2)")
            .bind(key(of.to))
            .bind(hashes)
            .fetch_all(&mut *self.shard(of.to)?.read().await?)
            .await
            .map_err(store_error)?;
        let mut damaged_there = BTreeMap::new();
        for row in &there {
            damaged_there.insert(chunk_id(row, 0)?, row.try_get::<bool, _>(1).map_err(store_error)?);
        }
        let next = page.last().filter(|_| page.len() == limit).map(|c| c.location.id);
        page.retain(|c| damaged_there.get(&c.location.id).is_none_or(|is_damaged| *is_damaged && !c.is_damaged));
        Ok((page, next))
    }

    async fn bring(&self, of: &MoveRow, namespace: NamespaceId) -> Result<Brought, StoreError> {
        let mut source = self.shard(of.from)?.snapshot().await?;
        rows::prepare(&mut source).await?;
        let mut target = self.shard(of.to)?.begin().await?;
        rows::prepare(target.conn()).await?;
        let (mut found, mut wanted) = (Brought::default(), Vec::new());
        for table in rows::tables() {
            let here = rows::digest(&mut source, table, of.from, namespace).await?;
            let there = rows::digest(target.conn(), table, of.to, namespace).await?;
            found.rows += here.rows;
            found.has_changed |= here != there;
            wanted.push((table, here));
        }
        if !found.has_changed {
            return Ok(found);
        }
        sqlx::query("INSERT INTO owners (shard_key, user_id, moving_to) VALUES ($1, $2, $1) ON CONFLICT DO NOTHING")
            .bind(key(of.to))
            .bind(id(of.user))
            .execute(target.conn())
            .await
            .map_err(store_error)?;
        sqlx::query("DELETE FROM namespaces WHERE shard_key = $1 AND namespace_id = $2")
            .bind(key(of.to))
            .bind(namespace.as_bytes().to_vec())
            .execute(target.conn())
            .await
            .map_err(store_error)?;
        for (table, _) in &wanted {
            rows::carry(&mut source, target.conn(), *table, (of.from, of.to), namespace).await?;
        }
        for (table, here) in &wanted {
            if rows::digest(target.conn(), *table, of.to, namespace).await? != *here {
                return Err(StoreError::Corrupt(format!("the rows of {} in shard {} are not those of shard {}", table.0, of.to, of.from)));
            }
        }
        count_usage(target.conn(), of.to, of.user).await?;
        target.commit().await?;
        Ok(found)
    }

    async fn hold(&self, of: &MoveRow, for_ms: i64) -> Result<i64, StoreError> {
        let mut tx = self.shard(of.from)?.begin().await?;
        // Also of a user who has nothing there yet: a namespace that is made now waits for this row.
        sqlx::query("INSERT INTO owners (shard_key, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(key(of.from))
            .bind(id(of.user))
            .execute(tx.conn())
            .await
            .map_err(store_error)?;
        let row = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $1")
            .bind(for_ms)
            .fetch_one(tx.conn())
            .await
            .map_err(store_error)?;
        let until_ms: i64 = row.try_get(0).map_err(store_error)?;
        mark(tx.conn(), of.from, of.user, Some(of.to), Some(until_ms)).await?;
        tx.commit().await?;
        Ok(until_ms)
    }

    async fn release(&self, of: &MoveRow) -> Result<(), StoreError> {
        let mut tx = self.shard(of.from)?.begin().await?;
        mark(tx.conn(), of.from, of.user, None, None).await?;
        tx.commit().await
    }

    async fn switch(&self, of: &MoveRow, until_ms: i64) -> Result<Switched, StoreError> {
        let mut old = self.shard(of.from)?.begin().await?;
        if !is_held(old.conn(), of, until_ms).await? {
            return Ok(Switched::Lapsed);
        }
        // From here on no writer gets in, whatever the time: the rows are locked until the directory has changed.
        let here = namespaces_in(old.conn(), of.from, of.user).await?;
        let there = namespaces_in(&mut *self.shard(of.to)?.read().await?, of.to, of.user).await?;
        if here != there {
            return Ok(Switched::Lapsed);
        }
        if self.is_directory(of.from) {
            if !lead_on(old.conn(), of).await? {
                return Ok(Switched::Gone);
            }
            old.commit().await?;
            here.iter().for_each(|namespace| self.forget_place(*namespace));
            return Ok(Switched::Done);
        }
        let mut directory = self.directory().begin().await?;
        if !lead_on(directory.conn(), of).await? {
            return Ok(Switched::Gone);
        }
        directory.commit().await?;
        old.rollback().await?;
        here.iter().for_each(|namespace| self.forget_place(*namespace));
        Ok(Switched::Done)
    }

    async fn arrive(&self, of: &MoveRow) -> Result<(), StoreError> {
        let mut tx = self.shard(of.to)?.begin().await?;
        mark(tx.conn(), of.to, of.user, None, None).await?;
        tx.commit().await
    }

    async fn clear(&self, of: Shard, user: UserId) -> Result<(), StoreError> {
        if self.place_of(user).await? == Some(of) {
            return Err(StoreError::Conflict(format!("the content of a user who is in shard {of}")));
        }
        let mut tx = self.shard(of)?.begin().await?;
        tx.unhurried().await?;
        sqlx::query("DELETE FROM owners WHERE shard_key = $1 AND user_id = $2")
            .bind(key(of))
            .bind(id(user))
            .execute(tx.conn())
            .await
            .map_err(store_error)?;
        tx.commit().await
    }
}
