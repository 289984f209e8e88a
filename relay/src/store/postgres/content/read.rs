//! [`ContentStore`]: each read goes to the shard of its namespace; what concerns all shards is put together here.

use super::write::PgTx;
use super::{chunks, follow, history, nodes, regions, sweep, uploads, versions};
use crate::store::StoreError;
use crate::store::accounts::AccountStore;
use crate::store::columns::{decode_state, signed};
use crate::store::content::*;
use crate::store::moves::ShardMoves;
use crate::store::postgres::places::{self, Membership, key};
use crate::store::postgres::rows::{namespace as namespace_id, node as node_id};
use crate::store::postgres::{Postgres, store_error};
use async_trait::async_trait;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, NamespaceId, NodeId, UserId};
use sqlx::pool::PoolConnection;
use sqlx::{Postgres as Dialect, Row};
use std::collections::{BTreeMap, BTreeSet};

impl Postgres {
    /// A connection to the shard of a namespace. A namespace that is nowhere is looked for in the directory, where it is not.
    pub(super) async fn read_at(&self, namespace: NamespaceId) -> Result<(Shard, PoolConnection<Dialect>), StoreError> {
        let shard = self.place(namespace).await?.unwrap_or_default();
        Ok((shard, self.shard(shard)?.read().await?))
    }

    /// The user's memberships by the shards in which they stand.
    async fn memberships_by_shard(&self, user: UserId) -> Result<BTreeMap<Shard, Vec<(NamespaceId, Role)>>, StoreError> {
        let asked = self.ask_places();
        let list = places::memberships(&mut *self.directory().read().await?, user).await?;
        let mut by_shard: BTreeMap<Shard, Vec<(NamespaceId, Role)>> = BTreeMap::new();
        for membership in list {
            self.learn_place(&membership, asked);
            by_shard.entry(membership.shard).or_default().push((membership.namespace, membership.role));
        }
        Ok(by_shard)
    }
}

/// The user's own home first, then by name; a database's own order of texts is nobody's.
fn in_order(user: UserId, by_name: bool, mut rows: Vec<NamespaceRow>) -> Vec<NamespaceRow> {
    rows.sort_by(|a, b| {
        let not_home = |row: &NamespaceRow| !(row.is_home && row.owner == user);
        let names = if by_name { a.name.cmp(&b.name) } else { std::cmp::Ordering::Equal };
        not_home(a).cmp(&not_home(b)).then(names).then(a.id.cmp(&b.id))
    });
    rows
}

#[async_trait]
impl ContentStore for Postgres {
    async fn begin(&self, scope: Scope) -> Result<Box<dyn ContentTx>, StoreError> {
        Ok(Box::new(PgTx::begin(self, scope).await?))
    }

    fn shards(&self) -> Vec<Shard> {
        self.0.shards.keys().copied().collect()
    }

    async fn shard_of(&self, user: UserId) -> Result<Shard, StoreError> {
        Ok(places::of_user(&mut *self.directory().read().await?, user).await?.unwrap_or_default())
    }

    async fn identity(&self, fresh: Identity, now_ms: i64) -> Result<Identity, StoreError> {
        self.settle_identity(fresh, now_ms).await
    }

    async fn replace_identity(&self, fresh: Identity, now_ms: i64) -> Result<(), StoreError> {
        self.renew_identity(fresh, now_ms).await
    }

    async fn namespaces_of(&self, user: UserId) -> Result<Vec<NamespaceRow>, StoreError> {
        if let Some(shard) = self.only_shard() {
            let rows = nodes::all_seen_by(&mut *self.directory().read().await?, shard, user).await?;
            return Ok(in_order(user, true, rows));
        }
        let mut rows = Vec::new();
        for (shard, wanted) in self.memberships_by_shard(user).await? {
            rows.extend(nodes::namespaces(&mut *self.shard(shard)?.read().await?, shard, &wanted).await?);
        }
        Ok(in_order(user, true, rows))
    }

    async fn namespace_for(&self, namespace: NamespaceId, user: UserId) -> Result<Option<NamespaceRow>, StoreError> {
        if let Some(shard) = self.only_shard() {
            return nodes::one_seen_by(&mut *self.directory().read().await?, shard, user, namespace).await;
        }
        let asked = self.ask_places();
        let mut conn = self.directory().read().await?;
        let Some(found) = places::membership(&mut conn, namespace, user).await? else { return Ok(None) };
        self.learn_place(&found, asked);
        let Membership { shard, role, .. } = found;
        if !self.is_directory(shard) {
            drop(conn);
            conn = self.shard(shard)?.read().await?;
        }
        Ok(nodes::namespaces(&mut conn, shard, &[(namespace, role)]).await?.pop())
    }

    async fn members(&self, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError> {
        nodes::members(&mut *self.directory().read().await?, namespace).await
    }

    async fn feed(&self, namespace: NamespaceId, since: u64, limit_nodes: usize, limit_bytes: usize) -> Result<FeedSlice, StoreError> {
        let shard = self.place(namespace).await?.unwrap_or_default();
        let page = follow::Page { shard, namespace, since, limit_nodes, limit_bytes };
        let db = self.shard(shard)?;
        if let Some(slice) = follow::from_replica(db, page).await? {
            return Ok(slice);
        }
        if page.is_one_statement() {
            return follow::slice(&mut *db.read().await?, page).await;
        }
        let mut snapshot = db.snapshot().await?;
        let slice = follow::slice(&mut snapshot, page).await?;
        snapshot.commit().await.map_err(store_error)?;
        Ok(slice)
    }

    async fn nodes(&self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        nodes::nodes(&mut conn, shard, namespace, ids).await
    }

    async fn all_nodes(&self, namespace: NamespaceId) -> Result<FeedSlice, StoreError> {
        self.feed(namespace, 0, usize::MAX, usize::MAX).await
    }

    async fn locate_node(&self, user: UserId, node: NodeId) -> Result<Vec<NamespaceRow>, StoreError> {
        if let Some(shard) = self.only_shard() {
            let rows = nodes::holding_seen_by(&mut *self.directory().read().await?, shard, user, node).await?;
            return Ok(in_order(user, false, rows));
        }
        let mut rows = Vec::new();
        for (shard, list) in self.memberships_by_shard(user).await? {
            let mut conn = self.shard(shard)?.read().await?;
            let ids: Vec<NamespaceId> = list.iter().map(|(id, _)| *id).collect();
            let holding = nodes::holding(&mut conn, shard, &ids, node).await?;
            let wanted: Vec<_> = list.into_iter().filter(|(id, _)| holding.contains(id)).collect();
            if !wanted.is_empty() {
                rows.extend(nodes::namespaces(&mut conn, shard, &wanted).await?);
            }
        }
        Ok(in_order(user, false, rows))
    }

    async fn locate_shared(&self, user: UserId, node: NodeId) -> Result<Vec<NamespaceRow>, StoreError> {
        let found = places::shared(&mut *self.directory().read().await?, user, node, None).await?;
        let mut rows = Vec::new();
        for Membership { namespace, role, shard } in found {
            rows.extend(nodes::namespaces(&mut *self.shard(shard)?.read().await?, shard, &[(namespace, role)]).await?);
        }
        Ok(rows)
    }

    async fn find_content(
        &self,
        user: UserId,
        beside: NamespaceId,
        hash: ContentHash,
        size_bytes: u64,
    ) -> Result<Option<(NamespaceId, NodeId)>, StoreError> {
        let Some(shard) = self.place(beside).await? else { return Ok(None) };
        let list = self.memberships_by_shard(user).await?.remove(&shard).unwrap_or_default();
        let ids: Vec<Vec<u8>> = list.iter().map(|(id, _)| id.as_bytes().to_vec()).collect();
        let row = sqlx::query(
            "SELECT namespace_id, file_id FROM files WHERE shard_key = $1 AND namespace_id = ANY($2) AND file_hash = $3 AND file_size = $4
             AND NOT is_deleted ORDER BY namespace_id <> $5 LIMIT 1",
        )
        .bind(key(shard))
        .bind(ids)
        .bind(hash.as_bytes().to_vec())
        .bind(signed(size_bytes))
        .bind(beside.as_bytes().to_vec())
        .fetch_optional(&mut *self.shard(shard)?.read().await?)
        .await
        .map_err(store_error)?;
        row.map(|row| Ok((namespace_id(&row, 0)?, node_id(&row, 1)?))).transpose()
    }

    async fn first_seq_since(&self, namespace: NamespaceId, since_ms: i64) -> Result<Option<u64>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        nodes::first_seq_since(&mut conn, shard, namespace, since_ms).await
    }

    async fn deleted(&self, namespace: NamespaceId, before_seq: u64, limit: usize) -> Result<Vec<DeletedRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        nodes::deleted(&mut conn, shard, namespace, before_seq, limit).await
    }

    async fn deleted_below(&self, namespace: NamespaceId, node: NodeId, limit: usize) -> Result<Vec<TrashedNode>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        nodes::deleted_below(&mut conn, shard, namespace, node, limit).await
    }

    async fn changed_since(&self, namespace: NamespaceId, query: ChangesQuery<'_>) -> Result<Vec<Changed>, StoreError> {
        let shard = self.place(namespace).await?.unwrap_or_default();
        let mut snapshot = self.shard(shard)?.snapshot().await?;
        let changed = history::changed_since(&mut snapshot, shard, namespace, query).await?;
        snapshot.commit().await.map_err(store_error)?;
        Ok(changed)
    }

    async fn history_since(&self, namespace: NamespaceId) -> Result<i64, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        history::history_since(&mut conn, shard, namespace).await
    }

    async fn authors(&self, namespace: NamespaceId) -> Result<Vec<AuthorRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        let writers = history::writers(&mut conn, shard, namespace).await?;
        drop(conn);
        history::authors(&mut *self.directory().read().await?, writers).await
    }

    async fn rewind(&self, namespace: NamespaceId, id: [u8; 16]) -> Result<Option<RewindRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        history::rewind(&mut conn, shard, namespace, id).await
    }

    async fn versions(&self, namespace: NamespaceId, node: NodeId) -> Result<Vec<VersionRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        versions::of_file(&mut conn, shard, namespace, node).await
    }

    async fn version(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<Option<VersionRow>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        versions::one(&mut conn, shard, namespace, version_id).await
    }

    async fn version_chunks(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<Vec<ChunkRef>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        versions::chunks(&mut conn, shard, version_id).await
    }

    async fn held(&self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        chunks::held(&mut conn, shard, namespace, ids).await
    }

    async fn locate_chunks(
        &self,
        namespace: NamespaceId,
        ids: &[ChunkId],
        committed_only: bool,
    ) -> Result<BTreeMap<ChunkId, ChunkLocation>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        chunks::locate(&mut conn, shard, namespace, ids, committed_only).await
    }

    async fn stored(&self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        chunks::stored(&mut conn, shard, ids).await
    }

    async fn lacks_since(&self, namespace: NamespaceId) -> Result<Option<i64>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        chunks::lacks_since(&mut conn, shard, namespace).await
    }

    async fn lacks(&self, namespace: NamespaceId, after: Option<ChunkId>, limit: usize) -> Result<Vec<ChunkId>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        chunks::lacks(&mut conn, shard, namespace, after, limit).await
    }

    async fn degraded_versions(&self, limit: usize) -> Result<(u64, Vec<DegradedVersion>), StoreError> {
        let (mut total, mut all) = (0, Vec::new());
        for (shard, db) in &self.0.shards {
            let (of_shard, first) = versions::degraded(&mut *db.unhurried().await?, *shard, limit).await?;
            total += of_shard;
            all.extend(first);
        }
        all.sort_by_key(|v| (v.namespace, v.node, v.number));
        all.truncate(limit);
        Ok((total, all))
    }

    async fn stored_chunks(&self, shard: Shard, after: Option<ChunkId>, limit: usize) -> Result<Vec<StoredChunk>, StoreError> {
        let rows = sqlx::query(
            "SELECT chunk_hash, length, pack_id, \"offset\", damaged_at IS NOT NULL FROM chunks
             WHERE shard_key = $1 AND ($2::bytea IS NULL OR chunk_hash > $2) ORDER BY chunk_hash LIMIT $3",
        )
        .bind(key(shard))
        .bind(after.map(|id| id.as_bytes().to_vec()))
        .bind(signed(limit as u64))
        .fetch_all(&mut *self.shard(shard)?.read().await?)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| Ok(StoredChunk { location: chunks::location(row, 0)?, is_damaged: row.try_get(4).map_err(store_error)? }))
            .collect()
    }

    async fn pack_chunks(&self, shard: Shard, pack: PackId) -> Result<Vec<ChunkLocation>, StoreError> {
        let rows = sqlx::query(
            "SELECT chunk_hash, length, pack_id, \"offset\" FROM chunks WHERE shard_key = $1 AND pack_id = $2 ORDER BY \"offset\"",
        )
        .bind(key(shard))
        .bind(pack.0.to_vec())
        .fetch_all(&mut *self.shard(shard)?.read().await?)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| chunks::location(row, 0)).collect()
    }

    async fn packs(&self) -> Result<Vec<PackRow>, StoreError> {
        let mut all = Vec::new();
        for (shard, db) in &self.0.shards {
            let rows = sqlx::query("SELECT pack_id, length, created_at FROM packs WHERE shard_key = $1")
                .bind(key(*shard))
                .fetch_all(&mut *db.unhurried().await?)
                .await
                .map_err(store_error)?;
            for row in &rows {
                all.push(sweep::pack_row(row)?);
            }
        }
        Ok(all)
    }

    async fn sweep_held_until_ms(&self) -> Result<i64, StoreError> {
        let rows = sqlx::query("SELECT value FROM settings WHERE key LIKE 'sweep_held%'")
            .fetch_all(&mut *self.directory().read().await?)
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
        sqlx::query("DELETE FROM settings WHERE key = $1 OR (key LIKE 'sweep_held%' AND updated_at < $2)")
            .bind(sweep_hold(holder))
            .bind(now_ms)
            .execute(&mut *self.directory().read().await?)
            .await
            .map(drop)
            .map_err(store_error)
    }

    async fn copies(&self, packs: &[PackId]) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError> {
        let mut all = BTreeMap::new();
        for (shard, db) in &self.0.shards {
            all.extend(regions::copies(&mut *db.read().await?, *shard, packs).await?);
        }
        Ok(all)
    }

    async fn packs_in(&self, region: &str, or_unplaced: bool, after: Option<PackId>, limit: usize) -> Result<Vec<PackRow>, StoreError> {
        let mut all = Vec::new();
        for (shard, db) in &self.0.shards {
            all.extend(regions::packs_in(&mut *db.read().await?, *shard, region, or_unplaced, after, limit).await?);
        }
        all.sort_by_key(|pack| pack.id);
        all.truncate(limit);
        Ok(all)
    }

    async fn home_region(&self, user: UserId) -> Result<Option<String>, StoreError> {
        regions::home_region(&mut *self.directory().read().await?, user).await
    }

    async fn quota(&self, user: UserId) -> Result<Quota, StoreError> {
        let (limit_bytes, shard) = {
            let mut conn = self.directory().read().await?;
            let shard = match self.only_shard() {
                Some(only) => only,
                None => places::of_user(&mut conn, user).await?.unwrap_or_default(),
            };
            (chunks::limit(&mut conn, user).await?, shard)
        };
        let used_bytes = chunks::used(&mut *self.shard(shard)?.read().await?, shard, user, false).await?;
        Ok(Quota { used_bytes, limit_bytes })
    }

    /// An upload stands beside the namespace that it goes to: in one of the shards where the user has any.
    async fn upload(&self, user: UserId, version_id: [u8; 16]) -> Result<Option<UploadRow>, StoreError> {
        let shards: Vec<Shard> = match self.only_shard() {
            Some(only) => vec![only],
            None => self.memberships_by_shard(user).await?.into_keys().collect(),
        };
        for shard in shards {
            let found = uploads::get(&mut *self.shard(shard)?.read().await?, shard, version_id).await?;
            let Some(upload) = found.filter(|upload| upload.user == user) else { continue };
            // What a user who moved left behind is not it.
            if self.place(upload.namespace).await? == Some(shard) {
                return Ok(Some(upload));
            }
        }
        Ok(None)
    }

    async fn upload_chunks(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<BTreeMap<u64, ChunkRef>, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        uploads::chunks(&mut conn, shard, version_id).await
    }

    async fn upload_chunk_count(&self, namespace: NamespaceId, version_id: [u8; 16]) -> Result<u64, StoreError> {
        let (shard, mut conn) = self.read_at(namespace).await?;
        uploads::chunk_count(&mut conn, shard, version_id).await
    }

    async fn check_rows(&self) -> Result<RowFaults, StoreError> {
        let mut sum = RowFaults::default();
        for (shard, db) in &self.0.shards {
            let found = sweep::check_rows(&mut *db.unhurried().await?, *shard).await?;
            sum.chunks_missing += found.chunks_missing;
            sum.refs_wrong += found.refs_wrong;
            sum.usage_wrong += found.usage_wrong;
            sum.packs_missing += found.packs_missing;
        }
        Ok(sum)
    }

    async fn check_states(&self, namespace: NamespaceId) -> Result<u64, StoreError> {
        let shard = self.place(namespace).await?.unwrap_or_default();
        let rows = sqlx::query("SELECT state FROM files WHERE shard_key = $1 AND namespace_id = $2")
            .bind(key(shard))
            .bind(namespace.as_bytes().to_vec())
            .fetch_all(&mut *self.shard(shard)?.unhurried().await?)
            .await
            .map_err(store_error)?;
        Ok(rows.iter().filter(|row| row.try_get::<&[u8], _>(0).map_or(true, |s| decode_state(s).is_err())).count() as u64)
    }

    async fn namespace_ids(&self) -> Result<Vec<NamespaceId>, StoreError> {
        // One that moves stands in two shards for a while.
        let mut all = BTreeSet::new();
        for (shard, db) in &self.0.shards {
            let rows = sqlx::query("SELECT namespace_id FROM namespaces WHERE shard_key = $1")
                .bind(key(*shard))
                .fetch_all(&mut *db.read().await?)
                .await
                .map_err(store_error)?;
            for row in &rows {
                all.insert(namespace_id(row, 0)?);
            }
        }
        Ok(all.into_iter().collect())
    }

    fn moves(&self) -> Option<&dyn ShardMoves> {
        Some(self)
    }

    async fn shard_totals(&self) -> Result<Vec<ShardTotals>, StoreError> {
        let users = places::users_by_shard(&mut *self.directory().read().await?).await?;
        let mut all = Vec::new();
        for (shard, db) in &self.0.shards {
            let totals = sweep::totals(&mut *db.unhurried().await?, *shard).await?;
            all.push(ShardTotals { shard: *shard, place: db.label().to_owned(), users: users.get(shard).copied().unwrap_or(0), totals });
        }
        Ok(all)
    }
}
