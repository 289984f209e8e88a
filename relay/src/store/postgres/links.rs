//! Public links on PostgreSQL, in the directory database.

use super::rows::{bytes, count, namespace, node as node_id, user as user_id};
use super::{Postgres, store_error};
use crate::store::StoreError;
use crate::store::accounts::SecretHash;
use crate::store::columns::{damaged, link_kind, signed};
use crate::store::links::{Counted, Link, LinkChange, LinkId, LinkKind, LinkStore, Visitor};
use async_trait::async_trait;
use ferry_protocol::{NodeId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Decode, Row, Type};

const COLUMNS: &str =
    "l.link_id, l.token_sealed, l.namespace_id, l.node_id, l.maker_id, l.kind, l.password_hash, l.expires_at, l.max_downloads,
    l.downloads, l.created_at, l.revoked_at";

fn get<'r, T>(row: &'r PgRow, column: usize) -> Result<T, StoreError>
where
    T: Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(store_error)
}

fn link_of(row: &PgRow) -> Result<Link, StoreError> {
    let positive = |value: i64| u64::try_from(value).map_err(|_| damaged("max_downloads"));
    Ok(Link {
        link_id: bytes(row, 0)?,
        token_sealed: get(row, 1)?,
        namespace: namespace(row, 2)?,
        node: node_id(row, 3)?,
        maker: user_id(row, 4)?,
        kind: link_kind(get(row, 5)?)?,
        password_hash: get(row, 6)?,
        expires_at_ms: get(row, 7)?,
        max_downloads: get::<Option<i64>>(row, 8)?.map(positive).transpose()?,
        downloads: count(row, 9)?,
        created_at_ms: get(row, 10)?,
        revoked_at_ms: get(row, 11)?,
    })
}

#[async_trait]
impl LinkStore for Postgres {
    async fn insert_link(&self, link: &Link, token: SecretHash, links_max: u32) -> Result<bool, StoreError> {
        let mut tx = self.directory().begin().await?;
        // Counted and stored as one.
        sqlx::query("SELECT 1 FROM users WHERE user_id = $1 FOR UPDATE")
            .bind(link.maker.as_bytes().to_vec())
            .execute(tx.conn())
            .await
            .map_err(store_error)?;
        let row = sqlx::query("SELECT count(*) FROM public_links WHERE maker_id = $1 AND revoked_at IS NULL")
            .bind(link.maker.as_bytes().to_vec())
            .fetch_one(tx.conn())
            .await
            .map_err(store_error)?;
        if get::<i64>(&row, 0)? >= i64::from(links_max) {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO public_links (link_id, token_hash, token_sealed, namespace_id, node_id, maker_id, kind, password_hash, expires_at,
             max_downloads, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(link.link_id.to_vec())
        .bind(token.to_vec())
        .bind(&link.token_sealed)
        .bind(link.namespace.as_bytes().to_vec())
        .bind(link.node.as_bytes().to_vec())
        .bind(link.maker.as_bytes().to_vec())
        .bind(link.kind.as_str())
        .bind(link.password_hash.as_deref())
        .bind(link.expires_at_ms)
        .bind(link.max_downloads.map(signed))
        .bind(link.created_at_ms)
        .execute(tx.conn())
        .await
        .map_err(store_error)?;
        tx.commit().await?;
        Ok(true)
    }

    async fn link_of_token(&self, token: SecretHash) -> Result<Option<(Link, bool)>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS}, u.disabled FROM public_links l JOIN users u ON u.user_id = l.maker_id WHERE l.token_hash = $1");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(token.to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.map(|row| Ok((link_of(&row)?, get(&row, 12)?))).transpose()
    }

    async fn link(&self, link_id: LinkId) -> Result<Option<Link>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM public_links l WHERE l.link_id = $1");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(link_id.to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.map(|row| link_of(&row)).transpose()
    }

    async fn links_of(&self, user: UserId) -> Result<Vec<Link>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM public_links l WHERE l.revoked_at IS NULL AND (l.maker_id = $1
             OR l.namespace_id IN (SELECT m.namespace_id FROM members m WHERE m.user_id = $1 AND m.role = 'owner'))
             ORDER BY l.created_at DESC, l.link_id"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(user.as_bytes().to_vec())
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(link_of).collect()
    }

    async fn update_link(&self, link_id: LinkId, change: &LinkChange) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE public_links SET kind = coalesce($2, kind), password_hash = CASE WHEN $3 THEN $4 ELSE password_hash END,
             expires_at = CASE WHEN $5 THEN $6 ELSE expires_at END, max_downloads = CASE WHEN $7 THEN $8 ELSE max_downloads END
             WHERE link_id = $1 AND revoked_at IS NULL",
        )
        .bind(link_id.to_vec())
        .bind(change.kind.map(LinkKind::as_str))
        .bind(change.password_hash.is_some())
        .bind(change.password_hash.clone().flatten())
        .bind(change.expires_at_ms.is_some())
        .bind(change.expires_at_ms.flatten())
        .bind(change.max_downloads.is_some())
        .bind(change.max_downloads.flatten().map(signed))
        .execute(&mut *self.directory().read().await?)
        .await
        .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn revoke_link(&self, link_id: LinkId, now_ms: i64) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE public_links SET revoked_at = $2 WHERE link_id = $1 AND revoked_at IS NULL")
            .bind(link_id.to_vec())
            .bind(now_ms)
            .execute(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn count_download(
        &self,
        link_id: LinkId,
        visitor: Visitor,
        node: NodeId,
        remembered_max: u64,
        now_ms: i64,
    ) -> Result<Counted, StoreError> {
        const SEEN: &str = "SELECT 1 FROM public_link_downloads WHERE link_id = $1 AND visitor = $2 AND node_id = $3";
        // Parts of a film are asked for by the dozen: only what is new takes the row's lock.
        let seen = |sql| sqlx::query(sql).bind(link_id.to_vec()).bind(visitor.to_vec()).bind(node.as_bytes().to_vec());
        if seen(SEEN).fetch_optional(&mut *self.directory().read().await?).await.map_err(store_error)?.is_some() {
            return Ok(Counted::Again);
        }
        let mut tx = self.directory().begin().await?;
        sqlx::query("SELECT 1 FROM public_links WHERE link_id = $1 FOR UPDATE")
            .bind(link_id.to_vec())
            .execute(tx.conn())
            .await
            .map_err(store_error)?;
        if seen(SEEN).fetch_optional(tx.conn()).await.map_err(store_error)?.is_some() {
            return Ok(Counted::Again);
        }
        let row = sqlx::query(
            "UPDATE public_links SET downloads = downloads + 1 WHERE link_id = $1 AND (max_downloads IS NULL OR downloads < max_downloads)
             RETURNING max_downloads IS NOT NULL OR downloads <= $2",
        )
        .bind(link_id.to_vec())
        .bind(signed(remembered_max))
        .fetch_optional(tx.conn())
        .await
        .map_err(store_error)?;
        let Some(row) = row else { return Ok(Counted::UsedUp) };
        if get::<bool>(&row, 0)? {
            sqlx::query("INSERT INTO public_link_downloads (link_id, visitor, node_id, counted_at) VALUES ($1, $2, $3, $4)")
                .bind(link_id.to_vec())
                .bind(visitor.to_vec())
                .bind(node.as_bytes().to_vec())
                .bind(now_ms)
                .execute(tx.conn())
                .await
                .map_err(store_error)?;
        }
        tx.commit().await?;
        Ok(Counted::New)
    }

    async fn forget_links(&self, visits_before_ms: i64, ended_before_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.directory().begin().await?;
        for (sql, before_ms) in [
            ("DELETE FROM public_link_downloads WHERE counted_at < $1", visits_before_ms),
            ("DELETE FROM public_links WHERE expires_at < $1 OR revoked_at < $1", ended_before_ms),
        ] {
            sqlx::query(sql).bind(before_ms).execute(tx.conn()).await.map_err(store_error)?;
        }
        tx.commit().await
    }
}
