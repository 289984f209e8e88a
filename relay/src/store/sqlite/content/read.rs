//! [`ContentStore`] on the reader pool.

use super::{bytes, chunks, count, decode_state, history, nodes, regions, signed, sweep, uploads};
use crate::store::StoreError;
use crate::store::accounts::AccountStore;
use crate::store::content::*;
use crate::store::moves::ShardMoves;
use crate::store::sqlite::{Sqlite, store_error};
use async_trait::async_trait;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, Epoch, NamespaceId, NodeId, ReplicaId, UserId};
use sqlx::pool::PoolConnection;
use sqlx::{QueryBuilder, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

impl Sqlite {
    async fn read(&self) -> Result<PoolConnection<sqlx::Sqlite>, StoreError> {
        self.reader().acquire().await.map_err(store_error)
    }

    /// Of one run there is one process: what it drew at its start is its replica.
    pub(super) fn known_identity(&self) -> Option<Identity> {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, identity: Identity) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        identity
    }

    async fn stored_identity(&self) -> Result<Option<Identity>, StoreError> {
        let mut conn = self.read().await?;
        let row = sqlx::query("SELECT epoch, replica FROM relay").fetch_optional(&mut *conn).await.map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Identity { epoch: Epoch::from_bytes(bytes(&row, 0)?), replica: ReplicaId::from_bytes(bytes(&row, 1)?) }))
    }
}

#[async_trait]
impl ContentStore for Sqlite {
    /// There is one writer, whatever the scope.
    async fn begin(&self, _: Scope) -> Result<Box<dyn ContentTx>, StoreError> {
        self.begin_content().await
    }

    fn shards(&self) -> Vec<Shard> {
        vec![Shard::default()]
    }

    async fn shard_of(&self, _: UserId) -> Result<Shard, StoreError> {
        Ok(Shard::default())
    }

    async fn identity(&self, fresh: Identity, now_ms: i64) -> Result<Identity, StoreError> {
        if let Some(identity) = self.known_identity() {
            return Ok(identity);
        }
        if let Some(stored) = self.stored_identity().await? {
            return Ok(self.remember(Identity { epoch: stored.epoch, replica: fresh.replica }));
        }
        sqlx::query("INSERT OR IGNORE INTO relay (one, epoch, replica, created_at) VALUES (1, ?1, ?2, ?3)")
            .bind(fresh.epoch.as_bytes().to_vec())
            .bind(fresh.replica.as_bytes().to_vec())
            .bind(now_ms)
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        let stored = self.stored_identity().await?.ok_or_else(|| StoreError::Corrupt("the relay has no identity".into()))?;
        Ok(self.remember(Identity { epoch: stored.epoch, replica: fresh.replica }))
    }

    async fn replace_identity(&self, fresh: Identity, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("INSERT OR REPLACE INTO relay (one, epoch, replica, created_at) VALUES (1, ?1, ?2, ?3)")
            .bind(fresh.epoch.as_bytes().to_vec())
            .bind(fresh.replica.as_bytes().to_vec())
            .bind(now_ms)
            .execute(self.writer())
            .await
            .map_err(store_error)?;
        self.remember(fresh);
        Ok(())
    }

    async fn namespaces_of(&self, user: UserId) -> Result<Vec<NamespaceRow>, StoreError> {
        nodes::namespaces_of(&mut *self.read().await?, user).await
    }

    async fn namespace_for(&self, namespace: NamespaceId, user: UserId) -> Result<Option<NamespaceRow>, StoreError> {
        nodes::namespace_for(&mut *self.read().await?, namespace, user).await
    }

    async fn members(&self, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError> {
        nodes::members(&mut *self.read().await?, namespace).await
    }

    async fn feed(&self, namespace: NamespaceId, since: u64, limit_nodes: usize, limit_bytes: usize) -> Result<FeedSlice, StoreError> {
        let mut snapshot = self.reader().begin().await.map_err(store_error)?;
        let head_seq = nodes::head(&mut snapshot, namespace).await?;
        let since_is_known = since == 0 || nodes::is_known(&mut snapshot, namespace, since).await?;
        let nodes = nodes::feed(&mut snapshot, namespace, since, limit_nodes, limit_bytes).await?;
        Ok(FeedSlice { head_seq, since_is_known, nodes })
    }

    async fn nodes(&self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError> {
        nodes::nodes(&mut *self.read().await?, namespace, ids).await
    }

    async fn all_nodes(&self, namespace: NamespaceId) -> Result<FeedSlice, StoreError> {
        self.feed(namespace, 0, usize::MAX, usize::MAX).await
    }

    async fn locate_node(&self, user: UserId, node: NodeId) -> Result<Vec<NamespaceRow>, StoreError> {
        nodes::locate_node(&mut *self.read().await?, user, node).await
    }

    async fn locate_shared(&self, user: UserId, node: NodeId) -> Result<Vec<NamespaceRow>, StoreError> {
        nodes::shared_namespaces(&mut *self.read().await?, user, node, None).await
    }

    async fn find_content(
        &self,
        user: UserId,
        beside: NamespaceId,
        hash: ContentHash,
        size_bytes: u64,
    ) -> Result<Option<(NamespaceId, NodeId)>, StoreError> {
        let mut conn = self.read().await?;
        let row = sqlx::query(
            "SELECT f.namespace_id, f.file_id FROM files f JOIN members m ON m.namespace_id = f.namespace_id AND m.user_id = ?1
             WHERE f.file_hash = ?2 AND f.file_size = ?3 AND f.is_deleted = 0 ORDER BY f.namespace_id <> ?4 LIMIT 1",
        )
        .bind(user.as_bytes().to_vec())
        .bind(hash.as_bytes().to_vec())
        .bind(signed(size_bytes))
        .bind(beside.as_bytes().to_vec())
        .fetch_optional(&mut *conn)
        .await
        .map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((NamespaceId::from_bytes(bytes(&row, 0)?), NodeId::from_bytes(bytes(&row, 1)?))))
    }

    async fn first_seq_since(&self, namespace: NamespaceId, since_ms: i64) -> Result<Option<u64>, StoreError> {
        nodes::first_seq_since(&mut *self.read().await?, namespace, since_ms).await
    }

    async fn deleted(&self, namespace: NamespaceId, before_seq: u64, limit: usize) -> Result<Vec<DeletedRow>, StoreError> {
        nodes::deleted(&mut *self.read().await?, namespace, before_seq, limit).await
    }

    async fn deleted_below(&self, namespace: NamespaceId, node: NodeId, limit: usize) -> Result<Vec<TrashedNode>, StoreError> {
        nodes::deleted_below(&mut *self.read().await?, namespace, node, limit).await
    }

    async fn changed_since(&self, namespace: NamespaceId, query: ChangesQuery<'_>) -> Result<Vec<Changed>, StoreError> {
        // One snapshot: a node and its history belong together.
        history::changed_since(&mut *self.reader().begin().await.map_err(store_error)?, namespace, query).await
    }

    async fn history_since(&self, namespace: NamespaceId) -> Result<i64, StoreError> {
        history::history_since(&mut *self.read().await?, namespace).await
    }

    async fn authors(&self, namespace: NamespaceId) -> Result<Vec<AuthorRow>, StoreError> {
        history::authors(&mut *self.read().await?, namespace).await
    }

    async fn rewind(&self, namespace: NamespaceId, id: [u8; 16]) -> Result<Option<RewindRow>, StoreError> {
        history::rewind(&mut *self.read().await?, namespace, id).await
    }

    async fn versions(&self, namespace: NamespaceId, node: NodeId) -> Result<Vec<VersionRow>, StoreError> {
        nodes::versions(&mut *self.read().await?, namespace, node).await
    }

    async fn version(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<Option<VersionRow>, StoreError> {
        nodes::version(&mut *self.read().await?, namespace, version_id).await
    }

    async fn version_chunks(&self, _: NamespaceId, version_id: [u8; 16]) -> Result<Vec<ChunkRef>, StoreError> {
        nodes::version_chunks(&mut *self.read().await?, version_id).await
    }

    async fn held(&self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError> {
        chunks::held(&mut *self.read().await?, namespace, ids).await
    }

    async fn locate_chunks(
        &self,
        namespace: NamespaceId,
        ids: &[ChunkId],
        committed_only: bool,
    ) -> Result<BTreeMap<ChunkId, ChunkLocation>, StoreError> {
        chunks::locate(&mut *self.read().await?, namespace, ids, committed_only).await
    }

    async fn stored(&self, _: NamespaceId, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
        chunks::stored(&mut *self.read().await?, ids).await
    }

    async fn lacks_since(&self, namespace: NamespaceId) -> Result<Option<i64>, StoreError> {
        chunks::lacks_since(&mut *self.read().await?, namespace).await
    }

    async fn lacks(&self, namespace: NamespaceId, after: Option<ChunkId>, limit: usize) -> Result<Vec<ChunkId>, StoreError> {
        chunks::lacks(&mut *self.read().await?, namespace, after, limit).await
    }

    async fn degraded_versions(&self, limit: usize) -> Result<(u64, Vec<DegradedVersion>), StoreError> {
        sweep::degraded_versions(&mut *self.read().await?, limit).await
    }

    async fn stored_chunks(&self, _: Shard, after: Option<ChunkId>, limit: usize) -> Result<Vec<StoredChunk>, StoreError> {
        let mut query = QueryBuilder::new("SELECT chunk_hash, length, pack_id, offset, damaged_at IS NOT NULL FROM chunks");
        if let Some(after) = after {
            query.push(" WHERE chunk_hash > ").push_bind(after.as_bytes().to_vec());
        }
        query.push(" ORDER BY chunk_hash LIMIT ").push_bind(signed(limit as u64));
        let mut conn = self.read().await?;
        let rows = query.build().fetch_all(&mut *conn).await.map_err(store_error)?;
        rows.iter()
            .map(|row| Ok(StoredChunk { location: chunks::location(row, 0)?, is_damaged: row.try_get(4).map_err(store_error)? }))
            .collect()
    }

    async fn pack_chunks(&self, _: Shard, pack: PackId) -> Result<Vec<ChunkLocation>, StoreError> {
        let mut conn = self.read().await?;
        let rows = sqlx::query("SELECT chunk_hash, length, pack_id, offset FROM chunks WHERE pack_id = ?1 ORDER BY offset")
            .bind(pack.0.to_vec())
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        rows.iter().map(|row| chunks::location(row, 0)).collect()
    }

    async fn packs(&self) -> Result<Vec<PackRow>, StoreError> {
        super::packs_of(&mut *self.read().await?).await
    }

    async fn copies(&self, packs: &[PackId]) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError> {
        regions::copies(&mut *self.read().await?, packs).await
    }

    async fn packs_in(&self, region: &str, or_unplaced: bool, after: Option<PackId>, limit: usize) -> Result<Vec<PackRow>, StoreError> {
        regions::packs_in(&mut *self.read().await?, region, or_unplaced, after, limit).await
    }

    async fn home_region(&self, user: UserId) -> Result<Option<String>, StoreError> {
        regions::home_region(&mut *self.read().await?, user).await
    }

    async fn quota(&self, user: UserId) -> Result<Quota, StoreError> {
        chunks::quota(&mut *self.read().await?, user).await
    }

    async fn upload(&self, user: UserId, version_id: [u8; 16]) -> Result<Option<UploadRow>, StoreError> {
        Ok(uploads::get(&mut *self.read().await?, version_id).await?.filter(|upload| upload.user == user))
    }

    async fn upload_chunks(&self, _: NamespaceId, version_id: [u8; 16]) -> Result<BTreeMap<u64, ChunkRef>, StoreError> {
        uploads::chunks(&mut *self.read().await?, version_id).await
    }

    async fn upload_chunk_count(&self, _: NamespaceId, version_id: [u8; 16]) -> Result<u64, StoreError> {
        uploads::chunk_count(&mut *self.read().await?, version_id).await
    }

    async fn check_rows(&self) -> Result<RowFaults, StoreError> {
        sweep::check_rows(&mut *self.read().await?).await
    }

    async fn check_states(&self, namespace: NamespaceId) -> Result<u64, StoreError> {
        let mut conn = self.read().await?;
        let rows = sqlx::query("SELECT state FROM files WHERE namespace_id = ?1")
            .bind(namespace.as_bytes().to_vec())
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        Ok(rows.iter().filter(|row| row.try_get::<&[u8], _>(0).map_or(true, |s| decode_state(s).is_err())).count() as u64)
    }

    async fn sweep_held_until_ms(&self) -> Result<i64, StoreError> {
        let rows = sqlx::query("SELECT value FROM settings WHERE key LIKE 'sweep_held%'")
            .fetch_all(&mut *self.read().await?)
            .await
            .map_err(store_error)?;
        let mut until_ms = 0;
        for row in &rows {
            until_ms = until_ms.max(row.try_get::<&str, _>(0).map_err(store_error)?.parse().unwrap_or(0));
        }
        Ok(until_ms)
    }

    async fn hold_sweep(&self, holder: [u8; 16], until_ms: i64) -> Result<(), StoreError> {
        AccountStore::put_setting(self, &sweep_hold(holder), &until_ms.to_string(), until_ms).await
    }

    async fn release_sweep(&self, holder: [u8; 16], now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM settings WHERE key = ?1 OR (key LIKE 'sweep_held%' AND updated_at < ?2)")
            .bind(sweep_hold(holder))
            .bind(now_ms)
            .execute(self.writer())
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn namespace_ids(&self) -> Result<Vec<NamespaceId>, StoreError> {
        let mut conn = self.read().await?;
        let rows = sqlx::query("SELECT namespace_id FROM namespaces").fetch_all(&mut *conn).await.map_err(store_error)?;
        rows.iter().map(|row| bytes(row, 0).map(NamespaceId::from_bytes)).collect()
    }

    /// One file is one shard.
    fn moves(&self) -> Option<&dyn ShardMoves> {
        None
    }

    async fn shard_totals(&self) -> Result<Vec<ShardTotals>, StoreError> {
        let mut conn = self.read().await?;
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM namespaces), (SELECT count(*) FROM files), (SELECT count(*) FROM file_versions),
             (SELECT coalesce(sum(file_size), 0) FROM file_versions), (SELECT count(*) FROM chunks),
             (SELECT coalesce(sum(length), 0) FROM chunks), (SELECT count(*) FROM packs), (SELECT coalesce(sum(length), 0) FROM packs),
             (SELECT count(*) FROM chunks WHERE orphaned_at IS NOT NULL), (SELECT count(*) FROM chunks WHERE damaged_at IS NOT NULL),
             (SELECT count(*) FROM uploads WHERE completed_at IS NULL), (SELECT count(*) FROM users)",
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(store_error)?;
        let totals = StorageTotals {
            namespaces: count(&row, 0)?,
            nodes: count(&row, 1)?,
            versions: count(&row, 2)?,
            version_bytes: count(&row, 3)?,
            chunks: count(&row, 4)?,
            chunk_bytes: count(&row, 5)?,
            packs: count(&row, 6)?,
            pack_bytes: count(&row, 7)?,
            orphaned_chunks: count(&row, 8)?,
            damaged_chunks: count(&row, 9)?,
            uploads_open: count(&row, 10)?,
        };
        Ok(vec![ShardTotals { shard: Shard::default(), place: "sqlite".into(), users: count(&row, 11)?, totals }])
    }
}
